//! Whether blocks wait for the relay: how long a node takes to validate a block, with its relay idle and under full load.
//!
//! `cargo bench --bench mercury_beside_blocks`. The load is made by this program, called again, at the lowest priority:
//! it stands for other machines, and must not take the CPU from the node itself. Blocks of both kinds alternate in
//! rounds, so that what else the machine does meets both.
#![allow(clippy::unwrap_used)]

mod people;
mod stand;

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use iop_tests::chain::{easy_devnet, generate};
use iop_tests::program::{free_port, wait_for};
use iop_tests::stand::{Network, Node, devnet_keys};
use libp2p::Multiaddr;

/// Rounds, and blocks of each kind in a round.
const ROUNDS: usize = 6;
const BLOCKS: usize = 50;

fn main() {
    match std::env::var("IOP_BENCH_LOAD") {
        Ok(address) => load(&address.parse().unwrap()),
        Err(_) => measure(),
    }
}

/// Pours through circuits until it is killed.
fn load(address: &Multiaddr) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        loop {
            let (mut caller, mut callee) = people::pair(address, "beside").await;
            for _ in 0..30 {
                people::pour(&mut caller, &mut callee, address, 60 << 20).await;
            }
        }
    });
}

struct Load(Child);

impl Load {
    fn start(address: &Multiaddr) -> Self {
        let own = std::env::current_exe().unwrap();
        let mut command = Command::new("nice");
        command.args(["-n", "19"]).arg(own).env("IOP_BENCH_LOAD", address.to_string());
        Self(command.stdout(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A sample of the node's metrics.
fn sample(port: u16, name: &str) -> f64 {
    let response = minreq::get(format!("http://127.0.0.1:{port}/metrics")).with_timeout(10).send().unwrap();
    let text = response.as_str().unwrap();
    let line = text.lines().find(|line| line.split(' ').next() == Some(name)).unwrap();
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

/// Milliseconds of validation of each of some new blocks.
fn blocks(node: &Node, network: &Network, key: &Path, metrics: u16) -> Vec<f64> {
    let sum = || sample(metrics, "iop_node_block_validation_seconds_sum");
    let one = |before: &mut f64| {
        generate(&node.rpc, 1, key, &network.params());
        let after = sum();
        let took = after - *before;
        *before = after;
        took * 1e3
    };
    let mut before = sum();
    (0..BLOCKS).map(|_| one(&mut before)).collect()
}

fn quantile(sorted: &[f64], part: f64) -> f64 {
    sorted[((sorted.len() - 1) as f64 * part).round() as usize]
}

fn measure() {
    let folder = tempfile::tempdir().unwrap();
    let (port, metrics) = (free_port(), free_port());
    let flags = [
        "--mercury-bind".to_owned(),
        format!("/ip4/127.0.0.1/tcp/{port}"),
        "--metrics-bind".to_owned(),
        format!("127.0.0.1:{metrics}"),
        "--no-listen".to_owned(),
    ];
    let network = Network::file(folder.path(), &easy_devnet("beside", ""));
    let [_, key, ..] = devnet_keys(folder.path());
    let node = Node::start_with(folder.path(), &network, free_port(), &flags).unwrap();
    let address = stand::address(&node);
    blocks(&node, &network, &key, metrics);
    let (mut idle, mut loaded) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        idle.extend(blocks(&node, &network, &key, metrics));
        let load = Load::start(&address);
        let open = wait_for(Duration::from_secs(20), || {
            (sample(metrics, "iop_node_mercury_circuits") >= 1.0).then_some(())
        });
        assert!(open.is_some(), "the load has a circuit");
        loaded.extend(blocks(&node, &network, &key, metrics));
        drop(load);
    }
    for (name, times) in [("relay idle", &mut idle), ("relay under load", &mut loaded)] {
        times.sort_by(f64::total_cmp);
        println!(
            "{name}: {} blocks, validation ms p50 {:.3}, p90 {:.3}, p99 {:.3}, most {:.3}",
            times.len(),
            quantile(times, 0.5),
            quantile(times, 0.9),
            quantile(times, 0.99),
            quantile(times, 1.0)
        );
    }
    node.program.stop();
}
