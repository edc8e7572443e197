//! The `iop-miner` program. Results go to stdout, logs to stderr; it exits with 0 on success, 1 on failure, 2 on wrong
//! usage. `RUST_LOG` sets the log filter (`debug` shows every job and share).

use std::fmt::Display;
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::process::ExitCode;

use iop_miner::cli::{Command, Exit, parse};
use iop_miner::log::{self, Log};
use iop_miner::{bench, devices, gateway, mine, setup, solo};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

fn main() -> ExitCode {
    let command = match parse(std::env::args_os()) {
        Ok(command) => command,
        Err(Exit::Asked(text)) => return exit(print(&text)),
        Err(Exit::Usage(error)) => {
            complain(&error);
            return ExitCode::from(2);
        }
    };
    // Dropped after the last error is logged.
    let _writing = log::start();
    log_to_stderr();
    exit(run(command))
}

fn exit(done: io::Result<()>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        // A reader that closed stdout early, as `head` does, has seen enough.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

fn print(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

/// If stderr cannot be written, the exit status alone must tell.
fn complain(error: &dyn Display) {
    log::to_stderr(format!("iop-miner: {error}\n").as_bytes());
}

fn run(command: Command) -> io::Result<()> {
    match command {
        Command::Mine(settings) => mine::run(settings),
        Command::Solo(settings) => solo::run(settings),
        Command::Gateway(settings) => gateway::run(settings),
        Command::Bench(settings) => bench::run(&settings, &mut io::stdout().lock()),
        Command::Devices { json } => devices::run(json, &mut io::stdout().lock()),
        Command::Setup(settings) => setup::run(&settings, &mut io::stdin().lock(), &mut io::stdout().lock()),
    }
}

fn log_to_stderr() {
    let filter = EnvFilter::builder().with_default_directive(LevelFilter::INFO.into()).from_env_lossy();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(Log)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false)
        // Otherwise a line that stderr does not take, say on a full disk, would end a working miner.
        .log_internal_errors(false)
        .init();
}
