//! Orphans: transactions that spend unknown outputs (`mapOrphanTransactions`).
//!
//! Lives here: [`Orphans`], limited in number, memory and time, and the queue of those to retry. Does not live
//! here: the mempool, requests for parents, scores. Data goes: transaction with missing inputs -> [`Orphans::add`]
//! -> a parent is accepted ([`Orphans::parent_arrived`]) -> [`Orphans::next_to_try`] -> the mempool ->
//! [`Orphans::erase`], or it stays because another parent is missing.
//!
//! Total memory is at most 24 MB: 100 orphans, their memory, and about 200 bytes of index per input.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use bitcoin::secp256k1::rand::Rng;
use bitcoin::{Block, OutPoint, Transaction, Txid};

use super::memory;

/// Maximum number of orphans (`DEFAULT_MAX_ORPHAN_TRANSACTIONS`).
pub const MAX_ORPHANS: usize = 100;
/// Maximum memory of orphans and index, bytes. The reference limits only their weight, to 40,000,000.
pub const MAX_MEMORY: usize = 24_000_000;
/// An orphan must weigh less than this (`MAX_STANDARD_TX_WEIGHT`): heavier transactions are not relayed anyway.
const MAX_WEIGHT: u64 = 400_000;
/// Seconds that an orphan is kept (`ORPHAN_TX_EXPIRE_TIME`).
const EXPIRE: u64 = 20 * 60;
/// Bytes of index per input.
const INDEX_ENTRY: usize = 200;

/// The id of a peer.
pub type PeerId = u64;

/// The outcome of adding an orphan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Added {
    /// It was added. Others, or at random itself, may have been evicted.
    Kept,
    /// It was present already.
    Known,
    /// It is too heavy.
    TooHeavy,
}

#[derive(Debug)]
struct Orphan {
    tx: Arc<Transaction>,
    from: PeerId,
    expires: u64,
    memory: usize,
}

/// The orphans.
#[derive(Debug, Default)]
pub struct Orphans {
    orphans: BTreeMap<Txid, Orphan>,
    by_prev: BTreeMap<OutPoint, BTreeSet<Txid>>,
    memory: usize,
    /// To be retried, each once.
    queue: VecDeque<Txid>,
    queued: BTreeSet<Txid>,
}

impl Orphans {
    /// Number of orphans.
    pub fn len(&self) -> usize {
        self.orphans.len()
    }

    /// Whether there are no orphans.
    pub fn is_empty(&self) -> bool {
        self.orphans.is_empty()
    }

    /// Memory of orphans and index, bytes.
    pub fn memory(&self) -> usize {
        self.memory
    }

    /// Whether the transaction is an orphan here.
    pub fn contains(&self, txid: &Txid) -> bool {
        self.orphans.contains_key(txid)
    }

    /// Adds a transaction with missing inputs (`AddOrphanTx`, `LimitOrphanTxSize`). `now` is in seconds since 1970.
    ///
    /// When there are too many, the peer whose orphans take the most memory loses one at random, so that a flood
    /// evicts itself. (The reference evicts any orphan at random.)
    pub fn add(&mut self, tx: Arc<Transaction>, from: PeerId, now: u64, random: &mut impl Rng) -> Added {
        let txid = tx.compute_txid();
        if self.contains(&txid) {
            return Added::Known;
        }
        if tx.weight().to_wu() >= MAX_WEIGHT {
            return Added::TooHeavy;
        }
        for input in &tx.input {
            self.by_prev.entry(input.previous_output).or_default().insert(txid);
        }
        let memory = memory::of(&tx) + INDEX_ENTRY * tx.input.len();
        self.memory += memory;
        self.orphans.insert(txid, Orphan { tx, from, expires: now + EXPIRE, memory });
        self.expire(now);
        while self.orphans.len() > MAX_ORPHANS || self.memory > MAX_MEMORY {
            let evicted = self.to_evict(random);
            self.erase(&evicted);
        }
        Added::Kept
    }

    fn to_evict(&self, random: &mut impl Rng) -> Txid {
        let mut by_peer = HashMap::<PeerId, usize>::new();
        for orphan in self.orphans.values() {
            *by_peer.entry(orphan.from).or_default() += orphan.memory;
        }
        let (greediest, _) =
            by_peer.into_iter().max_by_key(|(peer, memory)| (*memory, *peer)).expect("there are too many");
        let theirs: Vec<&Txid> = self
            .orphans
            .iter()
            .filter(|(_, orphan)| orphan.from == greediest)
            .map(|(txid, _)| txid)
            .collect();
        *theirs[random.gen_range(0..theirs.len())]
    }

    /// Removes an orphan that was accepted or found invalid; returns whether it was present.
    pub fn erase(&mut self, txid: &Txid) -> bool {
        let Some(orphan) = self.orphans.remove(txid) else { return false };
        self.memory -= orphan.memory;
        for input in &orphan.tx.input {
            if let Some(spenders) = self.by_prev.get_mut(&input.previous_output) {
                spenders.remove(txid);
                if spenders.is_empty() {
                    self.by_prev.remove(&input.previous_output);
                }
            }
        }
        if self.queued.remove(txid) {
            self.queue.retain(|queued| queued != txid);
        }
        true
    }

    /// Removes a peer's orphans; returns how many (`EraseOrphansFor`).
    pub fn erase_from(&mut self, peer: PeerId) -> usize {
        self.erase_where(|orphan| orphan.from == peer)
    }

    /// Removes expired orphans; returns how many. To be called now and then.
    pub fn expire(&mut self, now: u64) -> usize {
        self.erase_where(|orphan| orphan.expires <= now)
    }

    fn erase_where(&mut self, which: impl Fn(&Orphan) -> bool) -> usize {
        let found: Vec<Txid> =
            self.orphans.iter().filter(|(_, orphan)| which(orphan)).map(|(txid, _)| *txid).collect();
        found.iter().filter(|txid| self.erase(txid)).count()
    }

    /// Removes orphans that a connected block contains or conflicts with; returns how many
    /// (`PeerLogicValidation::BlockConnected`). Orphans that spend one of its transactions are queued for a retry.
    pub fn block_connected(&mut self, block: &Block) -> usize {
        let spent = block.txdata.iter().flat_map(|tx| &tx.input).map(|input| input.previous_output);
        let found: BTreeSet<Txid> =
            spent.filter_map(|outpoint| self.by_prev.get(&outpoint)).flatten().copied().collect();
        let erased = found.iter().filter(|txid| self.erase(txid)).count();
        if !self.is_empty() {
            for tx in &block.txdata {
                self.parent_arrived(&tx.compute_txid());
            }
        }
        erased
    }

    /// Queues the orphans that spend an output of an accepted transaction for a retry.
    pub fn parent_arrived(&mut self, txid: &Txid) {
        let outputs = OutPoint::new(*txid, 0)..=OutPoint::new(*txid, u32::MAX);
        for child in self.by_prev.range(outputs).flat_map(|(_, children)| children) {
            if self.queued.insert(*child) {
                self.queue.push_back(*child);
            }
        }
    }

    /// The next orphan to retry, with the peer that sent it. It stays in the pool: call [`Orphans::erase`] unless
    /// an input is still missing, and [`Orphans::parent_arrived`] if it was accepted.
    pub fn next_to_try(&mut self) -> Option<(Txid, Arc<Transaction>, PeerId)> {
        let txid = self.queue.pop_front()?;
        self.queued.remove(&txid);
        let orphan = self.orphans.get(&txid).expect("an erased orphan leaves the queue");
        Some((txid, orphan.tx.clone(), orphan.from))
    }
}

#[cfg(test)]
mod tests;
