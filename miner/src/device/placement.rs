//! Placement and priority of the CPU's threads.
//!
//! Here: the CPU that each thread is bound to, and its priority, in the operating system's terms. Not here: which CPUs
//! there are ([`Topology`]). None of this is needed to mine: a refusal by the system costs one warning.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use tracing::{debug, warn};

use super::Topology;

/// Default nice value of hashing threads: a program of normal priority that competes for the core gets nine parts of
/// ten. Not 19, nor `SCHED_IDLE`: on a machine that is busy all day a miner would then find no share for minutes, and
/// its pool would consider it dead. The thread that talks to the pool keeps normal priority, so that shares are sent at
/// once.
pub const NICE: i32 = 10;

/// User settings for the CPU.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tuning {
    /// Physical cores that are left free.
    pub spare_cores: usize,
    /// Bind each thread to its own CPU.
    pub pin: bool,
    /// The nice value; `None` is [`NICE`], or the process's own value if that is higher.
    pub nice: Option<i32>,
    /// Temperature in degrees Celsius at which the CPU pauses.
    pub max_temperature: Option<f32>,
}

impl Default for Tuning {
    fn default() -> Self {
        Self { spare_cores: 0, pin: true, nice: None, max_temperature: None }
    }
}

/// CPUs that this process may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// The CPUs it may run on, if the platform reports them.
    pub topology: Option<Topology>,
    /// Number of threads that may run at once: the number of CPUs, or less if a cgroup sets a quota.
    pub parallel: usize,
}

impl Machine {
    /// The current state.
    #[must_use]
    pub fn here() -> Self {
        let parallel = thread::available_parallelism().map_or(1, usize::from);
        Self { topology: Topology::here(), parallel }
    }

    /// Number of physical cores; if it is not known, every CPU counts as one.
    #[must_use]
    pub fn cores(&self) -> usize {
        self.topology.as_ref().map_or(self.parallel, Topology::cores)
    }

    /// Whether a time quota, rather than the number of CPUs, is the limit. Threads are then not pinned: all containers
    /// of the machine would crowd onto the same first CPUs.
    #[must_use]
    pub fn has_quota(&self) -> bool {
        self.topology.as_ref().is_some_and(|topology| self.parallel < topology.cpus())
    }

    /// Number of threads for this many spare cores; at least one.
    #[must_use]
    pub fn threads(&self, spare: usize) -> usize {
        let left = self.parallel.saturating_sub(spare);
        match &self.topology {
            Some(topology) if !self.has_quota() => topology.order(spare).len(),
            _ => left,
        }
        .max(1)
    }

    /// Seats for this many threads. With more threads than CPUs, assignment starts again at the first CPU.
    #[must_use]
    pub fn seats(&self, threads: usize, tuning: &Tuning) -> Vec<Option<Seat>> {
        let order = self.topology.as_ref().map(|topology| topology.order(tuning.spare_cores));
        let order = order.unwrap_or_default();
        let seat = |number: usize| match order.len() {
            0 => None,
            cpus if tuning.pin && !self.has_quota() => Some(Seat(vec![order[number % cpus]])),
            // Any but the spare cores.
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
    /// Binds the calling thread to these CPUs. The system moves a thread whose CPU goes offline, and does not move it
    /// back: so this is called repeatedly, and costs one system call if all is well.
    ///
    /// # Errors
    /// The system refuses: none of the CPUs exists, or the process may no longer use them.
    pub fn take(&self) -> io::Result<()> {
        take(&self.0)
    }
}

/// Limits warnings about refused placement to one for all threads of a device.
#[derive(Debug, Default)]
pub(super) struct Warned(AtomicBool);

impl Warned {
    /// Takes the seat; on failure the thread stays where the system puts it.
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

/// On Linux "this process" means this thread.
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

    /// A machine with this many cores of two threads each, with siblings numbered consecutively.
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
            // A CPU that does not exist is refused, and the thread stays where it was.
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
