//! The cost of a new block to a miner. For each CPU kernel, on all cores and on all but one, which the thread that sets
//! jobs then has for itself: the time from the new job until its first nonce is tried, and until the last chunk of the
//! old one has ended on any thread; and how long that thread itself ran in that chunk, which excludes the time in which
//! the system had given its core to others. Threads are placed as `mine` places them. Jobs of eight versions follow
//! each other while the device is busy.
//!
//! OpenCL devices do not report when they start: for them the time ends with the first share of the new job, after a
//! whole launch (about one hash in 2,000 is a share).

#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use iop_kernels::{Found, Kernel, NonceRange, Work, supported};
use iop_miner::device::{Cpu, Device, Feed, OpenCl, Tuning};
use iop_miner::dispatcher::Dispatcher;
use iop_miner::job::{Job, Serial};
use iop_miner::stats::Stats;
use iop_stratum::client;
use iop_stratum::difficulty::Difficulty;
use iop_stratum::fields::{Extranonce1, JobId, NBits, NTime, PrevHash, Version, VersionMask};
use iop_stratum::notify::Notify;
use rustix::time::{ClockId, clock_gettime};

/// Number of job changes.
const CHANGES: u64 = 500;
/// How long a device is busy with a job before it changes.
const BUSY: Duration = Duration::from_millis(7);

fn job(serial: u64) -> Arc<Job> {
    let notify = Notify {
        job_id: JobId::new(&serial.to_string()).unwrap(),
        prev_hash: PrevHash([serial as u8; 32]),
        coinbase1: vec![1; 120],
        coinbase2: vec![2; 110],
        branches: vec![[3; 32]; 12],
        version: Version(0x2000_0000),
        nbits: NBits(0x207f_ffff),
        ntime: NTime(1_700_000_000),
        clean: true,
    };
    let job = client::Job {
        notify: Arc::new(notify),
        extranonce1: Extranonce1::from_u32(7),
        extranonce2_size: 8,
        // Of 2^32 hashes one is of difficulty 1.
        difficulty: Difficulty::new(2000.0 / f64::from(u32::MAX)).unwrap(),
        version_mask: VersionMask(0x1fff_e000),
    };
    Arc::new(Job::new(Serial(serial), job))
}

/// A kernel that records when it starts and ends on which job.
#[derive(Debug)]
struct Watched {
    kernel: &'static dyn Kernel,
    base: Instant,
    /// The low byte of the current job.
    job: AtomicU8,
    /// When its first scan started and the last scan of another job ended, in nanoseconds from the base; 0 for not yet.
    first_new: AtomicU64,
    last_old: AtomicU64,
    /// The longest run time of a thread in a scan that ended after its job, in nanoseconds.
    ran_old: AtomicU64,
}

/// How long this thread has run, in nanoseconds.
fn ran() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

impl Watched {
    fn now(&self) -> u64 {
        self.base.elapsed().as_nanos() as u64
    }
}

impl Kernel for Watched {
    fn name(&self) -> &'static str {
        self.kernel.name()
    }

    fn is_supported(&self) -> bool {
        self.kernel.is_supported()
    }

    fn chunk(&self) -> u64 {
        self.kernel.chunk()
    }

    fn scan_versions(&self, work: &Work, range: NonceRange, found: &mut Vec<Found>) -> u64 {
        // A byte of the parent block's hash is the job's number.
        let job = work.header_of(Found { nonce: 0, version: 0 })[4];
        if job == self.job.load(Ordering::SeqCst) {
            let _ = self.first_new.compare_exchange(0, self.now(), Ordering::SeqCst, Ordering::SeqCst);
        }
        let begun = ran();
        let hashes = self.kernel.scan_versions(work, range, found);
        if job != self.job.load(Ordering::SeqCst) {
            self.last_old.fetch_max(self.now(), Ordering::SeqCst);
            self.ran_old.fetch_max(ran() - begun, Ordering::SeqCst);
        }
        hashes
    }
}

/// The times of this many changes, each sorted: until the first nonce of the new job, until the last chunk of the old
/// one, and how long a thread ran in that chunk.
fn watch(kernel: &'static dyn Kernel, threads: usize, changes: u64) -> [Vec<Duration>; 3] {
    // A kernel lives as long as the program; there are few.
    let watched: &'static Watched = Box::leak(Box::new(Watched {
        kernel,
        base: Instant::now(),
        job: AtomicU8::new(0),
        first_new: AtomicU64::new(0),
        last_old: AtomicU64::new(0),
        ran_old: AtomicU64::new(0),
    }));
    let device = Cpu::placed(watched, threads, Tuning::default());
    let dispatcher = Arc::new(Dispatcher::new());
    let (feed, shares) = Feed::new(Arc::clone(&dispatcher), Stats::new().device("bench"));
    let [mut first, mut last, mut ran] = [Vec::new(), Vec::new(), Vec::new()];
    dispatcher.set_job(job(0));
    // The receiver is dropped, so that no thread waits for its shares to be taken.
    drop(shares);
    thread::scope(|scope| {
        scope.spawn(|| device.run(&feed).unwrap());
        thread::sleep(10 * BUSY);
        for serial in 1..=changes {
            let next = job(serial);
            watched.first_new.store(0, Ordering::SeqCst);
            watched.last_old.store(0, Ordering::SeqCst);
            watched.ran_old.store(0, Ordering::SeqCst);
            let set = watched.now();
            watched.job.store(serial as u8, Ordering::SeqCst);
            dispatcher.set_job(next);
            thread::sleep(BUSY);
            let since = |at: &AtomicU64| Duration::from_nanos(at.load(Ordering::SeqCst).saturating_sub(set));
            first.push(since(&watched.first_new));
            last.push(since(&watched.last_old));
            ran.push(Duration::from_nanos(watched.ran_old.load(Ordering::SeqCst)));
        }
        dispatcher.close();
    });
    [first, last, ran].map(|mut times| {
        times.sort_unstable();
        times
    })
}

/// The times of this many changes until the first share, sorted; empty if the device does not run.
fn measure(device: &(impl Device + Sync), changes: u64) -> Vec<Duration> {
    let dispatcher = Arc::new(Dispatcher::new());
    let (feed, mut shares) = Feed::new(Arc::clone(&dispatcher), Stats::new().device("bench"));
    dispatcher.set_job(job(0));
    thread::scope(|scope| {
        let running = scope.spawn(move || device.run(&feed));
        let mut times = Vec::new();
        // The first job's time includes the device's start.
        for serial in 0..=changes {
            let set = Instant::now();
            dispatcher.set_job(job(serial));
            let first = loop {
                match shares.blocking_recv() {
                    Some(share) if share.job.serial() == Serial(serial) => break Some(set.elapsed()),
                    Some(_) => {}
                    None => break None,
                }
            };
            let Some(first) = first else { break };
            if serial > 0 {
                times.push(first);
            }
            while set.elapsed() < first + BUSY {
                // Take further shares, so that the device does not wait.
                while shares.try_recv().is_ok() {}
                thread::sleep(Duration::from_micros(200));
            }
        }
        dispatcher.close();
        drop(shares);
        if let Err(error) = running.join().unwrap() {
            println!("{:<24}{error}", device.name());
        }
        times.sort_unstable();
        times
    })
}

fn report(name: &str, times: &[Duration]) {
    let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize];
    if !times.is_empty() {
        println!("{name:<24}{:>12.3?}{:>12.3?}{:>12.3?}", at(0.5), at(0.99), at(1.0));
    }
}

fn main() {
    // Run as a test, it only shows that it works.
    let changes = if std::env::args().any(|arg| arg == "--bench") { CHANGES } else { 3 };
    let cores = thread::available_parallelism().map_or(1, usize::from);
    println!("{:<24}{:>12}{:>12}{:>12}   {changes} changes of job", "", "median", "99 %", "most");
    for threads in [cores.max(2) - 1, cores.max(2)] {
        for kernel in supported() {
            let [first, last, ran] = watch(kernel, threads, changes);
            let name = format!("{} on {threads}/{cores}", kernel.name());
            report(&format!("{name}, first"), &first);
            report(&format!("{name}, last"), &last);
            report(&format!("{name}, ran"), &ran);
        }
    }
    let devices = iop_kernels::opencl::list().unwrap_or_default();
    for device in devices {
        let device = OpenCl::new(device.platform, device.number);
        report(&format!("{}, share", device.name()), &measure(&device, changes));
    }
}
