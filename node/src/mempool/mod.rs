//! Transactions that wait for a block.
//!
//! Lives here: acceptance ([`Mempool::accept`]) with the reference's rules of relay, the entries and their relatives
//! (`graph.rs`), the pool's bounds (`limits.rs`), replacement (`rbf.rs`), what blocks change (`reorg.rs`), the choice
//! for a block (`select.rs`), and the file that outlives the node ([`persist`]). Does not live here: storage, templates,
//! the network. Data goes: transaction -> judged against [`Tip`] -> entry -> template -> block -> out.
//! Whatever waits could be in the next block as it is: its parents are in the chain or here. Lock times and scripts are
//! judged by all soft forks, active or not, so nothing becomes invalid when one of them activates.

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

/// A transaction pays at least this many base units per 1,000 virtual bytes (Core's default relay fee).
pub const MIN_FEE_PER_KVB: u64 = policy::MIN_RELAY_FEE.0;

/// What acceptance is judged against: the tip.
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

/// A transaction that came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// Its id.
    pub txid: Txid,
    /// The hash with its witness.
    pub wtxid: Wtxid,
    /// Base units.
    pub fee: u64,
    /// Virtual bytes as fees count them.
    pub vsize: u64,
    /// Those that it replaced, in order of their ids.
    pub replaced: Vec<Txid>,
}

/// The pool.
#[derive(Debug, Default)]
pub struct Mempool {
    policy: Policy,
    graph: Graph,
    rolling_fee: RollingFee,
    /// While a reorganisation goes on.
    returned: Option<Returned>,
    /// Those that left for another reason than a block, until someone asks.
    removed: Vec<Txid>,
    changes: u64,
}

impl Mempool {
    /// An empty pool.
    pub fn new(policy: Policy) -> Self {
        Self { policy, ..Self::default() }
    }

    /// What it is run with.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Changes what it is run with; what waits stays until the next acceptance.
    pub fn set_policy(&mut self, policy: Policy) {
        self.policy = policy;
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.graph.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Their virtual bytes together (`bytes` of `getmempoolinfo`).
    pub fn vsize(&self) -> u64 {
        self.graph.vsize()
    }

    /// Memory that they take, bytes: each transaction's parts with what allocating them costs, its entry, its places in
    /// the maps and orders, and its links to relatives.
    pub fn usage(&self) -> usize {
        self.graph.usage()
    }

    /// Grows with every change.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// Everything that waits, in no order.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.graph.slots().map(|slot| self.graph.get(slot))
    }

    /// The ids, parents before children and otherwise best rate first: the order in which they are told to peers
    /// (`queryHashes`).
    pub fn txids(&self) -> Vec<Txid> {
        let mut order: Vec<&Entry> = self.entries().collect();
        order.sort_by(|a, b| {
            let by_rate = || b.own().score().cmp(&a.own().score());
            a.ancestors.count.cmp(&b.ancestors.count).then_with(by_rate).then_with(|| a.txid.cmp(&b.txid))
        });
        order.into_iter().map(|entry| entry.txid).collect()
    }

    /// Whether it waits here.
    pub fn contains(&self, txid: &Txid) -> bool {
        self.graph.find(txid).is_some()
    }

    /// A waiting transaction.
    pub fn get(&self, txid: &Txid) -> Option<&Entry> {
        self.graph.find(txid).map(|slot| self.graph.get(slot))
    }

    /// Whether a waiting transaction spends this output.
    pub fn spends(&self, outpoint: &OutPoint) -> bool {
        self.spender(outpoint).is_some()
    }

    /// The waiting transaction that spends this output.
    pub fn spender(&self, outpoint: &OutPoint) -> Option<&Entry> {
        self.graph.spender(outpoint).map(|slot| self.graph.get(slot))
    }

    /// The waiting transactions whose outputs it spends itself.
    pub fn parents(&self, entry: &Entry) -> Vec<Txid> {
        self.ids(entry.parents.iter().copied())
    }

    /// The waiting transactions that spend its outputs themselves.
    pub fn children(&self, entry: &Entry) -> Vec<Txid> {
        self.ids(entry.children.iter().copied())
    }

    /// All its waiting ancestors; empty if it does not wait.
    pub fn ancestors(&self, txid: &Txid) -> Vec<Txid> {
        self.graph.find(txid).map_or_else(Vec::new, |slot| self.ids(self.graph.ancestors(slot)))
    }

    /// All its waiting descendants; empty if it does not wait.
    pub fn descendants(&self, txid: &Txid) -> Vec<Txid> {
        self.graph.find(txid).map_or_else(Vec::new, |slot| self.ids(self.graph.descendants(slot)))
    }

    fn ids(&self, slots: impl IntoIterator<Item = Slot>) -> Vec<Txid> {
        let mut ids: Vec<Txid> = slots.into_iter().map(|slot| self.graph.get(slot).txid).collect();
        ids.sort_unstable();
        ids
    }

    /// Whether a waiting transaction may be replaced: it or an ancestor says so (`IsRBFOptIn`).
    pub fn is_replaceable(&self, entry: &Entry) -> bool {
        entry.signals_replacement()
            || self
                .ancestors(&entry.txid)
                .iter()
                .any(|id| self.get(id).is_some_and(Entry::signals_replacement))
    }

    /// Whether exactly this transaction, witness and all, waits here; then its scripts passed as a block's under all soft
    /// forks. `txid` is its id.
    pub fn has_verified(&self, tx: &Transaction, txid: &Txid) -> bool {
        let Some(entry) = self.get(txid) else { return false };
        // Without a witness both ids are the same, and nothing needs to be hashed.
        let has_witness = tx.input.iter().any(|input| !input.witness.is_empty());
        entry.wtxid.to_raw_hash()
            == if has_witness { tx.compute_wtxid().to_raw_hash() } else { txid.to_raw_hash() }
    }

    /// Those that left since the last call for another reason than a block: replaced, evicted, expired, in conflict.
    pub fn take_removed(&mut self) -> Vec<Txid> {
        std::mem::take(&mut self.removed)
    }

    fn drop_with_descendants(&mut self, slots: impl IntoIterator<Item = Slot>) {
        let gone = self.graph.remove_with_descendants(slots);
        self.changes += gone.len() as u64;
        self.removed.extend(gone.into_iter().map(|entry| entry.txid));
    }
}
