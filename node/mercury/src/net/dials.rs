//! Outgoing connections: strangers supply addresses, and must not make a home connect to arbitrary places.
//!
//! Here: which addresses are dialled, how often, and a layer around all behaviours that blocks everything else. Not
//! here: incoming connections (`gate`). Path: a behaviour wants to dial → addresses of all behaviours → those that
//! may be dialled now → the transport.

use std::collections::HashSet;
use std::net::IpAddr;
use std::time::Instant;

use libp2p::PeerId;
use libp2p::core::{Endpoint, Multiaddr};
use libp2p::multiaddr::Protocol;
use libp2p::swarm::{ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour};

use super::layer::{Layer, Layered};
use super::quotas::{Address, Buckets, Quotas, ip_of};
use crate::limits::MAX_ADDRESSES;

/// From where an address is reachable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// From the machine itself.
    Machine,
    /// From a private or link-local network.
    Network,
    /// From everywhere.
    World,
    /// From nowhere, or it is not a single place.
    Nowhere,
}

impl Reach {
    /// The reach of an address that is a plain host.
    pub(crate) fn of(address: &Multiaddr) -> Self {
        plain(address).map_or(Self::Nowhere, Self::of_ip)
    }

    fn of_ip(ip: IpAddr) -> Self {
        match ip {
            _ if ip.is_loopback() => Self::Machine,
            IpAddr::V4(ip) => match ip.octets() {
                // Carrier-grade NAT; then unused, benchmarking and multicast ranges, which no host has.
                [100, second, ..] if second & 0xc0 == 64 => Self::Network,
                [0, ..] | [192, 0, 0, _] | [198, 18 | 19, ..] | [224..=255, ..] => Self::Nowhere,
                _ if ip.is_private() || ip.is_link_local() => Self::Network,
                _ if ip.is_documentation() => Self::Nowhere,
                _ => Self::World,
            },
            IpAddr::V6(ip) => match ip.segments() {
                // They embed an IPv4 address: Teredo, 6to4.
                [0x2001, 0 | 0xdb8, ..] | [0x2002, ..] => Self::Nowhere,
                [first, ..] if first & 0xe000 == 0x2000 => Self::World,
                [first, ..] if first & 0xfe00 == 0xfc00 || first & 0xffc0 == 0xfe80 => Self::Network,
                _ => Self::Nowhere,
            },
        }
    }
}

/// The host of a plain address: an IP address, a TCP port, and at most a peer id at the end.
fn plain(address: &Multiaddr) -> Option<IpAddr> {
    let parts: Vec<_> = address.iter().collect();
    let is_plain = matches!(
        parts[..],
        [Protocol::Ip4(_) | Protocol::Ip6(_), Protocol::Tcp(1..)]
            | [Protocol::Ip4(_) | Protocol::Ip6(_), Protocol::Tcp(1..), Protocol::P2p(_)]
    );
    is_plain.then(|| ip_of(address)).flatten()
}

/// An address without its peer id.
pub(super) fn without_peer(address: &Multiaddr) -> Multiaddr {
    address.iter().filter(|part| !matches!(part, Protocol::P2p(_))).collect()
}

/// Whether to use an address of another home that was told by somebody at `seen`: addresses reachable only from our
/// own network are not accepted from outside.
pub(super) fn may_dial(address: &Multiaddr, seen: &Multiaddr) -> bool {
    let from_outside = ip_of(seen).is_none_or(|ip| Reach::of_ip(ip) == Reach::World);
    match Reach::of(address) {
        Reach::World => true,
        Reach::Machine | Reach::Network => !from_outside,
        Reach::Nowhere => false,
    }
}

/// Decides what may be dialled, and how often.
pub(super) struct Dials {
    quotas: Quotas,
    /// Homes that the owner has named.
    named: HashSet<Multiaddr>,
    /// Addresses at which this home can be reached.
    own: Vec<Multiaddr>,
    all: Buckets<()>,
    of_target: Buckets<Address>,
}

impl Dials {
    pub(super) fn new<'a>(quotas: &Quotas, named: impl Iterator<Item = &'a Multiaddr>) -> Self {
        Self {
            all: Buckets::new(quotas.dials),
            of_target: Buckets::new(quotas.dials_of_target),
            quotas: quotas.clone(),
            named: named.map(without_peer).collect(),
            own: Vec::new(),
        }
    }

    /// Whether this home is itself only in a network of that reach. Anyone can tell a home that is reachable from
    /// everywhere about its neighbours.
    fn is_inside(&self, reach: Reach) -> bool {
        let own: Vec<_> = self.own.iter().map(|own| ip_of(own).map_or(Reach::World, Reach::of_ip)).collect();
        match reach {
            Reach::World => true,
            Reach::Network => own.contains(&Reach::Network) && !own.contains(&Reach::World),
            Reach::Machine => !own.is_empty() && own.iter().all(|own| *own == Reach::Machine),
            Reach::Nowhere => false,
        }
    }

    /// From addresses that strangers may have supplied, chooses those that are dialled now.
    fn choose(&mut self, told: Vec<Multiaddr>, now: Instant) -> Vec<Multiaddr> {
        let mut chosen: Vec<Multiaddr> = Vec::new();
        for address in told {
            if chosen.len() == MAX_ADDRESSES {
                break;
            }
            let bare = without_peer(&address);
            if chosen.iter().any(|other| without_peer(other) == bare) {
                continue;
            }
            let inside = self.is_inside(Reach::of(&address));
            if self.named.contains(&bare) || inside && self.take(&address, now) {
                chosen.push(address);
            }
        }
        chosen
    }

    /// Whether devices may be probed at their observed addresses: local ones are a proxy's.
    fn may_probe(&mut self, addresses: &[Multiaddr], now: Instant) -> bool {
        addresses.iter().all(|address| {
            let place = match Reach::of(address) {
                Reach::World | Reach::Network => true,
                Reach::Machine => self.is_inside(Reach::Machine),
                Reach::Nowhere => false,
            };
            place && self.take(address, now)
        })
    }

    /// Takes a token of both buckets, or none.
    fn take(&mut self, address: &Multiaddr, now: Instant) -> bool {
        let target = self.quotas.address(address);
        self.all.has(&(), now)
            && target.is_none_or(|target| self.of_target.take(target, now))
            && self.all.take((), now)
    }
}

/// An address that must not be dialled, or not so soon.
#[derive(Debug, thiserror::Error)]
#[error("an address that is not dialled, or too many in short time")]
struct NotDialled;

/// All behaviours, with their dials filtered.
pub(super) type Guard<B> = Layered<B, Dials>;

impl<B: NetworkBehaviour> Layer<B> for Dials {
    /// Addresses given with the dial itself are observed addresses of a device; those that behaviours add, such as the
    /// directory's, come from others.
    fn on_dial(
        &mut self,
        inner: &mut B,
        (connection, role): (ConnectionId, Endpoint),
        peer: Option<PeerId>,
        addresses: &[Multiaddr],
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        let now = Instant::now();
        if !self.may_probe(addresses, now) {
            return Err(ConnectionDenied::new(NotDialled));
        }
        let told = inner.handle_pending_outbound_connection(connection, peer, addresses, role)?;
        Ok(self.choose(told, now))
    }

    fn on_swarm_event(&mut self, inner: &mut B, event: FromSwarm<'_>) {
        match &event {
            FromSwarm::ExternalAddrConfirmed(confirmed) if !self.own.contains(confirmed.addr) => {
                self.own.push(confirmed.addr.clone());
            }
            FromSwarm::ExternalAddrExpired(expired) => self.own.retain(|own| own != expired.addr),
            _ => {}
        }
        inner.on_swarm_event(event);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Duration;

    use super::*;
    use crate::limits::Rate;

    fn address(text: &str) -> Multiaddr {
        text.parse().unwrap()
    }

    fn dials(own: &[&str], named: &[&str], change: impl FnOnce(&mut Quotas)) -> Dials {
        let mut quotas = Quotas::default();
        change(&mut quotas);
        let named: Vec<_> = named.iter().map(|named| address(named)).collect();
        let mut dials = Dials::new(&quotas, named.iter());
        dials.own = own.iter().map(|own| address(own)).collect();
        dials
    }

    const PLACES: [&str; 6] = [
        "/ip4/127.0.0.1/tcp/80",
        "/ip6/::1/tcp/80",
        "/ip4/192.168.1.1/tcp/80",
        "/ip4/169.254.1.1/tcp/80",
        "/ip6/fe80::1/tcp/80",
        "/ip4/9.9.9.9/tcp/80",
    ];

    #[test]
    fn a_home_dials_where_it_is_itself_and_in_the_world() {
        let (machine, network, world) = ("/ip4/127.0.0.1/tcp/1", "/ip4/10.0.0.1/tcp/1", "/ip4/8.8.8.8/tcp/1");
        let name = "/dns4/home.example.org/tcp/1";
        for (own, dialled) in [
            (&[][..], &PLACES[5..]),
            (&[machine], &[PLACES[0], PLACES[1], PLACES[5]]),
            (&[machine, network], &PLACES[2..]),
            (&[network], &PLACES[2..]),
            (&[machine, network, world], &PLACES[5..]),
            (&[world], &PLACES[5..]),
            (&[name], &PLACES[5..]),
        ] {
            let mut dials = dials(own, &[], |_| {});
            assert_eq!(
                dials.choose(PLACES.map(address).into(), Instant::now()),
                dialled.iter().map(|one| address(one)).collect::<Vec<_>>(),
                "{own:?}"
            );
        }
    }

    #[test]
    fn what_the_owner_has_named_is_dialled_wherever_it_is_and_nothing_beside_it() {
        let named = ["/ip4/192.168.1.1/tcp/80"];
        let mut dials = dials(&["/ip4/8.8.8.8/tcp/1"], &named, |quotas| {
            quotas.dials = Rate { burst: 0, per_second: 0 };
        });
        let peer = PeerId::random();
        let with_peer = address(named[0]).with_p2p(peer).unwrap();
        let told =
            vec![address("/ip4/192.168.1.1/tcp/81"), with_peer.clone(), address("/ip4/192.168.1.2/tcp/80")];
        assert_eq!(dials.choose(told, Instant::now()), [with_peer]);
    }

    #[test]
    fn odd_addresses_are_not_dialled() {
        let peer = PeerId::random();
        let mut dials = dials(&["/ip4/127.0.0.1/tcp/1"], &[], |_| {});
        for odd in [
            "/ip4/9.9.9.9/udp/1".to_owned(),
            "/ip4/9.9.9.9/tcp/0".to_owned(),
            "/ip4/9.9.9.9".to_owned(),
            "/dns4/example.org/tcp/1".to_owned(),
            "/dns4/localhost/tcp/1".to_owned(),
            "/ip4/9.9.9.9/tcp/1/ws".to_owned(),
            format!("/ip4/9.9.9.9/tcp/1/p2p/{peer}/p2p/{peer}"),
            format!("/ip4/9.9.9.9/tcp/1/p2p/{peer}/p2p-circuit"),
            format!("/ip4/9.9.9.9/tcp/1/p2p/{peer}/p2p-circuit/p2p/{peer}"),
            "/ip4/0.0.0.0/tcp/1".to_owned(),
            "/ip4/224.0.0.1/tcp/1".to_owned(),
            "/ip4/255.255.255.255/tcp/1".to_owned(),
            "/ip6/::/tcp/1".to_owned(),
            "/ip6/2002:7f00:1::1/tcp/1".to_owned(),
            "/ip6/64:ff9b::7f00:1/tcp/1".to_owned(),
        ] {
            assert_eq!(dials.choose(vec![address(&odd)], Instant::now()), [], "{odd}");
        }
        let good = [address("/ip4/9.9.9.9/tcp/1"), address("/ip6/::ffff:127.0.0.1/tcp/1")];
        assert_eq!(dials.choose(good.to_vec(), Instant::now()), good);
    }

    #[test]
    fn so_many_are_dialled_in_all_and_at_one_target_and_not_one_more() {
        let rate = |burst| Rate { burst, per_second: 1 };
        let mut dials = dials(&[], &[], |quotas| {
            (quotas.dials, quotas.dials_of_target) = (rate(3), rate(2));
        });
        let now = Instant::now();
        let mut choose = |target: u8, port: u16, now| {
            let told = vec![address(&format!("/ip4/9.9.9.{target}/tcp/{port}"))];
            !dials.choose(told, now).is_empty()
        };
        assert_eq!([1, 2, 3].map(|port| choose(1, port, now)), [true, true, false], "two at one");
        assert_eq!([1, 2].map(|port| choose(2, port, now)), [true, false], "three in all");
        assert!(choose(3, 1, now + Duration::from_secs(1)));
    }

    #[test]
    fn a_target_that_is_not_dialled_since_others_were_may_be_dialled_later() {
        let mut dials = dials(&[], &[], |quotas| {
            quotas.dials = Rate { burst: 1, per_second: 1 };
            quotas.dials_of_target = Rate { burst: 1, per_second: 0 };
        });
        let now = Instant::now();
        let told = |target: u8| vec![address(&format!("/ip4/9.9.9.{target}/tcp/1"))];
        assert_eq!(dials.choose(told(1), now), told(1));
        assert_eq!(dials.choose(told(2), now), []);
        let later = now + Duration::from_secs(1);
        assert_eq!(dials.choose(told(1), later), [], "it was dialled");
        assert_eq!(dials.choose(told(2), later), told(2));
    }

    #[test]
    fn of_a_long_list_the_first_are_dialled_each_once() {
        let mut dials = dials(&[], &[], |_| {});
        let one = |number: usize| address(&format!("/ip4/9.9.9.{number}/tcp/1"));
        let told = (0..2 * MAX_ADDRESSES).flat_map(|number| [one(number), one(number)]).collect();
        assert_eq!(dials.choose(told, Instant::now()), (0..MAX_ADDRESSES).map(one).collect::<Vec<_>>());
    }

    #[test]
    fn devices_are_looked_for_where_they_are_seen_but_not_behind_a_proxy_of_this_machine() {
        let mut outside = dials(&["/ip4/8.8.8.8/tcp/1"], &[], |_| {});
        let mut may =
            |place| outside.may_probe(&[address("/ip4/9.9.9.9/tcp/1"), address(place)], Instant::now());
        assert!(may("/ip4/9.9.9.9/tcp/2") && may("/ip4/192.168.1.9/tcp/1"));
        assert!(!may("/ip4/127.0.0.1/tcp/1") && !may("/ip4/9.9.9.9/tcp/0"));
        let mut inside = dials(&["/ip4/127.0.0.1/tcp/1"], &[], |_| {});
        assert!(inside.may_probe(&[address("/ip4/127.0.0.1/tcp/2")], Instant::now()));
    }

    #[test]
    fn strangers_do_not_make_a_home_knock_at_its_neighbours() {
        let may = |address: &str, seen: &str| may_dial(&address.parse().unwrap(), &seen.parse().unwrap());
        let (outside, inside) = ("/ip4/8.8.8.8/tcp/1", "/ip4/192.168.1.9/tcp/1");
        for private in [
            "/ip4/192.168.1.1/tcp/80",
            "/ip4/127.0.0.1/tcp/80",
            "/ip4/100.64.0.1/tcp/1",
            "/ip6/fd00::1/tcp/1",
        ] {
            assert!(!may(private, outside) && may(private, inside), "{private}");
        }
        assert!(may("/ip4/9.9.9.9/tcp/1", outside) && may("/ip6/2606:4700::1/tcp/1", outside));
        for odd in [
            "/ip4/9.9.9.9/udp/1",
            "/ip4/9.9.9.9/tcp/0",
            "/dns4/example.org/tcp/1",
            "/ip6/::ffff:10.0.0.1/tcp/1",
        ] {
            assert!(!may(odd, outside), "{odd}");
        }
    }
}
