//! Invalid input of every kind: one clear line that names it, the right exit status, and no loss.

#![allow(clippy::unwrap_used)]

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use iop_tests::chain::{easy_devnet, generate};
use iop_tests::program::{free_port, run, run_into_full};
use iop_tests::stand::{Network, Node, devnet_keys};

/// Runs a program that must fail with this status and an error line that contains all these words.
fn complains(name: &str, args: &[&str], status: i32, words: &[&str]) {
    let (found, stdout, stderr) = run(name, args);
    assert_eq!(found, Some(status), "{name} {args:?}: {stderr}");
    assert_eq!(stdout, "", "{name} {args:?}");
    // Log lines begin with the time; the error is the rest.
    let complaint: Vec<&str> =
        stderr.lines().filter(|line| !line.contains("INFO") && !line.is_empty()).collect();
    assert_eq!(complaint.len(), 1, "{name} {args:?}: one line expected:\n{stderr}");
    for word in words {
        assert!(complaint[0].contains(word), "{name} {args:?}: '{word}' expected in: {}", complaint[0]);
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn unknown_flags_and_commands_are_named() {
    for name in ["iop-node", "iop-pool", "iop-miner"] {
        complains(name, &["--frobnicate"], 2, &["--frobnicate", "--help"]);
        complains(name, &["frobnicate"], 2, &["frobnicate"]);
        let (status, stdout, _) = run(name, ["--version"]);
        assert_eq!((status, stdout.starts_with(name)), (Some(0), true));
    }
    complains("iop-node", &["run", "--network", "mainnet"], 2, &["mainnet", "main, test, regtest, devnet"]);
    complains("iop-node", &["run", "--rpc-bind", "here"], 2, &["here", "--rpc-bind"]);
    complains("iop-node", &["run", "--log", "loud"], 2, &["loud", "info"]);
    for command in ["audit", "report"] {
        complains("iop-pool", &[command, "--stratum-bind", "127.0.0.1:1"], 2, &["--stratum-bind"]);
    }
    let empty = ["report", "--from", "8", "--to", "8"];
    complains("iop-pool", &empty, 2, &["--from is 8 and --to 8, a --from before --to expected"]);
    complains("iop-miner", &["mine", "--url", "http://x", "--user", "u"], 2, &["http://x", "stratum+tcp://"]);
    complains("iop-miner", &["bench", "--kernel", "abacus"], 2, &["abacus", "scalar"]);
}

#[test]
fn help_that_cannot_be_written_is_a_failure() {
    for name in ["iop-node", "iop-pool", "iop-miner"] {
        for arg in ["--help", "--version"] {
            let (status, said) = run_into_full(name, [arg]);
            assert_eq!((status, said.lines().count()), (Some(1), 1), "{name} {arg}: {said}");
            assert!(said.contains("No space left on device"), "{said}");
        }
    }
}

#[test]
fn configurations_that_cannot_be_used_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    };
    let missing = dir.path().join("missing.toml");
    let unknown_key = file("unknown.toml", "network = \"devnet\"\nfrobnicate = 1\n");
    let malformed = file("malformed.toml", "network = \n");
    complains("iop-node", &["run", "--config", "/dev/zero"], 2, &["/dev/zero", "regular file"]);
    complains("iop-node", &["run", "--config", text(dir.path())], 2, &["regular file"]);
    let huge = file("huge.toml", &"# nothing\n".repeat(200_000));
    for name in ["iop-node", "iop-pool"] {
        complains(name, &["run", "--config", text(&missing)], 2, &["missing.toml"]);
        complains(name, &["run", "--config", text(&unknown_key)], 2, &["unknown.toml", "frobnicate"]);
        complains(name, &["run", "--config", text(&malformed)], 2, &["malformed.toml"]);
        complains(name, &["run", "--config", text(&huge)], 2, &["huge.toml"]);
        let network = file("network.toml", "base = \"regtest\"\nhalving_interval = 0\n");
        complains(name, &["run", "--network-file", text(&network)], 2, &["network.toml", "halving_interval"]);
    }
}

#[test]
fn keys_that_cannot_be_used_are_named_and_never_shown() {
    let dir = tempfile::tempdir().unwrap();
    let [_, license, ..] = devnet_keys(dir.path());
    let wif = std::fs::read_to_string(&license).unwrap();
    let pool = |network: &str, key: &Path, words: &[&str]| {
        let args = [
            "run",
            "--network",
            network,
            "--node",
            "http://u:p@127.0.0.1:1",
            "--license-key-file",
            text(key),
        ];
        complains("iop-pool", &args, 2, words);
        let (_, _, stderr) = run("iop-pool", args);
        assert!(!stderr.contains(&wif[5..15]), "the key is shown: {stderr}");
    };
    // devnet's keys have the prefix of all test networks; main's is different.
    pool("main", &license, &["license-1.wif", "49", "76"]);
    pool("devnet", &dir.path().join("none.wif"), &["none.wif"]);
    let garbage = dir.path().join("garbage.wif");
    std::fs::write(&garbage, "garbage\n").unwrap();
    std::fs::set_permissions(&garbage, std::fs::Permissions::from_mode(0o600)).unwrap();
    pool("devnet", &garbage, &["garbage.wif", "WIF"]);
    std::fs::set_permissions(&license, std::fs::Permissions::from_mode(0o644)).unwrap();
    pool("devnet", &license, &["license-1.wif", "0644", "0600"]);
    complains("iop-node", &["key", "show", "--network", "devnet", text(&license)], 2, &["0644", "0600"]);
    complains(
        "iop-node",
        &["key", "new", "--network", "devnet", "--out", text(&garbage)],
        1,
        &["garbage.wif"],
    );
    assert_eq!(std::fs::read_to_string(&garbage).unwrap(), "garbage\n", "a key file is never written over");
}

#[test]
fn a_port_in_use_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let [_, license, ..] = devnet_keys(dir.path());
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let datadir = dir.path().join("data");
    complains(
        "iop-node",
        &["run", "--network", "devnet", "--datadir", text(&datadir), "--rpc-bind", &taken],
        1,
        &[&taken],
    );
    let free = format!("127.0.0.1:{}", free_port());
    let bound = ["run", "--network", "devnet", "--datadir", text(&datadir), "--rpc-bind", &free];
    complains("iop-node", &[&bound[..], &["--p2p-bind", &taken]].concat(), 1, &["P2P", &taken]);
    complains("iop-node", &[&bound[..], &["--connect", "no peer"]].concat(), 2, &["connect", "no peer"]);
    for (stratum, api) in [(&taken, &free), (&free, &taken)] {
        let args = ["run", "--network", "devnet", "--node", "http://u:p@127.0.0.1:1", "--license-key-file"];
        let more =
            [text(&license), "--stratum-bind", stratum, "--api-bind", api, "--datadir", text(&datadir)];
        complains("iop-pool", &[&args[..], &more].concat(), 1, &[&taken]);
    }
}

#[test]
fn a_data_directory_in_use_or_of_another_network_is_refused_and_stays_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let [admin, ..] = devnet_keys(dir.path());
    let network = Network::file(dir.path(), &easy_devnet("datadir", ""));
    let node = Node::start(dir.path(), &network).unwrap();
    generate(&node.rpc, 3, &admin, &network.params());
    let datadir = text(&node.datadir).to_owned();
    let bind = format!("127.0.0.1:{}", free_port());
    let run_on = |flags: &[&str]| {
        [&["run", "--datadir", &datadir, "--rpc-bind", &bind][..], flags]
            .concat()
            .iter()
            .map(|s| (*s).to_owned())
            .collect::<Vec<_>>()
    };
    let flags = network.flags();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let again = run_on(&flags);
    complains("iop-node", &again.iter().map(String::as_str).collect::<Vec<_>>(), 1, &[&datadir, "in use"]);
    assert_eq!(node.rpc.height(), 3, "the first node goes on");
    assert!(node.program.stop().success());

    let other = run_on(&["--network", "regtest"]);
    complains(
        "iop-node",
        &other.iter().map(String::as_str).collect::<Vec<_>>(),
        1,
        &[&datadir, "datadir", "regtest"],
    );
    let node = Node::start(dir.path(), &network).unwrap();
    assert_eq!(node.rpc.height(), 3, "nothing is lost");
}

#[test]
fn a_network_file_that_was_changed_since_the_data_was_made_is_told_as_such() {
    let dir = tempfile::tempdir().unwrap();
    let network = Network::file(dir.path(), &easy_devnet("rules", ""));
    let node = Node::start(dir.path(), &network).unwrap();
    assert!(node.program.stop().success());
    let network = Network::file(dir.path(), &easy_devnet("rules", "cap_change_height = 5000"));
    let error = Node::start(dir.path(), &network).unwrap_err().to_string();
    assert!(error.contains("was made with other parameters of this network: rules, genesis "), "{error}");
    assert!(error.contains("The network file has been changed since"), "{error}");
}
