//! Hashes per second of every kernel that this CPU can run, on one thread, for one version and for eight, and of the
//! loop over `sha2`; and the cost of a header before its first nonce.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use iop_benches::scan_with_sha2;
use iop_kernels::{HEADER_LEN, NonceRange, Target, Work, supported};
use iop_stratum::fields::{Extranonce1, Extranonce2, JobId, NBits, NTime, Nonce, PrevHash, Version};
use iop_stratum::notify::Notify;
use iop_stratum::work::{self, header};

/// Long enough that the start of a scan is negligible, short enough for criterion's hundred samples.
const NONCES: u64 = 1 << 16;

fn scan(c: &mut Criterion) {
    // No hash meets it: the search itself is measured, as with any real target.
    let work = Work::new(&[0x5a; HEADER_LEN], Target::from_le_bytes([0; 32]));
    let range = NonceRange::new(0, NONCES).expect("a range from 0 fits 2^32");
    let mut group = c.benchmark_group("scan");
    group.throughput(Throughput::Elements(NONCES));
    for kernel in supported() {
        group.bench_function(kernel.name(), |b| {
            let mut found = Vec::new();
            b.iter(|| kernel.scan(black_box(&work), black_box(range), &mut found));
        });
    }
    group.bench_function("sha2 crate", |b| b.iter(|| scan_with_sha2(black_box(&work), black_box(range))));
    group.finish();
}

/// The same number of headers per pass, in eight versions that share the second block's message.
fn scan_versions(c: &mut Criterion) {
    let versions: Vec<u32> = (0..8).collect();
    let work = Work::with_versions(&[0x5a; HEADER_LEN], &versions, Target::from_le_bytes([0; 32]));
    let range = NonceRange::new(0, NONCES / 8).expect("a range from 0 fits 2^32");
    let mut group = c.benchmark_group("scan 8 versions");
    group.throughput(Throughput::Elements(NONCES));
    for kernel in supported() {
        group.bench_function(kernel.name(), |b| {
            let mut found = Vec::new();
            b.iter(|| kernel.scan_versions(black_box(&work), black_box(range), &mut found));
        });
    }
    group.finish();
}

/// A job with a coinbase as sent by pools and the branches of a block of 4,096 transactions.
fn stratum_work() -> work::Work {
    work::Work::new(&Notify {
        job_id: JobId::new("1").expect("a short name"),
        prev_hash: PrevHash([0xaa; 32]),
        coinbase1: vec![1; 120],
        coinbase2: vec![2; 110],
        branches: vec![[3; 32]; 12],
        version: Version(0x2000_0000),
        nbits: NBits(0x207f_ffff),
        ntime: NTime(1_700_000_000),
        clean: true,
    })
}

/// The work before a header's first nonce.
fn prepare(c: &mut Criterion) {
    let target = Target::from_le_bytes([0; 32]);
    let versions: Vec<u32> = (0..8).collect();
    let mut group = c.benchmark_group("prepare");
    group.bench_function("midstate", |b| b.iter(|| Work::new(black_box(&[0x5a; HEADER_LEN]), target)));
    group.bench_function("8 midstates", |b| {
        b.iter(|| Work::with_versions(black_box(&[0x5a; HEADER_LEN]), &versions, target));
    });
    let template = stratum_work();
    let (extranonce1, extranonce2) =
        (Extranonce1::from_u32(7), Extranonce2::from_counter(9, 8).expect("9 fits 8 bytes"));
    group.bench_function("merkle root of 12 branches", |b| {
        b.iter(|| template.merkle_root(black_box(&extranonce1), black_box(&extranonce2)));
    });
    group.bench_function("header", |b| {
        let root = black_box([3; 32]);
        b.iter(|| header(Version(4), PrevHash([1; 32]), &root, NTime(5), NBits(6), Nonce(black_box(7))));
    });
    group.finish();
}

criterion_group!(benches, scan, scan_versions, prepare);
criterion_main!(benches);
