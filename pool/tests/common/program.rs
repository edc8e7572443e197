//! The pool program and its clients, over TCP or any other stream.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use iop_consensus::params::Params;
use iop_consensus::params::networks::devnet_keys;
use iop_stratum::client::{Event, Job, Options, Session, Share, Verdict};
use iop_stratum::fields::{Extranonce2, Nonce, VersionBits, VersionMask};
use iop_stratum::line::{LineDecoder, MAX_CLIENT_LINE};
use iop_stratum::work::sha256d;

use serde_json::Value;

pub(crate) use self::port::free_port;
use super::{PATIENCE, wait_until};

#[allow(unreachable_pub, reason = "iop-tests makes it public")]
#[path = "../../../tests/src/port.rs"]
mod port;

/// `run` on devnet with its three licenses, whose keys are in files in `folder`.
pub(crate) fn command(folder: &Path, node: &str, extra: &[&str]) -> Command {
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

/// Waits for a program to exit; one that does not is killed.
pub(crate) fn wait_for_exit(child: &mut Child) -> ExitStatus {
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if begun.elapsed() > PATIENCE {
            let _ = child.kill();
            let _ = child.wait();
            panic!("the program does not end");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Runs a program to its end and returns its output.
pub(crate) fn output(command: &mut Command) -> Output {
    fn read(mut from: impl Read + Send + 'static) -> std::thread::JoinHandle<Vec<u8>> {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            let _ = from.read_to_end(&mut bytes);
            bytes
        })
    }
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (stdout, stderr) = (read(child.stdout.take().unwrap()), read(child.stderr.take().unwrap()));
    let status = wait_for_exit(&mut child);
    Output { status, stdout: stdout.join().unwrap(), stderr: stderr.join().unwrap() }
}

pub(crate) struct Program {
    child: Child,
    log: Arc<Mutex<String>>,
    pub(crate) stratum: SocketAddr,
    pub(crate) api: SocketAddr,
}

impl Program {
    /// Starts the pool on devnet with extra lines of configuration, and waits until it serves.
    pub(crate) fn start(folder: &Path, node: SocketAddr, config: &str) -> Self {
        let [_, (_, key), ..] = devnet_keys();
        let wif = folder.join("license.wif");
        fs::write(&wif, key.to_wif(&Params::devnet().prefixes).as_bytes()).unwrap();
        fs::set_permissions(&wif, fs::Permissions::from_mode(0o600)).unwrap();
        let (stratum, api) = (format!("127.0.0.1:{}", free_port()), format!("127.0.0.1:{}", free_port()));
        let path = folder.join("pool.toml");
        let text = format!(
            "network = \"devnet\"\nlicense_key_files = [\"license.wif\"]\ndatadir = \"data\"\n\
             stratum_bind = \"{stratum}\"\napi_bind = \"{api}\"\n{config}\n\
             [[node]]\nurl = \"http://u:p@{node}\"\n"
        );
        fs::write(&path, text).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_iop-pool"));
        command.arg("run").arg("--config").arg(path).env_remove("IOP_POOL_LICENSE_KEYS");
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        Self::serve(command, &stratum, &api)
    }

    /// Starts a command that lacks only the addresses to listen on, and waits until it serves.
    pub(crate) fn spawn(mut command: Command) -> Self {
        let (stratum, api) = (format!("127.0.0.1:{}", free_port()), format!("127.0.0.1:{}", free_port()));
        command.args(["--stratum-bind", &stratum, "--api-bind", &api]);
        Self::serve(command, &stratum, &api)
    }

    fn serve(mut command: Command, stratum: &str, api: &str) -> Self {
        let mut child = command.spawn().unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let (lines, kept) = (BufReader::new(child.stderr.take().unwrap()).lines(), Arc::clone(&log));
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                *kept.lock().unwrap() += &(line + "\n");
            }
        });
        let program = Self { child, log, stratum: stratum.parse().unwrap(), api: api.parse().unwrap() };
        wait_until("the API answers", || TcpStream::connect(program.api).is_ok());
        program
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(self.api).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
        answer.split_once("\r\n\r\n").unwrap().1.to_owned()
    }

    pub(crate) fn api(&self, name: &str) -> Value {
        serde_json::from_str(&self.get(&format!("/api/v1/{name}"))).unwrap()
    }

    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    pub(crate) fn signal(&self, name: &str) {
        assert!(Command::new("kill").args([name, &self.child.id().to_string()]).status().unwrap().success());
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits for it to exit.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        wait_for_exit(&mut self.child)
    }

    /// Asks it to end; returns its exit code.
    pub(crate) fn end(mut self) -> Option<i32> {
        self.signal("-TERM");
        self.ended().code()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("{}", self.log());
        }
    }
}

/// A miner that hashes on one thread.
pub(crate) struct Miner<S> {
    pub(crate) stream: S,
    session: Session,
    decoder: LineDecoder,
    pub(crate) job: Option<Job>,
    counter: u64,
    /// The pool has closed the connection.
    pub(crate) is_closed: bool,
    /// The pool has told it to reconnect.
    pub(crate) is_told_to_reconnect: bool,
}

/// Connects from one of this machine's addresses.
pub(crate) fn connect(pool: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(pool).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    stream
}

/// The user name of [`Miner`].
pub(crate) fn user() -> String {
    let [_, (_, key), ..] = devnet_keys();
    format!("{}.test", key.address().to_base58(&Params::devnet().prefixes))
}

impl<S: Read + Write> Miner<S> {
    /// On a stream with a short read time-out; waits for work.
    pub(crate) fn new(stream: S) -> Self {
        let mut miner = Self::joined(stream);
        miner.wait_for_work();
        miner
    }

    /// On a stream with a short read time-out, authorized; there may be no work yet.
    pub(crate) fn joined(stream: S) -> Self {
        let options = Options {
            user: user(),
            password: "x".into(),
            user_agent: "test".into(),
            version_mask: VersionMask::SERVER,
            suggest_difficulty: None,
        };
        let mut miner = Self {
            stream,
            session: Session::new(options),
            decoder: LineDecoder::new(MAX_CLIENT_LINE),
            job: None,
            counter: 0,
            is_closed: false,
            is_told_to_reconnect: false,
        };
        wait_until("the miner is authorised", || {
            miner.exchange();
            miner.session.is_authorized()
        });
        miner
    }

    pub(crate) fn wait_for_work(&mut self) {
        wait_until("there is work", || {
            self.exchange();
            self.job.is_some()
        });
    }

    pub(crate) fn next_verdict(&mut self) -> Verdict {
        let mut verdicts = Vec::new();
        wait_until("the share is answered", || {
            verdicts.extend(self.exchange());
            !verdicts.is_empty()
        });
        verdicts.remove(0)
    }

    /// Sends what is queued and reads what is available; returns the verdicts.
    pub(crate) fn exchange(&mut self) -> Vec<Verdict> {
        while let Some(line) = self.session.next_outgoing() {
            // TLS may have to read its handshake first; bytes written until then are buffered.
            wait_until("the pool has shaken hands", || match self.stream.flush() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
                flushed => flushed.is_ok(),
            });
            self.stream.write_all(&line).unwrap();
        }
        self.stream.flush().unwrap();
        let mut buffer = [0; 4096];
        match self.stream.read(&mut buffer) {
            Ok(0) => self.is_closed = true,
            Ok(count) => self.decoder.extend(&buffer[..count]),
            Err(_) => {} // nothing within the time-out
        }
        let mut verdicts = Vec::new();
        while let Some(line) = self.decoder.next_line().unwrap() {
            self.is_told_to_reconnect |= line.windows(16).any(|part| part == b"client.reconnect");
            match self.session.handle_line(line).unwrap() {
                Some(Event::Job(job)) => self.job = Some(job),
                Some(Event::SubmitResult { verdict, .. }) => verdicts.push(verdict),
                _ => {}
            }
        }
        verdicts
    }

    /// Submits one share.
    pub(crate) fn solve(&mut self) {
        let job = self.job.clone().unwrap();
        let (work, target) = (job.work(), job.target());
        self.counter += 1;
        let extranonce2 = Extranonce2::from_counter(self.counter, job.extranonce2_size).unwrap();
        let notify = &job.notify;
        let header =
            |nonce| work.header(&job.extranonce1, &extranonce2, notify.version, notify.ntime, Nonce(nonce));
        let nonce = (0..).find(|&nonce| target.is_met_by(&sha256d(&header(nonce)))).unwrap();
        self.session.submit(&Share {
            job_id: notify.job_id.clone(),
            extranonce2,
            ntime: notify.ntime,
            nonce: Nonce(nonce),
            version_bits: VersionBits(0),
        });
    }

    /// Submits shares until `shares` are accepted; those overtaken by a new tip are not.
    pub(crate) fn mine(&mut self, shares: usize) {
        let (begun, mut accepted) = (Instant::now(), 0);
        while accepted < shares {
            assert!(begun.elapsed() < PATIENCE, "{accepted} of {shares} shares are accepted");
            self.solve();
            let mut verdicts = Vec::new();
            wait_until("the share is answered", || {
                verdicts.extend(self.exchange());
                !verdicts.is_empty()
            });
            accepted += verdicts.iter().filter(|verdict| matches!(verdict, Verdict::Accepted)).count();
            // A share of this chain is a block: let the next job come.
            std::thread::sleep(Duration::from_millis(10));
            self.exchange();
        }
    }
}
