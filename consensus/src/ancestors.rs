//! The chain below a block, as far as the rules may look.
//!
//! [`Ancestors`] gives headers by height, but no coins. The node implements it on its block index, tests on a vector.

use bitcoin::BlockHash;
use bitcoin::pow::CompactTarget;

/// Number of blocks in the median time past.
const MEDIAN_TIME_SPAN: u32 = 11;

/// The fields of an ancestor's header that the rules use.
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
    /// Height of the parent of the block being checked.
    fn tip_height(&self) -> u32;
    /// The header at `height`, which is at most [`Ancestors::tip_height`].
    fn header(&self, height: u32) -> HeaderInfo;
    /// The hash at `height`, which is at most [`Ancestors::tip_height`].
    fn hash(&self, height: u32) -> BlockHash;
}

/// Median time of the eleven blocks that end at `height` (fewer near genesis), in seconds (`GetMedianTimePast`).
pub fn median_time_past(chain: &dyn Ancestors, height: u32) -> u32 {
    let first = (height + 1).saturating_sub(MEDIAN_TIME_SPAN);
    let mut times: Vec<u32> = (first..=height).map(|h| chain.header(h).time).collect();
    times.sort_unstable();
    times[times.len() / 2]
}

/// A chain in a vector: header i is at height i. Block hashes are derived from the height.
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
