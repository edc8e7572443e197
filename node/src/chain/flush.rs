//! When the tip is written, and with what.
//!
//! Guarantee: tip, coins and registry are written in one batch, all as of the same block; blocks and undo data were
//! written before. So whenever the process ends, even by kill -9, the database is as of some former tip, and the
//! next start connects the blocks stored since. During initial block download the batch is written when the coin
//! cache is full or a minute has passed; otherwise after every change of the tip. A failure of the machine can lose
//! only the newest batches, a few seconds' worth ([`crate::storage::Storage::sync`]).

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use iop_consensus::address::Address;
use iop_consensus::license::registry::RegistryUndo;
use tracing::debug;

use super::state::ChainState;
use crate::storage::StorageError;

/// During initial block download, and while many blocks are connected, the tip is written this often at least.
const FLUSH_EVERY: Duration = Duration::from_secs(60);

/// What has changed since the tip was written, apart from coins.
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

    /// As if the tip had last been written long ago.
    #[cfg(test)]
    pub(super) fn age(&mut self) {
        self.written = Instant::now().checked_sub(2 * FLUSH_EVERY).expect("the clock began before");
    }
}

impl ChainState {
    /// Writes the tip if it is due.
    pub(super) fn flush_if_due(&mut self, now: u64) -> Result<(), StorageError> {
        if !self.unwritten.tip_moved {
            return Ok(());
        }
        let due = self.coins.is_full()
            || self.unwritten.written.elapsed() > FLUSH_EVERY
            || !self.is_initial_block_download(now);
        if due { self.flush() } else { Ok(()) }
    }

    /// Writes the tip between two blocks of many, if the coin cache is full or the tip was not written for
    /// [`FLUSH_EVERY`]: connecting stored blocks can take hours.
    pub(super) fn flush_on_the_way(&mut self) -> Result<(), StorageError> {
        let due = self.coins.is_full() || self.unwritten.written.elapsed() > FLUSH_EVERY;
        if due { self.flush() } else { Ok(()) }
    }

    /// Writes the tip if the coin cache is full, and prunes nothing: for the way down to a fork, where blocks below
    /// the tip are still to be disconnected.
    pub(super) fn write_if_full(&mut self) -> Result<(), StorageError> {
        if self.coins.is_full() { self.write_tip() } else { Ok(()) }
    }

    /// Writes tip, coins and registry, so that the database is as of the tip, then prunes old blocks.
    ///
    /// # Errors
    /// When the storage fails; the state must not be used any more then.
    pub fn flush(&mut self) -> Result<(), StorageError> {
        if !self.unwritten.tip_moved {
            return Ok(());
        }
        self.write_tip()?;
        self.prune()
    }

    /// Like [`ChainState::flush`], but prunes nothing.
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

    /// Writes the tip and syncs it to disk, keeping no coins in memory. Called last when the node stops.
    ///
    /// # Errors
    /// When the storage fails.
    pub fn close(&mut self) -> Result<(), StorageError> {
        self.coins.keep_nothing();
        self.flush()?;
        if let Some(reclaiming) = self.reclaiming.take() {
            // The reclaiming thread holds the database, which must be closed before the process ends.
            let _ = reclaiming.join();
        }
        self.storage.sync()
    }

    /// Whether a tip was written since the last call that may not be on disk yet.
    pub(super) fn take_unsynced(&mut self) -> bool {
        std::mem::take(&mut self.unsynced)
    }
}
