//! From the node's answer to a job ready to be sent: the pool's part of the latency of a new tip.
//!
//! A template of 2,500 transactions (1 MB) as the node sends it. Measured: parsing the answer; the job of the template
//! (the plan over a window of 500 members, coinbase, signature, merkle branches, both notify lines), full and empty, as
//! it first comes on a new tip; and the check for admin actions after the job. Not measured: the network, the node's
//! answers about tip and licenses. Run: `cargo bench -p iop-benches --bench pool_job`.

#![allow(clippy::unwrap_used)]

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;

use bitcoin::consensus::encode::serialize_hex;
use bitcoin::hashes::Hash;
use bitcoin::{Amount, OutPoint, ScriptBuf, Transaction, TxIn, TxOut, Txid, absolute, transaction};
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use iop_consensus::address::Address;
use iop_consensus::license::key::LicenseKey;
use iop_consensus::params::Params;
use iop_mining::template::{Template, read};
use iop_pool::follow::announced::announced;
use iop_pool::ledger::queue::{Accepted, Ticket};
use iop_pool::ledger::{Ledger, Rules, Scheme};
use iop_pool::payouts::Payouts;
use iop_stratum::difficulty::Difficulty;
use serde_json::{Value, json};

/// Transactions of a full block.
const TRANSACTIONS: u32 = 2_500;
/// Padding bytes in each.
const PADDING: usize = 230;
/// Members with shares in the window.
const MEMBERS: u32 = 500;

fn transaction(number: u32) -> Transaction {
    let previous_output = OutPoint::new(Txid::hash(&number.to_le_bytes()), 0);
    let script_sig = ScriptBuf::from_bytes([vec![71], vec![7; 71], vec![33], vec![3; 33]].concat());
    let padding = ScriptBuf::from_bytes([vec![0x6a], vec![0; PADDING]].concat());
    Transaction {
        version: transaction::Version::TWO,
        lock_time: absolute::LockTime::ZERO,
        input: vec![TxIn { previous_output, script_sig, ..TxIn::default() }],
        output: vec![TxOut { value: Amount::ZERO, script_pubkey: padding }],
    }
}

/// A node's answer, with the fields of Core and of our node.
fn answer(transactions: u32) -> Vec<u8> {
    let entry = |number| {
        let tx = transaction(number);
        json!({
            "data": serialize_hex(&tx), "txid": tx.compute_txid(), "hash": tx.compute_wtxid(), "depends": [],
            "fee": 1_000 + number, "sigops": 4, "weight": tx.weight().to_wu(),
        })
    };
    let template = json!({
        "capabilities": ["proposal"], "version": 0x2000_0000, "rules": ["csv", "segwit"], "vbavailable": {},
        "vbrequired": 0, "previousblockhash": "01".repeat(32),
        "transactions": (0..transactions).map(entry).collect::<Value>(), "coinbaseaux": {"flags": ""},
        "coinbasevalue": 5_000_000_000u64, "longpollid": "01".repeat(32) + "7", "target": "00".repeat(32),
        "mintime": 1_700_000_000, "mutable": ["time", "transactions", "prevblock"],
        "noncerange": "00000000ffffffff", "sigoplimit": 80_000, "sizelimit": 4_000_000,
        "weightlimit": 4_000_000, "curtime": 1_700_000_600, "bits": "1a0fffff", "height": 100_000,
        "default_witness_commitment": "6a24aa21a9ed".to_owned() + &"05".repeat(32),
        "license": {"required": true, "activation_height": 0},
    });
    json!({ "result": template, "error": null, "id": 1 }).to_string().into_bytes()
}

/// Payouts over a window of [`MEMBERS`], and the handle that ends their thread.
fn payouts(folder: &Path, params: &Params) -> (Payouts, iop_pool::ledger::writer::Writer) {
    let rules =
        Rules { scheme: Scheme::Pplns, fee: 10_000, min_payout: 1_000_000, max_outputs: 500, window: 2.0 };
    let (ledger, writer) = Ledger::open(folder, rules, params.prefixes).unwrap();
    for number in 0..MEMBERS {
        let member = Address::of_pubkey(&number.to_le_bytes());
        let user = ledger.user(&member.to_base58(&params.prefixes), member);
        let mut hash = [0; 16];
        hash[..4].copy_from_slice(&number.to_le_bytes());
        let difficulty = Difficulty::new(f64::from(number + 1)).unwrap();
        let ticket = Arc::new(Ticket::default());
        ledger.log(Accepted { user, time: 1, difficulty, height: 99_999, hash, block: None, ticket });
    }
    while ledger.log_state().logged < u64::from(MEMBERS) {
        std::thread::yield_now();
    }
    (Payouts::new(ledger, None, Vec::new()), writer)
}

fn benches(criterion: &mut Criterion) {
    let params = Params::devnet();
    let folder = tempfile::tempdir().unwrap();
    let (payouts, writer) = payouts(folder.path(), &params);
    let key = Arc::new(LicenseKey::from_secret(&[11; 32], true).unwrap());
    let (full, empty) = (answer(TRANSACTIONS), answer(0));
    let mut group = criterion.benchmark_group("pool_job");
    for (name, bytes) in [("full", &full), ("empty", &empty)] {
        group.bench_function(format!("read the {name} answer"), |bencher| {
            bencher.iter(|| read(black_box(bytes)).unwrap());
        });
        let template = read(bytes).unwrap();
        let fresh = || Template { long_poll_id: None, ..template.clone() };
        let make = |template| {
            let standing = payouts.build_on(None, &template).unwrap();
            payouts.job(template, standing, &key, Arc::default()).unwrap()
        };
        let outputs = make(fresh()).plan.outputs().len();
        println!("{name}: {} bytes of answer, {outputs} outputs", bytes.len());
        group.bench_function(format!("job of the {name} template"), |bencher| {
            bencher.iter_batched(fresh, make, BatchSize::LargeInput);
        });
        group.bench_function(format!("admin actions in the {name} template"), |bencher| {
            bencher.iter(|| announced(black_box(&template), &[key.address()], &params));
        });
    }
    group.finish();
    writer.close();
}

criterion_group!(pool_job, benches);
criterion_main!(pool_job);
