//! Tests of the pool as a whole, on a chain of coins that anyone can spend.

#![allow(clippy::unwrap_used)]

mod limits;
mod persist;
mod policy;
mod property;
mod reorganisation;
mod replacement;
mod selection;

use std::collections::BTreeMap;

use bitcoin::hashes::Hash;
use bitcoin::pow::CompactTarget;
use bitcoin::{
    Amount, Block, BlockHash, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, Witness,
    absolute, transaction,
};
use iop_consensus::ancestors::{Ancestors, HeaderInfo};
use iop_consensus::block::SoftForks;
use iop_consensus::coins::{Coin, CoinView};
use iop_consensus::params::Params;

use super::{Accepted, Mempool, Policy, Reject, Tip};
use crate::storage::StorageError;

/// Base units of each coin of the chain.
const COIN_VALUE: u64 = 10_000_000;
/// The output script `OP_1`, which an empty input script spends.
const ANYONE: &[u8] = &[0x51];
const NOW: u64 = 1_700_000_000;

/// A chain with this many blocks, ten minutes apart, the newest just now.
struct Heights(u32);

impl Ancestors for Heights {
    fn tip_height(&self) -> u32 {
        self.0
    }
    fn header(&self, height: u32) -> HeaderInfo {
        let time = NOW as u32 - 600 * (1_000 - height);
        HeaderInfo { version: 0, time, bits: CompactTarget::from_consensus(0) }
    }
    fn hash(&self, height: u32) -> BlockHash {
        BlockHash::hash(&height.to_le_bytes())
    }
}

#[derive(Default)]
struct Coins(BTreeMap<OutPoint, Coin>);

impl CoinView for Coins {
    type Error = StorageError;
    fn coin(&self, outpoint: &OutPoint) -> Result<Option<Coin>, StorageError> {
        Ok(self.0.get(outpoint).cloned())
    }
}

/// A pool with its chain.
struct World {
    pool: Mempool,
    coins: Coins,
    height: u32,
    now: u64,
}

impl World {
    fn new() -> Self {
        Self::with(Policy { require_standard: false, ..Policy::default() })
    }

    fn with(policy: Policy) -> Self {
        Self { pool: Mempool::new(policy), coins: Coins::default(), height: 500, now: NOW }
    }

    /// Creates a confirmed coin.
    fn coin(&mut self, number: u32) -> OutPoint {
        self.coin_with(number, ANYONE)
    }

    fn coin_with(&mut self, number: u32, script: &[u8]) -> OutPoint {
        let outpoint = OutPoint { txid: Txid::hash(&number.to_le_bytes()), vout: 0 };
        let output = TxOut {
            value: Amount::from_sat(COIN_VALUE),
            script_pubkey: ScriptBuf::from_bytes(script.to_vec()),
        };
        self.coins.0.insert(outpoint, Coin { output, height: 10, coinbase: false });
        outpoint
    }

    fn run<T>(&mut self, act: impl FnOnce(&mut Mempool, &Tip<'_>) -> T) -> T {
        let forks = SoftForks { csv: true, segwit: true };
        let chain = Heights(self.height);
        act(&mut self.pool, &Tip { coins: &self.coins, chain: &chain, forks, now: self.now })
    }

    fn offer(&mut self, tx: &Transaction) -> Result<Accepted, Reject> {
        let tx = tx.clone();
        self.run(|pool, tip| {
            let tested = pool.test_accept(tx.clone(), u64::MAX, tip).unwrap();
            let outcome = pool.accept(tx, u64::MAX, tip).unwrap();
            // A test run changes nothing and returns the same, except when the pool has no room.
            if outcome != Err(Reject::Full) {
                assert_eq!(tested, outcome);
            }
            pool.graph.assert_consistent();
            outcome
        })
    }

    fn must(&mut self, tx: &Transaction) -> Txid {
        self.offer(tx).unwrap().txid
    }

    fn reason(&mut self, tx: &Transaction) -> String {
        self.offer(tx).unwrap_err().reason().into_owned()
    }

    /// Total value of a transaction's inputs.
    fn value_in(&mut self, inputs: &[OutPoint]) -> u64 {
        let world =
            self.run(|pool, tip| inputs.iter().map(|i| pool.coin(i, tip).unwrap()).collect::<Vec<_>>());
        world.into_iter().map(|coin| coin.unwrap().output.value.to_sat()).sum()
    }

    /// A transaction that anyone can spend again, with its value split evenly between its outputs.
    fn tx(&mut self, inputs: &[OutPoint], outputs: usize, fee: u64) -> Transaction {
        let value = (self.value_in(inputs) - fee) / outputs as u64;
        let mut tx = spend(inputs, vec![value; outputs]);
        tx.output[0].value += Amount::from_sat(self.value_in(inputs) - fee - value * outputs as u64);
        tx
    }

    /// Connects a block with these transactions.
    fn connect(&mut self, transactions: Vec<Transaction>) -> Block {
        self.height += 1;
        let block = block(transactions);
        for tx in &block.txdata {
            for input in &tx.input {
                self.coins.0.remove(&input.previous_output);
            }
            self.coins.0.extend(created(tx, self.height));
        }
        let txids: Vec<Txid> = block.txdata.iter().map(Transaction::compute_txid).collect();
        self.pool.remove_confirmed(&block, &txids, self.now);
        self.pool.graph.assert_consistent();
        block
    }

    /// Disconnects the newest block; `spent` are the coins that it spent.
    fn disconnect(&mut self, block: Block, spent: Vec<(OutPoint, Coin)>) {
        self.height -= 1;
        for tx in &block.txdata {
            for (outpoint, _) in created(tx, 0) {
                self.coins.0.remove(&outpoint);
            }
        }
        self.coins.0.extend(spent);
        self.pool.block_disconnected(block.txdata);
    }

    fn finish(&mut self) {
        self.run(|pool, tip| pool.finish_reorganisation(tip).unwrap());
        self.pool.graph.assert_consistent();
    }
}

/// The coins that a transaction creates in a block at a height.
fn created(tx: &Transaction, height: u32) -> Vec<(OutPoint, Coin)> {
    let outputs = tx.output.iter().zip(0..).filter(|(output, _)| !Coin::is_unspendable(output));
    outputs
        .map(|(output, vout)| {
            (self::output(tx, vout), Coin { output: output.clone(), height, coinbase: false })
        })
        .collect()
}

fn spend(inputs: &[OutPoint], values: Vec<u64>) -> Transaction {
    Transaction {
        version: transaction::Version::TWO,
        lock_time: absolute::LockTime::ZERO,
        input: inputs
            .iter()
            .map(|outpoint| TxIn {
                previous_output: *outpoint,
                script_sig: ScriptBuf::new(),
                sequence: Sequence::MAX,
                witness: Witness::new(),
            })
            .collect(),
        output: values
            .into_iter()
            .map(|value| TxOut {
                value: Amount::from_sat(value),
                script_pubkey: ScriptBuf::from_bytes(ANYONE.to_vec()),
            })
            .collect(),
    }
}

fn block(txdata: Vec<Transaction>) -> Block {
    Block { header: Params::regtest().genesis.block().header, txdata }
}

fn output(tx: &Transaction, vout: u32) -> OutPoint {
    OutPoint { txid: tx.compute_txid(), vout }
}

/// Makes a transaction heavier with an unspendable output.
fn pad(tx: &mut Transaction, bytes: usize) {
    let script = [vec![0x6a], vec![0; bytes]].concat();
    tx.output.push(TxOut { value: Amount::ZERO, script_pubkey: ScriptBuf::from_bytes(script) });
}

/// Makes a transaction signal replaceability.
fn replaceable(mut tx: Transaction) -> Transaction {
    tx.input.iter_mut().for_each(|input| input.sequence = Sequence(u32::MAX - 2));
    tx
}
