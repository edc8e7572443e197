//! A node with a relay, for benches.

use std::time::Duration;

use iop_tests::program::wait_for;
use iop_tests::stand::Node;
use libp2p::Multiaddr;

/// The address of a node's relay, from the node's log.
pub(crate) fn address(node: &Node) -> Multiaddr {
    let listens = || {
        let log = node.program.log();
        let line = log.lines().find(|line| line.contains("Mercury listens at"))?;
        line.rsplit(' ').next()?.parse().ok()
    };
    wait_for(Duration::from_secs(20), listens).expect("the relay listens")
}
