//! Validation of multiaddresses given by an operator.
//!
//! Here: the form required (an IP address and a TCP port) for listening, for announcing, and for other homes; and
//! whether an address is free. Not here: error messages, which are up to the program.

use std::io;
use std::net::{IpAddr, SocketAddr};

use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;
use tokio::net::TcpSocket;

/// Whether a home can listen on it: any address and any port.
#[must_use]
pub fn is_bindable(address: &Multiaddr) -> bool {
    let parts: Vec<_> = address.iter().collect();
    matches!(parts[..], [Protocol::Ip4(_) | Protocol::Ip6(_), Protocol::Tcp(_)])
}

/// Whether nobody listens at an address yet. The swarm does not notice: it sets `SO_REUSEPORT`, so that two
/// programs of one user share a port, and clients reach either of them. All else is as the swarm sets it: `::`
/// is not `0.0.0.0` too, and ended connections of an earlier run hold no port.
pub(super) fn check_free(address: &Multiaddr) -> io::Result<()> {
    let parts: Vec<_> = address.iter().collect();
    let (ip, port): (IpAddr, u16) = match parts[..] {
        [Protocol::Ip4(ip), Protocol::Tcp(port)] => (ip.into(), port),
        [Protocol::Ip6(ip), Protocol::Tcp(port)] => (ip.into(), port),
        _ => return Ok(()),
    };
    let socket = if ip.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if ip.is_ipv6() {
        rustix::net::sockopt::set_ipv6_v6only(&socket, true)?;
    }
    socket.set_reuseaddr(true)?;
    socket.bind(SocketAddr::new(ip, port))
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_port_is_taken_where_somebody_listens_but_not_by_the_other_version_of_ip() {
        let held = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
        let port = held.local_addr().unwrap().port();
        let check = |address: String| check_free(&address.parse().unwrap()).map_err(|error| error.kind());
        for ip in ["0.0.0.0", "127.0.0.1"] {
            assert_eq!(check(format!("/ip4/{ip}/tcp/{port}")), Err(io::ErrorKind::AddrInUse), "{ip}");
        }
        // Where the machine has IPv6.
        if std::net::TcpListener::bind("[::1]:0").is_ok() {
            assert_eq!(check(format!("/ip6/::/tcp/{port}")), Ok(()));
        }
        assert_eq!(check("/ip4/127.0.0.1/tcp/0".to_owned()), Ok(()));
        drop(held);
        assert_eq!(check(format!("/ip4/0.0.0.0/tcp/{port}")), Ok(()));
    }
}
