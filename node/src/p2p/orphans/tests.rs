//! Orphans compared with a simple model, and each of their limits.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use bitcoin::hashes::Hash;
use bitcoin::secp256k1::rand::{SeedableRng, rngs::StdRng};
use bitcoin::{Amount, ScriptBuf, Sequence, TxIn, TxOut, Witness, absolute, transaction};
use proptest::prelude::*;

use super::*;

fn outpoint(parent: u8, vout: u32) -> OutPoint {
    OutPoint::new(Txid::from_byte_array([parent; 32]), vout)
}

fn spending(outpoints: &[OutPoint], salt: u64) -> Arc<Transaction> {
    let input = |outpoint: &OutPoint| TxIn {
        previous_output: *outpoint,
        script_sig: ScriptBuf::new(),
        sequence: Sequence::MAX,
        witness: Witness::new(),
    };
    Arc::new(Transaction {
        version: transaction::Version::ONE,
        lock_time: absolute::LockTime::ZERO,
        input: outpoints.iter().map(input).collect(),
        output: vec![TxOut { value: Amount::from_sat(salt), script_pubkey: ScriptBuf::new() }],
    })
}

fn rng() -> StdRng {
    StdRng::seed_from_u64(7)
}

#[test]
fn a_chain_of_orphans_comes_out_parent_by_parent() {
    let mut orphans = Orphans::default();
    let parent = spending(&[outpoint(1, 0)], 1);
    let child = spending(&[OutPoint::new(parent.compute_txid(), 0)], 2);
    let grandchild = spending(&[OutPoint::new(child.compute_txid(), 0), outpoint(2, 0)], 3);
    for tx in [&grandchild, &child] {
        assert_eq!(orphans.add(tx.clone(), 5, 0, &mut rng()), Added::Kept);
        assert_eq!(orphans.add(tx.clone(), 6, 0, &mut rng()), Added::Known);
    }
    assert!(orphans.next_to_try().is_none());
    orphans.parent_arrived(&parent.compute_txid());
    orphans.parent_arrived(&parent.compute_txid());
    let (txid, tx, from) = orphans.next_to_try().unwrap();
    assert_eq!((txid, &tx, from), (child.compute_txid(), &child, 5));
    assert!(orphans.next_to_try().is_none(), "each is tried once");
    assert!(orphans.erase(&txid));
    orphans.parent_arrived(&txid);
    // The grandchild misses its other parent: it is tried, stays, and is retried when that arrives.
    assert_eq!(orphans.next_to_try().unwrap().0, grandchild.compute_txid());
    orphans.parent_arrived(&Txid::from_byte_array([2; 32]));
    assert_eq!(orphans.next_to_try().unwrap().0, grandchild.compute_txid());
    assert!(orphans.erase(&grandchild.compute_txid()));
    assert!(orphans.is_empty() && orphans.by_prev.is_empty() && orphans.memory() == 0);
}

#[test]
fn a_flood_from_one_peer_evicts_its_own() {
    let mut orphans = Orphans::default();
    let honest = spending(&[outpoint(1, 0)], 0);
    orphans.add(honest.clone(), 1, 0, &mut rng());
    let mut random = rng();
    for salt in 1..1_000 {
        orphans.add(spending(&[outpoint(9, salt as u32)], salt), 2, 0, &mut random);
        assert!(orphans.len() <= MAX_ORPHANS);
    }
    assert_eq!(orphans.len(), MAX_ORPHANS);
    assert!(orphans.contains(&honest.compute_txid()));
    assert_eq!(orphans.erase_from(2), MAX_ORPHANS - 1);
    assert_eq!(orphans.len(), 1);
}

#[test]
fn memory_is_bounded_and_heavy_ones_are_refused() {
    let mut orphans = Orphans::default();
    let mut random = rng();
    let with_witness = |items: usize, salt| {
        let mut tx = spending(&[outpoint(9, salt)], 1);
        Arc::get_mut(&mut tx).unwrap().input[0].witness = Witness::from_slice(&vec![[0u8; 0]; items]);
        tx
    };
    assert_eq!(orphans.add(with_witness(400_000, 0), 2, 0, &mut random), Added::TooHeavy);
    // An empty item weighs 1 and takes 5 bytes: the worst case.
    for salt in 0..100 {
        assert_eq!(orphans.add(with_witness(399_000, salt), 2, 0, &mut random), Added::Kept);
        assert!(orphans.memory() <= MAX_MEMORY);
    }
    assert_eq!(orphans.len(), 12, "each takes 2 MB");
}

#[test]
fn they_expire_after_twenty_minutes() {
    let mut orphans = Orphans::default();
    orphans.add(spending(&[outpoint(1, 0)], 1), 1, 1_000, &mut rng());
    orphans.add(spending(&[outpoint(1, 1)], 2), 1, 1_500, &mut rng());
    assert_eq!(orphans.expire(1_000 + EXPIRE - 1), 0);
    assert_eq!(orphans.expire(1_000 + EXPIRE), 1);
    assert_eq!(orphans.len(), 1);
}

#[test]
fn a_block_takes_those_it_contains_or_conflicts_with_and_wakes_its_children() {
    let mut orphans = Orphans::default();
    let mined = spending(&[outpoint(1, 0)], 1);
    let conflict = spending(&[outpoint(1, 0), outpoint(3, 0)], 2);
    let child = spending(&[OutPoint::new(mined.compute_txid(), 0)], 3);
    let other = spending(&[outpoint(4, 0)], 4);
    for tx in [&mined, &conflict, &child, &other] {
        orphans.add(tx.clone(), 1, 0, &mut rng());
    }
    orphans.parent_arrived(&Txid::from_byte_array([3; 32]));
    let header = iop_consensus::params::Params::regtest().genesis.block().header;
    let block = Block { header, txdata: vec![(*mined).clone()] };
    assert_eq!(orphans.block_connected(&block), 2);
    assert_eq!(orphans.next_to_try().unwrap().0, child.compute_txid(), "the erased one left the queue");
    assert!(orphans.contains(&other.compute_txid()));
}

#[derive(Debug, Clone)]
enum Step {
    Add { inputs: Vec<(u8, u32)>, peer: PeerId },
    EraseFrom(PeerId),
    Arrived(u8),
    Try { accept: bool },
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (prop::collection::vec((0..6u8, 0..3u32), 1..4), 0..4u64)
            .prop_map(|(inputs, peer)| Step::Add { inputs, peer }),
        1 => (0..4u64).prop_map(Step::EraseFrom),
        3 => (0..6u8).prop_map(Step::Arrived),
        3 => any::<bool>().prop_map(|accept| Step::Try { accept }),
        1 => (0..900u64).prop_map(Step::Wait),
    ]
}

proptest! {
    #[test]
    fn index_memory_and_queue_agree_with_a_plain_list(steps in prop::collection::vec(step(), 1..120)) {
        let (mut orphans, mut now, mut random) = (Orphans::default(), 0, rng());
        let mut model = BTreeMap::<Txid, (Arc<Transaction>, PeerId, u64)>::new();
        for (salt, step) in steps.into_iter().enumerate() {
            match step {
                Step::Add { inputs, peer } => {
                    let outpoints: Vec<_> = inputs.iter().map(|(parent, vout)| outpoint(*parent, *vout)).collect();
                    let tx = spending(&outpoints, salt as u64);
                    prop_assert_eq!(orphans.add(tx.clone(), peer, now, &mut random), Added::Kept);
                    model.retain(|_, (_, _, expires)| *expires > now);
                    model.insert(tx.compute_txid(), (tx, peer, now + EXPIRE));
                    // Which one is evicted is random, but it is at most one.
                    let before = model.len();
                    model.retain(|txid, _| orphans.contains(txid));
                    prop_assert_eq!(before.min(MAX_ORPHANS), model.len());
                }
                Step::EraseFrom(peer) => {
                    let before = model.len();
                    model.retain(|_, (_, from, _)| *from != peer);
                    prop_assert_eq!(orphans.erase_from(peer), before - model.len());
                }
                Step::Arrived(parent) => orphans.parent_arrived(&Txid::from_byte_array([parent; 32])),
                Step::Try { accept } => if let Some((txid, tx, from)) = orphans.next_to_try() {
                    let (expected, peer, _) = model.get(&txid).unwrap();
                    prop_assert_eq!((expected, *peer), (&tx, from));
                    if accept {
                        orphans.erase(&txid);
                        model.remove(&txid);
                    }
                },
                Step::Wait(seconds) => {
                    now += seconds;
                    let before = model.len();
                    model.retain(|_, (_, _, expires)| *expires > now);
                    prop_assert_eq!(orphans.expire(now), before - model.len());
                }
            }
            let mut index = BTreeMap::<OutPoint, BTreeSet<Txid>>::new();
            for (txid, (tx, _, _)) in &model {
                for input in &tx.input {
                    index.entry(input.previous_output).or_default().insert(*txid);
                }
            }
            prop_assert_eq!(&orphans.by_prev, &index);
            prop_assert_eq!(orphans.len(), model.len());
            let memory = model.values().map(|(tx, _, _)| memory::of(tx) + INDEX_ENTRY * tx.input.len());
            prop_assert_eq!(orphans.memory(), memory.sum::<usize>());
            prop_assert_eq!(orphans.queue.len(), orphans.queued.len());
            prop_assert!(orphans.queue.iter().all(|txid| model.contains_key(txid)));
        }
    }
}
