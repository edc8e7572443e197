//! Transactions that wait for a block.
//!
//! Lives here: acceptance against the coins of the tip and of other waiting transactions, what a block takes
//! out, and the choice for a template. Does not live here: relay policy beyond a fee floor and size bounds.
//! Whatever is in the pool could be in the next block as it is: its parents are in the chain or in the pool. Lock
//! times and scripts are judged by all soft forks, active or not, as the reference's policy does: so nothing that
//! waits becomes invalid when one of them activates.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::sync::Arc;

use bitcoin::{Block, OutPoint, Transaction, Txid};
use iop_consensus::ancestors::{Ancestors, median_time_past};
use iop_consensus::block::SoftForks;
use iop_consensus::coins::{Coin, CoinView};
use iop_consensus::error::TxError;
use iop_consensus::script::{self, ScriptCheck};
use iop_consensus::tx;

use crate::storage::{Storage, StorageError};

/// A transaction pays at least this many base units per 1,000 virtual bytes (Core's default relay fee).
pub const MIN_FEE_PER_KVB: u64 = 1_000;
/// A single transaction weighs at most this (`MAX_STANDARD_TX_WEIGHT`): a tenth of a block.
const MAX_TX_WEIGHT: u64 = 400_000;
/// A single transaction's signature operations cost at most this (`MAX_STANDARD_TX_SIGOPS_COST`).
const MAX_TX_SIGOPS_COST: u64 = 16_000;
/// A single transaction has at most this many inputs: checking scripts costs the square of them, a tenth of a second
/// for this many. A signed input weighs so much that 675 of them reach the weight limit first.
const MAX_TX_INPUTS: usize = 1_000;
/// The pool's transactions have at most this many bytes together, as serialised (Core's default -maxmempool).
const MAX_BYTES: usize = 300_000_000;

/// A waiting transaction and what is known of it.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The transaction.
    pub tx: Arc<Transaction>,
    /// Base units.
    pub fee: u64,
    /// Weight units.
    pub weight: u64,
    /// Cost units.
    pub sigop_cost: u64,
    /// When it came, seconds since 1970.
    pub time: u64,
    arrival: u64,
    bytes: usize,
}

/// Why a transaction is not accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reject {
    /// It breaks a rule of the chain.
    Rule(TxError),
    /// A coinbase never waits.
    Coinbase,
    /// A witness before segwit is active.
    PrematureWitness,
    /// Its lock time has not passed.
    NotFinal,
    /// Its relative lock time has not passed.
    NotBip68Final,
    /// One of its outputs is in the chain already.
    AlreadyInChain,
    /// It is here already.
    AlreadyHere,
    /// It spends what a waiting transaction spends.
    Conflict(Txid),
    /// Its fee is too low.
    FeeTooLow {
        /// What it pays, base units.
        found: u64,
        /// The least, base units.
        at_least: u64,
    },
    /// Its fee is so high that it must be a mistake.
    FeeTooHigh {
        /// What it pays, base units.
        found: u64,
        /// The most, base units.
        at_most: u64,
    },
    /// Too heavy, or too many signature operations, for relay.
    TooLarge,
    /// The pool has no room.
    Full,
}

impl Reject {
    /// The reference's reject code and string.
    pub fn code_and_reason(&self) -> (u8, &'static str) {
        match self {
            Self::Rule(TxError::Script(_)) => (16, "mandatory-script-verify-flag-failed"),
            Self::Rule(error) => (16, error.reject_reason()),
            Self::Coinbase => (16, "coinbase"),
            Self::PrematureWitness => (64, "no-witness-yet"),
            Self::NotFinal => (64, "non-final"),
            Self::NotBip68Final => (64, "non-BIP68-final"),
            Self::AlreadyInChain => (18, "txn-already-known"),
            Self::AlreadyHere => (18, "txn-already-in-mempool"),
            Self::Conflict(_) => (18, "txn-mempool-conflict"),
            Self::FeeTooLow { .. } => (66, "min relay fee not met"),
            Self::FeeTooHigh { .. } => (0, "absurdly-high-fee"),
            Self::TooLarge => (64, "tx-size"),
            Self::Full => (66, "mempool full"),
        }
    }
}

/// What acceptance is judged against: the tip.
pub struct Tip<'a> {
    /// The confirmed coins.
    pub coins: &'a Storage,
    /// The chain up to the tip.
    pub chain: &'a dyn Ancestors,
    /// The soft forks active for the next block.
    pub forks: SoftForks,
    /// Seconds since 1970.
    pub now: u64,
}

/// Whether a transaction's scripts are to be run. They depend on nothing that a reorganisation changes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Scripts {
    Run,
    Passed,
}

/// The pool.
#[derive(Debug, Default)]
pub struct Mempool {
    entries: HashMap<Txid, Entry>,
    spends: HashMap<OutPoint, Txid>,
    bytes: usize,
    arrivals: u64,
    changes: u64,
}

impl Mempool {
    /// The transaction ids here, in order of arrival.
    pub fn txids(&self) -> Vec<Txid> {
        let mut order: Vec<_> = self.entries.iter().map(|(txid, entry)| (entry.arrival, *txid)).collect();
        order.sort_unstable();
        order.into_iter().map(|(_, txid)| txid).collect()
    }

    /// A waiting transaction.
    pub fn get(&self, txid: &Txid) -> Option<&Entry> {
        self.entries.get(txid)
    }

    /// Whether a waiting transaction spends this output.
    pub fn spends(&self, outpoint: &OutPoint) -> bool {
        self.spends.contains_key(outpoint)
    }

    /// Whether exactly this transaction, witness and all, waits here: then its scripts passed under all soft forks.
    pub fn has_verified(&self, tx: &Transaction) -> bool {
        let waiting = self.entries.get(&tx.compute_txid());
        waiting.is_some_and(|entry| entry.tx.compute_wtxid() == tx.compute_wtxid())
    }

    /// Grows with every change.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// Accepts a transaction that could be in the next block and pays at most `max_fee` base units.
    ///
    /// # Errors
    /// The storage's failure outside, the reason for a refusal inside.
    pub fn accept(
        &mut self,
        tx: Transaction,
        max_fee: u64,
        tip: &Tip<'_>,
    ) -> Result<Result<Txid, Reject>, StorageError> {
        self.accept_with(tx, max_fee, tip, Scripts::Run)
    }

    fn accept_with(
        &mut self,
        tx: Transaction,
        max_fee: u64,
        tip: &Tip<'_>,
        scripts: Scripts,
    ) -> Result<Result<Txid, Reject>, StorageError> {
        let txid = tx.compute_txid();
        if let Err(reject) = self.check_alone(&tx, txid, tip) {
            return Ok(Err(reject));
        }
        for vout in 0..tx.output.len() as u32 {
            if tip.coins.coin(&OutPoint { txid, vout })?.is_some() {
                return Ok(Err(Reject::AlreadyInChain));
            }
        }
        let mut spent = Vec::with_capacity(tx.input.len());
        for input in &tx.input {
            match self.coin(&input.previous_output, tip)? {
                Some(coin) => spent.push(coin),
                None => return Ok(Err(Reject::Rule(TxError::MissingInput(input.previous_output)))),
            }
        }
        Ok(self.check_spending(&tx, &spent, tip, scripts).and_then(|(fee, sigop_cost)| {
            if fee > max_fee {
                return Err(Reject::FeeTooHigh { found: fee, at_most: max_fee });
            }
            self.insert(txid, tx, fee, sigop_cost, tip.now);
            Ok(txid)
        }))
    }

    fn check_alone(&self, tx: &Transaction, txid: Txid, tip: &Tip<'_>) -> Result<(), Reject> {
        tx::check(tx).map_err(Reject::Rule)?;
        if tx.is_coinbase() {
            return Err(Reject::Coinbase);
        }
        if !tip.forks.segwit && tx.input.iter().any(|input| !input.witness.is_empty()) {
            return Err(Reject::PrematureWitness);
        }
        if tx.weight().to_wu() > MAX_TX_WEIGHT || tx.input.len() > MAX_TX_INPUTS {
            return Err(Reject::TooLarge);
        }
        let height = tip.chain.tip_height();
        if !tx::is_final(tx, height + 1, median_time_past(tip.chain, height)) {
            return Err(Reject::NotFinal);
        }
        if self.entries.contains_key(&txid) {
            return Err(Reject::AlreadyHere);
        }
        if let Some(other) = tx.input.iter().find_map(|input| self.spends.get(&input.previous_output)) {
            return Err(Reject::Conflict(*other));
        }
        Ok(())
    }

    /// The confirmed or waiting output; a waiting one counts as of the next block.
    fn coin(&self, outpoint: &OutPoint, tip: &Tip<'_>) -> Result<Option<Coin>, StorageError> {
        let Some(parent) = self.entries.get(&outpoint.txid) else { return tip.coins.coin(outpoint) };
        Ok(parent.tx.output.get(outpoint.vout as usize).map(|output| Coin {
            output: output.clone(),
            height: tip.chain.tip_height() + 1,
            coinbase: false,
        }))
    }

    /// Fee and signature operation cost of a transaction that may spend these coins.
    fn check_spending(
        &self,
        tx: &Transaction,
        spent: &[Coin],
        tip: &Tip<'_>,
        scripts: Scripts,
    ) -> Result<(u64, u64), Reject> {
        let heights: Vec<u32> = spent.iter().map(|coin| coin.height).collect();
        if !tx::sequence_locks_passed(tx, &heights, tip.chain) {
            return Err(Reject::NotBip68Final);
        }
        let fee = tx::check_inputs(tx, spent, tip.chain.tip_height() + 1).map_err(Reject::Rule)?;
        let flags = script::flags(u32::MAX, true, true);
        let outputs: Vec<_> = spent.iter().map(|coin| &coin.output).collect();
        let sigop_cost = script::sigop_cost(tx, &outputs, flags);
        if sigop_cost > MAX_TX_SIGOPS_COST {
            return Err(Reject::TooLarge);
        }
        let at_least = tx.vsize() as u64 * MIN_FEE_PER_KVB / 1_000;
        if fee < at_least {
            return Err(Reject::FeeTooLow { found: fee, at_least });
        }
        if self.bytes + tx.total_size() > MAX_BYTES {
            return Err(Reject::Full);
        }
        if scripts == Scripts::Run {
            let spent = spent.iter().map(|coin| coin.output.clone()).collect();
            ScriptCheck { tx, spent, flags }.run().map_err(|failure| Reject::Rule(failure.into()))?;
        }
        Ok((fee, sigop_cost))
    }

    fn insert(&mut self, txid: Txid, tx: Transaction, fee: u64, sigop_cost: u64, time: u64) {
        for input in &tx.input {
            self.spends.insert(input.previous_output, txid);
        }
        self.arrivals += 1;
        self.changes += 1;
        let bytes = tx.total_size();
        self.bytes += bytes;
        let entry = Entry {
            fee,
            weight: tx.weight().to_wu(),
            sigop_cost,
            time,
            arrival: self.arrivals,
            bytes,
            tx: Arc::new(tx),
        };
        self.entries.insert(txid, entry);
    }

    /// Takes out what a new block contains, and whatever spends the same outputs, with its descendants.
    pub fn remove_confirmed(&mut self, block: &Block) {
        for tx in &block.txdata {
            self.remove(&tx.compute_txid());
            for input in &tx.input {
                if let Some(rival) = self.spends.get(&input.previous_output).copied() {
                    self.remove_with_descendants(rival);
                }
            }
        }
    }

    fn remove_with_descendants(&mut self, txid: Txid) {
        let mut queue = vec![txid];
        while let Some(txid) = queue.pop() {
            let Some(entry) = self.remove(&txid) else { continue };
            let outputs = (0..entry.tx.output.len() as u32).map(|vout| OutPoint { txid, vout });
            queue.extend(outputs.filter_map(|outpoint| self.spends.get(&outpoint).copied()));
        }
    }

    fn remove(&mut self, txid: &Txid) -> Option<Entry> {
        let entry = self.entries.remove(txid)?;
        for input in &entry.tx.input {
            self.spends.remove(&input.previous_output);
        }
        self.bytes -= entry.bytes;
        self.changes += 1;
        Some(entry)
    }

    /// After a reorganisation: judges everything anew, `returned` (from disconnected blocks, oldest first) before
    /// what waited here. What no longer fits is dropped.
    ///
    /// # Errors
    /// Only when the storage fails.
    pub fn rebuild(&mut self, returned: Vec<Transaction>, tip: &Tip<'_>) -> Result<(), StorageError> {
        let order = self.txids();
        let mut old = std::mem::take(&mut self.entries);
        self.spends.clear();
        self.bytes = 0;
        self.changes += 1;
        let returned = returned.into_iter().filter(|tx| !tx.is_coinbase()).map(|tx| (tx, Scripts::Run));
        let waited = order
            .into_iter()
            .filter_map(|txid| old.remove(&txid))
            .map(|entry| (Arc::unwrap_or_clone(entry.tx), Scripts::Passed));
        for (tx, scripts) in returned.chain(waited) {
            // A refusal is the answer here, not a fault.
            let _dropped = self.accept_with(tx, u64::MAX, tip, scripts)?.is_err();
        }
        Ok(())
    }

    /// Chooses transactions for a block, best fee rate first, parents before children, within both limits.
    pub fn select(&self, max_weight: u64, max_sigops_cost: u64) -> Vec<&Entry> {
        let (mut ready, mut waiting) = (BinaryHeap::new(), HashMap::new());
        let mut children: HashMap<Txid, Vec<Txid>> = HashMap::new();
        for (txid, entry) in &self.entries {
            let parents: HashSet<Txid> = entry
                .tx
                .input
                .iter()
                .map(|input| input.previous_output.txid)
                .filter(|parent| self.entries.contains_key(parent))
                .collect();
            if parents.is_empty() {
                ready.push(rank(*txid, entry));
            }
            waiting.insert(*txid, parents.len());
            for parent in parents {
                children.entry(parent).or_default().push(*txid);
            }
        }
        let (mut chosen, mut weight, mut sigops_cost) = (Vec::new(), 0, 0);
        while let Some((_, _, txid)) = ready.pop() {
            let entry = &self.entries[&txid];
            if weight + entry.weight > max_weight || sigops_cost + entry.sigop_cost > max_sigops_cost {
                continue;
            }
            weight += entry.weight;
            sigops_cost += entry.sigop_cost;
            chosen.push(entry);
            for child in children.remove(&txid).unwrap_or_default() {
                let left = waiting.get_mut(&child).expect("every transaction was counted above");
                *left -= 1;
                if *left == 0 {
                    ready.push(rank(child, &self.entries[&child]));
                }
            }
        }
        chosen
    }
}

/// Sorts by fee rate, then earlier arrival.
fn rank(txid: Txid, entry: &Entry) -> (u128, Reverse<u64>, Txid) {
    // Base units per 2^32 weight units: exact enough to tell any two rates in a block apart.
    let rate = (u128::from(entry.fee) << 32) / u128::from(entry.weight.max(1));
    (rate, Reverse(entry.arrival), txid)
}
