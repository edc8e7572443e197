//! Templates, long polls and submitted blocks.

use super::*;

#[test]
fn mining_at_once_is_for_private_networks() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), &Network::Named("main")).unwrap();
    let refused = node.rpc.try_call("generatetoaddress", json!([1, "pUSydiLr9kFjtL7VbtfMYXMz7GLV413coQ"]));
    assert_eq!(code(refused), -1);
    let info = node.rpc.call("getblockchaininfo", json!([]));
    assert_eq!((&info["chain"], &info["unsigned_admin_actions"]), (&json!("main"), &json!(0)));
}

#[test]
fn no_templates_are_given_while_the_chain_is_being_loaded_or_no_peer_tells_of_blocks() {
    let dir = tempfile::tempdir().unwrap();
    let network = Network::Named("test");
    let template = |node: &Peered, request: Value| node.rpc().try_call("getblocktemplate", json!([request]));
    let plain = || json!({"rules": ["segwit"]});
    let magic = network.params().magic;
    let node = Peered::start(&dir.path().join("new"), &network, &[]);
    assert_eq!(code(template(&node, plain())), -9);
    let peer = Peer::establish(node.address, magic);
    assert_eq!(code(template(&node, plain())), -10);
    drop((peer, node));
    let node = Peered::start(&dir.path().join("old"), &network, &["--max-tip-age", "4000000000"]);
    assert_eq!(node.rpc().call("getblockchaininfo", json!([]))["initialblockdownload"], json!(false));
    assert_eq!(code(template(&node, plain())), -9);
    let peer = Peer::establish(node.address, magic);
    let given = template(&node, plain()).unwrap();
    assert_eq!(given["height"], json!(1));
    // A long poll that waits when the last peer goes.
    let poll = Poll::start(node.rpc(), json!({"longpollid": given["longpollid"], "rules": ["segwit"]}));
    drop(peer);
    assert_eq!(code(poll.answer().0), -9);
}

#[test]
fn who_may_not_mine_is_told_why() {
    let stand = Stand::start("may-not", "");
    let [_, license, ..] = devnet_keys(stand.dir.path());
    let address = license_address(&license, &stand.params);
    let mine = |wif: &str| stand.rpc().try_call("generatetoaddress", json!([1, address, wif]));
    let stranger = LicenseKey::from_secret(&[77; 32], true).unwrap().to_wif(&stand.params.prefixes);
    let Err(RpcFailure::Answer { code, message }) = mine(&stranger) else { panic!("it is no license") };
    assert_eq!(code, -32603);
    assert!(message.contains("bad-CB-miner (") && message.ends_with("is not on the whitelist)"), "{message}");
    assert_eq!(mine(&wif(&license)).unwrap().as_array().map(Vec::len), Some(1));
}

#[test]
fn two_that_mine_at_once_each_get_as_many_blocks_as_they_asked_for() {
    let stand = Stand::start("race", "");
    let [_, first, second, _] = devnet_keys(stand.dir.path());
    let mine = |key: &std::path::Path| {
        let (rpc, address) = (stand.rpc().clone(), license_address(key, &stand.params));
        let wif = wif(key);
        std::thread::spawn(move || rpc.call("generatetoaddress", json!([40, address, wif])))
    };
    let both = [mine(&first), mine(&second)].map(|miner| miner.join().unwrap());
    for hashes in &both {
        assert_eq!(hashes.as_array().map(Vec::len), Some(40), "{hashes}");
    }
    assert_eq!(stand.rpc().height(), 80);
}

/// The answer of a long poll that is pending while a block comes.
fn first_on_a_new_tip(rpc: &Rpc, block: &bitcoin::Block) -> Value {
    let id = rpc.call("getblocktemplate", json!([{"rules": ["segwit"]}]))["longpollid"].clone();
    let poll = Poll::start(rpc, json!({"longpollid": id, "rules": ["segwit"]}));
    submit(rpc, block);
    let template = poll.answer().0.unwrap();
    assert_eq!(template["previousblockhash"], json!(block.block_hash()));
    template
}

fn submit(rpc: &Rpc, block: &bitcoin::Block) {
    assert_eq!(rpc.call("submitblock", json!([serialize_hex(block)])), Value::Null);
}

#[test]
fn a_new_tips_first_template_is_empty_but_after_a_block_that_passed_over_what_waits() {
    let dir = tempfile::tempdir().unwrap();
    let network = Network::Named("regtest");
    let node = Node::start(dir.path(), &network).unwrap();
    let rpc = &node.rpc;
    let mut tip = Parent::of(&network.params().genesis.block(), 0);
    let mut coins = Vec::new();
    for height in 1..=103 {
        let block = blocks::on(tip, 0, vec![]);
        submit(rpc, &block);
        tip = Parent::of(&block, height);
        let coinbase = &block.txdata[0];
        coins.push((bitcoin::OutPoint::new(coinbase.compute_txid(), 0), coinbase.output[0].value.to_sat()));
    }
    let spend = |number: usize| blocks::spend(coins[number].0, coins[number].1 - 100_000);
    let offer = |number| {
        let mut tx = spend(number);
        let padding = bitcoin::ScriptBuf::from_bytes([vec![0x6a], vec![0; 100]].concat());
        tx.output.push(bitcoin::TxOut { value: bitcoin::Amount::ZERO, script_pubkey: padding });
        rpc.call("sendrawtransaction", json!([serialize_hex(&tx), true]));
    };
    let count = |template: &Value| template["transactions"].as_array().unwrap().len();
    offer(0);
    // A block with transactions.
    let block = blocks::on(tip, 0, vec![spend(1)]);
    let template = first_on_a_new_tip(rpc, &block);
    assert_eq!(count(&template), 0, "{template}");
    // The full one is available at once for the empty one's id.
    let id = template["longpollid"].clone();
    assert!(id.as_str().unwrap().ends_with('e'), "{id}");
    let full = rpc.call("getblocktemplate", json!([{"longpollid": id, "rules": ["segwit"]}]));
    assert_eq!(full["previousblockhash"], template["previousblockhash"]);
    assert_eq!(count(&full), 1);
    assert!(!full["longpollid"].as_str().unwrap().ends_with('e'), "{full}");
    // A block without transactions.
    let block = blocks::on(Parent::of(&block, 104), 0, vec![]);
    let template = first_on_a_new_tip(rpc, &block);
    assert_eq!(count(&template), 1, "{template}");
    assert!(!template["longpollid"].as_str().unwrap().ends_with('e'), "{template}");
}

/// With blocks two seconds apart and the rule of test networks, the difficulty falls four seconds after the tip. It has to
/// have risen first: at the second retarget, as the first one counts from the genesis block.
#[test]
fn a_long_poll_is_answered_when_the_templates_time_is_over() {
    let dir = tempfile::tempdir().unwrap();
    let file = "base = \"regtest\"\nname = \"falling\"\nno_retarget = false\nmin_difficulty_blocks = true\n\
                pow_target_spacing = 2\npow_target_timespan = 40\n\
                pow_limit = \"00ffff0000000000000000000000000000000000000000000000000000000000\"\n";
    let network = Network::file(dir.path(), file);
    let node = Node::start(dir.path(), &network).unwrap();
    let [admin, ..] = devnet_keys(dir.path());
    generate(&node.rpc, 40, &admin, &network.params());
    let poll =
        |id: &Value| node.rpc.call("getblocktemplate", json!([{"longpollid": id, "rules": ["segwit"]}]));
    let usual = poll(&Value::String(String::new()));
    let (bits, last) = (usual["bits"].clone(), usual["maxtime"].as_u64().unwrap());
    assert!(bits != "2000ffff" && last >= usual["curtime"].as_u64().unwrap(), "{usual}");
    let easy = poll(&usual["longpollid"]);
    assert_eq!((&easy["bits"], &easy["mintime"]), (&json!("2000ffff"), &json!(last + 1)), "{easy}");
    assert_eq!((&easy["previousblockhash"], easy.get("maxtime")), (&usual["previousblockhash"], None));
    assert!(easy["curtime"].as_u64().unwrap() > last, "{easy}");
}

#[test]
fn a_long_poll_is_answered_by_the_next_block() {
    let stand = Stand::start("longpoll", "");
    let template = stand.rpc().call("getblocktemplate", json!([{"rules": ["segwit"]}]));
    assert_eq!(template["license"]["required"], true);
    assert_eq!(
        template["license"]["tip_registry"],
        json!({"cap_enabled": true, "factor": 2, "whitelisted": 4})
    );
    let id = template["longpollid"].clone();
    let poll = Poll::start(stand.rpc(), json!({"longpollid": id}));
    let hashes = stand.generate(1);
    let (next, answered) = poll.answer();
    let next = next.unwrap();
    assert_eq!(next["previousblockhash"], json!(hashes[0]));
    assert_eq!(next["height"], 2);
    println!("the long poll was answered {:?} before generatetoaddress was", answered.elapsed());
    assert_eq!(code(stand.rpc().try_call("getblocktemplate", json!([{"mode": "other"}]))), -8);
    assert_eq!(code(stand.rpc().try_call("getblocktemplate", json!([{"mode": "proposal"}]))), -3);
    let known = stand.rpc().call("getblock", json!([hashes[0], 0]));
    let verdict = stand.rpc().call("getblocktemplate", json!([{"mode": "proposal", "data": known}]));
    assert_eq!(verdict, "duplicate");
    assert_eq!(code(stand.rpc().try_call("getblocktemplate", json!([{"mode": "nonsense"}]))), -8);
}
