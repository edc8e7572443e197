//! The API's connections: their number and their lifetime.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tracing::warn;

/// Concurrent connections; further ones wait. A browser uses up to six.
pub(crate) const MAX_CONNECTIONS: usize = 128;
/// Time for a request's line and headers, including the idle time before them.
const HEADER_TIME: Duration = Duration::from_secs(10);
/// Time for a whole connection: a slow reader loses its place, and browsers reconnect.
const CONNECTION_TIME: Duration = Duration::from_secs(60);
/// Most bytes of a request's line and headers.
const MAX_HEADER_BYTES: usize = 16 * 1024;
/// Time for pending answers to finish when the pool stops.
const END_TIME: Duration = Duration::from_secs(2);
/// Wait after a failed accept.
const RETRY: Duration = Duration::from_millis(100);

/// Serves until `stop` changes.
pub(super) async fn serve(listener: TcpListener, router: Router, mut stop: watch::Receiver<bool>) {
    let mut protocol = http1::Builder::new();
    protocol.timer(TokioTimer::new()).header_read_timeout(HEADER_TIME).max_buf_size(MAX_HEADER_BYTES);
    // A client that half-closes after its request, as nc does, still waits for the answer.
    protocol.half_close(true);
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let connections = GracefulShutdown::new();
    loop {
        let place = tokio::select! {
            place = Arc::clone(&places).acquire_owned() => place.expect("the semaphore is never closed"),
            _ = stop.changed() => break,
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.changed() => break,
        };
        match accepted {
            Ok((stream, _)) => {
                let service = TowerToHyperService::new(router.clone());
                let connection = connections.watch(protocol.serve_connection(TokioIo::new(stream), service));
                tokio::spawn(async move {
                    // A failure of one connection concerns no other.
                    let _ = tokio::time::timeout(CONNECTION_TIME, connection).await;
                    drop(place);
                });
            }
            Err(error) => {
                warn!("a connection to the API cannot be taken: {error}");
                tokio::time::sleep(RETRY).await;
            }
        }
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
}
