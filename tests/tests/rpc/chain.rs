//! Information on the chain, its coins and its branches.

use super::*;

#[test]
fn blocks_headers_and_coins_agree_with_each_other() {
    let stand = Stand::start("blocks", "");
    let hashes = stand.generate(3);
    let rpc = stand.rpc();
    assert_eq!(rpc.call("getbestblockhash", json!([])), json!(hashes[2]));
    let info = rpc.call("getblockchaininfo", json!([]));
    assert_eq!((&info["chain"], &info["blocks"], &info["headers"]), (&json!("blocks"), &json!(3), &json!(3)));
    let raw = rpc.call("getblock", json!([hashes[1], 0]));
    let block: bitcoin::Block = bitcoin::consensus::encode::deserialize_hex(raw.as_str().unwrap()).unwrap();
    assert_eq!(block.block_hash().to_string(), hashes[1]);
    let object = rpc.call("getblock", json!([hashes[1], 2]));
    assert_eq!(object["tx"][0]["txid"], json!(block.txdata[0].compute_txid()));
    assert_eq!(object["size"], json!(block.total_size()));
    assert_eq!(object["confirmations"], 2);
    let header = rpc.call("getblockheader", json!([hashes[1]]));
    assert_eq!(header["nextblockhash"], json!(hashes[2]));
    assert_eq!(header["previousblockhash"], json!(hashes[0]));
    assert_eq!(header["chainwork"], object["chainwork"]);
    let raw = rpc.call("getblockheader", json!([hashes[1], false]));
    assert_eq!(raw, json!(bitcoin::consensus::encode::serialize_hex(&block.header)));
    let coin = rpc.call("gettxout", json!([block.txdata[0].compute_txid(), 0]));
    assert_eq!(
        (&coin["value"], &coin["confirmations"], &coin["coinbase"]),
        (&json!(50.0), &json!(2), &json!(true))
    );
    assert_eq!(rpc.call("gettxout", json!([block.txdata[0].compute_txid(), 9])), Value::Null);
    let [admin, ..] = devnet_keys(stand.dir.path());
    let address = license_address(&admin, &stand.params);
    assert_eq!(rpc.call("validateaddress", json!([address]))["isvalid"], true);
    assert_eq!(rpc.call("validateaddress", json!(["1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN2"]))["isvalid"], false);
    let help = rpc.call("help", json!([]));
    for method in ["submitblock", "getblocktemplate", "getlicenseinfo", "stop", "uptime"] {
        assert!(help.as_str().unwrap().contains(method), "{method}");
        assert!(rpc.call("help", json!([method])).as_str().unwrap().starts_with(method));
    }
}

/// A transaction whose relative lock has not passed is not accepted, even before the rule is active: once it is, no
/// block could contain it.
#[test]
fn what_a_soft_fork_would_refuse_does_not_wait_for_it() {
    let stand = Stand::start("softforks", "");
    stand.generate(101);
    let [admin, ..] = devnet_keys(stand.dir.path());
    let locked = locked_spend(stand.rpc(), &admin, 1, 2000, &stand.params);
    match stand.rpc().try_call("sendrawtransaction", json!([locked, true])) {
        Err(RpcFailure::Answer { code: -26, message }) => assert_eq!(message, "64: non-BIP68-final"),
        other => panic!("{other:?}"),
    }
    let open = locked_spend(stand.rpc(), &admin, 1, 1, &stand.params);
    match stand.rpc().try_call("sendrawtransaction", json!([open])) {
        Err(RpcFailure::Answer { code: -26, message }) => {
            assert!(message.contains("absurdly-high-fee"), "{message}")
        }
        other => panic!("{other:?}"),
    }
    let txid = stand.rpc().call("sendrawtransaction", json!([open, true]));
    assert_eq!(stand.rpc().call("getrawmempool", json!([])), json!([txid]));
    let hashes = stand.generate(1);
    assert_eq!(stand.rpc().call("getblock", json!([hashes[0]]))["tx"][1], txid);
}

#[test]
fn branches_can_be_refused_and_taken_back() {
    let stand = Stand::start("branches", "");
    let rpc = stand.rpc();
    let old = stand.generate(4);
    rpc.call("invalidateblock", json!([old[1]]));
    assert_eq!(rpc.call("getbestblockhash", json!([])), json!(old[0]));
    let new = stand.generate(1);
    let tips = rpc.call("getchaintips", json!([]));
    let expected = json!([
        {"height": 4, "hash": old[3], "branchlen": 3, "status": "invalid"},
        {"height": 2, "hash": new[0], "branchlen": 0, "status": "active"},
    ]);
    assert_eq!(tips, expected);
    assert_eq!(rpc.call("getblockheader", json!([old[3]]))["confirmations"], -1);
    rpc.call("reconsiderblock", json!([old[1]]));
    assert_eq!(rpc.call("getbestblockhash", json!([])), json!(old[3]));
    assert_eq!(rpc.call("getchaintips", json!([]))[1]["status"], "valid-fork");
    // Two tips of the same height at the easiest target: the one marked precious wins.
    rpc.call("invalidateblock", json!([old[2]]));
    for tip in [&new[0], &old[1], &new[0]] {
        rpc.call("preciousblock", json!([tip]));
        assert_eq!(rpc.call("getbestblockhash", json!([])), json!(tip));
    }
}

/// The sums over the coin set and the coins of an address agree with what the blocks paid.
#[test]
fn the_coin_set_is_what_the_blocks_paid() {
    let stand = Stand::start("coinset", "");
    let rpc = stand.rpc();
    let hashes = stand.generate(101);
    let [admin, other, ..] = devnet_keys(stand.dir.path());
    let spend = locked_spend(rpc, &admin, 2, 0, &stand.params);
    let txid = rpc.call("sendrawtransaction", json!([spend, true]));
    let address = license_address(&admin, &stand.params);
    let waiting = rpc.call("getaddresscoins", json!([address]));
    let coins = waiting["coins"].as_array().unwrap();
    assert_eq!(coins.len(), 101);
    let spent: Vec<&Value> = coins.iter().filter(|coin| coin["spent_in_mempool"] == true).collect();
    assert_eq!(spent.len(), 1);
    assert_eq!(
        (&spent[0]["height"], &spent[0]["confirmations"], &spent[0]["coinbase"]),
        (&json!(2), &json!(100), &json!(true))
    );
    assert_eq!(waiting["total_amount"], json!(2_105_000.0));
    let best = stand.generate(1);
    let info = rpc.call("gettxoutsetinfo", json!([]));
    assert_eq!((&info["height"], &info["bestblock"]), (&json!(102), &json!(best[0])));
    // One coinbase was spent; all but a thousandth went to the miner as fee; the verb's output is not a coin.
    assert_eq!((&info["transactions"], &info["txouts"]), (&json!(102), &json!(102)));
    assert_eq!(info["total_amount"], json!(2_105_050.0));
    assert_eq!(info["bogosize"], json!(102 * (50 + 25)));
    let hash = info["hash_serialized_2"].clone();
    rpc.call("invalidateblock", json!([best[0]]));
    assert_ne!(rpc.call("gettxoutsetinfo", json!([]))["hash_serialized_2"], hash);
    rpc.call("reconsiderblock", json!([best[0]]));
    assert_eq!(rpc.call("gettxoutsetinfo", json!([])), info);
    // The transaction is found through its unspent output; the spent coinbase is not found.
    let found = rpc.call("getrawtransaction", json!([txid, 1]));
    assert_eq!((&found["blockhash"], &found["confirmations"]), (&json!(best[0]), &json!(1)));
    assert_eq!(rpc.call("getrawtransaction", json!([txid])), json!(spend));
    let first = rpc.call("getblock", json!([hashes[1]]))["tx"][0].clone();
    assert_eq!(code(rpc.try_call("getrawtransaction", json!([first]))), -5);
    let nobody = license_address(&other, &stand.params);
    assert_eq!(rpc.call("getaddresscoins", json!([nobody]))["coins"], json!([]));
}

#[test]
fn metrics_say_what_rpc_says() {
    let dir = tempfile::tempdir().unwrap();
    let network = Network::file(dir.path(), &easy_devnet("metrics", ""));
    let (port, metrics_port) = (iop_tests::program::free_port(), iop_tests::program::free_port());
    let flags = ["--metrics-bind".to_owned(), format!("127.0.0.1:{metrics_port}")];
    let node = Node::start_with(dir.path(), &network, port, &flags).unwrap();
    let [admin, ..] = devnet_keys(dir.path());
    generate(&node.rpc, 3, &admin, &network.params());
    assert!(node.rpc.try_call("getblockhash", json!([9])).is_err());
    let get = |path: &str| minreq::get(format!("http://127.0.0.1:{metrics_port}{path}")).send().unwrap();
    let scraped = get("/metrics");
    let text = scraped.as_str().unwrap();
    for line in [
        "iop_node_block_height 3",
        "iop_node_header_height 3",
        "iop_node_mempool_transactions 0",
        "iop_node_unsigned_admin_actions_total 0",
        "iop_node_peers{direction=\"inbound\"} 0",
        "iop_node_network_received_bytes_total 0",
        "iop_node_rpc_calls_total{method=\"generatetoaddress\"} 1",
        "iop_node_rpc_errors_total{method=\"getblockhash\"} 1",
        "# UNIT iop_node_tip_age_seconds seconds",
        "# EOF",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
    assert_eq!((get("/").status_code, get("/metrics/x").status_code), (404, 404));
}
