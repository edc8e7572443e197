//! A hostile peer can hurt only its own connection.
//!
//! Each test runs a real node with an honest peer next to the hostile one. After the attack, and during it if it lasts,
//! the node answers RPC, the honest peer's ping is answered and its block becomes the tip, and the node's peak memory
//! has grown by no more than the test allows. With `--nocapture` the figures are printed.

#![allow(clippy::unwrap_used)]

mod chain;
mod messages;

use std::net::SocketAddr;
use std::path::Path;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use bitcoin::block::Header;
use bitcoin::consensus::encode::{deserialize, deserialize_hex, serialize, serialize_hex};
use bitcoin::hashes::Hash;
use bitcoin::p2p::message::NetworkMessage;
use bitcoin::p2p::message_blockdata::{GetHeadersMessage, Inventory};
use bitcoin::p2p::{Address, ServiceFlags};
use bitcoin::{Block, BlockHash, CompactTarget, OutPoint, Transaction, Txid, Witness, absolute};
use iop_tests::blocks::{self, Parent, REWARD};
use iop_tests::peer::{Peer, SOON};
use iop_tests::program::{free_port, wait_for};
use iop_tests::stand::{Network, Node, new_address};
use serde_json::json;

/// Memory in megabytes that a node with peers may need beyond its start for the tests' own small chains.
const QUIET: u64 = 24;
/// Memory in megabytes that attacks with many or large messages may cost, by the limits of docs/peers.md: data kept
/// beyond a message (orphans 24, which is more than addresses, requests or weak headers take), for each of four peers 4
/// that may be in progress and one message of 1, and [`QUIET`]. It makes 68, rounded down.
const FLOOD: u64 = 64;

/// A node, and an honest peer of it.
struct Stage {
    node: Node,
    address: SocketAddr,
    magic: [u8; 4],
    honest: Peer,
    salt: u32,
    memory_before: u64,
    _dir: tempfile::TempDir,
}

impl Stage {
    /// A node with `height` blocks.
    fn with_blocks(height: u32) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let network = Network::Named("regtest");
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        // Nothing listens at the only address that it may connect to, so it does not dial addresses it learns.
        let flags = ["--p2p-bind", &address.to_string(), "--connect", "127.0.0.1:1"].map(str::to_owned);
        let node = Node::start_with(dir.path(), &network, free_port(), &flags).unwrap();
        node.rpc.call("generatetoaddress", json!([height, new_address(dir.path(), &network)]));
        let magic = network.params().magic;
        let honest = Peer::establish(address, magic);
        let memory_before = peak_memory(node.program.id());
        Self { node, address, magic, honest, salt: 0, memory_before, _dir: dir }
    }

    fn new() -> Self {
        Self::with_blocks(10)
    }

    /// A peer after its handshake.
    fn peer(&self) -> Peer {
        Peer::establish(self.address, self.magic)
    }

    /// A peer that has sent nothing.
    fn stranger(&self) -> Peer {
        Peer::connect(self.address, self.magic).unwrap()
    }

    fn best(&self) -> BlockHash {
        serde_json::from_value(self.node.rpc.call("getbestblockhash", json!([]))).unwrap()
    }

    fn tip(&self) -> Parent {
        let raw = self.node.rpc.call("getblock", json!([self.best(), 0]));
        let block: Block = deserialize_hex(raw.as_str().unwrap()).unwrap();
        Parent::of(&block, self.node.rpc.height() as u32)
    }

    fn genesis(&self) -> Parent {
        Parent::of(&Network::Named("regtest").params().genesis.block(), 0)
    }

    /// A valid block on the tip that no peer has.
    fn next_block(&mut self) -> Block {
        self.salt += 1;
        blocks::on(self.tip(), self.salt, vec![])
    }

    /// Gives the node a block by RPC.
    fn submit(&self, block: &Block) {
        assert_eq!(self.node.rpc.call("submitblock", json!([serialize_hex(block)])), json!(null));
    }

    /// Mines blocks until an output of [`blocks::anyone`] can be spent, and returns it.
    fn spendable(&mut self) -> OutPoint {
        let first = self.next_block();
        self.submit(&first);
        for _ in 0..100 {
            let block = self.next_block();
            self.submit(&block);
        }
        OutPoint::new(first.txdata[0].compute_txid(), 0)
    }

    /// The honest peer announces a block and sends it on request, and it becomes the tip.
    fn honest_block_arrives(&mut self) {
        let block = self.next_block();
        announce(&mut self.honest, &block.header);
        give_when_asked(&mut self.honest, &block);
        self.wait_for_tip(&block);
    }

    fn wait_for_tip(&self, block: &Block) {
        let arrived = wait_for(SOON, || (self.best() == block.block_hash()).then_some(()));
        assert!(arrived.is_some(), "the honest block is not the tip; log:\n{}", self.node.program.log());
    }

    /// The node serves everyone else, and its memory has grown by at most this many megabytes.
    fn check(&mut self, what: &str, at_most: u64) {
        self.node.rpc.call("uptime", json!([]));
        assert!(self.honest.answers_ping(), "{what}: no pong; log:\n{}", self.node.program.log());
        self.honest_block_arrives();
        let peak = peak_memory(self.node.program.id());
        let grown = peak.saturating_sub(self.memory_before);
        println!("{what}: peak memory {} MB, {} MB more than before", peak >> 20, grown >> 20);
        assert!(grown >> 20 <= at_most, "{what}: {} MB more, {at_most} at most", grown >> 20);
    }

    /// Asserts that the node closes the connection of a misbehaving peer.
    fn is_dropped(&self, peer: &mut Peer, what: &str) {
        assert!(peer.is_closed_within(SOON), "{what}: not dropped; log:\n{}", self.node.program.log());
    }
}

/// The peak memory of a process, in bytes.
fn peak_memory(pid: u32) -> u64 {
    let status = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

fn announce(peer: &mut Peer, header: &Header) {
    peer.send(NetworkMessage::Headers(vec![*header])).unwrap();
}

/// Whether the node asks for this block, in any form.
fn asks_for(message: &NetworkMessage, hash: BlockHash) -> bool {
    let NetworkMessage::GetData(list) = message else { return false };
    list.iter().any(|inv| match inv {
        Inventory::Block(asked) | Inventory::WitnessBlock(asked) | Inventory::CompactBlock(asked) => {
            *asked == hash
        }
        _ => false,
    })
}

fn wait_until_asked(peer: &mut Peer, hash: BlockHash) {
    peer.expect(|message| asks_for(message, hash).then_some(()));
}

fn give_when_asked(peer: &mut Peer, block: &Block) {
    wait_until_asked(peer, block.block_hash());
    peer.send(NetworkMessage::Block(block.clone())).unwrap();
}

/// Sends messages in the background until all are sent or the node closes the connection; returns the peer.
fn flood(
    mut peer: Peer,
    count: u32,
    message: impl Fn(&Peer, u32) -> Vec<u8> + Send + 'static,
) -> JoinHandle<Peer> {
    thread::spawn(move || {
        for number in 0..count {
            let bytes = message(&peer, number);
            if peer.send_bytes(&bytes).is_err() {
                break;
            }
        }
        peer
    })
}

fn unknown_txid(number: u32, entry: u32) -> Txid {
    let mut bytes = [7; 32];
    bytes[..4].copy_from_slice(&number.to_le_bytes());
    bytes[4..8].copy_from_slice(&entry.to_le_bytes());
    Txid::from_byte_array(bytes)
}

#[test]
fn who_asks_and_never_reads_is_made_to_wait() {
    let mut stage = Stage::new();
    let mut hashes = Vec::new();
    for salt in 0..4 {
        let block = blocks::large_on(stage.tip(), 500 + salt, 950_000);
        stage.submit(&block);
        hashes.push(block.block_hash());
    }
    let readers: Vec<Peer> = (0..4)
        .map(|number| {
            let mut peer = stage.peer();
            // Two gigabytes, if they were all built at once.
            let list = (0..500).map(|entry| Inventory::WitnessBlock(hashes[(number + entry) % 4]));
            peer.send(NetworkMessage::GetData(list.collect())).unwrap();
            peer
        })
        .collect();
    let pings = flood(stage.peer(), 300, |peer, _| peer.bytes(NetworkMessage::Ping(1)).repeat(1_000));
    let getheaders = flood(stage.peer(), 200, |peer, _| {
        let question = GetHeadersMessage::new(vec![BlockHash::all_zeros()], BlockHash::all_zeros());
        peer.bytes(NetworkMessage::GetHeaders(question)).repeat(1_000)
    });
    stage.check("who never reads, during", FLOOD);
    thread::sleep(Duration::from_secs(2));
    stage.check("who never reads", FLOOD);
    drop(readers);
    drop((pings.join().unwrap(), getheaders.join().unwrap()));
    stage.check("who never read", FLOOD);
}

#[test]
fn a_hundred_connections_from_one_address_keep_nobody_out() {
    let mut stage = Stage::new();
    stage.honest_block_arrives();
    let many: Vec<Peer> = (0..100).map(|_| stage.peer()).collect();
    stage.check("100 connections", FLOOD);
    // More than there are slots: some are refused or evict others, and the honest peer stays.
    let more: Vec<Peer> = (0..150).filter_map(|_| Peer::connect(stage.address, stage.magic).ok()).collect();
    stage.check("250 connections", FLOOD);
    let mut late = stage.peer();
    assert!(late.answers_ping());
    drop((many, more));
    stage.check("250 connections, gone", FLOOD);
}
