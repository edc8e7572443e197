//! Programs that lose each other find each other again, and nothing is lost.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::time::Duration;

use iop_tests::chain::devnet_like;
use iop_tests::program::{Program, free_port, wait_for};
use iop_tests::stand::{Network, Node, Pool, devnet_keys, new_address, start_miner};

/// Everything recovers within seconds; a loaded machine may need longer.
const SOON: Duration = Duration::from_secs(60);

fn network(dir: &Path) -> Network {
    // A block takes about 2^22 hashes: slow enough that a kill falls between blocks as well as into them.
    Network::file(dir, &devnet_like("recovery", "000003ff", ""))
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
    let dir = tempfile::tempdir().unwrap();
    let network = network(dir.path());
    let [_, licenses @ ..] = devnet_keys(dir.path());
    let user = new_address(dir.path(), &network);

    // The miner first: no pool yet.
    let stratum = format!("127.0.0.1:{}", free_port());
    let miner = start_miner(dir.path(), &stratum, &user).unwrap();
    wait_for_log(&miner, &stratum);

    // Then the pool: no node yet.
    let node_port = free_port();
    let pool = Pool::start_on(dir.path(), &network, node_port, &licenses, &stratum).unwrap();
    let state = wait_for(SOON, || Some(pool.api("status")).filter(|status| status["state"] == "no_node"));
    assert!(state.is_some(), "{}", pool.api("status"));
    wait_for_log(&pool.program, &node_port.to_string());

    let node = Node::start_on(dir.path(), &network, node_port).unwrap();
    wait_for_height(&node, 3);
}

#[test]
fn a_node_killed_while_mining_comes_back_with_its_chain_and_the_pool_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let network = network(dir.path());
    let [_, licenses @ ..] = devnet_keys(dir.path());
    let user = new_address(dir.path(), &network);
    let mut node = Node::start(dir.path(), &network).unwrap();
    let pool = Pool::start(dir.path(), &network, node.port, &licenses).unwrap();
    let mut miner = start_miner(dir.path(), &pool.stratum, &user).unwrap();
    for _ in 0..3 {
        let height = node.rpc.height() + 2;
        wait_for_height(&node, height);
        let before = node.rpc.height();
        node = node.kill_and_restart(dir.path(), &network).unwrap();
        assert!(node.rpc.height() >= before, "height {} after the kill, {before} before", node.rpc.height());
        wait_for_height(&node, before + 2);
    }
    assert!(miner.is_running());
    // Every block came of a share that was counted.
    assert!(accepted(&pool) >= node.rpc.height(), "{} shares, {} blocks", accepted(&pool), node.rpc.height());
}

#[test]
fn a_pool_killed_while_mining_is_found_again_by_the_miner() {
    let dir = tempfile::tempdir().unwrap();
    let network = network(dir.path());
    let [_, licenses @ ..] = devnet_keys(dir.path());
    let user = new_address(dir.path(), &network);
    let node = Node::start(dir.path(), &network).unwrap();
    let pool = Pool::start(dir.path(), &network, node.port, &licenses).unwrap();
    let mut miner = start_miner(dir.path(), &pool.stratum, &user).unwrap();
    wait_for_height(&node, 2);
    let stratum = pool.stratum.clone();
    pool.program.kill();
    let height = node.rpc.height();
    let _pool = Pool::start_on(dir.path(), &network, node.port, &licenses, &stratum).unwrap();
    wait_for_height(&node, height + 2);
    assert!(miner.is_running());
    assert!(miner.stop().success(), "SIGTERM ends the miner with status 0");
}

#[test]
fn all_three_stop_on_sigterm_with_status_0() {
    let dir = tempfile::tempdir().unwrap();
    let network = network(dir.path());
    let [_, licenses @ ..] = devnet_keys(dir.path());
    let user = new_address(dir.path(), &network);
    let node = Node::start(dir.path(), &network).unwrap();
    let pool = Pool::start(dir.path(), &network, node.port, &licenses).unwrap();
    let miner = start_miner(dir.path(), &pool.stratum, &user).unwrap();
    wait_for_height(&node, 1);
    let cookie = node.datadir.join(".cookie");
    assert!(cookie.exists());
    // The pool's long poll is open at the node while the node stops.
    assert!(node.program.stop().success());
    assert!(!cookie.exists(), "the cookie goes with the node");
    assert!(pool.program.stop().success());
    assert!(miner.stop().success());
}
