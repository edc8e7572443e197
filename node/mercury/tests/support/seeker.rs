//! A device that looks up personas in the directory.

use std::time::Duration;

use iop_mercury::id::Id;
use iop_mercury::net::directory::{self, Place};
use libp2p::futures::StreamExt;
use libp2p::kad::store::MemoryStore;
use libp2p::kad::{self, GetRecordOk, QueryResult};
use libp2p::multiaddr::Protocol;
use libp2p::swarm::SwarmEvent;
use libp2p::{Multiaddr, Swarm, identity, noise, tcp, yamux};

pub struct Seeker {
    swarm: Swarm<kad::Behaviour<MemoryStore>>,
}

impl Seeker {
    /// A device that knows one home.
    pub fn new(home: &Multiaddr) -> Self {
        let mut swarm = libp2p::SwarmBuilder::with_existing_identity(identity::Keypair::generate_ed25519())
            .with_tokio()
            .with_tcp(tcp::Config::new(), noise::Config::new, yamux::Config::default)
            .unwrap()
            .with_behaviour(|key| directory::client(key.public().to_peer_id()))
            .unwrap()
            .build();
        let mut address = home.clone();
        let Some(Protocol::P2p(peer)) = address.pop() else { panic!("homes have peer ids") };
        swarm.behaviour_mut().add_address(&peer, address);
        Self { swarm }
    }

    /// Queries until a persona is found at a home.
    pub async fn find(&mut self, persona: Id, home: Id) -> Place {
        super::within(async {
            loop {
                match self.look(persona).await {
                    Some(place) if place.home == home => return place,
                    _ => tokio::time::sleep(Duration::from_millis(200)).await,
                }
            }
        })
        .await
    }

    /// The record with the greatest age that one query finds.
    async fn look(&mut self, persona: Id) -> Option<Place> {
        let query = self.swarm.behaviour_mut().get_record(directory::key(persona));
        let mut best: Option<Place> = None;
        loop {
            let event = self.swarm.select_next_some().await;
            let SwarmEvent::Behaviour(kad::Event::OutboundQueryProgressed { id, result, step, .. }) = event
            else {
                continue;
            };
            if id != query {
                continue;
            }
            if let QueryResult::GetRecord(Ok(GetRecordOk::FoundRecord(found))) = result {
                let place =
                    directory::read(super::NETWORK, persona, &found.record.value, super::wall()).unwrap();
                if best.as_ref().is_none_or(|best| best.age < place.age) {
                    best = Some(place);
                }
            }
            if step.last {
                return best;
            }
        }
    }
}
