//! Events that end the pool, and events that do not.

#![allow(clippy::unwrap_used)]

mod common;

use std::net::TcpStream;

use common::program::{Miner, Program, connect};
use common::{Chain, wait_until};

#[test]
fn miners_are_told_to_come_again_and_get_their_answers_and_the_port_is_free() {
    for signal in ["-TERM", "-INT"] {
        let (folder, chain) = (tempfile::tempdir().unwrap(), Chain::new("devnet"));
        let node = chain.serve(0);
        let mut pool = Program::start(folder.path(), node.address, "");
        let mut miner = Miner::new(connect(pool.stratum));
        let _silent = TcpStream::connect(pool.stratum).unwrap();
        miner.mine(2);
        let mut answers = Vec::new();
        miner.solve();
        answers.extend(miner.exchange());
        pool.signal(signal);
        wait_until("the miner is told and answered", || {
            answers.extend(miner.exchange());
            miner.is_closed
        });
        assert!(miner.is_told_to_reconnect, "{signal}");
        assert_eq!(answers.len(), 1, "{signal}: what was read is answered");
        assert_eq!(pool.ended().code(), Some(0), "{}", pool.log());
        assert!(TcpStream::connect(pool.stratum).is_err());
    }
}

#[test]
fn hangup_does_not_end_the_pool() {
    let (folder, chain) = (tempfile::tempdir().unwrap(), Chain::new("devnet"));
    let node = chain.serve(0);
    let mut pool = Program::start(folder.path(), node.address, "");
    let mut miner = Miner::new(connect(pool.stratum));
    pool.signal("-HUP");
    wait_until("it says so", || pool.log().contains("SIGHUP: there is nothing to read again"));
    miner.mine(1);
    assert!(pool.is_running() && !miner.is_told_to_reconnect);
}
