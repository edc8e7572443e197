//! The API's connections: their limits. [`iop_mining::http`] serves them.

use std::io;
use std::time::Duration;

use axum::Router;
use hyper_util::service::TowerToHyperService;
use iop_mining::http::{self, Limits};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tracing::warn;

/// Concurrent connections. A browser uses up to six.
pub(crate) const MAX_CONNECTIONS: usize = 128;
/// What connections may take.
const LIMITS: Limits = Limits {
    connections: MAX_CONNECTIONS,
    // More than the two seconds after which a dashboard asks again, so that it keeps its connection.
    header_time: Duration::from_secs(5),
    connection_time: Duration::from_secs(60),
    header_bytes: 16 * 1024,
    end_time: Duration::from_secs(2),
};

/// Serves until `stop` changes.
pub(super) async fn serve(listener: TcpListener, router: Router, stop: watch::Receiver<bool>) {
    serve_within(listener, router, stop, LIMITS).await;
}

async fn serve_within(
    listener: TcpListener,
    router: Router,
    mut stop: watch::Receiver<bool>,
    limits: Limits,
) {
    let stopped = async move {
        let _ = stop.changed().await; // or whoever could change it is gone
    };
    http::serve(listener, TowerToHyperService::new(router), limits, stopped, complain).await;
}

fn complain(error: &io::Error) {
    warn!("a connection to the API cannot be taken: {error}");
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
        let limits = Limits { header_time: hours, ..LIMITS };
        let server = tokio::spawn(serve_within(listener, router, stopped, limits));
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
        tokio::time::timeout(LIMITS.connection_time / 2, asked).await.expect("they are answered");
        drop(slow);
        stop.send(true).unwrap();
        server.await.unwrap();
    }
}
