//! The jobs that one connection was sent, and the shares that it has submitted for them.
//!
//! Here: which job a share is of, at which difficulty, and whether it is a duplicate; both are bounded, per connection
//! and in all ([`Memory`]). Jobs of the same work, which an upstream may send again and again, have one set of shares.
//! Not here: the verdict on a share ([`super::judge`]).

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use iop_stratum::difficulty::{Difficulty, Target};
use iop_stratum::fields::{JobId, VersionMask};

use super::limits::Memory;
use super::prefixes::WorkHash;
use super::served::Served;

/// The most recent jobs whose shares are known: eight minutes of work at a job every half minute. If an upstream sends
/// more, those of the last minute are known, up to [`MOST_JOBS`].
const MAX_JOBS: usize = 16;
const MOST_JOBS: usize = 128;
const MINUTE: Duration = Duration::from_secs(60);
/// Most shares remembered per work and connection: 2,000 a second if the work changes every 30 s.
const MAX_SHARES_PER_WORK: usize = 65_536;
/// Most recent version masks remembered per job: upstreams change them once, if at all.
const MAX_TERMS: usize = 4;

/// A job that was sent, with the parameters in force then.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) job: Arc<Served>,
    pub(super) prefix: u32,
    /// When it was sent first.
    at: Instant,
    /// The terms under which versions were rolled, newest first; at least one.
    terms: Vec<Terms>,
    /// Seconds by which its latest variant is later than the job itself.
    pub(super) later: u32,
    /// The job and its variants (later, or at another difficulty); at least one.
    pub(super) sent: Vec<Sent>,
}

/// What a machine may roll in a job during some time.
#[derive(Debug)]
pub(super) struct Terms {
    /// The job as the upstream sent it at that time.
    pub(super) job: Arc<Served>,
    /// The version bits that the upstream allows and the machine asked for.
    pub(super) mask: VersionMask,
}

/// The reason why a share is not remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unremembered {
    /// It is a duplicate.
    Duplicate,
    /// It is a duplicate because its work was given out again: not the machine's fault.
    Repeated,
    /// There is no room.
    NoRoom,
}

/// A job under one of its ids.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) id: JobId,
    pub(super) difficulty: Difficulty,
    pub(super) target: Target,
}

/// Index of a job among those held, and of the id it was found by.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    job: usize,
    name: usize,
}

/// The shares of all jobs of the same work.
#[derive(Debug)]
struct Seen {
    work: WorkHash,
    /// The first half of each share's hash. Different shares have different headers, hence different hashes; and no
    /// other connection has this prefix, so none can submit the same shares.
    shares: HashSet<[u8; 16]>,
    /// Number of them that may be repeated through no fault of the machine.
    excused: usize,
}

/// The jobs of one connection, oldest first.
#[derive(Debug)]
pub(super) struct Jobs {
    held: VecDeque<Held>,
    /// Share sets of the works of these jobs, for works that have shares.
    seen: Vec<Seen>,
    memory: Arc<Memory>,
    /// Number of shares in all sets.
    shares: usize,
}

impl Sent {
    pub(super) fn new(id: JobId, difficulty: Difficulty) -> Self {
        Self { id, difficulty, target: Target::from_difficulty(difficulty) }
    }
}

impl Held {
    /// Updates the job's mask, the upstream's and the machine's. Shares with bits rolled under the earlier ones may
    /// still arrive.
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

    /// Updates the machine's mask.
    pub(super) fn renew_mask(&mut self, mask: VersionMask) {
        if self.terms.first().is_none_or(|terms| terms.mask != mask.intersect(self.job.mask())) {
            self.renew(Arc::clone(&self.job), mask);
        }
    }

    /// All terms under which a share may have been found, newest first.
    pub(super) fn terms(&self) -> &[Terms] {
        &self.terms
    }

    /// Whether the upstream no longer offers the job under these terms.
    pub(super) fn is_former(&self, terms: &Terms) -> bool {
        terms.job.mask() != self.job.mask()
    }

    /// The latest variant.
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

    /// The newest job.
    pub(super) fn last(&self) -> Option<&Held> {
        self.held.back()
    }

    /// The newest job.
    pub(super) fn last_mut(&mut self) -> Option<&mut Held> {
        self.held.back_mut()
    }

    /// Adds a job that is sent, with `later` for the variants already sent of the same work.
    pub(super) fn push(
        &mut self,
        job: Arc<Served>,
        prefix: u32,
        mask: VersionMask,
        difficulty: Difficulty,
        later: u32,
    ) {
        let is_old = |held: &Held| held.at.elapsed() > MINUTE;
        while self.held.len() >= MAX_JOBS
            && (self.held.len() >= MOST_JOBS || self.held.front().is_some_and(is_old))
        {
            self.forget_oldest();
        }
        let sent = vec![Sent::new(job.id().clone(), difficulty)];
        let mut held =
            Held { job: Arc::clone(&job), prefix, at: Instant::now(), terms: Vec::new(), later, sent };
        held.renew(job, mask);
        self.held.push_back(held);
    }

    /// If a job's work was given out before: the seconds from the job's time to the latest time that was given out.
    pub(super) fn repeats(&self, job: &Served) -> Option<u32> {
        let same = self.held.iter().filter(|held| held.job.work_hash() == job.work_hash());
        let ends = same.map(|held| held.job.upstream().ntime().0.saturating_add(held.later)).max()?;
        ends.checked_sub(job.upstream().ntime().0)
    }

    /// The newest job is sent again: a machine may start over and repeat its shares.
    pub(super) fn excuse(&mut self) {
        let work = self.held.back().map(|held| *held.job.work_hash());
        if let Some(seen) = self.seen.iter_mut().find(|seen| Some(seen.work) == work) {
            seen.excused = seen.shares.len();
        }
    }

    /// Finds the job with this id.
    pub(super) fn find(&self, id: &JobId) -> Option<Place> {
        let name = |held: &Held| held.sent.iter().position(|sent| sent.id == *id);
        let mut jobs = self.held.iter().enumerate().rev();
        jobs.find_map(|(job, held)| Some(Place { job, name: name(held)? }))
    }

    /// The job at this place.
    pub(super) fn at(&self, place: Place) -> (&Held, &Sent) {
        let held = &self.held[place.job];
        (held, &held.sent[place.name])
    }

    /// Remembers a share of a job by half of its hash. If the connection has more shares than its part of the common
    /// memory, its oldest jobs are forgotten, up to the first one of the same work. Places are invalid then.
    ///
    /// # Errors
    /// The share is a duplicate, or there is no room: shares for the upstream have some in reserve.
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

    /// The shares of a work are forgotten with its last job.
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
