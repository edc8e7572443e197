//! Bytes, lengths, counts and floods of messages.

use super::*;

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
            // The peer may be dropped at once or stay; both are fine.
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
