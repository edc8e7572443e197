//! Received blocks: whole, or compact blocks reconstructed from the mempool; and the chain's verdicts on them.
//!
//! Lives here: blocks in flight, which peer sent which copy, and which is blamed for a bad one. Does not live here:
//! which blocks to request (`sync.rs`), compact block encoding (`compact.rs`). Sources: `ProcessMessage` (block,
//! cmpctblock, blocktxn), `PeerLogicValidation`. A compact block goes: `cmpctblock` -> header to the chain ->
//! reconstruction -> `getblocktxn` and `blocktxn` if needed -> block to the chain. If reconstruction fails, the
//! whole block is requested.

use std::sync::Arc;

use bitcoin::block::Header;
use bitcoin::{Block, BlockHash};
use tracing::{debug, info};

use super::compact::{BlockTransactions, CompactBlock, PartialBlock, Reconstruction, reconstruct};
use super::message::{BLOCK, Inv, Message, Reject};
use super::net::{Net, Question};
use super::peer::{Micros, PeerId, SECOND};
use super::score::Refusal;
use super::sync::MAX_IN_FLIGHT;
use super::tree::{NodeId, Status};
use crate::chain::verdict::Stored;

/// Compact blocks are reconstructed only up to this far above the tip.
const COMPACT_AHEAD: u32 = 2;
/// Number of peers that are asked to send new blocks unrequested as compact blocks (BIP152 high-bandwidth mode).
const HIGH_BANDWIDTH: usize = 3;
/// Maximum number of blocks whose senders are remembered: apart from side branches, the chain never has more under
/// validation.
const MAX_SOURCES: usize = 4_096;

/// Bad copies that are remembered per peer: more than there can be new blocks at a time.
const MAX_SPOILED: usize = 16;
/// After a peer sent a bad copy of a block, it is not asked for that block again for this long.
const SPOILED_TIME: Micros = 60 * SECOND;

/// A block that was requested.
#[derive(Debug)]
pub(crate) struct InFlight {
    pub(crate) peer: PeerId,
    pub(crate) node: Option<NodeId>,
    /// Time of the last request for it.
    pub(crate) since: Micros,
    /// All peers that were asked, in order.
    pub(crate) asked: Vec<PeerId>,
    /// Its partial reconstruction, if it came as a compact block.
    pub(crate) partial: Option<PartialBlock>,
}

/// The sender of a copy of a block that the chain has not judged yet.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) peer: PeerId,
    pub(crate) arrival: Arrival,
}

/// How a copy of a block arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// Whole; `requested`: from any peer.
    Whole { requested: bool },
    /// As a compact block, which counts as requested. The sender is not to blame if it is bad: compact blocks
    /// may be sent before they are validated.
    Compact,
}

impl Arrival {
    fn is_requested(self) -> bool {
        self != Self::Whole { requested: false }
    }
}

/// The newest block, kept to be served.
#[derive(Debug)]
pub(crate) struct RecentBlock {
    pub(crate) hash: BlockHash,
    pub(crate) block: Arc<Block>,
    /// As compact block, by version.
    pub(crate) compact: [Option<Arc<CompactBlock>>; 2],
}

impl Net {
    pub(super) fn on_block(&mut self, id: PeerId, hash: BlockHash, block: Arc<Block>, now: Micros) {
        let in_flight = self.in_flight.get(&hash).map(|in_flight| in_flight.peer);
        // A block counts as requested also while the chain has another peer's copy, which may be bad.
        let requested = in_flight.is_some() || self.was_requested(&hash);
        // A copy from another peer ends the wait only once it is known to be good.
        if in_flight == Some(id) {
            self.mark_received(&hash, now);
        }
        if self.tree.find(&hash).is_some_and(|known| self.tree.get(known).status.have) {
            return self.fill(id, now);
        }
        // Another peer's copy may be bad, so this one is judged as well.
        if self.is_source(id, &hash) {
            return;
        }
        if self.tree.find(&block.header.prev_blockhash).is_none() {
            return self.misbehaving(id, 10, "a block whose parent is not known", now);
        }
        // The chain keeps the header even of a block that is not wanted.
        if !requested && self.too_many_weak(id, &[(hash, block.header)], now) {
            return;
        }
        self.hand_over(id, hash, block, Arrival::Whole { requested });
        self.fill(id, now);
    }

    fn hand_over(&mut self, id: PeerId, hash: BlockHash, block: Arc<Block>, arrival: Arrival) {
        if self.sources.len() >= MAX_SOURCES {
            self.sources.clear();
        }
        self.sources.entry(hash).or_default().push(Source { peer: id, arrival });
        self.ask(Question::Block(id, hash, block, arrival.is_requested()));
    }

    /// Whether the chain is judging a requested copy of the block.
    fn was_requested(&self, hash: &BlockHash) -> bool {
        self.sources.get(hash).is_some_and(|copies| copies.iter().any(|copy| copy.arrival.is_requested()))
    }

    /// Whether the chain is judging a copy of the block from this peer.
    fn is_source(&self, id: PeerId, hash: &BlockHash) -> bool {
        self.sources.get(hash).is_some_and(|copies| copies.iter().any(|copy| copy.peer == id))
    }

    /// Whether a peer sent a bad copy of a block so recently that it should not be asked again.
    pub(super) fn has_spoiled(&self, id: PeerId, hash: &BlockHash, now: Micros) -> bool {
        let since = (now + 1).saturating_sub(SPOILED_TIME);
        self.peers.get(&id).is_some_and(|peer| peer.has_spoiled(hash, since))
    }

    /// Removes and returns the source entry for this peer's copy of the block.
    fn take_source(&mut self, id: PeerId, hash: &BlockHash) -> Option<Source> {
        let copies = self.sources.get_mut(hash)?;
        let copy = copies.swap_remove(copies.iter().position(|copy| copy.peer == id)?);
        if copies.is_empty() {
            self.sources.remove(hash);
        }
        Some(copy)
    }

    /// The chain accepted or refused a block.
    pub(super) fn block_judged(
        &mut self,
        id: PeerId,
        hash: BlockHash,
        block: &Arc<Block>,
        stored: Stored,
        refusal: Option<Refusal>,
        now: Micros,
    ) {
        if stored != Stored::Not {
            // Also for a block that arrived by another way without an event: otherwise it would be requested again
            // and again.
            let status = Status { have: true, ..Status::default() };
            self.tree.put(hash, block.header, status);
        }
        if stored != Stored::Not || refusal.as_ref().is_some_and(Refusal::is_final) {
            self.mark_received(&hash, now);
        }
        if stored == Stored::Now {
            self.with(id, |peer| peer.sync.last_block = now);
        }
        match refusal {
            Some(refusal) => {
                self.copy_refused(id, hash, &refusal, now);
                if !refusal.is_final() {
                    // Other peers may have a good copy: they are asked before the one that sent the bad copy.
                    let others: Vec<_> = self.peers.keys().filter(|other| **other != id).copied().collect();
                    others.into_iter().for_each(|other| self.fill(other, now));
                }
            }
            None if stored == Stored::Now => {}
            None => {
                // No verdict will follow.
                self.take_source(id, &hash);
                debug!(%hash, ?stored, "block not taken");
                // Not stored because it is too far ahead. Weak headers were counted on arrival already.
                let new = usize::from(stored == Stored::Not && self.tree.find(&hash).is_none());
                if self.say_to_be_strong(&[(hash, block.header)]) && self.count_weak(id, new, now) {
                    return;
                }
            }
        }
        self.fill(id, now);
    }

    /// One copy of a block was refused. If the `Checked` event came first and took the source, nothing is left to
    /// do.
    fn copy_refused(&mut self, id: PeerId, hash: BlockHash, refusal: &Refusal, now: Micros) {
        if let (Some(node), true) = (self.tree.find(&hash), refusal.is_final()) {
            self.tree.note_failed(node);
        }
        let Some(source) = self.take_source(id, &hash) else { return };
        if !refusal.is_final() {
            self.with(id, |peer| {
                peer.sync.spoiled.truncate(MAX_SPOILED - 1);
                peer.sync.spoiled.insert(0, (hash, now));
            });
        }
        self.blame(&source, hash, refusal, now);
    }

    /// A block was fully validated (`BlockChecked`); the verdict applies to all copies that the chain was given.
    pub(super) fn block_checked(&mut self, hash: BlockHash, refusal: Option<Refusal>, now: Micros) {
        let sources = self.sources.remove(&hash).unwrap_or_default();
        let Some(refusal) = refusal else {
            let last = self.in_flight.keys().all(|other| *other == hash);
            if let (Some(source), true, false) = (sources.first(), last, self.initial_download) {
                self.ask_high_bandwidth(source.peer);
            }
            return;
        };
        if let (Some(id), true) = (self.tree.find(&hash), refusal.is_final()) {
            self.tree.note_failed(id);
        }
        sources.iter().for_each(|source| self.blame(source, hash, &refusal, now));
    }

    fn blame(&mut self, source: &Source, hash: BlockHash, refusal: &Refusal, now: Micros) {
        if refusal.code != 0 {
            let reason = refusal.reason.chars().take(super::message::MAX_REASON).collect();
            let hash: &[u8; 32] = hash.as_ref();
            let reject =
                Reject { message: "block".to_owned(), code: refusal.code, reason, hash: Some(*hash) };
            self.send(source.peer, Message::Reject(reject));
        }
        if source.arrival != Arrival::Compact {
            self.misbehaving(source.peer, refusal.points, &format!("block {hash}: {}", refusal.reason), now);
        }
    }

    /// Asks the peer that sent a new tip to send the next ones as compact blocks at once
    /// (`MaybeSetPeerAsAnnouncingHeaderAndIDs`).
    fn ask_high_bandwidth(&mut self, id: PeerId) {
        if !self.peers.get(&id).is_some_and(|peer| peer.sync.gives_compact && peer.is_ready()) {
            return;
        }
        if let Some(place) = self.high_bandwidth.iter().position(|other| *other == id) {
            self.high_bandwidth.remove(place);
            return self.high_bandwidth.push(id);
        }
        let version = self.compact_version().number();
        if self.high_bandwidth.len() >= HIGH_BANDWIDTH {
            let oldest = self.high_bandwidth.remove(0);
            self.send(oldest, Message::SendCmpct { announce: false, version });
        }
        self.send(id, Message::SendCmpct { announce: true, version });
        self.high_bandwidth.push(id);
    }

    pub(super) fn on_compact(&mut self, id: PeerId, compact: Arc<CompactBlock>, now: Micros) {
        let hash = compact.header.block_hash();
        if self.tree.find(&compact.header.prev_blockhash).is_none() {
            if !self.initial_download {
                self.ask_headers(id, self.tree.best());
            }
            return;
        }
        if self.tree.find(&hash).is_some() {
            return self.compact_with_header(id, &compact, now);
        }
        let header = vec![(hash, compact.header)];
        if self.too_many_weak(id, &header, now) {
            return;
        }
        // The header goes to the chain first; the rest waits for its verdict.
        self.with(id, |peer| peer.sync.pending_compact = Some(compact.clone()));
        self.ask(Question::Headers(id, header));
    }

    /// The pending compact block whose header was just judged.
    pub(super) fn compact_waiting_for(
        &mut self,
        id: PeerId,
        headers: &[(BlockHash, Header)],
    ) -> Option<Arc<CompactBlock>> {
        let [(_, header)] = headers else { return None };
        self.peers.get_mut(&id)?.sync.pending_compact.take_if(|compact| compact.header == *header)
    }

    pub(super) fn compact_header_judged(
        &mut self,
        id: PeerId,
        compact: &Arc<CompactBlock>,
        refused: Option<(BlockHash, Refusal)>,
        now: Micros,
    ) {
        if let Some((hash, refusal)) = refused {
            let why = format!("header {hash} of a compact block: {}", refusal.reason);
            return self.misbehaving(id, refusal.points, &why, now);
        }
        self.tree.put(compact.header.block_hash(), compact.header, Status::default());
        self.compact_with_header(id, compact, now);
    }

    /// Handles a compact block whose header the chain accepted.
    pub(super) fn compact_with_header(&mut self, id: PeerId, compact: &Arc<CompactBlock>, now: Micros) {
        let hash = compact.header.block_hash();
        let Some(node) = self.tree.find(&hash) else { return };
        self.block_announced(id, hash);
        let entry = self.tree.get(node);
        let (height, work) = (entry.height, entry.work);
        if entry.status.have || entry.status.failed || self.sources.contains_key(&hash) {
            return;
        }
        // Bad compact blocks carry no penalty, so each peer gets only one attempt per block.
        if self.peers.get(&id).is_some_and(|peer| peer.has_spoiled(&hash, 0)) {
            return;
        }
        if work > self.tip_work() {
            self.with(id, |peer| peer.sync.last_announcement = now);
        }
        let in_flight_from = self.in_flight.get(&hash).map(|in_flight| in_flight.peer);
        if work <= self.tip_work() {
            if in_flight_from.is_some() {
                self.ask_whole_block(id, hash);
            }
            return;
        }
        if in_flight_from.is_none() && !self.is_near_tip(now) {
            return;
        }
        if height > self.tree.get(self.tree.tip()).height + COMPACT_AHEAD {
            return match in_flight_from {
                Some(_) => self.ask_whole_block(id, hash),
                None => self.headers_judged(id, &[(hash, compact.header)], Some(hash), None, now),
            };
        }
        let room = self.peers.get(&id).is_some_and(|peer| peer.sync.in_flight.len() < MAX_IN_FLIGHT);
        let (pool, extra) = (self.relay.pool(), self.relay.extra.iter());
        let outcome = reconstruct((**compact).clone(), pool, extra);
        match in_flight_from {
            Some(other) if other != id => self.reconstructed_for_another(id, hash, outcome),
            None if !room => self.reconstructed_for_another(id, hash, outcome),
            _ => self.reconstructed(id, hash, node, outcome, now),
        }
    }

    /// Reconstructs a block that is in flight from another peer, or for which this peer has no free slot: it is
    /// used only if no transaction is missing.
    fn reconstructed_for_another(&mut self, id: PeerId, hash: BlockHash, outcome: Reconstruction) {
        if let Reconstruction::Block(block) = outcome {
            self.hand_over(id, hash, Arc::new(block), Arrival::Compact);
        }
    }

    fn reconstructed(
        &mut self,
        id: PeerId,
        hash: BlockHash,
        node: NodeId,
        outcome: Reconstruction,
        now: Micros,
    ) {
        if self.in_flight.get(&hash).is_some_and(|in_flight| in_flight.partial.is_some()) {
            return debug!(peer = id.0, %hash, "a compact block that is being put together already");
        }
        if !self.in_flight.contains_key(&hash) {
            self.mark_in_flight(id, hash, Some(node), now);
        }
        match outcome {
            Reconstruction::Block(block) => {
                debug!(peer = id.0, %hash, "compact block complete");
                self.mark_received(&hash, now);
                self.hand_over(id, hash, Arc::new(block), Arrival::Compact);
            }
            Reconstruction::Missing(partial) => {
                debug!(peer = id.0, %hash, missing = partial.missing(), "compact block incomplete");
                self.send(id, Message::GetBlockTxn(partial.request()));
                if let Some(in_flight) = self.in_flight.get_mut(&hash) {
                    in_flight.partial = Some(partial);
                }
            }
            Reconstruction::Failed(why) => {
                debug!(peer = id.0, %hash, "compact block of no use: {why}");
                self.ask_whole_block(id, hash);
            }
            Reconstruction::Invalid(why) => {
                self.mark_received(&hash, now);
                self.misbehaving(id, 100, &format!("compact block: {why}"), now);
            }
        }
    }

    fn ask_whole_block(&mut self, id: PeerId, hash: BlockHash) {
        let kind = BLOCK | self.witness_flag(id);
        self.send(id, Message::GetData(vec![Inv::block(kind, &hash)]));
    }

    pub(super) fn on_block_transactions(&mut self, id: PeerId, transactions: BlockTransactions, now: Micros) {
        let hash = transactions.block_hash;
        let in_flight = self.in_flight.get_mut(&hash).filter(|in_flight| in_flight.peer == id);
        let Some(partial) = in_flight.and_then(|in_flight| in_flight.partial.take()) else {
            return debug!(peer = id.0, %hash, "transactions of a block that nobody waits for");
        };
        match partial.fill(transactions.transactions) {
            Reconstruction::Block(block) => {
                self.mark_received(&hash, now);
                self.hand_over(id, hash, Arc::new(block), Arrival::Compact);
            }
            Reconstruction::Failed(_) | Reconstruction::Missing(_) => self.ask_whole_block(id, hash),
            Reconstruction::Invalid(why) => {
                self.mark_received(&hash, now);
                self.misbehaving(id, 100, &format!("blocktxn: {why}"), now);
            }
        }
    }

    /// The block became the tip.
    pub(super) fn block_connected(&mut self, block: &Arc<Block>, now: Micros) {
        let hash = block.block_hash();
        let status = Status { have: true, valid: true, failed: false };
        let Some(id) = self.tree.put(hash, block.header, status) else {
            return info!(%hash, "a block whose parent the network does not know");
        };
        self.tree.set_tip(id);
        self.last_tip_change = now;
        self.mark_received(&hash, now);
        self.forget_confirmed(block);
        self.retry_orphans();
        self.keep_recent(hash, block);
        self.update_initial_download(now);
        if !self.initial_download {
            self.queue_announcement(id);
        }
    }

    pub(super) fn block_disconnected(&mut self, block: &Block) {
        if let Some(parent) = self.tree.find(&block.header.prev_blockhash) {
            self.tree.set_tip(parent);
        }
        self.relay.rejected.clear();
    }

    pub(super) fn keep_recent(&mut self, hash: BlockHash, block: &Arc<Block>) {
        if self.recent.as_ref().is_none_or(|recent| recent.hash != hash) {
            self.recent = Some(RecentBlock { hash, block: block.clone(), compact: [None, None] });
        }
    }
}
