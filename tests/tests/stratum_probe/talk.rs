//! Everything but shares: handshakes, suggestions, envelopes, and bytes that are no messages.

use super::*;

pub(crate) const SUBSCRIBE: &[Case] = &[
    ("subscribe without parameters", |stand| {
        let answer = stand.connect().call("mining.subscribe", json!([]));
        assert_eq!(answer["result"][1].as_str().unwrap().len(), 8, "extranonce1 has 4 bytes");
        assert_eq!(answer["result"][2], 8, "extranonce2 has 8");
    }),
    ("subscribe with an agent", |stand| {
        assert_eq!(stand.connect().code("mining.subscribe", json!(["cgminer/4.12.0"])), 0);
    }),
    ("subscribe with agent and session", |stand| {
        assert_eq!(stand.connect().code("mining.subscribe", json!(["cgminer/4.12.0", "0badcafe"])), 0);
    }),
    ("subscribe with agent, null, host and port", |stand| {
        assert_eq!(stand.connect().code("mining.subscribe", json!(["a", null, "localhost", "3333"])), 0);
        assert_eq!(stand.connect().code("mining.subscribe", json!(["a", null, "localhost", 3333])), 0);
    }),
    ("subscribe without the field params", |stand| {
        let mut client = stand.connect();
        client.line(r#"{"id":1,"method":"mining.subscribe"}"#);
        assert_eq!(code(&client.answer()), 0);
    }),
    ("the reply to subscribe comes before any notification", |stand| {
        let mut client = stand.connect();
        client.line(r#"{"id":7,"method":"mining.subscribe","params":[]}"#);
        let first = client.read().unwrap();
        assert_eq!(first["id"], 7, "{first}");
        assert_eq!(client.read().unwrap()["method"], "mining.set_difficulty");
        assert_eq!(client.read().unwrap()["method"], "mining.notify");
    }),
    ("a resumed session never gets another's extranonce1", |stand| {
        let mut first = stand.connect();
        let taken = first.call("mining.subscribe", json!([]))["result"][1].clone();
        let answer = stand.connect().call("mining.subscribe", json!(["a", taken]));
        assert_ne!(answer["result"][1], taken);
    }),
    ("who subscribes again keeps the extranonce1 and gets a job with a new id", |stand| {
        let mut client = stand.ready();
        let (id, coinbase) = (client.job[0].clone(), client.job[2].clone());
        let one = client.call("mining.subscribe", json!([]))["result"][1].clone();
        client.job = Value::Null;
        client.wait_for_job();
        assert_ne!((&client.job[0], &client.job[2]), (&id, &coinbase));
        assert_eq!(client.call("mining.subscribe", json!([]))["result"][1], one);
    }),
    ("all jobs of a session have ids of their own", |stand| {
        let mut client = stand.ready();
        let mut ids = vec![client.job[0].clone()];
        for _ in 0..5 {
            client.job = Value::Null;
            client.call("mining.subscribe", json!([]));
            client.wait_for_job();
            assert!(!ids.contains(&client.job[0]), "{ids:?}");
            ids.push(client.job[0].clone());
        }
    }),
];

pub(crate) const CONFIGURE: &[Case] = &[
    ("version rolling without a mask gets the pool's", |stand| {
        let answer = stand.connect().call("mining.configure", json!([["version-rolling"], {}]));
        assert_eq!(answer["result"]["version-rolling"], true);
        assert_eq!(answer["result"]["version-rolling.mask"], "1fffe000");
    }),
    ("version rolling with every bit gets the pool's mask", |stand| {
        let options = json!({"version-rolling.mask": "ffffffff", "version-rolling.min-bit-count": 2});
        let answer = stand.connect().call("mining.configure", json!([["version-rolling"], options]));
        assert_eq!(answer["result"]["version-rolling.mask"], "1fffe000");
    }),
    ("version rolling with some bits gets those", |stand| {
        let options = json!({"version-rolling.mask": "00c00001", "version-rolling.min-bit-count": "2"});
        let answer = stand.connect().call("mining.configure", json!([["version-rolling"], options]));
        assert_eq!(answer["result"]["version-rolling.mask"], "00c00000");
    }),
    ("a mask that is no hex is refused in the answer", |stand| {
        let options = json!({"version-rolling.mask": "zz"});
        let answer = stand.connect().call("mining.configure", json!([["version-rolling"], options]));
        assert_ne!(answer["result"]["version-rolling"], true, "{answer}");
    }),
    ("the mask is told behind the answer to authorize", |stand| {
        let mut client = stand.connect();
        client.line(r#"{"id":1,"method":"mining.configure","params":[["version-rolling"],{}]}"#);
        assert_eq!(client.read().unwrap()["id"], 1);
        let authorize = json!({"id": 2, "method": "mining.authorize", "params": [stand.user(), "x"]});
        client.line(&authorize.to_string());
        assert_eq!(client.read().unwrap()["id"], 2, "nothing before it");
        assert_eq!(client.told("mining.set_version_mask"), json!(["1fffe000"]));
    }),
    ("every listed extension is answered", |stand| {
        let listed = json!(["version-rolling", "minimum-difficulty", "subscribe-extranonce", "info", "x-y"]);
        let options = json!({"minimum-difficulty.value": 1e-9, "info.hw-id": "a"});
        let answer = stand.connect().call("mining.configure", json!([listed, options]));
        let result = &answer["result"];
        for (name, expected) in
            [("minimum-difficulty", true), ("subscribe-extranonce", true), ("info", true), ("x-y", false)]
        {
            assert_eq!(result[name], expected, "{answer}");
        }
    }),
    ("a minimum difficulty above the pool's greatest is declined", |stand| {
        let options = json!({"minimum-difficulty.value": 1e300});
        let answer = stand.connect().call("mining.configure", json!([["minimum-difficulty"], options]));
        assert_eq!(answer["result"]["minimum-difficulty"], false);
    }),
    ("configure without a list is refused", |stand| {
        assert_eq!(stand.connect().code("mining.configure", json!(["version-rolling"])), 20);
        assert_eq!(stand.connect().code("mining.configure", json!([])), 20);
    }),
    ("configure with options of a wrong kind is refused", |stand| {
        assert_eq!(stand.connect().code("mining.configure", json!([["version-rolling"], 7])), 20);
    }),
];

pub(crate) const AUTHORIZE: &[Case] = &[
    ("authorize with a null password", |stand| {
        let mut client = stand.connect();
        client.call("mining.subscribe", json!([]));
        assert_eq!(client.call("mining.authorize", json!([stand.user(), null]))["result"], true);
    }),
    ("authorize without a password", |stand| {
        assert_eq!(stand.connect().call("mining.authorize", json!([stand.user()]))["result"], true);
    }),
    ("authorize before subscribe", |stand| {
        let mut client = stand.connect();
        assert_eq!(client.call("mining.authorize", json!([stand.user(), "x"]))["result"], true);
        client.call("mining.subscribe", json!([]));
        client.wait_for_job();
        assert_eq!(client.submit(&stand.user(), &[]), 0);
    }),
    ("a difficulty in the password holds", |stand| {
        let mut client = stand.connect();
        client.call("mining.authorize", json!([stand.user(), "x; D= 0.001"]));
        client.call("mining.subscribe", json!([]));
        let told = client.told("mining.set_difficulty")[0].as_f64().unwrap();
        assert!((told - 0.001).abs() < 1e-9, "{told}");
    }),
    ("an address of another network is refused in words", |stand| {
        let other = iop_consensus::address::Address::of_pubkey(b"x").to_base58(&Params::main().prefixes);
        let answer = stand.connect().call("mining.authorize", json!([other, "x"]));
        assert_eq!(code(&answer), 24);
        assert!(answer["error"][1].as_str().unwrap().contains("version byte"), "{answer}");
    }),
    ("a user that is no address is refused", |stand| {
        assert_eq!(stand.connect().code("mining.authorize", json!(["worker1", "x"])), 24);
    }),
    ("a user of 127 bytes is taken", |stand| {
        let user = format!("{}.{}", stand.address, "w".repeat(126 - stand.address.len()));
        assert_eq!((user.len(), stand.connect().code("mining.authorize", json!([user, "x"]))), (127, 0));
    }),
    ("a user of 128 bytes is refused", |stand| {
        let user = format!("{}.{}", stand.address, "w".repeat(127 - stand.address.len()));
        assert_ne!(stand.connect().code("mining.authorize", json!([user, "x"])), 0);
    }),
    ("an empty worker's name and blanks around a user are taken", |stand| {
        for user in [format!("{}.", stand.address), format!(" {} ", stand.user())] {
            assert_eq!(stand.connect().code("mining.authorize", json!([user, 123])), 0, "{user:?}");
        }
    }),
    ("a worker's name that does not print is refused", |stand| {
        let user = format!("{}.a\u{202e}b", stand.address);
        assert_eq!(stand.connect().code("mining.authorize", json!([user, "x"])), 24);
    }),
    ("authorize without a user is refused", |stand| {
        assert_ne!(stand.connect().code("mining.authorize", json!([])), 0);
        assert_ne!(stand.connect().code("mining.authorize", json!([5, "x"])), 0);
    }),
    ("several users work on one connection", |stand| {
        let (mut client, other) = (stand.ready(), format!("{}.two", stand.address));
        assert_eq!(client.code("mining.authorize", json!([other, "x"])), 0);
        assert_eq!(client.submit(&other, &[]), 0);
    }),
];

pub(crate) const WISHES: &[Case] = &[
    ("suggest_difficulty as a number", |stand| {
        assert_eq!(stand.ready().call("mining.suggest_difficulty", json!([1e-5]))["result"], true);
    }),
    ("suggest_difficulty as a string, before anything else", |stand| {
        let mut client = stand.connect();
        assert_eq!(client.call("mining.suggest_difficulty", json!(["0.5"]))["result"], true);
        client.call("mining.subscribe", json!([]));
        assert_eq!(client.told("mining.set_difficulty")[0].as_f64(), Some(0.5));
    }),
    ("suggest_difficulty that is no difficulty is refused", |stand| {
        for wrong in
            [json!([-1]), json!([0]), json!(["x"]), json!([null]), json!([]), json!(["NaN"]), json!(["inf"])]
        {
            assert_eq!(stand.connect().code("mining.suggest_difficulty", wrong.clone()), 20, "{wrong}");
        }
    }),
    ("suggest_target", |stand| {
        let mut client = stand.connect();
        let target = format!("00000000ffff{}", "0".repeat(52));
        assert_eq!(client.call("mining.suggest_target", json!([target]))["result"], true);
        assert_eq!(client.code("mining.suggest_target", json!(["00ff"])), 20);
    }),
    ("extranonce.subscribe is answered", |stand| {
        assert_eq!(stand.connect().call("mining.extranonce.subscribe", json!([]))["result"], true);
    }),
    ("get_version names the program", |stand| {
        for method in ["mining.get_version", "client.get_version"] {
            let answer = stand.connect().call(method, json!([]));
            assert!(answer["result"].as_str().unwrap().starts_with("iop-pool/"), "{answer}");
        }
    }),
    ("ping is answered", |stand| stand.connect().is_alive()),
    ("get_transactions is answered with a list", |stand| {
        let mut client = stand.ready();
        let job = client.job[0].clone();
        assert!(client.call("mining.get_transactions", json!([job]))["result"].is_array());
    }),
    ("an unknown method is refused and nothing more", |stand| {
        let mut client = stand.connect();
        assert_eq!(client.code("mining.nonsense", json!([])), 20);
        client.is_alive();
    }),
];

pub(crate) const ENVELOPES: &[Case] = &[
    ("any scalar id is echoed as it came", |stand| {
        for id in [r#""a\"b""#, "1.50", "99999999999999999999999", "-3", "true", "null", "\"\""] {
            let mut client = stand.connect();
            client.line(&format!(r#"{{"id":{id},"method":"mining.ping","params":[]}}"#));
            let mut line = String::new();
            client.reader.read_line(&mut line).unwrap();
            assert!(line.starts_with(&format!("{{\"id\":{id},")), "{id}: {line}");
        }
    }),
    ("an id that is no scalar is refused", |stand| {
        let mut client = stand.connect();
        client.line(r#"{"id":[1],"method":"mining.ping","params":[]}"#);
        assert_eq!(code(&client.answer()), 20);
        client.is_alive();
    }),
    ("an id that is too long is refused", |stand| {
        let mut client = stand.connect();
        client.line(&format!(r#"{{"id":"{}","method":"mining.ping","params":[]}}"#, "x".repeat(300)));
        assert_eq!(code(&client.answer()), 20);
    }),
    ("parameters that are no list are refused", |stand| {
        let mut client = stand.connect();
        client.line(r#"{"id":1,"method":"mining.subscribe","params":{"a":1}}"#);
        assert_eq!(code(&client.answer()), 20);
    }),
    ("a method that is no text is refused", |stand| {
        let mut client = stand.connect();
        client.line(r#"{"id":1,"method":7,"params":[]}"#);
        assert_eq!(code(&client.answer()), 20);
    }),
    ("a field that is there twice is refused", |stand| {
        let mut client = stand.connect();
        client.line(r#"{"id":1,"id":2,"method":"mining.ping","params":[]}"#);
        assert_eq!(code(&client.answer()), 20);
    }),
    ("broken JSON is refused and the connection stays", |stand| {
        let mut client = stand.connect();
        client.line(r#"{"id":1,"method":"#);
        assert_eq!(code(&client.answer()), 20);
        client.is_alive();
    }),
    ("nesting beyond any message is refused", |stand| {
        let mut client = stand.connect();
        client.line(&format!(
            r#"{{"id":1,"method":"mining.ping","params":{}{}}}"#,
            "[".repeat(2000),
            "]".repeat(2000)
        ));
        assert_eq!(code(&client.answer()), 20);
    }),
    ("many malformed lines end the connection", |stand| {
        let mut client = stand.connect();
        (0..40).for_each(|_| client.line("nonsense"));
        assert!(client.is_closed());
    }),
    ("many lines in one write are all answered, in order", |stand| {
        let mut client = stand.connect();
        let lines: String = (0..100)
            .map(|id| format!("{{\"id\":{id},\"method\":\"mining.ping\",\"params\":[]}}\n"))
            .collect();
        client.send(lines.as_bytes());
        for id in 0..100 {
            assert_eq!(client.answer()["id"], id);
        }
    }),
    ("a line that comes byte by byte is read", |stand| {
        let mut client = stand.connect();
        client.stream.set_nodelay(true).unwrap();
        for byte in b"{\"id\":1,\"method\":\"mining.ping\",\"params\":[]}\n" {
            client.send(&[*byte]);
        }
        assert_eq!(client.answer()["result"], "pong");
    }),
    ("carriage returns and empty lines are nothing", |stand| {
        let mut client = stand.connect();
        client.send(b"\r\n\n  \r\n{\"id\":1,\"method\":\"mining.ping\",\"params\":[]}\r\n");
        assert_eq!(client.answer()["result"], "pong");
    }),
    ("an endless line ends the connection", |stand| {
        let mut client = stand.connect();
        for _ in 0..64 {
            client.send(&[b'x'; 4096]);
        }
        assert!(client.is_closed());
    }),
    ("a web browser is told what this is, and closed", |stand| {
        for verb in ["GET / HTTP/1.1", "POST / HTTP/1.1"] {
            let mut client = stand.connect();
            client.send(format!("{verb}\r\nhost: x\r\n\r\n").as_bytes());
            let mut answer = String::new();
            client.reader.read_to_string(&mut answer).unwrap();
            assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
        }
    }),
    ("TLS on the plain port ends with its client and hurts nobody", |stand| {
        let mut client = stand.connect();
        let hello: Vec<u8> = [&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..], &[7u8; 600]].concat();
        client.send(&hello);
        client.send(b"\n".repeat(40).as_slice());
        client.stream.shutdown(Shutdown::Write).unwrap();
        assert!(client.is_closed());
    }),
    ("bytes that are no text are refused", |stand| {
        let mut client = stand.connect();
        client.send(b"\xff\xfe\x00\x01\n");
        assert_eq!(code(&client.answer()), 20);
        client.is_alive();
    }),
    ("a share is answered, and its client's end taken", |stand| {
        let mut client = stand.ready();
        let share = json!([stand.user(), client.job[0], "00000000000000bb", client.job[7], "00000000"]);
        client.line(&json!({"id": "last", "method": "mining.submit", "params": share}).to_string());
        assert_eq!(client.answer()["id"], "last");
        client.stream.shutdown(Shutdown::Write).unwrap();
        assert!(client.is_closed());
    }),
    ("a reader that never reads fills no memory and holds up nobody", |stand| {
        let mut deaf = stand.connect();
        deaf.stream.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
        let ping = b"{\"id\":1,\"method\":\"mining.ping\",\"params\":[]}\n".repeat(1000);
        let mut sent = 0;
        while sent < 1000 && deaf.stream.write_all(&ping).is_ok() {
            sent += 1;
        }
        assert!(sent < 1000, "the pool reads what is not read from it");
        stand.connect().is_alive();
        let status = std::fs::read_to_string(format!("/proc/{}/status", stand.pool.program.id())).unwrap();
        let rss = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
        let kib: u64 = rss.split_whitespace().nth(1).unwrap().parse().unwrap();
        assert!(kib < 200 * 1024, "{kib} KiB");
    }),
];
