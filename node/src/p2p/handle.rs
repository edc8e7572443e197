//! The handle through which RPC and `run` reach the network.
//!
//! Lives here: [`NetHandle`], its commands, and the plain data of its answers. Does not live here: the protocol,
//! and any JSON. A query goes: handle -> one channel -> the manager's task -> a one-shot answer; counters are read
//! directly.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};

use bitcoin::Txid;
use tokio::sync::{mpsc, oneshot};

use super::tell::Own;

/// The protocol version (`PROTOCOL_VERSION`).
pub const PROTOCOL_VERSION: i32 = 70_015;
/// The user agent that the node sends (BIP14).
pub const USER_AGENT: &str = "/iop-node:0.1.0/";
/// The version as a number, for `getnetworkinfo`: 0.1.0 is 10,000.
pub const CLIENT_VERSION: i32 = 10_000;
/// Capacity of the command queue; when it is full, callers wait.
pub(crate) const COMMANDS: usize = 64;

/// One peer, as `getpeerinfo` shows it. Times are seconds since 1970 unless stated otherwise.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PeerInfo {
    /// Its id; never reused.
    pub id: u64,
    /// Its address and port, or the name that it was added by.
    pub addr: String,
    /// The local address of the connection.
    pub addrbind: Option<SocketAddr>,
    /// Our address as the peer sees it.
    pub addrlocal: Option<SocketAddr>,
    /// The services it offers, as a bit field.
    pub services: u64,
    /// Whether it wants transactions relayed.
    pub relaytxes: bool,
    /// When data was last sent to it; 0 for never.
    pub lastsend: u64,
    /// When data was last received from it; 0 for never.
    pub lastrecv: u64,
    /// Bytes sent to it.
    pub bytessent: u64,
    /// Bytes received from it.
    pub bytesrecv: u64,
    /// When it was connected.
    pub conntime: u64,
    /// Its clock minus ours, seconds.
    pub timeoffset: i64,
    /// Round-trip time of the last ping, seconds.
    pub pingtime: Option<f64>,
    /// The shortest round-trip time, seconds.
    pub minping: Option<f64>,
    /// How long the current ping has been waiting for its pong, seconds.
    pub pingwait: Option<f64>,
    /// Its protocol version.
    pub version: i32,
    /// Its user agent, reduced to harmless characters.
    pub subver: String,
    /// Whether it connected to us.
    pub inbound: bool,
    /// Whether the operator named it: `--connect`, `--add-peer`, `addnode`.
    pub addnode: bool,
    /// The height it claimed in its version message.
    pub startingheight: i32,
    /// Misbehaviour points; at 100 the connection ends.
    pub banscore: u32,
    /// Height of the best header it is known to have; -1 for none.
    pub synced_headers: i64,
    /// Height of the last block in common; -1 for none.
    pub synced_blocks: i64,
    /// Heights of the blocks requested from it.
    pub inflight: Vec<u32>,
    /// Whether it is never punished; always false.
    pub whitelisted: bool,
    /// Bytes sent, by message name.
    pub bytessent_per_msg: BTreeMap<String, u64>,
    /// Bytes received, by message name.
    pub bytesrecv_per_msg: BTreeMap<String, u64>,
}

/// A peer that was added by `--add-peer` or `addnode … add`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddedPeer {
    /// The name as given.
    pub name: String,
    /// The connected address, and whether the connection is inbound; `None` if not connected.
    pub connected: Option<(SocketAddr, bool)>,
}

/// Traffic since the start, bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Totals {
    /// Bytes received.
    pub received: u64,
    /// Bytes sent.
    pub sent: u64,
}

/// The node as peers see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalInfo {
    /// [`CLIENT_VERSION`].
    pub version: i32,
    /// [`USER_AGENT`].
    pub subversion: String,
    /// [`PROTOCOL_VERSION`].
    pub protocol_version: i32,
    /// The services offered, as a bit field.
    pub services: u64,
    /// Whether transactions are relayed.
    pub relay: bool,
    /// The median of the peers' clocks minus ours, seconds.
    pub time_offset: i64,
    /// The address that peers can connect to; `None` with `--no-listen`.
    pub listening: Option<SocketAddr>,
}

/// Which peer to disconnect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    /// By its id.
    Id(u64),
    /// By its address and port, as `getpeerinfo` shows it.
    Address(String),
}

/// The network has ended because the node is stopping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NetStopped;

/// A command for the manager.
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

/// Counters that are read without a command.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) connections: AtomicUsize,
    pub(crate) received: AtomicU64,
    pub(crate) sent: AtomicU64,
    pub(crate) time_offset: AtomicI64,
    pub(crate) services: AtomicU64,
}

/// The handle through which other tasks reach the network. Cheap to clone.
#[derive(Debug, Clone)]
pub struct NetHandle {
    commands: mpsc::Sender<Command>,
    counters: Arc<Counters>,
    listening: Option<SocketAddr>,
    own: Own,
}

impl NetHandle {
    pub(crate) fn new(
        commands: mpsc::Sender<Command>,
        counters: Arc<Counters>,
        listening: Option<SocketAddr>,
        own: Own,
    ) -> Self {
        Self { commands, counters, listening, own }
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, NetStopped> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.map_err(|_| NetStopped)?;
        answer.await.map_err(|_| NetStopped)
    }

    /// All peers, ordered by id.
    ///
    /// # Errors
    /// When the node is stopping.
    pub async fn peers(&self) -> Result<Vec<PeerInfo>, NetStopped> {
        self.ask(Command::Peers).await
    }

    /// Number of connected peers.
    pub fn connection_count(&self) -> usize {
        self.counters.connections.load(Ordering::Relaxed)
    }

    /// The peers that the operator added.
    ///
    /// # Errors
    /// When the node is stopping.
    pub async fn added(&self) -> Result<Vec<AddedPeer>, NetStopped> {
        self.ask(Command::Added).await
    }

    /// Adds a peer by address or name, with or without port, and keeps a connection to it; `false` if it was added
    /// before.
    ///
    /// # Errors
    /// When the node is stopping.
    pub async fn add(&self, name: impl Into<String>) -> Result<bool, NetStopped> {
        let name = name.into();
        self.ask(|reply| Command::Add(name, reply)).await
    }

    /// Removes an added peer; `false` if it was not added. The connection stays, as in the reference.
    ///
    /// # Errors
    /// When the node is stopping.
    pub async fn remove(&self, name: impl Into<String>) -> Result<bool, NetStopped> {
        let name = name.into();
        self.ask(|reply| Command::Remove(name, reply)).await
    }

    /// Tries to connect once.
    ///
    /// # Errors
    /// When the node is stopping.
    pub async fn try_once(&self, name: impl Into<String>) -> Result<(), NetStopped> {
        self.commands.send(Command::TryOnce(name.into())).await.map_err(|_| NetStopped)
    }

    /// Ends a connection; `false` if there is no such peer.
    ///
    /// # Errors
    /// When the node is stopping.
    pub async fn disconnect(&self, which: Which) -> Result<bool, NetStopped> {
        self.ask(|reply| Command::Disconnect(which, reply)).await
    }

    /// Sends a ping to every peer.
    ///
    /// # Errors
    /// When the node is stopping.
    pub async fn ping_all(&self) -> Result<(), NetStopped> {
        self.commands.send(Command::PingAll).await.map_err(|_| NetStopped)
    }

    /// Announces a transaction that was sent at this node to every peer that may not have it; also to peers that connect
    /// later, until one has fetched it.
    ///
    /// # Errors
    /// When the node is stopping.
    pub async fn announce(&self, txid: Txid) -> Result<(), NetStopped> {
        self.commands.send(Command::Announce(txid)).await.map_err(|_| NetStopped)
    }

    /// The transactions that were sent at this node and that no peer has fetched, oldest first. Also answers after
    /// the network has ended.
    pub(crate) fn sent_here(&self) -> Vec<Txid> {
        self.own.list()
    }

    /// All bytes since the start.
    pub fn totals(&self) -> Totals {
        Totals {
            received: self.counters.received.load(Ordering::Relaxed),
            sent: self.counters.sent.load(Ordering::Relaxed),
        }
    }

    /// The median of the peers' clocks minus ours, seconds (`GetTimeOffset`).
    pub fn time_offset(&self) -> i64 {
        self.counters.time_offset.load(Ordering::Relaxed)
    }

    /// The node as peers see it.
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
