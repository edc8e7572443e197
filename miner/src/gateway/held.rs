//! The jobs that one connection was sent, and the shares of them that it has had.
//!
//! Here: which job a share is of, at which difficulty, and whether it comes twice; both are bounded, for one connection and
//! for all of them ([`Memory`]). Not here: what a share is worth ([`super::judge`]).

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use iop_stratum::difficulty::{Difficulty, Target};
use iop_stratum::fields::JobId;
use iop_stratum::verdict::Reject;

use super::limits::Memory;
use super::served::Served;

/// Jobs whose shares are known, the latest ones: with a job every half minute, eight minutes of work.
const MAX_JOBS: usize = 16;
/// Shares of one job and connection that are remembered: at 30 s a job, 2,000 a second.
const MAX_SHARES_PER_JOB: usize = 65_536;

/// A job that was sent, with what was in force then.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) job: Arc<Served>,
    pub(super) prefix: u32,
    /// It, and it again later or at another difficulty; at least one.
    pub(super) sent: Vec<Sent>,
    /// The first half of each share's hash. Different shares have different headers, so different hashes; and no other
    /// connection has this one's prefix, so no other can have these shares. Made for the first share.
    #[expect(clippy::box_collection, reason = "a set takes 48 bytes, and there are 16 of these")]
    seen: Option<Box<HashSet<[u8; 16]>>>,
}

/// A job under one of its names.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) id: JobId,
    pub(super) difficulty: Difficulty,
    pub(super) target: Target,
}

/// Where a job is among those that are held, and which of its names it was called by.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    job: usize,
    name: usize,
}

/// The jobs of one connection, oldest first.
#[derive(Debug)]
pub(super) struct Jobs {
    held: VecDeque<Held>,
    memory: Arc<Memory>,
    /// Shares of all of them.
    shares: usize,
}

impl Sent {
    pub(super) fn new(id: JobId, difficulty: Difficulty) -> Self {
        Self { id, difficulty, target: Target::from_difficulty(difficulty) }
    }
}

impl Held {
    /// As it was sent last.
    pub(super) fn last(&self) -> &Sent {
        self.sent.last().expect("one at least")
    }
}

impl Jobs {
    pub(super) fn new(memory: Arc<Memory>) -> Self {
        Self { held: VecDeque::new(), memory, shares: 0 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// The newest.
    pub(super) fn last(&self) -> Option<&Held> {
        self.held.back()
    }

    /// The newest.
    pub(super) fn last_mut(&mut self) -> Option<&mut Held> {
        self.held.back_mut()
    }

    /// A new one is sent.
    pub(super) fn push(&mut self, job: Arc<Served>, prefix: u32, difficulty: Difficulty) {
        if self.held.len() == MAX_JOBS {
            self.forget_oldest();
        }
        let sent = vec![Sent::new(job.id().clone(), difficulty)];
        self.held.push_back(Held { job, prefix, sent, seen: None });
    }

    /// The job of this name.
    pub(super) fn find(&self, id: &JobId) -> Option<Place> {
        let name = |held: &Held| held.sent.iter().position(|sent| sent.id == *id);
        let mut jobs = self.held.iter().enumerate().rev();
        jobs.find_map(|(job, held)| Some(Place { job, name: name(held)? }))
    }

    /// The job at a place.
    pub(super) fn at(&self, place: Place) -> (&Held, &Sent) {
        let held = &self.held[place.job];
        (held, &held.sent[place.name])
    }

    /// Remembers a share of the job at a place, by half of its hash. Where a connection has more shares than the memory of
    /// all allows it, its oldest jobs are forgotten for that. Places do not hold any more then.
    ///
    /// # Errors
    /// It has come before, or there is no room: for one that the upstream wants there is some more.
    pub(super) fn remember(
        &mut self,
        place: Place,
        half: [u8; 16],
        is_for_upstream: bool,
    ) -> Result<(), Reject> {
        let Place { mut job, .. } = place;
        let seen = self.held[job].seen.get_or_insert_default();
        if seen.contains(&half) {
            return Err(Reject::Duplicate);
        }
        let too_many = || Reject::other("too many shares for one job, raise the difficulty");
        if seen.len() >= if is_for_upstream { 2 * MAX_SHARES_PER_JOB } else { MAX_SHARES_PER_JOB } {
            return Err(too_many());
        }
        while !self.memory.take(self.shares, is_for_upstream) {
            if job == 0 || self.shares == 0 {
                return Err(too_many());
            }
            self.forget_oldest();
            job -= 1;
        }
        self.shares += 1;
        self.held[job].seen.get_or_insert_default().insert(half);
        Ok(())
    }

    fn forget_oldest(&mut self) {
        let Some(oldest) = self.held.pop_front() else { return };
        let shares = oldest.seen.map_or(0, |seen| seen.len());
        self.shares -= shares;
        self.memory.give_back(shares);
    }
}

impl Drop for Jobs {
    fn drop(&mut self) {
        self.memory.give_back(self.shares);
    }
}
