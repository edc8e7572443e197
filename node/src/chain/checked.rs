//! A block that passed the checks which need nothing but itself (`CheckBlock`).
//!
//! Lives here: [`CheckedBlock`], which carries the block, its hash and its transaction ids, each computed once.
//! It can be made on any thread, before the chain thread sees the block: decoding and hashing of the next block go on
//! while the one before it is connected. Does not live here: every check that needs the chain; see `accept.rs`.

use std::sync::{Arc, OnceLock};

use bitcoin::consensus::encode::serialize;
use bitcoin::{Block, BlockHash, Txid};
use iop_consensus::address::Address;
use iop_consensus::block;
use iop_consensus::error::{BlockError, LicenseError};
use iop_consensus::license::coinbase;
use iop_consensus::params::Params;
use iop_consensus::wire::whole_block;

use super::signed::Signed;

/// A block and what was computed from it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct CheckedBlock {
    block: Arc<Block>,
    hash: BlockHash,
    txids: Arc<[Txid]>,
    bytes: Arc<Vec<u8>>,
    /// Computed at most once, on whatever thread needs it or has time first.
    license: Arc<OnceLock<Result<Address, LicenseError>>>,
    signed: Arc<Signed>,
}

/// A block that breaks a rule by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsound {
    /// The block's hash.
    pub hash: BlockHash,
    /// The first rule it breaks.
    pub error: BlockError,
}

impl CheckedBlock {
    /// Checks a block alone: proof of work, merkle root, sizes, each transaction by itself.
    ///
    /// # Errors
    /// The first rule it breaks, in the reference's order.
    pub fn new(block: impl Into<Arc<Block>>, params: &Params) -> Result<Self, Unsound> {
        let block = block.into();
        let hash = block.block_hash();
        let txids: Arc<[Txid]> = block.txdata.iter().map(bitcoin::Transaction::compute_txid).collect();
        match block::check_with_txids(&block, &txids, params) {
            Ok(()) => {
                let bytes = Arc::new(serialize(&*block));
                let signed = Arc::new(Signed::of(txids.len()));
                Ok(Self { block, hash, txids, bytes, license: Arc::default(), signed })
            }
            Err(error) => Err(Unsound { hash, error }),
        }
    }

    /// A block that was checked before it was stored, from its bytes.
    pub(super) fn stored(bytes: Vec<u8>, hash: BlockHash) -> Option<Self> {
        let block = whole_block(&bytes).ok()?;
        let txids: Arc<[Txid]> = block.txdata.iter().map(bitcoin::Transaction::compute_txid).collect();
        let signed = Arc::new(Signed::of(txids.len()));
        let (block, bytes) = (Arc::new(block), Arc::new(bytes));
        Some(Self { block, hash, txids, bytes, license: Arc::default(), signed })
    }

    /// The block.
    pub fn block(&self) -> &Arc<Block> {
        &self.block
    }

    /// The header's hash.
    pub fn hash(&self) -> BlockHash {
        self.hash
    }

    /// The block as it is sent and stored, with its witnesses.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The license that the coinbase's signature is of, or what is wrong with it; waits if another thread is at it.
    pub fn license(&self) -> Result<Address, LicenseError> {
        self.license.get_or_init(|| coinbase::check(&self.block.txdata[0])).clone()
    }

    /// Lets another thread find out the license meanwhile.
    pub(super) fn begin_license(&self) {
        let block = self.clone();
        rayon::spawn(move || drop(block.license()));
    }

    /// Lets other threads verify meanwhile what they can of its signatures. Only worth it for a block that will be
    /// connected with its scripts, and not at once.
    pub fn begin_signatures(&self) {
        self.signed.begin(&self.block);
    }

    /// What is known of its signatures.
    pub(super) fn signed(&self) -> &Signed {
        &self.signed
    }

    /// The transactions' ids, in order.
    pub fn txids(&self) -> &[Txid] {
        &self.txids
    }
}
