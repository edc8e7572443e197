//! Operator overrides for a block (`InvalidateBlock`, `ResetBlockFailureFlags`, `PreciousBlock`).
//!
//! Lives here: marking a block as if it broke a rule, clearing such marks, and preferring one of several tips with
//! the same work. Does not live here: which branch becomes active then (`activate.rs`). Data goes: RPC -> handle ->
//! here -> index and candidates -> best branch activated.

use std::cmp::Reverse;

use bitcoin::BlockHash;

use super::events::ChainEvent;
use super::index::BlockId;
use super::state::ChainState;
use crate::storage::StorageError;

/// Why an operator's request was not carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotDone {
    /// No header has this hash.
    #[error("Block not found")]
    Unknown,
    /// Genesis is always active.
    #[error("genesis cannot be invalidated")]
    Genesis,
    /// The blocks that would have to be disconnected were pruned.
    #[error("Block not available (pruned data)")]
    Pruned,
}

impl ChainState {
    /// Treats the block as if it broke a rule, and activates the best branch without it (`InvalidateBlock`, then
    /// `ActivateBestChain`). `now` is in seconds.
    ///
    /// # Errors
    /// The outer error is a storage failure; the inner one is the reason nothing was done.
    pub fn invalidate_block(
        &mut self,
        hash: &BlockHash,
        now: u64,
    ) -> Result<Result<(), NotDone>, StorageError> {
        let Some(id) = self.index.find(hash) else { return Ok(Err(NotDone::Unknown)) };
        if self.index.get(id).parent.is_none() {
            return Ok(Err(NotDone::Genesis));
        }
        if self.index.is_active(id) && !self.can_disconnect_to(self.index.get(id).record.height - 1) {
            return Ok(Err(NotDone::Pruned));
        }
        let (start, mut disconnected) = (self.index.tip(), false);
        while self.index.is_active(id) {
            self.disconnect_tip()?;
            disconnected = true;
        }
        // The tip written last may be on the branch that is about to be marked; a restart must not return to it.
        self.write_tip()?;
        let mut batch = self.storage.batch();
        let mut walk = start;
        while disconnected && walk != id {
            self.remove_candidate(walk);
            let entry = self.index.get_mut(walk);
            entry.record.failed_ancestor = true;
            batch.put_index(&entry.hash, &entry.record);
            walk = entry.parent.expect("the walk ends at the block, which is not genesis");
        }
        self.storage.commit(batch)?;
        self.mark_failed(id)?;
        self.rebuild_candidates();
        self.activate_after(start, disconnected, None, now)?;
        Ok(Ok(()))
    }

    /// Clears the failure marks of the block, its ancestors and its descendants, and activates the best branch
    /// (`ResetBlockFailureFlags`, then `ActivateBestChain`). `now` is in seconds.
    ///
    /// # Errors
    /// The outer error is a storage failure; the inner one is the reason nothing was done.
    pub fn reconsider_block(
        &mut self,
        hash: &BlockHash,
        now: u64,
    ) -> Result<Result<(), NotDone>, StorageError> {
        let Some(id) = self.index.find(hash) else { return Ok(Err(NotDone::Unknown)) };
        let mut batch = self.storage.batch();
        let mut related = self.index.descendants(id);
        let mut walk = Some(id);
        while let Some(id) = walk {
            related.push(id);
            walk = self.index.get(id).parent;
        }
        for id in related {
            if self.index.get(id).is_failed() {
                let entry = self.index.get_mut(id);
                (entry.record.failed, entry.record.failed_ancestor) = (false, false);
                batch.put_index(&entry.hash, &entry.record);
                self.index.forget_failed(id);
                self.index.consider_header(id);
                self.consider(id);
            }
        }
        self.storage.commit(batch)?;
        self.events.send(|| ChainEvent::Reconsidered(*hash));
        self.activate_best_chain(None, now)?;
        Ok(Ok(()))
    }

    /// Prefers the block over others with the same work, as if it had arrived first (`PreciousBlock`). `now` is in
    /// seconds.
    ///
    /// # Errors
    /// The outer error is a storage failure; the inner one is the reason nothing was done.
    pub fn precious_block(
        &mut self,
        hash: &BlockHash,
        now: u64,
    ) -> Result<Result<(), NotDone>, StorageError> {
        let Some(id) = self.index.find(hash) else { return Ok(Err(NotDone::Unknown)) };
        if self.index.get(id).work < self.index.get(self.index.tip()).work {
            return Ok(Ok(()));
        }
        self.remove_candidate(id);
        self.index.make_first(id);
        if !self.index.get(id).is_failed() {
            self.consider(id);
        }
        self.activate_best_chain(None, now)?;
        Ok(Ok(()))
    }

    /// Rebuilds the candidates from all entries: blocks with less work than the old tip may be the best now.
    fn rebuild_candidates(&mut self) {
        let usable = |id: &BlockId| !self.index.get(*id).is_failed();
        let ids: Vec<BlockId> = self.index.ids().filter(usable).collect();
        ids.into_iter().for_each(|id| self.consider(id));
    }

    pub(super) fn remove_candidate(&mut self, id: BlockId) {
        let entry = self.index.get(id);
        self.candidates.remove(&(entry.work, Reverse(entry.arrival), id));
    }
}
