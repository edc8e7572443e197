//! Takes connections, up to the limits.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::Shared;
use super::connection::serve;
use super::machine::Machine;

/// Wait after the system refused a connection (usually: too many open files), so that we do not spin.
const REFUSED_WAIT: Duration = Duration::from_millis(100);

/// Listens, so that who comes is not refused; nobody is served yet.
///
/// # Errors
/// The address cannot be listened at; the message names it.
pub fn bind(address: SocketAddr) -> io::Result<StdListener> {
    let named = |error: io::Error| io::Error::new(error.kind(), format!("--listen {address}: {error}"));
    let socket = StdListener::bind(address).map_err(named)?;
    socket.set_nonblocking(true).map_err(named)?;
    Ok(socket)
}

/// Serves whoever comes, for ever.
///
/// # Errors
/// The socket is none that the runtime can use.
pub async fn listen(socket: StdListener, shared: Arc<Shared>) -> io::Result<()> {
    let listener = TcpListener::from_std(socket)?;
    // They end with this future.
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        match accepted {
            Ok((stream, peer)) => match shared.seats.take(peer.ip()) {
                Ok(seat) => {
                    let machine = Box::new(Machine::new(Arc::clone(&shared), seat, peer));
                    connections.spawn(serve(
                        stream,
                        machine,
                        shared.snapshots.clone(),
                        shared.shares.clone(),
                    ));
                }
                Err(full) => shared.words.say(&full.to_string()),
            },
            Err(error) => {
                shared.words.say(&format!("a connection could not be taken: {error}"));
                tokio::time::sleep(REFUSED_WAIT).await;
            }
        }
    }
}
