//! A pool for one miner: jobs at fixed intervals; each share is hashed again before it is counted.

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use iop_stratum::difficulty::{Difficulty, Target};
use iop_stratum::fields::{
    Extranonce1, Extranonce2, JobId, NBits, NTime, Nonce, PrevHash, Version, VersionBits, VersionMask,
};
use iop_stratum::notify::Notify;
use iop_stratum::work::{Work, sha256d};
use serde_json::{Value, json};

const MASK: VersionMask = VersionMask(0x1fff_e000);
const EXTRANONCE1: u32 = 7;
const EXTRANONCE2_SIZE: usize = 4;

/// The result.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Taken {
    pub(crate) shares: u64,
    pub(crate) stale: u64,
    /// Above the target, duplicate, or invalid.
    pub(crate) wrong: u64,
    pub(crate) jobs: u64,
    /// Time since the first job was sent.
    pub(crate) elapsed: Duration,
}

pub(crate) struct Upstream {
    pub(crate) address: String,
    state: Arc<Mutex<State>>,
}

struct State {
    job: Notify,
    target: Target,
    began: Option<Instant>,
    taken: Taken,
    seen: HashSet<[u8; 32]>,
}

fn notify(number: u64) -> Notify {
    let mut prev_hash = [0xaa; 32];
    prev_hash[..8].copy_from_slice(&number.to_le_bytes());
    Notify {
        job_id: JobId::new(&number.to_string()).unwrap(),
        prev_hash: PrevHash(prev_hash),
        coinbase1: vec![1; 120],
        coinbase2: vec![2; 110],
        branches: vec![[3; 32]; 12],
        version: Version(0x2000_0000),
        nbits: NBits(0x1d00_ffff),
        ntime: NTime(1_700_000_000),
        clean: true,
    }
}

impl Upstream {
    /// Waits for one miner.
    pub(crate) fn start(difficulty: Difficulty, every: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let taken = Taken { shares: 0, stale: 0, wrong: 0, jobs: 0, elapsed: Duration::ZERO };
        let target = Target::from_difficulty(difficulty);
        let state = State { job: notify(0), target, began: None, taken, seen: HashSet::new() };
        let state = Arc::new(Mutex::new(state));
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            stream.set_nodelay(true).unwrap();
            serve(&stream, &shared, difficulty, every);
        });
        Self { address, state }
    }

    pub(crate) fn wait_for_first_job(&self) {
        while lock(&self.state).began.is_none() {
            thread::sleep(Duration::from_millis(1));
        }
    }

    pub(crate) fn taken(&self) -> Taken {
        let state = lock(&self.state);
        Taken { elapsed: state.began.unwrap().elapsed(), ..state.taken }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap()
}

fn serve(stream: &TcpStream, state: &Arc<Mutex<State>>, difficulty: Difficulty, every: Duration) {
    for line in BufReader::new(stream).lines() {
        let Ok(line) = line else { return };
        let request: Value = serde_json::from_str(&line).unwrap();
        let (mut began, mut error) = (false, Value::Null);
        let result = match request["method"].as_str().unwrap_or_default() {
            "mining.configure" => {
                json!({"version-rolling": true, "version-rolling.mask": MASK.to_string()})
            }
            "mining.subscribe" => json!([
                [["mining.notify", "1"]],
                Extranonce1::from_u32(EXTRANONCE1).to_string(),
                EXTRANONCE2_SIZE
            ]),
            "mining.authorize" => {
                began = true;
                json!(true)
            }
            "mining.submit" => match lock(state).judge(&request["params"]) {
                Ok(()) => json!(true),
                Err((code, text)) => {
                    error = json!([code, text, null]);
                    Value::Null
                }
            },
            _ => json!(true),
        };
        send(stream, &json!({"id": request["id"], "result": result, "error": error}));
        if began {
            send(
                stream,
                &json!({"id": null, "method": "mining.set_difficulty", "params": [difficulty.get()]}),
            );
            let (stream, state) = (stream.try_clone().unwrap(), Arc::clone(state));
            thread::spawn(move || send_jobs(&stream, &state, every));
        }
    }
}

/// A miner that is gone is noticed by the reader.
fn send(mut stream: &TcpStream, message: &Value) {
    let _ = stream.write_all(format!("{message}\n").as_bytes());
}

fn send_jobs(mut stream: &TcpStream, state: &Mutex<State>, every: Duration) {
    for number in 1.. {
        let job = notify(number);
        let line = job.to_line();
        {
            let mut state = lock(state);
            state.job = job;
            state.seen.clear();
            state.taken.jobs += 1;
            state.began.get_or_insert_with(Instant::now);
        }
        if stream.write_all(&line).is_err() {
            return;
        }
        thread::sleep(every);
    }
}

impl State {
    /// Counts a share; if it does not count, returns a pool's error code and text.
    fn judge(&mut self, params: &Value) -> Result<(), (u32, &'static str)> {
        if params[1] != self.job.job_id.as_str() {
            self.taken.stale += 1;
            return Err((21, "Job not found"));
        }
        match self.hash(params).filter(|hash| self.target.is_met_by(hash) && self.seen.insert(*hash)) {
            Some(_) => {
                self.taken.shares += 1;
                Ok(())
            }
            None => {
                self.taken.wrong += 1;
                Err((23, "Low difficulty share"))
            }
        }
    }

    fn hash(&self, params: &Value) -> Option<[u8; 32]> {
        let number = |at: usize| u32::from_str_radix(params[at].as_str()?, 16).ok();
        let extranonce2 = Extranonce2::parse(params[2].as_str()?, EXTRANONCE2_SIZE, EXTRANONCE2_SIZE).ok()?;
        let root = Work::new(&self.job).merkle_root(&Extranonce1::from_u32(EXTRANONCE1), &extranonce2);
        let version = self.job.version.rolled(MASK, VersionBits(number(5)?));
        let (ntime, nonce) = (NTime(number(3)?), Nonce(number(4)?));
        let header =
            iop_stratum::work::header(version, self.job.prev_hash, &root, ntime, self.job.nbits, nonce);
        Some(sha256d(&header))
    }
}
