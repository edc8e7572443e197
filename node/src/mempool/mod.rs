//! The mempool: transactions that wait for a block.
//!
//! Lives here: acceptance ([`Mempool::accept`]) with the reference's relay policy, the entries and their relatives
//! (`graph.rs`), limits (`limits.rs`), replacement (`rbf.rs`), effects of blocks (`reorg.rs`), selection for a
//! block (`select.rs`), and the file that survives restarts ([`persist`]). Does not live here: storage, templates,
//! the network. Data goes: transaction -> judged against [`Tip`] -> entry -> template -> block -> removed. Every
//! entry could be in the next block: its parents are in the chain or in the pool. Lock times and scripts are judged
//! with all soft forks active, so none becomes invalid when a fork activates.

mod accept;
mod entry;
mod fee;
mod graph;
mod limits;
pub mod persist;
pub mod policy;
mod rbf;
mod reject;
mod reorg;
mod select;
#[cfg(test)]
mod tests;

use bitcoin::{OutPoint, Transaction, Txid, Wtxid};
use iop_consensus::ancestors::Ancestors;
use iop_consensus::block::SoftForks;
use iop_consensus::coins::CoinView;

pub use entry::{Entry, Totals};
pub use fee::FeeRate;
pub use policy::Policy;
pub use reject::Reject;
pub use select::{Chosen, Room};

use crate::storage::StorageError;
use entry::Slot;
use graph::Graph;
use limits::RollingFee;
use reorg::Returned;

/// Minimum relay fee in base units per 1,000 virtual bytes (Core's default).
pub const MIN_FEE_PER_KVB: u64 = policy::MIN_RELAY_FEE.0;

/// The tip that transactions are judged against.
pub struct Tip<'a> {
    /// The confirmed coins.
    pub coins: &'a dyn CoinView<Error = StorageError>,
    /// The chain up to the tip.
    pub chain: &'a dyn Ancestors,
    /// The soft forks active for the next block.
    pub forks: SoftForks,
    /// Seconds since 1970.
    pub now: u64,
}

/// A transaction that was accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// Its id.
    pub txid: Txid,
    /// The hash including the witness.
    pub wtxid: Wtxid,
    /// Base units.
    pub fee: u64,
    /// Virtual bytes for fee purposes.
    pub vsize: u64,
    /// The transactions that it replaced, ordered by id.
    pub replaced: Vec<Txid>,
}

/// The mempool.
#[derive(Debug, Default)]
pub struct Mempool {
    policy: Policy,
    graph: Graph,
    rolling_fee: RollingFee,
    /// `Some` while a reorganisation is in progress.
    returned: Option<Returned>,
    /// Transactions removed other than by a block, until they are taken.
    removed: Vec<Txid>,
    changes: u64,
}

impl Mempool {
    /// An empty pool.
    pub fn new(policy: Policy) -> Self {
        Self { policy, ..Self::default() }
    }

    /// The policy.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Sets the policy; existing entries stay until the next acceptance.
    pub fn set_policy(&mut self, policy: Policy) {
        self.policy = policy;
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.graph.len()
    }

    /// Whether there are no entries.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Total virtual bytes (`bytes` of `getmempoolinfo`).
    pub fn vsize(&self) -> u64 {
        self.graph.vsize()
    }

    /// Total memory in bytes: each transaction's parts with allocation overhead, its entry, its places in maps and
    /// orderings, and its links to relatives.
    pub fn usage(&self) -> usize {
        self.graph.usage()
    }

    /// A counter that grows with every change.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// All entries, in no particular order.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.graph.slots().map(|slot| self.graph.get(slot))
    }

    /// The ids, parents before children and otherwise best rate first: the order in which they are announced to
    /// peers (`queryHashes`).
    pub fn txids(&self) -> Vec<Txid> {
        let mut order: Vec<&Entry> = self.entries().collect();
        order.sort_by(|a, b| {
            let by_rate = || b.own().score().cmp(&a.own().score());
            a.ancestors.count.cmp(&b.ancestors.count).then_with(by_rate).then_with(|| a.txid.cmp(&b.txid))
        });
        order.into_iter().map(|entry| entry.txid).collect()
    }

    /// Whether the transaction is in the pool.
    pub fn contains(&self, txid: &Txid) -> bool {
        self.graph.find(txid).is_some()
    }

    /// The entry of a transaction.
    pub fn get(&self, txid: &Txid) -> Option<&Entry> {
        self.graph.find(txid).map(|slot| self.graph.get(slot))
    }

    /// Whether an entry spends this output.
    pub fn spends(&self, outpoint: &OutPoint) -> bool {
        self.spender(outpoint).is_some()
    }

    /// The entry that spends this output.
    pub fn spender(&self, outpoint: &OutPoint) -> Option<&Entry> {
        self.graph.spender(outpoint).map(|slot| self.graph.get(slot))
    }

    /// The entries whose outputs it spends directly.
    pub fn parents(&self, entry: &Entry) -> Vec<Txid> {
        self.ids(entry.parents.iter().copied())
    }

    /// The entries that spend its outputs directly.
    pub fn children(&self, entry: &Entry) -> Vec<Txid> {
        self.ids(entry.children.iter().copied())
    }

    /// All its ancestors in the pool; empty if it is not in the pool.
    pub fn ancestors(&self, txid: &Txid) -> Vec<Txid> {
        self.graph.find(txid).map_or_else(Vec::new, |slot| self.ids(self.graph.ancestors(slot)))
    }

    /// All its descendants in the pool; empty if it is not in the pool.
    pub fn descendants(&self, txid: &Txid) -> Vec<Txid> {
        self.graph.find(txid).map_or_else(Vec::new, |slot| self.ids(self.graph.descendants(slot)))
    }

    fn ids(&self, slots: impl IntoIterator<Item = Slot>) -> Vec<Txid> {
        let mut ids: Vec<Txid> = slots.into_iter().map(|slot| self.graph.get(slot).txid).collect();
        ids.sort_unstable();
        ids
    }

    /// Whether an entry may be replaced: it or an ancestor signals so (`IsRBFOptIn`).
    pub fn is_replaceable(&self, entry: &Entry) -> bool {
        entry.signals_replacement()
            || self
                .ancestors(&entry.txid)
                .iter()
                .any(|id| self.get(id).is_some_and(Entry::signals_replacement))
    }

    /// Whether exactly this transaction, witness included, is in the pool; then its scripts passed under block
    /// rules with all soft forks active. `txid` is its id.
    pub fn has_verified(&self, tx: &Transaction, txid: &Txid) -> bool {
        let Some(entry) = self.get(txid) else { return false };
        // Without a witness both ids are equal, so nothing needs to be hashed.
        let has_witness = tx.input.iter().any(|input| !input.witness.is_empty());
        entry.wtxid.to_raw_hash()
            == if has_witness { tx.compute_wtxid().to_raw_hash() } else { txid.to_raw_hash() }
    }

    /// Transactions removed since the last call other than by being mined: replaced, evicted, expired, or in
    /// conflict with a block.
    pub fn take_removed(&mut self) -> Vec<Txid> {
        std::mem::take(&mut self.removed)
    }

    fn drop_with_descendants(&mut self, slots: impl IntoIterator<Item = Slot>) {
        let gone = self.graph.remove_with_descendants(slots);
        self.changes += gone.len() as u64;
        self.removed.extend(gone.into_iter().map(|entry| entry.txid));
    }
}
