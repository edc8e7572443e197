//! Pruning: deletes old blocks to save disk space (`PruneBlockFiles`, but by single blocks).
//!
//! Lives here: which blocks are deleted, and when. The newest [`MIN_BLOCKS_TO_KEEP`] blocks of the active chain as
//! last written are kept with their undo data, so that any reorganisation of that depth stays possible, also after
//! a crash. Headers, the registry and the coins stay. Does not live here: requests for a deleted block (RPC,
//! peers).

use super::state::ChainState;
use crate::storage::StorageError;
use tracing::info;

/// How many of the newest blocks are always kept, and how far ahead of the tip an unrequested block may be
/// (`MIN_BLOCKS_TO_KEEP`).
pub const MIN_BLOCKS_TO_KEEP: u32 = 288;
/// The smallest prune target in MiB that has room for the blocks that must be kept
/// (`MIN_DISK_SPACE_FOR_BLOCK_FILES`).
pub const MIN_PRUNE_MIB: u64 = 550;
/// Pruning goes below the target by this part of it (one twentieth), so that the next pruning is not due at once.
const SLACK: u64 = 20;

impl ChainState {
    /// The lowest height from which on every block of the active chain is stored; 0 if nothing was pruned.
    pub fn pruned_below(&self) -> u32 {
        self.pruned_below
    }

    /// Bytes of blocks and undo data, as stored.
    pub fn stored_bytes(&self) -> u64 {
        self.stored_bytes
    }

    /// The prune target in bytes, if any.
    pub fn prune_target(&self) -> Option<u64> {
        self.options.prune
    }

    /// Whether the active chain can be disconnected down to `height`.
    pub(super) fn can_disconnect_to(&self, height: u32) -> bool {
        height + 1 >= self.pruned_below
    }

    /// Deletes the oldest blocks if they take too much space. To be called right after the tip was written.
    pub(super) fn prune(&mut self) -> Result<(), StorageError> {
        let Some(target) = self.options.prune.filter(|&target| self.stored_bytes > target) else {
            return Ok(());
        };
        let tip = self.index.get(self.index.tip()).record.height;
        let (from, keep_from) = (self.pruned_below.max(1), tip.saturating_sub(MIN_BLOCKS_TO_KEEP));
        let goal = target - target / SLACK;
        let mut batch = self.storage.batch();
        let before = self.stored_bytes;
        let mut height = from;
        while height < keep_from && self.stored_bytes > goal {
            let id = self.index.active_at(height).expect("heights below the tip are active");
            let entry = self.index.get_mut(id);
            batch.delete_block(&entry.hash);
            self.stored_bytes -= u64::from(std::mem::take(&mut entry.record.bytes));
            entry.record.pruned = true;
            batch.put_index(&entry.hash, &entry.record);
            height += 1;
        }
        if height == from {
            return Ok(());
        }
        self.storage.commit(batch)?;
        self.pruned_below = height;
        info!(blocks = height - from, below = height, stored = self.stored_bytes, "old blocks deleted");
        self.unreclaimed += before - self.stored_bytes;
        let under_way = self.reclaiming.as_ref().is_some_and(|thread| !thread.is_finished());
        if self.unreclaimed >= target / SLACK && !under_way {
            self.unreclaimed = 0;
            let storage = self.storage.clone();
            let thread = std::thread::Builder::new().name("reclaim".to_owned());
            // Gives the disk space back; if no thread can be started, the next pruning does.
            self.reclaiming = thread.spawn(move || storage.reclaim()).ok();
        }
        Ok(())
    }
}
