//! Streams of calls, and which peers may connect to a device at all.
//!
//! Here: the behaviour that opens and accepts streams of [`CALLS`], refuses connections of peers that are not
//! expected, and keeps the connection to one's own home open. Not here: the data on a stream ([`super::calls`]).

use std::collections::{HashMap, HashSet, VecDeque};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::core::upgrade::ReadyUpgrade;
use libp2p::swarm::handler::{ConnectionEvent, FullyNegotiatedInbound, FullyNegotiatedOutbound};
use libp2p::swarm::{
    ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm, NetworkBehaviour,
    NotifyHandler, SubstreamProtocol, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId, Stream, StreamProtocol};
use tokio::sync::oneshot;

/// The protocol of calls.
pub(super) const CALLS: StreamProtocol = StreamProtocol::new("/iop/mercury/call/1");
/// Maximum number of peers that may be expected at once.
const MAX_EXPECTED: usize = 64;

/// A stream that a peer opened, with its connection.
type Come = (PeerId, ConnectionId, Stream);
/// Receives the opened stream, or is dropped if that failed.
pub(super) type Opened = oneshot::Sender<Stream>;

/// A message from the behaviour to a connection.
#[derive(Debug)]
pub(super) enum In {
    /// Open a stream.
    Open(Opened),
    /// Stay open while idle, or not.
    Keep(bool),
}

/// A peer that is not expected.
#[derive(Debug, thiserror::Error)]
#[error("nobody waits for a connection of this peer")]
struct Unexpected;

/// The behaviour.
#[derive(Debug, Default)]
pub(super) struct Streams {
    /// Peers that may connect, and until when.
    expected: HashMap<PeerId, Instant>,
    /// Homes that this device dialled: they may dial back.
    homes: HashSet<PeerId>,
    /// Peers whose connections stay open.
    kept: HashSet<PeerId>,
    actions: VecDeque<ToSwarm<Come, In>>,
    waker: Option<Waker>,
}

impl Streams {
    /// Lets a peer connect for some time.
    pub(super) fn expect(&mut self, peer: PeerId, time: Duration) {
        let now = Instant::now();
        self.expected.retain(|_, until| *until > now);
        if self.expected.len() < MAX_EXPECTED {
            self.expected.insert(peer, now + time);
        }
    }

    /// Notes that a peer is a home.
    pub(super) fn home(&mut self, peer: PeerId) {
        self.homes.insert(peer);
    }

    /// Sets whether the connections to a peer stay open.
    pub(super) fn keep(&mut self, peer: PeerId, keep: bool) {
        if keep {
            self.kept.insert(peer);
        } else {
            self.kept.remove(&peer);
        }
        self.act(ToSwarm::NotifyHandler {
            peer_id: peer,
            handler: NotifyHandler::Any,
            event: In::Keep(keep),
        });
    }

    /// Opens a stream on a connection.
    pub(super) fn open(&mut self, peer: PeerId, connection: ConnectionId, opened: Opened) {
        self.act(ToSwarm::NotifyHandler {
            peer_id: peer,
            handler: NotifyHandler::One(connection),
            event: In::Open(opened),
        });
    }

    fn act(&mut self, action: ToSwarm<Come, In>) {
        self.actions.push_back(action);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn handler(&self, peer: PeerId) -> Handler {
        Handler { keep: self.kept.contains(&peer), ..Handler::default() }
    }
}

impl NetworkBehaviour for Streams {
    type ConnectionHandler = Handler;
    type ToSwarm = Come;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        let expected = self.expected.get(&peer).is_some_and(|until| *until > Instant::now());
        if !expected && !self.homes.contains(&peer) {
            return Err(ConnectionDenied::new(Unexpected));
        }
        Ok(self.handler(peer))
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler(peer))
    }

    fn on_swarm_event(&mut self, _: FromSwarm<'_>) {}

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        stream: THandlerOutEvent<Self>,
    ) {
        self.act(ToSwarm::GenerateEvent((peer, connection, stream)));
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        match self.actions.pop_front() {
            Some(action) => Poll::Ready(action),
            None => {
                self.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

/// The handler of one connection.
#[derive(Debug, Default)]
pub(super) struct Handler {
    keep: bool,
    wanted: VecDeque<Opened>,
    come: Option<Stream>,
    waker: Option<Waker>,
}

impl Handler {
    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl ConnectionHandler for Handler {
    type FromBehaviour = In;
    type ToBehaviour = Stream;
    type InboundProtocol = ReadyUpgrade<StreamProtocol>;
    type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = Opened;

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol> {
        SubstreamProtocol::new(ReadyUpgrade::new(CALLS), ())
    }

    fn connection_keep_alive(&self) -> bool {
        self.keep
    }

    fn on_behaviour_event(&mut self, event: In) {
        match event {
            In::Open(opened) => self.wanted.push_back(opened),
            In::Keep(keep) => self.keep = keep,
        }
        self.wake();
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, Opened, Stream>> {
        if let Some(stream) = self.come.take() {
            return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(stream));
        }
        if let Some(opened) = self.wanted.pop_front() {
            let protocol = SubstreamProtocol::new(ReadyUpgrade::new(CALLS), opened);
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
        }
        self.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<'_, Self::InboundProtocol, Self::OutboundProtocol, (), Opened>,
    ) {
        match event {
            // One at a time is enough for calls; further ones are closed by dropping them.
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol, .. })
                if self.come.is_none() =>
            {
                self.come = Some(protocol);
                self.wake();
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { protocol, info }) => {
                // The receiver may be gone.
                let _ = info.send(protocol);
            }
            // If opening a stream fails, the receiver sees that the sender was dropped.
            _ => {}
        }
    }
}
