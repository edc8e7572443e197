//! Announces new blocks to peers: as compact block, header or hash, as each peer prefers.
//!
//! Lives here: which peers are told, and when. Does not live here: serving what they request then (`serve.rs`).
//! Sources: `NewPoWValidBlock`, `UpdatedBlockTip`, `SendMessages`. Blocks are announced at once, without the delay
//! that transactions have.

use std::sync::Arc;

use bitcoin::Block;

use super::compact::{self, CompactBlock};
use super::message::{BLOCK, Inv, Message};
use super::net::Net;
use super::peer::{Micros, PeerId};
use super::sync::MAX_ANNOUNCED;
use super::tree::{NodeId, Status};

/// Old blocks are not announced to a peer whose claimed height is this far above the tip.
const BEHIND: u32 = 2_000;

impl Net {
    /// A block passed its checks except scripts and will be the tip if they pass: high-bandwidth compact block
    /// peers get it before it is connected.
    pub(super) fn block_arrived(&mut self, block: &Arc<Block>, _now: Micros) {
        let hash = block.block_hash();
        let status = Status { have: true, ..Status::default() };
        let Some(id) = self.tree.put(hash, block.header, status) else { return };
        let (height, parent) = (self.tree.get(id).height, self.tree.get(id).parent);
        if height <= self.announced_height {
            return;
        }
        self.announced_height = height;
        self.keep_recent(hash, block);
        let wants: Vec<PeerId> = self
            .peers
            .iter()
            .filter(|(_, peer)| peer.is_ready() && peer.blocks.prefers_compact)
            .map(|(id, _)| *id)
            .collect();
        for peer in wants {
            self.resolve_unknown(peer);
            if !self.has_header(peer, id) && parent.is_some_and(|parent| self.has_header(peer, parent)) {
                self.send_compact(peer);
                self.with(peer, |peer| peer.blocks.best_sent = Some(id));
            }
        }
    }

    /// Whether a peer is known to have a header (`PeerHasHeader`).
    fn has_header(&self, id: PeerId, node: NodeId) -> bool {
        let Some(peer) = self.peers.get(&id) else { return false };
        let on_branch_of = |best: Option<NodeId>| best.is_some_and(|best| self.tree.is_ancestor(node, best));
        on_branch_of(peer.sync.best_known) || on_branch_of(peer.blocks.best_sent)
    }

    /// Sends the newest block as a compact block, in the peer's version.
    fn send_compact(&mut self, id: PeerId) {
        let Some(peer) = self.peers.get(&id) else { return };
        let version = peer.blocks.compact_version.unwrap_or(compact::Version::One);
        let nonce = self.random.next();
        let Some(recent) = &mut self.recent else { return };
        let place = &mut recent.compact[usize::from(version == compact::Version::Two)];
        if place.is_none() {
            *place = CompactBlock::of(&recent.block, nonce, version).map(Arc::new);
        }
        if let Some(compact) = place.clone() {
            self.send(id, Message::CmpctBlock(compact, version));
        }
    }

    /// Queues a new tip for announcement to every peer; [`Net::flush`] sends it.
    pub(super) fn queue_announcement(&mut self, node: NodeId) {
        let height = self.tree.get(node).height;
        for peer in self.peers.values_mut().filter(|peer| peer.is_ready()) {
            let claimed = u32::try_from(peer.version.start_height).unwrap_or(0);
            if height > claimed.saturating_sub(BEHIND) {
                peer.blocks.announce.push(node);
                // Of more than can be told as headers only the newest counts.
                if peer.blocks.announce.len() > MAX_ANNOUNCED + 1 {
                    peer.blocks.announce.remove(0);
                }
            }
        }
    }

    /// Announces the queued blocks to a peer.
    pub(super) fn announce(&mut self, id: PeerId, _now: Micros) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let (prefers_headers, prefers_compact) = (peer.blocks.prefers_headers, peer.blocks.prefers_compact);
        let blocks = std::mem::take(&mut peer.blocks.announce);
        let Some(&newest) = blocks.last() else { return };
        self.resolve_unknown(id);
        let by_header = prefers_headers || (prefers_compact && blocks.len() == 1);
        let new =
            if by_header && blocks.len() <= MAX_ANNOUNCED { self.headers_for(id, &blocks) } else { None };
        match new {
            Some(new) if new.is_empty() => {}
            Some(new) if new.len() == 1 && prefers_compact && self.is_recent(newest) => {
                self.send_compact(id);
                self.with(id, |peer| peer.blocks.best_sent = Some(newest));
            }
            Some(new) if prefers_headers => {
                let headers =
                    new.iter().map(|&node| self.tree.get(node)).map(|node| (node.hash, node.header));
                let headers = headers.collect();
                self.send(id, Message::Headers(headers));
                self.with(id, |peer| peer.blocks.best_sent = Some(newest));
            }
            _ if !self.has_header(id, newest) => {
                let hash = self.tree.get(newest).hash;
                self.send(id, Message::Inv(vec![Inv::block(BLOCK, &hash)]));
            }
            _ => {}
        }
    }

    fn is_recent(&self, node: NodeId) -> bool {
        self.recent.as_ref().is_some_and(|recent| recent.hash == self.tree.get(node).hash)
    }

    /// The blocks that the peer lacks, if they form a chain that connects to what it has.
    fn headers_for(&self, id: PeerId, blocks: &[NodeId]) -> Option<Vec<NodeId>> {
        let mut new: Vec<NodeId> = Vec::new();
        for (place, &node) in blocks.iter().enumerate() {
            let parent = self.tree.get(node).parent;
            let follows = place == 0 || parent == Some(blocks[place - 1]);
            if !self.tree.is_active(node) || !follows {
                return None;
            }
            if !new.is_empty() {
                new.push(node);
            } else if self.has_header(id, node) {
                continue;
            } else if parent.is_none_or(|parent| self.has_header(id, parent)) {
                new.push(node);
            } else {
                return None;
            }
        }
        Some(new)
    }
}
