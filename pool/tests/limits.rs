//! Limits of a connection, and the end of those that exceed them: no other connection is affected.

#![allow(clippy::unwrap_used)]

mod common;

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use common::program::{Miner, Program, connect, user};
use common::{Chain, PATIENCE, wait_until};
use serde_json::{Value, json};

/// Connects from another of this machine's addresses.
fn connect_from(source: Ipv4Addr, pool: SocketAddr) -> TcpStream {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let stream = runtime.block_on(async {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind((source, 0).into()).unwrap();
        socket.connect(pool).await.unwrap().into_std().unwrap()
    });
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(Duration::from_millis(100))).unwrap();
    stream
}

/// Whether the pool has ended a connection, orderly or not.
fn is_ended(stream: &mut TcpStream) -> bool {
    let ended = stream.read_to_end(&mut Vec::new());
    !ended.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
}

fn subscribe() -> Vec<u8> {
    let user = user();
    [
        json!({"id": 1, "method": "mining.subscribe", "params": []}),
        json!({"id": 2, "method": "mining.authorize", "params": [user, "x"]}),
    ]
    .iter()
    .flat_map(|call| (call.to_string() + "\n").into_bytes())
    .collect()
}

/// Bad shares: of an unknown job, and with fields that are too short.
fn bad_shares(count: usize) -> Vec<u8> {
    let params = json!([user(), "1", "00", "00000000", "00000000"]);
    (json!({"id": 3, "method": "mining.submit", "params": params}).to_string() + "\n")
        .repeat(count)
        .into_bytes()
}

#[test]
fn two_thousand_hostile_connections_do_not_stop_an_honest_miner() {
    iop_mining::open_files::raise();
    let (folder, chain) = (tempfile::tempdir().unwrap(), Chain::new("devnet"));
    let node = chain.serve(0);
    let config = "handshake_seconds = 5.0\nwrite_seconds = 3.0\nmax_requests_per_second = 1000.0\n\
                  max_connections = 2100";
    let pool = Program::start(folder.path(), node.address, config);
    let mut honest = Miner::new(connect(pool.stratum));
    let mut hostile: Vec<(u32, TcpStream)> = (0..2000)
        .map(|number| (number, connect_from(Ipv4Addr::new(127, 0, 0, 2 + (number % 20) as u8), pool.stratum)))
        .collect();
    honest.mine(2);
    for (number, stream) in &mut hostile {
        let bytes = match *number / 20 % 6 {
            0 => b"this is no Stratum\n".repeat(100),
            1 => b"{\"id\":1,".to_vec(), // incomplete
            2 => b"{\"id\":1,\"method\":\"mining.get_version\",\"params\":[]}\n".repeat(2000), // and never reads
            3 => [subscribe(), bad_shares(1500)].concat(),
            4 => b"POST / HTTP/1.1\r\nhost: x\r\n\r\n".to_vec(),
            _ => vec![b'['; 100_000],
        };
        let _ = stream.write_all(&bytes); // the pool may have closed it or stopped reading
        if *number % 100 == 0 {
            honest.mine(1);
        }
    }
    honest.mine(5);
    for (number, stream) in hostile.iter_mut().filter(|(number, _)| *number / 20 % 6 != 2) {
        assert!(is_ended(stream), "{number} is open");
        if *number % 500 == 0 {
            honest.mine(1);
        }
    }
    wait_until("they are banned", || pool.log().contains("127.0.0.2 is banned for"));
    assert!(is_ended(&mut connect_from(Ipv4Addr::new(127, 0, 0, 2), pool.stratum)), "and not let in");
    honest.mine(1);
    Miner::new(connect(pool.stratum)).mine(1);
}

#[test]
fn a_web_browser_is_told_where_it_is() {
    let (folder, chain) = (tempfile::tempdir().unwrap(), Chain::new("devnet"));
    let node = chain.serve(0);
    let pool = Program::start(folder.path(), node.address, "");
    // With a body that the pool does not read: the answer arrives all the same.
    for request in [
        "GET / HTTP/1.1\r\nhost: x\r\n\r\n".to_owned(),
        format!("POST / HTTP/1.1\r\n\r\n{}", "x".repeat(30_000)),
    ] {
        let mut stream = TcpStream::connect(pool.stratum).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(
            head.starts_with("HTTP/1.1 400 Bad Request\r\n") && body == "400: this is a Stratum port",
            "{answer}"
        );
    }
}

#[test]
fn silence_before_the_first_user_and_for_long_after_it_ends_a_connection() {
    let (folder, chain) = (tempfile::tempdir().unwrap(), Chain::new("devnet"));
    let node = chain.serve(0);
    let pool = Program::start(folder.path(), node.address, "handshake_seconds = 0.5\nidle_seconds = 1.0");
    let mut stranger = TcpStream::connect(pool.stratum).unwrap();
    stranger.set_read_timeout(Some(PATIENCE)).unwrap();
    stranger.write_all(b"{\"id\":1,\"method\":\"mining.ping\"}\n").unwrap();
    assert!(is_ended(&mut stranger), "a ping is no introduction");
    let mut miner = Miner::new(connect(pool.stratum));
    wait_until("the idle miner is closed", || {
        miner.exchange();
        miner.is_closed
    });
}

#[test]
fn who_does_not_read_is_dropped() {
    let (folder, chain) = (tempfile::tempdir().unwrap(), Chain::new("devnet"));
    let node = chain.serve(0);
    let pool =
        Program::start(folder.path(), node.address, "write_seconds = 1.0\nmax_requests_per_second = 1e9");
    let mut deaf = TcpStream::connect(pool.stratum).unwrap();
    deaf.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    deaf.write_all(&subscribe()).unwrap();
    let line = b"{\"id\":1,\"method\":\"mining.get_version\",\"params\":[]}\n".repeat(1000);
    let begun = Instant::now();
    let error = loop {
        assert!(begun.elapsed() < PATIENCE, "it is still served");
        match deaf.write_all(&line) {
            Err(error) if error.kind() != ErrorKind::WouldBlock => break error.kind(),
            _ => {}
        }
    };
    assert!(matches!(error, ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{error}");
}

#[test]
fn too_many_requests_are_answered_later_and_all_of_them() {
    let (folder, chain) = (tempfile::tempdir().unwrap(), Chain::new("devnet"));
    let node = chain.serve(0);
    let pool = Program::start(folder.path(), node.address, "max_requests_per_second = 100.0");
    let mut stream = TcpStream::connect(pool.stratum).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let begun = Instant::now();
    stream.write_all(&b"{\"id\":1,\"method\":\"mining.ping\",\"params\":[]}\n".repeat(300)).unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(stream));
    for _ in 0..300 {
        let answer: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        assert_eq!(answer["result"], "pong");
    }
    assert!(begun.elapsed() > Duration::from_secs(1), "two hundred of them had to wait at 100 a second");
}
