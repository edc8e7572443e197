//! A lying home: a real one whose answers are changed before they are sent, and that sends arbitrary events.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use iop_mercury::home::{Home, Now, RequestId, Settings, What};
use iop_mercury::id::Key;
use iop_mercury::net::codec::{Arrived, Asked, Codec, Message, Unreadable};
use iop_mercury::store::Store;
use iop_mercury::wire::{Answer, EVENTS, Event, Hosting, REQUESTS, Request};
use libp2p::futures::StreamExt;
use libp2p::request_response::{self, ProtocolSupport, ResponseChannel};
use libp2p::swarm::{NetworkBehaviour, SwarmEvent};
use libp2p::{Multiaddr, PeerId, StreamProtocol, Swarm, noise, tcp, yamux};
use tokio::sync::mpsc;

use super::{NETWORK, wall};

/// An answer of arbitrary length and content.
#[derive(Debug)]
pub struct Raw(pub Vec<u8>);

impl Message for Raw {
    const MAX: usize = 8 << 20;

    fn to_bytes(&self) -> Vec<u8> {
        self.0.clone()
    }

    fn read(bytes: Result<&[u8], Unreadable>) -> std::io::Result<Self> {
        bytes.map(|bytes| Self(bytes.to_vec())).map_err(std::io::Error::other)
    }
}

impl From<Answer> for Raw {
    fn from(answer: Answer) -> Self {
        Self(answer.to_bytes())
    }
}

/// Changes an answer.
pub type Lie = Box<dyn FnMut(&Request, Answer) -> Raw + Send>;

#[derive(NetworkBehaviour)]
struct Protocols {
    requests: request_response::Behaviour<Codec<Asked, Raw>>,
    events: request_response::Behaviour<Codec<Event, Arrived>>,
}

/// The lying home; it stops when this is dropped.
pub struct Liar {
    pub address: Multiaddr,
    pub key: Key,
    lie: Arc<Mutex<Lie>>,
    tell: mpsc::UnboundedSender<(PeerId, Event)>,
}

impl Liar {
    pub async fn start() -> Self {
        let key = Key::generate().unwrap();
        let mut swarm = swarm(&key);
        swarm.listen_on("/ip4/127.0.0.1/tcp/0".parse().unwrap()).unwrap();
        let address = loop {
            if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
                break address.with(libp2p::multiaddr::Protocol::P2p(*swarm.local_peer_id()));
            }
        };
        let lie: Arc<Mutex<Lie>> = Arc::new(Mutex::new(Box::new(|_, answer| answer.into())));
        let (tell, told) = mpsc::unbounded_channel();
        let secret = key.secret();
        tokio::spawn(run(swarm, Key::from_secret(&secret), address.to_string(), Arc::clone(&lie), told));
        Self { address, key, lie, tell }
    }

    /// Changes answers in this way from now on.
    pub fn lie(&self, lie: impl FnMut(&Request, Answer) -> Raw + Send + 'static) {
        *self.lie.lock().unwrap() = Box::new(lie);
    }

    pub fn honest(&self) {
        self.lie(|_, answer| answer.into());
    }

    pub fn tell(&self, device: PeerId, event: Event) {
        self.tell.send((device, event)).unwrap();
    }
}

fn swarm(key: &Key) -> Swarm<Protocols> {
    let config = || request_response::Config::default().with_max_concurrent_streams(1000);
    let protocols = Protocols {
        requests: request_response::Behaviour::new(
            [(StreamProtocol::new(REQUESTS), ProtocolSupport::Inbound)],
            config(),
        ),
        events: request_response::Behaviour::new(
            [(StreamProtocol::new(EVENTS), ProtocolSupport::Outbound)],
            config(),
        ),
    };
    libp2p::SwarmBuilder::with_existing_identity(key.peer_key())
        .with_tokio()
        .with_tcp(tcp::Config::new(), noise::Config::new, yamux::Config::default)
        .unwrap()
        .with_behaviour(|_| protocols)
        .unwrap()
        .with_swarm_config(|config| config.with_idle_connection_timeout(std::time::Duration::from_secs(600)))
        .build()
}

async fn run(
    mut swarm: Swarm<Protocols>,
    key: Key,
    address: String,
    lie: Arc<Mutex<Lie>>,
    mut told: mpsc::UnboundedReceiver<(PeerId, Event)>,
) {
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings {
        network: NETWORK.to_owned(),
        hosting: Hosting::Open,
        max_hosted: 100,
        owner: None,
        addresses: vec![address],
        backups: folder.path().join("backups"),
    };
    let store = Arc::new(Store::open(&folder.path().join("store")).unwrap());
    let mut home = Home::new(store, key, settings).unwrap();
    let mut next = 0;
    loop {
        tokio::select! {
            event = told.recv() => match event {
                Some((device, event)) => drop(swarm.behaviour_mut().events.send_request(&device, event)),
                None => return,
            },
            event = swarm.select_next_some() => {
                if let SwarmEvent::Behaviour(ProtocolsEvent::Requests(request_response::Event::Message {
                    peer,
                    message: request_response::Message::Request { request: Ok(request), channel, .. },
                    ..
                })) = event
                {
                    next += 1;
                    let now = Now { wall: wall(), instant: Instant::now() };
                    home.handle(RequestId(next), peer, request.clone(), now);
                    let outputs = home.outputs();
                    answer(&mut swarm, &request, outputs, channel, &lie);
                }
            }
        }
    }
}

fn answer(
    swarm: &mut Swarm<Protocols>,
    request: &Request,
    outputs: Vec<iop_mercury::home::Output>,
    channel: ResponseChannel<Raw>,
    lie: &Mutex<Lie>,
) {
    let mut answer = Answer::refused(iop_mercury::wire::Code::NoAnswer, "nothing");
    for output in outputs {
        match output.what {
            What::Answer(_, own) => answer = own,
            What::Event(device, event) => drop(swarm.behaviour_mut().events.send_request(&device, event)),
        }
    }
    let raw = (lie.lock().unwrap())(request, answer);
    let _ = swarm.behaviour_mut().requests.send_response(channel, raw);
}
