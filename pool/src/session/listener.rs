//! Takes connections, up to the limit.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio::sync::watch;
use tracing::warn;

use super::{Shared, connection};
use crate::session::miner::Miner;

/// Wait after the system refused a connection (usually: too many open files), so that we do not spin.
const REFUSED_WAIT: Duration = Duration::from_millis(100);
/// How often it is said that connections are turned away.
const REMIND: Duration = Duration::from_secs(60);

/// Runs until `stop` changes.
pub async fn listen(listener: TcpListener, shared: Arc<Shared>, mut stop: watch::Receiver<bool>) {
    let mut warned: Option<Instant> = None;
    let mut warn_rarely = |text: String| {
        if warned.is_none_or(|at| at.elapsed() > REMIND) {
            warn!("{text}");
            warned = Some(Instant::now());
        }
    };
    loop {
        let accepted = tokio::select! {
            _ = stop.changed() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => match shared.places.take(peer.ip()) {
                Ok(place) => {
                    let miner = Miner::new(Arc::clone(&shared), place, peer);
                    tokio::spawn(connection::serve(stream, miner, shared.snapshots.clone(), stop.clone()));
                }
                Err(full) => warn_rarely(full.to_string()),
            },
            Err(error) => {
                warn_rarely(format!("a connection could not be taken: {error}"));
                tokio::time::sleep(REFUSED_WAIT).await;
            }
        }
    }
}
