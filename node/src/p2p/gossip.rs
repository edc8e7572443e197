//! Exchange of node addresses between peers.
//!
//! Lives here: sending and receiving addr and getaddr, and advertising our own address. Does not live here: the
//! table (`addresses/`), and which peers to connect to (`slots.rs`). Sources: `ProcessMessage` (addr, getaddr),
//! `RelayAddress`, `AdvertiseLocal`.

use std::net::SocketAddr;

use super::addresses::ip::{NetAddress, TimedAddress};
use super::message::{MAX_ADDR, Message, NODE_NETWORK};
use super::net::Net;
use super::peer::{Micros, PeerId, address_key};

/// Mean seconds between address messages to a peer (`AVG_ADDRESS_BROADCAST_INTERVAL`).
const SEND_EVERY: f64 = 30.0;
/// Mean seconds between advertisements of our own address (`AVG_LOCAL_ADDRESS_BROADCAST_INTERVAL`).
const OWN_EVERY: f64 = 24.0 * 60.0 * 60.0;
/// Only addresses from messages with at most this many entries are relayed.
const NEWS: usize = 10;
/// Only addresses seen within this many seconds are relayed.
const FRESH: u64 = 10 * 60;
/// Number of peers that an address is relayed to (`RelayAddress`).
const PASSED_ON: usize = 2;
/// Seconds subtracted from the time of an address that we hear of.
const PENALTY: u64 = 2 * 60 * 60;

impl Net {
    pub(super) fn on_addr(&mut self, id: PeerId, list: Vec<TimedAddress>, now: Micros) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let (source, asked, count) = (peer.address.ip().into(), peer.gossip.asked_getaddr, list.len());
        if count < MAX_ADDR {
            peer.gossip.asked_getaddr = false;
        }
        let adjusted = self.adjusted_time(now);
        for mut heard in list {
            if heard.services & NODE_NETWORK == 0 {
                continue;
            }
            if heard.time <= 100_000_000 || heard.time > adjusted + FRESH {
                heard.time = adjusted.saturating_sub(5 * 24 * 60 * 60);
            }
            self.with(id, |peer| {
                peer.gossip.known.insert(address_key(&heard.address));
            });
            let fresh = heard.time + FRESH > adjusted;
            if fresh && !asked && count <= NEWS && heard.address.ip.is_routable() {
                self.pass_on(&heard, now);
            }
            if !self.own.contains(&heard.address) {
                self.addresses.add(&heard, source, PENALTY, adjusted);
            }
        }
    }

    /// Relays to two peers, the same ones for a day, so that they hear of it once.
    fn pass_on(&mut self, heard: &TimedAddress, now: Micros) {
        let day = self.wall(now) / (24 * 60 * 60);
        let key = address_key(&heard.address) ^ day;
        let mut ranked: Vec<(u64, PeerId)> = self
            .peers
            .iter()
            .filter(|(_, peer)| peer.is_ready())
            .map(|(id, _)| ((key ^ id.0).wrapping_mul(0x9e37_79b9_7f4a_7c15), *id))
            .collect();
        ranked.sort_unstable();
        for (_, id) in ranked.into_iter().take(PASSED_ON) {
            self.queue_address(id, *heard);
        }
    }

    fn queue_address(&mut self, id: PeerId, heard: TimedAddress) {
        let place = self.random.below(MAX_ADDR as u64) as usize;
        self.with(id, |peer| {
            if peer.gossip.known.contains(address_key(&heard.address)) {
                return;
            }
            if peer.gossip.queued.len() >= MAX_ADDR {
                peer.gossip.queued[place] = heard;
            } else {
                peer.gossip.queued.push(heard);
            }
        });
    }

    pub(super) fn on_getaddr(&mut self, id: PeerId, now: Micros) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        // Answered only to inbound peers, and once, against fingerprinting.
        if !peer.inbound() || peer.gossip.answered_getaddr {
            return;
        }
        peer.gossip.answered_getaddr = true;
        peer.gossip.queued.clear();
        let sample = self.addresses.sample(self.adjusted_time(now));
        sample.into_iter().for_each(|heard| self.queue_address(id, heard));
    }

    /// Sends a peer our own address, as it sees us or as we know it, if we accept connections.
    pub(super) fn advertise(&mut self, id: PeerId, seen_as: Option<SocketAddr>, now: Micros) {
        let Some(port) = self.listening else { return };
        let Some(peer) = self.peers.get(&id) else { return };
        let seen = seen_as.or(peer.version.our_address).map(|seen| NetAddress { ip: seen.ip().into(), port });
        let known = self.own.best_for(&peer.address.ip().into());
        let address = known.or(seen.filter(|_| !peer.inbound()));
        if let Some(address) = address.filter(|address| address.ip.is_routable()) {
            let time = self.adjusted_time(now);
            self.queue_address(id, TimedAddress { address, services: self.services, time });
        }
    }

    pub(super) fn send_addresses(&mut self, id: PeerId, now: Micros) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if !self.initial_download && peer.gossip.next_own < now {
            peer.gossip.next_own = self.random.poisson(now, OWN_EVERY);
            self.advertise(id, None, now);
        }
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if peer.gossip.next >= now {
            return;
        }
        peer.gossip.next = self.random.poisson(now, SEND_EVERY);
        let mut list = std::mem::take(&mut peer.gossip.queued);
        list.retain(|heard| peer.gossip.known.insert(address_key(&heard.address)));
        if !list.is_empty() {
            self.send(id, Message::Addr(list));
        }
    }
}
