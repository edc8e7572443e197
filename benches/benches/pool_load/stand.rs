//! The measured pool, on a core of its own, with a node and the tips that it is given.

use std::io;
use std::path::Path;

use bitcoin::consensus::encode::serialize_hex;
use bitcoin::{Amount, Block, OutPoint, ScriptBuf, Transaction, TxOut};
use iop_tests::blocks::{self, Parent};
use iop_tests::program::{Program, free_port, wait_for};
use iop_tests::rpc::Rpc;
use iop_tests::stand::{Network, Node, START, devnet_keys, new_address};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::Common;
use super::load::process::{Memory, cpu_seconds, pinned};

/// The work that a block needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Blocks {
    /// Two hashes: the measurement creates tips.
    Easy,
    /// 2³² hashes: hardly one of millions of shares is a block.
    Hard,
}

/// Every hash is a share.
const START_DIFFICULTY: &str = "1e-10";
/// Value that a transaction passes on, in base units, in addition to its fee.
const VALUE: u64 = 200_000;
/// Outputs for the blocks of tips: one each.
const SPARE: u64 = 1_000;
/// Padding bytes in each: 2,500 such transactions fit into a block.
const PADDING: usize = 270;

/// All running programs; they end when it is dropped.
#[derive(Debug)]
pub(crate) struct Stand {
    pool: Program,
    node: Node,
    /// The address for miners.
    pub(crate) stratum: String,
    /// A user that the pool accepts, without a worker name.
    pub(crate) user: String,
    api: String,
    tip: Parent,
    /// Outputs that blocks of tips may spend.
    spare: Vec<OutPoint>,
    _dir: TempDir,
}

impl Stand {
    /// Starts both, with room for this many connections, and waits until there is a job.
    pub(crate) fn start(blocks: Blocks, connections: usize, common: &Common) -> io::Result<Self> {
        let dir = tempfile::tempdir()?;
        let limit = if blocks == Blocks::Easy { "7fffffff" } else { "00000000" };
        let text = format!(
            "base = \"regtest\"\nname = \"load\"\npow_limit = \"{limit}{}\"\nno_retarget = true\n",
            "f".repeat(56)
        );
        let network = Network::file(dir.path(), &text);
        let node = Node::start_with(dir.path(), &network, free_port(), &["--no-listen".to_owned()])?;
        let [_, license, ..] = devnet_keys(dir.path());
        let user = new_address(dir.path(), &network);
        let (stratum, api) = (free_port(), free_port());
        let (stratum, api) = (format!("127.0.0.1:{stratum}"), format!("127.0.0.1:{api}"));
        let config = config(dir.path(), &node, &license, [&stratum, &api], connections, common);
        let path = dir.path().join("pool.toml");
        std::fs::write(&path, config)?;
        let run = ["run".to_owned(), "--config".to_owned(), path.display().to_string()];
        let mut pool = pinned(common.pool_cpu, || Program::start("iop-pool", dir.path(), run))?;
        let tip = Parent::of(&network.params().genesis.block(), 0);
        let mining = wait_for(START, || match status(&api) {
            Ok(status) => (status["state"] == "mining").then_some(true),
            Err(_) => (!pool.is_running()).then_some(false),
        });
        if mining != Some(true) {
            return Err(io::Error::other(format!("iop-pool gives no work:\n{}", pool.log())));
        }
        eprintln!("pool {} at {stratum}, node {}", pool.id(), node.program.id());
        Ok(Self { pool, node, stratum, user, api, tip, spare: Vec::new(), _dir: dir })
    }

    /// The pool's status.
    pub(crate) fn status(&self) -> io::Result<Value> {
        status(&self.api)
    }

    /// The pool's current memory.
    pub(crate) fn memory(&self) -> io::Result<Memory> {
        Memory::of(self.pool.id())
    }

    /// The pool's CPU seconds so far.
    pub(crate) fn cpu_seconds(&self) -> io::Result<f64> {
        cpu_seconds(self.pool.id())
    }

    /// A client of the node for another thread.
    pub(crate) fn rpc(&self) -> Rpc {
        self.node.rpc.clone()
    }

    /// The block that becomes the next tip. If the node was filled, it contains one transaction that was never in the
    /// mempool: after an empty block the node would give the full template first, and no second job would follow.
    pub(crate) fn next_block(&mut self) -> String {
        let carried = self.spare.pop().map(padded);
        let block = blocks::on(self.tip, 1, carried.into_iter().collect());
        self.tip = Parent::of(&block, self.tip.height + 1);
        serialize_hex(&block)
    }

    /// Gives the node this many transactions for templates, after a hundred blocks that mature their coin.
    pub(crate) fn fill(&mut self, transactions: u64) -> io::Result<()> {
        let mut first = blocks::on(self.tip, 0, vec![]);
        first.txdata[0].output[0].value = Amount::from_sat((transactions + SPARE) * VALUE);
        let first = blocks::sealed(first);
        self.take(&first)?;
        for _ in 0..100 {
            let block = blocks::on(self.tip, 0, vec![]);
            self.take(&block)?;
        }
        let mut split = blocks::spend(OutPoint::new(first.txdata[0].compute_txid(), 0), VALUE);
        split.output = vec![split.output[0].clone(); (transactions + SPARE) as usize];
        let txid = split.compute_txid();
        self.spare = (transactions..transactions + SPARE).map(|n| OutPoint::new(txid, n as u32)).collect();
        let block = blocks::on(self.tip, 0, vec![split]);
        self.take(&block)?;
        for number in 0..transactions {
            let tx = padded(OutPoint::new(txid, number as u32));
            self.node.rpc.call("sendrawtransaction", json!([serialize_hex(&tx), true]));
        }
        let full = || (self.status().ok()?["job"]["transactions"] == transactions).then_some(());
        wait_for(3 * START, full).ok_or_else(|| io::Error::other("the pool has no full template"))
    }

    fn take(&mut self, block: &Block) -> io::Result<()> {
        submit(&self.node.rpc, &serialize_hex(block))?;
        self.tip = Parent::of(block, self.tip.height + 1);
        Ok(())
    }
}

/// Submits a block to the node, which must make it its tip.
pub(crate) fn submit(rpc: &Rpc, block: &str) -> io::Result<()> {
    match rpc.try_call("submitblock", json!([block])) {
        Ok(Value::Null) => Ok(()),
        other => Err(io::Error::other(format!("submitblock: {other:?}"))),
    }
}

fn config(
    dir: &Path,
    node: &Node,
    license: &Path,
    [stratum, api]: [&str; 2],
    connections: usize,
    common: &Common,
) -> String {
    let lines = [
        format!("network_file = {:?}", dir.join("network.toml")),
        format!("license_key_files = [{license:?}]"),
        format!("stratum_bind = {stratum:?}\napi_bind = {api:?}"),
        format!("start_difficulty = {START_DIFFICULTY}\nmin_difficulty = {START_DIFFICULTY}"),
        format!("max_difficulty = 1e9\nmax_connections = {}", connections + 10),
        // Shares come as fast as the pool takes them, at one difficulty.
        "vardiff = false\nmax_requests_per_second = 1e9".to_owned(),
        // All connections come from this machine, the many of them from several of its addresses.
        "max_connections_per_ip = 1000000\nmax_new_connections_per_second = 1e9".to_owned(),
        format!("datadir = {:?}\nlog = \"warn\"", dir.join("pool")),
        common.pool_config.join("\n"),
        format!("[[node]]\nurl = \"http://127.0.0.1:{}\"", node.port),
        format!("cookie_file = {:?}", node.datadir.join(".cookie")),
    ];
    lines.join("\n") + "\n"
}

fn status(api: &str) -> io::Result<Value> {
    let response = minreq::get(format!("http://{api}/api/v1/status")).with_timeout(5).send();
    let response = response.map_err(io::Error::other)?;
    Ok(serde_json::from_slice(response.as_bytes())?)
}

/// Spends an output of the split, with padding, and leaves a fee.
fn padded(outpoint: OutPoint) -> Transaction {
    let mut tx = blocks::spend(outpoint, VALUE - 1_000);
    let padding = [vec![0x6a], vec![0; PADDING]].concat();
    tx.output.push(TxOut { value: Amount::ZERO, script_pubkey: ScriptBuf::from_bytes(padding) });
    tx
}
