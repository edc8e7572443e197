//! Rate limits on how often peers may make a behaviour work.
//!
//! Here: a layer that counts handler events by peer and by address, and closes the connection that exceeds the
//! rate. Not here: requests, which are first refused one by one ([`super::host`]). Path: a handler's event → a
//! token → the behaviour; without a token the connection is closed.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Instant;

use libp2p::PeerId;
use libp2p::swarm::{
    CloseConnection, ConnectionId, FromSwarm, NetworkBehaviour, THandlerInEvent, THandlerOutEvent, ToSwarm,
};

use super::circuits::Limits;
use super::layer::{Layer, Layered};
use super::quotas::{Address, Buckets, Meter, Rates};
use crate::limits::Rate;

/// The quota addresses of connections. The gate writes them; clones share them.
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

/// A behaviour with rate limits per peer and address.
pub(super) type Metered<B> = Layered<B, Metering>;

/// The rate limits, and the connections that exceeded them.
pub(super) struct Metering {
    sources: Sources,
    meter: Meter,
    strangers: Option<(Buckets<Address>, Limits)>,
    to_end: VecDeque<(PeerId, ConnectionId)>,
    /// Connections that are not closed yet.
    ending: HashSet<ConnectionId>,
    ended: u64,
}

impl<B> Metered<B> {
    /// Limits a behaviour's events to these rates per peer and address.
    pub(super) fn at(rates: Rates, sources: &Sources, inner: B) -> Self {
        let metering = Metering {
            sources: sources.clone(),
            meter: Meter::new(rates),
            strangers: None,
            to_end: VecDeque::new(),
            ending: HashSet::new(),
            ended: 0,
        };
        Self::new(inner, metering)
    }

    /// Sets the lower rate per address for peers that have no business at the relay.
    pub(super) fn with_strangers(mut self, of_address: Rate, limits: Limits) -> Self {
        self.layer.strangers = Some((Buckets::new(of_address), limits));
        self
    }

    /// Connections that were closed for their rate, since the start.
    pub(super) fn ended(&self) -> u64 {
        self.layer.ended
    }
}

impl Metering {
    fn take(&mut self, peer: PeerId, address: Option<Address>, now: Instant) -> bool {
        let of_strangers = match (&mut self.strangers, address) {
            (Some((buckets, limits)), Some(address)) if !limits.knows(peer, now) => {
                buckets.take(address, now)
            }
            _ => true,
        };
        of_strangers && self.meter.take(peer, address, now)
    }
}

impl<B: NetworkBehaviour> Layer<B> for Metering {
    fn on_swarm_event(&mut self, inner: &mut B, event: FromSwarm<'_>) {
        if let FromSwarm::ConnectionClosed(closed) = &event {
            self.ending.remove(&closed.connection_id);
        }
        inner.on_swarm_event(event);
    }

    /// Events of a connection that is being closed are ignored.
    fn on_handler_event(
        &mut self,
        inner: &mut B,
        (peer, connection): (PeerId, ConnectionId),
        event: THandlerOutEvent<B>,
    ) {
        if self.ending.contains(&connection) {
            return;
        }
        if self.take(peer, self.sources.get(connection), Instant::now()) {
            inner.on_connection_handler_event(peer, connection, event);
        } else {
            self.ending.insert(connection);
            self.to_end.push_back((peer, connection));
            self.ended += 1;
        }
    }

    fn poll(&mut self, inner: &mut B, cx: &mut Context<'_>) -> Poll<ToSwarm<B::ToSwarm, THandlerInEvent<B>>> {
        if let Some((peer_id, connection)) = self.to_end.pop_front() {
            tracing::debug!("Mercury disconnects {peer_id}: too much in short time");
            return Poll::Ready(ToSwarm::CloseConnection {
                peer_id,
                connection: CloseConnection::One(connection),
            });
        }
        inner.poll(cx)
    }
}
