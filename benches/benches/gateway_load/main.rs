//! The latency that the gateway adds to a machine's submit, and its cost with many machines.
//!
//! Lives here: the real `iop-miner gateway` on a core of its own, in front of a small upstream ([`upstream`]) that
//! shares the other core with simulated machines ([`machines`]); the same load on a program that only answers
//! ([`load::echo`]): the difference is the gateway's. Run: `scripts/bench-gateway`.

#![allow(clippy::unwrap_used)]

#[path = "../load/mod.rs"]
mod load;
mod machines;
mod upstream;

use std::io;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand};
use iop_tests::program::{Program, free_port, wait_for};
use tokio::runtime::Builder;
use tokio::task::LocalSet;

use load::Baseline;
use load::process::{Memory, cpu_seconds, pinned};
use load::report::Report;
use machines::Load;

/// Every hash is a share for the gateway.
const ANY_HASH: &str = "1e-10";
/// Time for a program to listen.
const START: Duration = Duration::from_secs(20);

/// Measures the gateway under load
#[derive(Debug, Parser)]
#[command(name = "gateway_load", version)]
struct Cli {
    #[command(subcommand)]
    command: Option<Hidden>,
    /// Simulated machines; each number is measured
    #[arg(long, value_name = "N,...", value_delimiter = ',', default_value = "1000")]
    machines: Vec<usize>,
    /// Seconds from share to share of each
    #[arg(long, value_name = "S", default_value = "5")]
    share_every: f64,
    /// Seconds from job to job of the upstream
    #[arg(long, value_name = "S", default_value = "5")]
    job_every: f64,
    /// Seconds that a load lasts
    #[arg(long, value_name = "S", default_value = "10")]
    seconds: u64,
    /// How often each measurement is run; medians are printed
    #[arg(long, value_name = "N", default_value = "3")]
    runs: usize,
    /// Let the upstream want every share
    #[arg(long)]
    all_up: bool,
    /// The core that the gateway, and the program that only answers, run on
    #[arg(long, value_name = "CPU")]
    gateway_cpu: Option<u32>,
    /// Given by cargo: without it everything only shows that it runs
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Debug, Subcommand)]
enum Hidden {
    /// A program to hold the gateway against, started by this one
    #[command(hide = true)]
    Baseline { which: Baseline },
}

fn load(cli: &Cli, machines: usize) -> Load {
    Load {
        machines,
        rate: machines as f64 / cli.share_every,
        lasts: Duration::from_secs(cli.seconds),
        warm_up: Duration::from_secs(1),
    }
}

async fn bare(cli: &Cli, machines: usize, report: &mut Report) -> io::Result<()> {
    let echo = Baseline::Echo.start(cli.gateway_cpu)?;
    let times = load(cli, machines).run(echo.address(), false).await?;
    report.add_times(&format!("{machines} machines, bare round trip"), times);
    Ok(())
}

async fn gateway(cli: &Cli, machines: usize, report: &mut Report) -> io::Result<()> {
    let upstream = upstream::Upstream::start(Duration::from_secs_f64(cli.job_every), cli.all_up).await?;
    let (dir, listen) = (tempfile::tempdir()?, format!("127.0.0.1:{}", free_port()));
    let url = format!("stratum+tcp://{}", upstream.address);
    let most = (machines + 10).to_string();
    let args = [
        "gateway",
        "--plain",
        "--listen",
        &listen,
        "--url",
        &url,
        "--user",
        "bench",
        "--max-machines",
        &most,
    ];
    let args = args.into_iter().chain(["--start-difficulty", ANY_HASH, "--min-difficulty", ANY_HASH]);
    let mut program = pinned(cli.gateway_cpu, || Program::start("iop-miner", dir.path(), args))?;
    let listens = wait_for(START, || match program.log().contains("machines may connect to") {
        true => Some(true),
        false => (!program.is_running()).then_some(false),
    });
    if listens != Some(true) {
        return Err(io::Error::other(format!("the gateway does not listen:\n{}", program.log())));
    }
    let load = load(cli, machines);
    let (begun, before) = (Instant::now(), cpu_seconds(program.id())?);
    let times = load.run(listen.parse().map_err(io::Error::other)?, true).await?;
    let (seconds, cpu) = (begun.elapsed().as_secs_f64(), cpu_seconds(program.id())? - before);
    report.add_times(&format!("{machines} machines, gateway's answer"), times);
    report.add(
        format!("{machines} machines, gateway's CPU, logins included"),
        100.0 * cpu / seconds,
        "% of a core",
    );
    report.add(format!("{machines} machines, RSS"), Memory::of(program.id())?.resident / 1e6, "MB");
    report.add(format!("{machines} machines, shares that went up"), upstream.shares() as f64, "");
    Ok(())
}

fn measure(mut cli: Cli) -> io::Result<()> {
    if !cli.bench {
        (cli.machines, cli.runs, cli.seconds) = (vec![20], 1, 1);
        (cli.share_every, cli.job_every) = (0.5, 0.5);
    }
    let (runtime, mut report) = (Builder::new_current_thread().enable_all().build()?, Report::default());
    for machines in cli.machines.clone() {
        for number in 1..=cli.runs {
            eprintln!("{machines} machines, run {number} of {}", cli.runs);
            LocalSet::new().block_on(&runtime, bare(&cli, machines, &mut report))?;
            LocalSet::new().block_on(&runtime, gateway(&cli, machines, &mut report))?;
        }
    }
    report.print();
    Ok(())
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.command {
        Some(Hidden::Baseline { which }) => which.run(),
        None => measure(cli),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
