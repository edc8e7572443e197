//! How everyone else reaches the network: the handle that RPC and `run` hold, and what it tells.
//!
//! Lives here: [`NetHandle`], the commands behind it, and the plain data of its answers. Does not live here: the
//! protocol, and any JSON. A question goes: handle -> one channel -> the manager's task -> a one-shot answer;
//! counters are read without asking.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};

use bitcoin::Txid;
use tokio::sync::{mpsc, oneshot};

/// The protocol version that is spoken (`PROTOCOL_VERSION`).
pub const PROTOCOL_VERSION: i32 = 70_015;
/// What the node calls itself to others (BIP14).
pub const USER_AGENT: &str = "/iop-node:0.1.0/";
/// The same as a number, as `getnetworkinfo` has it: 0.1.0 is 10,000.
pub const CLIENT_VERSION: i32 = 10_000;
/// Questions that may wait for the manager; askers beyond it wait for room.
pub(crate) const COMMANDS: usize = 64;

/// One peer, as `getpeerinfo` shows it. Times are seconds since 1970 unless they say otherwise.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PeerInfo {
    /// Its number; never used twice.
    pub id: u64,
    /// Its address and port, or the name it was added under.
    pub addr: String,
    /// Our end of the connection.
    pub addrbind: Option<SocketAddr>,
    /// Our address as the peer sees it.
    pub addrlocal: Option<SocketAddr>,
    /// The services it offers, as bits.
    pub services: u64,
    /// Whether it wants transactions.
    pub relaytxes: bool,
    /// When something was last sent to it; 0 for never.
    pub lastsend: u64,
    /// When something last came from it; 0 for never.
    pub lastrecv: u64,
    /// Bytes sent to it.
    pub bytessent: u64,
    /// Bytes received from it.
    pub bytesrecv: u64,
    /// When it was connected.
    pub conntime: u64,
    /// Its clock less ours, seconds.
    pub timeoffset: i64,
    /// The last ping's way there and back, seconds.
    pub pingtime: Option<f64>,
    /// The fastest of them, seconds.
    pub minping: Option<f64>,
    /// How long a ping has been under way, seconds.
    pub pingwait: Option<f64>,
    /// The protocol version it speaks.
    pub version: i32,
    /// What it calls itself, with only harmless characters left.
    pub subver: String,
    /// Whether it connected to us.
    pub inbound: bool,
    /// Whether somebody named it: `--connect`, `--add-peer`, `addnode`.
    pub addnode: bool,
    /// The height it claimed when it connected.
    pub startingheight: i32,
    /// Points for misbehaviour; 100 end the connection.
    pub banscore: u32,
    /// Height of the best header that it is known to have; -1 for none.
    pub synced_headers: i64,
    /// Height of the last block that both have; -1 for none.
    pub synced_blocks: i64,
    /// Heights of the blocks asked of it.
    pub inflight: Vec<u32>,
    /// Whether it is never punished. Nobody is.
    pub whitelisted: bool,
    /// Bytes sent by message.
    pub bytessent_per_msg: BTreeMap<String, u64>,
    /// Bytes received by message.
    pub bytesrecv_per_msg: BTreeMap<String, u64>,
}

/// A peer that was named by `--add-peer` or `addnode … add`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddedPeer {
    /// As it was named.
    pub name: String,
    /// The address it is connected at, and whether it connected to us; `None` while it is not.
    pub connected: Option<(SocketAddr, bool)>,
}

/// All bytes since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Totals {
    /// Received.
    pub received: u64,
    /// Sent.
    pub sent: u64,
}

/// What the node is to others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalInfo {
    /// [`CLIENT_VERSION`].
    pub version: i32,
    /// [`USER_AGENT`].
    pub subversion: String,
    /// [`PROTOCOL_VERSION`].
    pub protocol_version: i32,
    /// The services offered, as bits.
    pub services: u64,
    /// Whether transactions are relayed.
    pub relay: bool,
    /// The median of the peers' clocks less ours, seconds.
    pub time_offset: i64,
    /// Where peers can connect to; `None` with `--no-listen`.
    pub listening: Option<SocketAddr>,
}

/// Which peer to disconnect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    /// By its number.
    Id(u64),
    /// By its address and port, as `getpeerinfo` shows it.
    Address(String),
}

/// The network has ended, because the node stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NetStopped;

/// What is asked of the manager.
#[derive(Debug)]
pub(crate) enum Command {
    Peers(oneshot::Sender<Vec<PeerInfo>>),
    Added(oneshot::Sender<Vec<AddedPeer>>),
    Add(String, oneshot::Sender<bool>),
    Remove(String, oneshot::Sender<bool>),
    TryOnce(String),
    Disconnect(Which, oneshot::Sender<bool>),
    PingAll,
    Announce(Txid),
}

/// Counters that are read without asking.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) connections: AtomicUsize,
    pub(crate) received: AtomicU64,
    pub(crate) sent: AtomicU64,
    pub(crate) time_offset: AtomicI64,
    pub(crate) services: AtomicU64,
}

/// How everyone else reaches the network. Cheap to clone.
#[derive(Debug, Clone)]
pub struct NetHandle {
    commands: mpsc::Sender<Command>,
    counters: Arc<Counters>,
    listening: Option<SocketAddr>,
}

impl NetHandle {
    pub(crate) fn new(
        commands: mpsc::Sender<Command>,
        counters: Arc<Counters>,
        listening: Option<SocketAddr>,
    ) -> Self {
        Self { commands, counters, listening }
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, NetStopped> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.map_err(|_| NetStopped)?;
        answer.await.map_err(|_| NetStopped)
    }

    /// All peers, in order of their numbers.
    ///
    /// # Errors
    /// When the node stops.
    pub async fn peers(&self) -> Result<Vec<PeerInfo>, NetStopped> {
        self.ask(Command::Peers).await
    }

    /// How many peers are connected.
    pub fn connection_count(&self) -> usize {
        self.counters.connections.load(Ordering::Relaxed)
    }

    /// The peers that somebody named.
    ///
    /// # Errors
    /// When the node stops.
    pub async fn added(&self) -> Result<Vec<AddedPeer>, NetStopped> {
        self.ask(Command::Added).await
    }

    /// Keeps a connection to this address, or to this name, with or without port; `false` when it was named before.
    ///
    /// # Errors
    /// When the node stops.
    pub async fn add(&self, name: impl Into<String>) -> Result<bool, NetStopped> {
        let name = name.into();
        self.ask(|reply| Command::Add(name, reply)).await
    }

    /// Forgets a named peer; `false` when it was not named. The connection stays, as in the reference.
    ///
    /// # Errors
    /// When the node stops.
    pub async fn remove(&self, name: impl Into<String>) -> Result<bool, NetStopped> {
        let name = name.into();
        self.ask(|reply| Command::Remove(name, reply)).await
    }

    /// Tries to connect once.
    ///
    /// # Errors
    /// When the node stops.
    pub async fn try_once(&self, name: impl Into<String>) -> Result<(), NetStopped> {
        self.commands.send(Command::TryOnce(name.into())).await.map_err(|_| NetStopped)
    }

    /// Ends a connection; `false` when there is none such.
    ///
    /// # Errors
    /// When the node stops.
    pub async fn disconnect(&self, which: Which) -> Result<bool, NetStopped> {
        self.ask(|reply| Command::Disconnect(which, reply)).await
    }

    /// Sends every peer a ping.
    ///
    /// # Errors
    /// When the node stops.
    pub async fn ping_all(&self) -> Result<(), NetStopped> {
        self.commands.send(Command::PingAll).await.map_err(|_| NetStopped)
    }

    /// Announces a transaction that was sent at this node to all who may not have it, now and when they connect, until a
    /// block has it.
    ///
    /// # Errors
    /// When the node stops.
    pub async fn announce(&self, txid: Txid) -> Result<(), NetStopped> {
        self.commands.send(Command::Announce(txid)).await.map_err(|_| NetStopped)
    }

    /// All bytes since the start.
    pub fn totals(&self) -> Totals {
        Totals {
            received: self.counters.received.load(Ordering::Relaxed),
            sent: self.counters.sent.load(Ordering::Relaxed),
        }
    }

    /// The median of the peers' clocks less ours, seconds (`GetTimeOffset`).
    pub fn time_offset(&self) -> i64 {
        self.counters.time_offset.load(Ordering::Relaxed)
    }

    /// What the node is to others.
    pub fn info(&self) -> LocalInfo {
        LocalInfo {
            version: CLIENT_VERSION,
            subversion: USER_AGENT.to_owned(),
            protocol_version: PROTOCOL_VERSION,
            services: self.counters.services.load(Ordering::Relaxed),
            relay: true,
            time_offset: self.time_offset(),
            listening: self.listening,
        }
    }
}
