//! The node's work on a chain: connecting a full block from a warm cache, accepting headers, starting with a long
//! index.

#![allow(clippy::unwrap_used)]

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bitcoin::Block;
use bitcoin::block::Header;
use bitcoin::consensus::encode::serialize;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use iop_benches::synth::chain::Chain;
use iop_benches::synth::load::Load;
use iop_benches::synth::{Shape, network};
use iop_consensus::params::Params;
use iop_consensus::wire::read_block;
use iop_node::chain::checked::CheckedBlock;
use iop_node::chain::clock::now;
use iop_node::chain::state::ChainState;
use iop_node::storage::Storage;

/// Inputs of a block of about a megabyte, two to a transaction of 374 bytes.
const INPUTS_OF_A_MEGABYTE: usize = 5_350;
/// Headers per message.
const MESSAGE: usize = 2_000;

/// Whether to measure: run as a test, a bench only shows that it works.
fn measures() -> bool {
    std::env::args().any(|arg| arg == "--bench")
}

fn open(dir: &std::path::Path) -> ChainState {
    open_as(dir, network())
}

fn open_as(dir: &std::path::Path, params: Params) -> ChainState {
    let params = Arc::new(params);
    let storage = Arc::new(Storage::open(dir, &params).unwrap());
    ChainState::load(params, storage).unwrap()
}

fn checked(block: &Block) -> CheckedBlock {
    CheckedBlock::new(block.clone(), &network()).unwrap()
}

/// A separate state with the setup blocks, and the next blocks of a megabyte each.
fn with_blocks(dir: &std::path::Path, count: usize) -> (ChainState, Vec<Block>) {
    let (mut state, mut chain) = (open(dir), Chain::new());
    let mut load = Load::new(Shape::Signatures, 1);
    for block in load.set_up(&mut chain) {
        state.accept_checked(Ok(checked(&block)), true, now()).unwrap();
    }
    let mut next = |_| chain.extend(load.group(&[INPUTS_OF_A_MEGABYTE]).remove(0));
    (state, (0..count).map(&mut next).collect())
}

/// Connects a block of a megabyte with 5,350 signed inputs, whose coins are in memory: storing, scripts on all cores,
/// coins.
fn connect(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("connect");
    group.sample_size(10).measurement_time(Duration::from_secs(10));
    group.bench_function("1 MB, 5350 inputs", |bencher| {
        bencher.iter_custom(|times| {
            let dir = tempfile::tempdir().unwrap();
            let (mut state, blocks) = with_blocks(dir.path(), times as usize);
            let blocks: Vec<CheckedBlock> = blocks.iter().map(checked).collect();
            let start = Instant::now();
            for block in blocks {
                let accepted = state.accept_checked(Ok(block), true, now()).unwrap();
                assert_eq!(accepted.verdict, Some(Ok(())));
            }
            start.elapsed()
        });
    });
    group.finish();
}

/// Decodes a block, and checks it without context.
fn decode(criterion: &mut Criterion) {
    let dir = tempfile::tempdir().unwrap();
    let block = with_blocks(dir.path(), 1).1.remove(0);
    let bytes = serialize(&block);
    let mut group = criterion.benchmark_group("block");
    group.throughput(Throughput::Bytes(bytes.len() as u64));
    group.bench_function("decode 1 MB", |bencher| {
        bencher.iter(|| read_block(&mut black_box(&bytes[..])).unwrap());
    });
    let block = Arc::new(block);
    group.bench_function("check 1 MB alone", |bencher| {
        bencher.iter(|| CheckedBlock::new(block.clone(), &network()).unwrap());
    });
    group.finish();
}

/// About `count` consecutive headers.
fn headers(count: usize) -> Vec<Header> {
    let mut chain = Chain::new();
    (0..count).map(|_| chain.extend(Vec::new()).header).collect()
}

/// Accepts messages of 2,000 headers, each checked against its ancestors and written: on a network where the target may
/// change only every 2,016 blocks, like main, and on one that allows blocks of minimum difficulty, where each header
/// walks back to the block that set the target.
fn accept_headers(criterion: &mut Criterion) {
    let all = headers(if measures() { 10 * MESSAGE } else { MESSAGE });
    let mut group = criterion.benchmark_group("headers");
    group.throughput(Throughput::Elements(all.len() as u64)).sample_size(10);
    for (name, min_difficulty_blocks) in [("as main, 20,000", false), ("as regtest, 20,000", true)] {
        let mut params = network();
        params.pow.min_difficulty_blocks = min_difficulty_blocks;
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|times| (0..times).map(|_| taken_in(&all, &params)).sum());
        });
    }
    group.finish();
}

fn taken_in(all: &[Header], params: &Params) -> Duration {
    let dir = tempfile::tempdir().unwrap();
    let mut state = open_as(dir.path(), params.clone());
    let start = Instant::now();
    for message in all.chunks(MESSAGE) {
        assert_eq!(state.accept_headers(message, now()).unwrap().refused, None);
    }
    start.elapsed()
}

/// From a closed database with 200,000 headers to a usable state.
fn start(criterion: &mut Criterion) {
    let dir = tempfile::tempdir().unwrap();
    let mut state = open(dir.path());
    let count = if measures() { 100 * MESSAGE } else { MESSAGE };
    for message in headers(count).chunks(MESSAGE) {
        state.accept_headers(message, now()).unwrap();
    }
    drop(state);
    let mut group = criterion.benchmark_group("start");
    group.sample_size(10);
    group.bench_function("200,000 index entries", |bencher| bencher.iter(|| open(dir.path())));
    group.finish();
}

criterion_group!(benches, connect, decode, accept_headers, start);
criterion_main!(benches);
