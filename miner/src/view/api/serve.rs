//! The API's connections: how many at a time, and how long each may last.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tracing::warn;

/// Connections at a time; the next wait. A monitor takes one, a browser up to six.
const MAX_CONNECTIONS: usize = 32;
/// Time for a request's line and headers, the idle time before them included.
const HEADER_TIME: Duration = Duration::from_secs(5);
/// Time for a whole connection: who reads too slowly gives its place back, and all clients connect again.
const CONNECTION_TIME: Duration = Duration::from_secs(30);
/// Bytes of a request's line and headers: the least that hyper takes.
const MAX_HEADER_BYTES: usize = 8 * 1024;
/// Wait after a connection could not be taken, as when there are too many open files.
const RETRY: Duration = Duration::from_millis(100);

/// Serves for as long as it is polled.
pub(super) async fn serve(listener: TcpListener, router: Router) -> io::Result<()> {
    let mut protocol = http1::Builder::new();
    protocol.timer(TokioTimer::new()).header_read_timeout(HEADER_TIME).max_buf_size(MAX_HEADER_BYTES);
    // A client that closes its side after the request, as nc does, waits for the answer all the same.
    protocol.half_close(true);
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let place = Arc::clone(&places).acquire_owned().await.expect("the semaphore is never closed");
        match listener.accept().await {
            Ok((stream, _)) => {
                let service = TowerToHyperService::new(router.clone());
                let connection = protocol.serve_connection(TokioIo::new(stream), service);
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
}
