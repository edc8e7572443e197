//! Memory of a home per idle connection: devices that are logged in at a node and send nothing. Every other one is
//! hosted there, the rest are visitors, since a home accepts ten thousand of each. Then the latency for one more client
//! alongside them.
//!
//! `cargo bench --bench mercury_idle [-- CONNECTIONS]`; each needs a file here and one in the node (`ulimit -n`).
#![allow(clippy::unwrap_used)]

mod people;
mod stand;

use std::time::{Duration, Instant};

use iop_tests::program::free_port;
use iop_tests::stand::{Network, Node};

/// Connections before the first measurement, so that one-time costs are not counted.
const WARM_UP: usize = 200;

fn resident(node: &Node) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", node.program.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

fn main() {
    let count: usize = std::env::args().filter_map(|arg| arg.parse().ok()).next().unwrap_or(10_000);
    let folder = tempfile::tempdir().unwrap();
    let flags = [
        "--mercury-bind".to_owned(),
        format!("/ip4/127.0.0.1/tcp/{}", free_port()),
        "--no-listen".to_owned(),
        "--mercury-max-hosted".to_owned(),
        "10000".to_owned(),
    ];
    let network = Network::Named("regtest");
    let node = Node::start_with(folder.path(), &network, free_port(), &flags).unwrap();
    let address = stand::address(&node);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let connect = async |count: usize| {
            for number in 0..count {
                let mut device = people::Device::connect(&address, "regtest").await;
                if number % 2 == 0 {
                    device.register().await;
                }
                device.log_in(&["chat"]).await;
                tokio::spawn(device.idle());
            }
            // The work after a login is done by then.
            tokio::time::sleep(Duration::from_secs(3)).await;
        };
        connect(WARM_UP).await;
        let (before, since) = (resident(&node), Instant::now());
        connect(count).await;
        let took = since.elapsed() - Duration::from_secs(3);
        let each = (resident(&node) - before) / count as u64;
        println!("{count} devices logged in, {:.0} a second", count as f64 / took.as_secs_f64());
        println!("{each} bytes of resident memory each; the node has {} MiB", resident(&node) >> 20);
        tokio::time::sleep(Duration::from_secs(5)).await;
        println!("after five seconds {} bytes each", (resident(&node) - before) / count as u64);
        for _ in 0..3 {
            let since = Instant::now();
            let mut device = people::Device::connect(&address, "regtest").await;
            let connected = since.elapsed();
            device.register().await;
            device.log_in(&["chat"]).await;
            println!(
                "one more connects in {connected:.1?}, is hosted and logged in after {:.1?}",
                since.elapsed()
            );
        }
    });
    drop(runtime);
    node.program.stop();
}
