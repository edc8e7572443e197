//! A pool for tests, and a miner to connect to it.
//!
//! The pool sends hand-written JSON and judges shares by its own arithmetic over the `sha2` crate: it shares no line
//! with the code under test.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use iop_miner::device::{Cpu, Device};
use iop_miner::rig::Rig;
use iop_miner::stats::{Snapshot, Stats};
use iop_miner::suggest::Suggestion;
use iop_miner::upstream::board::Source;
use iop_miner::upstream::pool::{Pool, PoolSettings};
use iop_miner::upstream::{Board, Timing};
use iop_stratum::difficulty::Difficulty;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::sync::oneshot;

/// How long any expected event may take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Longer than any test waits: a miner that leaves has another reason.
const NEVER: Duration = Duration::from_secs(300);

/// A test of one of the limits makes that one short.
pub(crate) const TIMING: Timing = Timing {
    connect: PATIENCE,
    handshake: NEVER,
    login: NEVER,
    first_job: NEVER,
    head_start: NEVER,
    silence: NEVER,
    job_age: NEVER,
    answer: NEVER,
    refused: NEVER,
    write: NEVER,
    first_retry: Duration::from_millis(20),
    last_retry: Duration::from_millis(100),
    good_after: Duration::from_secs(30),
    first_probe: NEVER,
    last_probe: NEVER,
    steady: NEVER,
    farewell: PATIENCE,
    late_finds: Duration::from_millis(100),
    longest_asked_wait: Duration::from_millis(100),
};

/// A miner that runs until it is dropped.
pub(crate) struct Miner {
    pub(crate) stats: Arc<Stats>,
    pub(crate) board: Arc<Board>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Miner {
    pub(crate) fn start(pools: &[SocketAddr]) -> Self {
        Self::start_with(pools, TIMING)
    }

    pub(crate) fn start_with(pools: &[SocketAddr], timing: Timing) -> Self {
        Self::start_at(pool(pools, Some(SUGGESTED), timing))
    }

    pub(crate) fn start_at(pool: Pool) -> Self {
        let devices: Vec<Box<dyn Device>> = vec![Box::new(Cpu::new(iop_kernels::auto(), 2))];
        let (stop, stopped) = oneshot::channel();
        let rig = Rig::new(devices, pool.board());
        let (stats, board) = (Arc::clone(&rig.stats), Arc::clone(&rig.board));
        let pool = pool.measured_by(Arc::clone(&stats));
        let until = async {
            let _ = stopped.await;
            Ok(())
        };
        let thread = thread::spawn(move || rig.run(pool, until).unwrap());
        Self { stats, board, stop: Some(stop), thread: Some(thread) }
    }

    /// Waits until hashing stops.
    pub(crate) fn wait_until_idle(&self) {
        let start = Instant::now();
        let mut before = None;
        loop {
            let hashes = self.stats.snapshot().hashes;
            if before.replace(hashes) == Some(hashes) {
                return;
            }
            assert!(start.elapsed() < PATIENCE, "hashes for nobody");
            // Two hundred times the slowest kernel's time between two counts.
            thread::sleep(Duration::from_millis(1000));
        }
    }

    /// Waits until a source satisfies a condition.
    pub(crate) fn wait_for_source(&self, number: usize, wanted: impl Fn(&Source) -> bool) -> Source {
        let start = Instant::now();
        loop {
            let source = self.board.sources().swap_remove(number);
            if wanted(&source) {
                return source;
            }
            assert!(start.elapsed() < PATIENCE, "{source:?}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits until the counters satisfy a condition.
    pub(crate) fn wait_for(&self, wanted: impl Fn(&Snapshot) -> bool) -> Snapshot {
        let start = Instant::now();
        loop {
            let snapshot = self.stats.snapshot();
            if wanted(&snapshot) {
                return snapshot;
            }
            assert!(start.elapsed() < PATIENCE, "{snapshot:?}");
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Miner {
    fn drop(&mut self) {
        drop(self.stop.take());
        let ended = self.thread.take().unwrap().join();
        assert!(ended.is_ok() || thread::panicking(), "the miner panicked");
    }
}

/// The suggestion of the miners under test.
pub(crate) const SUGGESTED: f64 = 0.125;

pub(crate) fn pool(pools: &[SocketAddr], suggested: Option<f64>, timing: Timing) -> Pool {
    let urls: Vec<String> = pools.iter().map(|pool| format!("stratum+tcp://{pool}")).collect();
    Pool::new(settings(&urls), suggested.and_then(Difficulty::new), timing)
}

/// Minimal settings for these pools.
pub(crate) fn settings(urls: &[String]) -> PoolSettings {
    PoolSettings {
        urls: urls.iter().map(|url| url.parse().unwrap()).collect(),
        user: "pAddress.rig".into(),
        password: "x".into(),
        suggestion: Suggestion::Nothing,
        tls: None,
        follow_reconnect: false,
        only_machines: false,
    }
}

pub(crate) fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// The parts of a job and its connection that the miner combines.
#[derive(Clone)]
pub(crate) struct Template {
    pub(crate) id: &'static str,
    pub(crate) extranonce1: &'static str,
    pub(crate) extranonce2_size: usize,
    pub(crate) version: u32,
    pub(crate) mask: u32,
    pub(crate) ntime: u32,
    /// The first four bytes of a valid hash, as printed, are below this.
    pub(crate) share_bound: u32,
}

/// Difficulty 2^-16: the target is `0000ffff 00…`.
pub(crate) const EASY: f64 = 1.0 / 65_536.0;
/// Difficulty 2^-14: the target is `00003fff c0…`. One in four easy shares meets it.
pub(crate) const HARDER: f64 = 1.0 / 16_384.0;

pub(crate) const JOB: Template = Template {
    id: "job-1",
    extranonce1: "f00dbabe",
    extranonce2_size: 4,
    version: 0x2000_0000,
    mask: 0x1fff_e000,
    ntime: 0x6550_1234,
    share_bound: 0xffff,
};

const COINBASE_1: &str =
    "0100000001000000000000000000000000000000000000000000000000000000000000000000ffffffff10";
const COINBASE_2: &str =
    "ffffffff0100f2052a010000001976a91400112233445566778899aabbccddeeff0011223388ac00000000";
const PREV_HASH: [u8; 32] = {
    let mut bytes = [0; 32];
    let mut i = 0;
    while i < 32 {
        bytes[i] = i as u8 + 1;
        i += 1;
    }
    bytes
};
const BRANCHES: [[u8; 32]; 2] = [[0x11; 32], [0x22; 32]];
const NBITS: u32 = 0x1d00_ffff;

fn sha256d(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(Sha256::digest(bytes)).into()
}

impl Template {
    pub(crate) fn notify(&self, clean: bool) -> Value {
        // Stratum swaps the bytes of each word of the previous hash.
        let prev_hash: Vec<u8> = PREV_HASH.chunks(4).flat_map(|word| word.iter().rev().copied()).collect();
        json!({"id": null, "method": "mining.notify", "params": [
            self.id, hex::encode(prev_hash), COINBASE_1, COINBASE_2, BRANCHES.map(hex::encode),
            format!("{:08x}", self.version), format!("{NBITS:08x}"), format!("{:08x}", self.ntime), clean,
        ]})
    }

    /// Rebuilds the header of a `mining.submit` and checks all of it. Returns the header.
    pub(crate) fn check(&self, submit: &Value) -> Vec<u8> {
        assert_eq!(submit["method"], "mining.submit");
        let params: Vec<&str> =
            submit["params"].as_array().unwrap().iter().map(|p| p.as_str().unwrap()).collect();
        assert_eq!(params[..2], ["pAddress.rig", self.id]);
        let [extranonce2, ntime, nonce] = [params[2], params[3], params[4]];
        assert_eq!(extranonce2.len(), 2 * self.extranonce2_size);
        assert_eq!((ntime, nonce.len()), (&*format!("{:08x}", self.ntime), 8));
        let bits = params.get(5).map_or(0, |bits| u32::from_str_radix(bits, 16).unwrap());
        assert_eq!(params.len() == 6, self.mask != 0);
        assert_eq!(bits & !self.mask, 0);
        let header = self.header(&[self.extranonce1, extranonce2].concat(), nonce, bits);
        assert_eq!(header.len(), 80);
        let hash = sha256d(&header);
        assert!(self.is_share(&header), "hash {} is above the target", hex::encode(hash));
        header
    }

    /// The header with both extranonces, a nonce in hex and rolled version bits.
    pub(crate) fn header(&self, extranonces: &str, nonce: &str, bits: u32) -> Vec<u8> {
        let coinbase = [COINBASE_1, extranonces, COINBASE_2].concat();
        let root = BRANCHES.iter().fold(sha256d(&hex::decode(coinbase).unwrap()), |root, branch| {
            sha256d(&[root, *branch].concat())
        });
        let word = |hex: &str| u32::from_str_radix(hex, 16).unwrap().to_le_bytes();
        let version = self.version & !self.mask | bits & self.mask;
        let numbers = [self.ntime.to_le_bytes(), NBITS.to_le_bytes(), word(nonce)].concat();
        [&version.to_le_bytes()[..], &PREV_HASH, &root, &numbers].concat()
    }

    pub(crate) fn is_share(&self, header: &[u8]) -> bool {
        u32::from_le_bytes(sha256d(header)[28..].try_into().unwrap()) < self.share_bound
    }
}

/// Accepts a miner's connection, with a generous time limit.
pub(crate) fn accept(listener: &TcpListener) -> TcpStream {
    listener.set_nonblocking(true).unwrap();
    let start = Instant::now();
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false).unwrap();
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                return stream;
            }
            Err(_) => assert!(start.elapsed() < PATIENCE, "no miner came"),
        }
        thread::sleep(Duration::from_millis(2));
    }
}

/// A byte stream in both directions, encrypted or not.
pub(crate) trait Socket: Read + Write + Send {}
impl<T: Read + Write + Send> Socket for T {}

/// A connection from a miner.
pub(crate) struct Client {
    reader: BufReader<Box<dyn Socket>>,
}

impl Client {
    pub(crate) fn accept(listener: &TcpListener) -> Self {
        Self::over(accept(listener))
    }

    pub(crate) fn over(socket: impl Socket + 'static) -> Self {
        Self { reader: BufReader::new(Box::new(socket)) }
    }

    /// The next line, or `None` if the miner has left.
    pub(crate) fn read(&mut self) -> Option<Value> {
        let mut line = String::new();
        match self.reader.read_line(&mut line) {
            Ok(0) => None,
            Ok(_) => Some(serde_json::from_str(&line).unwrap()),
            Err(error) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof) => {
                None
            }
            Err(error) => panic!("the miner neither speaks nor goes: {error}"),
        }
    }

    /// Ignores errors if the miner has left: the next read reports that.
    pub(crate) fn send_bytes(&mut self, bytes: &[u8]) {
        let _ = self.reader.get_mut().write_all(bytes);
    }

    pub(crate) fn send(&mut self, message: &Value) {
        self.send_bytes(format!("{message}\n").as_bytes());
    }

    pub(crate) fn answer(&mut self, request: &Value, result: Value) {
        self.send(&json!({"id": request["id"], "result": result, "error": null}));
    }

    pub(crate) fn refuse(&mut self, request: &Value, error: &Value) {
        self.send(&json!({"id": request["id"], "result": null, "error": error}));
    }

    /// Answers the handshake up to the user's authorization.
    pub(crate) fn handshake(&mut self, job: &Template) {
        assert!(self.try_handshake(job, "x"), "the miner stays");
    }

    /// The same for any password; returns whether the miner stayed.
    pub(crate) fn try_handshake(&mut self, job: &Template, password: &str) -> bool {
        let Some(request) = self.begin_handshake(job) else { return false };
        assert_eq!(request["params"], json!(["pAddress.rig", password]));
        self.answer(&request, json!(true));
        true
    }

    /// Answers what comes before the request to authorise the user, and returns that one; `None` if the miner has left.
    pub(crate) fn begin_handshake(&mut self, job: &Template) -> Option<Value> {
        loop {
            let request = self.read()?;
            let result = match request["method"].as_str().unwrap() {
                "mining.configure" if job.mask == 0 => json!({"version-rolling": false}),
                "mining.configure" => {
                    json!({"version-rolling": true, "version-rolling.mask": format!("{:08x}", job.mask)})
                }
                "mining.subscribe" => {
                    json!([[["mining.notify", "1"]], job.extranonce1, job.extranonce2_size])
                }
                "mining.authorize" => return Some(request),
                other => panic!("unexpected {other}"),
            };
            self.answer(&request, result);
        }
    }

    pub(crate) fn set_difficulty(&mut self, difficulty: f64) {
        self.send(&json!({"id": null, "method": "mining.set_difficulty", "params": [difficulty]}));
    }

    /// The next request of this method, or `None` if the miner has left.
    fn read_until(&mut self, method: &str) -> Option<Value> {
        loop {
            let request = self.read()?;
            if request["method"] == method {
                return Some(request);
            }
        }
    }

    /// The next request of this method.
    pub(crate) fn read_request(&mut self, method: &str) -> Value {
        self.read_until(method).expect("the miner stays")
    }

    /// The next share.
    pub(crate) fn read_submit(&mut self) -> Value {
        self.read_request("mining.submit")
    }

    /// The next share, or `None` if the miner has left.
    pub(crate) fn read_submit_if_any(&mut self) -> Option<Value> {
        self.read_until("mining.submit")
    }

    /// Accepts and returns the next share.
    pub(crate) fn accept_share(&mut self) -> Value {
        let submit = self.read_submit();
        self.answer(&submit, json!(true));
        submit
    }

    /// Serves a miner until a share of the job has arrived, and checks it.
    pub(crate) fn serve_until_share(&mut self, job: &Template) {
        self.handshake(job);
        self.set_difficulty(EASY);
        self.send(&job.notify(true));
        job.check(&self.accept_share());
    }

    /// Accepts shares on a separate thread until the miner leaves; returns all of them.
    pub(crate) fn serve_aside(mut self) -> JoinHandle<Vec<Value>> {
        thread::spawn(move || {
            let mut submits = Vec::new();
            while let Some(submit) = self.read_submit_if_any() {
                self.answer(&submit, json!(true));
                submits.push(submit);
            }
            submits
        })
    }

    /// Waits until the miner has closed the connection.
    pub(crate) fn wait_until_closed(&mut self) {
        while self.read().is_some() {}
    }
}
