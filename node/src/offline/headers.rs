//! The headers of block files, taken before their blocks.
//!
//! So the best chain is known before its first block is connected, as when a node syncs: whose scripts are taken for
//! checked depends on it. Lives here: finding headers in any order and giving them to the chain, parents first. Does not
//! live here: any count or complaint; each block comes by again, and what is wrong is said then. A header that waits for
//! its parent takes about 150 bytes, any other none here.

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

/// Headers that are given to the chain at once.
const BATCH: usize = 2_000;

/// Headers of block files on their way into the chain.
pub(super) struct Headers<'a> {
    state: &'a mut ChainState,
    /// To be given next, parents first.
    batch: Vec<Header>,
    in_batch: HashSet<BlockHash>,
    /// Those whose parent did not come yet, by that parent.
    waiting: HashMap<BlockHash, Vec<Header>>,
}

impl<'a> Headers<'a> {
    /// For this chain.
    pub(super) fn of(state: &'a mut ChainState) -> Self {
        Self { state, batch: Vec::new(), in_batch: HashSet::new(), waiting: HashMap::new() }
    }

    /// Takes the headers of a file, which is read from its start. The inner error is the file's.
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

    /// Takes a header, and those that waited for it.
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

    /// Gives the chain what is in the batch. Behind a header that it refuses it goes on.
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
