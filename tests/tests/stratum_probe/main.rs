//! An abuse and conformance probe of the Stratum port: one connection per case, with the real pool and node behind it.
//! All cases run; failing ones are listed together.

#![allow(clippy::unwrap_used)]

mod submits;
mod talk;

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use iop_consensus::params::Params;
use iop_tests::chain::devnet_like;
use iop_tests::program::wait_for;
use iop_tests::stand::{Network, Node, Pool, devnet_keys, new_address};
use serde_json::{Value, json};

/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Every hash is a share, and none is a block.
const CONFIG: &str = "start_difficulty = 1e-10\nmin_difficulty = 1e-11\nvardiff = false\n";

struct Stand {
    pool: Pool,
    address: String,
    _node: Node,
    _dir: tempfile::TempDir,
}

impl Stand {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let network = Network::file(dir.path(), &devnet_like("probe", "00000000", ""));
        let [_, licenses @ ..] = devnet_keys(dir.path());
        let node = Node::start(dir.path(), &network).unwrap();
        let pool = Pool::start_configured(dir.path(), &network, node.port, &licenses, CONFIG).unwrap();
        let ready = wait_for(PATIENCE, || (pool.api("status")["state"] == "mining").then_some(()));
        assert!(ready.is_some(), "{}", pool.api("status"));
        let address = new_address(dir.path(), &network);
        Self { pool, address, _node: node, _dir: dir }
    }

    fn user(&self) -> String {
        format!("{}.rig", self.address)
    }

    fn connect(&self) -> Client {
        let stream = TcpStream::connect(&self.pool.stratum).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let reader = BufReader::new(stream.try_clone().unwrap());
        Client { stream, reader, next: 0, told: VecDeque::new(), job: Value::Null }
    }

    /// Subscribed and authorized, with a job.
    fn ready(&self) -> Client {
        let mut client = self.connect();
        client.call("mining.subscribe", json!(["probe/1"]));
        client.call("mining.authorize", json!([self.user(), "x"]));
        client.wait_for_job();
        client
    }

    /// As [`Self::ready`], with version rolling negotiated.
    fn rolling(&self) -> Client {
        let mut client = self.connect();
        client.call("mining.configure", json!([["version-rolling"], {"version-rolling.mask": "1fffe000"}]));
        client.call("mining.subscribe", json!([]));
        client.call("mining.authorize", json!([self.user(), "x"]));
        client.wait_for_job();
        client
    }
}

struct Client {
    stream: TcpStream,
    reader: BufReader<TcpStream>,
    next: u64,
    /// Notifications received before an answer.
    told: VecDeque<Value>,
    /// The last job's parameters.
    job: Value,
}

impl Client {
    fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes); // a closed connection shows when it is read
    }

    fn line(&mut self, text: &str) {
        self.send(format!("{text}\n").as_bytes());
    }

    /// The next line; `None` at the end.
    fn read(&mut self) -> Option<Value> {
        let mut line = String::new();
        match self.reader.read_line(&mut line) {
            Ok(0) => None,
            Ok(_) => Some(serde_json::from_str(&line).unwrap_or_else(|_| panic!("no JSON: {line:?}"))),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                panic!("no answer within {} s", PATIENCE.as_secs())
            }
            Err(_) => None,
        }
    }

    fn note(&mut self, line: Value) {
        if line["method"] == "mining.notify" {
            self.job = line["params"].clone();
        }
        self.told.push_back(line);
    }

    /// The next answer; notifications are queued.
    fn answer(&mut self) -> Value {
        loop {
            let line = self.read().expect("the connection is open");
            if line.get("method").is_none() {
                return line;
            }
            self.note(line);
        }
    }

    fn call(&mut self, method: &str, params: Value) -> Value {
        self.next += 1;
        let id = self.next;
        self.line(&json!({"id": id, "method": method, "params": params}).to_string());
        let answer = self.answer();
        assert_eq!(answer["id"], id, "{answer}");
        answer
    }

    /// The error's code; 0 for success.
    fn code(&mut self, method: &str, params: Value) -> u64 {
        code(&self.call(method, params))
    }

    fn wait_for_job(&mut self) {
        while self.job.is_null() {
            let line = self.read().expect("a job comes");
            self.note(line);
        }
    }

    fn told(&mut self, method: &str) -> Value {
        loop {
            if let Some(line) = self.told.iter().find(|line| line["method"] == method) {
                return line["params"].clone();
            }
            let line = self.read().expect("the notification comes");
            self.note(line);
        }
    }

    /// Submits `[user, job, extranonce2, ntime, nonce]` with some of them replaced.
    fn submit(&mut self, user: &str, changes: &[(usize, Value)]) -> u64 {
        let mut params = vec![
            json!(user),
            self.job[0].clone(),
            json!("00000000000000aa"),
            self.job[7].clone(),
            json!("000000aa"),
        ];
        for (index, value) in changes {
            if *index == params.len() {
                params.push(value.clone());
            } else {
                params[*index] = value.clone();
            }
        }
        self.code("mining.submit", Value::Array(params))
    }

    /// Whether the pool closes the connection within [`PATIENCE`], whatever it sends before.
    fn is_closed(&mut self) -> bool {
        let mut rest = Vec::new();
        match self.reader.read_to_end(&mut rest) {
            Ok(_) => true,
            Err(error) => !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
        }
    }

    fn is_alive(&mut self) {
        assert_eq!(self.call("mining.ping", json!([]))["result"], "pong");
    }
}

fn code(answer: &Value) -> u64 {
    match &answer["error"] {
        Value::Null => 0,
        error => {
            let parts = error.as_array().unwrap_or_else(|| panic!("{answer}"));
            assert!(parts.len() == 3 && parts[1].is_string() && parts[2].is_null(), "{answer}");
            assert!(answer["result"].is_null(), "{answer}");
            parts[0].as_u64().unwrap()
        }
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

type Case = (&'static str, fn(&Stand));

#[test]
fn no_case_of_the_probe_fails() {
    let stand = Stand::start();
    let cases: Vec<&Case> =
        [talk::SUBSCRIBE, talk::CONFIGURE, talk::AUTHORIZE, talk::WISHES, talk::ENVELOPES, submits::SUBMITS]
            .into_iter()
            .flatten()
            .collect();
    assert!(cases.len() >= 61, "{}", cases.len());
    let mut failed = Vec::new();
    for (name, case) in &cases {
        let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| case(&stand)));
        if let Err(panic) = ran {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            failed.push(format!("{name}: {}", text.unwrap_or_default()));
        }
    }
    assert!(failed.is_empty(), "{} of {} cases fail:\n{}", failed.len(), cases.len(), failed.join("\n"));
    assert!(Path::new(&format!("/proc/{}", stand.pool.program.id())).exists(), "the pool lives");
}
