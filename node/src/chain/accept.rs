//! Accepts an offered block (`ProcessNewBlock`, `AcceptBlock`).
//!
//! Lives here: which blocks are wanted, the checks of a block against its ancestors, and storing it. Does not live
//! here: headers (`headers.rs`), coins and scripts ([`super::activate`], which makes the best branch active). Data
//! goes: context-free checks ([`CheckedBlock`], on any thread) -> header -> checks against ancestors -> stored ->
//! connected.

use std::sync::Arc;

use bitcoin::Block;
use iop_consensus::block;
use iop_consensus::connect;
use iop_consensus::error::BlockError;
use tracing::info;

use super::checked::{CheckedBlock, Unsound};
use super::events::ChainEvent;
use super::index::BlockId;
use super::prune::MIN_BLOCKS_TO_KEEP;
use super::state::ChainState;
use super::verdict::{BlockAccepted, Rejection, Stored, Submitted};
use crate::storage::{Batch, StorageError};

impl ChainState {
    /// Accepts a block for `submitblock`, filling in a missing witness nonce. `now` is in seconds.
    ///
    /// # Errors
    /// Only when the storage fails.
    pub fn submit(&mut self, mut block: Block, now: u64) -> Result<Submitted, StorageError> {
        let known = self.index.find(&block.block_hash());
        if let Some(entry) = known.map(|id| self.index.get(id)) {
            if entry.is_failed() {
                return Ok(Submitted::DuplicateInvalid);
            }
            if entry.record.connected_once {
                return Ok(Submitted::Duplicate);
            }
        }
        if let Some(parent) = self.index.find(&block.header.prev_blockhash) {
            let forks = self.forks_after(parent);
            block::fill_in_witness_nonce(&mut block, forks);
        }
        let accepted = self.accept_block(block, true, now)?;
        Ok(match (known, accepted.verdict) {
            (Some(_), None) => Submitted::DuplicateInconclusive,
            (Some(_), _) => Submitted::Duplicate,
            (None, None) => Submitted::Inconclusive,
            (None, Some(Ok(()))) => Submitted::Accepted,
            (None, Some(Err(rejection))) => Submitted::Rejected(rejection),
        })
    }

    /// Validates a block, stores it if it is wanted, and activates the best branch (`ProcessNewBlock`). A block
    /// that was not `requested` is wanted only if it could become the tip soon. `now` is in seconds.
    ///
    /// # Errors
    /// Only when the storage fails.
    pub fn accept_block(
        &mut self,
        block: impl Into<Arc<Block>>,
        requested: bool,
        now: u64,
    ) -> Result<BlockAccepted, StorageError> {
        let checked = CheckedBlock::new(block, &self.params);
        self.accept_checked(checked, requested, now)
    }

    /// Like [`ChainState::accept_block`], for a block whose context-free checks were done on another thread.
    ///
    /// # Errors
    /// Only when the storage fails.
    pub fn accept_checked(
        &mut self,
        checked: Result<CheckedBlock, Unsound>,
        requested: bool,
        now: u64,
    ) -> Result<BlockAccepted, StorageError> {
        let checked = match checked {
            Ok(checked) => checked,
            Err(Unsound { hash, error }) => return Ok(self.refuse(hash, Rejection::Unsound(error))),
        };
        self.validating.send_replace(true);
        let accepted = self.accept_sound(&checked, requested, now);
        self.validating.send_replace(false);
        accepted
    }

    /// Accepts a block that passed its context-free checks.
    fn accept_sound(
        &mut self,
        checked: &CheckedBlock,
        requested: bool,
        now: u64,
    ) -> Result<BlockAccepted, StorageError> {
        let hash = checked.hash();
        let mut batch = self.storage.batch();
        let stored = match self.accept_into(checked, requested, now, &mut batch) {
            Ok(stored) => {
                self.storage.commit(batch)?;
                stored
            }
            Err(rejection) => {
                self.storage.commit(batch)?;
                return Ok(self.refuse(hash, rejection));
            }
        };
        let verdict = self.activate_best_chain(Some(checked), now)?;
        Ok(BlockAccepted { stored, verdict })
    }

    fn refuse(&mut self, hash: bitcoin::BlockHash, rejection: Rejection) -> BlockAccepted {
        info!(%hash, "block refused: {rejection}");
        self.events.send(|| ChainEvent::Checked { hash, verdict: Err(rejection.clone()) });
        BlockAccepted { stored: Stored::Not, verdict: Some(Err(rejection)) }
    }

    /// `AcceptBlock`. The writes are in `batch`, also when the block is refused.
    fn accept_into(
        &mut self,
        checked: &CheckedBlock,
        requested: bool,
        now: u64,
        batch: &mut Batch,
    ) -> Result<Stored, Rejection> {
        let block = checked.block();
        let id = self.accept_header(&block.header, checked.hash(), now, batch)?;
        let checkpoint = self.index.last_checkpoint(&self.params);
        if connect::must_be_licensed(self.index.get(id).record.height, checkpoint, &self.params) {
            checked.begin_license();
        }
        // A pruned block is not stored again: without its undo data it would be useless.
        if self.index.get(id).was_here() {
            return Ok(Stored::Before);
        }
        if !(requested || self.is_wanted(id)) {
            return Ok(Stored::Not);
        }
        if let Err(error) = self.check_against_ancestors(block, id) {
            if !error.corruption_possible() {
                let entry = self.index.get_mut(id);
                entry.record.failed = true;
                batch.put_index(&entry.hash, &entry.record);
            }
            return Err(Rejection::Rule(error));
        }
        let tip = self.index.tip();
        if self.index.get(id).parent == Some(tip) && !self.is_initial_block_download(now) {
            let height = self.index.get(id).record.height;
            self.events.send(|| ChainEvent::Arrived { block: block.clone(), height });
        }
        self.store(checked, id, batch);
        Ok(Stored::Now)
    }

    /// Whether to store an unrequested block: it has at least the tip's work, is not far ahead of the tip, and its
    /// chain has at least the minimum work.
    fn is_wanted(&self, id: BlockId) -> bool {
        let (entry, tip) = (self.index.get(id), self.index.get(self.index.tip()));
        entry.work >= tip.work
            && entry.record.height <= tip.record.height + MIN_BLOCKS_TO_KEEP
            && entry.work >= self.minimum_chain_work()
    }

    fn check_against_ancestors(&mut self, block: &Block, id: BlockId) -> Result<(), BlockError> {
        // Only genesis has no parent, and its block is always here.
        let Some(parent) = self.index.get(id).parent else { return Ok(()) };
        let forks = self.forks_after(parent);
        block::check_contextual(block, &self.index.chain(parent), forks)
    }

    fn store(&mut self, checked: &CheckedBlock, id: BlockId, batch: &mut Batch) {
        let entry = self.index.get_mut(id);
        entry.record.tx_count =
            u32::try_from(checked.txids().len()).expect("a checked block has fewer transactions");
        entry.record.bytes = u32::try_from(checked.bytes().len()).expect("a checked block is far smaller");
        self.stored_bytes += u64::from(entry.record.bytes);
        batch.put_block(&entry.hash, checked.bytes());
        let linked = self.index.block_arrived(id);
        // The first of `linked` is the block itself.
        for &id in [id].iter().chain(linked.iter().skip(1)) {
            let entry = self.index.get(id);
            batch.put_index(&entry.hash, &entry.record);
        }
        for id in linked {
            self.consider(id);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::path::Path;

    use iop_consensus::address::{Address, AddressKind};
    use iop_consensus::params::Params;

    use super::*;
    use bitcoin::BlockHash;

    use crate::generate::{Payee, mine};
    use crate::storage::Storage;
    use crate::template::template;

    const NOW: u64 = 1_700_000_000;

    fn open(dir: &Path) -> ChainState {
        let params = Params::regtest();
        let storage = Storage::open(dir, &params).unwrap();
        ChainState::load(Arc::new(params), Arc::new(storage)).unwrap()
    }

    fn next_block(state: &mut ChainState) -> Block {
        let payee = Payee { address: Address { kind: AddressKind::PubkeyHash, hash: [1; 20] }, key: None };
        mine(&template(state, NOW), &payee, || false).unwrap()
    }

    fn extend(state: &mut ChainState, count: usize) -> Vec<Block> {
        let mut blocks = Vec::new();
        for _ in 0..count {
            let block = next_block(state);
            assert_eq!(state.submit(block.clone(), NOW).unwrap(), Submitted::Accepted);
            blocks.push(block);
        }
        blocks
    }

    /// Stores a block without connecting it, as if a crash had come in between.
    fn store_only(state: &mut ChainState, block: &Block) {
        let checked = CheckedBlock::new(block.clone(), &state.params).unwrap();
        let mut batch = state.storage.batch();
        assert_eq!(state.accept_into(&checked, true, NOW, &mut batch), Ok(Stored::Now));
        state.storage.commit(batch).unwrap();
    }

    fn tip(state: &ChainState) -> BlockHash {
        state.index().get(state.index().tip()).hash
    }

    #[test]
    fn a_block_stored_before_a_crash_is_connected_at_the_next_start() {
        let dir = tempfile::tempdir().unwrap();
        let mut state = open(dir.path());
        extend(&mut state, 2);
        let block = next_block(&mut state);
        store_only(&mut state, &block);
        assert_ne!(tip(&state), block.block_hash());
        drop(state);
        let mut state = open(dir.path());
        assert_eq!(tip(&state), block.block_hash());
        extend(&mut state, 1);
    }

    #[test]
    fn a_reorganisation_cut_off_by_a_crash_is_finished_at_the_next_start() {
        let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut state = open(dir.path());
        extend(&mut state, 3);
        let branch = extend(&mut open(other.path()), 4);
        branch.iter().for_each(|block| store_only(&mut state, block));
        state.disconnect_tip().unwrap();
        drop(state);
        let mut state = open(dir.path());
        assert_eq!(tip(&state), branch[3].block_hash());
        extend(&mut state, 1);
    }

    #[test]
    fn of_two_tips_with_the_same_work_the_active_one_stays_also_after_a_restart() {
        let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut state = open(dir.path());
        let own = extend(&mut state, 1);
        let rival = extend(&mut open(other.path()), 1);
        assert_eq!(state.submit(rival[0].clone(), NOW).unwrap(), Submitted::Inconclusive);
        for _ in 0..3 {
            drop(state);
            state = open(dir.path());
            assert_eq!(tip(&state), own[0].block_hash());
        }
        assert_eq!(state.submit(rival[0].clone(), NOW).unwrap(), Submitted::DuplicateInconclusive);
    }
}
