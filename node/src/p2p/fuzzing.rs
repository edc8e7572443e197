//! Fuzz targets for messages from peers and for the address file.

use super::addresses::file;
use super::compact::{CompactBlock, Reconstruction, Version, reconstruct};
use super::frame::{Command, Decoded, Decoder, Frame, FrameError, encode};
use super::message::Message;

/// The commands that the first byte of the input selects.
pub(super) const COMMANDS: [&str; 24] = [
    "version",
    "verack",
    "ping",
    "pong",
    "addr",
    "getaddr",
    "inv",
    "getdata",
    "notfound",
    "getblocks",
    "getheaders",
    "headers",
    "block",
    "tx",
    "mempool",
    "sendheaders",
    "sendcmpct",
    "feefilter",
    "reject",
    "cmpctblock",
    "getblocktxn",
    "blocktxn",
    "filterload",
    "nonsense",
];
const MAGIC: [u8; 4] = [0x35, 0xb2, 0xcc, 0x9e];
const SEED: [u8; 32] = [7; 32];

/// See [`crate::fuzzing::frame`]. However the bytes are split, the same messages must come out.
pub(crate) fn frame(data: &[u8]) {
    let whole = frames(data, data.len().max(1));
    assert_eq!(whole, frames(data, 1));
    assert_eq!(whole, frames(data, 7));
    for message in whole.0.into_iter().filter_map(|decoded| match decoded {
        Decoded::Frame(frame) => Some(frame),
        Decoded::Damaged(_) => None,
    }) {
        let bytes = encode(MAGIC, message.command, &message.payload);
        assert_eq!(frames(&bytes, bytes.len()).0, [Decoded::Frame(message.clone())]);
        let _ = Message::decode(&message);
    }
}

fn frames(data: &[u8], step: usize) -> (Vec<Decoded>, Option<FrameError>) {
    let (mut decoder, mut found) = (Decoder::new(MAGIC), Vec::new());
    for mut bytes in data.chunks(step) {
        loop {
            match decoder.feed(&mut bytes) {
                Ok(Some(decoded)) => found.push(decoded),
                Ok(None) => break,
                // A magic error may contain fewer bytes when the input arrives in pieces.
                Err(FrameError::Magic(_)) => return (found, Some(FrameError::Magic([0; 4]))),
                Err(error) => return (found, Some(error)),
            }
        }
    }
    (found, None)
}

/// See [`crate::fuzzing::message`]. A decoded message must survive encoding and decoding unchanged.
pub(crate) fn message(data: &[u8]) {
    let Some((&choice, payload)) = data.split_first() else { return };
    let command = Command::new(COMMANDS[usize::from(choice) % COMMANDS.len()]);
    let Ok(read) = Message::decode(&Frame { command, payload: payload.to_vec() }) else { return };
    let written = read.payload();
    let again = Message::decode(&Frame { command: read.command(), payload: written.clone() });
    match again {
        Ok(again) => assert_eq!(again.payload(), written),
        // A transaction without inputs is encoded in a form that cannot be decoded, and text that is not UTF-8 gets
        // longer.
        Err(_) => {
            let may_grow = ["block", "tx", "cmpctblock", "blocktxn", "version", "reject"];
            assert!(may_grow.contains(&command.as_str()), "{}", command.as_str());
        }
    }
}

/// See [`crate::fuzzing::compact_block`].
pub(crate) fn compact_block(data: &[u8]) {
    let Ok(message) = CompactBlock::decode(&mut &data[..]) else { return };
    let count = message.transactions();
    match reconstruct(message, [], []) {
        Reconstruction::Block(block) => assert!(block.check_merkle_root()),
        Reconstruction::Missing(partial) => {
            assert!(partial.missing() > 0 && partial.missing() <= count);
            assert_eq!(partial.request().indexes.len(), partial.missing());
            assert!(!matches!(partial.fill(Vec::new()), Reconstruction::Block(_)));
        }
        Reconstruction::Invalid(_) | Reconstruction::Failed(_) => {}
    }
}

/// See [`crate::fuzzing::peers_file`]. The checksum is corrected, so that the rest is reached.
pub(crate) fn peers_file(data: &[u8]) {
    use bitcoin::hashes::{Hash, sha256d};
    let checksum = sha256d::Hash::hash(data).to_byte_array();
    for bytes in [data.to_vec(), [data, &checksum].concat()] {
        if let Ok(table) = file::decode(&bytes, MAGIC, SEED) {
            let written = file::encode(&table, MAGIC);
            let again = file::decode(&written, MAGIC, SEED).expect("what was written can be read");
            assert_eq!(file::encode(&again, MAGIC), written);
        }
    }
}

/// Seed inputs for these targets.
pub(crate) fn seeds(target: &str) -> Vec<(&'static str, Vec<u8>)> {
    match target {
        "frame" => {
            let ping = encode(MAGIC, Command::new("ping"), &7u64.to_le_bytes());
            let two = [&ping[..], &encode(MAGIC, Command::new("verack"), &[])].concat();
            let mut damaged = ping.clone();
            damaged[20] ^= 1;
            let mut long = ping.clone();
            long[16..20].copy_from_slice(&4_000_001u32.to_le_bytes());
            vec![("ping", ping), ("two", two), ("damaged", damaged), ("long", long)]
        }
        "message" => messages(),
        "compact_block" => {
            let block = iop_consensus::params::Params::regtest().genesis.block();
            let compact = CompactBlock::of(&block, 3, Version::Two).expect("genesis has a coinbase");
            let whole = compact.encode(Version::Two);
            let more = CompactBlock { short_ids: vec![1, 2, 3], ..compact }.encode(Version::Two);
            vec![("genesis", whole), ("gaps", more)]
        }
        "peers_file" => {
            let table = super::addresses::table::AddressTable::new(SEED);
            let bytes = file::encode(&table, MAGIC);
            vec![("empty", bytes[..bytes.len() - 32].to_vec())]
        }
        _ => Vec::new(),
    }
}

/// One message of each kind, and some whose counts exceed their bytes.
fn messages() -> Vec<(&'static str, Vec<u8>)> {
    let genesis = iop_consensus::params::Params::regtest().genesis.block();
    let block = bitcoin::consensus::serialize(&genesis);
    let tx = bitcoin::consensus::serialize(&genesis.txdata[0]);
    let version = [
        &70_015i32.to_le_bytes()[..],
        &[0; 8],
        &[1; 8],
        &[0; 26],
        &[0; 26],
        &[9; 8],
        b"\x05/iop/",
        &[0; 4],
        &[1],
    ]
    .concat();
    let locator = [&70_015u32.to_le_bytes()[..], &[1], &[5; 32], &[0; 32]].concat();
    let inv = [&[1, 1, 0, 0, 0][..], &[5; 32]].concat();
    let compact = CompactBlock::of(&genesis, 3, Version::Two).expect("genesis has a coinbase");
    let payload = |name: &str| match name {
        "version" => version.clone(),
        "ping" | "pong" | "feefilter" => vec![7; 8],
        "addr" => [&[1, 0, 0, 0, 0][..], &[1; 8], &[0; 10], &[0xff, 0xff, 1, 2, 3, 4, 0x13, 0x0d]].concat(),
        "inv" | "getdata" | "notfound" => inv.clone(),
        "getblocks" | "getheaders" => locator.clone(),
        "headers" => [&[1], &block[..80], &[0]].concat(),
        "block" => block.clone(),
        "tx" => tx.clone(),
        "sendcmpct" => vec![1, 2, 0, 0, 0, 0, 0, 0, 0],
        "reject" => [b"\x02tx\x10\x03bad".as_slice(), &[5; 32]].concat(),
        "cmpctblock" => compact.encode(Version::Two),
        "getblocktxn" => [&[5; 32][..], &[2, 0, 1]].concat(),
        "blocktxn" => [&[5; 32][..], &[1], &tx].concat(),
        _ => Vec::new(),
    };
    let one = |(choice, name): (u8, &&'static str)| (*name, [vec![choice], payload(name)].concat());
    let mut all: Vec<_> = (0u8..).zip(&COMMANDS).map(one).collect();
    let huge = [0xfe, 0xff, 0xff, 0xff, 0x7f];
    all.push(("huge_inv", [&[6], &huge[..]].concat()));
    all.push(("huge_headers", [&[11], &huge[..]].concat()));
    all
}
