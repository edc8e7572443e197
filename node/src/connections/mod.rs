//! HTTP connections: how many at a time, and their timeouts.
//!
//! Lives here: the accept loop for RPC and metrics, who gives way when there are too many ([`newcomers`]), and
//! [`stream`], which gives up on clients that do not read. Does not live here: requests and answers. A connection
//! goes: listener -> a free place -> its own task with a router made for the client's address -> place released.

mod newcomers;
mod stream;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tracing::warn;

use newcomers::Newcomers;
use stream::ImpatientStream;

/// Maximum length in bytes of a request's line and headers; clients of Core send a few hundred.
const MAX_HEADER_BYTES: usize = 16 * 1024;
/// Delay after a failed accept.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Limits for clients.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Maximum number of simultaneous connections. Where there are more, the oldest that has asked nothing yet gives way;
    /// if all have asked, others wait.
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
    let newcomers = Arc::new(Newcomers::default());
    let connections = GracefulShutdown::new();
    for number in 0u64.. {
        let (place, stream, peer) = tokio::select! {
            next = next_connection(&listener, &places, &newcomers) => next,
            // A dropped sender means the same.
            _ = shutdown.wait_for(|stop| *stop) => break,
        };
        let told = newcomers.add(number);
        let stream = TokioIo::new(ImpatientStream::new(stream, limits.patience));
        let (router, waiting) = (TowerToHyperService::new(router(peer)), Arc::clone(&newcomers));
        let service = service_fn(move |request: Request<Incoming>| {
            waiting.remove(number);
            router.call(request)
        });
        let connection = connections.watch(protocol.serve_connection(stream, service));
        let newcomers = Arc::clone(&newcomers);
        tokio::spawn(async move {
            tokio::select! {
                // An error of one client's connection concerns no one else.
                _ = connection => {}
                Ok(()) = told => {}
            }
            newcomers.remove(number);
            drop(place);
        });
    }
    drop(listener);
    connections.shutdown().await;
}

/// Waits for a client, then for a place, which the oldest newcomer gives up if there is none.
async fn next_connection(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
    newcomers: &Newcomers,
) -> (OwnedSemaphorePermit, TcpStream, SocketAddr) {
    let (stream, peer) = loop {
        match listener.accept().await {
            Ok(accepted) => break accepted,
            Err(error) => {
                warn!("a client's connection cannot be taken: {error}");
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
        }
    };
    if places.available_permits() == 0 {
        newcomers.close_oldest();
    }
    let place = places.clone().acquire_owned().await.expect("the semaphore is never closed");
    (place, stream, peer)
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
    async fn clients_that_ask_nothing_give_way_to_those_that_ask() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = watch::channel(false);
        let router = move |_| Router::new().route("/", get(async || "now"));
        // Nobody leaves for being slow.
        let patience = Duration::from_secs(24 * 3600);
        let limits = Limits { connections: 8, patience, half_closed: HalfClosed::Dropped };
        let server = tokio::spawn(serve(listener, limits, router, stopped));
        let ask = async |client: &mut TcpStream| {
            client.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
            let mut answer = Vec::new();
            while !answer.ends_with(b"now") {
                assert_ne!(client.read_buf(&mut answer).await.unwrap(), 0, "it is not answered");
            }
        };
        let mut known = TcpStream::connect(address).await.unwrap();
        ask(&mut known).await;
        let mut slow = Vec::new();
        for beginning in [&b""[..], b"GET / HTTP/1.1\r\nhost: x\r\n"].repeat(10) {
            let mut client = TcpStream::connect(address).await.unwrap();
            client.write_all(beginning).await.unwrap();
            slow.push(client);
        }
        let asked = async {
            for _ in 0..3 {
                ask(&mut TcpStream::connect(address).await.unwrap()).await;
            }
            ask(&mut known).await; // who has asked before keeps the place
        };
        tokio::time::timeout(Duration::from_secs(60), asked).await.expect("they are answered");
        drop(slow);
        stop.send(true).unwrap();
        drop(known);
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
