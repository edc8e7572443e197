//! Shared code of tests over real sockets: homes on loopback, and devices that talk to them.
#![allow(clippy::unwrap_used, dead_code, missing_docs, unreachable_pub)]

pub mod frames;
pub mod idle;
pub mod liar;
pub mod person;
pub mod proxy;
pub mod raw;
pub mod seeker;
pub mod stranger;
pub mod victim;

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use iop_mercury::body::{
    CallAnswer, CallOffer, HomeAddress, Login, Message as MessageBody, Registration, RelationAcceptance,
    RelationRequest, Taken,
};
use iop_mercury::envelope::{Body, Envelope, Expected, Order};
use iop_mercury::home::{Home, Settings};
use iop_mercury::id::{Id, Key};
use iop_mercury::net::codec::{self, Arrived};
use iop_mercury::net::{Handle, Host, HostError, Setup};
use iop_mercury::store::Store;
use iop_mercury::wire::{Answer, Event, Hosting, Request};
use libp2p::core::transport::ListenerId;
use libp2p::futures::StreamExt;
use libp2p::multiaddr::Protocol;
use libp2p::request_response::{self, Message, OutboundRequestId, ProtocolSupport};
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{NetworkBehaviour, SwarmEvent};
use libp2p::{Multiaddr, PeerId, Swarm, identify, identity, noise, ping, relay, tcp, yamux};
use tokio::sync::oneshot;

pub const NETWORK: &str = "test";
/// Generous: nothing takes this long, but a machine may be busy.
pub const LIMIT: Duration = Duration::from_secs(60);

/// A home that runs as a task, and stops when this is dropped.
pub struct Running {
    pub id: Id,
    pub address: Multiaddr,
    pub handle: Handle,
    pub folder: tempfile::TempDir,
    key: Key,
    task: tokio::task::JoinHandle<()>,
    stop: Option<oneshot::Sender<()>>,
}

/// A stopped home.
pub struct Stopped {
    folder: tempfile::TempDir,
    key: Key,
    listen: Multiaddr,
}

impl Stopped {
    /// Starts it again at the same address.
    pub async fn start(self) -> Running {
        Running::start_at(self.folder, self.key, self.listen, Setup::default()).await
    }
}

impl Running {
    pub async fn start(setup: Setup) -> Self {
        let (folder, key) = (tempfile::tempdir().unwrap(), Key::generate().unwrap());
        Self::start_at(folder, key, "/ip4/127.0.0.1/tcp/0".parse().unwrap(), setup).await
    }

    /// Another home at an address; the error says why there can be none.
    pub async fn beside(listen: Multiaddr) -> Result<Self, HostError> {
        let (folder, key) = (tempfile::tempdir().unwrap(), Key::generate().unwrap());
        Self::try_at(folder, key, listen, Setup::default()).await
    }

    async fn start_at(folder: tempfile::TempDir, key: Key, listen: Multiaddr, setup: Setup) -> Self {
        Self::try_at(folder, key, listen, setup).await.unwrap()
    }

    async fn try_at(
        folder: tempfile::TempDir,
        key: Key,
        listen: Multiaddr,
        setup: Setup,
    ) -> Result<Self, HostError> {
        let settings = Settings {
            network: NETWORK.to_owned(),
            hosting: Hosting::Open,
            max_hosted: 10_000,
            owner: None,
            addresses: Vec::new(),
            backups: folder.path().join("backups"),
        };
        let store = std::sync::Arc::new(Store::open(&folder.path().join("store")).unwrap());
        let secret = key.secret();
        let home = Home::new(store, key, settings).unwrap();
        let id = home.id();
        let host = Host::new(vec![listen], home, setup)?;
        let mut handle = host.handle();
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(async move {
            let stopped = async {
                let _ = stopped.await;
            };
            host.run(stopped).await.unwrap();
        });
        let address = handle.addresses().await[0].clone();
        Ok(Self { id, address, handle, folder, key: Key::from_secret(&secret), task, stop: Some(stop) })
    }

    /// Stops the home and starts it again on its data, at the same address.
    pub async fn restart(self) -> Self {
        self.stop().await.start().await
    }

    /// Stops the home; its data is kept.
    pub async fn stop(mut self) -> Stopped {
        self.stop.take();
        (&mut self.task).await.unwrap();
        let folder = std::mem::replace(&mut self.folder, tempfile::tempdir().unwrap());
        let key = Key::from_secret(&self.key.secret());
        let mut listen = self.address.clone();
        listen.pop();
        Stopped { folder, key, listen }
    }

    pub fn figure(&self, name: &str) -> u64 {
        self.handle.figures().iter().find(|figure| figure.name == name).unwrap().value
    }

    /// Waits until a figure has the wanted value.
    pub async fn until(&self, name: &str, wanted: impl Fn(u64) -> bool) {
        within(async {
            while !wanted(self.figure(name)) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.take();
    }
}

pub async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, future).await.expect("nothing here takes a minute")
}

#[derive(NetworkBehaviour)]
pub struct Protocols {
    pub requests: codec::Requests,
    pub events: codec::Events,
    identify: identify::Behaviour,
    ping: ping::Behaviour,
    relay: relay::client::Behaviour,
}

/// A device: a swarm that is driven by the methods that use it.
pub struct Device {
    pub swarm: Swarm<Protocols>,
    pub home: PeerId,
    pub events: Vec<Event>,
    pub key: Key,
    /// The listener of its reservation at the relay, if it has one.
    pub listener: Option<ListenerId>,
    answers: HashMap<OutboundRequestId, Option<Answer>>,
}

pub fn wall() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

impl Device {
    pub fn new() -> Self {
        let key = identity::Keypair::generate_ed25519();
        let swarm = libp2p::SwarmBuilder::with_existing_identity(key)
            .with_tokio()
            .with_tcp(tcp::Config::new(), noise::Config::new, yamux::Config::default)
            .unwrap()
            .with_relay_client(noise::Config::new, yamux::Config::default)
            .unwrap()
            .with_behaviour(|key, relay| Protocols {
                requests: codec::requests(ProtocolSupport::Outbound),
                events: codec::events(ProtocolSupport::Inbound),
                identify: identify::Behaviour::new(identify::Config::new("test".into(), key.public())),
                ping: ping::Behaviour::default(),
                relay,
            })
            .unwrap()
            .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_secs(3600)))
            .build();
        let (home, key) = (PeerId::random(), Key::generate().unwrap());
        Self { swarm, home, events: Vec::new(), key, listener: None, answers: HashMap::new() }
    }

    /// A device that is connected to a home.
    pub async fn at(home: &Running) -> Self {
        let mut device = Self::new();
        device.connect(home).await;
        device
    }

    pub async fn connect(&mut self, home: &Running) {
        self.connect_to(home, home.address.clone()).await;
    }

    /// Connects to a home at its own address or through a proxy.
    pub async fn connect_to(&mut self, home: &Running, address: Multiaddr) {
        self.home = home.handle.clone().addresses().await[0]
            .iter()
            .find_map(|part| match part {
                Protocol::P2p(peer) => Some(peer),
                _ => None,
            })
            .unwrap();
        self.swarm.dial(address).unwrap();
        self.until(|event| matches!(event, SwarmEvent::ConnectionEstablished { .. })).await;
    }

    /// Opens one more connection to the same home.
    pub async fn connect_again(&mut self, home: &Running) {
        self.dial_again(home);
        self.until(|event| matches!(event, SwarmEvent::ConnectionEstablished { .. })).await;
    }

    pub fn dial_again(&mut self, home: &Running) {
        let options = DialOpts::peer_id(self.home).addresses(vec![home.address.clone()]);
        self.swarm.dial(options.condition(PeerCondition::Always).build()).unwrap();
    }

    /// Drives the swarm until an event matches, and returns it. A failing connection is an error.
    pub async fn until(
        &mut self,
        wanted: impl Fn(&SwarmEvent<ProtocolsEvent>) -> bool,
    ) -> SwarmEvent<ProtocolsEvent> {
        let failed =
            |event: &SwarmEvent<ProtocolsEvent>| matches!(event, SwarmEvent::OutgoingConnectionError { .. });
        let event = self.until_any(|event| wanted(event) || failed(event)).await;
        assert!(wanted(&event), "no connection: {event:?}");
        event
    }

    /// Like [`Self::until`], but ignores all other events.
    pub async fn until_any(
        &mut self,
        wanted: impl Fn(&SwarmEvent<ProtocolsEvent>) -> bool,
    ) -> SwarmEvent<ProtocolsEvent> {
        within(async {
            loop {
                let event = self.swarm.select_next_some().await;
                if let Some(event) = self.take_event(event)
                    && wanted(&event)
                {
                    return event;
                }
            }
        })
        .await
    }

    /// Drives the swarm until the future is ready.
    pub async fn drive_until<T>(&mut self, future: impl Future<Output = T>) -> T {
        let mut future = std::pin::pin!(future);
        loop {
            tokio::select! {
                done = &mut future => return done,
                event = self.swarm.select_next_some() => {
                    self.take_event(event);
                }
            }
        }
    }

    /// Requests a reservation at the relay; returns whether it was granted.
    pub async fn reserve(&mut self, home: &Running) -> bool {
        let listener = self.swarm.listen_on(home.address.clone().with(Protocol::P2pCircuit)).unwrap();
        self.listener = Some(listener);
        let event = self
            .until_any(|event| match event {
                SwarmEvent::Behaviour(ProtocolsEvent::Relay(
                    relay::client::Event::ReservationReqAccepted { .. },
                )) => true,
                SwarmEvent::ListenerClosed { listener_id, .. } => *listener_id == listener,
                _ => false,
            })
            .await;
        matches!(event, SwarmEvent::Behaviour(_))
    }

    /// Dials another device through the relay; returns whether it is connected and stays so for a ping.
    pub async fn open_circuit(&mut self, home: &Running, to: PeerId, other: &mut Self) -> bool {
        self.circuit(home, to, other).await.is_some()
    }

    /// Like [`Self::open_circuit`], but returns the connection.
    pub async fn circuit(
        &mut self,
        home: &Running,
        to: PeerId,
        other: &mut Self,
    ) -> Option<libp2p::swarm::ConnectionId> {
        let address = home.address.clone().with(Protocol::P2pCircuit).with(Protocol::P2p(to));
        let options = DialOpts::peer_id(to).addresses(vec![address]).condition(PeerCondition::Always);
        self.swarm.dial(options.build()).unwrap();
        // Without its connection to the home it could not continue.
        let event = other
            .drive_until(self.until_any(|event| match event {
                SwarmEvent::OutgoingConnectionError { .. } => true,
                SwarmEvent::ConnectionClosed { peer_id, .. } => *peer_id == to,
                SwarmEvent::Behaviour(ProtocolsEvent::Ping(ping)) => ping.peer == to && ping.result.is_ok(),
                _ => false,
            }))
            .await;
        let open = match event {
            SwarmEvent::Behaviour(ProtocolsEvent::Ping(ping)) => Some(ping.connection),
            _ => None,
        };
        if open.is_none() && !self.swarm.is_connected(&self.home) {
            self.connect(home).await;
        }
        open
    }

    /// Calls a persona.
    pub fn call(&mut self, callee: Id, application: &str, number: u8) -> OutboundRequestId {
        let device = self.swarm.local_peer_id().to_bytes().into();
        let body = CallOffer { application: application.to_owned(), device };
        let offer = self.sign(callee, Order::Nonce([number; 32]), &body);
        self.send(Request::Call(offer))
    }

    /// A message of this many bytes that nobody can decrypt.
    pub fn message(&self, to: Id, number: u8, length: usize) -> Envelope {
        let body = MessageBody { encapsulated: [number; 32].into(), ciphertext: vec![number; length].into() };
        self.sign(to, Order::Nonce([number; 32]), &body)
    }

    /// Confirms and keeps a home's event, keeps an answer; returns anything else.
    fn take_event(&mut self, event: SwarmEvent<ProtocolsEvent>) -> Option<SwarmEvent<ProtocolsEvent>> {
        match event {
            SwarmEvent::Behaviour(ProtocolsEvent::Events(request_response::Event::Message {
                message: Message::Request { request, channel, .. },
                ..
            })) => {
                self.events.push(request);
                let _ = self.swarm.behaviour_mut().events.send_response(channel, Arrived);
                None
            }
            SwarmEvent::Behaviour(ProtocolsEvent::Requests(request_response::Event::Message {
                message: Message::Response { request_id, response },
                ..
            })) => {
                self.answers.insert(request_id, Some(response));
                None
            }
            SwarmEvent::Behaviour(ProtocolsEvent::Requests(request_response::Event::OutboundFailure {
                request_id,
                ..
            })) => {
                self.answers.insert(request_id, None);
                None
            }
            other => Some(other),
        }
    }

    pub fn send(&mut self, request: Request) -> OutboundRequestId {
        self.swarm.behaviour_mut().requests.send_request(&self.home, Ok(request))
    }

    /// The answer to a request; `None` if the connection ended first.
    pub async fn answer(&mut self, wanted: OutboundRequestId) -> Option<Answer> {
        within(async {
            while !self.answers.contains_key(&wanted) {
                let event = self.swarm.select_next_some().await;
                self.take_event(event);
            }
            self.answers.remove(&wanted).unwrap()
        })
        .await
    }

    pub async fn ask(&mut self, request: Request) -> Answer {
        let id = self.send(request);
        self.answer(id).await.expect("an answer")
    }

    pub async fn challenge(&mut self) -> Order {
        match self.ask(Request::Challenge).await {
            Answer::Challenge(challenge) => Order::Nonce(*challenge),
            other => panic!("{other:?}"),
        }
    }

    pub fn sign<B: Body>(&self, about: Id, order: Order, body: &B) -> Envelope {
        let now = wall();
        Envelope::sign(&self.key, NETWORK, about, order, (now, now + B::LIFE), body)
    }

    pub async fn register(&mut self, home: &Running) {
        let order = self.challenge().await;
        let registration = self.sign(home.id, order, &Registration { invitation: None });
        assert!(matches!(self.ask(Request::Register(registration)).await, Answer::Hosting(..)));
    }

    pub async fn log_in(&mut self, home: &Running, applications: &[&str]) {
        let order = self.challenge().await;
        let device = self.swarm.local_peer_id().to_bytes().into();
        let login = self.sign(home.id, order, &Login { device });
        let applications = applications.iter().map(|name| (*name).to_owned()).collect();
        assert!(matches!(self.ask(Request::LogIn(login, applications)).await, Answer::Session(_)));
    }

    /// A device of a persona that is hosted and logged in.
    pub async fn resident(home: &Running) -> Self {
        let mut device = Self::at(home).await;
        device.register(home).await;
        device.log_in(home, &[]).await;
        device
    }
}

pub fn verified<B: Body>(envelope: &Envelope) -> iop_mercury::envelope::Verified<B> {
    envelope.verify(&Expected { network: NETWORK, about: None, signer: None, now: wall() }).unwrap()
}

/// Two people who are hosted, logged in and related; the second one takes calls of these applications.
pub async fn related(home: &Running, applications: &[&str]) -> (Device, Device) {
    let mut first = Device::resident(home).await;
    let mut second = Device::at(home).await;
    second.register(home).await;
    second.log_in(home, applications).await;
    let order = Order::Nonce([200; 32]);
    let address = HomeAddress { home: home.id, addresses: vec![home.address.to_string()] };
    let body = RelationRequest { label: "friend".into(), note: String::new(), home: address };
    let request = first.sign(second.key.id(), order, &body);
    let body = RelationAcceptance { request: verified::<RelationRequest>(&request).hash().into() };
    let acceptance = second.sign(first.key.id(), order, &body);
    assert_eq!(first.ask(Request::Related(request, acceptance)).await, Answer::Done);
    (first, second)
}

/// A call that is accepted, and the connection of its circuit if that is permitted.
pub async fn circuit_of_call(
    home: &Running,
    caller: &mut Device,
    callee: &mut Device,
    number: u8,
) -> Option<libp2p::swarm::ConnectionId> {
    callee.events.clear();
    let call = caller.call(callee.key.id(), "chat", number);
    take_call(caller, callee, call).await;
    let to = *callee.swarm.local_peer_id();
    caller.circuit(home, to, callee).await
}

/// The callee accepts the ringing call; the caller gets the answer.
pub async fn take_call(caller: &mut Device, callee: &mut Device, call: OutboundRequestId) {
    let rings = |device: &Device| {
        device.events.iter().rev().find_map(|event| match event {
            Event::Call(offer) => Some(offer.clone()),
            _ => None,
        })
    };
    // The caller's request must be sent first.
    let offer = loop {
        if let Some(offer) = rings(callee) {
            break offer;
        }
        caller.drive_until(callee.ask(Request::About)).await;
    };
    let verified = verified::<CallOffer>(&offer);
    let device = callee.swarm.local_peer_id().to_bytes().into();
    let taken = Some(Taken { device, token: [9; 32].into() });
    let body = CallAnswer { offer: verified.hash().into(), taken };
    let answer = callee.sign(verified.signer(), verified.order(), &body);
    assert_eq!(callee.ask(Request::Answer(answer.clone())).await, Answer::Done);
    assert_eq!(callee.drive_until(caller.answer(call)).await, Some(Answer::Answered(answer)));
}
