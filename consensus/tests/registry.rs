//! The registry as a pure function of the chain: undoing blocks restores every earlier state exactly, whatever blocks
//! were applied, and the counters match a simple count over the blocks.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use bitcoin::block::{Header, Version};
use bitcoin::hashes::Hash;
use bitcoin::{
    Amount, Block, BlockHash, CompactTarget, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxMerkleNode,
    TxOut, Witness, absolute, transaction,
};
use iop_consensus::WINDOW;
use iop_consensus::address::{Address, AddressKind};
use iop_consensus::license::coinbase::script_sig;
use iop_consensus::license::registry::Registry;
use iop_consensus::params::Params;
use proptest::prelude::*;

/// A made-up public key; the registry looks only at its encoding.
fn pubkey(n: u8) -> Vec<u8> {
    let mut key = vec![n; 33];
    key[0] = 2;
    key
}

fn license(n: u8) -> Address {
    Address::of_pubkey(&pubkey(n))
}

fn input(script_sig: ScriptBuf) -> TxIn {
    TxIn { previous_output: OutPoint::null(), script_sig, sequence: Sequence::MAX, witness: Witness::new() }
}

fn tx(script_sig: ScriptBuf, scripts: Vec<ScriptBuf>) -> Transaction {
    let output =
        scripts.into_iter().map(|script_pubkey| TxOut { value: Amount::ZERO, script_pubkey }).collect();
    Transaction {
        version: transaction::Version::ONE,
        lock_time: absolute::LockTime::ZERO,
        input: vec![input(script_sig)],
        output,
    }
}

/// A block that names `miner` in its coinbase and performs one admin action for each of `actions`.
fn block(miner: u8, actions: &[(Vec<u8>, Vec<Address>)], params: &Params) -> Block {
    let mut txdata = vec![tx(script_sig(&[1, 2, 3], &[], &pubkey(miner)), vec![ScriptBuf::new()])];
    for (verb, targets) in actions {
        let push = bitcoin::script::PushBytesBuf::try_from(verb.clone()).unwrap();
        let mut scripts = vec![ScriptBuf::new_op_return(push)];
        scripts.extend(targets.iter().map(Address::script_pubkey));
        txdata.push(tx(script_sig(&[], &[], &params.license.admin_pubkeys[0]), scripts));
    }
    let header = Header {
        version: Version::TWO,
        prev_blockhash: BlockHash::all_zeros(),
        merkle_root: TxMerkleNode::all_zeros(),
        time: 0,
        bits: CompactTarget::from_consensus(0),
        nonce: 0,
    };
    Block { header, txdata }
}

fn action() -> impl Strategy<Value = (Vec<u8>, Vec<Address>)> {
    let verb = prop_oneof![
        Just(b"add".to_vec()),
        Just(b"rem".to_vec()),
        Just(b"disable_cap".to_vec()),
        Just(b"nonsense".to_vec()),
        any::<u8>().prop_map(|byte| [&b"enable_cap:"[..], &[byte]].concat()),
    ];
    // Few addresses, so that repeated additions and removals are common, including the same address twice in one
    // transaction. One is a script's, and one is the admin's.
    let target = (0u8..8).prop_map(|n| match n {
        6 => Address { kind: AddressKind::ScriptHash, hash: [6; 20] },
        7 => Params::devnet().license.admin_addresses[0],
        n => license(n),
    });
    (verb, prop::collection::vec(target, 0..5))
}

/// Windows that reset up to the change height, then a sliding window.
fn params(cap_change_height: u32) -> Params {
    let mut params = Params::devnet();
    params.license.cap_change_height = cap_change_height;
    params.license.initial_licenses = (0..4).map(license).collect();
    params
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn taking_blocks_back_restores_every_state(
        actions in prop::collection::vec((0u8..8, prop::collection::vec(action(), 0..3)), 1..60),
        lead in 0u32..2,
        cap_change_height in prop_oneof![Just(0), Just(WINDOW + 20), Just(u32::MAX)],
    ) {
        let params = params(cap_change_height);
        let mut registry = Registry::genesis(&params);
        // Half of the cases start shortly before a window's end.
        for height in 0..lead * (WINDOW - 30) {
            registry.apply(&block((height % 4) as u8, &[], &params), &params);
        }
        let mut history = Vec::new();
        for (miner, actions) in &actions {
            let before = registry.clone();
            let (undo, _) = registry.apply(&block(*miner, actions, &params), &params);
            history.push((before, undo));
        }
        while let Some((before, undo)) = history.pop() {
            registry.undo(&undo);
            prop_assert_eq!(&registry, &before);
        }
    }

    #[test]
    fn the_whitelist_is_counted_right(
        blocks in prop::collection::vec(prop::collection::vec(action(), 0..3), 1..40),
    ) {
        let params = params(0);
        let mut registry = Registry::genesis(&params);
        for actions in &blocks {
            registry.apply(&block(0, actions, &params), &params);
            let whitelisted = registry.licenses().filter(|(_, record)| record.whitelisted).count();
            prop_assert_eq!(registry.globals().whitelisted as usize, whitelisted);
            prop_assert!(registry.license(&params.license.admin_addresses[0]).unwrap().whitelisted);
        }
    }
}

#[test]
fn below_the_activation_height_admins_act_and_nothing_is_counted() {
    let mut params = params(0);
    params.license.activation_height = u32::MAX;
    let mut registry = Registry::genesis(&params);
    registry.apply(&block(0, &[(b"add".to_vec(), vec![license(9)])], &params), &params);
    assert!(registry.license(&license(9)).unwrap().whitelisted);
    assert_eq!(registry.license(&license(0)).unwrap().total_blocks, 0);
    assert_eq!(registry.miner_of(1), None);
}

/// Compares the window counters with a count over the list of miners.
#[test]
fn window_counters_are_a_count_over_the_blocks() {
    let change = 2 * WINDOW + 100;
    let params = params(change);
    let mut registry = Registry::genesis(&params);
    let mut miners: Vec<u8> = vec![0];
    for height in 1..5 * WINDOW {
        // An uneven mix, different in each window.
        let miner = ((height * height / 7 + height / WINDOW) % 4) as u8;
        miners.push(miner);
        registry.apply(&block(miner, &[], &params), &params);
        // The old system counts from the block after the last multiple of 2,016. The new one counts the last 2,016
        // blocks, but none from before the old one's last window.
        let first = if height < change {
            height / WINDOW * WINDOW + 1
        } else {
            (height + 1 - WINDOW).max(2 * WINDOW + 1)
        };
        if height % 97 == 0 || height % WINDOW < 3 || height.abs_diff(change) < 3 {
            let mut expected = BTreeMap::new();
            for miner in &miners[first as usize..] {
                *expected.entry(license(*miner)).or_insert(0) += 1;
            }
            for n in 0..4 {
                let found = registry.license(&license(n)).unwrap().window_blocks;
                assert_eq!(found, expected.get(&license(n)).copied().unwrap_or(0), "license {n} at {height}");
            }
        }
    }
}

/// The height from which a license is said to be able to mine, if it mines nothing until then, is compared with the one
/// found by applying blocks. Licenses are over their cap, too fast, or both.
#[test]
fn the_height_that_a_license_is_told_is_the_first_at_which_it_may_mine() {
    for (too_fast_above, cap_change_height) in
        [(None, 0), (Some(0), 0), (Some(WINDOW + 5), 0), (Some(0), u32::MAX)]
    {
        let mut params = params(cap_change_height);
        params.license.history.too_fast_above = too_fast_above;
        params.license.initial_licenses.push(license(4));
        let mut registry = Registry::genesis(&params);
        for height in 1..=WINDOW {
            // Three licenses have a third of the blocks each, which is the cap.
            registry.apply(&block((height % 3) as u8, &[], &params), &params);
        }
        assert_eq!(registry.cap(&params), WINDOW / 3);
        let (mut waited, mut now) = (0, 0);
        for step in 0..300u32 {
            let miner = (step.wrapping_mul(0x9e37_79b1) >> 20) % 3;
            registry.apply(&block(miner as u8, &[], &params), &params);
            for license in (0..4).map(license) {
                let told = registry.eligibility(&license, &params).from_height.unwrap();
                let mut later = registry.clone();
                while later.check_may_mine(&license, &params).is_err() {
                    later.apply(&block(4, &[], &params), &params);
                    assert!(later.globals().height <= told + WINDOW, "never");
                }
                let first = later.globals().height + 1;
                assert_eq!(told, first, "step {step}, {too_fast_above:?}, {cap_change_height}");
                if first > registry.globals().height + 1 { waited += 1 } else { now += 1 }
            }
        }
        assert!(waited > 5 && now > 5, "{waited} waited, {now} did not");
    }
}
