//! A fake node, as complete as the pool's failure modes need: a chain of devnet blocks behind JSON-RPC, which can be
//! started, killed and started again. (In the end-to-end tests the real node takes its place.)
//!
//! Neither this code nor the tests wait for ever: a request that the fake node does not understand is kept as a fault,
//! and [`wait_until`] then fails at once.

#![allow(clippy::unwrap_used)]
#![allow(dead_code, reason = "not every test binary uses all of it")]

pub(crate) mod program;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use bitcoin::hashes::Hash;
use bitcoin::{Block, BlockHash};
use iop_consensus::license::coinbase::check;
use iop_consensus::params::Params;
use serde_json::{Value, json};
use tokio::sync::watch;

/// The longest that anything may take, even on a loaded machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// The first request that a fake node of this process could not handle.
static FAULT: Mutex<Option<String>> = Mutex::new(None);

/// Waits until `done` returns true; fails after too long, and at once if a fake node has a fault.
pub(crate) fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        let fault = FAULT.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        assert!(
            fault.is_none(),
            "the fake node is at fault: {} (while waiting until {what})",
            fault.unwrap()
        );
        assert!(begun.elapsed() < PATIENCE, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// About one hash in 128 makes a block.
pub(crate) const BITS: u32 = 0x2001_ffff;

/// Behaviour of a call with the tip's own long-poll id.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum LongPoll {
    /// It is answered when there is a new tip, as it should be.
    Waits,
    /// It is answered at once.
    Returns,
    /// It is never answered.
    Hangs,
}

/// The chain, which outlives the server.
pub(crate) struct Chain {
    pub(crate) name: Mutex<String>,
    /// Scripted answers of the next `submitblock` calls, given before the block is looked at.
    pub(crate) script: Mutex<VecDeque<Value>>,
    /// Calls of `submitblock`.
    pub(crate) offered: AtomicUsize,
    /// When `getblocktemplate` was called.
    pub(crate) templates: Mutex<Vec<Instant>>,
    pub(crate) long_poll: Mutex<LongPoll>,
    pub(crate) blocks: Mutex<Vec<Block>>,
    /// Seconds that its clock is ahead of this machine's.
    pub(crate) ahead: AtomicI64,
    /// Block cap of a license.
    pub(crate) cap: Mutex<u64>,
    pub(crate) password: Mutex<String>,
    tips: watch::Sender<usize>,
}

/// A server of a chain; killed when dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Chain {
    pub(crate) fn new(name: &str) -> Arc<Self> {
        Arc::new(Self {
            name: Mutex::new(name.into()),
            script: Mutex::default(),
            offered: AtomicUsize::new(0),
            templates: Mutex::default(),
            long_poll: Mutex::new(LongPoll::Waits),
            blocks: Mutex::default(),
            ahead: AtomicI64::new(0),
            cap: Mutex::new(1000),
            password: Mutex::new("u:p".into()),
            tips: watch::channel(0).0,
        })
    }

    pub(crate) fn height(&self) -> usize {
        self.blocks.lock().unwrap().len()
    }

    /// Raises the cap as if a block had moved the window.
    pub(crate) fn set_cap(&self, cap: u64) {
        *self.cap.lock().unwrap() = cap;
        self.tips.send_modify(|_| {});
    }

    pub(crate) fn serve(self: &Arc<Self>, port: u16) -> Server {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(async {
            for _ in 0..100 {
                match tokio::net::TcpListener::bind(("127.0.0.1", port)).await {
                    Ok(listener) => return listener,
                    Err(_) => tokio::time::sleep(std::time::Duration::from_millis(50)).await,
                }
            }
            panic!("port {port} stays in use");
        });
        let address = listener.local_addr().unwrap();
        let router = Router::new().fallback(answer).with_state(Arc::clone(self));
        runtime.spawn(async move { axum::serve(listener, router).await });
        Server { address, runtime: Some(runtime) }
    }

    fn tip(&self) -> BlockHash {
        self.blocks.lock().unwrap().last().map_or(BlockHash::all_zeros(), Block::block_hash)
    }

    fn template(&self) -> Value {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        let now = now.saturating_add_signed(self.ahead.load(Ordering::SeqCst));
        json!({
            "height": self.height() + 1, "previousblockhash": self.tip().to_string(), "version": 0x2000_0000,
            "bits": format!("{BITS:08x}"), "curtime": now, "mintime": now - 1000, "coinbasevalue": 5_000_000_000u64,
            "transactions": [], "longpollid": self.tip().to_string(),
            "license": {"required": true, "activation_height": 0},
        })
    }

    fn license(&self, address: &str) -> Value {
        let blocks = self.blocks.lock().unwrap();
        let prefixes = Params::devnet().prefixes;
        let mined = |block: &Block| check(&block.txdata[0]).unwrap().to_base58(&prefixes) == address;
        let count = blocks.iter().filter(|block| mined(block)).count() as u64;
        let cap = *self.cap.lock().unwrap();
        drop(blocks);
        json!({
            "address": address, "whitelisted": true, "admin": false, "blocks_in_window": count, "cap": cap,
            "remaining": cap.saturating_sub(count), "last_block": null, "eligible_next": count < cap,
            "eligible_from_height": if count < cap { Value::Null } else { json!(2016) },
            "tip_hash": self.tip().to_string(), "tip_height": self.height(),
        })
    }

    pub(crate) fn submit(&self, text: &str) -> Value {
        let block: Block = bitcoin::consensus::deserialize(&hex::decode(text).unwrap()).unwrap();
        if self.blocks.lock().unwrap().iter().any(|known| known.block_hash() == block.block_hash()) {
            return json!("duplicate");
        }
        if block.header.prev_blockhash != self.tip() {
            return json!("inconclusive");
        }
        assert!(block.header.validate_pow(block.header.target()).is_ok() && block.check_merkle_root());
        assert!(check(&block.txdata[0]).is_ok(), "every block is licensed");
        let mut blocks = self.blocks.lock().unwrap();
        blocks.push(block);
        self.tips.send_replace(blocks.len());
        Value::Null
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.runtime.take().unwrap().shutdown_background();
    }
}

async fn answer(State(chain): State<Arc<Chain>>, headers: HeaderMap, body: Bytes) -> Response {
    let expected = base64::engine::general_purpose::STANDARD.encode(chain.password.lock().unwrap().as_str());
    if headers.get("authorization").is_none_or(|found| found != &format!("Basic {expected}")) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let call: Value = serde_json::from_slice(&body).unwrap();
    if call["method"] == "getblocktemplate" && call["params"][0]["longpollid"] == chain.tip().to_string() {
        let (mut tips, long_poll) = (chain.tips.subscribe(), *chain.long_poll.lock().unwrap());
        match long_poll {
            LongPoll::Waits => drop(tips.changed().await),
            LongPoll::Returns => {}
            LongPoll::Hangs => std::future::pending().await,
        }
    }
    let answered = catch_unwind(AssertUnwindSafe(|| chain.call(&call["method"], &call["params"])));
    let mut answer = answered.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        let mut fault = FAULT.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        fault.get_or_insert(format!("{}: {}", call["method"], text.unwrap_or_default()));
        json!({"result": null, "error": {"code": -32603, "message": "the fake node is at fault"}})
    });
    answer["id"] = call["id"].clone();
    answer.to_string().into_response()
}

impl Chain {
    fn call(&self, method: &Value, params: &Value) -> Value {
        let result = match method.as_str().unwrap() {
            "getblockchaininfo" => json!({
                "chain": *self.name.lock().unwrap(), "blocks": self.height(),
                "bestblockhash": self.tip().to_string(), "chainwork": format!("{:064x}", self.height()),
            }),
            "getblockhash" => {
                let height = usize::try_from(params[0].as_u64().unwrap()).unwrap();
                let block =
                    height.checked_sub(1).map(|index| self.blocks.lock().unwrap().get(index).cloned());
                match block {
                    None => json!(Params::devnet().genesis.block().block_hash().to_string()),
                    Some(Some(block)) => json!(block.block_hash().to_string()),
                    Some(None) => {
                        return json!({"result": null, "error": {"code": -8, "message": "Block height out of range"}});
                    }
                }
            }
            "getblockheader" => {
                let blocks = self.blocks.lock().unwrap();
                let known = |block: &&Block| block.block_hash().to_string() == params[0].as_str().unwrap();
                if !blocks.iter().any(|block| known(&block)) {
                    return json!({"result": null, "error": {"code": -5, "message": "Block not found"}});
                }
                json!({"confirmations": 1})
            }
            "getblock" => {
                let blocks = self.blocks.lock().unwrap();
                let is_asked = |block: &&Block| block.block_hash().to_string() == params[0].as_str().unwrap();
                let genesis = Params::devnet().genesis.block();
                match blocks.iter().chain([&genesis]).find(is_asked) {
                    Some(block) => json!(bitcoin::consensus::encode::serialize_hex(block)),
                    None => {
                        return json!({"result": null, "error": {"code": -5, "message": "Block not found"}});
                    }
                }
            }
            "getblocktemplate" => {
                self.templates.lock().unwrap().push(Instant::now());
                self.template()
            }
            "getlicenseinfo" => params
                .as_array()
                .unwrap()
                .iter()
                .map(|address| self.license(address.as_str().unwrap()))
                .collect(),
            "submitblock" => {
                self.offered.fetch_add(1, Ordering::SeqCst);
                if let Some(answer) = self.script.lock().unwrap().pop_front() {
                    return answer;
                }
                self.submit(params[0].as_str().unwrap())
            }
            other => panic!("{other} is not known here"),
        };
        json!({"result": result, "error": null})
    }
}
