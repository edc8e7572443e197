//! Connection slots: which outbound peers to choose, and which inbound peer to evict when slots are full.
//!
//! Lives here: the reference's limits and choices. Does not live here: dialling and accepting (`manager.rs`).
//! Sources: `ThreadOpenConnections`, `AttemptToEvictConnection`, `EvictExtraOutboundPeers`.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;

use super::addresses::ip::{Ip, NetAddress};
use super::message::NODE_NETWORK;
use super::net::Net;
use super::peer::{Micros, Origin, Peer, PeerId, SECOND};

/// Number of outbound peers that we choose (`MAX_OUTBOUND_CONNECTIONS`).
pub(crate) const MAX_OUTBOUND: usize = 8;
/// Maximum number of inbound peers: 125 minus the outbound ones.
pub(crate) const MAX_INBOUND: usize = 117;
/// Maximum number of addresses looked at for one connection.
const TRIES: u32 = 100;
/// An address is not retried within this many seconds while there are others.
const TRIED_LATELY: u64 = 600;
/// An outbound peer is kept at least this long before an extra one replaces it (`MINIMUM_CONNECT_TIME`).
const MIN_CONNECTED: Micros = 30 * SECOND;

impl Net {
    pub(crate) fn count(&self, origin: Origin) -> usize {
        self.peers.values().filter(|peer| peer.origin == origin && !peer.closing).count()
    }

    /// Whether the tip may be stale, so that an extra outbound peer is worth trying (`TipMayBeStale`).
    pub(crate) fn tip_may_be_stale(&self, now: Micros) -> bool {
        let patience = 3 * u64::from(self.params.pow.target_spacing) * SECOND;
        self.last_tip_change + patience < now && self.in_flight.is_empty()
    }

    /// An address to connect to, of a group that no outbound peer belongs to.
    pub(crate) fn choose_outbound(
        &mut self,
        busy: &HashSet<SocketAddr>,
        new_only: bool,
        now: u64,
    ) -> Option<SocketAddr> {
        let chosen = self.peers.values().filter(|peer| peer.origin == Origin::Outbound);
        let mut groups: HashSet<Vec<u8>> = chosen.map(|peer| Ip::from(peer.address.ip()).group()).collect();
        groups.extend(busy.iter().map(|address| Ip::from(address.ip()).group()));
        for tries in 0..TRIES {
            let candidate = self.addresses.select(new_only, now)?;
            let Some(address) = candidate.address.socket_addr() else { continue };
            let lately = candidate.last_try + TRIED_LATELY > now && tries < 30;
            let odd_port = address.port() != self.params.p2p_port && tries < 50;
            let taken = groups.contains(&candidate.address.ip.group()) && !new_only;
            let connected = self.peers.values().any(|peer| peer.address.ip() == address.ip());
            let useful = candidate.services & NODE_NETWORK != 0;
            let own = self.own.contains(&candidate.address);
            if useful && !lately && !odd_port && !taken && !connected && !own && !busy.contains(&address) {
                return Some(address);
            }
        }
        None
    }

    /// Notes a connection attempt to an address.
    pub(crate) fn note_attempt(&mut self, address: SocketAddr, now: u64) {
        let count = self.peers.len() >= 2;
        self.addresses.attempt(&NetAddress::from(address), count, now);
    }

    /// The inbound peer to evict for a new one, if any. Protected are peers of four groups, the eight with the
    /// shortest ping, the four that sent the newest transactions, the four that sent the newest blocks, and the
    /// longer connected half of the rest; of the others, the youngest of the largest group is evicted.
    pub(crate) fn to_evict(&self) -> Option<PeerId> {
        let mut candidates: Vec<(PeerId, &Peer)> = self
            .peers
            .iter()
            .filter(|(_, peer)| peer.inbound() && !peer.closing)
            .map(|(id, peer)| (*id, peer))
            .collect();
        let group = |peer: &Peer| super::peer::address_key(&group_address(peer));
        protect(&mut candidates, 4, |(_, peer)| std::cmp::Reverse(group(peer)));
        protect(&mut candidates, 8, |(_, peer)| peer.ping.fastest.unwrap_or(Micros::MAX));
        protect(&mut candidates, 4, |(_, peer)| std::cmp::Reverse(peer.txs.last_accepted));
        protect(&mut candidates, 4, |(_, peer)| std::cmp::Reverse(peer.sync.last_block));
        let half = candidates.len() / 2;
        protect(&mut candidates, half, |(_, peer)| peer.connected);
        let mut groups: HashMap<Vec<u8>, Vec<(Micros, PeerId)>> = HashMap::new();
        for (id, peer) in &candidates {
            let members = groups.entry(Ip::from(peer.address.ip()).group()).or_default();
            members.push((peer.connected, *id));
        }
        let youngest = |members: &Vec<(Micros, PeerId)>| members.iter().max().copied();
        let largest = groups.values().max_by_key(|members| (members.len(), youngest(members)))?;
        youngest(largest).map(|(_, id)| id)
    }

    /// Drops the least useful extra outbound peer if there are more than [`MAX_OUTBOUND`].
    pub(crate) fn drop_extra_outbound(&mut self, now: Micros) {
        let established = |peer: &Peer| peer.origin == Origin::Outbound && peer.established && !peer.closing;
        if self.peers.values().filter(|peer| established(peer)).count() <= MAX_OUTBOUND {
            return;
        }
        let worst = self
            .peers
            .iter()
            .filter(|(_, peer)| established(peer) && !peer.sync.chain_sync.protected)
            .min_by_key(|(id, peer)| (peer.sync.last_announcement, std::cmp::Reverse(**id)));
        let Some((&id, peer)) = worst else { return };
        if peer.connected + MIN_CONNECTED < now && peer.sync.in_flight.is_empty() {
            self.close(id, "another peer is of more use");
        }
    }
}

/// One address per group, hashed with a secret, so that the protected groups cannot be predicted.
fn group_address(peer: &Peer) -> NetAddress {
    let group = Ip::from(peer.address.ip()).group();
    let mut bytes = [0; 16];
    let len = group.len().min(16);
    bytes[..len].copy_from_slice(&group[..len]);
    NetAddress { ip: Ip(bytes), port: 0 }
}

/// Removes the first `count` candidates by `key`.
fn protect<K: Ord>(candidates: &mut Vec<(PeerId, &Peer)>, count: usize, key: impl Fn(&(PeerId, &Peer)) -> K) {
    candidates.sort_by_key(key);
    candidates.drain(..count.min(candidates.len()));
}
