//! The protocol's state and what messages do to it, without sockets, threads or a clock.
//!
//! Lives here: [`Net`], its requests to the outside ([`Action`]) and the chain's answers ([`FromChain`]), the life
//! cycle of a peer and the dispatch of messages. Does not live here: sockets (`connection.rs`), tasks
//! (`manager.rs`), the chain's thread (`link.rs`). Data goes: (peer, message, now) -> a method in `handshake`,
//! `sync`, `blocks`, `serve`, `relay` or `gossip` -> actions.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;

use bitcoin::block::Header;
use bitcoin::pow::Work;
use bitcoin::{Block, BlockHash, Transaction, Txid};
use iop_consensus::params::Params;
use tracing::{debug, info, warn};

use super::addresses::local::LocalAddresses;
use super::addresses::table::AddressTable;
use super::blocks::{InFlight, RecentBlock, Source};
use super::clock::PeerClocks;
use super::handshake::can_have_witnesses;
use super::message::{Message, NODE_NETWORK, NODE_WITNESS, Reject};
use super::peer::{Micros, Origin, Peer, PeerId, SECOND};
use super::random::Random;
use super::relay::Relay;
use super::score::{BANNED_FOR, Refusal};
use super::serve::Purpose;
use super::tell::Own;
use super::tree::{HeaderTree, NodeId};
use super::weak::WeakHeaders;
use crate::chain::options::DEFAULT_MAX_TIP_AGE;
use crate::chain::verdict::Stored;

/// Points at which a connection ends (`DEFAULT_BANSCORE_THRESHOLD`).
const MAX_SCORE: u32 = 100;

/// A request to the outside, carried out by the manager.
#[derive(Debug)]
pub(crate) enum Action {
    /// Send a message.
    Send(PeerId, Message),
    /// Close a connection once everything queued is sent.
    Close(PeerId),
    /// Refuse connections from a peer's address until this time, seconds since 1970.
    Ban(SocketAddr, u64),
    /// Ask the chain something.
    Ask(Question),
}

/// What the chain is asked.
#[derive(Debug)]
pub(crate) enum Question {
    /// Judge headers.
    Headers(PeerId, Vec<(BlockHash, Header)>),
    /// Judge a block; `bool`: whether it was requested.
    Block(PeerId, BlockHash, Arc<Block>, bool),
    /// Judge a transaction.
    Tx(PeerId, Txid, Arc<Transaction>),
    /// Fetch these transactions from the mempool, and its minimum fee rate.
    Pool(Vec<Txid>),
    /// Read a block from storage.
    Read(BlockHash, Purpose),
}

/// The outcome for a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TxOutcome {
    /// It is in the mempool.
    Accepted,
    /// It spends an unknown output.
    Missing,
    /// It is refused.
    Refused {
        /// For the reject message; 0 and codes above 255 are not sent.
        code: u16,
        /// For the reject message.
        reason: String,
        /// Penalty points for the sender.
        points: u32,
        /// Another transaction with the same id may be valid: the id does not cover the witness.
        malleable: bool,
    },
}

/// A transaction of the mempool.
#[derive(Debug, Clone)]
pub(crate) struct PoolTx {
    pub(crate) txid: Txid,
    pub(crate) tx: Arc<Transaction>,
    /// Base units per 1,000 virtual bytes.
    pub(crate) fee_rate: u64,
    /// Its unconfirmed ancestors, itself included.
    pub(crate) ancestors: u64,
}

/// Answers and events from the chain.
#[derive(Debug)]
pub(crate) enum FromChain {
    /// Headers were judged: the last one that is known now, and the refused one.
    Headers(PeerId, Vec<(BlockHash, Header)>, Option<BlockHash>, Option<(BlockHash, Refusal)>),
    /// A block was judged: whether it is stored, and the refusal.
    Block(PeerId, BlockHash, Arc<Block>, Stored, Option<Refusal>),
    /// A transaction was judged.
    Tx(PeerId, Txid, Arc<Transaction>, TxOutcome),
    /// Requested transactions of the mempool, perhaps none, and its minimum fee rate.
    Pool(Vec<PoolTx>, u64),
    /// A block was read.
    Read(BlockHash, Purpose, Option<Arc<Vec<u8>>>),
    /// A block will be the tip if its coins and scripts are valid.
    Arrived(Arc<Block>),
    /// The block became the tip.
    Connected(Arc<Block>),
    /// This block is no longer active.
    Disconnected(Arc<Block>),
    /// A block was fully validated.
    Checked(BlockHash, Option<Refusal>),
    /// The failure marks of this block, its ancestors and its descendants were cleared.
    Reconsidered(BlockHash),
    /// A transaction entered the mempool.
    TxAccepted(Txid),
    /// A transaction left the mempool without a block.
    TxRemoved(Txid),
}

/// The whole state of the protocol.
pub(crate) struct Net {
    pub(super) params: Arc<Params>,
    pub(super) tree: HeaderTree,
    pub(super) peers: BTreeMap<PeerId, Peer>,
    pub(super) random: Random,
    pub(super) clocks: PeerClocks,
    /// Seconds that the wall clock is ahead of the timers' clock.
    wall_ahead: i64,
    pub(super) services: u64,
    pub(super) actions: Vec<Action>,
    pub(super) addresses: AddressTable,
    /// The addresses that peers can reach us at, as far as known.
    pub(super) own: LocalAddresses,
    /// The port that peers can connect to, if we listen.
    pub(super) listening: Option<u16>,
    /// Blocks that were requested and have not arrived.
    pub(super) in_flight: HashMap<BlockHash, InFlight>,
    /// The senders of blocks that the chain is judging.
    pub(super) sources: HashMap<BlockHash, Vec<Source>>,
    pub(super) recent: Option<RecentBlock>,
    /// High-bandwidth compact block peers, oldest first.
    pub(super) high_bandwidth: Vec<PeerId>,
    pub(super) relay: Relay,
    pub(super) own_txs: Own,
    /// Who brought headers of branches behind ours.
    pub(super) weak_headers: WeakHeaders,
    pub(super) initial_download: bool,
    pub(super) last_tip_change: Micros,
    pub(super) announced_height: u32,
    pub(super) minimum_work: Work,
    /// In seconds.
    pub(super) max_tip_age: u64,
}

impl Net {
    pub(crate) fn new(params: Arc<Params>, tree: HeaderTree, addresses: AddressTable) -> Self {
        Self {
            minimum_work: Work::from_be_bytes(params.minimum_chain_work),
            services: NODE_NETWORK | if can_have_witnesses(&params) { NODE_WITNESS } else { 0 },
            max_tip_age: DEFAULT_MAX_TIP_AGE,
            params,
            tree,
            peers: BTreeMap::new(),
            random: Random::new(),
            clocks: PeerClocks::default(),
            wall_ahead: 0,
            actions: Vec::new(),
            addresses,
            own: LocalAddresses::default(),
            listening: None,
            in_flight: HashMap::new(),
            sources: HashMap::new(),
            recent: None,
            high_bandwidth: Vec::new(),
            relay: Relay::default(),
            own_txs: Own::default(),
            weak_headers: WeakHeaders::default(),
            initial_download: true,
            last_tip_change: 0,
            announced_height: 0,
        }
    }

    /// Takes the pending actions, in order.
    pub(crate) fn take_actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }

    /// A connection was established.
    pub(crate) fn connected(
        &mut self,
        id: PeerId,
        address: SocketAddr,
        origin: Origin,
        name: Option<String>,
        now: Micros,
    ) {
        let mut peer = Peer::new(address, origin, now, &mut self.random);
        peer.name = name;
        self.peers.insert(id, peer);
        if origin != Origin::Inbound {
            self.send_version(id, now);
        }
    }

    /// A connection ended.
    pub(crate) fn closed(&mut self, id: PeerId, now: Micros) {
        let Some(peer) = self.peers.remove(&id) else { return };
        for hash in &peer.sync.in_flight {
            self.in_flight.remove(hash);
        }
        self.high_bandwidth.retain(|other| *other != id);
        self.forget_requests(id, now);
        self.relay.orphans.erase_from(id.0);
        if peer.established && !peer.inbound() && peer.score == 0 {
            self.addresses.connected(&peer.address.into(), self.wall(now));
        }
        // A peer that comes and goes with nothing in flight must not make us look for work each time.
        if !peer.sync.in_flight.is_empty() {
            self.fill_all(now);
        }
    }

    /// Handles a message.
    pub(crate) fn message(&mut self, id: PeerId, message: Message, now: Micros) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if peer.closing {
            return;
        }
        peer.last_received = now;
        if let Message::Version(version) = message {
            return self.on_version(id, *version, now);
        }
        let peer = &self.peers[&id];
        if peer.version.number == 0 || (!peer.established && !matches!(message, Message::Verack)) {
            return self.misbehaving(id, 1, "a message before the handshake was done", now);
        }
        match message {
            Message::Verack => self.on_verack(id, now),
            Message::Ping(nonce) => self.send(id, Message::Pong(Some(nonce))),
            Message::Pong(nonce) => self.on_pong(id, nonce, now),
            Message::Headers(headers) => self.on_headers(id, headers, now),
            Message::Block(hash, block) => self.on_block(id, hash, block, now),
            Message::CmpctBlock(compact, _) => self.on_compact(id, compact, now),
            Message::BlockTxn(transactions, _) => self.on_block_transactions(id, transactions, now),
            Message::SendHeaders => self.with(id, |peer| peer.blocks.prefers_headers = true),
            Message::SendCmpct { announce, version } => self.on_sendcmpct(id, announce, version),
            Message::Inv(list) => self.on_inv(id, list, now),
            Message::Tx(txid, tx) => self.on_tx(id, txid, tx),
            Message::NotFound(list) => self.on_not_found(id, &list, now),
            Message::GetData(list) => self.on_getdata(id, list, now),
            Message::GetHeaders(locator) => self.on_getheaders(id, &locator),
            Message::GetBlocks(locator) => self.on_getblocks(id, &locator),
            Message::GetBlockTxn(request) => self.on_getblocktxn(id, request, now),
            Message::Mempool => self.with(id, |peer| peer.txs.wants_mempool = true),
            Message::FeeFilter(rate) => self.on_fee_filter(id, rate),
            Message::Addr(list) => self.on_addr(id, list, now),
            Message::GetAddr => self.on_getaddr(id, now),
            // Bloom filters are not supported (`NO_BLOOM_VERSION`).
            Message::Filter => self.misbehaving(id, 100, "a bloom filter, which is not offered", now),
            Message::Reject(reject) => self.on_reject(id, &reject),
            Message::OldPing | Message::Unknown | Message::Version(_) => {}
            // These are only sent, never decoded.
            Message::RawBlock(_) | Message::StrippedTx(_) => {}
        }
    }

    fn on_reject(&self, id: PeerId, reject: &Reject) {
        let text: String = reject.reason.chars().filter(|c| c.is_ascii_graphic() || *c == ' ').collect();
        debug!(peer = id.0, code = reject.code, "the peer refused a {}: {text}", reject.message);
    }

    /// Handles an answer or event of the chain.
    pub(crate) fn chain_says(&mut self, news: FromChain, now: Micros) {
        match news {
            FromChain::Headers(id, headers, last, refused) => match self.compact_waiting_for(id, &headers) {
                Some(compact) => self.compact_header_judged(id, &compact, refused, now),
                None => self.headers_judged(id, &headers, last, refused, now),
            },
            FromChain::Block(id, hash, block, stored, refusal) => {
                self.block_judged(id, hash, &block, stored, refusal, now);
            }
            FromChain::Tx(id, txid, tx, outcome) => self.tx_judged(id, txid, tx, outcome, now),
            FromChain::Pool(mut transactions, min_fee) => {
                transactions.retain(|tx| self.relay.fetched.remove(&tx.txid));
                self.pool_grew(transactions, min_fee);
            }
            FromChain::Read(hash, purpose, bytes) => self.block_read(hash, purpose, bytes, now),
            FromChain::Arrived(block) => self.block_arrived(&block, now),
            FromChain::Connected(block) => self.block_connected(&block, now),
            FromChain::Disconnected(block) => self.block_disconnected(&block),
            // One copy of a block was bad, perhaps not the one of the source noted now: the answer for that copy is
            // more precise.
            FromChain::Checked(_, Some(refusal)) if !refusal.is_final() => {}
            FromChain::Checked(hash, refusal) => self.block_checked(hash, refusal, now),
            FromChain::Reconsidered(hash) => {
                if let Some(id) = self.tree.find(&hash) {
                    self.tree.forget_failed(id);
                    self.fill_all(now);
                }
            }
            FromChain::TxAccepted(txid) => self.relay.note_accepted(txid),
            FromChain::TxRemoved(txid) => self.relay.forget(&txid),
        }
    }

    /// Rebuilds the copies of the chain's state after events were missed.
    pub(crate) fn resync(&mut self, chain: HeaderTree, pool: Vec<PoolTx>, now: Micros) {
        self.tree.take_over(&chain);
        self.last_tip_change = now;
        self.update_initial_download(now);
        if !self.initial_download {
            self.queue_announcement(self.tree.tip());
        }
        self.relay.forget_pool();
        self.pool_grew(pool, self.relay.min_fee);
        self.fill_all(now);
    }

    /// Called after a batch of messages and events: announces what accumulated.
    pub(crate) fn flush(&mut self, now: Micros) {
        let fetch = self.relay.take_fetch();
        if !fetch.is_empty() {
            self.ask(Question::Pool(fetch));
        }
        let announcing: Vec<PeerId> = self
            .peers
            .iter()
            .filter(|(_, peer)| !peer.blocks.announce.is_empty())
            .map(|(id, _)| *id)
            .collect();
        for id in announcing {
            self.announce(id, now);
        }
    }

    /// Runs the timers; called about ten times a second.
    pub(crate) fn tick(&mut self, now: Micros) {
        self.update_initial_download(now);
        self.ask_min_fee(now);
        let ids: Vec<PeerId> = self.peers.keys().copied().collect();
        for id in ids {
            self.check_alive(id, now);
            if !self.peers.get(&id).is_some_and(Peer::is_ready) {
                continue;
            }
            self.send_ping(id, now);
            self.send_addresses(id, now);
            self.start_sync(id, now);
            self.check_sync(id, now);
            self.fill(id, now);
            self.trickle(id, now);
            self.send_fee_filter(id, now);
            self.serve(id, now);
        }
        self.ask_others_for_late_blocks(now);
        self.retry_requests(now);
        self.flush(now);
    }

    /// Sets whether a peer has too many unread bytes.
    pub(crate) fn set_congested(&mut self, id: PeerId, congested: bool, now: Micros) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.blocks.congested = congested;
        if !congested {
            self.serve(id, now);
        }
    }

    /// Handles a payload that could not be decoded.
    pub(crate) fn malformed(&mut self, id: PeerId, command: &str, why: &str, points: u32, now: Micros) {
        let reason = "error parsing message".to_owned();
        let reject = Reject { message: command.to_owned(), code: 0x01, reason, hash: None };
        if self.peers.get(&id).is_some_and(|peer| peer.version.number != 0) {
            self.send(id, Message::Reject(reject));
        }
        self.misbehaving(id, points, &format!("{command}: {why}"), now);
    }

    // Shared by all modules.

    pub(super) fn send(&mut self, id: PeerId, message: Message) {
        self.actions.push(Action::Send(id, message));
    }

    pub(super) fn ask(&mut self, question: Question) {
        self.actions.push(Action::Ask(question));
    }

    /// Changes a peer, if it is still there.
    pub(super) fn with(&mut self, id: PeerId, change: impl FnOnce(&mut Peer)) {
        if let Some(peer) = self.peers.get_mut(&id) {
            change(peer);
        }
    }

    pub(crate) fn close(&mut self, id: PeerId, why: &str) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if !peer.closing {
            peer.closing = true;
            info!(peer = id.0, address = %peer.address, "peer disconnected: {why}");
            self.actions.push(Action::Close(id));
        }
    }

    /// Adds penalty points; at [`MAX_SCORE`] the connection ends and the address is banned, unless it is local.
    /// Peers named by the operator are not punished (`Misbehaving`, `SendRejectsAndCheckIfBanned`).
    pub(super) fn misbehaving(&mut self, id: PeerId, points: u32, why: &str, now: Micros) {
        if points == 0 {
            return;
        }
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let before = peer.score;
        peer.score = peer.score.saturating_add(points);
        debug!(peer = id.0, score = peer.score, "misbehaving: {why}");
        if peer.score < MAX_SCORE || before >= MAX_SCORE {
            return;
        }
        let (address, manual) = (peer.address, peer.origin == Origin::Manual);
        if manual {
            return warn!(peer = id.0, %address, "a named peer misbehaves and is not punished: {why}");
        }
        if !address.ip().to_canonical().is_loopback() {
            self.actions.push(Action::Ban(address, self.wall(now) + BANNED_FOR));
        }
        self.close(id, &format!("misbehaving: {why}"));
    }

    /// The network-adjusted time, seconds since 1970 (`GetAdjustedTime`).
    pub(crate) fn adjusted_time(&self, now: Micros) -> u64 {
        self.wall(now).saturating_add_signed(self.clocks.offset())
    }

    /// The wall clock's time for a time of the timers' clock, seconds since 1970.
    pub(super) fn wall(&self, now: Micros) -> u64 {
        (now / SECOND).saturating_add_signed(self.wall_ahead)
    }

    /// Notes the wall clock's time. The timers' clock is not changed, so that no timer is delayed.
    pub(crate) fn set_wall_clock(&mut self, now: Micros, seconds: u64) {
        self.wall_ahead = seconds.cast_signed() - (now / SECOND).cast_signed();
    }

    /// Whether the node is still far behind (`IsInitialBlockDownload`); once false, it stays false.
    pub(super) fn update_initial_download(&mut self, now: Micros) {
        if !self.initial_download {
            return;
        }
        let tip = self.tree.get(self.tree.tip());
        let old = u64::from(tip.header.time).saturating_add(self.max_tip_age) < self.wall(now);
        if !old && tip.work >= self.minimum_work() {
            self.initial_download = false;
        }
    }

    pub(super) fn minimum_work(&self) -> Work {
        self.minimum_work
    }

    /// Whether the tip is near enough to fetch blocks one by one as they are announced (`CanDirectFetch`).
    pub(super) fn is_near_tip(&self, now: Micros) -> bool {
        let tip = self.tree.get(self.tree.tip());
        let span = 20 * u64::from(self.params.pow.target_spacing);
        u64::from(tip.header.time) + span > self.adjusted_time(now)
    }

    pub(super) fn work(&self, id: NodeId) -> Work {
        self.tree.get(id).work
    }

    pub(super) fn tip_work(&self) -> Work {
        self.work(self.tree.tip())
    }
}

#[cfg(test)]
mod tests;
