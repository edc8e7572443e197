//! The node's JSON-RPC as used by clients of Bitcoin Core.

#![allow(clippy::unwrap_used)]

mod access;
mod chain;
mod forms;
mod mining;

use std::net::TcpStream;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bitcoin::consensus::encode::serialize_hex;
use iop_consensus::license::key::LicenseKey;
use iop_consensus::params::Params;
use iop_tests::blocks::{self, Parent};
use iop_tests::chain::{easy_devnet, generate, license_address, locked_spend, wif};
use iop_tests::net::{Meeting, Peered};
use iop_tests::peer::Peer;
use iop_tests::rpc::{Rpc, RpcFailure};
use iop_tests::stand::{Network, Node, devnet_keys};
use serde_json::{Value, json};

struct Stand {
    dir: tempfile::TempDir,
    node: Node,
    params: Params,
}

impl Stand {
    fn start(name: &str, more: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let network = Network::file(dir.path(), &easy_devnet(name, more));
        let node = Node::start(dir.path(), &network).unwrap();
        Self { node, params: network.params(), dir }
    }

    fn generate(&self, count: u32) -> Vec<String> {
        let [admin, ..] = devnet_keys(self.dir.path());
        generate(&self.node.rpc, count, &admin, &self.params)
    }

    fn rpc(&self) -> &Rpc {
        &self.node.rpc
    }

    fn request(&self) -> minreq::Request {
        let cookie = std::fs::read_to_string(self.node.datadir.join(".cookie")).unwrap();
        minreq::post(format!("http://127.0.0.1:{}/", self.node.port))
            .with_header("Authorization", format!("Basic {}", STANDARD.encode(cookie)))
            .with_timeout(30)
    }

    /// HTTP status and body.
    fn post(&self, body: impl Into<Vec<u8>>) -> (u16, Value) {
        let response = self.request().with_body(body).send().unwrap();
        (response.status_code, serde_json::from_slice(response.as_bytes()).unwrap_or(Value::Null))
    }
}

/// The time that a long poll is pending before what ends it.
const PENDING: Duration = Duration::from_millis(300);

/// A long poll for a template, in a thread of its own: its answer, when it was sent and when it was answered.
struct Poll(JoinHandle<(Result<Value, RpcFailure>, Instant, Instant)>);

impl Poll {
    /// Returns when the poll has been pending for a while.
    fn start(rpc: &Rpc, request: Value) -> Self {
        let (rpc, (sent, is_sent)) = (rpc.clone(), mpsc::channel());
        let thread = std::thread::spawn(move || {
            let start = Instant::now();
            sent.send(()).unwrap();
            let answer = rpc.try_call("getblocktemplate", json!([request]));
            (answer, start, Instant::now())
        });
        is_sent.recv().unwrap();
        std::thread::sleep(PENDING);
        assert!(!thread.is_finished(), "answered at once");
        Self(thread)
    }

    /// The answer and when it came, which must be after what ends the poll.
    fn answer(self) -> (Result<Value, RpcFailure>, Instant) {
        let (answer, start, answered) = self.0.join().unwrap();
        let waited = answered.duration_since(start);
        assert!(waited >= PENDING, "answered after {waited:?}: {answer:?}");
        (answer, answered)
    }
}

fn code(failure: Result<Value, RpcFailure>) -> i64 {
    match failure {
        Err(RpcFailure::Answer { code, .. }) => code,
        other => panic!("an error expected, not {other:?}"),
    }
}
