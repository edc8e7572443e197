//! The task that owns the protocol's state and all connections.
//!
//! Lives here: the event loop, listening and dialling, carrying out actions, answering the handle. Does not live
//! here: what a message does (`net.rs`), sockets (`connection.rs`). Each peer's messages wait in its inbox and are
//! taken in turns, one per peer, so that no peer holds up the others; the messages of a peer that does not read
//! wait until it does.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use iop_consensus::params::Params;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{debug, warn};

use super::addresses::local::Reason;
use super::addresses::{file, seeds};
use super::connection::{self, Event, Link, Meter};
use super::handle::{AddedPeer, COMMANDS, Command, Counters, NetHandle, PeerInfo, Which};
use super::link::{ChainLink, Permit, news};
use super::message::Message;
use super::net::{Action, FromChain, Net};
use super::peer::{Micros, Origin, Peer, PeerId, SECOND};
use super::random::Random;
use super::score::Bans;
use super::slots::{MAX_INBOUND, MAX_OUTBOUND};
use crate::chain::actor::ChainHandle;
use crate::chain::events::ChainEvent;
use crate::chain::options::Options;

mod dial;
mod report;

/// How often the protocol's timers are run.
const TICK: Duration = Duration::from_millis(100);
/// Maximum number of events taken at once.
const BATCH: usize = 128;
/// Timeout of a connection attempt (`DEFAULT_CONNECT_TIMEOUT`).
const DIAL_TIME: Duration = Duration::from_secs(5);
/// Interval between dials of outbound peers.
const DIAL_EVERY: Micros = SECOND / 2;
/// A manual peer is dialled again after a second, then with increasing delays up to this.
const MAX_BACKOFF: Micros = 60 * SECOND;
/// Mean seconds between feelers (`FEELER_INTERVAL`).
const FEELER_EVERY: f64 = 120.0;
/// If addresses are known, DNS seeds are queried only after this.
const SEEDS_AFTER: Duration = Duration::from_secs(11);
/// While there are no peers, DNS seeds are queried again after this, with increasing delays up to `SEEDS_SELDOM`.
const SEEDS_AGAIN: Duration = Duration::from_secs(60);
const SEEDS_SELDOM: Duration = Duration::from_secs(60 * 60);
/// Interval between writes of the address table (`DUMP_ADDRESSES_INTERVAL`).
const SAVE_EVERY: Micros = 15 * 60 * SECOND;
/// Interval between checks for extra outbound peers (`EXTRA_PEER_CHECK_INTERVAL`).
const EXTRA_EVERY: Micros = 45 * SECOND;
/// Files in the data directory.
const PEERS_FILE: &str = "peers.dat";
const BANS_FILE: &str = "bans.txt";

/// Configuration of the network.
pub(crate) struct Config {
    /// The socket that peers connect to.
    pub(crate) listener: Option<std::net::TcpListener>,
    /// If not empty, the only peers to connect to.
    pub(crate) connect: Vec<String>,
    /// Peers to connect to besides the chosen ones.
    pub(crate) add: Vec<String>,
    /// Whether DNS seeds may be queried.
    pub(crate) dns_seed: bool,
    pub(crate) datadir: PathBuf,
    /// Two of these matter here: no block is requested before the best chain has the minimum work, and a pruned
    /// node does not offer the whole chain.
    pub(crate) chain: Options,
}

/// A peer that the operator named.
struct Named {
    name: String,
    /// From `--add-peer` or `addnode add`: listed, and removable.
    added: bool,
    next: Micros,
    backoff: Micros,
    dialling: bool,
    /// A failure is in the log, and it was not connected since.
    warned: bool,
}

/// The result of a dial.
struct Dialled {
    origin: Origin,
    name: Option<String>,
    address: Option<SocketAddr>,
    outcome: std::io::Result<TcpStream>,
}

/// Messages from other tasks to the manager.
enum Inner {
    Dialled(Dialled),
    Seeds(seeds::Answer),
    AskSeeds,
}

struct Manager {
    params: Arc<Params>,
    net: Net,
    links: BTreeMap<PeerId, Link>,
    inboxes: HashMap<PeerId, VecDeque<(Message, Permit)>>,
    chain: ChainLink,
    bans: Bans,
    counters: Arc<Counters>,
    events: mpsc::UnboundedSender<Event>,
    inner: mpsc::UnboundedSender<Inner>,
    only_named: bool,
    dns_seed: bool,
    seeds_wait: Duration,
    named: Vec<Named>,
    dialling: HashSet<SocketAddr>,
    random: Random,
    next_id: u64,
    next_dial: Micros,
    next_feeler: Micros,
    next_save: Micros,
    next_extra: Micros,
    datadir: PathBuf,
}

/// The receivers of the event loop.
struct Ends {
    events: mpsc::UnboundedReceiver<Event>,
    inner: mpsc::UnboundedReceiver<Inner>,
    answers: mpsc::UnboundedReceiver<FromChain>,
    chain: broadcast::Receiver<ChainEvent>,
    commands: mpsc::Receiver<Command>,
    listener: Option<TcpListener>,
}

/// The monotonic clock of all timers: starts at the wall clock's time and is not affected by changes to that.
fn now() -> Micros {
    static START: LazyLock<(Instant, Micros)> = LazyLock::new(|| (Instant::now(), wall() * SECOND));
    let (start, time) = *START;
    time + start.elapsed().as_micros() as Micros
}

/// The wall clock: seconds since 1970.
fn wall() -> u64 {
    crate::chain::clock::now()
}

/// Starts the network; it ends when `shutdown` becomes true.
///
/// # Errors
/// When the chain has ended or the listener cannot be used.
pub(crate) async fn start(
    config: Config,
    params: Arc<Params>,
    chain: ChainHandle,
    shutdown: watch::Receiver<bool>,
) -> std::io::Result<(NetHandle, JoinHandle<()>)> {
    let (events_tx, events) = mpsc::unbounded_channel();
    let (inner_tx, inner) = mpsc::unbounded_channel();
    let (answers_tx, answers) = mpsc::unbounded_channel();
    let (commands_tx, commands) = mpsc::channel(COMMANDS);
    let chain_events = chain.events();
    let link = ChainLink::start(chain, answers_tx);
    let snapshot = link.snapshot().await.map_err(|_| std::io::Error::other("the chain has ended"))?;
    let (table, trouble) = open_table(&config.datadir, params.magic);
    if let Some(trouble) = trouble {
        warn!("{PEERS_FILE} {trouble}: it begins anew");
    }
    let mut net = Net::new(params.clone(), snapshot.tree, table);
    net.configure(&config.chain);
    net.set_wall_clock(now(), wall());
    net.pool_grew(snapshot.pool, 0);
    let listener = config.listener.map(TcpListener::from_std).transpose()?;
    let listening = listener.as_ref().map(TcpListener::local_addr).transpose()?;
    if let Some(address) = listening {
        net.listen(address);
    }
    let own = net.own_txs.clone();
    let counters = Arc::new(Counters::default());
    counters.services.store(net.services(), Ordering::Relaxed);
    let only_named = !config.connect.is_empty();
    let names = config.connect.into_iter().map(|name| (name, false));
    let names = names.chain(config.add.into_iter().map(|name| (name, true)));
    let named = names.map(|(name, added)| Named::new(name, added)).collect();
    let manager = Manager {
        net,
        links: BTreeMap::new(),
        inboxes: HashMap::new(),
        chain: link,
        bans: Bans::load(config.datadir.join(BANS_FILE), wall()),
        counters: counters.clone(),
        events: events_tx,
        inner: inner_tx,
        only_named,
        dns_seed: config.dns_seed && !only_named && !params.dns_seeds.is_empty(),
        seeds_wait: SEEDS_AGAIN,
        params,
        named,
        dialling: HashSet::new(),
        random: Random::new(),
        next_id: 0,
        next_dial: 0,
        next_feeler: 0,
        next_save: now() + SAVE_EVERY,
        next_extra: 0,
        datadir: config.datadir,
    };
    let ends = Ends { events, inner, answers, chain: chain_events, commands, listener };
    let task = tokio::spawn(manager.run(ends, shutdown));
    Ok((NetHandle::new(commands_tx, counters, listening, own), task))
}

fn open_table(
    datadir: &std::path::Path,
    magic: [u8; 4],
) -> (super::addresses::table::AddressTable, Option<file::PeersFileError>) {
    let mut seed = [0; 32];
    // Without random numbers the table's layout is predictable; everything else works.
    let _ = getrandom::fill(&mut seed);
    file::open(&datadir.join(PEERS_FILE), magic, seed)
}

impl Named {
    fn new(name: String, added: bool) -> Self {
        Self { name, added, next: 0, backoff: SECOND, dialling: false, warned: false }
    }
}

impl Manager {
    async fn run(mut self, mut ends: Ends, mut shutdown: watch::Receiver<bool>) {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.prepare_seeds();
        let (mut events, mut answers) = (Vec::with_capacity(BATCH), Vec::with_capacity(BATCH));
        loop {
            let more = self.has_work();
            tokio::select! {
                biased;
                () = stopped(&mut shutdown) => break,
                // Before anything that peers can cause: no flood may stop the clock.
                _ = ticks.tick() => self.tick(),
                _ = ends.answers.recv_many(&mut answers, BATCH) => self.take_answers(&mut answers),
                event = ends.chain.recv() => if !self.take_chain_event(event, &mut ends.chain).await { break },
                Some(command) = ends.commands.recv() => self.command(command),
                Some(inner) = ends.inner.recv() => self.take_inner(inner),
                accepted = accept(ends.listener.as_ref()) => self.accepted(accepted),
                _ = ends.events.recv_many(&mut events, BATCH) => {
                    events.drain(..).for_each(|event| self.take_event(event));
                }
                () = std::future::ready(()), if more => {}
            }
            self.net.set_wall_clock(now(), wall());
            self.take_turns();
            self.net.flush(now());
            self.act(&None);
            self.counters.connections.store(self.links.len(), Ordering::Relaxed);
            self.counters.time_offset.store(self.net.time_offset(), Ordering::Relaxed);
            self.chain.correct_clock(self.net.time_offset());
        }
        self.save();
        debug!("the network has ended");
    }

    fn has_work(&self) -> bool {
        self.inboxes.keys().any(|id| self.may_take_turn(*id))
    }

    /// Whether a peer has a message that can be taken now, and reads what it is sent.
    fn may_take_turn(&self, id: PeerId) -> bool {
        let next = self.inboxes.get(&id).and_then(VecDeque::front);
        next.is_some_and(|(message, _)| !self.net.must_wait(id, message))
            && self.links.get(&id).is_some_and(|link| !link.is_congested())
    }

    /// Takes one message from each peer that has one and reads what it is sent.
    fn take_turns(&mut self) {
        let ids: Vec<PeerId> = self.inboxes.keys().copied().collect();
        for id in ids {
            if !self.may_take_turn(id) {
                continue;
            }
            let Some((message, permit)) = self.inboxes.get_mut(&id).and_then(VecDeque::pop_front) else {
                continue;
            };
            self.net.message(id, message, now());
            self.act(&permit);
        }
    }

    fn take_answers(&mut self, answers: &mut Vec<FromChain>) {
        for answer in answers.drain(..) {
            self.net.chain_says(answer, now());
            self.act(&None);
        }
    }

    /// Returns `false` when the chain has ended.
    async fn take_chain_event(
        &mut self,
        event: Result<ChainEvent, broadcast::error::RecvError>,
        events: &mut broadcast::Receiver<ChainEvent>,
    ) -> bool {
        match event {
            Ok(event) => {
                self.net.chain_says(news(event), now());
                while let Ok(event) = events.try_recv() {
                    self.net.chain_says(news(event), now());
                }
            }
            Err(broadcast::error::RecvError::Lagged(missed)) => {
                debug!(missed, "the chain was quicker: its state is read anew");
                match self.chain.snapshot().await {
                    Ok(snapshot) => self.net.resync(snapshot.tree, snapshot.pool, now()),
                    Err(_) => return false,
                }
            }
            Err(broadcast::error::RecvError::Closed) => return false,
        }
        true
    }

    fn take_event(&mut self, event: Event) {
        match event {
            Event::Message(id, message, permit) => {
                if let Some(inbox) = self.inboxes.get_mut(&id) {
                    inbox.push_back((message, Some(permit)));
                }
            }
            Event::Malformed(id, name, why, points, _permit) => {
                self.net.malformed(id, &name, &why, points, now());
            }
            Event::Drained(id) => self.net.set_congested(id, false, now()),
            Event::Closed(id, why) => self.closed(id, &why),
        }
        self.act(&None);
    }

    fn closed(&mut self, id: PeerId, why: &str) {
        if self.links.remove(&id).is_some() {
            debug!(peer = id.0, "connection ended: {why}");
        }
        self.inboxes.remove(&id);
        self.net.closed(id, now());
    }

    fn tick(&mut self) {
        let time = now();
        self.net.tick(time);
        self.act(&None);
        self.dial_named(time);
        if !self.only_named {
            self.dial_chosen(time);
        }
        if time >= self.next_extra {
            self.next_extra = time + EXTRA_EVERY;
            self.net.drop_extra_outbound(time);
        }
        if time >= self.next_save {
            self.next_save = time + SAVE_EVERY;
            self.save_in_background();
        }
        self.act(&None);
    }

    /// Carries out the protocol's actions; `permit` belongs to the message that caused them.
    fn act(&mut self, permit: &Permit) {
        loop {
            let actions = self.net.take_actions();
            if actions.is_empty() {
                return;
            }
            for action in actions {
                self.carry_out(action, permit);
            }
        }
    }

    fn carry_out(&mut self, action: Action, permit: &Permit) {
        match action {
            Action::Send(id, message) => {
                let Some(link) = self.links.get(&id).filter(|link| !link.is_full()) else { return };
                if !link.send(&message) {
                    self.net.close(id, "it does not read what it asks for");
                } else if link.is_congested() {
                    self.net.set_congested(id, true, now());
                }
            }
            // Dropping the link ends the connection once the queue is written.
            Action::Close(id) => {
                self.inboxes.remove(&id);
                self.links.remove(&id);
                self.net.closed(id, now());
            }
            Action::Ban(address, until) => {
                warn!(address = %address.ip(), "banned for a day");
                self.bans.ban(address.ip(), until, wall());
                self.net.close_all_from(address.ip());
            }
            Action::Ask(question) => self.chain.ask(question, permit.clone()),
        }
    }

    // Connections.

    fn accepted(&mut self, accepted: std::io::Result<(TcpStream, SocketAddr)>) {
        let (stream, address) = match accepted {
            Ok((stream, address)) => (stream, canonical(address)),
            Err(error) => return debug!("a peer could not be taken: {error}"),
        };
        if self.bans.is_banned(address.ip(), wall()) {
            return debug!(%address, "a banned peer was turned away");
        }
        if self.net.has_brought_too_much(address.ip(), now()) {
            return debug!(%address, "a peer of a network that brought too many headers was turned away");
        }
        if self.net.count(Origin::Inbound) >= MAX_INBOUND {
            let Some(id) = self.net.to_evict() else {
                return debug!(%address, "all places are taken");
            };
            self.net.close(id, "its place is needed");
            self.act(&None);
        }
        self.open(stream, address, Origin::Inbound, None);
    }

    fn open(&mut self, stream: TcpStream, address: SocketAddr, origin: Origin, name: Option<String>) {
        let id = PeerId(self.next_id);
        self.next_id += 1;
        let link =
            connection::start(id, stream, self.params.magic, self.events.clone(), self.counters.clone());
        self.links.insert(id, link);
        self.inboxes.insert(id, VecDeque::new());
        self.net.connected(id, address, origin, name, now());
        self.act(&None);
    }

    fn save_in_background(&self) {
        let (path, bytes) = (self.datadir.join(PEERS_FILE), self.net.encode_addresses());
        tokio::task::spawn_blocking(move || save_table(&path, &bytes));
    }

    fn save(&self) {
        save_table(&self.datadir.join(PEERS_FILE), &self.net.encode_addresses());
    }
}

fn save_table(path: &std::path::Path, bytes: &[u8]) {
    if let Err(error) = file::write(path, bytes) {
        warn!("{} cannot be written: {error}", path.display());
    }
}

/// Maps an IPv4 peer on an IPv6 socket to its IPv4 address.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Adds the network's port to a name that has none.
fn with_port(name: &str, port: u16) -> String {
    if name.parse::<SocketAddr>().is_ok() {
        return name.to_owned();
    }
    match name.parse::<std::net::IpAddr>() {
        Ok(ip) => SocketAddr::new(ip, port).to_string(),
        Err(_) if name.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()) => {
            name.to_owned()
        }
        Err(_) => format!("{name}:{port}"),
    }
}

async fn stopped(shutdown: &mut watch::Receiver<bool>) {
    // A dropped sender means the same.
    let _ = shutdown.wait_for(|stop| *stop).await;
}

async fn accept(listener: Option<&TcpListener>) -> std::io::Result<(TcpStream, SocketAddr)> {
    match listener {
        Some(listener) => {
            let accepted = listener.accept().await;
            if accepted.is_err() {
                // Perhaps too many open files, which will not get better at once.
                tokio::time::sleep(TICK).await;
            }
            accepted
        }
        None => std::future::pending().await,
    }
}
