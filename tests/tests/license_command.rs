//! `iop-node license` from end to end: its output, its effect on the chain, and its refusals.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use iop_consensus::params::Params;
use iop_tests::chain::{easy_devnet, generate, license_address};
use iop_tests::program::run;
use iop_tests::stand::{Network, Node, devnet_keys, new_address};
use serde_json::{Value, json};

struct Stand {
    dir: tempfile::TempDir,
    network: Network,
    node: Node,
    params: Params,
    admin: PathBuf,
}

type Outcome = (Option<i32>, String, String);

impl Stand {
    /// A chain on which the admin has one spendable coin, and two after another block.
    fn start(name: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let network = Network::file(dir.path(), &easy_devnet(name, ""));
        let node = Node::start(dir.path(), &network).unwrap();
        let [admin, ..] = devnet_keys(dir.path());
        let params = network.params();
        generate(&node.rpc, 100, &admin, &params);
        Self { node, params, admin, network, dir }
    }

    fn mine(&self) {
        generate(&self.node.rpc, 1, &self.admin, &self.params);
    }

    /// `iop-node license VERB…` as the admin, at this node.
    fn license(&self, args: &[&str]) -> Outcome {
        self.license_with(&self.admin, args)
    }

    fn license_with(&self, key: &Path, args: &[&str]) -> Outcome {
        let mut all = vec!["license".to_owned()];
        all.extend(args.iter().map(|&arg| arg.to_owned()));
        all.extend(["--admin-key-file".to_owned(), key.display().to_string()]);
        all.extend(["--rpc".to_owned(), format!("http://127.0.0.1:{}", self.node.port)]);
        all.extend(["--rpc-cookie".to_owned(), self.node.datadir.join(".cookie").display().to_string()]);
        all.extend(self.network.flags());
        run("iop-node", all)
    }

    fn stats(&self) -> Value {
        self.node.rpc.call("dumpminerstats", json!([]))
    }

    fn whitelisted(&self, address: &str) -> bool {
        self.node.rpc.call("dumpminerstats", json!([address]))["stats"]["whitelisted"] == 1
    }
}

fn succeeded((status, stdout, stderr): Outcome) -> (String, String) {
    assert_eq!(status, Some(0), "{stderr}");
    (stdout.trim().to_owned(), stderr)
}

fn refused((status, stdout, stderr): Outcome, expected_status: i32) -> String {
    assert_eq!((status, stdout.as_str()), (Some(expected_status), ""), "{stderr}");
    stderr
}

#[test]
fn licenses_come_and_go_and_the_cap_changes() {
    let stand = Stand::start("license");
    let (first, second) =
        (new_address(stand.dir.path(), &stand.network), new_address(stand.dir.path(), &stand.network));
    let (txid, said) = succeeded(stand.license(&["add", &first, &second]));
    assert!(
        said.contains("add licenses on license") && said.contains(&first) && said.contains("sent"),
        "{said}"
    );
    assert_eq!(stand.node.rpc.call("getrawmempool", json!([])), json!([txid]));
    assert!(!stand.whitelisted(&first), "an action holds when a block has it");
    stand.mine();
    assert!(stand.whitelisted(&first) && stand.whitelisted(&second));
    assert_eq!(stand.stats()["currentwhitelisted"], 6);

    succeeded(stand.license(&["enable-cap", "--factor", "5"]));
    stand.mine();
    let stats = stand.stats();
    assert_eq!((&stats["minercapenabled"], &stats["currentfactor"]), (&json!(true), &json!(5)));
    succeeded(stand.license(&["disable-cap"]));
    stand.mine();
    assert_eq!(stand.stats()["minercapenabled"], false);

    // Targets that are already listed are left out, and the command says what it does with the rest.
    let stranger = new_address(stand.dir.path(), &stand.network);
    let (json_text, said) = succeeded(stand.license(&["remove", &first, &stranger, "--json"]));
    assert!(said.contains(&format!("{stranger} is no license: left out")), "{said}");
    let report: Value = serde_json::from_str(&json_text).unwrap();
    assert_eq!((&report["addresses"], &report["left_out"]), (&json!([first]), &json!([stranger])));
    assert_eq!(
        (&report["sent"], &report["admin"]),
        (&json!(true), &json!(license_address(&stand.admin, &stand.params)))
    );
    stand.mine();
    assert!(!stand.whitelisted(&first) && stand.whitelisted(&second));
    // All of these were signed by the admin.
    assert_eq!(stand.node.rpc.call("getblockchaininfo", json!([]))["unsigned_admin_actions"], 0);
}

#[test]
fn what_becomes_of_the_cap_and_who_may_mine_then_is_said_before_it_is_so() {
    let stand = Stand::start("forecast");
    let [_, first, second, third] = devnet_keys(stand.dir.path());
    let address = license_address(&first, &stand.params);
    generate(&stand.node.rpc, 2, &first, &stand.params);
    let new = new_address(stand.dir.path(), &stand.network);
    let (_, said) = succeeded(stand.license(&["add", &new, "--dry-run"]));
    assert!(said.contains("cap 1008 -> 806") && !said.contains("warning"), "{said}");
    let no_more = ["enable-cap", "--factor", "0", "--dry-run", "--json"];
    let (text, said) = succeeded(stand.license(&no_more));
    assert!(said.contains(&format!("{address} (has 2, may not mine)")), "{said}");
    assert!(said.contains("may then mine 3 blocks of a window of 2016"), "{said}");
    let report: Value = serde_json::from_str(&text).unwrap();
    let expected = json!({
        "before": 1_008, "after": 0, "may_mine": 2, "chain_may_stop": true,
        "at_or_above": [{"address": address, "blocks": 2, "may_mine": false}],
    });
    assert_eq!(report["cap"], expected);
    for key in [second, third] {
        generate(&stand.node.rpc, 1, &key, &stand.params);
    }
    let (_, said) = succeeded(stand.license(&no_more[..4]));
    assert!(said.contains("cap 1008 -> 0") && said.contains("no license but the admins' may mine"), "{said}");
    // What waits for a block counts as well.
    succeeded(stand.license(&["add", &new]));
    let (_, said) = succeeded(stand.license(&["enable-cap", "--factor", "3", "--dry-run"]));
    assert!(said.contains("cap 1008 -> 1209"), "{said}");
}

#[test]
fn what_waits_for_a_block_is_not_done_twice_and_not_undone() {
    let stand = Stand::start("waiting");
    (0..3).for_each(|_| stand.mine()); // this matures as many further coins
    let [first, second] = [(); 2].map(|()| new_address(stand.dir.path(), &stand.network));
    let (txid, _) = succeeded(stand.license(&["add", &first]));
    let waits = format!("transaction {txid} waits for a block (add licenses {first})");
    let said = refused(stand.license(&["add", &first]), 1);
    assert!(
        said.contains(&format!("{waits}: {first} is left out")) && said.contains("nothing to do"),
        "{said}"
    );
    let said = refused(stand.license(&["remove", &first]), 1);
    assert!(said.contains(&waits) && said.contains("is open"), "{said}");
    let (text, said) = succeeded(stand.license(&["add", &first, &second, "--json"]));
    assert!(said.contains(&format!("{first} is left out")), "{said}");
    let report: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&report["addresses"], &report["left_out"]), (&json!([second]), &json!([first])));
    stand.mine();
    // The cap is on with factor 2, and a change of it is pending.
    let (txid, _) = succeeded(stand.license(&["enable-cap", "--factor", "5"]));
    let waits = format!("transaction {txid} waits for a block (enable the cap with factor 5)");
    assert!(
        refused(stand.license(&["enable-cap", "--factor", "5"]), 1)
            .contains(&format!("{waits}: nothing to do"))
    );
    assert!(refused(stand.license(&["disable-cap"]), 1).contains(&waits));
    let chained = stand.license(&["disable-cap", "--utxo", &format!("{txid}:1")]);
    assert!(refused(chained, 1).contains(&waits), "however they hang together");
    stand.mine();
    assert!(stand.whitelisted(&first) && stand.whitelisted(&second));
    let stats = stand.stats();
    assert_eq!((&stats["currentfactor"], &stats["currentwhitelisted"]), (&json!(5), &json!(6)));
    succeeded(stand.license(&["remove", &first]));
    succeeded(stand.license(&["disable-cap"]));
}

#[test]
fn named_coins_are_spent_and_a_dry_run_sends_nothing() {
    let stand = Stand::start("coins");
    let rpc = &stand.node.rpc;
    let license = new_address(stand.dir.path(), &stand.network);
    let block = rpc.call("getblock", json!([rpc.call("getblockhash", json!([1]))]));
    let coin = format!("{}:0", block["tx"][0].as_str().unwrap());
    let (hex, said) =
        succeeded(stand.license(&["add", &license, "--utxo", &coin, "--dry-run", "--amount", "600"]));
    assert!(said.contains("not sent") && said.contains(&coin), "{said}");
    assert_eq!(rpc.call("getrawmempool", json!([])), json!([]));
    let tx = rpc.call("decoderawtransaction", json!([hex]));
    assert_eq!(tx["vout"][0]["scriptPubKey"]["asm"], "OP_RETURN 6579297");
    assert_eq!(
        (&tx["vout"][1]["value"], &tx["vout"][1]["scriptPubKey"]["addresses"][0]),
        (&json!(0.000_006), &json!(license))
    );
    // The printed transaction is valid as it is.
    let txid = rpc.call("sendrawtransaction", json!([hex]));
    // Its change can be spent while it is unconfirmed.
    let back = format!("{}:2", txid.as_str().unwrap());
    succeeded(stand.license(&["enable-cap", "--factor", "3", "--utxo", &back]));
    stand.mine();
    assert!(stand.whitelisted(&license));
    assert_eq!(stand.stats()["currentfactor"], 3);
    // But not twice.
    let said = refused(stand.license(&["disable-cap", "--utxo", &back]), 1);
    assert!(said.contains("is not known or spent"), "{said}");
    let immature = rpc.call("getblock", json!([rpc.call("getbestblockhash", json!([]))]));
    let immature = format!("{}:0", immature["tx"][0].as_str().unwrap());
    let said = refused(stand.license(&["disable-cap", "--utxo", &immature]), 1);
    assert!(said.contains("after 100 blocks"), "{said}");
}

#[test]
fn what_cannot_be_meant_is_refused_before_anything_is_sent() {
    let stand = Stand::start("refused");
    let [admin, license, ..] = devnet_keys(stand.dir.path());
    let (admin_address, license_address) =
        (license_address(&admin, &stand.params), license_address(&license, &stand.params));
    let usage = |args: &[&str], words: &str| {
        let said = refused(stand.license(args), 2);
        assert!(said.contains(words) && said.lines().count() == 1, "{args:?}: {said}");
    };
    usage(&["add", "nonsense"], "'nonsense' is not a valid address");
    usage(&["add", "pUSydiLr9kFjtL7VbtfMYXMz7GLV413coQ"], "belongs to main (version byte 117)");
    usage(&["add", &admin_address], "is an admin of refused");
    usage(&["remove", &license_address, &license_address], "is given twice");
    usage(&["enable-cap", "--factor", "10"], "10 is not in 0..=9");
    usage(&["enable-cap"], "--factor");
    usage(&["add"], "ADDRESS");
    usage(&["add", &license_address, "--utxo", "5"], "--utxo");
    usage(&["add", &license_address, "--amount", "5"], "5 is not in 546");
    let p2sh = stand.node.rpc.call("decodescript", json!(["51"]))["p2sh"].as_str().unwrap().to_owned();
    usage(&["add", &p2sh], "is a P2SH address");

    let said = refused(stand.license_with(&license, &["add", &p2sh]), 2);
    assert!(said.contains("which is no admin of refused") && said.contains(&admin_address), "{said}");
    // Nothing to do is a failure: scripts may rely on it.
    assert!(refused(stand.license(&["add", &license_address]), 1).contains("nothing to do"));
    assert!(refused(stand.license(&["enable-cap", "--factor", "2"]), 1).contains("nothing to do"));
    // A node of another network is refused, whatever the key.
    let args = ["license", "disable-cap", "--network", "devnet", "--admin-key-file"].map(str::to_owned);
    let rpc =
        ["--rpc".to_owned(), format!("http://127.0.0.1:{}", stand.node.port), "--rpc-cookie".to_owned()];
    let cookie = stand.node.datadir.join(".cookie").display().to_string();
    let all = args.into_iter().chain([admin.display().to_string()]).chain(rpc).chain([cookie]);
    let said = refused(run("iop-node", all), 1);
    assert!(said.contains("is on network refused"), "{said}");
    assert_eq!(stand.node.rpc.call("getrawmempool", json!([])), json!([]));
}

#[test]
fn a_key_that_others_can_read_or_a_node_that_is_not_there_is_named() {
    use std::os::unix::fs::PermissionsExt;
    let stand = Stand::start("unsafe");
    let open = stand.dir.path().join("open.wif");
    std::fs::copy(&stand.admin, &open).unwrap();
    std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o644)).unwrap();
    let said = refused(stand.license_with(&open, &["disable-cap"]), 2);
    assert!(said.contains("mode 0644") && said.contains("0600 expected"), "{said}");
    let port = iop_tests::program::free_port();
    let nowhere = format!("http://127.0.0.1:{port}");
    let cookie = stand.node.datadir.join(".cookie");
    let mut args: Vec<String> = ["license", "disable-cap", "--admin-key-file"].map(str::to_owned).into();
    args.extend([stand.admin.display().to_string(), "--rpc".to_owned(), nowhere]);
    args.extend(["--rpc-cookie".to_owned(), cookie.display().to_string()]);
    args.extend(stand.network.flags());
    let said = refused(run("iop-node", args.clone()), 1);
    assert!(said.contains("cannot be asked") && said.contains(&port.to_string()), "{said}");
    // A node that is not up has no cookie: that is no wrong usage.
    let missing = stand.dir.path().join("none").join(".cookie").display().to_string();
    let place = args.iter().position(|arg| arg == "--rpc-cookie").unwrap() + 1;
    args[place].clone_from(&missing);
    let said = refused(run("iop-node", args), 1);
    assert!(said.contains(&missing) && said.contains("while the node runs"), "{said}");
}
