//! The RPC server: access by address, number of connections, and timeouts.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::auth::Credentials;
use super::http::{self, MAX_BODY_BYTES, Shared};
use super::methods::Context;
use super::subnet::Subnet;
use crate::connections::{self, HalfClosed, Limits};

/// Maximum number of simultaneous connections; others wait. Together with RocksDB's files this stays below the
/// common limit of 1,024 open files, at which the database could not write.
const MAX_CONNECTIONS: usize = 512;

/// Access rules and timeouts for clients.
pub(crate) struct Access {
    /// The credentials that clients must present.
    pub(crate) credentials: Credentials,
    /// Addresses that clients may connect from besides local ones; empty allows all.
    pub(crate) allowed: Vec<Subnet>,
    /// How long a client may take to send a request's headers (including idle time before them) or its body, and to
    /// accept more of an answer (Core's -rpcservertimeout).
    pub(crate) patience: Duration,
}

impl Access {
    /// Whether clients at this address may connect. Local ones always may.
    pub(super) fn lets_in(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let named = || self.allowed.iter().any(|subnet| subnet.contains(address));
        self.allowed.is_empty() || address.is_loopback() || named()
    }
}

/// Serves until `shutdown` becomes true; calls in progress are answered first.
pub(crate) async fn serve(
    listener: TcpListener,
    context: Context,
    access: Access,
    shutdown: watch::Receiver<bool>,
) {
    // Long polls wait for the next block.
    let half_closed = HalfClosed::Dropped;
    let limits = Limits { connections: MAX_CONNECTIONS, patience: access.patience, half_closed };
    let shared = Arc::new(Shared { context, access });
    let router = Router::new().fallback(http::handle).layer(DefaultBodyLimit::max(MAX_BODY_BYTES));
    let router = move |peer: SocketAddr| router.clone().layer(axum::Extension((shared.clone(), peer)));
    connections::serve(listener, limits, router, shutdown).await;
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn with_a_list_only_this_machine_and_those_on_it_are_let_in() {
        let access = |allowed: &[&str]| Access {
            credentials: Credentials::password("", ""),
            allowed: allowed.iter().map(|text| text.parse().unwrap()).collect(),
            patience: Duration::ZERO,
        };
        let lets_in = |allowed: &[&str], address: &str| access(allowed).lets_in(address.parse().unwrap());
        assert!(lets_in(&[], "8.8.8.8"));
        assert!(
            lets_in(&["10.0.0.0/8", "1.2.3.4"], "10.1.1.1")
                && lets_in(&["10.0.0.0/8", "1.2.3.4"], "::ffff:1.2.3.4")
        );
        assert!(!lets_in(&["10.0.0.0/8"], "11.1.1.1") && !lets_in(&["10.0.0.0/8"], "::1:1"));
        assert!(lets_in(&["10.0.0.0/8"], "127.0.0.1") && lets_in(&["10.0.0.0/8"], "::1"));
    }
}
