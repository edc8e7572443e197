//! Requested blocks that do not arrive.
//!
//! Lives here: requesting the next block from other peers when its sender withholds it. Does not live here:
//! timeouts that end a connection (`sync.rs`). Each peer is asked once for a block, so a slow line costs at most
//! one copy per peer.

use tracing::debug;

use super::net::Net;
use super::peer::{Micros, Peer, PeerId, SECOND};
use super::sync::MAX_IN_FLIGHT;
use super::tree::NodeId;

/// A late block is requested from another peer after this long.
const PATIENCE: Micros = 3 * SECOND;
/// Only blocks up to this far above the tip count as late.
const LATE_AHEAD: u32 = 2;

impl Net {
    /// Requests late blocks from other peers that have them, one peer after another. A peer that announces a block
    /// and withholds it thus delays it by [`PATIENCE`] only; the reference waits for a block interval and more.
    pub(super) fn ask_others_for_late_blocks(&mut self, now: Micros) {
        if self.initial_download {
            return;
        }
        let next = self.tree.get(self.tree.tip()).height + LATE_AHEAD;
        let late = self.in_flight.values().filter(|in_flight| in_flight.since + PATIENCE < now);
        let late: Vec<NodeId> = late.filter_map(|in_flight| in_flight.node).collect();
        for node in late {
            let entry = self.tree.get(node);
            let (hash, height) = (entry.hash, entry.height);
            if height > next {
                continue;
            }
            let Some(asked) = self.in_flight.get(&hash).map(|in_flight| in_flight.asked.clone()) else {
                continue;
            };
            let Some(other) = self.another_with(node, &asked) else { continue };
            debug!(peer = other.0, %hash, "a block that does not come is asked of another peer");
            self.request_blocks(other, &[node], false, now);
            if let Some(in_flight) = self.in_flight.get_mut(&hash) {
                in_flight.asked.splice(0..0, asked);
            }
        }
    }

    /// A peer that has a block and was not asked for it: outbound and manual ones first, then the one that sent us
    /// a block last.
    fn another_with(&self, node: NodeId, asked: &[PeerId]) -> Option<PeerId> {
        let has = |peer: &Peer| {
            let best = peer.sync.best_known.filter(|&best| self.tree.is_ancestor(node, best));
            best.is_some()
                && peer.is_ready()
                && !peer.is_client()
                && peer.sync.in_flight.len() < MAX_IN_FLIGHT
        };
        let others = self.peers.iter().filter(|(id, peer)| !asked.contains(id) && has(peer));
        let others = others.filter(|(id, _)| self.has_our_blocks(**id));
        others.max_by_key(|(_, peer)| (peer.is_preferred(), peer.sync.last_block)).map(|(id, _)| *id)
    }
}
