//! The protocol's state and what a message does to it, without sockets, threads or a clock.
//!
//! Lives here: [`Net`], its questions to the world ([`Action`]) and the world's answers ([`FromChain`]), the life of a
//! peer and who handles which message. Does not live here: sockets (`connection.rs`), tasks (`manager.rs`), the chain's
//! thread (`link.rs`). Data goes: (peer, message, now) -> a method in `handshake`, `sync`, `blocks`, `serve`, `relay`
//! or `gossip` -> actions.

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
use super::score::BANNED_FOR;
use super::serve::Purpose;
use super::tell::Own;
use super::tree::{HeaderTree, NodeId};
use super::weak::WeakHeaders;
use crate::chain::options::DEFAULT_MAX_TIP_AGE;
use crate::chain::verdict::Stored;

/// Points that end a connection (`DEFAULT_BANSCORE_THRESHOLD`).
const MAX_SCORE: u32 = 100;

/// What the world is asked to do.
#[derive(Debug)]
pub(crate) enum Action {
    /// Say something.
    Send(PeerId, Message),
    /// End a connection, after what was said.
    Close(PeerId),
    /// Refuse connections from a peer's address until then, seconds since 1970.
    Ban(SocketAddr, u64),
    /// Ask the chain something.
    Ask(Question),
}

/// What the chain is asked.
#[derive(Debug)]
pub(crate) enum Question {
    /// Judge headers.
    Headers(PeerId, Vec<(BlockHash, Header)>),
    /// Judge a block; `bool`: it was asked for.
    Block(PeerId, BlockHash, Arc<Block>, bool),
    /// Judge a transaction.
    Tx(PeerId, Txid, Arc<Transaction>),
    /// Give these waiting transactions.
    Pool(Vec<Txid>),
    /// Read a block.
    Read(BlockHash, Purpose),
}

/// What became of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TxOutcome {
    /// It waits in the mempool.
    Accepted,
    /// It spends what is not known.
    Missing,
    /// It is refused.
    Refused {
        /// For the reject message; 0 and above 255 are not told.
        code: u16,
        /// For the reject message.
        reason: String,
        /// What it costs the sender.
        points: u32,
        /// Another transaction with the same id may be fine: its witness is not in the id.
        malleable: bool,
    },
}

/// Why a block or header was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// For the reject message; 0 is not told.
    pub(crate) code: u8,
    /// The reference's string.
    pub(crate) reason: String,
    /// What it costs the sender.
    pub(crate) points: u32,
    /// The block with this hash is bad for good: not only what was sent under its name.
    pub(crate) final_: bool,
    /// It was known to be bad.
    pub(crate) known: bool,
}

/// A waiting transaction.
#[derive(Debug, Clone)]
pub(crate) struct PoolTx {
    pub(crate) txid: Txid,
    pub(crate) tx: Arc<Transaction>,
    /// Base units per 1,000 virtual bytes.
    pub(crate) fee_rate: u64,
}

/// What the chain tells.
#[derive(Debug)]
pub(crate) enum FromChain {
    /// Headers were judged: the last that is known now, and the refused one.
    Headers(PeerId, Vec<(BlockHash, Header)>, Option<BlockHash>, Option<(BlockHash, Refusal)>),
    /// A block was judged: whether it is kept, and the refusal.
    Block(PeerId, BlockHash, Arc<Block>, Stored, Option<Refusal>),
    /// A transaction was judged.
    Tx(PeerId, Txid, Arc<Transaction>, TxOutcome),
    /// Waiting transactions that were asked for, and the least fee rate that the mempool takes.
    Pool(Vec<PoolTx>, u64),
    /// A block was read.
    Read(BlockHash, Purpose, Option<Arc<Vec<u8>>>),
    /// A block will be the tip if its coins and scripts are sound.
    Arrived(Arc<Block>),
    /// The tip is this block now.
    Connected(Arc<Block>),
    /// This block is no longer active.
    Disconnected(Arc<Block>),
    /// A block was judged to the end.
    Checked(BlockHash, Option<Refusal>),
    /// This block, its ancestors and descendants are no longer held to break a rule.
    Reconsidered(BlockHash),
    /// A transaction came into the mempool.
    TxAccepted(Txid),
    /// A transaction left the mempool without a block.
    TxRemoved(Txid),
}

/// The protocol's whole state.
pub(crate) struct Net {
    pub(super) params: Arc<Params>,
    pub(super) tree: HeaderTree,
    pub(super) peers: BTreeMap<PeerId, Peer>,
    pub(super) random: Random,
    pub(super) clocks: PeerClocks,
    /// Seconds that the wall clock is ahead of ours.
    wall_ahead: i64,
    pub(super) services: u64,
    pub(super) actions: Vec<Action>,
    pub(super) addresses: AddressTable,
    /// Where others can reach us, as far as is known.
    pub(super) own: LocalAddresses,
    /// The port that peers can connect to, if they can.
    pub(super) listening: Option<u16>,
    /// Blocks that were asked for and did not come yet.
    pub(super) in_flight: HashMap<BlockHash, InFlight>,
    /// Who gave us the blocks that are with the chain.
    pub(super) sources: HashMap<BlockHash, Vec<Source>>,
    pub(super) recent: Option<RecentBlock>,
    /// Who sends new blocks as compact blocks at once, oldest first.
    pub(super) high_bandwidth: Vec<PeerId>,
    pub(super) relay: Relay,
    pub(super) own_txs: Own,
    /// Who brought headers of branches behind ours.
    pub(super) weak_headers: WeakHeaders,
    pub(super) initial_download: bool,
    pub(super) last_tip_change: Micros,
    pub(super) announced_height: u32,
    pub(super) minimum_work: Work,
    /// Seconds.
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

    /// What the world is to do, in order.
    pub(crate) fn take_actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }

    /// A connection stands.
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

    /// A connection is gone.
    pub(crate) fn closed(&mut self, id: PeerId, now: Micros) {
        let Some(peer) = self.peers.remove(&id) else { return };
        for hash in &peer.in_flight {
            self.in_flight.remove(hash);
        }
        self.high_bandwidth.retain(|other| *other != id);
        self.forget_requests(id, now);
        self.relay.orphans.erase_from(id.0);
        if peer.established && !peer.inbound() && peer.score == 0 {
            self.addresses.connected(&peer.address.into(), self.wall(now));
        }
        // Whoever comes and goes with nothing must not make us look for work again and again.
        if !peer.in_flight.is_empty() {
            self.fill_all(now);
        }
    }

    /// A message came.
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
        if peer.version == 0 || (!peer.established && !matches!(message, Message::Verack)) {
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
            Message::SendHeaders => self.with(id, |peer| peer.prefers_headers = true),
            Message::SendCmpct { announce, version } => self.on_sendcmpct(id, announce, version),
            Message::Inv(list) => self.on_inv(id, list, now),
            Message::Tx(txid, tx) => self.on_tx(id, txid, tx),
            Message::NotFound(list) => self.on_not_found(id, &list, now),
            Message::GetData(list) => self.on_getdata(id, list, now),
            Message::GetHeaders(locator) => self.on_getheaders(id, &locator),
            Message::GetBlocks(locator) => self.on_getblocks(id, &locator),
            Message::GetBlockTxn(request) => self.on_getblocktxn(id, request, now),
            Message::Mempool => self.with(id, |peer| peer.wants_mempool = true),
            Message::FeeFilter(rate) => self.on_fee_filter(id, rate),
            Message::Addr(list) => self.on_addr(id, list, now),
            Message::GetAddr => self.on_getaddr(id, now),
            // Bloom filters are not offered (`NO_BLOOM_VERSION`).
            Message::Filter => self.misbehaving(id, 100, "a bloom filter, which is not offered", now),
            Message::Reject(reject) => self.on_reject(id, &reject),
            Message::OldPing | Message::Unknown | Message::Version(_) => {}
            // These are written only.
            Message::RawBlock(_) | Message::StrippedTx(_) => {}
        }
    }

    fn on_reject(&self, id: PeerId, reject: &Reject) {
        let text: String = reject.reason.chars().filter(|c| c.is_ascii_graphic() || *c == ' ').collect();
        debug!(peer = id.0, code = reject.code, "the peer refused a {}: {text}", reject.message);
    }

    /// The chain tells something.
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
            // One copy of a block was bad, perhaps not that of who is noted now: the answer to who sent it says more.
            FromChain::Checked(_, Some(refusal)) if !refusal.final_ => {}
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

    /// The chain was quicker than we: everything is compared anew.
    pub(crate) fn resync(&mut self, chain: HeaderTree, pool: Vec<PoolTx>, now: Micros) {
        self.tree.take_over(&chain);
        self.last_tip_change = now;
        self.update_initial_download(now);
        if !self.initial_download {
            self.queue_announcement(self.tree.tip());
        }
        self.relay.forget_pool();
        self.pool_grew(pool, 0);
        self.fill_all(now);
    }

    /// After a batch of messages and news: announce what came together.
    pub(crate) fn flush(&mut self, now: Micros) {
        let fetch = self.relay.take_fetch();
        if !fetch.is_empty() {
            self.ask(Question::Pool(fetch));
        }
        let announcing: Vec<PeerId> =
            self.peers.iter().filter(|(_, peer)| !peer.announce.is_empty()).map(|(id, _)| *id).collect();
        for id in announcing {
            self.announce(id, now);
        }
    }

    /// Time passes; called about ten times a second.
    pub(crate) fn tick(&mut self, now: Micros) {
        self.update_initial_download(now);
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

    /// How much of what was sent a peer did not read yet.
    pub(crate) fn set_congested(&mut self, id: PeerId, congested: bool, now: Micros) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.congested = congested;
        if !congested {
            self.serve(id, now);
        }
    }

    /// A payload could not be read.
    pub(crate) fn malformed(&mut self, id: PeerId, command: &str, why: &str, points: u32, now: Micros) {
        let reason = "error parsing message".to_owned();
        let reject = Reject { message: command.to_owned(), code: 0x01, reason, hash: None };
        if self.peers.get(&id).is_some_and(|peer| peer.version != 0) {
            self.send(id, Message::Reject(reject));
        }
        self.misbehaving(id, points, &format!("{command}: {why}"), now);
    }

    // What all parts use.

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

    /// Gives points; [`MAX_SCORE`] of them end the connection, and ban the address unless it is on this machine. Who
    /// was named by the operator is not punished (`Misbehaving`, `SendRejectsAndCheckIfBanned`).
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

    /// The network's time, seconds since 1970 (`GetAdjustedTime`).
    pub(crate) fn adjusted_time(&self, now: Micros) -> u64 {
        self.wall(now).saturating_add_signed(self.clocks.offset())
    }

    /// What the wall clock says at a time of ours, seconds since 1970.
    pub(super) fn wall(&self, now: Micros) -> u64 {
        (now / SECOND).saturating_add_signed(self.wall_ahead)
    }

    /// The wall clock may be set to another time: ours goes on, so that no timer waits for it.
    pub(crate) fn set_wall_clock(&mut self, now: Micros, seconds: u64) {
        self.wall_ahead = seconds.cast_signed() - (now / SECOND).cast_signed();
    }

    /// Whether the node is still far behind (`IsInitialBlockDownload`); once it is not, it never is again.
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

    /// Blocks are fetched one by one as they are announced: the tip is near (`CanDirectFetch`).
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
