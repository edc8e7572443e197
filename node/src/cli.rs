//! The command line: parses raw arguments, runs the command and returns an exit status.
//!
//! Results go to stdout, logs and errors to stderr. Exit status 0: success, 1: failure, 2: wrong usage. An error is
//! one line that says what is wrong and what was expected.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};

use crate::args::{NetworkArgs, RunArgs};
use crate::failure::Failure;
use crate::licensing::args::LicenseCommand;
use crate::offline::{ExportArgs, ImportArgs, ReindexArgs, VerifyArgs};
use crate::settings::Settings;
use crate::{keys, licensing, offline, output, run};

#[derive(Debug, Parser)]
#[command(
    name = "iop-node",
    version,
    about = "A fully validating node of the IoP chain",
    disable_help_subcommand = true
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the node
    Run(Box<RunArgs>),
    /// Change who may mine and how much, as an admin
    #[command(subcommand)]
    License(Box<LicenseCommand>),
    /// Take blocks from block files (blk*.dat of IoP Core, or what export wrote)
    Import(ImportArgs),
    /// Write the active chain to a block file
    Export(ExportArgs),
    /// Make coins, registry and index anew from the stored blocks
    Reindex(ReindexArgs),
    /// Check what is stored
    Verify(VerifyArgs),
    /// Make and look at license and wallet keys
    #[command(subcommand)]
    Key(KeyCommand),
}

#[derive(Debug, Subcommand)]
enum KeyCommand {
    /// Make a key: writes it as WIF to a new file that only its owner can read, and prints its address
    New {
        #[command(flatten)]
        network: NetworkArgs,
        /// The file to make; it must not exist
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Print a key file's public key and license address, never the key
    Show {
        #[command(flatten)]
        network: NetworkArgs,
        /// A file with a key as WIF
        file: PathBuf,
    },
    /// Write devnet's published keys: admin.wif and license-1.wif to license-3.wif
    Devnet {
        /// The folder to write to; made if need be
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
}

/// Runs the program.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
            return end(output::print(error.to_string().trim_end()));
        }
        Err(error) => return fail(&Failure::Usage(one_line(&error))),
    };
    let done = match cli.command {
        Command::Run(args) => Settings::from_args(*args).and_then(run::run),
        Command::License(command) => licensing::run(*command),
        Command::Import(args) => offline::import(args),
        Command::Export(args) => offline::export(args),
        Command::Reindex(args) => offline::reindex(args),
        Command::Verify(args) => offline::verify(args),
        Command::Key(KeyCommand::New { network, out }) => keys::new(&network, &out),
        Command::Key(KeyCommand::Show { network, file }) => keys::show(&network, &file),
        Command::Key(KeyCommand::Devnet { out }) => keys::devnet(&out),
    };
    end(done)
}

fn end(done: Result<(), Failure>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => fail(&failure),
    }
}

fn fail(failure: &Failure) -> ExitCode {
    let (text, status) = match failure {
        Failure::Usage(text) => (text, 2),
        Failure::Failed(text) => (text, 1),
    };
    let _ = writeln!(std::io::stderr(), "iop-node: {text}");
    ExitCode::from(status)
}

/// clap's error message without the usage and hint that follow it.
fn one_line(error: &clap::Error) -> String {
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return "a command is expected (see iop-node --help)".to_owned();
    }
    let text = error.to_string();
    let complaint = text.split("\n\n").next().unwrap_or(&text);
    let complaint: Vec<&str> = complaint.split_whitespace().collect();
    let complaint = complaint.join(" ");
    format!("{} (see iop-node --help)", complaint.strip_prefix("error: ").unwrap_or(&complaint))
}
