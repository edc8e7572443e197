//! A pool at several nodes, from outside: real nodes, a real pool, and shares over TCP that are built without its code.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use iop_consensus::params::Params;
use iop_tests::chain::{admin_action, easy_devnet, generate, license_address};
use iop_tests::net::{Meeting, Peered};
use iop_tests::program::{free_port, wait_for};
use iop_tests::stand::{Network, Pool, devnet_keys, new_address};
use iop_tests::worker::Worker;
use serde_json::{Value, json};

/// Everything here takes seconds; a loaded machine may need longer.
const SOON: Duration = Duration::from_secs(60);
/// Longer than shares of an old tip count.
const PAST_THE_GRACE: Duration = Duration::from_millis(2_300);
/// Verdict codes.
const ACCEPTED: u64 = 0;
const INVALID: u64 = 20;
const STALE: u64 = 21;
const DUPLICATE: u64 = 22;
const LOW_DIFFICULTY: u64 = 23;

/// A chain's folder, its keys, and its nodes, which are not connected at first.
struct Stand {
    dir: tempfile::TempDir,
    network: Network,
    params: Params,
    admin: PathBuf,
    licenses: [PathBuf; 3],
    nodes: Vec<Peered>,
    stratum: String,
}

impl Stand {
    fn new(name: &str, nodes: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let network = Network::file(dir.path(), &easy_devnet(name, ""));
        let [admin, licenses @ ..] = devnet_keys(dir.path());
        let node = |index: usize| Peered::start(&dir.path().join(index.to_string()), &network, &[]);
        let nodes = (0..nodes).map(node).collect();
        let stratum = format!("127.0.0.1:{}", free_port());
        Self { params: network.params(), nodes, network, admin, licenses, stratum, dir }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    /// A pool that uses all the nodes, with a difficulty of about 4,000 hashes; a block takes 65,000.
    fn pool(&self) -> Pool {
        let nodes: Vec<(u16, PathBuf)> =
            self.nodes.iter().map(|at| (at.node.port, at.node.datadir.join(".cookie"))).collect();
        let more = ["--start-difficulty", "0.000001"].map(str::to_owned);
        Pool::start_at(self.path(), &self.network, &nodes, &self.licenses[..2], &self.stratum, &more).unwrap()
    }

    fn worker(&self) -> Worker {
        Worker::connect(&self.stratum, &format!("{}.test", new_address(self.path(), &self.network)))
    }

    /// Mines a block at a node with the third license, which the pool does not have; returns its hash.
    fn generate(&self, node: usize) -> String {
        generate(&self.nodes[node].node.rpc, 1, &self.licenses[2], &self.params).remove(0)
    }

    /// Kills a node and restarts it with the same folder and port.
    fn restart(&mut self, index: usize) {
        let dir = self.path().join(index.to_string());
        let Peered { node, address } = self.nodes.remove(index);
        let node = node.kill_and_restart(&dir, &self.network).unwrap();
        self.nodes.insert(index, Peered { node, address });
    }
}

/// Waits until the status satisfies a condition, and returns it.
fn wait_for_status(pool: &Pool, what: &str, mut right: impl FnMut(&Value) -> bool) -> Value {
    let found = wait_for(SOON, || Some(pool.api("status")).filter(&mut right));
    found.unwrap_or_else(|| {
        panic!("{what} expected, not {}; log:\n{}", pool.api("status"), pool.program.log())
    })
}

/// The index of the node in use.
fn in_use(status: &Value) -> Option<usize> {
    status["nodes"].as_array().unwrap().iter().position(|node| node["in_use"] == true)
}

fn trouble(status: &Value, index: usize) -> String {
    status["nodes"][index]["trouble"].as_str().unwrap_or_default().to_owned()
}

fn has_block(at: &Peered, hash: &str) -> bool {
    let header = at.node.rpc.try_call("getblockheader", json!([hash]));
    header.is_ok_and(|header| header["confirmations"].as_i64().unwrap() > 0)
}

fn signal(at: &Peered, name: &str) {
    let id = at.node.program.id().to_string();
    assert!(Command::new("kill").args([name, &id]).status().unwrap().success());
}

#[test]
fn a_share_of_the_old_tip_counts_in_the_grace_and_is_stale_after() {
    let stand = Stand::new("race", 1);
    let _pool = stand.pool();
    let mut worker = stand.worker();
    let old = worker.job();
    let [first, in_time, late] = [0, 1, 2].map(|_| worker.solve(&old));
    assert_eq!(worker.submit(&first), ACCEPTED);
    let tip = stand.generate(0);
    let new = worker.job_on(&tip);
    assert!(worker.jobs.iter().find(|job| job.parent == new.parent).unwrap().clean);
    assert_eq!(worker.submit(&in_time), ACCEPTED);
    std::thread::sleep(PAST_THE_GRACE);
    assert_eq!(worker.submit(&late), STALE);
    let share = worker.solve(&new);
    assert_eq!(worker.submit(&share), ACCEPTED);
}

#[test]
fn a_tip_is_taken_from_whichever_node_has_it_and_one_that_lags_or_forks_is_said_so() {
    let stand = Stand::new("ahead", 2);
    let pool = stand.pool();
    let mut worker = stand.worker();
    worker.job();
    // The second node is not told of the first one's blocks, nor the other way round.
    for node in [0, 1, 1] {
        let tip = stand.generate(node);
        if node == 0 || stand.nodes[1].node.rpc.height() == 2 {
            worker.job_on(&tip);
            wait_for_status(&pool, "the node with most work in use", |status| in_use(status) == Some(node));
        }
    }
    let status = wait_for_status(&pool, "a fork", |status| trouble(status, 0).contains("branch"));
    assert_eq!(
        (&status["nodes"][0]["lag"], &status["nodes"][0]["height"]),
        (&json!(1), &json!(1)),
        "{status}"
    );
    assert_eq!(status["nodes"][1]["trouble"], Value::Null);
    assert_eq!(status["nodes"][1]["tip"], status["job"]["parent"], "{status}");

    stand.nodes[0].meet(&stand.nodes[1]);
    wait_for_status(&pool, "both on one chain", |status| {
        status["nodes"][0]["trouble"].is_null() && status["nodes"][0]["lag"] == 0
    });
    stand.nodes[0].leave_all();
    stand.generate(1);
    wait_for_status(&pool, "a lag", |status| trouble(status, 0).contains("lags 1 blocks behind"));
    assert_eq!(pool.api("status")["state"], "mining");
}

#[test]
fn when_the_node_in_use_dies_or_hangs_work_goes_on_with_the_other() {
    let mut stand = Stand::new("loss", 2);
    stand.nodes[0].meet(&stand.nodes[1]);
    let pool = stand.pool();
    let mut worker = stand.worker();
    worker.job();
    for hangs in [false, true] {
        let both =
            |status: &Value| status["nodes"].as_array().unwrap().iter().all(|node| node["trouble"].is_null());
        let status =
            wait_for_status(&pool, "both nodes up", |status| both(status) && in_use(status).is_some());
        let (lost, other) = if in_use(&status) == Some(0) { (0, 1) } else { (1, 0) };
        signal(&stand.nodes[lost], if hangs { "-STOP" } else { "-KILL" });
        let status = wait_for_status(&pool, "the other node in use", |status| in_use(status) == Some(other));
        assert_eq!(status["state"], "mining");
        wait_for_status(&pool, "the loss said", |status| !trouble(status, lost).is_empty());
        let tip = stand.nodes[other].tip();
        let job = worker.job_on(&tip);
        let block = worker.solve_block(&job);
        assert_eq!(worker.submit(&block), ACCEPTED);
        let tip = wait_for(SOON, || Some(stand.nodes[other].tip()).filter(|now| *now != tip));
        worker.job_on(&tip.expect("the block is the other node's tip"));
        if hangs {
            signal(&stand.nodes[lost], "-CONT");
        } else {
            let dir = stand.path().join(lost.to_string());
            let port = stand.nodes[lost].node.port;
            let gone = stand.nodes.remove(lost);
            assert!(!gone.node.program.wait(SOON).success());
            let flags = ["--p2p-bind".to_owned(), gone.address.to_string()];
            let node = iop_tests::stand::Node::start_with(&dir, &stand.network, port, &flags).unwrap();
            stand.nodes.insert(lost, Peered { node, address: gone.address });
            stand.nodes[lost].meet(&stand.nodes[other]);
        }
    }
    let tip = stand.nodes[0].tip();
    assert!(wait_for(SOON, || has_block(&stand.nodes[1], &tip).then_some(())).is_some());
}

#[test]
fn a_block_found_while_all_nodes_are_away_outlives_the_pool_and_is_delivered_or_stale() {
    for passed_by in [0, 7] {
        let mut stand = Stand::new("away", 2);
        stand.nodes[0].meet(&stand.nodes[1]);
        let pool = stand.pool();
        let mut worker = stand.worker();
        let job = worker.job();
        for at in &stand.nodes {
            signal(at, "-STOP");
        }
        let block = worker.solve_block(&job);
        assert_eq!(worker.submit(&block), ACCEPTED, "no node is asked first");
        let hash = pool.api("blocks")[0]["hash"].as_str().unwrap().to_owned();
        pool.program.kill();
        for index in [0, 1] {
            stand.restart(index);
        }
        let spool = stand.path().join("pool/found");
        let blocks = || {
            let files = std::fs::read_dir(&spool).unwrap().flatten();
            files.filter(|file| file.file_name() != "reserve").count()
        };
        assert_eq!(blocks(), 1);
        for _ in 0..passed_by {
            let tip = stand.generate(0);
            generate(&stand.nodes[1].node.rpc, 1, &stand.licenses[2], &stand.params);
            assert!(has_block(&stand.nodes[0], &tip));
        }
        let pool = stand.pool();
        let expected = if passed_by == 0 { "accepted" } else { "stale" };
        let status = || pool.api("blocks")[0]["status"].as_str().unwrap().to_owned();
        if passed_by > 0 {
            // Its state is checked with each new tip.
            wait_for_status(&pool, "both nodes up", |status| {
                let high = |node: &Value| node["height"].as_u64().is_some_and(|height| height >= 7);
                status["nodes"].as_array().unwrap().iter().all(high)
            });
            stand.generate(0);
        }
        let settled = wait_for(SOON, || (status() == expected).then_some(()));
        assert!(settled.is_some(), "{}, {expected} expected; log:\n{}", status(), pool.program.log());
        assert_eq!(pool.api("blocks")[0]["hash"], json!(hash));
        let known = |at: &Peered| has_block(at, &hash) == (passed_by == 0);
        assert!(wait_for(SOON, || stand.nodes.iter().all(known).then_some(())).is_some());
        let forgotten = wait_for(SOON, || (blocks() == 0).then_some(()));
        assert!(forgotten.is_some(), "{}", pool.program.log());
    }
}

#[test]
fn an_admin_action_is_announced_and_the_license_changes_with_the_block_and_back_with_a_reorg() {
    let stand = Stand::new("announced", 1);
    let rpc = &stand.nodes[0].node.rpc;
    generate(rpc, 105, &stand.admin, &stand.params);
    let pool = stand.pool();
    let [one, two] = [0, 1].map(|index: usize| license_address(&stand.licenses[index], &stand.params));
    let mut worker = stand.worker();
    worker.job();
    let signing = |status: &Value| status["job"]["license"].as_str().map(str::to_owned);
    let first = signing(&pool.api("status"));
    assert_eq!(first.as_deref(), Some(one.as_str()), "the first configured");
    let targets = std::slice::from_ref(&one);
    let txid = admin_action(rpc, &stand.admin, 1, "rem", targets, &stand.params);
    // The node reports it with the next template on this tip, half a minute later, or after a new tip.
    stand.generate(0);
    admin_action(rpc, &stand.admin, 2, "add", targets, &stand.params);
    let switched =
        wait_for_status(&pool, "the other license", |status| signing(status).as_ref() == Some(&two));
    assert_eq!(switched["state"], "mining");
    let announced = wait_for(SOON, || {
        let license = pool.api("licenses")[0].take();
        (license["announced"]["action"] == "add").then_some(license)
    });
    let license = announced.unwrap_or_else(|| panic!("{}", pool.api("licenses")));
    assert_eq!((&license["whitelisted"], &license["eligible_next"]), (&json!(false), &json!(false)));
    assert!(!license["announced"]["txid"].as_str().unwrap().is_empty());
    assert!(pool.program.log().contains("an admin action waits for a block"), "{}", pool.program.log());

    let id = pool.api("status")["job"]["id"].as_str().unwrap().to_owned();
    let job = worker.wait(|worker| worker.jobs.last().filter(|job| job.id == id).cloned()).unwrap();
    let block = worker.solve_block(&job);
    assert_eq!(worker.submit(&block), ACCEPTED, "signed by the second license");
    wait_for_status(&pool, "block 107", |status| status["job"]["height"] == 108);
    let back = wait_for(SOON, || (pool.api("licenses")[0]["whitelisted"] == true).then_some(()));
    assert!(back.is_some(), "{}", pool.api("licenses"));

    // Without the two blocks the license was never removed.
    let removal = rpc.call("getblockhash", json!([106]));
    let block = rpc.call("getblock", json!([removal]));
    assert_eq!(block["tx"][1], json!(txid));
    rpc.call("invalidateblock", json!([removal]));
    let status = wait_for_status(&pool, "the shorter chain", |status| status["job"]["height"] == 106);
    assert_eq!(signing(&status), Some(one), "{}", pool.api("licenses"));
    worker.job_on(&stand.nodes[0].tip());
}

#[test]
fn shares_count_once_for_who_found_them() {
    let stand = Stand::new("twice", 1);
    let _pool = stand.pool();
    let (mut one, mut other) = (stand.worker(), stand.worker());
    let job = one.job();
    let share = one.solve(&job);
    assert_eq!(other.job().id, job.id, "both work on the same job");
    assert_eq!(other.submit(&share), LOW_DIFFICULTY, "with the other's extranonce it is another hash");
    assert_eq!(one.submit(&share), ACCEPTED);
    assert_eq!(one.submit(&share), DUPLICATE);
    let unknown = iop_tests::worker::Share { job: "ffff".to_owned(), ..share };
    assert_eq!(one.submit(&unknown), STALE);
}

#[test]
fn times_and_versions_outside_what_was_given_are_refused() {
    let stand = Stand::new("abuse", 1);
    generate(&stand.nodes[0].node.rpc, 12, &stand.licenses[2], &stand.params);
    let _pool = stand.pool();
    let mut worker = stand.worker();
    let job = worker.job();
    let verdict = |worker: &mut Worker, time: u32, bits: Option<u32>| {
        let share =
            worker.solve_with(&job, time, bits, |worth, is_block| !is_block && worth >= job.difficulty);
        worker.submit(&share)
    };
    let time = job.time;
    assert_eq!(verdict(&mut worker, time + 500, None), ACCEPTED, "rolled forward");
    assert_eq!(verdict(&mut worker, time + 700, None), INVALID);
    assert_eq!(verdict(&mut worker, time - 7_200, None), INVALID, "before the median of the last blocks");
    assert_eq!(verdict(&mut worker, time, Some(0x4000)), ACCEPTED, "some machines never ask");
    assert_eq!(verdict(&mut worker, time, Some(0x1000)), INVALID, "a bit outside what it would get");
    worker.roll_versions();
    assert_eq!(verdict(&mut worker, time, Some(0x2000)), ACCEPTED);
    assert_eq!(verdict(&mut worker, time, Some(0x1fff_e000)), ACCEPTED);
    assert_eq!(verdict(&mut worker, time, Some(0x1000)), INVALID, "a bit outside the mask");
    assert_eq!(verdict(&mut worker, time, Some(0x2000_0000)), INVALID);
}

#[test]
fn a_new_difficulty_holds_for_new_jobs_and_not_for_shares_in_flight() {
    let stand = Stand::new("difficulty", 1);
    let _pool = stand.pool();
    let mut worker = stand.worker();
    let old = worker.job();
    let harder = old.difficulty * 8.0;
    let weak = |worth: f64, is_block: bool| !is_block && worth >= old.difficulty && worth < harder;
    let in_flight = worker.solve_with(&old, old.time, None, weak);
    assert_eq!(worker.call("mining.suggest_difficulty", &json!([harder]))["result"], true);
    let new = worker.job_on(&stand.generate(0));
    assert!((new.difficulty - harder).abs() < harder * 1e-6, "{new:?}");
    assert_eq!(worker.submit(&in_flight), ACCEPTED);
    let too_weak = worker.solve_with(&new, new.time, None, weak);
    assert_eq!(worker.submit(&too_weak), LOW_DIFFICULTY);
    let share = worker.solve(&new);
    assert_eq!(worker.submit(&share), ACCEPTED);
}
