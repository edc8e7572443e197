//! `iop-pool run`: starts all parts, and shuts them down in order.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use iop_consensus::license::key::LicenseKey;
use iop_mining::bans::Bans;
use iop_mining::rpc::Node;
use iop_mining::template::ChainIdentity;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing::{error, info, warn};

use crate::api::{self, Api};
use crate::blocks::Blocks;
use crate::config::Settings;
use crate::datadir::Datadir;
use crate::follow::{Follower, Health};
use crate::ledger::Ledger;
use crate::metrics::{CommitTimes, Metrics};
use crate::payouts::Payouts;
use crate::session::round::Round;
use crate::session::tls::{PlainHint, Tls};
use crate::session::{Shared, Slots, listener};
use crate::spool::Spool;
use crate::workers::Workers;

/// How long blocks in flight may delay the shutdown.
const END_TIME: Duration = Duration::from_secs(5);
/// Time for connections to say goodbye: a second each, concurrently, and some for a busy machine.
const FAREWELL_TIME: Duration = Duration::from_secs(2);

/// Why the pool ended, in one line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct RunError(pub String);

/// Runs the pool until a signal ends it.
///
/// # Errors
/// A port or the data folder cannot be used, or a node is on another chain at the start.
pub async fn run(mut settings: Settings) -> Result<(), RunError> {
    // Before anything is open: once a log line is out, a signal must end the pool in order.
    let mut signals = Signals::new()?;
    let chain = ChainIdentity::of(&settings.params);
    let _datadir = Datadir::open(&settings.datadir, &chain)?;
    let spool = Spool::open(&settings.datadir).map_err(|error| {
        RunError(format!("datadir {} cannot be used: {error}", settings.datadir.display()))
    })?;
    let (ledger, mut writer) = Ledger::open(&settings.datadir, settings.rules, settings.params.prefixes)
        .map_err(|error| RunError(error.to_string()))?;
    let commits = CommitTimes::default();
    ledger.observe_commits(commits.clone());
    let ports = Ports::bind(&settings).await?;
    say_terms(&settings);
    let tls = settings.tls.take().map(|(_, tls)| Arc::new(tls));
    let Parts { follower, shared, api } = Parts::new(settings, chain, spool, &ledger, &commits);
    let blocks = Arc::clone(&shared.blocks);
    let doors = Doors::default();
    let (stop, stopped) = watch::channel(false);
    if let Err(wrong) = blocks.resume() {
        blocks.finish(END_TIME).await; // nodes should get all valid blocks
        return Err(wrong);
    }
    tokio::spawn(Arc::clone(&ledger).pass_wakes_on());
    tokio::spawn(Arc::clone(&blocks).watch(shared.snapshots.clone()));
    tokio::spawn(shared.round.clone().run(shared.snapshots.clone(), follower.telling()));
    doors.open(ports.stratum, None, &shared);
    if let Some(listener) = ports.tls {
        doors.open(listener, tls.clone(), &shared);
    }
    drop(shared);
    let api = tokio::spawn(api::serve(ports.api, api, stopped));
    // Kept to the end: without it connections have no source of work.
    let mut following = std::pin::pin!(follower.run());
    let ended = tokio::select! {
        wrong = &mut following => Err(RunError(wrong.to_string())),
        served = api => Err(RunError(format!("the API ended: {served:?}"))),
        () = writer.failed() => Err(RunError("the ledger cannot be written, see the log".to_owned())),
        name = signals.end(tls.as_deref()) => {
            info!("{name}: the pool ends");
            Ok(())
        }
    };
    doors.close().await;
    stop.send_replace(true);
    blocks.finish(END_TIME).await;
    tokio::task::spawn_blocking(move || writer.close())
        .await
        .map_err(|error| RunError(format!("the ledger could not be closed: {error}")))?;
    ended
}

/// Where the pool listens.
struct Ports {
    stratum: TcpListener,
    tls: Option<TcpListener>,
    api: TcpListener,
}

impl Ports {
    async fn bind(settings: &Settings) -> Result<Self, RunError> {
        let stratum = bind("Stratum", settings.stratum_bind).await?;
        let tls = match &settings.tls {
            Some((address, _)) => Some(bind("Stratum over TLS", *address).await?),
            None => None,
        };
        let api = bind("the API", settings.api_bind).await?;
        if let Some(listener) = &tls {
            info!(stratum_tls = %local(listener), "TLS");
        }
        info!(network = settings.params.name, stratum = %local(&stratum), api = %local(&api), "pool starts");
        Ok(Self { stratum, tls, api })
    }
}

/// Logs whom the pool pays, and what its operator should look at again.
fn say_terms(settings: &Settings) {
    let chapter = settings.payout.map(|chapter| chapter.to_base58(&settings.params.prefixes));
    info!(chapter = chapter.as_deref().unwrap_or("the license that signs"), "pays {}", settings.rules);
    settings.doubts().iter().for_each(|doubt| warn!("{doubt}"));
}

/// The pool's parts, connected with each other. None is at work yet.
struct Parts {
    follower: Follower,
    shared: Arc<Shared>,
    api: Arc<Api>,
}

impl Parts {
    fn new(
        settings: Settings,
        chain: ChainIdentity,
        spool: Spool,
        ledger: &Arc<Ledger>,
        commits: &CommitTimes,
    ) -> Self {
        let nodes: Arc<[Node]> = settings.nodes.into_iter().map(Node::new).collect();
        let health = Arc::new(Health::new(&nodes));
        let (prefixes, network) = (settings.params.prefixes, settings.params.name.clone());
        let licenses = settings.licenses.iter().map(LicenseKey::address).collect();
        let payouts = Payouts::new(Arc::clone(ledger), settings.payout, licenses);
        let numbers = payouts.numbers();
        let keys = settings.licenses;
        let (follower, snapshots) =
            Follower::new(settings.params, Arc::clone(&nodes), keys, payouts, Arc::clone(&health));
        let shared = Arc::new(Shared {
            prefixes,
            difficulty: settings.difficulty,
            vardiff: settings.vardiff,
            limits: settings.limits,
            bans: Bans::new(settings.new_connections),
            plain_hint: PlainHint::default(),
            numbers,
            snapshots,
            workers: Workers::default(),
            blocks: Blocks::new(nodes, spool, chain, Arc::clone(ledger)),
            ledger: Arc::clone(ledger),
            slots: Slots::new(settings.max_connections, settings.max_connections_per_ip),
            round: Round::default(),
        });
        let (started, metrics, datadir) = (Instant::now(), Metrics::new(commits), settings.datadir);
        let api = Arc::new(Api { network, shared: Arc::clone(&shared), health, started, metrics, datadir });
        Self { follower, shared, api }
    }
}

/// Where miners come in, and the connections of those who are in.
struct Doors {
    close: watch::Sender<bool>,
    leave: watch::Sender<bool>,
}

impl Default for Doors {
    fn default() -> Self {
        Self { close: watch::Sender::new(false), leave: watch::Sender::new(false) }
    }
}

impl Doors {
    fn open(&self, listener: TcpListener, tls: Option<Arc<Tls>>, shared: &Arc<Shared>) {
        let (close, leave) = (self.close.subscribe(), self.leave.subscribe());
        tokio::spawn(listener::listen(listener, tls, Arc::clone(shared), close, leave));
    }

    /// Stops accepting, then tells the connected miners to reconnect, and waits until they are gone.
    async fn close(self) {
        self.close.send_replace(true);
        self.close.closed().await; // the listeners are dropped: the ports are closed
        self.leave.send_replace(true);
        let _ = tokio::time::timeout(FAREWELL_TIME, self.leave.closed()).await; // the remaining ones are dropped
    }
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
    hangup: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> Result<Self, RunError> {
        let listen =
            |kind| signal(kind).map_err(|error| RunError(format!("signals cannot be received: {error}")));
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }

    /// Waits for a signal that ends the pool. SIGHUP does not: it reloads the TLS files.
    async fn end(&mut self, tls: Option<&Tls>) -> &'static str {
        loop {
            tokio::select! {
                _ = self.interrupt.recv() => return "interrupted",
                _ = self.terminate.recv() => return "terminated",
                _ = self.hangup.recv() => match tls.map(Tls::reload) {
                    None => info!("SIGHUP: there is nothing to read again"),
                    Some(Ok(())) => info!("SIGHUP: new connections get the TLS certificate as it is now"),
                    Some(Err(trouble)) => error!("SIGHUP: the TLS certificate stays as it was: {trouble}"),
                },
            }
        }
    }
}
