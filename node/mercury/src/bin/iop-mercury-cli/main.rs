//! The program `iop-mercury-cli`: a person's side of Mercury, and running a home alone.
//!
//! Results go to stdout, logs and errors to stderr. Exit status 0: success, 1: failure, 2: wrong usage. An error is
//! one line. `RUST_LOG` sets the log filter. Here: startup and exit status. Not here: arguments ([`args`]), and the
//! commands.

mod args;
mod calls;
mod contacts;
mod homes;
mod letters;
mod show;

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use clap::Parser;
use iop_mercury::client::{ClientError, Device, Home, folder::Folder};
use tracing_subscriber::EnvFilter;

use args::{Cli, Command};

/// Why the program fails.
#[derive(Debug)]
enum Failure {
    /// Wrong usage: exit status 2.
    Usage(String),
    /// The usage was right, but the work failed: exit status 1.
    Failed(String),
    /// The reader of our output closed it, which is no failure.
    Read,
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<iop_mercury::client::folder::FolderError> for Failure {
    fn from(error: iop_mercury::client::folder::FolderError) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::Read,
            _ => Self::Failed(error.to_string()),
        }
    }
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) if !error.use_stderr() => return end(error.print().map_err(Failure::from)),
        Err(error) => return end(Err(Failure::Usage(args::one_line(&error)))),
    };
    log_to_stderr();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return end(Err(Failure::Failed(format!("threads cannot be started: {error}")))),
    };
    let done = runtime.block_on(run(cli));
    end(done)
}

fn end(done: Result<(), Failure>) -> ExitCode {
    let (text, status) = match done {
        Ok(()) | Err(Failure::Read) => return ExitCode::SUCCESS,
        Err(Failure::Usage(text)) => (text, 2),
        Err(Failure::Failed(text)) => (text, 1),
    };
    let _ = writeln!(io::stderr(), "iop-mercury-cli: {text}"); // nobody reads it if stderr is closed
    ExitCode::from(status)
}

fn log_to_stderr() {
    // libp2p's warnings, and all errors of yamux, are caused by peers, and we report those that matter.
    let filter = match std::env::var_os("RUST_LOG") {
        None => EnvFilter::new("error,yamux=off,iop_mercury=warn,iop_mercury_cli=warn"),
        Some(_) => EnvFilter::from_default_env(),
    };
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false)
        .log_internal_errors(false)
        .init();
}

async fn run(cli: Cli) -> Result<(), Failure> {
    let name = if matches!(cli.command, Command::HomeHost(_)) { ".iop-mercury-home" } else { ".iop-mercury" };
    let folder = match cli.datadir {
        Some(folder) => folder,
        None => args::default_folder(name)
            .ok_or_else(|| Failure::Usage("there is no home folder: --datadir is expected".to_owned()))?,
    };
    let show = show::Show { json: cli.json };
    match cli.command {
        Command::New { network } => {
            let folder = Folder::create(&folder, &network)?;
            show.id(folder.key()?.id())
        }
        Command::Id => show.id(Folder::open(&folder)?.key()?.id()),
        Command::HomeHost(command) => homes::host(command, &folder, show).await,
        command => {
            let (device, told) = Device::start(Folder::open(&folder)?, args::settings(&command))?;
            let done = match command {
                Command::Call { .. } | Command::Answer { .. } => calls::person(command, &device, told).await,
                // Moving and leaving complete earlier ones themselves.
                Command::Move { .. } | Command::Unregister { .. } => {
                    homes::person(command, &device, show).await
                }
                _ => match homes::settle(&device).await {
                    Ok(()) => person(command, &device, cli.at, show).await,
                    failed => failed,
                },
            };
            // Log out explicitly: a home keeps counting devices that just disappear for a while.
            let _ = device.log_out().await;
            done
        }
    }
}

async fn person(
    command: Command,
    device: &Device,
    at: Option<Home>,
    show: show::Show,
) -> Result<(), Failure> {
    match command {
        Command::Send { id, text, attach } => letters::send(device, id, text, &attach).await,
        Command::Fetch { save } => letters::fetch(device, save.as_deref(), show).await,
        Command::Attachments { save } => letters::attachments(device, save.as_deref(), show).await,
        Command::Register { .. } | Command::Claim => homes::person(command, device, show).await,
        Command::Blob(command) => letters::blobs(command, device, show).await,
        Command::Owner(command) => homes::owner(command, device, at, show).await,
        other => contacts::person(other, device, show).await,
    }
}
