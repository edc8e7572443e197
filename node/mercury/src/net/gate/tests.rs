//! What the gate admits, counts and closes.

use std::time::Duration;

use super::*;
use crate::limits::Rate;

fn gate(change: impl FnOnce(&mut Quotas)) -> Gate {
    let mut quotas = Quotas {
        connections: 5,
        connections_of_peer: 2,
        connections_of_address: 3,
        pending: 4,
        pending_of_address: 2,
        connections_rate: Rate { burst: 100, per_second: 1 },
        ..Quotas::default()
    };
    change(&mut quotas);
    Gate::new(quotas, &Sources::default(), HashSet::new())
}

fn set<const N: usize>(connections: [ConnectionId; N]) -> BTreeSet<ConnectionId> {
    connections.into()
}

fn multiaddr(number: u8) -> Multiaddr {
    format!("/ip4/192.0.2.{number}/tcp/1").parse().expect("an address")
}

fn address(gate: &Gate, number: u8) -> Option<Address> {
    gate.quotas.address(&multiaddr(number))
}

/// A gate, and the number of connections that came to it.
struct Arrivals(Gate, usize);

impl Arrivals {
    fn come(&mut self, number: u8) -> Result<ConnectionId, Refused> {
        self.1 += 1;
        let connection = ConnectionId::new_unchecked(self.1);
        let address = address(&self.0, number);
        self.0.arrive(connection, address, None, Instant::now()).map(|()| connection)
    }

    fn come_as(&mut self, number: u8, peer: PeerId) -> Result<ConnectionId, Refused> {
        let connection = self.come(number)?;
        self.0.establish(connection, peer).map(|()| connection)
    }

    /// The home dials a peer; returns the connection if it is admitted.
    fn dial(&mut self, number: u8, peer: PeerId) -> Option<ConnectionId> {
        self.1 += 1;
        let connection = ConnectionId::new_unchecked(self.1);
        let (address, role, port) = (multiaddr(number), Endpoint::Dialer, PortUse::Reuse);
        let gate = &mut self.0;
        let result = gate.handle_established_outbound_connection(connection, peer, &address, role, port);
        result.is_ok().then_some(connection)
    }
}

#[test]
fn an_address_has_so_many_connections_and_not_one_more() {
    let mut arrivals = Arrivals(gate(|_| {}), 0);
    let first = arrivals.come_as(1, PeerId::random()).expect("the first");
    let pending = [0; 2].map(|_| arrivals.come(1).expect("two may be pending"));
    assert_eq!(arrivals.come(1), Err(Refused("from this address")), "a third pending, a fourth in all");
    arrivals.0.depart(first);
    assert_eq!(arrivals.come(1), Err(Refused("from this address")), "a third pending");
    arrivals.0.establish(pending[0], PeerId::random()).expect("it shows who it is");
    arrivals.come(1).expect("there is room again");
    assert_eq!(arrivals.come(1), Err(Refused("from this address")));
    arrivals.come(2).expect("another address is not concerned");
}

#[test]
fn a_peer_has_so_many_connections_from_wherever_it_comes() {
    let mut arrivals = Arrivals(gate(|_| {}), 0);
    let peer = PeerId::random();
    let first = arrivals.come_as(1, peer).expect("the first");
    arrivals.come_as(2, peer).expect("the second");
    assert_eq!(arrivals.come_as(3, peer), Err(Refused("of this peer")));
    assert_eq!(arrivals.0.connections.len(), 2, "one that is refused is not counted");
    arrivals.0.depart(first);
    arrivals.come_as(3, peer).expect("there is room again");
}

#[test]
fn where_all_pending_places_are_taken_the_oldest_of_the_most_crowded_network_gives_way() {
    let mut arrivals = Arrivals(gate(|quotas| quotas.connections = 20), 0);
    let [alone, first, second, third] =
        [1, 2, 2, 3].map(|number| arrivals.come(number).expect("four places"));
    let fourth = arrivals.come(4).expect("a newcomer");
    arrivals.0.establish(first, PeerId::random()).expect_err("it gave way");
    for connection in [alone, second, third, fourth] {
        arrivals.0.establish(connection, PeerId::random()).expect("it shows who it is");
    }
    let all = [5, 6, 7, 8].map(|number| arrivals.come(number).expect("there are places again"));
    arrivals.come(9).expect("a newcomer");
    assert!(arrivals.0.establish(all[0], PeerId::random()).is_err(), "of networks with one each the oldest");
}

#[test]
fn before_all_places_are_taken_who_has_no_session_gives_way() {
    let mut arrivals = Arrivals(gate(|_| {}), 0);
    let peers = [0; 4].map(|_| PeerId::random());
    let [first, _, third, _] = [0, 1, 2, 3]
        .map(|number| arrivals.come_as([1, 2, 2, 3][number], peers[number]).expect("there is room"));
    arrivals.0.keep(peers[1], true);
    assert_eq!(arrivals.0.ending, []);
    arrivals.come(4).expect("the fifth");
    assert_eq!(arrivals.0.ending, [(peers[0], first)], "the oldest of those with one each");
    let last =
        arrivals.come(5).expect("until that one has closed, those who have not shown who they are give way");
    assert_eq!((arrivals.0.connections.len(), arrivals.0.pending.len()), (5, 1));
    arrivals.0.establish(last, peers[0]).expect("the newest");
    assert_eq!(arrivals.come(6), Err(Refused("in all")), "there is none such");
    arrivals.0.depart(first);
    arrivals.come(6).expect("there is room again");
    assert_eq!(arrivals.0.ending, [(peers[0], first), (peers[2], third)], "the second has a session");
    arrivals.0.keep(peers[2], false);
    assert_eq!(arrivals.0.ending.len(), 2, "once is enough");
}

#[test]
fn an_address_keeps_so_many_connections_without_a_session_and_not_one_more() {
    let grace = Duration::from_secs(10);
    let mut arrivals = Arrivals(
        gate(|quotas| {
            (quotas.connections, quotas.connections_of_address) = (20, 10);
            (quotas.without_session_of_address, quotas.grace) = (2, grace);
        }),
        0,
    );
    let peers = [0; 4].map(|_| PeerId::random());
    let [first, second, third, _] = peers.map(|peer| arrivals.come_as(1, peer).expect("there is room"));
    let other = arrivals.come_as(2, PeerId::random()).expect("another address");
    arrivals.0.keep(peers[2], true);
    let (now, later) = (Instant::now(), Instant::now() + grace);
    assert_eq!(arrivals.0.surplus(now), set([]), "each has time to log in");
    assert_eq!(arrivals.0.surplus(later), set([first]), "three without one, the first is closed");
    arrivals.0.keep(peers[3], true);
    assert_eq!(arrivals.0.surplus(later), set([]), "two of four");
    arrivals.0.keep(peers[3], false);
    arrivals.0.keep(peers[2], false);
    arrivals.0.tick(later);
    assert_eq!(arrivals.0.ending, [(peers[0], first), (peers[1], second)]);
    for connection in [first, second, third, other] {
        arrivals.0.depart(connection);
    }
    let left = arrivals.0.by_address.values().map(|count| count.all).collect::<Vec<_>>();
    assert_eq!(left, [1]);
}

#[test]
fn connections_that_the_home_makes_count_at_the_address_as_if_they_came_from_there() {
    let mut arrivals = Arrivals(gate(|quotas| quotas.connections_of_peer = 9), 0);
    let (peer, named) = (PeerId::random(), PeerId::random());
    arrivals.0.named.insert(named);
    let dialled = [0; 3].map(|_| arrivals.dial(1, peer).expect("three of an address"));
    assert_eq!((arrivals.dial(1, peer), arrivals.0.refused), (None, 1), "a fourth");
    assert_eq!(arrivals.come(1), Err(Refused("from this address")));
    assert_eq!(arrivals.0.sources.get(dialled[0]), address(&arrivals.0, 1), "rates hold for it");
    let home = arrivals.dial(1, named).expect("the owner has named it");
    assert_eq!(arrivals.0.sources.get(home), None);
    arrivals.dial(2, peer).expect("another address is not concerned");
    assert_eq!(arrivals.dial(3, peer), None, "five in all");
    arrivals.0.depart(dialled[0]);
    arrivals.dial(1, peer).expect("there is room again");
    for number in 1..=arrivals.1 {
        arrivals.0.depart(ConnectionId::new_unchecked(number));
    }
    let gate = &arrivals.0;
    assert!(gate.connections.is_empty() && gate.by_address.is_empty() && gate.by_peer.is_empty());
    let crowds = [&gate.pending, &gate.idle, &gate.idle_of_address].map(Crowd::len);
    assert_eq!((crowds, gate.closing.len(), gate.sources.len()), ([0; 3], 0, 0));
}

#[test]
fn of_the_connections_that_the_home_makes_so_many_are_kept_at_an_address_without_a_session() {
    let mut arrivals = Arrivals(gate(|quotas| quotas.without_session_of_address = 1), 0);
    let peers = [0; 3].map(|_| PeerId::random());
    let dialled = peers.map(|peer| arrivals.dial(1, peer).expect("there is room"));
    arrivals.0.keep(peers[2], true);
    let later = Instant::now() + arrivals.0.quotas.grace;
    assert_eq!(arrivals.0.surplus(later), set([dialled[0]]));
}

#[test]
fn connections_come_at_a_bounded_rate_and_nothing_is_left_of_those_that_went() {
    let rate = Rate { burst: 3, per_second: 1 };
    let mut arrivals = Arrivals(gate(|quotas| quotas.connections_rate = rate), 0);
    for _ in 0..3 {
        let connection = arrivals.come_as(1, PeerId::random()).expect("three in a burst");
        arrivals.0.depart(connection);
        arrivals.0.depart(connection);
    }
    assert_eq!(arrivals.come(1), Err(Refused("in short time from this address")));
    let gate = &arrivals.0;
    assert!(gate.connections.is_empty() && gate.by_address.is_empty() && gate.by_peer.is_empty());
    let crowds = [&gate.pending, &gate.idle, &gate.idle_of_address].map(Crowd::len);
    assert_eq!((crowds, gate.closing.len(), gate.sources.len()), ([0; 3], 0, 0));
}

#[test]
fn the_networks_of_one_customer_have_together_what_few_addresses_have() {
    let mut gate = gate(|quotas| {
        (quotas.connections, quotas.pending, quotas.pending_of_network) = (100, 50, 3);
        (quotas.without_session_of_address, quotas.without_session_of_network) = (1, 2);
    });
    let come = |gate: &mut Gate, number: usize| {
        let multiaddr = format!("/ip6/2001:db8:1:{number}::1/tcp/1").parse().expect("an address");
        let (connection, address) = (ConnectionId::new_unchecked(number), gate.quotas.address(&multiaddr));
        gate.arrive(connection, address, None, Instant::now()).map(|()| connection)
    };
    let three = [1, 2, 3].map(|number| come(&mut gate, number).expect("three may be pending"));
    assert!(come(&mut gate, 4).is_ok_and(|fourth| gate.connections.contains_key(&fourth)));
    assert!(!gate.connections.contains_key(&three[0]), "the oldest of them gives way");
    let establish = |gate: &mut Gate, connection| {
        gate.establish(connection, PeerId::random()).expect("it shows who it is")
    };
    let (second, third) = (three[1], three[2]);
    for connection in [second, third, ConnectionId::new_unchecked(4)] {
        establish(&mut gate, connection);
    }
    let fifth = come(&mut gate, 5).expect("there is room again");
    establish(&mut gate, fifth);
    assert_eq!(gate.surplus(Instant::now() + gate.quotas.grace), set([second, third]));
}

#[test]
fn a_home_that_the_owner_has_named_never_gives_way() {
    let mut arrivals = Arrivals(gate(|_| {}), 0);
    let named = PeerId::random();
    arrivals.0.named.insert(named);
    let home = arrivals.come_as(1, named).expect("there is room");
    arrivals.0.keep(named, false);
    let others = [2, 3, 4].map(|number| arrivals.come_as(number, PeerId::random()).expect("there is room"));
    arrivals.come(5).expect("the fifth");
    let ending: Vec<_> = arrivals.0.ending.iter().map(|(_, connection)| *connection).collect();
    assert_eq!(ending, [others[0]], "not {home}");
}
