//! From a new tip to its templates over RPC, which is what a pool waits for.
//!
//! A real node on regtest with 24,000 mempool transactions, 2,800 per full block. While a long poll is pending, a block
//! is submitted on another connection. Measured from its first byte: until the node has validated the block, until the
//! poll is answered (the template without transactions), and until the next poll is (the full one). Half of the tips
//! contain the last template's transactions, the others one transaction (after an empty block the full template comes
//! at once). No script is signed. Run: `cargo bench -p iop-benches --bench longpoll`.

#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bitcoin::consensus::encode::{deserialize_hex, serialize_hex};
use bitcoin::{Amount, Block, OutPoint, ScriptBuf, Transaction, TxOut};
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use iop_tests::blocks::{self, Parent};
use iop_tests::program::free_port;
use iop_tests::stand::{Network, Node};
use serde_json::{Value, json};

/// Transactions in the mempool.
const WAITING: u64 = 24_000;
/// Padding bytes in each.
const PADDING: usize = 270;
/// Value that a transaction passes on, in base units, in addition to its fee.
const VALUE: u64 = 200_000;
/// New tips of each kind.
const TIPS: usize = 50;
/// Both numbers when run as a test.
const FEW_WAITING: u64 = 1_000;
const FEW_TIPS: usize = 2;
/// How long a poll is pending before the block is submitted.
const SETTLE: Duration = Duration::from_millis(30);

/// A client that reuses its connections.
#[derive(Clone)]
struct Rpc {
    client: Client<HttpConnector, Full<Bytes>>,
    url: String,
    authorization: String,
}

impl Rpc {
    fn of(node: &Node) -> Self {
        let cookie = std::fs::read_to_string(node.datadir.join(".cookie")).unwrap();
        Self {
            client: Client::builder(TokioExecutor::new()).build_http(),
            url: format!("http://127.0.0.1:{}/", node.port),
            authorization: format!("Basic {}", STANDARD.encode(cookie)),
        }
    }

    /// The answer's bytes, once complete.
    async fn send(&self, body: String) -> Bytes {
        let request = Request::post(&self.url)
            .header("Authorization", &self.authorization)
            .body(Full::new(Bytes::from(body)))
            .unwrap();
        self.client.request(request).await.unwrap().into_body().collect().await.unwrap().to_bytes()
    }
}

fn call(method: &str, params: Value) -> String {
    json!({ "id": 1, "method": method, "params": params }).to_string()
}

fn template_call(long_poll_id: Option<&str>) -> String {
    call("getblocktemplate", json!([{ "rules": ["segwit"], "longpollid": long_poll_id }]))
}

fn result(answer: &[u8]) -> Value {
    let mut answer: Value = serde_json::from_slice(answer).unwrap();
    assert_eq!(answer["error"], Value::Null);
    answer["result"].take()
}

fn id(template: &Value) -> &str {
    template["longpollid"].as_str().unwrap()
}

fn transactions(template: &Value) -> Vec<Transaction> {
    let list = template["transactions"].as_array().unwrap();
    list.iter().map(|tx| deserialize_hex(tx["data"].as_str().unwrap()).unwrap()).collect()
}

/// Spends an output that anyone can spend, with padding; fees differ.
fn spend(outpoint: OutPoint, value: u64, number: u64) -> Transaction {
    let fee = 500 + number.wrapping_mul(2_654_435_761) % 1_000;
    let mut tx = blocks::spend(outpoint, value - fee);
    let padding = [vec![0x6a], vec![0; PADDING]].concat();
    tx.output.push(TxOut { value: Amount::ZERO, script_pubkey: ScriptBuf::from_bytes(padding) });
    tx
}

async fn offer(rpc: &Rpc, txs: &[Transaction]) {
    for part in txs.chunks(1_000) {
        let calls: Vec<Value> = part
            .iter()
            .map(|tx| json!({ "id": 1, "method": "sendrawtransaction", "params": [serialize_hex(tx), true] }))
            .collect();
        let answers: Vec<Value> = serde_json::from_slice(&rpc.send(json!(calls).to_string()).await).unwrap();
        let refused = answers.iter().find(|answer| answer["error"] != Value::Null);
        assert!(refused.is_none(), "{refused:?}");
    }
}

async fn submit(rpc: &Rpc, block: &Block) {
    let answer = rpc.send(call("submitblock", json!([serialize_hex(block)]))).await;
    assert_eq!(result(&answer), Value::Null);
}

/// Mines a chain with a mature coin split into `waiting` outputs, and sends a transaction for each. Returns the tip.
async fn fill(rpc: &Rpc, genesis: Parent, waiting: u64) -> Parent {
    let mut first = blocks::on(genesis, 0, vec![]);
    first.txdata[0].output[0].value = Amount::from_sat(waiting * VALUE);
    let first = blocks::sealed(first);
    submit(rpc, &first).await;
    let mut tip = Parent::of(&first, 1);
    for height in 2..=101 {
        let block = blocks::on(tip, 0, vec![]);
        submit(rpc, &block).await;
        tip = Parent::of(&block, height);
    }
    let mut split = blocks::spend(OutPoint::new(first.txdata[0].compute_txid(), 0), VALUE);
    split.output = vec![split.output[0].clone(); waiting as usize];
    let txid = split.compute_txid();
    let block = blocks::on(tip, 0, vec![split]);
    submit(rpc, &block).await;
    let txs: Vec<Transaction> =
        (0..waiting).map(|number| spend(OutPoint::new(txid, number as u32), VALUE, number)).collect();
    offer(rpc, &txs).await;
    Parent::of(&block, 102)
}

/// The times of one new tip.
struct Times {
    judged: Duration,
    empty: Duration,
    full: Duration,
}

/// Submits a block while a poll with this id is pending; returns the times.
async fn new_tip(rpc: &Rpc, long_poll_id: &str, block: &Block) -> Times {
    let (poll, waiting) = (template_call(Some(long_poll_id)), rpc.clone());
    let waiting = tokio::spawn(async move { (waiting.send(poll).await, Instant::now()) });
    tokio::time::sleep(SETTLE).await;
    let body = call("submitblock", json!([serialize_hex(block)]));
    let (start, submitting) = (Instant::now(), rpc.clone());
    let submitting = tokio::spawn(async move { (submitting.send(body).await, start.elapsed()) });
    let (empty, empty_at) = waiting.await.unwrap();
    let empty = result(&empty);
    assert!(transactions(&empty).is_empty());
    assert_eq!(empty["previousblockhash"], block.block_hash().to_string());
    let full = rpc.send(template_call(Some(id(&empty)))).await;
    let full_time = start.elapsed();
    let (answer, judged) = submitting.await.unwrap();
    assert_eq!(result(&answer), Value::Null);
    assert_eq!(result(&full)["previousblockhash"], empty["previousblockhash"]);
    Times { judged, empty: empty_at - start, full: full_time }
}

fn report(what: &str, times: &[Times]) {
    let say = |name: &str, of: fn(&Times) -> Duration| {
        let mut all: Vec<Duration> = times.iter().map(of).collect();
        all.sort_unstable();
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        println!(
            "{what}: {name} p50 {:.1} ms, worst {:.1} ms",
            ms(all[all.len() / 2]),
            ms(all[all.len() - 1])
        );
    };
    say("block judged", |times| times.judged);
    say("template without transactions", |times| times.empty);
    say("full template", |times| times.full);
    say("template without transactions, after the judgement", |times| {
        times.empty.saturating_sub(times.judged)
    });
    say("full template, after the judgement", |times| times.full.saturating_sub(times.judged));
}

#[tokio::main]
async fn main() {
    let measures = std::env::args().any(|arg| arg == "--bench");
    let (waiting, tips) = if measures { (WAITING, TIPS) } else { (FEW_WAITING, FEW_TIPS) };
    let dir = tempfile::tempdir().unwrap();
    let network = Network::Named("regtest");
    let more = ["--no-listen".to_owned()];
    let node = Node::start_with(dir.path(), &network, free_port(), &more).unwrap();
    let rpc = Rpc::of(&node);
    let mut tip = fill(&rpc, Parent::of(&network.params().genesis.block(), 0), waiting).await;
    let mut template = result(&rpc.send(template_call(None)).await);
    println!("{waiting} transactions wait, {} are in a full block", transactions(&template).len());
    for full_block in [true, false] {
        let mut times = Vec::new();
        for _ in 0..tips {
            let mut txs = transactions(&template);
            if !full_block {
                txs.truncate(1);
            }
            let block = blocks::on(tip, 1, txs);
            tip = Parent::of(&block, tip.height + 1);
            let took = new_tip(&rpc, id(&template), &block).await;
            times.push(took);
            // Spend the outputs of the confirmed transactions, so that the mempool is as full for the next tip.
            let next = |(number, tx): (u64, &Transaction)| {
                spend(OutPoint::new(tx.compute_txid(), 0), tx.output[0].value.to_sat(), number)
            };
            let next: Vec<Transaction> = (0..).zip(&block.txdata[1..]).map(next).collect();
            offer(&rpc, &next).await;
            template = result(&rpc.send(template_call(None)).await);
        }
        report(if full_block { "tips with a full block" } else { "tips with one transaction" }, &times);
    }
}
