//! Shares over a connection: sent to the pool, and counted by its verdicts.

use std::sync::Arc;

use iop_stratum::client::{self, MAX_UNANSWERED, SubmitId, Verdict};
use iop_stratum::fields::{JobId, VersionBits, VersionMask};
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::{Connection, may_speak};
use crate::job::Share;
use crate::stats::DeviceStats;
use crate::upstream::board::{Condition, Source};
use crate::upstream::lost::lost_block;
use crate::upstream::watch::STALE_IN_A_ROW;

/// A submitted share: what its verdict needs, without its job. A job may have half a megabyte, and a pool that answers
/// few shares would have thousands of them kept.
pub(super) struct Sent {
    finder: Arc<DeviceStats>,
    difficulty: f64,
    job: JobId,
    is_block: bool,
    at: Instant,
}

impl Sent {
    fn new(share: Share, at: Instant) -> Self {
        let (difficulty, job, is_block) = (share.job.difficulty(), share.job.id().clone(), share.is_block());
        Self { finder: share.finder, difficulty, job, is_block, at }
    }
}

impl Connection {
    /// Submits a share if its job still counts at this pool, or if it is a block: the pool has to decide what that is
    /// worth after its job. It may have replaced the job for other reasons than a new tip, and of two blocks on one
    /// parent the one it knows first counts.
    pub(in crate::upstream) fn submit(&mut self, share: Share) {
        let serial = share.job.serial();
        let bits = self.bits_now(&share);
        let late = serial < self.oldest_live || bits.is_none();
        if late && (serial < self.first_serial || !share.is_block()) {
            return self.lose(&share);
        }
        if late && self.may_speak() {
            info!("{}: a block of job {}, which was just replaced: sent", self.place.url, share.job.id());
        }
        debug!(job = %share.job.id(), nonce = %share.nonce, "submitting a share");
        let (of_job, now) = (serial >= self.first_of_job, Instant::now());
        let id = self.session.submit(&client::Share {
            job_id: share.job.id().clone(),
            extranonce2: share.extranonce2,
            ntime: share.ntime,
            nonce: share.nonce,
            version_bits: bits.unwrap_or(share.version_bits),
        });
        self.shares.spend(1, now);
        self.watch.submitted(id, of_job, now);
        self.submitted.insert(id, Sent::new(share, now));
        self.give_up_overdue(now);
    }

    /// The version bits of the share under the pool's current mask. `None` if it has rolled other bits too: the pool
    /// would refuse it.
    fn bits_now(&self, share: &Share) -> Option<VersionBits> {
        let (job, VersionMask(mask)) = (share.job.stratum(), self.session.version_mask());
        let before = job.notify.version;
        let version = before.rolled(job.version_mask, share.version_bits);
        ((version.0 ^ before.0) & !mask == 0).then_some(VersionBits(version.0 & mask))
    }

    /// Gives up the oldest shares if there are too many, or if their verdicts are overdue.
    fn give_up_overdue(&mut self, now: Instant) {
        let (answer, mut overdue) = (self.place.manner.timing.answer, Vec::new());
        while let Some((_, oldest)) = self.submitted.first_key_value()
            && (self.submitted.len() > MAX_UNANSWERED || now > oldest.at + answer)
        {
            overdue.extend(self.submitted.pop_first().map(|(_, sent)| sent));
        }
        if !overdue.is_empty() {
            self.count_unanswered(&overdue);
        }
    }

    /// The connection is over: no more verdicts will come.
    pub(in crate::upstream) fn abandon(&mut self) {
        let left: Vec<Sent> = std::mem::take(&mut self.submitted).into_values().collect();
        self.spoke = None; // an unanswered block is reported regardless of the rate limit
        self.count_unanswered(&left);
    }

    /// Whether the pool has credited them is not known; they are counted as stale, so that every share is counted.
    fn count_unanswered(&mut self, shares: &[Sent]) {
        let blocks: Vec<&Sent> = shares.iter().filter(|sent| sent.is_block).collect();
        if let Some(last) = blocks.last()
            && self.may_speak()
        {
            let (url, job) = (&self.place.url, &last.job);
            match blocks.len() {
                1 => warn!("{url}: a block of job {job} was sent, and the pool has not answered"),
                many => {
                    warn!(
                        "{url}: {many} blocks were sent, the last of job {job}, and the pool has not answered"
                    );
                }
            }
        }
        shares.iter().for_each(|sent| sent.finder.add_stale());
        self.place.note(|source| source.stale += shares.len() as u64);
    }

    /// Counts a share that cannot be sent.
    pub(super) fn lose(&mut self, share: &Share) {
        if share.is_block() && self.may_speak() {
            warn!("{}", lost_block(share));
        }
        share.finder.add_stale();
        self.place.note(|source| source.stale += 1);
    }

    pub(super) fn count(&mut self, sent: &Sent, verdict: &Verdict, now: Instant) {
        let counted: fn(&mut Source) = match verdict {
            Verdict::Accepted => {
                sent.finder.add_accepted(sent.difficulty);
                debug!("share accepted");
                |source| {
                    source.accepted += 1;
                    source.last_accepted = Some(std::time::Instant::now());
                }
            }
            Verdict::Refused(refusal) if refusal.is_stale() => {
                sent.finder.add_stale();
                debug!("share refused as stale");
                |source| source.stale += 1
            }
            Verdict::Refused(refusal) => {
                // A machine that reconnects has its first refusal again.
                if sent.finder.add_rejected(&refusal.to_string()) && may_speak(&mut self.refused) {
                    warn!("{}: share refused: {refusal}; more of these are counted only", self.place.url);
                }
                |source| source.rejected += 1
            }
        };
        self.place.note(|source| {
            source.answer = Some(now - sent.at);
            counted(source);
        });
    }

    /// Drops a job that the pool no longer knows: devices wait for its next one.
    pub(super) fn judge_job(&mut self, id: SubmitId, verdict: &Verdict, now: Instant) {
        if !self.watch.verdict(id, verdict, now) {
            return;
        }
        self.oldest_live = self.next_serial;
        self.without_job(&format!("{STALE_IN_A_ROW} stale shares in a row; waiting for another job"));
    }

    /// Makes devices and machines wait for the next job, if this pool is in use.
    pub(super) fn without_job(&mut self, why: &str) {
        (self.job, self.due, self.breaks) = (None, false, false);
        if let Some(dispatcher) = &self.dispatcher {
            dispatcher.clear();
        }
        if self.place.aside {
            debug!("{}: {why}", self.place.url);
            return;
        }
        if self.may_speak() {
            warn!("{}: {why}", self.place.url);
        }
        self.place.note(|source| {
            source.job = None;
            source.set(Condition::Waiting(why.to_owned()));
        });
    }
}
