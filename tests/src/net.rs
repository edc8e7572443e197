//! Connected nodes: a node of ours with a known port for peers, and IoP Core's daemon as a second opinion.
//!
//! Lives here: [`Meeting`], the operations on any node, and spending without keys. Does not live here: what the tests
//! expect. Everything stays on loopback.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bitcoin::consensus::encode::serialize_hex;
use bitcoin::hashes::{Hash, hash160};
use bitcoin::script::{Builder, PushBytesBuf};
use bitcoin::{
    Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, Witness, absolute, transaction,
};
use iop_consensus::address::{Address, AddressKind};
use iop_consensus::params::Params;
use serde_json::{Value, json};

use crate::program::{free_port, wait_for};
use crate::rpc::Rpc;
use crate::stand::{Network, Node, START};

/// How long anything between two nodes on one machine may take; usually it is milliseconds.
pub const SOON: Duration = Duration::from_secs(60);

/// A running node of ours that peers can connect to.
#[derive(Debug)]
pub struct Peered {
    /// The node.
    pub node: Node,
    /// Address for peers.
    pub address: SocketAddr,
}

impl Peered {
    /// Starts one in `dir`, with more flags.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start(dir: &Path, network: &Network, more: &[&str]) -> Self {
        Self::start_on(dir, network, SocketAddr::from(([127, 0, 0, 1], free_port())), more)
    }

    /// Starts one at a given address for peers.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start_on(dir: &Path, network: &Network, address: SocketAddr, more: &[&str]) -> Self {
        std::fs::create_dir_all(dir).expect("the test's folder can be written to");
        let bind = address.to_string();
        let flags: Vec<String> = ["--p2p-bind", &bind, "--log", "debug"]
            .iter()
            .chain(more)
            .map(|flag| (*flag).to_owned())
            .collect();
        let node = Node::start_with(dir, network, free_port(), &flags);
        Self { node: node.unwrap_or_else(|error| panic!("{error}")), address }
    }
}

/// A node, ours or the reference's, as the tests use it.
pub trait Meeting {
    /// Its RPC.
    fn rpc(&self) -> &Rpc;
    /// Address for peers.
    fn address(&self) -> SocketAddr;

    /// The tip's hash.
    fn tip(&self) -> String {
        self.rpc().call("getbestblockhash", json!([])).as_str().unwrap_or_default().to_owned()
    }

    /// Connects to another node, and waits until the handshake is complete.
    ///
    /// # Panics
    /// When they do not meet.
    fn meet(&self, other: &dyn Meeting) {
        let address = other.address().to_string();
        self.rpc().call("addnode", json!([address, "onetry"]));
        let met = wait_for(SOON, || {
            let peers = self.rpc().call("getpeerinfo", json!([]));
            let talks = |peer: &&Value| peer["addr"] == address.as_str() && peer["pingtime"].is_number();
            peers.as_array()?.iter().find(talks).map(drop)
        });
        assert!(met.is_some(), "no connection to {address}: {}", self.rpc().call("getpeerinfo", json!([])));
    }

    /// Closes every connection.
    ///
    /// # Panics
    /// When one stays.
    fn leave_all(&self) {
        let gone = wait_for(SOON, || {
            let peers = self.rpc().call("getpeerinfo", json!([]));
            let peers = peers.as_array()?;
            for peer in peers {
                // It may already be gone.
                let _ = self.rpc().try_call("disconnectnode", json!(["", peer["id"]]));
            }
            peers.is_empty().then_some(())
        });
        assert!(gone.is_some(), "connections stay");
    }

    /// Mines blocks that pay to [`payee`].
    fn mine(&self, count: u32, params: &Params) {
        self.rpc().call("generatetoaddress", json!([count, payee(params)]));
    }

    /// Waits until a transaction is in the mempool.
    ///
    /// # Panics
    /// When it does not come.
    fn wait_for_tx(&self, txid: &Txid) {
        let txid = txid.to_string();
        let came = wait_for(SOON, || {
            let waiting = self.rpc().call("getrawmempool", json!([]));
            waiting.as_array()?.iter().any(|id| *id == txid.as_str()).then_some(())
        });
        assert!(came.is_some(), "{txid} did not come");
    }
}

impl Meeting for Peered {
    fn rpc(&self) -> &Rpc {
        &self.node.rpc
    }

    fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Waits until both have the same tip.
///
/// # Panics
/// When they do not agree.
pub fn agree(a: &dyn Meeting, b: &dyn Meeting) {
    let agreed = wait_for(SOON, || (a.tip() == b.tip()).then_some(()));
    assert!(agreed.is_some(), "heights {} and {}: no agreement", a.rpc().height(), b.rpc().height());
}

/// IoP Core on regtest, stopped when dropped.
#[derive(Debug)]
pub struct Core {
    child: Child,
    rpc: Rpc,
    address: SocketAddr,
}

impl Core {
    /// Starts the daemon in `dir`.
    ///
    /// # Panics
    /// When it does not answer.
    pub fn start(daemon: &str, dir: &Path, more: &[&str]) -> Self {
        std::fs::create_dir_all(dir).expect("the test's folder can be written to");
        let (p2p, rpc) = (free_port(), free_port());
        let child = Command::new(daemon)
            .arg("-regtest")
            .arg(format!("-datadir={}", dir.display()))
            .args([format!("-port={p2p}"), format!("-rpcport={rpc}")])
            .args(["-server", "-listen=1", "-bind=127.0.0.1", "-dnsseed=0", "-discover=0", "-daemon=0"])
            .args(["-rpcallowip=127.0.0.1", "-debug=net", "-debug=cmpctblock"])
            .args(more)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{daemon}: {error}"));
        let client = Rpc::new(rpc, dir.join("regtest/.cookie"));
        let core = Self { child, rpc: client, address: SocketAddr::from(([127, 0, 0, 1], p2p)) };
        let answered = wait_for(START * 3, || core.rpc.try_call("uptime", json!([])).ok());
        assert!(answered.is_some(), "{daemon} does not answer");
        core
    }
}

impl Meeting for Core {
    fn rpc(&self) -> &Rpc {
        &self.rpc
    }

    fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        let _ = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        if wait_for(START, || self.child.try_wait().ok().flatten()).is_none() {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}

/// A redeem script that anyone can spend: a standard output without a key.
fn redeem() -> ScriptBuf {
    Builder::new().push_int(1).into_script()
}

/// The address of an output that anyone can spend.
pub fn payee(params: &Params) -> String {
    let hash = hash160::Hash::hash(redeem().as_bytes()).to_byte_array();
    Address { kind: AddressKind::ScriptHash, hash }.to_base58(&params.prefixes)
}

/// Spends outputs that pay to [`payee`] to another such output.
pub fn spend(outpoints: &[OutPoint], value: u64) -> Transaction {
    let redeem = PushBytesBuf::try_from(redeem().to_bytes()).expect("the script is short");
    let input = |outpoint: &OutPoint| TxIn {
        previous_output: *outpoint,
        script_sig: Builder::new().push_slice(redeem.clone()).into_script(),
        sequence: Sequence::MAX,
        witness: Witness::new(),
    };
    let script_pubkey = ScriptBuf::new_p2sh(&bitcoin::ScriptHash::hash(redeem.as_bytes()));
    Transaction {
        version: transaction::Version::ONE,
        lock_time: absolute::LockTime::ZERO,
        input: outpoints.iter().map(input).collect(),
        output: vec![TxOut { value: Amount::from_sat(value), script_pubkey }],
    }
}

/// The coinbase output of the active block at `height`.
///
/// # Panics
/// When the node does not have the block.
pub fn coinbase(node: &dyn Meeting, height: u32) -> OutPoint {
    let hash = node.rpc().call("getblockhash", json!([height]));
    let block = node.rpc().call("getblock", json!([hash, 1]));
    let txid = block["tx"][0].as_str().and_then(|text| text.parse().ok());
    OutPoint { txid: txid.expect("a block has a coinbase"), vout: 0 }
}

/// Sends a transaction to a node.
///
/// # Panics
/// When it is refused.
pub fn send(node: &dyn Meeting, tx: &Transaction) -> Txid {
    node.rpc().call("sendrawtransaction", json!([serialize_hex(tx), true]));
    tx.compute_txid()
}
