//! Limits how many headers of branches with less work than ours an address may send.
//!
//! Lives here: the count per address, its limit, and the penalty for exceeding it. Does not live here: which
//! headers are accepted (the chain), and those that are far ahead (`sync.rs`). The chain never forgets a header,
//! whether it came in a `headers`, a `cmpctblock`, or an unrequested `block` message. All three are counted here
//! before the chain is asked, since many more could arrive before its answer. The reference has no such limit.

use std::collections::HashMap;
use std::net::IpAddr;

use bitcoin::BlockHash;
use bitcoin::block::Header;
use iop_consensus::difficulty::work;

use super::addresses::ip::one_network;
use super::net::Net;
use super::peer::{Micros, PeerId, SECOND};

/// Maximum number of headers that an address may send in branches with less work than the tip: 10 MB. Beyond it the
/// address is banned.
const MAX_WEAK_HEADERS: usize = 20_000;
/// The count of an address is reset after it sent none for this long.
const FORGOTTEN: Micros = 24 * 60 * 60 * SECOND;
/// Maximum number of addresses remembered, in 1 MB. The one with the fewest headers makes room.
const MAX_ADDRESSES: usize = 10_000;

/// The unit that headers are counted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Place {
    /// An address; an IPv6 network (/64) counts as one.
    Network(IpAddr),
    /// A local connection: all peers that come through Tor or a tunnel share this machine's address.
    Connection(PeerId),
}

impl Place {
    fn of(id: PeerId, ip: IpAddr) -> Self {
        if ip.to_canonical().is_loopback() { Self::Connection(id) } else { Self::Network(one_network(ip)) }
    }
}

/// The counts of weak headers.
#[derive(Debug, Default)]
pub(super) struct WeakHeaders {
    brought: HashMap<Place, Brought>,
}

#[derive(Debug)]
struct Brought {
    headers: usize,
    /// When the last ones arrived.
    last: Micros,
}

impl Brought {
    fn count(&self, now: Micros) -> usize {
        if self.last + FORGOTTEN < now { 0 } else { self.headers }
    }
}

impl WeakHeaders {
    /// Adds new headers to a count; returns whether there are too many.
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

    /// Whether a place has sent too many.
    fn are_too_many(&self, place: Place, now: Micros) -> bool {
        self.brought.get(&place).is_some_and(|brought| brought.count(now) > MAX_WEAK_HEADERS)
    }
}

impl Net {
    /// Whether to refuse connections from this address: a ban covers one address only, and the owner of a network
    /// could go on from the next. Local addresses are not refused.
    pub(crate) fn has_brought_too_much(&self, ip: IpAddr, now: Micros) -> bool {
        self.weak_headers.are_too_many(Place::Network(one_network(ip)), now)
    }

    /// Counts the new headers in a message for the chain, unless by their claimed work the branch reaches the
    /// tip's. Returns whether the sender has sent too many; it is punished then. Strong headers do not reset the
    /// count: a peer could always send the tip's header in between.
    pub(super) fn too_many_weak(&mut self, id: PeerId, headers: &[(BlockHash, Header)], now: Micros) -> bool {
        if self.say_to_be_strong(headers) {
            return false;
        }
        let new = headers.iter().filter(|(hash, _)| self.tree.find(hash).is_none()).count();
        self.count_weak(id, new, now)
    }

    /// Whether consecutive headers reach at least the tip's work, assuming that they are valid.
    pub(super) fn say_to_be_strong(&self, headers: &[(BlockHash, Header)]) -> bool {
        let parent = headers.first().and_then(|(_, first)| self.tree.find(&first.prev_blockhash));
        let tip = self.tip_work();
        // Nothing is known of an unknown parent, which the chain may be judging.
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

    /// Counts weak headers of a peer; returns whether its address has sent too many. The peer is punished then.
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
