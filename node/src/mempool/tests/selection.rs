//! Selection for a block.

use std::collections::HashSet;

use super::super::{FeeRate, Room};
use super::*;

const ROOM: Room = Room {
    max_weight: 3_996_000,
    reserved_weight: 4_000,
    max_sigops_cost: 80_000,
    reserved_sigops_cost: 400,
    min_fee: FeeRate(1_000),
    witness: true,
};

fn chosen(world: &World, room: Room) -> Vec<Txid> {
    world.pool.select(room).entries.iter().map(|entry| entry.txid).collect()
}

#[test]
fn a_child_pays_for_its_parent() {
    let mut world = World::new();
    let (a, b) = (world.coin(1), world.coin(2));
    let parent = world.tx(&[a], 1, 100);
    world.must(&parent);
    let other = world.tx(&[b], 1, 500);
    world.must(&other);
    assert_eq!(chosen(&world, ROOM), [other.compute_txid(), parent.compute_txid()]);
    let child = world.tx(&[output(&parent, 0)], 1, 5_000);
    world.must(&child);
    assert_eq!(
        chosen(&world, ROOM),
        [parent.compute_txid(), child.compute_txid(), other.compute_txid()],
        "the package comes before the better parent"
    );
    assert_eq!(world.pool.select(ROOM).fees, 5_600);
}

#[test]
fn a_grandchild_is_ranked_anew_once_its_ancestors_are_taken() {
    let mut world = World::new();
    let coin = world.coin(1);
    let root = world.tx(&[coin], 2, 10_000);
    world.must(&root);
    let (dear, cheap) = (world.tx(&[output(&root, 0)], 1, 5_000), world.tx(&[output(&root, 1)], 1, 200));
    world.must(&dear);
    world.must(&cheap);
    let coin = world.coin(2);
    let middle = world.tx(&[coin], 1, 1_000);
    world.must(&middle);
    // With its ancestor counted, the cheap one would come before the middle one.
    let ids = [&root, &dear, &middle, &cheap].map(Transaction::compute_txid);
    assert_eq!(chosen(&world, ROOM), ids);
}

#[test]
fn what_pays_less_than_the_minimum_or_does_not_fit_stays_out() {
    let mut world = World::new();
    let coins: Vec<_> = (0..3).map(|number| world.coin(number)).collect();
    let mut large = world.tx(&[coins[0]], 1, 1_000_000);
    pad(&mut large, 80_000);
    world.must(&large);
    let small = world.tx(&[coins[1]], 1, 100);
    world.must(&small);
    let room = Room { max_weight: 300_000, ..ROOM };
    assert_eq!(chosen(&world, room), [small.compute_txid()]);
    let dear = Room { min_fee: FeeRate(5_000), ..ROOM };
    assert_eq!(chosen(&world, dear), [large.compute_txid()]);
    // Header and coinbase count towards the limit, which is exclusive.
    let weight = world.pool.get(&small.compute_txid()).unwrap().vsize * 4;
    let exact = |max_weight| Room { max_weight, ..ROOM };
    assert!(chosen(&world, exact(4_000 + weight)).is_empty());
    assert_eq!(chosen(&world, exact(4_001 + weight)).len(), 1);
}

#[test]
fn without_segwit_what_has_a_witness_stays_out_with_its_descendants() {
    let mut world = World::new();
    // A witness script that is only `OP_1`.
    let program = [&[0, 32][..], &bitcoin::hashes::sha256::Hash::hash(ANYONE).to_byte_array()].concat();
    let (a, b) = (world.coin_with(1, &program), world.coin(2));
    let mut segwit = world.tx(&[a], 1, 10_000);
    segwit.input[0].witness = Witness::from_slice(&[ANYONE]);
    world.must(&segwit);
    let below = world.tx(&[output(&segwit, 0)], 1, 10_000);
    world.must(&below);
    let plain = world.tx(&[b], 1, 1_000);
    world.must(&plain);
    assert_eq!(chosen(&world, Room { witness: false, ..ROOM }), [plain.compute_txid()]);
    assert_eq!(chosen(&world, ROOM).len(), 3);
}

#[test]
fn a_full_block_holds_nearly_the_best_and_parents_come_first() {
    let mut world = World::new();
    for number in 0..300u32 {
        let coin = world.coin(number);
        let mut parent = world.tx(&[coin], 3, 100 + u64::from(number * 7_919 % 9_000));
        pad(&mut parent, (number * 31 % 2_000) as usize);
        let fee = parent.vsize() as u64;
        parent.output[0].value -= Amount::from_sat(fee);
        world.run(|pool, tip| pool.accept(parent.clone(), u64::MAX, tip).unwrap().unwrap());
        for vout in 0..number % 4 {
            let child =
                world.tx(&[output(&parent, vout.min(2))], 1, u64::from(number * 104_729 % 50_000) + 100);
            let _rival = world.run(|pool, tip| pool.accept(child, u64::MAX, tip).unwrap());
        }
    }
    let room = Room { max_weight: 700_000, ..ROOM };
    let ids = chosen(&world, room);
    let mut seen = HashSet::new();
    for id in &ids {
        let entry = world.pool.get(id).unwrap();
        assert!(world.pool.ancestors(id).iter().all(|parent| seen.contains(parent)), "a parent is missing");
        assert!(seen.insert(*id));
        assert!(
            entry.fee >= entry.vsize || world.pool.descendants(id).iter().any(|below| ids.contains(below))
        );
    }
    let weight: u64 = ids.iter().map(|id| world.pool.get(id).unwrap().weight).sum();
    assert!(weight + 4_000 < 700_000 && weight > 660_000, "{weight}");
}
