//! Mining inside the node, for `generatetoaddress`: one thread, one block.
//!
//! The coinbase is built as in the pool: signature, height, extranonce, key. Without a key it has height and
//! extranonce only.

use bitcoin::block::{Header, Version};
use bitcoin::consensus::encode::serialize;
use bitcoin::hashes::Hash;
use bitcoin::{
    Amount, Block, OutPoint, ScriptBuf, Sequence, Target, Transaction, TxIn, TxMerkleNode, TxOut, Witness,
    absolute, transaction,
};
use iop_consensus::address::Address;
use iop_consensus::block::fill_in_witness_nonce;
use iop_consensus::license::coinbase;
use iop_consensus::license::key::LicenseKey;
use iop_consensus::merkle;
use iop_kernels::{NonceRange, Work};

use crate::template::Template;

/// Nonces between two checks whether to stop: less than a millisecond of work, and not much more than an easy test
/// network needs per block.
const CHUNK: u64 = 1 << 13;

/// The recipient of the reward and the signing key.
#[derive(Debug)]
pub(crate) struct Payee {
    /// Receives the whole reward.
    pub(crate) address: Address,
    /// Signs the coinbase.
    pub(crate) key: Option<LicenseKey>,
}

/// Mines a block on the template; `None` if `stop` returns true first.
pub(crate) fn mine(template: &Template, payee: &Payee, stop: impl Fn() -> bool) -> Option<Block> {
    let kernel = iop_kernels::auto();
    let target = Target::from_compact(template.bits).to_le_bytes();
    let unsigned = unsigned_coinbase(template, payee);
    let signature = payee.key.as_ref().map(|key| coinbase::sign(&unsigned, key));
    // A random start: otherwise the same template would give the same block again.
    for extranonce in u64::from(first_extranonce()).. {
        let mut coinbase = unsigned.clone();
        coinbase.input[0].script_sig = script_sig(template.height, extranonce, payee, signature.as_deref());
        let mut block = assemble(template, coinbase);
        let header: [u8; 80] = serialize(&block.header).try_into().expect("a header has 80 bytes");
        let work = Work::new(&header, iop_kernels::Target::from_le_bytes(target));
        let mut found = Vec::new();
        for range in NonceRange::ALL.chunks(CHUNK) {
            kernel.scan(&work, range, &mut found);
            if let Some(&nonce) = found.first() {
                block.header.nonce = nonce;
                fill_in_witness_nonce(&mut block, template.forks);
                return Some(block);
            }
            if stop() {
                return None;
            }
        }
    }
    None
}

fn first_extranonce() -> u32 {
    let mut bytes = [0; 4];
    // Without random numbers it starts at 0, which only means that a known block is found again.
    let _ = getrandom::fill(&mut bytes);
    u32::from_le_bytes(bytes)
}

fn script_sig(height: u32, extranonce: u64, payee: &Payee, signature: Option<&[u8]>) -> ScriptBuf {
    let (height, extranonce) = (coinbase::script_number(height), extranonce.to_le_bytes());
    match (signature, &payee.key) {
        (Some(signature), Some(key)) => {
            coinbase::script_sig(signature, &[&height, &extranonce], key.pubkey())
        }
        _ => coinbase::script_sig(&height, &[], &extranonce),
    }
}

fn unsigned_coinbase(template: &Template, payee: &Payee) -> Transaction {
    let reward = TxOut {
        value: Amount::from_sat(template.coinbase_value),
        script_pubkey: payee.address.script_pubkey(),
    };
    let commitment = template.witness_commitment.as_ref();
    let commitment = commitment.map(|script| TxOut { value: Amount::ZERO, script_pubkey: script.clone() });
    Transaction {
        version: transaction::Version::ONE,
        lock_time: absolute::LockTime::ZERO,
        input: vec![TxIn {
            previous_output: OutPoint::null(),
            script_sig: ScriptBuf::new(),
            sequence: Sequence::MAX,
            witness: Witness::new(),
        }],
        output: std::iter::once(reward).chain(commitment).collect(),
    }
}

fn assemble(template: &Template, coinbase: Transaction) -> Block {
    let txdata: Vec<Transaction> = std::iter::once(coinbase)
        .chain(template.transactions.iter().map(|tx| Transaction::clone(&tx.tx)))
        .collect();
    let leaves = txdata.iter().map(|tx| tx.compute_txid().to_byte_array()).collect();
    let header = Header {
        version: Version::from_consensus(template.version),
        prev_blockhash: template.previous,
        merkle_root: TxMerkleNode::from_byte_array(merkle::root(leaves).0),
        time: template.time,
        bits: template.bits,
        nonce: 0,
    };
    Block { header, txdata }
}
