//! The `iop-fuzz` program: a simple fuzzer for stable Rust, where cargo-fuzz with its coverage is not available.
//!
//! It mutates inputs of the corpus at random and feeds them to a target. An input that makes the target panic is
//! written to `artifacts/`, next to the corpus.

use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand};
use iop_fuzz_targets::mutate::{Random, mutate};
use iop_fuzz_targets::{TARGETS, Target, find, seeds};

/// Feeds random bytes to everything that reads bytes of strangers
#[derive(Debug, Parser)]
#[command(name = "iop-fuzz", version)]
struct Args {
    /// The folder with corpus/ in it
    #[arg(long, value_name = "DIR", default_value = "fuzz")]
    dir: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Name the targets
    List,
    /// Write the first inputs of every target to the corpus
    Seed,
    /// Fuzz a target, or all of them one after the other
    Run {
        /// A target's name, or all
        target: String,
        /// Time for each target
        #[arg(long, value_name = "N", default_value = "60")]
        seconds: u64,
        /// Where the random numbers start
        #[arg(long, value_name = "N", default_value = "1")]
        seed: u64,
    },
}

fn main() -> ExitCode {
    let args = Args::parse();
    let done = match &args.command {
        Command::List => {
            TARGETS.iter().for_each(|(name, _)| say(name));
            Ok(true)
        }
        Command::Seed => write_seeds(&args.dir).map(|()| true),
        Command::Run { target, seconds, seed } => run(&args.dir, target, *seconds, *seed),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "iop-fuzz: {error}");
            ExitCode::FAILURE
        }
    }
}

fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

fn write_seeds(dir: &Path) -> std::io::Result<()> {
    for (target, _) in TARGETS {
        let folder = dir.join("corpus").join(target);
        std::fs::create_dir_all(&folder)?;
        for (name, bytes) in seeds::seeds(target) {
            std::fs::write(folder.join(name), bytes)?;
        }
    }
    Ok(())
}

/// Returns whether no target panicked.
fn run(dir: &Path, target: &str, seconds: u64, seed: u64) -> std::io::Result<bool> {
    let chosen: Vec<(&str, Target)> = match find(target) {
        Some(function) => vec![(target, function)],
        None if target == "all" => TARGETS.to_vec(),
        None => return Err(std::io::Error::other(format!("no target '{target}', see iop-fuzz list"))),
    };
    let mut good = true;
    for (name, function) in chosen {
        good &= fuzz(dir, name, function, Duration::from_secs(seconds), seed)?;
    }
    Ok(good)
}

fn fuzz(dir: &Path, name: &str, target: Target, time: Duration, seed: u64) -> std::io::Result<bool> {
    let mut corpus: Vec<Vec<u8>> = seeds::seeds(name).into_iter().map(|(_, bytes)| bytes).collect();
    if let Ok(entries) = std::fs::read_dir(dir.join("corpus").join(name)) {
        for entry in entries {
            corpus.push(std::fs::read(entry?.path())?);
        }
    }
    corpus.push(Vec::new());
    let (mut random, start, mut runs) = (Random(seed), Instant::now(), 0u64);
    while start.elapsed() < time {
        let mut input = corpus[random.below(corpus.len())].clone();
        mutate(&mut input, &corpus[random.below(corpus.len())], &mut random);
        if catch_unwind(AssertUnwindSafe(|| target(&input))).is_err() {
            let folder = dir.join("artifacts").join(name);
            std::fs::create_dir_all(&folder)?;
            let file = folder.join(format!("crash-{seed}-{runs}"));
            std::fs::write(&file, &input)?;
            say(&format!("{name}: panicked on {}", file.display()));
            return Ok(false);
        }
        runs += 1;
    }
    say(&format!("{name}: {runs} inputs in {} s, no panic", time.as_secs()));
    Ok(true)
}
