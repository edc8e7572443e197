//! Validation of multiaddresses given by an operator.
//!
//! Here: the form required (an IP address and a TCP port) for listening, for announcing, and for other homes; and
//! whether an address is free. Not here: error messages, which are up to the program.

use std::io;
use std::net::{IpAddr, TcpListener};

use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;

/// Whether a home can listen on it: any address and any port.
#[must_use]
pub fn is_bindable(address: &Multiaddr) -> bool {
    let parts: Vec<_> = address.iter().collect();
    matches!(parts[..], [Protocol::Ip4(_) | Protocol::Ip6(_), Protocol::Tcp(_)])
}

/// Whether nobody listens at an address yet. The swarm does not notice: it sets `SO_REUSEPORT`, so that two programs
/// of one user share a port, and clients reach either of them.
pub(super) fn check_free(address: &Multiaddr) -> io::Result<()> {
    let parts: Vec<_> = address.iter().collect();
    let (ip, port): (IpAddr, u16) = match parts[..] {
        [Protocol::Ip4(ip), Protocol::Tcp(port)] => (ip.into(), port),
        [Protocol::Ip6(ip), Protocol::Tcp(port)] => (ip.into(), port),
        _ => return Ok(()),
    };
    TcpListener::bind((ip, port)).map(drop)
}

/// Whether it can be announced as a home's address. The peer id is added later, so it must not have one.
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

/// Whether it is another home's address, with its peer id.
#[must_use]
pub fn is_peer(address: &Multiaddr) -> bool {
    let last = address.iter().last();
    let place = address.iter().filter(|part| !matches!(part, Protocol::P2p(_))).collect();
    matches!(last, Some(Protocol::P2p(_))) && is_tellable(&place)
}
