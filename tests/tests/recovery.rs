//! Programs that lose each other reconnect, and nothing is lost.

#![allow(clippy::unwrap_used)]

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use iop_tests::chain::devnet_like;
use iop_tests::program::{Program, free_port, wait_for};
use iop_tests::stand::{Network, Node, Pool, devnet_keys, new_address, start_miner};
use serde_json::json;

/// Everything recovers within seconds; a loaded machine may need longer.
const SOON: Duration = Duration::from_secs(60);

/// A chain's folder and keys, and the miner's user; nothing runs yet.
struct Setting {
    dir: tempfile::TempDir,
    network: Network,
    licenses: [PathBuf; 3],
    user: String,
}

impl Setting {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        // A block takes about 2^22 hashes: slow enough that a kill may hit between blocks as well as during one.
        let network = Network::file(dir.path(), &devnet_like("recovery", "000003ff", ""));
        let [_, licenses @ ..] = devnet_keys(dir.path());
        let user = new_address(dir.path(), &network);
        Self { dir, network, licenses, user }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    /// All three programs.
    fn start(&self) -> (Node, Pool, Program) {
        let node = Node::start(self.path(), &self.network).unwrap();
        let pool = Pool::start(self.path(), &self.network, node.port, &self.licenses).unwrap();
        let miner = start_miner(self.path(), &pool.stratum, &self.user).unwrap();
        (node, pool, miner)
    }
}

fn wait_for_height(node: &Node, height: u64) {
    let reached = wait_for(SOON, || (node.rpc.height() >= height).then_some(()));
    assert!(
        reached.is_some(),
        "height {}, {height} expected; log:\n{}",
        node.rpc.height(),
        node.program.log()
    );
}

fn wait_for_log(program: &Program, text: &str) {
    let logged = wait_for(SOON, || program.log().contains(text).then_some(()));
    assert!(logged.is_some(), "'{text}' expected in:\n{}", program.log());
}

/// Accepted shares of all workers.
fn accepted(pool: &Pool) -> u64 {
    let workers = pool.api("workers");
    workers["workers"].as_array().unwrap().iter().map(|worker| worker["accepted"].as_u64().unwrap()).sum()
}

#[test]
fn started_in_the_wrong_order_they_wait_say_so_and_mine_once_all_are_there() {
    let at = Setting::new();
    // The miner first: there is no pool yet.
    let stratum = format!("127.0.0.1:{}", free_port());
    let miner = start_miner(at.path(), &stratum, &at.user).unwrap();
    wait_for_log(&miner, &stratum);

    // Then the pool: there is no node yet.
    let node_port = free_port();
    let pool = Pool::start_on(at.path(), &at.network, node_port, &at.licenses, &stratum).unwrap();
    let state = wait_for(SOON, || Some(pool.api("status")).filter(|status| status["state"] == "no_node"));
    assert!(state.is_some(), "{}", pool.api("status"));
    wait_for_log(&pool.program, &node_port.to_string());

    let node = Node::start_on(at.path(), &at.network, node_port).unwrap();
    wait_for_height(&node, 3);
}

#[test]
fn a_node_killed_while_mining_comes_back_with_its_chain_and_the_pool_goes_on() {
    let at = Setting::new();
    let (mut node, pool, mut miner) = at.start();
    for _ in 0..3 {
        let height = node.rpc.height() + 2;
        wait_for_height(&node, height);
        let before = node.rpc.height();
        node = node.kill_and_restart(at.path(), &at.network).unwrap();
        assert!(node.rpc.height() >= before, "height {} after the kill, {before} before", node.rpc.height());
        wait_for_height(&node, before + 2);
    }
    assert!(miner.is_running());
    // The pool found every block of the chain, and each was a share that counted.
    let height = node.rpc.height();
    let found = pool.api("blocks");
    let found: HashSet<&str> =
        found.as_array().unwrap().iter().filter_map(|block| block["hash"].as_str()).collect();
    for height in 1..=height {
        let hash = node.rpc.call("getblockhash", json!([height]));
        assert!(found.contains(hash.as_str().unwrap()), "block {height} {hash} is not among the pool's");
    }
    let shares = accepted(&pool);
    assert!(shares >= found.len() as u64, "{shares} shares, {} found blocks", found.len());
}

#[test]
fn a_pool_killed_while_mining_is_found_again_by_the_miner() {
    let at = Setting::new();
    let (node, pool, mut miner) = at.start();
    wait_for_height(&node, 2);
    let stratum = pool.stratum.clone();
    pool.program.kill();
    let height = node.rpc.height();
    let _pool = Pool::start_on(at.path(), &at.network, node.port, &at.licenses, &stratum).unwrap();
    wait_for_height(&node, height + 2);
    assert!(miner.is_running());
    assert!(miner.stop().success(), "SIGTERM ends the miner with status 0");
}

#[test]
fn all_three_stop_on_sigterm_with_status_0() {
    let at = Setting::new();
    let (node, pool, miner) = at.start();
    wait_for_height(&node, 1);
    let cookie = node.datadir.join(".cookie");
    assert!(cookie.exists());
    // The pool's long poll is pending at the node while the node stops.
    assert!(node.program.stop().success());
    assert!(!cookie.exists(), "the cookie goes with the node");
    assert!(pool.program.stop().success());
    assert!(miner.stop().success());
}
