//! Activates the best branch (`ActivateBestChain`) by disconnecting and connecting blocks.
//!
//! A block that breaks a rule is marked as failed, and the next best branch is tried. Changes to the coins stay in
//! memory until a flush writes them together with the tip (docs/adr/0005).

use std::cmp::Reverse;
use std::time::Instant;

use bitcoin::{Block, BlockHash, Transaction};
use iop_consensus::address::Address;
use iop_consensus::ancestors::Ancestors;
use iop_consensus::coins::Coin;
use iop_consensus::connect::{self, ConnectError, Connected, Context, DoneAction, ScriptRunner, TxScripts};
use iop_consensus::error::BlockError;
use iop_consensus::license::registry::Registry;
use iop_consensus::license::{admin, coinbase};
use iop_consensus::p2pkh;
use iop_consensus::params::Params;
use iop_consensus::script::{ScriptFailure, TxVerifier};
use rayon::prelude::*;
use tracing::{debug, error, info, warn};

use super::checked::CheckedBlock;
use super::clock;
use super::coins::Coins;
use super::events::ChainEvent;
use super::index::BlockId;
use super::signed::Signed;
use super::state::ChainState;
use super::verdict::Rejection;
use crate::mempool::Mempool;
use crate::storage::{BlockUndo, StorageError};

/// The most targets of one admin action that are named in its log line.
const MAX_LOGGED_TARGETS: usize = 20;
/// From this many stored blocks on, connecting them at the start is announced in the log.
const MANY_STORED: usize = 100;

/// Runs scripts on all cores, input by input. Skips transactions in the mempool: their scripts passed with all soft
/// forks active, and therefore pass with any subset of them.
struct Parallel<'a> {
    mempool: &'a Mempool,
    /// The block's signatures verified so far, if they were verified ahead.
    signed: Option<&'a Signed>,
}

impl ScriptRunner for Parallel<'_> {
    fn run(&self, txs: &[TxScripts<'_>]) -> Result<(), ScriptFailure> {
        if let Some(signed) = self.signed {
            signed.end();
        }
        let left: Vec<&TxScripts<'_>> = txs.iter().filter(|check| !self.is_verified(check)).collect();
        left.into_par_iter().try_for_each(|check| {
            let verifier = TxVerifier::new(check.tx);
            check.spent.par_iter().enumerate().try_for_each(|(input, coin)| {
                let script = &coin.output.script_pubkey;
                let known = self.signed.and_then(|signed| signed.is_signed(check.place, input, script));
                if known.unwrap_or_else(|| p2pkh::surely_valid(check.tx, input, script)) {
                    return Ok(());
                }
                verifier.verify(input, &coin.output, check.flags)
            })
        })
    }
}

impl Parallel<'_> {
    /// Whether no script of a transaction is left to run, as far as can be told without verifying anything.
    fn is_verified(&self, check: &TxScripts<'_>) -> bool {
        let is_signed = |signed: &Signed, (input, coin): (usize, &Coin)| {
            signed.is_signed(check.place, input, &coin.output.script_pubkey) == Some(true)
        };
        self.signed.is_some_and(|signed| check.spent.iter().enumerate().all(|spent| is_signed(signed, spent)))
            || self.mempool.has_verified(check.tx, &check.txid)
    }
}

impl ChainState {
    /// Makes the branch with the most work active (`ActivateBestChain`). Returns the verdict on `judged`, if it is
    /// given and was connected or refused along the way.
    pub(super) fn activate_best_chain(
        &mut self,
        judged: Option<&CheckedBlock>,
        now: u64,
    ) -> Result<Option<Result<(), Rejection>>, StorageError> {
        self.activate_after(self.index.tip(), false, judged, now)
    }

    /// Like [`ChainState::activate_best_chain`], for a caller that may have disconnected blocks already; `start` is
    /// the tip before that.
    pub(super) fn activate_after(
        &mut self,
        start: BlockId,
        mut disconnected: bool,
        judged: Option<&CheckedBlock>,
        now: u64,
    ) -> Result<Option<Result<(), Rejection>>, StorageError> {
        let mut verdict = None;
        'branches: while let Some(path) = self.most_work_path()? {
            let Some(&first) = path.first() else { break };
            while Some(self.index.tip()) != self.index.get(first).parent {
                if self.is_told_to_stop() {
                    break 'branches;
                }
                self.disconnect_tip()?;
                disconnected = true;
            }
            for next in path {
                if self.is_told_to_stop() {
                    break 'branches;
                }
                let hash = self.index.get(next).hash;
                let given = judged.filter(|judged| judged.hash() == hash);
                let block = match given {
                    Some(block) => block.clone(),
                    None => self.read_block(&hash)?,
                };
                let outcome = self.connect_tip(next, &block)?.map_err(Rejection::Rule);
                self.events.send(|| ChainEvent::Checked { hash, verdict: outcome.clone() });
                let failed = outcome.is_err();
                if given.is_some() {
                    verdict = Some(outcome);
                }
                if failed {
                    self.mark_failed(next)?;
                    break;
                }
                self.flush_on_the_way()?;
            }
        }
        self.flush_if_due(now)?;
        if disconnected {
            self.after_reorganisation(start, now)?;
        }
        Ok(verdict)
    }

    /// Connects what was stored and not connected when the last run ended, unless it is told to stop meanwhile
    /// (see [`ChainState::load_until`]).
    pub(super) fn connect_stored(&mut self) -> Result<(), StorageError> {
        let blocks = self.most_work_path()?.map_or(0, |path| path.len());
        if blocks >= MANY_STORED {
            let height = self.index.get(self.index.tip()).record.height;
            info!(height, blocks, "connecting blocks that are stored; the node answers after that");
        }
        self.activate_best_chain(None, clock::now())?;
        Ok(())
    }

    fn is_told_to_stop(&self) -> bool {
        self.stop.as_ref().is_some_and(|stop| *stop.borrow())
    }

    /// Connects at most this many blocks towards the best tip and returns whether there may be more to do. If
    /// blocks must be disconnected first, does everything at once. The changes are written when the coin cache is
    /// full, each minute, and at the end.
    ///
    /// # Errors
    /// When the storage fails.
    pub fn catch_up(&mut self, at_most: usize) -> Result<bool, StorageError> {
        let path = self.most_work_path()?.unwrap_or_default();
        let forward =
            path.first().is_some_and(|&first| self.index.get(first).parent == Some(self.index.tip()));
        if !forward || path.len() <= at_most {
            self.activate_best_chain(None, clock::now())?;
            self.flush()?;
            return Ok(false);
        }
        for &next in &path[..at_most] {
            let block = self.read_block(&self.index.get(next).hash)?;
            if self.connect_tip(next, &block)?.is_err() {
                self.mark_failed(next)?;
                break;
            }
            self.flush_on_the_way()?;
        }
        Ok(true)
    }

    /// The blocks to connect from the active chain up to the best candidate; empty if the tip is the best.
    /// Candidates on a branch with a failed block are detected here and dropped (`FindMostWorkChain`).
    fn most_work_path(&mut self) -> Result<Option<Vec<BlockId>>, StorageError> {
        let mut batch = self.storage.batch();
        let path = loop {
            let Some(&(.., best)) = self.candidates.last() else { break None };
            let (mut path, mut walk) = (Vec::new(), best);
            let unusable = loop {
                if self.index.is_active(walk) {
                    break None;
                }
                path.push(walk);
                let entry = self.index.get(walk);
                if entry.is_failed() || !entry.has_block() {
                    break Some(walk);
                }
                walk = entry.parent.expect("every branch comes from genesis, which is active");
            };
            let fork = self.index.get(walk).record.height;
            if unusable.is_none() && self.can_disconnect_to(fork) {
                path.reverse();
                break Some(path);
            }
            let failed = unusable.is_some_and(|id| self.index.get(id).is_failed());
            if !failed {
                let best = self.index.get(best).hash;
                error!(%best, fork, "a branch with more work cannot be followed: blocks that it needs were pruned");
            }
            for id in path {
                let entry = self.index.get_mut(id);
                if failed && Some(id) != unusable {
                    entry.record.failed_ancestor = true;
                    batch.put_index(&entry.hash, &entry.record);
                }
                self.candidates.remove(&(entry.work, Reverse(entry.arrival), id));
            }
        };
        self.storage.commit(batch)?;
        Ok(path)
    }

    /// Calls `act` with everything needed to connect a block on top of the tip. `act` must undo its changes to the
    /// registry.
    pub(crate) fn try_on_tip<T>(
        &mut self,
        act: impl FnOnce(&Coins, &mut Registry, &Params, &dyn Ancestors, &dyn ScriptRunner) -> T,
    ) -> T {
        let (tip, runner) = (self.index.tip(), Parallel { mempool: &self.mempool, signed: None });
        act(&self.coins, &mut self.registry, &self.params, &self.index.chain(tip), &runner)
    }

    /// Connects a child of the tip. The inner error is the rule that the block breaks; nothing has changed then.
    fn connect_tip(
        &mut self,
        id: BlockId,
        block: &CheckedBlock,
    ) -> Result<Result<(), BlockError>, StorageError> {
        let started = Instant::now();
        let parent = self.index.tip();
        let forks = self.forks_after(parent);
        self.coins.fetch(block.block())?;
        let runner = Parallel { mempool: &self.mempool, signed: Some(block.signed()) };
        let context = Context {
            params: &self.params,
            chain: &self.index.chain(parent),
            forks,
            last_checkpoint: self.index.last_checkpoint(&self.params),
            runner: self.must_run_scripts(id).then_some(&runner),
        };
        let outcome = connect::connect_licensed(
            block.block(),
            block.txids(),
            || block.license(),
            &self.coins,
            &mut self.registry,
            &context,
        );
        let connected = match outcome {
            Ok(connected) => connected,
            Err(ConnectError::Rule(error)) => {
                let named = coinbase::named_license(&block.block().txdata[0]);
                let license = named.map(|license| self.base58(&license)).unwrap_or_default();
                let height = self.index.get(id).record.height;
                warn!(height, hash = %block.hash(), license, "block refused: {error}");
                return Ok(Err(error));
            }
            Err(ConnectError::View(error)) => return Err(error),
        };
        self.commit_connected(id, block, connected)?;
        self.metrics.block_validation.observe(started.elapsed().as_secs_f64());
        Ok(Ok(()))
    }

    fn commit_connected(
        &mut self,
        id: BlockId,
        checked: &CheckedBlock,
        connected: Connected<'_>,
    ) -> Result<(), StorageError> {
        self.coins.connect(&connected);
        self.unwritten.note(connected.height, &connected.registry);
        let undo = BlockUndo { spent: connected.spent, registry: connected.registry }.encode();
        let entry = self.index.get_mut(id);
        entry.record.connected_once = true;
        let before = std::mem::replace(&mut entry.record.bytes, (checked.bytes().len() + undo.len()) as u32);
        self.stored_bytes = self.stored_bytes + u64::from(entry.record.bytes) - u64::from(before);
        let (hash, height, block) = (entry.hash, entry.record.height, checked.block());
        let mut batch = self.storage.batch();
        batch.put_index(&hash, &entry.record);
        batch.put_undo(&hash, &undo);
        self.storage.commit(batch)?;
        self.index.push_tip(id);
        self.mempool.remove_confirmed(block, checked.txids(), clock::now());
        self.tell_mempool(None);
        let tip = (self.index.get(id).work, Reverse(self.index.get(id).arrival), id);
        self.candidates = self.candidates.split_off(&tip);
        self.metrics.blocks_connected.inc();
        self.log_tip(height, block);
        let alike = |a: &DoneAction, b: &DoneAction| (a.txid, a.signed) == (b.txid, b.signed);
        connected.actions.chunk_by(alike).for_each(|alike| self.log_action(height, &alike[0]));
        self.unsigned_actions += connected.actions.iter().filter(|action| !action.signed).count() as u64;
        self.events.send(|| ChainEvent::Connected { block: block.clone(), height });
        Ok(())
    }

    /// Logs the new tip; at debug level during initial block download, where progress is reported instead.
    fn log_tip(&self, height: u32, block: &Block) {
        let license =
            || self.registry.miner_of(height).map(|license| self.base58(license)).unwrap_or_default();
        let (hash, transactions) = (block.block_hash(), block.txdata.len());
        if self.initial_block_download {
            debug!(height, %hash, license = license(), transactions, "new tip");
        } else {
            info!(height, %hash, license = license(), transactions, "new tip");
        }
    }

    fn base58(&self, address: &Address) -> String {
        address.to_base58(&self.params.prefixes)
    }

    /// Logs the inputs of a transaction that carry the same action as one line. Anyone can make an action with
    /// thousands of targets, so only the first few are named.
    fn log_action(&self, height: u32, done: &DoneAction) {
        let all = &done.action.targets;
        let mut targets: Vec<String> =
            all.iter().take(MAX_LOGGED_TARGETS).map(|target| self.base58(target)).collect();
        if all.len() > MAX_LOGGED_TARGETS {
            targets.push(format!("and {} more", all.len() - MAX_LOGGED_TARGETS));
        }
        let targets = targets.join(" ");
        if done.signed {
            info!(height, txid = %done.txid, verb = ?done.action.verb, targets, "admin action");
        } else {
            warn!(height, txid = %done.txid, verb = ?done.action.verb, targets, "admin action that no admin signed");
        }
    }

    /// IoP Core nodes do not always undo admin actions exactly (docs/adr/0002-exact-registry-undo.md).
    fn log_actions_taken_back(&self, height: u32, block: &Block) {
        let acts = |tx: &&Transaction| !admin::actions(tx, height, &self.params).is_empty();
        let transactions = block.txdata.iter().skip(1).filter(acts).count();
        if transactions > 0 {
            warn!(
                height, hash = %block.block_hash(), transactions,
                "a block with admin actions was taken back: nodes of IoP Core that had it may hold other licenses or another cap"
            );
        }
    }

    /// Disconnects the tip. The mempool holds its transactions until the reorganisation is over.
    pub(super) fn disconnect_tip(&mut self) -> Result<(), StorageError> {
        let entry = self.index.get(self.index.tip());
        let (hash, height) = (entry.hash, entry.record.height);
        if entry.parent.is_none() {
            return Err(StorageError::inconsistent("genesis cannot be disconnected"));
        }
        let block = self.read_block(&hash)?;
        let undo = self.storage.undo(&hash)?;
        let coins = connect::disconnect(block.block(), undo.spent)
            .ok_or_else(|| StorageError::inconsistent("an undo does not fit its block"))?;
        self.registry.undo(&undo.registry);
        self.coins.disconnect(coins);
        self.unwritten.note(height, &undo.registry);
        self.index.pop_tip();
        self.metrics.blocks_disconnected.inc();
        info!(height, %hash, "block disconnected");
        self.log_actions_taken_back(height, block.block());
        self.events.send(|| ChainEvent::Disconnected { block: block.block().clone(), height });
        self.mempool.block_disconnected(block.block().txdata.clone());
        self.write_if_full()
    }

    fn after_reorganisation(&mut self, old_tip: BlockId, now: u64) -> Result<(), StorageError> {
        let tip = self.index.tip();
        if tip != old_tip {
            let (old, new) = (self.index.get(old_tip), self.index.get(tip));
            warn!(
                from = %old.hash, from_height = old.record.height, to = %new.hash, to_height = new.record.height,
                "reorganisation"
            );
        }
        // Report removals first: a transaction dropped during the reorganisation may be accepted again now.
        self.tell_mempool(None);
        for txid in self.with_mempool(now, |mempool, tip| mempool.finish_reorganisation(tip))? {
            self.events.send(|| ChainEvent::TxAccepted(txid));
        }
        self.tell_mempool(None);
        Ok(())
    }

    /// Marks a block that broke a rule when it was connected. As in the reference, its descendants are marked only
    /// when they are next looked at.
    pub(super) fn mark_failed(&mut self, id: BlockId) -> Result<(), StorageError> {
        let mut batch = self.storage.batch();
        let entry = self.index.get_mut(id);
        entry.record.failed = true;
        batch.put_index(&entry.hash, &entry.record);
        self.candidates.remove(&(entry.work, Reverse(entry.arrival), id));
        self.index.note_failed(id);
        self.storage.commit(batch)
    }

    fn read_block(&self, hash: &BlockHash) -> Result<CheckedBlock, StorageError> {
        self.storage
            .block_bytes(hash)?
            .and_then(|bytes| CheckedBlock::stored(bytes, *hash))
            .ok_or_else(|| StorageError::inconsistent(&format!("block {hash} of the index cannot be read")))
    }
}
