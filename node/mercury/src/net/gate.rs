//! The gate: which connections are admitted, and which idle ones are kept.
//!
//! Here: counts by peer, address and network, and a handler that keeps connections with a session open; without a
//! session, an address may keep a few. When slots run out, among connections in handshake and those without a
//! session the oldest of the most crowded network is closed ([`super::crowd`]), so idle sockets from a few networks
//! keep nobody out. Not here: requests ([`super::host`]), outgoing dials ([`super::dials`]). Path: a connection
//! arrives → counted as pending → its peer is known → counted by peer → closed, and no longer counted. An outgoing
//! connection is counted once its peer is known.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::convert::Infallible;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use libp2p::PeerId;
use libp2p::core::transport::PortUse;
use libp2p::core::upgrade::DeniedUpgrade;
use libp2p::core::{Endpoint, Multiaddr};
use libp2p::futures::future::AbortHandle;
use libp2p::swarm::handler::ConnectionEvent;
use libp2p::swarm::{
    CloseConnection, ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm,
    NetworkBehaviour, NotifyHandler, SubstreamProtocol, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
};

use super::crowd::Crowd;
use super::handshakes::Newest;
use super::metered::Sources;
use super::quotas::{Address, Buckets, Quotas};

/// Why a connection is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many connections {0}")]
pub(super) struct Refused(&'static str);

/// The gate of a home.
pub(super) struct Gate {
    quotas: Quotas,
    /// Homes that the owner has named.
    named: HashSet<PeerId>,
    rate: Buckets<Address>,
    /// All connections; those without a peer are in handshake.
    connections: HashMap<ConnectionId, Known>,
    /// The addresses that they come from or go to.
    sources: Sources,
    /// The handshake of the connection that is arriving.
    pub(super) newest: Newest,
    /// Connections in handshake, by network.
    pending: Crowd,
    /// Connections without a session, by network and by address; not those of named homes.
    idle: Crowd,
    idle_of_address: Crowd,
    by_address: HashMap<Address, Count>,
    by_peer: HashMap<PeerId, Vec<ConnectionId>>,
    kept: VecDeque<(PeerId, ConnectionId, bool)>,
    ending: VecDeque<(PeerId, ConnectionId)>,
    /// Connections that we are closing and that are not closed yet.
    closing: HashSet<ConnectionId>,
    waker: Option<Waker>,
    refused: u64,
}

/// A connection.
#[derive(Debug)]
struct Known {
    peer: Option<PeerId>,
    since: Instant,
    /// Aborts its handshake.
    handshake: Option<AbortHandle>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Count {
    all: usize,
    pending: usize,
}

impl Gate {
    /// Makes a gate. It records the remote addresses of connections, except outgoing ones to named homes.
    pub(super) fn new(quotas: Quotas, sources: &Sources, named: HashSet<PeerId>) -> Self {
        Self {
            sources: sources.clone(),
            named,
            ending: VecDeque::new(),
            closing: HashSet::new(),
            rate: Buckets::new(quotas.connections_rate),
            quotas,
            connections: HashMap::new(),
            newest: Newest::default(),
            pending: Crowd::default(),
            idle: Crowd::default(),
            idle_of_address: Crowd::default(),
            by_address: HashMap::new(),
            by_peer: HashMap::new(),
            kept: VecDeque::new(),
            waker: None,
            refused: 0,
        }
    }

    /// Sets whether a peer is logged in: its idle connections are kept then.
    pub(super) fn keep(&mut self, peer: PeerId, keep: bool) {
        for connection in self.by_peer.get(&peer).cloned().unwrap_or_default() {
            self.kept.push_back((peer, connection, keep));
            self.set_idle(connection, !keep && !self.named.contains(&peer));
        }
        self.wake();
    }

    /// Address and network of a connection's remote.
    fn place(&self, connection: ConnectionId) -> (Option<Address>, Option<Address>) {
        let address = self.sources.get(connection);
        (address, address.map(Address::network))
    }

    /// Sets whether a connection has no session and may be closed for others; one that is being closed never
    /// counts.
    fn set_idle(&mut self, connection: ConnectionId, idle: bool) {
        let (address, network) = self.place(connection);
        if idle && !self.closing.contains(&connection) {
            self.idle.insert(network, connection);
            self.idle_of_address.insert(address, connection);
        } else {
            self.idle.remove(network, connection);
            self.idle_of_address.remove(address, connection);
        }
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// Connections that were refused or closed since the start.
    pub(super) fn refused(&self) -> u64 {
        self.refused
    }

    pub(super) fn tick(&mut self, now: Instant) {
        self.surplus(now).into_iter().for_each(|connection| self.end(connection));
    }

    /// The oldest of the connections without a session that exceed the limit of their address or network.
    fn surplus(&self, now: Instant) -> BTreeSet<ConnectionId> {
        let quotas = &self.quotas;
        let has_had_time = |connection: &&ConnectionId| {
            let known = self.connections.get(connection);
            known.is_some_and(|known| now.saturating_duration_since(known.since) >= quotas.grace)
        };
        let mut surplus = BTreeSet::new();
        for (crowd, most) in [
            (&self.idle_of_address, quotas.without_session_of_address),
            (&self.idle, quotas.without_session_of_network),
        ] {
            for connections in crowd.beyond(most) {
                let old: Vec<_> = connections.iter().filter(has_had_time).copied().collect();
                surplus.extend(&old[..old.len().saturating_sub(most)]);
            }
        }
        surplus
    }

    /// Closes a connection whose peer is known. Its slot is free once it is closed.
    fn end(&mut self, connection: ConnectionId) {
        let Some(Known { peer: Some(peer), .. }) = self.connections.get(&connection) else { return };
        self.ending.push_back((*peer, connection));
        self.closing.insert(connection);
        self.set_idle(connection, false);
        self.refused += 1;
        self.wake();
    }

    /// Aborts a handshake; returns whether there is one.
    fn break_off(&mut self, connection: Option<ConnectionId>) -> bool {
        let Some(connection) = connection else { return false };
        if let Some(Known { handshake: Some(handshake), .. }) = self.connections.get(&connection) {
            handshake.abort();
        }
        self.depart(connection);
        self.refused += 1;
        true
    }

    /// Keeps one of 64 slots free for new connections, as long as there are connections without a session to close.
    fn keep_room(&mut self) {
        let most = self.quotas.connections - self.quotas.connections.div_ceil(64);
        while self.connections.len() - self.closing.len() > most {
            let Some(connection) = self.idle.first_to_go() else { return };
            self.end(connection);
        }
    }

    fn arrive(
        &mut self,
        connection: ConnectionId,
        address: Option<Address>,
        handshake: Option<AbortHandle>,
        now: Instant,
    ) -> Result<(), Refused> {
        let network = address.map(Address::network);
        if let Some(address) = address {
            // First, so that refused connections are limited in rate like others.
            if !self.rate.take(address, now) {
                return Err(Refused("in short time from this address"));
            }
            let count = self.by_address.get(&address).copied().unwrap_or_default();
            if count.all >= self.quotas.connections_of_address
                || count.pending >= self.quotas.pending_of_address
            {
                return Err(Refused("from this address"));
            }
            // A network has many users: one silent connection must not keep the others out.
            if self.pending.at(network) >= self.quotas.pending_of_network {
                self.break_off(self.pending.oldest(network));
            }
        }
        let full =
            self.connections.len() >= self.quotas.connections || self.pending.len() >= self.quotas.pending;
        if full && !self.break_off(self.pending.first_to_go()) {
            return Err(Refused("in all"));
        }
        if let Some(address) = address {
            let count = self.by_address.entry(address).or_default();
            count.all += 1;
            count.pending += 1;
            self.sources.insert(connection, address);
        }
        self.pending.insert(network, connection);
        self.connections.insert(connection, Known { peer: None, since: now, handshake });
        self.keep_room();
        Ok(())
    }

    /// Admits an outgoing connection. Strangers can make us dial, so it counts for its remote address like an
    /// incoming one.
    fn reach(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        address: Option<Address>,
    ) -> Result<(), Refused> {
        let address = address.filter(|_| !self.named.contains(&peer));
        if !self.named.contains(&peer) && self.connections.len() >= self.quotas.connections {
            return Err(Refused("in all"));
        }
        let count = address.and_then(|address| self.by_address.get(&address));
        if count.is_some_and(|count| count.all >= self.quotas.connections_of_address) {
            return Err(Refused("to this address"));
        }
        if let Some(address) = address {
            self.by_address.entry(address).or_default().all += 1;
            self.sources.insert(connection, address);
        }
        let new = Known { peer: Some(peer), since: Instant::now(), handshake: None };
        self.connections.insert(connection, new);
        self.admit(connection, peer)?;
        self.keep_room();
        Ok(())
    }

    /// The peer of an incoming connection is known.
    fn establish(&mut self, connection: ConnectionId, peer: PeerId) -> Result<(), Refused> {
        self.no_longer_pending(connection);
        let gave_way = Refused("that have not shown who they are");
        let known = self.connections.get_mut(&connection).ok_or(gave_way)?;
        (known.peer, known.handshake) = (Some(peer), None);
        self.admit(connection, peer)
    }

    /// Counts a connection by its peer.
    fn admit(&mut self, connection: ConnectionId, peer: PeerId) -> Result<(), Refused> {
        if self.by_peer.get(&peer).map_or(0, Vec::len) >= self.quotas.connections_of_peer {
            self.depart(connection);
            return Err(Refused("of this peer"));
        }
        self.by_peer.entry(peer).or_default().push(connection);
        self.set_idle(connection, !self.named.contains(&peer));
        Ok(())
    }

    fn no_longer_pending(&mut self, connection: ConnectionId) {
        if let Some(Known { peer: None, .. }) = self.connections.get(&connection) {
            let (address, network) = self.place(connection);
            self.pending.remove(network, connection);
            if let Some(count) = address.and_then(|address| self.by_address.get_mut(&address)) {
                count.pending -= 1;
            }
        }
    }

    fn depart(&mut self, connection: ConnectionId) {
        self.no_longer_pending(connection);
        self.set_idle(connection, false);
        self.closing.remove(&connection);
        let Some(Known { peer, .. }) = self.connections.remove(&connection) else { return };
        if let Some(address) = self.sources.remove(connection)
            && let Some(count) = self.by_address.get_mut(&address)
        {
            count.all -= 1;
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
        let handshake = self.newest.take(remote);
        let result = self.arrive(connection, address, handshake, Instant::now());
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

/// The connection handler that keeps a connection open or not.
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
