//! Headers from one node to another, over a real connection on this machine.
//!
//! A node on regtest has 200,000 empty blocks; another has none, and is told to connect. Measured from then until
//! `getblockchaininfo` of the second counts all headers: once with the network's minimum work configured, and once
//! without, so that blocks may be requested at any time. Regtest is the slower kind of network: a header's target is
//! looked up among its ancestors. Run: `cargo bench -p iop-benches --bench header_sync`.

#![allow(clippy::unwrap_used)]

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use bitcoin::Work;
use iop_benches::synth::frame;
use iop_consensus::params::Params;
use iop_tests::blocks::{self, Parent};
use iop_tests::net::Peered;
use iop_tests::program::run;
use iop_tests::stand::Network;
use serde_json::json;

/// Regtest, with no license needed and the subsidy never halved.
const NETWORK: &str = "base = \"regtest\"\nname = \"headers\"\nlicense_activation_height = 1000000\n\
                       halving_interval = 1000000\n";
/// Blocks of the first node.
const BLOCKS: u32 = 200_000;
/// Number of blocks when run as a test: more than one message of headers.
const FEW: u32 = 4_500;
/// How often the second node is polled.
const ASK_EVERY: Duration = Duration::from_millis(5);

/// Writes a block file with a chain of this many empty blocks, and returns the chain's work.
fn write_chain(path: &Path, blocks: u32, params: &Params) -> Work {
    let mut file = BufWriter::new(File::create(path).unwrap());
    let genesis = params.genesis.block();
    let (mut tip, mut work) = (Parent::of(&genesis, 0), genesis.header.work());
    for height in 1..=blocks {
        let block = blocks::on(tip, 0, vec![]);
        file.write_all(&frame(&block, params.magic)).unwrap();
        (tip, work) = (Parent::of(&block, height), work + block.header.work());
    }
    file.flush().unwrap();
    work
}

/// Imports a block file into a node's directory and starts the node.
fn node_with(dir: &Path, network: &Network, file: &Path) -> Peered {
    let mut args = vec!["import".to_owned(), "--datadir".to_owned(), dir.join("node").display().to_string()];
    args.extend(network.flags());
    args.push(file.display().to_string());
    let (status, _, log) = run("iop-node", args);
    assert_eq!(status, Some(0), "{log}");
    Peered::start(dir, network, &[])
}

/// The time from connecting until an empty node counts `headers`.
fn sync(dir: &Path, network: &Network, from: &Peered, headers: u32, more: &[&str]) -> Duration {
    let empty = Peered::start(dir, network, more);
    let start = Instant::now();
    empty.node.rpc.call("addnode", json!([from.address.to_string(), "onetry"]));
    loop {
        let info = empty.node.rpc.call("getblockchaininfo", json!([]));
        if info["headers"] == headers {
            return start.elapsed();
        }
        std::thread::sleep(ASK_EVERY);
    }
}

fn main() {
    // Run as a test, it only shows that it works.
    let blocks = if std::env::args().any(|arg| arg == "--bench") { BLOCKS } else { FEW };
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("chain.dat");
    let network = Network::file(dir.path(), NETWORK);
    let work = write_chain(&file, blocks, &network.params());
    let full = node_with(&dir.path().join("full"), &network, &file);
    let measure = |what: &str, folder: &str, more: &[&str]| {
        let took = sync(&dir.path().join(folder), &network, &full, blocks, more).as_secs_f64();
        println!("{what}: {blocks} headers in {took:.2} s, {:.0} a second", f64::from(blocks) / took);
    };
    let minimum = format!("{work:x}");
    measure("minimum work known", "known", &["--min-chain-work", &minimum]);
    measure("minimum work not known", "unknown", &[]);
}
