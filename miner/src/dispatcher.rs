//! Splits jobs into assignments that share no header, and marks them stale when the job changes.
//!
//! A job's headers are counted like an odometer: nonces turn fastest, then extranonce2, then the version bits that the
//! pool lets us roll, several at a time: kernels scan versions of a header together at less than the cost of as many
//! headers. A device gets the next nonces of the current header. With an extranonce2 of one byte and no version bits,
//! the worst case allowed, a job lasts for 2^40 headers: half an hour at 600 MH/s.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use iop_kernels::{Found, NonceRange, Work};
use iop_stratum::fields::{Extranonce2, NTime, Nonce, VersionBits};
use tokio::sync::watch;
use tracing::warn;

use crate::job::{Job, Share};
use crate::split::Split;
use crate::stats::DeviceStats;

/// Number of nonces of a header.
const NONCES: u64 = 1 << 32;

/// Most versions in an assignment. Versions share the message of the second block, a seventh of the work: with eight of
/// them a version pays an eighth of that, and more would save next to nothing.
pub const VERSIONS: u32 = 8;

/// A range of headers for one device, and for no other.
#[derive(Debug, Clone)]
pub struct Assignment {
    /// The job that the headers belong to.
    pub job: Arc<Job>,
    /// The extranonce2 of all of them.
    pub extranonce2: Extranonce2,
    /// The rolled version bits of each of the work's versions.
    pub version_bits: Vec<VersionBits>,
    /// The time of all of them.
    pub ntime: NTime,
    /// The header and the share target, ready for a kernel.
    pub work: Work,
    /// The nonces to try.
    pub nonces: NonceRange,
    /// The dispatcher's generation when it was taken.
    generation: u64,
    /// The [era](Current::era) of its job.
    era: u64,
}

impl Assignment {
    /// The share that a found header of this assignment makes.
    ///
    /// # Panics
    /// It is of a version that the work does not have.
    #[must_use]
    pub fn share(&self, found: Found, finder: Arc<DeviceStats>) -> Share {
        Share {
            job: Arc::clone(&self.job),
            extranonce2: self.extranonce2,
            version_bits: self.version_bits[usize::from(found.version)],
            ntime: self.ntime,
            nonce: Nonce(found.nonce),
            finder,
        }
    }

    /// Number of headers in it: nonces times versions.
    #[must_use]
    pub fn headers(&self) -> u64 {
        self.nonces.count() * self.work.versions() as u64
    }
}

/// The current job, for consumers that hand it to machines as a whole.
#[derive(Debug, Clone, Default)]
pub struct Current {
    /// `None` while the upstream has none.
    pub job: Option<Arc<Job>>,
    /// Counts the events that make shares of all earlier jobs stale: clean jobs, changes of upstream, and times without
    /// a job. A consumer that sees only some of the jobs misses none of them.
    pub era: u64,
}

/// Connects one upstream with all devices.
#[derive(Debug, Default)]
pub struct Dispatcher {
    state: Mutex<State>,
    /// Notified when there is new work, or no more work for good.
    changed: Condvar,
    /// Counts changes of job; devices read it between chunks, without the lock.
    generation: AtomicU64,
    current: watch::Sender<Current>,
}

#[derive(Debug, Default)]
struct State {
    /// How jobs are cut where machines behind a gateway work on them too.
    split: Option<Split>,
    odometer: Option<Odometer>,
    /// The extranonce2 at which the next job starts: where the last one stopped. If a pool repeats a job, say after a
    /// reconnect, it does not get the same shares again.
    next_extranonce2: u64,
    closed: bool,
    /// Shares dropped for lack of room since the work was closed.
    given_up: usize,
}

impl Dispatcher {
    /// Creates it without a job: devices wait for one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// From the next job on, the devices keep to the part of it that machines behind a gateway leave to them.
    pub fn split(&self, split: Split) {
        self.lock().split = Some(split);
    }

    /// Subscribes to the current job.
    #[must_use]
    pub fn follow(&self) -> watch::Receiver<Current> {
        self.current.subscribe()
    }

    /// Replaces the work: if the job is clean, shares of all earlier jobs are stale. The same job may come again, with
    /// another version mask.
    pub fn set_job(&self, job: Arc<Job>) {
        let notify = &job.stratum().notify;
        let is_same = |before: &Arc<Job>| Arc::ptr_eq(&before.stratum().notify, notify);
        let breaks = notify.clean && !self.current.borrow().job.as_ref().is_some_and(is_same);
        self.replace_job(job, breaks);
    }

    /// Replaces the work. If it `breaks`, shares of all earlier jobs are stale, whatever the job's flag says: it may be
    /// from another upstream. Assignments of the last job are stale at once, unless the same job is repeated: then the
    /// devices continue. Starting over would cost an extranonce2 each time, and with an extranonce2 of one byte they
    /// would repeat headers.
    pub fn replace_job(&self, job: Arc<Job>, breaks: bool) {
        if !breaks && self.repeat_job(&job) {
            return;
        }
        self.change(|state| {
            let size = job.stratum().extranonce2_size;
            let last =
                state.split.map_or_else(|| job.last_extranonce2(), |split| split.last_of_devices(size));
            let first = state.next_extranonce2 & last;
            state.odometer = Some(Odometer::new(Arc::clone(&job), first, last));
            self.current.send_modify(|current| current.replace(job, breaks));
        });
    }

    /// If this is the current job again, publishes it once more. The devices continue, but their further assignments
    /// refer to the new copy, since shares of the old one may become stale. Returns whether it is the same.
    fn repeat_job(&self, job: &Arc<Job>) -> bool {
        let mut state = self.lock();
        let is_same = |before: &Arc<Job>| before.stratum() == job.stratum();
        let same = self.current.borrow().job.as_ref().is_some_and(is_same);
        if same {
            if let Some(odometer) = &mut state.odometer {
                odometer.job = Arc::clone(job);
            }
            self.current.send_modify(|current| current.replace(Arc::clone(job), false));
        }
        same
    }

    /// Removes the work: devices wait for the next job.
    pub fn clear(&self) {
        self.change(|state| {
            state.odometer = None;
            self.current.send_modify(Current::clear);
        });
    }

    /// Ends the work for good: devices end.
    pub fn close(&self) {
        self.change(|state| {
            state.odometer = None;
            state.closed = true;
            self.current.send_modify(Current::clear);
        });
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.lock();
        self.generation.fetch_add(1, Ordering::Release);
        change(&mut state);
        self.changed.notify_all();
    }

    /// Takes at most `want` headers that no other caller gets, but at least one nonce of the current header. Waits
    /// until there are some; `None` once there will be no more.
    #[must_use]
    pub fn take(&self, want: u64) -> Option<Assignment> {
        let mut state = self.lock();
        loop {
            if state.closed {
                return None;
            }
            let generation = self.generation.load(Ordering::Acquire);
            let era = self.current.borrow().era;
            if let Some(assignment) = state.take(want, generation, era) {
                return Some(assignment);
            }
            state = self.changed.wait(state).expect("nothing panics while it holds the lock");
        }
    }

    /// Whether there is a job.
    #[must_use]
    pub fn has_job(&self) -> bool {
        self.current.borrow().job.is_some()
    }

    /// Whether its job is still the current one. Cheap enough to be called every fraction of a millisecond.
    #[must_use]
    pub fn is_current(&self, assignment: &Assignment) -> bool {
        assignment.generation == self.generation.load(Ordering::Acquire)
    }

    /// Whether its shares may still count: nothing has voided them since.
    #[must_use]
    pub fn is_alive(&self, assignment: &Assignment) -> bool {
        assignment.era == self.current.borrow().era
    }

    /// Counts a share that is dropped since there is no room and its job is over.
    pub fn give_up(&self) {
        let mut state = self.lock();
        state.given_up += usize::from(state.closed);
    }

    /// Shares dropped since the work was closed.
    #[must_use]
    pub fn given_up(&self) -> usize {
        self.lock().given_up
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it holds the lock")
    }
}

impl Current {
    fn replace(&mut self, job: Arc<Job>, breaks: bool) {
        self.era += u64::from(breaks);
        self.job = Some(job);
    }

    fn clear(&mut self) {
        self.job = None;
        self.era += 1;
    }
}

impl State {
    fn take(&mut self, want: u64, generation: u64, era: u64) -> Option<Assignment> {
        let odometer = self.odometer.as_mut()?;
        let Some(assignment) = odometer.take(want, generation, era) else {
            warn!(job = %odometer.job.id(), "every header of the job is tried; waiting for the next one");
            self.odometer = None;
            return None;
        };
        self.next_extranonce2 = odometer.extranonce2.wrapping_add(1);
        Some(assignment)
    }
}

/// Tracks which of a job's headers have been assigned.
#[derive(Debug)]
struct Odometer {
    job: Arc<Job>,
    /// The current header; `None` once all are assigned.
    header: Option<Header>,
    /// The next nonce of the current header, up to 2^32.
    nonce: u64,
    /// The current extranonce2, as a counter that wraps.
    extranonce2: u64,
    first_extranonce2: u64,
    /// The greatest extranonce2: all bits below its highest one are set.
    last_extranonce2: u64,
    /// The first of the current version bits, as a counter.
    version: u64,
}

/// A header in several versions, without its nonce.
#[derive(Debug)]
struct Header {
    extranonce2: Extranonce2,
    version_bits: Vec<VersionBits>,
    work: Work,
}

impl Odometer {
    fn new(job: Arc<Job>, first_extranonce2: u64, last_extranonce2: u64) -> Self {
        let mut odometer = Self {
            job,
            header: None,
            nonce: 0,
            extranonce2: first_extranonce2,
            first_extranonce2,
            last_extranonce2,
            version: 0,
        };
        odometer.make_header();
        odometer
    }

    fn take(&mut self, want: u64, generation: u64, era: u64) -> Option<Assignment> {
        if self.nonce == NONCES {
            self.turn();
        }
        let Header { extranonce2, version_bits, work } = self.header.as_ref()?;
        let count = (want / work.versions() as u64).clamp(1, NONCES - self.nonce);
        let first = u32::try_from(self.nonce).expect("below 2^32, or the odometer would have turned");
        let nonces = NonceRange::new(first, count).expect("ends at 2^32 at most");
        self.nonce += count;
        Some(Assignment {
            job: Arc::clone(&self.job),
            extranonce2: *extranonce2,
            version_bits: version_bits.clone(),
            ntime: self.job.ntime(),
            work: work.clone(),
            nonces,
            generation,
            era,
        })
    }

    /// Advances to the next extranonce2; after the last one to the next versions; after the last versions there is no
    /// header.
    fn turn(&mut self) {
        self.header = None;
        self.nonce = 0;
        self.extranonce2 = self.extranonce2.wrapping_add(1) & self.last_extranonce2;
        if self.extranonce2 == self.first_extranonce2 {
            self.version += u64::from(self.versions());
        }
        if self.version >> self.job.rollable_bits() == 0 {
            self.make_header();
        }
    }

    /// Number of versions in a group: a power of two, as is their total number.
    fn versions(&self) -> u32 {
        VERSIONS.min(1u32.checked_shl(self.job.rollable_bits()).unwrap_or(VERSIONS))
    }

    fn make_header(&mut self) {
        let extranonce2 = self.job.extranonce2(self.extranonce2);
        let first = u32::try_from(self.version).expect("below 2 to the power of the bits in a 32-bit mask");
        let bits = (first..=first + (self.versions() - 1)).map(|version| self.job.version_bits(version));
        let version_bits: Vec<VersionBits> = bits.collect();
        let versions: Vec<u32> = version_bits.iter().map(|bits| self.job.version(*bits)).collect();
        let merkle_root = self.job.merkle_root(&extranonce2);
        let header = self.job.header(&merkle_root, version_bits[0], self.job.ntime());
        let work = Work::with_versions(&header, &versions, self.job.target());
        self.header = Some(Header { extranonce2, version_bits, work });
    }
}

#[cfg(test)]
mod tests;
