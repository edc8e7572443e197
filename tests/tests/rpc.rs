//! The node's JSON-RPC as clients of Bitcoin Core speak it.

#![allow(clippy::unwrap_used)]

use std::net::TcpStream;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bitcoin::consensus::encode::serialize_hex;
use iop_consensus::params::Params;
use iop_tests::blocks::{self, Parent};
use iop_tests::chain::{easy_devnet, generate, license_address, locked_spend};
use iop_tests::rpc::{Rpc, RpcFailure};
use iop_tests::stand::{Network, Node, devnet_keys};
use serde_json::{Value, json};

struct Stand {
    dir: tempfile::TempDir,
    node: Node,
    params: Params,
}

impl Stand {
    fn start(name: &str, more: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let network = Network::file(dir.path(), &easy_devnet(name, more));
        let node = Node::start(dir.path(), &network).unwrap();
        Self { node, params: network.params(), dir }
    }

    fn generate(&self, count: u32) -> Vec<String> {
        let [admin, ..] = devnet_keys(self.dir.path());
        generate(&self.node.rpc, count, &admin, &self.params)
    }

    fn rpc(&self) -> &Rpc {
        &self.node.rpc
    }

    fn request(&self) -> minreq::Request {
        let cookie = std::fs::read_to_string(self.node.datadir.join(".cookie")).unwrap();
        minreq::post(format!("http://127.0.0.1:{}/", self.node.port))
            .with_header("Authorization", format!("Basic {}", STANDARD.encode(cookie)))
            .with_timeout(30)
    }

    /// HTTP status and body.
    fn post(&self, body: impl Into<Vec<u8>>) -> (u16, Value) {
        let response = self.request().with_body(body).send().unwrap();
        (response.status_code, serde_json::from_slice(response.as_bytes()).unwrap_or(Value::Null))
    }
}

fn code(failure: Result<Value, RpcFailure>) -> i64 {
    match failure {
        Err(RpcFailure::Answer { code, .. }) => code,
        other => panic!("an error expected, not {other:?}"),
    }
}

#[test]
fn only_the_cookie_lets_in_and_a_wrong_one_waits() {
    let stand = Stand::start("auth", "");
    let url = format!("http://127.0.0.1:{}/", stand.node.port);
    let body = r#"{"method":"getblockcount","params":[],"id":1}"#;
    let send = |authorization: Option<&str>| {
        let mut request = minreq::post(&url).with_body(body).with_timeout(10);
        if let Some(value) = authorization {
            request = request.with_header("Authorization", value);
        }
        request.send().unwrap()
    };
    let denied = send(None);
    assert_eq!(denied.status_code, 401);
    assert!(denied.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("www-authenticate")));
    let before = Instant::now();
    assert_eq!(send(Some(&format!("Basic {}", STANDARD.encode("__cookie__:wrong")))).status_code, 401);
    assert!(before.elapsed() >= Duration::from_millis(250));
    assert_eq!(send(Some("Basic !!")).status_code, 401);
    assert_eq!(minreq::get(&url).send().unwrap().status_code, 405);
    assert_eq!(stand.post(body), (200, json!({"result": 0, "error": null, "id": 1})));
}

#[test]
fn envelopes_batches_and_names_are_those_of_core() {
    let stand = Stand::start("envelopes", "");
    let (status, body) = stand.post(r#"{"method":"nonsense","id":"a"}"#);
    assert_eq!((status, &body["error"]["code"], &body["id"]), (404, &json!(-32601), &json!("a")));
    let (status, body) = stand.post(r#"{"method":"getblockhash","params":[5],"id":1}"#);
    assert_eq!((status, &body["error"]["code"]), (500, &json!(-8)));
    let (status, body) =
        stand.post(r#"{"jsonrpc":"2.0","method":"getblockhash","params":{"height":0},"id":1}"#);
    assert_eq!(status, 200);
    assert_eq!(body["result"], json!(stand.params.genesis.block().block_hash()));
    assert!(body.get("error").is_none() && body["jsonrpc"] == "2.0");
    let (status, body) = stand.post(r#"[{"method":"getblockcount","id":1},{"method":"x","id":2},3]"#);
    assert_eq!(status, 200);
    let codes: Vec<&Value> = body.as_array().unwrap().iter().map(|answer| &answer["error"]["code"]).collect();
    assert_eq!(codes, [&Value::Null, &json!(-32601), &json!(-32600)]);
    assert_eq!(stand.post(r#"{"method":"getblockhash","params":{"depth":0}}"#).1["error"]["code"], -8);
    let address = license_address(&devnet_keys(stand.dir.path())[0], &stand.params);
    let call = json!({"method": "getlicenseinfo", "params": {"address": address}});
    assert_eq!(stand.post(call.to_string()).1["result"][0]["admin"], true);
}

#[test]
fn hostile_bodies_are_refused_and_the_node_goes_on() {
    let stand = Stand::start("hostile", "");
    for body in ["", "{", "\"text\"", "\u{0}"] {
        let (status, answer) = stand.post(body);
        assert_eq!((status, &answer["error"]["code"]), (500, &json!(-32700)), "{body:?}");
    }
    let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(stand.post(deep).1["error"]["code"], -32700);
    // The server answers and closes before it has read all of this; the client may see either.
    let huge = stand.request().with_body(vec![b' '; 40 << 20]).send();
    assert!(huge.is_err() || huge.is_ok_and(|response| response.status_code == 413));
    for block in ["", "zz", "00", &"00".repeat(80), &"ff".repeat(1000)] {
        assert_eq!(code(stand.rpc().try_call("submitblock", json!([block]))), -22, "{block}");
    }
    assert_eq!(code(stand.rpc().try_call("submitblock", json!([]))), -1);
    assert_eq!(code(stand.rpc().try_call("submitblock", json!([{"a": 1}]))), -1);
    assert_eq!(code(stand.rpc().try_call("sendrawtransaction", json!(["00"]))), -22);
    assert_eq!(code(stand.rpc().try_call("generatetoaddress", json!([-1, "x"]))), -8);
    assert_eq!(
        code(stand.rpc().try_call("getlicenseinfo", json!(["1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN2"]))),
        -5
    );
    assert_eq!(stand.rpc().height(), 0);
}

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

/// A transaction whose relative lock has not passed waits for it outside, also before the rule is active: once it is,
/// no block could contain it.
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
fn idle_connections_do_not_harm_the_node() {
    let stand = Stand::start("idle", "");
    let address = ("127.0.0.1", stand.node.port);
    let idle: Vec<TcpStream> = (0..600).map_while(|_| TcpStream::connect(address).ok()).collect();
    assert!(idle.len() > 512, "{} connections", idle.len());
    drop(idle);
    stand.generate(3);
    assert_eq!(stand.rpc().height(), 3);
}

#[test]
fn mining_at_once_is_for_private_networks() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), &Network::Named("main")).unwrap();
    let refused = node.rpc.try_call("generatetoaddress", json!([1, "pUSydiLr9kFjtL7VbtfMYXMz7GLV413coQ"]));
    assert_eq!(code(refused), -1);
    let info = node.rpc.call("getblockchaininfo", json!([]));
    assert_eq!((&info["chain"], &info["unsigned_admin_actions"]), (&json!("main"), &json!(0)));
}

/// What a long poll answers that waits while a block comes.
fn first_on_a_new_tip(rpc: &Rpc, block: &bitcoin::Block) -> Value {
    let id = rpc.call("getblocktemplate", json!([{"rules": ["segwit"]}]))["longpollid"].clone();
    let poll = std::thread::spawn({
        let rpc = rpc.clone();
        move || rpc.call("getblocktemplate", json!([{"longpollid": id, "rules": ["segwit"]}]))
    });
    std::thread::sleep(Duration::from_millis(300));
    assert!(!poll.is_finished());
    submit(rpc, block);
    let template = poll.join().unwrap();
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
    // A block that holds something.
    let block = blocks::on(tip, 0, vec![spend(1)]);
    let template = first_on_a_new_tip(rpc, &block);
    assert_eq!(count(&template), 0, "{template}");
    // The full one is there at once for who asks with that one's id.
    let id = template["longpollid"].clone();
    assert!(id.as_str().unwrap().ends_with('e'), "{id}");
    let full = rpc.call("getblocktemplate", json!([{"longpollid": id, "rules": ["segwit"]}]));
    assert_eq!(full["previousblockhash"], template["previousblockhash"]);
    assert_eq!(count(&full), 1);
    assert!(!full["longpollid"].as_str().unwrap().ends_with('e'), "{full}");
    // A block that holds nothing.
    let block = blocks::on(Parent::of(&block, 104), 0, vec![]);
    let template = first_on_a_new_tip(rpc, &block);
    assert_eq!(count(&template), 1, "{template}");
    assert!(!template["longpollid"].as_str().unwrap().ends_with('e'), "{template}");
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
    let rpc = stand.rpc().clone();
    let poll = std::thread::spawn(move || {
        (rpc.call("getblocktemplate", json!([{"longpollid": id}])), Instant::now())
    });
    std::thread::sleep(Duration::from_millis(300));
    assert!(!poll.is_finished());
    let hashes = stand.generate(1);
    let (next, answered) = poll.join().unwrap();
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

/// Wrong counts and types, names that are not known, values out of range: Core's codes, and the node goes on.
#[test]
fn arguments_that_fit_nothing_get_cores_codes() {
    let stand = Stand::start("arguments", "");
    stand.generate(2);
    let hash = "00".repeat(32);
    for (method, params, expected) in [
        ("getblockcount", json!([1]), -1),
        ("getblockhash", json!([]), -1),
        ("getblockhash", json!([0, 0]), -1),
        ("getblockhash", json!(["0"]), -1),
        ("getblockhash", json!([0.5]), -1),
        ("getblockhash", json!([5_000_000_000u64]), -1),
        ("getblockhash", json!([-1]), -8),
        ("getblockhash", json!([3]), -8),
        ("getblockhash", json!({"hight": 0}), -8),
        ("getblock", json!([7]), -1),
        ("getblock", json!([hash]), -5),
        ("getblock", json!([hash, "x"]), -1),
        ("getblock", json!({"verbosity": 1}), -1),
        ("getblockheader", json!([hash]), -5),
        ("getblockheader", json!([hash, 1]), -1),
        ("getchaintips", json!([1]), -1),
        ("getchaintxstats", json!([2]), -8),
        ("getchaintxstats", json!([1, hash]), -5),
        ("gettxout", json!([hash]), -1),
        ("gettxout", json!([hash, "0"]), -1),
        ("gettxoutsetinfo", json!([0]), -1),
        ("getaddresscoins", json!(["nobody"]), -5),
        ("getaddresscoins", json!([]), -1),
        ("getrawtransaction", json!([]), -1),
        ("getrawtransaction", json!(["00"]), -8),
        ("getrawtransaction", json!(["xy"]), -8),
        ("getrawtransaction", json!([hash]), -5),
        ("getrawtransaction", json!([hash, "true"]), -3),
        ("decoderawtransaction", json!(["00"]), -22),
        ("decoderawtransaction", json!([0]), -3),
        ("decodescript", json!(["0"]), -8),
        ("getmempoolinfo", json!([1]), -1),
        ("getmempoolentry", json!(["00"]), -8),
        ("getmempoolentry", json!([hash]), -5),
        ("getmempoolancestors", json!([hash]), -5),
        ("getmempooldescendants", json!([hash, 1]), -1),
        ("getrawmempool", json!([1]), -1),
        ("testmempoolaccept", json!(["00"]), -3),
        ("testmempoolaccept", json!([[]]), -8),
        ("testmempoolaccept", json!([["00"]]), -22),
        ("sendrawtransaction", json!([{}]), -3),
        ("sendrawtransaction", json!(["00", 1]), -3),
        ("invalidateblock", json!([hash]), -5),
        ("reconsiderblock", json!([hash]), -5),
        ("preciousblock", json!([]), -1),
        ("invalidateblock", json!([stand.params.genesis.block().block_hash()]), -20),
        ("getnetworkhashps", json!(["120"]), -1),
        ("getmininginfo", json!([1]), -1),
        ("addnode", json!(["127.0.0.1:1"]), -1),
        ("addnode", json!(["127.0.0.1:1", "keep"]), -1),
        ("addnode", json!(["127.0.0.1:1", "remove"]), -24),
        ("getaddednodeinfo", json!(["127.0.0.1:1"]), -24),
        ("disconnectnode", json!([]), -1),
        ("disconnectnode", json!(["127.0.0.1:1"]), -29),
        ("disconnectnode", json!(["", 5]), -29),
        ("disconnectnode", json!(["127.0.0.1:1", 5]), -32602),
        ("help", json!([1]), -1),
        ("validateaddress", json!([]), -1),
        ("getlicenseinfo", json!([1]), -1),
        ("dumpminerstats", json!([1]), -1),
        ("uptime", json!([1]), -1),
    ] {
        let answer = stand.rpc().try_call(method, params.clone());
        assert_eq!(code(answer), expected, "{method} {params}");
    }
    assert_eq!(stand.rpc().height(), 2);
}

#[test]
fn parameters_have_names_and_some_have_two() {
    let stand = Stand::start("names", "");
    let hashes = stand.generate(1);
    let call = |method: &str, params: Value| {
        stand.post(json!({"method": method, "params": params}).to_string()).1["result"].clone()
    };
    let raw = stand.rpc().call("getblock", json!([hashes[0], 0]));
    assert_eq!(call("getblock", json!({"verbosity": 0, "blockhash": hashes[0]})), raw);
    assert_eq!(call("getblock", json!({"verbose": false, "blockhash": hashes[0]})), raw);
    assert_eq!(call("getblock", json!({"blockhash": hashes[0]}))["height"], 1);
    assert_eq!(call("getblockcount", json!({})), 1);
    assert_eq!(call("getblockcount", Value::Null), 1);
    // Leading zeros need not be written.
    assert_eq!(call("getblock", json!({"blockhash": hashes[0].trim_start_matches('0')}))["height"], 1);
}

/// Amounts are numbers with eight decimals, other fractions have up to sixteen digits, and fields are in Core's order.
#[test]
fn numbers_are_written_as_core_writes_them() {
    let stand = Stand::start("numbers", "");
    let hashes = stand.generate(1);
    let text = |body: Value| {
        let response = stand.request().with_body(body.to_string()).send().unwrap();
        response.as_str().unwrap().to_owned()
    };
    let block = text(json!({"method": "getblock", "params": [hashes[0], 2], "id": 1}));
    assert!(
        block.starts_with(&format!(
            r#"{{"result":{{"hash":"{}","confirmations":1,"strippedsize":"#,
            hashes[0]
        ))
    );
    assert!(block.contains(r#""vout":[{"value":2100000.00000000,"n":0,"scriptPubKey":{"asm":"#), "{block}");
    assert!(block.ends_with("},\"error\":null,\"id\":1}\n"), "{block}");
    let difficulty = text(json!({"method": "getdifficulty", "id": "x"}));
    assert_eq!(difficulty, "{\"result\":1.52587890625e-05,\"error\":null,\"id\":\"x\"}\n");
}

#[test]
fn batches_and_bodies_have_limits() {
    let stand = Stand::start("limits", "");
    let batch = |count: usize| {
        let call = r#"{"method":"getblockcount","id":1}"#;
        format!("[{}]", vec![call; count].join(","))
    };
    let (status, answers) = stand.post(batch(2_000));
    assert_eq!((status, answers.as_array().map(Vec::len)), (200, Some(2_000)));
    assert_eq!(stand.post(batch(10_001)).1["error"]["code"], -32700);
    assert_eq!(stand.post("[]"), (200, json!([])));
    // One byte each here, and a hundred in memory.
    let flat = format!("[{}1]", "1,".repeat(1_000_000));
    assert_eq!(stand.post(flat).1["error"]["code"], -32700);
    for depth in [1_000, 1_000_000] {
        let deep = format!(r#"{{"method":"help","params":{}{}}}"#, "[".repeat(depth), "]".repeat(depth));
        assert_eq!(stand.post(deep).1["error"]["code"], -32700, "{depth}");
    }
    let path = minreq::post(format!("http://127.0.0.1:{}/wallet/x", stand.node.port)).send().unwrap();
    assert_eq!(path.status_code, 404);
    assert_eq!(stand.rpc().height(), 0);
}

/// A client that keeps the node waiting loses its connection, whichever way it does so, and others notice nothing.
#[test]
fn slow_clients_are_let_go() {
    use std::io::{Read, Write};
    let dir = tempfile::tempdir().unwrap();
    let network = Network::file(dir.path(), &easy_devnet("slow", ""));
    let port = iop_tests::program::free_port();
    let flags = ["--rpc-timeout", "1"].map(str::to_owned);
    let node = Node::start_with(dir.path(), &network, port, &flags).unwrap();
    let cookie = STANDARD.encode(std::fs::read_to_string(node.datadir.join(".cookie")).unwrap());
    let head = |length: usize| {
        format!(
            "POST / HTTP/1.1\r\nHost: x\r\nAuthorization: Basic {cookie}\r\nContent-Length: {length}\r\n\r\n"
        )
    };
    let calls = vec![r#"{"method":"help"}"#; 9_000].join(",");
    let thirsty = format!("[{calls}]");
    let silent = [
        String::new(),
        "POST / HT".to_owned(),
        "POST / HTTP/1.1\r\nHost: x\r\n".to_owned(),
        head(100),
        head(100) + "{\"meth",
        // Asks for some megabytes and does not read them.
        head(thirsty.len()) + &thirsty,
    ];
    let clients: Vec<TcpStream> = silent
        .iter()
        .map(|beginning| {
            let mut client = TcpStream::connect(("127.0.0.1", port)).unwrap();
            client.write_all(beginning.as_bytes()).unwrap();
            client
        })
        .collect();
    assert_eq!(node.rpc.height(), 0);
    // The last has filled what the system holds for it by now, and is given up after a second more.
    std::thread::sleep(Duration::from_secs(4));
    for (mut client, beginning) in clients.into_iter().zip(&silent) {
        client.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let mut rest = Vec::new();
        let ended = client.read_to_end(&mut rest);
        let shown = &beginning[..beginning.len().min(40)];
        // The end, or a reset; but no time-out, and never the whole answer.
        assert!(
            !ended.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock),
            "'{shown}' is still connected"
        );
        assert!(!rest.ends_with(b"]\n"), "'{shown}' was waited for");
    }
    assert_eq!(node.rpc.height(), 0);
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
    // Two tips of the same height, easiest target each: whichever is precious.
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
    // One coinbase was spent, all but a thousandth of it went to the miner as fee; the verb's output is no coin.
    assert_eq!((&info["transactions"], &info["txouts"]), (&json!(102), &json!(102)));
    assert_eq!(info["total_amount"], json!(2_105_050.0));
    assert_eq!(info["bogosize"], json!(102 * (50 + 25)));
    let hash = info["hash_serialized_2"].clone();
    rpc.call("invalidateblock", json!([best[0]]));
    assert_ne!(rpc.call("gettxoutsetinfo", json!([]))["hash_serialized_2"], hash);
    rpc.call("reconsiderblock", json!([best[0]]));
    assert_eq!(rpc.call("gettxoutsetinfo", json!([])), info);
    // Through its unspent output the transaction is found, and the spent coinbase is not.
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

/// Asked to stop, the node does so at once, whoever is connected, and takes its cookie with it.
#[test]
fn a_node_stops_though_clients_wait() {
    let stand = Stand::start("stop", "");
    let template = stand.rpc().call("getblocktemplate", json!([{"rules": ["segwit"]}]));
    let id = template["longpollid"].clone();
    let rpc = stand.rpc().clone();
    let poll = std::thread::spawn(move || rpc.try_call("getblocktemplate", json!([{"longpollid": id}])));
    let idle: Vec<TcpStream> =
        (0..20).map(|_| TcpStream::connect(("127.0.0.1", stand.node.port)).unwrap()).collect();
    std::thread::sleep(Duration::from_millis(300));
    assert!(!poll.is_finished());
    let cookie = stand.node.datadir.join(".cookie");
    assert_eq!(stand.node.program.stop().code(), Some(0));
    assert!(!cookie.exists());
    let _ = poll.join().unwrap();
    drop(idle);
}

#[test]
fn a_user_with_a_password_is_let_in_instead_of_the_cookie() {
    use std::os::unix::fs::OpenOptionsExt;
    let dir = tempfile::tempdir().unwrap();
    let password = dir.path().join("password");
    let file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&password);
    std::io::Write::write_all(&mut file.unwrap(), b"pa:ss word\n").unwrap();
    let port = iop_tests::program::free_port();
    let mut args =
        vec!["run".to_owned(), "--network".to_owned(), "devnet".to_owned(), "--no-listen".to_owned()];
    args.extend([
        "--rpc-bind".to_owned(),
        format!("127.0.0.1:{port}"),
        "--rpc-user".to_owned(),
        "me".to_owned(),
    ]);
    args.extend(["--rpc-password-file".to_owned(), password.display().to_string()]);
    args.extend(["--datadir".to_owned(), dir.path().join("node").display().to_string()]);
    let _node = iop_tests::program::Program::start("iop-node", dir.path(), args).unwrap();
    let ask = |user: &str| {
        minreq::post(format!("http://127.0.0.1:{port}/"))
            .with_header("Authorization", format!("Basic {}", STANDARD.encode(user)))
            .with_body(r#"{"method":"getblockcount"}"#)
            .send()
            .ok()
    };
    let answered = iop_tests::program::wait_for(iop_tests::stand::START, || ask("me:pa:ss word"));
    assert_eq!(answered.unwrap().status_code, 200);
    for wrong in ["me:pa", "me", "you:pa:ss word", "me:pa:ss word\n", "__cookie__:"] {
        assert_eq!(ask(wrong).unwrap().status_code, 401, "{wrong}");
    }
    assert!(!dir.path().join("node/.cookie").exists());
}
