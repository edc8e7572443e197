//! The gate: which connections are let in, and which of them are kept while nothing happens on them.
//!
//! Here: counts by peer and by address, and a handler that keeps the connections of those who are logged in; of the
//! others an address keeps a few. Not here: what they ask ([`super::host`]).
//! Path: a connection comes → counted as pending → its peer is known → counted by peer → closed, and counted no more.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use libp2p::PeerId;
use libp2p::core::transport::PortUse;
use libp2p::core::upgrade::DeniedUpgrade;
use libp2p::core::{Endpoint, Multiaddr};
use libp2p::swarm::handler::ConnectionEvent;
use libp2p::swarm::{
    CloseConnection, ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm,
    NetworkBehaviour, NotifyHandler, SubstreamProtocol, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
};

use super::metered::Sources;
use super::quotas::{Address, Buckets, Quotas};

/// Why a connection is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many connections {0}")]
pub(super) struct Refused(&'static str);

/// The gate of a home.
pub(super) struct Gate {
    quotas: Quotas,
    rate: Buckets<Address>,
    /// All connections, those without a peer pending.
    connections: HashMap<ConnectionId, Known>,
    /// Where they come from.
    sources: Sources,
    pending: usize,
    by_address: HashMap<Address, Count>,
    by_peer: HashMap<PeerId, Vec<ConnectionId>>,
    kept: VecDeque<(PeerId, ConnectionId, bool)>,
    ending: VecDeque<(PeerId, ConnectionId)>,
    waker: Option<Waker>,
    refused: u64,
}

/// A connection.
#[derive(Debug, Clone, Copy)]
struct Known {
    peer: Option<PeerId>,
    /// Whether its peer is logged in.
    session: bool,
    since: Instant,
}

#[derive(Debug, Default, Clone, Copy)]
struct Count {
    all: usize,
    pending: usize,
    sessions: usize,
}

impl Gate {
    /// It writes down where connections come from.
    pub(super) fn new(quotas: Quotas, sources: &Sources) -> Self {
        Self {
            sources: sources.clone(),
            ending: VecDeque::new(),
            rate: Buckets::new(quotas.connections_rate),
            quotas,
            connections: HashMap::new(),
            pending: 0,
            by_address: HashMap::new(),
            by_peer: HashMap::new(),
            kept: VecDeque::new(),
            waker: None,
            refused: 0,
        }
    }

    /// Whether a peer is logged in: its connections are kept while nothing happens on them.
    pub(super) fn keep(&mut self, peer: PeerId, keep: bool) {
        let Some(connections) = self.by_peer.get(&peer) else { return };
        for connection in connections {
            self.kept.push_back((peer, *connection, keep));
            let Some(known) = self.connections.get_mut(connection) else { continue };
            let before = std::mem::replace(&mut known.session, keep);
            let address = self.sources.get(*connection);
            if let Some(count) = address.and_then(|address| self.by_address.get_mut(&address)) {
                count.sessions = count.sessions + usize::from(keep) - usize::from(before);
            }
        }
        self.wake();
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// Connections that were not let in, since the start.
    pub(super) fn refused(&self) -> u64 {
        self.refused
    }

    pub(super) fn tick(&mut self, now: Instant) {
        let surplus = self.surplus(now);
        if !surplus.is_empty() {
            self.refused += surplus.len() as u64;
            self.ending = surplus.into();
            self.wake();
        }
    }

    /// Connections without a session that are too many from their address: those that are there for longest.
    fn surplus(&self, now: Instant) -> Vec<(PeerId, ConnectionId)> {
        let most = self.quotas.without_session_of_address;
        let mut crowded: HashMap<Address, Vec<(Instant, PeerId, ConnectionId)>> = self
            .by_address
            .iter()
            .filter(|(_, count)| count.all - count.pending - count.sessions > most)
            .map(|(address, _)| (*address, Vec::new()))
            .collect();
        if crowded.is_empty() {
            return Vec::new();
        }
        for (connection, known) in &self.connections {
            if let (Some(peer), false) = (known.peer, known.session)
                && now.saturating_duration_since(known.since) >= self.quotas.grace
                && let Some(address) = self.sources.get(*connection)
                && let Some(idle) = crowded.get_mut(&address)
            {
                idle.push((known.since, peer, *connection));
            }
        }
        let beyond = |mut idle: Vec<_>| {
            idle.sort_unstable();
            idle.truncate(idle.len().saturating_sub(most));
            idle.into_iter().map(|(_, peer, connection)| (peer, connection))
        };
        crowded.into_values().flat_map(beyond).collect()
    }

    fn arrive(
        &mut self,
        connection: ConnectionId,
        address: Option<Address>,
        now: Instant,
    ) -> Result<(), Refused> {
        if self.connections.len() >= self.quotas.connections {
            return Err(Refused("in all"));
        }
        if self.pending >= self.quotas.pending {
            return Err(Refused("that have not shown who they are"));
        }
        if let Some(address) = address {
            let count = self.by_address.get(&address).copied().unwrap_or_default();
            if count.all >= self.quotas.connections_of_address
                || count.pending >= self.quotas.pending_of_address
            {
                return Err(Refused("from this address"));
            }
            if !self.rate.take(address, now) {
                return Err(Refused("in short time from this address"));
            }
            let count = self.by_address.entry(address).or_default();
            count.all += 1;
            count.pending += 1;
            self.sources.insert(connection, address);
        }
        self.pending += 1;
        self.connections.insert(connection, Known { peer: None, session: false, since: now });
        Ok(())
    }

    /// The peer of a connection is known. One that we made ourselves has not been counted before.
    fn establish(&mut self, connection: ConnectionId, peer: PeerId) -> Result<(), Refused> {
        if self.by_peer.get(&peer).map_or(0, Vec::len) >= self.quotas.connections_of_peer {
            self.depart(connection);
            return Err(Refused("of this peer"));
        }
        self.no_longer_pending(connection);
        let new = Known { peer: None, session: false, since: Instant::now() };
        self.connections.entry(connection).or_insert(new).peer = Some(peer);
        self.by_peer.entry(peer).or_default().push(connection);
        Ok(())
    }

    fn no_longer_pending(&mut self, connection: ConnectionId) {
        if let Some(Known { peer: None, .. }) = self.connections.get(&connection) {
            self.pending -= 1;
            let address = self.sources.get(connection);
            if let Some(count) = address.and_then(|address| self.by_address.get_mut(&address)) {
                count.pending -= 1;
            }
        }
    }

    fn depart(&mut self, connection: ConnectionId) {
        self.no_longer_pending(connection);
        let Some(Known { peer, session, .. }) = self.connections.remove(&connection) else { return };
        if let Some(address) = self.sources.remove(connection)
            && let Some(count) = self.by_address.get_mut(&address)
        {
            count.all -= 1;
            count.sessions -= usize::from(session);
            if count.all == 0 {
                self.by_address.remove(&address);
            }
        }
        if let Some(peer) = peer
            && let Some(connections) = self.by_peer.get_mut(&peer)
        {
            connections.retain(|other| *other != connection);
            if connections.is_empty() {
                self.by_peer.remove(&peer);
            }
        }
    }

    fn count<T>(&mut self, result: Result<T, Refused>) -> Result<T, ConnectionDenied> {
        result.map_err(|refused| {
            self.refused += 1;
            ConnectionDenied::new(refused)
        })
    }
}

impl NetworkBehaviour for Gate {
    type ConnectionHandler = Keeper;
    type ToSwarm = Infallible;

    fn handle_pending_inbound_connection(
        &mut self,
        connection: ConnectionId,
        _: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        let address = self.quotas.address(remote);
        let result = self.arrive(connection, address, Instant::now());
        self.count(result)
    }

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        let result = self.establish(connection, peer);
        self.count(result).map(|()| Keeper { keep: false })
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        let result = self.establish(connection, peer);
        self.count(result).map(|()| Keeper { keep: false })
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionClosed(closed) => self.depart(closed.connection_id),
            FromSwarm::ListenFailure(failure) => self.depart(failure.connection_id),
            FromSwarm::DialFailure(failure) => self.depart(failure.connection_id),
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Infallible, THandlerInEvent<Self>>> {
        if let Some((peer_id, connection)) = self.ending.pop_front() {
            let connection = CloseConnection::One(connection);
            return Poll::Ready(ToSwarm::CloseConnection { peer_id, connection });
        }
        if let Some((peer_id, connection, keep)) = self.kept.pop_front() {
            let handler = NotifyHandler::One(connection);
            return Poll::Ready(ToSwarm::NotifyHandler { peer_id, handler, event: keep });
        }
        self.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

/// Keeps a connection, or not.
pub(super) struct Keeper {
    keep: bool,
}

impl ConnectionHandler for Keeper {
    type FromBehaviour = bool;
    type ToBehaviour = Infallible;
    type InboundProtocol = DeniedUpgrade;
    type OutboundProtocol = DeniedUpgrade;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = ();

    fn listen_protocol(&self) -> SubstreamProtocol<DeniedUpgrade> {
        SubstreamProtocol::new(DeniedUpgrade, ())
    }

    fn connection_keep_alive(&self) -> bool {
        self.keep
    }

    fn on_behaviour_event(&mut self, keep: bool) {
        self.keep = keep;
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ConnectionHandlerEvent<DeniedUpgrade, (), Infallible>> {
        Poll::Pending
    }

    fn on_connection_event(&mut self, _: ConnectionEvent<'_, DeniedUpgrade, DeniedUpgrade>) {}
}

#[cfg(test)]
mod tests {
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
        Gate::new(quotas, &Sources::default())
    }

    fn address(gate: &Gate, number: u8) -> Option<Address> {
        gate.quotas.address(&format!("/ip4/192.0.2.{number}/tcp/1").parse().expect("an address"))
    }

    /// A gate, and connections that come to it.
    struct Arrivals(Gate, usize);

    impl Arrivals {
        fn come(&mut self, number: u8) -> Result<ConnectionId, Refused> {
            self.1 += 1;
            let connection = ConnectionId::new_unchecked(self.1);
            let address = address(&self.0, number);
            self.0.arrive(connection, address, Instant::now()).map(|()| connection)
        }

        fn come_as(&mut self, number: u8, peer: PeerId) -> Result<ConnectionId, Refused> {
            let connection = self.come(number)?;
            self.0.establish(connection, peer).map(|()| connection)
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
    fn so_many_are_pending_and_so_many_are_there_in_all() {
        let mut arrivals = Arrivals(gate(|_| {}), 0);
        let pending = [1, 1, 2, 2].map(|number| arrivals.come(number).expect("four may be pending"));
        assert_eq!(arrivals.come(3), Err(Refused("that have not shown who they are")));
        for connection in pending {
            arrivals.0.establish(connection, PeerId::random()).expect("they show who they are");
        }
        arrivals.come(3).expect("the fifth");
        assert_eq!(arrivals.come(4), Err(Refused("in all")));
        arrivals.0.depart(pending[0]);
        arrivals.come(4).expect("there is room again");
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
        assert_eq!(arrivals.0.surplus(now), [], "each has time to log in");
        assert_eq!(arrivals.0.surplus(later), [(peers[0], first)], "three without one, the first is closed");
        arrivals.0.keep(peers[3], true);
        assert_eq!(arrivals.0.surplus(later), [], "two of four");
        arrivals.0.keep(peers[3], false);
        arrivals.0.keep(peers[2], false);
        arrivals.0.tick(later);
        assert_eq!(arrivals.0.ending, [(peers[0], first), (peers[1], second)]);
        for connection in [first, second, third, other] {
            arrivals.0.depart(connection);
        }
        let left =
            arrivals.0.by_address.values().map(|count| (count.all, count.sessions)).collect::<Vec<_>>();
        assert_eq!(left, [(1, 0)]);
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
        assert_eq!((gate.pending, gate.sources.len()), (0, 0));
    }
}
