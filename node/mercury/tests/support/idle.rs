//! Idle connections.

use libp2p::futures::StreamExt;
use libp2p::swarm::{SwarmEvent, dummy};
use libp2p::{Multiaddr, Swarm, identity, noise, tcp, yamux};

/// Opens this many connections, each of a peer of its own. They last as long as the returned swarms.
pub async fn connect(address: &Multiaddr, count: usize) -> Vec<Swarm<dummy::Behaviour>> {
    let mut all = Vec::with_capacity(count);
    for _ in 0..count {
        let mut swarm = libp2p::SwarmBuilder::with_existing_identity(identity::Keypair::generate_ed25519())
            .with_tokio()
            .with_tcp(tcp::Config::new(), noise::Config::new, yamux::Config::default)
            .unwrap()
            .with_behaviour(|_| dummy::Behaviour)
            .unwrap()
            .with_swarm_config(|config| config.with_idle_connection_timeout(super::LIMIT * 60))
            .build();
        swarm.dial(address.clone()).unwrap();
        super::within(async {
            loop {
                match swarm.select_next_some().await {
                    SwarmEvent::ConnectionEstablished { .. } => return,
                    SwarmEvent::OutgoingConnectionError { error, .. } => panic!("{error}"),
                    _ => {}
                }
            }
        })
        .await;
        all.push(swarm);
    }
    all
}
