//! How soon a miner hashes, and its memory: a real node and pool, the real miner with the CPU, and between the two a
//! relay that records when each line passes. Each run has a new cache folder, so that its first start measures kernels
//! as on a new machine; later starts use the cached result. Then memory while it mines. Run:
//! `cargo build --release --bins && cargo bench -p iop-benches --bench miner_start`

#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use iop_tests::program::{programs, wait_for};
use iop_tests::stand::{Network, Node, Pool, devnet_keys, new_address};
use serde_json::Value;

/// How long it mines before its memory is read.
const MINES: Duration = Duration::from_secs(10);
/// One share in some ten thousand hashes: found at once, and not so many that they cost.
const DIFFICULTY: &str = "0.00001";
const PATIENCE: Duration = Duration::from_secs(30);

/// Times of the lines.
#[derive(Clone, Copy, Debug, Default)]
struct Times {
    connected: Option<Instant>,
    notify: Option<Instant>,
    submit: Option<Instant>,
    accepted: Option<Instant>,
    /// The id of the first share.
    id: Option<u64>,
}

/// Forwards lines, and passes each to `note`.
fn pass(from: TcpStream, mut to: TcpStream, note: impl Fn(&Value) + Send + 'static) {
    thread::spawn(move || {
        for line in BufReader::new(from).lines() {
            let Ok(line) = line else { break };
            // Before it is forwarded, or the answer to it could be recorded first.
            note(&serde_json::from_str(&line).unwrap_or_default());
            if to.write_all(format!("{line}\n").as_bytes()).is_err() {
                break;
            }
        }
        let _ = to.shutdown(std::net::Shutdown::Both);
    });
}

/// A relay to the pool, for one connection. Returns its address.
fn relay(pool: &str, times: &Arc<Mutex<Times>>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (pool, times) = (pool.to_owned(), Arc::clone(times));
    thread::spawn(move || {
        let (miner, _) = listener.accept().unwrap();
        times.lock().unwrap().connected = Some(Instant::now());
        let pool = TcpStream::connect(pool).unwrap();
        for stream in [&miner, &pool] {
            stream.set_nodelay(true).unwrap();
        }
        let up = Arc::clone(&times);
        pass(miner.try_clone().unwrap(), pool.try_clone().unwrap(), move |message| {
            let mut times = up.lock().unwrap();
            if message["method"] == "mining.submit" && times.submit.is_none() {
                (times.submit, times.id) = (Some(Instant::now()), message["id"].as_u64());
            }
        });
        pass(pool, miner, move |message| {
            let mut times = times.lock().unwrap();
            if message["method"] == "mining.notify" {
                times.notify.get_or_insert_with(Instant::now);
            }
            if times.id.is_some() && message["id"].as_u64() == times.id && message["result"] == true {
                times.accepted.get_or_insert_with(Instant::now);
            }
        });
    });
    address
}

/// A miner that is killed when dropped.
struct Miner(Child);

impl Miner {
    fn start(pool: &str, user: &str, cache: &Path) -> Self {
        let child = Command::new(programs().join("iop-miner"))
            .args(["mine", "--url", &format!("stratum+tcp://{pool}"), "--user", user])
            .args(["--suggest-difficulty", DIFFICULTY])
            .env("XDG_CACHE_HOME", cache)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        Self(child.unwrap())
    }

    /// Current and peak resident memory, and number of threads.
    fn memory(&self) -> String {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let of = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.trim().trim_end_matches(" kB").parse::<f64>().unwrap()
        };
        let (now, most, threads) = (of("VmRSS:"), of("VmHWM:"), of("Threads:"));
        format!("{:.1} MiB resident, {:.1} MiB at most, {threads} threads", now / 1024.0, most / 1024.0)
    }
}

impl Drop for Miner {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn main() {
    let dir = tempfile::tempdir().unwrap();
    let network = Network::Named("devnet");
    let node = Node::start(dir.path(), &network).unwrap();
    let [_, keys @ ..] = devnet_keys(dir.path());
    let pool = Pool::start(dir.path(), &network, node.port, &keys).unwrap();
    let working = || (pool.api("status")["state"] == "mining").then_some(());
    wait_for(PATIENCE, working).expect("the pool gives work");
    let user = format!("{}.bench", new_address(dir.path(), &network));
    let mines = if std::env::args().any(|arg| arg == "--bench") { MINES } else { Duration::from_millis(200) };
    for what in ["first start", "second start", "third start"] {
        let times = Arc::new(Mutex::new(Times::default()));
        let address = relay(&pool.stratum, &times);
        let began = Instant::now();
        let miner = Miner::start(&address, &user, &dir.path().join("cache"));
        let now = || *times.lock().unwrap();
        wait_for(PATIENCE, || now().accepted).expect("a share is accepted");
        let Times { connected, notify, submit, accepted, .. } = now();
        let (notify, ms) = (notify.unwrap(), |time: Duration| time.as_secs_f64() * 1e3);
        println!(
            "{what}: connected after {:.0} ms; from the first job to the first share {:.1} ms, to its acceptance {:.1} ms",
            ms(connected.unwrap() - began),
            ms(submit.unwrap() - notify),
            ms(accepted.unwrap() - notify),
        );
        thread::sleep(mines);
        println!("{what}: after {} s: {}", mines.as_secs(), miner.memory());
    }
}
