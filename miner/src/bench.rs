//! `iop-miner bench`: measures each kernel on this machine.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use iop_kernels::{
    HEADER_LEN, Kernel, NonceRange, Target, Work, core_clock, cpu_model, cycles_at_best, reference_cycles,
};
use serde::Serialize;

use crate::choice::Choice;
use crate::device::DeviceName;
use crate::plot;
use crate::stats::HashRate;

/// Validated settings of `bench`.
#[derive(Clone, Debug)]
pub struct BenchSettings {
    /// Devices to measure.
    pub devices: Vec<DeviceName>,
    /// The kernels to measure, in this order.
    pub kernels: Vec<Choice>,
    /// Numbers of hashing threads, each of which is measured.
    pub threads: Vec<usize>,
    /// Numbers of header versions scanned together, each of which is measured. At most [`Work::MAX_VERSIONS`].
    pub versions: Vec<usize>,
    /// How long to measure each kernel.
    pub duration: Duration,
    /// Print one JSON object per kernel, a line each, instead of the table.
    pub json: bool,
    /// File to draw all measurements into, as an SVG.
    pub plot: Option<PathBuf>,
}

/// The measurement of one kernel.
#[derive(Clone, Debug, Serialize)]
pub struct Measurement {
    /// The kernel's name.
    pub kernel: &'static str,
    /// The device's name.
    pub device: String,
    /// Number of hashing threads.
    pub threads: usize,
    /// Header versions that were scanned together.
    pub versions: usize,
    /// Headers hashed by all threads.
    pub hashes: u64,
    /// How long that took.
    pub seconds: f64,
    /// Headers per second of all threads.
    pub hashes_per_second: f64,
    /// Cycles of the time-stamp counter per hash and thread; the counter ticks at the same rate whatever the core's
    /// clock does. `None` on CPUs where a program cannot read such a counter.
    pub cycles_per_hash: Option<f64>,
    /// The same in cycles of the core's own clock, measured at the same time.
    pub core_cycles_per_hash: Option<f64>,
    /// The CPU's lower limit divided by the cycles taken; `None` if that is not known.
    pub fraction_of_limit: Option<f64>,
}

/// Measures, and writes each kernel's result to `out` as soon as it is available.
///
/// # Errors
/// `out` or the plot cannot be written, or the operating system does not provide all the threads.
pub fn run(settings: &BenchSettings, out: &mut impl Write) -> io::Result<()> {
    let named =
        |file: &Path, error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", file.display()));
    if let Some(file) = &settings.plot {
        // Detect an unwritable file before anything is measured; its old contents stay until then.
        fs::OpenOptions::new().append(true).create(true).open(file).map_err(|error| named(file, error))?;
    }
    if !settings.json {
        writeln!(
            out,
            "{:<10}{:>8}{:>9}{:>18}{:>24}{:>13}{:>10}",
            "kernel", "threads", "versions", "rate", "reference cycles/hash", "core cycles", "of limit"
        )?;
    }
    let mut all = Vec::new();
    for &device in &settings.devices {
        let mut one = |result: Measurement| {
            write_result(&result, settings.json, out)?;
            all.push(result);
            io::Result::Ok(())
        };
        match device {
            DeviceName::Cpu => measure_cpu(settings, &mut one)?,
            DeviceName::OpenCl(platform, number) => {
                for &versions in &settings.versions {
                    one(measure_opencl(platform, number, versions, settings.duration)?)?;
                }
            }
        }
    }
    if !settings.json && all.len() > 1 {
        compare(&all, out)?;
    }
    match &settings.plot {
        Some(file) => fs::write(file, plot::svg(&cpu_model(), &all)).map_err(|error| named(file, error)),
        None => Ok(()),
    }
}

fn measure_cpu(
    settings: &BenchSettings,
    one: &mut dyn FnMut(Measurement) -> io::Result<()>,
) -> io::Result<()> {
    for kernel in settings.kernels.iter().map(|choice| choice.kernel()) {
        for &versions in &settings.versions {
            for &threads in &settings.threads {
                one(measure(kernel, threads, versions, settings.duration)?)?;
            }
        }
    }
    Ok(())
}

/// The same for an OpenCL device, fed as by `mine`.
#[cfg(feature = "opencl")]
pub(crate) fn measure_opencl(
    platform: usize,
    number: usize,
    versions: usize,
    duration: Duration,
) -> io::Result<Measurement> {
    use crate::device::{OpenCl, next_launch};

    let mut scanner = OpenCl::new(platform, number).scanner()?;
    let numbers: Vec<u32> = (0..versions as u32).collect();
    let work = Work::with_versions(&[0x5a; HEADER_LEN], &numbers, Target::from_le_bytes([0; 32]));
    let (mut hashes, mut launch, mut left) = (0, 1 << 14, NonceRange::ALL);
    let started = Instant::now();
    while started.elapsed() < duration {
        let (now, rest) = left.split(scanner.nonces(&work, launch));
        left = rest.unwrap_or(NonceRange::ALL);
        let launched = Instant::now();
        let done =
            scanner.scan(&work, now, &mut Vec::new()).map_err(|error| io::Error::other(error.to_string()))?;
        launch = next_launch(done, launched.elapsed());
        hashes += done;
    }
    let elapsed = started.elapsed();
    Ok(Measurement {
        kernel: "opencl",
        device: DeviceName::OpenCl(platform, number).to_string(),
        threads: 1,
        versions,
        hashes,
        seconds: elapsed.as_secs_f64(),
        hashes_per_second: HashRate::new(hashes.into(), elapsed).0,
        cycles_per_hash: None,
        core_cycles_per_hash: None,
        fraction_of_limit: None,
    })
}

#[cfg(not(feature = "opencl"))]
pub(crate) fn measure_opencl(
    platform: usize,
    number: usize,
    _: usize,
    _: Duration,
) -> io::Result<Measurement> {
    let name = DeviceName::OpenCl(platform, number);
    Err(io::Error::other(format!("{name}: this program was built without OpenCL")))
}

fn write_result(result: &Measurement, json: bool, out: &mut impl Write) -> io::Result<()> {
    if json {
        writeln!(out, "{}", serde_json::to_string(result)?)?;
    } else {
        let Measurement { kernel, threads, versions, .. } = result;
        let rate = HashRate(result.hashes_per_second).to_string();
        let cycles =
            |cycles: Option<f64>| cycles.map_or("unknown".to_owned(), |cycles| format!("{cycles:.1}"));
        let (reference, core) = (cycles(result.cycles_per_hash), cycles(result.core_cycles_per_hash));
        let limit =
            result.fraction_of_limit.map_or("unknown".to_owned(), |part| format!("{:.0} %", part * 100.0));
        writeln!(out, "{kernel:<10}{threads:>8}{versions:>9}{rate:>18}{reference:>24}{core:>13}{limit:>10}")?;
    }
    out.flush()
}

/// `1 thread`, `2 threads`.
pub(crate) fn many(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// Longest bar of the comparison, in characters.
const BAR: usize = 40;

/// Writes a comparison, fastest first.
fn compare(all: &[Measurement], out: &mut impl Write) -> io::Result<()> {
    let mut all: Vec<&Measurement> = all.iter().collect();
    all.sort_by(|a, b| b.hashes_per_second.total_cmp(&a.hashes_per_second));
    let most = all.first().map_or(0.0, |fastest| fastest.hashes_per_second);
    let (rate, cycles, part) = ("rate", "cycles/hash", "of the fastest");
    writeln!(out, "\n{:<36}{rate:>14}{cycles:>13}{part:>16}", "fastest first:")?;
    for one in all {
        let part = if most > 0.0 { one.hashes_per_second / most } else { 0.0 };
        // A CPU measurement is named after its kernel, any other after its device.
        let name = if one.device == "cpu" { one.kernel } else { &one.device };
        let what = format!("{name}, {}, {}", many(one.threads, "thread"), many(one.versions, "version"));
        let rate = HashRate(one.hashes_per_second).to_string();
        let cycles = one.core_cycles_per_hash.or(one.cycles_per_hash);
        let cycles = cycles.map_or("unknown".to_owned(), |cycles| format!("{cycles:.1}"));
        let bar = "#".repeat((part * BAR as f64).round() as usize);
        writeln!(out, "{what:<36}{rate:>14}{cycles:>13}{:>14.1} %  {bar}", part * 100.0)?;
    }
    Ok(())
}

/// Hashes with this many threads for this long. Each thread scans the nonces of its own header, in `versions` versions,
/// against a target that no hash meets.
///
/// # Errors
/// The operating system does not provide all the threads.
pub fn measure(
    kernel: &dyn Kernel,
    threads: usize,
    versions: usize,
    duration: Duration,
) -> io::Result<Measurement> {
    let numbers: Vec<u32> = (0..versions as u32).collect();
    let (stop, hashes) = (AtomicBool::new(false), AtomicU64::new(0));
    let hash = |thread: usize| {
        let mut header = [0x5a; HEADER_LEN];
        header[4..12].copy_from_slice(&(thread as u64).to_le_bytes());
        let work = Work::with_versions(&header, &numbers, Target::from_le_bytes([0; 32]));
        let mut found = Vec::new();
        for chunk in NonceRange::ALL.chunks(kernel.nonces(&work)).cycle() {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            hashes.fetch_add(kernel.scan_versions(&work, chunk, &mut found), Ordering::Relaxed);
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
    let cycles = cycles.zip(cycles_after).map(|(before, after)| after.wrapping_sub(before) as f64);
    let per_hash = |cycles: f64| (hashes > 0).then(|| cycles * threads as f64 / hashes as f64);
    let core_cycles_per_hash = core_clock().and_then(|clock| per_hash(clock * elapsed.as_secs_f64()));
    let at_best = cycles_at_best(kernel.name(), versions);
    Ok(Measurement {
        kernel: kernel.name(),
        device: "cpu".to_owned(),
        threads,
        versions,
        hashes,
        seconds: elapsed.as_secs_f64(),
        hashes_per_second: HashRate::new(hashes.into(), elapsed).0,
        cycles_per_hash: cycles.and_then(per_hash),
        core_cycles_per_hash,
        fraction_of_limit: at_best.zip(core_cycles_per_hash).map(|(best, took)| best / took),
    })
}
