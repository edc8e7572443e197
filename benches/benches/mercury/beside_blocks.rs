//! Whether the relay delays blocks: the node's validation time with its relay idle and under full load.
//!
//! `cargo bench --bench mercury_beside_blocks`. The blocks are a synthetic chain's, each with [`INPUTS`] signatures
//! that the node has not seen before. The load comes from this program, started again in the kernel's idle scheduling
//! class: it stands for other machines, and must not take CPU time from the node itself. With few cores even that has a
//! cost; a thread of the same class that only counts shows how much. Rounds of the three kinds alternate, so that other
//! activity of the machine affects all. The relay yields to each block, so blocks are spaced out, and the amount it has
//! relayed meanwhile is printed too.
#![allow(clippy::unwrap_used)]

mod people;
mod stand;

use std::convert::Infallible;
use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bitcoin::consensus::encode::serialize_hex;
use iop_benches::synth::{self, SETUP_BLOCKS, Shape, Spec};
use iop_tests::program::{free_port, wait_for};
use iop_tests::stand::{Network, Node};
use libp2p::Multiaddr;
use serde_json::{Value, json};

/// Rounds, and blocks of each kind in a round.
const ROUNDS: usize = 8;
const BLOCKS: usize = 50;
/// Signed inputs of a block.
const INPUTS: usize = 400;
/// Pause after each block: long enough for the load to recover, and much shorter than between real blocks.
const PAUSE: Duration = Duration::from_millis(100);
/// Bytes sent through a circuit, which is closed after 64 MiB.
const BYTES: usize = 60_000_000;

/// The activity alongside the blocks.
const KINDS: [&str; 3] = ["relay idle", "relay idle, another process busy", "relay under full load"];

fn main() {
    match std::env::var("IOP_BENCH_LOAD").as_deref() {
        Ok("count") => count(),
        Ok(address) => load(&address.parse().unwrap()),
        Err(_) => measure(),
    }
}

/// Keeps a CPU busy until it is killed.
fn count() {
    let mut number = 0_u64;
    loop {
        number = std::hint::black_box(number.wrapping_add(1));
    }
}

/// Sends through circuits until it is killed. Prints the seconds that each took.
fn load(address: &Multiaddr) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        loop {
            let (mut caller, mut callee) = people::pair(address, "synthetic").await;
            for _ in 0..30 {
                let took = people::pour(&mut caller, &mut callee, address, BYTES).await;
                println!("{}", took.as_secs_f64());
            }
        }
    });
}

struct Load(Child);

impl Load {
    fn start(what: &str) -> Self {
        let own = std::env::current_exe().unwrap();
        let mut command = Command::new("chrt");
        command.args(["--idle", "0"]).arg(own).env("IOP_BENCH_LOAD", what);
        Self(command.stdout(Stdio::piped()).spawn().unwrap())
    }

    /// Ends it; returns the seconds of each of its circuits.
    fn end(mut self) -> Vec<f64> {
        self.0.kill().unwrap();
        let mut text = String::new();
        self.0.stdout.take().unwrap().read_to_string(&mut text).unwrap();
        text.lines().map(|line| line.parse().unwrap()).collect()
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

/// Blocks to measure with, as `submitblock` takes them; those before are setup.
fn chain() -> impl Iterator<Item = String> {
    // Blocks before the first round fill caches, as many as in one round.
    let blocks = BLOCKS * (KINDS.len() * ROUNDS + 1);
    let count = |number: usize| u32::try_from(number).unwrap();
    let spec = Spec {
        shape: Shape::Signatures,
        seed: 1,
        blocks: count(blocks),
        inputs: count(blocks * INPUTS),
        tail: 0,
    };
    let mut all = Vec::new();
    let made = synth::generate(&spec, |block| {
        all.push(serialize_hex(block));
        Ok::<(), Infallible>(())
    });
    made.unwrap();
    all.into_iter()
}

fn submit(node: &Node, block: String) {
    assert_eq!(node.rpc.call("submitblock", json!([block])), Value::Null);
}

/// Milliseconds of validation for each of the next blocks.
fn blocks(node: &Node, chain: &mut impl Iterator<Item = String>, metrics: u16) -> Vec<f64> {
    let sum = || sample(metrics, "iop_node_block_validation_seconds_sum");
    let mut before = sum();
    let one = |block| {
        std::thread::sleep(PAUSE);
        submit(node, block);
        let after = sum();
        let took = after - before;
        before = after;
        took * 1e3
    };
    chain.take(BLOCKS).map(one).collect()
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
    let network = Network::file(folder.path(), &synth::network_file());
    let mut chain = chain();
    let node = Node::start_with(folder.path(), &network, free_port(), &flags).unwrap();
    let address = stand::address(&node);
    chain.by_ref().take(SETUP_BLOCKS as usize).for_each(|block| submit(&node, block));
    blocks(&node, &mut chain, metrics);
    let circuits = |wanted: f64| {
        let there = || (sample(metrics, "iop_node_mercury_circuits") == wanted).then_some(());
        wait_for(Duration::from_secs(20), there).expect("the load begins and ends");
    };
    let mut times = [const { Vec::new() }; KINDS.len()];
    let mut poured = Vec::new();
    for _ in 0..ROUNDS {
        times[0].extend(blocks(&node, &mut chain, metrics));
        let counting = Load::start("count");
        times[1].extend(blocks(&node, &mut chain, metrics));
        drop(counting);
        let pouring = Load::start(&address.to_string());
        circuits(1.0);
        times[2].extend(blocks(&node, &mut chain, metrics));
        poured.extend(pouring.end());
        circuits(0.0);
    }
    for (name, times) in KINDS.iter().zip(&mut times) {
        times.sort_by(f64::total_cmp);
        println!(
            "{name}: {} blocks of {INPUTS} signatures, validation ms p50 {:.3}, p90 {:.3}, p99 {:.3}, most {:.3}",
            times.len(),
            quantile(times, 0.5),
            quantile(times, 0.9),
            quantile(times, 0.99),
            quantile(times, 1.0)
        );
    }
    let seconds: f64 = poured.iter().sum();
    let megabytes = (BYTES * poured.len()) as f64 / 1e6;
    println!("carried beside the blocks: {megabytes:.0} MB, {:.0} MB/s", megabytes / seconds);
    node.program.stop();
}
