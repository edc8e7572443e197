//! An abuse and conformance probe of the Stratum port: one connection for each case, the real pool and node behind it.
//! All cases run; those that fail are listed together.

#![allow(clippy::unwrap_used)]

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use iop_consensus::params::Params;
use iop_tests::chain::devnet_like;
use iop_tests::program::{free_port, wait_for};
use iop_tests::stand::{Network, Node, Pool, devnet_keys, new_address};
use serde_json::{Value, json};

/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Every hash is a share, and none is a block.
const CONFIG: &str = "start_difficulty = 1e-10\nmin_difficulty = 1e-11\nvardiff = false\n";

struct Stand {
    pool: Pool,
    address: String,
    _node: Node,
    _dir: tempfile::TempDir,
}

impl Stand {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let network = Network::file(dir.path(), &devnet_like("probe", "00000000", ""));
        let [_, licenses @ ..] = devnet_keys(dir.path());
        let node = Node::start(dir.path(), &network).unwrap();
        let config = dir.path().join("pool.toml");
        std::fs::write(&config, CONFIG).unwrap();
        let more = ["--config".to_owned(), config.display().to_string()];
        let stratum = format!("127.0.0.1:{}", free_port());
        let pool = Pool::start_with(dir.path(), &network, node.port, &licenses, &stratum, &more).unwrap();
        let ready = wait_for(PATIENCE, || (pool.api("status")["state"] == "mining").then_some(()));
        assert!(ready.is_some(), "{}", pool.api("status"));
        let address = new_address(dir.path(), &network);
        Self { pool, address, _node: node, _dir: dir }
    }

    fn user(&self) -> String {
        format!("{}.rig", self.address)
    }

    fn connect(&self) -> Client {
        let stream = TcpStream::connect(&self.pool.stratum).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let reader = BufReader::new(stream.try_clone().unwrap());
        Client { stream, reader, next: 0, told: VecDeque::new(), job: Value::Null }
    }

    /// Subscribed and authorised, with a job.
    fn ready(&self) -> Client {
        let mut client = self.connect();
        client.call("mining.subscribe", json!(["probe/1"]));
        client.call("mining.authorize", json!([self.user(), "x"]));
        client.wait_for_job();
        client
    }

    /// As [`Self::ready`], with version rolling agreed.
    fn rolling(&self) -> Client {
        let mut client = self.connect();
        client.call("mining.configure", json!([["version-rolling"], {"version-rolling.mask": "1fffe000"}]));
        client.call("mining.subscribe", json!([]));
        client.call("mining.authorize", json!([self.user(), "x"]));
        client.wait_for_job();
        client
    }
}

struct Client {
    stream: TcpStream,
    reader: BufReader<TcpStream>,
    next: u64,
    /// Notifications that came before an answer.
    told: VecDeque<Value>,
    /// The last job's parameters.
    job: Value,
}

impl Client {
    fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes); // a closed connection shows when it is read
    }

    fn line(&mut self, text: &str) {
        self.send(format!("{text}\n").as_bytes());
    }

    /// The next line; `None` at the end.
    fn read(&mut self) -> Option<Value> {
        let mut line = String::new();
        match self.reader.read_line(&mut line) {
            Ok(0) => None,
            Ok(_) => Some(serde_json::from_str(&line).unwrap_or_else(|_| panic!("no JSON: {line:?}"))),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                panic!("no answer within {} s", PATIENCE.as_secs())
            }
            Err(_) => None,
        }
    }

    fn note(&mut self, line: Value) {
        if line["method"] == "mining.notify" {
            self.job = line["params"].clone();
        }
        self.told.push_back(line);
    }

    /// The next answer, notifications put aside.
    fn answer(&mut self) -> Value {
        loop {
            let line = self.read().expect("the connection is open");
            if line.get("method").is_none() {
                return line;
            }
            self.note(line);
        }
    }

    fn call(&mut self, method: &str, params: Value) -> Value {
        self.next += 1;
        let id = self.next;
        self.line(&json!({"id": id, "method": method, "params": params}).to_string());
        let answer = self.answer();
        assert_eq!(answer["id"], id, "{answer}");
        answer
    }

    /// The error's code; 0 for a good answer.
    fn code(&mut self, method: &str, params: Value) -> u64 {
        code(&self.call(method, params))
    }

    fn wait_for_job(&mut self) {
        while self.job.is_null() {
            let line = self.read().expect("a job comes");
            self.note(line);
        }
    }

    fn told(&mut self, method: &str) -> Value {
        loop {
            if let Some(line) = self.told.iter().find(|line| line["method"] == method) {
                return line["params"].clone();
            }
            let line = self.read().expect("the notification comes");
            self.note(line);
        }
    }

    /// Submits `[user, job, extranonce2, ntime, nonce]` with some of them replaced.
    fn submit(&mut self, user: &str, changes: &[(usize, Value)]) -> u64 {
        let mut params = vec![
            json!(user),
            self.job[0].clone(),
            json!("00000000000000aa"),
            self.job[7].clone(),
            json!("000000aa"),
        ];
        for (index, value) in changes {
            if *index == params.len() {
                params.push(value.clone());
            } else {
                params[*index] = value.clone();
            }
        }
        self.code("mining.submit", Value::Array(params))
    }

    /// Whether the pool closes within the patience, whatever it says before.
    fn is_closed(&mut self) -> bool {
        let mut rest = Vec::new();
        match self.reader.read_to_end(&mut rest) {
            Ok(_) => true,
            Err(error) => !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
        }
    }

    fn is_alive(&mut self) {
        assert_eq!(self.call("mining.ping", json!([]))["result"], "pong");
    }
}

fn code(answer: &Value) -> u64 {
    match &answer["error"] {
        Value::Null => 0,
        error => {
            let parts = error.as_array().unwrap_or_else(|| panic!("{answer}"));
            assert!(parts.len() == 3 && parts[1].is_string() && parts[2].is_null(), "{answer}");
            assert!(answer["result"].is_null(), "{answer}");
            parts[0].as_u64().unwrap()
        }
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

type Case = (&'static str, fn(&Stand));

const SUBSCRIBE: &[Case] = &[
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

const CONFIGURE: &[Case] = &[
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
    ("the mask is told at once, after the reply", |stand| {
        let mut client = stand.connect();
        client.line(r#"{"id":1,"method":"mining.configure","params":[["version-rolling"],{}]}"#);
        assert_eq!(client.read().unwrap()["id"], 1);
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

const AUTHORIZE: &[Case] = &[
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
        client.call("mining.authorize", json!([stand.user(), "x,d=0.001"]));
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
    ("an empty worker's name is refused", |stand| {
        assert_eq!(stand.connect().code("mining.authorize", json!([format!("{}.", stand.address), "x"])), 24);
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

const WISHES: &[Case] = &[
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

const ENVELOPES: &[Case] = &[
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
    ("TLS on the plain port is closed or refused", |stand| {
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
    ("a share of a client that says no more is answered", |stand| {
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

const SUBMITS: &[Case] = &[
    ("a share", |stand| assert_eq!(stand.ready().submit(&stand.user(), &[]), 0)),
    ("submit before subscribe", |stand| {
        let share = json!([stand.user(), "1", "0000000000000000", "00000000", "00000000"]);
        assert_eq!(stand.connect().code("mining.submit", share), 25);
    }),
    ("submit of a user who is not authorised", |stand| {
        assert_eq!(stand.ready().submit(&format!("{}.other", stand.address), &[]), 24);
    }),
    ("submit of an unknown job", |stand| {
        assert_eq!(stand.ready().submit(&stand.user(), &[(1, json!("feed"))]), 21);
    }),
    ("a job's id that is too long is refused", |stand| {
        assert_ne!(stand.ready().submit(&stand.user(), &[(1, json!("f".repeat(500)))]), 0);
    }),
    ("extranonce2 must have its width", |stand| {
        let mut client = stand.ready();
        for wrong in ["00000000000000", "000000000000000000", "0000000000000", "", "000000000000000000000000"]
        {
            assert_eq!(client.submit(&stand.user(), &[(2, json!(wrong))]), 20, "{wrong}");
        }
    }),
    ("fields that are no hex are refused", |stand| {
        let mut client = stand.ready();
        for (index, wrong) in [
            (2, "zz00000000000000"),
            (3, "zzzzzzzz"),
            (4, "zzzzzzzz"),
            (4, "+0000000"),
            (2, "0x00000000000000"),
        ] {
            assert_eq!(client.submit(&stand.user(), &[(index, json!(wrong))]), 20, "{wrong}");
        }
    }),
    ("fields that are no text are refused", |stand| {
        let mut client = stand.ready();
        for index in 1..5 {
            for wrong in [json!(1), json!(null), json!([]), json!({}), json!(true)] {
                assert_eq!(client.submit(&stand.user(), &[(index, wrong.clone())]), 20, "{index}: {wrong}");
            }
        }
    }),
    ("ntime must have its width", |stand| {
        let mut client = stand.ready();
        for wrong in ["0", "0000000", "000000000"] {
            assert_eq!(client.submit(&stand.user(), &[(3, json!(wrong))]), 20, "{wrong}");
        }
    }),
    ("ntime before the template's least is refused", |stand| {
        assert_eq!(stand.ready().submit(&stand.user(), &[(3, json!("00000001"))]), 20);
    }),
    ("ntime far ahead is refused", |stand| {
        let mut client = stand.ready();
        for ahead in [660, 7200, 1 << 31] {
            let late = u32::try_from(now() + ahead).unwrap_or(u32::MAX);
            assert_eq!(client.submit(&stand.user(), &[(3, json!(format!("{late:08x}")))]), 20, "{ahead}");
        }
    }),
    ("ntime a little ahead is taken", |stand| {
        let soon = format!("{:08x}", now() + 540);
        assert_eq!(stand.ready().submit(&stand.user(), &[(3, json!(soon))]), 0);
    }),
    ("a short nonce is taken", |stand| {
        assert_eq!(stand.ready().submit(&stand.user(), &[(4, json!("ab"))]), 0);
    }),
    ("a long nonce is refused", |stand| {
        assert_eq!(stand.ready().submit(&stand.user(), &[(4, json!("0000000ab"))]), 20);
    }),
    ("hex in capitals is taken", |stand| {
        assert_eq!(
            stand.ready().submit(&stand.user(), &[(2, json!("00000000000000AB")), (4, json!("ABCDEF01"))]),
            0
        );
    }),
    ("the same share again is refused", |stand| {
        let mut client = stand.ready();
        assert_eq!(client.submit(&stand.user(), &[]), 0);
        assert_eq!(client.submit(&stand.user(), &[]), 22);
    }),
    ("the same share again in other letters is refused", |stand| {
        let mut client = stand.ready();
        assert_eq!(
            client.submit(&stand.user(), &[(2, json!("00000000000000ab")), (4, json!("000000cd"))]),
            0
        );
        assert_eq!(
            client.submit(&stand.user(), &[(2, json!("00000000000000AB")), (4, json!("000000CD"))]),
            22
        );
        assert_eq!(client.submit(&stand.user(), &[(2, json!("00000000000000ab")), (4, json!("cd"))]), 22);
    }),
    ("the same share again of another user is refused", |stand| {
        let (mut client, other) = (stand.ready(), format!("{}.two", stand.address));
        client.call("mining.authorize", json!([other, "x"]));
        assert_eq!(client.submit(&stand.user(), &[]), 0);
        assert_eq!(client.submit(&other, &[]), 22);
    }),
    ("a refused share may come again rightly", |stand| {
        let mut client = stand.ready();
        assert_eq!(client.submit(&stand.user(), &[(3, json!("00000001"))]), 20);
        assert_eq!(client.submit(&stand.user(), &[]), 0);
    }),
    ("version bits that were not agreed are refused", |stand| {
        assert_eq!(stand.ready().submit(&stand.user(), &[(5, json!("00002000"))]), 20);
    }),
    ("version bits outside the mask are refused", |stand| {
        let mut client = stand.rolling();
        for wrong in ["00000001", "20000000", "e0000000", "00003fff"] {
            assert_eq!(client.submit(&stand.user(), &[(5, json!(wrong))]), 20, "{wrong}");
        }
    }),
    ("version bits within the mask are taken, and make another share", |stand| {
        let mut client = stand.rolling();
        assert_eq!(client.submit(&stand.user(), &[(5, json!("00002000"))]), 0);
        assert_eq!(client.submit(&stand.user(), &[(5, json!("1fffe000"))]), 0);
        assert_eq!(client.submit(&stand.user(), &[(5, json!("00000000"))]), 0);
        assert_eq!(client.submit(&stand.user(), &[]), 22, "no bits and zero bits are one header");
    }),
    ("a hash above the target is refused", |stand| {
        let mut client = stand.connect();
        client.call("mining.authorize", json!([stand.user(), "d=1000000"]));
        client.call("mining.subscribe", json!([]));
        client.wait_for_job();
        assert_eq!(client.submit(&stand.user(), &[]), 23);
    }),
    ("a share that was too easy may come again no better", |stand| {
        let mut client = stand.connect();
        client.call("mining.authorize", json!([stand.user(), "d=1000000"]));
        client.call("mining.subscribe", json!([]));
        client.wait_for_job();
        assert_eq!(client.submit(&stand.user(), &[]), 23);
        assert_eq!(client.submit(&stand.user(), &[]), 23, "it was not remembered: the target comes first");
    }),
    ("a difficulty holds for the jobs after it only", |stand| {
        let mut client = stand.ready();
        client.call("mining.suggest_difficulty", json!([1e6]));
        assert_eq!(client.submit(&stand.user(), &[]), 0, "this job was sent before");
    }),
    ("missing parameters are refused", |stand| {
        let mut client = stand.ready();
        for length in 0..5 {
            let whole = [
                json!(stand.user()),
                client.job[0].clone(),
                json!("0000000000000000"),
                client.job[7].clone(),
            ];
            let params: Vec<Value> = whole.into_iter().take(length).collect();
            assert_ne!(client.code("mining.submit", json!(params)), 0, "{length}");
        }
    }),
    ("a null for the version bits is none", |stand| {
        assert_eq!(stand.ready().submit(&stand.user(), &[(5, Value::Null)]), 0);
    }),
    ("the same numbers of two miners are two shares", |stand| {
        let (mut one, mut two) = (stand.ready(), stand.ready());
        assert_eq!((one.submit(&stand.user(), &[]), two.submit(&stand.user(), &[])), (0, 0));
    }),
    ("a pipelined batch of shares is answered, each once", |stand| {
        let mut client = stand.ready();
        let mut lines = String::new();
        for number in 0..500 {
            let share =
                json!([stand.user(), client.job[0], format!("{number:016x}"), client.job[7], "00000001"]);
            lines += &(json!({"id": number, "method": "mining.submit", "params": share}).to_string() + "\n");
        }
        client.send(lines.as_bytes());
        let mut answered: Vec<u64> = (0..500)
            .map(|_| client.answer())
            .map(|answer| {
                assert_eq!(answer["result"], true, "{answer}");
                answer["id"].as_u64().unwrap()
            })
            .collect();
        answered.sort_unstable();
        assert!(answered.iter().copied().eq(0..500));
    }),
];

#[test]
fn no_case_of_the_probe_fails() {
    let stand = Stand::start();
    let cases: Vec<&Case> =
        [SUBSCRIBE, CONFIGURE, AUTHORIZE, WISHES, ENVELOPES, SUBMITS].into_iter().flatten().collect();
    assert!(cases.len() >= 61, "{}", cases.len());
    let mut failed = Vec::new();
    for (name, case) in &cases {
        let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| case(&stand)));
        if let Err(panic) = ran {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            failed.push(format!("{name}: {}", text.unwrap_or_default()));
        }
    }
    assert!(failed.is_empty(), "{} of {} cases fail:\n{}", failed.len(), cases.len(), failed.join("\n"));
    assert!(Path::new(&format!("/proc/{}", stand.pool.program.id())).exists(), "the pool lives");
}
