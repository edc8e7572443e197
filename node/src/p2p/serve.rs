//! Serves what peers request: headers, blocks, parts of blocks, transactions.
//!
//! Lives here: the answers, and the queue of a peer's requests. Does not live here: reading blocks from disk, which
//! is done elsewhere while other peers are served. Sources: `ProcessGetData`, `ProcessMessage` (getheaders,
//! getblocks, getblocktxn). One block at a time is produced for a peer, and none while it does not read.

use std::sync::Arc;

use bitcoin::{Block, BlockHash};
use iop_consensus::wire::whole_block;
use tracing::debug;

use super::compact::{self, BlockTransactionsRequest, CompactBlock};
use super::connection::SEND_PAUSE;
use super::message::{
    BLOCK, COMPACT_BLOCK, Inv, Locator, MAX_HEADERS, MAX_INV, Message, TX, WITNESS, stripped_block,
};
use super::net::{Net, Question};
use super::peer::{Micros, PeerId, Wanted};
use super::tree::NodeId;

/// Maximum number of hashes in the answer to getblocks.
const MAX_BLOCK_HASHES: usize = 500;
/// Compact blocks are served down to this depth below the tip (`MAX_CMPCTBLOCK_DEPTH`).
const COMPACT_DEPTH: u32 = 5;
/// Parts of blocks are served down to this depth below the tip (`MAX_BLOCKTXN_DEPTH`).
const PARTS_DEPTH: u32 = 10;
/// Side branches older than this many seconds are not served (against fingerprinting).
const ONE_MONTH: u64 = 30 * 24 * 60 * 60;
/// Maximum number of outstanding entries that a peer may have requested: two full messages.
const MAX_WAITING: usize = 2 * MAX_INV;

/// Maximum number of outstanding requests of a peer for parts of blocks.
const MAX_PARTS: usize = 16;

/// Why a block is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To send it whole to a peer.
    Whole(PeerId),
    /// To send it without witnesses to a peer.
    Stripped(PeerId),
    /// To send it as a compact block to a peer.
    Compact(PeerId),
    /// To send some of its transactions to a peer.
    Parts(PeerId, BlockTransactionsRequest),
}

impl Purpose {
    fn peer(&self) -> PeerId {
        match self {
            Self::Whole(id) | Self::Stripped(id) | Self::Compact(id) | Self::Parts(id, _) => *id,
        }
    }
}

impl Net {
    pub(super) fn on_getheaders(&mut self, id: PeerId, locator: &Locator) {
        // Before the minimum work is reached, peers should not follow this chain.
        if self.tip_work() < self.minimum_work() {
            return;
        }
        let first: Vec<NodeId> = if locator.hashes.is_empty() {
            // Without a locator: only the header named by `stop`, from any branch.
            let Some(named) = self.tree.find(&locator.stop) else { return };
            let rest = self.tree.is_active(named).then(|| self.tree.active_after(named));
            std::iter::once(named).chain(rest.into_iter().flatten()).take(1).collect()
        } else {
            let fork = self.tree.fork_in_active(&locator.hashes);
            self.tree.active_after(fork).take(MAX_HEADERS).collect()
        };
        let stop = first.iter().position(|&node| self.tree.get(node).hash == locator.stop);
        let nodes = &first[..stop.map_or(first.len(), |at| at + 1)];
        let headers =
            nodes.iter().map(|&node| self.tree.get(node)).map(|node| (node.hash, node.header)).collect();
        // Set to what was sent, even if more was sent before, so that a new tip is announced once more.
        let last = nodes.last().copied().unwrap_or(self.tree.tip());
        self.with(id, |peer| peer.blocks.best_sent = Some(last));
        self.send(id, Message::Headers(headers));
    }

    pub(super) fn on_getblocks(&mut self, id: PeerId, locator: &Locator) {
        let fork = self.tree.fork_in_active(&locator.hashes);
        let nodes = self.tree.active_after(fork).map(|node| self.tree.get(node).hash);
        let hashes: Vec<BlockHash> =
            nodes.take_while(|hash| *hash != locator.stop).take(MAX_BLOCK_HASHES).collect();
        if hashes.len() == MAX_BLOCK_HASHES {
            self.with(id, |peer| peer.blocks.continue_at = hashes.last().copied());
        }
        if !hashes.is_empty() {
            self.send(id, Message::Inv(hashes.iter().map(|hash| Inv::block(BLOCK, hash)).collect()));
        }
    }

    pub(super) fn on_getdata(&mut self, id: PeerId, list: Vec<Inv>, now: Micros) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if peer.blocks.getdata.len() + list.len() > MAX_WAITING {
            return self.misbehaving(id, 20, "it asks for more than it takes", now);
        }
        peer.blocks.getdata.extend(list.into_iter().map(Wanted::Inv));
        self.serve(id, now);
    }

    /// Serves a peer's requests, up to the next block that must be read.
    pub(super) fn serve(&mut self, id: PeerId, now: Micros) {
        let (mut not_found, mut given) = (Vec::new(), 0);
        while given < SEND_PAUSE {
            let Some(peer) = self.peers.get_mut(&id) else { return };
            if peer.blocks.serving || peer.blocks.congested || peer.closing {
                break;
            }
            let inv = match peer.blocks.getdata.pop_front() {
                None => break,
                Some(Wanted::Parts(request)) => {
                    self.read(id, request.block_hash, Purpose::Parts(id, request), now);
                    break;
                }
                Some(Wanted::Inv(inv)) => inv,
            };
            match inv.kind & !WITNESS {
                TX => match self.serve_tx(id, &inv) {
                    Some(bytes) => given += bytes,
                    None => not_found.push(inv),
                },
                BLOCK | COMPACT_BLOCK => {
                    self.serve_block(id, &inv, now);
                    // One block at a time: check first whether the peer reads.
                    break;
                }
                _ => {}
            }
        }
        for list in not_found.chunks(MAX_INV) {
            self.send(id, Message::NotFound(list.to_vec()));
        }
    }

    fn serve_block(&mut self, id: PeerId, inv: &Inv, now: Micros) {
        let hash = inv.block_hash();
        let Some(node) = self.tree.find(&hash).filter(|&node| self.may_give(node)) else { return };
        let depth = self.tree.get(self.tree.tip()).height.saturating_sub(self.tree.get(node).height);
        let compact = inv.kind == COMPACT_BLOCK && depth <= COMPACT_DEPTH && self.is_near_tip(now);
        let wants_witness = match inv.kind {
            COMPACT_BLOCK => self.compact_version_of(id) == compact::Version::Two,
            kind => kind & WITNESS != 0,
        };
        let purpose = match (compact, wants_witness) {
            (true, _) => Purpose::Compact(id),
            (false, true) => Purpose::Whole(id),
            (false, false) => Purpose::Stripped(id),
        };
        self.read(id, hash, purpose, now);
    }

    fn read(&mut self, id: PeerId, hash: BlockHash, purpose: Purpose, now: Micros) {
        self.with(id, |peer| peer.blocks.serving = true);
        let recent = self.recent.as_ref().filter(|recent| recent.hash == hash);
        match recent.map(|recent| recent.block.clone()) {
            Some(block) => self.give(hash, &purpose, &block, now),
            None => self.ask(Question::Read(hash, purpose)),
        }
    }

    fn compact_version_of(&self, id: PeerId) -> compact::Version {
        self.peers.get(&id).and_then(|peer| peer.blocks.compact_version).unwrap_or(compact::Version::One)
    }

    /// Whether a block may be served: active blocks, and valid ones of recent side branches.
    fn may_give(&self, node: NodeId) -> bool {
        if self.tree.is_active(node) {
            return true;
        }
        let (entry, best) = (self.tree.get(node), self.tree.best());
        let newest = self.tree.get(best).header.time;
        let spacing = self.params.pow.target_spacing;
        entry.status.valid
            && u64::from(newest.saturating_sub(entry.header.time)) < ONE_MONTH
            && self.tree.equivalent_time(best, node, spacing) < ONE_MONTH
    }

    /// A block was read for a peer.
    pub(super) fn block_read(
        &mut self,
        hash: BlockHash,
        purpose: Purpose,
        bytes: Option<Arc<Vec<u8>>>,
        now: Micros,
    ) {
        let id = purpose.peer();
        let Some(bytes) = bytes else {
            // Pruned, or never stored: the reference does not answer either.
            debug!(peer = id.0, %hash, "a block that was asked for is not here");
            self.with(id, |peer| peer.blocks.serving = false);
            return self.serve(id, now);
        };
        if matches!(purpose, Purpose::Whole(_)) {
            self.send(id, Message::RawBlock(bytes));
            self.given(id, hash);
            return self.serve(id, now);
        }
        match whole_block(&bytes) {
            Ok(block) => self.give(hash, &purpose, &Arc::new(block), now),
            Err(error) => {
                tracing::error!(%hash, "a stored block cannot be read: {error}");
                self.with(id, |peer| peer.blocks.serving = false);
            }
        }
        self.serve(id, now);
    }

    fn give(&mut self, hash: BlockHash, purpose: &Purpose, block: &Arc<Block>, now: Micros) {
        let id = purpose.peer();
        match purpose {
            Purpose::Whole(_) => self.send(id, Message::Block(hash, block.clone())),
            Purpose::Stripped(_) => self.send(id, Message::RawBlock(Arc::new(stripped_block(block)))),
            Purpose::Compact(_) => {
                let (nonce, version) = (self.random.next(), self.compact_version_of(id));
                if let Some(compact) = CompactBlock::of(block, nonce, version) {
                    self.send(id, Message::CmpctBlock(Arc::new(compact), version));
                }
            }
            Purpose::Parts(_, request) => match request.answer(block) {
                Some(parts) => self.send(id, Message::BlockTxn(parts, self.compact_version_of(id))),
                None => self.misbehaving(id, 100, "getblocktxn with an index beyond the block", now),
            },
        }
        self.given(id, hash);
    }

    fn given(&mut self, id: PeerId, hash: BlockHash) {
        let tip = self.tree.get(self.tree.tip()).hash;
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.blocks.serving = false;
        if peer.blocks.continue_at == Some(hash) {
            // Makes an old client request the next hashes.
            peer.blocks.continue_at = None;
            self.send(id, Message::Inv(vec![Inv::block(BLOCK, &tip)]));
        }
    }

    pub(super) fn on_getblocktxn(&mut self, id: PeerId, request: BlockTransactionsRequest, now: Micros) {
        let hash = request.block_hash;
        let node = self.tree.find(&hash).filter(|&node| self.tree.get(node).status.have);
        let Some(node) = node else {
            return debug!(peer = id.0, %hash, "parts of a block that is not here");
        };
        let depth = self.tree.get(self.tree.tip()).height.saturating_sub(self.tree.get(node).height);
        if depth > PARTS_DEPTH {
            // Sends the whole block: a peer that makes us read it must receive it all.
            let witness = if self.compact_version_of(id) == compact::Version::Two { WITNESS } else { 0 };
            return self.on_getdata(id, vec![Inv::block(BLOCK | witness, &hash)], now);
        }
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let parts = peer.blocks.getdata.iter().filter(|wanted| matches!(wanted, Wanted::Parts(_))).count();
        if parts >= MAX_PARTS {
            return self.misbehaving(id, 20, "it asks for more parts of blocks than it takes", now);
        }
        peer.blocks.getdata.push_back(Wanted::Parts(request));
        self.serve(id, now);
    }
}
