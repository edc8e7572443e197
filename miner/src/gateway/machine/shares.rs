//! Handling of a machine's shares: the answer, the counters, whether the upstream gets them, and whether a refusal is
//! the machine's own fault.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use iop_stratum::difficulty::{Difficulty, HASHES_AT_1, Target};
use iop_stratum::server::{Submit, WorkerSlot};
use iop_stratum::verdict::Reject;
use tracing::debug;

use super::Machine;
use crate::gateway::held::{Held, Sent, Terms, Unremembered};
use crate::gateway::judge::{Solved, judge};
use crate::job::Share;

/// The reason why a share is refused.
pub(super) struct Refused {
    reject: Reject,
    /// The machine did work that we asked for, so the refusal is not held against it.
    asked_for: bool,
}

impl From<Reject> for Refused {
    fn from(reject: Reject) -> Self {
        Self { reject, asked_for: false }
    }
}

impl From<Unremembered> for Refused {
    fn from(why: Unremembered) -> Self {
        match why {
            Unremembered::Duplicate => Reject::Duplicate.into(),
            Unremembered::Repeated => Self { reject: Reject::Duplicate, asked_for: true },
            Unremembered::NoRoom => {
                Self { reject: Reject::other("too many shares, raise the difficulty"), asked_for: true }
            }
        }
    }
}

/// Seconds since 1970.
pub(super) fn now() -> u32 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    u32::try_from(since).unwrap_or(u32::MAX)
}

/// Judges a share by the terms it was found under: the newest terms for which it is valid. If there are none, the
/// newest terms' verdict counts.
fn judge_by_terms<'a>(
    held: &'a Held,
    target: &Target,
    submit: &Submit,
    now: u32,
) -> Result<(&'a Terms, Solved), Reject> {
    let mut refused = None;
    for terms in held.terms() {
        match judge(&terms.job, held.prefix, target, terms.mask, submit, now) {
            Ok(solved) => return Ok((terms, solved)),
            Err(reject) => _ = refused.get_or_insert(reject),
        }
    }
    Err(refused.expect("a job has terms"))
}

impl Machine {
    pub(super) fn on_submit(&mut self, submit: &Submit) {
        match self.verdict(submit, now()) {
            Ok(difficulty) => {
                self.session.answer_submit(&submit.id, Ok(()));
                self.accepted += 1;
                self.asked_for = self.asked_for.saturating_add(1);
                self.bad.good();
                let aim = self.aim();
                if self.vardiff.on_share(difficulty, Instant::now(), &aim) {
                    self.on_retarget();
                }
            }
            Err(refused) => {
                self.count_refused(submit.worker, &refused);
                self.session.answer_submit(&submit.id, Err(&refused.reject));
            }
        }
    }

    /// The difficulty that the share counts for. One that meets the upstream's target is passed on even if its job is
    /// stale: that is for the upstream to decide, and a block is a block.
    fn verdict(&mut self, submit: &Submit, now: u32) -> Result<Difficulty, Refused> {
        let worker = &mut self.workers[submit.worker.0];
        let Some(place) = self.jobs.find(&submit.job_id) else {
            worker.stats.add_stale();
            return Err(Reject::JobNotFound.into());
        };
        let (held, &Sent { difficulty, ref target, .. }) = self.jobs.at(place);
        let (terms, solved) = judge_by_terms(held, target, submit, now)?;
        let Solved { hash, extranonce2, version_bits, is_for_upstream } = solved;
        let upstream = Arc::clone(terms.job.upstream());
        let is_stale = held.job.era() != self.era || held.is_former(terms);
        let (half, _) = hash.split_first_chunk().expect("a hash has 32 bytes");
        let (ntime, nonce, finder) = (submit.ntime, submit.nonce, Arc::clone(&worker.stats));
        let share = Share { job: upstream, extranonce2, version_bits, ntime, nonce, finder };
        if let Err(why) = self.jobs.remember(place, *half, is_for_upstream) {
            // A lack of memory must not cost a block.
            if why == Unremembered::NoRoom && is_for_upstream && share.is_block() {
                self.up.push_back(share);
            }
            return Err(why.into());
        }
        if is_for_upstream {
            self.up.push_back(share);
        }
        worker.stats.found(hash);
        worker.stats.add_hashes((difficulty.get() * HASHES_AT_1) as u64);
        let goes_up = u64::from(is_for_upstream);
        if is_stale {
            self.shared.late.fetch_add(goes_up, Ordering::Relaxed);
            if !is_for_upstream {
                worker.stats.add_stale();
            }
            return Err(Refused { reject: Reject::JobNotFound, asked_for: true });
        }
        worker.taken += 1;
        worker.passed += goes_up;
        self.shared.taken.fetch_add(1, Ordering::Relaxed);
        self.shared.passed.fetch_add(goes_up, Ordering::Relaxed);
        Ok(difficulty)
    }

    /// Counts by a few reasons of our own, as a machine's counters hold only few.
    pub(super) fn count_refused(&mut self, worker: WorkerSlot, Refused { reject, asked_for }: &Refused) {
        if *asked_for {
            self.asked_for = self.asked_for.saturating_add(1);
        }
        let stats = &self.workers[worker.0].stats;
        let reason = match reject {
            Reject::JobNotFound => return, // already counted
            Reject::Duplicate => "at the gateway: duplicate (22)",
            Reject::LowDifficulty => "at the gateway: low difficulty (23)",
            _ if *asked_for => "at the gateway: too many (20)",
            _ => "at the gateway: malformed (20)",
        };
        if !asked_for && let Some(offence) = self.bad.bad() {
            self.shared.offend(self.peer.ip(), offence);
        }
        if stats.add_rejected(reason) {
            debug!(peer = %self.peer, "{}: share refused: {reject}", stats.name());
        }
    }
}
