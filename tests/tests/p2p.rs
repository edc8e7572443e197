//! Connected nodes: syncing, relay of blocks and transactions, branches, restarts, over real connections.

#![allow(clippy::unwrap_used)]

use std::net::{SocketAddr, TcpListener};
use std::time::{SystemTime, UNIX_EPOCH};

use bitcoin::consensus::encode::serialize_hex;
use iop_consensus::params::Params;
use iop_tests::blocks::{self, Parent};
use iop_tests::chain::{easy_devnet, generate};
use iop_tests::net::{Meeting, Peered, SOON, agree, coinbase, send, spend};
use iop_tests::peer::Peer;
use iop_tests::program::{free_port, wait_for};
use iop_tests::stand::{Network, devnet_keys};
use serde_json::{Value, json};

const REGTEST: Network = Network::Named("regtest");
/// The reward of a regtest coinbase below height 150, in base units, except the first.
const SUBSIDY: u64 = 50 * 100_000_000;

#[test]
fn a_node_syncs_from_another_and_each_passes_its_blocks_on() {
    let (dir, params) = (tempfile::tempdir().unwrap(), Params::regtest());
    let first = Peered::start(&dir.path().join("1"), &REGTEST, &[]);
    first.mine(300, &params);
    let connect = first.address.to_string();
    let second = Peered::start(&dir.path().join("2"), &REGTEST, &["--connect", &connect]);
    agree(&first, &second);
    // The third knows only the second, so blocks of the first pass through it.
    let connect = second.address.to_string();
    let third = Peered::start(&dir.path().join("3"), &REGTEST, &["--add-peer", &connect]);
    agree(&first, &third);
    for node in [&first, &third, &second] {
        node.mine(1, &params);
        agree(&first, &third);
        agree(&first, &second);
    }
    assert_eq!(first.node.rpc.height(), 303);
    let peers = second.node.rpc.call("getpeerinfo", json!([]));
    let peer = peers.as_array().unwrap().iter().find(|peer| peer["inbound"] == false).unwrap();
    assert_eq!(peer["addr"], first.address.to_string(), "{peer}");
    assert_eq!((peer["version"].as_i64(), peer["subver"].as_str()), (Some(70_015), Some("/iop-node:0.1.0/")));
    // It announced these itself: the two newest came from here.
    assert!(peer["synced_blocks"].as_u64() >= Some(301), "{peer}");
    assert_eq!(peer["banscore"], 0);
}

#[test]
fn a_licensed_chain_syncs_and_its_registry_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let network = Network::file(dir.path(), &easy_devnet("peers", ""));
    let (params, [_, license, ..]) = (network.params(), devnet_keys(dir.path()));
    let first = Peered::start(&dir.path().join("1"), &network, &[]);
    generate(&first.node.rpc, 20, &license, &params);
    let connect = first.address.to_string();
    let second = Peered::start(&dir.path().join("2"), &network, &["--connect", &connect]);
    agree(&first, &second);
    generate(&second.node.rpc, 2, &license, &params);
    agree(&first, &second);
    let stats = |node: &Peered| node.node.rpc.call("dumpminerstats", json!([]));
    assert_eq!(stats(&first), stats(&second));
}

#[test]
fn transactions_go_both_ways_and_a_block_takes_them_out_of_both_mempools() {
    let (dir, params) = (tempfile::tempdir().unwrap(), Params::regtest());
    let first = Peered::start(&dir.path().join("1"), &REGTEST, &[]);
    first.mine(110, &params);
    let connect = first.address.to_string();
    let second = Peered::start(&dir.path().join("2"), &REGTEST, &["--connect", &connect]);
    agree(&first, &second);
    let mine = spend(&[coinbase(&first, 2)], SUBSIDY - 10_000);
    let theirs = spend(&[coinbase(&first, 3)], SUBSIDY - 10_000);
    second.wait_for_tx(&send(&first, &mine));
    first.wait_for_tx(&send(&second, &theirs));
    // A child of both; a block with all of them is reconstructed from the mempool.
    let outputs = [&mine, &theirs].map(|tx| bitcoin::OutPoint { txid: tx.compute_txid(), vout: 0 });
    second.wait_for_tx(&send(&first, &spend(&outputs, 2 * SUBSIDY - 50_000)));
    first.mine(1, &params);
    agree(&first, &second);
    for node in [&first, &second] {
        let empty =
            wait_for(SOON, || (node.node.rpc.call("getrawmempool", json!([])) == json!([])).then_some(()));
        assert!(empty.is_some());
    }
}

/// It stayed unknown to others until it was sent once more.
#[test]
fn what_was_sent_without_peers_is_told_after_a_restart() {
    let (dir, params) = (tempfile::tempdir().unwrap(), Params::regtest());
    let first = Peered::start(&dir.path().join("1"), &REGTEST, &[]);
    first.mine(110, &params);
    // While a node syncs it takes no transactions, so this one does that before.
    let connect = first.address.to_string();
    let second = Peered::start(&dir.path().join("2"), &REGTEST, &["--connect", &connect]);
    agree(&first, &second);
    assert!(second.node.program.stop().success());
    let txid = send(&first, &spend(&[coinbase(&first, 2)], SUBSIDY - 10_000));
    assert!(first.node.program.stop().success());
    let first = Peered::start(&dir.path().join("1"), &REGTEST, &[]);
    first.wait_for_tx(&txid);
    let connect = first.address.to_string();
    let second = Peered::start(&dir.path().join("2"), &REGTEST, &["--connect", &connect]);
    second.wait_for_tx(&txid);
}

#[test]
fn blocks_are_put_together_from_the_mempool() {
    let (dir, params) = (tempfile::tempdir().unwrap(), Params::regtest());
    let first = Peered::start(&dir.path().join("1"), &REGTEST, &[]);
    first.mine(110, &params);
    let connect = first.address.to_string();
    let second = Peered::start(&dir.path().join("2"), &REGTEST, &["--connect", &connect]);
    agree(&first, &second);
    // The first of them makes the second request compact blocks immediately.
    for height in 2..6 {
        second.wait_for_tx(&send(&first, &spend(&[coinbase(&first, height)], SUBSIDY - 10_000)));
        first.mine(1, &params);
        agree(&first, &second);
    }
    let peers = second.node.rpc.call("getpeerinfo", json!([]));
    let received = &peers[0]["bytesrecv_per_msg"];
    assert!(received["cmpctblock"].as_u64() > Some(500), "{peers}");
    assert!(received["blocktxn"].is_null(), "nothing was missing: {peers}");
}

#[test]
fn the_branch_with_more_work_wins_wherever_it_was_mined() {
    let (dir, params) = (tempfile::tempdir().unwrap(), Params::regtest());
    let first = Peered::start(&dir.path().join("1"), &REGTEST, &[]);
    let second = Peered::start(&dir.path().join("2"), &REGTEST, &[]);
    first.mine(20, &params);
    first.meet(&second);
    agree(&first, &second);
    for (mine, theirs) in [(3, 8), (40, 5), (1, 2)] {
        first.leave_all();
        second.leave_all();
        let height = first.node.rpc.height();
        first.mine(mine, &params);
        second.mine(theirs, &params);
        assert_ne!(first.tip(), second.tip());
        first.meet(&second);
        agree(&first, &second);
        assert_eq!(first.node.rpc.height(), height + u64::from(mine.max(theirs)));
    }
}

#[test]
fn a_node_killed_in_the_middle_of_a_sync_goes_on_where_it_was() {
    let (dir, params) = (tempfile::tempdir().unwrap(), Params::regtest());
    let first = Peered::start(&dir.path().join("1"), &REGTEST, &[]);
    first.mine(3_000, &params);
    let connect = first.address.to_string();
    let folder = dir.path().join("2");
    let (mut heights, mut kills) = (vec![0], 0);
    while *heights.last().unwrap() < 3_000 {
        let second = Peered::start(&folder, &REGTEST, &["--connect", &connect]);
        let height = second.node.rpc.height();
        assert!(height >= *heights.last().unwrap(), "blocks were lost: {heights:?}, then {height}");
        if kills < 3 {
            let grown = wait_for(SOON, || {
                let now = second.node.rpc.height();
                // It may have had all of it before it was first asked.
                (now > height || now == 3_000).then_some(now)
            });
            heights.push(grown.unwrap_or(height));
            second.node.program.kill();
            kills += 1;
        } else {
            agree(&first, &second);
            heights.push(second.node.rpc.height());
        }
    }
    assert_eq!(heights.last(), Some(&3_000));
}

#[test]
fn blocks_come_from_several_peers_and_one_that_ends_is_replaced() {
    let (dir, params) = (tempfile::tempdir().unwrap(), Params::regtest());
    let first = Peered::start(&dir.path().join("1"), &REGTEST, &[]);
    first.mine(2_500, &params);
    let connect = first.address.to_string();
    let second = Peered::start(&dir.path().join("2"), &REGTEST, &["--connect", &connect]);
    agree(&first, &second);
    let both = [first.address.to_string(), second.address.to_string()];
    let third =
        Peered::start(&dir.path().join("3"), &REGTEST, &["--connect", &both[0], "--connect", &both[1]]);
    let begun = wait_for(SOON, || (third.node.rpc.height() > 0).then_some(()));
    assert!(begun.is_some());
    first.node.program.kill();
    agree(&second, &third);
    assert_eq!(third.node.rpc.height(), 2_500);
}

#[test]
fn a_node_that_connects_to_itself_notices() {
    let dir = tempfile::tempdir().unwrap();
    let node = Peered::start(dir.path(), &REGTEST, &[]);
    node.node.rpc.call("addnode", json!([node.address.to_string(), "onetry"]));
    let noticed = wait_for(SOON, || node.node.program.log().contains("it is this node itself").then_some(()));
    assert!(noticed.is_some(), "{}", node.node.program.log());
    let alone =
        wait_for(SOON, || (node.node.rpc.call("getconnectioncount", json!([])) == json!(0)).then_some(()));
    assert!(alone.is_some());
}

#[test]
fn a_default_port_that_is_taken_is_told_and_harms_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let network = Network::file(dir.path(), &easy_devnet("taken", &format!("p2p_port = {port}")));
    let node = iop_tests::stand::Node::start(dir.path(), &network).unwrap();
    assert_eq!(node.rpc.height(), 0);
    assert!(node.program.log().contains(&format!("127.0.0.1:{port}")), "{}", node.program.log());
}

#[test]
fn a_node_that_knows_nobody_finds_its_peer_by_the_networks_seed() {
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let text = easy_devnet("seeded", &format!("p2p_port = {port}\ndns_seeds = [\"localhost\"]"));
    let network = Network::file(dir.path(), &text);
    let (params, [_, license, ..]) = (network.params(), devnet_keys(dir.path()));
    // The seed's node does not query seeds: it would find itself there.
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let first = Peered::start_on(&dir.path().join("1"), &network, address, &["--no-dns-seed"]);
    generate(&first.node.rpc, 3, &license, &params);
    let second = Peered::start(&dir.path().join("2"), &network, &[]);
    agree(&first, &second);
    let peers = second.node.rpc.call("getpeerinfo", json!([]));
    assert_eq!((&peers[0]["addr"], &peers[0]["inbound"]), (&json!(address.to_string()), &json!(false)));
    assert!(second.node.program.log().contains("a DNS seed answered"), "{}", second.node.program.log());
    // A node that may not query seeds stays alone.
    let third = Peered::start(&dir.path().join("3"), &network, &["--no-dns-seed"]);
    assert_eq!(third.node.rpc.call("getconnectioncount", json!([])), json!(0));
}

#[test]
fn blocks_are_judged_by_the_clocks_of_peers() {
    const AHEAD: i64 = 3_600;
    let (dir, params) = (tempfile::tempdir().unwrap(), Params::regtest());
    let peered = Peered::start(dir.path(), &REGTEST, &["--connect", "127.0.0.1:1"]);
    let rpc = &peered.node.rpc;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let mut block = blocks::on(Parent::of(&params.genesis.block(), 0), 0, vec![]);
    // Half an hour too far ahead by this machine's clock.
    block.header.time = u32::try_from(now).unwrap() + 2 * 3_600 + 1_800;
    let block = serialize_hex(&blocks::sealed(block));
    assert_eq!(rpc.call("submitblock", json!([block])), "time-too-new");
    // With our own clock four others make five.
    let peers: Vec<Peer> = (2..6)
        .map(|last| {
            let own = [127, 0, 0, last].into();
            let mut peer = Peer::connect_from(own, peered.address, params.magic).unwrap();
            peer.send(Peer::version_ahead(u64::from(last), AHEAD)).unwrap();
            peer
        })
        .collect();
    let told = || {
        let offset = rpc.call("getnetworkinfo", json!([]))["timeoffset"].as_i64().unwrap();
        (offset - AHEAD).abs() <= 5
    };
    wait_for(SOON, || told().then_some(())).expect("the peers' clocks count");
    assert_eq!(rpc.call("submitblock", json!([block])), Value::Null);
    drop(peers);
    peered.node.program.stop();
}
