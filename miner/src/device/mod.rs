//! Devices that hash.
//!
//! Here: the [`Device`] trait, the [`Feed`] that every device works from, the CPU ([`Cpu`]) with its place on the
//! machine ([`Machine`]) and its temperature, OpenCL devices, and the handling of failed devices ([`keep_running`]).
//! Not here: the source of jobs and the destination of shares.
//! Path: [`Feed::next`] → the device tries the nonces, calling [`Feed::is_current`] often → [`Feed::add_hashes`] and,
//! for each nonce found, [`Feed::found`] → hashed once more by other code → share.

mod cpu;
mod faults;
mod keep;
mod named;
#[cfg(feature = "opencl")]
mod opencl;
mod placement;
mod sysfs;
pub mod temperature;
mod topology;

pub use cpu::Cpu;
pub use keep::{Retry, keep_running};
pub use named::{DeviceName, open};
#[cfg(feature = "opencl")]
pub use opencl::{OpenCl, next_launch, no_driver};
pub use placement::{Machine, NICE, Seat, Tuning};
pub use topology::Topology;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use iop_kernels::{Found, verify};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tracing::{error, info, warn};

use self::faults::Faults;
use crate::dispatcher::{Assignment, Dispatcher};
use crate::job::Share;
use crate::stats::{DeviceStats, Health};

/// Shares that may wait for the upstream. Devices that find shares faster than it sends them wait too.
const SHARES_IN_FLIGHT: usize = 1024;

/// Time for devices to submit their last finds when their work ends: CPU threads stop within a millisecond, OpenCL
/// devices after the current launch, mostly 10 ms and at times three times as long.
pub(crate) const LAST_FINDS: Duration = Duration::from_millis(100);

/// A device that hashes: the CPU or a GPU.
pub trait Device: Send {
    /// The name it is chosen by, as in `iop-miner mine --devices NAME`.
    fn name(&self) -> &str;

    /// Hashes what the feed provides, until it ends. Runs on its own thread.
    ///
    /// # Errors
    /// It cannot hash at all.
    fn run(&self, feed: &Feed) -> io::Result<()>;

    /// Whether it may work again after a failure, like a card that is plugged in again.
    fn may_come_back(&self) -> bool {
        false
    }
}

/// A channel for shares from devices to an upstream.
#[must_use]
pub fn share_channel() -> (mpsc::Sender<Share>, mpsc::Receiver<Share>) {
    mpsc::channel(SHARES_IN_FLIGHT)
}

/// The source of a device's work and the sink of its finds.
#[derive(Clone, Debug)]
pub struct Feed {
    dispatcher: Arc<Dispatcher>,
    stats: Arc<DeviceStats>,
    shares: mpsc::Sender<Share>,
    faults: Arc<Faults>,
    /// The device has failed and is being retried.
    ailing: Arc<AtomicBool>,
}

impl Feed {
    /// A feed from `dispatcher` for the device with these counters, and the receiver of its shares.
    #[must_use]
    pub fn new(dispatcher: Arc<Dispatcher>, stats: Arc<DeviceStats>) -> (Self, mpsc::Receiver<Share>) {
        let (shares, receiver) = share_channel();
        (Self::into(dispatcher, stats, shares), receiver)
    }

    /// A feed that sends its shares into the given channel.
    #[must_use]
    pub fn into(dispatcher: Arc<Dispatcher>, stats: Arc<DeviceStats>, shares: mpsc::Sender<Share>) -> Self {
        let (faults, ailing) = (Arc::default(), Arc::default());
        Self { dispatcher, stats, shares, faults, ailing }
    }

    /// Takes about `want` headers; waits until there are some. `None`: there is no more work, the device must end.
    #[must_use]
    pub fn next(&self, want: u64) -> Option<Assignment> {
        if self.faults.condemned() { None } else { self.dispatcher.take(want) }
    }

    /// Whether the assignment is still worth working on.
    #[must_use]
    pub fn is_current(&self, assignment: &Assignment) -> bool {
        self.dispatcher.is_current(assignment) && !self.faults.condemned()
    }

    /// Counts hashes.
    pub fn add_hashes(&self, hashes: u64) {
        self.stats.add_hashes(hashes);
        if self.ailing.load(Ordering::Relaxed) && self.ailing.swap(false, Ordering::Relaxed) {
            info!("{} works again", self.stats.name());
            self.stats.set_health(Health::Working);
        }
    }

    /// Hashes counted so far.
    fn hashes(&self) -> u128 {
        self.stats.snapshot().hashes
    }

    /// Marks the device as failed and being retried; its next hash marks its recovery.
    fn set_ailing(&self, why: String) {
        self.stats.set_health(Health::Failed(why));
        self.ailing.store(true, Ordering::Relaxed);
    }

    /// Sets the reason why the device is paused; `None` if it goes on.
    fn set_paused(&self, why: Option<String>) {
        self.stats.set_paused(why);
    }

    /// Sets its temperature, in degrees Celsius.
    pub fn set_temperature(&self, celsius: Option<f32>) {
        self.stats.set_temperature(celsius);
    }

    /// Why the device must stop, if it has too many wrong finds.
    fn fault(&self) -> Option<String> {
        self.faults.reason()
    }

    /// Whether shares are no longer taken: the miner ends.
    fn is_over(&self) -> bool {
        self.shares.is_closed()
    }

    /// Passes a find on if an independent hash confirms that it meets the target. Waits while too many shares are
    /// queued, unless a clean job or the end of the work has voided this one and it is no block: it then counts as
    /// stale, since a device with thousands of those would delay the next job.
    pub fn found(&self, assignment: &Assignment, found: Found) {
        let hash = verify(&assignment.work.header_of(found));
        let wrong = !assignment.job.target().is_met_by(&hash);
        if wrong {
            self.stats.add_hardware_error();
            warn!(device = self.stats.name(), job = %assignment.job.id(), nonce = found.nonce, "a nonce found misses the target: not submitted");
        }
        if self.faults.note(wrong) {
            let reason = self.faults.reason().unwrap_or_default();
            error!("{}: {reason}; the other devices go on", self.stats.name());
            self.stats.set_health(Health::Failed(reason));
        }
        if wrong {
            return;
        }
        self.stats.found(hash);
        let share = assignment.share(found, Arc::clone(&self.stats));
        match self.shares.try_send(share) {
            Err(TrySendError::Full(share)) if self.dispatcher.is_alive(assignment) || share.is_block() => {
                let _ = self.shares.blocking_send(share); // an error means that the miner ends, as below
            }
            Err(TrySendError::Full(_)) => {
                self.stats.add_stale();
                self.dispatcher.give_up();
            }
            // There is no upstream any more: the miner ends.
            Err(TrySendError::Closed(_)) | Ok(()) => {}
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]

    use std::fs;
    use std::path::Path;

    use iop_stratum::fields::JobId;

    use super::*;
    use crate::job::tests::{ANY_HASH, job};
    use crate::job::{Job, Serial};
    use crate::stats::Stats;

    impl Feed {
        /// Ends the work for good, as at the end of the miner.
        pub(crate) fn close(&self) {
            self.dispatcher.close();
        }

        pub(crate) fn fail(&self, why: &str) {
            self.stats.set_health(Health::Failed(why.to_owned()));
        }

        pub(crate) fn health(&self) -> Health {
            self.stats.snapshot().health
        }

        pub(crate) fn temperature(&self) -> Option<f32> {
            self.stats.snapshot().temperature
        }
    }

    /// A folder that imitates a part of `/sys`; removed when dropped.
    pub(crate) struct Folder(tempfile::TempDir);

    impl Folder {
        pub(crate) fn new(name: &str) -> Self {
            Self(tempfile::Builder::new().prefix(name).tempdir().unwrap())
        }

        pub(crate) fn path(&self) -> &Path {
            self.0.path()
        }

        /// A concurrent reader sees either the old or the new text, as in `/sys`.
        pub(crate) fn write(&self, file: &str, text: &str) {
            let file = self.path().join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            let unfinished = file.with_extension("new");
            fs::write(&unfinished, text).unwrap();
            fs::rename(unfinished, file).unwrap();
        }
    }

    pub(crate) fn feed(difficulty: f64) -> (Feed, mpsc::Receiver<Share>) {
        feed_of_versions(0, difficulty)
    }

    fn feed_of_versions(mask: u32, difficulty: f64) -> (Feed, mpsc::Receiver<Share>) {
        let dispatcher = Arc::new(Dispatcher::new());
        dispatcher.set_job(Arc::new(job("1", 4, mask, difficulty)));
        Feed::new(dispatcher, Stats::new().device("test"))
    }

    #[test]
    fn a_nonce_that_misses_the_target_is_counted_and_never_submitted() {
        let (feed, mut shares) = feed(1e9);
        let assignment = feed.next(1).unwrap();
        feed.found(&assignment, Found { nonce: 0, version: 0 });
        assert!(shares.try_recv().is_err());
        assert_eq!(feed.stats.snapshot().counts.hardware_errors, 1);
    }

    #[test]
    fn a_nonce_that_meets_the_target_becomes_a_share() {
        let (feed, mut shares) = feed(ANY_HASH);
        let assignment = feed.next(1).unwrap();
        feed.found(&assignment, Found { nonce: 77, version: 0 });
        let share = shares.try_recv().unwrap();
        assert_eq!((share.nonce.0, share.extranonce2), (77, assignment.extranonce2));
        assert_eq!(feed.stats.snapshot().counts.hardware_errors, 0);
    }

    #[test]
    fn finds_of_a_job_that_is_over_wait_for_nobody_unless_they_are_blocks() {
        let (feed, mut shares) = feed(ANY_HASH);
        let old = feed.next(1 << 20).unwrap();
        let at = |nonce| Found { nonce, version: 0 };
        let is_block = |nonce: &u32| old.share(at(*nonce), Arc::clone(&feed.stats)).is_block();
        let (block, ordinary) = ((0..).find(is_block).unwrap(), (0..).find(|n| !is_block(n)).unwrap());
        (0..SHARES_IN_FLIGHT).for_each(|_| feed.found(&old, at(ordinary)));
        feed.dispatcher.set_job(Arc::new(job("2", 4, 0, ANY_HASH)));
        let (done, waiting) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                (0..100).for_each(|_| feed.found(&old, at(ordinary)));
                done.send(()).unwrap();
                feed.found(&old, at(block));
            });
            let passed = waiting.recv_timeout(Duration::from_secs(60));
            let taken: Vec<Share> = (0..=SHARES_IN_FLIGHT).map(|_| shares.blocking_recv().unwrap()).collect();
            assert!(passed.is_ok() && taken.last().unwrap().is_block());
            drop(shares);
        });
        assert_eq!(feed.stats.snapshot().counts.stale, 100);
    }

    #[test]
    fn finds_of_a_job_beside_which_another_came_wait_until_there_is_room() {
        let (feed, mut shares) = feed(ANY_HASH);
        let old = feed.next(1 << 20).unwrap();
        let ordinary = (0..).find(|nonce| {
            !old.share(Found { nonce: *nonce, version: 0 }, Arc::clone(&feed.stats)).is_block()
        });
        let find = || feed.found(&old, Found { nonce: ordinary.unwrap(), version: 0 });
        (0..SHARES_IN_FLIGHT).for_each(|_| find());
        let mut beside = old.job.stratum().clone();
        let notify = Arc::make_mut(&mut beside.notify);
        (notify.job_id, notify.clean) = (JobId::new("2").unwrap(), false);
        feed.dispatcher.set_job(Arc::new(Job::new(Serial(2), beside)));
        let (done, waiting) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                (0..100).for_each(|_| find());
                done.send(()).unwrap();
            });
            // Without waiting it would be done at once.
            assert!(waiting.recv_timeout(Duration::from_millis(200)).is_err());
            (0..SHARES_IN_FLIGHT + 100).for_each(|_| drop(shares.blocking_recv().unwrap()));
        });
        assert_eq!(feed.stats.snapshot().counts.stale, 0);
    }

    #[test]
    fn a_cpu_of_which_no_thread_starts_fails() {
        let (feed, _shares) = feed(1e9);
        let error = Cpu::new(iop_kernels::auto(), 0).run(&feed).unwrap_err();
        assert_eq!(error.to_string(), "none of 0 CPU threads starts");
    }

    #[test]
    fn a_cpu_finds_counts_and_ends() {
        // Four versions: each yields shares, and each share is the header that was found.
        let (feed, mut shares) = feed_of_versions(0x6000, 1e-6);
        let cpu = Cpu::new(iop_kernels::auto(), 2);
        std::thread::scope(|scope| {
            scope.spawn(|| cpu.run(&feed).unwrap());
            let found: Vec<Share> = (0..50).map(|_| shares.blocking_recv().unwrap()).collect();
            feed.dispatcher.close();
            // A find after this must not wait for the upstream.
            drop(shares);
            let distinct: std::collections::HashSet<_> =
                found.iter().map(|share| (share.extranonce2, share.version_bits, share.nonce)).collect();
            assert_eq!(distinct.len(), 50);
            let versions: std::collections::HashSet<_> =
                found.iter().map(|share| share.version_bits).collect();
            assert_eq!(versions.len(), 4);
            for share in &found {
                let root = share.job.merkle_root(&share.extranonce2);
                let mut header = share.job.header(&root, share.version_bits, share.ntime);
                header[76..].copy_from_slice(&share.nonce.0.to_le_bytes());
                assert!(share.job.target().is_met_by(&verify(&header)));
            }
        });
        let snapshot = feed.stats.snapshot();
        assert!(snapshot.hashes > 0);
        assert_eq!(snapshot.counts.hardware_errors, 0);
    }
}
