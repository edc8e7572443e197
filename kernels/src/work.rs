//! What a kernel scans: a prepared header, and the target that its hash must meet.

use std::fmt;

use crate::sha256::{Midstate, Tail};

/// Bytes in a block header.
pub const HEADER_LEN: usize = 80;

/// Offset of the nonce in the header: bytes 76..80, little-endian.
const NONCE_AT: usize = 76;

/// A 256-bit upper bound on a header's hash, with the hash read as a little-endian number.
///
/// Stored as 32 bytes **little-endian**: the byte order of a hash as SHA256d gives it, least significant byte first.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Target([u8; 32]);

impl Target {
    /// The target that every hash meets.
    pub const MAX: Self = Self([0xff; 32]);

    /// From 32 bytes, least significant first.
    #[must_use]
    pub const fn from_le_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes, least significant first.
    #[must_use]
    pub const fn to_le_bytes(self) -> [u8; 32] {
        self.0
    }

    /// Whether a hash, in the byte order of the hash function, is at most this target.
    #[must_use]
    pub fn is_met_by(&self, hash: &[u8; 32]) -> bool {
        hash.iter().rev().le(self.0.iter().rev())
    }

    /// The bits that are zero in the last word, as SHA-256 computes it, of every hash that meets the target: the
    /// target's leading zeros. A hash's last word is its most significant one, with its bytes reversed.
    pub(crate) const fn zeros_of_last_word(&self) -> u32 {
        let [.., a, b, c, d] = self.0;
        let top = u32::from_le_bytes([a, b, c, d]);
        match u32::MAX.checked_shr(top.leading_zeros()) {
            Some(free) => !free,
            None => u32::MAX,
        }
        .swap_bytes()
    }
}

/// Prints in the usual notation: most significant byte first.
impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Target(")?;
        for byte in self.0.iter().rev() {
            write!(f, "{byte:02x}")?;
        }
        f.write_str(")")
    }
}

/// A header in one or several versions and a target, with everything precomputed that is the same for all nonces.
///
/// Versions differ only in the header's first block, so a kernel expands the second block's message once for all of
/// them: two versions and one nonce cost less than one version and two nonces.
#[derive(Clone, Debug)]
pub struct Work {
    header: [u8; HEADER_LEN],
    target: Target,
    tail: Tail,
    /// At least one, at most [`Work::MAX_VERSIONS`].
    versions: Vec<(u32, Midstate)>,
}

impl Work {
    /// Most versions of a work. Each costs memory and time to prepare, and a 17th would gain nothing.
    pub const MAX_VERSIONS: usize = 16;

    /// Prepares a header (the bytes that are hashed; its nonce is ignored) for scanning against a target.
    #[must_use]
    pub fn new(header: &[u8; HEADER_LEN], target: Target) -> Self {
        let [a, b, c, d, ..] = *header;
        Self::with_versions(header, &[u32::from_le_bytes([a, b, c, d])], target)
    }

    /// Prepares a header in each of the versions, in their order. The header's own version and nonce are ignored.
    ///
    /// # Panics
    /// There is no version, or more than [`Self::MAX_VERSIONS`].
    #[must_use]
    pub fn with_versions(header: &[u8; HEADER_LEN], versions: &[u32], target: Target) -> Self {
        assert!((1..=Self::MAX_VERSIONS).contains(&versions.len()), "{} versions", versions.len());
        let versions = versions.iter().map(|&version| (version, Midstate::new(&in_version(header, version))));
        Self { header: *header, target, tail: Tail::new(header), versions: versions.collect() }
    }

    /// The target.
    #[must_use]
    pub const fn target(&self) -> Target {
        self.target
    }

    /// The number of versions scanned, at least one.
    #[must_use]
    pub fn versions(&self) -> usize {
        self.versions.len()
    }

    /// The first version's header with this nonce.
    #[must_use]
    pub fn header_with(&self, nonce: u32) -> [u8; HEADER_LEN] {
        self.header_of(Found { nonce, version: 0 })
    }

    /// The header that was found.
    ///
    /// # Panics
    /// There is no such version.
    #[must_use]
    pub fn header_of(&self, found: Found) -> [u8; HEADER_LEN] {
        let mut header = in_version(&self.header, self.versions[usize::from(found.version)].0);
        header[NONCE_AT..].copy_from_slice(&found.nonce.to_le_bytes());
        header
    }

    pub(crate) const fn tail(&self) -> &Tail {
        &self.tail
    }

    /// What is specific to each version, in their order.
    pub(crate) fn midstates(&self) -> impl ExactSizeIterator<Item = &Midstate> {
        self.versions.iter().map(|(_, midstate)| midstate)
    }
}

/// A result of a kernel: a header whose hash meets the target. Sorts by nonce, then by version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Found {
    /// The header's nonce.
    pub nonce: u32,
    /// Index of the version in the work, from 0.
    pub version: u8,
}

fn in_version(header: &[u8; HEADER_LEN], version: u32) -> [u8; HEADER_LEN] {
    let mut header = *header;
    header[..4].copy_from_slice(&version.to_le_bytes());
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A number whose top byte is `top` and whose lowest byte is `low`.
    fn number(top: u8, low: u8) -> [u8; 32] {
        let mut bytes = [0; 32];
        bytes[31] = top;
        bytes[0] = low;
        bytes
    }

    #[test]
    fn a_hash_equal_to_the_target_meets_it_and_one_more_does_not() {
        let target = Target::from_le_bytes(number(3, 7));
        assert!(target.is_met_by(&number(3, 7)));
        assert!(target.is_met_by(&number(3, 6)));
        assert!(target.is_met_by(&number(2, 255)));
        assert!(!target.is_met_by(&number(3, 8)));
        assert!(!target.is_met_by(&number(4, 0)));
        assert!(Target::MAX.is_met_by(&[0xff; 32]));
        assert!(Target::from_le_bytes([0; 32]).is_met_by(&[0; 32]));
        assert!(!Target::from_le_bytes([0; 32]).is_met_by(&number(0, 1)));
    }

    #[test]
    fn the_nonce_goes_little_endian_into_bytes_76_to_80() {
        let header = Work::new(&[9; HEADER_LEN], Target::MAX).header_with(0x0403_0201);
        assert_eq!(header[..76], [9; 76]);
        assert_eq!(header[76..], [1, 2, 3, 4]);
    }

    #[test]
    fn a_target_prints_most_significant_byte_first() {
        let shown = format!("{:?}", Target::from_le_bytes(number(0xab, 0x01)));
        assert!(shown.starts_with("Target(ab00") && shown.ends_with("0001)"));
    }
}
