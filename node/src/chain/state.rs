//! The chain state: its parts, how it is loaded, and what can be asked of it. One thread owns it; see
//! [`super::actor`]. What changes it is in `accept.rs` and `activate.rs`.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::sync::Arc;

use bitcoin::hashes::Hash;
use bitcoin::pow::Work;
use bitcoin::{BlockHash, Transaction, Txid};
use iop_consensus::block::SoftForks;
use iop_consensus::license::registry::Registry;
use iop_consensus::params::Params;
use iop_consensus::versionbits::Cache;

use super::index::{BlockId, BlockIndex, Chain};
use crate::mempool::{self, Mempool};
use crate::storage::{Batch, IndexRecord, Storage, StorageError};

/// Everything the node knows of the chain.
pub struct ChainState {
    pub(super) params: Arc<Params>,
    pub(super) storage: Storage,
    pub(super) index: BlockIndex,
    pub(super) registry: Registry,
    pub(super) mempool: Mempool,
    versionbits: Cache,
    pub(super) unsigned_actions: u64,
    /// Tips that could be active: blocks that are here with all their ancestors, break no known rule, and have
    /// at least the active tip's work. The last is the best.
    pub(super) candidates: BTreeSet<(Work, Reverse<u64>, BlockId)>,
}

impl ChainState {
    /// Loads the state, or makes that of genesis.
    ///
    /// # Errors
    /// When the storage fails or its parts do not belong together.
    pub fn load(params: Arc<Params>, storage: Storage) -> Result<Self, StorageError> {
        let registry = match storage.registry()? {
            Some(registry) => registry,
            None => initialise(&params, &storage)?,
        };
        let mut state = Self {
            params,
            storage,
            index: BlockIndex::default(),
            registry,
            mempool: Mempool::default(),
            versionbits: Cache::default(),
            unsigned_actions: 0,
            candidates: BTreeSet::new(),
        };
        state.load_index()?;
        // A crash may have come between storing a block and connecting it, or in the middle of a reorganisation.
        let now = u64::from(state.index.header(state.index.tip()).time);
        state.activate_best_chain(None, now)?;
        Ok(state)
    }

    fn load_index(&mut self) -> Result<(), StorageError> {
        let mut records = self.storage.index()?;
        records.sort_by_key(|(_, record)| record.height);
        for (hash, record) in records {
            if record.height > 0 && self.index.find(&record.header.prev_blockhash).is_none() {
                return Err(StorageError::inconsistent("a header's parent is not in the index"));
            }
            let id = self.index.insert(hash, record);
            if record.tx_count > 0 {
                self.index.block_arrived(id);
            }
        }
        let tip = self.storage.tip()?.and_then(|hash| self.index.find(&hash));
        let tip = tip.ok_or_else(|| StorageError::inconsistent("the tip is not in the index"))?;
        let height = self.index.get(tip).record.height;
        if self.registry.globals().height != height {
            return Err(StorageError::inconsistent("registry and tip are of different heights"));
        }
        // Of tips with the same work, the one that was active stays it.
        self.index.get_mut(tip).arrival = 0;
        for height in 0..=height {
            self.index.push_tip(self.index.ancestor(tip, height));
        }
        for id in self.index.ids() {
            self.consider(id);
        }
        Ok(())
    }

    /// The network.
    pub fn params(&self) -> &Arc<Params> {
        &self.params
    }

    /// All known headers.
    pub fn index(&self) -> &BlockIndex {
        &self.index
    }

    /// The registry as of the tip.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Admin actions that no admin signed, of blocks connected since the node started.
    pub fn unsigned_actions(&self) -> u64 {
        self.unsigned_actions
    }

    /// The waiting transactions.
    pub fn mempool(&self) -> &Mempool {
        &self.mempool
    }

    /// The database, to read from.
    pub fn storage(&self) -> &Storage {
        &self.storage
    }

    /// The soft forks active for the block on top of `parent`.
    pub fn forks_after(&mut self, parent: BlockId) -> SoftForks {
        SoftForks::on_top_of(&self.index.chain(parent), &self.params, &mut self.versionbits)
    }

    /// The version and vote states for the block on top of the tip.
    pub fn versionbits(&mut self) -> (Chain<'_>, &mut Cache) {
        (self.index.chain(self.index.tip()), &mut self.versionbits)
    }

    /// Makes an entry a candidate if it could be the tip.
    pub(super) fn consider(&mut self, id: BlockId) {
        let entry = self.index.get(id);
        let key = (entry.work, Reverse(entry.arrival), id);
        let tip = self.index.get(self.index.tip());
        if entry.linked && !entry.is_failed() && key >= (tip.work, Reverse(tip.arrival), self.index.tip()) {
            self.candidates.insert(key);
        }
    }

    /// Offers a transaction that pays at most `max_fee` base units to the mempool. `now` in seconds.
    ///
    /// # Errors
    /// The storage's failure outside, the reason for a refusal inside.
    pub fn offer(
        &mut self,
        tx: Transaction,
        max_fee: u64,
        now: u64,
    ) -> Result<Result<Txid, mempool::Reject>, StorageError> {
        self.with_mempool(now, |mempool, tip| mempool.accept(tx, max_fee, tip))
    }

    pub(super) fn with_mempool<T>(
        &mut self,
        now: u64,
        act: impl FnOnce(&mut Mempool, &mempool::Tip<'_>) -> T,
    ) -> T {
        let tip = self.index.tip();
        let forks = self.forks_after(tip);
        let chain = self.index.chain(tip);
        act(&mut self.mempool, &mempool::Tip { coins: &self.storage, chain: &chain, forks, now })
    }
}

/// Writes the state of genesis. Its coinbase is not connected: it can never be spent.
fn initialise(params: &Params, storage: &Storage) -> Result<Registry, StorageError> {
    let block = params.genesis.block();
    let hash = block.block_hash();
    debug_assert_eq!(block.header.prev_blockhash, BlockHash::all_zeros());
    let registry = Registry::genesis(params);
    let record = IndexRecord {
        header: block.header,
        height: 0,
        tx_count: 1,
        // As in the reference, which never runs genesis through its checks: resubmitted, it is inconclusive.
        connected_once: false,
        failed: false,
        failed_ancestor: false,
    };
    let mut batch = Batch::default();
    batch.put_block(&hash, &block);
    batch.put_index(&hash, &record);
    batch.put_registry(&registry, registry.licenses().map(|(address, _)| address), []);
    batch.put_tip(&hash);
    storage.commit(batch)?;
    Ok(registry)
}
