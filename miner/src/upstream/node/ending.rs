//! The end of a miner at nodes: wrong settings, and blocks that are on their way when it is told to stop.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::delivery::Deliveries;

/// The end of a miner at nodes, from outside.
#[derive(Debug)]
pub struct Ending {
    pub(super) deliveries: Arc<Deliveries>,
    pub(super) failed: oneshot::Receiver<String>,
}

impl Ending {
    /// Waits until it is clear that the settings are wrong: a node answers at the start that it is on another chain, or
    /// does not know us. Later that is trouble of that node only.
    pub async fn failed(&mut self) -> io::Error {
        match (&mut self.failed).await {
            Ok(reason) => io::Error::other(reason),
            // The upstream is gone, for another reason.
            Err(_) => std::future::pending().await,
        }
    }

    /// Ends the work when it is first waited for, and waits for blocks that are on their way, so long at most.
    pub fn finishing(&self, limit: Duration) -> impl Future<Output = ()> + Send + 'static {
        let deliveries = Arc::clone(&self.deliveries);
        async move { deliveries.finish(limit).await }
    }
}
