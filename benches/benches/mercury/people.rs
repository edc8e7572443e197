//! Devices for the benches of the Mercury relay: they register, log in, relate, call, and send bytes through a circuit.
#![allow(clippy::unwrap_used, dead_code, missing_docs, unreachable_pub)]

use std::collections::HashMap;
use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use iop_mercury::body::{
    CallAnswer, CallOffer, HomeAddress, Login, Registration, RelationAcceptance, RelationRequest, Taken,
};
use iop_mercury::envelope::{Body, Envelope, Expected, Order, Verified};
use iop_mercury::id::{Id, Key};
use iop_mercury::net::codec::{self, Arrived};
use iop_mercury::wire::{Answer, Event, Request};
use libp2p::futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, StreamExt};
use libp2p::multiaddr::Protocol;
use libp2p::request_response::{self, Message, OutboundRequestId, ProtocolSupport};
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{NetworkBehaviour, SwarmEvent};
use libp2p::{Multiaddr, PeerId, StreamProtocol, Swarm, identify, identity, noise, ping, relay, tcp, yamux};

/// Bytes in a request and none in the answer, to be sent through a circuit.
#[derive(Clone, Default)]
pub struct Pour;

impl request_response::Codec for Pour {
    type Protocol = StreamProtocol;
    type Request = usize;
    type Response = ();

    async fn read_request<T: AsyncRead + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
    ) -> io::Result<usize> {
        let (mut buffer, mut all) = (vec![0; 256 * 1024], 0);
        loop {
            match io.read(&mut buffer).await? {
                0 => return Ok(all),
                read => all += read,
            }
        }
    }

    async fn read_response<T: AsyncRead + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
    ) -> io::Result<()> {
        io.read_to_end(&mut Vec::new()).await.map(drop)
    }

    async fn write_request<T: AsyncWrite + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        bytes: usize,
    ) -> io::Result<()> {
        let block = vec![7; 256 * 1024];
        for _ in 0..bytes / block.len() {
            io.write_all(&block).await?;
        }
        Ok(())
    }

    async fn write_response<T: AsyncWrite + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        _: &mut T,
        (): (),
    ) -> io::Result<()> {
        Ok(())
    }
}

#[derive(NetworkBehaviour)]
pub struct Protocols {
    requests: codec::Requests,
    events: codec::Events,
    pour: request_response::Behaviour<Pour>,
    identify: identify::Behaviour,
    ping: ping::Behaviour,
    relay: relay::client::Behaviour,
}

pub struct Device {
    pub swarm: Swarm<Protocols>,
    pub key: Key,
    network: String,
    home: PeerId,
    offers: Vec<Envelope>,
    answers: HashMap<OutboundRequestId, Option<Answer>>,
    poured: HashMap<OutboundRequestId, bool>,
    made: u8,
}

fn wall() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

impl Device {
    pub async fn connect(address: &Multiaddr, network: &str) -> Self {
        let mut swarm = libp2p::SwarmBuilder::with_existing_identity(identity::Keypair::generate_ed25519())
            .with_tokio()
            .with_tcp(tcp::Config::new().nodelay(true), noise::Config::new, yamux::Config::default)
            .unwrap()
            .with_relay_client(noise::Config::new, yamux::Config::default)
            .unwrap()
            .with_behaviour(|key, relay| Protocols {
                requests: codec::requests(ProtocolSupport::Outbound),
                events: codec::events(ProtocolSupport::Inbound),
                pour: request_response::Behaviour::new(
                    [(StreamProtocol::new("/pour/1"), ProtocolSupport::Full)],
                    request_response::Config::default().with_request_timeout(Duration::from_secs(120)),
                ),
                identify: identify::Behaviour::new(identify::Config::new("bench".into(), key.public())),
                ping: ping::Behaviour::new(ping::Config::new().with_interval(Duration::from_secs(60))),
                relay,
            })
            .unwrap()
            .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_secs(3600)))
            .build();
        swarm.dial(address.clone()).unwrap();
        let home = loop {
            match swarm.select_next_some().await {
                SwarmEvent::ConnectionEstablished { peer_id, .. } => break peer_id,
                SwarmEvent::OutgoingConnectionError { error, .. } => panic!("{error}"),
                _ => {}
            }
        };
        Self {
            swarm,
            key: Key::generate().unwrap(),
            network: network.to_owned(),
            home,
            offers: Vec::new(),
            answers: HashMap::new(),
            poured: HashMap::new(),
            made: 0,
        }
    }

    /// Drives the swarm for ever.
    pub async fn idle(mut self) {
        loop {
            self.step().await;
        }
    }

    async fn step(&mut self) -> Option<SwarmEvent<ProtocolsEvent>> {
        match self.swarm.select_next_some().await {
            SwarmEvent::Behaviour(ProtocolsEvent::Events(request_response::Event::Message {
                message: Message::Request { request, channel, .. },
                ..
            })) => {
                if let Event::Call(offer) = request {
                    self.offers.push(offer);
                }
                let _ = self.swarm.behaviour_mut().events.send_response(channel, Arrived);
            }
            SwarmEvent::Behaviour(ProtocolsEvent::Requests(request_response::Event::Message {
                message: Message::Response { request_id, response },
                ..
            })) => {
                self.answers.insert(request_id, Some(response));
            }
            SwarmEvent::Behaviour(ProtocolsEvent::Requests(request_response::Event::OutboundFailure {
                request_id,
                ..
            })) => {
                self.answers.insert(request_id, None);
            }
            SwarmEvent::Behaviour(ProtocolsEvent::Pour(request_response::Event::Message {
                message: Message::Request { channel, .. },
                ..
            })) => {
                let _ = self.swarm.behaviour_mut().pour.send_response(channel, ());
            }
            SwarmEvent::Behaviour(ProtocolsEvent::Pour(request_response::Event::Message {
                message: Message::Response { request_id, .. },
                ..
            })) => {
                self.poured.insert(request_id, true);
            }
            SwarmEvent::Behaviour(ProtocolsEvent::Pour(request_response::Event::OutboundFailure {
                request_id,
                error,
                ..
            })) => {
                eprintln!("not poured: {error}");
                self.poured.insert(request_id, false);
            }
            other => return Some(other),
        }
        None
    }

    async fn answer(&mut self, id: OutboundRequestId) -> Answer {
        while !self.answers.contains_key(&id) {
            self.step().await;
        }
        self.answers.remove(&id).flatten().expect("an answer")
    }

    pub async fn ask(&mut self, request: Request) -> Answer {
        let id = self.swarm.behaviour_mut().requests.send_request(&self.home, Ok(request));
        self.answer(id).await
    }

    fn sign<B: Body>(&self, about: Id, order: Order, body: &B) -> Envelope {
        let now = wall();
        Envelope::sign(&self.key, &self.network, about, order, (now, now + B::LIFE), body)
    }

    async fn challenge(&mut self) -> Order {
        match self.ask(Request::Challenge).await {
            Answer::Challenge(challenge) => Order::Nonce(*challenge),
            other => panic!("{other:?}"),
        }
    }

    pub async fn register(&mut self) {
        let order = self.challenge().await;
        let registration = self.sign(self.home_id(), order, &Registration { invitation: None });
        let answer = self.ask(Request::Register(registration)).await;
        assert!(matches!(answer, Answer::Hosting(..)), "{answer:?}");
    }

    pub async fn log_in(&mut self, applications: &[&str]) {
        let order = self.challenge().await;
        let device = self.swarm.local_peer_id().to_bytes().into();
        let login = self.sign(self.home_id(), order, &Login { device });
        let applications = applications.iter().map(|name| (*name).to_owned()).collect();
        let answer = self.ask(Request::LogIn(login, applications)).await;
        assert!(matches!(answer, Answer::Session(_)), "{answer:?}");
    }

    fn home_id(&self) -> Id {
        Id::of_peer(&self.home).unwrap()
    }

    fn verified<B: Body>(&self, envelope: &Envelope) -> Verified<B> {
        let expected = Expected { network: &self.network, about: None, signer: None, now: wall() };
        envelope.verify(&expected).unwrap()
    }
}

/// Two people who are hosted, logged in and related; the second one has a reservation at the relay.
pub async fn pair(address: &Multiaddr, network: &str) -> (Device, Device) {
    let mut first = Device::connect(address, network).await;
    let mut second = Device::connect(address, network).await;
    first.register().await;
    first.log_in(&[]).await;
    second.register().await;
    second.log_in(&["pour"]).await;
    let home = HomeAddress { home: first.home_id(), addresses: vec![address.to_string()] };
    let order = Order::Nonce([7; 32]);
    let body = RelationRequest { label: "friend".into(), note: String::new(), home };
    let request = first.sign(second.key.id(), order, &body);
    let body = RelationAcceptance { request: first.verified::<RelationRequest>(&request).hash().into() };
    let acceptance = second.sign(first.key.id(), order, &body);
    assert_eq!(first.ask(Request::Related(request, acceptance)).await, Answer::Done);
    second.swarm.listen_on(address.clone().with(Protocol::P2pCircuit)).unwrap();
    loop {
        if let Some(SwarmEvent::Behaviour(ProtocolsEvent::Relay(_))) = second.step().await {
            return (first, second);
        }
    }
}

/// Calls, opens a circuit, sends this many bytes through it and closes it. Returns how long the bytes took.
pub async fn pour(caller: &mut Device, callee: &mut Device, address: &Multiaddr, bytes: usize) -> Duration {
    let (to, body) = {
        let device = caller.swarm.local_peer_id().to_bytes().into();
        (*callee.swarm.local_peer_id(), CallOffer { application: "pour".into(), device })
    };
    caller.made += 1;
    let offer = caller.sign(callee.key.id(), Order::Nonce([caller.made; 32]), &body);
    let home = caller.home;
    let call = caller.swarm.behaviour_mut().requests.send_request(&home, Ok(Request::Call(offer)));
    let offer = loop {
        if let Some(offer) = callee.offers.pop() {
            break offer;
        }
        tokio::select! { _ = caller.step() => {}, _ = callee.step() => {} }
    };
    let verified = callee.verified::<CallOffer>(&offer);
    let taken = Some(Taken { device: to.to_bytes().into(), token: [9; 32].into() });
    let body = CallAnswer { offer: verified.hash().into(), taken };
    let answer = callee.sign(verified.signer(), verified.order(), &body);
    assert_eq!(callee.ask(Request::Answer(answer)).await, Answer::Done);
    assert!(matches!(caller.answer(call).await, Answer::Answered(_)));
    let circuit = address.clone().with(Protocol::P2pCircuit).with(Protocol::P2p(to));
    let options = DialOpts::peer_id(to).addresses(vec![circuit]).condition(PeerCondition::Always);
    caller.swarm.dial(options.build()).unwrap();
    loop {
        tokio::select! {
            event = caller.step() => match event {
                Some(SwarmEvent::ConnectionEstablished { peer_id, .. }) if peer_id == to => break,
                Some(SwarmEvent::OutgoingConnectionError { error, .. }) => panic!("{error}"),
                _ => {}
            },
            _ = callee.step() => {}
        }
    }
    let since = std::time::Instant::now();
    let id = caller.swarm.behaviour_mut().pour.send_request(&to, bytes);
    while !caller.poured.contains_key(&id) {
        tokio::select! { _ = caller.step() => {}, _ = callee.step() => {} }
    }
    let took = since.elapsed();
    assert!(caller.poured[&id], "all has arrived");
    let _ = caller.swarm.disconnect_peer_id(to);
    while caller.swarm.is_connected(&to) {
        tokio::select! { _ = caller.step() => {}, _ = callee.step() => {} }
    }
    took
}
