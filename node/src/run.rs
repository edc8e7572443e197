//! The node's life: open, serve, stop.

use std::io::IsTerminal;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing::{info, warn};

use crate::chain::actor;
use crate::chain::state::ChainState;
use crate::failure::Failure;
use crate::rpc::{Context, Credentials, serve};
use crate::settings::Settings;
use crate::storage::Storage;

/// The cookie's file in the data directory.
const COOKIE: &str = ".cookie";
/// The database's folder in the data directory.
const DATABASE: &str = "db";
/// Calls under way may take this long to end when the node stops.
const GRACE: Duration = Duration::from_secs(5);

/// Runs the node until it is told to stop.
pub(crate) fn run(settings: Settings) -> Result<(), Failure> {
    tracing_subscriber::fmt()
        .with_max_level(settings.log)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();
    let failed = |error: &dyn std::fmt::Display| Failure::Failed(error.to_string());
    let runtime = tokio::runtime::Runtime::new().map_err(|error| failed(&error))?;
    // Bound first: a port that is taken is known before anything is opened.
    let listener = runtime
        .block_on(TcpListener::bind(settings.rpc_bind))
        .map_err(|error| Failure::Failed(format!("RPC cannot listen on {}: {error}", settings.rpc_bind)))?;
    std::fs::create_dir_all(&settings.datadir).map_err(|error| {
        Failure::Failed(format!("{} cannot be made: {error}", settings.datadir.display()))
    })?;
    let params = Arc::new(settings.params.clone());
    let storage = Storage::open(&settings.datadir.join(DATABASE), &params).map_err(|error| failed(&error))?;
    let state = ChainState::load(params.clone(), storage).map_err(|error| failed(&error))?;
    let (chain, thread) = actor::spawn(state);
    let credentials = credentials(&settings)?;
    let published = *chain.published().borrow();
    info!(
        network = params.name, rpc = %settings.rpc_bind, datadir = %settings.datadir.display(),
        height = published.height, tip = %published.tip, "node started"
    );
    let (shutdown, _) = watch::channel(false);
    let context = Context { chain, params, started: Instant::now(), shutdown: Arc::new(shutdown) };
    let served = runtime.block_on(serve_until_told(listener, context, credentials));
    // Ends what is left of tasks, and with them the handles that keep the chain thread alive.
    runtime.shutdown_timeout(GRACE);
    let ended = thread.join().map_err(|_| Failure::Failed("the chain thread panicked".to_owned()))?;
    info!("node stopped");
    ended.map_err(|error| failed(&error)).and(served)
}

fn credentials(settings: &Settings) -> Result<Credentials, Failure> {
    match &settings.rpc_user_password {
        Some((user, password)) => Ok(Credentials::password(user, password)),
        None => {
            let path = settings.datadir.join(COOKIE);
            Credentials::cookie(&path)
                .map_err(|error| Failure::Failed(format!("{} cannot be made: {error}", path.display())))
        }
    }
}

/// Serves RPC until a signal, a `stop` call, or the end of the chain thread.
async fn serve_until_told(
    listener: TcpListener,
    context: Context,
    credentials: Credentials,
) -> Result<(), Failure> {
    let cannot = |error: std::io::Error| Failure::Failed(format!("signals cannot be received: {error}"));
    let mut interrupt = signal(SignalKind::interrupt()).map_err(cannot)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(cannot)?;
    let shutdown = context.shutdown.clone();
    let mut told = shutdown.subscribe();
    let mut published = context.chain.published();
    let mut server = tokio::spawn(serve(listener, context, credentials, shutdown.subscribe()));
    let served = loop {
        tokio::select! {
            _ = interrupt.recv() => break None,
            _ = terminate.recv() => break None,
            _ = told.wait_for(|stop| *stop) => break None,
            // The publisher is gone when the chain thread has ended; its join says why.
            changed = published.changed() => if changed.is_err() { break None },
            ended = &mut server => break Some(ended),
        }
    };
    shutdown.send_replace(true);
    let ended = match served {
        Some(ended) => ended,
        None => match tokio::time::timeout(GRACE, server).await {
            Ok(ended) => ended,
            Err(_) => {
                warn!("calls under way did not end in {} seconds", GRACE.as_secs());
                return Ok(());
            }
        },
    };
    ended.map_err(|error| Failure::Failed(format!("RPC: {error}")))
}
