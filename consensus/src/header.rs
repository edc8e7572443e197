//! Header checks: of the header alone, and against its ancestors and the clock.

use bitcoin::block::Header;

use crate::ancestors::{Ancestors, median_time_past};
use crate::difficulty::{has_proof_of_work, next_work_required};
use crate::error::BlockError;
use crate::params::Params;

/// How far a block's time may be ahead of the node's adjusted clock, in seconds (`MAX_FUTURE_BLOCK_TIME`).
pub const MAX_FUTURE_BLOCK_TIME: u64 = 2 * 60 * 60;
/// The smallest version a block may have, as a signed number: BIP9's top bits.
const MIN_VERSION: i32 = 0x2000_0000;

/// Checks a header alone: that the work it claims was done (`CheckBlockHeader`).
pub fn check(header: &Header, params: &Params) -> Result<(), BlockError> {
    let hash = header.block_hash();
    if has_proof_of_work(&hash, header.bits, params.pow.limit) {
        Ok(())
    } else {
        Err(BlockError::HighHash { hash, bits: header.bits.to_consensus() })
    }
}

/// Checks a header against its ancestors and the clock (`ContextualCheckBlockHeader`).
///
/// `now` is the adjusted time in seconds; `last_checkpoint` is the height of the highest checkpoint in the header
/// index.
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
