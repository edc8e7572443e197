//! Headers: their place in a chain and the checks that need it.
//!
//! [`Ancestors`] is what a rule may know of the chain below a block: headers by height, nothing of coins. The
//! node answers it from its block index, tests from a vector.

use bitcoin::BlockHash;
use bitcoin::block::Header;
use bitcoin::pow::CompactTarget;

use crate::difficulty::{has_proof_of_work, next_work_required};
use crate::error::BlockError;
use crate::params::Params;

/// A block's time may be this far ahead of the node's adjusted clock, seconds (`MAX_FUTURE_BLOCK_TIME`).
pub const MAX_FUTURE_BLOCK_TIME: u64 = 2 * 60 * 60;
/// Blocks whose times the median time past is taken of.
const MEDIAN_TIME_SPAN: u32 = 11;
/// The smallest version a block may have, as a signed number: BIP9's top bits.
const MIN_VERSION: i32 = 0x2000_0000;

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

/// The check of a header alone: the work it claims was done (`CheckBlockHeader`).
pub fn check(header: &Header, params: &Params) -> Result<(), BlockError> {
    let hash = header.block_hash();
    if has_proof_of_work(&hash, header.bits, params.pow.limit) {
        Ok(())
    } else {
        Err(BlockError::HighHash { hash, bits: header.bits.to_consensus() })
    }
}

/// The checks of a header against its ancestors and the clock (`ContextualCheckBlockHeader`).
///
/// `now` is the adjusted time in seconds; `last_checkpoint` the height of the highest checkpoint that the
/// header index knows.
pub fn check_contextual(
    header: &Header,
    chain: &dyn Ancestors,
    now: u64,
    last_checkpoint: u32,
    params: &Params,
) -> Result<(), BlockError> {
    let expected = next_work_required(chain, header.time, params);
    if header.bits != expected {
        return Err(BlockError::BadDifficultyBits {
            found: header.bits.to_consensus(),
            expected: expected.to_consensus(),
        });
    }
    let height = chain.tip_height() + 1;
    if height < last_checkpoint {
        return Err(BlockError::ForkBeforeCheckpoint { height, checkpoint: last_checkpoint });
    }
    let median = median_time_past(chain, chain.tip_height());
    if header.time <= median {
        return Err(BlockError::TimeTooOld { found: header.time, after: median });
    }
    if u64::from(header.time) > now + MAX_FUTURE_BLOCK_TIME {
        return Err(BlockError::TimeTooNew { found: header.time, at_most: now + MAX_FUTURE_BLOCK_TIME });
    }
    if header.version.to_consensus() < MIN_VERSION {
        return Err(BlockError::BadVersion { found: header.version.to_consensus() });
    }
    Ok(())
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
