//! Blocks that come and go.
//!
//! A block takes out what it contains and whatever spends the same outputs. A block that is taken back gives its
//! transactions to be offered again once the new branch is connected, oldest first (`UpdateMempoolForReorg`); then they are
//! told what waited below them, which counts for no limit, and whatever no longer fits goes: coinbases not ripe any more,
//! lock times ahead again.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use bitcoin::{Block, Transaction, Txid};
use iop_consensus::tx;

use super::accept::{Origin, is_final_next};
use super::entry::{Entry, Slot};
use super::{Mempool, Tip};
use crate::storage::StorageError;

/// Bytes of transactions that are kept for being offered again (`MAX_DISCONNECTED_TX_POOL_SIZE`).
const MAX_RETURNED: usize = 20_000_000;

/// Transactions of blocks that were taken back, while a reorganisation goes on.
#[derive(Debug, Default)]
pub(super) struct Returned {
    /// The newest block's last transaction first.
    queue: VecDeque<Arc<Transaction>>,
    bytes: usize,
    /// What blocks connected since the first was taken back contain, but for those that were taken back too.
    confirmed: HashSet<Txid>,
}

impl Mempool {
    /// A block was connected: its transactions wait no longer, and neither does what spends the same. `txids` are those
    /// of its transactions, in order.
    pub fn remove_confirmed(&mut self, block: &Block, txids: &[Txid]) {
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
        self.rolling_fee.block_came();
    }

    /// A block was taken back. Its transactions come again with [`Mempool::finish_reorganisation`]. Beyond 20 MB the
    /// newest are given up, with all that spends them.
    pub fn block_disconnected(&mut self, transactions: Vec<Transaction>) {
        // A block spends what waits here only where that has come again, all outputs of its first copy being spent. Now one
        // is not, and no block may hold the second (BIP30).
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

    /// After the new branch is connected. Gives the ids of those that wait again; some of them may have had to go at
    /// once.
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

    /// Takes out what spends a transaction's outputs, and the transaction itself if it is here.
    fn drop_spenders(&mut self, tx: &Transaction) {
        let txid = tx.compute_txid();
        let spenders = (0..tx.output.len() as u32)
            .filter_map(|vout| self.graph.spender(&bitcoin::OutPoint { txid, vout }))
            .chain(self.graph.find(&txid))
            .collect::<Vec<Slot>>();
        self.drop_with_descendants(spenders);
    }

    /// What could not be in the next block any more (`removeForReorg`).
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
