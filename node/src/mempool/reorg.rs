//! Effects of connected and disconnected blocks.
//!
//! A connected block removes the transactions it contains and everything that conflicts with them. The transactions
//! of a disconnected block are offered again once the new branch is connected, oldest first
//! (`UpdateMempoolForReorg`); they are then linked to their descendants in the pool, which count towards no limit,
//! and whatever no longer fits is removed: spends of immature coinbases, lock times in the future again.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use bitcoin::{Block, Transaction, Txid};
use iop_consensus::tx;

use super::accept::{Origin, is_final_next};
use super::entry::{Entry, Slot};
use super::{Mempool, Tip};
use crate::storage::StorageError;

/// Maximum total bytes of transactions kept to be offered again (`MAX_DISCONNECTED_TX_POOL_SIZE`).
const MAX_RETURNED: usize = 20_000_000;

/// Transactions of disconnected blocks, during a reorganisation.
#[derive(Debug, Default)]
pub(super) struct Returned {
    /// The last transaction of the newest block first.
    queue: VecDeque<Arc<Transaction>>,
    bytes: usize,
    /// Ids of the transactions in blocks connected since, unless those blocks were disconnected too.
    confirmed: HashSet<Txid>,
}

impl Mempool {
    /// Removes the transactions of a connected block, and what conflicts with them. `txids` are the block's
    /// transaction ids, in order; `now` is in seconds.
    pub fn remove_confirmed(&mut self, block: &Block, txids: &[Txid], now: u64) {
        for (tx, &txid) in block.txdata.iter().zip(txids) {
            if let Some(slot) = self.graph.find(&txid) {
                self.graph.remove(slot);
                self.changes += 1;
            }
            let rivals: Vec<Slot> =
                tx.input.iter().filter_map(|input| self.graph.spender(&input.previous_output)).collect();
            self.drop_with_descendants(rivals);
            if let Some(returned) = &mut self.returned {
                returned.confirmed.insert(txid);
            }
        }
        self.let_min_fee_fall(now);
    }

    /// Keeps the transactions of a disconnected block for [`Mempool::finish_reorganisation`]. Beyond 20 MB, the
    /// newest are dropped with everything that spends them.
    pub fn block_disconnected(&mut self, transactions: Vec<Transaction>) {
        // A block can spend outputs of a transaction in the pool only if that transaction was seen again after all
        // outputs of its first copy were spent. One is unspent now, so no block may contain the second copy
        // (BIP30).
        let inputs = transactions.iter().flat_map(|tx| &tx.input);
        let again: Vec<Slot> =
            inputs.filter_map(|input| self.graph.find(&input.previous_output.txid)).collect();
        self.drop_with_descendants(again);
        let returned = self.returned.get_or_insert_default();
        for tx in transactions.into_iter().rev() {
            // A branch that breaks a rule further up is left again.
            returned.confirmed.remove(&tx.compute_txid());
            returned.bytes += tx.total_size();
            returned.queue.push_back(Arc::new(tx));
        }
        let mut given_up = Vec::new();
        while returned.bytes > MAX_RETURNED
            && let Some(tx) = returned.queue.pop_front()
        {
            returned.bytes -= tx.total_size();
            given_up.push(tx);
        }
        given_up.iter().for_each(|tx| self.drop_spenders(tx));
    }

    /// Finishes a reorganisation after the new branch is connected. Returns the ids of the transactions that were
    /// accepted again; some of them may have been removed at once.
    ///
    /// # Errors
    /// Only when the storage fails.
    pub fn finish_reorganisation(&mut self, tip: &Tip<'_>) -> Result<Vec<Txid>, StorageError> {
        let Some(returned) = self.returned.take() else { return Ok(Vec::new()) };
        let mut again = Vec::new();
        self.changes += 1;
        for tx in returned.queue.iter().rev() {
            let txid = tx.compute_txid();
            // One of several branches that were left may have brought it back already.
            if returned.confirmed.contains(&txid) || self.contains(&txid) {
                continue;
            }
            let outcome = if tx.is_coinbase() {
                None
            } else {
                self.accept_at(Arc::clone(tx), Origin::Block, tip.now, tip)?.ok()
            };
            match outcome {
                Some(accepted) => again.push(accepted.txid),
                None => self.drop_spenders(tx),
            }
        }
        let came: Vec<Slot> = again.iter().filter_map(|txid| self.graph.find(txid)).collect();
        self.graph.adopt(&came);
        let unfit = self.unfit(tip)?;
        self.drop_with_descendants(unfit);
        self.limit(tip.now);
        Ok(again)
    }

    /// Removes what spends a transaction's outputs, and the transaction itself if it is in the pool.
    fn drop_spenders(&mut self, tx: &Transaction) {
        let txid = tx.compute_txid();
        let spenders = (0..tx.output.len() as u32)
            .filter_map(|vout| self.graph.spender(&bitcoin::OutPoint { txid, vout }))
            .chain(self.graph.find(&txid))
            .collect::<Vec<Slot>>();
        self.drop_with_descendants(spenders);
    }

    /// Entries that could no longer be in the next block (`removeForReorg`).
    fn unfit(&self, tip: &Tip<'_>) -> Result<Vec<Slot>, StorageError> {
        let mut unfit = Vec::new();
        for slot in self.graph.slots() {
            let entry = self.graph.get(slot);
            let fits = is_final_next(&entry.tx, tip)
                && (!(entry.spends_coinbase || entry.has_relative_lock())
                    || self.coins_are_ripe(entry, tip)?);
            if !fits {
                unfit.push(slot);
            }
        }
        Ok(unfit)
    }

    fn coins_are_ripe(&self, entry: &Entry, tip: &Tip<'_>) -> Result<bool, StorageError> {
        let mut coins = Vec::with_capacity(entry.tx.input.len());
        for input in &entry.tx.input {
            match self.coin(&input.previous_output, tip)? {
                Some(coin) => coins.push(coin),
                None => return Ok(false),
            }
        }
        let heights = coins.iter().map(|coin| coin.height);
        Ok(tx::sequence_locks_passed(&entry.tx, heights, tip.chain)
            && tx::check_inputs(&entry.tx, &coins, tip.chain.tip_height() + 1).is_ok())
    }
}

#[cfg(test)]
impl Returned {
    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }
}
