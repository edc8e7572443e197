//! A node, a pool and a miner, each in a folder and on ports of its own.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use iop_consensus::params::Params;
use serde_json::{Value, json};

use crate::program::{Program, free_port, run, wait_for};
use crate::rpc::Rpc;

/// Time for a program to answer after its start.
pub const START: Duration = Duration::from_secs(20);

/// The chain that the programs use.
#[derive(Debug, Clone)]
pub enum Network {
    /// A built-in one.
    Named(&'static str),
    /// A network file.
    File(PathBuf),
}

impl Network {
    /// Writes a network file into `dir`.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn file(dir: &Path, text: &str) -> Self {
        let path = dir.join("network.toml");
        std::fs::write(&path, text).expect("the test's folder can be written to");
        Self::File(path)
    }

    /// The flags for it.
    pub fn flags(&self) -> Vec<String> {
        match self {
            Self::Named(name) => vec!["--network".to_owned(), (*name).to_owned()],
            Self::File(path) => vec!["--network-file".to_owned(), path.display().to_string()],
        }
    }

    /// Its parameters, as the programs read them.
    ///
    /// # Panics
    /// When the network is not known or its file cannot be read.
    pub fn params(&self) -> Params {
        match self {
            Self::Named(name) => Params::by_name(name).expect("tests name built-in networks"),
            Self::File(path) => {
                let text = std::fs::read_to_string(path).expect("the network file was written");
                Params::from_network_file(&text).expect("tests write valid network files")
            }
        }
    }
}

/// A running node.
#[derive(Debug)]
pub struct Node {
    /// The process.
    pub program: Program,
    /// Its RPC.
    pub rpc: Rpc,
    /// Its RPC port.
    pub port: u16,
    /// Its data directory.
    pub datadir: PathBuf,
}

impl Node {
    /// Starts a node with its data in `dir/node`, on a free port.
    ///
    /// # Errors
    /// When it cannot be started or does not answer; its log is in the message.
    pub fn start(dir: &Path, network: &Network) -> io::Result<Self> {
        Self::start_on(dir, network, free_port())
    }

    /// Starts a node on a given port, as after a crash.
    ///
    /// # Errors
    /// When it cannot be started or does not answer; its log is in the message.
    pub fn start_on(dir: &Path, network: &Network, port: u16) -> io::Result<Self> {
        Self::start_with(dir, network, port, &[])
    }

    /// Starts a node on a given port, with more flags.
    ///
    /// # Errors
    /// When it cannot be started or does not answer; its log is in the message.
    pub fn start_with(dir: &Path, network: &Network, port: u16, more: &[String]) -> io::Result<Self> {
        let datadir = dir.join("node");
        let bind = format!("127.0.0.1:{port}");
        let mut args = vec!["run".to_owned(), "--rpc-bind".to_owned(), bind, "--datadir".to_owned()];
        args.push(datadir.display().to_string());
        args.extend(network.flags());
        args.extend_from_slice(more);
        let mut program = Program::start("iop-node", dir, args)?;
        let rpc = Rpc::new(port, datadir.join(".cookie"));
        let answered = wait_for(START, || match rpc.try_call("uptime", json!([])) {
            Ok(_) => Some(true),
            Err(_) if !program.is_running() => Some(false),
            Err(_) => None,
        });
        if answered == Some(true) {
            Ok(Self { program, rpc, port, datadir })
        } else {
            Err(io::Error::other(format!("iop-node does not answer:\n{}", program.log())))
        }
    }

    /// Kills it (SIGKILL) and starts it again with the same folder and port.
    ///
    /// # Errors
    /// When it does not come back.
    pub fn kill_and_restart(self, dir: &Path, network: &Network) -> io::Result<Self> {
        let port = self.port;
        self.program.kill();
        Self::start_on(dir, network, port)
    }
}

/// A running pool.
#[derive(Debug)]
pub struct Pool {
    /// The process.
    pub program: Program,
    /// Stratum address.
    pub stratum: String,
    /// API address.
    pub api: String,
}

impl Pool {
    /// Starts a pool at the node on `node_port` with these license keys, on free ports. The node need not run.
    ///
    /// # Errors
    /// When it cannot be started or its API does not answer; its log is in the message.
    pub fn start(dir: &Path, network: &Network, node_port: u16, keys: &[PathBuf]) -> io::Result<Self> {
        Self::start_on(dir, network, node_port, keys, &format!("127.0.0.1:{}", free_port()))
    }

    /// Starts a pool at the Stratum address that miners already use.
    ///
    /// # Errors
    /// When it cannot be started or its API does not answer; its log is in the message.
    pub fn start_on(
        dir: &Path,
        network: &Network,
        node_port: u16,
        keys: &[PathBuf],
        stratum: &str,
    ) -> io::Result<Self> {
        Self::start_with(dir, network, node_port, keys, stratum, &[])
    }

    /// Starts a pool with more flags.
    ///
    /// # Errors
    /// When it cannot be started or its API does not answer; its log is in the message.
    pub fn start_with(
        dir: &Path,
        network: &Network,
        node_port: u16,
        keys: &[PathBuf],
        stratum: &str,
        more: &[String],
    ) -> io::Result<Self> {
        let node = (node_port, dir.join("node/.cookie"));
        Self::start_at(dir, network, &[node], keys, stratum, more)
    }

    /// Starts a pool at several nodes, each with its RPC port and its cookie file, and with more flags. The nodes need
    /// not run.
    ///
    /// # Errors
    /// When it cannot be started or its API does not answer; its log is in the message.
    pub fn start_at(
        dir: &Path,
        network: &Network,
        nodes: &[(u16, PathBuf)],
        keys: &[PathBuf],
        stratum: &str,
        more: &[String],
    ) -> io::Result<Self> {
        let (stratum, api) = (stratum.to_owned(), format!("127.0.0.1:{}", free_port()));
        let mut args: Vec<String> = vec!["run".into()];
        for (port, cookie) in nodes {
            args.extend(["--node".into(), format!("http://127.0.0.1:{port}")]);
            args.extend(["--node-cookie".into(), cookie.display().to_string()]);
        }
        args.extend(["--stratum-bind".into(), stratum.clone(), "--api-bind".into(), api.clone()]);
        args.extend(["--datadir".into(), dir.join("pool").display().to_string()]);
        for key in keys {
            args.extend(["--license-key-file".into(), key.display().to_string()]);
        }
        args.extend(network.flags());
        args.extend_from_slice(more);
        let mut program = Program::start("iop-pool", dir, args)?;
        let url = format!("http://{api}/healthz");
        let answered = wait_for(START, || match minreq::get(&url).with_timeout(2).send() {
            Ok(_) => Some(true),
            Err(_) if !program.is_running() => Some(false),
            Err(_) => None,
        });
        if answered == Some(true) {
            Ok(Self { program, stratum, api })
        } else {
            Err(io::Error::other(format!("iop-pool does not answer:\n{}", program.log())))
        }
    }

    /// Starts a pool with additional lines of configuration, on free ports.
    ///
    /// # Errors
    /// When it cannot be started or its API does not answer; its log is in the message.
    ///
    /// # Panics
    /// When the configuration cannot be written.
    pub fn start_configured(
        dir: &Path,
        network: &Network,
        node_port: u16,
        keys: &[PathBuf],
        config: &str,
    ) -> io::Result<Self> {
        let path = dir.join("pool.toml");
        std::fs::write(&path, config).expect("the test's folder can be written to");
        let more = ["--config".to_owned(), path.display().to_string()];
        Self::start_with(dir, network, node_port, keys, &format!("127.0.0.1:{}", free_port()), &more)
    }

    /// The answer of an API endpoint, such as `status`.
    ///
    /// # Panics
    /// When it does not answer in JSON.
    pub fn api(&self, endpoint: &str) -> Value {
        let url = format!("http://{}/api/v1/{endpoint}", self.api);
        let response = minreq::get(url).with_timeout(5).send().expect("the pool's API answers");
        serde_json::from_slice(response.as_bytes()).expect("the pool's API answers in JSON")
    }
}

/// Starts a miner with one thread at a pool.
///
/// # Errors
/// When it cannot be started.
pub fn start_miner(dir: &Path, stratum: &str, user: &str) -> io::Result<Program> {
    let url = format!("stratum+tcp://{stratum}");
    Program::start("iop-miner", dir, ["mine", "--url", &url, "--user", user, "--threads", "1"])
}

/// Devnet's published keys as files in `dir`: admin, license-1, license-2, license-3.
///
/// # Panics
/// When `iop-node` does not write them.
pub fn devnet_keys(dir: &Path) -> [PathBuf; 4] {
    let out = dir.join("keys");
    let (status, _, stderr) = run("iop-node", ["key", "devnet", "--out", &out.display().to_string()]);
    assert_eq!(status, Some(0), "{stderr}");
    ["admin", "license-1", "license-2", "license-3"].map(|name| out.join(format!("{name}.wif")))
}

/// The address of a new key.
///
/// # Panics
/// When `iop-node` does not make it.
pub fn new_address(dir: &Path, network: &Network) -> String {
    let out = dir.join(format!("key-{}.wif", free_port()));
    let mut args = vec!["key".to_owned(), "new".to_owned(), "--out".to_owned(), out.display().to_string()];
    args.extend(network.flags());
    let (status, stdout, stderr) = run("iop-node", args);
    assert_eq!(status, Some(0), "{stderr}");
    stdout.trim().to_owned()
}
