//! The jobs that one connection was sent, and the shares of them that it has had.
//!
//! Here: which job a share is of, at which difficulty, and whether it comes twice; both are bounded, for one connection and
//! for all of them ([`Memory`]). Jobs of one work, which an upstream may send again and again, have their shares in common.
//! Not here: what a share is worth ([`super::judge`]).

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use iop_stratum::difficulty::{Difficulty, Target};
use iop_stratum::fields::{JobId, VersionMask};

use super::limits::Memory;
use super::prefixes::WorkHash;
use super::served::Served;

/// Jobs whose shares are known, the latest ones: with a job every half minute, eight minutes of work.
const MAX_JOBS: usize = 16;
/// Shares of one work and connection that are remembered: with other work every 30 s, 2,000 a second.
const MAX_SHARES_PER_WORK: usize = 65_536;
/// Version masks of one job that are remembered, the latest: upstreams change them once, if at all.
const MAX_TERMS: usize = 4;

/// A job that was sent, with what was in force then.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) job: Arc<Served>,
    pub(super) prefix: u32,
    /// Under which versions of it were rolled, the latest first; at least one.
    terms: Vec<Terms>,
    /// Seconds by which the latest variant of it is later than it.
    pub(super) later: u32,
    /// It, and it again later or at another difficulty; at least one.
    pub(super) sent: Vec<Sent>,
}

/// What a machine might roll in a job for a time.
#[derive(Debug)]
pub(super) struct Terms {
    /// The job as the upstream gave it then.
    pub(super) job: Arc<Served>,
    /// The version bits that the upstream allowed and the machine asked for.
    pub(super) mask: VersionMask,
}

/// Why a share is not remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unremembered {
    /// It has come before.
    Duplicate,
    /// The same, after its work was given out again: whoever did so has asked for it.
    Repeated,
    /// There is no room.
    NoRoom,
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

/// The shares of all jobs of one work.
#[derive(Debug)]
struct Seen {
    work: WorkHash,
    /// The first half of each one's hash. Different shares have different headers, so different hashes; and no other
    /// connection has this one's prefix, so no other can have these shares.
    shares: HashSet<[u8; 16]>,
    /// How many of them may come again through no fault of the machine.
    excused: usize,
}

/// The jobs of one connection, oldest first.
#[derive(Debug)]
pub(super) struct Jobs {
    held: VecDeque<Held>,
    /// Of the works of these jobs, those that have shares.
    seen: Vec<Seen>,
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
    /// The same job, perhaps with another mask of the upstream's, and the mask of the machine. What was rolled under those
    /// before may be on its way.
    pub(super) fn renew(&mut self, job: Arc<Served>, mask: VersionMask) {
        let mask = mask.intersect(job.mask());
        self.terms.retain(|terms| terms.mask != mask || terms.job.mask() != job.mask());
        self.terms.insert(0, Terms { job: Arc::clone(&job), mask });
        self.terms.truncate(MAX_TERMS);
        for terms in self.terms.iter_mut().filter(|terms| terms.job.mask() == job.mask()) {
            terms.job = Arc::clone(&job);
        }
        self.job = job;
    }

    /// The machine's mask may be another.
    pub(super) fn renew_mask(&mut self, mask: VersionMask) {
        if self.terms.first().is_none_or(|terms| terms.mask != mask.intersect(self.job.mask())) {
            self.renew(Arc::clone(&self.job), mask);
        }
    }

    /// All that a share of it may have been found under, the latest first.
    pub(super) fn terms(&self) -> &[Terms] {
        &self.terms
    }

    /// Whether the upstream does not give it like this any more.
    pub(super) fn is_former(&self, terms: &Terms) -> bool {
        terms.job.mask() != self.job.mask()
    }

    /// As it was sent last.
    pub(super) fn last(&self) -> &Sent {
        self.sent.last().expect("one at least")
    }
}

impl Jobs {
    pub(super) fn new(memory: Arc<Memory>) -> Self {
        Self { held: VecDeque::new(), seen: Vec::new(), memory, shares: 0 }
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

    /// A new one is sent, whose variants so far end so many seconds later than it.
    pub(super) fn push(
        &mut self,
        job: Arc<Served>,
        prefix: u32,
        mask: VersionMask,
        difficulty: Difficulty,
        later: u32,
    ) {
        if self.held.len() == MAX_JOBS {
            self.forget_oldest();
        }
        let sent = vec![Sent::new(job.id().clone(), difficulty)];
        let mut held = Held { job: Arc::clone(&job), prefix, terms: Vec::new(), later, sent };
        held.renew(job, mask);
        self.held.push_back(held);
    }

    /// For a job of a work that was given out before: by how many seconds what was given out ends later than the job begins.
    pub(super) fn repeats(&self, job: &Served) -> Option<u32> {
        let same = self.held.iter().filter(|held| held.job.work_hash() == job.work_hash());
        let ends = same.map(|held| held.job.upstream().ntime().0.saturating_add(held.later)).max()?;
        ends.checked_sub(job.upstream().ntime().0)
    }

    /// The newest is sent once more: a machine may begin anew with it.
    pub(super) fn excuse(&mut self) {
        let work = self.held.back().map(|held| *held.job.work_hash());
        if let Some(seen) = self.seen.iter_mut().find(|seen| Some(seen.work) == work) {
            seen.excused = seen.shares.len();
        }
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
    /// all allows it, its oldest jobs are forgotten for that, up to the first of the same work. Places do not hold any more
    /// then.
    ///
    /// # Errors
    /// It has come before, or there is no room: for one that the upstream wants there is some more.
    pub(super) fn remember(
        &mut self,
        place: Place,
        half: [u8; 16],
        is_for_upstream: bool,
    ) -> Result<(), Unremembered> {
        let work = *self.held[place.job].job.work_hash();
        let max = if is_for_upstream { 2 * MAX_SHARES_PER_WORK } else { MAX_SHARES_PER_WORK };
        if let Some(seen) = self.seen.iter_mut().find(|seen| seen.work == work) {
            if seen.shares.contains(&half) {
                let is_excused = seen.excused > 0;
                seen.excused = seen.excused.saturating_sub(1);
                return Err(if is_excused { Unremembered::Repeated } else { Unremembered::Duplicate });
            }
            if seen.shares.len() >= max {
                return Err(Unremembered::NoRoom);
            }
        }
        while !self.memory.take(self.shares, is_for_upstream) {
            let is_last = self.held.front().is_none_or(|oldest| *oldest.job.work_hash() == work);
            if is_last || self.shares == 0 {
                return Err(Unremembered::NoRoom);
            }
            self.forget_oldest();
        }
        self.shares += 1;
        match self.seen.iter_mut().find(|seen| seen.work == work) {
            Some(seen) => _ = seen.shares.insert(half),
            None => self.seen.push(Seen { work, shares: HashSet::from([half]), excused: 0 }),
        }
        Ok(())
    }

    /// The shares of its work are forgotten with the last job of that.
    fn forget_oldest(&mut self) {
        let Some(oldest) = self.held.pop_front() else { return };
        let work = oldest.job.work_hash();
        if self.held.iter().any(|held| held.job.work_hash() == work) {
            return;
        }
        if let Some(place) = self.seen.iter().position(|seen| seen.work == *work) {
            let shares = self.seen.swap_remove(place).shares.len();
            self.shares -= shares;
            self.memory.give_back(shares);
        }
    }
}

impl Drop for Jobs {
    fn drop(&mut self) {
        self.memory.give_back(self.shares);
    }
}
