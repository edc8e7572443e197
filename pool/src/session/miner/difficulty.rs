//! The difficulty of a miner's shares: what vardiff finds, what the client suggests, and when it is told.

use std::time::{Duration, Instant};

use iop_mining::vardiff::{Aim, Vardiff};
use iop_stratum::difficulty::Difficulty;

use super::{Miner, Sent};
use crate::config::DifficultyBounds;

/// A difficulty that differs from the last job's by this factor or more does not wait for the next job.
pub(super) const BIG_CHANGE: f64 = 4.0;
/// New jobs of the same work that a client may cause by asking. A machine needs about three when it introduces itself:
/// for its password, its suggestion and its minimum. The remaining job variants are vardiff's.
pub(super) const MAX_ASKED: u32 = 8;
/// How long shares of a job count after one that is harder by [`BIG_CHANGE`]. The new job is clean and arrives within a
/// second or two, even through a proxy; a client that keeps the easy job longer works against vardiff.
pub(super) const EASY_GRACE: Duration = Duration::from_secs(15);

impl Miner {
    /// The difficulty that the next jobs should have.
    pub(super) fn wanted(&self) -> Difficulty {
        self.vardiff.difficulty().at_least(self.minimum)
    }

    fn aim(&self) -> Option<Aim> {
        let seconds_per_share = self.shared.vardiff?;
        Some(Aim { seconds_per_share, min: self.minimum, max: self.shared.difficulty.max })
    }

    /// When to call [`Self::on_silence`] if no share comes before.
    #[must_use]
    pub fn silent_from(&self) -> Option<Instant> {
        let aim = self.aim()?;
        let mines = !self.workers.is_empty() && !self.sent.is_empty() && self.dead_from.is_none();
        self.vardiff.silent_from(&aim).filter(|_| mines)
    }

    /// Lowers the difficulty if no share came for long.
    pub fn on_silence(&mut self, now: Instant) {
        if self.silent_from().is_some_and(|silent| now >= silent)
            && let Some(aim) = self.aim()
            && self.vardiff.on_silence(now, &aim)
        {
            self.on_retarget();
        }
    }

    /// A new difficulty applies from the next job on; after a big change a new job is sent at once. It is clean, since
    /// most machines otherwise continue with the old one, whose shares still count for a while. Returns whether a job
    /// was sent.
    fn on_retarget(&mut self) -> bool {
        let Some(last) = self.sent.back().filter(|last| !last.job.tip.is_retired()) else { return false };
        let (wanted, change) = self.change(last);
        if change > 1.0 / BIG_CHANGE && change < BIG_CHANGE {
            return false;
        }
        let Some(job) = last.job.variant(&self.shared.numbers) else { return false };
        self.send(job.line(true), wanted);
        self.remember(job, wanted);
        true
    }

    /// Like [`Self::on_retarget`] for a client's request, unless it has asked too often.
    fn on_asked(&mut self) {
        if self.asked < MAX_ASKED && self.on_retarget() {
            self.asked += 1;
        }
    }

    /// The share difficulty that a job should have by now, and its ratio to the one it was sent with.
    fn change(&self, sent: &Sent) -> (Difficulty, f64) {
        let wanted = sent.job.share_difficulty(self.wanted());
        (wanted, wanted.get() / sent.difficulty.get())
    }

    /// Whether the last job is far easier than it should be: the harder one was not sent yet.
    fn is_too_easy(&self) -> bool {
        self.sent.back().is_some_and(|last| self.change(last).1 >= BIG_CHANGE)
    }

    /// A share was accepted.
    pub(super) fn on_share(&mut self, difficulty: Difficulty, now: Instant) {
        let Some(aim) = self.aim() else { return };
        self.pace.on_share(difficulty, now);
        if self.vardiff.on_share(difficulty, now, &aim) || self.is_too_easy() {
            self.on_retarget();
        }
    }

    /// Restarts vardiff at the suggested difficulty. A client cannot get far below the difficulty it works at by
    /// suggesting, however often it tries, and not each try yields a new job.
    pub(super) fn on_wish(&mut self, difficulty: Difficulty) {
        if self.wish.replace(difficulty) == Some(difficulty) {
            return;
        }
        let (now, DifficultyBounds { min, max, .. }) = (Instant::now(), self.shared.difficulty);
        let least = self.shared.vardiff.and_then(|seconds| self.pace.least_wish(seconds, now));
        let (wished, least) = (difficulty.clamp(min, max), least.unwrap_or(min).clamp(min, max));
        self.vardiff = Vardiff::new(wished.at_least(least), now);
        self.lift();
        self.on_asked();
    }

    /// Sets the least difficulty that the miner can work at.
    pub(super) fn on_minimum(&mut self, minimum: Difficulty) {
        let DifficultyBounds { min, max, .. } = self.shared.difficulty;
        self.minimum = minimum.clamp(min, max);
        self.lift();
        self.on_asked();
    }

    /// Vardiff counts shares by its own difficulty, which must not be below that of the jobs. Without vardiff the
    /// suggestion is kept, in case a lower minimum comes.
    fn lift(&mut self) {
        if let Some(aim) = self.aim() {
            self.vardiff.lift(aim.min);
        }
    }
}
