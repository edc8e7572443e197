//! The pool's capacity: a Stratum load generator, and the pool's figures.
//!
//! Lives here: which measurements there are and how often each runs. A real node and a real pool ([`stand`]), the pool
//! on a core of its own; clients that log in as miners do ([`client`]); one module per measurement; medians
//! ([`load::report`]). Single-threaded, so that one core generates far more load than a pool on the other can take.
//! Run: `scripts/bench-pool`, or `cargo bench -p iop-benches --bench pool_load -- --help`.

#![allow(clippy::unwrap_used)]

mod client;
mod connect;
mod idle;
#[path = "../load/mod.rs"]
mod load;
mod notify;
mod shares;
mod stand;
mod steady;
mod submit;

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use load::Baseline;
use load::report::Report;

/// Measures a pool under load
#[derive(Debug, Parser)]
#[command(name = "pool_load", version)]
struct Cli {
    #[command(subcommand)]
    measurement: Option<Measurement>,
    #[command(flatten)]
    common: Common,
}

/// What holds for every measurement.
#[derive(Debug, Clone, Args)]
struct Common {
    /// How often each measurement is run; medians are printed
    #[arg(long, global = true, value_name = "N", default_value = "3")]
    runs: usize,
    /// The core that the pool, and what it is held against, run on; the rest stays where it was started
    #[arg(long, global = true, value_name = "CPU")]
    pool_cpu: Option<u32>,
    /// Seconds that a load lasts
    #[arg(long, global = true, value_name = "S", default_value = "10")]
    seconds: u64,
    /// Writes the figures as JSON too
    #[arg(long, global = true, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Lines for the pool's configuration besides those that the measurement needs
    #[arg(long, global = true, value_name = "LINE")]
    pool_config: Vec<String>,
    /// Given by cargo: without it everything only shows that it runs
    #[arg(long, global = true, hide = true)]
    bench: bool,
}

#[derive(Debug, Clone, Subcommand)]
enum Measurement {
    /// Most shares a second that are answered, each connection with some on their way
    Shares(shares::Options),
    /// Shares at a fixed rate: time to each one's answer, beside a program that only answers
    Steady(steady::Options),
    /// From a new tip to the first and the last notify, beside a program that only writes the same bytes
    Notify(notify::Options),
    /// Connections at a fixed rate, each until it has a job
    Connect(connect::Options),
    /// Connections that are held: memory for each, at once and after tips
    Idle(idle::Options),
    /// All of them
    All,
    /// A program to hold the pool against, started by this one
    #[command(hide = true)]
    Baseline { which: Baseline },
}

/// All measurements with the sizes of the issue.
fn all() -> Vec<Measurement> {
    let mut all = vec![
        Measurement::Shares(shares::Options { connections: 200, window: 16 }),
        Measurement::Shares(shares::Options { connections: 1_000, window: 1 }),
        Measurement::Steady(steady::Options { connections: 1_000, rate: 20_000 }),
    ];
    for sessions in [1_000, 10_000] {
        all.push(Measurement::Notify(notify::Options {
            sessions,
            tips: 10,
            transactions: 2_500,
            pause: notify::PAUSE,
        }));
    }
    all.push(Measurement::Connect(connect::Options { connections: 10_000, rate: 1_000 }));
    all.push(Measurement::Idle(idle::Options { connections: 50_000, tips: 100 }));
    all
}

/// All measurements, so small that they only show that they work.
fn brief() -> Vec<Measurement> {
    vec![
        // The pool accepts 65,536 shares of one job per connection.
        Measurement::Shares(shares::Options { connections: 64, window: 4 }),
        Measurement::Steady(steady::Options { connections: 4, rate: 500 }),
        Measurement::Notify(notify::Options { sessions: 10, tips: 2, transactions: 20, pause: 200 }),
        Measurement::Connect(connect::Options { connections: 50, rate: 100 }),
        Measurement::Idle(idle::Options { connections: 50, tips: 3 }),
    ]
}

fn run(measurement: &Measurement, common: &Common, report: &mut Report) -> io::Result<()> {
    match measurement {
        Measurement::Shares(options) => shares::run(options, common, report),
        Measurement::Steady(options) => steady::run(options, common, report),
        Measurement::Notify(options) => notify::run(options, common, report),
        Measurement::Connect(options) => connect::run(options, common, report),
        Measurement::Idle(options) => idle::run(options, common, report),
        Measurement::All => all().iter().try_for_each(|one| run(one, common, report)),
        Measurement::Baseline { which } => which.run(),
    }
}

fn measure(cli: Cli) -> io::Result<()> {
    let Cli { measurement, mut common } = cli;
    let measurements = match measurement {
        Some(Measurement::Baseline { which }) => return which.run(),
        Some(Measurement::All) => all(),
        Some(one) => vec![one],
        None if common.bench => all(),
        None => {
            (common.runs, common.seconds) = (1, 1);
            brief()
        }
    };
    let mut report = Report::default();
    for measurement in &measurements {
        for number in 1..=common.runs {
            eprintln!("{measurement:?}, run {number} of {}", common.runs);
            run(measurement, &common, &mut report)?;
        }
    }
    report.print();
    common.json.map_or(Ok(()), |path| std::fs::write(path, report.json()))
}

fn main() -> ExitCode {
    match measure(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
