//! The protocols of a home, and their limits.

use std::io;

use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::Boxed;
use libp2p::core::upgrade::Version;
use libp2p::identity::Keypair;
use libp2p::kad::store::MemoryStore;
use libp2p::request_response::ProtocolSupport;
use libp2p::swarm::NetworkBehaviour;
use libp2p::{
    Multiaddr, PeerId, Swarm, Transport, autonat, connection_limits, identify, kad, ping, relay, tcp,
};

use super::circuits::{Follower, Limits, Relay};
use super::codec;
use super::dials::{Dials, Guard};
use super::directory;
use super::gate::Gate;
use super::handshakes::Breakable;
use super::metered::{Metered, Sources};
use super::muxer::{self, Carriers};
use super::noise;
use super::quotas::Quotas;
use super::slim::Slim;
use crate::home::Permits;
use crate::limits::{
    CIRCUIT_BYTES, CIRCUIT_TIME, HANDSHAKE_TIME, IDLE_TIME, MAX_CIRCUITS, MAX_CIRCUITS_OF_PEER,
    MAX_PENDING_OUTGOING, MAX_SESSIONS, NEGOTIATING_STREAMS, PING_INTERVAL, PING_TIMEOUT, RESERVATION_TIME,
};
use crate::wire::REQUESTS;

/// The protocols of a home. The gate comes first: it refuses a connection before the others allocate anything.
#[derive(NetworkBehaviour)]
pub(super) struct Protocols {
    pub(super) gate: Gate,
    outgoing: connection_limits::Behaviour,
    pub(super) identify: Metered<identify::Behaviour>,
    ping: ping::Behaviour,
    pub(super) requests: codec::Requests,
    pub(super) events: codec::Events,
    pub(super) directory: Metered<kad::Behaviour<MemoryStore>>,
    pub(super) relay: Metered<Relay>,
    pub(super) autonat: Metered<autonat::Behaviour>,
}

/// Builds a home's swarm; it does not listen yet. It dials homes that are named, and others as `dials` permits.
/// Must be called within a tokio runtime.
///
/// # Errors
/// When the keys cannot be used for encryption.
pub(super) fn build(
    key: &Keypair,
    (permits, carriers): (&Permits, &Carriers),
    quotas: &Quotas,
    hide_listening: bool,
    named: &[(PeerId, Multiaddr)],
) -> Result<Swarm<Guard<Slim<Protocols>>>, io::Error> {
    let sources = Sources::default();
    let limits = Limits::new(permits, quotas);
    let relay = relay::Behaviour::new(key.public().to_peer_id(), relay_config(permits, &limits));
    let gate = Gate::new(quotas.clone(), &sources, named.iter().map(|(peer, _)| *peer).collect());
    let transport = Breakable { inner: transport(key, carriers)?, newest: gate.newest.clone() };
    let protocols = Protocols {
        gate,
        outgoing: connection_limits::Behaviour::new(
            connection_limits::ConnectionLimits::default()
                .with_max_pending_outgoing(Some(MAX_PENDING_OUTGOING)),
        ),
        identify: Metered::at(
            quotas.introductions,
            &sources,
            identify::Behaviour::new(
                identify::Config::new(REQUESTS.to_owned(), key.public())
                    .with_agent_version(concat!("iop-mercury/", env!("CARGO_PKG_VERSION")).to_owned())
                    // Otherwise ten thousand devices would be sent every five minutes what they know.
                    .with_interval(std::time::Duration::from_secs(24 * 60 * 60))
                    // Addresses that strangers claim are not dialled; the directory gets those that `may_dial`
                    // permits.
                    .with_cache_size(0)
                    .with_hide_listen_addrs(hide_listening),
            ),
        ),
        ping: ping::Behaviour::new(
            ping::Config::new().with_interval(PING_INTERVAL).with_timeout(PING_TIMEOUT),
        ),
        requests: codec::requests(ProtocolSupport::Inbound),
        events: codec::events(ProtocolSupport::Outbound),
        directory: Metered::at(quotas.lookups, &sources, directory::server(key.public().to_peer_id())),
        relay: Metered::at(quotas.relaying, &sources, Relay::new(relay, Follower::new(limits.clone())))
            .with_strangers(quotas.relaying_of_strangers, limits),
        autonat: Metered::at(
            quotas.introductions,
            &sources,
            autonat::Behaviour::new(key.public().to_peer_id(), autonat_config()),
        ),
    };
    let dials = Dials::new(quotas, named.iter().map(|(_, address)| address));
    let swarm = libp2p::SwarmBuilder::with_existing_identity(key.clone())
        .with_tokio()
        .with_other_transport(|_| transport)
        .unwrap_or_else(|never| match never {})
        .with_behaviour(|_| Guard::new(Slim(protocols), dials))
        .unwrap_or_else(|never| match never {})
        .with_swarm_config(|config| {
            config
                .with_idle_connection_timeout(IDLE_TIME)
                .with_max_negotiating_inbound_streams(NEGOTIATING_STREAMS)
        })
        .with_connection_timeout(HANDSHAKE_TIME)
        .build();
    Ok(swarm)
}

type Connections = Boxed<(PeerId, StreamMuxerBox)>;

/// TCP, encrypted, with a bounded number of streams.
fn transport(key: &Keypair, carriers: &Carriers) -> Result<Connections, io::Error> {
    let carriers = carriers.clone();
    let transport = tcp::tokio::Transport::new(tcp::Config::new().nodelay(true))
        .upgrade(Version::V1Lazy)
        .authenticate(noise::Config::new(key)?)
        .multiplex_ext(move |peer, _| muxer::Config::of_home(*peer, carriers))
        .boxed();
    Ok(transport)
}

/// The relay: only for peers that the home permits, without the crate's own rate limits.
fn relay_config(permits: &Permits, limits: &Limits) -> relay::Config {
    let mut config = relay::Config {
        max_reservations: MAX_SESSIONS,
        reservation_duration: RESERVATION_TIME,
        max_circuits: MAX_CIRCUITS,
        // The crate refuses only beyond this number.
        max_circuits_per_peer: MAX_CIRCUITS_OF_PEER - 1,
        max_circuit_duration: CIRCUIT_TIME,
        max_circuit_bytes: CIRCUIT_BYTES,
        ..relay::Config::default()
    };
    // Rates by address would refuse a school behind one router; permits are rarer than any rate.
    let reachable = permits.clone();
    config.reservation_rate_limiters =
        vec![Box::new(move |peer: PeerId, _: &Multiaddr, _: std::time::Instant| reachable.may_reserve(peer))];
    let callers = limits.clone();
    config.circuit_src_rate_limiters =
        vec![Box::new(move |peer: PeerId, address: &Multiaddr, now| callers.may_open(peer, address, now))];
    config
}

/// Tells devices whether they are reachable. Dials only the address that a device is seen at, and never probes the
/// home itself.
fn autonat_config() -> autonat::Config {
    autonat::Config {
        use_connected: false,
        max_peer_addresses: 4,
        throttle_clients_global_max: 16,
        throttle_clients_peer_max: 1,
        throttle_clients_period: std::time::Duration::from_secs(10),
        ..autonat::Config::default()
    }
}
