//! The end of a miner at nodes: because of wrong settings, or orderly with blocks in flight.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::delivery::Deliveries;

/// A handle to end a miner at nodes.
#[derive(Debug)]
pub struct Ending {
    pub(super) deliveries: Arc<Deliveries>,
    pub(super) failed: oneshot::Receiver<String>,
}

impl Ending {
    /// Waits until the settings prove wrong: a node reports at the start that it is on another chain, or does not
    /// accept our credentials. Later that only makes that node unusable.
    pub async fn failed(&mut self) -> io::Error {
        match (&mut self.failed).await {
            Ok(reason) => io::Error::other(reason),
            // The upstream ended for another reason.
            Err(_) => std::future::pending().await,
        }
    }

    /// Ends the work when first polled, and waits for blocks in flight, up to `limit`.
    pub fn finishing(&self, limit: Duration) -> impl Future<Output = ()> + Send + 'static {
        let deliveries = Arc::clone(&self.deliveries);
        async move { deliveries.finish(limit).await }
    }
}
