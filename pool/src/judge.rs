//! The verdict on a share: its header is rebuilt and hashed, so nothing is taken on trust.

use iop_mining::times::Times;
use iop_stratum::difficulty::Difficulty;
use iop_stratum::fields::{Extranonce1, VersionMask};
use iop_stratum::server::Submit;
use iop_stratum::verdict::Reject;
use iop_stratum::work::{HEADER_SIZE, sha256d};

use crate::job::Job;

/// A valid share, not yet checked for duplicates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Solved {
    /// The header.
    pub header: [u8; HEADER_SIZE],
    /// Its hash, as SHA-256 gives it.
    pub hash: [u8; 32],
    /// Whether it is also a block.
    pub is_block: bool,
}

/// Judges a share of a known job.
///
/// `difficulty` is the one in force when the job was sent to this session, `mask` the version bits that the session may
/// roll (it has already refused others), `now` seconds since 1970.
///
/// # Errors
/// Stale job (21), time out of range (20), hash above the target (23), in this order.
pub fn judge(
    job: &Job,
    difficulty: Difficulty,
    extranonce1: &Extranonce1,
    mask: VersionMask,
    submit: &Submit,
    now: u32,
) -> Result<Solved, Reject> {
    if job.tip.is_stale() {
        return Err(Reject::JobNotFound);
    }
    let template = &job.template;
    let times = Times::new(template.time, template.min_time, template.max_time, now);
    if !times.fit_block(submit.ntime) {
        return Err(times.reject(submit.ntime));
    }
    let version = submit.version_bits.map_or(job.version, |bits| job.version.rolled(mask, bits));
    let header = job.work.header(extranonce1, &submit.extranonce2, version, submit.ntime, submit.nonce);
    let hash = sha256d(&header);
    let is_block = job.is_block(&hash);
    if !times.fit_share(submit.ntime) && !is_block {
        return Err(times.reject(submit.ntime));
    }
    if !job.share_target(difficulty).is_met_by(&hash) {
        return Err(Reject::LowDifficulty);
    }
    Ok(Solved { header, hash, is_block })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use bitcoin::consensus::deserialize;
    use bitcoin::hashes::{Hash, sha256d as oracle};
    use bitcoin::{CompactTarget, Target, Transaction};
    use iop_mining::sample::template;
    use iop_mining::times::MAX_TIME_AHEAD;
    use iop_stratum::fields::{Extranonce2, NTime, Nonce, VersionBits};
    use iop_stratum::message::Id;
    use iop_stratum::server::WorkerSlot;

    use super::*;
    use crate::job::Tip;
    use crate::job::tests::plain_job;

    const NOW: u32 = 1_700_000_000;

    fn job() -> Job {
        let mut template = template(9);
        template.txids = vec![[1; 32], [2; 32], [3; 32]];
        plain_job(1, template, Arc::new(Tip::default()))
    }

    fn submit(job: &Job, nonce: u32) -> Submit {
        Submit {
            id: Id::number(1),
            worker: WorkerSlot(0),
            job_id: job.id.clone(),
            extranonce2: Extranonce2::from_counter(u64::from(nonce) << 20, 8).unwrap(),
            ntime: NTime(NOW),
            nonce: Nonce(nonce),
            version_bits: nonce.is_multiple_of(2).then_some(VersionBits(nonce << 13 & 0x1fff_e000)),
        }
    }

    /// The header and its hash, built by the `bitcoin` crate alone from what a miner receives.
    fn rebuilt(job: &Job, extranonce1: &Extranonce1, submit: &Submit) -> bitcoin::block::Header {
        let line: serde_json::Value = serde_json::from_slice(&job.line(false)).unwrap();
        let text = |index: usize| line["params"][index].as_str().unwrap();
        let number = |index| u32::from_str_radix(text(index), 16).unwrap();
        let coinbase = format!("{}{}{}{}", text(2), extranonce1, submit.extranonce2, text(3));
        let coinbase: Transaction = deserialize(&hex::decode(coinbase).unwrap()).unwrap();
        let mut root = coinbase.compute_txid().to_byte_array();
        for branch in line["params"][4].as_array().unwrap() {
            let branch = hex::decode(branch.as_str().unwrap()).unwrap();
            root = oracle::Hash::hash(&[&root[..], &branch].concat()).to_byte_array();
        }
        bitcoin::block::Header {
            version: bitcoin::block::Version::from_consensus(
                (number(5) | submit.version_bits.map_or(0, |bits| bits.0)) as i32,
            ),
            prev_blockhash: job.template.parent,
            merkle_root: bitcoin::TxMerkleNode::from_byte_array(root),
            time: submit.ntime.0,
            bits: CompactTarget::from_consensus(number(6)),
            nonce: submit.nonce.0,
        }
    }

    #[test]
    fn verdicts_equal_those_of_an_independent_rebuild() {
        let (job, extranonce1) = (job(), Extranonce1::from_u32(0x0102_0304));
        let difficulty = Difficulty::new(1.0 / (1u64 << 28) as f64).unwrap(); // one in 16
        let share_target =
            Target::from_be_bytes(iop_stratum::difficulty::Target::from_difficulty(difficulty).to_be_bytes());
        let (mut shares, mut blocks) = (0, 0);
        for nonce in 0..4000 {
            let submit = submit(&job, nonce);
            let header = rebuilt(&job, &extranonce1, &submit);
            let hash = header.block_hash();
            let verdict = judge(&job, difficulty, &extranonce1, VersionMask::SERVER, &submit, NOW);
            if share_target.is_met_by(hash) {
                let solved = verdict.unwrap();
                assert_eq!(solved.hash, hash.to_byte_array());
                assert_eq!(solved.header[..], bitcoin::consensus::serialize(&header));
                assert_eq!(solved.is_block, header.target().is_met_by(hash));
                shares += 1;
                blocks += u32::from(solved.is_block);
            } else {
                assert_eq!(verdict, Err(Reject::LowDifficulty));
            }
        }
        assert!(
            (150..350).contains(&shares) && (10..70).contains(&blocks),
            "{shares} shares, {blocks} blocks"
        );
    }

    #[test]
    fn the_time_must_be_from_the_templates_least_to_ten_minutes_ahead() {
        let job = job();
        let easiest = Difficulty::new(1e-300).unwrap();
        let at = |ntime| {
            let submit = Submit { ntime: NTime(ntime), ..submit(&job, 1) };
            judge(&job, easiest, &Extranonce1::from_u32(0), VersionMask::SERVER, &submit, NOW).map(|_| ())
        };
        assert_eq!(at(job.template.min_time), Ok(()));
        assert_eq!(at(NOW + MAX_TIME_AHEAD), Ok(()));
        for wrong in [0, job.template.min_time - 1, NOW + MAX_TIME_AHEAD + 1, u32::MAX] {
            assert_eq!(at(wrong).unwrap_err().code(), 20);
        }
    }

    #[test]
    fn a_block_is_taken_as_far_ahead_as_nodes_take_it() {
        let job = job();
        let easiest = Difficulty::new(1e-300).unwrap();
        let two_hours = NOW + 7200;
        let judged = |ntime, nonce| {
            let submit = Submit { ntime: NTime(ntime), ..submit(&job, nonce) };
            judge(&job, easiest, &Extranonce1::from_u32(0), VersionMask::SERVER, &submit, NOW)
        };
        for ntime in [NOW + MAX_TIME_AHEAD + 1, two_hours] {
            let (mut blocks, mut others) = (0, 0);
            for nonce in 0..2000 {
                match judged(ntime, nonce) {
                    Ok(solved) => blocks += u32::from(solved.is_block),
                    Err(reject) => others += u32::from(reject.code() == 20),
                }
            }
            assert!(blocks > 0 && blocks + others == 2000, "{blocks} blocks, {others} others");
        }
        let block = (0..).find(|&nonce| judged(two_hours, nonce).is_ok()).unwrap();
        assert!(judged(two_hours, block).unwrap().is_block);
        for wrong in [two_hours + 1, job.template.min_time - 1] {
            assert!((0..2000).all(|nonce| judged(wrong, nonce).is_err_and(|reject| reject.code() == 20)));
        }
    }

    #[test]
    fn after_the_templates_last_time_not_even_a_block_is_taken() {
        let mut job = job();
        Arc::make_mut(&mut job.template).max_time = NOW + 100;
        let easiest = Difficulty::new(1e-300).unwrap();
        let judged = |ntime, nonce| {
            let submit = Submit { ntime: NTime(ntime), ..submit(&job, nonce) };
            judge(&job, easiest, &Extranonce1::from_u32(0), VersionMask::SERVER, &submit, NOW)
        };
        assert!((0..2000).all(|nonce| judged(NOW + 100, nonce).is_ok()));
        for late in [NOW + 101, NOW + MAX_TIME_AHEAD, NOW + 7200] {
            assert!((0..2000).all(|nonce| judged(late, nonce).is_err_and(|reject| reject.code() == 20)));
        }
    }

    #[test]
    fn the_templates_own_time_counts_also_when_our_clock_is_behind() {
        let (job, easiest) = (job(), Difficulty::new(1e-300).unwrap());
        let time = job.template.time;
        let at = |ntime, now| {
            let submit = Submit { ntime: NTime(ntime), ..submit(&job, 1) };
            judge(&job, easiest, &Extranonce1::from_u32(0), VersionMask::SERVER, &submit, now).map(|_| ())
        };
        assert_eq!(at(time, 0), Ok(()));
        assert_eq!(at(time + 600, time - 7200), Ok(()));
        assert_eq!(at(time + 601, time - 7200).unwrap_err().code(), 20);
        assert_eq!(at(u32::MAX, u32::MAX - 1), Ok(()), "no overflow");
    }
}
