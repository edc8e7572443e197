//! A miner's shares: verdict, counters, and the block that a share may be.

use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use bitcoin::BlockHash;
use bitcoin::hashes::Hash;
use iop_mining::bans::{EASY_SHARES, Offence};
use iop_stratum::fields::Extranonce1;
use iop_stratum::server::{Submit, WorkerSlot};
use iop_stratum::verdict::Reject;
use tracing::info;

use super::{Miner, Sent};
use crate::job::Job;
use crate::judge::{Solved, judge};
use crate::ledger::book::{Finding, Record};
use crate::ledger::queue::Accepted;
use crate::ledger::store::BlockId;
use crate::spool::Found;

/// Shares remembered per connection to detect duplicates, 16 bytes each, over all its jobs, if vardiff sets the pace.
/// Vardiff wants a hundred in the eight minutes that 16 jobs last. The newest job always has room for this many of its
/// own, so that a miner that began with a flood has the harder job's shares counted.
const MAX_SHARES: usize = 8_192;
/// The same per job if the operator sets the pace: 2,000 a second, which no machine reaches at a sensible difficulty.
const MAX_SHARES_AT_WILL: usize = 65_536;

impl Miner {
    pub(super) fn on_submit(&mut self, submit: &Submit) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        match self.verdict(submit, now) {
            Ok(accepted) => {
                self.workers[submit.worker.0].presence.counters.accept(accepted.difficulty, now);
                self.shared.workers.totals.accept(accepted.difficulty, now);
                self.accepted += 1;
                self.bad.good();
                self.uncommitted.push_back(submit.id.clone());
                let difficulty = accepted.difficulty;
                self.shared.ledger.log(accepted);
                self.on_share(difficulty, Instant::now());
            }
            Err(reject) => {
                self.count_refused(submit.worker, &reject);
                self.session.answer_submit(&submit.id, Err(&reject));
            }
        }
    }

    pub(super) fn count_refused(&mut self, worker: WorkerSlot, reject: &Reject) {
        if !matches!(reject, Reject::JobNotFound)
            && let Some(offence) = self.bad.bad()
        {
            self.offend(offence);
        }
        self.workers[worker.0].presence.counters.reject(reject);
        self.shared.workers.totals.reject(reject);
    }

    /// Judges a share and turns it into a ledger entry.
    fn verdict(&mut self, submit: &Submit, now: u64) -> Result<Accepted, Reject> {
        let place = self.sent.iter().rposition(|sent| sent.job.id == submit.job_id);
        let place = place.ok_or(Reject::JobNotFound)?;
        let has_room = self.has_room(place);
        let sent = &mut self.sent[place];
        let (extranonce1, mask) = (*self.session.extranonce1(), self.session.version_mask());
        let clock = u32::try_from(now).unwrap_or(u32::MAX);
        let solved = judge(&sent.job, sent.difficulty, &extranonce1, mask, submit, clock)?;
        if !solved.is_block && sent.until.is_some_and(|until| Instant::now() > until) {
            return Err(Reject::JobNotFound);
        }
        let (half, _) = solved.hash.split_first_chunk().expect("a hash has 32 bytes");
        let seen = sent.seen.get_or_insert_default();
        if seen.contains(half) {
            return Err(Reject::Duplicate);
        }
        if !has_room && !solved.is_block {
            return Err(Reject::other("too many shares of these jobs, raise the difficulty"));
        }
        seen.insert(*half);
        let (job, difficulty) = (Arc::clone(&sent.job), sent.difficulty);
        let hash = *half;
        if sent.until.is_some() {
            self.on_easy_share();
        }
        let block = solved.is_block.then(|| self.found(&job, &solved, &extranonce1, submit, now)).flatten();
        Ok(Accepted {
            user: Arc::clone(&self.workers[submit.worker.0].user),
            time: now,
            difficulty,
            height: job.template.height,
            hash,
            block,
            ticket: Arc::clone(&self.ticket),
        })
    }

    /// A share of a job that is too easy is accepted for a while. The number that one connection may submit is small,
    /// but it adds up over many connections in a row.
    fn on_easy_share(&mut self) {
        self.easy = self.easy.saturating_add(1);
        if self.easy > EASY_SHARES && self.easy.is_multiple_of(EASY_SHARES) {
            self.offend(Offence::EasyShares);
        }
    }

    /// Whether one more share of the job at this index in `sent` can be remembered.
    pub(super) fn has_room(&self, place: usize) -> bool {
        let count = |sent: &Sent| sent.seen.as_ref().map_or(0, |seen| seen.len());
        let of_job = count(&self.sent[place]);
        match self.shared.vardiff {
            None => of_job < MAX_SHARES_AT_WILL,
            Some(_) if place + 1 == self.sent.len() => of_job < MAX_SHARES,
            Some(_) => self.sent.iter().map(count).sum::<usize>() < MAX_SHARES,
        }
    }

    /// Delivers a block and returns its ledger record; `None` if the block is left out.
    fn found(
        &self,
        job: &Job,
        solved: &Solved,
        extranonce1: &Extranonce1,
        submit: &Submit,
        now: u64,
    ) -> Option<Arc<Record>> {
        let id = BlockId { height: job.template.height, hash: BlockHash::from_byte_array(solved.hash) };
        let finder = self.workers[submit.worker.0].user.name();
        let finding = Finding { time: now, license: job.license, finder };
        let record = Arc::new(job.plan.record(id, finding, &self.shared.prefixes));
        let found = Found {
            height: id.height,
            hash: id.hash.to_string(),
            license: record.facts.license.clone(),
            worker: finder.to_owned(),
            time: now,
            block: hex::encode(job.block(&solved.header, extranonce1, &submit.extranonce2)),
            record: Some(record.entry()),
        };
        info!(height = found.height, hash = %found.hash, license = %found.license, worker = %found.worker, "block found");
        self.shared.ledger.announce(Arc::clone(&record));
        if self.shared.blocks.deliver(found) {
            return Some(record);
        }
        self.shared.ledger.withdraw(&id);
        None
    }
}
