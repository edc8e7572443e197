//! The CPU as a device: worker threads with the same kernel, each bound to its CPU.
//!
//! The device's own thread starts them, and then monitors the CPU's temperature until they end.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use iop_kernels::Kernel;
use tracing::{info, warn};

use super::keep::words;
use super::placement::Warned;
use super::temperature::{self, Limit};
use super::{Device, Feed, Machine, Seat, Tuning};
use crate::dispatcher::Assignment;

/// Headers to take from the dispatcher at a time: 0.2 s of an AVX-512 core, 4 s of a scalar one. Large enough to avoid
/// contention on its lock.
const ASSIGNMENT: u64 = 1 << 24;
/// How often the temperature is read. A CPU heats up within seconds, its cooler within a minute.
const LOOK_EVERY: Duration = Duration::from_secs(3);
/// How often a paused thread checks whether it may go on.
const PAUSE: Duration = Duration::from_millis(100);

/// Worker threads on the CPU.
#[derive(Debug)]
pub struct Cpu {
    kernel: &'static dyn Kernel,
    /// One per thread; a thread with `None` is placed by the operating system.
    seats: Vec<Option<Seat>>,
    /// `None` leaves the priority unchanged.
    tuning: Option<Tuning>,
    sensors: PathBuf,
    look_every: Duration,
    too_hot: AtomicBool,
    warned: Warned,
}

impl Cpu {
    /// Uses this many threads, placed by the operating system.
    #[must_use]
    pub fn new(kernel: &'static dyn Kernel, threads: usize) -> Self {
        Self {
            kernel,
            seats: vec![None; threads],
            tuning: None,
            sensors: "/sys".into(),
            look_every: LOOK_EVERY,
            too_hot: AtomicBool::new(false),
            warned: Warned::default(),
        }
    }

    /// Uses this many threads, placed on this machine as `tuning` says.
    #[must_use]
    pub fn placed(kernel: &'static dyn Kernel, threads: usize, tuning: Tuning) -> Self {
        let seats = Machine::here().seats(threads, &tuning);
        Self { seats, tuning: Some(tuning), ..Self::new(kernel, threads) }
    }

    fn work(&self, seat: Option<&Seat>, feed: &Feed) {
        if let Some(tuning) = self.tuning {
            self.warned.nice(tuning.nice);
        }
        let mut found = Vec::new();
        while let Some(assignment) = feed.next(ASSIGNMENT) {
            // Repeat this: the system moves a thread off a CPU that goes offline, and the CPU may come back.
            if let Some(seat) = seat {
                self.warned.sit(seat);
            }
            // Between two chunks the job is checked: a chunk is what a new block costs in stale work.
            for chunk in assignment.nonces.chunks(self.kernel.nonces(&assignment.work)) {
                if !self.may_go_on(feed, &assignment) {
                    break;
                }
                feed.add_hashes(self.kernel.scan_versions(&assignment.work, chunk, &mut found));
                for header in found.drain(..) {
                    feed.found(&assignment, header);
                }
            }
        }
    }

    /// Whether to go on with the assignment; waits while the CPU is too hot.
    fn may_go_on(&self, feed: &Feed, assignment: &Assignment) -> bool {
        while feed.is_current(assignment) {
            if !self.too_hot.load(Ordering::Relaxed) {
                return true;
            }
            thread::sleep(PAUSE);
        }
        false
    }

    /// Monitors the temperature until all threads have ended: each of them holds a sender of the channel.
    fn watch(&self, feed: &Feed, threads: &Receiver<()>) {
        let most = self.tuning.and_then(|tuning| tuning.max_temperature);
        let mut limit = most.map(Limit::new);
        if limit.is_some() && temperature::read(&self.sensors).is_none() {
            warn!("this machine does not tell the CPU's temperature: it cannot be limited");
        }
        loop {
            let celsius = temperature::read(&self.sensors);
            feed.set_temperature(celsius);
            let pause = limit.as_mut().is_some_and(|limit| limit.pauses(celsius));
            let why = most.zip(celsius).filter(|_| pause);
            feed.set_paused(why.map(|(most, now)| format!("{now:.0} °C, its limit is {most:.0} °C")));
            if self.too_hot.swap(pause, Ordering::Relaxed) != pause {
                let now = celsius.map_or("unknown".to_owned(), |celsius| format!("{celsius:.0} °C"));
                info!("the CPU's temperature is {now}: hashing {}", if pause { "pauses" } else { "goes on" });
            }
            if !matches!(threads.recv_timeout(self.look_every), Err(RecvTimeoutError::Timeout)) {
                break;
            }
        }
    }
}

impl Device for Cpu {
    fn name(&self) -> &'static str {
        "cpu"
    }

    fn run(&self, feed: &Feed) -> io::Result<()> {
        let threads = self.seats.len();
        let panicked = AtomicUsize::new(0);
        thread::scope(|scope| {
            let (running, ended) = channel::<()>();
            let start = |number: usize| {
                let (thread, running) =
                    (thread::Builder::new().name(format!("cpu-{number}")), running.clone());
                let panicked = &panicked;
                let run = move || {
                    let work = AssertUnwindSafe(|| self.work(self.seats[number].as_ref(), feed));
                    if let Err(panic) = catch_unwind(work) {
                        panicked.fetch_add(1, Ordering::Relaxed);
                        warn!("cpu-{number} panicked, the other threads go on: {}", words(&*panic));
                    }
                    drop(running);
                };
                thread.spawn_scoped(scope, run).map(drop)
            };
            // If one thread cannot be started, later ones cannot either.
            let failed = (0..threads).find_map(|number| Some((number, start(number).err()?)));
            let started = failed.as_ref().map_or(threads, |(started, _)| *started);
            drop(running);
            match failed {
                None if threads == 0 => return Err(io::Error::other("none of 0 CPU threads starts")),
                None => {}
                Some((0, error)) => {
                    let text = format!("none of {threads} CPU threads starts: {error}");
                    return Err(io::Error::new(error.kind(), text));
                }
                Some((_, error)) => warn!("only {started} of {threads} CPU threads start: {error}"),
            }
            self.watch(feed, &ended);
            match panicked.load(Ordering::Relaxed) {
                all if all == started => Err(io::Error::other("all of its threads panicked")),
                _ => Ok(()),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use iop_kernels::{Found, NonceRange, Work};

    use super::*;
    use crate::device::tests::{Folder, feed};
    use crate::stats::Health;

    #[test]
    fn too_hot_a_cpu_rests_and_goes_on_when_it_is_cool() {
        let (feed, _shares) = feed(1e9);
        let sys = Folder::new("heat");
        sys.write("class/hwmon/hwmon0/name", "k10temp");
        let set = |celsius: u32| {
            sys.write("class/hwmon/hwmon0/temp1_input", &(celsius * 1000).to_string());
        };
        set(95);
        let tuning = Tuning { max_temperature: Some(80.0), ..Tuning::default() };
        let cpu = Cpu {
            sensors: sys.path().to_owned(),
            look_every: Duration::from_millis(5),
            too_hot: AtomicBool::new(true),
            ..Cpu::placed(iop_kernels::auto(), 1, tuning)
        };
        thread::scope(|scope| {
            scope.spawn(|| cpu.run(&feed).unwrap());
            let wait_for = |wanted: &dyn Fn() -> bool| {
                while !wanted() {
                    thread::sleep(Duration::from_millis(2));
                }
            };
            wait_for(&|| feed.temperature() == Some(95.0));
            assert_eq!(feed.hashes(), 0);
            wait_for(&|| feed.health() == Health::Paused("95 °C, its limit is 80 °C".into()));
            // Not cool enough yet.
            set(76);
            wait_for(&|| feed.temperature() == Some(76.0));
            assert_eq!(feed.hashes(), 0);
            set(75);
            wait_for(&|| feed.hashes() > 0);
            assert_eq!(feed.health(), Health::Working);
            set(80);
            wait_for(&|| cpu.too_hot.load(Ordering::Relaxed));
            // A failed device stays failed, hot or not.
            feed.fail("worn out");
            set(70);
            wait_for(&|| !cpu.too_hot.load(Ordering::Relaxed));
            assert_eq!(feed.health(), Health::Failed("worn out".into()));
            // The end of the miner also ends a pause.
            feed.close();
        });
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_thread_whose_cpu_is_not_there_hashes_all_the_same() {
        let (feed, _shares) = feed(1e9);
        let cpu = Cpu { seats: vec![Some(Seat(vec![1000]))], ..Cpu::new(iop_kernels::auto(), 1) };
        thread::scope(|scope| {
            scope.spawn(|| cpu.run(&feed).unwrap());
            while feed.hashes() == 0 {
                thread::sleep(Duration::from_millis(2));
            }
            feed.close();
        });
    }

    /// A kernel with a bug.
    #[derive(Debug)]
    struct Flawed;

    impl Kernel for Flawed {
        fn name(&self) -> &'static str {
            "flawed"
        }

        fn is_supported(&self) -> bool {
            true
        }

        fn chunk(&self) -> u64 {
            16
        }

        fn scan_versions(&self, _: &Work, _: NonceRange, _: &mut Vec<Found>) -> u64 {
            panic!("a flaw")
        }
    }

    #[test]
    fn a_cpu_all_of_whose_threads_panic_has_failed() {
        let (feed, _shares) = feed(1e9);
        let error = Cpu::new(&Flawed, 2).run(&feed).unwrap_err();
        assert_eq!(error.to_string(), "all of its threads panicked");
    }
}
