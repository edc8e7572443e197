//! Checks of a whole block that need no coins (`CheckBlock`, `ContextualCheckBlock`).

use bitcoin::hashes::{Hash, HashEngine, sha256d};
use bitcoin::{Block, Transaction, Txid, Witness};

use crate::ancestors::{Ancestors, median_time_past};
use crate::error::BlockError;
use crate::header;
use crate::params::Params;
use crate::script::legacy_sigops;
use crate::versionbits::Cache;
use crate::{MAX_BLOCK_SIGOPS_COST, MAX_BLOCK_WEIGHT, WITNESS_SCALE_FACTOR, merkle, tx};

/// Start of a witness commitment's script: OP_RETURN, a push of 36 bytes, four marker bytes (BIP141).
pub const WITNESS_COMMITMENT_PREFIX: [u8; 6] = [0x6a, 0x24, 0xaa, 0x21, 0xa9, 0xed];

/// The soft forks that apply to a block: those active on top of its parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SoftForks {
    /// BIP68, BIP112 and BIP113.
    pub csv: bool,
    /// BIP141, BIP143 and BIP147.
    pub segwit: bool,
}

impl SoftForks {
    /// The soft forks for the block on top of `chain`.
    pub fn on_top_of(chain: &dyn Ancestors, params: &Params, cache: &mut Cache) -> Self {
        let deployments = &params.deployments;
        Self {
            csv: cache.is_active(chain, &deployments.csv, deployments),
            segwit: cache.is_active(chain, &deployments.segwit, deployments),
        }
    }
}

/// Checks that need nothing but the block, in the reference's order (`CheckBlock`).
pub fn check(block: &Block, params: &Params) -> Result<(), BlockError> {
    let txids: Vec<Txid> = block.txdata.iter().map(Transaction::compute_txid).collect();
    check_with_txids(block, &txids, params)
}

/// [`check`] for callers that already have the txids, in order.
pub fn check_with_txids(block: &Block, txids: &[Txid], params: &Params) -> Result<(), BlockError> {
    header::check(&block.header, params)?;
    check_body(block, txids)
}

/// [`check_with_txids`] without the check of the header's hash, for a block that has no proof of work yet.
pub fn check_body(block: &Block, txids: &[Txid]) -> Result<(), BlockError> {
    check_merkle_root(block, txids)?;
    check_size(block)?;
    check_coinbase_position(block)?;
    for (tx, &txid) in block.txdata.iter().zip(txids) {
        tx::check(tx).map_err(|error| BlockError::Tx { txid, error })?;
    }
    let found = block.txdata.iter().map(legacy_sigops).sum::<u64>() * WITNESS_SCALE_FACTOR;
    if found > MAX_BLOCK_SIGOPS_COST {
        return Err(BlockError::SigOps { found, at_most: MAX_BLOCK_SIGOPS_COST });
    }
    Ok(())
}

fn check_merkle_root(block: &Block, txids: &[Txid]) -> Result<(), BlockError> {
    let leaves = txids.iter().map(|txid| txid.to_byte_array()).collect();
    let (root, mutated) = merkle::root(leaves);
    if block.header.merkle_root.to_byte_array() != root {
        return Err(BlockError::MerkleRoot {
            found: block.header.merkle_root,
            expected: bitcoin::TxMerkleNode::from_byte_array(root),
        });
    }
    if mutated { Err(BlockError::DuplicateTransactions) } else { Ok(()) }
}

fn check_size(block: &Block) -> Result<(), BlockError> {
    let transactions = block.txdata.len();
    let bytes = base_size(block);
    let too_many = transactions as u64 * WITNESS_SCALE_FACTOR > MAX_BLOCK_WEIGHT;
    if transactions == 0 || too_many || bytes * WITNESS_SCALE_FACTOR > MAX_BLOCK_WEIGHT {
        return Err(BlockError::Length { transactions, bytes });
    }
    Ok(())
}

/// Bytes of the block without witness data.
fn base_size(block: &Block) -> u64 {
    let count = bitcoin::VarInt(block.txdata.len() as u64).size();
    let transactions: usize = block.txdata.iter().map(Transaction::base_size).sum();
    (bitcoin::block::Header::SIZE + count + transactions) as u64
}

fn check_coinbase_position(block: &Block) -> Result<(), BlockError> {
    if !block.txdata[0].is_coinbase() {
        return Err(BlockError::CoinbaseMissing);
    }
    match block.txdata[1..].iter().position(Transaction::is_coinbase) {
        Some(after) => Err(BlockError::CoinbaseMultiple { index: after + 1 }),
        None => Ok(()),
    }
}

/// Checks that need the block's ancestors (`ContextualCheckBlock`): lock times, witness commitment, weight.
pub fn check_contextual(block: &Block, chain: &dyn Ancestors, forks: SoftForks) -> Result<(), BlockError> {
    let height = chain.tip_height() + 1;
    let clock = if forks.csv { median_time_past(chain, chain.tip_height()) } else { block.header.time };
    if let Some(tx) = block.txdata.iter().find(|tx| !tx::is_final(tx, height, clock)) {
        let txid = tx.compute_txid();
        return Err(BlockError::Tx { txid, error: crate::error::TxError::NotFinal(txid) });
    }
    check_witness(block, forks)?;
    let found = block.weight().to_wu();
    if found > MAX_BLOCK_WEIGHT {
        return Err(BlockError::Weight { found });
    }
    Ok(())
}

fn check_witness(block: &Block, forks: SoftForks) -> Result<(), BlockError> {
    let committed = forks.segwit.then(|| witness_commitment(&block.txdata[0])).flatten();
    let Some(committed) = committed else {
        return match block.txdata.iter().position(has_witness) {
            Some(index) => Err(BlockError::UnexpectedWitness { index }),
            None => Ok(()),
        };
    };
    let witness = &block.txdata[0].input[0].witness;
    if witness.len() != 1 || witness[0].len() != 32 {
        return Err(BlockError::WitnessNonceSize);
    }
    if commitment_hash(&witness_root(&block.txdata), &witness[0]) != committed {
        return Err(BlockError::WitnessCommitment);
    }
    Ok(())
}

fn has_witness(tx: &Transaction) -> bool {
    tx.input.iter().any(|input| !input.witness.is_empty())
}

/// The hash that the coinbase commits to: the one in the last output with the marker.
pub fn witness_commitment(coinbase: &Transaction) -> Option<[u8; 32]> {
    coinbase.output.iter().rev().find_map(|output| {
        let hash = output.script_pubkey.as_bytes().strip_prefix(&WITNESS_COMMITMENT_PREFIX)?.get(..32)?;
        Some(hash.try_into().expect("get returned 32 bytes"))
    })
}

/// The root of the witness tree, in which zeros stand for the coinbase.
fn witness_root(transactions: &[Transaction]) -> [u8; 32] {
    let others = transactions.iter().skip(1).map(|tx| tx.compute_wtxid().to_byte_array());
    merkle::root(std::iter::once([0; 32]).chain(others).collect()).0
}

fn commitment_hash(root: &[u8; 32], nonce: &[u8]) -> [u8; 32] {
    let mut engine = sha256d::Hash::engine();
    engine.input(root);
    engine.input(nonce);
    sha256d::Hash::from_engine(engine).to_byte_array()
}

/// The output script that commits to the witnesses of a block whose non-coinbase transactions are `others`,
/// with a witness nonce of zeros.
pub fn witness_commitment_script(others: &[Transaction]) -> bitcoin::ScriptBuf {
    witness_commitment_of(others.iter().map(Transaction::compute_wtxid))
}

/// [`witness_commitment_script`] from the hashes of the non-coinbase transactions with their witnesses.
pub fn witness_commitment_of(others: impl Iterator<Item = bitcoin::Wtxid>) -> bitcoin::ScriptBuf {
    let leaves = others.map(|wtxid| wtxid.to_byte_array());
    let root = merkle::root(std::iter::once([0; 32]).chain(leaves).collect()).0;
    let hash = commitment_hash(&root, &[0; 32]);
    bitcoin::ScriptBuf::from_bytes([&WITNESS_COMMITMENT_PREFIX[..], &hash].concat())
}

/// Adds the all-zero witness nonce that miners leave out, if the coinbase has a commitment and no witness
/// (`UpdateUncommittedBlockStructures`).
pub fn fill_in_witness_nonce(block: &mut Block, forks: SoftForks) {
    let Some(coinbase) = block.txdata.first_mut() else { return };
    if forks.segwit
        && witness_commitment(coinbase).is_some()
        && !has_witness(coinbase)
        && let Some(input) = coinbase.input.first_mut()
    {
        input.witness = Witness::from_slice(&[[0u8; 32]]);
    }
}
