//! The program against a node that fails, real TCP throughout: nothing is lost, and each trouble is one clear line.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::Chain;
use iop_consensus::params::Params;
use iop_consensus::params::networks::devnet_keys;
use iop_stratum::client::{Event, Job, Options, Session, Share, Verdict};
use iop_stratum::fields::{Extranonce2, Nonce, VersionBits, VersionMask};
use iop_stratum::line::LineDecoder;
use iop_stratum::work::sha256d;
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(20);

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < PATIENCE, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

struct Pool {
    child: Child,
    log: Arc<Mutex<String>>,
    stratum: SocketAddr,
    api: SocketAddr,
}

fn command(folder: &Path, node: &str, extra: &[&str]) -> Command {
    let mut keys = Vec::new();
    for (name, key) in devnet_keys().into_iter().skip(1) {
        let path = folder.join(format!("{name}.wif"));
        fs::write(&path, key.to_wif(&Params::devnet().prefixes).as_bytes()).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        keys.push(path);
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_iop-pool"));
    command.args(["run", "--network", "devnet", "--node", node, "--datadir"]).arg(folder.join("data"));
    command.arg("--license-key-file").args(keys).args(extra);
    command.env_remove("IOP_POOL_LICENSE_KEYS").stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

impl Pool {
    fn start(folder: &Path, node: &str, extra: &[&str]) -> Self {
        let (stratum, api) = (format!("127.0.0.1:{}", free_port()), format!("127.0.0.1:{}", free_port()));
        let mut command = command(folder, node, extra);
        let mut child = command.args(["--stratum-bind", &stratum, "--api-bind", &api]).spawn().unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let (lines, kept) = (BufReader::new(child.stderr.take().unwrap()).lines(), Arc::clone(&log));
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                *kept.lock().unwrap() += &(line + "\n");
            }
        });
        let pool = Self { child, log, stratum: stratum.parse().unwrap(), api: api.parse().unwrap() };
        wait_until("the API answers", || TcpStream::connect(pool.api).is_ok());
        pool
    }

    fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(self.api).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
        answer.split_once("\r\n\r\n").unwrap().1.to_owned()
    }

    fn api(&self, name: &str) -> Value {
        serde_json::from_str(&self.get(&format!("/api/v1/{name}"))).unwrap()
    }

    fn signal(&self, name: &str) {
        assert!(Command::new("kill").args([name, &self.child.id().to_string()]).status().unwrap().success());
    }

    fn end(mut self) -> Option<i32> {
        self.signal("-TERM");
        self.child.wait().unwrap().code()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("{}", self.log());
        }
    }
}

/// A miner over real TCP, one hash at a time.
struct Miner {
    stream: TcpStream,
    session: Session,
    decoder: LineDecoder,
    job: Option<Job>,
    counter: u64,
}

impl Miner {
    fn connect(pool: &Pool) -> Self {
        let [_, (_, key), ..] = devnet_keys();
        let options = Options {
            user: format!("{}.test", key.address().to_base58(&Params::devnet().prefixes)),
            password: "x".into(),
            user_agent: "test".into(),
            version_mask: VersionMask::SERVER,
            suggest_difficulty: None,
        };
        let stream = TcpStream::connect(pool.stratum).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let decoder = LineDecoder::new(iop_stratum::line::MAX_CLIENT_LINE);
        let mut miner = Self { stream, session: Session::new(options), decoder, job: None, counter: 0 };
        wait_until("the miner is authorised", || {
            miner.exchange();
            miner.session.is_authorized()
        });
        miner
    }

    /// Sends what is queued, reads what is there; gives the verdicts.
    fn exchange(&mut self) -> Vec<Verdict> {
        while let Some(line) = self.session.next_outgoing() {
            self.stream.write_all(&line).unwrap();
        }
        let mut buffer = [0; 4096];
        match self.stream.read(&mut buffer) {
            Ok(0) => panic!("the pool closed the connection"),
            Ok(count) => self.decoder.extend(&buffer[..count]),
            Err(_) => {} // nothing within the time-out
        }
        let mut verdicts = Vec::new();
        while let Some(line) = self.decoder.next_line().unwrap() {
            match self.session.handle_line(line).unwrap() {
                Some(Event::Job(job)) => self.job = Some(job),
                Some(Event::SubmitResult { verdict, .. }) => verdicts.push(verdict),
                _ => {}
            }
        }
        verdicts
    }

    /// Submits one share, which at this chain's difficulty is a block.
    fn solve(&mut self) {
        let job = self.job.clone().expect("there is work");
        let (work, target) = (job.work(), job.target());
        self.counter += 1;
        let extranonce2 = Extranonce2::from_counter(self.counter, job.extranonce2_size).unwrap();
        let notify = &job.notify;
        let header =
            |nonce| work.header(&job.extranonce1, &extranonce2, notify.version, notify.ntime, Nonce(nonce));
        let nonce = (0..).find(|&nonce| target.is_met_by(&sha256d(&header(nonce)))).unwrap();
        let (job_id, ntime) = (notify.job_id.clone(), notify.ntime);
        self.session.submit(&Share {
            job_id,
            extranonce2,
            ntime,
            nonce: Nonce(nonce),
            version_bits: VersionBits(0),
        });
    }

    /// Mines until the chain has so many blocks.
    fn mine(&mut self, chain: &Chain, height: usize) {
        wait_until("the chain grows", || {
            let before = chain.height();
            if before < height && self.job.is_some() {
                self.solve();
                let begun = Instant::now();
                while chain.height() == before && begun.elapsed() < Duration::from_secs(2) {
                    self.exchange();
                }
            }
            let job = self.job.as_ref().map(|job| job.notify.job_id.clone());
            self.exchange();
            let begun = Instant::now();
            while self.job.as_ref().map(|job| job.notify.job_id.clone()) == job
                && begun.elapsed() < Duration::from_millis(300)
            {
                self.exchange();
            }
            chain.height() >= height
        });
    }
}

#[test]
fn blocks_are_licensed_counted_and_shown() {
    let (folder, chain) = (tempfile::tempdir().unwrap(), Chain::new("devnet"));
    let node = chain.serve(0);
    chain.set_cap(2);
    let pool = Pool::start(folder.path(), &format!("http://u:p@{}", node.address), &[]);
    let mut miner = Miner::connect(&pool);
    miner.mine(&chain, 6);
    let licenses: Vec<String> =
        pool.api("blocks").as_array().unwrap().iter().map(|b| b["license"].to_string()).collect();
    assert!(licenses.len() >= 6, "{licenses:?}");
    // Three licenses with two blocks each: none is left.
    wait_until("the pool says that no license is left", || pool.api("status")["state"] == "no_license");
    let status = pool.api("status");
    assert!(status["reason"].as_str().unwrap().contains("no license may mine block 7"), "{status}");
    assert_eq!(status["resumes_from_height"], 2016);
    assert!(pool.log().contains("no work is given out: no license may mine block 7"));
    let late = Miner::connect(&pool);
    assert!(late.job.is_none(), "no work to burn");
    chain.set_cap(3);
    wait_until("work resumes", || pool.api("status")["state"] == "mining");
    wait_until("the late miner gets work", || {
        miner.exchange();
        miner.job.is_some()
    });
    let workers = pool.api("workers");
    assert_eq!((&workers["total"], &workers["workers"][0]["connections"]), (&1.into(), &2.into()));
    assert!(workers["workers"][0]["accepted"].as_u64().unwrap() >= 6);
    assert_eq!(pool.api("licenses").as_array().unwrap().len(), 3);
    assert_eq!(pool.get("/healthz"), "ok\n");
    let page = pool.get("/");
    assert!(page.contains("<h2>Licenses</h2>") && page.contains(".test"), "{page}");
    assert_eq!(pool.end(), Some(0));
}

#[test]
fn the_node_may_be_missing_at_first_and_die_later() {
    let (folder, chain, port) = (tempfile::tempdir().unwrap(), Chain::new("devnet"), free_port());
    let cookie = folder.path().join(".cookie");
    let url = format!("http://127.0.0.1:{port}");
    let pool = Pool::start(folder.path(), &url, &["--node-cookie", cookie.to_str().unwrap()]);
    wait_until("it says so", || pool.log().contains("node gives no work, waiting for it"));
    assert_eq!(pool.api("status")["state"], "no_node");
    fs::write(&cookie, "u:p").unwrap();
    let node = chain.serve(port);
    let mut miner = Miner::connect(&pool);
    miner.mine(&chain, 2);

    drop(node);
    wait_until("it notices", || pool.api("status")["nodes"][0]["in_use"] == false);
    wait_until("the miner has the job of the last tip", || {
        miner.exchange();
        miner.job.as_ref().is_some_and(|job| job.notify.clean)
    });
    miner.solve();
    wait_until("the share is answered while the node is away", || !miner.exchange().is_empty());
    std::thread::sleep(Duration::from_millis(1500));
    *chain.password.lock().unwrap() = "u:new".into();
    fs::write(&cookie, "u:new").unwrap();
    let _node = chain.serve(port);
    wait_until("the block found meanwhile is in the chain", || chain.height() == 3);
    miner.mine(&chain, 4);
    let said = pool.log().matches("node gives no work").count();
    assert_eq!(said, 2, "once per time that the node was away:\n{}", pool.log());
    assert!(pool.log().contains("node is back"));
    assert_eq!(pool.end(), Some(0));
}

#[test]
fn a_block_survives_the_pool() {
    let (folder, chain) = (tempfile::tempdir().unwrap(), Chain::new("devnet"));
    let node = chain.serve(0);
    let (port, url) = (node.address.port(), format!("http://u:p@{}", node.address));
    let mut pool = Pool::start(folder.path(), &url, &[]);
    let mut miner = Miner::connect(&pool);
    wait_until("there is work", || {
        miner.exchange();
        miner.job.is_some()
    });
    drop(node);
    miner.solve();
    miner.exchange();
    let files = || fs::read_dir(folder.path().join("data/found")).unwrap().flatten().collect::<Vec<_>>();
    wait_until("the block is on disk", || {
        files().iter().any(|file| file.path().extension().is_some_and(|e| e == "json"))
    });
    pool.signal("-KILL");
    pool.child.wait().unwrap();
    let _node = chain.serve(port);
    let again = Pool::start(folder.path(), &url, &[]);
    wait_until("the block is in the chain", || chain.height() == 1);
    wait_until("it is forgotten", || files().is_empty());
    assert_eq!(again.end(), Some(0));
}

#[test]
fn hostile_connections_disturb_nobody() {
    let (folder, chain) = (tempfile::tempdir().unwrap(), Chain::new("devnet"));
    let node = chain.serve(0);
    let pool = Pool::start(folder.path(), &format!("http://u:p@{}", node.address), &[]);
    let mut miner = Miner::connect(&pool);
    let hostile: Vec<TcpStream> = (0..50)
        .map(|number| {
            let mut stream = TcpStream::connect(pool.stratum).unwrap();
            let bytes = match number % 4 {
                0 => vec![b'x'; 100_000],
                1 => b"GET / HTTP/1.1\r\n\r\n".to_vec(),
                2 => b"{\"id\":1,\"method\":\"mining.ping\"}\n".repeat(1000), // and never reads
                _ => vec![b'\n'; 50_000],
            };
            stream.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
            let _ = stream.write_all(&bytes);
            stream
        })
        .collect();
    miner.mine(&chain, 2);
    for (number, mut stream) in hostile.into_iter().enumerate().filter(|(number, _)| number % 4 < 2) {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        // Closed, or reset where it had not been read to the end; but not still open.
        let ended = stream.read_to_end(&mut Vec::new());
        let open = ended.is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
        assert!(!open, "{number} is closed");
    }
    assert_eq!(pool.end(), Some(0));
}

fn fails(mut command: Command, status: i32, line: &str) {
    let output = command.output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(status), "{stderr}");
    let errors: Vec<&str> = stderr.lines().filter(|found| found.starts_with("error: ")).collect();
    assert!(errors.len() == 1 && errors[0].contains(line), "'{line}' expected in:\n{stderr}");
}

#[test]
fn what_cannot_work_ends_with_one_line() {
    let (folder, chain) = (tempfile::tempdir().unwrap(), Chain::new("regtest"));
    let node = chain.serve(0);
    let url = format!("http://u:p@{}", node.address);
    let ports = ["--stratum-bind", "127.0.0.1:0", "--api-bind", "127.0.0.1:0"];
    fails(command(folder.path(), &url, &ports), 1, "is on chain 'regtest', 'devnet' expected");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let holder = TcpListener::bind(taken).unwrap();
    let in_use = ["--stratum-bind", &taken.to_string(), "--api-bind", "127.0.0.1:0"].map(String::from);
    let in_use: Vec<&str> = in_use.iter().map(String::as_str).collect();
    fails(command(folder.path(), &url, &in_use), 1, &format!("Stratum cannot listen on {taken}"));
    drop(holder);
    let lock = fs::File::create(folder.path().join("data/lock")).unwrap();
    lock.lock().unwrap();
    fails(command(folder.path(), &url, &ports), 1, "is in use by another iop-pool");
    fails(command(folder.path(), &url, &["--colour"]), 2, "unexpected argument '--colour'");
    fails(command(folder.path(), &url, &["--start-difficulty", "x"]), 2, "invalid value 'x'");
    fails(command(folder.path(), &url, &["--log", "a=b=c"]), 2, "log is 'a=b=c'");
    fails(command(folder.path(), &url, &["--log", "verbose"]), 2, "log is 'verbose'");
    fails(command(folder.path(), "ftp://h", &[]), 2, "must begin with http://");
    fails(Command::new(env!("CARGO_BIN_EXE_iop-pool")), 2, "");
    fs::set_permissions(folder.path().join("license-1.wif"), fs::Permissions::from_mode(0o644)).unwrap();
}

#[test]
fn check_prints_what_would_be_mined() {
    let (folder, chain) = (tempfile::tempdir().unwrap(), Chain::new("devnet"));
    let node = chain.serve(0);
    let run = command(folder.path(), &format!("http://u:p@{}", node.address), &[]);
    let mut check = Command::new(run.get_program());
    check.arg("check").args(run.get_args().skip(1));
    let output = check.output().unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && stdout.contains("would mine block 1 with license"), "{stdout}");
    assert_eq!(stdout.matches("whitelisted, 0 blocks in the window").count(), 3);
    drop(node);
    let output = check.output().unwrap();
    assert_eq!(output.status.code(), Some(1));
}
