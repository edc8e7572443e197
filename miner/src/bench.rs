//! `iop-miner bench`: what each kernel does on this machine.

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use iop_kernels::{HEADER_LEN, Kernel, NonceRange, Target, Work, reference_cycles};
use serde::Serialize;

use crate::stats::HashRate;

/// Nonces between two looks at the clock: at most 5 ms.
const CHUNK: u64 = 1 << 14;

/// What `bench` needs to know, validated.
#[derive(Clone, Debug)]
pub struct BenchSettings {
    /// The kernels to measure, in this order.
    pub kernels: Vec<&'static dyn Kernel>,
    /// Threads that hash at once.
    pub threads: usize,
    /// How long to measure each kernel.
    pub duration: Duration,
    /// One JSON object per kernel, a line each, in place of the table.
    pub json: bool,
}

/// What one kernel did.
#[derive(Clone, Debug, Serialize)]
pub struct Measurement {
    /// The kernel's name.
    pub kernel: &'static str,
    /// The device's name.
    pub device: &'static str,
    /// Threads that hashed at once.
    pub threads: usize,
    /// Headers hashed, by all threads.
    pub hashes: u64,
    /// How long that took.
    pub seconds: f64,
    /// Headers per second, by all threads.
    pub hashes_per_second: f64,
    /// What a hash costs one thread, in cycles of the time-stamp counter, which ticks at the same rate
    /// whatever the core's clock does. `None` on CPUs where a program cannot read such a counter.
    pub cycles_per_hash: Option<f64>,
}

/// Measures, and writes each kernel's result to `out` as soon as it is there.
///
/// # Errors
/// When `out` cannot be written to.
pub fn run(settings: &BenchSettings, out: &mut impl Write) -> io::Result<()> {
    if !settings.json {
        writeln!(out, "{:<10}{:>8}{:>18}{:>24}", "kernel", "threads", "rate", "reference cycles/hash")?;
    }
    for kernel in &settings.kernels {
        let result = measure(*kernel, settings.threads, settings.duration)?;
        if settings.json {
            writeln!(out, "{}", serde_json::to_string(&result)?)?;
        } else {
            let rate = HashRate(result.hashes_per_second).to_string();
            let cycles = result.cycles_per_hash.map_or("unknown".to_owned(), |cycles| format!("{cycles:.1}"));
            writeln!(out, "{:<10}{:>8}{rate:>18}{cycles:>24}", result.kernel, result.threads)?;
        }
        out.flush()?;
    }
    Ok(())
}

/// Lets so many threads hash for so long. Each goes through nonces of a header of its own, against a target
/// that no hash meets.
///
/// # Errors
/// When the operating system does not give all the threads.
pub fn measure(kernel: &dyn Kernel, threads: usize, duration: Duration) -> io::Result<Measurement> {
    let (stop, hashes) = (AtomicBool::new(false), AtomicU64::new(0));
    let hash = |thread: usize| {
        let mut header = [0x5a; HEADER_LEN];
        header[..8].copy_from_slice(&(thread as u64).to_le_bytes());
        let work = Work::new(&header, Target::from_le_bytes([0; 32]));
        let mut found = Vec::new();
        for chunk in NonceRange::ALL.chunks(CHUNK).cycle() {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            hashes.fetch_add(kernel.scan(&work, chunk, &mut found), Ordering::Relaxed);
        }
    };
    let (started, cycles) = (Instant::now(), reference_cycles());
    thread::scope(|scope| {
        let hash = &hash;
        let started = (0..threads).try_for_each(|number| {
            thread::Builder::new().spawn_scoped(scope, move || hash(number)).map(drop)
        });
        if started.is_ok() {
            thread::sleep(duration);
        }
        stop.store(true, Ordering::Relaxed);
        started.map_err(|error| {
            io::Error::new(error.kind(), format!("cannot start {threads} CPU threads: {error}"))
        })
    })?;
    let (elapsed, cycles_after) = (started.elapsed(), reference_cycles());
    let hashes = hashes.into_inner();
    let cycles = cycles.zip(cycles_after).map(|(before, after)| after.wrapping_sub(before));
    Ok(Measurement {
        kernel: kernel.name(),
        device: "cpu",
        threads,
        hashes,
        seconds: elapsed.as_secs_f64(),
        hashes_per_second: HashRate::new(hashes, elapsed).0,
        cycles_per_hash: cycles
            .filter(|_| hashes > 0)
            .map(|cycles| cycles as f64 * threads as f64 / hashes as f64),
    })
}
