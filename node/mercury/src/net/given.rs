//! Multiaddresses as an operator gives them: of which form they must be for what.
//!
//! Here: an IP address and a TCP port, where a home listens, where it is told to be, and other homes. Not here: what is
//! said where one is not so, which the program knows.

use std::net::IpAddr;

use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;

/// Whether a home can listen there: any address and any port.
#[must_use]
pub fn is_bindable(address: &Multiaddr) -> bool {
    let parts: Vec<_> = address.iter().collect();
    matches!(parts[..], [Protocol::Ip4(_) | Protocol::Ip6(_), Protocol::Tcp(_)])
}

/// Whether others can be told that a home is there. Its peer id is added, so none may be there.
#[must_use]
pub fn is_tellable(address: &Multiaddr) -> bool {
    let parts: Vec<_> = address.iter().collect();
    let whole = |ip: IpAddr| !ip.is_unspecified();
    match parts[..] {
        [Protocol::Ip4(ip), Protocol::Tcp(port)] => whole(ip.into()) && port > 0,
        [Protocol::Ip6(ip), Protocol::Tcp(port)] => whole(ip.into()) && port > 0,
        _ => false,
    }
}

/// Whether it is another home's: where that is, with its peer id.
#[must_use]
pub fn is_peer(address: &Multiaddr) -> bool {
    let last = address.iter().last();
    let place = address.iter().filter(|part| !matches!(part, Protocol::P2p(_))).collect();
    matches!(last, Some(Protocol::P2p(_))) && is_tellable(&place)
}
