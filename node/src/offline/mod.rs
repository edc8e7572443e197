//! Commands on the node's data while no node is running: `import`, `export`, `reindex`, `verify`.
//!
//! Lives here: these four commands, block files ([`blockfile`]), and what they share: arguments, opening a data
//! directory, progress ([`progress`]) and stopping. Does not live here: rules, storage, and how a block is
//! accepted; that is the chain's. Data goes: block file -> decoded and checked on one thread -> chain state on
//! another; or storage -> block file.

mod blockfile;
mod coinset;
mod export;
mod headers;
mod import;
mod progress;
mod reindex;
mod replay;
mod verify;

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Args;
use iop_consensus::params::Params;
use tokio::signal::unix::{SignalKind, signal};

use crate::args::NetworkArgs;
use crate::chain::options::Options;
use crate::failure::Failure;
use crate::settings::{chain_options, default_datadir, log_level, network_params};
use crate::storage::Storage;

pub(crate) use export::{ExportArgs, export};
pub(crate) use import::{ImportArgs, import};
pub(crate) use reindex::{ReindexArgs, reindex};
pub(crate) use verify::{VerifyArgs, verify};

/// Name of the database directory in the data directory.
const DATABASE: &str = "db";

/// Which data, and what is said about the work.
#[derive(Debug, Args)]
pub(crate) struct OfflineArgs {
    #[command(flatten)]
    pub(crate) network: NetworkArgs,
    /// Where everything is kept; one network each [default: ~/.iop-node/NETWORK]
    #[arg(long, value_name = "DIR")]
    pub(crate) datadir: Option<PathBuf>,
    /// Memory for coins and database, MiB [default: 450]
    #[arg(long, value_name = "MIB")]
    pub(crate) dbcache: Option<u64>,
    /// What to log: error, warn, info, debug or trace
    #[arg(long, value_name = "LEVEL", default_value = "warn")]
    pub(crate) log: String,
}

/// Validated [`OfflineArgs`]. Logging is set up.
struct Place {
    params: Arc<Params>,
    datadir: PathBuf,
    options: Options,
}

impl Place {
    fn new(args: OfflineArgs) -> Result<Self, Failure> {
        let params = network_params(&args.network)?;
        let datadir = args.datadir.map_or_else(|| default_datadir(&params.name), Ok)?;
        let options = chain_options(&params, args.dbcache, None, None, None)?;
        tracing_subscriber::fmt()
            .with_max_level(log_level(&args.log)?)
            .with_writer(std::io::stderr)
            .with_ansi(std::io::stderr().is_terminal())
            .with_target(false)
            // Otherwise a log line that stderr does not accept would stop unfinished work.
            .log_internal_errors(false)
            .init();
        Ok(Self { params: Arc::new(params), datadir, options })
    }

    /// Overrides the block whose ancestors' scripts are assumed valid.
    fn assume_valid(&mut self, text: Option<&str>) -> Result<(), Failure> {
        let chosen = chain_options(&self.params, None, None, text, None)?;
        self.options.assume_valid = chosen.assume_valid;
        Ok(())
    }

    /// Opens the database, creating it if there is none.
    fn open_or_make(&self) -> Result<Storage, Failure> {
        std::fs::create_dir_all(&self.datadir).map_err(|error| {
            Failure::Failed(format!("{} cannot be made: {error}", self.datadir.display()))
        })?;
        Storage::open_with(&self.datadir.join(DATABASE), &self.params, &self.options.database).map_err(failed)
    }

    /// Opens an existing database.
    fn open(&self) -> Result<Storage, Failure> {
        if !self.datadir.join(DATABASE).join("CURRENT").is_file() {
            return Err(Failure::Failed(format!("{} holds no node's data", self.datadir.display())));
        }
        self.open_or_make()
    }
}

fn failed(error: impl std::fmt::Display) -> Failure {
    Failure::Failed(error.to_string())
}

/// Whether the command was told to stop by SIGINT or SIGTERM. A second signal ends the program at once; the stored
/// state is consistent at any time.
#[derive(Debug, Clone, Default)]
struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Installs the signal handlers.
    fn listen() -> Result<Self, Failure> {
        let cannot = |error: std::io::Error| Failure::Failed(format!("signals cannot be received: {error}"));
        let stop = Self::default();
        let told = stop.clone();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(cannot)?;
        let _entered = runtime.enter();
        let mut interrupt = signal(SignalKind::interrupt()).map_err(cannot)?;
        let mut terminate = signal(SignalKind::terminate()).map_err(cannot)?;
        let wait = move || {
            runtime.block_on(async move {
                loop {
                    tokio::select! {
                        _ = interrupt.recv() => {}
                        _ = terminate.recv() => {}
                    }
                    if told.0.swap(true, Ordering::Relaxed) {
                        std::process::exit(130);
                    }
                }
            });
        };
        std::thread::Builder::new().name("signals".to_owned()).spawn(wait).map_err(cannot)?;
        Ok(stop)
    }

    fn is_told(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Prints a line to stderr for the operator.
fn note(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
