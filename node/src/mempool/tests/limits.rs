//! The pool's limits, at the limit and one beyond.

use super::super::FeeRate;
use super::*;

#[test]
fn a_chain_of_25_waits_and_the_26th_does_not() {
    let mut world = World::new();
    let mut from = world.coin(1);
    for number in 1..=25 {
        let tx = world.tx(&[from], 1, 1_000);
        world.must(&tx);
        assert_eq!(world.pool.get(&tx.compute_txid()).unwrap().ancestors.count, number);
        from = output(&tx, 0);
    }
    let next = world.tx(&[from], 1, 1_000);
    let reject = world.offer(&next).unwrap_err();
    assert_eq!(reject.code_and_reason(), (64, "too-long-mempool-chain".into()));
}

#[test]
fn a_parent_has_at_most_24_descendants() {
    let mut world = World::new();
    let coin = world.coin(1);
    let parent = world.tx(&[coin], 30, 10_000);
    world.must(&parent);
    for vout in 0..24 {
        let child = world.tx(&[output(&parent, vout)], 1, 1_000);
        world.must(&child);
    }
    let one_more = world.tx(&[output(&parent, 24)], 1, 1_000);
    let Reject::TooLongChain(limit) = world.offer(&one_more).unwrap_err() else { panic!() };
    assert!(limit.starts_with("too many descendants"), "{limit}");
}

#[test]
fn relatives_have_at_most_101_kilobytes_together() {
    for (bytes, fits) in [(50_700, true), (50_900, false)] {
        let mut world = World::new();
        let coin = world.coin(1);
        let mut parent = world.tx(&[coin], 1, 100_000);
        pad(&mut parent, 50_000);
        world.must(&parent);
        let mut child = world.tx(&[output(&parent, 0)], 1, 100_000);
        pad(&mut child, bytes);
        let both = parent.vsize() + child.vsize();
        assert_eq!(both <= 101_000, fits, "{both}");
        assert_eq!(world.offer(&child).is_ok(), fits);
    }
}

#[test]
fn a_fee_below_the_relay_fee_is_refused_and_one_at_it_is_not() {
    let mut world = World::new();
    let coin = world.coin(1);
    let size = world.tx(&[coin], 1, 1_000).vsize() as u64;
    let low = world.tx(&[coin], 1, size - 1);
    assert_eq!(world.offer(&low).unwrap_err().code_and_reason(), (66, "min relay fee not met".into()));
    let right = world.tx(&[coin], 1, size);
    world.must(&right);
}

#[test]
fn more_out_than_in_is_said_to_pay_too_little() {
    // As in the reference: amounts are checked after fees.
    let mut world = World::new();
    let coin = world.coin(1);
    let tx = spend(&[coin], vec![COIN_VALUE + 1]);
    assert_eq!(world.reason(&tx), "min relay fee not met");
}

#[test]
fn a_fee_above_the_callers_limit_is_taken_for_a_mistake() {
    let mut world = World::new();
    let coin = world.coin(1);
    let tx = world.tx(&[coin], 1, 5_001);
    let refused = world.run(|pool, tip| pool.accept(tx.clone(), 5_000, tip).unwrap().unwrap_err());
    assert_eq!(refused.code_and_reason(), (256, "absurdly-high-fee".into()));
    assert!(world.run(|pool, tip| pool.accept(tx, 5_001, tip).unwrap()).is_ok());
}

/// A pool with room for about ten padded transactions.
fn small_world() -> World {
    let policy = Policy { require_standard: false, max_usage: 120_000, ..Policy::default() };
    World::with(policy)
}

fn padded(world: &mut World, number: u32, fee: u64) -> Transaction {
    let coin = world.coin(number);
    let mut tx = world.tx(&[coin], 1, fee);
    pad(&mut tx, 10_000);
    tx
}

#[test]
fn a_full_pool_drops_what_pays_worst_and_asks_for_more_afterwards() {
    let mut world = small_world();
    let txs: Vec<_> = (1..=10).map(|number| padded(&mut world, number, 20_000 * u64::from(number))).collect();
    let ids: Vec<_> = txs.iter().map(|tx| world.must(tx)).collect();
    assert_eq!(world.pool.len(), 10);
    assert_eq!(world.pool.min_fee(NOW), FeeRate(0));
    let (size, before) = (txs[0].vsize() as u64, world.pool.usage());
    for number in 11..=12 {
        let tx = padded(&mut world, number, 900_000);
        world.must(&tx);
    }
    assert!(before > 100_000 && world.pool.usage() <= 120_000);
    assert!(
        !world.pool.contains(&ids[0]) && world.pool.contains(&ids[9]),
        "the worst is gone, the best is not"
    );
    let gone = world.pool.take_removed();
    assert!(gone.contains(&ids[0]) && world.pool.take_removed().is_empty());
    // The rate of the last evicted entry, plus one step.
    let worst = 20_000 * gone.len() as u64;
    let asked = FeeRate(FeeRate::of(worst, size).0 + 1_000);
    assert_eq!(world.pool.min_fee(NOW), asked);
    let low = padded(&mut world, 13, asked.fee(size) - 1);
    assert_eq!(world.reason(&low), "mempool min fee not met");
    // It stays until a block comes, then halves every twelve hours, or faster in an emptier pool.
    world.now += 100_000;
    assert_eq!(world.pool.min_fee(world.now), asked);
    world.connect(vec![]);
    let coin = world.coin(14);
    let low = world.tx(&[coin], 1, 100);
    assert_eq!(world.reason(&low), "mempool min fee not met");
    let later = world.pool.min_fee(world.now + 12 * 60 * 60);
    assert!((asked.0 / 2).abs_diff(later.0) <= 1, "{asked:?} {later:?}");
    world.now += 1_000 * 60 * 60;
    assert_eq!(world.pool.min_fee(world.now), FeeRate(0));
    world.must(&low);
}

#[test]
fn the_minimum_falls_also_where_blocks_come_more_often_than_transactions() {
    let mut world = small_world();
    for number in 1..=12 {
        let tx = padded(&mut world, number, 20_000 * u64::from(number));
        let _full = world.offer(&tx);
    }
    let asked = world.pool.min_fee(NOW);
    assert!(asked.0 > 2_000, "{asked:?}");
    // Seconds between blocks. No transaction is offered meanwhile.
    for apart in [600, 1] {
        let (mut fee, before) = (asked, world.now);
        world.pool.rolling_fee = Default::default();
        world.pool.rolling_fee.rise_to(asked);
        while fee > FeeRate(0) {
            assert!(world.now < before + 10 * 12 * 60 * 60, "{fee:?}");
            world.now += apart;
            world.connect(vec![]);
            fee = world.pool.min_fee(world.now);
        }
    }
    // A clock that was ahead does not hold it up for as long as it was.
    world.pool.rolling_fee.rise_to(asked);
    world.now += 1_000_000_000;
    world.connect(vec![]);
    world.now -= 1_000_000_000;
    world.connect(vec![]);
    assert!(world.pool.min_fee(world.now + 12 * 60 * 60).0 <= asked.0 / 2 + 1);
}

#[test]
fn a_transaction_that_pays_worst_itself_finds_no_room() {
    let mut world = small_world();
    for number in 1..=11 {
        let tx = padded(&mut world, number, 500_000);
        // The last one fills the pool.
        let _full = world.offer(&tx);
    }
    let before = world.pool.len();
    world.pool.rolling_fee = Default::default();
    let low = padded(&mut world, 20, 20_000);
    assert_eq!(world.offer(&low), Err(Reject::Full));
    assert_eq!(world.pool.len(), before);
}

#[test]
fn a_parent_is_kept_by_the_fee_of_its_child() {
    let mut world = small_world();
    let parent = padded(&mut world, 1, 11_000);
    world.must(&parent);
    let child = world.tx(&[output(&parent, 0)], 1, 2_000_000);
    world.must(&child);
    let other = padded(&mut world, 2, 12_000);
    world.must(&other);
    for number in 3..=14 {
        let tx = padded(&mut world, number, u64::from(number) * 50_000);
        world.must(&tx);
    }
    assert!(world.pool.contains(&parent.compute_txid()) && world.pool.contains(&child.compute_txid()));
    assert!(!world.pool.contains(&other.compute_txid()));
}

#[test]
fn what_waited_two_weeks_goes_with_its_children() {
    let mut world = World::new();
    let coin = world.coin(1);
    let old = world.tx(&[coin], 1, 1_000);
    world.must(&old);
    world.now += 1_000;
    let child = world.tx(&[output(&old, 0)], 1, 1_000);
    world.must(&child);
    world.now = NOW + 336 * 60 * 60;
    let coin = world.coin(2);
    let fresh = world.tx(&[coin], 1, 1_000);
    world.must(&fresh);
    assert_eq!(world.pool.len(), 3, "not one second too early");
    world.now += 1;
    let coin = world.coin(3);
    let fresh = world.tx(&[coin], 1, 1_000);
    world.must(&fresh);
    assert_eq!(world.pool.len(), 2);
}
