//! Headers-first download: from which peers, how many blocks, and what happens to those that do not arrive.

use super::*;

#[test]
fn headers_come_first_and_then_sixteen_blocks_of_each_peer_none_twice() {
    let mut stage = Stage::new();
    let (a, b) = (stage.peer(1, Origin::Outbound), stage.peer(2, Origin::Outbound));
    let headers = headers_on(&genesis(), 2_500, 1);
    stage.give_headers(a, &headers[..2_000]);
    let sent = stage.sent(a);
    let Some(Message::GetHeaders(locator)) =
        sent.iter().find(|message| matches!(message, Message::GetHeaders(_)))
    else {
        panic!("a full message means that there is more: {sent:?}")
    };
    assert_eq!(locator.hashes[0], headers[1_999].0);
    assert_eq!(requested(&sent), [], "no block holds up the headers");
    stage.give_headers(a, &headers[2_000..]);
    let sent = stage.sent(a);
    let first: Vec<_> = headers[..16].iter().map(|(hash, _)| *hash).collect();
    assert_eq!(requested(&sent), first);
    let with_witness = |message: &Message| match message {
        Message::GetData(list) => list.iter().all(|inv| inv.kind == BLOCK | WITNESS),
        _ => true,
    };
    assert!(sent.iter().all(with_witness));
    stage.give_headers(b, &headers[2_000..]);
    let second: Vec<_> = headers[16..32].iter().map(|(hash, _)| *hash).collect();
    assert_eq!(requested(&stage.sent(b)), second);
    // Each block that arrives makes room for another request.
    for (_, header) in &headers[16..32] {
        stage.give_block(b, header);
    }
    let more = requested(&stage.sent(b));
    assert!(more.len() >= 16 && more.iter().all(|hash| !first.contains(hash) && !second.contains(hash)));
}

#[test]
fn a_peer_that_pauses_among_its_headers_is_asked_for_blocks() {
    let mut stage = Stage::new();
    let id = stage.peer(1, Origin::Outbound);
    let headers = headers_on(&genesis(), 4_000, 1);
    stage.give_headers(id, &headers[..2_000]);
    stage.pass(SECOND / 2);
    stage.give_headers(id, &headers[2_000..]);
    stage.pass(SECOND / 2);
    assert_eq!(requested(&stage.sent(id)), []);
    stage.pass(SECOND / 2);
    assert_eq!(requested(&stage.sent(id)).len(), 16);
}

#[test]
fn a_peer_that_gives_the_same_headers_again_is_asked_for_blocks() {
    let mut stage = Stage::new();
    let id = stage.peer(1, Origin::Outbound);
    let headers = headers_on(&genesis(), 2_000, 1);
    stage.give_headers(id, &headers);
    assert_eq!(requested(&stage.sent(id)), []);
    stage.give_headers(id, &headers);
    assert_eq!(requested(&stage.sent(id)).len(), 16);
}

/// The reference's answer to the last getheaders, for a peer with this chain.
fn answer(sent: &[Message], chain: &[(BlockHash, Header)]) -> Option<Vec<(BlockHash, Header)>> {
    let asked = sent.iter().rev().find_map(|message| match message {
        Message::GetHeaders(locator) => Some(locator),
        _ => None,
    })?;
    let place = |hash: &BlockHash| chain.iter().position(|(other, _)| other == hash);
    let from = asked.hashes.iter().find_map(place).map_or(0, |place| place + 1);
    Some(chain[from..].iter().take(MAX_HEADERS).copied().collect())
}

/// Below the fork a locator has gaps of thousands: headers within one are sent again, and then the peer's branch.
#[test]
fn the_better_branch_of_a_deep_fork_is_reached_wherever_the_fork_is() {
    for (shared, ours) in [(3_000, 5_000), (100, 2_080), (4_500, 6_100)] {
        let mut stage = Stage::new();
        let trunk = headers_on(&genesis(), shared, 1);
        let fork = trunk[shared - 1].1;
        let (old, other) = (stage.peer(1, Origin::Outbound), stage.peer(2, Origin::Outbound));
        let known = [trunk.clone(), headers_on(&fork, ours, 2)].concat();
        known.chunks(MAX_HEADERS).for_each(|part| stage.give_headers(old, part));
        stage.actions();
        let chain = [trunk, headers_on(&fork, ours + 100, 3)].concat();
        // A new block of the other branch is announced.
        stage.say(other, Message::Headers(vec![*chain.last().unwrap()]));
        let mut rounds = 0;
        while let Some(headers) = answer(&stage.sent(other), &chain) {
            stage.give_headers(other, &headers);
            rounds += 1;
            assert!(
                rounds <= chain.len().div_ceil(MAX_HEADERS) + 1,
                "{shared}, {ours}: going round in circles"
            );
        }
        assert_eq!(stage.net.tree.get(stage.net.tree.best()).hash, chain.last().unwrap().0);
    }
}

#[test]
fn a_peer_whose_last_headers_filled_a_message_is_asked_for_blocks_at_once() {
    let mut stage = Stage::new();
    let id = stage.peer(1, Origin::Outbound);
    stage.give_headers(id, &headers_on(&genesis(), 2_000, 1));
    assert_eq!(requested(&stage.sent(id)), []);
    stage.give_headers(id, &[]);
    assert_eq!(requested(&stage.sent(id)).len(), 16);
}

#[test]
fn a_peer_that_holds_up_the_window_is_replaced_after_two_seconds() {
    let mut stage = Stage::new();
    let (slow, quick) = (stage.peer(1, Origin::Outbound), stage.peer(2, Origin::Outbound));
    let headers = headers_on(&genesis(), 1_500, 1);
    stage.give_headers(slow, &headers);
    stage.give_headers(quick, &headers);
    let held: Vec<_> = stage.net.peers[&slow].sync.in_flight.iter().copied().collect();
    assert_eq!(held.len(), 16);
    // The fast one delivers everything requested, up to the end of the window.
    let by_hash: HashMap<BlockHash, Header> = headers.iter().copied().collect();
    while let Some(hash) = stage.net.peers[&quick].sync.in_flight.front().copied() {
        stage.give_block(quick, &by_hash[&hash]);
    }
    let here =
        headers.iter().filter(|(hash, _)| stage.net.tree.get(stage.net.tree.find(hash).unwrap()).status.have);
    assert_eq!(here.count(), 1_024 - 16, "the window ends 1,024 blocks behind the last common one");
    stage.pass(SECOND);
    assert!(stage.is_connected(slow));
    stage.pass(2 * SECOND);
    assert!(!stage.is_connected(slow) && stage.is_connected(quick));
    stage.net.closed(slow, stage.now);
    assert!(stage.net.peers[&quick].sync.in_flight.iter().all(|hash| held.contains(hash)));
    assert!(!stage.net.peers[&quick].sync.in_flight.is_empty());
}

#[test]
fn a_block_that_does_not_come_ends_the_connection_and_is_asked_of_another() {
    let mut stage = Stage::new();
    let id = stage.peer(1, Origin::Outbound);
    let headers = headers_on(&genesis(), 3, 1);
    stage.give_headers(id, &headers);
    stage.pass(599 * SECOND);
    assert!(stage.is_connected(id));
    stage.pass(2 * SECOND);
    assert!(!stage.is_connected(id), "one block interval");
    stage.net.closed(id, stage.now);
    assert!(stage.net.in_flight.is_empty());
    let other = stage.peer(2, Origin::Outbound);
    stage.give_headers(other, &headers);
    assert_eq!(requested(&stage.sent(other)).len(), 3);
}

#[test]
fn a_chain_with_too_little_work_is_not_downloaded() {
    let mut stage = Stage::new();
    let headers = headers_on(&genesis(), 20, 1);
    stage.net.minimum_work = Work::from_be_bytes({
        let mut bytes = [0; 32];
        bytes[31] = 100;
        bytes
    });
    let id = stage.peer(1, Origin::Outbound);
    stage.give_headers(id, &headers);
    assert!(requested(&stage.sent(id)).is_empty());
    assert!(!stage.is_connected(id), "a chosen peer must be of use");
    let named = stage.peer(2, Origin::Manual);
    stage.give_headers(named, &headers);
    assert!(stage.is_connected(named));
    let more = headers_on(&headers[19].1, 60, 2);
    stage.give_headers(named, &more);
    assert_eq!(requested(&stage.sent(named)).len(), 16);
}

#[test]
fn headers_that_do_not_connect_are_forgiven_nine_times_of_ten() {
    let mut stage = Stage::new();
    let id = stage.peer(1, Origin::Inbound);
    let far = headers_on(&headers_on(&genesis(), 50, 1)[49].1, 1, 2);
    for count in 1..=50u32 {
        stage.say(id, Message::Headers(far.clone()));
        assert_eq!(stage.net.peers[&id].score, count / 10 * 20);
    }
    assert!(!stage.is_connected(id));
    let mut gap = headers_on(&genesis(), 3, 1);
    gap.remove(1);
    let id = stage.peer(2, Origin::Inbound);
    stage.say(id, Message::Headers(gap));
    assert_eq!(stage.net.peers[&id].score, 20, "headers that do not follow each other");
}

#[test]
fn headers_of_weak_branches_are_bounded() {
    let mut stage = Stage::new();
    // A tip with the work of 3,000 blocks.
    let strong = headers_on(&genesis(), 30_000, 1);
    for (hash, header) in &strong {
        stage.net.tree.put(*hash, *header, Status { have: true, valid: true, failed: false });
    }
    let tip = stage.net.tree.find(&strong.last().unwrap().0).unwrap();
    stage.net.tree.set_tip(tip);
    let id = stage.peer(1, Origin::Inbound);
    let before = stage.net.tree.len();
    let mut parent = genesis();
    for _ in 0..20 {
        let weak = headers_on(&parent, 2_000, 2);
        parent = weak[1_999].1;
        stage.give_headers(id, &weak);
    }
    assert!(!stage.is_connected(id));
    assert!(stage.net.tree.len() - before <= 22_000, "{}", stage.net.tree.len() - before);
}

#[test]
fn a_next_block_that_is_kept_back_is_asked_of_the_others_in_turn() {
    let mut stage = Stage::new();
    stage.net.initial_download = false;
    let origins = [Origin::Inbound, Origin::Inbound, Origin::Outbound];
    let peers: Vec<PeerId> = (1..).zip(origins).map(|(number, origin)| stage.peer(number, origin)).collect();
    let headers = headers_on(&genesis(), 1, 1);
    peers.iter().for_each(|id| stage.give_headers(*id, &headers));
    let asked = |stage: &mut Stage| -> Vec<PeerId> {
        let sent = |action| match action {
            Action::Send(id, message) if !requested(std::slice::from_ref(&message)).is_empty() => Some(id),
            _ => None,
        };
        stage.actions().into_iter().filter_map(sent).collect()
    };
    assert_eq!(asked(&mut stage), [peers[0]], "who announced it first");
    stage.pass(2 * SECOND);
    assert_eq!(asked(&mut stage), []);
    for expected in [&peers[2..], &peers[1..2], &[], &[]] {
        stage.pass(4 * SECOND);
        assert_eq!(asked(&mut stage), expected, "chosen peers first, each once");
    }
    assert!(peers.iter().all(|id| stage.is_connected(*id)), "to be slow is no fault");
    stage.give_block(peers[0], &headers[0].1);
    assert!(stage.net.in_flight.is_empty(), "whoever gives it");
}
