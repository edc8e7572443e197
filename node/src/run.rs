//! The node's life cycle: open, serve, stop.

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use iop_consensus::params::Params;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::{info, warn};

use crate::chain::actor;
use crate::chain::state::ChainState;
use crate::failure::Failure;
use crate::mempool::Policy;
use crate::mercury;
use crate::metrics::{self, Metrics};
use crate::open_files;
use crate::p2p;
use crate::progress;
use crate::rpc::{Access, Context, Credentials, serve};
use crate::settings::{Listen, Settings};
use crate::signals::Signals;
use crate::storage::Storage;
use crate::waiting::WaitingFile;

/// Name of the cookie file in the data directory.
const COOKIE: &str = ".cookie";
/// Name of the database directory in the data directory.
const DATABASE: &str = "db";
/// How long calls in progress may take when the node stops.
const GRACE: Duration = Duration::from_secs(5);

/// Runs the node until it is told to stop.
pub(crate) fn run(mut settings: Settings) -> Result<(), Failure> {
    log_to_stderr(settings.log);
    open_files::raise();
    let failed = |error: &dyn std::fmt::Display| Failure::Failed(error.to_string());
    let runtime = Runtime::new().map_err(|error| failed(&error))?;
    // Bind first, so that a port in use is reported before anything is opened.
    let ports = runtime.block_on(Ports::bind(&settings))?;
    let (params, shutdown) = (Arc::new(settings.params.clone()), Arc::new(watch::Sender::new(false)));
    let mut state = open_state(&settings, &params, &runtime, &shutdown)?;
    if *shutdown.borrow() {
        state.close().map_err(|error| failed(&error))?;
        info!("node stopped before it had started");
        return Ok(());
    }
    let metrics = Metrics::new();
    state.set_metrics(metrics.clone());
    state.set_mempool_policy(Policy { max_usage: settings.max_mempool, ..Policy::of(&params) });
    let database = Arc::downgrade(state.storage());
    // Before the chain thread starts: a failure here must close the database before the process ends.
    let access = access(&settings)?;
    let host = |mercury| mercury::start(mercury, &settings.datadir, &params.name, state.validating());
    let mercury = settings.mercury.take().map(host).transpose()?;
    let (chain, thread) = actor::spawn(state);
    let published = *chain.published().borrow();
    let rpc = ports.rpc.local_addr().unwrap_or(settings.rpc_bind);
    info!(
        network = params.name, %rpc, datadir = %settings.datadir.display(),
        height = published.height, tip = %published.tip, "node started"
    );
    warn_of_open_doors(&settings);
    if let Some(reason) = &ports.no_peers {
        warn!("no peer can connect: {reason}");
    }
    let waiting = WaitingFile::new(&settings.datadir, chain.clone());
    let peers = p2p::manager::Config {
        listener: ports.peers,
        connect: settings.p2p.connect,
        add: settings.p2p.add_peer,
        dns_seed: settings.p2p.dns_seed,
        datadir: settings.datadir,
        chain: settings.chain,
    };
    let started = p2p::manager::start(peers, params.clone(), chain.clone(), shutdown.subscribe());
    let (net, mut network_task) = runtime
        .block_on(started)
        .map_err(|error| Failure::Failed(format!("the network cannot be started: {error}")))?;
    let loading = runtime.spawn(waiting.clone().load(net.clone()));
    let context =
        Context { chain, metrics, net: Some(net.clone()), params, started: Instant::now(), shutdown };
    runtime.spawn(progress::report(context.chain.published()));
    if let Some(listener) = ports.metrics {
        let watched = mercury.as_ref().map(|mercury| mercury.watched.clone());
        let (source, stop) = (metrics_source(&context, watched), context.shutdown.subscribe());
        runtime.spawn(metrics::serve(listener, source, stop));
    }
    let served = runtime.block_on(serve_until_told(ports.rpc, context, access, &mut network_task));
    if !network_task.is_finished() {
        // The network task saves its addresses; waiting longer is not worth it.
        let _ = runtime.block_on(async { tokio::time::timeout(GRACE, network_task).await });
    }
    runtime.block_on(waiting.save(loading, net.sent_here()));
    drop(mercury);
    // Ends the remaining tasks, and with them the handles that keep the chain thread alive.
    runtime.shutdown_timeout(GRACE);
    let ended = thread.join().map_err(|_| Failure::Failed("the chain thread panicked".to_owned()))?;
    wait_until_closed(&database);
    info!("node stopped");
    ended.map_err(|error| failed(&error)).and(served)
}

fn log_to_stderr(level: tracing::Level) {
    tracing_subscriber::fmt()
        .with_env_filter(log_filter(level))
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        // Otherwise a log line that stderr does not accept, say on a full disk, would stop a working node.
        .log_internal_errors(false)
        .init();
}

/// The log filter: errors only from libp2p and nothing from yamux, except at debug level and below. These crates
/// log each action of remote peers.
fn log_filter(level: tracing::Level) -> tracing_subscriber::EnvFilter {
    let strangers =
        if level > tracing::Level::INFO { "" } else { ",libp2p=error,yamux=off,multistream_select=error" };
    tracing_subscriber::EnvFilter::new(format!("{level}{strangers}"))
}

/// Where the node listens.
struct Ports {
    rpc: TcpListener,
    peers: Option<std::net::TcpListener>,
    /// Why no peer can connect though the node would listen.
    no_peers: Option<String>,
    metrics: Option<TcpListener>,
}

impl Ports {
    async fn bind(settings: &Settings) -> Result<Self, Failure> {
        let rpc = listen("RPC", settings.rpc_bind).await?;
        let (peers, no_peers) = listen_to_peers(settings.p2p.listen)?;
        let metrics = match settings.metrics_bind {
            Some(bind) => Some(listen("metrics", bind).await?),
            None => None,
        };
        Ok(Self { rpc, peers, no_peers, metrics })
    }
}

/// Opens the database and loads the chain. A signal that comes while stored blocks are connected ends that
/// and makes `shutdown` true.
fn open_state(
    settings: &Settings,
    params: &Arc<Params>,
    runtime: &Runtime,
    shutdown: &Arc<watch::Sender<bool>>,
) -> Result<ChainState, Failure> {
    let failed = |error: &dyn std::fmt::Display| Failure::Failed(error.to_string());
    std::fs::create_dir_all(&settings.datadir).map_err(|error| {
        Failure::Failed(format!("{} cannot be made: {error}", settings.datadir.display()))
    })?;
    let storage = Storage::open_with(&settings.datadir.join(DATABASE), params, &settings.chain.database)
        .map_err(|error| failed(&error))?;
    let told = shutdown.subscribe();
    let signals = runtime.block_on(async { Signals::new() })?;
    runtime.spawn(stop_on_signal(signals, shutdown.clone()));
    ChainState::load_until(params.clone(), Arc::new(storage), settings.chain, told)
        .map_err(|error| failed(&error))
}

/// What metrics are read from.
fn metrics_source(context: &Context, mercury: Option<mercury::Watched>) -> metrics::Source {
    metrics::Source {
        metrics: context.metrics.clone(),
        chain: context.chain.clone(),
        net: context.net.clone(),
        mercury,
    }
}

/// Waits for the last reader of the database, such as a long scan of the coins: RocksDB must be closed before the
/// process ends.
fn wait_until_closed(database: &Weak<Storage>) {
    let since = Instant::now();
    while database.strong_count() > 0 && since.elapsed() < GRACE {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Binds the socket for peers, or returns why that failed; with several nodes on one machine, the default port may
/// be in use.
fn listen_to_peers(listen: Listen) -> Result<(Option<std::net::TcpListener>, Option<String>), Failure> {
    let (address, must) = match listen {
        Listen::No => return Ok((None, None)),
        Listen::At(address) => (address, true),
        Listen::IfFree(address) => (address, false),
    };
    let bound = std::net::TcpListener::bind(address)
        .and_then(|listener| listener.set_nonblocking(true).map(|()| listener));
    let failure = |error| format!("P2P cannot listen on {address}: {error}");
    match bound {
        Ok(listener) => Ok((Some(listener), None)),
        Err(error) if must => Err(Failure::Failed(failure(error))),
        Err(error) => Ok((None, Some(failure(error)))),
    }
}

async fn listen(what: &str, bind: SocketAddr) -> Result<TcpListener, Failure> {
    TcpListener::bind(bind)
        .await
        .map_err(|error| Failure::Failed(format!("{what} cannot listen on {bind}: {error}")))
}

/// Warns if services meant for this machine or a trusted network may be reachable from outside.
fn warn_of_open_doors(settings: &Settings) {
    if !settings.rpc_bind.ip().is_loopback() {
        let allowed: Vec<String> = settings.rpc_allow_ip.iter().map(ToString::to_string).collect();
        let who = if allowed.is_empty() { "everywhere".to_owned() } else { allowed.join(", ") };
        warn!(
            "RPC listens on {}, beyond this machine, and may be called from {who}: passwords go over the network in the \
             clear",
            settings.rpc_bind
        );
    }
    if let Some(bind) = settings.metrics_bind.filter(|bind| !bind.ip().is_loopback()) {
        warn!("metrics are served on {bind}, beyond this machine, without a password");
    }
}

fn access(settings: &Settings) -> Result<Access, Failure> {
    let credentials = match &settings.rpc_user_password {
        Some((user, password)) => Credentials::password(user, password),
        None => {
            let path = settings.datadir.join(COOKIE);
            Credentials::cookie(&path)
                .map_err(|error| Failure::Failed(format!("{} cannot be made: {error}", path.display())))?
        }
    };
    Ok(Access { credentials, allowed: settings.rpc_allow_ip.clone(), patience: settings.rpc_timeout })
}

/// Tells everything to stop once a signal says so.
async fn stop_on_signal(mut signals: Signals, shutdown: Arc<watch::Sender<bool>>) {
    signals.end().await;
    shutdown.send_replace(true);
}

/// Serves RPC until a signal or a `stop` call, or the end of the chain thread or the network: a node that answers
/// but receives nothing would be worse than none.
async fn serve_until_told(
    listener: TcpListener,
    context: Context,
    access: Access,
    network: &mut JoinHandle<()>,
) -> Result<(), Failure> {
    let shutdown = context.shutdown.clone();
    let mut told = shutdown.subscribe();
    let mut published = context.chain.published();
    let mut server = tokio::spawn(serve(listener, context, access, shutdown.subscribe()));
    let mut lost = Ok(());
    let served = loop {
        tokio::select! {
            _ = told.wait_for(|stop| *stop) => break None,
            // The publisher is dropped when the chain thread ends; joining the thread gives the reason.
            changed = published.changed() => if changed.is_err() { break None },
            ended = &mut server => break Some(ended),
            ended = &mut *network => {
                lost = ended.map_err(|error| Failure::Failed(format!("the network has ended: {error}")));
                break None;
            }
        }
    };
    info!("node stopping");
    shutdown.send_replace(true);
    let ended = match served {
        Some(ended) => ended,
        None => match tokio::time::timeout(GRACE, server).await {
            Ok(ended) => ended,
            Err(_) => {
                warn!("calls under way did not end in {} seconds", GRACE.as_secs());
                return lost;
            }
        },
    };
    ended.map_err(|error| Failure::Failed(format!("RPC: {error}"))).and(lost)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use tracing::Level;

    use super::*;

    /// The log output of a closure.
    fn logged(level: Level, say: impl FnOnce()) -> String {
        let path = tempfile::NamedTempFile::new().unwrap();
        let writer = Arc::new(path.reopen().unwrap());
        let subscriber =
            tracing_subscriber::fmt().with_env_filter(log_filter(level)).with_writer(writer).finish();
        tracing::subscriber::with_default(subscriber, say);
        std::fs::read_to_string(path.path()).unwrap()
    }

    #[test]
    fn strangers_write_no_lines_of_the_log_unless_somebody_looks_for_them() {
        let say = || {
            tracing::error!(target: "yamux::connection", "header contains invalid credit");
            tracing::warn!(target: "libp2p_swarm", "a stranger");
            tracing::info!("ours");
        };
        let usual = logged(Level::INFO, say);
        assert!(usual.contains("ours") && usual.lines().count() == 1, "{usual}");
        assert_eq!(logged(Level::ERROR, say), "");
        assert_eq!(logged(Level::DEBUG, say).lines().count(), 3);
    }
}
