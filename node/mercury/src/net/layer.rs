//! Layers around behaviours that change a few methods and delegate the rest.
//!
//! Here: the delegation, once for all layers. Not here: what each does ([`super::dials`], [`super::metered`],
//! [`super::circuits`], [`crate::client`]'s `caution`); a layer that changes the connection handler is separate
//! (`slim`). Path: swarm → [`Layered`] → its [`Layer`], which must pass events on to the inner behaviour.

use std::ops::{Deref, DerefMut};
use std::task::{Context, Poll};

use libp2p::PeerId;
use libp2p::core::transport::PortUse;
use libp2p::core::{Endpoint, Multiaddr};
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent, THandlerOutEvent,
    ToSwarm,
};

/// The methods that a layer may change. The defaults delegate.
pub(crate) trait Layer<B: NetworkBehaviour> {
    /// A connection is being dialled: returns the addresses to add.
    fn on_dial(
        &mut self,
        inner: &mut B,
        (connection, role): (ConnectionId, Endpoint),
        peer: Option<PeerId>,
        addresses: &[Multiaddr],
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        inner.handle_pending_outbound_connection(connection, peer, addresses, role)
    }

    /// An event of the swarm.
    fn on_swarm_event(&mut self, inner: &mut B, event: FromSwarm<'_>) {
        inner.on_swarm_event(event);
    }

    /// An event of the connection handler.
    fn on_handler_event(
        &mut self,
        inner: &mut B,
        (peer, connection): (PeerId, ConnectionId),
        event: THandlerOutEvent<B>,
    ) {
        inner.on_connection_handler_event(peer, connection, event);
    }

    /// Polls the inner behaviour for its actions.
    fn poll(&mut self, inner: &mut B, cx: &mut Context<'_>) -> Poll<ToSwarm<B::ToSwarm, THandlerInEvent<B>>> {
        inner.poll(cx)
    }
}

/// A behaviour with a layer around it.
pub(crate) struct Layered<B, L> {
    inner: B,
    pub(crate) layer: L,
}

impl<B, L> Layered<B, L> {
    pub(crate) fn new(inner: B, layer: L) -> Self {
        Self { inner, layer }
    }
}

impl<B, L> Deref for Layered<B, L> {
    type Target = B;

    fn deref(&self) -> &B {
        &self.inner
    }
}

impl<B, L> DerefMut for Layered<B, L> {
    fn deref_mut(&mut self) -> &mut B {
        &mut self.inner
    }
}

impl<B: NetworkBehaviour, L: Layer<B> + 'static> NetworkBehaviour for Layered<B, L> {
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
        self.layer.on_dial(&mut self.inner, (connection, role), peer, addresses)
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
        self.layer.on_swarm_event(&mut self.inner, event);
    }

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        self.layer.on_handler_event(&mut self.inner, (peer, connection), event);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        self.layer.poll(&mut self.inner, cx)
    }
}
