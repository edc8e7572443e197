//! Access control, and what slow, numerous or hostile clients can do.

use super::*;

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
    let closes = denied
        .headers
        .iter()
        .any(|(name, value)| name.eq_ignore_ascii_case("connection") && value.eq_ignore_ascii_case("close"));
    assert!(closes, "it holds no place: {:?}", denied.headers);
    let before = Instant::now();
    assert_eq!(send(Some(&format!("Basic {}", STANDARD.encode("__cookie__:wrong")))).status_code, 401);
    assert!(before.elapsed() >= Duration::from_millis(250));
    assert_eq!(send(Some("Basic !!")).status_code, 401);
    assert_eq!(minreq::get(&url).send().unwrap().status_code, 405);
    assert_eq!(stand.post(body), (200, json!({"result": 0, "error": null, "id": 1})));
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
    // One byte each here, a hundred in memory.
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

/// A client that keeps the node waiting in any way loses its connection, and others notice nothing.
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
        // Requests some megabytes and does not read them.
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
    // By now the last one has filled the system's buffers, and is dropped after another second.
    std::thread::sleep(Duration::from_secs(4));
    for (mut client, beginning) in clients.into_iter().zip(&silent) {
        client.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let mut rest = Vec::new();
        let ended = client.read_to_end(&mut rest);
        let shown = &beginning[..beginning.len().min(40)];
        // The end, or a reset; but no timeout, and never the whole answer.
        assert!(
            !ended.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock),
            "'{shown}' is still connected"
        );
        assert!(!rest.ends_with(b"]\n"), "'{shown}' was waited for");
    }
    assert_eq!(node.rpc.height(), 0);
}

/// Asked to stop, the node does so at once, whatever is connected, and removes its cookie.
#[test]
fn a_node_stops_though_clients_wait() {
    let stand = Stand::start("stop", "");
    let template = stand.rpc().call("getblocktemplate", json!([{"rules": ["segwit"]}]));
    let id = template["longpollid"].clone();
    let idle: Vec<TcpStream> =
        (0..20).map(|_| TcpStream::connect(("127.0.0.1", stand.node.port)).unwrap()).collect();
    let poll = Poll::start(stand.rpc(), json!({"longpollid": id}));
    let cookie = stand.node.datadir.join(".cookie");
    assert_eq!(stand.node.program.stop().code(), Some(0));
    assert!(!cookie.exists());
    let _ = poll.answer();
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
