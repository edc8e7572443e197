//! Where the CPU's threads run and how much they push.
//!
//! Here: which CPU each thread is bound to, and its priority, in the operating system's terms. Not here: what the CPUs
//! are ([`Topology`]). Nothing of it is needed to mine: what the system refuses costs one warning.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use tracing::{debug, warn};

use super::Topology;

/// The nice value of threads that hash, unless another is asked for: a program of normal priority that wants the same
/// core gets nine parts of ten. Not 19, nor `SCHED_IDLE`: on a machine that others keep busy all day a miner would
/// then find no share for minutes, and its pool would take it for dead. The thread that speaks with the pool keeps
/// normal priority, so that shares leave at once.
pub const NICE: i32 = 10;

/// What a person may say about the CPU.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tuning {
    /// Physical cores that are left alone.
    pub spare_cores: usize,
    /// Each thread has a CPU of its own.
    pub pin: bool,
    /// The nice value; `None`: [`NICE`], or what the process has if that is more.
    pub nice: Option<i32>,
    /// At this many degrees Celsius the CPU pauses.
    pub max_temperature: Option<f32>,
}

impl Default for Tuning {
    fn default() -> Self {
        Self { spare_cores: 0, pin: true, nice: None, max_temperature: None }
    }
}

/// What this process may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// The CPUs that it may run on, where the platform tells.
    pub topology: Option<Topology>,
    /// How many threads may run at once: the CPUs, or less where a cgroup has a quota.
    pub parallel: usize,
}

impl Machine {
    /// As it is now.
    #[must_use]
    pub fn here() -> Self {
        let parallel = thread::available_parallelism().map_or(1, usize::from);
        Self { topology: Topology::here(), parallel }
    }

    /// How many physical cores there are; where that is not known, every CPU is taken for one.
    #[must_use]
    pub fn cores(&self) -> usize {
        self.topology.as_ref().map_or(self.parallel, Topology::cores)
    }

    /// Whether a quota on time, not the number of CPUs, is the limit. Then no thread is pinned: every container of
    /// the machine would crowd onto the same first CPUs.
    #[must_use]
    pub fn has_quota(&self) -> bool {
        self.topology.as_ref().is_some_and(|topology| self.parallel < topology.cpus())
    }

    /// How many threads to run with so many spare cores; at least one.
    #[must_use]
    pub fn threads(&self, spare: usize) -> usize {
        let left = self.parallel.saturating_sub(spare);
        match &self.topology {
            Some(topology) if !self.has_quota() => topology.order(spare).len(),
            _ => left,
        }
        .max(1)
    }

    /// Where so many threads go. More threads than CPUs begin again with the first.
    #[must_use]
    pub fn seats(&self, threads: usize, tuning: &Tuning) -> Vec<Option<Seat>> {
        let order = self.topology.as_ref().map(|topology| topology.order(tuning.spare_cores));
        let order = order.unwrap_or_default();
        let seat = |number: usize| match order.len() {
            0 => None,
            cpus if tuning.pin && !self.has_quota() => Some(Seat(vec![order[number % cpus]])),
            // Anywhere but on the spare cores.
            _ if tuning.spare_cores > 0 => Some(Seat(order.clone())),
            _ => None,
        };
        (0..threads).map(seat).collect()
    }
}

/// The CPUs that a thread may run on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seat(pub Vec<usize>);

impl Seat {
    /// Sees that the calling thread runs there and nowhere else. The system moves a thread whose CPU is taken
    /// offline, and does not bring it back: so this is asked again and again, and costs one call when all is well.
    ///
    /// # Errors
    /// When the system refuses: none of the CPUs is there, or the process may not use them any more.
    pub fn take(&self) -> io::Result<()> {
        take(&self.0)
    }
}

/// One warning for all threads of a device, whatever of its placement the system refuses.
#[derive(Debug, Default)]
pub(super) struct Warned(AtomicBool);

impl Warned {
    /// Takes the seat; without it the thread runs wherever the system puts it.
    pub(super) fn sit(&self, seat: &Seat) {
        if let Err(error) = seat.take() {
            self.warn(&format!("a CPU thread cannot be bound to CPU {:?}: {error}", seat.0));
        }
    }

    /// Sets the calling thread's priority.
    pub(super) fn nice(&self, asked: Option<i32>) {
        if let Err(error) = set_nice(asked) {
            let nice = asked.unwrap_or(NICE);
            self.warn(&format!("CPU threads cannot have nice value {nice}: {error}"));
        }
    }

    fn warn(&self, text: &str) {
        if self.0.swap(true, Ordering::Relaxed) {
            debug!("{text}");
        } else {
            warn!("{text}; mining goes on without");
        }
    }
}

#[cfg(target_os = "linux")]
pub(super) fn allowed() -> Option<Vec<usize>> {
    use rustix::thread::{CpuSet, sched_getaffinity};
    let set = sched_getaffinity(None).ok()?;
    Some((0..CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect())
}

#[cfg(target_os = "linux")]
fn take(cpus: &[usize]) -> io::Result<()> {
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
    let mut wanted = CpuSet::new();
    cpus.iter().filter(|cpu| **cpu < CpuSet::MAX_CPU).for_each(|cpu| wanted.set(*cpu));
    if sched_getaffinity(None)? != wanted {
        sched_setaffinity(None, &wanted)?;
    }
    Ok(())
}

/// Linux takes "this process" as this thread.
#[cfg(target_os = "linux")]
fn set_nice(asked: Option<i32>) -> io::Result<()> {
    use rustix::process::{getpriority_process, setpriority_process};
    let has = getpriority_process(None)?;
    let wanted = asked.unwrap_or(has.max(NICE));
    if wanted != has {
        setpriority_process(None, wanted)?;
    }
    Ok(())
}

#[cfg(not(target_os = "linux"))]
pub(super) fn allowed() -> Option<Vec<usize>> {
    None
}

#[cfg(not(target_os = "linux"))]
fn take(_: &[usize]) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(not(target_os = "linux"))]
fn set_nice(asked: Option<i32>) -> io::Result<()> {
    if asked.is_some() { Err(io::ErrorKind::Unsupported.into()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::device::tests::Folder;

    /// So many cores of two threads each, numbered side by side.
    fn machine(cores: usize, parallel: usize) -> Machine {
        let folder = Folder::new("placement");
        folder.write("cpu/online", &format!("0-{}", 2 * cores - 1));
        for cpu in 0..2 * cores {
            let siblings = format!("{}-{}", cpu / 2 * 2, cpu / 2 * 2 + 1);
            folder.write(&format!("cpu/cpu{cpu}/topology/thread_siblings_list"), &siblings);
        }
        let allowed: Vec<usize> = (0..2 * cores).collect();
        Machine { topology: Topology::read(folder.path(), &allowed), parallel }
    }

    fn seats(machine: &Machine, threads: usize, tuning: Tuning) -> Vec<Option<Vec<usize>>> {
        machine.seats(threads, &tuning).into_iter().map(|seat| seat.map(|seat| seat.0)).collect()
    }

    #[test]
    fn threads_fill_cores_first_and_begin_again_where_there_are_more() {
        let machine = machine(2, 4);
        assert_eq!((machine.threads(0), machine.threads(1), machine.threads(2)), (4, 2, 1));
        let pinned = seats(&machine, 5, Tuning::default());
        assert_eq!(pinned, [0, 2, 1, 3, 0].map(|cpu| Some(vec![cpu])));
    }

    #[test]
    fn spare_cores_stay_free_with_and_without_pins() {
        let machine = machine(2, 4);
        let spare = Tuning { spare_cores: 1, ..Tuning::default() };
        assert_eq!(seats(&machine, 3, spare), [2, 3, 2].map(|cpu| Some(vec![cpu])));
        let loose = Tuning { pin: false, ..spare };
        assert_eq!(seats(&machine, 2, loose), [Some(vec![2, 3]), Some(vec![2, 3])]);
        assert_eq!(seats(&machine, 2, Tuning { pin: false, ..Tuning::default() }), [None, None]);
    }

    #[test]
    fn a_quota_counts_threads_and_pins_none() {
        let machine = machine(8, 3);
        assert!(machine.has_quota());
        assert_eq!((machine.threads(0), machine.threads(1), machine.threads(9)), (3, 2, 1));
        assert_eq!(seats(&machine, 2, Tuning::default()), [None, None]);
    }

    #[test]
    fn a_platform_that_does_not_tell_has_threads_and_no_seats() {
        let machine = Machine { topology: None, parallel: 4 };
        assert_eq!((machine.cores(), machine.threads(0), machine.threads(3)), (4, 4, 1));
        assert_eq!(seats(&machine, 1, Tuning { spare_cores: 1, ..Tuning::default() }), [None]);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_thread_runs_where_its_seat_is_and_with_its_priority() {
        let own = allowed().unwrap();
        let last = *own.last().unwrap();
        thread::spawn(move || {
            Seat(vec![last]).take().unwrap();
            assert_eq!(allowed().unwrap(), [last]);
            // A CPU that is not there is refused, and the thread stays where it was.
            assert!(Seat(vec![1000]).take().is_err());
            assert_eq!(allowed().unwrap(), [last]);
            set_nice(None).unwrap();
            let nice = rustix::process::getpriority_process(None).unwrap();
            assert!(nice >= NICE, "{nice}");
            set_nice(Some(19)).unwrap();
            assert_eq!(rustix::process::getpriority_process(None).unwrap(), 19);
        })
        .join()
        .unwrap();
        assert_eq!(allowed().unwrap(), own, "other threads are where they were");
    }
}
