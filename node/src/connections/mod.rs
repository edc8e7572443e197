//! HTTP connections: how many at a time, and their timeouts.
//!
//! Lives here: the accept loop for RPC and metrics, and [`stream`], which gives up on clients that do not read.
//! Does not live here: requests and answers. A connection goes: a free slot -> listener -> its own task with a
//! router made for the client's address -> slot released.

mod stream;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tracing::warn;

use stream::ImpatientStream;

/// Maximum length in bytes of a request's line and headers; clients of Core send a few hundred.
const MAX_HEADER_BYTES: usize = 16 * 1024;
/// Delay after a failed accept.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Limits for clients.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Maximum number of simultaneous connections; others wait.
    pub(crate) connections: usize,
    /// How long a client may take to send a request's headers (including idle time before them), and to accept more
    /// of an answer.
    pub(crate) patience: Duration,
    pub(crate) half_closed: HalfClosed,
}

/// What becomes of a client that closes its side after the request. It may be gone for good, or wait for the answer as nc
/// does: only sending the answer tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HalfClosed {
    /// It is answered: where answers come at once.
    Answered,
    /// The connection ends: where an answer may take hours, clients that are gone would use up all connections.
    Dropped,
}

/// Serves until `shutdown` becomes true; calls in progress are answered first. `router` makes the router for a
/// client at an address.
pub(crate) async fn serve(
    listener: TcpListener,
    limits: Limits,
    router: impl Fn(SocketAddr) -> Router,
    mut shutdown: watch::Receiver<bool>,
) {
    let mut protocol = http1::Builder::new();
    protocol.timer(TokioTimer::new()).header_read_timeout(limits.patience).max_buf_size(MAX_HEADER_BYTES);
    protocol.half_close(limits.half_closed == HalfClosed::Answered);
    let places = Arc::new(Semaphore::new(limits.connections));
    let connections = GracefulShutdown::new();
    loop {
        let (place, stream, peer) = tokio::select! {
            next = next_connection(&listener, &places) => next,
            // A dropped sender means the same.
            _ = shutdown.wait_for(|stop| *stop) => break,
        };
        let stream = TokioIo::new(ImpatientStream::new(stream, limits.patience));
        let service = TowerToHyperService::new(router(peer));
        let connection = connections.watch(protocol.serve_connection(stream, service));
        tokio::spawn(async move {
            // An error of one client's connection concerns no one else.
            let _ = connection.await;
            drop(place);
        });
    }
    drop(listener);
    connections.shutdown().await;
}

/// Waits for a slot, then for a client.
async fn next_connection(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> (OwnedSemaphorePermit, TcpStream, SocketAddr) {
    let place = places.clone().acquire_owned().await.expect("the semaphore is never closed");
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => return (place, stream, peer),
            Err(error) => {
                warn!("a client's connection cannot be taken: {error}");
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn a_client_that_is_gone_takes_no_place_while_its_answer_takes_hours() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = watch::channel(false);
        let never = async || std::future::pending::<&str>().await;
        let router = move |_| Router::new().route("/never", get(never)).route("/", get(async || "now"));
        let patience = Duration::from_secs(10);
        let limits = Limits { connections: 1, patience, half_closed: HalfClosed::Dropped };
        let server = tokio::spawn(serve(listener, limits, router, stopped));
        let mut gone = TcpStream::connect(address).await.unwrap();
        gone.write_all(b"GET /never HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
        drop(gone);
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        let read = tokio::time::timeout(Duration::from_secs(60), client.read_to_string(&mut answer));
        read.await.unwrap().unwrap();
        assert!(answer.ends_with("now"), "{answer:?}");
        stop.send(true).unwrap();
        server.await.unwrap();
    }

    #[tokio::test]
    async fn a_client_that_closes_its_side_after_the_request_is_answered() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = watch::channel(false);
        // Longer than it takes to see that the client has closed its side.
        let late = async || {
            tokio::time::sleep(Duration::from_millis(200)).await;
            "late"
        };
        let router = move |_| Router::new().route("/", get(late));
        let patience = Duration::from_secs(10);
        let limits = Limits { connections: 1, patience, half_closed: HalfClosed::Answered };
        let server = tokio::spawn(serve(listener, limits, router, stopped));
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        client.shutdown().await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("late"), "{answer:?}");
        stop.send(true).unwrap();
        server.await.unwrap();
    }
}
