//! `iop-miner gateway`: machines that speak Stratum, fed with the work of the upstream.
//!
//! Here: places and names for machines ([`seats`]), their parts of the extranonce2 ([`prefixes`]), jobs as machines get
//! them ([`served`]), what is said to one machine ([`machine`], `held`, [`judge`], without a socket), sockets and their limits
//! ([`listener`], `connection`, [`limits`]).
//! Not here: Stratum's messages (`iop-stratum`), where work comes from and shares go ([`crate::upstream`]).
//! Path: dispatcher → [`served::follow`] → all machines → submit → verdict → those that the upstream wants → upstream.

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
use iop_stratum::difficulty::Difficulty;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{sleep, timeout};
use tracing::info;

use crate::device::DeviceName;
use crate::dispatcher::Current;
use crate::job::Share;
use crate::mine::{self, MineSettings};
use crate::rarely::Rarely;
use crate::rig::{Rig, all_taken, waiting, warn_of_rest};
use crate::solo::{self, SoloSettings};
use crate::split::Split;
use crate::stats::Stats;
use crate::suggest::Suggestion;
use limits::{Limits, Memory};
use prefixes::Prefixes;
use seats::Seats;
use served::{Numbers, Snapshot};

/// What a machine is told when it asks for the server's version.
const SOFTWARE: &str = concat!("iop-miner/", env!("CARGO_PKG_VERSION"));

/// Whom machines may be, and how hard their shares are.
#[derive(Clone, Debug)]
pub struct GatewaySettings {
    /// Where machines connect.
    pub listen: SocketAddr,
    /// Difficulty of a machine's first job.
    pub start_difficulty: Difficulty,
    /// Least difficulty that a machine gets, but for jobs whose upstream wants still easier shares.
    pub min_difficulty: Difficulty,
    /// Machines at a time.
    pub max_machines: usize,
    /// How the upstream's extranonces are cut for them.
    pub split: Split,
    /// Machines at a time from one address, loopback excepted.
    pub max_per_address: usize,
    /// Of connections.
    pub limits: Limits,
}

/// Where the work comes from, and what mines beside the machines.
#[derive(Clone, Debug)]
pub enum Source {
    /// Pools.
    Pool(Box<MineSettings>),
    /// The license holder's own nodes.
    Node(Box<SoloSettings>),
}

/// What `gateway` needs to know, validated.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The machines' side.
    pub gateway: GatewaySettings,
    /// The other side.
    pub source: Source,
}

/// How long machines may hold up the end: each has a second to read that we will be back, and to send what it has found.
const END_TIME: Duration = Duration::from_secs(2);
/// Between two lines in the log on what machines did.
const STATUS_EVERY: Duration = Duration::from_secs(60);

/// What all connections share.
#[derive(Debug)]
pub struct Shared {
    /// Start and least.
    pub settings: GatewaySettings,
    /// Connections and names.
    pub seats: Arc<Seats>,
    /// Parts of the extranonce2.
    pub prefixes: Arc<Prefixes>,
    /// Addresses that may not come in.
    pub bans: Bans,
    /// For shares of machines.
    pub memory: Arc<Memory>,
    /// Of jobs.
    pub numbers: Arc<Numbers>,
    /// The job at hand.
    pub snapshots: watch::Receiver<Arc<Snapshot>>,
    /// Where machines' counters are listed.
    pub stats: Arc<Stats>,
    /// Where shares for the upstream go in.
    pub shares: mpsc::Sender<Share>,
    /// Shares that machines were credited: answered with true.
    pub taken: AtomicU64,
    /// Those among them that met the upstream's target, and went up.
    pub passed: AtomicU64,
    /// Shares that went up besides: refused to the machine as stale, but who decides on that is the upstream.
    pub late: AtomicU64,
    /// What machines can make us log.
    pub words: Rarely,
}

impl Shared {
    /// Without any machine.
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

    /// Counts what an address did, and says so if that bans it.
    pub fn offend(&self, ip: IpAddr, offence: Offence) {
        if let Some(time) = self.bans.offend(ip, offence, Instant::now()) {
            info!("{ip} is banned for {} s, the last of its offences: {offence:?}", time.as_secs());
        }
    }
}

/// Serves machines until the process is asked to end (Ctrl-C, SIGTERM or SIGHUP).
///
/// # Errors
/// When the address cannot be listened at, and those of [`mine::run`] or [`solo::run`].
pub fn run(settings: Settings) -> io::Result<()> {
    let Settings { gateway, source } = settings;
    match source {
        Source::Pool(pool) => {
            let (devices, mut pool) = (pool.rig.devices.clone(), pool);
            // What suits this CPU is far too little for machines.
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

/// Lets machines work beside the devices of a rig.
///
/// # Errors
/// When the address cannot be listened at.
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
            let _ = end.await; // it comes when the last machine is gone
            all_taken(&shares).await;
        };
        if timeout(END_TIME, all_up).await.is_err() {
            warn_of_rest(waiting(&shares), END_TIME);
        }
    });
    Ok(())
}

/// Serves machines until `stop` comes; then tells them, and drops `ended` when all are gone.
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

/// Logs again and again what machines do, where anything has changed.
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

/// What the line of status says, counted since the gateway's start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Figures {
    /// Connections now.
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
