//! Restricts dialling: addresses heard from others must not make a device connect to machines in its own network.
//!
//! Here: which of those addresses are dialled. Not here: addresses that the person named, which are dialled as they
//! are, and those of two devices in a call. Path: an address heard → whether the person's own home is equally near
//! → the transport.

use libp2p::PeerId;
use libp2p::core::{Endpoint, Multiaddr};
use libp2p::swarm::{ConnectionDenied, ConnectionId, NetworkBehaviour};

use crate::net::dials::Reach;
use crate::net::layer::Layer;

/// How near the homes are that the person named.
#[derive(Debug, Default)]
pub(super) struct Caution {
    machine: bool,
    network: bool,
}

impl Caution {
    /// The person named a home with these addresses. Its farthest reach counts, since it may be reached from there.
    pub(super) fn named(&mut self, addresses: &[Multiaddr]) {
        let any = |wanted| addresses.iter().any(|address| Reach::of(address) == wanted);
        match (any(Reach::World), any(Reach::Network), any(Reach::Machine)) {
            (true, ..) | (_, false, false) => {}
            (_, true, _) => self.network = true,
            (_, _, true) => (self.network, self.machine) = (true, true),
        }
    }

    /// Whether to dial an address that was heard from others.
    pub(super) fn allows(&self, address: &Multiaddr) -> bool {
        match Reach::of(address) {
            Reach::World => true,
            Reach::Network => self.network,
            Reach::Machine => self.machine,
            Reach::Nowhere => false,
        }
    }
}

impl<B: NetworkBehaviour> Layer<B> for Caution {
    /// The addresses that behaviours add come from the directory.
    fn on_dial(
        &mut self,
        inner: &mut B,
        (connection, role): (ConnectionId, Endpoint),
        peer: Option<PeerId>,
        addresses: &[Multiaddr],
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        let mut told = inner.handle_pending_outbound_connection(connection, peer, addresses, role)?;
        told.retain(|address| self.allows(address));
        Ok(told)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use libp2p::identity;
    use tokio::net::TcpListener;
    use tokio::sync::oneshot;

    use super::super::driver::{Command, Settings, start};
    use super::super::error::ClientError;
    use super::*;

    const WORLD: &str = "/ip4/9.9.9.9/tcp/1";
    const NETWORK: &str = "/ip4/192.168.1.1/tcp/1";
    const MACHINE: &str = "/ip6/::1/tcp/1";

    #[test]
    fn what_is_told_is_dialled_no_nearer_than_ones_own_home() {
        for (named, allowed) in [
            (&[][..], [true, false, false]),
            (&[WORLD], [true, false, false]),
            (&[NETWORK], [true, true, false]),
            (&[MACHINE], [true, true, true]),
            (&[NETWORK, WORLD], [true, false, false]),
            (&[MACHINE, NETWORK], [true, true, false]),
        ] {
            let mut caution = Caution::default();
            let addresses: Vec<Multiaddr> = named.iter().map(|address| address.parse().unwrap()).collect();
            caution.named(&addresses);
            caution.named(&[WORLD.parse().unwrap()]);
            let allows = |address: &str| caution.allows(&address.parse().unwrap());
            assert_eq!([WORLD, NETWORK, MACHINE].map(allows), allowed, "{named:?}");
            for nowhere in ["/dns4/localhost/tcp/1", "/ip4/9.9.9.9/udp/1", "/ip4/0.0.0.0/tcp/1"] {
                assert!(!allows(nowhere), "{nowhere}");
            }
        }
    }

    #[tokio::test]
    async fn what_others_tell_is_not_dialled_where_it_is_near_and_what_the_person_names_is() {
        let near = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address: Multiaddr =
            format!("/ip4/127.0.0.1/tcp/{}", near.local_addr().unwrap().port()).parse().unwrap();
        let key = identity::Keypair::generate_ed25519();
        let (commands, _notices) = start(key, &Settings::default(), &[]).unwrap();
        let peer = PeerId::random();
        let dial = |named| {
            let (reply, answer) = oneshot::channel();
            let addresses = vec![address.clone()];
            commands.try_send(Command::Dial { peer, addresses, named, reply }).unwrap();
            answer
        };
        let refused = dial(false).await.unwrap();
        assert!(matches!(refused, Err(ClientError::Unreachable(_))), "{refused:?}");
        // The listener is only known once the person has named it, so the first connection is from that dial.
        let _named = dial(true);
        near.accept().await.unwrap();
    }
}
