//! Quotas per peer and address.
//!
//! Here: the numbers, and token buckets. Not here: connections (`gate`), requests in progress (`devices`). Full
//! buckets are dropped: there are never more than requests arrive while one fills.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};

use crate::limits::{self, Rate};

/// Rates per peer and per address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rates {
    /// One peer.
    pub of_peer: Rate,
    /// All peers at one address.
    pub of_address: Rate,
}

/// The quotas. Tests use smaller ones.
#[derive(Debug, Clone)]
pub struct Quotas {
    /// Connections in total.
    pub connections: usize,
    /// Connections of one peer.
    pub connections_of_peer: usize,
    /// Connections from one address.
    pub connections_of_address: usize,
    /// Connections of one address without a session after [`Quotas::grace`].
    pub without_session_of_address: usize,
    /// The same for one network.
    pub without_session_of_network: usize,
    /// Time before a connection counts as one without a session.
    pub grace: Duration,
    /// Connections in handshake.
    pub pending: usize,
    /// Connections in handshake from one address.
    pub pending_of_address: usize,
    /// Connections in handshake from one network.
    pub pending_of_network: usize,
    /// New connections from one address.
    pub connections_rate: Rate,
    /// Requests.
    pub requests: Rates,
    /// Requests that begin, change or end a session.
    pub sessions: Rates,
    /// Messages of the directory.
    pub lookups: Rates,
    /// Identify messages.
    pub introductions: Rates,
    /// Actions at the relay.
    pub relaying: Rates,
    /// Actions at the relay, per address, of peers that may neither be reached through it nor open a circuit.
    pub relaying_of_strangers: Rate,
    /// Records for the directory.
    pub records: Rates,
    /// Circuits that one persona has opened.
    pub circuits_of_persona: usize,
    /// Circuits that were opened from one address.
    pub circuits_of_address: usize,
    /// Dials to addresses that strangers supplied.
    pub dials: Rate,
    /// Dials of those to one target.
    pub dials_of_target: Rate,
    /// Whether loopback counts as an address. Connections from there may be of different people, through a proxy or
    /// Tor.
    pub loopback: bool,
}

impl Default for Quotas {
    fn default() -> Self {
        Self {
            connections: limits::MAX_CONNECTIONS,
            connections_of_peer: limits::MAX_CONNECTIONS_OF_PEER,
            connections_of_address: limits::MAX_CONNECTIONS_OF_ADDRESS,
            without_session_of_address: limits::MAX_WITHOUT_SESSION_OF_ADDRESS,
            without_session_of_network: limits::MAX_WITHOUT_SESSION_OF_NETWORK,
            grace: limits::SESSION_GRACE,
            pending: limits::MAX_PENDING,
            pending_of_address: limits::MAX_PENDING_OF_ADDRESS,
            pending_of_network: limits::MAX_PENDING_OF_NETWORK,
            connections_rate: limits::CONNECTIONS_RATE_OF_ADDRESS,
            requests: Rates { of_peer: limits::REQUESTS_OF_PEER, of_address: limits::REQUESTS_OF_ADDRESS },
            sessions: Rates { of_peer: limits::SESSIONS_OF_PEER, of_address: limits::SESSIONS_OF_ADDRESS },
            lookups: Rates { of_peer: limits::LOOKUPS_OF_PEER, of_address: limits::LOOKUPS_OF_ADDRESS },
            introductions: Rates {
                of_peer: limits::INTRODUCTIONS_OF_PEER,
                of_address: limits::INTRODUCTIONS_OF_ADDRESS,
            },
            relaying: Rates { of_peer: limits::RELAYING_OF_PEER, of_address: limits::RELAYING_OF_ADDRESS },
            relaying_of_strangers: limits::RELAYING_OF_STRANGERS,
            records: Rates { of_peer: limits::RECORDS_OF_PEER, of_address: limits::RECORDS_OF_ADDRESS },
            circuits_of_persona: limits::MAX_CIRCUITS_OF_PERSONA,
            circuits_of_address: limits::MAX_CIRCUITS_OF_ADDRESS,
            dials: limits::DIALS,
            dials_of_target: limits::DIALS_OF_TARGET,
            loopback: false,
        }
    }
}

/// The unit of quotas by address: an IPv4 address, or an IPv6 /64 network, since one customer has that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Address(IpAddr);

impl Address {
    /// Its network: an IPv4 address by itself, or an IPv6 /48, which one customer may have.
    pub(super) fn network(self) -> Self {
        Self(match self.0 {
            IpAddr::V4(_) => self.0,
            IpAddr::V6(ip) => IpAddr::V6((u128::from(ip) & (u128::MAX << 80)).into()),
        })
    }
}

/// The IP address in a multiaddress.
pub(super) fn ip_of(address: &Multiaddr) -> Option<IpAddr> {
    address.iter().find_map(|part| match part {
        Protocol::Ip4(ip) => Some(IpAddr::V4(ip)),
        Protocol::Ip6(ip) => Some(ip.to_canonical()),
        _ => None,
    })
}

impl Quotas {
    /// The address of a connection, if it counts.
    pub(super) fn address(&self, address: &Multiaddr) -> Option<Address> {
        let ip = ip_of(address)?;
        if ip.is_loopback() && !self.loopback {
            return None;
        }
        Some(Address(match ip {
            IpAddr::V4(_) => ip,
            IpAddr::V6(ip) => IpAddr::V6((u128::from(ip) & !u128::from(u64::MAX)).into()),
        }))
    }
}

/// Buckets per peer and per address; an action takes a token of each.
#[derive(Debug)]
pub(super) struct Meter {
    of_peer: Buckets<PeerId>,
    of_address: Buckets<Address>,
}

impl Meter {
    pub(super) fn new(rates: Rates) -> Self {
        Self { of_peer: Buckets::new(rates.of_peer), of_address: Buckets::new(rates.of_address) }
    }

    /// Takes a token of each, if the peer has one.
    pub(super) fn take(&mut self, peer: PeerId, address: Option<Address>, now: Instant) -> bool {
        self.take_many(peer, address, 1, now)
    }

    /// Takes this many tokens of each, if the peer has enough.
    pub(super) fn take_many(
        &mut self,
        peer: PeerId,
        address: Option<Address>,
        count: u32,
        now: Instant,
    ) -> bool {
        let of_address = |address| self.of_address.take_many(address, count, now);
        count == 0 || self.of_peer.take_many(peer, count, now) && address.is_none_or(of_address)
    }
}

/// Token buckets, one per key.
#[derive(Debug)]
pub(super) struct Buckets<K> {
    rate: Rate,
    /// Tokens left, in billionths, and as of when.
    buckets: HashMap<K, (u64, Instant)>,
    next_sweep: Option<Instant>,
}

/// Interval between removals of full buckets.
const SWEEP: Duration = Duration::from_secs(10);

/// A token in the buckets' unit, chosen so that a nanosecond adds `per_second` units.
const TOKEN: u64 = 1_000_000_000;

impl<K: Hash + Eq> Buckets<K> {
    pub(super) fn new(rate: Rate) -> Self {
        Self { rate, buckets: HashMap::new(), next_sweep: None }
    }

    fn full(&self) -> u64 {
        u64::from(self.rate.burst) * TOKEN
    }

    fn level(&self, (tokens, since): (u64, Instant), now: Instant) -> u64 {
        let passed = u64::try_from(now.saturating_duration_since(since).as_nanos()).unwrap_or(u64::MAX);
        tokens.saturating_add(passed.saturating_mul(u64::from(self.rate.per_second))).min(self.full())
    }

    /// Whether there is a token.
    pub(super) fn has(&self, key: &K, now: Instant) -> bool {
        self.buckets.get(key).map_or(self.full(), |bucket| self.level(*bucket, now)) >= TOKEN
    }

    /// Takes a token, if there is one.
    pub(super) fn take(&mut self, key: K, now: Instant) -> bool {
        self.take_many(key, 1, now)
    }

    /// Takes this many tokens, if there are enough.
    fn take_many(&mut self, key: K, count: u32, now: Instant) -> bool {
        if self.next_sweep.is_none_or(|next| next <= now) {
            self.next_sweep = Some(now + SWEEP);
            self.sweep(now);
        }
        let full = self.full();
        let level = self.buckets.get(&key).map_or(full, |bucket| self.level(*bucket, now));
        let left = level.checked_sub(u64::from(count) * TOKEN);
        self.buckets.insert(key, (left.unwrap_or(level), now));
        left.is_some()
    }

    /// Removes full buckets.
    fn sweep(&mut self, now: Instant) {
        let mut buckets = std::mem::take(&mut self.buckets);
        buckets.retain(|_, bucket| self.level(*bucket, now) < self.full());
        buckets.shrink_to(buckets.len() * 2);
        self.buckets = buckets;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_burst_passes_then_as_many_as_come_back_and_others_are_not_concerned() {
        let mut buckets = Buckets::new(Rate { burst: 3, per_second: 2 });
        let now = Instant::now();
        assert_eq!([0; 4].map(|_| buckets.take("one", now)), [true, true, true, false]);
        assert!(buckets.take("other", now));
        let later = now + Duration::from_millis(499);
        assert!(!buckets.take("one", later));
        assert!(buckets.take("one", now + Duration::from_millis(500)));
        assert!(!buckets.take("one", now + Duration::from_millis(999)));
        let much_later = now + Duration::from_secs(3600);
        assert_eq!([0; 4].map(|_| buckets.take("one", much_later)), [true, true, true, false]);
    }

    #[test]
    fn peers_share_what_their_address_may_and_one_peer_has_no_more_at_another() {
        let rate = |burst| Rate { burst, per_second: 1 };
        let mut meter = Meter::new(Rates { of_peer: rate(2), of_address: rate(3) });
        let quotas = Quotas::default();
        let [here, there] = ["/ip4/192.0.2.1/tcp/1", "/ip4/192.0.2.2/tcp/1"]
            .map(|address| quotas.address(&address.parse().unwrap()));
        let ([one, other], now) = ([0; 2].map(|_| PeerId::random()), Instant::now());
        assert_eq!([0; 3].map(|_| meter.take(one, here, now)), [true, true, false]);
        assert!(!meter.take(one, there, now), "the same peer");
        assert_eq!([0; 2].map(|_| meter.take(other, here, now)), [true, false], "the same address");
        assert!(meter.take(PeerId::random(), there, now));
    }

    #[test]
    fn full_buckets_are_forgotten_and_others_are_not() {
        let mut buckets = Buckets::new(Rate { burst: 3, per_second: 2 });
        let now = Instant::now();
        let _ = buckets.take("one", now);
        let _ = [0; 3].map(|_| buckets.take("other", now));
        buckets.sweep(now + Duration::from_millis(500));
        assert_eq!(buckets.buckets.keys().copied().collect::<Vec<_>>(), ["other"]);
        buckets.sweep(now + Duration::from_millis(1500));
        assert!(buckets.buckets.is_empty());
    }

    #[test]
    fn an_ipv6_customer_is_one_address_and_loopback_is_none() {
        let quotas = Quotas::default();
        let of = |text: &str| quotas.address(&text.parse().unwrap());
        assert_eq!(of("/ip6/2001:db8:1:2::1/tcp/1"), of("/ip6/2001:db8:1:2:ffff::9/tcp/2"));
        assert_ne!(of("/ip6/2001:db8:1:2::1/tcp/1"), of("/ip6/2001:db8:1:3::1/tcp/1"));
        let network = |text| of(text).map(Address::network);
        assert_eq!(network("/ip6/2001:db8:1:2::1/tcp/1"), network("/ip6/2001:db8:1:ffff::1/tcp/1"));
        assert_ne!(network("/ip6/2001:db8:1:2::1/tcp/1"), network("/ip6/2001:db8:2:2::1/tcp/1"));
        assert_eq!(network("/ip4/192.0.2.1/tcp/1"), of("/ip4/192.0.2.1/tcp/1"));
        assert_eq!(of("/ip6/::ffff:192.0.2.1/tcp/1"), of("/ip4/192.0.2.1/tcp/1"));
        assert_ne!(of("/ip4/192.0.2.1/tcp/1"), of("/ip4/192.0.2.2/tcp/1"));
        assert_eq!([of("/ip4/127.0.0.1/tcp/1"), of("/ip6/::1/tcp/1"), of("/memory/1")], [None; 3]);
        let counted = Quotas { loopback: true, ..Quotas::default() };
        assert!(counted.address(&"/ip4/127.0.0.1/tcp/1".parse().unwrap()).is_some());
    }
}
