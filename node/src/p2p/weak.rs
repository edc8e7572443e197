//! Headers of branches that are behind ours: how many of them an address may bring.
//!
//! Lives here: the count for each address, its bound, and what it costs to pass it. Does not live here: which headers are
//! taken (the chain), and those that are far ahead (`sync.rs`). The chain never forgets a header, whichever message brought
//! it: `headers`, `cmpctblock`, or a `block` that nobody asked for. All three count here, before the chain is asked: its
//! answer may come after many more of them. The reference has no such bound.

use std::collections::HashMap;
use std::net::IpAddr;

use bitcoin::BlockHash;
use bitcoin::block::Header;
use iop_consensus::difficulty::work;

use super::addresses::ip::one_network;
use super::net::Net;
use super::peer::{Micros, PeerId, SECOND};

/// Headers that an address may bring in branches with less work than the tip's: 10 MB. Then it is banned.
const MAX_WEAK_HEADERS: usize = 20_000;
/// An address that has brought none for so long may bring as many again.
const FORGOTTEN: Micros = 24 * 60 * 60 * SECOND;
/// Addresses that are remembered, in 1 MB. Who brought least makes room.
const MAX_ADDRESSES: usize = 10_000;

/// What counts as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Place {
    /// An address; an IPv6 network (/64) is one.
    Network(IpAddr),
    /// A connection from this machine: whoever comes by Tor or through a tunnel has its address.
    Connection(PeerId),
}

impl Place {
    fn of(id: PeerId, ip: IpAddr) -> Self {
        if ip.to_canonical().is_loopback() { Self::Connection(id) } else { Self::Network(one_network(ip)) }
    }
}

/// Who brought how many.
#[derive(Debug, Default)]
pub(super) struct WeakHeaders {
    brought: HashMap<Place, Brought>,
}

#[derive(Debug)]
struct Brought {
    headers: usize,
    /// When the last ones came.
    last: Micros,
}

impl Brought {
    fn count(&self, now: Micros) -> usize {
        if self.last + FORGOTTEN < now { 0 } else { self.headers }
    }
}

impl WeakHeaders {
    /// Counts new ones of an address; whether they are too many.
    fn add(&mut self, place: Place, new: usize, now: Micros) -> bool {
        if self.brought.len() >= MAX_ADDRESSES && !self.brought.contains_key(&place) {
            self.make_room(now);
        }
        let brought = self.brought.entry(place).or_insert(Brought { headers: 0, last: now });
        *brought = Brought { headers: brought.count(now).saturating_add(new), last: now };
        brought.headers > MAX_WEAK_HEADERS
    }

    fn make_room(&mut self, now: Micros) {
        self.brought.retain(|_, brought| brought.count(now) > 0);
        if self.brought.len() >= MAX_ADDRESSES {
            let least = self.brought.iter().min_by_key(|(_, brought)| (brought.headers, brought.last));
            least.map(|(place, _)| *place).map(|place| self.brought.remove(&place));
        }
    }

    /// Whether an address has brought too many.
    fn are_too_many(&self, place: Place, now: Micros) -> bool {
        self.brought.get(&place).is_some_and(|brought| brought.count(now) > MAX_WEAK_HEADERS)
    }
}

impl Net {
    /// Whether nobody from there is let in: a ban is of one address, and who has a network of them would go on from the
    /// next. Those of this machine stay.
    pub(crate) fn has_brought_too_much(&self, ip: IpAddr, now: Micros) -> bool {
        self.weak_headers.are_too_many(Place::Network(one_network(ip)), now)
    }

    /// Counts what is new of headers that are to go to the chain, unless the branch has the tip's work with them, as they
    /// say; whether their sender has brought too many, and is punished. What is strong takes nothing back: a peer could always
    /// say the tip's header in between.
    pub(super) fn too_many_weak(&mut self, id: PeerId, headers: &[(BlockHash, Header)], now: Micros) -> bool {
        if self.say_to_be_strong(headers) {
            return false;
        }
        let new = headers.iter().filter(|(hash, _)| self.tree.find(hash).is_none()).count();
        self.count_weak(id, new, now)
    }

    /// Whether headers that follow each other end with the tip's work at least, if all of them keep the rules.
    pub(super) fn say_to_be_strong(&self, headers: &[(BlockHash, Header)]) -> bool {
        let parent = headers.first().and_then(|(_, first)| self.tree.find(&first.prev_blockhash));
        let tip = self.tip_work();
        // Of an unknown parent, which may be with the chain, nothing is known.
        let missing = match parent.map(|parent| self.work(parent)) {
            Some(work) if work >= tip => return true,
            Some(work) => tip - work,
            None => tip,
        };
        let rest = headers.iter().try_fold(missing, |missing, (_, header)| {
            let own = work(header.bits);
            (own < missing).then(|| missing - own)
        });
        rest.is_none()
    }

    /// Counts weak headers of a peer; whether its address has brought too many, and the peer is punished.
    pub(super) fn count_weak(&mut self, id: PeerId, new: usize, now: Micros) -> bool {
        let Some(peer) = self.peers.get(&id).filter(|_| new > 0) else { return false };
        let place = Place::of(id, peer.address.ip());
        let too_many = self.weak_headers.add(place, new, now);
        if too_many {
            self.misbehaving(id, 100, "too many headers of branches with little work", now);
        }
        too_many
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(n: u32) -> Place {
        Place::Network(IpAddr::from((n + (1 << 30)).to_be_bytes()))
    }

    #[test]
    fn addresses_are_bounded_and_who_brought_least_makes_room() {
        let mut weak = WeakHeaders::default();
        assert!(!weak.add(ip(0), MAX_WEAK_HEADERS, 0) && !weak.are_too_many(ip(0), 0));
        assert!(weak.add(ip(0), 1, 0) && weak.are_too_many(ip(0), 0));
        for n in 1..20_000 {
            assert!(!weak.add(ip(n), 2, Micros::from(n)));
        }
        assert_eq!(weak.brought.len(), MAX_ADDRESSES);
        assert!(weak.are_too_many(ip(0), 20_000));
        assert!(!weak.are_too_many(ip(0), FORGOTTEN + 1));
        let later = FORGOTTEN + 20_000;
        assert!(!weak.add(ip(1 << 20), 1, later));
        assert_eq!(weak.brought.len(), 1, "what is forgotten goes first");
        assert!(!weak.add(ip(0), MAX_WEAK_HEADERS, later));
    }

    #[test]
    fn a_network_of_ipv6_is_one_address() {
        let mut weak = WeakHeaders::default();
        let of = |network, host| {
            Place::of(PeerId(u64::from(host)), IpAddr::from([0x2001, 0xdb8, 0, network, host, 0, 0, 1]))
        };
        assert!(!weak.add(of(1, 1), MAX_WEAK_HEADERS, 0));
        assert!(!weak.add(of(2, 2), 1, 0));
        assert!(weak.add(of(1, 2), 1, 0));
        assert!(weak.are_too_many(of(1, 3), 0) && !weak.are_too_many(of(2, 3), 0));
    }

    #[test]
    fn who_has_this_machines_address_counts_alone() {
        let mut weak = WeakHeaders::default();
        let of = |id| Place::of(PeerId(id), IpAddr::from([127, 0, 0, 1]));
        assert!(!weak.add(of(1), MAX_WEAK_HEADERS, 0) && weak.add(of(1), 1, 0));
        assert!(!weak.add(of(2), 1, 0));
    }
}
