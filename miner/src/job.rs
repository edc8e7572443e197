//! A job: one block template from an upstream, to be varied by extranonce2, version bits, time and nonce.

use std::sync::Arc;

use iop_kernels::{HEADER_LEN, Target};
use iop_stratum::fields::{Extranonce2, JobId, MAX_EXTRANONCE2_SIZE, NTime, Nonce, VersionBits, VersionMask};
use iop_stratum::work::{Work, header, sha256d};
use iop_stratum::{client, difficulty};

use crate::stats::DeviceStats;

/// A job's sequence number in this miner, over all connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Serial(pub u64);

/// The work of the devices until the next job comes.
#[derive(Debug)]
pub struct Job {
    serial: Serial,
    job: client::Job,
    work: Work,
    target: Target,
    latest: NTime,
}

impl Job {
    /// A job with the parameters in force when it came.
    ///
    /// # Panics
    /// The extranonce2 is wider than [`MAX_EXTRANONCE2_SIZE`] bytes, which a Stratum session does not accept.
    #[must_use]
    pub fn new(serial: Serial, job: client::Job) -> Self {
        assert!(job.extranonce2_size <= MAX_EXTRANONCE2_SIZE, "the session checks the width");
        let target = Target::from_le_bytes(job.target().to_le_bytes());
        Self { serial, work: job.work(), target, latest: NTime(u32::MAX), job }
    }

    /// A job whose shares must be blocks: they must meet exactly this target, whatever the job's difficulty, and not be
    /// later than `latest`.
    ///
    /// # Panics
    /// As [`Self::new`].
    #[must_use]
    pub fn of_blocks(serial: Serial, job: client::Job, target: difficulty::Target, latest: NTime) -> Self {
        let target = Target::from_le_bytes(target.to_le_bytes());
        Self { target, latest, ..Self::new(serial, job) }
    }

    /// The job as received from the upstream.
    #[must_use]
    pub fn stratum(&self) -> &client::Job {
        &self.job
    }

    /// The difficulty that its shares count for.
    #[must_use]
    pub fn difficulty(&self) -> f64 {
        self.job.difficulty.get()
    }

    /// Its sequence number.
    #[must_use]
    pub fn serial(&self) -> Serial {
        self.serial
    }

    /// The upstream's id for it.
    #[must_use]
    pub fn id(&self) -> &JobId {
        &self.job.notify.job_id
    }

    /// The target of its shares.
    #[must_use]
    pub fn target(&self) -> Target {
        self.target
    }

    /// The time of its headers. It is not rolled: extranonce2 and version bits provide more headers than any device can
    /// hash before the pool sends a fresh time with its next job.
    #[must_use]
    pub fn ntime(&self) -> NTime {
        self.job.notify.ntime
    }

    /// The latest time that its headers may have, as far as that is known.
    #[must_use]
    pub fn latest(&self) -> NTime {
        self.latest
    }

    /// The highest extranonce2, as a counter. Every lower counter is valid too.
    #[must_use]
    pub fn last_extranonce2(&self) -> u64 {
        match self.job.extranonce2_size {
            0 => 0,
            size => u64::MAX >> (64 - 8 * size),
        }
    }

    /// Extranonce2 number `counter`.
    ///
    /// # Panics
    /// `counter` is above [`Self::last_extranonce2`].
    #[must_use]
    pub fn extranonce2(&self, counter: u64) -> Extranonce2 {
        Extranonce2::from_counter(counter, self.job.extranonce2_size)
            .expect("a counter up to the last fits the width")
    }

    /// Number of version bits that may be rolled: 2 to this power is the number of versions.
    #[must_use]
    pub fn rollable_bits(&self) -> u32 {
        self.job.version_mask.0.count_ones()
    }

    /// Version bits number `counter`, of which the lowest [`Self::rollable_bits`] count. Number 0 leaves the pool's
    /// version unchanged.
    #[must_use]
    pub fn version_bits(&self, counter: u32) -> VersionBits {
        let VersionMask(mask) = self.job.version_mask;
        VersionBits(self.job.notify.version.0 & mask ^ spread(counter, mask))
    }

    /// The header's version with these bits rolled into it.
    #[must_use]
    pub fn version(&self, bits: VersionBits) -> u32 {
        self.job.notify.version.rolled(self.job.version_mask, bits).0
    }

    /// The merkle root with this extranonce2: the only costly part of a header.
    #[must_use]
    pub fn merkle_root(&self, extranonce2: &Extranonce2) -> [u8; 32] {
        self.work.merkle_root(&self.job.extranonce1, extranonce2)
    }

    /// The serialized header with nonce 0.
    #[must_use]
    pub fn header(&self, merkle_root: &[u8; 32], bits: VersionBits, ntime: NTime) -> [u8; HEADER_LEN] {
        let version = self.job.notify.version.rolled(self.job.version_mask, bits);
        header(version, self.job.notify.prev_hash, merkle_root, ntime, self.job.notify.nbits, Nonce(0))
    }
}

/// Distributes the low bits of `number`, in order, over the one bits of `mask`.
fn spread(mut number: u32, mut mask: u32) -> u32 {
    let mut bits = 0;
    while mask != 0 {
        let place = mask & mask.wrapping_neg();
        if number & 1 != 0 {
            bits |= place;
        }
        number >>= 1;
        mask ^= place;
    }
    bits
}

/// A header that meets its job's share target, by its parts.
#[derive(Debug, Clone)]
pub struct Share {
    /// The job it was found in.
    pub job: Arc<Job>,
    /// The miner's part of the extranonce.
    pub extranonce2: Extranonce2,
    /// The rolled version bits.
    pub version_bits: VersionBits,
    /// The header's time.
    pub ntime: NTime,
    /// The header's nonce.
    pub nonce: Nonce,
    /// Counters of the device that found it.
    pub finder: Arc<DeviceStats>,
}

impl Share {
    /// The serialized header.
    #[must_use]
    pub fn header(&self) -> [u8; HEADER_LEN] {
        let Job { work, job, .. } = &*self.job;
        let version = job.notify.version.rolled(job.version_mask, self.version_bits);
        work.header(&job.extranonce1, &self.extranonce2, version, self.ntime, self.nonce)
    }

    /// Whether its hash also meets the header's own target, so that it is a block. False if nBits are invalid.
    #[must_use]
    pub fn is_block(&self) -> bool {
        let Some(target) = difficulty::Target::from_compact(self.job.stratum().notify.nbits.0) else {
            return false;
        };
        target.is_met_by(&sha256d(&self.header()))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]

    use iop_stratum::difficulty::Difficulty;
    use iop_stratum::fields::{Extranonce1, NBits, PrevHash, Version};
    use iop_stratum::notify::Notify;

    use super::*;

    /// A job in which every field has a distinct value.
    pub(crate) fn job(id: &str, extranonce2_size: usize, mask: u32, difficulty: f64) -> Job {
        let notify = Notify {
            job_id: JobId::new(id).unwrap(),
            prev_hash: PrevHash([0xaa; 32]),
            coinbase1: vec![1; 40],
            coinbase2: vec![2; 50],
            branches: vec![[3; 32], [4; 32]],
            version: Version(0x2000_2000),
            nbits: NBits(0x207f_ffff),
            ntime: NTime(1_700_000_000),
            clean: true,
        };
        let job = client::Job {
            notify: Arc::new(notify),
            extranonce1: Extranonce1::from_u32(7),
            extranonce2_size,
            difficulty: Difficulty::new(difficulty).unwrap(),
            version_mask: VersionMask(mask),
        };
        Job::new(Serial(1), job)
    }

    /// A difficulty low enough for every hash.
    pub(crate) const ANY_HASH: f64 = 1e-12;

    #[test]
    fn a_jobs_target_is_that_of_its_difficulty() {
        let target = |difficulty| job("1", 4, 0, difficulty).target();
        let difficulty_1 = std::array::from_fn(|i| if i == 26 || i == 27 { 0xff } else { 0 });
        assert_eq!(target(1.0), Target::from_le_bytes(difficulty_1));
        let difficulty_256 = std::array::from_fn(|i| if i == 25 || i == 26 { 0xff } else { 0 });
        assert_eq!(target(256.0), Target::from_le_bytes(difficulty_256));
        assert_eq!(target(ANY_HASH), Target::MAX);
    }

    #[test]
    fn every_counter_up_to_the_last_is_an_extranonce2_of_its_own() {
        assert_eq!(job("1", 0, 0, ANY_HASH).last_extranonce2(), 0);
        assert_eq!(job("1", 1, 0, ANY_HASH).last_extranonce2(), 255);
        let widest = job("1", 8, 0, ANY_HASH);
        assert_eq!(widest.last_extranonce2(), u64::MAX);
        assert_eq!(widest.extranonce2(u64::MAX).as_bytes(), [0xff; 8]);
        assert_eq!(job("1", 3, 0, ANY_HASH).extranonce2(0x0001_0203).as_bytes(), [1, 2, 3]);
    }

    #[test]
    fn version_bits_stay_in_the_mask_and_begin_with_the_pools_own() {
        let job = job("1", 4, 0x0030_2000, ANY_HASH);
        assert_eq!(job.rollable_bits(), 3);
        let all: Vec<u32> = (0..8).map(|counter| job.version_bits(counter).0).collect();
        assert_eq!(all[0], 0x2000);
        assert_eq!(all[1], 0);
        assert!(all.iter().all(|bits| bits & !0x0030_2000 == 0));
        assert_eq!(all.iter().collect::<std::collections::BTreeSet<_>>().len(), 8);
        let header = job.header(&[0; 32], job.version_bits(0), job.ntime());
        assert_eq!(header[..4], 0x2000_2000u32.to_le_bytes());
    }

    #[test]
    fn a_job_without_a_mask_has_one_version() {
        let job = job("1", 4, 0, ANY_HASH);
        assert_eq!((job.rollable_bits(), job.version_bits(0)), (0, VersionBits(0)));
        assert_eq!(job.header(&[0; 32], VersionBits(0), job.ntime())[..4], 0x2000_2000u32.to_le_bytes());
    }
}
