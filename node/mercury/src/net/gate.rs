//! The gate: which connections are let in, and which of them are kept while nothing happens on them.
//!
//! Here: counts by peer and by address, and a handler that keeps the connections of those who are logged in; of the
//! others an address keeps a few. Not here: what they ask ([`super::host`]), where we dial ([`super::dials`]).
//! Path: a connection comes → counted as pending → its peer is known → counted by peer → closed, and counted no more.
//! One that we made is counted when its peer is known.

use std::collections::{HashMap, HashSet, VecDeque};
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
    /// Homes that the owner has named.
    named: HashSet<PeerId>,
    rate: Buckets<Address>,
    /// All connections, those without a peer pending.
    connections: HashMap<ConnectionId, Known>,
    /// Where they come from, or go to.
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
    /// It writes down where connections come from, and go to but for homes that are named.
    pub(super) fn new(quotas: Quotas, sources: &Sources, named: HashSet<PeerId>) -> Self {
        Self {
            sources: sources.clone(),
            named,
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

    /// We have made a connection. Strangers have us dial them: it counts where it goes to, as if it came from there.
    fn reach(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        address: Option<Address>,
    ) -> Result<(), Refused> {
        if self.named.contains(&peer) {
            return self.establish(connection, peer);
        }
        if self.connections.len() >= self.quotas.connections {
            return Err(Refused("in all"));
        }
        let count = address.and_then(|address| self.by_address.get(&address));
        if count.is_some_and(|count| count.all >= self.quotas.connections_of_address) {
            return Err(Refused("to this address"));
        }
        self.establish(connection, peer)?;
        if let Some(address) = address {
            self.by_address.entry(address).or_default().all += 1;
            self.sources.insert(connection, address);
        }
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
        remote: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        let address = self.quotas.address(remote);
        let result = self.reach(connection, peer, address);
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
mod tests;
