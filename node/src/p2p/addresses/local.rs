//! Our own addresses, advertised to peers so that others can connect (`mapLocalHost`, `AdvertiseLocal`).

use super::ip::{Ip, NetAddress};

/// Maximum number of own addresses that are kept.
const MAX_LOCAL: usize = 32;

/// How an own address is known; more reliable reasons are greater (Core's `LOCAL_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// An interface has it.
    Interface = 1,
    /// We listen on it.
    Bound = 2,
    /// The operator configured it.
    Configured = 4,
}

#[derive(Debug)]
struct Local {
    address: NetAddress,
    score: u32,
}

/// Our own addresses that peers may reach.
#[derive(Debug, Default)]
pub struct LocalAddresses {
    known: Vec<Local>,
}

impl LocalAddresses {
    /// Adds an address; returns whether it is usable (`AddLocal`).
    pub fn add(&mut self, address: NetAddress, reason: Reason) -> bool {
        if !address.ip.is_routable() {
            return false;
        }
        let score = reason as u32;
        let full = self.known.len() == MAX_LOCAL;
        match self.known.iter_mut().find(|known| known.address.ip == address.ip) {
            Some(known) if score >= known.score => *known = Local { address, score: score + 1 },
            Some(_) => {}
            None if full => return false,
            None => self.known.push(Local { address, score }),
        }
        true
    }

    /// A peer sees us at this address: raises the score of a known address (`SeenLocal`).
    pub fn seen(&mut self, ip: &Ip) {
        if let Some(known) = self.known.iter_mut().find(|known| known.address.ip == *ip) {
            known.score = known.score.saturating_add(1);
        }
    }

    /// Whether this is one of our own addresses.
    pub fn contains(&self, address: &NetAddress) -> bool {
        self.known.iter().any(|known| known.address == *address)
    }

    /// The address to advertise to this peer: the one it can reach best, and of these the most certain
    /// (`GetLocal`).
    pub fn best_for(&self, peer: &Ip) -> Option<NetAddress> {
        let rank = |known: &&Local| (known.address.ip.reachability_from(peer), known.score);
        self.known.iter().max_by_key(rank).map(|known| known.address)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::net::SocketAddr;

    fn address(text: &str) -> NetAddress {
        text.parse::<SocketAddr>().unwrap().into()
    }

    #[test]
    fn a_peer_is_told_what_it_reaches_and_many_have_seen() {
        let mut own = LocalAddresses::default();
        assert!(!own.add(address("192.168.0.2:1"), Reason::Configured), "nobody outside reaches it");
        assert_eq!(own.best_for(&address("8.8.8.8:1").ip), None);
        for text in ["8.8.4.4:4877", "9.9.9.9:4877", "[2a00::1]:4877"] {
            assert!(own.add(address(text), Reason::Bound));
        }
        own.seen(&address("8.8.4.4:1").ip);
        assert_eq!(own.best_for(&address("1.1.1.1:1").ip), Some(address("8.8.4.4:4877")));
        assert_eq!(own.best_for(&address("[2a00::2]:1").ip), Some(address("[2a00::1]:4877")));
        assert!(own.contains(&address("9.9.9.9:4877")) && !own.contains(&address("9.9.9.9:1")));
    }
}
