//! The consensus rules alone: the registry forward and back, merkle roots, and the scripts of one large transaction.

#![allow(clippy::unwrap_used)]

use std::hint::black_box;

use bitcoin::{Block, ScriptBuf, Transaction, TxIn, TxOut, absolute, transaction};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use iop_benches::synth::chain::Chain;
use iop_benches::synth::load::Load;
use iop_benches::synth::{Shape, network};
use iop_consensus::license::registry::Registry;
use iop_consensus::merkle;
use iop_consensus::script::{TxVerifier, flag};

/// Blocks whose licenses are counted: more than a whole window.
const BLOCKS: usize = 2_500;

/// A licensed chain: blocks counted one by one, with the window sliding, and undone.
fn registry(criterion: &mut Criterion) {
    let params = network();
    let (mut chain, mut load) = (Chain::new(), Load::new(Shape::Signatures, 1));
    let mut blocks: Vec<Block> = load.set_up_small(&mut chain);
    blocks.extend((0..BLOCKS).map(|_| chain.extend(Vec::new())));
    let mut group = criterion.benchmark_group("registry");
    group.throughput(Throughput::Elements(blocks.len() as u64));
    group.bench_function("apply and undo", |bencher| {
        bencher.iter(|| {
            let mut registry = Registry::genesis(&params);
            let undos: Vec<_> = blocks.iter().map(|block| registry.apply(block, &params).0).collect();
            undos.iter().rev().for_each(|undo| registry.undo(undo));
            assert_eq!(registry, Registry::genesis(&params));
        });
    });
    group.finish();
}

/// The root over the transactions of a full block.
fn merkle_root(criterion: &mut Criterion) {
    let leaves: Vec<[u8; 32]> = (0..4_000u32)
        .map(|n| {
            let mut leaf = [7; 32];
            leaf[..4].copy_from_slice(&n.to_le_bytes());
            leaf
        })
        .collect();
    let mut group = criterion.benchmark_group("merkle");
    group.throughput(Throughput::Elements(leaves.len() as u64));
    group.bench_function("4,000 leaves", |bencher| bencher.iter(|| merkle::root(black_box(leaves.clone()))));
    group.finish();
}

/// A transaction's inputs, each with a signature that fails early, so that only the cost common to all inputs is
/// measured. The largest fills a block.
fn scripts(criterion: &mut Criterion) {
    // OP_0 <key> OP_CHECKSIG OP_NOT
    let spent = [&[0x00, 0x21, 0x02][..], &[7; 32], &[0xac, 0x91]].concat();
    let spent = TxOut { script_pubkey: ScriptBuf::from_bytes(spent), ..TxOut::NULL };
    let mut group = criterion.benchmark_group("scripts of one transaction");
    group.sample_size(10);
    for inputs in [100, 400, 1_000, 24_000] {
        let tx = Transaction {
            version: transaction::Version::ONE,
            lock_time: absolute::LockTime::ZERO,
            input: vec![TxIn::default(); inputs],
            output: vec![],
        };
        group.throughput(Throughput::Elements(inputs as u64));
        group.bench_function(format!("{inputs} inputs"), |bencher| {
            bencher.iter(|| {
                let verifier = TxVerifier::new(&tx);
                (0..inputs).for_each(|input| verifier.verify(input, &spent, flag::CONSENSUS).unwrap());
            });
        });
    }
    group.finish();
}

criterion_group!(benches, registry, merkle_root, scripts);
criterion_main!(benches);
