//! Headers, blocks and transactions that are invalid, weak, withheld or unrequested.

use super::*;

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

/// Blocks with the header of a good one and other content: the good one must still be accepted.
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

/// The merkle tree does not distinguish a node from a transaction of 64 bytes: such a copy has the block's root but
/// other content, and the block must not be blamed for it.
#[test]
fn two_ids_that_read_as_one_transaction_do_not_spoil_the_block_that_they_are_of() {
    let mut stage = Stage::new();
    let mut spend = blocks::spend(stage.spendable(), REWARD);
    let id = |tx: &Transaction| tx.compute_txid().to_byte_array();
    let found = (0..u32::MAX).find(|number| {
        spend.lock_time = absolute::LockTime::from_consensus(*number);
        // A script of 13 bytes, and no outputs.
        (id(&spend)[9], id(&spend)[27]) == (13, 0)
    });
    assert!(found.is_some());
    let block = loop {
        stage.salt += 1;
        let block = blocks::on(stage.tip(), stage.salt, vec![spend.clone()]);
        // One input.
        if id(&block.txdata[0])[4] == 1 {
            break block;
        }
    };
    let ids = [id(&block.txdata[0]), id(&spend)].concat();
    let copy = Block { header: block.header, txdata: vec![deserialize(&ids).unwrap()] };
    assert!(copy.check_merkle_root());
    let mut peer = stage.peer();
    announce(&mut peer, &block.header);
    give_when_asked(&mut peer, &copy);
    stage.is_dropped(&mut peer, "two ids as a transaction");
    announce(&mut stage.honest, &block.header);
    give_when_asked(&mut stage.honest, &block);
    stage.wait_for_tip(&block);
    stage.check("ids as a transaction", QUIET);
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
    // Its children are useless.
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
    // Another block, from another peer, is not delayed at all.
    stage.honest_block_arrives();
    // Nor is the same block delayed for long.
    let kept_back = stage.next_block();
    announce(&mut staller, &kept_back.header);
    wait_until_asked(&mut staller, kept_back.block_hash());
    announce(&mut stage.honest, &kept_back.header);
    give_when_asked(&mut stage.honest, &kept_back);
    stage.wait_for_tip(&kept_back);
    // A long chain of headers without blocks delays nothing either.
    let headers = blocks::headers_on(stage.tip(), 7, 2_000);
    staller.send(NetworkMessage::Headers(headers)).unwrap();
    assert!(staller.answers_ping());
    stage.check("stalling", QUIET);
}
