//! The part of the kernel's speed that reaches the pool: the real miner on all cores at an upstream of ours that sends
//! a new job every 5 s; the work of its accepted shares over time, compared with `iop-miner bench` just before and just
//! after, with as many threads and versions.
//!
//! Shares are random: with N of them the work is known to one part in the square root of N. The miner's own counter of
//! hashes, from its last line, is exact. Run: `cargo build --release --bins` and
//! `cargo bench -p iop-benches --bench miner_rate -- --seconds 600`

#![allow(clippy::unwrap_used)]

mod upstream;

use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use clap::Parser;
use iop_stratum::difficulty::{Difficulty, HASHES_AT_1};
use iop_tests::program::programs;
use serde_json::Value;

use upstream::Upstream;

/// Compares the rate at a pool with the kernel's
#[derive(Debug, Parser)]
#[command(name = "miner_rate", version)]
struct Cli {
    /// How long to mine
    #[arg(long, value_name = "S", default_value_t = 600)]
    seconds: u64,
    /// Seconds between two jobs
    #[arg(long, value_name = "S", default_value_t = 5.0)]
    job_every: f64,
    /// Shares to aim at: 40,000 are known to half a percent, and cost a few hundredths of a percent
    #[arg(long, value_name = "N", default_value_t = 40_000)]
    shares: u64,
    /// Seconds of each measurement of the kernel
    #[arg(long, value_name = "S", default_value_t = 20)]
    bench_seconds: u64,
    /// CPU threads [default: as many as the miner takes]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Given by cargo: without it everything only shows that it runs
    #[arg(long, hide = true)]
    bench: bool,
}

/// Runs a command that ends by itself; returns the lines of its output.
fn lines(arguments: &[String]) -> Vec<Value> {
    let output = Command::new(programs().join("iop-miner")).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The kernel's rate in hashes per second, and its name.
fn kernel(threads: usize, seconds: u64) -> (f64, String) {
    let (threads, seconds) = (threads.to_string(), seconds.to_string());
    let arguments = [
        "bench",
        "--kernel",
        "auto",
        "--versions",
        "8",
        "--json",
        "--threads",
        &threads,
        "--seconds",
        &seconds,
    ];
    let line = lines(&arguments.map(str::to_owned)).remove(0);
    (line["hashes_per_second"].as_f64().unwrap(), line["kernel"].as_str().unwrap().to_owned())
}

/// The miner's own count of hashes per second, from `mined for 600 s: 110000000000 hashes, 180.1 MH/s …`.
fn counted(log: &str) -> Option<f64> {
    let line = log.lines().find(|line| line.contains("mined for "))?;
    let rest = line.split("hashes, ").nth(1)?;
    let (number, rest) = rest.split_once(' ')?;
    let unit = match rest.get(..2)? {
        "kH" => 1e3,
        "MH" => 1e6,
        "GH" => 1e9,
        _ => 1.0,
    };
    Some(number.parse::<f64>().ok()? * unit)
}

fn main() {
    let mut cli = Cli::parse();
    if !cli.bench {
        (cli.seconds, cli.bench_seconds, cli.shares, cli.job_every) = (2, 1, 200, 0.5);
    }
    let devices = lines(&["devices".to_owned(), "--json".to_owned()]);
    let threads = cli.threads.unwrap_or(devices[0]["threads"].as_u64().unwrap() as usize);
    let (before, name) = kernel(threads, cli.bench_seconds);
    let difficulty = before * cli.seconds as f64 / cli.shares as f64 / HASHES_AT_1;
    let difficulty = Difficulty::new(difficulty).unwrap();
    let upstream = Upstream::start(difficulty, Duration::from_secs_f64(cli.job_every));
    let miner = Command::new(programs().join("iop-miner"))
        .args(["mine", "--url", &format!("stratum+tcp://{}", upstream.address), "--user", "bench.rig"])
        .args(["--threads", &threads.to_string(), "--suggest-difficulty", &difficulty.to_string()])
        .env("NO_COLOR", "1")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    upstream.wait_for_first_job();
    thread::sleep(Duration::from_secs(cli.seconds));
    let taken = upstream.taken();
    assert!(Command::new("kill").args(["-s", "TERM", &miner.id().to_string()]).status().unwrap().success());
    let log = String::from_utf8(miner.wait_with_output().unwrap().stderr).unwrap();
    let (after, _) = kernel(threads, cli.bench_seconds);
    let bare = (before + after) / 2.0;
    let rate = taken.shares as f64 * difficulty.get() * HASHES_AT_1 / taken.elapsed.as_secs_f64();
    let error = 100.0 / (taken.shares as f64).sqrt();
    println!(
        "kernel {name} on {threads} threads: {:.3} MH/s before, {:.3} MH/s after",
        before / 1e6,
        after / 1e6
    );
    if (before / after).ln().abs() > 0.02 {
        println!("these differ by more than 2 %: the machine was not quiet, and what follows says little");
    }
    println!(
        "{} shares of difficulty {difficulty} in {:.1} s over {} jobs, {} stale, {} wrong",
        taken.shares,
        taken.elapsed.as_secs_f64(),
        taken.jobs,
        taken.stale,
        taken.wrong
    );
    println!("rate at the pool: {:.3} MH/s", rate / 1e6);
    println!("effective: {:.2} % of the kernel's, ± {error:.2} % (one sigma of chance)", rate / bare * 100.0);
    match counted(&log) {
        Some(counted) => println!("by the miner's own counter: {:.2} %", counted / bare * 100.0),
        None => println!("the miner's last line is not understood:\n{log}"),
    }
}
