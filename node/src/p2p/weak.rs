//! Headers of branches that are behind ours: how many of them a peer may bring.
//!
//! Lives here: the bound and what it costs to pass it. Does not live here: which headers are taken (the chain), and those
//! that are far ahead (`sync.rs`). The chain never forgets a header, whichever message brought it: `headers`,
//! `cmpctblock`, or a `block` that nobody asked for. All three count here. The reference has no such bound.

use super::net::Net;
use super::peer::{Micros, PeerId};
use super::tree::NodeId;

/// Headers that a peer may give in branches with less work than the tip's: 10 MB for each address, which is banned
/// then.
const MAX_WEAK_HEADERS: usize = 20_000;

impl Net {
    /// So many new headers up to `last` as count: none where the branch has the tip's work.
    pub(super) fn weak(&self, last: NodeId, new: usize) -> usize {
        if self.work(last) >= self.tip_work() { 0 } else { new }
    }

    /// Counts weak headers of a peer; whether it has given too many, and is punished. What is strong takes nothing back: a
    /// peer could always say the tip's header in between.
    pub(super) fn too_many_weak(&mut self, id: PeerId, new: usize, now: Micros) -> bool {
        let Some(peer) = self.peers.get_mut(&id) else { return false };
        peer.weak_headers += new;
        let too_many = peer.weak_headers > MAX_WEAK_HEADERS;
        if too_many {
            self.misbehaving(id, 100, "too many headers of branches with little work", now);
        }
        too_many
    }
}
