//! Every OpenCL device finds what the CPU's kernels find, with any shape.

#![cfg(feature = "opencl")]
#![allow(clippy::unwrap_used)]

use iop_kernels::opencl::{OpenClDevice, Scanner, Shape, list};
use iop_kernels::{Found, NonceRange, Target, Work, by_name};

/// Targets met by no hash, by one in 256 or so, and by all.
fn targets() -> [Target; 4] {
    let top = |byte: u8| Target::from_le_bytes(std::array::from_fn(|i| if i == 31 { byte } else { 0xa5 }));
    [Target::from_le_bytes([0; 32]), top(0), top(2), Target::MAX]
}

fn expected(work: &Work, range: NonceRange) -> Vec<Found> {
    let mut found = Vec::new();
    by_name("scalar").unwrap().scan_versions(work, range, &mut found);
    found
}

fn check(scanner: &mut Scanner, work: &Work, first: u32, count: u64) {
    let range = NonceRange::new(first, count).unwrap();
    let mut found = Vec::new();
    let hashes = scanner.scan(work, range, &mut found).unwrap();
    assert_eq!(hashes, count * work.versions() as u64);
    assert_eq!(found, expected(work, range), "{} versions, {count} from {first}", work.versions());
}

fn devices() -> Vec<OpenClDevice> {
    match list() {
        Ok(devices) => devices,
        Err(error) => {
            eprintln!("SKIPPED: {error}");
            Vec::new()
        }
    }
}

/// Each thread of a miner looks for its own device, which not every driver tolerates while it initialises.
#[test]
fn devices_may_be_asked_for_by_many_threads_at_once() {
    let names = || devices().into_iter().map(|device| device.name).collect::<Vec<_>>();
    let all = std::thread::scope(|scope| {
        let asking: Vec<_> = (0..8).map(|_| scope.spawn(names)).collect();
        asking.into_iter().map(|names| names.join().unwrap()).collect::<Vec<_>>()
    });
    assert!(all.iter().all(|one| *one == all[0]));
}

#[test]
fn every_device_finds_what_the_scalar_kernel_finds() {
    for device in devices() {
        let shape = |vector, versions, group, batches, multiply| Shape {
            vector,
            versions,
            group,
            batches,
            multiply,
            sha: false,
        };
        let sha = |versions, batches| Shape { sha: true, ..shape(16, versions, 2, batches, 0) };
        for shape in [
            shape(1, 1, 4, 1, 0),
            shape(16, 4, 2, 1, 0),
            shape(16, 1, 2, 5, 0),
            shape(2, 1, 3, 2, 1),
            shape(1, 4, 4, 1, 2),
            shape(1, 1, 4, 1, 3),
            sha(1, 3),
            sha(4, 2),
        ] {
            if !shape.suits(&device) {
                assert!(Scanner::new(&device, shape).is_err(), "{shape:?}");
                continue;
            }
            let mut scanner = Scanner::new(&device, shape).unwrap();
            let group = u64::from(shape.vector * shape.group * shape.batches);
            let work = Work::with_versions(&[7; 80], &[1, 2, 3, 4], Target::MAX);
            assert_eq!(scanner.nonces(&work, 1), group);
            assert_eq!(scanner.nonces(&work, 4 * group), group);
            assert_eq!(scanner.nonces(&work, 8 * group + 1), 2 * group);
            for target in targets() {
                for versions in [&[0x2000_0000][..], &[1, 2, 3], &[4, 5, 6, 7, 0x2000_0000, 8, 9, 10]] {
                    let work = Work::with_versions(&[0x77; 80], versions, target);
                    for (first, count) in [(0, 1), (5, 300), (u32::MAX - 70, 71), (123_457, 1000)] {
                        check(&mut scanner, &work, first, count);
                    }
                }
            }
        }
    }
}

/// No more nonces than give half of the candidates that there is room for, if a launch can be that small: it computes
/// whole work groups, and a single one may find more than there is room for. Its results are correct all the same.
#[test]
fn easy_targets_are_scanned_in_few_nonces_and_nothing_is_missed_where_a_group_finds_too_much() {
    for device in devices() {
        for (vector, versions, group, batches, sha) in
            [(16, 1, 16, 64, false), (16, 8, 16, 1, false), (1, 1, 64, 1, false), (16, 8, 4, 64, true)]
        {
            let shape = Shape { vector, versions, group, batches, multiply: 0, sha };
            if !shape.suits(&device) {
                continue;
            }
            let mut scanner = Scanner::new(&device, shape).unwrap();
            let group = u64::from(vector * group * batches);
            for zeros in 0..=40_u32 {
                // One hash in 2 to the power of `zeros`.
                let target: [u8; 32] = std::array::from_fn(|i| {
                    let above = 8 * (31 - i as u32);
                    0xffu8.checked_shr(zeros.saturating_sub(above)).unwrap_or(0)
                });
                let versions = [0x2000_0000, 1, 2, 3, 4, 5, 6, 7];
                let work = Work::with_versions(&[0x77; 80], &versions, Target::from_le_bytes(target));
                let nonces = scanner.nonces(&work, 1 << 30);
                assert!((nonces * 8) >> zeros.min(32) <= 2048, "{shape:?} {zeros}: {nonces}");
                assert!(nonces <= group || nonces.is_multiple_of(group), "{shape:?} {zeros}: {nonces}");
                if nonces < 1 << 14 {
                    check(&mut scanner, &work, 7, nonces);
                } else if zeros > 22 {
                    assert_eq!(nonces, 1 << 27, "hard targets are scanned as asked");
                }
            }
        }
    }
}
