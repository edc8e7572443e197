//! The API's connections: their number and their lifetime, and who gives way when there are too many.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::Router;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, oneshot, watch};
use tracing::warn;

/// Concurrent connections. Further ones wait, the first of them accepted. A browser uses up to six.
pub(crate) const MAX_CONNECTIONS: usize = 128;
/// Time for a request's line and headers, including the idle time before them: more than the two seconds after which a
/// dashboard asks again, so that it keeps its connection.
const HEADER_TIME: Duration = Duration::from_secs(5);
/// Time for a whole connection: a slow reader loses its place, and browsers reconnect.
const CONNECTION_TIME: Duration = Duration::from_secs(60);
/// Most bytes of a request's line and headers.
const MAX_HEADER_BYTES: usize = 16 * 1024;
/// Time for pending answers to finish when the pool stops.
const END_TIME: Duration = Duration::from_secs(2);
/// Wait after a failed accept.
const RETRY: Duration = Duration::from_millis(100);

/// Connections that have not sent a whole request yet, by their order. Where places run out the oldest one gives way, so
/// that whoever sends nothing, or a byte now and then, keeps nobody who asks away.
#[derive(Debug, Default)]
struct Newcomers(Mutex<BTreeMap<u64, oneshot::Sender<()>>>);

impl Newcomers {
    /// Adds one; it must leave when it is told to.
    fn add(&self, number: u64) -> oneshot::Receiver<()> {
        let (leave, told) = oneshot::channel();
        self.lock().insert(number, leave);
        told
    }

    /// One has sent a request or is gone: it is told nothing any more.
    fn remove(&self, number: u64) {
        self.lock().remove(&number);
    }

    /// Tells the oldest one, if there is any, to leave.
    fn close_oldest(&self) {
        let oldest = self.lock().pop_first();
        if let Some((_, leave)) = oldest {
            let _ = leave.send(()); // in vain if it is just leaving
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, oneshot::Sender<()>>> {
        self.0.lock().expect("no panic while the lock is held")
    }
}

/// Serves until `stop` changes.
pub(super) async fn serve(listener: TcpListener, router: Router, stop: watch::Receiver<bool>) {
    serve_within(listener, router, stop, HEADER_TIME).await;
}

async fn serve_within(
    listener: TcpListener,
    router: Router,
    mut stop: watch::Receiver<bool>,
    header_time: Duration,
) {
    let mut protocol = http1::Builder::new();
    protocol.timer(TokioTimer::new()).header_read_timeout(header_time).max_buf_size(MAX_HEADER_BYTES);
    // A client that half-closes after its request, as nc does, still waits for the answer.
    protocol.half_close(true);
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let newcomers = Arc::new(Newcomers::default());
    let connections = GracefulShutdown::new();
    for number in 0u64.. {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.changed() => break,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                warn!("a connection to the API cannot be taken: {error}");
                tokio::time::sleep(RETRY).await;
                continue;
            }
        };
        if places.available_permits() == 0 {
            newcomers.close_oldest();
        }
        let place = tokio::select! {
            place = Arc::clone(&places).acquire_owned() => place.expect("the semaphore is never closed"),
            _ = stop.changed() => break,
        };
        let told = newcomers.add(number);
        let (router, waiting) = (TowerToHyperService::new(router.clone()), Arc::clone(&newcomers));
        let service = service_fn(move |request: Request<Incoming>| {
            waiting.remove(number);
            router.call(request)
        });
        let connection = connections.watch(protocol.serve_connection(TokioIo::new(stream), service));
        let newcomers = Arc::clone(&newcomers);
        tokio::spawn(async move {
            tokio::select! {
                // A failure of one connection concerns no other.
                _ = tokio::time::timeout(CONNECTION_TIME, connection) => {}
                Ok(()) = told => {}
            }
            newcomers.remove(number);
            drop(place);
        });
    }
    drop(listener);
    let _ = tokio::time::timeout(END_TIME, connections.shutdown()).await; // remaining ones are cut off
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    #[tokio::test]
    async fn a_client_that_closes_its_side_after_the_request_is_answered() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = watch::channel(false);
        // Longer than it takes to notice that the client has closed its side.
        let late = async || {
            tokio::time::sleep(Duration::from_millis(200)).await;
            "late"
        };
        let server = tokio::spawn(serve(listener, Router::new().route("/", get(late)), stopped));
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        client.shutdown().await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("late"), "{answer:?}");
        stop.send(true).unwrap();
        server.await.unwrap();
    }

    /// Asks, and reads the answer, which is `done`.
    async fn ask(client: &mut TcpStream) {
        client.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"done") {
            assert_ne!(client.read_buf(&mut answer).await.unwrap(), 0, "it is not answered");
        }
    }

    #[tokio::test]
    async fn connections_that_ask_nothing_give_way_to_those_that_ask() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = watch::channel(false);
        let router = Router::new().route("/", get(async || "done"));
        // Nobody leaves for being slow.
        let hours = Duration::from_secs(24 * 3600);
        let server = tokio::spawn(serve_within(listener, router, stopped, hours));
        let mut known = TcpStream::connect(address).await.unwrap();
        ask(&mut known).await;
        let mut slow = Vec::new();
        for _ in 0..MAX_CONNECTIONS + 10 {
            let mut client = TcpStream::connect(address).await.unwrap();
            client.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n").await.unwrap();
            slow.push(client);
        }
        let asked = async {
            for _ in 0..3 {
                ask(&mut TcpStream::connect(address).await.unwrap()).await;
            }
            ask(&mut known).await; // who has asked before keeps the place
        };
        tokio::time::timeout(CONNECTION_TIME / 2, asked).await.expect("they are answered");
        drop(slow);
        stop.send(true).unwrap();
        server.await.unwrap();
    }
}
