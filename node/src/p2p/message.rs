//! The protocol's messages as types, decoded from and encoded to payloads (`protocol.h`, `net_processing.cpp`).
//!
//! Lives here: [`Message`] with its bounded decoding and its encoding. Does not live here: framing (`frame.rs`),
//! handling of messages, compact block encoding (`compact.rs`). Blocks and transactions are decoded as Core 0.15
//! does (`iop_consensus::wire`) and hashed here, on the connection's task. Trailing bytes after the last field are
//! ignored, as in the reference.

use std::net::SocketAddr;
use std::sync::Arc;

use bitcoin::block::Header;
use bitcoin::consensus::encode::{Decodable, Encodable, serialize};
use bitcoin::hashes::Hash;
use bitcoin::{Block, BlockHash, Transaction, Txid};
use iop_consensus::wire::{read_block, read_transaction};

use super::addresses::ip::{Ip, NetAddress, TimedAddress};
use super::compact::{self, BlockTransactions, BlockTransactionsRequest, CompactBlock};
use super::frame::{Command, Frame};
use super::wire::{Malformed, Reader, put_address, put_count, put_text};

/// Maximum number of entries of inv, getdata and notfound (`MAX_INV_SZ`).
pub(crate) const MAX_INV: usize = 50_000;
/// Maximum number of headers in a message (`MAX_HEADERS_RESULTS`).
pub(crate) const MAX_HEADERS: usize = 2_000;
/// Maximum number of addresses in a message (`MAX_ADDR_TO_SEND`).
pub(crate) const MAX_ADDR: usize = 1_000;
/// Maximum number of hashes in a locator; an honest one has at most 42 (`MAX_LOCATOR_SZ` of later Core versions).
pub(crate) const MAX_LOCATOR: usize = 101;
/// Maximum length in bytes of a user agent (`MAX_SUBVERSION_LENGTH`).
const MAX_USER_AGENT: usize = 256;
/// Maximum length in bytes of a reject's reason (`MAX_REJECT_MESSAGE_LENGTH`).
pub(crate) const MAX_REASON: usize = 111;

/// The peer has the whole chain (`NODE_NETWORK`).
pub(crate) const NODE_NETWORK: u64 = 1;
/// The peer serves witnesses (`NODE_WITNESS`).
pub(crate) const NODE_WITNESS: u64 = 8;

/// `MSG_TX`.
pub(crate) const TX: u32 = 1;
/// `MSG_BLOCK`.
pub(crate) const BLOCK: u32 = 2;
/// `MSG_CMPCT_BLOCK`.
pub(crate) const COMPACT_BLOCK: u32 = 4;
/// `MSG_WITNESS_FLAG`.
pub(crate) const WITNESS: u32 = 1 << 30;

/// An inventory entry: a block or transaction by its hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Inv {
    /// Its type: one of the constants above.
    pub(crate) kind: u32,
    /// Its hash as bytes.
    pub(crate) hash: [u8; 32],
}

impl Inv {
    pub(crate) fn block(kind: u32, hash: &BlockHash) -> Self {
        Self { kind, hash: hash.to_byte_array() }
    }

    pub(crate) fn tx(kind: u32, txid: &Txid) -> Self {
        Self { kind, hash: txid.to_byte_array() }
    }

    pub(crate) fn block_hash(&self) -> BlockHash {
        BlockHash::from_byte_array(self.hash)
    }

    pub(crate) fn txid(&self) -> Txid {
        Txid::from_byte_array(self.hash)
    }
}

/// The first message of each side: `version`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Version {
    pub(crate) version: i32,
    pub(crate) services: u64,
    /// The sender's clock, seconds since 1970.
    pub(crate) time: i64,
    /// Our address as the sender sees it.
    pub(crate) receiver: SocketAddr,
    /// A random number to detect connections to oneself.
    pub(crate) nonce: u64,
    pub(crate) user_agent: String,
    pub(crate) height: i32,
    /// Whether the sender wants transactions relayed.
    pub(crate) relay: bool,
}

/// Why something was refused (BIP61).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reject {
    /// The name of the refused message.
    pub(crate) message: String,
    pub(crate) code: u8,
    pub(crate) reason: String,
    /// The hash of the refused block or transaction.
    pub(crate) hash: Option<[u8; 32]>,
}

/// A block locator: hashes, newest first, from which the fork with our chain is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Locator {
    pub(crate) hashes: Vec<BlockHash>,
    /// The hash to stop at; zeros for as many as possible.
    pub(crate) stop: BlockHash,
}

/// A message.
#[derive(Debug, Clone)]
pub(crate) enum Message {
    Version(Box<Version>),
    Verack,
    Ping(u64),
    /// A ping without nonce, of old versions; needs no answer.
    OldPing,
    /// `None` if it is too short.
    Pong(Option<u64>),
    Addr(Vec<TimedAddress>),
    GetAddr,
    Inv(Vec<Inv>),
    GetData(Vec<Inv>),
    NotFound(Vec<Inv>),
    GetBlocks(Locator),
    GetHeaders(Locator),
    /// Each header with its hash.
    Headers(Vec<(BlockHash, Header)>),
    Block(BlockHash, Arc<Block>),
    /// A block's stored bytes; for sending only.
    RawBlock(Arc<Vec<u8>>),
    Tx(Txid, Arc<Transaction>),
    /// A transaction without its witness; for sending only.
    StrippedTx(Arc<Transaction>),
    Mempool,
    SendHeaders,
    SendCmpct {
        announce: bool,
        version: u64,
    },
    /// Base units per 1,000 virtual bytes.
    FeeFilter(i64),
    Reject(Reject),
    /// The version selects the encoding; decoding is the same for both.
    CmpctBlock(Arc<CompactBlock>, compact::Version),
    GetBlockTxn(BlockTransactionsRequest),
    BlockTxn(BlockTransactions, compact::Version),
    /// Bloom filter messages, which are not supported.
    Filter,
    /// Any other message.
    Unknown,
}

impl Message {
    /// The message's command name.
    pub(crate) fn command(&self) -> Command {
        Command::new(match self {
            Self::Version(_) => "version",
            Self::Verack => "verack",
            Self::Ping(_) | Self::OldPing => "ping",
            Self::Pong(_) => "pong",
            Self::Addr(_) => "addr",
            Self::GetAddr => "getaddr",
            Self::Inv(_) => "inv",
            Self::GetData(_) => "getdata",
            Self::NotFound(_) => "notfound",
            Self::GetBlocks(_) => "getblocks",
            Self::GetHeaders(_) => "getheaders",
            Self::Headers(_) => "headers",
            Self::Block(..) | Self::RawBlock(_) => "block",
            Self::Tx(..) | Self::StrippedTx(_) => "tx",
            Self::Mempool => "mempool",
            Self::SendHeaders => "sendheaders",
            Self::SendCmpct { .. } => "sendcmpct",
            Self::FeeFilter(_) => "feefilter",
            Self::Reject(_) => "reject",
            Self::CmpctBlock(..) => "cmpctblock",
            Self::GetBlockTxn(_) => "getblocktxn",
            Self::BlockTxn(..) => "blocktxn",
            Self::Filter => "filterload",
            Self::Unknown => "unknown",
        })
    }

    /// Decodes a payload.
    ///
    /// # Errors
    /// [`Malformed`].
    pub(crate) fn decode(frame: &Frame) -> Result<Self, Malformed> {
        let mut reader = Reader(&frame.payload);
        let reader = &mut reader;
        Ok(match frame.command.as_str() {
            "version" => Self::Version(Box::new(read_version(reader)?)),
            "verack" => Self::Verack,
            "ping" if reader.is_empty() => Self::OldPing,
            "ping" => Self::Ping(reader.u64()?),
            "pong" => Self::Pong(reader.u64().ok()),
            "addr" => Self::Addr(reader.list("addresses", MAX_ADDR, 30, read_net_address)?),
            "getaddr" => Self::GetAddr,
            "inv" => Self::Inv(reader.list("entries", MAX_INV, 36, read_inv)?),
            "getdata" => Self::GetData(reader.list("entries", MAX_INV, 36, read_inv)?),
            "notfound" => Self::NotFound(reader.list("entries", MAX_INV, 36, read_inv)?),
            "getblocks" => Self::GetBlocks(read_locator(reader)?),
            "getheaders" => Self::GetHeaders(read_locator(reader)?),
            "headers" => Self::Headers(reader.list("headers", MAX_HEADERS, 81, read_header)?),
            "block" => {
                let block = read_block(&mut reader.0).map_err(part)?;
                Self::Block(block.block_hash(), Arc::new(block))
            }
            "tx" => {
                let tx = read_transaction(&mut reader.0).map_err(part)?;
                Self::Tx(tx.compute_txid(), Arc::new(tx))
            }
            "mempool" => Self::Mempool,
            "sendheaders" => Self::SendHeaders,
            "sendcmpct" => Self::SendCmpct { announce: reader.u8()? != 0, version: reader.u64()? },
            "feefilter" => Self::FeeFilter(reader.u64()?.cast_signed()),
            "reject" => Self::Reject(read_reject(reader)?),
            "cmpctblock" => {
                let compact = CompactBlock::decode(&mut reader.0).map_err(part)?;
                Self::CmpctBlock(Arc::new(compact), compact::Version::Two)
            }
            "getblocktxn" => {
                Self::GetBlockTxn(BlockTransactionsRequest::decode(&mut reader.0).map_err(part)?)
            }
            "blocktxn" => {
                let transactions = BlockTransactions::decode(&mut reader.0).map_err(part)?;
                Self::BlockTxn(transactions, compact::Version::Two)
            }
            "filterload" | "filteradd" => Self::Filter,
            _ => Self::Unknown,
        })
    }

    /// Encodes the payload.
    pub(crate) fn payload(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        match self {
            Self::Version(version) => put_version(&mut bytes, version),
            Self::Ping(nonce) | Self::Pong(Some(nonce)) => bytes.extend_from_slice(&nonce.to_le_bytes()),
            Self::Addr(addresses) => {
                put_count(&mut bytes, addresses.len());
                addresses.iter().for_each(|address| put_net_address(&mut bytes, address));
            }
            Self::Inv(list) | Self::GetData(list) | Self::NotFound(list) => {
                put_count(&mut bytes, list.len());
                for inv in list {
                    bytes.extend_from_slice(&inv.kind.to_le_bytes());
                    bytes.extend_from_slice(&inv.hash);
                }
            }
            Self::GetBlocks(locator) | Self::GetHeaders(locator) => {
                bytes.extend_from_slice(&super::handle::PROTOCOL_VERSION.to_le_bytes());
                put_count(&mut bytes, locator.hashes.len());
                locator.hashes.iter().for_each(|hash| bytes.extend_from_slice(hash.as_ref()));
                bytes.extend_from_slice(locator.stop.as_ref());
            }
            Self::Headers(headers) => {
                put_count(&mut bytes, headers.len());
                for (_, header) in headers {
                    put(&mut bytes, header);
                    bytes.push(0);
                }
            }
            Self::Block(_, block) => put(&mut bytes, &**block),
            Self::RawBlock(raw) => bytes.extend_from_slice(raw),
            Self::Tx(_, tx) => put(&mut bytes, &**tx),
            Self::StrippedTx(tx) => put_stripped_tx(&mut bytes, tx),
            Self::SendCmpct { announce, version } => {
                bytes.push(u8::from(*announce));
                bytes.extend_from_slice(&version.to_le_bytes());
            }
            Self::FeeFilter(rate) => bytes.extend_from_slice(&rate.to_le_bytes()),
            Self::Reject(reject) => {
                put_text(&mut bytes, &reject.message);
                bytes.push(reject.code);
                put_text(&mut bytes, &reject.reason);
                bytes.extend_from_slice(reject.hash.as_ref().map_or(&[][..], |hash| &hash[..]));
            }
            Self::CmpctBlock(compact, version) => bytes = compact.encode(*version),
            Self::GetBlockTxn(request) => bytes = request.encode(),
            Self::BlockTxn(transactions, version) => bytes = transactions.encode(*version),
            Self::Verack | Self::OldPing | Self::Pong(None) | Self::GetAddr | Self::Mempool => {}
            Self::SendHeaders | Self::Filter | Self::Unknown => {}
        }
        bytes
    }
}

fn part(error: impl std::fmt::Display) -> Malformed {
    Malformed::Part(error.to_string())
}

fn put(bytes: &mut Vec<u8>, part: &impl Encodable) {
    part.consensus_encode(bytes).expect("a vector takes every byte");
}

/// A transaction in the format before segwit (`SERIALIZE_TRANSACTION_NO_WITNESS`).
fn put_stripped_tx(bytes: &mut Vec<u8>, tx: &Transaction) {
    put(bytes, &tx.version);
    put(bytes, &tx.input);
    put(bytes, &tx.output);
    put(bytes, &tx.lock_time);
}

/// A block's bytes without witnesses.
pub(crate) fn stripped_block(block: &Block) -> Vec<u8> {
    let mut bytes = serialize(&block.header);
    put_count(&mut bytes, block.txdata.len());
    block.txdata.iter().for_each(|tx| put_stripped_tx(&mut bytes, tx));
    bytes
}

fn read_version(reader: &mut Reader<'_>) -> Result<Version, Malformed> {
    let version = reader.u32()?.cast_signed();
    let services = reader.u64()?;
    let time = reader.u64()?.cast_signed();
    reader.u64()?;
    let receiver = reader.address()?;
    let mut read = Version {
        version,
        services,
        time,
        receiver,
        nonce: 1,
        user_agent: String::new(),
        height: -1,
        relay: true,
    };
    // Old versions send a shorter message.
    if !reader.is_empty() {
        reader.bytes(26)?;
        read.nonce = reader.u64()?;
    }
    if !reader.is_empty() {
        read.user_agent = reader.text("bytes of user agent", MAX_USER_AGENT)?;
    }
    if !reader.is_empty() {
        read.height = reader.u32()?.cast_signed();
    }
    if !reader.is_empty() {
        read.relay = reader.u8()? != 0;
    }
    Ok(read)
}

fn put_version(bytes: &mut Vec<u8>, version: &Version) {
    let nowhere = SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 0], 0));
    bytes.extend_from_slice(&version.version.to_le_bytes());
    bytes.extend_from_slice(&version.services.to_le_bytes());
    bytes.extend_from_slice(&version.time.to_le_bytes());
    bytes.extend_from_slice(&0u64.to_le_bytes());
    put_address(bytes, &version.receiver);
    bytes.extend_from_slice(&version.services.to_le_bytes());
    put_address(bytes, &nowhere);
    bytes.extend_from_slice(&version.nonce.to_le_bytes());
    put_text(bytes, &version.user_agent);
    bytes.extend_from_slice(&version.height.to_le_bytes());
    bytes.push(u8::from(version.relay));
}

fn read_net_address(reader: &mut Reader<'_>) -> Result<TimedAddress, Malformed> {
    let (time, services) = (u64::from(reader.u32()?), reader.u64()?);
    let address = NetAddress { ip: Ip(reader.array()?), port: u16::from_be_bytes(reader.array()?) };
    Ok(TimedAddress { address, services, time })
}

fn put_net_address(bytes: &mut Vec<u8>, heard: &TimedAddress) {
    bytes.extend_from_slice(&(heard.time as u32).to_le_bytes());
    bytes.extend_from_slice(&heard.services.to_le_bytes());
    bytes.extend_from_slice(&heard.address.ip.0);
    bytes.extend_from_slice(&heard.address.port.to_be_bytes());
}

fn read_inv(reader: &mut Reader<'_>) -> Result<Inv, Malformed> {
    Ok(Inv { kind: reader.u32()?, hash: reader.array()? })
}

fn read_hash(reader: &mut Reader<'_>) -> Result<BlockHash, Malformed> {
    reader.array().map(BlockHash::from_byte_array)
}

fn read_locator(reader: &mut Reader<'_>) -> Result<Locator, Malformed> {
    reader.u32()?;
    let hashes = reader.list("locator hashes", MAX_LOCATOR, 32, read_hash)?;
    Ok(Locator { hashes, stop: read_hash(reader)? })
}

fn read_header(reader: &mut Reader<'_>) -> Result<(BlockHash, Header), Malformed> {
    let header = Header::consensus_decode(&mut reader.0).map_err(part)?;
    // The transaction count, which is always 0; its value is ignored.
    reader.count()?;
    Ok((header.block_hash(), header))
}

fn read_reject(reader: &mut Reader<'_>) -> Result<Reject, Malformed> {
    let message = reader.text("bytes of message", 12)?;
    let code = reader.u8()?;
    let reason = reader.text("bytes of reason", MAX_REASON)?;
    Ok(Reject { message, code, reason, hash: reader.array().ok() })
}

#[cfg(test)]
mod oracle;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use bitcoin::p2p::message::{NetworkMessage, RawNetworkMessage};
    use bitcoin::p2p::{Magic, ServiceFlags};
    use iop_consensus::params::Params;

    /// A message encoded by the `bitcoin` crate, without the frame header.
    fn theirs(message: NetworkMessage) -> Vec<u8> {
        serialize(&RawNetworkMessage::new(Magic::BITCOIN, message)).split_off(24)
    }

    fn read(command: &str, payload: Vec<u8>) -> Result<Message, Malformed> {
        Message::decode(&Frame { command: Command::new(command), payload })
    }

    #[test]
    fn a_version_message_is_that_of_the_bitcoin_crate() {
        let receiver: SocketAddr = "1.2.3.4:4877".parse().unwrap();
        let version = Version {
            version: 70_015,
            services: 9,
            time: 1_700_000_000,
            receiver,
            nonce: 7,
            user_agent: "/iop-node:0.1.0/".to_owned(),
            height: 3,
            relay: true,
        };
        let address = bitcoin::p2p::Address::new(&receiver, ServiceFlags::NONE);
        let nowhere = SocketAddr::from(([0u16; 8], 0));
        let expected = bitcoin::p2p::message_network::VersionMessage {
            version: 70_015,
            services: ServiceFlags::from(9),
            timestamp: 1_700_000_000,
            receiver: address,
            sender: bitcoin::p2p::Address::new(&nowhere, ServiceFlags::from(9)),
            nonce: 7,
            user_agent: version.user_agent.clone(),
            start_height: 3,
            relay: true,
        };
        let payload = Message::Version(Box::new(version.clone())).payload();
        assert_eq!(payload, theirs(NetworkMessage::Version(expected)));
        let Message::Version(read_back) = read("version", payload.clone()).unwrap() else { panic!() };
        assert_eq!(*read_back, version);
        // Everything up to the receiver's address is required; the rest is optional.
        let Message::Version(short) = read("version", payload[..46].to_vec()).unwrap() else { panic!() };
        assert_eq!((short.height, short.relay), (-1, true));
        assert!(read("version", payload[..45].to_vec()).is_err());
    }

    #[test]
    fn headers_and_inventories_are_those_of_the_bitcoin_crate() {
        let header = Params::main().genesis.block().header;
        let ours = Message::Headers(vec![(header.block_hash(), header); 3]).payload();
        assert_eq!(ours, theirs(NetworkMessage::Headers(vec![header; 3])));
        let txid = Txid::from_byte_array([7; 32]);
        let ours = Message::Inv(vec![Inv::tx(TX, &txid)]).payload();
        let inv = bitcoin::p2p::message_blockdata::Inventory::Transaction(txid);
        assert_eq!(ours, theirs(NetworkMessage::Inv(vec![inv])));
    }

    #[test]
    fn limits_of_the_reference_hold() {
        let many = |count: usize, size: usize| {
            let mut bytes = Vec::new();
            put_count(&mut bytes, count);
            bytes.resize(bytes.len() + count * size, 0);
            bytes
        };
        assert!(read("inv", many(MAX_INV, 36)).is_ok());
        assert!(matches!(read("inv", many(MAX_INV + 1, 36)), Err(Malformed::TooMany { .. })));
        assert!(read("headers", many(MAX_HEADERS, 81)).is_ok());
        assert!(matches!(read("headers", many(MAX_HEADERS + 1, 81)), Err(Malformed::TooMany { .. })));
        assert!(matches!(read("addr", many(MAX_ADDR + 1, 30)), Err(Malformed::TooMany { .. })));
        // A huge count with a short body.
        assert_eq!(read("getdata", vec![0xfd, 0x50, 0xc3, 1, 2, 3]).unwrap_err(), Malformed::TooShort);
    }

    #[test]
    fn without_its_witness_a_transaction_keeps_its_id() {
        let mut block = Params::regtest().genesis.block();
        block.txdata[0].input[0].witness = bitcoin::Witness::from_slice(&[[9u8; 32]]);
        let stripped = Message::StrippedTx(Arc::new(block.txdata[0].clone())).payload();
        let Message::Tx(txid, tx) = read("tx", stripped).unwrap() else { panic!() };
        assert_eq!(txid, block.txdata[0].compute_txid());
        assert!(tx.input[0].witness.is_empty());
        assert_eq!(stripped_block(&block), serialize(&Params::regtest().genesis.block()));
    }
}
