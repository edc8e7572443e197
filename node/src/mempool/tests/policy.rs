//! Standardness and scripts: one case for each of the reference's reasons.

use bitcoin::hashes::{hash160, sha256};
use bitcoin::script::PushBytesBuf;

use super::*;

fn key_hash(byte: u8) -> Vec<u8> {
    [&[0x76, 0xa9, 20][..], &[byte; 20], &[0x88, 0xac]].concat()
}

fn strict() -> World {
    World::with(Policy::default())
}

/// A transaction that is standard except for what a case changes. Its input script has one push.
fn standard(world: &mut World, change: impl FnOnce(&mut Transaction)) -> Transaction {
    let redeem = vec![0x51];
    let by_hash = [&[0xa9, 20][..], &hash160::Hash::hash(&redeem).to_byte_array(), &[0x87]].concat();
    let coin = world.coin_with(1, &by_hash);
    let mut tx = spend(&[coin], vec![COIN_VALUE - 100_000]);
    tx.input[0].script_sig = ScriptBuf::from_bytes(vec![1, 0x51]);
    tx.output[0].script_pubkey = ScriptBuf::from_bytes(key_hash(1));
    change(&mut tx);
    tx
}

fn output_of(value: u64, script: Vec<u8>) -> TxOut {
    TxOut { value: Amount::from_sat(value), script_pubkey: ScriptBuf::from_bytes(script) }
}

fn data(bytes: usize) -> Vec<u8> {
    ScriptBuf::new_op_return(PushBytesBuf::try_from(vec![7; bytes]).unwrap()).into_bytes()
}

#[test]
fn forms_are_refused_with_the_references_words() {
    type Change = Box<dyn FnOnce(&mut Transaction)>;
    let change = |act: fn(&mut Transaction)| -> Change { Box::new(act) };
    let key = [&[33, 2][..], &[1; 32]].concat();
    let multisig = |n: u8| {
        let keys: Vec<u8> = std::iter::repeat_n(key.clone(), usize::from(n)).flatten().collect();
        [vec![0x51], keys, vec![0x50 + n, 0xae]].concat()
    };
    let with = |value: u64, script: Vec<u8>| -> Change {
        Box::new(move |tx: &mut Transaction| tx.output.push(output_of(value, script)))
    };
    let cases: Vec<(Change, Option<&str>)> = vec![
        (change(|_| {}), None),
        (change(|tx| tx.version = transaction::Version(0)), Some("version")),
        (change(|tx| tx.version = transaction::Version(3)), Some("version")),
        (change(|tx| tx.output.extend(vec![output_of(1_000, key_hash(2)); 2_940])), Some("tx-size")),
        (change(|tx| tx.input[0].script_sig = ScriptBuf::from_bytes(vec![0; 1_651])), Some("scriptsig-size")),
        (
            change(|tx| tx.input[0].script_sig = ScriptBuf::from_bytes(vec![0x61, 0x51])),
            Some("scriptsig-not-pushonly"),
        ),
        (with(1_000, vec![0x51]), Some("scriptpubkey")),
        (with(1_000, multisig(3)), None),
        (with(1_000, multisig(4)), Some("scriptpubkey")),
        (with(545, key_hash(2)), Some("dust")),
        (with(546, key_hash(2)), None),
        (with(293, [vec![0, 20], vec![1; 20]].concat()), Some("dust")),
        (with(294, [vec![0, 20], vec![1; 20]].concat()), None),
        (with(0, data(80)), None),
        (with(0, data(81)), Some("scriptpubkey")),
        (
            change(|tx| tx.output.extend([output_of(0, data(1)), output_of(0, data(2))])),
            Some("multi-op-return"),
        ),
    ];
    for (number, (act, reason)) in cases.into_iter().enumerate() {
        let mut world = strict();
        let tx = standard(&mut world, act);
        match (world.offer(&tx), reason) {
            (Ok(_), None) => {}
            (Err(reject), Some(reason)) => {
                assert_eq!(reject.code_and_reason(), (64, reason.into()), "case {number}");
                assert_eq!(reject.misbehaviour(), 0);
            }
            other => panic!("case {number}: {other:?}"),
        }
    }
}

#[test]
fn a_network_for_tests_relays_any_form() {
    let mut world = World::new();
    let tx = standard(&mut world, |tx| tx.output[0].script_pubkey = ScriptBuf::from_bytes(vec![0x51]));
    world.must(&tx);
}

#[test]
fn spent_forms_and_witnesses_that_no_standard_script_needs_are_refused() {
    let mut world = strict();
    let coin = world.coin_with(1, ANYONE);
    let mut tx = spend(&[coin], vec![COIN_VALUE - 100_000]);
    tx.output[0].script_pubkey = ScriptBuf::from_bytes(key_hash(1));
    assert_eq!(world.reason(&tx), "bad-txns-nonstandard-inputs");
    // A redeem script with 16 signature operations.
    let redeem = [vec![0x51], vec![0xac; 16]].concat();
    let by_hash = [&[0xa9, 20][..], &hash160::Hash::hash(&redeem).to_byte_array(), &[0x87]].concat();
    let coin = world.coin_with(2, &by_hash);
    tx.input[0].previous_output = coin;
    tx.input[0].script_sig = ScriptBuf::from_bytes([vec![redeem.len() as u8], redeem].concat());
    assert_eq!(world.reason(&tx), "bad-txns-nonstandard-inputs");
    // A witness for a key hash.
    let coin = world.coin_with(3, &key_hash(1));
    tx.input[0] = TxIn { previous_output: coin, witness: Witness::from_slice(&[[1]]), ..TxIn::default() };
    let reject = world.offer(&tx).unwrap_err();
    assert_eq!(reject, Reject::NonStandardWitness);
    assert!(reject.witness_may_differ());
    // An element of 81 bytes for a witness script.
    let script = [0x75, 0x51];
    let program = [&[0, 32][..], &sha256::Hash::hash(&script).to_byte_array()].concat();
    tx.input[0].previous_output = world.coin_with(4, &program);
    tx.input[0].witness = Witness::from_slice(&[vec![1; 81], script.to_vec()]);
    assert_eq!(world.reason(&tx), "bad-witness-nonstandard");
    tx.input[0].witness = Witness::from_slice(&[vec![1; 80], script.to_vec()]);
    world.must(&tx);
}

#[test]
fn rules_of_relay_are_told_from_rules_of_the_chain() {
    let mut world = World::new();
    let mut try_scripts = |number: u32, pubkey: &[u8], sig: &[u8]| {
        let coin = world.coin_with(number, pubkey);
        let mut tx = spend(&[coin], vec![COIN_VALUE - 1_000]);
        tx.input[0].script_sig = ScriptBuf::from_bytes(sig.to_vec());
        world.offer(&tx).unwrap_err()
    };
    // Two elements are left on the stack.
    let reject = try_scripts(1, &[0x51], &[0x51]);
    assert_eq!(reject.code_and_reason(), (64, "non-mandatory-script-verify-flag (unknown error)".into()));
    assert_eq!(reject.misbehaviour(), 0);
    let reject = try_scripts(2, &[0xb0], &[0x51]);
    let nops = "non-mandatory-script-verify-flag (NOPx reserved for soft-fork upgrades)";
    assert_eq!(reject.reason(), nops);
    let reject = try_scripts(3, &[0x69, 0x51], &[0]);
    let verify = "mandatory-script-verify-flag-failed (Script failed an OP_VERIFY operation)";
    assert_eq!(reject.code_and_reason(), (16, verify.into()));
    assert_eq!(reject.misbehaviour(), 100);
}

#[test]
fn a_witness_that_was_taken_off_is_told_from_a_wrong_one() {
    let mut world = World::new();
    let program = [&[0, 32][..], &sha256::Hash::hash(ANYONE).to_byte_array()].concat();
    let coin = world.coin_with(1, &program);
    let mut tx = spend(&[coin], vec![COIN_VALUE - 1_000]);
    let reject = world.offer(&tx).unwrap_err();
    assert!(reject.witness_may_differ(), "{reject:?}");
    tx.input[0].witness = Witness::from_slice(&[[0x52]]);
    assert!(!world.offer(&tx).unwrap_err().witness_may_differ());
}

#[test]
fn what_is_known_or_missing_is_told_apart() {
    let mut world = World::new();
    let coin = world.coin(1);
    let tx = world.tx(&[coin], 1, 1_000);
    world.must(&tx);
    assert_eq!(world.offer(&tx), Err(Reject::AlreadyHere));
    let orphan = spend(&[OutPoint { txid: Txid::hash(b"x"), vout: 0 }], vec![1]);
    assert_eq!(world.offer(&orphan), Err(Reject::MissingInputs));
    let beyond = spend(&[output(&tx, 9)], vec![1]);
    assert_eq!(world.offer(&beyond), Err(Reject::MissingInputs));
    world.connect(vec![tx.clone()]);
    assert_eq!(world.offer(&tx), Err(Reject::AlreadyInChain));
    let mut coinbase = spend(&[OutPoint::null()], vec![1]);
    coinbase.input[0].script_sig = ScriptBuf::from_bytes(vec![0x51; 3]);
    assert_eq!(world.offer(&coinbase).unwrap_err().misbehaviour(), 100);
}

#[test]
fn signature_operations_count_as_size_and_are_limited() {
    for (operations, fits) in [(200usize, true), (201, false)] {
        let mut world = World::new();
        let coin = world.coin(1);
        let mut tx = world.tx(&[coin], 1, 1_000_000);
        // Each bare multisig operation counts as 20 signature operations, at a cost of four each.
        tx.output[0].script_pubkey = ScriptBuf::from_bytes(vec![0xae; operations]);
        match world.offer(&tx) {
            Ok(accepted) => assert!(fits && accepted.vsize == 4_000 * 4 * 20 / 4, "{accepted:?}"),
            Err(reject) => assert!(!fits && reject == Reject::TooManySigops(16_080), "{reject:?}"),
        }
    }
}

#[test]
fn only_what_no_honest_node_relays_costs_its_sender_anything() {
    use iop_consensus::error::TxError;
    let points = |error| Reject::Rule(error).misbehaviour();
    assert_eq!(points(TxError::InBelowOut { value_in: 1, value_out: 2 }), 100);
    assert_eq!(points(TxError::NoInputs), 10);
    assert_eq!(points(TxError::ImmatureCoinbase { outpoint: OutPoint::null(), depth: 1 }), 0);
    assert_eq!(Reject::NonStandard("dust").misbehaviour(), 0);
    assert_eq!(Reject::RelayFee.misbehaviour(), 0);
}
