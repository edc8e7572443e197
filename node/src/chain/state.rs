//! The chain state: its parts, loading, and queries. One thread owns it; see [`super::actor`]. `accept.rs` and
//! `activate.rs` change it.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::sync::Arc;

use bitcoin::consensus::encode::serialize;
use bitcoin::hashes::Hash;
use bitcoin::pow::Work;
use bitcoin::{BlockHash, Transaction};
use iop_consensus::block::SoftForks;
use iop_consensus::license::registry::Registry;
use iop_consensus::params::Params;
use iop_consensus::versionbits::Cache;
use tokio::sync::watch;
use tracing::info;

use super::coins::Coins;
use super::events::{ChainEvent, Events};
use super::flush::Unwritten;
use super::index::{BlockId, BlockIndex, Chain};
use super::options::Options;
use crate::mempool::{self, Accepted, Mempool, Policy};
use crate::metrics::Metrics;
use crate::storage::{IndexRecord, Storage, StorageError};
use crate::template::Templates;

/// Everything the node knows of the chain.
pub struct ChainState {
    pub(super) params: Arc<Params>,
    pub(super) storage: Arc<Storage>,
    pub(super) coins: Coins,
    pub(super) events: Events,
    pub(super) index: BlockIndex,
    pub(super) registry: Registry,
    pub(super) mempool: Mempool,
    templates: Templates,
    versionbits: Cache,
    pub(super) unsigned_actions: u64,
    pub(super) initial_block_download: bool,
    pub(super) metrics: Metrics,
    /// Whether a block is being validated.
    pub(super) validating: watch::Sender<bool>,
    /// Candidates for the tip: blocks that are stored with all their ancestors, break no known rule, and have at
    /// least the active tip's work. The last one is the best.
    pub(super) candidates: BTreeSet<(Work, Reverse<i64>, BlockId)>,
    pub(super) unwritten: Unwritten,
    pub(super) unsynced: bool,
    pub(super) stored_bytes: u64,
    pub(super) pruned_below: u32,
    /// Bytes deleted but not yet reclaimed.
    pub(super) unreclaimed: u64,
    pub(super) reclaiming: Option<std::thread::JoinHandle<()>>,
    pub(super) options: Options,
    /// While stored blocks are connected at the start: whether to stop.
    pub(super) stop: Option<watch::Receiver<bool>>,
}

impl ChainState {
    /// Loads the state, or creates that of genesis.
    ///
    /// # Errors
    /// When the storage fails or its parts are inconsistent.
    pub fn load(params: Arc<Params>, storage: Arc<Storage>) -> Result<Self, StorageError> {
        let options = Options::of(&params);
        Self::load_with(params, storage, options)
    }

    /// Like [`ChainState::load`], with operator options.
    ///
    /// # Errors
    /// As [`ChainState::load`].
    pub fn load_with(
        params: Arc<Params>,
        storage: Arc<Storage>,
        options: Options,
    ) -> Result<Self, StorageError> {
        let mut state = Self::load_idle(params, storage, options)?;
        // A crash may have happened between storing and connecting a block, or during a reorganisation.
        state.connect_stored()?;
        Ok(state)
    }

    /// Like [`ChainState::load_with`], but connects no further block once `stop` is true; the state is then to be
    /// closed.
    ///
    /// # Errors
    /// As [`ChainState::load`].
    pub fn load_until(
        params: Arc<Params>,
        storage: Arc<Storage>,
        options: Options,
        stop: watch::Receiver<bool>,
    ) -> Result<Self, StorageError> {
        let mut state = Self::load_idle(params, storage, options)?;
        state.stop = Some(stop);
        state.connect_stored()?;
        state.stop = None;
        Ok(state)
    }

    /// Like [`ChainState::load_with`], but leaves stored blocks unconnected: [`ChainState::catch_up`] connects
    /// them, and so does the next block that is accepted.
    ///
    /// # Errors
    /// As [`ChainState::load`].
    pub fn load_idle(
        params: Arc<Params>,
        storage: Arc<Storage>,
        options: Options,
    ) -> Result<Self, StorageError> {
        let registry = match storage.registry()? {
            Some(registry) => registry,
            None => initialise(&params, &storage)?,
        };
        let mut state = Self {
            mempool: Mempool::new(Policy::of(&params)),
            templates: Templates::default(),
            params,
            coins: Coins::new(storage.clone(), options.coin_cache),
            storage,
            events: Events::default(),
            index: BlockIndex::default(),
            registry,
            versionbits: Cache::default(),
            unsigned_actions: 0,
            initial_block_download: true,
            metrics: Metrics::default(),
            validating: watch::Sender::new(false),
            candidates: BTreeSet::new(),
            unwritten: Unwritten::default(),
            unsynced: false,
            stored_bytes: 0,
            pruned_below: 0,
            unreclaimed: 0,
            reclaiming: None,
            options,
            stop: None,
        };
        state.load_index()?;
        Ok(state)
    }

    fn load_index(&mut self) -> Result<(), StorageError> {
        let mut records = self.storage.index()?;
        records.sort_by_key(|(_, record)| record.height);
        for (hash, mut record) in records {
            let parent = self.index.find(&record.header.prev_blockhash);
            if record.height > 0 && parent.is_none() {
                return Err(StorageError::inconsistent("a header's parent is not in the index"));
            }
            // While the node runs, these are marked only when they are looked at (`LoadBlockIndexDB`).
            let is_below_failed = parent.is_some_and(|parent| self.index.get(parent).is_failed());
            record.failed_ancestor |= !record.failed && is_below_failed;
            let id = self.index.insert(hash, record);
            if record.failed {
                self.index.note_failed(id);
            }
            if record.tx_count > 0 {
                self.index.block_was_here(id);
                self.stored_bytes += u64::from(record.bytes);
            }
        }
        let tip = self.storage.tip()?.and_then(|hash| self.index.find(&hash));
        let tip = tip.ok_or_else(|| StorageError::inconsistent("the tip is not in the index"))?;
        let height = self.index.get(tip).record.height;
        if self.registry.globals().height != height {
            return Err(StorageError::inconsistent("registry and tip are of different heights"));
        }
        // Of tips with the same work, the active one stays active.
        self.index.make_first(tip);
        self.index.activate(tip);
        let here =
            |height: &u32| self.index.active_at(*height).is_some_and(|id| self.index.get(id).has_block());
        self.pruned_below = (1..=height).find(here).filter(|&first| first > 1).unwrap_or(0);
        for id in self.index.ids().filter(|&id| !self.index.get(id).is_failed()).collect::<Vec<_>>() {
            self.consider(id);
        }
        Ok(())
    }

    /// Sets the metrics to count in from now on.
    pub fn set_metrics(&mut self, metrics: Metrics) {
        self.metrics = metrics;
    }

    /// Whether a block is being validated; less urgent work on the same cores may wait for it.
    pub fn validating(&self) -> watch::Receiver<bool> {
        self.validating.subscribe()
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

    /// Admin actions without an admin's signature, in blocks connected since the node started.
    pub fn unsigned_actions(&self) -> u64 {
        self.unsigned_actions
    }

    /// The mempool.
    pub fn mempool(&self) -> &Mempool {
        &self.mempool
    }

    /// The database, for reading. Its coins and registry may lag behind the tip: see [`ChainState::coins`].
    pub fn storage(&self) -> &Arc<Storage> {
        &self.storage
    }

    /// The coins as of the tip.
    pub fn coins(&self) -> &Coins {
        &self.coins
    }

    /// The channel on which changes are announced.
    pub fn events(&self) -> &Events {
        &self.events
    }

    /// Work that the best chain is known to have at least.
    pub fn minimum_chain_work(&self) -> Work {
        self.options.minimum_chain_work
    }

    /// Whether the node is still far behind: the tip has less than the minimum chain work or is too old. Once
    /// false, it stays false until the next start (`IsInitialBlockDownload`). `now` is in seconds.
    pub fn is_initial_block_download(&mut self, now: u64) -> bool {
        if self.initial_block_download {
            let tip = self.index.get(self.index.tip());
            let old = u64::from(tip.record.header.time).saturating_add(self.options.max_tip_age) < now;
            if tip.work >= self.minimum_chain_work() && !old {
                info!(height = tip.record.height, "initial block download is over");
                self.initial_block_download = false;
            }
        }
        self.initial_block_download
    }

    /// The soft forks active for the block on top of `parent`.
    pub fn forks_after(&mut self, parent: BlockId) -> SoftForks {
        SoftForks::on_top_of(&self.index.chain(parent), &self.params, &mut self.versionbits)
    }

    /// The chain and the versionbits cache, for computing the version and vote states of the next block.
    pub fn versionbits(&mut self) -> (Chain<'_>, &mut Cache) {
        (self.index.chain(self.index.tip()), &mut self.versionbits)
    }

    /// Makes an entry a candidate if it could become the tip.
    pub(super) fn consider(&mut self, id: BlockId) {
        let entry = self.index.get(id);
        let key = (entry.work, Reverse(entry.arrival), id);
        let tip = self.index.get(self.index.tip());
        if entry.linked && key >= (tip.work, Reverse(tip.arrival), self.index.tip()) {
            self.candidates.insert(key);
        }
    }

    /// Offers the mempool a transaction that may pay at most `max_fee` base units. `now` is in seconds.
    ///
    /// # Errors
    /// The outer error is a storage failure; the inner one is the reason for the refusal.
    pub fn offer(
        &mut self,
        tx: impl Into<Arc<Transaction>>,
        max_fee: u64,
        now: u64,
    ) -> Result<Result<Accepted, mempool::Reject>, StorageError> {
        let outcome = self.with_mempool(now, |mempool, tip| mempool.accept(tx, max_fee, tip))?;
        self.tell_mempool(outcome.as_ref().ok());
        Ok(outcome)
    }

    /// Offers a transaction that was in the mempool before, since `time`. Both times are in seconds.
    ///
    /// # Errors
    /// The outer error is a storage failure; the inner one is the reason for the refusal.
    pub fn offer_again(
        &mut self,
        tx: impl Into<Arc<Transaction>>,
        time: u64,
        now: u64,
    ) -> Result<Result<Accepted, mempool::Reject>, StorageError> {
        let outcome = self.with_mempool(now, |mempool, tip| mempool.accept_again(tx, time, tip))?;
        self.tell_mempool(outcome.as_ref().ok());
        Ok(outcome)
    }

    /// What [`ChainState::offer`] would return; changes nothing.
    ///
    /// # Errors
    /// The outer error is a storage failure; the inner one is the reason for the refusal.
    pub fn test_offer(
        &mut self,
        tx: Transaction,
        max_fee: u64,
        now: u64,
    ) -> Result<Result<Accepted, mempool::Reject>, StorageError> {
        self.with_mempool(now, |mempool, tip| mempool.test_accept(tx, max_fee, tip))
    }

    /// Sets the mempool's policy.
    pub fn set_mempool_policy(&mut self, policy: Policy) {
        self.mempool.set_policy(policy);
    }

    /// Announces transactions that entered the mempool and those that left it without a block.
    pub(super) fn tell_mempool(&mut self, accepted: Option<&Accepted>) {
        for txid in self.mempool.take_removed() {
            self.events.send(|| ChainEvent::TxRemoved(txid));
        }
        if let Some(accepted) = accepted {
            self.events.send(|| ChainEvent::TxAccepted(accepted.txid));
        }
    }

    /// The cached transaction selections, and the mempool that they are made from.
    pub(crate) fn templates(&mut self) -> (&mut Templates, &Mempool) {
        (&mut self.templates, &self.mempool)
    }

    pub(super) fn with_mempool<T>(
        &mut self,
        now: u64,
        act: impl FnOnce(&mut Mempool, &mempool::Tip<'_>) -> T,
    ) -> T {
        let tip = self.index.tip();
        let forks = self.forks_after(tip);
        let chain = self.index.chain(tip);
        act(&mut self.mempool, &mempool::Tip { coins: &self.coins, chain: &chain, forks, now })
    }
}

/// Writes the state of genesis. Its coinbase is not connected and can never be spent.
fn initialise(params: &Params, storage: &Arc<Storage>) -> Result<Registry, StorageError> {
    let block = params.genesis.block();
    let hash = block.block_hash();
    debug_assert_eq!(block.header.prev_blockhash, BlockHash::all_zeros());
    let registry = Registry::genesis(params);
    let bytes = serialize(&block);
    let record = IndexRecord {
        tx_count: 1,
        bytes: u32::try_from(bytes.len()).expect("genesis is small"),
        // The reference never validates genesis, so `connected_once` stays unset: resubmitting it is inconclusive.
        ..IndexRecord::of_header(block.header, 0)
    };
    let mut batch = storage.batch();
    batch.put_block(&hash, &bytes);
    batch.put_index(&hash, &record);
    batch.put_registry(&registry, registry.licenses().map(|(address, _)| address), []);
    batch.put_tip(&hash);
    storage.commit(batch)?;
    Ok(registry)
}
