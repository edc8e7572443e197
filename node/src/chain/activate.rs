//! Which branch is active (`ActivateBestChain`): blocks connected and disconnected, each in one storage batch.
//!
//! A block that breaks a rule marks its descendants, and the next best branch is tried.

use std::cmp::Reverse;

use bitcoin::{Block, BlockHash, Transaction};
use iop_consensus::address::Address;
use iop_consensus::connect::{self, ConnectError, Connected, Context, DoneAction, ScriptRunner};
use iop_consensus::error::BlockError;
use iop_consensus::license::coinbase;
use iop_consensus::script::{ScriptCheck, ScriptFailure};
use rayon::prelude::*;
use tracing::{info, warn};

use super::index::BlockId;
use super::state::ChainState;
use super::verdict::Rejection;
use crate::mempool::Mempool;
use crate::storage::{Batch, BlockUndo, StorageError};

/// Runs script checks on all cores, input by input. What waits in the mempool passed them under all soft forks, and
/// so under any of them.
struct Parallel<'a> {
    mempool: &'a Mempool,
}

impl ScriptRunner for Parallel<'_> {
    fn run(&self, checks: &[ScriptCheck<'_>]) -> Result<(), ScriptFailure> {
        checks.par_iter().filter(|check| !self.mempool.has_verified(check.tx)).try_for_each(|check| {
            let serialized = check.serialized();
            (0..check.spent.len()).into_par_iter().try_for_each(|input| check.run_input(&serialized, input))
        })
    }
}

impl ChainState {
    /// Makes the branch with most work active (`ActivateBestChain`). Gives the verdict on `judged`, if there is such
    /// a block and it was connected or refused on the way.
    pub(super) fn activate_best_chain(
        &mut self,
        judged: Option<BlockHash>,
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
            if Some(self.index.get(next).hash) == judged {
                verdict = Some(outcome.clone().map_err(Rejection::Rule));
            }
            if outcome.is_err() {
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
            runner: &Parallel { mempool: &self.mempool },
        };
        let connected = match connect::connect(&block, &self.storage, &mut self.registry, &context) {
            Ok(connected) => connected,
            Err(ConnectError::Rule(error)) => {
                let license = coinbase::named_license(&block.txdata[0]).map(|license| self.base58(&license));
                let height = self.index.get(id).record.height;
                warn!(height, %hash, license = license.unwrap_or_default(), "block refused: {error}");
                return Ok(Err(error));
            }
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
        let license = self.registry.miner_of(height).map(|license| self.base58(license));
        info!(height, %hash, license = license.unwrap_or_default(), transactions = block.txdata.len(), "new tip");
        connected.actions.iter().for_each(|action| self.log_action(height, action));
        self.unsigned_actions += connected.actions.iter().filter(|action| !action.signed).count() as u64;
        Ok(())
    }

    fn base58(&self, address: &Address) -> String {
        address.to_base58(&self.params.prefixes)
    }

    fn log_action(&self, height: u32, done: &DoneAction) {
        let targets: Vec<String> = done.action.targets.iter().map(|target| self.base58(target)).collect();
        let targets = targets.join(" ");
        if done.signed {
            info!(height, txid = %done.txid, verb = ?done.action.verb, targets, "admin action");
        } else {
            warn!(height, txid = %done.txid, verb = ?done.action.verb, targets, "admin action that no admin signed");
        }
    }

    /// Takes the tip back and gives its transactions.
    pub(super) fn disconnect_tip(&mut self) -> Result<Vec<Transaction>, StorageError> {
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

    /// A block that breaks a rule: it and its descendants are out, at once. The reference marks a descendant only when
    /// it comes upon it, so it may call one `duplicate-inconclusive` that is `duplicate-invalid` here.
    pub(super) fn mark_failed(&mut self, id: BlockId) -> Result<(), StorageError> {
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
}
