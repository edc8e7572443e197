//! When the tip is written, and with what.
//!
//! The guarantee: tip, coins and registry are written in one batch, always as of the same block; blocks and what takes
//! them back were written before. So whenever the process ends, even by kill -9, the database is at some block that
//! was the tip, and at the next start the blocks stored since are connected again. While the node is far behind, the
//! batch is written when the coins' memory is full or a minute has passed; otherwise after every change of the tip.
//! What the machine's own failure may take back is only the newest batches, a few seconds' worth
//! ([`crate::storage::Storage::sync`]).

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use iop_consensus::address::Address;
use iop_consensus::license::registry::RegistryUndo;
use tracing::debug;

use super::state::ChainState;
use crate::storage::StorageError;

/// While the node is far behind, the tip is written at least this often.
const FLUSH_EVERY: Duration = Duration::from_secs(60);

/// What has changed since the tip was written, besides coins.
pub(super) struct Unwritten {
    licenses: BTreeSet<Address>,
    heights: BTreeSet<u32>,
    tip_moved: bool,
    written: Instant,
}

impl Default for Unwritten {
    fn default() -> Self {
        Self {
            licenses: BTreeSet::new(),
            heights: BTreeSet::new(),
            tip_moved: false,
            written: Instant::now(),
        }
    }
}

impl Unwritten {
    /// Notes that the block at `height` was connected or disconnected and changed these licenses.
    pub(super) fn note(&mut self, height: u32, registry: &RegistryUndo) {
        self.licenses.extend(registry.licenses.keys());
        self.heights.insert(height);
        self.tip_moved = true;
    }
}

impl ChainState {
    /// Writes the tip if it is time.
    pub(super) fn flush_if_due(&mut self, now: u64) -> Result<(), StorageError> {
        if !self.unwritten.tip_moved {
            return Ok(());
        }
        let due = self.coins.is_full()
            || self.unwritten.written.elapsed() > FLUSH_EVERY
            || !self.is_initial_block_download(now);
        if due { self.flush() } else { Ok(()) }
    }

    /// Writes the tip if the coins' memory is full.
    pub(super) fn flush_if_full(&mut self) -> Result<(), StorageError> {
        if self.coins.is_full() { self.flush() } else { Ok(()) }
    }

    /// [`ChainState::flush_if_full`] on the way down to a fork: nothing is pruned, for blocks below the tip are still
    /// to be taken back.
    pub(super) fn write_if_full(&mut self) -> Result<(), StorageError> {
        if self.coins.is_full() { self.write_tip() } else { Ok(()) }
    }

    /// Writes tip, coins and registry: afterwards the database is as of the tip. Then old blocks are pruned.
    ///
    /// # Errors
    /// When the storage fails; then the state must not be used any more.
    pub fn flush(&mut self) -> Result<(), StorageError> {
        if !self.unwritten.tip_moved {
            return Ok(());
        }
        self.write_tip()?;
        self.prune()
    }

    /// [`ChainState::flush`] that prunes nothing.
    pub(super) fn write_tip(&mut self) -> Result<(), StorageError> {
        if !self.unwritten.tip_moved {
            return Ok(());
        }
        let unwritten = std::mem::take(&mut self.unwritten);
        let started = Instant::now();
        let mut batch = self.storage.batch_of(self.coins.batch_bytes());
        let coins = self.coins.cached();
        self.coins.flush_into(&mut batch);
        batch.put_registry(&self.registry, &unwritten.licenses, unwritten.heights);
        batch.put_tip(&self.index.get(self.index.tip()).hash);
        self.storage.commit(batch)?;
        debug!(coins, milliseconds = started.elapsed().as_millis() as u64, "tip written");
        self.unsynced = true;
        Ok(())
    }

    /// Writes the tip and brings it to the disk, keeping no coins in memory: the last thing that a node does.
    ///
    /// # Errors
    /// When the storage fails.
    pub fn close(&mut self) -> Result<(), StorageError> {
        self.coins.keep_nothing();
        self.flush()?;
        if let Some(reclaiming) = self.reclaiming.take() {
            // It holds the database, which must be closed before the process ends.
            let _ = reclaiming.join();
        }
        self.storage.sync()
    }

    /// Whether a tip was written since the last call that may not be on the disk yet.
    pub(super) fn take_unsynced(&mut self) -> bool {
        std::mem::take(&mut self.unsynced)
    }
}
