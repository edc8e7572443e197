//! Headers of branches with less work than ours: how many an address may send.

use super::*;
use crate::p2p::compact::{self, CompactBlock};

/// A stage with a chain of this many blocks from an honest peer.
fn stage_with(blocks: usize) -> (Stage, Vec<(BlockHash, Header)>) {
    let mut stage = Stage::new();
    let honest = stage.peer(1, Origin::Outbound);
    let main = headers_on(&genesis(), blocks, 1);
    stage.give_headers(honest, &main);
    stage.connect(&main);
    stage.actions();
    (stage, main)
}

#[test]
fn weak_headers_count_also_where_strong_ones_come_between() {
    let (mut stage, main) = stage_with(2_000);
    let hostile = stage.peer(2, Origin::Inbound);
    for salt in 2..=13 {
        stage.give_headers(hostile, &headers_on(&genesis(), 1_999, salt));
        stage.give_headers(hostile, &main[1_999..]);
    }
    assert!(!stage.is_connected(hostile));
    assert!(stage.net.tree.len() < 30_000, "{}", stage.net.tree.len());
}

/// The chain also keeps the headers of compact blocks and of unrequested blocks.
#[test]
fn weak_headers_count_whichever_message_brings_them() {
    let (mut stage, _) = stage_with(10);
    let hostile = stage.peer(2, Origin::Inbound);
    let coinbase = Params::regtest().genesis.block().txdata[0].clone();
    for salt in 0..20_000 {
        let (hash, header) = headers_on(&genesis(), 1, 1_000 + salt)[0];
        let block = Arc::new(Block { header, txdata: vec![] });
        if salt % 2 == 0 {
            stage.say(hostile, Message::Block(hash, block.clone()));
            stage.net.chain_says(FromChain::Block(hostile, hash, block, Stored::Not, None), stage.now);
        } else {
            let block = Block { header, txdata: vec![coinbase.clone()] };
            let compact = Arc::new(CompactBlock::of(&block, 1, compact::Version::Two).unwrap());
            stage.say(hostile, Message::CmpctBlock(compact, compact::Version::Two));
            let answer = FromChain::Headers(hostile, vec![(hash, header)], Some(hash), None);
            stage.net.chain_says(answer, stage.now);
        }
        stage.actions();
    }
    assert!(stage.is_connected(hostile), "so many are forgiven");
    let (hash, header) = headers_on(&genesis(), 1, 21_000)[0];
    let block = Arc::new(Block { header, txdata: vec![] });
    stage.say(hostile, Message::Block(hash, block.clone()));
    stage.net.chain_says(FromChain::Block(hostile, hash, block, Stored::Not, None), stage.now);
    assert!(!stage.is_connected(hostile));
}

#[test]
fn weak_headers_count_beyond_the_connection_and_an_ipv6_network_is_one_address() {
    for addresses in [["8.8.8.8:1", "8.8.8.8:2"], ["[2001:db8::1]:1", "[2001:db8::ffff:2]:1"]] {
        let (mut stage, _) = stage_with(2_000);
        let before = stage.net.tree.len();
        for salt in 2..=40 {
            let address = addresses[salt as usize % 2].parse().unwrap();
            let id = stage.peer_at(address, u64::from(salt), Origin::Inbound);
            stage.give_headers(id, &headers_on(&genesis(), 1_999, salt));
            stage.net.closed(id, stage.now);
            stage.actions();
        }
        let kept = stage.net.tree.len() - before;
        assert!((18_000..=20_000).contains(&kept), "{kept}");
        let other = stage.peer_at("8.9.9.9:1".parse().unwrap(), 99, Origin::Inbound);
        stage.give_headers(other, &headers_on(&genesis(), 1_999, 99));
        assert!(stage.is_connected(other));
    }
}

#[test]
fn weak_headers_of_long_ago_are_forgotten() {
    let (mut stage, _) = stage_with(2_000);
    for salt in 2..=40 {
        let id = stage.peer_at("8.8.8.8:1".parse().unwrap(), u64::from(salt), Origin::Inbound);
        stage.give_headers(id, &headers_on(&genesis(), 1_999, salt));
        assert!(stage.is_connected(id));
        stage.net.closed(id, stage.now);
        stage.now += (24 * 60 * 60 + 1) * SECOND;
    }
}

/// The chain may be asked long after the peer sends them.
#[test]
fn weak_headers_count_before_the_chain_is_asked() {
    let (mut stage, _) = stage_with(2_000);
    let id = stage.peer(2, Origin::Inbound);
    let mut handed = 0;
    for salt in 2..=40 {
        stage.say(id, Message::Headers(headers_on(&genesis(), 1_999, salt)));
        let headers = |action: &Action| match action {
            Action::Ask(Question::Headers(_, headers)) => headers.len(),
            _ => 0,
        };
        handed += stage.actions().iter().map(headers).sum::<usize>();
    }
    assert!(!stage.is_connected(id));
    assert!(handed <= 20_000, "{handed}");
}

/// The chain keeps the headers below the refused one.
#[test]
fn weak_headers_count_below_a_refused_one_that_costs_nothing() {
    let (mut stage, _) = stage_with(2_000);
    let id = stage.peer(2, Origin::Inbound);
    let reason = "time-too-new".to_owned();
    let refusal = Refusal { code: 0x10, reason, points: 0, scope: Scope::ThisCopy };
    for salt in 2..=20 {
        let mut headers = headers_on(&genesis(), 1_999, salt);
        // It claims more work than the whole chain has.
        let last = headers.last_mut().unwrap();
        last.1.bits = bitcoin::CompactTarget::from_consensus(0x1d00_ffff);
        last.0 = last.1.block_hash();
        let (known, refused) = (headers[1_997].0, headers[1_998].0);
        let answer = FromChain::Headers(id, headers, Some(known), Some((refused, refusal.clone())));
        stage.net.chain_says(answer, stage.now);
    }
    assert!(!stage.is_connected(id));
}
