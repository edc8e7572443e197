//! The verdict on a machine's share: its header is rebuilt and hashed, so nothing is taken on trust.

use iop_mining::times::Times;
use iop_stratum::difficulty::Target;
use iop_stratum::fields::{Extranonce2, VersionBits, VersionMask};
use iop_stratum::server::Submit;
use iop_stratum::verdict::Reject;
use iop_stratum::work::sha256d;

use super::served::Served;

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
    let (job_time, latest) = (upstream.ntime().0, upstream.latest().0);
    let times = Times::new(job_time, job_time, latest, now);
    if !times.fit_block(submit.ntime) {
        return Err(times.reject(submit.ntime));
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
    if !times.fit_share(submit.ntime) && !is_block() {
        return Err(times.reject(submit.ntime));
    }
    let is_for_upstream = upstream.target().is_met_by(&hash);
    if !is_for_upstream && !target.is_met_by(&hash) {
        return Err(Reject::LowDifficulty);
    }
    Ok(Solved { hash, extranonce2, version_bits, is_for_upstream })
}
