//! Headers-first sync: what to request from which peer, and which peer stalls it.
//!
//! Lives here: header processing, the download window, and the timeouts of both. Does not live here: received
//! blocks (`blocks.rs`). Sources: `ProcessHeadersMessage`, `SendMessages`, `FindNextBlocksToDownload`,
//! `ConsiderEviction`. Headers are limited: see [`HEADERS_AHEAD`] and `weak.rs`.

use bitcoin::BlockHash;
use bitcoin::block::Header;
use tracing::debug;

use super::blocks::InFlight;
use super::message::{BLOCK, COMPACT_BLOCK, Inv, Locator, MAX_HEADERS, Message, WITNESS};
use super::net::{Net, Question};
use super::peer::{Micros, PeerId, SECOND};
use super::score::{Refusal, Scope};
use super::tree::{HeaderTree, NodeId, Status};

/// Maximum number of blocks in flight per peer (`MAX_BLOCKS_IN_TRANSIT_PER_PEER`).
pub(super) const MAX_IN_FLIGHT: usize = 16;
/// Blocks are requested at most this far above the last common one (`BLOCK_DOWNLOAD_WINDOW`).
const WINDOW: u32 = 1_024;
/// A message with fewer headers than this may be an announcement (`MAX_BLOCKS_TO_ANNOUNCE`).
pub(super) const MAX_ANNOUNCED: usize = 8;
/// This many consecutive announcements that do not connect cost points (`MAX_UNCONNECTING_HEADERS`).
const MAX_UNCONNECTING: u32 = 10;
/// A peer that stalls the window is dropped after this (`BLOCK_STALLING_TIMEOUT`).
const STALLING_TIME: Micros = 2 * SECOND;
/// Timeout of the first headers sync (`HEADERS_DOWNLOAD_TIMEOUT_BASE`), plus a millisecond per expected header
/// (`HEADERS_DOWNLOAD_TIMEOUT_PER_HEADER`).
const HEADERS_TIME: Micros = 15 * 60 * SECOND;
/// A peer that is still sending headers is asked for blocks once none arrived for this long.
const HEADERS_PAUSE: Micros = SECOND;
/// Headers are requested from all peers if the best one is at most this many seconds old.
const NEAR_TODAY: u64 = 24 * 60 * 60;
/// An outbound peer whose chain has less work than ours is sent getheaders after this, and dropped two minutes
/// later (`CHAIN_SYNC_TIMEOUT`, `HEADERS_RESPONSE_TIME`).
const CHAIN_SYNC_TIME: Micros = 20 * 60 * SECOND;
const CHAIN_SYNC_ANSWER: Micros = 120 * SECOND;
/// Number of outbound peers that are kept whatever their chain does later
/// (`MAX_OUTBOUND_PEERS_TO_PROTECT_FROM_DISCONNECT`).
const MAX_PROTECTED: usize = 4;
/// Maximum number of headers beyond the tip; more are requested as blocks arrive. The reference has no such limit.
/// Half a million take about 250 MB with the chain's own index: nine years of ten-minute blocks.
const HEADERS_AHEAD: u32 = 500_000;

impl Net {
    /// Starts requesting headers from a peer, if it is due.
    pub(super) fn start_sync(&mut self, id: PeerId, now: Micros) {
        let Some(peer) = self.peers.get(&id) else { return };
        if peer.sync.started || !peer.is_ready() || peer.is_client() {
            return;
        }
        let best = self.tree.get(self.tree.best());
        let age = self.adjusted_time(now).saturating_sub(u64::from(best.header.time));
        let others = self.peers.values().any(|peer| peer.sync.started);
        if age >= NEAR_TODAY && (others || !self.may_fetch(id)) {
            return;
        }
        let expected = age / u64::from(self.params.pow.target_spacing.max(1));
        // Start at the parent, so that the answer is never empty and shows what the peer has.
        let from = best.parent.unwrap_or(self.tree.best());
        self.with(id, |peer| {
            peer.sync.started = true;
            peer.sync.headers_timeout = Some(now + HEADERS_TIME + expected * 1_000);
        });
        debug!(peer = id.0, "asking for headers from height {}", self.tree.get(from).height);
        self.ask_headers(id, from);
    }

    /// Whether to fetch from this peer: preferred peers, and others only while there are none.
    fn may_fetch(&self, id: PeerId) -> bool {
        let Some(peer) = self.peers.get(&id) else { return false };
        peer.is_preferred() || (!peer.is_client() && !self.peers.values().any(|peer| peer.is_preferred()))
    }

    pub(super) fn ask_headers(&mut self, id: PeerId, from: NodeId) {
        let hashes = self.tree.locator(from);
        self.send(id, Message::GetHeaders(Locator { hashes, stop: HeaderTree::no_hash() }));
    }

    pub(super) fn on_headers(&mut self, id: PeerId, headers: Vec<(BlockHash, Header)>, now: Micros) {
        let (Some((_, first)), Some((last, _))) = (headers.first(), headers.last()) else {
            // An empty message: the peer has no more headers.
            self.with(id, |peer| peer.sync.headers_coming = None);
            return self.fill(id, now);
        };
        let last = *last;
        if self.tree.find(&first.prev_blockhash).is_none() && headers.len() < MAX_ANNOUNCED {
            return self.unconnecting(id, last, now);
        }
        let continuous = headers.windows(2).all(|pair| pair[1].1.prev_blockhash == pair[0].0);
        if !continuous {
            return self.misbehaving(id, 20, "headers that do not follow each other", now);
        }
        // Known headers need no judging; the chain's thread may be busy with a block.
        if self.tree.find(&last).is_some_and(|known| !self.tree.get(known).status.failed) {
            return self.headers_judged(id, &headers, Some(last), None, now);
        }
        if self.too_far_ahead(first) {
            return self.with(id, |peer| peer.sync.more_headers = true);
        }
        if !self.too_many_weak(id, &headers, now) {
            self.ask(Question::Headers(id, headers));
        }
    }

    fn too_far_ahead(&self, first: &Header) -> bool {
        let parent = self.tree.find(&first.prev_blockhash).map_or(0, |id| self.tree.get(id).height);
        let behind = self.tree.get(self.tree.tip()).work < self.minimum_work();
        // Below the minimum work no blocks are requested, so headers must be.
        !behind && parent > self.tree.get(self.tree.tip()).height + HEADERS_AHEAD
    }

    fn unconnecting(&mut self, id: PeerId, last: BlockHash, now: Micros) {
        self.ask_headers(id, self.tree.best());
        self.block_announced(id, last);
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.sync.unconnecting += 1;
        if peer.sync.unconnecting.is_multiple_of(MAX_UNCONNECTING) {
            self.misbehaving(id, 20, "ten announcements in a row that do not connect", now);
        }
    }

    /// The chain judged headers (the second half of `ProcessHeadersMessage`).
    pub(super) fn headers_judged(
        &mut self,
        id: PeerId,
        headers: &[(BlockHash, Header)],
        last: Option<BlockHash>,
        refused: Option<(BlockHash, Refusal)>,
        now: Micros,
    ) {
        let before = self.tree.len();
        let mut kept = None;
        for (hash, header) in
            headers.iter().take_while(|(hash, _)| Some(*hash) != refused.as_ref().map(|r| r.0))
        {
            kept = self.tree.put(*hash, *header, Status::default());
        }
        let new = self.tree.len() - before;
        if let Some((hash, refusal)) = refused {
            // They looked strong only because of the refused one, so they were not counted yet.
            let weak = kept.is_some_and(|kept| self.work(kept) < self.tip_work());
            if weak && self.say_to_be_strong(headers) && self.count_weak(id, new, now) {
                return;
            }
            return self.headers_refused(id, hash, &refusal, now);
        }
        let Some(last) = last.and_then(|hash| self.tree.find(&hash)) else { return };
        let height = |node: NodeId| self.tree.get(node).height;
        let known = self.peers.get(&id).and_then(|peer| peer.sync.best_known).map(height);
        let further = known.is_none_or(|known| height(last) > known);
        self.block_announced(id, self.tree.get(last).hash);
        let better = self.work(last) > self.tip_work();
        self.with(id, |peer| {
            peer.sync.unconnecting = 0;
            if new > 0 && better {
                peer.sync.last_announcement = now;
            }
        });
        let full = headers.len() == MAX_HEADERS;
        // Headers that were known already do not count as progress.
        self.with(id, |peer| peer.sync.headers_coming = (full && further).then_some(now));
        if full {
            self.ask_more_headers(id, last);
        }
        if self.is_near_tip(now) && !self.tree.get(last).status.failed && self.work(last) >= self.tip_work() {
            self.fetch_directly(id, last, now);
        }
        self.judge_chain_of(id, full);
        self.fill(id, now);
    }

    fn headers_refused(&mut self, id: PeerId, hash: BlockHash, refusal: &Refusal, now: Micros) {
        debug!(peer = id.0, %hash, "header refused: {}", refusal.reason);
        self.misbehaving(id, refusal.points, &format!("header {hash}: {}", refusal.reason), now);
        let replaceable = self.peers.get(&id).is_some_and(|peer| peer.is_replaceable());
        if refusal.scope == Scope::KnownBefore && replaceable {
            self.close(id, "its chain holds a block that breaks a rule");
        }
    }

    fn ask_more_headers(&mut self, id: PeerId, last: NodeId) {
        if self.too_far_ahead(&self.tree.get(last).header) {
            return self.with(id, |peer| {
                peer.sync.more_headers = true;
                peer.sync.headers_coming = None;
            });
        }
        // Requested even if all of these were known. A locator from higher up has gaps lower down: if the peer's
        // chain leaves ours within one, it would answer with the same headers again.
        self.ask_headers(id, last);
    }

    /// Judges an outbound peer by a complete answer: too little work disconnects it, enough work protects it.
    fn judge_chain_of(&mut self, id: PeerId, more: bool) {
        let Some(peer) = self.peers.get(&id) else { return };
        let (Some(best), true) = (peer.sync.best_known, peer.is_replaceable()) else { return };
        if self.initial_download && !more && self.work(best) < self.minimum_work() {
            return self.close(id, "its headers have too little work");
        }
        let protected = self.peers.values().filter(|peer| peer.sync.chain_sync.protected).count();
        if protected < MAX_PROTECTED && self.work(best) >= self.tip_work() {
            self.with(id, |peer| peer.sync.chain_sync.protected = true);
        }
    }

    /// Notes that a peer has a block (`UpdateBlockAvailability`).
    pub(super) fn block_announced(&mut self, id: PeerId, hash: BlockHash) {
        self.resolve_unknown(id);
        let found = self.tree.find(&hash);
        let better = found.filter(|&found| {
            let best = self.peers.get(&id).and_then(|peer| peer.sync.best_known);
            best.is_none_or(|best| self.work(found) >= self.work(best))
        });
        self.with(id, |peer| match (found, better) {
            (None, _) => peer.sync.last_unknown = Some(hash),
            (_, Some(better)) => peer.sync.best_known = Some(better),
            _ => {}
        });
    }

    /// Checks whether the last unknown block that a peer announced is known by now (`ProcessBlockAvailability`).
    pub(super) fn resolve_unknown(&mut self, id: PeerId) {
        let Some(hash) = self.peers.get(&id).and_then(|peer| peer.sync.last_unknown) else { return };
        let Some(found) = self.tree.find(&hash) else { return };
        let best = self.peers.get(&id).and_then(|peer| peer.sync.best_known);
        let better = best.is_none_or(|best| self.work(found) >= self.work(best));
        self.with(id, |peer| {
            peer.sync.last_unknown = None;
            if better {
                peer.sync.best_known = Some(found);
            }
        });
    }

    /// Near the tip, requests announced blocks at once from the peer that announced them.
    fn fetch_directly(&mut self, id: PeerId, last: NodeId, now: Micros) {
        let mut missing = Vec::new();
        let mut walk = last;
        while !self.tree.is_active(walk) && missing.len() <= MAX_IN_FLIGHT {
            if self.is_missing(walk) && self.has_our_blocks(id) {
                missing.push(walk);
            }
            walk = self.tree.get(walk).parent.expect("genesis is active");
        }
        if !self.tree.is_active(walk) {
            // A large reorganisation: left to the download window.
            return;
        }
        let room =
            self.peers.get(&id).map_or(0, |peer| MAX_IN_FLIGHT.saturating_sub(peer.sync.in_flight.len()));
        let wanted: Vec<NodeId> = missing.into_iter().rev().take(room).collect();
        let alone = wanted.len() == 1 && self.in_flight.is_empty();
        let gives_compact = self.peers.get(&id).is_some_and(|peer| peer.sync.gives_compact);
        let parent_valid =
            self.tree.get(last).parent.is_some_and(|parent| self.tree.get(parent).status.valid);
        self.request_blocks(id, &wanted, alone && gives_compact && parent_valid, now);
    }

    /// Whether a block is neither stored, nor being judged, nor in flight.
    fn is_missing(&self, id: NodeId) -> bool {
        let node = self.tree.get(id);
        !node.status.have
            && !self.in_flight.contains_key(&node.hash)
            && !self.sources.contains_key(&node.hash)
    }

    pub(super) fn request_blocks(&mut self, id: PeerId, wanted: &[NodeId], compact: bool, now: Micros) {
        if wanted.is_empty() {
            return;
        }
        let kind = if compact { COMPACT_BLOCK } else { BLOCK | self.witness_flag(id) };
        let mut list = Vec::with_capacity(wanted.len());
        for &node in wanted {
            let hash = self.tree.get(node).hash;
            list.push(Inv::block(kind, &hash));
            self.mark_in_flight(id, hash, Some(node), now);
        }
        self.send(id, Message::GetData(list));
    }

    /// Requests blocks and transactions with witnesses if the peer has them (`GetFetchFlags`).
    pub(super) fn witness_flag(&self, id: PeerId) -> u32 {
        if self.peers.get(&id).is_some_and(|peer| peer.gives_witness()) { WITNESS } else { 0 }
    }

    pub(super) fn mark_in_flight(&mut self, id: PeerId, hash: BlockHash, node: Option<NodeId>, now: Micros) {
        self.mark_received(&hash, now);
        self.in_flight.insert(hash, InFlight { peer: id, node, since: now, asked: vec![id], partial: None });
        self.with(id, |peer| {
            if peer.sync.in_flight.is_empty() {
                peer.sync.downloading_since = now;
            }
            peer.sync.in_flight.push_back(hash);
        });
    }

    /// Removes a block from those in flight; returns whether it was (`MarkBlockAsReceived`).
    pub(super) fn mark_received(&mut self, hash: &BlockHash, now: Micros) -> bool {
        let Some(in_flight) = self.in_flight.remove(hash) else { return false };
        self.with(in_flight.peer, |peer| {
            if peer.sync.in_flight.front() == Some(hash) {
                peer.sync.downloading_since = peer.sync.downloading_since.max(now);
            }
            peer.sync.in_flight.retain(|other| other != hash);
            peer.sync.stalling_since = None;
        });
        true
    }

    pub(super) fn fill_all(&mut self, now: Micros) {
        let ids: Vec<PeerId> = self.peers.keys().copied().collect();
        ids.into_iter().for_each(|id| self.fill(id, now));
    }

    /// Requests the next blocks of a peer's chain, up to the limit in flight.
    pub(super) fn fill(&mut self, id: PeerId, now: Micros) {
        let Some(peer) = self.peers.get(&id) else { return };
        // Half the limit keeps the connection busy and saves a walk per block.
        let in_flight = peer.sync.in_flight.len();
        if !peer.is_ready() || peer.is_client() || in_flight > MAX_IN_FLIGHT / 2 {
            return;
        }
        if self.initial_download && (!self.may_fetch(id) || self.gives_headers(id, now)) {
            return;
        }
        let (wanted, staller) = self.next_blocks(id, MAX_IN_FLIGHT - in_flight, now);
        self.request_blocks(id, &wanted, false, now);
        if let (Some(staller), true, 0) = (staller, wanted.is_empty(), in_flight) {
            self.with(staller, |peer| {
                peer.sync.stalling_since.get_or_insert(now);
            });
        }
        self.ask_postponed_headers(id);
    }

    /// Whether a peer is still sending headers. Requesting blocks meanwhile would delay them several times over;
    /// the reference allows that.
    fn gives_headers(&self, id: PeerId, now: Micros) -> bool {
        let last = self.peers.get(&id).and_then(|peer| peer.sync.headers_coming);
        last.is_some_and(|last| now < last + HEADERS_PAUSE)
    }

    /// Requests headers that were too far ahead once the blocks have caught up.
    fn ask_postponed_headers(&mut self, id: PeerId) {
        let best = self.tree.best();
        let postponed = self.peers.get(&id).is_some_and(|peer| peer.sync.more_headers);
        if postponed && !self.too_far_ahead(&self.tree.get(best).header) {
            self.with(id, |peer| peer.sync.more_headers = false);
            self.ask_headers(id, best);
        }
    }

    /// At most `count` blocks to request from a peer, and the peer that stalls the window, if any
    /// (`FindNextBlocksToDownload`).
    fn next_blocks(&mut self, id: PeerId, count: usize, now: Micros) -> (Vec<NodeId>, Option<PeerId>) {
        self.resolve_unknown(id);
        let mut wanted = Vec::new();
        let best = self.peers.get(&id).and_then(|peer| peer.sync.best_known);
        let Some(best) =
            best.filter(|&best| self.work(best) >= self.tip_work() && self.work(best) >= self.minimum_work())
        else {
            return (wanted, None);
        };
        if !self.has_our_blocks(id) {
            return (wanted, None);
        }
        let mut common = self.common_with(id, best);
        let start = self.tree.get(common).height;
        let last = self.tree.get(best).height.min(start + WINDOW + 1);
        let mut waiting_for = None;
        let mut staller = None;
        'walk: for low in (start..last).step_by(128) {
            // Ancestors are found from above, one stretch at a time.
            for node in self.stretch(best, low + 1, (low + 128).min(last)) {
                let entry = self.tree.get(node);
                if entry.status.failed {
                    break 'walk;
                }
                let hash = entry.hash;
                if entry.status.have || self.tree.is_active(node) {
                    let linked = self.tree.get(node).parent == Some(common);
                    common = if linked { node } else { common };
                } else if self.sources.contains_key(&hash) || self.has_spoiled(id, &hash, now) {
                    // The chain is judging it, or this peer's next copy would be as bad.
                } else if let Some(in_flight) = self.in_flight.get(&hash) {
                    waiting_for = waiting_for.or(Some(in_flight.peer));
                } else if self.tree.get(node).height > start + WINDOW {
                    // The window ends here: the peer with its first block stalls it.
                    staller = waiting_for.filter(|_| wanted.is_empty()).filter(|other| *other != id);
                    break 'walk;
                } else {
                    wanted.push(node);
                    if wanted.len() == count {
                        break 'walk;
                    }
                }
            }
        }
        self.with(id, |peer| peer.sync.last_common = Some(common));
        (wanted, staller)
    }

    /// The last block known to be common.
    fn common_with(&self, id: PeerId, best: NodeId) -> NodeId {
        let known = self.peers.get(&id).and_then(|peer| peer.sync.last_common);
        let known = known.unwrap_or_else(|| {
            let height = self.tree.get(best).height.min(self.tree.get(self.tree.tip()).height);
            self.tree.active_at(height).expect("at most the tip's height")
        });
        self.tree.common(known, best)
    }

    /// The ancestors of `best` from height `low` to `high`, ascending.
    fn stretch(&self, best: NodeId, low: u32, high: u32) -> Vec<NodeId> {
        let mut nodes = Vec::with_capacity((high + 1 - low) as usize);
        let mut walk = self.tree.ancestor(best, high);
        for _ in low..=high {
            nodes.push(walk);
            walk = self.tree.get(walk).parent.unwrap_or(walk);
        }
        nodes.reverse();
        nodes
    }

    /// Disconnects peers that stall headers or blocks, or whose chain stays behind.
    pub(super) fn check_sync(&mut self, id: PeerId, now: Micros) {
        let Some(peer) = self.peers.get(&id) else { return };
        if peer.sync.stalling_since.is_some_and(|since| since + STALLING_TIME < now) {
            return self.close(id, "it holds up the download of blocks");
        }
        if let Some(front) = peer.sync.in_flight.front() {
            let others =
                self.peers.values().filter(|other| !other.sync.in_flight.is_empty()).count() as u64 - 1;
            // One block interval, plus half of one for each other peer that shares the bandwidth.
            let spacing = u64::from(self.params.pow.target_spacing) * SECOND;
            if now > peer.sync.downloading_since + spacing + spacing / 2 * others {
                let why = format!("block {front} did not come in time");
                return self.close(id, &why);
            }
        }
        self.check_headers_time(id, now);
        self.check_chain(id, now);
    }

    fn check_headers_time(&mut self, id: PeerId, now: Micros) {
        let Some(timeout) = self.peers.get(&id).and_then(|peer| peer.sync.headers_timeout) else { return };
        let best = u64::from(self.tree.get(self.tree.best()).header.time);
        if best + NEAR_TODAY > self.adjusted_time(now) {
            return self.with(id, |peer| peer.sync.headers_timeout = None);
        }
        let syncing = self.peers.values().filter(|peer| peer.sync.started).count();
        let replaceable = self.peers.iter().any(|(other, peer)| *other != id && peer.is_preferred());
        if now > timeout && syncing == 1 && replaceable {
            self.close(id, "its headers did not come in time");
        }
    }

    /// `ConsiderEviction`: an outbound peer's chain must catch up with our work in time.
    fn check_chain(&mut self, id: PeerId, now: Micros) {
        let (tip, tip_work) = (self.tree.tip(), self.tip_work());
        let Some(peer) = self.peers.get(&id) else { return };
        if peer.sync.chain_sync.protected || !peer.is_replaceable() || !peer.sync.started {
            return;
        }
        let best = peer.sync.best_known.map(|best| self.work(best));
        let caught_up = best.is_some_and(|best| best >= tip_work);
        let reached = peer.sync.chain_sync.work_header.is_some_and(|mark| best >= Some(self.work(mark)));
        let (timeout, asked) = (peer.sync.chain_sync.timeout, peer.sync.chain_sync.asked);
        match timeout {
            _ if caught_up => self.with(id, |peer| peer.sync.chain_sync = Default::default()),
            None => self.set_chain_mark(id, tip, now),
            Some(_) if reached => self.set_chain_mark(id, tip, now),
            Some(timeout) if now <= timeout => {}
            Some(_) if asked => self.close(id, "its chain stays behind ours"),
            Some(_) => {
                let mark =
                    self.peers.get(&id).and_then(|peer| peer.sync.chain_sync.work_header).unwrap_or(tip);
                self.ask_headers(id, self.tree.get(mark).parent.unwrap_or(mark));
                self.with(id, |peer| {
                    peer.sync.chain_sync.asked = true;
                    peer.sync.chain_sync.timeout = Some(now + CHAIN_SYNC_ANSWER);
                });
            }
        }
    }

    fn set_chain_mark(&mut self, id: PeerId, mark: NodeId, now: Micros) {
        self.with(id, |peer| {
            peer.sync.chain_sync.timeout = Some(now + CHAIN_SYNC_TIME);
            peer.sync.chain_sync.work_header = Some(mark);
            peer.sync.chain_sync.asked = false;
        });
    }
}
