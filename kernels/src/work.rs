//! What a kernel scans: a header made ready, and the target its hash must meet.

use std::fmt;

use crate::sha256::HeaderState;

/// Bytes in a block header.
pub const HEADER_LEN: usize = 80;

/// Where the nonce lies in the header: bytes 76..80, little-endian.
const NONCE_AT: usize = 76;

/// The 256-bit number that a header's hash, read as a little-endian number, may not exceed.
///
/// Held as 32 bytes **little-endian**: the byte order of a hash as SHA256d gives it, least significant byte
/// first.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Target([u8; 32]);

impl Target {
    /// Met by every hash.
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

    /// The most significant 32 bits. A hash whose own top word is greater cannot meet the target.
    pub(crate) const fn top_word(&self) -> u32 {
        let [.., a, b, c, d] = self.0;
        u32::from_le_bytes([a, b, c, d])
    }
}

/// Prints as people write targets: most significant byte first.
impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Target(")?;
        for byte in self.0.iter().rev() {
            write!(f, "{byte:02x}")?;
        }
        f.write_str(")")
    }
}

/// A header and a target, with everything computed that is the same for all nonces.
#[derive(Clone, Debug)]
pub struct Work {
    header: [u8; HEADER_LEN],
    target: Target,
    state: HeaderState,
}

impl Work {
    /// Prepares a header (bytes as they are hashed; the nonce in it is ignored) for scanning against a
    /// target.
    #[must_use]
    pub fn new(header: &[u8; HEADER_LEN], target: Target) -> Self {
        Self { header: *header, target, state: HeaderState::new(header) }
    }

    /// The target.
    #[must_use]
    pub const fn target(&self) -> Target {
        self.target
    }

    /// The header with this nonce in it.
    #[must_use]
    pub fn header_with(&self, nonce: u32) -> [u8; HEADER_LEN] {
        let mut header = self.header;
        header[NONCE_AT..].copy_from_slice(&nonce.to_le_bytes());
        header
    }

    pub(crate) const fn state(&self) -> &HeaderState {
        &self.state
    }
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
