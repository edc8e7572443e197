//! The rules alone: the registry there and back, and merkle roots.

#![allow(clippy::unwrap_used)]

use std::hint::black_box;

use bitcoin::Block;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use iop_benches::synth::chain::Chain;
use iop_benches::synth::load::Load;
use iop_benches::synth::{Shape, network};
use iop_consensus::license::registry::Registry;
use iop_consensus::merkle;

/// Blocks whose licenses are counted, beyond a whole window.
const BLOCKS: usize = 2_500;

/// A licensed chain: block after block counted, with the window sliding, and taken back.
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

/// The root over as many transactions as a full block has.
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

criterion_group!(benches, registry, merkle_root);
criterion_main!(benches);
