//! Homes and their addresses: as a person enters them, and as others tell them.

use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};

use super::error::ClientError;
use crate::body::HomeAddress;
use crate::id::Id;
use crate::limits::MAX_ADDRESSES;

/// A home and how to reach it. Its peer id is derived from its key, so whoever answers there is the home.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home {
    /// The home's id.
    pub id: Id,
    pub(super) peer: PeerId,
    /// Without the peer id.
    pub(super) addresses: Vec<Multiaddr>,
    /// Whether the person named it. Other homes are dialled with [`super::caution`].
    pub(super) named: bool,
}

impl Home {
    /// Parses a home: one address with its peer id, as a person enters it.
    ///
    /// # Errors
    /// When it is no such address.
    pub fn parse(text: &str) -> Result<Self, ClientError> {
        let wrong = || {
            ClientError::Wrong(format!("{text}: an address such as /ip4/…/tcp/…/p2p/… of a home expected"))
        };
        let (peer, address) = split(text).ok_or_else(wrong)?;
        let id = Id::of_peer(&peer).ok_or_else(wrong)?;
        Ok(Self { id, peer, addresses: vec![address], named: true })
    }

    /// A home as told by somebody: only addresses with its own peer id are used.
    ///
    /// # Errors
    /// When there are none.
    pub fn from_told(told: &HomeAddress) -> Result<Self, ClientError> {
        let all: Vec<_> = told.addresses.iter().take(MAX_ADDRESSES).filter_map(|text| split(text)).collect();
        let ours = |peer: &PeerId| Id::of_peer(peer) == Some(told.home);
        let Some((peer, _)) = all.iter().find(|(peer, _)| ours(peer)) else {
            return Err(ClientError::Unreachable(format!("no address of the home {} is known", told.home)));
        };
        let addresses = all.iter().filter(|(other, _)| other == peer).map(|(_, one)| one.clone()).collect();
        Ok(Self { id: told.home, peer: *peer, addresses, named: false })
    }

    /// A home that the person named, or an address that such a home has told of itself.
    pub(super) fn own(told: &HomeAddress) -> Result<Self, ClientError> {
        Self::from_told(told).map(|home| Self { named: true, ..home })
    }

    /// The form that is told to others.
    #[must_use]
    pub fn address(&self) -> HomeAddress {
        let with_peer = |one: &Multiaddr| one.clone().with(Protocol::P2p(self.peer)).to_string();
        HomeAddress { home: self.id, addresses: self.addresses.iter().map(with_peer).collect() }
    }

    /// The circuit address through this home to a device, or to ourselves if none is given. It uses an address that
    /// may be dialled, in case the connection to the home is lost and dialled again.
    pub(super) fn circuit(
        &self,
        device: Option<PeerId>,
        may_dial: impl Fn(&Multiaddr) -> bool,
    ) -> Result<Multiaddr, ClientError> {
        let none = || ClientError::Unreachable("the home has no address that is dialled".to_owned());
        let through = self.addresses.iter().find(|address| self.named || may_dial(address));
        let through = through.ok_or_else(none)?.clone();
        let through = through.with(Protocol::P2p(self.peer)).with(Protocol::P2pCircuit);
        Ok(device.map_or(through.clone(), |device| through.with(Protocol::P2p(device))))
    }
}

/// Splits an address from the peer id at its end. Only TCP to one peer is accepted: no relays, no names.
fn split(text: &str) -> Option<(PeerId, Multiaddr)> {
    let mut address: Multiaddr = text.parse().ok()?;
    let Some(Protocol::P2p(peer)) = address.pop() else { return None };
    let parts: Vec<_> = address.iter().collect();
    matches!(parts[..], [Protocol::Ip4(_) | Protocol::Ip6(_), Protocol::Tcp(_)]).then_some((peer, address))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::id::Key;

    fn peer(number: u8) -> PeerId {
        Key::from_secret(&[number; 32]).peer_key().public().to_peer_id()
    }

    #[test]
    fn a_home_is_typed_with_its_peer_id_and_reached_by_tcp() {
        let text = format!("/ip4/127.0.0.1/tcp/1/p2p/{}", peer(1));
        let home = Home::parse(&text).unwrap();
        assert_eq!(home.id, Key::from_secret(&[1; 32]).id());
        assert_eq!(home.address().addresses, [text]);
        let circuit = format!("/ip4/1.1.1.1/tcp/1/p2p/{}/p2p-circuit/p2p/{}", peer(1), peer(2));
        for wrong in [
            "",
            "127.0.0.1:80",
            "/ip4/127.0.0.1/tcp/1",
            "/ip4/127.0.0.1/tcp/1/p2p/../..",
            &circuit,
            &format!("/p2p/{}", peer(1)),
            &format!("/ip4/127.0.0.1/udp/1/p2p/{}", peer(1)),
            // The peer id of an RSA key, which no home has.
            "/ip4/127.0.0.1/tcp/1/p2p/QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N",
        ] {
            let error = Home::parse(wrong).unwrap_err().to_string();
            assert!(error.contains("/ip4/…/tcp/…/p2p/…"), "{error}");
        }
    }

    #[test]
    fn of_a_home_that_is_told_only_its_own_addresses_count() {
        let told = |addresses: Vec<String>| {
            Home::from_told(&HomeAddress { home: Key::from_secret(&[1; 32]).id(), addresses })
        };
        let (own, other) =
            (format!("/ip4/1.1.1.1/tcp/1/p2p/{}", peer(1)), format!("/ip4/2.2.2.2/tcp/1/p2p/{}", peer(2)));
        assert_eq!(told(vec![other.clone(), own.clone()]).unwrap().address().addresses, [own]);
        assert!(told(vec![other, "/ip4/1.1.1.1/tcp/1".to_owned()]).is_err());
        assert!(told(Vec::new()).is_err());
    }
    #[test]
    fn a_circuit_goes_by_an_address_that_may_be_dialled() {
        let all = ["/ip4/127.0.0.1/tcp/22", "/ip4/1.1.1.1/tcp/1"].map(|one| format!("{one}/p2p/{}", peer(1)));
        let told = HomeAddress { home: Key::from_secret(&[1; 32]).id(), addresses: all.to_vec() };
        let far = |address: &Multiaddr| address.to_string().contains("1.1.1.1");
        let circuit = |home: &Home| home.circuit(Some(peer(2)), far).unwrap().to_string();
        let home = Home::from_told(&told).unwrap();
        assert_eq!(circuit(&home), format!("{}/p2p-circuit/p2p/{}", all[1], peer(2)));
        assert!(home.circuit(None, |_| false).is_err());
        let own = Home::own(&told).unwrap();
        assert_eq!(circuit(&own), format!("{}/p2p-circuit/p2p/{}", all[0], peer(2)), "the person named it");
    }
}
