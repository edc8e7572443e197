//! The program `iop-miner`. Results go to stdout, logs to stderr; it exits with 0 when done, 1 when that
//! failed, 2 on wrong usage. `RUST_LOG` sets what is logged (`debug` shows every job and share).

use std::io::{self, ErrorKind, IsTerminal};
use std::process::ExitCode;

use iop_miner::cli::{Command, Exit, parse};
use iop_miner::{bench, devices, mine};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

fn main() -> ExitCode {
    let command = match parse(std::env::args_os()) {
        Ok(command) => command,
        Err(Exit::Asked(text)) => {
            print!("{text}");
            return ExitCode::SUCCESS;
        }
        Err(Exit::Usage(error)) => {
            eprintln!("iop-miner: {error}");
            return ExitCode::from(2);
        }
    };
    log_to_stderr();
    match run(command) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read our output has seen enough, as `head` does.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("iop-miner: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> io::Result<()> {
    match command {
        Command::Mine(settings) => mine::run(settings),
        Command::Bench(settings) => bench::run(&settings, &mut io::stdout().lock()),
        Command::Devices { json } => devices::run(json, &mut io::stdout().lock()),
    }
}

fn log_to_stderr() {
    let filter = EnvFilter::builder().with_default_directive(LevelFilter::INFO.into()).from_env_lossy();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false)
        .init();
}
