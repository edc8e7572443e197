//! Thousands of hostile connections to a real pool with a real node, next to one honest miner whose shares must count.

#![allow(clippy::unwrap_used)]

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use iop_tests::chain::devnet_like;
use iop_tests::program::{run, wait_for};
use iop_tests::stand::{Network, Node, Pool, devnet_keys, new_address};
use iop_tests::worker::Worker;
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(30);
const HOSTILE: u32 = 2000;
/// Source addresses of the hostile connections.
const SOURCES: u32 = 20;
const CONFIG: &str = "handshake_seconds = 5.0\nwrite_seconds = 3.0\nmax_requests_per_second = 1000.0\n\
                      max_connections = 2100\nstart_difficulty = 1e-8\nmin_difficulty = 1e-9\nvardiff = false\n";
/// Most memory of the pool, in KiB: 2,000 connections at 40 KiB of lines and replies, and the rest.
const MOST_KIB: u64 = 160 * 1024;

fn connect_from(source: Ipv4Addr, pool: SocketAddr) -> TcpStream {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let stream = runtime.block_on(async {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind((source, 0).into()).unwrap();
        socket.connect(pool).await.unwrap().into_std().unwrap()
    });
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream.set_write_timeout(Some(Duration::from_millis(50))).unwrap();
    stream
}

/// Whether the pool has ended a connection, orderly or not.
fn is_ended(stream: &mut TcpStream) -> bool {
    let ended = stream.read_to_end(&mut Vec::new());
    !ended.is_err_and(|error| matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut))
}

/// The bytes that a hostile client sends, by kind.
fn said(kind: u32, user: &str) -> Vec<u8> {
    let call =
        |method: &str, params: Value| json!({"id": 1, "method": method, "params": params}).to_string() + "\n";
    match kind {
        0 => b"this is no Stratum\n".repeat(100),
        1 => b"{\"id\":1,".to_vec(), // incomplete
        2 => call("mining.get_version", json!([])).repeat(2000).into_bytes(), // and never reads
        3 => {
            let share = json!([user, "1", "00", "00000000", "00000000"]);
            let hello = call("mining.subscribe", json!([])) + &call("mining.authorize", json!([user, "x"]));
            (hello + &call("mining.submit", share).repeat(1500)).into_bytes()
        }
        4 => [&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..], &[10; 600]].concat(), // TLS on the plain port
        _ => vec![b'['; 100_000],
    }
}

fn mine(miner: &mut Worker, shares: u32, mined: &mut u64) {
    for _ in 0..shares {
        let job = miner.job();
        let share = miner.solve(&job);
        assert_eq!(miner.submit(&share), 0);
        *mined += 1;
    }
}

#[test]
fn an_honest_miners_shares_keep_counting_beside_two_thousand_hostile_connections() {
    let dir = tempfile::tempdir().unwrap();
    let network = Network::file(dir.path(), &devnet_like("hostile", "00000000", ""));
    let [_, licenses @ ..] = devnet_keys(dir.path());
    let node = Node::start(dir.path(), &network).unwrap();
    let mut pool = Pool::start_configured(dir.path(), &network, node.port, &licenses, CONFIG).unwrap();
    let stratum = pool.stratum.clone();
    let user = format!("{}.rig", new_address(dir.path(), &network));
    let (mut honest, mut mined) = (Worker::connect(&stratum, &user), 0);
    mine(&mut honest, 3, &mut mined);
    let pool_address: SocketAddr = stratum.parse().unwrap();
    let source = |number: u32| Ipv4Addr::new(127, 0, 0, 2 + (number % SOURCES) as u8);
    let mut hostile: Vec<TcpStream> =
        (0..HOSTILE).map(|number| connect_from(source(number), pool_address)).collect();
    mine(&mut honest, 3, &mut mined);
    for (stream, number) in hostile.iter_mut().zip(0..) {
        let _ = stream.write_all(&said(number / SOURCES % 6, &user)); // the pool may have closed it or stopped reading
        if number % 50 == 0 {
            mine(&mut honest, 1, &mut mined);
        }
    }
    for (stream, number) in hostile.iter_mut().zip(0..) {
        // A client that never reads is dropped by a timeout, too late to wait for here.
        assert!(number / SOURCES % 6 == 2 || is_ended(stream), "{number} is open");
        if number % 200 == 0 {
            mine(&mut honest, 1, &mut mined);
        }
    }
    let banned = wait_for(SOON, || pool.program.log().contains("127.0.0.2 is banned for").then_some(()));
    assert!(banned.is_some(), "{}", pool.program.log());
    assert!(is_ended(&mut connect_from(source(0), pool_address)), "who is banned is not let in");
    mine(&mut Worker::connect(&stratum, &user), 1, &mut mined);
    let status = std::fs::read_to_string(format!("/proc/{}/status", pool.program.id())).unwrap();
    let most = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    let kib: u64 = most.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!(kib < MOST_KIB, "{kib} KiB");
    assert!(pool.program.is_running());
    assert_eq!(pool.program.stop().code(), Some(0));
    let mut args = vec!["audit".to_owned(), "--json".to_owned(), "--datadir".to_owned()];
    args.push(dir.path().join("pool").display().to_string());
    args.extend(network.flags());
    let (code, out, err) = run("iop-pool", args);
    assert_eq!(code, Some(0), "{out}{err}");
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(report["shares"], mined, "every good share is in the log, and no other");
    println!("{mined} shares, {kib} KiB at most");
}
