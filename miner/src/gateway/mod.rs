//! `iop-miner gateway`: gives the upstream's work to machines that speak Stratum.
//!
//! Here: places and names for machines ([`seats`]), their parts of the extranonce2 ([`prefixes`]), jobs in the form
//! machines get ([`served`]), the dialogue with one machine ([`machine`], `held`, [`judge`], without a socket), sockets
//! and their limits ([`listener`], `connection`, [`limits`]).
//! Not here: Stratum's messages (`iop-stratum`), where work comes from and shares go ([`crate::upstream`]).
//! Path: dispatcher → [`served::follow`] → all machines → submit → verdict → shares that meet its target → upstream.

mod connection;
mod held;
pub mod judge;
pub mod limits;
pub mod listener;
pub mod machine;
pub mod prefixes;
pub mod seats;
pub mod served;
#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener as StdListener};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use iop_mining::bans::{BURST_SECONDS, Bans, Offence};
use iop_mining::rarely::Rarely;
use iop_stratum::difficulty::Difficulty;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{sleep, timeout};
use tracing::info;

use crate::device::DeviceName;
use crate::dispatcher::Current;
use crate::job::Share;
use crate::mine::{self, MineSettings};
use crate::rig::{Rig, all_taken, waiting, warn_of_rest};
use crate::solo::{self, SoloSettings};
use crate::split::Split;
use crate::stats::Stats;
use crate::suggest::Suggestion;
use limits::{Limits, Memory};
use prefixes::Prefixes;
use seats::Seats;
use served::{Numbers, Snapshot};

/// The server version that machines are told on request.
const SOFTWARE: &str = concat!("iop-miner/", env!("CARGO_PKG_VERSION"));

/// Settings for machines: address, difficulties, limits.
#[derive(Clone, Debug)]
pub struct GatewaySettings {
    /// Address that machines connect to.
    pub listen: SocketAddr,
    /// Difficulty of a machine's first job.
    pub start_difficulty: Difficulty,
    /// Least difficulty of a machine, except for jobs whose upstream wants even easier shares.
    pub min_difficulty: Difficulty,
    /// Most machines at a time.
    pub max_machines: usize,
    /// How the upstream's extranonces are cut for them.
    pub split: Split,
    /// Machines at a time from one address, loopback excepted.
    pub max_per_address: usize,
    /// Limits of connections.
    pub limits: Limits,
}

/// The source of work, and the devices that mine alongside the machines.
#[derive(Clone, Debug)]
pub enum Source {
    /// Pools.
    Pool(Box<MineSettings>),
    /// The license holder's own nodes.
    Node(Box<SoloSettings>),
}

/// Validated settings of `gateway`.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The side of the machines.
    pub gateway: GatewaySettings,
    /// The side of the upstream.
    pub source: Source,
}

/// How long machines may delay the end: each has a second to read that it should reconnect, and to send its finds.
const END_TIME: Duration = Duration::from_secs(2);
/// Time between two log lines about the machines.
const STATUS_EVERY: Duration = Duration::from_secs(60);

/// State shared by all connections.
#[derive(Debug)]
pub struct Shared {
    /// Settings of the gateway.
    pub settings: GatewaySettings,
    /// Connections and names in use.
    pub seats: Arc<Seats>,
    /// Prefixes of the extranonce2.
    pub prefixes: Arc<Prefixes>,
    /// Addresses that are banned.
    pub bans: Bans,
    /// Common memory for the machines' shares.
    pub memory: Arc<Memory>,
    /// Job numbers.
    pub numbers: Arc<Numbers>,
    /// The current job.
    pub snapshots: watch::Receiver<Arc<Snapshot>>,
    /// The list of the machines' counters.
    pub stats: Arc<Stats>,
    /// The sender of shares for the upstream.
    pub shares: mpsc::Sender<Share>,
    /// Shares credited to machines: answered with true.
    pub taken: AtomicU64,
    /// Those of them that met the upstream's target and were passed on.
    pub passed: AtomicU64,
    /// Further shares passed on: refused to the machine as stale, but that is the upstream's decision.
    pub late: AtomicU64,
    /// Limits warnings that machines can cause.
    pub words: Rarely,
}

impl Shared {
    /// Creates it without machines.
    #[must_use]
    pub fn new(
        settings: GatewaySettings,
        seats: Arc<Seats>,
        snapshots: watch::Receiver<Arc<Snapshot>>,
        stats: Arc<Stats>,
        shares: mpsc::Sender<Share>,
    ) -> Self {
        let rate = settings.limits.new_connections.max(settings.max_per_address as f64 / BURST_SECONDS);
        Self {
            bans: Bans::new(rate),
            settings,
            seats,
            prefixes: Arc::default(),
            memory: Arc::default(),
            numbers: Arc::default(),
            snapshots,
            stats,
            shares,
            taken: AtomicU64::new(0),
            passed: AtomicU64::new(0),
            late: AtomicU64::new(0),
            words: Rarely::default(),
        }
    }

    /// Counts an offence of an address, and logs the ban if that causes one.
    pub fn offend(&self, ip: IpAddr, offence: Offence) {
        if let Some(time) = self.bans.offend(ip, offence, Instant::now()) {
            info!("{ip} is banned for {} s, the last of its offences: {offence:?}", time.as_secs());
        }
    }
}

/// Serves machines until the process is asked to end (Ctrl-C, SIGTERM or SIGHUP).
///
/// # Errors
/// The address cannot be bound, or those of [`mine::run`] or [`solo::run`].
pub fn run(settings: Settings) -> io::Result<()> {
    let Settings { gateway, source } = settings;
    match source {
        Source::Pool(pool) => {
            let (devices, mut pool) = (pool.rig.devices.clone(), pool);
            // A difficulty that suits this CPU is far too low for machines.
            if pool.pool.suggestion == Suggestion::Measured {
                pool.pool.suggestion = Suggestion::Nothing;
            }
            mine::run_with(*pool, |rig| attach(&gateway, &devices, rig))
        }
        Source::Node(node) => {
            let devices = node.rig.devices.clone();
            solo::run_with(*node, |rig| attach(&gateway, &devices, rig))
        }
    }
}

/// Attaches the gateway to a rig, alongside its devices.
///
/// # Errors
/// The address cannot be bound.
pub fn attach(settings: &GatewaySettings, devices: &[DeviceName], rig: &mut Rig) -> io::Result<()> {
    let socket = listener::bind(settings.listen)?;
    info!("machines may connect to {}", socket.local_addr()?);
    rig.dispatcher.split(settings.split);
    rig.go_on_without_devices();
    let names = devices.iter().map(ToString::to_string);
    let seats = Seats::new(limits::room(settings.max_machines), settings.max_per_address, names);
    let (publish, snapshots) = watch::channel(Arc::new(Snapshot::default()));
    let shared = Shared::new(settings.clone(), seats, snapshots, Arc::clone(&rig.stats), rig.shares());
    let (stop, stopped) = oneshot::channel();
    let (ended, end) = oneshot::channel();
    rig.serve(Box::pin(serve(socket, Arc::new(shared), rig.dispatcher.follow(), publish, stopped, ended)));
    let shares = rig.shares();
    rig.before_end(async move {
        drop(stop);
        let all_up = async {
            let _ = end.await; // fires when the last machine is gone
            all_taken(&shares).await;
        };
        if timeout(END_TIME, all_up).await.is_err() {
            warn_of_rest(waiting(&shares), END_TIME);
        }
    });
    Ok(())
}

/// Serves machines until `stop` is signalled; then tells them, and drops `ended` when all are gone.
async fn serve(
    socket: StdListener,
    shared: Arc<Shared>,
    current: watch::Receiver<Current>,
    publish: watch::Sender<Arc<Snapshot>>,
    stop: oneshot::Receiver<Infallible>,
    ended: oneshot::Sender<Infallible>,
) -> io::Result<()> {
    let _ended = ended;
    let mut listening = pin!(listener::listen(socket, Arc::clone(&shared)));
    tokio::select! {
        () = served::follow(current, shared.settings.split, &shared.prefixes, &shared.numbers, &publish) => {}
        ended = &mut listening => return ended,
        never = report(&shared) => match never {},
        _ = stop => {}
    }
    publish.send_modify(|last| *last = Arc::new(Snapshot { ends: true, ..Snapshot::clone(last) }));
    listening.await
}

/// Logs the machines' figures repeatedly, if any has changed.
async fn report(shared: &Shared) -> Infallible {
    let mut last = Figures::default();
    loop {
        sleep(STATUS_EVERY).await;
        let now = Figures::of(shared);
        if now != last {
            info!("gateway: {now}");
            last = now;
        }
    }
}

/// The figures of the status line, counted since the gateway's start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Figures {
    /// Current connections.
    machines: usize,
    /// As in [`Shared`].
    taken: u64,
    passed: u64,
    late: u64,
}

impl Figures {
    fn of(shared: &Shared) -> Self {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let [taken, passed, late] = [&shared.taken, &shared.passed, &shared.late].map(count);
        Self { machines: shared.seats.count(), taken, passed, late }
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { machines, taken, passed, late } = self;
        write!(
            f,
            "{machines} connections; {taken} shares of machines taken, {passed} of them sent up; {late} late ones sent up \
             besides"
        )
    }
}
