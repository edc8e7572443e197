//! All kernels find the same nonces: those that meet the target according to an independent SHA-256.

#![allow(clippy::unwrap_used)]

use std::sync::Once;

use bitcoin::hashes::{Hash, sha256d};
use iop_kernels::{Found, HEADER_LEN, Kernel, NonceRange, Target, Work, by_name, supported, verify};
use proptest::prelude::*;

type Header = [u8; HEADER_LEN];

/// Bitcoin's first two blocks and the genesis block of IoP: header, nonce, and hash as explorers print it.
const KNOWN: [(&str, u32, &str); 3] = [
    (
        "0100000000000000000000000000000000000000000000000000000000000000000000003ba3edfd7a7b12b27ac72c3e67768f61\
         7fc81bc3888a51323a9fb8aa4b1e5e4a29ab5f49ffff001d1dac2b7c",
        2_083_236_893,
        "000000000019d6689c085ae165831e934ff763ae46a2a6c172b3f1b60a8ce26f",
    ),
    (
        "010000006fe28c0ab6f1b372c1a6a246ae63f74f931e8365e15a089c68d6190000000000982051fd1e4ba744bbbe680e1fee1467\
         7ba1a3c3540bf7b1cdb606e857233e0e61bc6649ffff001d01e36299",
        2_573_394_689,
        "00000000839a8e6886ab5951d76f411475428afc90947ee320161bbf18eb6048",
    ),
    (
        "010000000000000000000000000000000000000000000000000000000000000000000000e12b8f2b\
         ef968efbdf2fab49fb3f1c59456e7d9b0f2c4afb4750a92d6dc41b9515823a57ffff001d6c90c36f",
        1_875_087_468,
        "00000000bf5f2ee556cb9be8be64e0776af14933438dbb1af72c41bfb6c82db3",
    ),
];

fn known() -> impl Iterator<Item = (Header, u32, [u8; 32])> {
    KNOWN.into_iter().map(|(header, nonce, hash)| {
        let mut hash: [u8; 32] = hex::decode(hash).unwrap().try_into().unwrap();
        hash.reverse();
        (hex::decode(header).unwrap().try_into().unwrap(), nonce, hash)
    })
}

/// The kernels to test. Those that this CPU cannot run are reported on stderr, once.
fn kernels() -> impl Iterator<Item = &'static dyn Kernel> {
    static SAID: Once = Once::new();
    SAID.call_once(|| {
        for kernel in iop_kernels::all().iter().filter(|kernel| !kernel.is_supported()) {
            eprintln!("SKIPPED: this CPU cannot run kernel {}", kernel.name());
        }
    });
    supported()
}

fn range(first: u32, count: u64) -> NonceRange {
    NonceRange::new(first, count).unwrap()
}

fn scan(kernel: &dyn Kernel, work: &Work, range: NonceRange) -> Vec<u32> {
    let mut found = Vec::new();
    assert_eq!(kernel.scan(work, range, &mut found), range.count(), "{} counts its hashes", kernel.name());
    found
}

/// What the kernels should find, according to two independent SHA-256 (`sha2` and `bitcoin_hashes`) and a separate
/// comparison.
fn brute_force(header: &Header, target: [u8; 32], range: NonceRange) -> Vec<u32> {
    let meets = |nonce: &u32| {
        let mut header = *header;
        header[76..].copy_from_slice(&nonce.to_le_bytes());
        let hash = verify(&header);
        assert_eq!(sha256d::Hash::hash(&header).to_byte_array(), hash, "the oracles agree");
        (0..32)
            .rev()
            .map(|i| hash[i].cmp(&target[i]))
            .find(|order| order.is_ne())
            .is_none_or(|order| order.is_lt())
    };
    (range.first()..=range.last()).filter(meets).collect()
}

#[test]
fn verify_gives_the_known_hashes_of_known_headers() {
    for (header, nonce, hash) in known() {
        assert_eq!(verify(&header), hash);
        assert_eq!(Work::new(&header, Target::MAX).header_with(nonce), header);
    }
}

#[test]
fn every_kernel_finds_the_known_nonces_wherever_they_lie_in_the_range() {
    let difficulty_1 =
        Target::from_le_bytes(std::array::from_fn(|i| if i == 26 || i == 27 { 0xff } else { 0 }));
    for kernel in kernels() {
        for (header, nonce, hash) in known() {
            for target in [difficulty_1, Target::from_le_bytes(hash)] {
                let work = Work::new(&header, target);
                for before in 0..40 {
                    assert_eq!(scan(kernel, &work, range(nonce - before, 41)), [nonce], "{}", kernel.name());
                }
                assert_eq!(scan(kernel, &work, range(nonce, 1)), [nonce]);
                assert_eq!(scan(kernel, &work, range(nonce + 1, 100)), [0; 0]);
            }
        }
    }
}

#[test]
fn a_range_may_end_with_the_last_nonce_of_all() {
    for kernel in kernels() {
        let work = Work::new(&[7; HEADER_LEN], Target::MAX);
        for count in 1..=50 {
            let first = u32::MAX - (count - 1);
            let all: Vec<u32> = (first..=u32::MAX).collect();
            assert_eq!(scan(kernel, &work, range(first, count.into())), all, "{}", kernel.name());
        }
    }
}

#[test]
fn every_lane_and_every_version_finds() {
    // One nonce in a few hundred, moved through all places in a batch of any kernel, in each version.
    let mut target = [0xff; 32];
    target[31] = 0;
    let versions = [0x2000_0000, 0x2000_2000, 1, u32::MAX, 7];
    let work = Work::with_versions(&[0x31; HEADER_LEN], &versions, Target::from_le_bytes(target));
    for version in 0..5u8 {
        let meets = |nonce: &u32| {
            Target::from_le_bytes(target)
                .is_met_by(&verify(&work.header_of(Found { nonce: *nonce, version })))
        };
        let nonce = (10_000..).find(meets).unwrap();
        let header = work.header_of(Found { nonce, version });
        assert_eq!(header[..4], versions[usize::from(version)].to_le_bytes());
        for kernel in kernels() {
            for before in 0..66 {
                let range = range(nonce - before, 130);
                let mut found = vec![];
                assert_eq!(kernel.scan_versions(&work, range, &mut found), 5 * 130);
                assert!(found.contains(&Found { nonce, version }), "{} lane {before}", kernel.name());
                assert!(found.is_sorted());
            }
        }
    }
}

/// A kernel splits long ranges into several calls. A quarter of the hashes meet the target, so that a miss at the
/// boundary of two calls is noticed; not all do, so that wrong hashes are noticed too.
#[test]
fn nothing_is_missed_in_long_ranges() {
    let mut target = [0xff; 32];
    target[31] = 0x3f;
    for count in [1, 3, 7, 16] {
        let versions: Vec<u32> = (0..count).collect();
        let work = Work::with_versions(&[0x31; HEADER_LEN], &versions, Target::from_le_bytes(target));
        let shorter = if count > 1 { 2 } else { 1 };
        for range in [range(11, 40_001 / shorter), range(u32::MAX - 33_332, 33_333 / shorter)] {
            let scan = |kernel: &dyn Kernel| {
                let mut found = Vec::new();
                kernel.scan_versions(&work, range, &mut found);
                found
            };
            let expected = scan(by_name("scalar").unwrap());
            for kernel in kernels() {
                // A failure would otherwise print a hundred thousand values.
                assert!(scan(kernel) == expected, "{} with {count} versions", kernel.name());
            }
        }
    }
}

#[test]
fn each_kernel_can_be_had_by_its_name() {
    for kernel in kernels() {
        let chosen = by_name(kernel.name()).unwrap();
        assert_eq!(chosen.name(), kernel.name());
        let (header, nonce, hash) = known().next().unwrap();
        let work = Work::new(&header, Target::from_le_bytes(hash));
        assert_eq!(scan(chosen, &work, range(nonce - 1000, 2000)), [nonce]);
    }
}

#[test]
fn what_was_found_before_is_kept() {
    for kernel in kernels() {
        let mut found = vec![9];
        kernel.scan(&Work::new(&[7; HEADER_LEN], Target::MAX), range(40, 3), &mut found);
        assert_eq!(found, [9, 40, 41, 42]);
    }
}

/// Ranges of any length up to a few hundred, anywhere, and at either end more often than by chance.
fn ranges() -> impl Strategy<Value = NonceRange> {
    (prop_oneof![any::<u32>(), 0..64u32, u32::MAX - 600..=u32::MAX], 1..300u64)
        .prop_map(|(first, count)| range(first, count.min((1 << 32) - u64::from(first))))
}

/// Targets of any height: met by none, by all, by one hash in a few, and some that differ from others only in low bits.
fn targets() -> impl Strategy<Value = [u8; 32]> {
    let with_top =
        |top: u8| any::<[u8; 31]>().prop_map(move |low| std::array::from_fn(|i| *low.get(i).unwrap_or(&top)));
    prop_oneof![
        Just([0; 32]),
        Just([0xff; 32]),
        any::<[u8; 32]>(),
        (0..8u8).prop_flat_map(with_top),
        any::<u8>().prop_map(|byte| [byte; 32]),
    ]
}

fn headers() -> impl Strategy<Value = Header> {
    (any::<[u8; 32]>(), any::<[u8; 32]>(), any::<[u8; 16]>())
        .prop_map(|(a, b, c)| [&a[..], &b, &c].concat().try_into().unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn every_kernel_finds_what_brute_force_finds(header in headers(), target in targets(), range in ranges()) {
        let expected = brute_force(&header, target, range);
        let work = Work::new(&header, Target::from_le_bytes(target));
        for kernel in kernels() {
            prop_assert_eq!(&scan(kernel, &work, range), &expected, "{}", kernel.name());
        }
    }

    #[test]
    fn versions_together_find_what_each_finds_alone(
        header in headers(), target in targets(), range in ranges(),
        versions in proptest::collection::vec(any::<u32>(), 1..=Work::MAX_VERSIONS),
    ) {
        let work = Work::with_versions(&header, &versions, Target::from_le_bytes(target));
        let mut expected = Vec::new();
        for (version, number) in (0..).zip(&versions) {
            let mut header = header;
            header[..4].copy_from_slice(&number.to_le_bytes());
            expected.extend(brute_force(&header, target, range).into_iter().map(|nonce| Found { nonce, version }));
        }
        expected.sort();
        for kernel in kernels() {
            let mut found = Vec::new();
            let hashes = kernel.scan_versions(&work, range, &mut found);
            prop_assert_eq!(hashes, range.count() * versions.len() as u64);
            prop_assert_eq!(&found, &expected, "{}", kernel.name());
        }
    }

    /// The target is the hash of one nonce of the range, or one less: the comparison is exact to the last bit.
    #[test]
    fn a_hash_equal_to_the_target_counts(header in headers(), range in ranges(), pick in any::<prop::sample::Index>()) {
        let nonce = range.first() + pick.index(usize::try_from(range.count()).unwrap()) as u32;
        let hash = verify(&Work::new(&header, Target::MAX).header_with(nonce));
        let mut less = hash;
        let borrowed = less.iter().position(|byte| *byte > 0).unwrap();
        less[..=borrowed].iter_mut().for_each(|byte| *byte = byte.wrapping_sub(1));
        for kernel in kernels() {
            let at_hash = scan(kernel, &Work::new(&header, Target::from_le_bytes(hash)), range);
            let below = scan(kernel, &Work::new(&header, Target::from_le_bytes(less)), range);
            prop_assert!(at_hash.contains(&nonce), "{}", kernel.name());
            prop_assert!(!below.contains(&nonce), "{}", kernel.name());
            prop_assert_eq!(at_hash, brute_force(&header, hash, range));
        }
    }

    /// Longer than what any kernel does in one call.
    #[test]
    fn every_kernel_finds_what_the_scalar_kernel_finds_in_long_ranges(
        header in headers(), first in any::<u32>(), top in 0..4u8, count in 1..20_000u64,
        versions in proptest::collection::vec(any::<u32>(), 1..=Work::MAX_VERSIONS),
    ) {
        let mut target = [0xff; 32];
        target[31] = 0;
        target[30] = top;
        let work = Work::with_versions(&header, &versions, Target::from_le_bytes(target));
        let range = range(first, count.min((1 << 32) - u64::from(first)));
        let scan = |kernel: &dyn Kernel| {
            let mut found = Vec::new();
            assert_eq!(kernel.scan_versions(&work, range, &mut found), range.count() * versions.len() as u64);
            found
        };
        let expected = scan(iop_kernels::by_name("scalar").unwrap());
        for kernel in kernels() {
            prop_assert_eq!(&scan(kernel), &expected, "{}", kernel.name());
        }
    }
}
