//! The API's connections: how many at a time, and how long each may last.

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

/// Connections at a time; the next wait. A browser uses up to six.
const MAX_CONNECTIONS: usize = 128;
/// Time for a request's line and headers, the idle time before them included.
const HEADER_TIME: Duration = Duration::from_secs(10);
/// Time for a whole connection: who reads too slowly gives its place back, and browsers connect again.
const CONNECTION_TIME: Duration = Duration::from_secs(60);
/// Bytes of a request's line and headers.
const MAX_HEADER_BYTES: usize = 16 * 1024;
/// Time in which answers on their way may end when the pool stops.
const END_TIME: Duration = Duration::from_secs(2);
/// Wait after a connection could not be taken.
const RETRY: Duration = Duration::from_millis(100);

/// Serves until `stop` changes.
pub(super) async fn serve(listener: TcpListener, router: Router, mut stop: watch::Receiver<bool>) {
    let mut protocol = http1::Builder::new();
    protocol.timer(TokioTimer::new()).header_read_timeout(HEADER_TIME).max_buf_size(MAX_HEADER_BYTES);
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
                    // What a client does to its connection concerns nobody else.
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
    let _ = tokio::time::timeout(END_TIME, connections.shutdown()).await; // those that are left are cut off
}
