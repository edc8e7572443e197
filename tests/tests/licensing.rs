//! Licensing from outside: real node, real pool, real miner, and admin transactions signed by the `bitcoin` crate.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::time::Duration;

use iop_consensus::params::Params;
use iop_tests::chain::{admin_action, easy_devnet, generate, license_address, wif};
use iop_tests::program::{Program, wait_for};
use iop_tests::rpc::{Rpc, RpcFailure};
use iop_tests::stand::{Network, Node, Pool, devnet_keys, new_address, start_miner};
use serde_json::{Value, json};

/// Blocks of these chains take milliseconds; a loaded machine may still need a while for some of them.
const SOON: Duration = Duration::from_secs(60);
/// Long enough for many blocks to be found, if there were any work.
const A_WHILE: Duration = Duration::from_secs(2);

struct Chain {
    dir: tempfile::TempDir,
    network: Network,
    params: Params,
    node: Node,
    admin: PathBuf,
    licenses: [PathBuf; 3],
}

impl Chain {
    fn start(name: &str, more: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let network = Network::file(dir.path(), &easy_devnet(name, more));
        let [admin, one, two, three] = devnet_keys(dir.path());
        let node = Node::start(dir.path(), &network).unwrap();
        Self { params: network.params(), network, node, admin, licenses: [one, two, three], dir }
    }

    fn rpc(&self) -> &Rpc {
        &self.node.rpc
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn address(&self, key: &Path) -> String {
        license_address(key, &self.params)
    }

    /// A pool with these licenses, and a miner connected to it.
    fn mine_with(&self, keys: &[PathBuf]) -> (Pool, Program) {
        let pool = Pool::start(self.path(), &self.network, self.node.port, keys).unwrap();
        let user = format!("{}.test", new_address(self.path(), &self.network));
        let miner = start_miner(self.path(), &pool.stratum, &user).unwrap();
        (pool, miner)
    }

    fn wait_for_height(&self, height: u64) {
        let reached = wait_for(SOON, || (self.rpc().height() >= height).then_some(()));
        assert!(
            reached.is_some(),
            "height {} after {} s, {height} expected",
            self.rpc().height(),
            SOON.as_secs()
        );
    }

    fn wait_for_state(&self, pool: &Pool, state: &str) -> Value {
        let reached = wait_for(SOON, || Some(pool.api("status")).filter(|status| status["state"] == state));
        reached.unwrap_or_else(|| panic!("state is {}, {state} expected", pool.api("status")))
    }

    /// The licenses of all blocks above genesis, oldest first, read from the coinbases.
    fn licenses_of_blocks(&self) -> Vec<String> {
        (1..=self.rpc().height())
            .map(|height| {
                let hash = self.rpc().call("getblockhash", json!([height]));
                let raw = self.rpc().call("getblock", json!([hash, 0]));
                let block: bitcoin::Block =
                    bitcoin::consensus::encode::deserialize_hex(raw.as_str().unwrap()).unwrap();
                let script = block.txdata[0].input[0].script_sig.clone();
                let key =
                    script.instructions().last().unwrap().unwrap().push_bytes().unwrap().as_bytes().to_vec();
                iop_consensus::address::Address::of_pubkey(&key).to_base58(&self.params.prefixes)
            })
            .collect()
    }
}

fn refusal(rpc: &Rpc, key: &Path, address: &str) -> String {
    match rpc.try_call("generatetoaddress", json!([1, address, wif(key)])) {
        Err(RpcFailure::Answer { message, .. }) => message,
        other => panic!("a refusal expected, not {other:?}"),
    }
}

#[test]
fn an_unlicensed_keys_block_is_refused_and_its_pool_gives_out_no_work() {
    let chain = Chain::start("unlicensed", "");
    let address = chain.address(&chain.admin);
    let stranger = chain.path().join("stranger.wif");
    let flags =
        [&["key", "new", "--out", stranger.to_str().unwrap()].map(str::to_owned)[..], &chain.network.flags()];
    assert_eq!(iop_tests::program::run("iop-node", flags.concat()).0, Some(0));
    assert!(refusal(chain.rpc(), &stranger, &address).contains(": bad-CB-miner ("));
    let unsigned = chain.rpc().try_call("generatetoaddress", json!([1, address]));
    assert!(matches!(unsigned, Err(RpcFailure::Answer { code: -8, .. })), "{unsigned:?}");

    let (pool, _miner) = chain.mine_with(std::slice::from_ref(&stranger));
    let status = chain.wait_for_state(&pool, "no_license");
    assert!(status["job"].is_null(), "{status}");
    std::thread::sleep(A_WHILE);
    assert_eq!(chain.rpc().height(), 0);
}

#[test]
fn a_license_at_its_cap_is_skipped_the_next_takes_over_and_no_work_is_given_when_all_are() {
    // With a cap of 0 a license may mine until it has more than 0 blocks in the window: once.
    let chain = Chain::start("capped", "initial_cap_factor = 0");
    let (pool, _miner) = chain.mine_with(&chain.licenses);
    let status = chain.wait_for_state(&pool, "no_license");
    std::thread::sleep(A_WHILE);
    assert_eq!(chain.rpc().height(), 3, "one block for each license, and none after");
    let mut miners = chain.licenses_of_blocks();
    miners.sort();
    let mut expected: Vec<String> = chain.licenses.iter().map(|key| chain.address(key)).collect();
    expected.sort();
    assert_eq!(miners, expected);
    // The first of the three blocks leaves the window with block 2017; after that its license may mine.
    assert_eq!(status["resumes_from_height"], 2018, "{status}");
    assert_eq!(chain.rpc().license(&expected[0])["remaining"], 0);
    assert!(refusal(chain.rpc(), &chain.licenses[0], &expected[0]).contains(": bad-CAP-miner ("));

    // The admin, who has no cap, extends the chain and raises the cap: 2016 / 4.
    generate(chain.rpc(), 101, &chain.admin, &chain.params);
    let someone = chain.address(&chain.admin);
    admin_action(chain.rpc(), &chain.admin, 4, "enable_cap:1", &[someone], &chain.params);
    let height = chain.rpc().height();
    generate(chain.rpc(), 1, &chain.admin, &chain.params);
    assert_eq!(chain.rpc().license(&expected[0])["cap"], 504);
    chain.wait_for_height(height + 5);
}

#[test]
fn a_removed_license_stops_at_the_next_block_and_an_added_one_starts() {
    let chain = Chain::start("removed", "");
    generate(chain.rpc(), 105, &chain.admin, &chain.params);
    let license = chain.address(&chain.licenses[0]);
    let (pool, _miner) = chain.mine_with(&chain.licenses[..1]);
    chain.wait_for_height(110);

    let txid =
        admin_action(chain.rpc(), &chain.admin, 1, "rem", std::slice::from_ref(&license), &chain.params);
    let status = chain.wait_for_state(&pool, "no_license");
    assert!(status["reason"].as_str().unwrap().len() > 10, "{status}");
    std::thread::sleep(A_WHILE);
    let tip = chain.rpc().height();
    let last = chain.rpc().call("getblockhash", json!([tip]));
    let block = chain.rpc().call("getblock", json!([last]));
    assert_eq!(block["tx"][1], json!(txid), "the block that removed the license is the last");
    assert_eq!(chain.licenses_of_blocks().last(), Some(&license), "and the license mined it itself");
    assert_eq!(chain.rpc().license(&license)["whitelisted"], false);
    assert!(refusal(chain.rpc(), &chain.licenses[0], &license).contains(": bad-CB-miner ("));

    admin_action(chain.rpc(), &chain.admin, 2, "add", std::slice::from_ref(&license), &chain.params);
    generate(chain.rpc(), 1, &chain.admin, &chain.params);
    chain.wait_for_height(tip + 5);
    assert_eq!(chain.licenses_of_blocks().last(), Some(&license));
}

/// The vulnerability in the security notes: an output whose spender may push any key yields an admin action without the
/// admin's signature.
#[test]
fn an_admin_key_pushed_by_anyone_acts_and_is_logged_as_unsigned() {
    let chain = Chain::start("forged", "");
    generate(chain.rpc(), 101, &chain.licenses[0], &chain.params);
    let victim = chain.address(&chain.licenses[1]);
    let txid = iop_tests::chain::forged_removal(
        chain.rpc(),
        &chain.licenses[0],
        &chain.params.license.admin_pubkeys[0],
        &victim,
        &chain.params,
    );
    generate(chain.rpc(), 1, &chain.licenses[0], &chain.params);
    assert_eq!(chain.rpc().license(&victim)["whitelisted"], false);
    let log = chain.node.program.log();
    let line = log.lines().find(|line| line.contains("admin action that no admin signed"));
    assert!(line.is_some_and(|line| line.contains(&txid)), "{log}");
}

/// Undone exactly, whereas IoP Core nodes may be left with other licenses.
#[test]
fn admin_actions_are_taken_back_with_their_block_and_the_log_says_so() {
    let chain = Chain::start("taken-back", "");
    generate(chain.rpc(), 101, &chain.licenses[0], &chain.params);
    let removed = chain.address(&chain.licenses[1]);
    let admin = &chain.params.license.admin_pubkeys[0];
    iop_tests::chain::forged_removal(chain.rpc(), &chain.licenses[0], admin, &removed, &chain.params);
    generate(chain.rpc(), 2, &chain.licenses[0], &chain.params);
    assert_eq!(chain.rpc().license(&removed)["whitelisted"], false);
    let hashes: Vec<Value> =
        [102, 103].iter().map(|height| chain.rpc().call("getblockhash", json!([height]))).collect();
    chain.rpc().call("invalidateblock", json!([hashes[0]]));
    assert_eq!(chain.rpc().license(&removed)["whitelisted"], true);
    let log = chain.node.program.log();
    let lines: Vec<&str> =
        log.lines().filter(|line| line.contains("a block with admin actions was taken back")).collect();
    let [line] = lines[..] else { panic!("one line for one such block: {log}") };
    assert!(line.contains(hashes[0].as_str().unwrap()) && line.contains("height=102"), "{line}");
}
