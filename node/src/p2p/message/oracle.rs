//! Messages compared with the `bitcoin` crate's own codec, and arbitrary bytes.

#![allow(clippy::unwrap_used)]

use bitcoin::p2p::message::{NetworkMessage, RawNetworkMessage};
use bitcoin::p2p::message_blockdata::{GetBlocksMessage, GetHeadersMessage, Inventory};
use bitcoin::p2p::message_compact_blocks::SendCmpct;
use bitcoin::p2p::message_network::{Reject, RejectReason, VersionMessage};
use bitcoin::p2p::{Address, Magic, ServiceFlags};
use iop_consensus::params::Params;
use proptest::prelude::*;

use super::super::frame::{Decoded, Decoder};
use super::super::fuzzing::COMMANDS;
use super::*;

const MAGIC: [u8; 4] = [0x35, 0xb2, 0xcc, 0x9e];
/// Commands that are not decoded, besides those in the fuzzer's list.
const OTHERS: [&str; 5] = ["filteradd", "filterclear", "merkleblock", "alert", "wtxidrelay"];

fn frame(bytes: &[u8]) -> Frame {
    let (mut decoder, mut rest) = (Decoder::new(MAGIC), bytes);
    match decoder.feed(&mut rest) {
        Ok(Some(Decoded::Frame(frame))) if rest.is_empty() => frame,
        other => panic!("{other:?}"),
    }
}

fn address() -> impl Strategy<Value = Address> {
    let services = any::<u64>().prop_map(ServiceFlags::from);
    (services, any::<[u16; 8]>(), any::<u16>()).prop_map(|(services, address, port)| Address {
        services,
        address,
        port,
    })
}

fn hash() -> impl Strategy<Value = BlockHash> {
    any::<[u8; 32]>().prop_map(BlockHash::from_byte_array)
}

fn inventory() -> impl Strategy<Value = Inventory> {
    (0..5u8, any::<[u8; 32]>()).prop_map(|(kind, hash)| {
        let (block, tx) = (BlockHash::from_byte_array(hash), Txid::from_byte_array(hash));
        match kind {
            0 => Inventory::Block(block),
            1 => Inventory::WitnessBlock(block),
            2 => Inventory::CompactBlock(block),
            3 => Inventory::Transaction(tx),
            _ => Inventory::WitnessTransaction(tx),
        }
    })
}

fn header() -> impl Strategy<Value = Header> {
    (hash(), any::<[u8; 32]>(), any::<[u32; 3]>(), any::<i32>()).prop_map(
        |(parent, root, [time, bits, nonce], version)| Header {
            version: bitcoin::block::Version::from_consensus(version),
            prev_blockhash: parent,
            merkle_root: bitcoin::TxMerkleNode::from_byte_array(root),
            time,
            bits: bitcoin::CompactTarget::from_consensus(bits),
            nonce,
        },
    )
}

fn version() -> impl Strategy<Value = VersionMessage> {
    let numbers = (any::<u32>(), any::<u64>(), any::<i64>(), any::<u64>(), any::<i32>());
    (numbers, address(), "[ -~]{0,60}", any::<bool>()).prop_map(
        |((version, services, time, nonce, height), to, agent, relay)| {
            // Our version messages do not include our own address.
            let nowhere = Address { services: ServiceFlags::from(services), address: [0; 8], port: 0 };
            let to = Address { services: ServiceFlags::NONE, ..to };
            VersionMessage {
                version,
                relay,
                ..VersionMessage::new(ServiceFlags::from(services), time, to, nowhere, nonce, agent, height)
            }
        },
    )
}

fn list<T: std::fmt::Debug>(of: impl Strategy<Value = T>) -> impl Strategy<Value = Vec<T>> {
    prop::collection::vec(of, 0..300)
}

/// A valid locator and stop hash.
fn locator() -> impl Strategy<Value = (Vec<BlockHash>, BlockHash)> {
    (prop::collection::vec(hash(), 0..=MAX_LOCATOR), hash())
}

fn messages() -> impl Strategy<Value = NetworkMessage> {
    let genesis = Params::regtest().genesis.block();
    let reject = (any::<u8>(), "[ -~]{0,50}", any::<[u8; 32]>()).prop_map(|(code, reason, hash)| Reject {
        message: "block".into(),
        ccode: if code % 2 == 0 { RejectReason::Invalid } else { RejectReason::Duplicate },
        reason: reason.into(),
        hash: bitcoin::hashes::sha256d::Hash::from_byte_array(hash),
    });
    prop_oneof![
        version().prop_map(NetworkMessage::Version),
        prop::sample::select(vec![
            NetworkMessage::Verack,
            NetworkMessage::GetAddr,
            NetworkMessage::MemPool,
            NetworkMessage::SendHeaders,
            NetworkMessage::Block(genesis.clone()),
            NetworkMessage::Tx(genesis.txdata[0].clone()),
        ]),
        any::<u64>().prop_map(NetworkMessage::Ping),
        any::<u64>().prop_map(NetworkMessage::Pong),
        any::<i64>().prop_map(NetworkMessage::FeeFilter),
        (any::<bool>(), any::<u64>()).prop_map(|(send_compact, version)| NetworkMessage::SendCmpct(
            SendCmpct { send_compact, version }
        )),
        list((any::<u32>(), address())).prop_map(NetworkMessage::Addr),
        list(inventory()).prop_map(NetworkMessage::Inv),
        list(inventory()).prop_map(NetworkMessage::GetData),
        list(inventory()).prop_map(NetworkMessage::NotFound),
        list(header()).prop_map(NetworkMessage::Headers),
        locator().prop_map(|(locator, stop)| {
            NetworkMessage::GetHeaders(GetHeadersMessage {
                version: 70_015,
                locator_hashes: locator,
                stop_hash: stop,
            })
        }),
        locator().prop_map(|(locator, stop)| {
            NetworkMessage::GetBlocks(GetBlocksMessage {
                version: 70_015,
                locator_hashes: locator,
                stop_hash: stop,
            })
        }),
        reject.prop_map(NetworkMessage::Reject),
    ]
}

proptest! {
    #[test]
    fn what_the_crate_writes_reads_here_and_is_written_the_same(message in messages()) {
        let theirs = serialize(&RawNetworkMessage::new(Magic::from_bytes(MAGIC), message));
        let frame = frame(&theirs);
        let ours = Message::decode(&frame).unwrap();
        prop_assert_eq!(ours.command(), frame.command);
        prop_assert_eq!(super::super::frame::encode(MAGIC, ours.command(), &ours.payload()), theirs);
    }

    /// A truncated or altered payload is refused or decoded; what was decoded can be encoded.
    #[test]
    fn damaged_payloads_never_panic(
        message in messages(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut frame = frame(&serialize(&RawNetworkMessage::new(Magic::from_bytes(MAGIC), message)));
        if !frame.payload.is_empty() {
            for (at, byte) in changes {
                let at = at.index(frame.payload.len());
                frame.payload[at] = byte;
            }
            frame.payload.truncate(cut.index(frame.payload.len()) + 1);
        }
        if let Ok(message) = Message::decode(&frame) {
            let _ = message.payload();
        }
    }

    #[test]
    fn any_bytes_as_any_message_never_panic(
        command in prop::sample::select([&COMMANDS[..], &OTHERS].concat()),
        payload in prop::collection::vec(any::<u8>(), 0..500),
    ) {
        if let Ok(message) = Message::decode(&Frame { command: Command::new(command), payload }) {
            let _ = message.payload();
        }
    }

    /// Arbitrary bytes after a valid magic, in pieces of any size.
    #[test]
    fn any_bytes_are_frames_or_an_error(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        size in 1..40usize,
        length in 0..40u32,
    ) {
        let mut decoder = Decoder::new(MAGIC);
        let mut stream = [&MAGIC[..], b"inv\0\0\0\0\0\0\0\0\0", &length.to_le_bytes(), &bytes].concat();
        stream.extend_from_slice(&MAGIC);
        'stream: for mut piece in stream.chunks(size) {
            while !piece.is_empty() {
                if decoder.feed(&mut piece).is_err() {
                    break 'stream;
                }
            }
        }
    }
}
