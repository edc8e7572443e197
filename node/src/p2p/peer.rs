//! The state of one peer.
//!
//! Lives here: [`Peer`], the protocol's state of a connection, and the small bounded caches in it. Does not live
//! here: what is done with it (`net.rs` and its siblings), sockets and byte counts (`connection.rs`). Times are
//! microseconds since 1970.

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

use bitcoin::{BlockHash, Txid};

use super::addresses::ip::{NetAddress, TimedAddress};
use super::compact::{self, BlockTransactionsRequest, CompactBlock};
use super::message::{Inv, NODE_NETWORK, NODE_WITNESS};
use super::random::Random;
use super::tell::Rank;
use super::tree::NodeId;

/// Microseconds since 1970.
pub(crate) type Micros = u64;
/// One second.
pub(crate) const SECOND: Micros = 1_000_000;

/// Id of a connection; never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct PeerId(pub(crate) u64);

/// How a connection was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The peer connected to us.
    Inbound,
    /// We chose the peer from the address table.
    Outbound,
    /// The operator named it: `--connect`, `--add-peer`, `addnode`. It is sent rejects but never punished.
    Manual,
    /// A test connection to see whether a node is reachable.
    Feeler,
}

/// Transactions remembered as known to a peer: 8,000 to 16,000 keys, at most 0.3 MB.
const KNOWN_TXS: usize = 8_000;
/// Addresses remembered as known to a peer.
const KNOWN_ADDRESSES: usize = 2_500;

/// A cache of what a peer knows: two generations of short keys; the older is dropped when the newer is full. So it
/// remembers at least the last `GENERATION` keys and at most twice as many.
#[derive(Debug, Default)]
pub(crate) struct Known<const GENERATION: usize> {
    newer: HashSet<u64>,
    older: HashSet<u64>,
}

impl<const GENERATION: usize> Known<GENERATION> {
    /// Adds a key; `false` if it was present.
    pub(crate) fn insert(&mut self, key: u64) -> bool {
        if self.contains(key) {
            return false;
        }
        if self.newer.len() >= GENERATION {
            self.older = std::mem::take(&mut self.newer);
        }
        self.newer.insert(key)
    }

    pub(crate) fn contains(&self, key: u64) -> bool {
        self.newer.contains(&key) || self.older.contains(&key)
    }

    pub(crate) fn clear(&mut self) {
        self.newer.clear();
        self.older.clear();
    }
}

/// The key of a transaction in a [`Known`]: ids are hashes, so any eight bytes will do.
pub(crate) fn txid_key(txid: &Txid) -> u64 {
    let bytes: &[u8; 32] = txid.as_ref();
    u64::from_le_bytes(bytes[..8].try_into().expect("eight of 32 bytes"))
}

/// The key of an address in a [`Known`].
pub(crate) fn address_key(address: &NetAddress) -> u64 {
    use std::hash::{BuildHasher, RandomState};
    static STATE: std::sync::LazyLock<RandomState> = std::sync::LazyLock::new(RandomState::new);
    STATE.hash_one(address)
}

/// The ping state of a connection.
#[derive(Debug, Default)]
pub(crate) struct Ping {
    /// The nonce of the awaited pong, and since when.
    pub(crate) awaited: Option<(u64, Micros)>,
    /// When the last one was sent.
    pub(crate) sent: Micros,
    /// Whether a ping was requested.
    pub(crate) wanted: bool,
    /// The last round-trip time.
    pub(crate) last: Option<Micros>,
    /// The shortest round-trip time.
    pub(crate) fastest: Option<Micros>,
}

/// Whether an outbound peer's chain keeps up with ours (`ChainSyncTimeoutState`).
#[derive(Debug, Default)]
pub(crate) struct ChainSync {
    /// When to send getheaders, and later when to disconnect.
    pub(crate) timeout: Option<Micros>,
    /// The block whose work the peer's chain should have.
    pub(crate) work_header: Option<NodeId>,
    pub(crate) asked: bool,
    /// Its chain was once as good as ours, so it is not disconnected.
    pub(crate) protected: bool,
}

/// Something that a peer requested.
#[derive(Debug)]
pub(crate) enum Wanted {
    /// A block or transaction.
    Inv(Inv),
    /// Some of a block's transactions.
    Parts(BlockTransactionsRequest),
}

/// What its version message told.
#[derive(Debug)]
pub(crate) struct Version {
    /// The protocol's version; 0 until the message has come.
    pub(crate) number: i32,
    pub(crate) services: u64,
    pub(crate) user_agent: String,
    pub(crate) start_height: i32,
    pub(crate) wants_txs: bool,
    pub(crate) time_offset: i64,
    pub(crate) our_address: Option<SocketAddr>,
}

impl Default for Version {
    fn default() -> Self {
        Self {
            number: 0,
            services: 0,
            user_agent: String::new(),
            start_height: -1,
            wants_txs: false,
            time_offset: 0,
            our_address: None,
        }
    }
}

/// Headers and blocks from it (`sync.rs`, `blocks.rs`).
#[derive(Debug, Default)]
pub(crate) struct SyncState {
    pub(crate) best_known: Option<NodeId>,
    pub(crate) last_unknown: Option<BlockHash>,
    pub(crate) last_common: Option<NodeId>,
    pub(crate) unconnecting: u32,
    pub(crate) started: bool,
    pub(crate) headers_timeout: Option<Micros>,
    /// More headers are available but were not requested, since too many have no block yet.
    pub(crate) more_headers: bool,
    /// When its last full headers message arrived; `None` unless more were requested and are outstanding.
    pub(crate) headers_coming: Option<Micros>,
    pub(crate) in_flight: VecDeque<BlockHash>,
    pub(crate) downloading_since: Micros,
    pub(crate) stalling_since: Option<Micros>,
    pub(crate) chain_sync: ChainSync,
    pub(crate) last_announcement: Micros,
    pub(crate) last_block: Micros,
    /// It sends compact blocks of the kind that we ask for.
    pub(crate) gives_compact: bool,
    /// A compact block whose header the chain is judging.
    pub(crate) pending_compact: Option<Arc<CompactBlock>>,
    /// Blocks of which it sent a bad copy, with the time; the latest ones.
    pub(crate) spoiled: Vec<(BlockHash, Micros)>,
}

/// Blocks to it (`announce.rs`, `serve.rs`).
#[derive(Debug, Default)]
pub(crate) struct Blocks {
    pub(crate) best_sent: Option<NodeId>,
    pub(crate) prefers_headers: bool,
    /// It wants new blocks unrequested as compact blocks (high-bandwidth mode).
    pub(crate) prefers_compact: bool,
    /// The compact block version that it understands.
    pub(crate) compact_version: Option<compact::Version>,
    pub(crate) announce: Vec<NodeId>,
    pub(crate) continue_at: Option<BlockHash>,
    /// What it requested, transactions among it.
    pub(crate) getdata: VecDeque<Wanted>,
    /// A block is being read for it.
    pub(crate) serving: bool,
    /// It reads slowly: nothing more is produced for it now.
    pub(crate) congested: bool,
}

/// Transactions (`relay.rs`, `tell.rs`).
#[derive(Debug, Default)]
pub(crate) struct Txs {
    /// Number of its transactions that the chain is judging.
    pub(crate) judging: usize,
    pub(crate) known: Known<KNOWN_TXS>,
    /// To be announced to it. Ordered, so that taking the next few costs the same however many wait.
    pub(crate) queued: BTreeSet<Rank>,
    /// A block has changed the order of what is queued.
    pub(crate) outdated: bool,
    pub(crate) next_inv: Micros,
    pub(crate) wants_mempool: bool,
    pub(crate) saw_mempool: bool,
    /// Base units per 1,000 virtual bytes.
    pub(crate) fee_filter: u64,
    pub(crate) sent_fee_filter: u64,
    pub(crate) next_fee_filter: Micros,
    /// Transactions that it announced and that have not arrived.
    pub(crate) announced: usize,
    /// When it last sent a transaction that was accepted.
    pub(crate) last_accepted: Micros,
}

/// Addresses of other nodes (`gossip.rs`).
#[derive(Debug, Default)]
pub(crate) struct Gossip {
    pub(crate) known: Known<KNOWN_ADDRESSES>,
    /// To be sent to it.
    pub(crate) queued: Vec<TimedAddress>,
    pub(crate) next: Micros,
    pub(crate) next_own: Micros,
    pub(crate) answered_getaddr: bool,
    pub(crate) asked_getaddr: bool,
}

/// One peer.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    /// The name that it was added by, if any.
    pub(crate) name: Option<String>,
    pub(crate) origin: Origin,
    pub(crate) connected: Micros,
    pub(crate) last_received: Micros,
    /// The nonce of our version message.
    pub(crate) nonce: u64,
    /// Its verack arrived: any message may be sent.
    pub(crate) established: bool,
    pub(crate) ping: Ping,
    pub(crate) score: u32,
    /// It is being disconnected.
    pub(crate) closing: bool,
    pub(crate) version: Version,
    pub(crate) sync: SyncState,
    pub(crate) blocks: Blocks,
    pub(crate) txs: Txs,
    pub(crate) gossip: Gossip,
}

impl Peer {
    pub(crate) fn new(address: SocketAddr, origin: Origin, now: Micros, random: &mut Random) -> Self {
        Self {
            address,
            name: None,
            origin,
            connected: now,
            last_received: 0,
            nonce: random.next(),
            established: false,
            ping: Ping::default(),
            score: 0,
            closing: false,
            version: Version::default(),
            sync: SyncState::default(),
            blocks: Blocks::default(),
            txs: Txs::default(),
            gossip: Gossip::default(),
        }
    }

    pub(crate) fn inbound(&self) -> bool {
        self.origin == Origin::Inbound
    }

    /// It does not serve the whole chain (`fClient`).
    pub(crate) fn is_client(&self) -> bool {
        self.version.services & NODE_NETWORK == 0
    }

    pub(crate) fn gives_witness(&self) -> bool {
        self.version.services & NODE_WITNESS != 0
    }

    /// It is preferred for requesting blocks and headers (`fPreferredDownload`).
    pub(crate) fn is_preferred(&self) -> bool {
        self.established
            && matches!(self.origin, Origin::Outbound | Origin::Manual)
            && !self.is_client()
            && !self.closing
    }

    /// We chose it and may replace it (`IsOutboundDisconnectionCandidate`).
    pub(crate) fn is_replaceable(&self) -> bool {
        self.origin == Origin::Outbound
    }

    /// Whether it was added by this name.
    pub(crate) fn is_named(&self, name: &str) -> bool {
        self.name.as_deref() == Some(name)
    }

    /// Whether it sent a bad copy of a block at or after `since`.
    pub(crate) fn has_spoiled(&self, hash: &BlockHash, since: Micros) -> bool {
        self.sync.spoiled.iter().any(|(other, at)| other == hash && *at >= since)
    }

    /// Whether messages can be sent to it.
    pub(crate) fn is_ready(&self) -> bool {
        self.established && !self.closing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_memory_keeps_the_newest_and_stays_bounded() {
        let mut known = Known::<100>::default();
        for key in 0..10_000 {
            assert!(known.insert(key));
            assert!(!known.insert(key));
            assert!(known.newer.len() + known.older.len() <= 200);
        }
        assert!((9_900..10_000).all(|key| known.contains(key)));
        assert!(!known.contains(0));
    }
}
