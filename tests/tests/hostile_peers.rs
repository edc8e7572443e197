//! What a hostile peer can do: hurt its own connection, and nothing else.
//!
//! Each test runs a real node with an honest peer beside the hostile one. After the attack, and during it where it
//! lasts, the node answers RPC, the honest peer's ping is answered and its block becomes the tip, and the node's peak
//! memory has grown by no more than the test says. With `--nocapture` the figures are printed.

#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::path::Path;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use bitcoin::block::Header;
use bitcoin::consensus::encode::{deserialize_hex, serialize, serialize_hex};
use bitcoin::hashes::Hash;
use bitcoin::p2p::message::NetworkMessage;
use bitcoin::p2p::message_blockdata::{GetHeadersMessage, Inventory};
use bitcoin::p2p::{Address, ServiceFlags};
use bitcoin::{Block, BlockHash, CompactTarget, OutPoint, Transaction, Txid, Witness};
use iop_tests::blocks::{self, Parent, REWARD};
use iop_tests::peer::{Peer, SOON};
use iop_tests::program::{free_port, wait_for};
use iop_tests::stand::{Network, Node, new_address};
use serde_json::json;

/// What a node with peers may need beyond its start for the tests' own small chains, megabytes.
const QUIET: u64 = 24;
/// What attacks with many or large messages may cost, megabytes, by the limits of docs/peers.md: what is kept beyond a
/// message (orphans 24, which is more than addresses, requests or weak headers take), for each of four peers 4 that it
/// may have under way and one message of 1, and [`QUIET`]. It makes 68, rounded down.
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
        // Nobody listens at the one address that it may connect to: what it hears of is not dialled.
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

    /// A peer that has done the handshake.
    fn peer(&self) -> Peer {
        Peer::establish(self.address, self.magic)
    }

    /// A peer that has said nothing.
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

    /// A valid block on the tip that nobody has.
    fn next_block(&mut self) -> Block {
        self.salt += 1;
        blocks::on(self.tip(), self.salt, vec![])
    }

    /// Gives the node a block by RPC.
    fn submit(&self, block: &Block) {
        assert_eq!(self.node.rpc.call("submitblock", json!([serialize_hex(block)])), json!(null));
    }

    /// Puts blocks on the chain until an output of [`blocks::anyone`] can be spent, and gives it.
    fn spendable(&mut self) -> OutPoint {
        let first = self.next_block();
        self.submit(&first);
        for _ in 0..100 {
            let block = self.next_block();
            self.submit(&block);
        }
        OutPoint::new(first.txdata[0].compute_txid(), 0)
    }

    /// The honest peer announces a block, gives it when asked, and it becomes the tip.
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

    /// The node is there for everyone else, and its memory has grown by at most this many megabytes.
    fn check(&mut self, what: &str, at_most: u64) {
        self.node.rpc.call("uptime", json!([]));
        assert!(self.honest.answers_ping(), "{what}: no pong; log:\n{}", self.node.program.log());
        self.honest_block_arrives();
        let peak = peak_memory(self.node.program.id());
        let grown = peak.saturating_sub(self.memory_before);
        println!("{what}: peak memory {} MB, {} MB more than before", peak >> 20, grown >> 20);
        assert!(grown >> 20 <= at_most, "{what}: {} MB more, {at_most} at most", grown >> 20);
    }

    /// The node hangs up on a peer that is worth nothing any more.
    fn is_dropped(&self, peer: &mut Peer, what: &str) {
        assert!(peer.is_closed_within(SOON), "{what}: not dropped; log:\n{}", self.node.program.log());
    }
}

/// The most memory that a process had at any time, bytes.
fn peak_memory(pid: u32) -> u64 {
    let status = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

fn announce(peer: &mut Peer, header: &Header) {
    peer.send(NetworkMessage::Headers(vec![*header])).unwrap();
}

/// Whether the node asks for this block, in whatever form.
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

/// Sends messages in the background until all are sent or the node hangs up; gives the peer back.
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
fn bytes_that_are_no_messages_end_their_connection_or_are_skipped() {
    let mut stage = Stage::new();
    let ping = stage.honest.bytes(NetworkMessage::Ping(1));
    let mut wrong_magic = ping.clone();
    wrong_magic[2] ^= 1;
    let mut too_long = ping.clone();
    too_long[16..20].copy_from_slice(&4_000_001u32.to_le_bytes());
    for (what, bytes) in [
        ("wrong magic", wrong_magic),
        ("wrong length", too_long),
        ("another protocol", b"GET / HTTP/1.1\r\nHost: node\r\n\r\n".to_vec()),
    ] {
        for mut peer in [stage.stranger(), stage.peer()] {
            peer.send_bytes(&bytes).unwrap();
            stage.is_dropped(&mut peer, what);
        }
    }
    let mut peer = stage.peer();
    let mut wrong_checksum = ping.clone();
    wrong_checksum[20] ^= 1;
    let mut wrong_command = ping;
    wrong_command[4] = 0xff;
    for bytes in [wrong_checksum, wrong_command] {
        peer.send_bytes(&bytes).unwrap();
        assert!(peer.answers_ping(), "only the message is lost");
    }
    stage.check("no messages", QUIET);
}

#[test]
fn a_slow_writer_and_half_a_handshake_hold_nobody_up() {
    let mut stage = Stage::new();
    let silent: Vec<Peer> = (0..10).map(|_| stage.stranger()).collect();
    let mut half: Vec<Peer> = (0..10).map(|_| stage.stranger()).collect();
    for (number, peer) in half.iter_mut().enumerate() {
        peer.send(Peer::version(number as u64 + 1)).unwrap();
    }
    let mut slow = stage.stranger();
    let writer = thread::spawn(move || {
        for byte in slow.bytes(Peer::version(99)) {
            slow.send_bytes(&[byte]).unwrap();
            thread::sleep(Duration::from_millis(20));
        }
        slow.send(NetworkMessage::Verack).unwrap();
        slow.expect(|message| matches!(message, NetworkMessage::Verack).then_some(()));
    });
    stage.check("slow writers", QUIET);
    writer.join().expect("a slow peer is a peer");
    stage.check("slow writers, later", QUIET);
    drop((silent, half));
}

#[test]
fn a_large_message_that_never_ends_takes_no_memory_for_what_did_not_come() {
    let mut stage = Stage::new();
    let mut peers: Vec<Peer> = (0..30).map(|_| stage.peer()).collect();
    for peer in &mut peers {
        let mut bytes = peer.frame("block", &[0; 100]);
        bytes[16..20].copy_from_slice(&4_000_000u32.to_le_bytes());
        peer.send_bytes(&bytes).unwrap();
    }
    stage.check("30 announced messages of 4 MB", QUIET);
}

#[test]
fn huge_counts_with_short_bodies_allocate_nothing() {
    let mut stage = Stage::new();
    let header = serialize(&stage.next_block().header);
    let counts: [&[u8]; 4] = [
        &[0xfd, 0x50, 0xc3],
        &[0xfe, 0xff, 0xff, 0xff, 0x01],
        &[0xfe, 0xff, 0xff, 0xff, 0x7f],
        &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
    ];
    for (command, before) in [
        ("addr", vec![]),
        ("inv", vec![]),
        ("getdata", vec![]),
        ("notfound", vec![]),
        ("headers", vec![]),
        ("getheaders", vec![0; 4]),
        ("getblocks", vec![0; 4]),
        ("block", header.clone()),
        ("tx", vec![1, 0, 0, 0]),
        ("tx", vec![1, 0, 0, 0, 0, 1]),
        ("cmpctblock", [&header[..], &[0; 8]].concat()),
        ("cmpctblock", [&header[..], &[0; 9]].concat()),
        ("blocktxn", vec![0; 32]),
        ("getblocktxn", vec![0; 32]),
        ("reject", vec![]),
        ("filterload", vec![]),
        ("merkleblock", header),
    ] {
        for count in counts {
            let mut peer = stage.peer();
            let frame = peer.frame(command, &[&before[..], count, &[1; 20]].concat());
            // It may be dropped at once or live on; both are fine.
            let _ = peer.send_bytes(&frame);
        }
    }
    stage.check("huge counts", QUIET);
}

#[test]
fn what_comes_before_the_handshake_or_twice_costs_points_and_then_the_connection() {
    let mut stage = Stage::new();
    let mut early = stage.stranger();
    for number in 0..100 {
        let _ = early.send(NetworkMessage::Ping(number));
    }
    stage.is_dropped(&mut early, "messages before version");
    let mut half = stage.stranger();
    half.send(Peer::version(1)).unwrap();
    for number in 0..100 {
        let _ = half.send(NetworkMessage::GetHeaders(GetHeadersMessage::new(vec![], BlockHash::all_zeros())));
        let _ = half.send(NetworkMessage::Ping(number));
    }
    stage.is_dropped(&mut half, "messages before verack");
    let mut twice = stage.peer();
    twice.send(Peer::version(3)).unwrap();
    assert!(twice.answers_ping(), "one is forgiven");
    for _ in 0..100 {
        let _ = twice.send(Peer::version(3));
    }
    stage.is_dropped(&mut twice, "a hundred version messages");
    stage.check("out of order", QUIET);
}

#[test]
fn floods_of_announcements_and_questions_leave_the_others_alone() {
    let mut stage = Stage::new();
    let inv = flood(stage.peer(), 60, |peer, number| {
        let list = (0..50_000).map(|entry| Inventory::WitnessTransaction(unknown_txid(number, entry)));
        peer.bytes(NetworkMessage::Inv(list.map(as_announced).collect()))
    });
    let getdata = flood(stage.peer(), 60, |peer, number| {
        let list = (0..50_000).map(|entry| Inventory::Transaction(unknown_txid(number, entry)));
        peer.bytes(NetworkMessage::GetData(list.collect()))
    });
    stage.check("inv and getdata floods, during", FLOOD);
    let blocks = flood(stage.peer(), 60, |peer, number| {
        let hash = |entry| BlockHash::from_raw_hash(unknown_txid(number, entry).to_raw_hash());
        peer.bytes(NetworkMessage::Inv((0..50_000).map(|entry| Inventory::Block(hash(entry))).collect()))
    });
    drop((inv.join().unwrap(), getdata.join().unwrap()));
    stage.check("block inv flood, during", FLOOD);
    drop(blocks.join().unwrap());
    stage.check("announcement floods", FLOOD);
}

/// Transactions are announced without the witness flag.
fn as_announced(inv: Inventory) -> Inventory {
    match inv {
        Inventory::WitnessTransaction(txid) => Inventory::Transaction(txid),
        other => other,
    }
}

#[test]
fn a_flood_of_addresses_fills_a_part_of_a_bounded_table() {
    let mut stage = Stage::new();
    let addresses = flood(stage.peer(), 300, |peer, number| {
        let now =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() as u32;
        let list = (0..1_000).map(|entry| {
            let ip = (0x1000_0000 + number * 65_537 * 13 + entry * 257).to_be_bytes();
            (now, Address::new(&SocketAddr::from((ip, 14_877)), ServiceFlags::NETWORK))
        });
        peer.bytes(NetworkMessage::Addr(list.collect()))
    });
    stage.check("addr flood, during", FLOOD);
    let mut peer = addresses.join().unwrap();
    let wrong = peer.frame("addr", &[&[0xfd, 0xe9, 0x03][..], &[0; 30_030]].concat());
    for _ in 0..5 {
        let _ = peer.send_bytes(&wrong);
    }
    stage.is_dropped(&mut peer, "five messages of 1,001 addresses");
    stage.check("addr flood", FLOOD);
}

#[test]
fn headers_that_do_not_connect_are_forgiven_and_then_not() {
    let mut stage = Stage::new();
    let nowhere = Parent { hash: BlockHash::from_byte_array([9; 32]), height: 5, time: 1_600_000_000 };
    let mut peer = stage.peer();
    announce(&mut peer, &blocks::headers_on(nowhere, 0, 1)[0]);
    peer.expect(|message| matches!(message, NetworkMessage::GetHeaders(_)).then_some(()));
    for salt in 1..50 {
        let _ = peer.send(NetworkMessage::Headers(blocks::headers_on(nowhere, salt, 1)));
    }
    stage.is_dropped(&mut peer, "fifty announcements that do not connect");
    let mut torn = stage.peer();
    let mut headers = blocks::headers_on(stage.genesis(), 1, 20);
    headers.remove(10);
    for _ in 0..5 {
        let _ = torn.send(NetworkMessage::Headers(headers.clone()));
    }
    stage.is_dropped(&mut torn, "headers that do not follow each other");
    stage.check("unconnected headers", QUIET);
}

#[test]
fn headers_of_weak_branches_are_taken_up_to_a_bound() {
    let mut stage = Stage::with_blocks(120);
    let (genesis, mut peer) = (stage.genesis(), stage.peer());
    let mut sent = 0;
    for salt in 0..400 {
        let headers = blocks::headers_on(genesis, salt, 100);
        if peer.send(NetworkMessage::Headers(headers)).is_err() {
            break;
        }
        sent += 100;
    }
    stage.is_dropped(&mut peer, "40,000 headers of branches with less work than the chain");
    println!("weak branches: {sent} headers written before the connection was gone");
    stage.check("weak headers", FLOOD);
}

#[test]
fn headers_that_break_a_rule_cost_the_connection() {
    let mut stage = Stage::new();
    let mut harder = stage.next_block().header;
    harder.bits = CompactTarget::from_consensus(0x2000_ffff);
    blocks::mine(&mut harder);
    let mut peer = stage.peer();
    announce(&mut peer, &harder);
    stage.is_dropped(&mut peer, "wrong difficulty");
    let mut without_work = stage.next_block().header;
    while without_work.validate_pow(without_work.target()).is_ok() {
        without_work.nonce += 1;
    }
    let mut peer = stage.peer();
    for _ in 0..2 {
        let _ = peer.send(NetworkMessage::Headers(vec![without_work]));
    }
    stage.is_dropped(&mut peer, "no work, twice");
    stage.check("invalid headers", QUIET);
}

#[test]
fn blocks_that_nobody_asked_for_are_neither_stored_nor_piled_up() {
    let mut stage = Stage::with_blocks(30);
    let nowhere = Parent { hash: BlockHash::from_byte_array([9; 32]), height: 5, time: 1_600_000_000 };
    let mut peer = stage.peer();
    for salt in 0..10 {
        let _ = peer.send(NetworkMessage::Block(blocks::on(nowhere, salt, vec![])));
    }
    stage.is_dropped(&mut peer, "ten blocks without a parent");
    // Valid blocks of a branch with less work than the chain: 150 MB.
    let genesis = stage.genesis();
    let unwanted = flood(stage.peer(), 160, move |peer, salt| {
        peer.bytes(NetworkMessage::Block(blocks::large_on(genesis, salt, 950_000)))
    });
    stage.check("unwanted blocks, during", FLOOD);
    drop(unwanted.join().unwrap());
    stage.check("unwanted blocks", FLOOD);
    let stored = folder_bytes(&stage.node.datadir);
    println!("unwanted blocks: the data directory has {} MB", stored >> 20);
    assert!(stored < 64 << 20, "150 MB of unwanted blocks are in {stored} bytes");
}

fn folder_bytes(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).unwrap().map(Result::unwrap);
    entries
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => folder_bytes(&entry.path()),
            // The database deletes its own files.
            metadata => metadata.map_or(0, |metadata| metadata.len()),
        })
        .sum()
}

/// Blocks with the header of a good one and other content: the good one must stay welcome.
#[test]
fn a_mutated_block_ends_its_senders_connection_and_the_true_one_is_taken() {
    let mut stage = Stage::new();
    let outpoint = stage.spendable();
    let first = blocks::spend(outpoint, REWARD);
    let second = blocks::spend(OutPoint::new(first.compute_txid(), 0), REWARD);
    let true_block = |stage: &mut Stage, others: Vec<Transaction>| {
        stage.salt += 1;
        blocks::on(stage.tip(), stage.salt, others)
    };
    type Mutation = fn(&mut Block);
    let mutations: [(&str, Mutation); 4] = [
        ("another coinbase", |block| block.txdata[0].output[0].value = bitcoin::Amount::from_sat(5)),
        ("a witness", |block| block.txdata[0].input[0].witness = Witness::from_slice(&[[0; 32]])),
        ("a transaction less", |block| drop(block.txdata.pop())),
        ("the last transaction twice (CVE-2012-2459)", |block| block.txdata.push(block.txdata[2].clone())),
    ];
    for (number, (what, mutate)) in mutations.into_iter().enumerate() {
        let others = if number == 3 { vec![first.clone(), second.clone()] } else { vec![] };
        let block = true_block(&mut stage, others);
        let mut mutated = block.clone();
        mutate(&mut mutated);
        assert_eq!(mutated.block_hash(), block.block_hash());
        if number == 3 {
            assert!(mutated.check_merkle_root());
        }
        let mut peer = stage.peer();
        announce(&mut peer, &block.header);
        give_when_asked(&mut peer, &mutated);
        stage.is_dropped(&mut peer, what);
        announce(&mut stage.honest, &block.header);
        give_when_asked(&mut stage.honest, &block);
        stage.wait_for_tip(&block);
    }
    stage.check("mutated blocks", QUIET);
}

#[test]
fn a_block_that_breaks_a_rule_ends_its_senders_connection_and_changes_nothing() {
    let mut stage = Stage::new();
    let before = stage.best();
    let mut greedy = stage.next_block();
    greedy.txdata[0].output[0].value = bitcoin::Amount::from_sat(51 * 100_000_000);
    let greedy = blocks::sealed(greedy);
    let mut peer = stage.peer();
    announce(&mut peer, &greedy.header);
    give_when_asked(&mut peer, &greedy);
    stage.is_dropped(&mut peer, "a coinbase that takes too much");
    assert_eq!(stage.best(), before);
    // Its children are of no use to anyone.
    let mut child = stage.peer();
    let headers = blocks::headers_on(Parent::of(&greedy, 11), 0, 1);
    for _ in 0..5 {
        let _ = child.send(NetworkMessage::Headers(headers.clone()));
    }
    stage.check("invalid block", QUIET);
    assert_ne!(stage.best(), headers[0].block_hash());
}

#[test]
fn a_flood_of_orphans_takes_a_bounded_room() {
    let mut stage = Stage::new();
    let small = flood(stage.peer(), 20_000, |peer, number| {
        let tx = blocks::spend(OutPoint::new(unknown_txid(number, 0), 0), u64::from(number));
        peer.bytes(NetworkMessage::Tx(tx))
    });
    let large = flood(stage.peer(), 600, |peer, number| {
        let mut tx = blocks::spend(OutPoint::new(unknown_txid(number, 1), 0), 1);
        tx.output = vec![tx.output[0].clone(); 9_000];
        peer.bytes(NetworkMessage::Tx(tx))
    });
    stage.check("orphan floods, during", FLOOD);
    drop((small.join().unwrap(), large.join().unwrap()));
    stage.check("orphan floods", FLOOD);
}

#[test]
fn who_announces_a_block_and_keeps_it_back_delays_it_for_seconds_only() {
    let mut stage = Stage::new();
    let mut staller = stage.peer();
    let kept_back = stage.next_block();
    announce(&mut staller, &kept_back.header);
    wait_until_asked(&mut staller, kept_back.block_hash());
    // Another block, from another peer, is not held up at all.
    stage.honest_block_arrives();
    // Nor, for long, is the same block.
    let kept_back = stage.next_block();
    announce(&mut staller, &kept_back.header);
    wait_until_asked(&mut staller, kept_back.block_hash());
    announce(&mut stage.honest, &kept_back.header);
    give_when_asked(&mut stage.honest, &kept_back);
    stage.wait_for_tip(&kept_back);
    // A long chain of headers without blocks behind it holds nobody up either.
    let headers = blocks::headers_on(stage.tip(), 7, 2_000);
    staller.send(NetworkMessage::Headers(headers)).unwrap();
    assert!(staller.answers_ping());
    stage.check("stalling", QUIET);
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
            // Two gigabytes, if they were all made at once.
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
    // More than there are places: some are refused or make room, and the honest peer stays.
    let more: Vec<Peer> = (0..150).filter_map(|_| Peer::connect(stage.address, stage.magic).ok()).collect();
    stage.check("250 connections", FLOOD);
    let mut late = stage.peer();
    assert!(late.answers_ping());
    drop((many, more));
    stage.check("250 connections, gone", FLOOD);
}
