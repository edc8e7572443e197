//! The node's JSON-RPC as clients of Bitcoin Core speak it.

#![allow(clippy::unwrap_used)]

use std::net::TcpStream;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use iop_consensus::params::Params;
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
    assert_eq!(code(stand.rpc().try_call("getblocktemplate", json!([{"mode": "proposal"}]))), -8);
}
