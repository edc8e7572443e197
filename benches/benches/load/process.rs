//! Measured programs: started on a core of their own, with their CPU time and memory.

use std::io;
use std::path::PathBuf;
use std::process::Command;

/// A process's CPU seconds so far.
pub(crate) fn cpu_seconds(process: u32) -> io::Result<f64> {
    let text = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    let after_name = text.rsplit(')').next().unwrap_or_default();
    let ticks = after_name.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<f64>().ok());
    Ok(ticks.sum::<f64>() / 100.0) // Linux has 100 ticks a second for programs
}

/// Starts something on a core: a program inherits the CPU affinity of the thread that starts it.
pub(crate) fn pinned<T>(cpu: Option<u32>, start: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let Some(cpu) = cpu else { return start() };
    let own = own_cores()?;
    move_to(&cpu.to_string())?;
    let started = start();
    move_to(&own)?;
    started
}

fn own_cores() -> io::Result<String> {
    let status = std::fs::read_to_string("/proc/thread-self/status")?;
    let cores = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    cores.map(|cores| cores.trim().to_owned()).ok_or_else(|| io::Error::other("/proc names no cores"))
}

fn move_to(cores: &str) -> io::Result<()> {
    let own = std::process::id().to_string();
    let moved = Command::new("taskset").args(["-p", "-c", cores, &own]).output()?;
    if moved.status.success() {
        return Ok(());
    }
    Err(io::Error::other(format!("taskset: {}", String::from_utf8_lossy(&moved.stderr).trim())))
}

/// A process's memory, in bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Memory {
    /// Resident, including pages of files.
    pub(crate) resident: f64,
    /// Resident without files: heap and stacks.
    pub(crate) anonymous: f64,
}

impl Memory {
    /// A process's current memory.
    pub(crate) fn of(process: u32) -> io::Result<Self> {
        let text = std::fs::read_to_string(PathBuf::from(format!("/proc/{process}/smaps_rollup")))?;
        let kib = |key: &str| {
            let rest = text.lines().find_map(|line| line.strip_prefix(key))?;
            rest.trim().trim_end_matches(" kB").parse::<f64>().ok()
        };
        let bytes = |key| kib(key).map(|kib| kib * 1024.0).ok_or_else(|| io::Error::other("no smaps_rollup"));
        Ok(Self { resident: bytes("Rss:")?, anonymous: bytes("Anonymous:")? })
    }
}
