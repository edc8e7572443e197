//! The main loop of a home on the network.
//!
//! Here: the loop, which passes requests to the home and its outputs to the network; one task runs it and owns the
//! home. Not here: the home's decisions, counts of devices (`devices`), admission of connections (`gate`). Path:
//! request → quotas → [`Home::handle`] → outputs in order, each once its batch is on disk → answer or event.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use libp2p::futures::StreamExt;
use libp2p::request_response::{self, InboundRequestId, Message, OutboundFailure, ResponseChannel};
use libp2p::swarm::{ConnectionId, SwarmEvent};
use libp2p::{Multiaddr, PeerId, Swarm, identify, kad, ping, relay};
use tokio::sync::watch;

use super::codec::{Arrived, Asked};
use super::devices::{Devices, Disconnect, answer_weight};
use super::dials::{Guard, may_dial, without_peer};
use super::directory::{DIRECTORY, Directory};
use super::figures::{Figures, Handle, add, set};
use super::given::check_free;
use super::muxer::Carriers;
use super::quotas::{Meter, Quotas};
use super::setup::{HostError, Setup};
use super::slim::Slim;
use super::swarm::{Protocols, ProtocolsEvent, build};
use super::table::Table;
use crate::home::{Home, Now, Output, Permits, RequestId, What};
use crate::limits::{MAX_ADDRESSES, PRESENCES_OF_SESSION};
use crate::store::Durable;
use crate::wire::{Answer, Code, Event, Request};

/// Minimum interval between two log lines about failed accepts.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(60);

/// A home on the network.
pub struct Host {
    home: Home,
    swarm: Swarm<Guard<Slim<Protocols>>>,
    permits: Permits,
    durable: Durable,
    quotas: Quotas,
    devices: Devices,
    directory: Directory,
    table: Table,
    next_complaint: Instant,
    /// Devices with a reservation at the relay, and whether it has to end.
    reserved: HashMap<PeerId, bool>,
    requests: Meter,
    /// The rate of requests that read all of a persona's relations.
    sessions: Meter,
    /// Observed addresses of peers that have not sent identify yet.
    seen: HashMap<ConnectionId, Multiaddr>,
    carriers: Carriers,
    next: u64,
    /// Requests that the home has not answered yet.
    asked: HashMap<RequestId, (InboundRequestId, ResponseChannel<Answer>)>,
    /// The home's outputs that wait for a batch, in order: an answer to something asked after a message came must
    /// not leave before that message is on disk.
    outputs: VecDeque<Output>,
    told: Vec<Multiaddr>,
    external: bool,
    figures: Arc<Figures>,
    addresses: watch::Sender<Vec<Multiaddr>>,
}

impl Host {
    /// Makes a home that listens; it accepts connections once it runs. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// When it cannot listen on one of the addresses.
    pub fn new(listen: Vec<Multiaddr>, home: Home, setup: Setup) -> Result<Self, HostError> {
        let permits = home.permits();
        let carriers = Carriers::default();
        let lists = (&permits, &carriers);
        let peers = setup.homes();
        let hide = !setup.external.is_empty();
        let mut swarm = build(&home.peer_key(), lists, &setup.quotas, hide, &peers)?;
        for address in &listen {
            check_free(address).map_err(|error| HostError::listen(address.clone(), &error))?;
        }
        for address in listen {
            swarm.listen_on(address.clone()).map_err(|error| HostError::listen(address, &error))?;
        }
        let (addresses, _) = watch::channel(Vec::new());
        let mut host = Self {
            permits,
            durable: home.durable(),
            devices: Devices::new(),
            directory: Directory::new(
                home.network().to_owned(),
                home.peer_key().public().to_peer_id(),
                setup.quotas.records,
                Instant::now(),
            ),
            table: Table::new(peers, Instant::now()),
            next_complaint: Instant::now(),
            reserved: HashMap::new(),
            requests: Meter::new(setup.quotas.requests),
            sessions: Meter::new(setup.quotas.sessions),
            quotas: setup.quotas,
            seen: HashMap::new(),
            carriers,
            next: 0,
            asked: HashMap::new(),
            outputs: VecDeque::new(),
            told: Vec::new(),
            external: !setup.external.is_empty(),
            figures: Arc::default(),
            addresses,
            swarm,
            home,
        };
        for address in setup.external {
            host.tell_others(address);
        }
        Ok(host)
    }

    /// A handle to the home.
    #[must_use]
    pub fn handle(&self) -> Handle {
        Handle { figures: Arc::clone(&self.figures), addresses: self.addresses.subscribe() }
    }

    /// Runs until `stop` is ready.
    ///
    /// # Errors
    /// When the store can no longer be synced.
    pub async fn run(mut self, stop: impl Future<Output = ()>) -> Result<(), HostError> {
        let mut stop = std::pin::pin!(stop);
        let mut seconds = tokio::time::interval(Duration::from_secs(1));
        seconds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut durable = self.durable.clone();
        loop {
            self.let_out();
            let waits = self.outputs.front().and_then(|output| output.after);
            tokio::select! {
                event = self.swarm.select_next_some() => self.on_event(event),
                safe = async { match waits {
                    Some(ticket) => durable.wait(ticket).await,
                    None => std::future::pending().await,
                } } => safe?,
                _ = seconds.tick() => self.tick(),
                () = &mut stop => return Ok(()),
            }
        }
    }

    fn tick(&mut self) {
        let now = now();
        self.home.tick(now);
        self.collect();
        self.end_reservations();
        let protocols = self.swarm.behaviour_mut();
        protocols.gate.tick(now.instant);
        set(&self.figures.connections_refused, protocols.gate.refused());
        let ended = [
            protocols.directory.ended(),
            protocols.identify.ended(),
            protocols.relay.ended(),
            protocols.autonat.ended(),
        ];
        set(&self.figures.connections_ended, ended.iter().sum());
        let kad = &mut self.swarm.behaviour_mut().directory;
        self.directory.tick(kad, &mut self.home, (now.wall, now.instant));
        self.table.tick(kad, now.instant);
        let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        set(&self.figures.records, count(self.directory.foreign()));
        set(&self.figures.connections, count(self.devices.len()));
        set(&self.figures.requests_under_way, count(self.devices.requests()));
        set(&self.figures.sessions, count(self.home.sessions()));
        set(&self.figures.hosted, count(self.home.hosted()));
    }

    /// Ends the reservations of devices whose session ended. A reservation ends only with its connection. The
    /// device has a second to learn why.
    fn end_reservations(&mut self) {
        let mut ended = Vec::new();
        for (peer, ending) in &mut self.reserved {
            let over = !self.permits.may_reserve(*peer);
            if over && *ending {
                ended.push(*peer);
            }
            *ending = over;
        }
        for peer in ended {
            // An error means that it has no connection.
            let _ = self.swarm.disconnect_peer_id(peer);
        }
    }

    fn on_event(&mut self, event: SwarmEvent<ProtocolsEvent>) {
        match event {
            SwarmEvent::Behaviour(ProtocolsEvent::Requests(event)) => self.on_request_event(event),
            SwarmEvent::Behaviour(ProtocolsEvent::Events(event)) => self.on_event_event(event),
            SwarmEvent::Behaviour(ProtocolsEvent::Directory(event)) => self.on_directory_event(event),
            SwarmEvent::Behaviour(ProtocolsEvent::Identify(identify::Event::Received {
                connection_id,
                peer_id,
                info,
            })) => self.on_identified(peer_id, connection_id, info),
            SwarmEvent::Behaviour(ProtocolsEvent::Relay(event)) => self.on_relay_event(&event),
            // libp2p does not report the first failure, so this is the second in a row.
            SwarmEvent::Behaviour(ProtocolsEvent::Ping(ping::Event {
                connection,
                result: Err(ping::Failure::Timeout | ping::Failure::Other { .. }),
                ..
            })) => {
                self.swarm.close_connection(connection);
            }
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, .. } => {
                let address = self.quotas.address(endpoint.get_remote_address());
                self.devices.connected(peer_id, connection_id, address);
                self.seen.insert(connection_id, endpoint.get_remote_address().clone());
                if self.home.has_session(peer_id) {
                    self.swarm.behaviour_mut().gate.keep(peer_id, true);
                }
            }
            SwarmEvent::ConnectionClosed { peer_id, connection_id, .. } => {
                self.on_closed(peer_id, connection_id)
            }
            SwarmEvent::NewListenAddr { address, .. } => self.on_listening(address),
            SwarmEvent::ListenerError { error, .. } => self.complain(&error),
            SwarmEvent::ListenerClosed { addresses, reason, .. } => {
                tracing::error!("Mercury listens no more at {addresses:?}: {reason:?}");
            }
            _ => {}
        }
    }

    /// Without free file descriptors there are ten such errors a second until a connection closes.
    fn complain(&mut self, error: &std::io::Error) {
        let now = Instant::now();
        if self.next_complaint <= now {
            self.next_complaint = now + COMPLAINT_INTERVAL;
            tracing::warn!("Mercury cannot take a connection: {error}");
        }
    }

    fn on_closed(&mut self, peer: PeerId, connection: ConnectionId) {
        self.seen.remove(&connection);
        if self.devices.disconnected(peer, connection) {
            self.reserved.remove(&peer);
            self.home.gone(peer);
            self.collect();
        }
        self.count_circuits();
    }

    /// Another home told its addresses.
    fn on_identified(&mut self, peer: PeerId, connection: ConnectionId, info: identify::Info) {
        let Some(seen) = self.seen.remove(&connection) else { return };
        if info.protocols.contains(&DIRECTORY) {
            let kad = &mut self.swarm.behaviour_mut().directory;
            let told = info.listen_addrs.into_iter().filter(|address| may_dial(address, &seen));
            self.table.told(kad, peer, told);
        }
    }

    fn on_directory_event(&mut self, event: kad::Event) {
        let kad = &mut self.swarm.behaviour_mut().directory;
        match event {
            kad::Event::InboundRequest {
                request: kad::InboundRequest::PutRecord { source, connection, record: Some(record) },
            } => {
                let now = now();
                let source = (source, self.devices.address(source, connection));
                self.directory.put(kad.store_mut(), source, record, (now.wall, now.instant));
            }
            kad::Event::RoutingUpdated { peer, addresses, .. } => self.table.grown(kad, peer, &addresses),
            _ => {}
        }
    }

    fn on_listening(&mut self, address: Multiaddr) {
        let address = address.with_p2p(*self.swarm.local_peer_id()).unwrap_or_else(|address| address);
        tracing::info!("Mercury listens at {address}");
        self.addresses.send_modify(|addresses| addresses.push(address.clone()));
        if !self.external {
            self.tell_others(address);
        }
    }

    /// Announces an address of the home.
    fn tell_others(&mut self, address: Multiaddr) {
        let address = address.with_p2p(*self.swarm.local_peer_id()).unwrap_or_else(|address| address);
        if self.told.len() < MAX_ADDRESSES && !self.told.contains(&address) {
            self.told.push(address.clone());
            self.home.set_addresses(self.told.iter().map(ToString::to_string).collect());
        }
        // Without one, the relay would not offer itself.
        self.swarm.add_external_address(without_peer(&address));
    }

    fn on_request_event(&mut self, event: request_response::Event<Asked, Answer>) {
        match event {
            request_response::Event::Message {
                peer,
                connection_id,
                message: Message::Request { request_id, request, channel },
            } => self.on_request(peer, connection_id, (request_id, channel), request),
            request_response::Event::ResponseSent { request_id, .. }
            | request_response::Event::InboundFailure { request_id, .. } => self.devices.answered(request_id),
            // A home sends no requests.
            request_response::Event::Message { message: Message::Response { .. }, .. }
            | request_response::Event::OutboundFailure { .. } => {}
        }
    }

    fn on_request(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        (id, channel): (InboundRequestId, ResponseChannel<Answer>),
        request: Asked,
    ) {
        add(&self.figures.requests);
        let now = now();
        let address = self.devices.address(peer, connection);
        let room = self.devices.request(id, peer);
        let Some(device) = self.devices.get_mut(peer) else { return };
        let rate_kept = self.requests.take(peer, address, now.instant)
            && self.sessions.take_many(peer, address, request.as_ref().map_or(0, sessions_of), now.instant);
        if rate_kept {
            device.rate_kept();
        } else if device.rate_exceeded() == Err(Disconnect) {
            self.disconnect(peer);
            return;
        }
        let refusal = match request {
            Ok(request) if rate_kept && room => {
                let ours = RequestId(self.next);
                self.next += 1;
                self.asked.insert(ours, (id, channel));
                self.home.handle(ours, peer, request, now);
                self.collect();
                self.keep(peer);
                return;
            }
            Err(error) if rate_kept => Answer::refused(Code::Malformed, format!("no request: {error}")),
            _ => {
                add(&self.figures.requests_later);
                Answer::refused(Code::Later, "too many requests: later")
            }
        };
        self.answer(id, channel, refusal);
    }

    fn answer(&mut self, id: InboundRequestId, channel: ResponseChannel<Answer>, answer: Answer) {
        let bytes = answer_weight(&answer);
        // If the connection is closed, so is the channel.
        if self.swarm.behaviour_mut().requests.send_response(channel, answer).is_err() {
            self.devices.answered(id);
        } else if let Some(greediest) = self.devices.answer(id, bytes) {
            self.disconnect(greediest);
        }
    }

    fn on_event_event(&mut self, event: request_response::Event<Event, Arrived>) {
        match event {
            request_response::Event::Message { peer, message: Message::Response { .. }, .. } => {
                if let Some(device) = self.devices.get_mut(peer) {
                    device.event_arrived();
                }
                self.send_events(peer);
            }
            request_response::Event::OutboundFailure {
                peer,
                error: OutboundFailure::UnsupportedProtocols,
                ..
            } => {
                if let Some(device) = self.devices.get_mut(peer) {
                    device.no_events();
                }
            }
            // The device must not believe that it has received everything: it asks again when it reconnects.
            request_response::Event::OutboundFailure { peer, .. } => self.disconnect(peer),
            // A home receives no events.
            request_response::Event::Message { message: Message::Request { .. }, .. }
            | request_response::Event::InboundFailure { .. }
            | request_response::Event::ResponseSent { .. } => {}
        }
    }

    fn send_events(&mut self, peer: PeerId) {
        let Some(device) = self.devices.get_mut(peer) else { return };
        while let Some(event) = device.next_event() {
            add(&self.figures.events);
            self.swarm.behaviour_mut().events.send_request(&peer, event);
        }
    }

    fn on_relay_event(&mut self, event: &relay::Event) {
        match event {
            relay::Event::ReservationReqAccepted { src_peer_id, renewed } => {
                self.reserved.entry(*src_peer_id).or_default();
                if !renewed {
                    add(&self.figures.reservations);
                }
            }
            relay::Event::CircuitReqAccepted { src_peer_id, dst_peer_id } => {
                // The relay only asked whether the device may open some circuit, not which one.
                let permitted = self.permits.spend(*src_peer_id, *dst_peer_id, Instant::now());
                if !permitted {
                    add(&self.figures.circuits_refused);
                    self.disconnect(*src_peer_id);
                }
            }
            #[expect(deprecated, reason = "nothing else says so")]
            relay::Event::CircuitReqOutboundConnectFailed { src_peer_id, dst_peer_id, .. } => {
                // A device that tried a circuit without an accepted call can do so only once.
                self.permits.check(*src_peer_id, *dst_peer_id, Instant::now());
            }
            relay::Event::CircuitReqDenied { .. } => add(&self.figures.circuits_refused),
            _ => {}
        }
        self.count_circuits();
    }

    fn count_circuits(&self) {
        let open = self.swarm.behaviour().relay.open();
        self.carriers.set(open.iter());
        set(&self.figures.circuits, u64::try_from(open.len()).unwrap_or(u64::MAX));
    }

    /// Collects the home's outputs.
    fn collect(&mut self) {
        self.outputs.extend(self.home.outputs());
    }

    /// Sends the outputs whose batches are on disk.
    fn let_out(&mut self) {
        while let Some(output) = self.outputs.front() {
            if output.after.is_some_and(|ticket| !self.durable.is_safe(ticket)) {
                return;
            }
            match self.outputs.pop_front().map(|output| output.what) {
                Some(What::Answer(id, answer)) => {
                    if let Some((id, channel)) = self.asked.remove(&id) {
                        self.answer(id, channel, answer);
                    }
                }
                Some(What::Event(peer, event)) => self.event(peer, event),
                None => {}
            }
        }
    }

    fn event(&mut self, peer: PeerId, event: Event) {
        if event == Event::Ended {
            self.keep(peer);
        }
        let Some(device) = self.devices.get_mut(peer) else { return };
        if device.push(event) == Err(Disconnect) {
            self.disconnect(peer);
        } else {
            self.send_events(peer);
        }
    }

    /// Keeps a device's idle connections open exactly while it is logged in.
    fn keep(&mut self, peer: PeerId) {
        let keep = self.home.has_session(peer);
        if let Some(device) = self.devices.get_mut(peer)
            && device.kept != keep
        {
            device.kept = keep;
            self.swarm.behaviour_mut().gate.keep(peer, keep);
        }
    }

    fn disconnect(&mut self, peer: PeerId) {
        // An error means that it has no connection.
        if self.swarm.disconnect_peer_id(peer).is_ok() {
            add(&self.figures.disconnected);
            tracing::debug!("Mercury disconnects {peer}");
        }
    }
}

/// Session tokens that a request costs: those that begin, change or end a session read all relations.
fn sessions_of(request: &Request) -> u32 {
    match request {
        Request::LogIn(..) | Request::LogOut | Request::Announce(_) => 1,
        Request::Presence(personas) => {
            u32::try_from(personas.len().div_ceil(PRESENCES_OF_SESSION)).unwrap_or(u32::MAX)
        }
        _ => 0,
    }
}

fn now() -> Now {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    Now { wall, instant: Instant::now() }
}
