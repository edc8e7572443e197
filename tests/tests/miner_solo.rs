//! A miner at its own nodes, from outside: the real `iop-miner solo`, real nodes that validate every block, and admin
//! transactions signed by the `bitcoin` crate.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use bitcoin::Block;
use bitcoin::consensus::encode::{deserialize_hex, serialize_hex};
use iop_consensus::address::Address;
use iop_consensus::license::coinbase::check;
use iop_consensus::params::Params;
use iop_tests::chain::{admin_action, devnet_like, easy_devnet, generate, license_address, locked_spend};
use iop_tests::net::{Meeting, Peered};
use iop_tests::program::{Program, free_port, run, wait_for};
use iop_tests::rpc::Rpc;
use iop_tests::stand::{Network, Node, devnet_keys, new_address};
use serde_json::{Value, json};

/// Everything here takes seconds; a loaded machine may need longer.
const SOON: Duration = Duration::from_secs(60);
/// Long enough for many blocks to be found, if there were any work.
const A_WHILE: Duration = Duration::from_secs(2);

/// A chain's folder, its keys, and its nodes, which are not connected at first.
struct Stand {
    dir: tempfile::TempDir,
    network: Network,
    params: Params,
    nodes: Vec<Peered>,
    admin: PathBuf,
    licenses: [PathBuf; 3],
}

impl Stand {
    /// Blocks take about 2^16 hashes.
    fn new(name: &str, nodes: usize, more: &str) -> Self {
        Self::on(&easy_devnet(name, more), nodes)
    }

    fn on(network: &str, nodes: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let network = Network::file(dir.path(), network);
        let [admin, licenses @ ..] = devnet_keys(dir.path());
        let node = |index: usize| Peered::start(&dir.path().join(index.to_string()), &network, &[]);
        let nodes = (0..nodes).map(node).collect();
        Self { params: network.params(), nodes, network, admin, licenses, dir }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn rpc(&self) -> &Rpc {
        &self.nodes[0].node.rpc
    }

    fn cookie(&self, index: usize) -> PathBuf {
        self.path().join(index.to_string()).join("node/.cookie")
    }

    fn spool(&self) -> PathBuf {
        self.path().join("miner/found")
    }

    fn flags(&self, licenses: &[PathBuf]) -> Vec<String> {
        let mut flags: Vec<String> =
            ["solo", "--threads", "1", "--submit-retry", "1"].map(str::to_owned).into();
        for (index, at) in self.nodes.iter().enumerate() {
            flags.extend(["--node".into(), format!("http://127.0.0.1:{}", at.node.port)]);
            flags.extend(["--node-cookie".into(), self.cookie(index).display().to_string()]);
        }
        for license in licenses {
            flags.extend(["--license-key-file".into(), license.display().to_string()]);
        }
        flags.extend(["--datadir".into(), self.path().join("miner").display().to_string()]);
        flags.extend(self.network.flags());
        flags
    }

    /// A miner that uses all the nodes.
    fn mine(&self, licenses: &[PathBuf], more: &[&str]) -> Program {
        let mut flags = self.flags(licenses);
        flags.extend(more.iter().map(|flag| (*flag).to_owned()));
        Program::start("iop-miner", self.path(), flags).unwrap()
    }

    fn license(&self, index: usize) -> String {
        license_address(&self.licenses[index], &self.params)
    }

    fn block(&self, node: usize, height: u64) -> Block {
        block_at(&self.nodes[node].node.rpc, height)
    }

    /// Kills the only node (SIGKILL) at a moment after which the miner finds a block; returns the block's hash. If the
    /// node died between a block and the next template, there is nothing to find, and it is tried again.
    fn kill_before_a_find(&mut self, miner: &Program) -> String {
        for _ in 0..20 {
            signal(&self.nodes[0], "-KILL");
            // Files of answered blocks are removed by then.
            std::thread::sleep(Duration::from_secs(1));
            if let Some(hash) = spooled(&self.spool()).pop() {
                return hash;
            }
            self.start_again(0);
            let height = self.rpc().height();
            wait_for_height(self.rpc(), height + 2, miner);
        }
        panic!("no block on disk:\n{}", story(miner))
    }

    /// Restarts a node that has ended, with the same folder and port.
    fn start_again(&mut self, index: usize) {
        let dir = self.path().join(index.to_string());
        let Peered { node, address } = self.nodes.remove(index);
        let port = node.port;
        drop(node);
        let flags = ["--p2p-bind".to_owned(), address.to_string()];
        let node = Node::start_with(&dir, &self.network, port, &flags).unwrap();
        self.nodes.insert(index, Peered { node, address });
    }
}

fn block_at(rpc: &Rpc, height: u64) -> Block {
    let hash = rpc.call("getblockhash", json!([height]));
    deserialize_hex(rpc.call("getblock", json!([hash, 0])).as_str().unwrap()).unwrap()
}

fn wait_for_height(rpc: &Rpc, height: u64, miner: &Program) {
    let reached = wait_for(SOON, || (rpc.height() >= height).then_some(()));
    assert!(reached.is_some(), "height {}, {height} expected; log:\n{}", rpc.height(), story(miner));
}

fn wait_for_log(miner: &Program, text: &str) {
    let logged = wait_for(SOON, || miner.log().contains(text).then_some(()));
    assert!(logged.is_some(), "'{text}' expected in:\n{}", story(miner));
}

/// The log without the lines about blocks.
fn story(miner: &Program) -> String {
    let log = miner.log();
    let telling = log.lines().filter(|line| !line.contains("INFO block") && !line.contains("INFO new tip"));
    telling.collect::<Vec<_>>().join("\n")
}

fn times(log: &str, text: &str) -> usize {
    log.lines().filter(|line| line.contains(text)).count()
}

fn signal(at: &Peered, name: &str) {
    let id = at.node.program.id().to_string();
    assert!(Command::new("kill").args([name, &id]).status().unwrap().success());
}

/// The hashes of the blocks in a spool.
fn spooled(spool: &Path) -> Vec<String> {
    let files =
        std::fs::read_dir(spool).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
    let hash = |name: String| Some(name.strip_suffix(".json")?.split_once('-')?.1.to_owned());
    files.filter_map(hash).collect()
}

fn spooled_file(spool: &Path, hash: &str) -> PathBuf {
    let files = std::fs::read_dir(spool).unwrap().map(|file| file.unwrap().path());
    files.into_iter().find(|path| path.to_str().unwrap().contains(hash)).unwrap()
}

fn is_active(at: &Peered, hash: &str) -> bool {
    let header = at.node.rpc.try_call("getblockheader", json!([hash]));
    header.is_ok_and(|header| header["confirmations"].as_i64().unwrap() > 0)
}

#[test]
fn every_block_is_licensed_pays_the_payee_and_holds_what_waits_in_the_mempool() {
    let stand = Stand::new("payee", 1, "");
    generate(stand.rpc(), 105, &stand.admin, &stand.params);
    let spend = locked_spend(stand.rpc(), &stand.admin, 1, 1, &stand.params);
    let txid = stand.rpc().call("sendrawtransaction", json!([spend, true]));
    let payee = new_address(stand.path(), &stand.network);
    let miner = stand.mine(&stand.licenses[..1], &["--payout", &payee]);
    wait_for_height(stand.rpc(), 115, &miner);
    let held = (106..=stand.rpc().height()).any(|height| {
        let txids: Vec<String> =
            stand.block(0, height).txdata.iter().map(|tx| tx.compute_txid().to_string()).collect();
        txids.iter().any(|id| json!(id) == txid)
    });
    assert!(held, "{txid} is in no block");
    assert!(miner.stop().success(), "SIGTERM ends it with status 0");
    let payee = Address::parse(&payee, &stand.params.prefixes).unwrap();
    let mut found = 0;
    for height in 106..=stand.rpc().height() {
        let block = stand.block(0, height);
        let coinbase = &block.txdata[0];
        assert_eq!(check(coinbase).unwrap().to_base58(&stand.params.prefixes), stand.license(0));
        assert_eq!(coinbase.output[0].script_pubkey, payee.script_pubkey());
        let paid: Vec<u64> =
            coinbase.output.iter().map(|out| out.value.to_sat()).filter(|value| *value > 0).collect();
        assert_eq!(paid.len(), 1, "all of it to one");
        let subsidy = 50 * iop_consensus::COIN;
        assert!(
            if block.txdata.len() == 1 { paid[0] == subsidy } else { paid[0] > subsidy },
            "fees are paid out too"
        );
        found += 1;
    }
    let log = std::fs::read_to_string(stand.path().join("iop-miner.log")).unwrap();
    // Every find was accepted: none is submitted on a parent that already has one.
    assert!(times(&log, "block accepted") >= found, "{log}");
    assert_eq!(times(&log, "block refused"), 0, "{log}");
    assert!(spooled(&stand.spool()).is_empty(), "answered blocks are forgotten");
}

#[test]
fn without_a_payee_the_license_that_signs_is_paid_and_licenses_take_turns() {
    let stand = Stand::new("turns", 1, "");
    let miner = stand.mine(&stand.licenses[..2], &[]);
    wait_for_height(stand.rpc(), 8, &miner);
    let signed: Vec<String> = (1..=8)
        .map(|height| {
            let coinbase = stand.block(0, height).txdata.remove(0);
            let license = check(&coinbase).unwrap();
            assert_eq!(coinbase.output[0].script_pubkey, license.script_pubkey());
            license.to_base58(&stand.params.prefixes)
        })
        .collect();
    for license in [0, 1] {
        assert_eq!(signed.iter().filter(|name| **name == stand.license(license)).count(), 4, "{signed:?}");
    }
}

#[test]
fn at_the_cap_it_waits_says_until_which_height_and_goes_on_when_the_cap_is_raised() {
    // With a cap of 0 a license may mine until it has more than 0 blocks in the window: once.
    let stand = Stand::new("capped", 1, "initial_cap_factor = 0");
    let miner = stand.mine(&stand.licenses[..1], &[]);
    // Its block 1 leaves the window with block 2017.
    wait_for_log(&miner, "waiting for height 2018");
    std::thread::sleep(A_WHILE);
    assert_eq!(stand.rpc().height(), 1, "nothing is mined in vain");
    // Blocks of others change nothing, and do not cause the message again.
    generate(stand.rpc(), 101, &stand.admin, &stand.params);
    let someone = license_address(&stand.admin, &stand.params);
    admin_action(stand.rpc(), &stand.admin, 2, "enable_cap:1", &[someone], &stand.params);
    assert_eq!(stand.rpc().height(), 102);
    generate(stand.rpc(), 1, &stand.admin, &stand.params);
    wait_for_height(stand.rpc(), 108, &miner);
    let log = miner.log();
    assert_eq!(times(&log, "waiting for height"), 1, "{log}");
    assert!(log.contains("a license may mine again") && times(&log, "block refused") == 0, "{log}");
}

#[test]
fn a_license_that_is_removed_waits_and_one_that_is_added_starts() {
    let stand = Stand::new("removed", 1, "");
    generate(stand.rpc(), 105, &stand.admin, &stand.params);
    let license = [stand.license(0)];
    admin_action(stand.rpc(), &stand.admin, 1, "rem", &license, &stand.params);
    generate(stand.rpc(), 1, &stand.admin, &stand.params);
    let miner = stand.mine(&stand.licenses[..1], &[]);
    wait_for_log(&miner, "is not whitelisted");
    assert!(miner.log().contains(&license[0]));
    std::thread::sleep(A_WHILE);
    assert_eq!(stand.rpc().height(), 106);
    admin_action(stand.rpc(), &stand.admin, 2, "add", &license, &stand.params);
    generate(stand.rpc(), 1, &stand.admin, &stand.params);
    wait_for_height(stand.rpc(), 112, &miner);
    // It is removed again, in a block that the license mines itself.
    let txid = admin_action(stand.rpc(), &stand.admin, 3, "rem", &license, &stand.params);
    let gone = wait_for(SOON, || (stand.rpc().license(&license[0])["whitelisted"] == false).then_some(()));
    assert!(gone.is_some(), "{}", story(&miner));
    let waits = wait_for(SOON, || (times(&miner.log(), "is not whitelisted") == 2).then_some(()));
    assert!(waits.is_some(), "{}", story(&miner));
    std::thread::sleep(A_WHILE);
    let last = stand.block(0, stand.rpc().height());
    assert_eq!(last.txdata[1].compute_txid().to_string(), txid, "the block that removed it is the last");
}

#[test]
fn a_node_that_dies_lags_or_forks_is_left_and_come_back_to() {
    // Slow enough that not every moment has a block: about 2^20 hashes. The nodes are not connected: they only share
    // what the miner sends to both.
    let mut stand = Stand::on(&devnet_like("lost", "00000fff", ""), 2);
    let miner = stand.mine(&stand.licenses, &[]);
    wait_for_height(&stand.nodes[1].node.rpc, 3, &miner);
    signal(&stand.nodes[0], "-KILL");
    wait_for_log(&miner, "node gives no work");
    let height = stand.nodes[1].node.rpc.height();
    wait_for_height(&stand.nodes[1].node.rpc, height + 3, &miner);
    // It comes back alone and lags, as it lacks the blocks mined meanwhile.
    stand.start_again(0);
    wait_for_log(&miner, "node is left until it is right: ");
    let height = stand.nodes[1].node.rpc.height();
    wait_for_height(&stand.nodes[1].node.rpc, height + 1, &miner);
    stand.nodes[0].meet(&stand.nodes[1]);
    wait_for_log(&miner, "node has caught up");
    // Now the other one hangs, and the first is used again.
    signal(&stand.nodes[1], "-STOP");
    let height = stand.rpc().height();
    wait_for_height(stand.rpc(), height + 3, &miner);
    signal(&stand.nodes[1], "-CONT");
    let agreed = wait_for(SOON, || (stand.nodes[1].node.rpc.height() > height).then_some(()));
    assert!(agreed.is_some(), "{}", story(&miner));
    assert_eq!(times(&miner.log(), "block refused"), 0, "{}", story(&miner));
}

#[test]
fn a_block_found_while_the_node_restarts_is_in_the_chain_afterwards() {
    let mut stand = Stand::new("restart", 1, "");
    let miner = stand.mine(&stand.licenses[..1], &[]);
    wait_for_height(stand.rpc(), 5, &miner);
    for _ in 0..3 {
        // Work continues while the node is away: the next find cannot be submitted.
        let hash = stand.kill_before_a_find(&miner);
        assert_eq!(spooled(&stand.spool()), std::slice::from_ref(&hash), "one at a time");
        stand.start_again(0);
        let arrived = wait_for(SOON, || is_active(&stand.nodes[0], &hash).then_some(()));
        assert!(arrived.is_some(), "{hash} is not in the chain:\n{}", story(&miner));
        let height = stand.rpc().height();
        wait_for_height(stand.rpc(), height + 3, &miner);
    }
    assert_eq!(times(&miner.log(), "block refused"), 0, "{}", story(&miner));
}

#[test]
fn a_miner_that_is_killed_submits_its_block_at_its_next_start() {
    let mut stand = Stand::new("killed", 1, "");
    let miner = stand.mine(&stand.licenses[..1], &[]);
    wait_for_height(stand.rpc(), 5, &miner);
    let hash = stand.kill_before_a_find(&miner);
    miner.kill();
    stand.start_again(0);
    let miner = stand.mine(&stand.licenses[..1], &[]);
    wait_for_log(&miner, "submitting a block of an earlier run again");
    assert!(miner.log().lines().any(|line| line.contains("of an earlier run") && line.contains(&hash)));
    let arrived = wait_for(SOON, || is_active(&stand.nodes[0], &hash).then_some(()));
    assert!(arrived.is_some(), "{hash} is not in the chain:\n{}", story(&miner));
    let forgotten = wait_for(SOON, || (!spooled(&stand.spool()).contains(&hash)).then_some(()));
    assert!(forgotten.is_some(), "{}", story(&miner));
    let height = stand.rpc().height();
    wait_for_height(stand.rpc(), height + 3, &miner);
}

/// A block of an earlier run that the node refuses before it is used, while another node that could accept it is gone
/// for good.
#[test]
fn a_block_that_one_node_refused_and_another_never_answers_does_not_stop_the_mining() {
    let mut stand = Stand::new("refused", 1, "");
    let miner = stand.mine(&stand.licenses[..1], &[]);
    wait_for_height(stand.rpc(), 3, &miner);
    let hash = stand.kill_before_a_find(&miner);
    miner.kill();
    let old = spooled_file(&stand.spool(), &hash);
    let mut found: Value = serde_json::from_slice(&std::fs::read(&old).unwrap()).unwrap();
    let mut block: Block = deserialize_hex(found["block"].as_str().unwrap()).unwrap();
    while block.header.validate_pow(block.header.target()).is_ok() {
        block.header.nonce = block.header.nonce.wrapping_add(1);
    }
    let hash = block.block_hash().to_string();
    (found["hash"], found["block"]) = (json!(hash), json!(serialize_hex(&block)));
    std::fs::write(stand.spool().join(format!("9-{hash}.json")), found.to_string()).unwrap();
    std::fs::remove_file(old).unwrap();
    stand.start_again(0);
    let height = stand.rpc().height();
    let away = format!("http://user:password@127.0.0.1:{}", free_port());
    let miner = stand.mine(&stand.licenses[..1], &["--node", &away]);
    wait_for_log(&miner, "block refused: ");
    wait_for_height(stand.rpc(), height + 3, &miner);
}

#[test]
fn a_second_miner_in_the_same_folder_a_missing_node_and_a_late_one_are_named() {
    let stand = Stand::new("late", 1, "");
    let missing = free_port();
    let mut flags = stand.flags(&stand.licenses[..1]);
    flags[6] = format!("http://127.0.0.1:{missing}");
    let late = stand.path().join("late");
    std::fs::create_dir_all(&late).unwrap();
    flags[8] = late.join("node/.cookie").display().to_string();
    let mut miner = Program::start("iop-miner", stand.path(), &flags).unwrap();
    wait_for_log(&miner, "node gives no work, waiting for it: cookie file");
    assert!(miner.is_running(), "a node may come later");
    let (status, _, stderr) = run("iop-miner", stand.flags(&stand.licenses[..1]));
    assert_eq!(status, Some(1), "{stderr}");
    assert!(stderr.contains("is in use by another iop-miner"), "{stderr}");
    let node = Node::start_on(&late, &stand.network, missing).unwrap();
    wait_for_height(&node.rpc, 2, &miner);
}

/// Runs a miner that must end with this status and an error line that contains all these words.
fn complains(flags: &[String], status: i32, words: &[&str]) {
    let (found, stdout, stderr) = run("iop-miner", flags);
    assert_eq!((found, &*stdout), (Some(status), ""), "{flags:?}: {stderr}");
    // Log lines begin with the time; the error is the rest.
    let complaint: Vec<&str> =
        stderr.lines().filter(|line| !line.contains("INFO") && !line.is_empty()).collect();
    assert_eq!(complaint.len(), 1, "{flags:?}: one line expected:\n{stderr}");
    for word in words {
        assert!(complaint[0].contains(word), "{flags:?}: '{word}' expected in: {}", complaint[0]);
    }
}

#[test]
fn wrong_keys_addresses_networks_and_cookies_are_named_in_one_line() {
    let stand = Stand::new("wrong", 1, "");
    let right = stand.flags(&stand.licenses[..1]);
    let at = |flag: &str| right.iter().position(|found| found == flag).unwrap();
    let with = |place: usize, value: &str| {
        let mut flags = right.clone();
        flags[place] = value.to_owned();
        flags
    };
    let and = |more: &[&str]| {
        [&right[..], &more.iter().map(|flag| (*flag).to_owned()).collect::<Vec<_>>()].concat()
    };
    let (network, cookie, key) = (at("--network-file"), at("--node-cookie"), at("--license-key-file"));
    // Another network's key, address, node and file.
    let mut main = right.clone();
    main[network] = "--network".to_owned();
    main[network + 1] = "main".to_owned();
    complains(&main, 2, &["license-1.wif", "network main", "49", "76"]);
    let of_main = "pGNcLNCavQLGXwXkVDwoHPCuQUBoXzJtPh";
    complains(&and(&["--payout", of_main]), 2, &["payout", of_main, "network wrong"]);
    let wif = std::fs::read_to_string(&stand.licenses[0]).unwrap();
    complains(&and(&["--payout", wif.trim()]), 2, &["payout: a key where an address is expected"]);
    let mut regtest = main.clone();
    regtest[network + 1] = "regtest".to_owned();
    complains(&regtest, 1, &["node 127.0.0.1", "'wrong'", "'regtest'", "expected"]);
    complains(&with(network + 1, "/no/such/file"), 2, &["network file /no/such/file"]);
    // Keys and cookies.
    complains(&with(key + 1, "/no/such.wif"), 2, &["license key file /no/such.wif"]);
    complains(&with(cookie + 1, stand.path().to_str().unwrap()), 2, &["cookie file", "regular file"]);
    let other = stand.path().join("other.cookie");
    std::fs::write(&other, "__cookie__:0000").unwrap();
    complains(&with(cookie + 1, other.to_str().unwrap()), 1, &["node 127.0.0.1", "credentials (HTTP 401)"]);
    // Flags.
    complains(&and(&["--node-cookie", "/x"]), 2, &["node-cookie /x belongs to no node"]);
    complains(&and(&["--node", "https://h"]), 2, &["http://"]);
    complains(&with(at("--submit-retry") + 1, "0"), 2, &["--submit-retry 0", "0.1 to 600"]);
    let without: Vec<String> = [&right[..key], &right[key + 2..]].concat();
    complains(&without, 2, &["no license key is named", "--license-key-file"]);
}
