//! How hard a miner's shares are: what vardiff finds, what the miner wishes, and when it is told.

use std::time::{Duration, Instant};

use iop_mining::vardiff::{Aim, Vardiff};
use iop_stratum::difficulty::Difficulty;

use super::{Miner, Sent};
use crate::config::DifficultyBounds;

/// A difficulty so many times greater or less than that of the last job does not wait for the next one.
pub(super) const BIG_CHANGE: f64 = 4.0;
/// New jobs of the same work that a client may have by asking: when it introduces itself, a machine needs three or so,
/// for its password, its wish and what it cannot work below. The other numbers are vardiff's.
pub(super) const MAX_ASKED: u32 = 8;
/// How long shares of a job count after one that is harder by [`BIG_CHANGE`]. The new job is clean and is there in a
/// second or two, also behind a proxy; who goes on with the easy one for longer works against vardiff.
pub(super) const EASY_GRACE: Duration = Duration::from_secs(15);

impl Miner {
    /// What jobs should have from now on.
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

    /// Eases the difficulty if no share came for long.
    pub fn on_silence(&mut self, now: Instant) {
        if self.silent_from().is_some_and(|silent| now >= silent)
            && let Some(aim) = self.aim()
            && self.vardiff.on_silence(now, &aim)
        {
            self.on_retarget();
        }
    }

    /// A new difficulty holds from the next job on; if it is another by far, there is a new job at once. It is clean,
    /// as most machines go on with what they have otherwise; shares of the one before still count for a while. Whether
    /// there is one.
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

    /// The same for what the client asks for, as long as it has not asked too often.
    fn on_asked(&mut self) {
        if self.asked < MAX_ASKED && self.on_retarget() {
            self.asked += 1;
        }
    }

    /// What shares of a job should have by now, and how many times as much that is as it was sent with.
    fn change(&self, sent: &Sent) -> (Difficulty, f64) {
        let wanted = sent.job.share_difficulty(self.wanted());
        (wanted, wanted.get() / sent.difficulty.get())
    }

    /// Whether shares come for a job that is far easier than they should be: the harder one was not sent yet.
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

    /// Vardiff begins anew there; but a difficulty far below what the machine works at is not to be had by wishing, as
    /// often as it may be tried, and there is no new job for each try.
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

    /// What the miner cannot work below.
    pub(super) fn on_minimum(&mut self, minimum: Difficulty) {
        let DifficultyBounds { min, max, .. } = self.shared.difficulty;
        self.minimum = minimum.clamp(min, max);
        self.lift();
        self.on_asked();
    }

    /// Vardiff counts shares by its own difficulty, so it must not be below the one that jobs have. Without vardiff the
    /// wish stands, should a lower minimum come.
    fn lift(&mut self) {
        if let Some(aim) = self.aim() {
            self.vardiff.lift(aim.min);
        }
    }
}
