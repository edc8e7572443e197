//! Blocks that are connected and disconnected while transactions wait.

use super::*;

#[test]
fn a_block_takes_its_transactions_out_and_their_rivals_with_descendants() {
    let mut world = World::new();
    let (first, second) = (world.coin(1), world.coin(2));
    let kept_parent = world.tx(&[first], 1, 1_000);
    let kept = world.tx_after(&kept_parent, 1_000);
    let rival = world.tx(&[second], 1, 1_000);
    world.must(&rival);
    let below_rival = world.tx(&[output(&rival, 0)], 1, 1_000);
    world.must(&below_rival);
    let confirmed = world.tx(&[second], 1, 2_000);
    world.connect(vec![kept_parent, confirmed]);
    assert_eq!(world.pool.txids(), [kept]);
    assert_eq!(world.pool.get(&kept).unwrap().ancestors.count, 1);
    let mut gone = world.pool.take_removed();
    gone.sort_unstable();
    let mut rivals = vec![rival.compute_txid(), below_rival.compute_txid()];
    rivals.sort_unstable();
    assert_eq!(gone, rivals, "what a block contains is not told as removed");
}

impl World {
    /// Adds the transaction and a child of it to the pool; returns the child's id.
    fn tx_after(&mut self, parent: &Transaction, fee: u64) -> Txid {
        self.must(parent);
        let child = self.tx(&[output(parent, 0)], 1, fee);
        self.must(&child)
    }

    fn coin_of(&self, outpoint: OutPoint) -> (OutPoint, Coin) {
        (outpoint, self.coins.0[&outpoint].clone())
    }
}

#[test]
fn a_parent_comes_back_below_the_children_that_waited() {
    let mut world = World::new();
    let coin = world.coin(1);
    let spent = world.coin_of(coin);
    let parent = world.tx(&[coin], 2, 1_000);
    let block = world.connect(vec![parent.clone()]);
    let (left, right) =
        (world.tx(&[output(&parent, 0)], 1, 1_000), world.tx(&[output(&parent, 1)], 1, 1_000));
    world.must(&left);
    world.must(&right);
    let both = world.tx(&[output(&left, 0), output(&right, 0)], 1, 1_000);
    world.must(&both);
    world.disconnect(block, vec![spent]);
    world.finish();
    assert_eq!(world.pool.len(), 4);
    assert_eq!(world.pool.get(&parent.compute_txid()).unwrap().descendants.count, 4);
    assert_eq!(world.pool.get(&both.compute_txid()).unwrap().ancestors.count, 4);
}

#[test]
fn what_is_confirmed_again_does_not_wait_and_its_children_stay() {
    let mut world = World::new();
    let coin = world.coin(1);
    let spent = world.coin_of(coin);
    let parent = world.tx(&[coin], 1, 1_000);
    let block = world.connect(vec![parent.clone()]);
    let child = world.tx(&[output(&parent, 0)], 1, 1_000);
    world.must(&child);
    world.disconnect(block, vec![spent]);
    world.connect(vec![parent]);
    world.finish();
    assert_eq!(world.pool.txids(), [child.compute_txid()]);
}

/// A new branch confirms the parent and breaks a rule further up, so the chain goes back; the old branch held the parent
/// too, or not.
#[test]
fn what_a_branch_that_failed_has_confirmed_comes_back_once_below_its_children() {
    for old_has_it in [false, true] {
        let mut world = World::new();
        let coin = world.coin(1);
        let spent = world.coin_of(coin);
        let parent = world.tx(&[coin], 1, 1_000);
        let child = world.tx_after(&parent, 1_000);
        let (in_old, spent_in_old) =
            if old_has_it { (vec![parent.clone()], vec![spent.clone()]) } else { (vec![], vec![]) };
        let old = world.connect(in_old);
        world.disconnect(old, spent_in_old);
        let failed = world.connect(vec![parent.clone()]);
        world.disconnect(failed, vec![spent]);
        world.connect(vec![]);
        world.finish();
        assert_eq!(world.pool.get(&child).unwrap().ancestors.count, 2, "old branch: {old_has_it}");
        assert!(world.pool.contains(&parent.compute_txid()));
    }
}

#[test]
fn what_does_not_come_back_takes_its_children_along() {
    let mut world = World::new();
    let (coin, rival_coin) = (world.coin(1), world.coin(1));
    let spent = world.coin_of(coin);
    let parent = world.tx(&[coin], 1, 1_000);
    let block = world.connect(vec![parent.clone()]);
    let child = world.tx(&[output(&parent, 0)], 1, 1_000);
    world.must(&child);
    world.disconnect(block, vec![spent]);
    let rival = spend(&[rival_coin], vec![1]);
    world.connect(vec![rival]);
    world.finish();
    assert!(world.pool.is_empty());
}

#[test]
fn a_free_transaction_comes_back_from_a_block() {
    let mut world = World::new();
    let coin = world.coin(1);
    let spent = world.coin_of(coin);
    let free = world.tx(&[coin], 1, 0);
    assert_eq!(world.reason(&free), "min relay fee not met");
    let block = world.connect(vec![free.clone()]);
    world.disconnect(block, vec![spent]);
    world.finish();
    assert!(world.pool.contains(&free.compute_txid()));
}

#[test]
fn a_coinbase_that_is_not_ripe_any_more_takes_its_spenders_out() {
    let mut world = World::new();
    let coin = world.coin(1);
    let entry = world.coins.0.get_mut(&coin).unwrap();
    (entry.coinbase, entry.height) = (true, world.height - 99);
    let early = World { pool: Mempool::new(*world.pool.policy()), height: world.height - 1, ..World::new() };
    let mut early = World { coins: Coins(world.coins.0.clone()), ..early };
    let tx = world.tx(&[coin], 1, 1_000);
    assert_eq!(early.reason(&tx), "bad-txns-premature-spend-of-coinbase");
    world.must(&tx);
    let child = world.tx(&[output(&tx, 0)], 1, 1_000);
    world.must(&child);
    world.disconnect(block(vec![]), vec![]);
    world.finish();
    assert!(world.pool.is_empty());
}

#[test]
fn lock_times_that_lie_ahead_again_take_their_transactions_out() {
    let mut world = World::new();
    let (by_height, by_depth, plain) = (world.coin(1), world.coin(2), world.coin(3));
    world.coins.0.get_mut(&by_depth).unwrap().height = world.height - 9;
    let mut absolute = replaceable(world.tx(&[by_height], 1, 1_000));
    absolute.lock_time = absolute::LockTime::from_consensus(world.height);
    let mut relative = world.tx(&[by_depth], 1, 1_000);
    relative.input[0].sequence = Sequence(10);
    let free = world.tx(&[plain], 1, 1_000);
    for tx in [&absolute, &relative, &free] {
        world.must(tx);
    }
    absolute.lock_time = absolute::LockTime::from_consensus(world.height + 1);
    assert_eq!(world.reason(&absolute), "non-final");
    relative.input[0].sequence = Sequence(11);
    assert_eq!(world.reason(&relative), "non-BIP68-final");
    world.disconnect(block(vec![]), vec![]);
    world.finish();
    assert_eq!(world.pool.txids(), [free.compute_txid()]);
}

#[test]
fn of_a_deep_reorganisation_twenty_megabytes_are_offered_again() {
    let mut world = World::new();
    let mut blocks = Vec::new();
    for number in 0..25 {
        let coin = world.coin(number);
        let spent = world.coin_of(coin);
        let mut tx = world.tx(&[coin], 1, 1_000_000);
        pad(&mut tx, 900_000);
        blocks.push((world.connect(vec![tx]), spent));
    }
    for (block, spent) in blocks.into_iter().rev() {
        world.disconnect(block, vec![spent]);
    }
    let waiting = world.pool.returned.as_ref().unwrap();
    assert!(world.pool.is_empty());
    assert_eq!(waiting.len(), 22, "the oldest are kept");
    world.finish();
    assert_eq!(world.pool.len(), 22);
}

/// Transactions already in the pool count towards no limit when a disconnected block's own transactions return: a
/// transaction that was in a block is not kept out by somebody's chain next to it (`UpdateTransactionsFromBlock`).
#[test]
fn a_confirmed_child_comes_back_beside_a_full_chain_of_waiting_ones() {
    let mut world = World::new();
    let coin = world.coin(1);
    let spent = world.coin_of(coin);
    let parent = world.tx(&[coin], 2, 1_000);
    let mut child = spend(&[output(&parent, 0)], vec![1]);
    child.output[0].value = parent.output[0].value - Amount::from_sat(500);
    let block = world.connect(vec![parent.clone(), child.clone()]);
    let mut last = world.tx(&[output(&parent, 1)], 1, 1_000);
    world.must(&last);
    for _ in 1..25 {
        last = world.tx(&[output(&last, 0)], 1, 1_000);
        world.must(&last);
    }
    world.disconnect(block, vec![spent]);
    world.finish();
    assert_eq!(world.pool.len(), 27);
    assert_eq!(world.pool.get(&parent.compute_txid()).unwrap().descendants.count, 27);
    assert_eq!(world.pool.get(&last.compute_txid()).unwrap().ancestors.count, 26);
    assert!(world.pool.contains(&child.compute_txid()));
}

/// Transactions in the pool that descend from one block's transactions, from another's, and from both.
#[test]
fn what_waits_is_counted_once_below_all_that_come_back() {
    let mut world = World::new();
    let (one, two) = (world.coin(1), world.coin(2));
    let (first_coin, second_coin) = (world.coin_of(one), world.coin_of(two));
    let first = world.tx(&[one], 3, 1_000);
    let first_block = world.connect(vec![first.clone()]);
    let first_output = world.coin_of(output(&first, 0));
    let second = world.tx(&[two, output(&first, 0)], 2, 1_000);
    let second_block = world.connect(vec![second.clone()]);
    let both = world.tx(&[output(&first, 1), output(&second, 0)], 1, 1_000);
    let below = world.tx(&[output(&second, 1)], 1, 1_000);
    world.must(&both);
    world.must(&below);
    let lowest = world.tx(&[output(&both, 0), output(&below, 0), output(&first, 2)], 1, 1_000);
    world.must(&lowest);
    world.disconnect(second_block, vec![second_coin, first_output]);
    world.disconnect(first_block, vec![first_coin]);
    world.finish();
    let counts = |tx: &Transaction| {
        let entry = world.pool.get(&tx.compute_txid()).unwrap();
        (entry.ancestors.count, entry.descendants.count)
    };
    assert_eq!(
        [&first, &second, &both, &below, &lowest].map(counts),
        [(1, 5), (2, 4), (3, 2), (3, 2), (5, 1)]
    );
}

/// BIP34 is off: a coinbase whose outputs are spent may appear again, and with it whatever spent it. Blocks may not
/// contain it again while an output of the first copy is unspent (BIP30).
#[test]
fn a_transaction_does_not_come_again_while_an_output_of_it_is_unspent() {
    let mut world = World::new();
    let coin = world.coin(1);
    let tx = world.tx(&[coin], 2, 1_000);
    world.connect(vec![tx.clone()]);
    world.coin(1);
    assert_eq!(world.reason(&tx), "txn-already-known");
    for vout in 0..2 {
        assert_eq!(world.reason(&tx), "txn-already-known");
        let spender = world.tx(&[output(&tx, vout)], 1, 1_000);
        world.connect(vec![spender]);
    }
    world.must(&tx);
}

#[test]
fn a_transaction_that_came_again_goes_when_outputs_of_its_first_copy_come_back() {
    let mut world = World::new();
    let coin = world.coin(1);
    let tx = world.tx(&[coin], 1, 1_000);
    world.connect(vec![tx.clone()]);
    let spent = world.coin_of(output(&tx, 0));
    let spender = world.tx(&[output(&tx, 0)], 1, 1_000);
    let block = world.connect(vec![spender.clone()]);
    world.coin(1);
    let below = world.tx_after(&tx, 2_000);
    assert!(world.pool.contains(&below));
    world.disconnect(block, vec![spent]);
    world.finish();
    assert_eq!(world.pool.txids(), [spender.compute_txid()]);
    assert_eq!(world.pool.get(&spender.compute_txid()).unwrap().ancestors.count, 1);
}
