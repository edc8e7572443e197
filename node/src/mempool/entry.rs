//! An entry of the mempool: a transaction with its fee, sizes and relatives.

use std::collections::BTreeSet;
use std::mem::size_of;
use std::sync::Arc;

use bitcoin::{OutPoint, Transaction, TxIn, TxOut, Txid, Wtxid};

use super::fee::{FeeRate, Score};

/// The index of an entry in the pool; reused when the entry leaves.
pub(super) type Slot = usize;

/// Overhead of an allocation, bytes.
const ALLOCATION: usize = 16;
/// Bytes of an entry in the map by id and in the three orderings: keys and a share of the nodes' free space.
const INDEXES: usize = 3 * size_of::<(Score, u64, Slot)>() + size_of::<(Txid, Slot)>() + 160;
/// Bytes of a spent output in its map, free space included.
const SPEND: usize = 2 * size_of::<(OutPoint, Slot)>();
/// Bytes of a link between parent and child, counting both ends.
const LINK: usize = 4 * size_of::<Slot>();

/// Sums over a transaction and its unconfirmed ancestors, or over it and its unconfirmed descendants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Transactions.
    pub count: u64,
    /// Virtual bytes.
    pub size: u64,
    /// Base units.
    pub fees: u64,
    /// Signature operation cost.
    pub sigop_cost: u64,
}

impl Totals {
    pub(super) fn add(&mut self, other: Self) {
        self.count += other.count;
        self.size += other.size;
        self.fees += other.fees;
        self.sigop_cost += other.sigop_cost;
    }

    /// `other` must have been added before.
    pub(super) fn subtract(&mut self, other: Self) {
        self.count -= other.count;
        self.size -= other.size;
        self.fees -= other.fees;
        self.sigop_cost -= other.sigop_cost;
    }

    pub(super) fn score(self) -> Score {
        Score { fee: self.fees, size: self.size }
    }
}

/// A transaction in the mempool.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The transaction.
    pub tx: Arc<Transaction>,
    /// Its id.
    pub txid: Txid,
    /// The hash including the witness.
    pub wtxid: Wtxid,
    /// Fee in base units.
    pub fee: u64,
    /// Weight units.
    pub weight: u64,
    /// Virtual bytes for fee purposes: more than a quarter of the weight if there are many signature operations.
    pub vsize: u64,
    /// Signature operation cost.
    pub sigop_cost: u64,
    /// When it arrived, seconds since 1970.
    pub time: u64,
    /// Height of the tip when it arrived.
    pub height: u32,
    /// Totals of the transaction and its unconfirmed ancestors.
    pub ancestors: Totals,
    /// Totals of the transaction and its unconfirmed descendants.
    pub descendants: Totals,
    /// Whether an input spends a coinbase output.
    pub(super) spends_coinbase: bool,
    pub(super) parents: BTreeSet<Slot>,
    pub(super) children: BTreeSet<Slot>,
    /// Memory in bytes, without the links.
    pub(super) usage: usize,
}

impl Entry {
    /// An entry without relatives.
    pub(super) fn new(tx: Arc<Transaction>, fee: u64, sigop_cost: u64, time: u64, height: u32) -> Self {
        let weight = tx.weight().to_wu();
        let vsize = virtual_size(weight, sigop_cost);
        let own = Totals { count: 1, size: vsize, fees: fee, sigop_cost };
        Self {
            txid: tx.compute_txid(),
            wtxid: tx.compute_wtxid(),
            fee,
            weight,
            vsize,
            sigop_cost,
            time,
            height,
            ancestors: own,
            descendants: own,
            spends_coinbase: false,
            parents: BTreeSet::new(),
            children: BTreeSet::new(),
            usage: usage(&tx),
            tx,
        }
    }

    /// Its own fee rate per 1,000 virtual bytes, without relatives.
    pub fn fee_rate(&self) -> FeeRate {
        FeeRate::of(self.fee, self.vsize)
    }

    /// Whether it signals replaceability itself (BIP125); an ancestor may signal for it.
    pub fn signals_replacement(&self) -> bool {
        signals_replacement(&self.tx)
    }

    /// Its own contribution to any total.
    pub(super) fn own(&self) -> Totals {
        Totals { count: 1, size: self.vsize, fees: self.fee, sigop_cost: self.sigop_cost }
    }

    /// The rate that eviction compares: its own or that with its descendants, whichever is higher.
    pub(super) fn eviction_score(&self) -> Score {
        self.own().score().max(self.descendants.score())
    }

    /// Memory in bytes, including the links.
    pub(super) fn full_usage(&self) -> usize {
        self.usage + LINK * self.parents.len()
    }

    /// Whether an input has a non-zero relative lock time; only such a lock can become unmet again.
    pub(super) fn has_relative_lock(&self) -> bool {
        self.tx.version.0 as u32 >= 2
            && self.tx.input.iter().any(|input| {
                let sequence = input.sequence.to_consensus_u32();
                sequence & (1 << 31) == 0 && sequence & 0xffff != 0
            })
    }
}

/// Virtual size: from the weight, or from 20 weight units per signature operation cost unit if that is more
/// (`GetVirtualTransactionSize`).
pub(super) fn virtual_size(weight: u64, sigop_cost: u64) -> u64 {
    weight.max(sigop_cost * super::policy::BYTES_PER_SIGOP).div_ceil(4)
}

/// Whether an input's sequence number signals replaceability (`SignalsOptInRBF`).
pub(super) fn signals_replacement(tx: &Transaction) -> bool {
    tx.input.iter().any(|input| input.sequence.to_consensus_u32() < u32::MAX - 1)
}

/// Memory of a transaction in the pool: its parts with allocation overhead, and its index entries.
fn usage(tx: &Transaction) -> usize {
    let bytes = |length: usize| if length == 0 { 0 } else { length.next_multiple_of(16) + ALLOCATION };
    let inputs = tx
        .input
        .iter()
        .map(|input| size_of::<TxIn>() + SPEND + bytes(input.script_sig.len()) + bytes(input.witness.size()));
    let outputs = tx.output.iter().map(|output| size_of::<TxOut>() + bytes(output.script_pubkey.len()));
    let own = size_of::<Entry>() + size_of::<Transaction>() + 3 * ALLOCATION + INDEXES;
    own + inputs.sum::<usize>() + outputs.sum::<usize>()
}
