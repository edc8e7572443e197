//! A node hosts a Mercury relay: alongside its chain, in its metrics, and until it stops.

#![allow(clippy::unwrap_used)]

use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use iop_tests::chain::{easy_devnet, generate};
use iop_tests::program::{free_port, run, wait_for};
use iop_tests::stand::{Network, Node, devnet_keys};

const SOON: Duration = Duration::from_secs(60);

fn metrics(port: u16) -> String {
    let response = minreq::get(format!("http://127.0.0.1:{port}/metrics")).with_timeout(5).send().unwrap();
    response.as_str().unwrap().to_owned()
}

fn start(dir: &Path, network: &Network, flags: &[&str]) -> Node {
    let flags: Vec<_> = flags.iter().map(|flag| (*flag).to_owned()).collect();
    Node::start_with(dir, network, free_port(), &flags).unwrap()
}

#[test]
fn a_node_hosts_a_relay_keeps_its_key_and_stops_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let network = Network::file(dir.path(), &easy_devnet("mercury", ""));
    let (mercury, http) = (free_port(), free_port());
    let bind = format!("/ip4/127.0.0.1/tcp/{mercury}");
    let http_bind = format!("127.0.0.1:{http}");
    let flags = ["--mercury-bind", &bind, "--metrics-bind", &http_bind, "--mercury-hosting", "invited"];
    let node = start(dir.path(), &network, &flags);
    let peer = |node: &Node| {
        let listens = |log: String| {
            let line = log.lines().rev().find(|line| line.contains("Mercury listens at"))?.to_owned();
            line.rsplit_once("/p2p/").map(|(_, peer)| peer.to_owned())
        };
        wait_for(SOON, || listens(node.program.log())).unwrap()
    };
    let before = peer(&node);
    let key = node.datadir.join("mercury/home.key");
    assert_eq!(std::fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    // Silent connections, and blocks at the same time.
    let idle: Vec<TcpStream> =
        (0..100).map(|_| TcpStream::connect(("127.0.0.1", mercury)).unwrap()).collect();
    let [_, license, ..] = devnet_keys(dir.path());
    generate(&node.rpc, 3, &license, &network.params());
    assert_eq!(node.rpc.height(), 3);
    let text = metrics(http);
    for name in ["up 1", "connections 0", "sessions 0", "hosted 0", "circuits 0", "requests_total 0"] {
        assert!(text.contains(&format!("iop_node_mercury_{name}\n")), "{name} is not in\n{text}");
    }
    drop(idle);
    let datadir = node.datadir.clone();
    assert!(node.program.stop().success());
    assert!(datadir.join("mercury/store").is_dir());
    let node = start(dir.path(), &network, &flags);
    assert_eq!(peer(&node), before, "the same home");
    assert!(node.program.stop().success());
}

#[test]
fn without_an_address_or_against_it_nothing_is_hosted() {
    let dir = tempfile::tempdir().unwrap();
    let network = Network::file(dir.path(), &easy_devnet("no-mercury", ""));
    let config = dir.path().join("node.toml");
    let mercury = free_port();
    std::fs::write(&config, format!("mercury_bind = [\"/ip4/127.0.0.1/tcp/{mercury}\"]\n")).unwrap();
    let node = start(dir.path(), &network, &[]);
    assert!(!node.datadir.join("mercury").exists());
    node.program.stop();
    let config = config.to_str().unwrap();
    let node = start(dir.path(), &network, &["--config", config, "--no-mercury"]);
    assert!(!node.datadir.join("mercury").exists());
    node.program.stop();
    let node = start(dir.path(), &network, &["--config", config]);
    assert!(TcpStream::connect(("127.0.0.1", mercury)).is_ok(), "hosted as the file says");
    node.program.stop();
}

#[test]
fn what_is_wrong_is_named_in_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let datadir = dir.path().to_str().unwrap();
    let complains = |flags: &[&str], status: i32, words: &[&str]| {
        let mut args =
            vec!["run", "--network", "devnet", "--datadir", datadir, "--no-listen", "--log", "error"];
        let rpc = format!("127.0.0.1:{}", free_port());
        args.extend(["--rpc-bind", &rpc]);
        args.extend(flags);
        let (found, _, stderr) = run("iop-node", &args);
        assert_eq!(found, Some(status), "{flags:?}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{flags:?}: {stderr}");
        assert!(words.iter().all(|word| stderr.contains(word)), "{flags:?}: {stderr}");
    };
    let wrong = "127.0.0.1:4878";
    complains(&["--mercury-bind", wrong], 2, &["mercury_bind", wrong, "/ip4/0.0.0.0/tcp/4878 expected"]);
    let good = "/ip4/127.0.0.1/tcp/0";
    complains(
        &["--mercury-bind", good, "--mercury-hosting", "all"],
        2,
        &["mercury_hosting", "all", "invited"],
    );
    complains(
        &["--mercury-bind", good, "--mercury-max-hosted", "0"],
        2,
        &["mercury_max_hosted is 0", "10000"],
    );
    complains(&["--mercury-bind", good, "--mercury-owner", "me"], 2, &["mercury_owner", "me", "no id"]);
    complains(&["--mercury-bind", good, "--mercury-external", "/tcp/1"], 2, &["mercury_external", "/tcp/1"]);
}

#[test]
fn a_relay_that_cannot_run_is_tried_again_beside_the_chain() {
    let dir = tempfile::tempdir().unwrap();
    let network = Network::file(dir.path(), &easy_devnet("mercury-again", ""));
    let held = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = held.local_addr().unwrap().port();
    let (bind, http) = (format!("/ip4/127.0.0.1/tcp/{port}"), free_port());
    let http_bind = format!("127.0.0.1:{http}");
    let flags = ["--mercury-bind", &bind, "--metrics-bind", &http_bind];
    let node = start(dir.path(), &network, &flags);
    let log = node.program.log();
    let line =
        log.lines().find(|line| line.contains("Mercury is not running")).unwrap_or_else(|| panic!("{log}"));
    assert!(line.contains("ERROR") && line.contains("cannot listen at") && line.contains(&bind), "{line}");
    assert!(metrics(http).contains("iop_node_mercury_up 0\n"));
    let [_, license, ..] = devnet_keys(dir.path());
    generate(&node.rpc, 1, &license, &network.params());
    assert_eq!(node.rpc.height(), 1, "the node goes on");
    drop(held);
    wait_for(SOON, || metrics(http).contains("iop_node_mercury_up 1\n").then_some(())).unwrap();
    assert!(TcpStream::connect(("127.0.0.1", port)).is_ok());
    let datadir = node.datadir.clone();
    assert!(node.program.stop().success());
    // A database that cannot be opened.
    let current = datadir.join("mercury/store/CURRENT");
    std::fs::write(&current, "nothing\n").unwrap();
    let node = start(dir.path(), &network, &flags);
    wait_for(SOON, || node.program.log().contains("Mercury's database").then_some(())).unwrap();
    assert_eq!(node.rpc.height(), 1);
    assert!(node.program.stop().success());
}

#[test]
fn a_second_relay_at_the_same_port_is_told_that_it_is_taken() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let network = Network::file(dir.path(), &easy_devnet("mercury-twice", ""));
    let bind = format!("/ip4/127.0.0.1/tcp/{}", free_port());
    let flags = ["--mercury-bind", &bind];
    let first = start(dir.path(), &network, &flags);
    wait_for(SOON, || first.program.log().contains("Mercury listens at").then_some(())).unwrap();
    let second = start(other.path(), &network, &flags);
    let said = format!("Mercury is not running: cannot listen at {bind}: ");
    wait_for(SOON, || second.program.log().contains(&said).then_some(())).unwrap();
    assert!(second.program.stop().success());
    assert!(first.program.stop().success());
}
