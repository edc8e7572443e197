//! Connects to a host with several addresses: whichever answers first wins, as in "Happy Eyeballs" (RFC 8305).

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpStream, lookup_host};
use tokio::task::JoinSet;
use tokio::time::sleep;

/// Most addresses of a host that are tried. A usual name has two to four; a malicious DNS server could return
/// thousands.
const MAX_ADDRESSES: usize = 8;
/// How long an address is tried alone before the next one is tried concurrently: longer than any usual round trip, and
/// too short for a person to notice.
const NEXT_AFTER: Duration = Duration::from_millis(250);

/// Resolves the host: the addresses to try, in this order.
///
/// # Errors
/// The name is not known.
pub(super) async fn addresses(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    Ok(in_turn(lookup_host((host, port)).await?))
}

/// Connects to one of the addresses. Those after `last`, the one that was of no use, are tried first: it would answer
/// first again.
///
/// # Errors
/// There is no address; or if none answers, the error of the first address that failed.
pub(super) async fn connect(
    addresses: Vec<SocketAddr>,
    last: Option<SocketAddr>,
) -> io::Result<(TcpStream, SocketAddr)> {
    race(&after(addresses, last)).await
}

/// The addresses from the one after `last` on, if it is among them.
fn after(mut addresses: Vec<SocketAddr>, last: Option<SocketAddr>) -> Vec<SocketAddr> {
    if let Some(place) = addresses.iter().position(|address| Some(*address) == last) {
        addresses.rotate_left(place + 1);
    }
    addresses
}

/// The addresses in the system's order, but alternating between families: where IPv6 is broken, it is so for all of
/// them.
fn in_turn(found: impl IntoIterator<Item = SocketAddr>) -> Vec<SocketAddr> {
    let (mut first, mut other): (Vec<SocketAddr>, Vec<SocketAddr>) = (Vec::new(), Vec::new());
    for address in found {
        let kind = if first.first().is_none_or(|before| before.is_ipv4() == address.is_ipv4()) {
            &mut first
        } else {
            &mut other
        };
        if kind.len() < MAX_ADDRESSES && !kind.contains(&address) {
            kind.push(address);
        }
    }
    let (mut first, mut other, mut addresses) = (first.into_iter(), other.into_iter(), Vec::new());
    while first.len() + other.len() > 0 {
        addresses.extend(first.next().into_iter().chain(other.next()));
    }
    addresses.truncate(MAX_ADDRESSES);
    addresses
}

/// Tries the addresses one after another, without waiting long for any. Returns the one that answered, too: a
/// connection that is closed at once does not know it any more.
async fn race(addresses: &[SocketAddr]) -> io::Result<(TcpStream, SocketAddr)> {
    let (mut waiting, mut running, mut failed) = (addresses.iter().copied(), JoinSet::new(), None);
    loop {
        if let Some(address) = waiting.next() {
            running.spawn(async move { TcpStream::connect(address).await.map(|stream| (stream, address)) });
        }
        tokio::select! {
            ended = running.join_next() => match ended {
                Some(Ok(Ok(connected))) => return Ok(connected),
                Some(Ok(Err(error))) => drop(failed.get_or_insert(error)),
                Some(Err(error)) => drop(failed.get_or_insert(io::Error::other(error))),
                None => return Err(failed.unwrap_or_else(|| io::Error::other("the name has no address"))),
            },
            () = sleep(NEXT_AFTER), if waiting.len() > 0 => {}
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tokio::net::{TcpListener, TcpSocket};
    use tokio::time::timeout;

    use super::*;

    /// Sooner than a system gives up an unresponsive address: minutes.
    const PATIENCE: Duration = Duration::from_secs(30);

    /// An address that answers nothing, like a host that is switched off, while the returned values live: its queue is
    /// full.
    async fn dead() -> (SocketAddr, TcpListener, Vec<TcpStream>) {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(0).unwrap();
        let (address, mut queue) = (listener.local_addr().unwrap(), Vec::new());
        while let Ok(stream) = timeout(Duration::from_millis(500), TcpStream::connect(address)).await {
            queue.push(stream.unwrap());
        }
        (address, listener, queue)
    }

    async fn live() -> (SocketAddr, TcpListener) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        (listener.local_addr().unwrap(), listener)
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn an_address_that_does_not_answer_does_not_hold_up_those_after_it() {
        let ((dead, ..), (live, _listener)) = (&dead().await, live().await);
        let connected = timeout(PATIENCE, race(&[*dead, *dead, live])).await.expect("the live one answers");
        let (stream, address) = connected.unwrap();
        assert_eq!((stream.peer_addr().unwrap(), address), (live, live));
    }

    #[tokio::test]
    async fn an_address_that_refuses_is_followed_by_the_next_and_the_first_reason_is_told() {
        let ((gone, listener), (live, _listener)) = (live().await, live().await);
        drop(listener);
        assert_eq!(race(&[gone, live]).await.unwrap().1, live);
        assert_eq!(race(&[gone, gone]).await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        assert_eq!(race(&[]).await.unwrap_err().to_string(), "the name has no address");
    }

    #[tokio::test]
    async fn names_and_addresses_are_connected_to() {
        let (live, _listener) = live().await;
        for host in ["127.0.0.1", "localhost"] {
            let found = addresses(host, live.port()).await.unwrap();
            assert_eq!(connect(found, None).await.unwrap().1, live);
        }
    }

    #[tokio::test]
    async fn the_first_address_is_connected_to_unless_it_was_of_no_use_the_last_time() {
        let ((one, _first), (other, _second)) = (live().await, live().await);
        for (last, expected) in [(None, one), (Some(one), other), (Some(other), one)] {
            assert_eq!(connect(vec![one, other], last).await.unwrap().1, expected, "{last:?}");
        }
    }

    #[test]
    fn all_addresses_take_turns_from_the_one_after_the_last_on() {
        let [one, two, three, gone] =
            [1, 2, 3, 4].map(|number: u8| SocketAddr::from(([10, 0, 0, number], 1)));
        let found = vec![one, two, three];
        assert_eq!(after(found.clone(), None), [one, two, three]);
        assert_eq!(after(found.clone(), Some(one)), [two, three, one]);
        assert_eq!(after(found.clone(), Some(two)), [three, one, two]);
        assert_eq!(after(found.clone(), Some(three)), [one, two, three]);
        assert_eq!(after(found, Some(gone)), [one, two, three], "the name does not have it any more");
        assert_eq!(after(Vec::new(), Some(one)), []);
    }

    #[test]
    fn both_kinds_of_addresses_take_turns_and_endless_ones_are_cut() {
        let six = |number: u16| SocketAddr::from(([0xfd00, 0, 0, 0, 0, 0, 0, number], 1));
        let four = |number: u8| SocketAddr::from(([10, 0, 0, number], 1));
        assert_eq!(
            in_turn([six(1), six(1), six(2), six(3), four(1), four(2)]),
            [six(1), four(1), six(2), four(2), six(3)]
        );
        let many = (0..1000).map(six).chain((0..=255).map(four));
        let cut = in_turn(many);
        assert_eq!((cut.len(), cut.iter().filter(|address| address.is_ipv4()).count()), (MAX_ADDRESSES, 4));
        assert_eq!(in_turn([]), []);
    }
}
