//! The format of requests and answers.

use super::*;

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

/// Wrong counts and types, unknown names, values out of range: Core's codes, and the node continues.
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
    // Leading zeros may be omitted.
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
