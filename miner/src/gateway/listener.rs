//! Accepts connections, up to the limits.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tracing::warn;

use super::Shared;
use super::connection::serve;
use super::machine::Machine;
use super::seats::Seat;

/// Wait after a failed accept (usually: too many open files), to avoid spinning.
const REFUSED_WAIT: Duration = Duration::from_millis(100);

/// Starts to listen, so that connections are not refused; none is served yet.
///
/// # Errors
/// The address cannot be bound; the message names it.
pub fn bind(address: SocketAddr) -> io::Result<StdListener> {
    let named = |error: io::Error| io::Error::new(error.kind(), format!("--listen {address}: {error}"));
    let socket = StdListener::bind(address).map_err(named)?;
    socket.set_nonblocking(true).map_err(named)?;
    Ok(socket)
}

/// Serves connections until the gateway ends, and then the present ones until they are gone.
///
/// # Errors
/// The runtime cannot use the socket.
pub async fn listen(socket: StdListener, shared: Arc<Shared>) -> io::Result<()> {
    let listener = TcpListener::from_std(socket)?;
    let mut snapshots = shared.snapshots.clone();
    // They end with this future.
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
            changed = snapshots.changed() => {
                if changed.is_err() || snapshots.borrow_and_update().ends {
                    break;
                }
                continue;
            }
        };
        match accepted {
            Ok((stream, peer)) => match seat(&shared, peer.ip()) {
                Ok(seat) => {
                    let machine = Box::new(Machine::new(Arc::clone(&shared), seat, peer));
                    connections.spawn(serve(
                        stream,
                        machine,
                        shared.snapshots.clone(),
                        shared.shares.clone(),
                    ));
                }
                Err(refused) => {
                    if shared.words.may_warn() {
                        warn!("{refused}");
                    }
                }
            },
            Err(error) => {
                if shared.words.may_warn() {
                    warn!("a connection could not be taken: {error}");
                }
                tokio::time::sleep(REFUSED_WAIT).await;
            }
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
    Ok(())
}

/// Admits a new connection, or says why not.
pub(super) fn seat(shared: &Shared, ip: IpAddr) -> Result<Seat, String> {
    shared.bans.admit(ip, Instant::now()).map_err(|refused| refused.to_string())?;
    shared.seats.take(ip).map_err(|full| full.to_string())
}
