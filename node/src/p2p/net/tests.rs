//! The protocol without sockets: messages in, actions out, time set by the test.

#![allow(clippy::unwrap_used)]

use bitcoin::hashes::Hash;
use bitcoin::{ScriptBuf, Sequence, TxIn, TxOut, Witness, absolute, transaction};

use super::super::message::{BLOCK, Inv, MAX_HEADERS, TX, Version, WITNESS};
use super::super::score::Scope;
use super::super::tree::Status;
use super::*;

mod announce;
mod blame;
mod download;
mod relay;
mod weak;

/// A time at which regtest's genesis is old and the tests' headers are recent.
const START: Micros = 1_700_000_000 * SECOND;

/// The state with its latest actions.
struct Stage {
    net: Net,
    now: Micros,
}

impl Stage {
    fn new() -> Self {
        let params = Arc::new(Params::regtest());
        let tree = HeaderTree::new(params.genesis.block().header);
        Self { net: Net::new(params, tree, AddressTable::new([7; 32])), now: START }
    }

    /// A peer that completed the handshake.
    fn peer(&mut self, number: u64, origin: Origin) -> PeerId {
        self.peer_at(SocketAddr::from(([8, number as u8, 1, 1], 14_877)), number, origin)
    }

    fn peer_at(&mut self, address: SocketAddr, number: u64, origin: Origin) -> PeerId {
        let id = PeerId(number);
        self.net.connected(id, address, origin, None, self.now);
        self.say(id, version(9));
        self.say(id, Message::Verack);
        self.actions();
        id
    }

    fn say(&mut self, id: PeerId, message: Message) {
        self.net.message(id, message, self.now);
    }

    fn actions(&mut self) -> Vec<Action> {
        self.net.take_actions()
    }

    fn sent(&mut self, id: PeerId) -> Vec<Message> {
        sent_to(id, self.actions())
    }

    /// A peer sends headers and the chain accepts them.
    fn give_headers(&mut self, id: PeerId, headers: &[(BlockHash, Header)]) {
        self.say(id, Message::Headers(headers.to_vec()));
        for action in self.actions() {
            if let Action::Ask(Question::Headers(id, headers)) = action {
                let last = headers.last().map(|(hash, _)| *hash);
                self.net.chain_says(FromChain::Headers(id, headers, last, None), self.now);
            } else {
                self.net.actions.push(action);
            }
        }
    }

    /// A peer sends a block and the chain stores it.
    fn give_block(&mut self, id: PeerId, header: &Header) {
        let block = Arc::new(Block { header: *header, txdata: vec![] });
        let hash = block.block_hash();
        self.say(id, Message::Block(hash, block));
        for action in self.actions() {
            if let Action::Ask(Question::Block(id, hash, block, _)) = action {
                self.net.chain_says(FromChain::Block(id, hash, block, Stored::Now, None), self.now);
            } else {
                self.net.actions.push(action);
            }
        }
    }

    /// The chain activates blocks with these headers.
    fn connect(&mut self, headers: &[(BlockHash, Header)]) {
        for (_, header) in headers {
            let block = Arc::new(Block { header: *header, txdata: vec![] });
            self.net.chain_says(FromChain::Connected(block), self.now);
        }
    }

    fn pass(&mut self, time: Micros) {
        self.now += time;
        self.net.tick(self.now);
    }

    fn is_connected(&self, id: PeerId) -> bool {
        self.net.peers.get(&id).is_some_and(|peer| !peer.closing)
    }
}

fn sent_to(id: PeerId, actions: Vec<Action>) -> Vec<Message> {
    let to = |action| match action {
        Action::Send(to, message) if to == id => Some(message),
        _ => None,
    };
    actions.into_iter().filter_map(to).collect()
}

fn version(services: u64) -> Message {
    Message::Version(Box::new(Version {
        version: 70_015,
        services,
        time: (START / SECOND).cast_signed(),
        receiver: SocketAddr::from(([127, 0, 0, 1], 1)),
        nonce: 99,
        user_agent: "/test:1/".to_owned(),
        height: 0,
        relay: true,
    }))
}

/// A chain of headers on top of one; their proof of work is not checked here.
fn headers_on(parent: &Header, count: usize, salt: u32) -> Vec<(BlockHash, Header)> {
    let mut headers: Vec<(BlockHash, Header)> = Vec::with_capacity(count);
    let mut header = *parent;
    for i in 0..count {
        header.prev_blockhash = header.block_hash();
        header.nonce = salt;
        header.time = (START / SECOND) as u32 - 3_600 + i as u32 / 8;
        headers.push((header.block_hash(), header));
    }
    headers
}

fn genesis() -> Header {
    Params::regtest().genesis.block().header
}

fn requested(messages: &[Message]) -> Vec<BlockHash> {
    let blocks = |message: &Message| match message {
        Message::GetData(list) => list.iter().map(Inv::block_hash).collect(),
        _ => vec![],
    };
    messages.iter().flat_map(blocks).collect()
}

fn names(messages: &[Message]) -> Vec<String> {
    messages.iter().map(|message| message.command().as_str().to_owned()).collect()
}

#[test]
fn the_handshake_is_that_of_the_reference() {
    let mut stage = Stage::new();
    let id = PeerId(1);
    stage.net.connected(id, "8.8.8.8:1".parse().unwrap(), Origin::Outbound, None, stage.now);
    assert_eq!(names(&stage.sent(id)), ["version"]);
    stage.say(id, version(9));
    assert_eq!(names(&stage.sent(id)), ["verack", "getaddr"]);
    stage.say(id, Message::Verack);
    let sent = names(&stage.sent(id));
    assert_eq!(sent, ["sendheaders", "sendcmpct", "sendcmpct", "ping", "getheaders"]);

    // An inbound peer speaks first.
    let id = PeerId(2);
    stage.net.connected(id, "8.8.4.4:1".parse().unwrap(), Origin::Inbound, None, stage.now);
    assert!(stage.sent(id).is_empty());
    stage.say(id, version(9));
    assert_eq!(names(&stage.sent(id)), ["version", "verack"]);
}

#[test]
fn a_peer_that_says_nothing_or_half_is_dropped_after_a_minute() {
    let mut stage = Stage::new();
    let silent = PeerId(1);
    stage.net.connected(silent, "8.8.8.8:1".parse().unwrap(), Origin::Inbound, None, stage.now);
    let half = PeerId(2);
    stage.net.connected(half, "8.8.8.8:2".parse().unwrap(), Origin::Inbound, None, stage.now);
    stage.say(half, version(9));
    stage.pass(59 * SECOND);
    assert!(stage.is_connected(silent) && stage.is_connected(half));
    stage.pass(2 * SECOND);
    assert!(!stage.is_connected(silent) && !stage.is_connected(half));
}

#[test]
fn timers_go_on_and_peers_are_told_the_time_when_the_wall_clock_is_set() {
    let mut stage = Stage::new();
    let silent = stage.peer(1, Origin::Inbound);
    stage.net.set_wall_clock(stage.now, START / SECOND - 3_600);
    stage.net.connected(PeerId(2), ([8, 8, 8, 8], 1).into(), Origin::Outbound, None, stage.now);
    let sent = stage.sent(PeerId(2));
    let [Message::Version(version)] = &sent[..] else { panic!("{sent:?}") };
    assert_eq!(version.time, (START / SECOND - 3_600).cast_signed());
    stage.pass(20 * 60 * SECOND + SECOND);
    assert!(!stage.is_connected(silent));
}

#[test]
fn a_ping_that_is_not_answered_ends_the_connection_after_twenty_minutes() {
    let mut stage = Stage::new();
    let id = stage.peer(1, Origin::Inbound);
    for _ in 0..19 {
        stage.pass(60 * SECOND);
        // It sends messages, but no pong.
        stage.say(id, Message::GetAddr);
    }
    assert!(stage.is_connected(id));
    stage.pass(120 * SECOND);
    assert!(!stage.is_connected(id));
}

#[test]
fn misbehaviour_costs_the_connection_and_the_address_except_at_home_and_of_friends() {
    let bans = |origin: Origin, address: &str| {
        let mut stage = Stage::new();
        let id = PeerId(1);
        stage.net.connected(id, address.parse().unwrap(), origin, None, stage.now);
        stage.say(id, version(9));
        stage.say(id, Message::Verack);
        stage.say(id, Message::Filter);
        let actions = stage.actions();
        let banned = actions.iter().any(|action| matches!(action, Action::Ban(..)));
        (banned, stage.is_connected(id))
    };
    assert_eq!(bans(Origin::Inbound, "8.8.8.8:1"), (true, false));
    assert_eq!(bans(Origin::Outbound, "8.8.8.8:1"), (true, false));
    assert_eq!(bans(Origin::Inbound, "127.0.0.1:1"), (false, false));
    assert_eq!(bans(Origin::Inbound, "[::ffff:127.0.0.1]:1"), (false, false));
    assert_eq!(bans(Origin::Manual, "8.8.8.8:1"), (false, true));
}

#[test]
fn who_wants_headers_gets_new_blocks_as_headers_and_others_as_hashes() {
    let mut stage = Stage::new();
    let (old, new) = (stage.peer(1, Origin::Inbound), stage.peer(2, Origin::Inbound));
    stage.say(new, Message::SendHeaders);
    let headers = headers_on(&genesis(), 2, 1);
    let connect = |stage: &mut Stage, header: &(BlockHash, Header)| {
        stage.connect(std::slice::from_ref(header));
        stage.net.flush(stage.now);
        stage.actions()
    };
    // Both are known to have genesis, from what they were sent or announced.
    for id in [old, new] {
        stage.say(
            id,
            Message::GetHeaders(super::super::message::Locator {
                hashes: vec![genesis().block_hash()],
                stop: HeaderTree::no_hash(),
            }),
        );
    }
    stage.actions();
    for header in &headers {
        let actions = connect(&mut stage, header);
        let kinds: Vec<(PeerId, String)> = actions
            .iter()
            .filter_map(|action| match action {
                Action::Send(id, message) => Some((*id, message.command().as_str().to_owned())),
                _ => None,
            })
            .collect();
        assert_eq!(kinds, [(old, "inv".to_owned()), (new, "headers".to_owned())]);
    }
}

#[test]
fn asking_for_more_than_is_taken_costs_points_and_memory_stays() {
    let mut stage = Stage::new();
    let id = stage.peer(1, Origin::Inbound);
    stage.net.set_congested(id, true, stage.now);
    let list = vec![Inv::tx(TX, &Txid::from_byte_array([1; 32])); 50_000];
    for _ in 0..10 {
        stage.say(id, Message::GetData(list.clone()));
    }
    assert!(!stage.is_connected(id));
    assert!(stage.net.peers[&id].blocks.getdata.len() <= 100_000);
}
