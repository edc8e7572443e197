//! Compact blocks (BIP152; `blockencodings.cpp`): a block as its header and six bytes for each transaction.
//!
//! Lives here: the four payloads with their limits, and block reconstruction. Does not live here: who may send
//! which message, and whether a block is valid. Data goes: bytes -> [`CompactBlock`] -> [`reconstruct`] with the
//! mempool's transactions -> a block, or a [`PartialBlock`] whose [`request`](PartialBlock::request) is sent ->
//! [`BlockTransactions`] -> [`PartialBlock::fill`] -> a block.
//!
//! Sizes: a message of 4,000,000 bytes decodes to at most 65,536 short ids (0.5 MB) and 65,536 prefilled
//! transactions; a transaction takes at most 8 times its bytes in memory.

use std::collections::{HashMap, VecDeque};
use std::ops::ControlFlow;
use std::sync::Arc;

use bitcoin::bip152::ShortId;
use bitcoin::block::Header;
use bitcoin::consensus::encode::{Decodable, Encodable, Error};
use bitcoin::hashes::{Hash, siphash24};
use bitcoin::{Block, BlockHash, Transaction, VarInt, Wtxid};
use iop_consensus::merkle;
use iop_consensus::wire::read_transaction;

use super::memory;

#[cfg(test)]
mod tests;

/// Maximum number of transactions of a compact block: indexes have 16 bits. No valid block has as many, since a
/// transaction has at least 60 bytes (`MIN_TRANSACTION_WEIGHT`). The reference allows 100,000 here and misreads
/// those beyond 16 bits.
pub const MAX_TRANSACTIONS: usize = 65_536;
/// Bytes of a short id on the wire (`SHORTTXIDS_LENGTH`).
const SHORT_ID_BYTES: usize = 6;
/// Minimum bytes of a transaction on the wire: version, two empty lists, lock time
/// (`MIN_SERIALIZABLE_TRANSACTION_WEIGHT` / 4).
const MIN_TRANSACTION_BYTES: usize = 10;
/// Transactions outside the mempool that are kept for reconstruction (`DEFAULT_BLOCK_RECONSTRUCTION_EXTRA_TXN`).
const EXTRA_TRANSACTIONS: usize = 100;
/// Maximum memory of one of them in bytes, so that all take at most 10 MB (also the reference's bound).
const MAX_EXTRA_MEMORY: usize = 100_000;

/// The compact block version (`sendcmpct`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// Short ids of txids, transactions without witness.
    One,
    /// Short ids of wtxids, transactions with witness.
    Two,
}

impl Version {
    /// The version for the number in `sendcmpct`.
    pub fn from_number(number: u64) -> Option<Self> {
        match number {
            1 => Some(Self::One),
            2 => Some(Self::Two),
            _ => None,
        }
    }

    /// The number in `sendcmpct`.
    pub fn number(self) -> u64 {
        match self {
            Self::One => 1,
            Self::Two => 2,
        }
    }
}

/// A transaction included in full.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prefilled {
    /// Its index relative to the one after the previous prefilled transaction.
    pub skip: u16,
    /// The transaction.
    pub tx: Transaction,
}

/// `cmpctblock`: a block's header, short ids, and prefilled transactions (`CBlockHeaderAndShortTxIDs`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompactBlock {
    /// The block's header.
    pub header: Header,
    /// Salt of the short ids.
    pub nonce: u64,
    /// The low 48 bits of the SipHash of each transaction that is not prefilled, in block order.
    pub short_ids: Vec<u64>,
    /// The transactions included in full, in block order.
    pub prefilled: Vec<Prefilled>,
}

impl CompactBlock {
    /// Encodes a block; the coinbase is prefilled. `nonce` should be random, so that short ids collide differently
    /// for each sender.
    ///
    /// `None` for a block without transactions or with more than [`MAX_TRANSACTIONS`].
    pub fn of(block: &Block, nonce: u64, version: Version) -> Option<Self> {
        let (coinbase, others) = block.txdata.split_first()?;
        if block.txdata.len() > MAX_TRANSACTIONS {
            return None;
        }
        let keys = ShortId::calculate_siphash_keys(&block.header, nonce);
        let hash = |tx: &Transaction| match version {
            Version::One => tx.compute_txid().to_byte_array(),
            Version::Two => tx.compute_wtxid().to_byte_array(),
        };
        let short_ids = others.iter().map(|tx| short_id(keys, &hash(tx))).collect();
        let prefilled = vec![Prefilled { skip: 0, tx: coinbase.clone() }];
        Some(Self { header: block.header, nonce, short_ids, prefilled })
    }

    /// Number of transactions in the block.
    pub fn transactions(&self) -> usize {
        self.short_ids.len() + self.prefilled.len()
    }

    /// Decodes a payload and advances `bytes` past it.
    ///
    /// # Errors
    /// When it is truncated, a number is not in its shortest form, or there are more than [`MAX_TRANSACTIONS`].
    pub fn decode(bytes: &mut &[u8]) -> Result<Self, Error> {
        let header = Header::consensus_decode(bytes)?;
        let nonce = u64::consensus_decode(bytes)?;
        let count = read_count(bytes, SHORT_ID_BYTES)?;
        let (ids, rest) = bytes.split_at(count * SHORT_ID_BYTES);
        *bytes = rest;
        let short_ids = ids.chunks_exact(SHORT_ID_BYTES).map(read_short_id).collect();
        let count = read_count(bytes, 1 + MIN_TRANSACTION_BYTES)?;
        let prefilled = (0..count)
            .map(|_| Ok(Prefilled { skip: read_u16(bytes)?, tx: read_transaction(bytes)? }))
            .collect::<Result<_, Error>>()?;
        Ok(Self { header, nonce, short_ids, prefilled })
    }

    /// Encodes the payload.
    pub fn encode(&self, version: Version) -> Vec<u8> {
        let mut out = Vec::new();
        write(&self.header, &mut out);
        write(&self.nonce, &mut out);
        write(&VarInt(self.short_ids.len() as u64), &mut out);
        for id in &self.short_ids {
            out.extend_from_slice(&id.to_le_bytes()[..SHORT_ID_BYTES]);
        }
        write(&VarInt(self.prefilled.len() as u64), &mut out);
        for prefilled in &self.prefilled {
            write(&VarInt(u64::from(prefilled.skip)), &mut out);
            write_transaction(&prefilled.tx, version, &mut out);
        }
        out
    }
}

/// `getblocktxn`: requests some transactions of a block (`BlockTransactionsRequest`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockTransactionsRequest {
    /// The block.
    pub block_hash: BlockHash,
    /// Which transactions, ascending.
    pub indexes: Vec<u16>,
}

impl BlockTransactionsRequest {
    /// Decodes a payload and advances `bytes` past it.
    ///
    /// # Errors
    /// When it is truncated, a number is not in its shortest form, or an index does not fit 16 bits.
    pub fn decode(bytes: &mut &[u8]) -> Result<Self, Error> {
        let block_hash = BlockHash::consensus_decode(bytes)?;
        let count = read_count(bytes, 1)?;
        let mut indexes = Vec::with_capacity(count);
        let mut next = 0u32;
        for _ in 0..count {
            let index = next + u32::from(read_u16(bytes)?);
            indexes.push(u16::try_from(index).map_err(|_| Error::ParseFailed("index overflows 16 bits"))?);
            next = index + 1;
        }
        Ok(Self { block_hash, indexes })
    }

    /// Encodes the payload.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        write(&self.block_hash, &mut out);
        write(&VarInt(self.indexes.len() as u64), &mut out);
        let mut next = 0;
        for index in &self.indexes {
            let index = u64::from(*index);
            write(&VarInt(index - next), &mut out);
            next = index + 1;
        }
        out
    }

    /// The answer, taken from the requested block; `None` if an index is out of range, for which the reference
    /// disconnects the peer.
    pub fn answer(&self, block: &Block) -> Option<BlockTransactions> {
        let tx = |index: &u16| block.txdata.get(usize::from(*index)).cloned();
        let transactions = self.indexes.iter().map(tx).collect::<Option<_>>()?;
        Some(BlockTransactions { block_hash: self.block_hash, transactions })
    }
}

/// `blocktxn`: the requested transactions (`BlockTransactions`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockTransactions {
    /// The block.
    pub block_hash: BlockHash,
    /// The transactions, in the order of the request.
    pub transactions: Vec<Transaction>,
}

impl BlockTransactions {
    /// Decodes a payload and advances `bytes` past it.
    ///
    /// # Errors
    /// When it is truncated, a number is not in its shortest form, or there are more than [`MAX_TRANSACTIONS`].
    pub fn decode(bytes: &mut &[u8]) -> Result<Self, Error> {
        let block_hash = BlockHash::consensus_decode(bytes)?;
        let count = read_count(bytes, MIN_TRANSACTION_BYTES)?;
        let transactions = (0..count).map(|_| read_transaction(bytes)).collect::<Result<_, _>>()?;
        Ok(Self { block_hash, transactions })
    }

    /// Encodes the payload.
    pub fn encode(&self, version: Version) -> Vec<u8> {
        let mut out = Vec::new();
        write(&self.block_hash, &mut out);
        write(&VarInt(self.transactions.len() as u64), &mut out);
        for tx in &self.transactions {
            write_transaction(tx, version, &mut out);
        }
        out
    }
}

/// The outcome of a reconstruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reconstruction {
    /// A complete block whose transactions match the header's merkle root. Witnesses are not checked.
    Block(Block),
    /// Transactions are missing: send the request and wait for its answer.
    Missing(PartialBlock),
    /// Invalid; no honest peer sends this.
    Invalid(&'static str),
    /// Short ids collided, or may have: request the whole block. Not the peer's fault.
    Failed(&'static str),
}

/// A block with missing transactions (`PartiallyDownloadedBlock`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartialBlock {
    header: Header,
    places: Vec<Option<Arc<Transaction>>>,
}

/// Reconstructs a block from the prefilled transactions and the known ones (`PartiallyDownloadedBlock::InitData`).
///
/// `pool` is the mempool, `extra` are other recently seen transactions; each with its wtxid. While segwit is
/// inactive no transaction has a witness, so wtxids work for both versions of compact blocks, as in the reference.
pub fn reconstruct<'a>(
    message: CompactBlock,
    pool: impl IntoIterator<Item = (Wtxid, &'a Arc<Transaction>)>,
    extra: impl IntoIterator<Item = (Wtxid, &'a Arc<Transaction>)>,
) -> Reconstruction {
    if message.header.bits.to_consensus() == 0 {
        return Reconstruction::Invalid("null header");
    }
    if message.transactions() == 0 || message.transactions() > MAX_TRANSACTIONS {
        return Reconstruction::Invalid("number of transactions");
    }
    let keys = ShortId::calculate_siphash_keys(&message.header, message.nonce);
    let Some(mut places) = place_prefilled(message.short_ids.len(), message.prefilled) else {
        return Reconstruction::Invalid("prefilled transactions");
    };
    let gaps = places.iter().enumerate().filter(|(_, tx)| tx.is_none()).map(|(place, _)| place);
    let wanted: HashMap<u64, usize> = message.short_ids.iter().copied().zip(gaps).collect();
    if wanted.len() != message.short_ids.len() {
        return Reconstruction::Failed("two transactions have the same short id");
    }
    let mut search = Search { keys, wanted, places: &mut places, found: HashMap::new() };
    // The search stops once everything is found; a collision that is missed by that only costs a round trip.
    let _ = pool.into_iter().try_for_each(|(wtxid, tx)| search.offer(wtxid, tx));
    let _ = extra.into_iter().try_for_each(|(wtxid, tx)| search.offer(wtxid, tx));
    let partial = PartialBlock { header: message.header, places };
    if partial.places.iter().all(Option::is_some) {
        return partial.fill(Vec::new());
    }
    Reconstruction::Missing(partial)
}

/// Places the prefilled transactions at their positions in the block; `None` if they do not fit.
fn place_prefilled(short_ids: usize, prefilled: Vec<Prefilled>) -> Option<Vec<Option<Arc<Transaction>>>> {
    let mut places = vec![None; short_ids + prefilled.len()];
    let mut next = 0;
    for (before, Prefilled { skip, tx }) in prefilled.into_iter().enumerate() {
        let place = next + usize::from(skip);
        let is_null = tx.input.is_empty() && tx.output.is_empty();
        // A position that short ids and earlier prefilled transactions cannot fill up to.
        if is_null || place > short_ids + before {
            return None;
        }
        places[place] = Some(Arc::new(tx));
        next = place + 1;
    }
    Some(places)
}

/// A search for the transactions that match the short ids.
struct Search<'a> {
    keys: (u64, u64),
    wanted: HashMap<u64, usize>,
    places: &'a mut [Option<Arc<Transaction>>],
    /// The match found for a position. A position with two matches stays empty: a wrong guess costs a whole block.
    found: HashMap<usize, Wtxid>,
}

impl Search<'_> {
    fn offer(&mut self, wtxid: Wtxid, tx: &Arc<Transaction>) -> ControlFlow<()> {
        if let Some(place) = self.wanted.get(&short_id(self.keys, wtxid.as_byte_array())) {
            match self.found.get(place) {
                None => {
                    self.found.insert(*place, wtxid);
                    self.places[*place] = Some(tx.clone());
                }
                Some(other) if *other != wtxid => self.places[*place] = None,
                Some(_) => {}
            }
        }
        if self.found.len() == self.wanted.len() {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    }
}

impl PartialBlock {
    /// The block's header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Number of missing transactions.
    pub fn missing(&self) -> usize {
        self.places.iter().filter(|tx| tx.is_none()).count()
    }

    /// The request for the missing transactions, for the sender.
    pub fn request(&self) -> BlockTransactionsRequest {
        let missing = self.places.iter().enumerate().filter(|(_, tx)| tx.is_none());
        let index = |place| u16::try_from(place).expect("a compact block has at most 65,536 transactions");
        let indexes = missing.map(|(place, _)| index(place)).collect();
        BlockTransactionsRequest { block_hash: self.header.block_hash(), indexes }
    }

    /// Adds the missing transactions in order (`PartiallyDownloadedBlock::FillBlock`).
    pub fn fill(self, transactions: Vec<Transaction>) -> Reconstruction {
        if transactions.len() != self.missing() {
            return Reconstruction::Invalid("number of block transactions");
        }
        let mut others = transactions.into_iter();
        let mut next = || others.next().expect("there is one for each gap");
        let known = self.places.into_iter();
        let txdata: Vec<_> = known.map(|tx| tx.map_or_else(&mut next, Arc::unwrap_or_clone)).collect();
        let leaves = txdata.iter().map(|tx| tx.compute_txid().to_byte_array()).collect();
        let (root, mutated) = merkle::root(leaves);
        if mutated || root != self.header.merkle_root.to_byte_array() {
            return Reconstruction::Failed("merkle root");
        }
        Reconstruction::Block(Block { header: self.header, txdata })
    }
}

/// Transactions outside the mempool that may still be in a block: refused, replaced, evicted, orphans
/// (`vExtraTxnForCompact`). A ring buffer: the oldest is overwritten.
#[derive(Debug, Default)]
pub struct ExtraTransactions {
    ring: VecDeque<(Wtxid, Arc<Transaction>)>,
}

impl ExtraTransactions {
    /// Adds a transaction, unless it is too large.
    pub fn add(&mut self, tx: Arc<Transaction>) {
        if memory::of(&tx) >= MAX_EXTRA_MEMORY {
            return;
        }
        if self.ring.len() == EXTRA_TRANSACTIONS {
            self.ring.pop_front();
        }
        self.ring.push_back((tx.compute_wtxid(), tx));
    }

    /// All of them, for [`reconstruct`].
    pub fn iter(&self) -> impl Iterator<Item = (Wtxid, &Arc<Transaction>)> {
        self.ring.iter().map(|(wtxid, tx)| (*wtxid, tx))
    }
}

/// The low 48 bits of SipHash-2-4 (`CBlockHeaderAndShortTxIDs::GetShortID`).
fn short_id((k0, k1): (u64, u64), hash: &[u8; 32]) -> u64 {
    siphash24::Hash::hash_to_u64_with_keys(k0, k1, hash) & 0xffff_ffff_ffff
}

fn read_short_id(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |id, byte| id << 8 | u64::from(*byte))
}

/// Reads a count of items of at least `least` bytes each; fails if the remaining bytes cannot hold them.
fn read_count(bytes: &mut &[u8], least: usize) -> Result<usize, Error> {
    let count = VarInt::consensus_decode(bytes)?.0;
    if count > MAX_TRANSACTIONS as u64 {
        return Err(Error::ParseFailed("more transactions than a block can have"));
    }
    let count = count as usize;
    if count * least > bytes.len() {
        return Err(Error::ParseFailed("fewer bytes than the count needs"));
    }
    Ok(count)
}

fn read_u16(bytes: &mut &[u8]) -> Result<u16, Error> {
    u16::try_from(VarInt::consensus_decode(bytes)?.0)
        .map_err(|_| Error::ParseFailed("index overflows 16 bits"))
}

fn write(value: &impl Encodable, out: &mut Vec<u8>) {
    value.consensus_encode(out).expect("a vector takes everything");
}

fn write_transaction(tx: &Transaction, version: Version, out: &mut Vec<u8>) {
    if version == Version::Two {
        return write(tx, out);
    }
    write(&tx.version, out);
    write(&tx.input, out);
    write(&tx.output, out);
    write(&tx.lock_time, out);
}
