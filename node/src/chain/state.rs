//! The chain state and everything that changes it. One thread owns it; see [`super::actor`].
//!
//! A block goes through `iop-consensus` in the reference's order: alone, header against ancestors, block
//! against ancestors; then it is stored, and the branch with most work becomes active, block by block. Each
//! connected or disconnected block is one storage batch. A block that breaks a rule marks its descendants.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::sync::Arc;

use bitcoin::hashes::Hash;
use bitcoin::pow::Work;
use bitcoin::{Block, BlockHash, Transaction, Txid};
use iop_consensus::block::{self, SoftForks};
use iop_consensus::connect::{self, ConnectError, Connected, Context, DoneAction, ScriptRunner};
use iop_consensus::error::BlockError;
use iop_consensus::header;
use iop_consensus::license::registry::Registry;
use iop_consensus::params::Params;
use iop_consensus::script::{ScriptCheck, ScriptFailure};
use iop_consensus::versionbits::Cache;
use rayon::prelude::*;
use tracing::{info, warn};

use super::index::{BlockId, BlockIndex, Chain};
use crate::mempool::{self, Mempool};
use crate::storage::{Batch, BlockUndo, IndexRecord, Storage, StorageError};

/// Why a block was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rejection {
    /// It breaks a rule.
    Rule(BlockError),
    /// Its parent is not known.
    UnknownParent,
    /// Its parent, or an ancestor of it, breaks a rule.
    InvalidParent,
    /// It is known and breaks a rule.
    KnownInvalid,
}

impl Rejection {
    /// The reference's string.
    pub fn reason(&self) -> String {
        match self {
            Self::Rule(error) => error.reject_reason().into_owned(),
            Self::UnknownParent => "prev-blk-not-found".to_owned(),
            Self::InvalidParent => "bad-prevblk".to_owned(),
            Self::KnownInvalid => "duplicate".to_owned(),
        }
    }
}

/// What `submitblock` answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Submitted {
    /// The block became the tip.
    Accepted,
    /// Stored, and not judged to the end: a side block, or a branch with a bad block.
    Inconclusive,
    /// It is known and valid.
    Duplicate,
    /// It is known and invalid.
    DuplicateInvalid,
    /// It is known and not judged to the end.
    DuplicateInconclusive,
    /// It is refused.
    Rejected(Rejection),
}

impl Submitted {
    /// The answer as BIP22 has it: nothing for an accepted block.
    pub fn answer(&self) -> Option<String> {
        match self {
            Self::Accepted => None,
            Self::Inconclusive => Some("inconclusive".to_owned()),
            Self::Duplicate => Some("duplicate".to_owned()),
            Self::DuplicateInvalid => Some("duplicate-invalid".to_owned()),
            Self::DuplicateInconclusive => Some("duplicate-inconclusive".to_owned()),
            Self::Rejected(rejection) => Some(rejection.reason()),
        }
    }
}

/// A block's way through [`ChainState::process`].
struct Processed {
    /// It was stored, or was here already.
    stored: bool,
    /// The verdict, if it was judged to the end.
    verdict: Option<Result<(), Rejection>>,
}

/// Runs script checks on all cores.
struct Parallel;

impl ScriptRunner for Parallel {
    fn run(&self, checks: &[ScriptCheck<'_>]) -> Result<(), ScriptFailure> {
        checks.par_iter().try_for_each(ScriptCheck::run)
    }
}

/// Everything the node knows of the chain.
pub struct ChainState {
    params: Arc<Params>,
    storage: Storage,
    index: BlockIndex,
    registry: Registry,
    mempool: Mempool,
    versionbits: Cache,
    /// Tips that could be active: blocks that are here with all their ancestors, break no known rule, and have
    /// at least the active tip's work. The last is the best.
    candidates: BTreeSet<(Work, Reverse<u64>, BlockId)>,
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
            candidates: BTreeSet::new(),
        };
        state.load_index()?;
        Ok(state)
    }

    fn load_index(&mut self) -> Result<(), StorageError> {
        let mut records = self.storage.index()?;
        records.sort_by_key(|(_, record)| record.height);
        for (hash, record) in records {
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

    /// The waiting transactions.
    pub fn mempool(&self) -> &Mempool {
        &self.mempool
    }

    /// The database, to read from.
    pub fn storage(&self) -> &Storage {
        &self.storage
    }

    /// The chain up to the tip.
    pub fn active_chain(&self) -> Chain<'_> {
        self.index.chain(self.index.tip())
    }

    /// The soft forks active for the block on top of `parent`.
    pub fn forks_after(&mut self, parent: BlockId) -> SoftForks {
        SoftForks::on_top_of(&self.index.chain(parent), &self.params, &mut self.versionbits)
    }

    /// The version and vote states for the block on top of the tip.
    pub fn versionbits(&mut self) -> (Chain<'_>, &mut Cache) {
        (self.index.chain(self.index.tip()), &mut self.versionbits)
    }

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
        let refused = |rejection| Ok(Processed { stored: false, verdict: Some(Err(rejection)) });
        let hash = block.block_hash();
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
        let verdict = self.activate_best_chain(hash, now)?;
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
            let failed = self.index.get(id).is_failed();
            return Ok(if failed { Err(Rejection::KnownInvalid) } else { Ok(id) });
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

    /// Makes an entry a candidate if it could be the tip.
    fn consider(&mut self, id: BlockId) {
        let entry = self.index.get(id);
        let key = (entry.work, Reverse(entry.arrival), id);
        let tip = self.index.get(self.index.tip());
        if entry.linked && !entry.is_failed() && key >= (tip.work, Reverse(tip.arrival), self.index.tip()) {
            self.candidates.insert(key);
        }
    }

    /// Makes the branch with most work active (`ActivateBestChain`). Gives the verdict on `judged` if it was
    /// connected or refused on the way.
    fn activate_best_chain(
        &mut self,
        judged: BlockHash,
        now: u64,
    ) -> Result<Option<Result<(), Rejection>>, StorageError> {
        let (start, mut verdict, mut returned) = (self.index.tip(), None, Vec::new());
        while let Some(&(.., best)) = self.candidates.last() {
            let fork = self.index.fork_point(best);
            while self.index.tip() != fork {
                returned.push(self.disconnect_tip()?);
            }
            let Some(next) = self.next_towards(best) else { break };
            let outcome = self.connect_tip(next)?;
            if self.index.get(next).hash == judged {
                verdict = Some(outcome.clone().map_err(Rejection::Rule));
            }
            if let Err(error) = outcome {
                let entry = self.index.get(next);
                warn!(height = entry.record.height, hash = %entry.hash, "block refused: {error}");
                self.mark_failed(next)?;
            }
        }
        if !returned.is_empty() {
            self.after_reorganisation(start, returned, now)?;
        }
        Ok(verdict)
    }

    /// The child of the tip on the way to `best`; `None` when the tip is `best`.
    fn next_towards(&self, best: BlockId) -> Option<BlockId> {
        let height = self.index.get(self.index.tip()).record.height + 1;
        (height <= self.index.get(best).record.height).then(|| self.index.ancestor(best, height))
    }

    /// Connects a child of the tip. The inner error is the rule it breaks; then nothing has changed.
    fn connect_tip(&mut self, id: BlockId) -> Result<Result<(), BlockError>, StorageError> {
        let hash = self.index.get(id).hash;
        let block = self.read_block(&hash)?;
        let parent = self.index.tip();
        let forks = self.forks_after(parent);
        let context = Context {
            params: &self.params,
            chain: &self.index.chain(parent),
            forks,
            last_checkpoint: self.index.last_checkpoint(&self.params),
            check_scripts: true,
            runner: &Parallel,
        };
        let connected = match connect::connect(&block, &self.storage, &mut self.registry, &context) {
            Ok(connected) => connected,
            Err(ConnectError::Rule(error)) => return Ok(Err(error)),
            Err(ConnectError::View(error)) => return Err(error),
        };
        self.commit_connected(id, &block, connected)?;
        Ok(Ok(()))
    }

    fn commit_connected(
        &mut self,
        id: BlockId,
        block: &Block,
        connected: Connected,
    ) -> Result<(), StorageError> {
        let entry = self.index.get_mut(id);
        entry.record.connected_once = true;
        let (hash, height) = (entry.hash, entry.record.height);
        let mut batch = Batch::default();
        batch.put_index(&hash, &entry.record);
        batch.put_coins(&connected.coins);
        batch.put_registry(&self.registry, connected.registry.licenses.keys(), [height]);
        batch.put_undo(&hash, &BlockUndo { spent: connected.spent, registry: connected.registry });
        batch.put_tip(&hash);
        self.storage.commit(batch)?;
        self.index.push_tip(id);
        self.mempool.remove_confirmed(block);
        let tip = (self.index.get(id).work, Reverse(self.index.get(id).arrival), id);
        self.candidates = self.candidates.split_off(&tip);
        let license = self.registry.miner_of(height).map(|license| license.to_base58(&self.params.prefixes));
        info!(height, %hash, license = license.unwrap_or_default(), transactions = block.txdata.len(), "new tip");
        connected.actions.iter().for_each(|action| self.log_action(height, action));
        Ok(())
    }

    fn log_action(&self, height: u32, done: &DoneAction) {
        let targets: Vec<String> =
            done.action.targets.iter().map(|target| target.to_base58(&self.params.prefixes)).collect();
        let targets = targets.join(" ");
        if done.signed {
            info!(height, txid = %done.txid, verb = ?done.action.verb, targets, "admin action");
        } else {
            warn!(height, txid = %done.txid, verb = ?done.action.verb, targets, "admin action that no admin signed");
        }
    }

    /// Takes the tip back and gives its transactions.
    fn disconnect_tip(&mut self) -> Result<Vec<Transaction>, StorageError> {
        let entry = self.index.get(self.index.tip());
        let (hash, height) = (entry.hash, entry.record.height);
        let parent =
            entry.parent.ok_or_else(|| StorageError::inconsistent("genesis cannot be disconnected"))?;
        let block = self.read_block(&hash)?;
        let undo = self.storage.undo(&hash)?;
        let coins = connect::disconnect(&block, undo.spent)
            .ok_or_else(|| StorageError::inconsistent("an undo does not fit its block"))?;
        self.registry.undo(&undo.registry);
        let mut batch = Batch::default();
        batch.put_coins(&coins);
        batch.put_registry(&self.registry, undo.registry.licenses.keys(), [height]);
        batch.delete_undo(&hash);
        batch.put_tip(&self.index.get(parent).hash);
        self.storage.commit(batch)?;
        self.index.pop_tip();
        info!(height, %hash, "block disconnected");
        Ok(block.txdata)
    }

    fn after_reorganisation(
        &mut self,
        old_tip: BlockId,
        returned: Vec<Vec<Transaction>>,
        now: u64,
    ) -> Result<(), StorageError> {
        let tip = self.index.tip();
        if tip != old_tip {
            let (old, new) = (self.index.get(old_tip), self.index.get(tip));
            warn!(
                from = %old.hash, from_height = old.record.height, to = %new.hash, to_height = new.record.height,
                "reorganisation"
            );
        }
        let oldest_first = returned.into_iter().rev().flatten().collect();
        self.with_mempool(now, |mempool, tip| mempool.rebuild(oldest_first, tip))
    }

    /// A block that breaks a rule: it and its descendants are out.
    fn mark_failed(&mut self, id: BlockId) -> Result<(), StorageError> {
        let mut batch = Batch::default();
        self.index.get_mut(id).record.failed = true;
        let descendants = self.index.descendants(id);
        for &descendant in &descendants {
            self.index.get_mut(descendant).record.failed_ancestor = true;
        }
        for id in std::iter::once(id).chain(descendants) {
            let entry = self.index.get(id);
            batch.put_index(&entry.hash, &entry.record);
            self.candidates.remove(&(entry.work, Reverse(entry.arrival), id));
        }
        self.storage.commit(batch)
    }

    fn read_block(&self, hash: &BlockHash) -> Result<Block, StorageError> {
        self.storage.block(hash)?.ok_or_else(|| StorageError::inconsistent("a block in the index is missing"))
    }

    /// Offers a transaction to the mempool. `now` in seconds.
    ///
    /// # Errors
    /// The storage's failure outside, the reason for a refusal inside.
    pub fn offer(
        &mut self,
        tx: Transaction,
        now: u64,
    ) -> Result<Result<Txid, mempool::Reject>, StorageError> {
        self.with_mempool(now, |mempool, tip| mempool.accept(tx, tip))
    }

    fn with_mempool<T>(&mut self, now: u64, act: impl FnOnce(&mut Mempool, &mempool::Tip<'_>) -> T) -> T {
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
