//! The mempool's file in the node's life: read at the start, written at the stop.
//!
//! Lives here: when that is done, and what is said of it. Does not live here: the file's form (see
//! [`crate::mempool::persist`]). Transactions are offered again one by one, so that the node serves meanwhile. A file
//! that cannot be used costs one line in the log, never the start.

use std::path::{Path, PathBuf};

use tokio::task::JoinHandle;
use tracing::{info, warn};

use crate::chain::actor::{ChainHandle, Stopped};
use crate::chain::clock::now;
use crate::mempool::persist::{self, FILE_NAME, Waiting};

/// The file, and the chain that its transactions are for.
#[derive(Clone)]
pub(crate) struct WaitingFile {
    path: PathBuf,
    chain: ChainHandle,
}

impl WaitingFile {
    pub(crate) fn new(datadir: &Path, chain: ChainHandle) -> Self {
        Self { path: datadir.join(FILE_NAME), chain }
    }

    /// Offers what the file holds. Says whether all of it was offered.
    pub(crate) async fn load(self) -> bool {
        let path = self.path.clone();
        let read = tokio::task::spawn_blocking(move || persist::load(&path)).await;
        let waiting = match read {
            Ok(Ok(Some(waiting))) => waiting,
            Ok(Ok(None)) => return true,
            Ok(Err(error)) => {
                warn!("{} {error}: waiting transactions are not taken over", self.path.display());
                return true;
            }
            Err(_) => return false,
        };
        let (total, mut accepted) = (waiting.len(), 0usize);
        for (tx, time) in waiting {
            let tx = std::sync::Arc::unwrap_or_clone(tx);
            match self.chain.run(move |state| state.offer_again(tx, time, now())).await {
                Ok(outcome) => accepted += usize::from(outcome.is_ok()),
                Err(Stopped) => return false,
            }
        }
        info!(accepted, dropped = total - accepted, "waiting transactions taken over from the last run");
        true
    }

    /// Writes the file, unless the one from before was not taken over to its end: then it is the better one.
    pub(crate) async fn save(self, loading: JoinHandle<bool>) {
        if !loading.is_finished() {
            loading.abort();
        }
        if !loading.await.unwrap_or(false) {
            return;
        }
        let Ok(waiting) = self.chain.run(|state| Ok(state.mempool().waiting())).await else { return };
        let path = self.path.clone();
        let written = tokio::task::spawn_blocking(move || save(&path, &waiting)).await;
        if let Ok(Err(error)) = written {
            warn!("{} cannot be written: {error}", self.path.display());
        }
    }
}

fn save(path: &Path, waiting: &[Waiting]) -> std::io::Result<()> {
    persist::save(path, waiting)?;
    info!(transactions = waiting.len(), "waiting transactions kept for the next run");
    Ok(())
}
