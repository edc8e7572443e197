//! Payouts from outside: the chain's coinbases pay members for what they did.

#![allow(clippy::unwrap_used)]

mod strays;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use iop_consensus::address::Address;
use iop_consensus::params::Params;
use iop_tests::chain::devnet_like;
use iop_tests::program::{Program, free_port, run, run_into_full, wait_for};
use iop_tests::stand::{Network, Node, Pool, devnet_keys, new_address, start_miner};
use serde_json::{Value, json};

/// Blocks of about 2^22 hashes: a tenth of a second on one core.
const QUICK: &str = "000003ff";
const SOON: Duration = Duration::from_secs(60);

struct Stand {
    dir: tempfile::TempDir,
    network: Network,
    params: Params,
    node: Node,
    licenses: Vec<PathBuf>,
    config: PathBuf,
    stratum: String,
}

impl Stand {
    fn start(network: &str, config: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let network = Network::file(dir.path(), network);
        let [_, licenses @ ..] = devnet_keys(dir.path());
        let node = Node::start(dir.path(), &network).unwrap();
        let path = dir.path().join("pool.toml");
        std::fs::write(&path, config).unwrap();
        let stratum = format!("127.0.0.1:{}", free_port());
        let params = network.params();
        Self { dir, params, network, node, licenses: licenses.into(), config: path, stratum }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn pool(&self) -> Pool {
        let more = ["--config".to_owned(), self.config.display().to_string()];
        Pool::start_with(self.path(), &self.network, self.node.port, &self.licenses, &self.stratum, &more)
            .unwrap()
    }

    fn miner(&self, address: &str) -> Program {
        start_miner(self.path(), &self.stratum, &format!("{address}.rig")).unwrap()
    }

    fn wait_for_height(&self, height: u64) {
        let reached = wait_for(SOON, || (self.node.rpc.height() >= height).then_some(()));
        assert!(reached.is_some(), "height is {}, {height} expected", self.node.rpc.height());
    }

    /// Runs `iop-pool COMMAND` on the pool's folder.
    fn books(&self, command: &str, more: &[&str]) -> (Option<i32>, String, String) {
        run("iop-pool", self.books_args(command, more))
    }

    fn books_args(&self, command: &str, more: &[&str]) -> Vec<String> {
        let mut args =
            vec![command.to_owned(), "--datadir".to_owned(), self.path().join("pool").display().to_string()];
        args.extend(self.network.flags());
        args.extend(more.iter().map(|&flag| flag.to_owned()));
        args
    }

    /// The audit, compared with the node; returns status, stdout, stderr.
    fn compare(&self) -> (Option<i32>, String, String) {
        let node = format!("http://127.0.0.1:{}", self.node.port);
        let cookie = self.node.datadir.join(".cookie").display().to_string();
        self.books("audit", &["--json", "--node", &node, "--node-cookie", &cookie])
    }

    /// An audit without mistakes.
    fn audit(&self) -> Value {
        let (status, out, err) = self.compare();
        assert_eq!(status, Some(0), "{out}\n{err}");
        serde_json::from_str(&out).unwrap()
    }

    /// The outputs of the coinbase at a height, by address, in order.
    fn coinbase(&self, height: u64) -> Vec<(String, u64)> {
        let hash = self.node.rpc.call("getblockhash", json!([height]));
        let raw = self.node.rpc.call("getblock", json!([hash, 0]));
        let block: bitcoin::Block =
            bitcoin::consensus::encode::deserialize_hex(raw.as_str().unwrap()).unwrap();
        let outputs = block.txdata[0].output.iter();
        let paid = outputs.filter_map(|output| {
            let address = Address::from_script(&output.script_pubkey)?;
            Some((address.to_base58(&self.params.prefixes), output.value.to_sat()))
        });
        paid.collect()
    }
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no number"))
}

/// Blocks come faster here than the disk stores them; each must still be based on the one below it.
#[test]
fn every_block_in_the_chain_stands_on_the_one_below_in_the_ledger_too() {
    let stand = Stand::start(&devnet_like("floods", QUICK, ""), "");
    let pool = stand.pool();
    let member = new_address(stand.path(), &stand.network);
    let miner = stand.miner(&member);
    stand.wait_for_height(40);
    miner.stop();
    let settled = wait_for(SOON, || {
        let payouts = pool.api("payouts");
        let in_chain: BTreeSet<(u64, String)> = (payouts["blocks"].as_array().unwrap().iter())
            .filter(|block| block["state"] == "immature" || block["state"] == "mature")
            .map(|block| (number(&block["height"]), block["hash"].as_str().unwrap().to_owned()))
            .collect();
        let hash = |height| stand.node.rpc.call("getblockhash", json!([height])).as_str().unwrap().to_owned();
        let chain: BTreeSet<_> = (1..=stand.node.rpc.height()).map(|height| (height, hash(height))).collect();
        let own = chain.iter().filter(|block| in_chain.contains(block)).count();
        (own == chain.len()).then_some(())
    });
    assert!(settled.is_some(), "{}", pool.api("payouts"));
}

#[test]
fn members_are_paid_in_the_coinbase_and_the_books_agree_with_the_chain() {
    let chapter = new_address(tempfile::tempdir().unwrap().path(), &Network::Named("devnet"));
    let config = format!("fee = 0.02\npayout_address = \"{chapter}\"\npplns_window = 20.0\n");
    let stand = Stand::start(&devnet_like("members", QUICK, ""), &config);
    let pool = stand.pool();
    let members = [0, 1].map(|_| new_address(stand.path(), &stand.network));
    let miners = members.each_ref().map(|member| stand.miner(member));
    stand.wait_for_height(12);
    let (low, high) = (8, 12);
    for height in low..=high {
        let paid = stand.coinbase(height);
        let reward: u64 = paid.iter().map(|(_, amount)| amount).sum();
        assert_eq!(paid.last().unwrap().0, chapter, "{paid:?}");
        assert_eq!(paid.last().unwrap().1, reward / 50, "two in a hundred, as nothing is carried");
        assert!(paid[..paid.len() - 1].iter().all(|(payee, _)| members.contains(payee)), "{paid:?}");
    }
    let both = (low..=high).flat_map(|height| stand.coinbase(height)).map(|(payee, _)| payee);
    assert!(both.collect::<BTreeSet<_>>().len() == 3, "both have worked");
    // A member's account by address matches the chain.
    let account = pool.api(&format!("payouts?address={}", members[0]));
    assert!(number(&account["earned"]) > 0 && account["window_part"].as_f64().unwrap() > 0.0, "{account}");
    let shown = pool.api("payouts");
    let newest = &shown["blocks"][0];
    assert!(newest["outputs"].as_array().unwrap().iter().any(|output| output["address"] == chapter.as_str()));
    let csv = minreq::get(format!("http://{}/api/v1/payouts?format=csv", pool.api)).send().unwrap();
    let lines: Vec<&str> = csv.as_str().unwrap().lines().collect();
    assert!(lines[0].ends_with(",role,reward,fee") && lines.last().unwrap().starts_with("1,"), "{lines:?}");
    let is_the_chapters = |line: &&&str| line.contains(",chapter,");
    assert!(lines.iter().filter(is_the_chapters).all(|line| line.contains(&chapter)), "{lines:?}");
    for wrong in ["payouts?address=nobody", "payouts?format=xml", "payouts?x"] {
        let answer = minreq::get(format!("http://{}/api/v1/{wrong}", pool.api)).send().unwrap();
        assert_eq!(answer.status_code, 400, "{wrong}");
        assert!(answer.as_str().unwrap().starts_with("{\"error\":"), "{wrong}");
    }
    // The audit also works while the pool runs.
    assert!(number(&stand.audit()["shares"]) > 0);
    for miner in miners {
        miner.stop();
    }
    assert_eq!(pool.program.stop().code(), Some(0));
    let report = stand.audit();
    // The last template may build on a block or two below the tip.
    assert!(number(&report["in_chain"]) >= 9, "{report}");
    assert_eq!(report["compared"], report["blocks"], "every block's coinbase was seen in the node");
    assert_eq!(number(&report["rewards"]), number(&report["paid"]) + number(&report["chapter"]));
    let (status, csv, _) = stand.books("report", &[]);
    assert_eq!(status, Some(0));
    let paid: u64 =
        csv.lines().skip(1).map(|line| line.split(',').nth(5).unwrap().parse::<u64>().unwrap()).sum();
    assert_eq!(paid, number(&report["paid"]), "{csv}");
    let (_, future, _) = stand.books("report", &["--from", "4000000000", "--format", "json"]);
    assert_eq!(future.trim(), "[]");
}

#[test]
fn a_reorganisation_takes_payments_back() {
    let stand = Stand::start(&devnet_like("reorganised", QUICK, ""), "min_payout = 12000000000\n");
    let pool = stand.pool();
    let member = new_address(stand.path(), &stand.network);
    let miner = stand.miner(&member);
    stand.wait_for_height(9);
    let hash = stand.node.rpc.call("getblockhash", json!([6]));
    stand.node.rpc.call("invalidateblock", json!([hash]));
    stand.wait_for_height(14);
    let orphaned = wait_for(SOON, || {
        let shown = pool.api("payouts");
        let blocks = shown["blocks"].as_array().unwrap();
        (blocks.iter().filter(|block| block["state"] == "orphaned").count() >= 4).then_some(())
    });
    assert!(orphaned.is_some(), "{}", pool.api("payouts"));
    miner.stop();
    pool.program.stop();
    let report = stand.audit();
    assert!(number(&report["blocks"]) >= number(&report["in_chain"]) + 4, "{report}");
    assert_eq!(number(&report["chapter"]), number(&report["fees"]) + number(&report["carried"]), "{report}");
    // While no pool runs the first branch wins again: the books lag the chain, and the audit says where.
    while stand.node.rpc.height() >= 6 {
        // Two blocks of one job may have been found at the same time.
        let other = stand.node.rpc.call("getblockhash", json!([6]));
        stand.node.rpc.call("invalidateblock", json!([other]));
    }
    let (status, out, err) = stand.compare();
    assert!(status == Some(1) && err.contains("its chain ends at height 5, the books reach "), "{err}");
    assert_eq!(number(&serde_json::from_str::<Value>(&out).unwrap()["blocks"]), number(&report["blocks"]));
    let moved = |out: &str| serde_json::from_str::<Value>(out).unwrap()["moved"].to_string();
    stand.node.rpc.call("reconsiderblock", json!([hash]));
    stand.wait_for_height(9);
    let (status, out, _) = stand.compare();
    let counted =
        format!("block {} at height 6 in its chain, the book counts it as orphaned", hash.as_str().unwrap());
    assert!(status == Some(0) && moved(&out).contains(&counted), "{out}");
    // The next template puts it right.
    let pool = stand.pool();
    let right = wait_for(SOON, || (stand.audit()["moved"] == json!([])).then_some(()));
    assert!(right.is_some(), "{:?}", stand.compare());
    pool.program.stop();
}

#[test]
fn where_each_mines_alone_the_finder_is_paid() {
    let stand = Stand::start(&devnet_like("alone", QUICK, ""), "payout = \"solo\"\nfee = 0.1\n");
    let pool = stand.pool();
    let members = [0, 1].map(|_| new_address(stand.path(), &stand.network));
    let miners = members.each_ref().map(|member| stand.miner(member));
    stand.wait_for_height(10);
    for miner in miners {
        miner.stop();
    }
    let account = pool.api(&format!("payouts?address={}", members[0]));
    assert_eq!(account["estimate"], 4_500_000_000u64, "of 50 coins: {account}");
    let shown = pool.api("payouts");
    let blocks = shown["blocks"].as_array().unwrap();
    for block in blocks.iter().filter(|block| block["state"] == "immature" || block["state"] == "mature") {
        let finder = block["finder"].as_str().unwrap().trim_end_matches(".rig");
        let (paid, reward) = (stand.coinbase(number(&block["height"])), number(&block["reward"]));
        assert_eq!(paid.len(), 2, "{paid:?}");
        assert_eq!(paid[0], (finder.to_owned(), reward - reward / 10), "{block}");
    }
    pool.program.stop();
    assert!(number(&stand.audit()["compared"]) >= 10);
    // An incomplete report is a failure.
    for (command, more) in [("report", &[][..]), ("report", &["--format", "json"]), ("audit", &["--json"])] {
        let (status, said) = run_into_full("iop-pool", stand.books_args(command, more));
        assert_eq!(status, Some(1), "{command}: {said}");
        assert!(said.contains("stdout cannot be written: No space left on device"), "{command}: {said}");
    }
}

/// Submits as fast as it can until the pool is gone; returns the numbers of shares sent and acknowledged.
fn flood(stratum: &str, user: &str) -> (u64, u64) {
    let mut stream = TcpStream::connect(stratum).unwrap();
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    let calls = json!({"id": "s", "method": "mining.subscribe", "params": []}).to_string()
        + "\n"
        + &json!({"id": "a", "method": "mining.authorize", "params": [user, "d=0.0000000001"]}).to_string()
        + "\n";
    stream.write_all(calls.as_bytes()).unwrap();
    // A suggestion applies from the next job on; the start difficulty is low enough for every hash to count.
    let notify = lines
        .by_ref()
        .map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap())
        .find(|line| line["method"] == "mining.notify");
    let params = notify.unwrap()["params"].clone();
    let acknowledged = Arc::new(AtomicU64::new(0));
    let counting = Arc::clone(&acknowledged);
    let reader = std::thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            let good = line.ends_with("\"result\":true,\"error\":null}") && line.starts_with("{\"id\":");
            counting.fetch_add(u64::from(good && !line.starts_with("{\"id\":\"")), Ordering::SeqCst);
        }
    });
    let mut sent = 0u64;
    loop {
        let share = json!([user, params[0], format!("{sent:016x}"), params[7], "00000000"]);
        let line = json!({"id": sent, "method": "mining.submit", "params": share}).to_string() + "\n";
        if stream.write_all(line.as_bytes()).is_err() {
            break;
        }
        sent += 1;
    }
    reader.join().unwrap();
    (sent, acknowledged.load(Ordering::SeqCst))
}

#[test]
fn a_killed_pool_loses_no_acknowledged_share() {
    let kills = std::env::var("IOP_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(4u64);
    let network = devnet_like("killed", "00000000", "");
    let config =
        "start_difficulty = 1e-10\nmin_difficulty = 1e-11\nvardiff = false\nmax_requests_per_second = 1e9\n";
    let stand = Stand::start(&network, config);
    let member = new_address(stand.path(), &stand.network);
    let (mut sent, mut acknowledged) = (0, 0);
    for round in 0..kills {
        let pool = stand.pool();
        let ready = wait_for(SOON, || (pool.api("status")["state"] == "mining").then_some(()));
        assert!(ready.is_some(), "{}", pool.api("status"));
        let (stratum, user) = (stand.stratum.clone(), format!("{member}.{round}"));
        let flooding = std::thread::spawn(move || flood(&stratum, &user));
        let begun = Instant::now();
        let wait = Duration::from_millis(150 + 130 * (round % 5));
        std::thread::sleep(wait.saturating_sub(begun.elapsed()));
        pool.program.kill();
        let (more_sent, more_acknowledged) = flooding.join().unwrap();
        sent += more_sent;
        acknowledged += more_acknowledged;
        let report = stand.audit();
        let logged = number(&report["shares"]);
        assert!(logged >= acknowledged, "{acknowledged} acknowledged, {logged} in the log");
        assert!(logged <= sent, "{sent} sent, {logged} in the log");
    }
    assert!(
        acknowledged > 100 * kills,
        "only {acknowledged} of {sent} were acknowledged: too few to say much"
    );
}
