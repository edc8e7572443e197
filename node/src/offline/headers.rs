//! Imports the headers of block files before their blocks.
//!
//! The best chain is then known before its first block is connected, as in a network sync: which scripts are
//! assumed valid depends on it. Lives here: finding headers in any order and passing them to the chain, parents
//! first. Does not live here: counts and errors; each block is read again, and errors are reported then. A header
//! that waits for its parent takes about 150 bytes, any other none here.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;

use bitcoin::BlockHash;
use bitcoin::block::Header;
use iop_consensus::header;

use super::Stop;
use super::blockfile::Finder;
use crate::chain::clock::now;
use crate::chain::state::ChainState;
use crate::storage::StorageError;

/// Number of headers passed to the chain at once.
const BATCH: usize = 2_000;

/// Headers of block files on their way into the chain.
pub(super) struct Headers<'a> {
    state: &'a mut ChainState,
    /// The headers to pass next, parents first.
    batch: Vec<Header>,
    in_batch: HashSet<BlockHash>,
    /// Headers whose parent was not seen yet, by that parent.
    waiting: HashMap<BlockHash, Vec<Header>>,
}

impl<'a> Headers<'a> {
    /// Starts an import into this chain.
    pub(super) fn of(state: &'a mut ChainState) -> Self {
        Self { state, batch: Vec::new(), in_batch: HashSet::new(), waiting: HashMap::new() }
    }

    /// Imports the headers of a file, which is read from its current position. The inner error is the file's.
    pub(super) fn take_file(&mut self, file: &File, stop: &Stop) -> Result<io::Result<()>, StorageError> {
        let params = self.state.params().clone();
        let mut finder = Finder::new(file, params.magic);
        loop {
            match finder.next_header(|found| header::check(found, &params).is_ok()) {
                Ok(Some(header)) => self.take(header)?,
                Ok(None) => return Ok(Ok(())),
                Err(error) => return Ok(Err(error)),
            }
            if stop.is_told() {
                return Ok(Ok(()));
            }
        }
    }

    /// Adds a header, and those that waited for it.
    fn take(&mut self, header: Header) -> Result<(), StorageError> {
        let mut next = vec![header];
        while let Some(header) = next.pop() {
            let (hash, parent) = (header.block_hash(), header.prev_blockhash);
            let is_known =
                |hash: &BlockHash| self.in_batch.contains(hash) || self.state.index().find(hash).is_some();
            if is_known(&hash) {
                continue;
            }
            if !is_known(&parent) {
                self.waiting.entry(parent).or_default().push(header);
                continue;
            }
            self.batch.push(header);
            self.in_batch.insert(hash);
            next.extend(self.waiting.remove(&hash).unwrap_or_default());
            if self.batch.len() >= BATCH {
                self.give()?;
            }
        }
        Ok(())
    }

    /// Passes the batch to the chain, continuing after a refused header.
    pub(super) fn give(&mut self) -> Result<(), StorageError> {
        self.in_batch.clear();
        let batch = std::mem::take(&mut self.batch);
        let mut left = &batch[..];
        while !left.is_empty() {
            let Some((refused, _)) = self.state.accept_headers(left, now())?.refused else { break };
            let place = left.iter().position(|header| header.block_hash() == refused);
            left = &left[place.map_or(left.len(), |place| place + 1)..];
        }
        Ok(())
    }
}
