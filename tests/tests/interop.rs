//! Tests against IoP Core: run if `IOP_CORE_DAEMON` names its daemon (`iopd`), and skipped otherwise.
//!
//! The daemon is not part of this project. Its regtest is ours: below the license activation height no license is
//! needed. Blocks of its `generatetoaddress` pay nothing, so all coins here come from our node.

#![allow(clippy::unwrap_used)]

use iop_consensus::params::Params;
use iop_tests::net::{Core, Meeting, Peered, SOON, agree, coinbase, send, spend};
use iop_tests::program::wait_for;
use iop_tests::stand::Network;
use serde_json::json;

const REGTEST: Network = Network::Named("regtest");
const SUBSIDY: u64 = 50 * 100_000_000;

/// The daemon; if there is none, prints why nothing is tested.
fn daemon() -> Option<String> {
    let daemon = std::env::var("IOP_CORE_DAEMON").ok();
    if daemon.is_none() {
        eprintln!("skipped: IOP_CORE_DAEMON does not name IoP Core's daemon");
    }
    daemon
}

#[test]
fn each_syncs_from_the_other_and_blocks_go_both_ways() {
    let Some(daemon) = daemon() else { return };
    let (dir, params) = (tempfile::tempdir().unwrap(), Params::regtest());
    let core = Core::start(&daemon, &dir.path().join("core"), &[]);
    core.mine(2_100, &params);
    let ours = Peered::start(&dir.path().join("ours"), &REGTEST, &[]);
    ours.meet(&core);
    agree(&ours, &core);
    // A fresh node of theirs, which syncs only from ours.
    let connect = format!("-connect={}", ours.address());
    let fresh = Core::start(&daemon, &dir.path().join("fresh"), &[&connect]);
    agree(&ours, &fresh);
    for _ in 0..5 {
        for node in [&ours as &dyn Meeting, &core, &fresh] {
            node.mine(1, &params);
            agree(&ours, &core);
            agree(&core, &fresh);
        }
    }
    assert_eq!(ours.node.rpc.height(), 2_115);
}

#[test]
fn transactions_and_compact_blocks_go_both_ways() {
    let Some(daemon) = daemon() else { return };
    let (dir, params) = (tempfile::tempdir().unwrap(), Params::regtest());
    let core = Core::start(&daemon, &dir.path().join("core"), &[]);
    let ours = Peered::start(&dir.path().join("ours"), &REGTEST, &[]);
    ours.mine(115, &params);
    ours.meet(&core);
    agree(&ours, &core);
    for height in (2..14).step_by(2) {
        let mine = spend(&[coinbase(&ours, height)], SUBSIDY - 10_000);
        core.wait_for_tx(&send(&ours, &mine));
        let theirs = spend(&[coinbase(&ours, height + 1)], SUBSIDY - 10_000);
        ours.wait_for_tx(&send(&core, &theirs));
        let miner: &dyn Meeting = if height % 4 == 0 { &core } else { &ours };
        miner.mine(1, &params);
        agree(&ours, &core);
    }
    let peers = ours.node.rpc.call("getpeerinfo", json!([]));
    assert!(peers[0]["bytesrecv_per_msg"]["cmpctblock"].is_u64(), "we got compact blocks: {peers}");
    assert!(peers[0]["bytessent_per_msg"]["cmpctblock"].is_u64(), "and sent them: {peers}");
    assert_eq!(peers[0]["banscore"], 0);
    let peers = core.rpc().call("getpeerinfo", json!([]));
    assert_eq!(peers[0]["banscore"], 0, "{peers}");
    for node in [&ours as &dyn Meeting, &core] {
        let empty =
            wait_for(SOON, || (node.rpc().call("getrawmempool", json!([])) == json!([])).then_some(()));
        assert!(empty.is_some());
    }
}

#[test]
fn the_branch_with_more_work_wins_on_both_sides() {
    let Some(daemon) = daemon() else { return };
    let (dir, params) = (tempfile::tempdir().unwrap(), Params::regtest());
    let core = Core::start(&daemon, &dir.path().join("core"), &[]);
    let ours = Peered::start(&dir.path().join("ours"), &REGTEST, &[]);
    ours.mine(20, &params);
    ours.meet(&core);
    agree(&ours, &core);
    for (mine, theirs) in [(3, 8), (40, 5), (1, 2), (30, 60)] {
        ours.leave_all();
        core.leave_all();
        let height = ours.node.rpc.height();
        ours.mine(mine, &params);
        core.mine(theirs, &params);
        ours.meet(&core);
        agree(&ours, &core);
        assert_eq!(ours.node.rpc.height(), height + u64::from(mine.max(theirs)));
    }
}
