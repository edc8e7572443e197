//! Templates from a mempool of 20,000 transactions, and its cost for a new tip.
//!
//! Measured: the selection for a block of some 2,500 transactions, the same with the JSON's hex made and kept, an empty
//! template, acceptance, and removing a block of 2,500. Not measured: signatures (outputs are spent without any) and
//! the time of RPC. Run with `cargo bench -p iop-benches --bench template`.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;

use bitcoin::hashes::Hash;
use bitcoin::pow::CompactTarget;
use bitcoin::{
    Amount, Block, BlockHash, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, Witness,
    absolute, transaction,
};
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use iop_consensus::ancestors::{Ancestors, HeaderInfo};
use iop_consensus::block::SoftForks;
use iop_consensus::coins::{Coin, CoinView};
use iop_consensus::params::Params;
use iop_node::mempool::{FeeRate, Mempool, Policy, Room, Tip};
use iop_node::storage::StorageError;
use iop_node::template::{Contents, Templates};

/// Transactions in the mempool.
const WAITING: u32 = 20_000;
/// Padding bytes in each: 2,500 such transactions fill a block.
const PADDING: usize = 270;
const VALUE: u64 = 10_000_000;

struct Chain;

impl Ancestors for Chain {
    fn tip_height(&self) -> u32 {
        200
    }
    fn header(&self, height: u32) -> HeaderInfo {
        HeaderInfo { version: 0, time: 1_700_000_000 + height, bits: CompactTarget::from_consensus(0) }
    }
    fn hash(&self, height: u32) -> BlockHash {
        BlockHash::hash(&height.to_le_bytes())
    }
}

struct Coins(BTreeMap<OutPoint, Coin>);

impl CoinView for Coins {
    type Error = StorageError;
    fn coin(&self, outpoint: &OutPoint) -> Result<Option<Coin>, StorageError> {
        Ok(self.0.get(outpoint).cloned())
    }
}

fn anyone() -> ScriptBuf {
    ScriptBuf::from_bytes(vec![0x51])
}

fn coins() -> Coins {
    let coin = |number: u32| {
        let output = TxOut { value: Amount::from_sat(VALUE), script_pubkey: anyone() };
        let outpoint = OutPoint { txid: Txid::hash(&number.to_le_bytes()), vout: 0 };
        (outpoint, Coin { output, height: 5, coinbase: false })
    };
    Coins((0..WAITING).map(coin).collect())
}

/// Every third transaction spends the one before it, in chains of up to nine.
fn transactions() -> Vec<Transaction> {
    let mut all: Vec<Transaction> = Vec::new();
    for number in 0..WAITING {
        let chained = number % 3 != 0 && number % 10 != 0;
        let (previous_output, value) = match all.last() {
            Some(parent) if chained => {
                (OutPoint { txid: parent.compute_txid(), vout: 0 }, parent.output[0].value.to_sat())
            }
            _ => (OutPoint { txid: Txid::hash(&number.to_le_bytes()), vout: 0 }, VALUE),
        };
        let fee = 500 + u64::from(number.wrapping_mul(2_654_435_761) % 50_000);
        let data = [vec![0x6a], vec![0; PADDING]].concat();
        all.push(Transaction {
            version: transaction::Version::TWO,
            lock_time: absolute::LockTime::ZERO,
            input: vec![TxIn {
                previous_output,
                script_sig: ScriptBuf::new(),
                sequence: Sequence::MAX,
                witness: Witness::new(),
            }],
            output: vec![
                TxOut { value: Amount::from_sat(value - fee), script_pubkey: anyone() },
                TxOut { value: Amount::ZERO, script_pubkey: ScriptBuf::from_bytes(data) },
            ],
        });
    }
    all
}

fn filled(transactions: &[Arc<Transaction>], coins: &Coins) -> Mempool {
    let mut pool = Mempool::new(Policy { require_standard: false, ..Policy::default() });
    let forks = SoftForks { csv: true, segwit: true };
    let tip = Tip { coins, chain: &Chain, forks, now: 1_700_000_000 };
    for tx in transactions {
        pool.accept(Arc::clone(tx), u64::MAX, &tip)
            .expect("a map does not fail")
            .expect("it follows all rules");
    }
    pool
}

fn template(criterion: &mut Criterion) {
    let coins = coins();
    let transactions: Vec<_> = transactions().into_iter().map(Arc::new).collect();
    let pool = filled(&transactions, &coins);
    let room = Room {
        max_weight: 3_996_000,
        reserved_weight: 4_000,
        max_sigops_cost: 80_000,
        reserved_sigops_cost: 400,
        min_fee: FeeRate(1_000),
        witness: true,
    };
    let tip = Chain.hash(200);
    let chosen: Vec<Transaction> =
        pool.select(room).entries.iter().map(|entry| Transaction::clone(&entry.tx)).collect();
    println!("{} wait, {} bytes of memory, {} chosen", pool.len(), pool.usage(), chosen.len());
    let mut group = criterion.benchmark_group("template");
    group.sample_size(20);
    group.bench_function("choose from 20,000", |bench| bench.iter(|| black_box(pool.select(room).fees)));
    group.bench_function("full, nothing kept", |bench| {
        bench.iter(|| Templates::default().choice(Contents::Full, tip, &pool));
    });
    group.bench_function("full with hex, nothing kept", |bench| {
        bench.iter(|| {
            let choice = Templates::default().choice(Contents::Full, tip, &pool);
            choice.iter().map(|tx| tx.hex().len()).sum::<usize>()
        });
    });
    let mut kept = Templates::default();
    group.bench_function("full with hex, kept", |bench| {
        bench.iter(|| kept.choice(Contents::Full, tip, &pool).iter().map(|tx| tx.hex().len()).sum::<usize>());
    });
    group.bench_function("empty", |bench| {
        bench.iter(|| Templates::default().choice(Contents::Empty, tip, &pool));
    });
    group.sample_size(10);
    group.bench_function("accept 20,000", |bench| bench.iter(|| filled(&transactions, &coins).len()));
    let txids: Vec<Txid> = chosen.iter().map(Transaction::compute_txid).collect();
    let block = Block { header: Params::regtest().genesis.block().header, txdata: chosen };
    group.bench_function("take a block out", |bench| {
        let fill = || filled(&transactions, &coins);
        let take = |pool: &mut Mempool| pool.remove_confirmed(&block, &txids, 1_700_000_000);
        bench.iter_batched_ref(fill, take, BatchSize::PerIteration);
    });
    group.finish();
}

criterion_group!(benches, template);
criterion_main!(benches);
