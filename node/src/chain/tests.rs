//! The chain state under crashes and reorganisations: whatever happened, it equals a fresh replay.

#![allow(clippy::unwrap_used)]

mod start;
mod tree;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bitcoin::block::{Header, Version};
use bitcoin::{BlockHash, OutPoint};
use iop_consensus::coins::Coin;
use iop_consensus::difficulty::has_proof_of_work;
use iop_consensus::header::MAX_FUTURE_BLOCK_TIME;
use iop_consensus::license::registry::Registry;
use iop_consensus::params::Params;
use proptest::prelude::*;

use super::actor;
use super::clock;
use super::invalidate::NotDone;
use super::options::Options;
use super::state::ChainState;
use super::verdict::{Rejection, Stored, Submitted};
use crate::storage::{Storage, StorageError};
use tree::{TRUNK, Tree, params};

/// In seconds; later than every block.
const NOW: u64 = 1_700_000_000;

fn open(dir: &Path, coin_cache: usize) -> Result<ChainState, StorageError> {
    let storage = Storage::open(dir, &params())?;
    let params = Arc::new(params());
    let options = Options { coin_cache, ..Options::of(&params) };
    ChainState::load_with(params, Arc::new(storage), options)
}

/// Everything that must be equal however the chain was built.
#[derive(Debug, PartialEq)]
struct Snapshot {
    tip: BlockHash,
    registry: Registry,
    coins: BTreeMap<OutPoint, Coin>,
}

fn snapshot(state: &mut ChainState) -> Snapshot {
    state.flush().unwrap();
    let mut coins = BTreeMap::new();
    let stored = state.storage().for_each_coin(|outpoint, coin| {
        coins.insert(outpoint, coin);
    });
    stored.unwrap();
    assert_eq!(state.storage().tip().unwrap(), Some(tip(state)));
    assert_eq!(state.storage().registry().unwrap().as_ref(), Some(state.registry()));
    Snapshot { tip: tip(state), registry: state.registry().clone(), coins }
}

fn tip(state: &ChainState) -> BlockHash {
    state.index().get(state.index().tip()).hash
}

/// The state of a node that has only ever seen this branch.
fn replayed(tree: &Tree, node: usize) -> Snapshot {
    let dir = tempfile::tempdir().unwrap();
    let mut state = open(dir.path(), 1 << 20).unwrap();
    for block in tree.branch(node) {
        assert_eq!(state.submit(block, NOW).unwrap(), Submitted::Accepted);
    }
    snapshot(&mut state)
}

fn with_trunk(tree: &Tree, dir: &Path, coin_cache: usize) -> ChainState {
    let mut state = open(dir, coin_cache).unwrap();
    for block in tree.branch(TRUNK as usize) {
        assert_eq!(state.submit(block, NOW).unwrap(), Submitted::Accepted);
    }
    state.flush().unwrap();
    state
}

/// A trunk with a branch of three blocks, a competing branch of five, and one more block on the first.
fn rivals() -> (Tree, Vec<usize>, usize) {
    let mut tree = Tree::new();
    let mut offered = Vec::new();
    let mut grow = |tree: &mut Tree, from: usize, count: u64, salt: u64| {
        (0..count).fold(from, |parent, n| {
            let node = tree.extend(parent, (salt + n).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 3);
            offered.push(node);
            node
        })
    };
    grow(&mut tree, TRUNK as usize, 3, 1);
    let rival = grow(&mut tree, TRUNK as usize, 5, 100);
    let best = grow(&mut tree, rival, 2, 200);
    (tree, offered, best)
}

#[test]
fn cut_off_before_any_write_the_node_comes_back_to_a_replay_of_its_tip_and_goes_on() {
    let (tree, offered, best) = rivals();
    let trunk = tempfile::tempdir().unwrap();
    drop(with_trunk(&tree, trunk.path(), 0));
    let mut replays: BTreeMap<usize, Snapshot> = BTreeMap::new();
    for cache in [0, 1 << 20] {
        let mut points = 0;
        for writes in 0.. {
            let dir = tempfile::tempdir().unwrap();
            for file in std::fs::read_dir(trunk.path()).unwrap().map(Result::unwrap) {
                std::fs::copy(file.path(), dir.path().join(file.file_name())).unwrap();
            }
            let mut state = open(dir.path(), cache).unwrap();
            state.storage().fail_after(writes);
            let offer = |node: &usize| state.submit(tree.nodes[*node].block.clone(), NOW);
            let failed = offered.iter().map(offer).find_map(Result::err);
            let failed = failed.or_else(|| state.flush().err());
            drop(state);
            let mut state = open(dir.path(), cache).unwrap();
            let at = tree.nodes.iter().position(|node| node.block.block_hash() == tip(&state)).unwrap();
            let replay = replays.entry(at).or_insert_with(|| replayed(&tree, at));
            assert_eq!(&snapshot(&mut state), replay, "cache {cache}, {writes} writes");
            for &node in &offered {
                state.submit(tree.nodes[node].block.clone(), NOW).unwrap();
            }
            let expected = replays.entry(best).or_insert_with(|| replayed(&tree, best));
            assert_eq!(&snapshot(&mut state), expected, "cache {cache}, {writes} writes");
            if failed.is_none() {
                points = writes;
                break;
            }
        }
        assert!(points > 20, "only {points} writes could fail");
    }
}

#[test]
fn a_branch_with_a_bad_block_in_the_middle_is_left_again_for_the_old_tip() {
    let mut tree = Tree::new();
    let dir = tempfile::tempdir().unwrap();
    let mut state = with_trunk(&tree, dir.path(), 1 << 20);
    let own = (0..7).fold(TRUNK as usize, |parent, n| tree.extend(parent, 77 + n * 1031));
    let before = (0..4).fold(TRUNK as usize, |parent, n| tree.extend(parent, 999 + n * 777));
    let bad = tree.extend_badly(before);
    let after = (0..4).fold(bad, |parent, n| tree.extend(parent, n));
    for block in tree.branch(own).split_off(TRUNK as usize) {
        assert_eq!(state.submit(block, NOW).unwrap(), Submitted::Accepted);
    }
    let expected = snapshot(&mut state);
    let mut answers = Vec::new();
    for block in tree.branch(after).split_off(TRUNK as usize) {
        answers.push(state.submit(block, NOW).unwrap());
    }
    // The competing branch has more work with its eighth block; only then is it tried, and the fifth found invalid.
    assert_eq!(answers[..8], vec![Submitted::Inconclusive; 8]);
    assert_eq!(answers[8..], [Submitted::Rejected(Rejection::InvalidParent)]);
    assert_eq!(snapshot(&mut state), expected);
    let resubmit =
        |state: &mut ChainState, node: usize| state.submit(tree.nodes[node].block.clone(), NOW).unwrap();
    assert_eq!(resubmit(&mut state, bad), Submitted::DuplicateInvalid);
    assert_eq!(resubmit(&mut state, after - 2), Submitted::DuplicateInvalid);
    assert_eq!(resubmit(&mut state, own), Submitted::Duplicate);
    assert_eq!(resubmit(&mut state, before), Submitted::Duplicate);
}

#[test]
fn an_invalidated_block_is_left_and_taken_up_again_when_it_is_reconsidered() {
    let mut tree = Tree::new();
    let dir = tempfile::tempdir().unwrap();
    let mut state = with_trunk(&tree, dir.path(), 1 << 20);
    let own: Vec<usize> = (0..5)
        .scan(TRUNK as usize, |parent, n| {
            *parent = tree.extend(*parent, 5 + n * 91);
            Some(*parent)
        })
        .collect();
    let rival = (0..2).fold(TRUNK as usize, |parent, n| tree.extend(parent, 8 + n * 17));
    for block in tree.branch(own[4]).into_iter().chain(tree.branch(rival)) {
        state.submit(block, NOW).unwrap();
    }
    let best = snapshot(&mut state);
    assert_eq!(state.invalidate_block(&tree.hash(own[1]), NOW).unwrap(), Ok(()));
    assert_eq!(snapshot(&mut state), replayed(&tree, rival));
    assert_eq!(state.submit(tree.nodes[own[3]].block.clone(), NOW).unwrap(), Submitted::DuplicateInvalid);
    drop(state);
    let mut state = open(dir.path(), 1 << 20).unwrap();
    assert_eq!(tip(&state), tree.hash(rival));
    assert_eq!(state.reconsider_block(&tree.hash(own[3]), NOW).unwrap(), Ok(()));
    assert_eq!(snapshot(&mut state), best);
    assert_eq!(state.invalidate_block(&tree.hash(0), NOW).unwrap(), Err(NotDone::Genesis));
}

#[test]
fn pruned_blocks_are_gone_and_the_newest_can_still_be_taken_back() {
    let mut tree = Tree::new();
    let dir = tempfile::tempdir().unwrap();
    let options = Options { prune: Some(60_000), ..Options::of(&params()) };
    let load = || {
        let storage = Arc::new(Storage::open(dir.path(), &params()).unwrap());
        ChainState::load_with(Arc::new(params()), storage, options).unwrap()
    };
    let mut state = load();
    let top = (0..400).fold(TRUNK as usize, |parent, _| tree.extend(parent, 1));
    for block in tree.branch(top) {
        assert_eq!(state.submit(block, NOW).unwrap(), Submitted::Accepted);
        state.flush().unwrap();
    }
    let kept_from = TRUNK + 400 - super::prune::MIN_BLOCKS_TO_KEEP;
    let below = state.pruned_below();
    assert!(below > 100 && below <= kept_from, "{below}");
    let block = |state: &ChainState, height: u32| {
        let hash = state.index().get(state.index().active_at(height).unwrap()).hash;
        state.storage().block_bytes(&hash).unwrap()
    };
    assert!(block(&state, below - 1).is_none() && block(&state, below).is_some());
    assert_eq!(snapshot(&mut state), replayed(&tree, top));
    // A pruned block that arrives again is not stored: its undo data is gone, and so are the blocks above it.
    let first = tree.branch(top).swap_remove(0);
    assert_eq!(state.accept_block(first, true, NOW).unwrap().stored, Stored::Before);
    drop(state);
    let mut state = load();
    assert_eq!(state.pruned_below(), below);
    let hash_at =
        |state: &ChainState, height| state.index().get(state.index().active_at(height).unwrap()).hash;
    let (too_deep, first_kept) = (hash_at(&state, below - 1), hash_at(&state, kept_from + 1));
    assert_eq!(state.invalidate_block(&too_deep, NOW).unwrap(), Err(NotDone::Pruned));
    assert_eq!(state.invalidate_block(&first_kept, NOW).unwrap(), Ok(()));
    let parent = tree.nodes.iter().position(|node| node.block.block_hash() == tip(&state)).unwrap();
    assert_eq!(tree.nodes[parent].height, kept_from);
    assert_eq!(snapshot(&mut state), replayed(&tree, parent));
    assert_eq!(state.reconsider_block(&first_kept, NOW).unwrap(), Ok(()));
    assert_eq!(tip(&state), tree.hash(top));
}

/// The node does not return to a block that an operator invalidated, even if its tip was not written for long.
#[test]
fn killed_after_an_invalidation_the_node_does_not_come_back_on_the_invalidated_branch() {
    let (mut tree, offered, best) = rivals();
    let next = tree.extend(offered[2], 1);
    // The invalidated block is active, or was only when the tip was written.
    for written in [best, offered[2]] {
        let dir = tempfile::tempdir().unwrap();
        let mut state = with_trunk(&tree, dir.path(), 1 << 20);
        for block in &tree.branch(written)[TRUNK as usize..] {
            state.submit(block.clone(), NOW).unwrap();
        }
        state.flush().unwrap();
        for &node in &offered {
            state.submit(tree.nodes[node].block.clone(), NOW).unwrap();
        }
        assert_eq!(tip(&state), tree.hash(best));
        let first = tree.branch(written).swap_remove(TRUNK as usize).block_hash();
        assert_eq!(state.invalidate_block(&first, NOW).unwrap(), Ok(()));
        let (before, active) = (tip(&state), tree.hash(if written == best { offered[2] } else { best }));
        assert_eq!(before, active);
        drop(state);
        let mut state = open(dir.path(), 1 << 20).unwrap();
        assert_eq!(tip(&state), before);
        if written == best {
            assert_eq!(state.submit(tree.nodes[next].block.clone(), NOW).unwrap(), Submitted::Accepted);
        }
    }
}

/// In a reorganisation deeper than what pruning keeps, with the coin cache full.
#[test]
fn nothing_that_a_reorganisation_still_needs_is_pruned_meanwhile() {
    let mut tree = Tree::new();
    let dir = tempfile::tempdir().unwrap();
    let mut options = Options { coin_cache: 0, ..Options::of(&params()) };
    let load = |options| {
        let storage = Arc::new(Storage::open(dir.path(), &params()).unwrap());
        ChainState::load_with(Arc::new(params()), storage, options).unwrap()
    };
    let mut grow = |count| (0..count).fold(TRUNK as usize, |parent, _| tree.extend(parent, 1));
    let (old, new) = (grow(400), grow(401));
    let mut state = load(options);
    for block in tree.branch(old) {
        assert_eq!(state.submit(block, NOW).unwrap(), Submitted::Accepted);
    }
    // Room for these blocks, but not for the competing branch too.
    options.prune = Some(state.stored_bytes() + 10_000);
    drop(state);
    let mut state = load(options);
    for block in &tree.branch(new)[TRUNK as usize..] {
        state.submit(block.clone(), NOW).unwrap();
    }
    assert_eq!(tip(&state), tree.hash(new));
    assert!(state.pruned_below() > 1);
    assert_eq!(snapshot(&mut state), replayed(&tree, new));
}

#[test]
fn scripts_are_taken_for_checked_only_below_the_assumed_block_and_deep_enough_in_the_best_headers() {
    let mut tree = Tree::new();
    // The only spend pushes nothing, so the script fails.
    let bad = tree.extend_with_bad_script(TRUNK as usize);
    // Two weeks of blocks on top of it, at ten minutes each, and a little more.
    let top = (0..2_020).fold(bad, |parent, _| tree.extend(parent, 0));
    let short = tree.branch(top - 10);
    let headers: Vec<_> = tree.branch(top).iter().map(|block| block.header).collect();
    let outcome = |assumed: Option<usize>, known: &[bitcoin::block::Header], least_work: u8| {
        let dir = tempfile::tempdir().unwrap();
        let mut options = Options::of(&params());
        options.assume_valid = assumed.map(|node| tree.hash(node));
        let mut work = [0; 32];
        work[29] = least_work;
        options.minimum_chain_work = bitcoin::pow::Work::from_be_bytes(work);
        let storage = Arc::new(Storage::open(dir.path(), &params()).unwrap());
        let mut state = ChainState::load_with(Arc::new(params()), storage, options).unwrap();
        assert!(state.accept_headers(known, NOW).unwrap().refused.is_none());
        for block in &short[..=TRUNK as usize] {
            state.accept_block(block.clone(), true, NOW).unwrap();
        }
        state.index().get(state.index().tip()).record.height > TRUNK
    };
    assert!(outcome(Some(top), &headers, 0), "assumed and deep");
    assert!(outcome(Some(bad), &headers, 0), "the assumed block itself");
    assert!(!outcome(None, &headers, 0), "nothing assumed");
    assert!(!outcome(Some(top), &headers, 1), "the best headers have too little work");
    assert!(!outcome(Some(top - 10), &headers[..headers.len() - 10], 0), "less than two weeks on top");
    assert!(!outcome(Some(bad - 1), &headers, 0), "the assumed block is below");
}

/// What may happen to a node.
#[derive(Debug, Clone)]
enum Step {
    /// A block on top of the n-th last block of the tree.
    Extend(usize, u64),
    /// Two blocks on top of it, the second of which arrives first.
    ExtendBackwards(usize, u64),
    Flush,
    /// Killed without notice, and restarted.
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (0usize..6, any::<u64>()).prop_map(|(back, seed)| Step::Extend(back, seed)),
        2 => (0usize..6, any::<u64>()).prop_map(|(back, seed)| Step::ExtendBackwards(back, seed)),
        1 => Just(Step::Flush),
        1 => Just(Step::Crash),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]
    #[test]
    fn after_any_reorganisations_flushes_and_crashes_all_equals_a_replay(
        steps in prop::collection::vec(step(), 10..60),
        cache in prop_oneof![Just(0usize), Just(20_000), Just(1 << 20)],
        // During initial block download the tip is written rarely.
        now in prop_oneof![Just(NOW), Just(clock::now())],
    ) {
        let mut tree = Tree::new();
        let dir = tempfile::tempdir().unwrap();
        let mut state = with_trunk(&tree, dir.path(), cache);
        for step in steps {
            match step {
                Step::Extend(back, seed) => {
                    let node = tree.extend(tree.back(back), seed);
                    state.submit(tree.nodes[node].block.clone(), now).unwrap();
                }
                Step::ExtendBackwards(back, seed) => {
                    let first = tree.extend(tree.back(back), seed);
                    let second = tree.extend(first, seed);
                    let blocks = [first, second].map(|node| tree.nodes[node].block.clone());
                    state.accept_headers(&blocks.each_ref().map(|block| block.header), now).unwrap();
                    for block in blocks.into_iter().rev() {
                        state.accept_block(block, true, now).unwrap();
                    }
                }
                Step::Flush => state.flush().unwrap(),
                Step::Crash => {
                    let before = tip(&state);
                    drop(state);
                    state = open(dir.path(), cache).unwrap();
                    prop_assert_eq!(tip(&state), before);
                }
            }
        }
        let highest = tree.nodes.iter().map(|node| node.height).max().unwrap();
        let at = tree.nodes.iter().position(|node| node.block.block_hash() == tip(&state)).unwrap();
        prop_assert_eq!(tree.nodes[at].height, highest);
        prop_assert_eq!(snapshot(&mut state), replayed(&tree, at));
    }
}

#[tokio::test]
async fn what_is_from_the_future_is_judged_by_the_clock_as_peers_correct_it() {
    let dir = tempfile::tempdir().unwrap();
    let params = Arc::new(Params::regtest());
    let storage = Arc::new(Storage::open(dir.path(), &params).unwrap());
    let options = Options::of(&params);
    let (chain, thread) = actor::spawn(ChainState::load_with(params.clone(), storage, options).unwrap());
    let parent = params.genesis.block().header;
    let future = clock::now() + MAX_FUTURE_BLOCK_TIME + 20 * 60;
    let mut header = Header {
        version: Version::from_consensus(0x2000_0000),
        prev_blockhash: parent.block_hash(),
        time: u32::try_from(future).unwrap(),
        ..parent
    };
    while !has_proof_of_work(&header.block_hash(), header.bits, params.pow.limit) {
        header.nonce += 1;
    }
    let is_taken = async || chain.accept_headers(vec![header]).await.unwrap().refused.is_none();
    assert!(!is_taken().await);
    chain.correct_clock(-30 * 60);
    assert!(!is_taken().await);
    chain.correct_clock(30 * 60);
    assert!(is_taken().await);
    drop(chain);
    thread.join().unwrap().unwrap();
}

#[test]
fn killed_far_behind_the_node_is_still_far_behind_at_the_next_start() {
    let mut tree = Tree::new();
    let top = (0..20).fold(TRUNK as usize, |parent, _| tree.extend(parent, 1));
    let dir = tempfile::tempdir().unwrap();
    let now = clock::now();
    let mut state = open(dir.path(), 1 << 20).unwrap();
    for block in tree.branch(top) {
        assert_eq!(state.submit(block, now).unwrap(), Submitted::Accepted);
    }
    assert!(state.is_initial_block_download(now));
    drop(state);
    // Blocks that were stored but not written as the tip are connected again, years after they were mined.
    let mut state = open(dir.path(), 1 << 20).unwrap();
    assert_eq!(tip(&state), tree.hash(top));
    assert!(state.is_initial_block_download(now));
}

#[test]
fn a_database_of_the_format_before_is_read_and_keeps_its_tip() {
    let mut tree = Tree::new();
    let [first, second] = [1, 2].map(|seed| tree.extend(TRUNK as usize, seed));
    for order in [[first, second], [second, first]] {
        let dir = tempfile::tempdir().unwrap();
        let mut state = with_trunk(&tree, dir.path(), 1 << 20);
        for node in order {
            state.submit(tree.nodes[node].block.clone(), NOW).unwrap();
        }
        state.flush().unwrap();
        state.storage().become_format_2();
        drop(state);
        for _ in 0..2 {
            let state = open(dir.path(), 1 << 20).unwrap();
            assert_eq!(tip(&state), tree.hash(order[0]));
        }
    }
}

/// While the node runs, descendants of a failed block are marked when they are looked at; at the start all are.
#[test]
fn what_descends_from_a_failed_block_is_known_as_failed_at_the_next_start() {
    let mut tree = Tree::new();
    let bad = tree.extend_with_bad_script(TRUNK as usize);
    let child = tree.extend(bad, 0);
    let dir = tempfile::tempdir().unwrap();
    let mut state = with_trunk(&tree, dir.path(), 1 << 20);
    let headers = [bad, child].map(|node| tree.nodes[node].block.header);
    assert!(state.accept_headers(&headers, NOW).unwrap().refused.is_none());
    assert_ne!(state.submit(tree.nodes[bad].block.clone(), NOW).unwrap(), Submitted::Accepted);
    assert_eq!(tip(&state), tree.hash(TRUNK as usize));
    assert_eq!(state.index().get(state.index().best_header()).hash, tree.hash(child));
    drop(state);
    let mut state = open(dir.path(), 1 << 20).unwrap();
    assert_eq!(tip(&state), tree.hash(TRUNK as usize));
    assert_eq!(state.index().get(state.index().best_header()).hash, tree.hash(TRUNK as usize));
    let marked = state.index().find(&tree.hash(child)).unwrap();
    assert!(state.index().get(marked).is_failed());
    assert_eq!(state.submit(tree.nodes[child].block.clone(), NOW).unwrap(), Submitted::DuplicateInvalid);
    // Clearing the mark of the block clears that of its child too.
    assert_eq!(state.reconsider_block(&tree.hash(bad), NOW).unwrap(), Ok(()));
    assert_eq!(state.index().get(state.index().best_header()).hash, tree.hash(child));
    assert_eq!(state.submit(tree.nodes[bad].block.clone(), NOW).unwrap(), Submitted::DuplicateInvalid);
}
