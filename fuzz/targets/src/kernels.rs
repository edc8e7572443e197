//! The nonce search: every kernel that this CPU can run, compared with hashing one by one by the library.

use iop_kernels::{Found, HEADER_LEN, NonceRange, Target, Work, supported, verify};

/// 80 bytes of header, 32 of target (least significant first), the first nonce, the number of nonces (16 bits), then
/// versions of four bytes each. Missing bytes count as 0.
pub(crate) fn scan(data: &[u8]) {
    let mut bytes = data.iter().copied().chain(std::iter::repeat(0));
    let mut take = || bytes.next().expect("zeros never end");
    let header: [u8; HEADER_LEN] = std::array::from_fn(|_| take());
    let target = Target::from_le_bytes(std::array::from_fn(|_| take()));
    let first = u32::from_le_bytes(std::array::from_fn(|_| take()));
    let count = u64::from(u16::from_le_bytes(std::array::from_fn(|_| take())) % 600) + 1;
    let versions = (data.len().saturating_sub(118) / 4).clamp(1, Work::MAX_VERSIONS);
    let versions: Vec<u32> =
        (0..versions).map(|_| u32::from_le_bytes(std::array::from_fn(|_| take()))).collect();
    let work = Work::with_versions(&header, &versions, target);
    let range =
        NonceRange::new(first, count.min((1 << 32) - u64::from(first))).expect("it ends at the last nonce");
    let mut expected = Vec::new();
    for nonce in range.first()..=range.last() {
        let found = (0..versions.len() as u8).map(|version| Found { nonce, version });
        expected.extend(found.filter(|found| target.is_met_by(&verify(&work.header_of(*found)))));
    }
    for kernel in supported() {
        let mut found = Vec::new();
        let hashes = kernel.scan_versions(&work, range, &mut found);
        assert_eq!(hashes, range.count() * versions.len() as u64, "{}", kernel.name());
        assert_eq!(found, expected, "{}", kernel.name());
    }
}
