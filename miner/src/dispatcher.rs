//! Cuts jobs into assignments that share no header, and takes them back when they are stale.
//!
//! A job's headers are counted like an odometer: nonces turn fastest, then extranonce2, then the version bits
//! that the pool lets us roll, several at a time: kernels scan versions of a header together at less than the cost
//! of as many headers. Whoever asks gets the next nonces of the headers that are at hand. With an extranonce2 of
//! one byte and no version bits, the worst case allowed, a job lasts for 2^40 headers: half an hour at 600 MH/s.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use iop_kernels::{Found, NonceRange, Work};
use iop_stratum::fields::{Extranonce2, NTime, Nonce, VersionBits};
use tokio::sync::watch;
use tracing::warn;

use crate::job::{Job, Share};
use crate::split;
use crate::stats::DeviceStats;

/// How many nonces a header has.
const NONCES: u64 = 1 << 32;

/// Most versions in an assignment. What versions share is the second block's message, a seventh of the work: with
/// eight of them a version pays an eighth of that, and more would save next to nothing.
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
    /// Which of the dispatcher's jobs it is of.
    generation: u64,
}

impl Assignment {
    /// The share that a header of this assignment makes.
    ///
    /// # Panics
    /// When it is of a version that the work does not have.
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

    /// How many headers it holds: nonces times versions.
    #[must_use]
    pub fn headers(&self) -> u64 {
        self.nonces.count() * self.work.versions() as u64
    }
}

/// The job at hand, for whoever gives it to machines in one piece.
#[derive(Debug, Clone, Default)]
pub struct Current {
    /// None while the upstream has none.
    pub job: Option<Arc<Job>>,
    /// Counts the breaks after which shares of all jobs before are stale: clean jobs, other upstreams, and times without a
    /// job. Who looks at some jobs only misses none of them.
    pub era: u64,
}

/// Stands between one upstream and all devices.
#[derive(Debug, Default)]
pub struct Dispatcher {
    state: Mutex<State>,
    /// Told when there is new work, or none any more.
    changed: Condvar,
    /// Counts the changes of job; devices look at it between chunks, without the lock.
    generation: AtomicU64,
    current: watch::Sender<Current>,
}

#[derive(Debug, Default)]
struct State {
    /// Whether machines behind a gateway work on the jobs too.
    is_split: bool,
    odometer: Option<Odometer>,
    /// Where the next job's extranonce2 begins: where the last one's stood. A pool that sends a job again,
    /// say after a reconnect, then does not get the same shares again.
    next_extranonce2: u64,
    closed: bool,
}

impl Dispatcher {
    /// Without a job yet: devices that ask will wait.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// From the next job on, the devices keep to the part of it that machines behind a gateway leave to them.
    pub fn split(&self) {
        self.lock().is_split = true;
    }

    /// The job at hand and its changes.
    #[must_use]
    pub fn follow(&self) -> watch::Receiver<Current> {
        self.current.subscribe()
    }

    /// Replaces the work, as the job itself says: where it is clean, shares of all before are stale. The same job may
    /// come again, with another version mask.
    pub fn set_job(&self, job: Arc<Job>) {
        let notify = &job.stratum().notify;
        let is_same = |before: &Arc<Job>| Arc::ptr_eq(&before.stratum().notify, notify);
        let breaks = notify.clean && !self.current.borrow().job.as_ref().is_some_and(is_same);
        self.replace_job(job, breaks);
    }

    /// Replaces the work; where it `breaks` with what was before, shares of all jobs before are stale, whatever the job
    /// says: it may be another upstream's. Assignments of the job before are stale at once.
    pub fn replace_job(&self, job: Arc<Job>, breaks: bool) {
        self.change(|state| {
            let last = if state.is_split {
                split::last_of_devices(job.stratum().extranonce2_size)
            } else {
                job.last_extranonce2()
            };
            let first = state.next_extranonce2 & last;
            state.odometer = Some(Odometer::new(Arc::clone(&job), first, last));
            self.current.send_modify(|current| current.replace(job, breaks));
        });
    }

    /// Takes the work away: devices wait for the next job.
    pub fn clear(&self) {
        self.change(|state| {
            state.odometer = None;
            self.current.send_modify(Current::clear);
        });
    }

    /// No more work, for good: devices end.
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

    /// At most `want` headers that nobody else gets, but no less than one nonce of what is at hand. Waits until
    /// there are some; `None` when there will be no more.
    #[must_use]
    pub fn take(&self, want: u64) -> Option<Assignment> {
        let mut state = self.lock();
        loop {
            if state.closed {
                return None;
            }
            let generation = self.generation.load(Ordering::Acquire);
            if let Some(assignment) = state.take(want, generation) {
                return Some(assignment);
            }
            state = self.changed.wait(state).expect("nothing panics while it holds the lock");
        }
    }

    /// Whether its job is still the one to work on. Cheap: made to be asked every fraction of a millisecond.
    #[must_use]
    pub fn is_current(&self, assignment: &Assignment) -> bool {
        assignment.generation == self.generation.load(Ordering::Acquire)
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
    fn take(&mut self, want: u64, generation: u64) -> Option<Assignment> {
        let odometer = self.odometer.as_mut()?;
        let Some(assignment) = odometer.take(want, generation) else {
            warn!(job = %odometer.job.id(), "every header of the job is tried; waiting for the next one");
            self.odometer = None;
            return None;
        };
        self.next_extranonce2 = odometer.extranonce2.wrapping_add(1);
        Some(assignment)
    }
}

/// How far a job's headers are given out.
#[derive(Debug)]
struct Odometer {
    job: Arc<Job>,
    /// The header at hand; `None` before the first and after the last.
    header: Option<Header>,
    /// The next nonce of the header at hand, up to 2^32.
    nonce: u64,
    /// The extranonce2 at hand, as a counter that wraps.
    extranonce2: u64,
    first_extranonce2: u64,
    /// The greatest one, all bits below its highest set.
    last_extranonce2: u64,
    /// The first of the version bits at hand, as a counter.
    version: u64,
}

/// A header in several versions, but for its nonce.
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

    fn take(&mut self, want: u64, generation: u64) -> Option<Assignment> {
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
        })
    }

    /// On to the next extranonce2; after the last one to the next versions; after the last one there is no
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

    /// How many versions go together: a power of two, as the number of all of them is.
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
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::HashMap;
    use std::thread;

    use iop_stratum::fields::VersionMask;
    use proptest::prelude::*;

    use super::*;
    use crate::job::Serial;
    use crate::job::tests::{ANY_HASH, job};

    /// Checks that no header is in two of the assignments, and gives how many headers they hold.
    fn disjoint(assignments: &[Assignment]) -> u128 {
        let mut by_header: HashMap<[u8; 80], Vec<NonceRange>> = HashMap::new();
        for assignment in assignments {
            for version in 0..u8::try_from(assignment.work.versions()).unwrap() {
                let header = assignment.work.header_of(Found { nonce: 0, version });
                by_header.entry(header).or_default().push(assignment.nonces);
            }
        }
        for ranges in by_header.values_mut() {
            ranges.sort_by_key(|range| range.first());
            assert!(
                ranges.windows(2).all(|pair| pair[0].last() < pair[1].first()),
                "a header was given out twice"
            );
        }
        assignments.iter().map(|assignment| u128::from(assignment.headers())).sum()
    }

    fn dispatcher(extranonce2_size: usize, mask: u32) -> Dispatcher {
        let dispatcher = Dispatcher::new();
        dispatcher.set_job(Arc::new(job("1", extranonce2_size, mask, ANY_HASH)));
        dispatcher
    }

    #[test]
    fn threads_that_take_at_once_never_get_the_same_header() {
        let dispatcher = dispatcher(8, 0);
        let taken: Vec<Assignment> = thread::scope(|scope| {
            let take = |thread: u64| {
                let dispatcher = &dispatcher;
                scope.spawn(move || {
                    (0..500)
                        .map(|i| dispatcher.take((thread + 1) * (i + 1) * 65_537).unwrap())
                        .collect::<Vec<_>>()
                })
            };
            let threads: Vec<_> = (0..4).map(take).collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(taken.len(), 2000);
        disjoint(&taken);
    }

    #[test]
    fn a_job_is_given_out_whole_and_then_devices_wait() {
        let dispatcher = dispatcher(1, 0x0000_6000);
        let taken: Vec<Assignment> = (0..256).map(|_| dispatcher.take(u64::MAX).unwrap()).collect();
        assert_eq!(disjoint(&taken), 1 << (8 + 2 + 32));
        thread::scope(|scope| {
            let waiting = scope.spawn(|| dispatcher.take(1));
            thread::sleep(std::time::Duration::from_millis(20));
            assert!(!waiting.is_finished());
            dispatcher.set_job(Arc::new(job("2", 1, 0, ANY_HASH)));
            assert_eq!(waiting.join().unwrap().unwrap().job.id().as_str(), "2");
        });
    }

    #[test]
    fn a_job_sent_again_goes_on_where_it_stood() {
        let dispatcher = dispatcher(2, 0);
        let mut taken: Vec<Assignment> = (0..3).map(|_| dispatcher.take(1 << 31).unwrap()).collect();
        dispatcher.set_job(Arc::new(job("1", 2, 0, ANY_HASH)));
        taken.extend((0..3).map(|_| dispatcher.take(1 << 31).unwrap()));
        disjoint(&taken);
    }

    #[test]
    fn assignments_are_stale_as_soon_as_the_job_changes_or_goes() {
        let dispatcher = dispatcher(4, 0);
        let old = dispatcher.take(10).unwrap();
        assert!(dispatcher.is_current(&old));
        dispatcher.set_job(Arc::new(job("2", 4, 0, ANY_HASH)));
        assert!(!dispatcher.is_current(&old));
        let new = dispatcher.take(10).unwrap();
        assert!(dispatcher.is_current(&new));
        dispatcher.clear();
        assert!(!dispatcher.is_current(&new));
    }

    #[test]
    fn a_split_job_leaves_all_but_the_first_prefix_to_machines() {
        // Of two bytes one is the prefix; two bits of the version make four times as many headers.
        let dispatcher = Dispatcher::new();
        dispatcher.split();
        dispatcher.set_job(Arc::new(job("1", 2, 0x0000_6000, ANY_HASH)));
        let taken: Vec<Assignment> = (0..256).map(|_| dispatcher.take(u64::MAX).unwrap()).collect();
        assert_eq!(disjoint(&taken), 1 << (8 + 2 + 32));
        assert!(taken.iter().all(|assignment| assignment.extranonce2.as_bytes()[0] == 0));
        // A byte alone cannot be split: no machine gets any of it.
        dispatcher.set_job(Arc::new(job("2", 1, 0, ANY_HASH)));
        let taken: Vec<Assignment> = (0..256).map(|_| dispatcher.take(u64::MAX).unwrap()).collect();
        assert_eq!(disjoint(&taken), 1 << (8 + 32));
    }

    #[test]
    fn whoever_follows_sees_the_newest_job_and_how_many_breaks_came_before_it() {
        let dispatcher = Dispatcher::new();
        let follower = dispatcher.follow();
        let seen = || {
            let current = follower.borrow();
            (current.job.as_ref().map(|job| job.id().to_string()), current.era)
        };
        assert_eq!(seen(), (None, 0));
        let first = Arc::new(job("1", 4, 0, ANY_HASH)); // a clean one
        dispatcher.set_job(Arc::clone(&first));
        assert_eq!(seen(), (Some("1".into()), 1));
        let mut again = first.stratum().clone();
        again.version_mask = VersionMask(0x2000);
        dispatcher.set_job(Arc::new(Job::new(Serial(2), again.clone())));
        assert_eq!(seen(), (Some("1".into()), 1), "another mask is no break");
        Arc::make_mut(&mut again.notify).clean = false;
        let beside = Arc::new(Job::new(Serial(3), again));
        dispatcher.set_job(Arc::clone(&beside));
        assert_eq!(seen(), (Some("1".into()), 1), "a job beside the one before neither");
        dispatcher.replace_job(beside, true);
        assert_eq!(seen(), (Some("1".into()), 2), "unless the upstream says so");
        dispatcher.clear();
        assert_eq!(seen(), (None, 3));
        dispatcher.set_job(first);
        assert_eq!(seen(), (Some("1".into()), 4));
    }

    #[test]
    fn closing_ends_those_who_wait_and_those_who_come() {
        let dispatcher = Dispatcher::new();
        thread::scope(|scope| {
            let waiting = scope.spawn(|| dispatcher.take(1).is_none());
            dispatcher.close();
            assert!(waiting.join().unwrap());
        });
        assert!(dispatcher.take(1).is_none());
    }

    proptest! {
        #[test]
        fn any_mix_of_jobs_and_sizes_stays_disjoint(
            size in 0usize..=8,
            mask in prop_oneof![Just(0), Just(0x1fff_e000), any::<u32>()],
            wants in proptest::collection::vec(prop_oneof![0..5u64, 1u64 << 28..1 << 33], 1..200),
        ) {
            let dispatcher = dispatcher(size, mask);
            // At most 2^120: no list of wants comes near.
            let headers = 1u128 << (32 + 8 * size + mask.count_ones() as usize).min(120);
            let (mut taken, mut left) = (Vec::new(), headers);
            for want in wants {
                let expected = u128::from(want.max(1)).min(left);
                if expected == 0 { break; }
                let assignment = dispatcher.take(want).unwrap();
                let one_nonce = assignment.work.versions() as u128;
                prop_assert_eq!(one_nonce, 1 << mask.count_ones().min(3));
                prop_assert!(u128::from(assignment.headers()) <= expected.max(one_nonce));
                left -= u128::from(assignment.headers());
                taken.push(assignment);
            }
            prop_assert_eq!(disjoint(&taken), headers - left);
        }
    }
}
