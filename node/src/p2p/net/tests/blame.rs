//! Which peer is blamed, and how much a hostile peer can take from others.

use super::*;
use crate::p2p::compact::{self, CompactBlock};

fn block_of(header: &Header) -> (BlockHash, Arc<Block>) {
    let block = Arc::new(Block { header: *header, txdata: vec![] });
    (block.block_hash(), block)
}

/// The chain's verdict on a copy of a block whose transactions do not match its header.
fn spoiled() -> Refusal {
    Refusal { code: 0x10, reason: "bad-txnmrklroot".to_owned(), points: 100, scope: Scope::ThisCopy }
}

#[test]
fn a_spoiled_copy_costs_who_sent_it_and_not_who_sends_the_block_itself() {
    // The chain reports a refusal twice, as event and as answer; the honest copy may arrive in between, in either
    // order.
    for event_first in [true, false] {
        let mut stage = Stage::new();
        let (hostile, honest) = (stage.peer(1, Origin::Inbound), stage.peer(2, Origin::Outbound));
        let headers = headers_on(&genesis(), 1, 1);
        stage.give_headers(honest, &headers);
        let (hash, block) = block_of(&headers[0].1);
        stage.say(hostile, Message::Block(hash, block.clone()));
        let event = FromChain::Checked(hash, Some(spoiled()));
        let answer = FromChain::Block(hostile, hash, block.clone(), Stored::Not, Some(spoiled()));
        let (first, second) = if event_first { (event, answer) } else { (answer, event) };
        stage.net.chain_says(first, stage.now);
        stage.say(honest, Message::Block(hash, block.clone()));
        stage.net.chain_says(second, stage.now);
        assert!(!stage.is_connected(hostile));
        assert!(stage.is_connected(honest), "event first: {event_first}");
        assert_eq!(stage.net.peers[&honest].score, 0);
    }
}

#[test]
fn a_block_that_breaks_a_rule_costs_its_sender_whichever_word_comes_first() {
    for event_first in [true, false] {
        let mut stage = Stage::new();
        let hostile = stage.peer(1, Origin::Inbound);
        let headers = headers_on(&genesis(), 1, 1);
        stage.give_headers(hostile, &headers);
        let (hash, block) = block_of(&headers[0].1);
        stage.say(hostile, Message::Block(hash, block.clone()));
        let refusal = Refusal { scope: Scope::ForGood, ..spoiled() };
        let event = FromChain::Checked(hash, Some(refusal.clone()));
        let answer = FromChain::Block(hostile, hash, block, Stored::Not, Some(refusal));
        stage.net.chain_says(if event_first { event } else { answer }, stage.now);
        assert!(!stage.is_connected(hostile));
        let id = stage.net.tree.find(&hash).unwrap();
        assert!(stage.net.tree.get(id).status.failed);
    }
}

/// The senders of the blocks that go to the chain.
fn to_the_chain(stage: &mut Stage) -> Vec<PeerId> {
    let sender = |action| match action {
        Action::Ask(Question::Block(id, ..)) => Some(id),
        _ => None,
    };
    stage.actions().into_iter().filter_map(sender).collect()
}

#[test]
fn a_spoiled_compact_copy_keeps_nobody_else_out_and_is_taken_once() {
    let mut stage = Stage::new();
    let (hostile, honest) = (stage.peer(1, Origin::Inbound), stage.peer(2, Origin::Outbound));
    let headers = headers_on(&genesis(), 1, 1);
    stage.give_headers(honest, &headers);
    let (hash, block) = block_of(&headers[0].1);
    let coinbase = Params::regtest().genesis.block().txdata[0].clone();
    let copy = Block { header: headers[0].1, txdata: vec![coinbase] };
    let compact = Arc::new(CompactBlock::of(&copy, 1, compact::Version::Two).unwrap());
    stage.actions();
    stage.say(hostile, Message::CmpctBlock(compact.clone(), compact::Version::Two));
    assert_eq!(to_the_chain(&mut stage), [hostile]);
    // While the chain is judging the bad copy.
    stage.say(honest, Message::Block(hash, block.clone()));
    stage.say(honest, Message::Block(hash, block.clone()));
    assert_eq!(to_the_chain(&mut stage), [honest]);
    let answer = |id, refusal| FromChain::Block(id, hash, block.clone(), Stored::Not, refusal);
    stage.net.chain_says(answer(hostile, Some(spoiled())), stage.now);
    stage.net.chain_says(answer(honest, None), stage.now);
    assert!(stage.net.sources.is_empty());
    assert!(stage.is_connected(hostile), "compact blocks may be passed on before they are judged");
    stage.say(hostile, Message::CmpctBlock(compact, compact::Version::Two));
    assert!(to_the_chain(&mut stage).is_empty());
    assert_eq!(stage.net.peers[&honest].score, 0);
}

#[test]
fn a_block_whose_copy_was_spoiled_is_asked_of_the_others_at_once() {
    let mut stage = Stage::new();
    let (hostile, honest) = (stage.peer(1, Origin::Outbound), stage.peer(2, Origin::Outbound));
    let headers = headers_on(&genesis(), 1, 1);
    stage.give_headers(hostile, &headers);
    stage.give_headers(honest, &headers);
    let (hash, block) = block_of(&headers[0].1);
    stage.actions();
    stage.say(hostile, Message::Block(hash, block.clone()));
    stage.net.chain_says(FromChain::Block(hostile, hash, block, Stored::Not, Some(spoiled())), stage.now);
    assert_eq!(requested(&stage.sent(honest)), [hash]);
}

/// A requested block with its header, and the peer that was asked.
fn block_under_way(stage: &mut Stage) -> (PeerId, BlockHash, Arc<Block>) {
    let honest = stage.peer(2, Origin::Outbound);
    let headers = headers_on(&genesis(), 1, 1);
    stage.give_headers(honest, &headers);
    assert_eq!(requested(&stage.sent(honest)), [headers[0].0]);
    let (hash, block) = block_of(&headers[0].1);
    (honest, hash, block)
}

/// Whether the next block for the chain is marked as requested.
fn was_requested(stage: &mut Stage) -> bool {
    let block = |action| match action {
        Action::Ask(Question::Block(.., requested)) => Some(requested),
        _ => None,
    };
    stage.actions().into_iter().find_map(block).unwrap()
}

#[test]
fn a_strangers_copy_ends_the_wait_for_a_block_only_once_it_is_known_to_be_good() {
    let mut stage = Stage::new();
    let hostile = stage.peer(1, Origin::Inbound);
    let (honest, hash, block) = block_under_way(&mut stage);
    stage.say(hostile, Message::Block(hash, block.clone()));
    assert!(was_requested(&mut stage), "it is wanted, whoever sends it");
    assert_eq!(stage.net.in_flight[&hash].peer, honest);
    let answer = FromChain::Block(hostile, hash, block.clone(), Stored::Not, Some(spoiled()));
    stage.net.chain_says(answer, stage.now);
    assert_eq!(stage.net.in_flight[&hash].peer, honest);
    assert_eq!(requested(&stage.sent(honest)), [], "not twice");
    stage.say(honest, Message::Block(hash, block.clone()));
    assert!(was_requested(&mut stage));
    assert!(stage.net.in_flight.is_empty());

    for (stored, refusal) in
        [(Stored::Now, None), (Stored::Not, Some(Refusal { scope: Scope::ForGood, points: 0, ..spoiled() }))]
    {
        let mut stage = Stage::new();
        let stranger = stage.peer(1, Origin::Inbound);
        let (_, hash, block) = block_under_way(&mut stage);
        stage.say(stranger, Message::Block(hash, block.clone()));
        stage.net.chain_says(FromChain::Block(stranger, hash, block, stored, refusal), stage.now);
        assert!(stage.net.in_flight.is_empty());
    }
}

/// A block stays requested while the chain judges another peer's copy.
#[test]
fn a_block_is_wanted_while_a_spoiled_copy_of_who_was_asked_is_judged() {
    let mut stage = Stage::new();
    let (hostile, hash, block) = block_under_way(&mut stage);
    let honest = stage.peer(3, Origin::Outbound);
    stage.say(hostile, Message::Block(hash, block.clone()));
    stage.actions();
    stage.say(honest, Message::Block(hash, block));
    assert!(was_requested(&mut stage));
}

#[test]
fn a_named_peer_whose_copy_was_spoiled_is_asked_again_after_a_while() {
    let mut stage = Stage::new();
    let named = stage.peer(1, Origin::Manual);
    let headers = headers_on(&genesis(), 1, 1);
    stage.give_headers(named, &headers);
    let (hash, block) = block_of(&headers[0].1);
    assert_eq!(requested(&stage.sent(named)), [hash]);
    let spoil = |stage: &mut Stage| {
        stage.say(named, Message::Block(hash, block.clone()));
        let answer = FromChain::Block(named, hash, block.clone(), Stored::Not, Some(spoiled()));
        stage.net.chain_says(answer, stage.now);
    };
    spoil(&mut stage);
    assert!(stage.is_connected(named), "the operator has named it");
    assert!(requested(&stage.sent(named)).is_empty());
    stage.pass(59 * SECOND);
    assert!(requested(&stage.sent(named)).is_empty());
    stage.pass(2 * SECOND);
    assert_eq!(requested(&stage.sent(named)), [hash], "nobody else has it");
}

#[test]
fn a_block_that_came_by_another_way_is_asked_for_once() {
    let mut stage = Stage::new();
    let id = stage.peer(1, Origin::Outbound);
    let (hash, header) = headers_on(&genesis(), 1, 1)[0];
    stage.give_headers(id, &[(hash, header)]);
    assert_eq!(requested(&stage.sent(id)), [hash]);
    let (_, block) = block_of(&header);
    stage.say(id, Message::Block(hash, block.clone()));
    stage.net.chain_says(FromChain::Block(id, hash, block, Stored::Before, None), stage.now);
    stage.pass(SECOND);
    assert_eq!(requested(&stage.sent(id)), []);
}

#[test]
fn announcements_of_many_leave_room_for_those_of_others() {
    let mut stage = Stage::new();
    stage.net.initial_download = false;
    let announce = |first: u32, count: u32| {
        let txid = |n: u32| {
            Txid::from_byte_array(bitcoin::hashes::sha256::Hash::hash(&n.to_le_bytes()).to_byte_array())
        };
        Message::Inv((first..first + count).map(|n| Inv::tx(TX, &txid(n))).collect())
    };
    for number in 0..12 {
        let hostile = stage.peer(number, Origin::Inbound);
        stage.say(hostile, announce(number as u32 * 5_000, 5_000));
    }
    let honest = stage.peer(100, Origin::Outbound);
    stage.actions();
    stage.say(honest, announce(1_000_000, 35));
    let asked: usize = requested(&stage.sent(honest)).len();
    assert_eq!(asked, 35);
}

#[test]
fn a_branch_that_an_operator_reconsiders_is_downloaded_again() {
    let mut stage = Stage::new();
    let id = stage.peer(1, Origin::Outbound);
    let headers = headers_on(&genesis(), 40, 1);
    stage.give_headers(id, &headers);
    stage.actions();
    stage.give_block(id, &headers[0].1);
    let refusal = Refusal { scope: Scope::ForGood, points: 0, ..spoiled() };
    stage.net.chain_says(FromChain::Checked(headers[0].0, Some(refusal)), stage.now);
    let best = stage.net.tree.best();
    assert_eq!(stage.net.tree.get(best).height, 0);
    stage.net.chain_says(FromChain::Reconsidered(headers[0].0), stage.now);
    stage.connect(&headers[..1]);
    let best = stage.net.tree.best();
    assert_eq!(stage.net.tree.get(best).height, 40);
    assert!(
        (0..40).all(|at| !stage.net.tree.get(stage.net.tree.find(&headers[at].0).unwrap()).status.failed)
    );
    stage.net.closed(id, stage.now);
    let other = stage.peer(2, Origin::Outbound);
    stage.say(other, Message::Headers(headers[39..].to_vec()));
    let sent = stage.sent(other);
    assert!(requested(&sent).contains(&headers[1].0), "{:?}", names(&sent));
}
