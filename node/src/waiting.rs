//! The mempool file: loaded at the start, saved when the node stops.
//!
//! Lives here: when that happens, and what is logged. Does not live here: the file's format (see
//! [`crate::mempool::persist`]). Transactions are offered one by one, so that the node serves meanwhile. An
//! unusable file costs one log line, and never prevents the start.

use std::path::{Path, PathBuf};

use tokio::task::JoinHandle;
use tracing::{info, warn};

use crate::chain::actor::{ChainHandle, Stopped};
use crate::chain::clock::now;
use crate::mempool::persist::{self, FILE_NAME, Waiting};

/// The mempool file, and the chain that its transactions are offered to.
#[derive(Clone)]
pub(crate) struct WaitingFile {
    path: PathBuf,
    chain: ChainHandle,
}

impl WaitingFile {
    pub(crate) fn new(datadir: &Path, chain: ChainHandle) -> Self {
        Self { path: datadir.join(FILE_NAME), chain }
    }

    /// Offers the file's transactions; returns whether all were offered.
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

    /// Saves the mempool, unless loading did not finish: then the old file is more complete.
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
