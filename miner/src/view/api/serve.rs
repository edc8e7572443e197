//! The API's connections: their number and their lifetime.

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

/// Concurrent connections; further ones wait. A monitor uses one, a browser up to six.
const MAX_CONNECTIONS: usize = 32;
/// Time for a request's line and headers, including the idle time before them.
const HEADER_TIME: Duration = Duration::from_secs(5);
/// Time for a whole connection: a slow reader loses its place, and all clients reconnect.
const CONNECTION_TIME: Duration = Duration::from_secs(30);
/// Most bytes of a request's line and headers: the least that hyper supports.
const MAX_HEADER_BYTES: usize = 8 * 1024;
/// Wait after a failed accept, for example because too many files are open.
const RETRY: Duration = Duration::from_millis(100);

/// Serves while it is polled.
pub(super) async fn serve(listener: TcpListener, router: Router) -> io::Result<()> {
    let mut protocol = http1::Builder::new();
    protocol.timer(TokioTimer::new()).header_read_timeout(HEADER_TIME).max_buf_size(MAX_HEADER_BYTES);
    // A client that half-closes after its request, as nc does, still waits for the answer.
    protocol.half_close(true);
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let place = Arc::clone(&places).acquire_owned().await.expect("the semaphore is never closed");
        match listener.accept().await {
            Ok((stream, _)) => {
                let service = TowerToHyperService::new(router.clone());
                let connection = protocol.serve_connection(TokioIo::new(stream), service);
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
}
