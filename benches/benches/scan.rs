//! Hashes per second of every kernel that this CPU can run, on one thread, and of the loop over `sha2`.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use iop_benches::scan_with_sha2;
use iop_kernels::{HEADER_LEN, NonceRange, Target, Work, supported};

/// Long enough that a scan's start is nothing, short enough for criterion's hundred samples.
const NONCES: u64 = 1 << 16;

fn scan(c: &mut Criterion) {
    // No hash meets it: what is measured is the search, as against any real target.
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

criterion_group!(benches, scan);
criterion_main!(benches);
