//! A Stratum miner under a test's control: lines of JSON over TCP, with work built by the `bitcoin` crate.
//!
//! It shares no code with the pool, so that its shares and the pool's verdicts can agree only by the protocol. It
//! hashes on one thread: for chains and difficulties of a few thousand hashes.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use bitcoin::block::{Header, Version};
use bitcoin::consensus::{deserialize, serialize};
use bitcoin::hashes::{Hash, sha256d};
use bitcoin::{Block, BlockHash, CompactTarget, ScriptBuf, Transaction, TxMerkleNode, Witness};
use serde_json::{Value, json};

/// How long an answer may take on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// A job, from a notify.
#[derive(Debug, Clone)]
pub struct Job {
    /// Its id.
    pub id: String,
    /// Hash of the parent block.
    pub parent: BlockHash,
    /// Initial time, in seconds since 1970.
    pub time: u32,
    /// Whether earlier jobs are void.
    pub clean: bool,
    /// The share difficulty when it was sent.
    pub difficulty: f64,
    coinbase: [String; 2],
    branches: Vec<[u8; 32]>,
    version: u32,
    bits: u32,
}

/// The fields of a share.
#[derive(Debug, Clone)]
pub struct Share {
    /// The job's id.
    pub job: String,
    /// In hex, of the width that the pool wants.
    pub extranonce2: String,
    /// Seconds since 1970.
    pub time: u32,
    /// The nonce.
    pub nonce: u32,
    /// Rolled version bits; `None` if version rolling was not negotiated.
    pub bits: Option<u32>,
}

/// One connection.
#[derive(Debug)]
pub struct Worker {
    stream: TcpStream,
    lines: BufReader<TcpStream>,
    /// The part of the next line read so far.
    line: Vec<u8>,
    user: String,
    id: u64,
    extranonce1: String,
    /// Width of the extranonce2 in bytes.
    extranonce2_size: usize,
    difficulty: f64,
    /// Jobs since connecting, oldest first.
    pub jobs: Vec<Job>,
    answers: VecDeque<Value>,
    counter: u64,
    /// Whether the pool has closed the connection.
    pub closed: bool,
}

fn bytes32(text: &str) -> [u8; 32] {
    hex::decode(text).ok().and_then(|bytes| bytes.try_into().ok()).expect("32 bytes in hex")
}

fn number(value: &Value) -> u32 {
    u32::from_str_radix(value.as_str().expect("a text"), 16).expect("32 bits in hex")
}

impl Job {
    /// A job from a notify's parameters.
    fn read(params: &Value, difficulty: f64) -> Self {
        let text = |index: usize| params[index].as_str().expect("a text").to_owned();
        // Eight words, each byte-reversed.
        let mut parent = bytes32(&text(1));
        parent.chunks_mut(4).for_each(<[u8]>::reverse);
        let branches = params[4].as_array().expect("a list of branches");
        Self {
            id: text(0),
            parent: BlockHash::from_byte_array(parent),
            coinbase: [text(2), text(3)],
            branches: branches.iter().map(|branch| bytes32(branch.as_str().expect("a text"))).collect(),
            version: number(&params[5]),
            bits: number(&params[6]),
            time: number(&params[7]),
            clean: params[8] == true,
            difficulty,
        }
    }

    /// The coinbase, without witness.
    fn coinbase(&self, extranonce1: &str, share: &Share) -> Vec<u8> {
        let [before, after] = &self.coinbase;
        let coinbase = format!("{before}{extranonce1}{}{after}", share.extranonce2);
        hex::decode(coinbase).expect("hex")
    }

    fn header(&self, extranonce1: &str, share: &Share) -> Header {
        let mut root = sha256d::Hash::hash(&self.coinbase(extranonce1, share)).to_byte_array();
        for branch in &self.branches {
            root = sha256d::Hash::hash(&[root, *branch].concat()).to_byte_array();
        }
        Header {
            version: Version::from_consensus((self.version | share.bits.unwrap_or(0)).cast_signed()),
            prev_blockhash: self.parent,
            merkle_root: TxMerkleNode::from_byte_array(root),
            time: share.time,
            bits: CompactTarget::from_consensus(self.bits),
            nonce: share.nonce,
        }
    }
}

/// The difficulty of a hash: 2^224 - 2^208 (difficulty 1's target) divided by the hash.
fn worth(header: &Header) -> f64 {
    let hash = sha256d::Hash::hash(&serialize(header)).to_byte_array();
    let value = hash.iter().rev().fold(0.0, |sum, &byte| sum * 256.0 + f64::from(byte));
    f64::from(0xffff_u32) * 2f64.powi(208) / value
}

impl Worker {
    /// Connects, subscribes and authorizes.
    ///
    /// # Panics
    /// When the pool does not answer as it should.
    pub fn connect(stratum: &str, user: &str) -> Self {
        let stream = TcpStream::connect(stratum).expect("the pool takes connections");
        stream.set_read_timeout(Some(Duration::from_millis(10))).expect("a time-out above zero");
        let lines = BufReader::new(stream.try_clone().expect("a socket can be shared"));
        let mut worker = Self {
            stream,
            lines,
            line: Vec::new(),
            user: user.to_owned(),
            id: 0,
            extranonce1: String::new(),
            extranonce2_size: 0,
            difficulty: 1.0,
            jobs: Vec::new(),
            answers: VecDeque::new(),
            counter: 0,
            closed: false,
        };
        let subscribed = worker.call("mining.subscribe", &json!(["test"]));
        subscribed["result"][1].as_str().expect("an extranonce1").clone_into(&mut worker.extranonce1);
        let size = subscribed["result"][2].as_u64().expect("the width of an extranonce2");
        worker.extranonce2_size = usize::try_from(size).expect("a few bytes");
        let authorized = worker.call("mining.authorize", &json!([user, "x"]));
        assert_eq!(authorized["result"], true, "{authorized}");
        worker
    }

    /// Negotiates version rolling with this mask.
    ///
    /// # Panics
    /// When the pool refuses.
    pub fn roll_versions(&mut self) {
        let wish = json!([["version-rolling"], { "version-rolling.mask": "1fffe000" }]);
        let answer = self.call("mining.configure", &wish);
        assert_eq!(answer["result"]["version-rolling"], true, "{answer}");
    }

    fn send(&mut self, method: &str, params: &Value) -> u64 {
        self.id += 1;
        let line = json!({ "id": self.id, "method": method, "params": params }).to_string() + "\n";
        self.stream.write_all(line.as_bytes()).expect("the pool reads");
        self.id
    }

    /// Sends a request and waits for the answer.
    ///
    /// # Panics
    /// When none comes.
    pub fn call(&mut self, method: &str, params: &Value) -> Value {
        let id = self.send(method, params);
        let answer = self.wait(|worker| {
            let place = worker.answers.iter().position(|answer| answer["id"] == id)?;
            worker.answers.remove(place)
        });
        answer.unwrap_or_else(|| panic!("no answer to {method}"))
    }

    /// Reads until `done` returns a value; `None` after a long time or if the connection is closed.
    pub fn wait<T>(&mut self, mut done: impl FnMut(&mut Self) -> Option<T>) -> Option<T> {
        let begun = Instant::now();
        loop {
            if let Some(found) = done(self) {
                return Some(found);
            }
            if self.closed || begun.elapsed() > PATIENCE {
                return None;
            }
            self.read();
        }
    }

    /// Reads what arrives within a moment.
    ///
    /// # Panics
    /// When it is no JSON.
    pub fn read(&mut self) {
        match self.lines.read_until(b'\n', &mut self.line) {
            Ok(0) => self.closed = true,
            Ok(_) if self.line.ends_with(b"\n") => {
                let line = std::mem::take(&mut self.line);
                let message = serde_json::from_slice(&line).expect("the pool sends JSON");
                self.take(message);
            }
            Ok(_) => {}
            Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock) => {}
            Err(_) => self.closed = true,
        }
    }

    fn take(&mut self, message: Value) {
        match message["method"].as_str() {
            Some("mining.notify") => self.jobs.push(Job::read(&message["params"], self.difficulty)),
            Some("mining.set_difficulty") => {
                self.difficulty = message["params"][0].as_f64().expect("a number");
            }
            Some(_) => {}
            None => self.answers.push_back(message),
        }
    }

    /// The latest job on a tip, as soon as there is one.
    ///
    /// # Panics
    /// When there is none for a long time.
    pub fn job_on(&mut self, parent: &str) -> Job {
        let on =
            |worker: &mut Self| worker.jobs.last().filter(|job| job.parent.to_string() == parent).cloned();
        self.wait(on).unwrap_or_else(|| panic!("no job on {parent}"))
    }

    /// The latest job, as soon as there is one.
    ///
    /// # Panics
    /// When there is none for a long time.
    pub fn job(&mut self) -> Job {
        self.wait(|worker| worker.jobs.last().cloned()).expect("there is work")
    }

    /// A share of this job that is not a block.
    pub fn solve(&mut self, job: &Job) -> Share {
        self.solve_with(job, job.time, None, |worth, is_block| !is_block && worth >= job.difficulty)
    }

    /// A share of this job that is a block.
    pub fn solve_block(&mut self, job: &Job) -> Share {
        self.solve_with(job, job.time, None, |_, is_block| is_block)
    }

    /// The whole block of such a share, built without the pool: its job must have no other transactions.
    ///
    /// # Panics
    /// When it has.
    pub fn whole_block(&self, job: &Job, share: &Share) -> Block {
        assert!(job.branches.is_empty(), "the job has transactions");
        let bytes = job.coinbase(&self.extranonce1, share);
        let mut coinbase: Transaction = deserialize(&bytes).expect("a coinbase");
        if coinbase.output.iter().any(|output| output.script_pubkey.is_op_return()) {
            coinbase.input[0].witness = Witness::from_slice(&[[0; 32]]);
        }
        Block { header: job.header(&self.extranonce1, share), txdata: vec![coinbase] }
    }

    /// The outputs of this job, with values in base units, without the witness commitment.
    pub fn paid(&self, job: &Job) -> Vec<(ScriptBuf, u64)> {
        let share = Share {
            job: job.id.clone(),
            extranonce2: "00".repeat(self.extranonce2_size),
            time: job.time,
            nonce: 0,
            bits: None,
        };
        let bytes = job.coinbase(&self.extranonce1, &share);
        let coinbase: Transaction = deserialize(&bytes).expect("a coinbase");
        let outputs = coinbase.output.into_iter().filter(|output| !output.script_pubkey.is_op_return());
        outputs.map(|output| (output.script_pubkey, output.value.to_sat())).collect()
    }

    /// A share with this time and these version bits, `wanted` by its difficulty and by whether it is a block.
    pub fn solve_with(
        &mut self,
        job: &Job,
        time: u32,
        bits: Option<u32>,
        wanted: impl Fn(f64, bool) -> bool,
    ) -> Share {
        self.counter += 1;
        let mut share = Share {
            job: job.id.clone(),
            extranonce2: format!("{:01$x}", self.counter, 2 * self.extranonce2_size),
            time,
            nonce: 0,
            bits,
        };
        loop {
            let header = job.header(&self.extranonce1, &share);
            if wanted(worth(&header), header.target().is_met_by(header.block_hash())) {
                return share;
            }
            share.nonce += 1;
        }
    }

    /// Submits a share; returns the verdict's code, 0 for accepted.
    ///
    /// # Panics
    /// When it is not answered.
    pub fn submit(&mut self, share: &Share) -> u64 {
        let (time, nonce) = (format!("{:08x}", share.time), format!("{:08x}", share.nonce));
        let mut params = vec![self.user.clone(), share.job.clone(), share.extranonce2.clone(), time, nonce];
        params.extend(share.bits.map(|bits| format!("{bits:08x}")));
        let answer = self.call("mining.submit", &json!(params));
        match &answer["error"] {
            Value::Null => {
                assert_eq!(answer["result"], true, "{answer}");
                0
            }
            error => error[0].as_u64().unwrap_or_else(|| panic!("a code expected in {answer}")),
        }
    }
}
