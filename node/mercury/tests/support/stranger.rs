//! Malicious peers that take part in the protocols between homes.

use std::net::SocketAddr;

use iop_mercury::net::directory::{self, DIRECTORY};
use libp2p::connection_limits::{self, ConnectionLimits};
use libp2p::futures::StreamExt;
use libp2p::kad::store::MemoryStore;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::dial_opts::DialOpts;
use libp2p::swarm::{ConnectionId, DialError, NetworkBehaviour, SwarmEvent};
use libp2p::{Multiaddr, PeerId, Swarm, SwarmBuilder, identify, identity, kad, noise, tcp, yamux};
use tokio::sync::watch;

use super::{Running, within};

fn swarm<B: NetworkBehaviour>(behaviour: impl FnOnce(&identity::Keypair) -> B) -> Swarm<B> {
    SwarmBuilder::with_existing_identity(identity::Keypair::generate_ed25519())
        .with_tokio()
        .with_tcp(tcp::Config::new(), noise::Config::new, yamux::Config::default)
        .unwrap()
        .with_behaviour(|key| behaviour(key))
        .unwrap()
        .with_swarm_config(|config| config.with_idle_connection_timeout(super::LIMIT))
        .build()
}

#[derive(NetworkBehaviour)]
struct Misleading {
    kad: kad::Behaviour<MemoryStore>,
    identify: identify::Behaviour,
    limits: connection_limits::Behaviour,
}

/// A home of the directory that directs others to a peer that is not a home. It runs as a task until this is
/// dropped.
pub struct Misleader {
    pub address: Multiaddr,
    /// Number of records that were put there.
    puts: watch::Receiver<usize>,
    task: tokio::task::JoinHandle<()>,
}

impl Misleader {
    /// It announces many homes at the victim's address.
    pub async fn start(victim: SocketAddr) -> Self {
        let mut swarm = swarm(|key| {
            let peer = key.public().to_peer_id();
            let mut kad =
                kad::Behaviour::with_config(peer, MemoryStore::new(peer), kad::Config::new(DIRECTORY));
            kad.set_mode(Some(kad::Mode::Server));
            let victim = Multiaddr::from(victim.ip()).with(Protocol::Tcp(victim.port()));
            for _ in 0..10 {
                kad.add_address(&PeerId::random(), victim.clone());
            }
            // It dials nothing itself, so all connections to the victim come from elsewhere.
            let limits = ConnectionLimits::default().with_max_pending_outgoing(Some(0));
            Misleading {
                kad,
                identify: identify::Behaviour::new(identify::Config::new("test".into(), key.public())),
                limits: connection_limits::Behaviour::new(limits),
            }
        });
        swarm.listen_on("/ip4/127.0.0.1/tcp/0".parse().unwrap()).unwrap();
        let address = loop {
            if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
                break address.with_p2p(*swarm.local_peer_id()).unwrap();
            }
        };
        let (count, puts) = watch::channel(0);
        let task = tokio::spawn(async move {
            loop {
                if let SwarmEvent::Behaviour(MisleadingEvent::Kad(kad::Event::InboundRequest {
                    request: kad::InboundRequest::PutRecord { .. },
                })) = swarm.select_next_some().await
                {
                    count.send_modify(|count| *count += 1);
                }
            }
        });
        Self { address, puts, task }
    }

    /// Waits until a record is put there: a home that does so has tried all homes it was told of.
    pub async fn until_put(&mut self) {
        within(async { drop(self.puts.wait_for(|count| *count > 0).await.unwrap()) }).await;
    }
}

impl Drop for Misleader {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(NetworkBehaviour)]
struct Asking {
    kad: kad::Behaviour<MemoryStore>,
    identify: identify::Behaviour,
}

/// A home of the directory that announces other addresses each time it connects.
pub struct Wanderer {
    swarm: Swarm<Asking>,
    home: Multiaddr,
    connection: Option<ConnectionId>,
}

impl Wanderer {
    pub fn new(home: &Running) -> Self {
        let swarm = swarm(|key| {
            let mut kad = directory::client(key.public().to_peer_id());
            kad.set_mode(Some(kad::Mode::Server));
            let config = identify::Config::new("test".into(), key.public()).with_hide_listen_addrs(true);
            Asking { kad, identify: identify::Behaviour::new(config) }
        });
        Self { swarm, home: home.address.clone(), connection: None }
    }

    pub fn peer(&self) -> PeerId {
        *self.swarm.local_peer_id()
    }

    /// Connects once more, announces these ports of this machine, and closes its older connection.
    pub async fn come(&mut self, ports: impl Iterator<Item = u16>) {
        for address in self.swarm.external_addresses().cloned().collect::<Vec<_>>() {
            self.swarm.remove_external_address(&address);
        }
        for port in ports {
            self.swarm.add_external_address(format!("/ip4/127.0.0.1/tcp/{port}").parse().unwrap());
        }
        let options = DialOpts::unknown_peer_id().address(self.home.clone()).build();
        let new = options.connection_id();
        self.swarm.dial(options).unwrap();
        within(async {
            loop {
                if let SwarmEvent::Behaviour(AskingEvent::Identify(identify::Event::Sent {
                    connection_id,
                    ..
                })) = self.swarm.select_next_some().await
                    && connection_id == new
                {
                    return;
                }
            }
        })
        .await;
        if let Some(old) = self.connection.replace(new) {
            self.swarm.close_connection(old);
        }
    }

    /// Keeps running, whatever happens.
    pub async fn stay(&mut self) {
        loop {
            self.swarm.select_next_some().await;
        }
    }
}

/// A peer that queries or announces something again and again.
pub struct Pest {
    swarm: Swarm<Asking>,
    home: PeerId,
}

impl Pest {
    pub async fn at(home: &Running) -> Self {
        let mut swarm = swarm(|key| Asking {
            kad: directory::client(key.public().to_peer_id()),
            identify: identify::Behaviour::new(identify::Config::new("test".into(), key.public())),
        });
        let mut address = home.address.clone();
        let Some(Protocol::P2p(peer)) = address.pop() else { panic!("homes have peer ids") };
        swarm.behaviour_mut().kad.add_address(&peer, address);
        swarm.dial(home.address.clone()).unwrap();
        let mut pest = Self { swarm, home: peer };
        pest.until(|event| matches!(event, SwarmEvent::ConnectionEstablished { .. })).await;
        pest
    }

    async fn until(&mut self, wanted: impl Fn(&SwarmEvent<AskingEvent>) -> bool) {
        within(async { while !wanted(&self.swarm.select_next_some().await) {} }).await;
    }

    /// Looks up this many keys, one after the other; returns whether the connection lasted.
    pub async fn look_up(&mut self, count: usize) -> bool {
        for _ in 0..count {
            self.swarm.behaviour_mut().kad.get_closest_peers(PeerId::random());
            self.until(|event| match event {
                SwarmEvent::Behaviour(AskingEvent::Kad(kad::Event::OutboundQueryProgressed {
                    step, ..
                })) => step.last,
                SwarmEvent::ConnectionClosed { .. } => true,
                _ => false,
            })
            .await;
            if !self.swarm.is_connected(&self.home) {
                return false;
            }
        }
        true
    }

    /// Looks up an unreachable peer; returns the number of addresses told for it.
    pub async fn look_for(&mut self, peer: PeerId) -> usize {
        within(async {
            loop {
                self.swarm.behaviour_mut().kad.get_closest_peers(peer);
                loop {
                    match self.swarm.select_next_some().await {
                        SwarmEvent::OutgoingConnectionError {
                            peer_id: Some(other),
                            error: DialError::Transport(tried),
                            ..
                        } if other == peer => return tried.len(),
                        SwarmEvent::Behaviour(AskingEvent::Kad(kad::Event::OutboundQueryProgressed {
                            step,
                            ..
                        })) if step.last => break,
                        _ => {}
                    }
                }
            }
        })
        .await
    }

    /// Sends identify this many times; returns whether the connection lasted.
    pub async fn introduce_itself(&mut self, count: usize) -> bool {
        for _ in 0..count {
            self.swarm.behaviour_mut().identify.push([self.home]);
            self.until(|event| {
                matches!(
                    event,
                    SwarmEvent::Behaviour(AskingEvent::Identify(
                        identify::Event::Pushed { .. } | identify::Event::Error { .. }
                    )) | SwarmEvent::ConnectionClosed { .. }
                )
            })
            .await;
            if !self.swarm.is_connected(&self.home) {
                return false;
            }
        }
        true
    }

    /// Waits until the connection is closed.
    pub async fn until_closed(&mut self) {
        self.until(|event| matches!(event, SwarmEvent::ConnectionClosed { .. })).await;
    }
}
