//! How much of the home one peer and one address may take.
//!
//! Here: the numbers, and buckets of tokens. Not here: connections (`gate`), what is under way
//! (`devices`).
//! A bucket is forgotten when it is full again: there are never more than requests came while one fills.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::time::Instant;

use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;

use crate::limits::{self, Rate};

/// The numbers. Tests take smaller ones.
#[derive(Debug, Clone)]
pub struct Quotas {
    /// Connections in all.
    pub connections: usize,
    /// Connections of one peer.
    pub connections_of_peer: usize,
    /// Connections from one address.
    pub connections_of_address: usize,
    /// Connections that have not shown who they are.
    pub pending: usize,
    /// Of which from one address.
    pub pending_of_address: usize,
    /// New connections from one address.
    pub connections_rate: Rate,
    /// Requests of one peer.
    pub requests_of_peer: Rate,
    /// Requests from one address.
    pub requests_of_address: Rate,
    /// Whether loopback counts as an address. It does not tell people apart: a proxy or Tor stands there.
    pub loopback: bool,
}

impl Default for Quotas {
    fn default() -> Self {
        Self {
            connections: limits::MAX_CONNECTIONS,
            connections_of_peer: limits::MAX_CONNECTIONS_OF_PEER,
            connections_of_address: limits::MAX_CONNECTIONS_OF_ADDRESS,
            pending: limits::MAX_PENDING,
            pending_of_address: limits::MAX_PENDING_OF_ADDRESS,
            connections_rate: limits::CONNECTIONS_RATE_OF_ADDRESS,
            requests_of_peer: limits::REQUESTS_OF_PEER,
            requests_of_address: limits::REQUESTS_OF_ADDRESS,
            loopback: false,
        }
    }
}

/// What quotas count as one address: an IPv4 address, or an IPv6 network of 64 bits, since one customer has that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Address(IpAddr);

/// The IP address in a multiaddress.
pub(super) fn ip_of(address: &Multiaddr) -> Option<IpAddr> {
    address.iter().find_map(|part| match part {
        Protocol::Ip4(ip) => Some(IpAddr::V4(ip)),
        Protocol::Ip6(ip) => Some(ip.to_canonical()),
        _ => None,
    })
}

impl Quotas {
    /// The address of a connection, where it has one that counts.
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

/// Buckets of tokens, one for each key.
#[derive(Debug)]
pub(super) struct Buckets<K> {
    rate: Rate,
    /// Tokens that are left, in billionths, and when that was.
    buckets: HashMap<K, (u64, Instant)>,
}

/// A token in the buckets' unit: so that a nanosecond fills `per_second` of it.
const TOKEN: u64 = 1_000_000_000;

impl<K: Hash + Eq> Buckets<K> {
    pub(super) fn new(rate: Rate) -> Self {
        Self { rate, buckets: HashMap::new() }
    }

    fn full(&self) -> u64 {
        u64::from(self.rate.burst) * TOKEN
    }

    fn level(&self, (tokens, since): (u64, Instant), now: Instant) -> u64 {
        let passed = u64::try_from(now.saturating_duration_since(since).as_nanos()).unwrap_or(u64::MAX);
        tokens.saturating_add(passed.saturating_mul(u64::from(self.rate.per_second))).min(self.full())
    }

    /// Takes a token, where there is one.
    pub(super) fn take(&mut self, key: K, now: Instant) -> bool {
        let full = self.full();
        let level = self.buckets.get(&key).map_or(full, |bucket| self.level(*bucket, now));
        let left = level.checked_sub(TOKEN);
        self.buckets.insert(key, (left.unwrap_or(level), now));
        left.is_some()
    }

    /// Forgets full buckets.
    pub(super) fn tick(&mut self, now: Instant) {
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
    fn full_buckets_are_forgotten_and_others_are_not() {
        let mut buckets = Buckets::new(Rate { burst: 3, per_second: 2 });
        let now = Instant::now();
        let _ = buckets.take("one", now);
        let _ = [0; 3].map(|_| buckets.take("other", now));
        buckets.tick(now + Duration::from_millis(500));
        assert_eq!(buckets.buckets.keys().copied().collect::<Vec<_>>(), ["other"]);
        buckets.tick(now + Duration::from_millis(1500));
        assert!(buckets.buckets.is_empty());
    }

    #[test]
    fn an_ipv6_customer_is_one_address_and_loopback_is_none() {
        let quotas = Quotas::default();
        let of = |text: &str| quotas.address(&text.parse().unwrap());
        assert_eq!(of("/ip6/2001:db8:1:2::1/tcp/1"), of("/ip6/2001:db8:1:2:ffff::9/tcp/2"));
        assert_ne!(of("/ip6/2001:db8:1:2::1/tcp/1"), of("/ip6/2001:db8:1:3::1/tcp/1"));
        assert_eq!(of("/ip6/::ffff:192.0.2.1/tcp/1"), of("/ip4/192.0.2.1/tcp/1"));
        assert_ne!(of("/ip4/192.0.2.1/tcp/1"), of("/ip4/192.0.2.2/tcp/1"));
        assert_eq!([of("/ip4/127.0.0.1/tcp/1"), of("/ip6/::1/tcp/1"), of("/memory/1")], [None; 3]);
        let counted = Quotas { loopback: true, ..Quotas::default() };
        assert!(counted.address(&"/ip4/127.0.0.1/tcp/1".parse().unwrap()).is_some());
    }
}
