//! Blocks made by hand on a chain that needs neither licenses nor work: built-in `regtest` near its genesis.

use bitcoin::block::{Header, Version};
use bitcoin::hashes::Hash;
use bitcoin::script::Builder;
use bitcoin::{
    Amount, Block, BlockHash, CompactTarget, OutPoint, ScriptBuf, Sequence, Target, Transaction, TxIn,
    TxMerkleNode, TxOut, Witness, absolute, transaction,
};

/// The position of a block.
#[derive(Debug, Clone, Copy)]
pub struct Parent {
    /// Its hash.
    pub hash: BlockHash,
    /// Its height.
    pub height: u32,
    /// Its time, seconds since 1970.
    pub time: u32,
}

impl Parent {
    /// This block as the parent of the next.
    pub fn of(block: &Block, height: u32) -> Self {
        Self { hash: block.block_hash(), height, time: block.header.time }
    }
}

/// The reward of a coinbase, in base units: less than any subsidy here.
pub const REWARD: u64 = 1_000_000;

/// A script that anyone can spend.
pub fn anyone() -> ScriptBuf {
    Builder::new().push_int(1).into_script()
}

/// A valid block that pays to [`anyone`], with these transactions after its coinbase. `salt` makes it differ from
/// others on the same parent.
pub fn on(parent: Parent, salt: u32, others: Vec<Transaction>) -> Block {
    let height = parent.height + 1;
    let mark = Builder::new().push_int(i64::from(height)).push_int(i64::from(salt) + 1_000);
    let coinbase = Transaction {
        version: transaction::Version::ONE,
        lock_time: absolute::LockTime::ZERO,
        input: vec![TxIn {
            previous_output: OutPoint::null(),
            script_sig: mark.into_script(),
            sequence: Sequence::MAX,
            witness: Witness::new(),
        }],
        output: vec![TxOut { value: Amount::from_sat(REWARD), script_pubkey: anyone() }],
    };
    let mut txdata = vec![coinbase];
    txdata.extend(others);
    let header = Header {
        version: Version::from_consensus(0x2000_0000),
        prev_blockhash: parent.hash,
        merkle_root: TxMerkleNode::all_zeros(),
        time: parent.time + 1,
        bits: CompactTarget::from_consensus(0x207f_ffff),
        nonce: 0,
    };
    sealed(Block { header, txdata })
}

/// Sets the block's merkle root, and a nonce with enough work.
///
/// # Panics
/// When it has no transactions.
pub fn sealed(mut block: Block) -> Block {
    block.header.merkle_root = block.compute_merkle_root().expect("a block has transactions");
    mine(&mut block.header);
    block
}

/// A valid block of about `bytes` bytes.
pub fn large_on(parent: Parent, salt: u32, bytes: usize) -> Block {
    let mut block = on(parent, salt, vec![]);
    let padding = ScriptBuf::from_bytes(vec![0x6a; bytes]);
    block.txdata[0].output.push(TxOut { value: Amount::ZERO, script_pubkey: padding });
    sealed(block)
}

/// Spends an output of [`anyone`], in whole, to anyone.
pub fn spend(outpoint: OutPoint, value: u64) -> Transaction {
    Transaction {
        version: transaction::Version::ONE,
        lock_time: absolute::LockTime::ZERO,
        input: vec![TxIn {
            previous_output: outpoint,
            script_sig: ScriptBuf::new(),
            sequence: Sequence::MAX,
            witness: Witness::new(),
        }],
        output: vec![TxOut { value: Amount::from_sat(value), script_pubkey: anyone() }],
    }
}

/// Finds a nonce: two tries on average.
///
/// # Panics
/// Never in practice: each nonce is good with even chance.
pub fn mine(header: &mut Header) {
    let target = Target::from_compact(header.bits);
    let found = (0..=u32::MAX).find(|nonce| {
        header.nonce = *nonce;
        target.is_met_by(header.block_hash())
    });
    found.expect("half of all nonces are good");
}

/// `count` consecutive headers with enough work; there are no blocks for them.
pub fn headers_on(parent: Parent, salt: u32, count: usize) -> Vec<Header> {
    let mut headers = Vec::with_capacity(count);
    let (mut hash, mut time) = (parent.hash, parent.time);
    for number in 0..count {
        time += 1;
        let mut root = [0; 32];
        root[..4].copy_from_slice(&salt.to_le_bytes());
        root[4..8].copy_from_slice(&(number as u32).to_le_bytes());
        let mut header = Header {
            version: Version::from_consensus(0x2000_0000),
            prev_blockhash: hash,
            merkle_root: TxMerkleNode::from_byte_array(root),
            time,
            bits: CompactTarget::from_consensus(0x207f_ffff),
            nonce: 0,
        };
        mine(&mut header);
        hash = header.block_hash();
        headers.push(header);
    }
    headers
}
