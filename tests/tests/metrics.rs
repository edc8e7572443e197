//! The pool's answers to Prometheus and other HTTP clients, with a real node and a real miner behind it.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use iop_tests::chain::devnet_like;
use iop_tests::program::wait_for;
use iop_tests::stand::{Network, Node, Pool, devnet_keys, new_address, start_miner};

const SOON: Duration = Duration::from_secs(60);

/// Samples by name with labels, as the text has them.
fn samples(pool: &Pool) -> BTreeMap<String, f64> {
    let response = minreq::get(format!("http://{}/metrics", pool.api)).with_timeout(5).send().unwrap();
    let text = response.as_str().unwrap();
    assert!(text.ends_with("# EOF\n"), "{text}");
    let sample = |line: &str| {
        let (name, value) = line.rsplit_once(' ').unwrap();
        (name.to_owned(), value.parse().unwrap())
    };
    text.lines().filter(|line| !line.starts_with('#')).map(sample).collect()
}

/// The complete answer to a raw request.
fn raw(pool: &Pool, request: &str) -> String {
    let mut stream = TcpStream::connect(&pool.api).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer); // a reset after the answer is fine too
    answer
}

#[test]
fn metrics_agree_with_the_status_and_hostile_clients_hurt_themselves_only() {
    let dir = tempfile::tempdir().unwrap();
    let network = Network::file(dir.path(), &devnet_like("metrics", "000003ff", ""));
    let [_, licenses @ ..] = devnet_keys(dir.path());
    let node = Node::start(dir.path(), &network).unwrap();
    let pool = Pool::start(dir.path(), &network, node.port, &licenses).unwrap();
    let user = format!("{}.rig", new_address(dir.path(), &network));
    let miner = start_miner(dir.path(), &pool.stratum, &user).unwrap();
    let mined = wait_for(SOON, || (node.rpc.height() >= 3).then_some(()));
    assert!(mined.is_some(), "{}", pool.api("status"));
    miner.stop();
    let settled = wait_for(SOON, || {
        let (before, samples, after) = (pool.api("status"), samples(&pool), pool.api("status"));
        (before["shares"] == after["shares"] && before["job"] == after["job"]).then_some((samples, after))
    });
    let (samples, status) = settled.unwrap();
    let value = |name: &str| *samples.get(name).unwrap_or_else(|| panic!("{name} is missing: {samples:#?}"));
    assert_eq!(value("iop_pool_working"), 1.0);
    assert_eq!(value("iop_pool_shares_accepted_total"), status["shares"]["accepted"].as_f64().unwrap());
    assert_eq!(value("iop_pool_share_log_shares_total"), status["shares"]["accepted"].as_f64().unwrap());
    assert_eq!(value("iop_pool_job_height"), status["job"]["height"].as_f64().unwrap());
    assert_eq!(value("iop_pool_blocks_found_total"), status["blocks_found"].as_f64().unwrap());
    assert_eq!(value(&format!("iop_pool_node_up{{node=\"127.0.0.1:{}\"}}", node.port)), 1.0);
    assert_eq!(value("iop_pool_share_commit_seconds_count"), value("iop_pool_share_commit_shares_count"));
    assert_eq!(value("iop_pool_share_commit_shares_sum"), status["shares"]["accepted"].as_f64().unwrap());
    let licenses = samples.keys().filter(|name| name.starts_with("iop_pool_license_eligible{")).count();
    assert_eq!(licenses, 3);
    for name in ["connections", "workers", "network_difficulty", "share_log_stuck", "start_time_seconds"] {
        value(&format!("iop_pool_{name}"));
    }
    assert!(value("iop_pool_datadir_free_bytes") > 0.0);
    assert!(samples.keys().all(|name| !name.contains(&user)), "no label for each worker");

    // Idle connections, and one that never ends its request, delay no other.
    let idle: Vec<TcpStream> = (0..100).map(|_| TcpStream::connect(&pool.api).unwrap()).collect();
    let mut slow = TcpStream::connect(&pool.api).unwrap();
    slow.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n").unwrap();
    assert_eq!(pool.api("status")["state"], "mining");
    drop((idle, slow));
    for (request, status) in [
        ("GET /nothing HTTP/1.0\r\n\r\n", "404"),
        ("POST /api/v1/status HTTP/1.0\r\ncontent-length: 0\r\n\r\n", "405"),
        ("DELETE / HTTP/1.0\r\n\r\n", "405"),
    ] {
        let answer = raw(&pool, request);
        assert!(answer.contains(status) && answer.contains("{\"error\":\""), "{request}: {answer}");
    }
    // Every path there is says which methods it takes.
    let known = ["status", "workers", "history", "blocks", "payouts", "shares", "licenses"];
    let known = known.map(|name| format!("/api/v1/{name}"));
    for path in known.iter().map(String::as_str).chain(["/", "/healthz", "/metrics", "/assets/main.js"]) {
        let answer = raw(&pool, &format!("POST {path} HTTP/1.0\r\ncontent-length: 0\r\n\r\n"));
        assert!(answer.contains(" 405 ") && answer.contains("\r\nallow: GET, HEAD\r\n"), "{path}: {answer}");
        assert!(answer.contains("GET or HEAD expected") && !answer.contains("no such path"), "{answer}");
        let answer = raw(&pool, &format!("GET {path} HTTP/1.0\r\n\r\n"));
        assert!(
            answer.contains(" 200 ") && answer.contains("\r\ncache-control: no-store\r\n"),
            "{path}: {answer}"
        );
    }
    assert!(raw(&pool, "nonsense\r\n\r\n").contains("400"));
    let huge = format!("GET /{} HTTP/1.0\r\n\r\n", "x".repeat(100_000));
    assert!(!raw(&pool, &huge).contains(" 200 "));
    assert_eq!(pool.api("status")["state"], "mining");
}
