//! Turns a template and a license into a job for the devices, and their finds into blocks.

use std::sync::Arc;
use std::time::{Duration, Instant};

use iop_consensus::address::{Address, Prefixes};
use iop_consensus::license::key::LicenseKey;
use iop_mining::coinbase;
use iop_mining::template::Template;
use iop_stratum::client;
use iop_stratum::fields::{Extranonce1, NTime, SERVER_EXTRANONCE2_SIZE, VersionMask};
use iop_stratum::notify::Notify;
use iop_stratum::work::sha256d;

use crate::job::{Job, Serial, Share};

/// A job with what its block needs.
#[derive(Debug, Clone)]
pub(super) struct Prepared {
    pub(super) job: Arc<Job>,
    pub(super) template: Arc<Template>,
    /// The license that signed it, as an address.
    pub(super) license: String,
    /// When the template came.
    pub(super) received: Instant,
}

/// A block that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Solved {
    /// Its hash, as printed.
    pub(super) hash: String,
    /// The block in hex.
    pub(super) block: String,
}

/// Makes jobs.
#[derive(Debug)]
pub(super) struct Maker {
    keys: Arc<[LicenseKey]>,
    /// The payout address; the signing license if `None`.
    payout: Option<Address>,
    prefixes: Prefixes,
    extranonce1: Extranonce1,
    /// The next job's number: no two runs use the same, so that no two coinbases are the same.
    number: u64,
    serial: Serial,
}

impl Maker {
    /// Makes jobs that these licenses sign.
    ///
    /// # Panics
    /// The system has no random numbers: nothing that needs keys can run there.
    pub(super) fn new(keys: Arc<[LicenseKey]>, payout: Option<Address>, prefixes: Prefixes) -> Self {
        let random = || getrandom::u64().expect("the operating system gives random numbers");
        // The upper half of the number is random, the lower half counts.
        let (number, extranonce1) = (random() << 32, Extranonce1::from_u32((random() >> 32) as u32));
        Self { keys, payout, prefixes, extranonce1, number, serial: Serial::default() }
    }

    fn next(&mut self) -> (Serial, u64) {
        (self.serial.0, self.number) = (self.serial.0 + 1, self.number.wrapping_add(1));
        (self.serial, self.number)
    }

    /// Signs the template's coinbase with the license at this index, and makes the job. If it is `clean`, machines drop
    /// all earlier jobs: only if the tip is new, since blocks on an older template of the same tip are as good.
    pub(super) fn make(
        &mut self,
        template: Template,
        license: usize,
        received: Instant,
        clean: bool,
    ) -> Prepared {
        let (serial, number) = self.next();
        let key = &self.keys[license];
        let payee = self.payout.unwrap_or_else(|| key.address());
        let outputs = [(payee, template.coinbase_value)];
        let notify = Notify { clean, ..coinbase::notify(&template, key, &outputs, number) };
        let job = client::Job {
            notify: Arc::new(notify),
            extranonce1: self.extranonce1,
            extranonce2_size: SERVER_EXTRANONCE2_SIZE,
            difficulty: template.target.difficulty(),
            version_mask: VersionMask::SERVER,
        };
        let job = Job::of_blocks(serial, job, template.target, NTime(template.max_time));
        Prepared {
            job: Arc::new(job),
            license: key.address().to_base58(&self.prefixes),
            template: Arc::new(template),
            received,
        }
    }

    /// The same work later: nothing is signed again, only the time advances, by the monotonic clock.
    pub(super) fn later(&mut self, prepared: &Prepared, now: Instant) -> Prepared {
        let (serial, number) = self.next();
        let mut job = prepared.job.stratum().clone();
        let notify = Arc::make_mut(&mut job.notify);
        (notify.job_id, notify.ntime) = (coinbase::job_id(number), NTime(time(prepared, now)));
        notify.clean = false;
        let job = Job::of_blocks(serial, job, prepared.template.target, prepared.job.latest());
        Prepared { job: Arc::new(job), ..prepared.clone() }
    }
}

fn time(prepared: &Prepared, now: Instant) -> u32 {
    let since: Duration = now.saturating_duration_since(prepared.received);
    let time = prepared.template.time.saturating_add(u32::try_from(since.as_secs()).unwrap_or(u32::MAX));
    time.min(prepared.template.max_time)
}

impl Prepared {
    /// The block that a share of this job makes; `None` if it misses the block's target.
    pub(super) fn solve(&self, share: &Share) -> Option<Solved> {
        let job = self.job.stratum();
        let work = job.work();
        let version = job.notify.version.rolled(job.version_mask, share.version_bits);
        let header = work.header(&job.extranonce1, &share.extranonce2, version, share.ntime, share.nonce);
        let mut hash = sha256d(&header);
        if !self.template.target.is_met_by(&hash) {
            return None;
        }
        hash.reverse();
        let stripped = work.coinbase(&job.extranonce1, &share.extranonce2);
        let block = hex::encode(coinbase::block(&self.template, &header, &stripped));
        Some(Solved { hash: hex::encode(hash), block })
    }
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used)]
    use bitcoin::Block;
    use bitcoin::consensus::encode::deserialize_hex;
    use iop_consensus::license::coinbase::check;
    use iop_consensus::params::Params;
    use iop_mining::sample::{key, template};
    use iop_stratum::fields::{Nonce, VersionBits};

    use super::*;
    use crate::stats::{DeviceStats, Stats};

    fn maker(payout: Option<Address>) -> Maker {
        Maker::new(Arc::from([key(true)]), payout, Params::devnet().prefixes)
    }

    /// What a device finds in a job if this nonce is one.
    pub(in crate::upstream::node) fn share(
        prepared: &Prepared,
        nonce: u32,
        finder: &Arc<DeviceStats>,
    ) -> Share {
        Share {
            job: Arc::clone(&prepared.job),
            extranonce2: prepared.job.extranonce2(0x1234_5678_9abc),
            version_bits: VersionBits(0x0000_6000),
            ntime: prepared.job.ntime(),
            nonce: Nonce(nonce),
            finder: Arc::clone(finder),
        }
    }

    /// Finds the first block of a job by trial.
    fn first_block(prepared: &Prepared) -> Block {
        let finder = Stats::new().device("cpu");
        let solve = |nonce| prepared.solve(&share(prepared, nonce, &finder));
        let found: Vec<Solved> = (0..20_000).filter_map(solve).collect();
        assert!((80..300).contains(&found.len()), "{}: one in 128", found.len());
        let block: Block = deserialize_hex(&found[0].block).unwrap();
        assert_eq!(block.block_hash().to_string(), found[0].hash);
        block
    }

    #[test]
    fn a_find_is_a_licensed_block_that_pays_all_to_the_payee() {
        for payout in [None, Some(Address::of_pubkey(b"somebody"))] {
            let template = template(7);
            let prepared = maker(payout).make(template.clone(), 0, Instant::now(), true);
            let block = first_block(&prepared);
            assert!(block.check_merkle_root());
            assert_eq!(block.header.prev_blockhash, template.parent);
            assert_eq!(block.header.version.to_consensus(), 0x2000_6000);
            assert_eq!((block.header.time, block.header.bits.to_consensus()), (template.time, template.bits));
            let coinbase = &block.txdata[0];
            assert_eq!(check(coinbase), Ok(key(true).address()));
            let payee = payout.unwrap_or_else(|| key(true).address());
            assert_eq!(coinbase.output.len(), 1);
            assert_eq!(coinbase.output[0].script_pubkey, payee.script_pubkey());
            assert_eq!(coinbase.output[0].value.to_sat(), template.coinbase_value);
        }
    }

    #[test]
    fn the_time_goes_on_by_the_monotonic_clock_and_nothing_is_signed_again() {
        let (mut maker, now) = (maker(None), Instant::now());
        let prepared = maker.make(template(7), 0, now, true);
        let later = maker.later(&prepared, now + Duration::from_millis(30_900));
        let (before, after) = (&prepared.job.stratum().notify, &later.job.stratum().notify);
        assert_eq!(after.ntime.0, before.ntime.0 + 30);
        assert!(before.clean && !after.clean, "finds of the one before are as good");
        assert_eq!((&after.coinbase1, &after.coinbase2), (&before.coinbase1, &before.coinbase2));
        assert!(after.job_id != before.job_id && later.job.serial() > prepared.job.serial());
        let again = maker.later(&later, now + Duration::from_secs(60));
        assert_eq!(again.job.ntime().0, before.ntime.0 + 60, "counted from the template");
        let _ = first_block(&again);
    }

    #[test]
    fn the_time_goes_no_further_than_the_templates_last() {
        let (mut maker, now) = (maker(None), Instant::now());
        let until = Template { max_time: template(7).time + 40, ..template(7) };
        let prepared = maker.make(until, 0, now, true);
        assert_eq!(prepared.job.latest().0, prepared.job.ntime().0 + 40);
        let later = maker.later(&prepared, now + Duration::from_secs(41));
        assert_eq!(later.job.ntime(), prepared.job.latest());
        assert_eq!(later.job.latest(), prepared.job.latest());
    }

    #[test]
    fn no_two_jobs_and_no_two_runs_have_the_same_coinbase() {
        let now = Instant::now();
        let mut one = maker(None);
        let jobs = [
            one.make(template(7), 0, now, true),
            one.make(template(7), 0, now, false),
            maker(None).make(template(7), 0, now, true),
        ];
        let before = |index: usize| &jobs[index].job.stratum().notify.coinbase1;
        assert!(before(0) != before(1) && before(0) != before(2) && before(1) != before(2));
    }
}
