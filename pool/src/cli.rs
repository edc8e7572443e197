//! The command line: arguments in, exit status out. 0 done, 1 failed, 2 wrong usage; an error is one line.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};
use iop_consensus::license::key::has_wif_form;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use crate::books::{AuditFlags, ReportFlags, run_audit, run_report};
use crate::check::check;
use crate::config::{ConfigError, Flags, Raw, one_line};
use crate::output;
use crate::run::{RunError, run};

/// A license-aware Stratum V1 pool for the IoP chain.
#[derive(Debug, Parser)]
#[command(name = "iop-pool", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the pool; what no flag says is taken from the configuration file, and then from the defaults
    Run(Flags),
    /// Checks configuration, nodes and licenses; prints what would be mined
    Check {
        #[command(flatten)]
        flags: Flags,
        /// Print what is found as JSON
        #[arg(long)]
        json: bool,
    },
    /// Recomputes every payout from the share log; with --node also compares them with the chain
    Audit(AuditFlags),
    /// Prints what each member did, earned, got and was owed over a time, and what the chapter got
    Report(ReportFlags),
}

/// The reason for an exit status other than 0.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Usage(#[from] ConfigError),
    #[error(transparent)]
    Failed(#[from] RunError),
}

/// The program.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    end(execute(cli.command))
}

fn end(done: Result<(), Failure>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            say(&failure.to_string());
            ExitCode::from(if matches!(failure, Failure::Usage(_)) { 2 } else { 1 })
        }
    }
}

/// Prints help and version as clap does; a usage error in one line.
fn usage(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        return end(output::print(&error.to_string()).map_err(Failure::from));
    }
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        say("a command is expected (see iop-pool --help)");
        return ExitCode::from(2);
    }
    if std::env::args_os().any(|argument| argument.to_str().is_some_and(has_wif_form)) {
        say("a key stands among the arguments where something else is expected (see iop-pool --help)");
        return ExitCode::from(2);
    }
    let text = error.to_string();
    let first = text.split("\n\n").next().unwrap_or(&text);
    say(&format!("{} (see iop-pool --help)", one_line(first.trim_start_matches("error: "))));
    ExitCode::from(2)
}

fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "error: {line}"); // ignored if stderr is closed
}

fn execute(command: Command) -> Result<(), Failure> {
    iop_mining::open_files::raise();
    match command {
        Command::Run(flags) => {
            let settings = load(flags)?.validate()?;
            runtime()?.block_on(run(settings))?;
        }
        Command::Check { flags, json } => {
            let settings = load(flags)?.validate()?;
            runtime()?.block_on(check(settings, json))?;
        }
        Command::Audit(flags) => {
            let books = load(flags.common())?.books()?;
            runtime()?.block_on(run_audit(books, &flags))?;
        }
        Command::Report(flags) => {
            let period = flags.period()?;
            run_report(&load(flags.common())?.books()?, &flags, &period)?;
        }
    }
    Ok(())
}

fn load(flags: Flags) -> Result<Raw, ConfigError> {
    let raw = Raw::load(flags)?;
    start_logging(raw.log())?;
    Ok(raw)
}

fn runtime() -> Result<tokio::runtime::Runtime, RunError> {
    tokio::runtime::Runtime::new().map_err(|error| RunError(format!("threads cannot be started: {error}")))
}

fn start_logging(filter: &str) -> Result<(), ConfigError> {
    // The filter's own parser takes a misspelt level for a target's name, and then logs nothing.
    let sensible = |part: &str| part.contains('=') || part.parse::<LevelFilter>().is_ok();
    let parsed = EnvFilter::builder().parse(filter).ok().filter(|_| filter.split(',').all(sensible));
    let parsed = parsed.ok_or_else(|| {
        ConfigError(format!("log is '{filter}', error, warn, info, debug, trace or TARGET=LEVEL,… expected"))
    })?;
    tracing_subscriber::fmt()
        .with_env_filter(parsed)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        // Otherwise a line that stderr does not take, say on a full disk, would end a working pool.
        .log_internal_errors(false)
        .init();
    Ok(())
}
