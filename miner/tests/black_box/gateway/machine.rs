//! A machine for tests of the gateway: hand-written JSON over a socket.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};

use serde_json::{Value, json};
use tokio::net::TcpSocket;

use crate::support::{PATIENCE, Template};

/// A machine on a connection.
pub(super) struct Machine {
    pub(super) reader: BufReader<TcpStream>,
    pub(super) id: u64,
    pub(super) extranonce1: String,
    pub(super) size: usize,
    pub(super) difficulty: f64,
    /// The newest job's parameters.
    pub(super) job: Option<Value>,
    /// Shares searched so far.
    pub(super) tried: u32,
}

impl Machine {
    pub(super) fn connect(address: SocketAddr) -> Self {
        Self::connect_from(Ipv4Addr::LOCALHOST, address)
    }

    /// Connects from another of this machine's addresses.
    pub(super) fn connect_from(source: Ipv4Addr, address: SocketAddr) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let stream = runtime.block_on(async {
            let socket = TcpSocket::new_v4().unwrap();
            socket.bind((source, 0).into()).unwrap();
            socket.connect(address).await.unwrap().into_std().unwrap()
        });
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let reader = BufReader::new(stream);
        Self { reader, id: 0, extranonce1: String::new(), size: 0, difficulty: 0.0, job: None, tried: 0 }
    }

    /// Runs up to its first job.
    pub(super) fn start(address: SocketAddr, user: &str) -> Self {
        Self::connect(address).begin(user)
    }

    pub(super) fn begin(mut self, user: &str) -> Self {
        self.introduce(user);
        while self.job.is_none() {
            self.read().expect("the gateway keeps the machine");
        }
        self
    }

    pub(super) fn introduce(&mut self, user: &str) {
        let subscribed = self.ask("mining.subscribe", &json!(["test/1"]));
        self.extranonce1 = subscribed["result"][1].as_str().unwrap().to_owned();
        self.size = subscribed["result"][2].as_u64().unwrap() as usize;
        assert_eq!(self.ask("mining.authorize", &json!([user, "x"]))["result"], true);
    }

    pub(super) fn send(&mut self, method: &str, params: &Value) -> u64 {
        self.id += 1;
        let line = json!({"id": self.id, "method": method, "params": params}).to_string() + "\n";
        self.reader.get_mut().write_all(line.as_bytes()).unwrap();
        self.id
    }

    /// The next line; `None` if the gateway has closed the connection.
    pub(super) fn read(&mut self) -> Option<Value> {
        let mut line = String::new();
        match self.reader.read_line(&mut line) {
            Ok(0) => return None,
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
            read => read.expect("the gateway speaks or goes"),
        };
        let line: Value = serde_json::from_str(&line).unwrap();
        match line["method"].as_str() {
            Some("mining.notify") => self.job = Some(line["params"].clone()),
            Some("mining.set_difficulty") => self.difficulty = line["params"][0].as_f64().unwrap(),
            Some("mining.set_extranonce") => {
                self.extranonce1 = line["params"][0].as_str().unwrap().to_owned();
                self.size = line["params"][1].as_u64().unwrap() as usize;
            }
            _ => {}
        }
        Some(line)
    }

    pub(super) fn until(&mut self, method: &str) -> Value {
        loop {
            let line = self.read().expect("the gateway keeps the machine");
            if line["method"] == method {
                return line;
            }
        }
    }

    pub(super) fn ask(&mut self, method: &str, params: &Value) -> Value {
        let id = self.send(method, params);
        loop {
            let line = self.read().expect("the gateway keeps the machine");
            if line["id"] == id {
                return line;
            }
        }
    }

    /// Submits a new share of the upstream's job; returns its extranonce2 as the upstream sees it, and the nonce.
    pub(super) fn find(&mut self, user: &str, upstream: &Template) -> (String, String) {
        let (params, extranonce2, nonce) = self.solve(user, upstream);
        let answer = self.ask("mining.submit", &params);
        assert_eq!(answer["result"], true, "{answer}");
        (extranonce2, nonce)
    }

    /// The same without submitting; the first value is what to submit.
    pub(super) fn solve(&mut self, user: &str, upstream: &Template) -> (Value, String, String) {
        let job = self.job.clone().expect("a job");
        let extranonce2 = "5a".repeat(self.size);
        let extranonces = [&*self.extranonce1, &extranonce2].concat();
        let bits = upstream.version & upstream.mask;
        let is_share = |nonce: &String| upstream.is_share(&upstream.header(&extranonces, nonce, bits));
        self.tried += 1;
        let nonces = (self.tried << 20..).map(|nonce| format!("{nonce:08x}"));
        let nonce = nonces.into_iter().find(is_share).expect("one in a few thousand is a share");
        let params = json!([user, job[0], extranonce2, job[7], nonce]);
        (params, extranonces[upstream.extranonce1.len()..].to_owned(), nonce)
    }

    pub(super) fn wait_until_closed(mut self) {
        while self.read().is_some() {}
    }
}
