//! The API's connections: their limits. [`iop_mining::http`] serves them.

use std::future::pending;
use std::io;
use std::time::Duration;

use axum::Router;
use hyper_util::service::TowerToHyperService;
use iop_mining::http::{self, Limits};
use tokio::net::TcpListener;
use tracing::warn;

/// What connections may take.
const LIMITS: Limits = Limits {
    // A monitor uses one, a browser up to six.
    connections: 32,
    header_time: Duration::from_secs(5),
    connection_time: Duration::from_secs(30),
    // The least that hyper supports.
    header_bytes: 8 * 1024,
    // Not used: it never stops, but is dropped.
    end_time: Duration::ZERO,
};

/// Serves while it is polled.
pub(super) async fn serve(listener: TcpListener, router: Router) {
    serve_within(listener, router, LIMITS).await;
}

async fn serve_within(listener: TcpListener, router: Router, limits: Limits) {
    http::serve(listener, TowerToHyperService::new(router), limits, pending(), complain).await;
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
    async fn connections_that_send_nothing_give_way_to_one_that_asks() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route("/", get(async || "done"));
        // Nobody leaves for being slow.
        let hours = Duration::from_secs(24 * 3600);
        let limits = Limits { header_time: hours, connection_time: hours, ..LIMITS };
        let server = tokio::spawn(serve_within(listener, router, limits));
        let mut silent = Vec::new();
        for _ in 0..LIMITS.connections {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        let asked = async {
            let mut client = TcpStream::connect(address).await.unwrap();
            client.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
            let mut answer = String::new();
            client.read_to_string(&mut answer).await.unwrap();
            answer
        };
        let answer = tokio::time::timeout(Duration::from_secs(20), asked).await.expect("it is answered");
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("done"), "{answer:?}");
        drop(silent);
        server.abort();
    }
}
