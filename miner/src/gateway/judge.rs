//! The verdict on a machine's share: its header is rebuilt and hashed, so nothing is taken on trust.

use iop_consensus::header::MAX_FUTURE_BLOCK_TIME;
use iop_stratum::difficulty::Target;
use iop_stratum::fields::{Extranonce2, VersionBits, VersionMask};
use iop_stratum::server::Submit;
use iop_stratum::verdict::Reject;
use iop_stratum::work::sha256d;

use super::served::Served;

/// How far a share's time may be ahead of our clock, or of the job's time if that is later, in seconds: the limit of
/// pools. Machines roll the time when they run out of nonces, and clocks differ. For a block the nodes' limit applies.
pub const MAX_TIME_AHEAD: u32 = 600;

/// A valid share, not yet checked for duplicates and for its job's age.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Solved {
    /// The header's hash, as SHA-256 gives it.
    pub hash: [u8; 32],
    /// The upstream's extranonce2.
    pub extranonce2: Extranonce2,
    /// The version within the upstream's mask: all of its bits, whichever of them the machine has set.
    pub version_bits: VersionBits,
    /// Whether it meets the upstream's target.
    pub is_for_upstream: bool,
}

/// Judges a share of a known job.
///
/// `target` is the one the machine was given for it, `mask` the version bits that the machine may roll in it, `now`
/// seconds since 1970.
///
/// # Errors
/// Version bits outside the mask, extranonce2 of another width or time out of range (20), hash above the target (23).
pub fn judge(
    job: &Served,
    prefix: u32,
    target: &Target,
    mask: VersionMask,
    submit: &Submit,
    now: u32,
) -> Result<Solved, Reject> {
    if let Some(bits) = submit.version_bits.filter(|bits| !mask.allows(*bits)) {
        return Err(Reject::other(format!("version bits {bits} are outside the mask {mask}")));
    }
    let upstream = job.upstream();
    let extranonce2 = job
        .extranonce2(prefix, &submit.extranonce2)
        .ok_or(Reject::Other("extranonce2 of another width than that of the job".into()))?;
    let (min, clock) = (upstream.ntime().0, now.max(upstream.ntime().0));
    let max = clock.saturating_add(MAX_TIME_AHEAD).min(upstream.latest().0);
    let false_time = || Reject::other(format!("ntime {} is outside {min:08x} to {max:08x}", submit.ntime));
    let latest = (u64::from(clock) + MAX_FUTURE_BLOCK_TIME).min(upstream.latest().0.into());
    if submit.ntime.0 < min || u64::from(submit.ntime.0) > latest {
        return Err(false_time());
    }
    let told = job.version();
    let version = submit.version_bits.map_or(told, |bits| told.rolled(mask, bits));
    let version_bits = VersionBits(version.0 & job.mask().0);
    let mut header = upstream.header(&upstream.merkle_root(&extranonce2), version_bits, submit.ntime);
    header[76..].copy_from_slice(&submit.nonce.0.to_le_bytes());
    let hash = sha256d(&header);
    let is_block = || {
        Target::from_compact(upstream.stratum().notify.nbits.0).is_some_and(|block| block.is_met_by(&hash))
    };
    if submit.ntime.0 > max && !is_block() {
        return Err(false_time());
    }
    let is_for_upstream = upstream.target().is_met_by(&hash);
    if !is_for_upstream && !target.is_met_by(&hash) {
        return Err(Reject::LowDifficulty);
    }
    Ok(Solved { hash, extranonce2, version_bits, is_for_upstream })
}
