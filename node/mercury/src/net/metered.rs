//! How often peers may make a behaviour work.
//!
//! Here: a behaviour around another one that counts what its handlers report, by peer and by address, and closes the
//! connection that brings more. Not here: requests, which are refused one by one first ([`super::host`]).
//! Path: a handler's event → a token → the behaviour; without a token the connection ends.

use std::collections::{HashMap, HashSet, VecDeque};
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use libp2p::PeerId;
use libp2p::core::transport::PortUse;
use libp2p::core::{Endpoint, Multiaddr};
use libp2p::swarm::{
    CloseConnection, ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent,
    THandlerOutEvent, ToSwarm,
};

use super::quotas::{Address, Meter, Rates};

/// Between two times that full buckets are forgotten.
const SWEEP: Duration = Duration::from_secs(10);

/// The addresses of connections that count as one. The gate writes them; clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct Sources(Arc<Mutex<HashMap<ConnectionId, Address>>>);

impl Sources {
    fn map(&self) -> MutexGuard<'_, HashMap<ConnectionId, Address>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn insert(&self, connection: ConnectionId, address: Address) {
        self.map().insert(connection, address);
    }

    pub(super) fn remove(&self, connection: ConnectionId) -> Option<Address> {
        self.map().remove(&connection)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.map().len()
    }

    pub(super) fn get(&self, connection: ConnectionId) -> Option<Address> {
        self.map().get(&connection).copied()
    }
}

/// A behaviour, and how often each peer and address may make it work.
pub(super) struct Metered<B> {
    inner: B,
    sources: Sources,
    meter: Meter,
    next_sweep: Instant,
    to_end: VecDeque<(PeerId, ConnectionId)>,
    /// Those that have not ended yet.
    ending: HashSet<ConnectionId>,
    ended: u64,
}

impl<B> Metered<B> {
    pub(super) fn new(inner: B, sources: &Sources, rates: Rates) -> Self {
        Self {
            inner,
            sources: sources.clone(),
            meter: Meter::new(rates),
            next_sweep: Instant::now(),
            to_end: VecDeque::new(),
            ending: HashSet::new(),
            ended: 0,
        }
    }

    /// Connections that were closed for their rate, since the start.
    pub(super) fn ended(&self) -> u64 {
        self.ended
    }

    fn take(&mut self, peer: PeerId, connection: ConnectionId, now: Instant) -> bool {
        if now >= self.next_sweep {
            self.next_sweep = now + SWEEP;
            self.meter.tick(now);
        }
        self.meter.take(peer, self.sources.get(connection), now)
    }
}

impl<B> Deref for Metered<B> {
    type Target = B;

    fn deref(&self) -> &B {
        &self.inner
    }
}

impl<B> DerefMut for Metered<B> {
    fn deref_mut(&mut self) -> &mut B {
        &mut self.inner
    }
}

impl<B: NetworkBehaviour> NetworkBehaviour for Metered<B> {
    type ConnectionHandler = B::ConnectionHandler;
    type ToSwarm = B::ToSwarm;

    fn handle_pending_inbound_connection(
        &mut self,
        connection: ConnectionId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        self.inner.handle_pending_inbound_connection(connection, local, remote)
    }

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.inner.handle_established_inbound_connection(connection, peer, local, remote)
    }

    fn handle_pending_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: Option<PeerId>,
        addresses: &[Multiaddr],
        role: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        self.inner.handle_pending_outbound_connection(connection, peer, addresses, role)
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        role: Endpoint,
        port: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.inner.handle_established_outbound_connection(connection, peer, address, role, port)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        if let FromSwarm::ConnectionClosed(closed) = &event {
            self.ending.remove(&closed.connection_id);
        }
        self.inner.on_swarm_event(event);
    }

    /// What a connection that ends has said meanwhile is not looked at.
    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        if self.ending.contains(&connection) {
            return;
        }
        if self.take(peer, connection, Instant::now()) {
            self.inner.on_connection_handler_event(peer, connection, event);
        } else {
            self.ending.insert(connection);
            self.to_end.push_back((peer, connection));
            self.ended += 1;
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        if let Some((peer_id, connection)) = self.to_end.pop_front() {
            tracing::debug!("Mercury disconnects {peer_id}: too much in short time");
            return Poll::Ready(ToSwarm::CloseConnection {
                peer_id,
                connection: CloseConnection::One(connection),
            });
        }
        self.inner.poll(cx)
    }
}
