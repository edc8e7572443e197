//! An entry of the share log: 36 bytes. Its key is its number, which counts up from 0 without a gap. And whom
//! its user name pays.

use iop_consensus::address::{Address, Prefixes};
use iop_stratum::difficulty::{Difficulty, HASHES_AT_1};

/// Bytes of a share in the log.
pub const SHARE_BYTES: usize = 36;
/// Bytes of a share's hash that are kept: enough that two shares are never mistaken for one.
pub const HASH_BYTES: usize = 16;

/// A user name's number in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserId(pub u32);

/// The address at the start of a user name.
#[must_use]
pub fn member_of(name: &str, prefixes: &Prefixes) -> Option<Address> {
    Address::parse(name.split('.').next().unwrap_or_default(), prefixes).ok()
}

/// The first bytes of a header's hash, as SHA-256 gives them.
pub type ShareHash = [u8; HASH_BYTES];

/// An accepted share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// When it came, in seconds since 1970.
    pub time: u32,
    /// The user that submitted it.
    pub user: UserId,
    /// The expected number of hashes, at least 1.
    pub work: u64,
    /// Height of the block that it was for.
    pub height: u32,
    /// Identifies the share.
    pub hash: ShareHash,
}

impl Share {
    /// Encodes it for the log: integers little-endian, in the order of the fields.
    #[must_use]
    pub fn to_bytes(self) -> [u8; SHARE_BYTES] {
        let mut bytes = [0; SHARE_BYTES];
        bytes[..4].copy_from_slice(&self.time.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.user.0.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.work.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.height.to_le_bytes());
        bytes[20..].copy_from_slice(&self.hash);
        bytes
    }

    /// Decodes an entry of the log; `None` for another length.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; SHARE_BYTES] = bytes.try_into().ok()?;
        let number = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        Some(Self {
            time: number(0),
            user: UserId(number(4)),
            work: u64::from(number(8)) | u64::from(number(12)) << 32,
            height: number(16),
            hash: bytes[20..].try_into().expect("16 bytes are left"),
        })
    }
}

/// The work of a share of this difficulty: the number of hashes it takes on average, at least 1.
#[must_use]
pub fn work_of(difficulty: Difficulty) -> u64 {
    // The cast saturates; the pool's greatest difficulty is far below that.
    ((difficulty.get() * HASHES_AT_1).round() as u64).max(1)
}

/// Work as a difficulty, for display.
#[must_use]
pub fn difficulty_of(work: u128) -> f64 {
    work as f64 / HASHES_AT_1
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn work_is_the_expected_number_of_hashes() {
        let work = |difficulty| work_of(Difficulty::new(difficulty).unwrap());
        assert_eq!((work(1.0), work(0.5), work(1e9)), (1 << 32, 1 << 31, 4_294_967_296_000_000_000));
        assert_eq!((work(1e-300), work(1e300)), (1, u64::MAX));
        assert!((difficulty_of(1 << 33) - 2.0).abs() < 1e-12);
    }

    proptest! {
        #[test]
        fn a_share_comes_back_as_it_was(time: u32, user: u32, work: u64, height: u32, hash: [u8; 16]) {
            let share = Share { time, user: UserId(user), work, height, hash };
            prop_assert_eq!(Share::from_bytes(&share.to_bytes()), Some(share));
        }

        #[test]
        fn other_lengths_are_no_shares(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            prop_assert_eq!(Share::from_bytes(&bytes).is_some(), bytes.len() == SHARE_BYTES);
        }
    }
}
