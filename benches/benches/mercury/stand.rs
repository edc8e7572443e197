//! A node with a relay, for the benches that need one.

use std::time::Duration;

use iop_tests::program::wait_for;
use iop_tests::stand::Node;
use libp2p::Multiaddr;

/// Where the relay of a node listens, by the node's log.
pub(crate) fn address(node: &Node) -> Multiaddr {
    let listens = || {
        let log = node.program.log();
        let line = log.lines().find(|line| line.contains("Mercury listens at"))?;
        line.rsplit(' ').next()?.parse().ok()
    };
    wait_for(Duration::from_secs(20), listens).expect("the relay listens")
}
