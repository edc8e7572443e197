//! Acceptance (`AcceptToMemoryPool`): checks one transaction against rules, policy and pool, in the reference's
//! order.
//!
//! The order decides which reason is reported and puts cheap checks first: the transaction alone, standardness,
//! lock times, conflicts, inputs, fees, relatives, replacement, scripts, and last whether it is in the chain
//! already. Judging changes nothing ([`Mempool::judge`]); [`Mempool::accept_at`] adds what passes. Scripts run
//! under the relay flags in our interpreter, and again under the soft forks in the interpreter used for blocks, so
//! that a fault in ours cannot make a template invalid.

use std::collections::HashSet;
use std::sync::Arc;

use bitcoin::{OutPoint, Transaction, Txid};
use iop_consensus::ancestors::median_time_past;
use iop_consensus::coins::Coin;
use iop_consensus::script::interpreter::{ScriptError, SpendingTx, verify};
use iop_consensus::script::{self, TxVerifier, flag};
use iop_consensus::tx;
use rayon::prelude::*;
use tracing::error;

use super::entry::{Entry, Slot};
use super::policy::{
    MAX_TX_SIGOPS_COST, MIN_RELAY_FEE, check_forms, inputs_are_standard, witness_is_standard,
};
use super::{Accepted, Mempool, Reject, Tip};
use crate::storage::StorageError;

/// Where a transaction comes from.
#[derive(Clone, Copy)]
pub(super) enum Origin {
    /// From a peer or an RPC client.
    New {
        /// The highest fee it may pay, base units.
        max_fee: u64,
    },
    /// From a disconnected block: any fee is accepted, and the pool's limits are applied later.
    Block,
}

/// A transaction that passed every check.
pub(super) struct Candidate {
    entry: Entry,
    replaced: HashSet<Slot>,
}

/// A transaction with its coins and what is computed from them.
struct Spend<'a> {
    tx: &'a Transaction,
    spending: SpendingTx<'a>,
    coins: Vec<Coin>,
}

impl Mempool {
    /// Accepts a transaction that could be in the next block and pays a fee of at most `max_fee` base units.
    ///
    /// # Errors
    /// The outer error is a storage failure; the inner one is the reason for the refusal.
    pub fn accept(
        &mut self,
        tx: impl Into<Arc<Transaction>>,
        max_fee: u64,
        tip: &Tip<'_>,
    ) -> Result<Result<Accepted, Reject>, StorageError> {
        self.accept_at(tx.into(), Origin::New { max_fee }, tip.now, tip)
    }

    /// Accepts a transaction from the file of an earlier run, where it arrived at `time` (seconds).
    ///
    /// # Errors
    /// The outer error is a storage failure; the inner one is the reason for the refusal.
    pub fn accept_again(
        &mut self,
        tx: impl Into<Arc<Transaction>>,
        time: u64,
        tip: &Tip<'_>,
    ) -> Result<Result<Accepted, Reject>, StorageError> {
        self.accept_at(tx.into(), Origin::New { max_fee: u64::MAX }, time, tip)
    }

    /// What [`Mempool::accept`] would return; changes nothing. Does not detect that the pool has no room.
    ///
    /// # Errors
    /// The outer error is a storage failure; the inner one is the reason for the refusal.
    pub fn test_accept(
        &self,
        tx: impl Into<Arc<Transaction>>,
        max_fee: u64,
        tip: &Tip<'_>,
    ) -> Result<Result<Accepted, Reject>, StorageError> {
        let judged = self.judge(tx.into(), Origin::New { max_fee }, tip.now, tip)?;
        Ok(judged.map(|candidate| self.summary(&candidate)))
    }

    pub(super) fn accept_at(
        &mut self,
        tx: Arc<Transaction>,
        origin: Origin,
        time: u64,
        tip: &Tip<'_>,
    ) -> Result<Result<Accepted, Reject>, StorageError> {
        // Refused transactions also advance the clock; otherwise a minimum fee that nothing meets would never fall.
        self.lower_min_fee(tip.now);
        let candidate = match self.judge(tx, origin, time, tip)? {
            Ok(candidate) => candidate,
            Err(reject) => return Ok(Err(reject)),
        };
        let accepted = self.summary(&candidate);
        self.drop_with_descendants(candidate.replaced);
        self.graph.add(candidate.entry);
        self.changes += 1;
        if matches!(origin, Origin::New { .. }) {
            self.limit(tip.now);
            if !self.contains(&accepted.txid) {
                return Ok(Err(Reject::Full));
            }
        }
        Ok(Ok(accepted))
    }

    fn summary(&self, candidate: &Candidate) -> Accepted {
        let replaced = self.ids(candidate.replaced.iter().copied());
        let entry = &candidate.entry;
        Accepted { txid: entry.txid, wtxid: entry.wtxid, fee: entry.fee, vsize: entry.vsize, replaced }
    }

    /// Checks whether a transaction may enter the pool, and builds its entry.
    fn judge(
        &self,
        tx: Arc<Transaction>,
        origin: Origin,
        time: u64,
        tip: &Tip<'_>,
    ) -> Result<Result<Candidate, Reject>, StorageError> {
        if let Err(reject) = self.check_alone(&tx, tip) {
            return Ok(Err(reject));
        }
        let conflicts = match self.conflicts(&tx) {
            Ok(conflicts) => conflicts,
            Err(reject) => return Ok(Err(reject)),
        };
        let coins = match self.spent_coins(&tx, tip)? {
            Ok(coins) => coins,
            Err(reject) => return Ok(Err(reject)),
        };
        let candidate = match self.judge_spend(&tx, coins, conflicts, origin, time, tip) {
            Ok(candidate) => candidate,
            Err(reject) => return Ok(Err(reject)),
        };
        // Last, so that only a transaction that pays for it costs a lookup of each output. The reference does not
        // check this, and its templates become invalid.
        let known = is_in_chain(candidate.entry.txid, tx.output.len(), tip)?;
        Ok(if known { Err(Reject::AlreadyInChain) } else { Ok(candidate) })
    }

    /// The checks that need neither coins nor conflicts.
    fn check_alone(&self, tx: &Transaction, tip: &Tip<'_>) -> Result<(), Reject> {
        tx::check(tx).map_err(Reject::Rule)?;
        if tx.is_coinbase() {
            return Err(Reject::Coinbase);
        }
        if !tip.forks.segwit && has_witness(tx) {
            return Err(Reject::PrematureWitness);
        }
        if self.policy.require_standard {
            check_forms(tx, tip.forks.segwit).map_err(Reject::NonStandard)?;
        }
        if !is_final_next(tx, tip) {
            return Err(Reject::NotFinal);
        }
        if self.contains(&tx.compute_txid()) { Err(Reject::AlreadyHere) } else { Ok(()) }
    }

    /// The spent coins, in input order.
    fn spent_coins(
        &self,
        tx: &Transaction,
        tip: &Tip<'_>,
    ) -> Result<Result<Vec<Coin>, Reject>, StorageError> {
        let mut coins = Vec::with_capacity(tx.input.len());
        for input in &tx.input {
            match self.coin(&input.previous_output, tip)? {
                Some(coin) => coins.push(coin),
                // The coin may be missing because the transaction itself is in the chain.
                None => {
                    let known = is_in_chain(tx.compute_txid(), tx.output.len(), tip)?;
                    return Ok(Err(if known { Reject::AlreadyInChain } else { Reject::MissingInputs }));
                }
            }
        }
        Ok(Ok(coins))
    }

    /// The confirmed or unconfirmed output; an unconfirmed one counts as created in the next block.
    pub(super) fn coin(&self, outpoint: &OutPoint, tip: &Tip<'_>) -> Result<Option<Coin>, StorageError> {
        let Some(parent) = self.get(&outpoint.txid) else { return tip.coins.coin(outpoint) };
        Ok(parent.tx.output.get(outpoint.vout as usize).map(|output| Coin {
            output: output.clone(),
            height: tip.chain.tip_height() + 1,
            coinbase: false,
        }))
    }

    fn judge_spend(
        &self,
        tx: &Arc<Transaction>,
        coins: Vec<Coin>,
        conflicts: std::collections::BTreeSet<Slot>,
        origin: Origin,
        time: u64,
        tip: &Tip<'_>,
    ) -> Result<Candidate, Reject> {
        let fee = signed_fee(tx, &coins);
        let spend = Spend { tx, spending: SpendingTx::new(tx), coins };
        let sigop_cost = self.check_forms_of_inputs(&spend, tip)?;
        let height = tip.chain.tip_height();
        let mut entry = Entry::new(Arc::clone(tx), u64::try_from(fee).unwrap_or(0), sigop_cost, time, height);
        entry.spends_coinbase = spend.coins.iter().any(|coin| coin.coinbase);
        if sigop_cost > MAX_TX_SIGOPS_COST {
            return Err(Reject::TooManySigops(sigop_cost));
        }
        self.check_fee(fee, entry.vsize, origin, tip.now)?;
        let parents = self.graph.parents_of(tx);
        let ancestors = self.ancestors_within_limits(&parents, entry.vsize).map_err(Reject::TooLongChain)?;
        if let Some(both) = conflicts.iter().find(|slot| ancestors.contains(slot)) {
            return Err(Reject::SpendsConflicting(self.graph.get(*both).txid));
        }
        let replaced = self.check_replacement(tx, fee, entry.vsize, &conflicts)?;
        tx::check_inputs(tx, &spend.coins, height + 1).map_err(Reject::Rule)?;
        check_scripts(&spend)?;
        Ok(Candidate { entry, replaced })
    }

    /// Checks relative lock times and the standardness of the inputs; returns the signature operation cost.
    fn check_forms_of_inputs(&self, spend: &Spend<'_>, tip: &Tip<'_>) -> Result<u64, Reject> {
        let tx = spend.tx;
        let heights = spend.coins.iter().map(|coin| coin.height);
        if !tx::sequence_locks_passed(tx, heights, tip.chain) {
            return Err(Reject::NotBip68Final);
        }
        if self.policy.require_standard {
            if !inputs_are_standard(&spend.spending, &spend.coins) {
                return Err(Reject::NonStandardInputs);
            }
            if has_witness(tx) && !witness_is_standard(tx, &spend.spending, &spend.coins) {
                return Err(Reject::NonStandardWitness);
            }
        }
        Ok(script::sigop_cost(tx, spend.coins.iter().map(|coin| &coin.output), flag::STANDARD))
    }

    fn check_fee(&self, fee: i64, vsize: u64, origin: Origin, now: u64) -> Result<(), Reject> {
        let at_least = self.min_fee(now).fee(vsize);
        let too_low = |least: u64| i128::from(fee) < i128::from(least);
        if at_least > 0 && too_low(at_least) {
            return Err(Reject::MempoolFee { found: fee, at_least });
        }
        let Origin::New { max_fee } = origin else { return Ok(()) };
        if too_low(MIN_RELAY_FEE.fee(vsize)) {
            return Err(Reject::RelayFee);
        }
        if i128::from(fee) > i128::from(max_fee) {
            return Err(Reject::FeeTooHigh { found: fee, at_most: max_fee });
        }
        Ok(())
    }
}

/// Whether an unspent output of this transaction is in the chain: then no block may contain it again (BIP30).
fn is_in_chain(txid: Txid, outputs: usize, tip: &Tip<'_>) -> Result<bool, StorageError> {
    for vout in 0..outputs as u32 {
        if tip.coins.has_coin(&OutPoint { txid, vout })? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether the lock time will have passed in the next block, judged by the median time past (`CheckFinalTx`).
pub(super) fn is_final_next(tx: &Transaction, tip: &Tip<'_>) -> bool {
    let height = tip.chain.tip_height();
    tx::is_final(tx, height + 1, median_time_past(tip.chain, height))
}

fn has_witness(tx: &Transaction) -> bool {
    tx.input.iter().any(|input| !input.witness.is_empty())
}

/// Inputs minus outputs. Amounts of coins are in range, and the sum of the outputs was checked.
fn signed_fee(tx: &Transaction, coins: &[Coin]) -> i64 {
    let value_in: i128 = coins.iter().map(|coin| i128::from(coin.output.value.to_sat())).sum();
    let fee = value_in - i128::from(tx::value_out(tx));
    i64::try_from(fee).unwrap_or(i64::MAX)
}

/// Runs all scripts under the relay flags and under those of a block.
fn check_scripts(spend: &Spend<'_>) -> Result<(), Reject> {
    if let Some((index, error)) = first_failure(spend, flag::STANDARD) {
        return Err(script_reject(spend, index, error));
    }
    let verifier = TxVerifier::new(spend.tx);
    let coins = spend.coins.par_iter().enumerate();
    coins.try_for_each(|(input, coin)| verifier.verify(input, &coin.output, flag::CONSENSUS)).map_err(
        |failure| {
            error!("the interpreters differ, please report it: {failure}");
            Reject::Rule(failure.into())
        },
    )
}

/// The first input, in order, that fails under these flags.
fn first_failure(spend: &Spend<'_>, flags: u32) -> Option<(usize, ScriptError)> {
    spend.coins.par_iter().enumerate().find_map_first(|(index, coin)| {
        verify(&spend.spending, index, &coin.output, flags).err().map(|error| (index, error))
    })
}

/// Distinguishes consensus failures from relay-only ones, and a stripped witness from a wrong one.
fn script_reject(spend: &Spend<'_>, index: usize, error: ScriptError) -> Reject {
    let mandatory = verify(&spend.spending, index, &spend.coins[index].output, flag::MANDATORY).is_err();
    let without_stack = flag::STANDARD & !flag::CLEANSTACK;
    let witness_stripped = !has_witness(spend.tx)
        && first_failure(spend, without_stack & !flag::WITNESS).is_none()
        && first_failure(spend, without_stack).is_some();
    Reject::Script { error, mandatory, witness_stripped }
}
