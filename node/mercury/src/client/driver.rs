//! The task that owns a device's connections.
//!
//! Here: the swarm, its commands ([`Command`]) and its notices ([`Notice`]). Not here: the content of messages, and
//! verification ([`super::device`] and its siblings). Path: command → swarm → its event → the caller, through the
//! command's own channel. Notices go through one bounded channel and are dropped if it is full: everything
//! important is also kept at the home.

use std::collections::HashMap;
use std::time::Duration;

use libp2p::core::transport::ListenerId;
use libp2p::futures::StreamExt;
use libp2p::kad::store::MemoryStore;
use libp2p::request_response::{self, Message, OutboundFailure, OutboundRequestId, ProtocolSupport};
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{ConnectionId, NetworkBehaviour, SwarmEvent};
use libp2p::{
    Multiaddr, PeerId, Stream, Swarm, SwarmBuilder, autonat, dcutr, identify, identity, kad, noise, ping,
    relay, tcp,
};
use tokio::sync::{mpsc, oneshot};

use super::caution::Caution;
use super::error::ClientError;
use super::place::Home;
use super::streams::Streams;
use crate::net::layer::Layered;
use crate::net::{codec, directory, muxer};
use crate::wire::{Answer, Event, Request};

/// How long an unused connection stays open, unless it is to one's own home.
const IDLE: Duration = Duration::from_secs(60);
/// Maximum number of records of one search.
const MAX_RECORDS: usize = 32;
/// Number of hole punching attempts, as in libp2p.
const MAX_PUNCHES: u8 = 3;
/// Maximum number of notices queued for the device.
const MAX_NOTICES: usize = 256;
/// Slots of these reserved for notices that must not be lost.
const RESERVED: usize = 64;
/// Maximum number of commands queued for the driver.
const MAX_COMMANDS: usize = 64;

/// The channel for an answer.
pub(super) type Reply<T> = oneshot::Sender<Result<T, ClientError>>;

/// A command for the driver.
#[derive(Debug)]
pub(super) enum Command {
    /// Connect to a home; `named` is whether the person named it.
    Dial { peer: PeerId, addresses: Vec<Multiaddr>, named: bool, reply: Reply<()> },
    /// Open a circuit to a device, through its home.
    Circuit { peer: PeerId, home: Home, reply: Reply<()> },
    /// Let a device connect for some time.
    Expect { peer: PeerId, time: Duration },
    /// Wait for a direct connection to a device besides the circuit, until the outcome is known.
    Direct { peer: PeerId, reply: oneshot::Sender<()> },
    /// Open a stream for a call; returns whether the connection is direct.
    Open { peer: PeerId, reply: Reply<(Stream, bool)> },
    /// Send a request to a home.
    Ask { peer: PeerId, request: Box<Request>, reply: Reply<Answer> },
    /// Become reachable through a home.
    Reserve { address: Multiaddr, reply: Reply<()> },
    /// Search the directory of homes.
    Search { key: kad::RecordKey, reply: Reply<Vec<Vec<u8>>> },
    /// Keep the connection to a home open, or no longer.
    Keep { peer: PeerId, keep: bool },
    /// Close the connections to a peer after sending what was written; the sender is dropped when they are closed.
    Leave { peer: PeerId, gone: oneshot::Sender<()> },
}

/// A notice from the driver.
#[derive(Debug)]
pub(super) enum Notice {
    /// A home sent an event.
    Told(PeerId, Box<Event>),
    /// No connection to this peer is left.
    Lost(PeerId),
    /// A reservation has ended.
    Unreachable,
    /// A peer opened a stream for a call; `bool` is whether the connection is direct.
    Come(PeerId, Stream, bool),
}

#[derive(NetworkBehaviour)]
struct Behaviour {
    identify: identify::Behaviour,
    ping: ping::Behaviour,
    requests: codec::Requests,
    events: codec::Events,
    relay: relay::client::Behaviour,
    dcutr: Toggle<dcutr::Behaviour>,
    autonat: autonat::Behaviour,
    kad: kad::Behaviour<MemoryStore>,
    streams: Streams,
}

/// The device's network settings.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Address to listen on; none by default: the device then has no open port, and is reached through its home.
    pub listen: Option<Multiaddr>,
    /// Whether calls may use direct connections, in which the other side sees this device's address.
    pub direct: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self { listen: None, direct: true }
    }
}

/// A search in progress: the records so far, and the channel for them.
type Search = (Vec<Vec<u8>>, Reply<Vec<Vec<u8>>>);

/// A dial in progress, and its waiting callers.
struct Dial {
    peer: PeerId,
    addresses: Vec<Multiaddr>,
    waiting: Vec<Reply<()>>,
}

/// The task's state.
struct Driver {
    swarm: Swarm<Layered<Behaviour, Caution>>,
    notices: mpsc::Sender<Notice>,
    /// Connections, and whether each goes through a relay.
    connections: HashMap<PeerId, Vec<(ConnectionId, bool)>>,
    dials: HashMap<ConnectionId, Dial>,
    asked: HashMap<OutboundRequestId, Reply<Answer>>,
    reservations: HashMap<ListenerId, Option<Reply<()>>>,
    searches: HashMap<kad::QueryId, Search>,
    direct: HashMap<PeerId, Vec<oneshot::Sender<()>>>,
    leaving: HashMap<PeerId, Vec<oneshot::Sender<()>>>,
    /// Number of failed attempts at a direct connection to a peer.
    punches: HashMap<PeerId, u8>,
}

/// Starts the task. It ends when the last command sender is dropped. `own_home` is the address of one's own home,
/// if there is one.
///
/// # Errors
/// When it cannot listen on the address.
pub(super) fn start(
    key: identity::Keypair,
    settings: &Settings,
    own_home: &[Multiaddr],
) -> Result<(mpsc::Sender<Command>, mpsc::Receiver<Notice>), ClientError> {
    let mut caution = Caution::default();
    caution.named(own_home);
    let mut swarm = swarm(key, settings.direct, caution)?;
    if let Some(address) = &settings.listen {
        let listening = swarm.listen_on(address.clone());
        listening.map_err(|error| ClientError::Wrong(format!("cannot listen on {address}: {error}")))?;
    }
    let (commands, to_do) = mpsc::channel(MAX_COMMANDS);
    let (notices, told) = mpsc::channel(MAX_NOTICES);
    let driver = Driver {
        swarm,
        notices,
        connections: HashMap::new(),
        dials: HashMap::new(),
        asked: HashMap::new(),
        reservations: HashMap::new(),
        searches: HashMap::new(),
        direct: HashMap::new(),
        leaving: HashMap::new(),
        punches: HashMap::new(),
    };
    tokio::spawn(driver.run(to_do));
    Ok((commands, told))
}

fn swarm(
    key: identity::Keypair,
    direct: bool,
    caution: Caution,
) -> Result<Swarm<Layered<Behaviour, Caution>>, ClientError> {
    let failed = |error: &dyn std::fmt::Display| ClientError::Wrong(format!("no network: {error}"));
    let builder = SwarmBuilder::with_existing_identity(key)
        .with_tokio()
        .with_tcp(tcp::Config::default().nodelay(true), noise::Config::new, muxer::Config::of_device)
        .map_err(|error| failed(&error))?
        .with_relay_client(noise::Config::new, muxer::Config::of_device)
        .map_err(|error| failed(&error))?
        .with_behaviour(|key, relay| Layered::new(behaviour(key, relay, direct), caution))
        .map_err(|error| failed(&error))?;
    Ok(builder.with_swarm_config(|config| config.with_idle_connection_timeout(IDLE)).build())
}

fn behaviour(key: &identity::Keypair, relay: relay::client::Behaviour, direct: bool) -> Behaviour {
    let me = key.public().to_peer_id();
    // The device keeps its addresses private: homes see where it connects from, and no one is told the rest.
    let identify = identify::Config::new("/iop/mercury/id/1".to_owned(), key.public())
        .with_agent_version(concat!("iop-mercury/", env!("CARGO_PKG_VERSION")).to_owned())
        .with_hide_listen_addrs(true)
        .with_cache_size(0);
    Behaviour {
        identify: identify::Behaviour::new(identify),
        ping: ping::Behaviour::default(),
        requests: codec::requests(ProtocolSupport::Outbound),
        events: codec::events(ProtocolSupport::Inbound),
        relay,
        dcutr: Toggle::from(direct.then(|| dcutr::Behaviour::new(me))),
        autonat: autonat::Behaviour::new(me, autonat_config()),
        kad: directory::client(me),
        streams: Streams::default(),
    }
}

/// Asks homes whether the device is reachable from outside; never dials for others.
fn autonat_config() -> autonat::Config {
    autonat::Config { throttle_clients_global_max: 0, ..autonat::Config::default() }
}

impl Driver {
    async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        loop {
            tokio::select! {
                command = commands.recv() => match command {
                    Some(command) => self.command(command),
                    None => return,
                },
                event = self.swarm.select_next_some() => self.event(event),
            }
        }
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Dial { peer, mut addresses, named, reply } => {
                let caution = &mut self.swarm.behaviour_mut().layer;
                if named {
                    caution.named(&addresses);
                } else {
                    addresses.retain(|address| caution.allows(address));
                }
                self.dial(peer, addresses, reply);
            }
            Command::Circuit { peer, home, reply } => self.circuit(peer, &home, reply),
            Command::Expect { peer, time } => self.swarm.behaviour_mut().streams.expect(peer, time),
            Command::Direct { peer, reply } => {
                let hopeless = self.punches.get(&peer).is_some_and(|count| *count >= MAX_PUNCHES);
                if self.best(peer).is_some_and(|(_, relayed)| relayed) && !hopeless {
                    self.direct.entry(peer).or_default().push(reply);
                }
            }
            Command::Open { peer, reply } => self.open(peer, reply),
            Command::Ask { peer, request, reply } => {
                let id = self.swarm.behaviour_mut().requests.send_request(&peer, Ok(*request));
                self.asked.insert(id, reply);
            }
            Command::Reserve { address, reply } => match self.swarm.listen_on(address) {
                Ok(listener) => drop(self.reservations.insert(listener, Some(reply))),
                Err(error) => answer(reply, Err(ClientError::Unreachable(error.to_string()))),
            },
            Command::Search { key, reply } => {
                let query = self.swarm.behaviour_mut().kad.get_record(key);
                self.searches.insert(query, (Vec::new(), reply));
            }
            Command::Keep { peer, keep } => self.swarm.behaviour_mut().streams.keep(peer, keep),
            // An error only means that there is no connection: the caller then sees that the sender was dropped.
            Command::Leave { peer, gone } => {
                if self.swarm.disconnect_peer_id(peer).is_ok() {
                    self.leaving.entry(peer).or_default().push(gone);
                }
            }
        }
    }

    fn dial(&mut self, peer: PeerId, addresses: Vec<Multiaddr>, reply: Reply<()>) {
        let behaviour = self.swarm.behaviour_mut();
        behaviour.streams.home(peer);
        for address in &addresses {
            behaviour.kad.add_address(&peer, address.clone());
        }
        if self.connections.get(&peer).is_some_and(|all| all.iter().any(|(_, relayed)| !relayed)) {
            return answer(reply, Ok(()));
        }
        self.start_dial(peer, addresses, reply);
    }

    fn circuit(&mut self, peer: PeerId, home: &Home, reply: Reply<()>) {
        self.punches.remove(&peer);
        let caution = &self.swarm.behaviour().layer;
        match home.circuit(Some(peer), |address| caution.allows(address)) {
            Ok(address) => self.start_dial(peer, vec![address], reply),
            Err(error) => answer(reply, Err(error)),
        }
    }

    fn start_dial(&mut self, peer: PeerId, addresses: Vec<Multiaddr>, reply: Reply<()>) {
        // One dial serves all callers for the same peer, except those that know more addresses.
        let serves = |dial: &Dial| {
            dial.peer == peer && addresses.iter().all(|address| dial.addresses.contains(address))
        };
        let under_way = self.dials.values_mut().find(|dial| serves(dial));
        if let Some(dial) = under_way {
            return dial.waiting.push(reply);
        }
        let opts = DialOpts::peer_id(peer).condition(PeerCondition::Always).addresses(addresses.clone());
        let opts = opts.build();
        let id = opts.connection_id();
        match self.swarm.dial(opts) {
            Ok(()) => drop(self.dials.insert(id, Dial { peer, addresses, waiting: vec![reply] })),
            Err(error) => answer(reply, Err(ClientError::Unreachable(error.to_string()))),
        }
    }

    /// The preferred connection, direct if there is one, and whether it goes through a relay.
    fn best(&self, peer: PeerId) -> Option<(ConnectionId, bool)> {
        let all = self.connections.get(&peer)?;
        all.iter().find(|(_, relayed)| !relayed).or_else(|| all.first()).copied()
    }

    fn open(&mut self, peer: PeerId, reply: Reply<(Stream, bool)>) {
        let Some((connection, relayed)) = self.best(peer) else {
            let reason = "the connection to the other device is lost".to_owned();
            return answer(reply, Err(ClientError::Unreachable(reason)));
        };
        let (opened, stream) = oneshot::channel();
        self.swarm.behaviour_mut().streams.open(peer, connection, opened);
        tokio::spawn(async move {
            let refused =
                || ClientError::Unreachable("the other device takes no stream of a call".to_owned());
            answer(reply, stream.await.map(|stream| (stream, !relayed)).map_err(|_| refused()));
        });
    }

    fn event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, .. } => {
                let relayed = endpoint.is_relayed();
                self.connections.entry(peer_id).or_default().push((connection_id, relayed));
                if !relayed {
                    self.settle_direct(peer_id);
                }
                if let Some(dial) = self.dials.remove(&connection_id) {
                    dial.waiting.into_iter().for_each(|reply| answer(reply, Ok(())));
                }
            }
            SwarmEvent::ConnectionClosed { peer_id, connection_id, .. } => {
                self.closed(peer_id, connection_id)
            }
            SwarmEvent::OutgoingConnectionError { connection_id, peer_id, error } => {
                match (self.dials.remove(&connection_id), peer_id) {
                    (Some(Dial { waiting, .. }), _) => {
                        let reason = super::error::one_line(&error.to_string());
                        let failed = |reply| answer(reply, Err(ClientError::Unreachable(reason.clone())));
                        waiting.into_iter().for_each(failed);
                    }
                    (None, Some(peer)) => self.not_direct(peer),
                    (None, None) => {}
                }
            }
            SwarmEvent::NewListenAddr { listener_id, .. } => {
                if let Some(Some(reply)) = self.reservations.get_mut(&listener_id).map(Option::take) {
                    answer(reply, Ok(()));
                }
            }
            SwarmEvent::ListenerClosed { listener_id, reason, .. } => self.unlisten(listener_id, reason),
            SwarmEvent::Behaviour(event) => self.behaved(event),
            _ => {}
        }
    }

    fn closed(&mut self, peer: PeerId, connection: ConnectionId) {
        if let Some(all) = self.connections.get_mut(&peer) {
            all.retain(|(other, _)| *other != connection);
            if all.is_empty() {
                self.connections.remove(&peer);
                self.direct.remove(&peer);
                self.leaving.remove(&peer);
                self.punches.remove(&peer);
                self.tell(Notice::Lost(peer));
            }
        }
    }

    fn unlisten(&mut self, listener: ListenerId, reason: std::io::Result<()>) {
        match self.reservations.remove(&listener) {
            Some(Some(reply)) => {
                let reason =
                    reason.err().map_or("the home gives no reservation".to_owned(), |e| e.to_string());
                answer(reply, Err(ClientError::Unreachable(super::error::one_line(&reason))));
            }
            Some(None) => self.tell(Notice::Unreachable),
            None => {}
        }
    }

    fn behaved(&mut self, event: BehaviourEvent) {
        match event {
            BehaviourEvent::Requests(request_response::Event::Message {
                message: Message::Response { request_id, response },
                ..
            }) => {
                if let Some(reply) = self.asked.remove(&request_id) {
                    answer(reply, Ok(response));
                }
            }
            BehaviourEvent::Requests(request_response::Event::OutboundFailure {
                request_id, error, ..
            }) => {
                if let Some(reply) = self.asked.remove(&request_id) {
                    answer(reply, Err(failure(&error)));
                }
            }
            BehaviourEvent::Events(request_response::Event::Message {
                peer,
                message: Message::Request { request, channel, .. },
                ..
            }) => {
                // It fails only if the home has disconnected in the meantime.
                let _ = self.swarm.behaviour_mut().events.send_response(channel, codec::Arrived);
                self.tell(Notice::Told(peer, Box::new(request)));
            }
            BehaviourEvent::Dcutr(dcutr::Event { remote_peer_id, result: Err(error) }) => {
                tracing::debug!("no direct connection to {remote_peer_id}: {error}");
                self.punches.insert(remote_peer_id, MAX_PUNCHES);
                self.settle_direct(remote_peer_id);
            }
            BehaviourEvent::Kad(kad::Event::OutboundQueryProgressed { id, result, step, .. }) => {
                self.searched(id, result, step.last);
            }
            BehaviourEvent::Streams((peer, connection, stream)) => {
                let here = self.connections.get(&peer).into_iter().flatten();
                let direct = here.filter(|(id, _)| *id == connection).any(|(_, relayed)| !relayed);
                self.tell(Notice::Come(peer, stream, direct));
            }
            _ => {}
        }
    }

    fn searched(&mut self, id: kad::QueryId, result: kad::QueryResult, last: bool) {
        let Some((records, _)) = self.searches.get_mut(&id) else { return };
        if let kad::QueryResult::GetRecord(Ok(kad::GetRecordOk::FoundRecord(found))) = result
            && records.len() < MAX_RECORDS
        {
            records.push(found.record.value);
        }
        if last && let Some((records, reply)) = self.searches.remove(&id) {
            answer(reply, Ok(records));
        }
    }

    /// Hole punching failed to make a direct connection. Only the other side is told when it gives up.
    fn not_direct(&mut self, peer: PeerId) {
        if !self.connections.contains_key(&peer) {
            return;
        }
        let count = self.punches.entry(peer).or_default();
        *count = count.saturating_add(1);
        if *count >= MAX_PUNCHES {
            self.settle_direct(peer);
        }
    }

    /// Releases those that wait for a direct connection.
    fn settle_direct(&mut self, peer: PeerId) {
        for reply in self.direct.remove(&peer).into_iter().flatten() {
            let _ = reply.send(());
        }
    }

    fn tell(&mut self, notice: Notice) {
        let from_outside = matches!(notice, Notice::Told(..) | Notice::Come(..));
        if (from_outside && self.notices.capacity() <= RESERVED) || self.notices.try_send(notice).is_err() {
            tracing::debug!("a home or a peer tells more than is taken: dropped");
        }
    }
}

/// Sends the result; the caller may be gone.
fn answer<T>(reply: Reply<T>, result: Result<T, ClientError>) {
    let _ = reply.send(result);
}

fn failure(error: &OutboundFailure) -> ClientError {
    match error {
        OutboundFailure::Timeout => ClientError::TimedOut("the home says nothing"),
        OutboundFailure::Io(error) if error.kind() == std::io::ErrorKind::InvalidData => {
            ClientError::Lie(format!("its answer cannot be read: {error}"))
        }
        other => ClientError::Unreachable(super::error::one_line(&other.to_string())),
    }
}
