//! Addresses of other homes in the directory's table: announced by themselves, or named by the owner.
//!
//! Here: which addresses of a home are kept, since libp2p's table keeps all it is given. Not here: which may be
//! dialled ([`super::dials`]), records ([`super::directory`]). Path: a home announces its addresses → they replace
//! the known ones → kad; addresses that kad adds by itself → trimmed.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use libp2p::kad::store::MemoryStore;
use libp2p::kad::{self, Addresses};
use libp2p::{Multiaddr, PeerId};

use super::dials::without_peer;
use crate::limits::MAX_ADDRESSES;

type Kad = kad::Behaviour<MemoryStore>;

/// Interval between dials of homes that the owner has named.
const NAMED_INTERVAL: Duration = Duration::from_secs(60);

/// Decides which addresses enter the table and stay there.
pub(super) struct Table {
    named: Vec<(PeerId, Multiaddr)>,
    next_named: Instant,
}

impl Table {
    pub(super) fn new(named: Vec<(PeerId, Multiaddr)>, now: Instant) -> Self {
        Self { named, next_named: now }
    }

    /// Kad forgets homes that it cannot reach, so named homes are added again.
    pub(super) fn tick(&mut self, kad: &mut Kad, now: Instant) {
        if now >= self.next_named {
            self.next_named = now + NAMED_INTERVAL;
            for (peer, address) in &self.named {
                kad.add_address(peer, address.clone());
            }
        }
    }

    /// A home announced its addresses: they replace its earlier ones, except those the owner has named.
    pub(super) fn told(&self, kad: &mut Kad, peer: PeerId, told: impl Iterator<Item = Multiaddr>) {
        let named: Vec<_> = self.named_of(peer).cloned().collect();
        let mut told = told.take(MAX_ADDRESSES.saturating_sub(named.len())).peekable();
        if told.peek().is_some() {
            kad.remove_peer(&peer);
            for address in named.into_iter().chain(told) {
                kad.add_address(&peer, address);
            }
        }
    }

    /// The table has more addresses of a home. Kad adds each one it has dialled, so the oldest are removed.
    pub(super) fn grown(&self, kad: &mut Kad, peer: PeerId, addresses: &Addresses) {
        let named: HashSet<_> = self.named_of(peer).map(without_peer).collect();
        let beyond = addresses.len().saturating_sub(MAX_ADDRESSES);
        let others = addresses.iter().filter(|address| !named.contains(&without_peer(address)));
        for address in others.take(beyond) {
            kad.remove_address(&peer, address);
        }
    }

    fn named_of(&self, peer: PeerId) -> impl Iterator<Item = &Multiaddr> {
        self.named.iter().filter(move |(named, _)| *named == peer).map(|(_, address)| address)
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Poll, Waker};

    use libp2p::swarm::{NetworkBehaviour, ToSwarm};

    use super::*;
    use crate::net::directory;

    fn address(number: usize) -> Multiaddr {
        format!("/ip4/9.9.{}.{}/tcp/1", number / 256, number % 256).parse().expect("an address")
    }

    /// The table's addresses of a peer.
    fn kept(kad: &mut Kad, peer: PeerId) -> Vec<Multiaddr> {
        let bucket = kad.kbucket(peer).expect("another peer");
        let entry = bucket.iter().find(|entry| *entry.node.key.preimage() == peer);
        entry.map_or(Vec::new(), |entry| entry.node.value.iter().map(without_peer).collect())
    }

    /// Handles all of kad's events, as the home does.
    fn settle(table: &Table, kad: &mut Kad) {
        while let Poll::Ready(action) = kad.poll(&mut Context::from_waker(Waker::noop())) {
            if let ToSwarm::GenerateEvent(kad::Event::RoutingUpdated { peer, addresses, .. }) = action {
                assert!(addresses.len() <= 2 * MAX_ADDRESSES, "so much is cloned for each");
                table.grown(kad, peer, &addresses);
            }
        }
    }

    #[test]
    fn of_a_home_that_tells_others_addresses_each_time_the_last_are_kept() {
        let (mut kad, peer) = (directory::server(PeerId::random()), PeerId::random());
        let table = Table::new(Vec::new(), Instant::now());
        for round in 0..200 {
            let told = (0..MAX_ADDRESSES + 3).map(|number| address(round * MAX_ADDRESSES + number));
            table.told(&mut kad, peer, told);
            settle(&table, &mut kad);
        }
        let last: Vec<_> = (0..MAX_ADDRESSES).map(|number| address(199 * MAX_ADDRESSES + number)).collect();
        assert_eq!(kept(&mut kad, peer), last);
        table.told(&mut kad, peer, std::iter::empty());
        assert_eq!(kept(&mut kad, peer), last, "it said nothing that could be used");
    }

    #[test]
    fn what_kad_adds_by_itself_pushes_out_what_is_older() {
        let (mut kad, peer) = (directory::server(PeerId::random()), PeerId::random());
        let table = Table::new(Vec::new(), Instant::now());
        for number in 0..200 {
            kad.add_address(&peer, address(number));
            settle(&table, &mut kad);
        }
        let last: Vec<_> = (200 - MAX_ADDRESSES..200).map(address).collect();
        assert_eq!(kept(&mut kad, peer), last);
    }

    #[test]
    fn where_the_owner_has_named_a_home_it_stays() {
        let (mut kad, peer) = (directory::server(PeerId::random()), PeerId::random());
        let (named, now) = (address(60_000), Instant::now());
        let mut table = Table::new(vec![(peer, named.clone())], now);
        table.tick(&mut kad, now);
        assert_eq!(kept(&mut kad, peer), std::slice::from_ref(&named));
        for round in 0..20 {
            table.told(&mut kad, peer, (0..MAX_ADDRESSES).map(|number| address(round * 10 + number)));
            kad.add_address(&peer, address(1_000 + round));
            settle(&table, &mut kad);
            let kept = kept(&mut kad, peer);
            assert!(kept.contains(&named) && kept.len() <= MAX_ADDRESSES, "{kept:?}");
        }
    }
}
