//! Accepts headers into the index (`ProcessNewBlockHeaders`, `AcceptBlockHeader`).
//!
//! Lives here: the checks of headers against their ancestors and against known failures, with one storage batch per
//! message. Does not live here: blocks (`accept.rs`), and which headers to request (peers). Data goes: peer ->
//! [`ChainState::accept_headers`] -> index and one batch -> best header published.

use bitcoin::BlockHash;
use bitcoin::block::Header;
use iop_consensus::header;

use super::index::BlockId;
use super::state::ChainState;
use super::verdict::{HeadersAccepted, Rejection};
use crate::storage::{Batch, IndexRecord, StorageError};

impl ChainState {
    /// Accepts headers in order, parents first, until one is refused (`ProcessNewBlockHeaders`). Those before it
    /// are kept. `now` is in seconds.
    ///
    /// # Errors
    /// Only when the storage fails.
    pub fn accept_headers(&mut self, headers: &[Header], now: u64) -> Result<HeadersAccepted, StorageError> {
        let (mut batch, mut accepted) = (self.storage.batch(), HeadersAccepted::default());
        for header in headers {
            let hash = header.block_hash();
            match self.accept_header(header, hash, now, &mut batch) {
                Ok(id) => accepted.last = Some(id),
                Err(rejection) => {
                    accepted.refused = Some((hash, rejection));
                    break;
                }
            }
        }
        self.storage.commit(batch)?;
        Ok(accepted)
    }

    /// Adds one header to the index and `batch`, if it is new and breaks no rule (`AcceptBlockHeader`).
    pub(super) fn accept_header(
        &mut self,
        header: &Header,
        hash: BlockHash,
        now: u64,
        batch: &mut Batch,
    ) -> Result<BlockId, Rejection> {
        if let Some(id) = self.index.find(&hash) {
            // The reference accepts genesis whatever its marks are.
            let entry = self.index.get(id);
            return if entry.is_failed() && entry.record.height > 0 {
                Err(Rejection::KnownInvalid)
            } else {
                Ok(id)
            };
        }
        header::check(header, &self.params).map_err(Rejection::Rule)?;
        let parent = self.index.find(&header.prev_blockhash).ok_or(Rejection::UnknownParent)?;
        if self.index.get(parent).is_failed() {
            return Err(Rejection::InvalidParent);
        }
        let checkpoint = self.index.last_checkpoint(&self.params);
        let chain = self.index.chain(parent);
        header::check_contextual(header, &chain, now, checkpoint, &self.params).map_err(Rejection::Rule)?;
        self.check_no_failed_ancestor(parent, batch)?;
        let record = IndexRecord::of_header(*header, self.index.get(parent).record.height + 1);
        batch.put_index(&hash, &record);
        Ok(self.index.insert(hash, record))
    }

    /// Descendants of a failed block are marked only when they are looked at, as here.
    fn check_no_failed_ancestor(&mut self, parent: BlockId, batch: &mut Batch) -> Result<(), Rejection> {
        if self.index.get(parent).record.connected_once {
            return Ok(());
        }
        let Some(failed) = self.index.failed_ancestor(parent) else { return Ok(()) };
        let mut walk = parent;
        while walk != failed {
            let entry = self.index.get_mut(walk);
            entry.record.failed_ancestor = true;
            batch.put_index(&entry.hash, &entry.record);
            walk = entry.parent.expect("a failed ancestor is above genesis");
        }
        Err(Rejection::InvalidParent)
    }
}
