//! An offered block on its way in (`ProcessNewBlock`, `AcceptBlock`).
//!
//! Alone, header against ancestors, block against ancestors; then it is stored, and [`super::activate`] makes the
//! best branch active.

use bitcoin::{Block, BlockHash};
use iop_consensus::error::BlockError;
use iop_consensus::{block, header};
use tracing::info;

use super::index::BlockId;
use super::state::ChainState;
use super::verdict::{Rejection, Submitted};
use crate::storage::{Batch, IndexRecord, StorageError};

/// A block's way through [`ChainState::process`].
struct Processed {
    /// It was stored, or was here already.
    stored: bool,
    /// The verdict, if it was judged to the end.
    verdict: Option<Result<(), Rejection>>,
}

impl ChainState {
    /// Takes a block as `submitblock` does, filling in a missing witness nonce. `now` in seconds.
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
        let processed = self.process(block, now)?;
        Ok(match (known, processed.verdict) {
            (Some(_), None) if processed.stored => Submitted::DuplicateInconclusive,
            (Some(_), _) => Submitted::Duplicate,
            (None, None) => Submitted::Inconclusive,
            (None, Some(Ok(()))) => Submitted::Accepted,
            (None, Some(Err(rejection))) => Submitted::Rejected(rejection),
        })
    }

    /// Judges and stores a block and activates the best branch (`ProcessNewBlock`).
    fn process(&mut self, block: Block, now: u64) -> Result<Processed, StorageError> {
        let hash = block.block_hash();
        let refused = |rejection: Rejection| {
            info!(%hash, "block refused: {rejection}");
            Ok(Processed { stored: false, verdict: Some(Err(rejection)) })
        };
        if let Err(error) = block::check(&block, &self.params) {
            return refused(Rejection::Rule(error));
        }
        let id = match self.accept_header(&block, hash, now)? {
            Ok(id) => id,
            Err(rejection) => return refused(rejection),
        };
        if !self.index.get(id).has_block() {
            if let Err(error) = self.check_against_ancestors(&block, id) {
                if !error.corruption_possible() {
                    self.mark_failed(id)?;
                }
                return refused(Rejection::Rule(error));
            }
            self.store(&block, id)?;
        }
        let verdict = self.activate_best_chain(Some(hash), now)?;
        Ok(Processed { stored: true, verdict })
    }

    /// Puts the block's header into the index (`AcceptBlockHeader`).
    fn accept_header(
        &mut self,
        block: &Block,
        hash: BlockHash,
        now: u64,
    ) -> Result<Result<BlockId, Rejection>, StorageError> {
        if let Some(id) = self.index.find(&hash) {
            return Ok(Ok(id));
        }
        let Some(parent) = self.index.find(&block.header.prev_blockhash) else {
            return Ok(Err(Rejection::UnknownParent));
        };
        if self.index.get(parent).is_failed() {
            return Ok(Err(Rejection::InvalidParent));
        }
        let checkpoint = self.index.last_checkpoint(&self.params);
        let chain = self.index.chain(parent);
        if let Err(error) = header::check_contextual(&block.header, &chain, now, checkpoint, &self.params) {
            return Ok(Err(Rejection::Rule(error)));
        }
        let record = IndexRecord {
            header: block.header,
            height: self.index.get(parent).record.height + 1,
            tx_count: 0,
            connected_once: false,
            failed: false,
            failed_ancestor: false,
        };
        let mut batch = Batch::default();
        batch.put_index(&hash, &record);
        self.storage.commit(batch)?;
        Ok(Ok(self.index.insert(hash, record)))
    }

    fn check_against_ancestors(&mut self, block: &Block, id: BlockId) -> Result<(), BlockError> {
        // Only genesis has no parent, and its block is always here.
        let Some(parent) = self.index.get(id).parent else { return Ok(()) };
        let forks = self.forks_after(parent);
        block::check_contextual(block, &self.index.chain(parent), forks)
    }

    fn store(&mut self, block: &Block, id: BlockId) -> Result<(), StorageError> {
        let entry = self.index.get_mut(id);
        entry.record.tx_count =
            u32::try_from(block.txdata.len()).expect("a checked block has fewer transactions");
        let mut batch = Batch::default();
        batch.put_block(&entry.hash, block);
        batch.put_index(&entry.hash, &entry.record);
        self.storage.commit(batch)?;
        for id in self.index.block_arrived(id) {
            self.consider(id);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::path::Path;
    use std::sync::Arc;

    use iop_consensus::address::{Address, AddressKind};
    use iop_consensus::params::Params;

    use super::*;
    use crate::generate::{Payee, mine};
    use crate::storage::Storage;
    use crate::template::template;

    const NOW: u64 = 1_700_000_000;

    fn open(dir: &Path) -> ChainState {
        let params = Params::regtest();
        let storage = Storage::open(dir, &params).unwrap();
        ChainState::load(Arc::new(params), storage).unwrap()
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

    /// Stores a block as before a crash: it is not connected yet.
    fn store_only(state: &mut ChainState, block: &Block) {
        let id = state.accept_header(block, block.block_hash(), NOW).unwrap().unwrap();
        state.store(block, id).unwrap();
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
