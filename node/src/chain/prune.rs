//! Old blocks deleted to save room (`PruneBlockFiles`, by single blocks).
//!
//! Lives here: which blocks go, and when. Kept are the newest [`MIN_BLOCKS_TO_KEEP`] of the active chain as it was
//! last written, with what takes them back, so that any reorganisation of that depth is possible, also after a crash.
//! Headers, the registry and the coins stay. Does not live here: that a deleted block is asked for (RPC, peers).

use super::state::ChainState;
use crate::storage::StorageError;
use tracing::info;

/// The newest blocks that are always kept, and how far ahead of the tip a block that was not asked for may be
/// (`MIN_BLOCKS_TO_KEEP`).
pub const MIN_BLOCKS_TO_KEEP: u32 = 288;
/// Below this a prune target could not hold the blocks that must be kept, MiB (`MIN_DISK_SPACE_FOR_BLOCK_FILES`).
pub const MIN_PRUNE_MIB: u64 = 550;
/// A pruning goes this part of the target below it, so that the next is not due at once.
const SLACK: u64 = 20;

impl ChainState {
    /// The active chain's lowest height from which on every block is here; 0 when nothing was pruned.
    pub fn pruned_below(&self) -> u32 {
        self.pruned_below
    }

    /// Bytes of blocks and of what takes them back, as stored.
    pub fn stored_bytes(&self) -> u64 {
        self.stored_bytes
    }

    /// The target in bytes that blocks are deleted for, if any.
    pub fn prune_target(&self) -> Option<u64> {
        self.options.prune
    }

    /// Whether the active chain can be taken back until `height` is the tip.
    pub(super) fn can_disconnect_to(&self, height: u32) -> bool {
        height + 1 >= self.pruned_below
    }

    /// Deletes the oldest blocks if they take more room than they may. To be called when the tip was just written.
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
            // Gives the room back; if no thread can be had, the next pruning does.
            self.reclaiming = thread.spawn(move || storage.reclaim()).ok();
        }
        Ok(())
    }
}
