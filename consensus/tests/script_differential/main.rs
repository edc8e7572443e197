//! Our script interpreter and [`TxVerifier`] against `libbitcoinconsensus`: the verdict must be the same for any script
//! under any consensus flags.
//!
//! Cases are correctly signed spends of the known forms, often damaged afterwards, and scripts of random operations.
//! The signed digests come from the `bitcoin` crate, so that a wrong digest of ours cannot agree with itself.
//! `IOP_SCRIPT_CASES` sets how many cases are tried (default 20,000), `IOP_SCRIPT_SEED` which ones.

#![allow(clippy::unwrap_used)]

mod maker;

use std::collections::BTreeMap;

use iop_consensus::script::interpreter::{SpendingTx, verify};
use iop_consensus::script::{TxVerifier, flag};
use maker::Maker;

/// Every set of the six consensus flags in which WITNESS comes with P2SH.
fn flag_sets() -> Vec<u32> {
    (0..=flag::CONSENSUS)
        .filter(|set| set & !flag::CONSENSUS == 0)
        .filter(|set| set & flag::WITNESS == 0 || set & flag::P2SH != 0)
        .collect()
}

fn number_from(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().expect("a number"))
}

#[test]
fn both_interpreters_agree_under_every_set_of_consensus_flags() {
    let (cases, seed) = (number_from("IOP_SCRIPT_CASES", 20_000), number_from("IOP_SCRIPT_SEED", 1));
    let sets = flag_sets();
    assert_eq!(sets.len(), 48);
    let mut maker = Maker::new(seed);
    let mut seen = BTreeMap::<String, u64>::new();
    for number in 0..cases {
        let case = maker.case();
        let bytes = bitcoin::consensus::serialize(&case.tx);
        let (spending, judge) = (SpendingTx::new(&case.tx), TxVerifier::new(&case.tx));
        if bytes.len() * case.tx.input.len() > 8 << 20 {
            *seen.entry("large".into()).or_default() += 1;
        }
        // All sets for some cases, three for the others, since most of the time is spent on signatures.
        let tried =
            if number % 16 == 0 { sets.clone() } else { vec![flag::CONSENSUS, 0, maker.dice.pick(&sets)] };
        for flags in tried {
            let ours = verify(&spending, case.input, &case.spent, flags);
            let script = case.spent.script_pubkey.as_bytes();
            let amount = case.spent.value.to_sat();
            let theirs = bitcoinconsensus::verify_with_flags(script, amount, &bytes, None, case.input, flags);
            let judged = judge.verify(case.input, &case.spent, flags);
            assert!(
                ours.is_ok() == theirs.is_ok() && judged.is_ok() == theirs.is_ok(),
                "case {number} of seed {seed}, flags {flags:#x}: {ours:?} here, {theirs:?} there\n{:?}\n{}",
                case.spent,
                hex::encode(&bytes)
            );
            if flags == flag::CONSENSUS {
                *seen.entry(format!("{ours:?}")).or_default() += 1;
            }
        }
        // Additional flags can only forbid more.
        if verify(&spending, case.input, &case.spent, flag::STANDARD).is_ok() {
            assert!(verify(&spending, case.input, &case.spent, flag::CONSENSUS).is_ok());
            *seen.entry("standard".into()).or_default() += 1;
        }
    }
    println!("{seen:#?}");
    // Check that the cases reach the rules: both verdicts are common, and most errors occur.
    assert!(seen["Ok(())"] > cases / 5, "{seen:?}");
    assert!(seen["standard"] > cases / 20, "{seen:?}");
    assert!(seen["large"] > cases / 200, "{seen:?}");
    assert!(seen.len() > 20, "{seen:?}");
}
