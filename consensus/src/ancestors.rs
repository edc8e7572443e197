//! The chain below a block, as far as rules may look.
//!
//! [`Ancestors`] gives headers by height, nothing of coins. The node answers it from its block index, tests from
//! a vector.

use bitcoin::BlockHash;
use bitcoin::pow::CompactTarget;

/// Blocks whose times the median time past is taken of.
const MEDIAN_TIME_SPAN: u32 = 11;

/// The fields of a header that rules look back at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeaderInfo {
    /// `nVersion`.
    pub version: i32,
    /// `nTime`, seconds since 1970.
    pub time: u32,
    /// `nBits`.
    pub bits: CompactTarget,
}

/// The chain that a block builds on: every header from genesis to the block's parent.
pub trait Ancestors {
    /// Height of the parent of the block that is being judged.
    fn tip_height(&self) -> u32;
    /// The header at `height`, which is at most [`Ancestors::tip_height`].
    fn header(&self, height: u32) -> HeaderInfo;
    /// The hash at `height`, which is at most [`Ancestors::tip_height`].
    fn hash(&self, height: u32) -> BlockHash;
}

/// Median of the times of the eleven blocks that end at `height` (fewer near genesis), seconds
/// (`GetMedianTimePast`).
pub fn median_time_past(chain: &dyn Ancestors, height: u32) -> u32 {
    let first = (height + 1).saturating_sub(MEDIAN_TIME_SPAN);
    let mut times: Vec<u32> = (first..=height).map(|h| chain.header(h).time).collect();
    times.sort_unstable();
    times[times.len() / 2]
}

/// A chain in a vector: header i is at height i. Hashes are made up from the height.
#[cfg(test)]
pub(crate) struct TestChain(pub(crate) Vec<HeaderInfo>);

#[cfg(test)]
impl TestChain {
    pub(crate) fn repeat(header: HeaderInfo, count: usize) -> Self {
        Self(vec![header; count])
    }
}

#[cfg(test)]
impl Ancestors for TestChain {
    fn tip_height(&self) -> u32 {
        self.0.len() as u32 - 1
    }
    fn header(&self, height: u32) -> HeaderInfo {
        self.0[height as usize]
    }
    fn hash(&self, height: u32) -> BlockHash {
        use bitcoin::hashes::Hash;
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&height.to_le_bytes());
        BlockHash::from_byte_array(bytes)
    }
}
