//! The rules of BIP125, one by one.

use super::*;

/// A pool with a replaceable transaction in it, and the coin that it spends.
fn waiting(fee: u64) -> (World, OutPoint, Transaction) {
    let mut world = World::new();
    let coin = world.coin(1);
    let old = replaceable(world.tx(&[coin], 2, fee));
    world.must(&old);
    (world, coin, old)
}

#[test]
fn only_what_says_so_is_replaced() {
    let mut world = World::new();
    let coin = world.coin(1);
    let old = world.tx(&[coin], 1, 1_000);
    world.must(&old);
    let new = world.tx(&[coin], 1, 100_000);
    let reject = world.offer(&new).unwrap_err();
    assert_eq!(reject, Reject::Conflict(old.compute_txid()));
    assert_eq!(reject.code_and_reason(), (18, "txn-mempool-conflict".into()));
}

#[test]
fn a_replacement_takes_out_the_old_one_with_its_descendants() {
    let (mut world, coin, old) = waiting(1_000);
    let child = world.tx(&[output(&old, 0)], 1, 1_000);
    world.must(&child);
    let new = world.tx(&[coin], 1, 10_000);
    let replaced = world.offer(&new).unwrap().replaced;
    let mut expected = vec![old.compute_txid(), child.compute_txid()];
    expected.sort_unstable();
    assert_eq!(replaced, expected);
    assert_eq!(world.pool.len(), 1);
}

#[test]
fn a_replacement_needs_a_better_rate() {
    let (mut world, coin, _) = waiting(1_000);
    let mut new = world.tx(&[coin], 1, 2_500);
    pad(&mut new, 1_000);
    let Reject::ReplacementFee(rule) = world.offer(&new).unwrap_err() else { panic!() };
    assert!(rule.contains("new feerate") && rule.ends_with("IOP/kB"), "{rule}");
}

#[test]
fn a_replacement_pays_at_least_what_all_replaced_pay() {
    let (mut world, coin, old) = waiting(1_000);
    let child = world.tx(&[output(&old, 0)], 1, 50_000);
    world.must(&child);
    let new = world.tx(&[coin], 1, 50_999);
    let Reject::ReplacementFee(rule) = world.offer(&new).unwrap_err() else { panic!() };
    assert!(rule.contains("less fees than conflicting txs; 0.00050999 < 0.00051000"), "{rule}");
}

#[test]
fn a_replacement_pays_for_its_own_relay_on_top() {
    let (mut world, coin, old) = waiting(1_000);
    let size = world.tx(&[coin], 2, 1_000).vsize() as u64;
    let short = world.tx(&[coin], 2, 1_000 + size - 1);
    let Reject::ReplacementFee(rule) = world.offer(&short).unwrap_err() else { panic!() };
    assert!(rule.contains("not enough additional fees to relay"), "{rule}");
    let enough = world.tx(&[coin], 2, 1_000 + size);
    assert_eq!(world.offer(&enough).unwrap().replaced, [old.compute_txid()]);
}

#[test]
fn a_replacement_brings_no_new_waiting_parent() {
    let (mut world, coin, _) = waiting(1_000);
    let other = world.coin(2);
    let parent = world.tx(&[other], 1, 1_000);
    world.must(&parent);
    let new = world.tx(&[coin, output(&parent, 0)], 1, 100_000);
    assert_eq!(world.reason(&new), "replacement-adds-unconfirmed");
}

#[test]
fn a_replacement_may_not_spend_what_it_replaces() {
    let (mut world, coin, old) = waiting(1_000);
    let new = spend(&[coin, output(&old, 0)], vec![COIN_VALUE]);
    let reject = world.offer(&new).unwrap_err();
    assert_eq!(reject, Reject::SpendsConflicting(old.compute_txid()));
    assert_eq!(reject.misbehaviour(), 10);
}

#[test]
fn at_most_a_hundred_are_replaced() {
    for (extra, fits) in [(0, true), (1, false)] {
        let mut world = World::new();
        // Four of 25 transactions each make a hundred.
        let coins: Vec<_> = (1..=5).map(|number| world.coin(number)).collect();
        for coin in &coins[..4] {
            let parent = replaceable(world.tx(&[*coin], 24, 10_000));
            world.must(&parent);
            for vout in 0..24 {
                let child = world.tx(&[output(&parent, vout)], 1, 200);
                world.must(&child);
            }
        }
        let single = replaceable(world.tx(&[coins[4]], 1, 1_000));
        world.must(&single);
        let new = world.tx(&coins[..4 + extra], 1, 1_000_000);
        match world.offer(&new) {
            Ok(accepted) => assert!(fits && accepted.replaced.len() == 100),
            Err(reject) => assert!(!fits && reject == Reject::TooManyReplaced(101), "{reject:?}"),
        }
    }
}

#[test]
fn a_child_of_what_may_be_replaced_may_be_replaced() {
    let (mut world, _, old) = waiting(1_000);
    let child = world.tx(&[output(&old, 0)], 1, 1_000);
    let txid = world.must(&child);
    let entry = world.pool.get(&txid).unwrap();
    assert!(!entry.signals_replacement() && world.pool.is_replaceable(entry));
}
