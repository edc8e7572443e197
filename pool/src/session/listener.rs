//! Accepts connections, up to the limits, from addresses that are not banned.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use iop_mining::rarely::Rarely;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tracing::warn;

use super::connection::{self, Connection};
use super::tls::Tls;
use super::{Shared, Slot};
use crate::session::miner::Miner;

/// Wait after a failed accept (usually: too many open files), to avoid spinning.
const REFUSED_WAIT: Duration = Duration::from_millis(100);

/// Runs until `close` changes; the connections continue until `stop` does.
pub async fn listen(
    listener: TcpListener,
    tls: Option<Arc<Tls>>,
    shared: Arc<Shared>,
    mut close: watch::Receiver<bool>,
    stop: watch::Receiver<bool>,
) {
    let words = Rarely::default();
    loop {
        let accepted = tokio::select! {
            _ = close.changed() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => match slot(&shared, peer.ip()) {
                Ok(slot) => {
                    let miner = Miner::new(Arc::clone(&shared), slot, peer);
                    let tls = tls.as_ref().map(|tls| tls.accept());
                    let seat = shared.round.seat(Connection::new(stream, tls, miner));
                    tokio::spawn(connection::serve(seat, stop.clone()));
                }
                Err(refused) => {
                    if words.may_warn() {
                        warn!("{refused}");
                    }
                }
            },
            Err(error) => {
                if words.may_warn() {
                    warn!("a connection could not be taken: {error}");
                }
                tokio::time::sleep(REFUSED_WAIT).await;
            }
        }
    }
}

/// Admits a new connection, or says why not.
fn slot(shared: &Shared, ip: IpAddr) -> Result<Slot, String> {
    shared.bans.admit(ip, Instant::now()).map_err(|refused| refused.to_string())?;
    shared.slots.take(ip).map_err(|full| full.to_string())
}
