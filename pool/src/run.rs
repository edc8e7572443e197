//! `iop-pool run`: everything wired together, and one way to end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing::info;

use crate::api::{self, Api};
use crate::blocks::Blocks;
use crate::config::Settings;
use crate::datadir::Datadir;
use crate::follow::{Follower, Health};
use crate::ledger::Ledger;
use crate::metrics::{CommitTimes, Metrics};
use crate::payouts::Payouts;
use crate::rpc::Node;
use crate::session::{Places, Shared, listener};
use crate::spool::Spool;
use crate::template::ChainIdentity;
use crate::workers::Workers;

/// How long blocks in flight may hold up the end.
const END_TIME: Duration = Duration::from_secs(5);

/// Why the pool ended, in one line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct RunError(pub String);

/// Runs the pool until a signal ends it.
///
/// # Errors
/// A port or the data folder cannot be used, or a node is on another chain at the start.
pub async fn run(settings: Settings) -> Result<(), RunError> {
    let chain = ChainIdentity::of(&settings.params);
    let _datadir = Datadir::open(&settings.datadir, &chain)?;
    let spool = Spool::open(&settings.datadir).map_err(|error| {
        RunError(format!("datadir {} cannot be used: {error}", settings.datadir.display()))
    })?;
    let (ledger, mut writer) = Ledger::open(&settings.datadir, settings.rules, settings.params.prefixes)
        .map_err(|error| RunError(error.to_string()))?;
    let commits = CommitTimes::default();
    ledger.observe_commits(commits.clone());
    let stratum = bind("Stratum", settings.stratum_bind).await?;
    let api_listener = bind("the API", settings.api_bind).await?;
    info!(network = settings.params.name, stratum = %local(&stratum), api = %local(&api_listener), "pool starts");

    let nodes: Arc<[Node]> = settings.nodes.into_iter().map(Node::new).collect();
    let health = Arc::new(Health::new(&nodes));
    let prefixes = settings.params.prefixes;
    let network = settings.params.name.clone();
    let (follower, snapshots) = Follower::new(
        settings.params,
        Arc::clone(&nodes),
        settings.licenses,
        Payouts::new(Arc::clone(&ledger), settings.payout),
        Arc::clone(&health),
    );
    let blocks = Blocks::new(nodes, spool, chain);
    let shared = Arc::new(Shared {
        prefixes,
        difficulty: settings.difficulty,
        snapshots,
        workers: Workers::default(),
        blocks: Arc::clone(&blocks),
        ledger: Arc::clone(&ledger),
        places: Places::new(settings.max_connections, settings.max_connections_per_ip),
    });
    let metrics = Metrics::new(&commits);
    let api =
        Arc::new(Api { network, shared: Arc::clone(&shared), health, started: Instant::now(), metrics });

    let (stop, stopped) = watch::channel(false);
    let mut signals = Signals::new()?;
    blocks.resume(&ledger);
    tokio::spawn(Arc::clone(&ledger).pass_wakes_on());
    tokio::spawn(Arc::clone(&blocks).watch(shared.snapshots.clone()));
    tokio::spawn(listener::listen(stratum, shared, stopped.clone()));
    let api = tokio::spawn(api::serve(api_listener, api, stopped));
    let ended = tokio::select! {
        wrong = follower.run() => Err(RunError(wrong.to_string())),
        served = api => Err(RunError(format!("the API ended: {served:?}"))),
        () = writer.failed() => Err(RunError("the ledger's thread failed".to_owned())),
        name = signals.next() => {
            info!("{name}: the pool ends");
            Ok(())
        }
    };
    stop.send_replace(true);
    blocks.finish(END_TIME).await;
    tokio::task::spawn_blocking(move || writer.close())
        .await
        .map_err(|error| RunError(format!("the ledger could not be closed: {error}")))?;
    ended
}

async fn bind(what: &str, address: SocketAddr) -> Result<TcpListener, RunError> {
    TcpListener::bind(address)
        .await
        .map_err(|error| RunError(format!("{what} cannot listen on {address}: {error}")))
}

fn local(listener: &TcpListener) -> String {
    listener.local_addr().map_or_else(|error| error.to_string(), |address| address.to_string())
}

struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> Result<Self, RunError> {
        let listen =
            |kind| signal(kind).map_err(|error| RunError(format!("signals cannot be received: {error}")));
        Ok(Self { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())? })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "interrupted",
            _ = self.terminate.recv() => "terminated",
        }
    }
}
