//! A block that passed its context-free checks (`CheckBlock`).
//!
//! Lives here: [`CheckedBlock`], which carries the block, its hash and its transaction ids, each computed once. It
//! can be built on any thread, so the next block is decoded and hashed while the one before it is connected. Does
//! not live here: every check that needs the chain; see `accept.rs`.

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

/// A checked block with its hash, bytes and transaction ids. Cheap to clone.
#[derive(Debug, Clone)]
pub struct CheckedBlock {
    block: Arc<Block>,
    hash: BlockHash,
    txids: Arc<[Txid]>,
    bytes: Arc<Vec<u8>>,
    /// Computed at most once, by whichever thread gets to it first.
    license: Arc<OnceLock<Result<Address, LicenseError>>>,
    signed: Arc<Signed>,
}

/// A block that fails its context-free checks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsound {
    /// The block's hash.
    pub hash: BlockHash,
    /// The first rule it breaks.
    pub error: BlockError,
}

impl CheckedBlock {
    /// Runs the context-free checks: proof of work, merkle root, sizes, and each transaction by itself.
    ///
    /// # Errors
    /// The first rule that the block breaks, in the reference's order.
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

    /// Decodes a stored block, which was checked before it was stored.
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

    /// The serialized block with its witnesses.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The license that signed the coinbase, or the error. Waits if another thread is computing it.
    pub fn license(&self) -> Result<Address, LicenseError> {
        self.license.get_or_init(|| coinbase::check(&self.block.txdata[0])).clone()
    }

    /// Starts computing the license on another thread.
    pub(super) fn begin_license(&self) {
        let block = self.clone();
        rayon::spawn(move || drop(block.license()));
    }

    /// Starts verifying signatures on other threads, as far as possible without the coins. Only worth it for a
    /// block whose scripts will be run, and not at once.
    pub fn begin_signatures(&self) {
        self.signed.begin(&self.block);
    }

    /// The signatures verified so far.
    pub(super) fn signed(&self) -> &Signed {
        &self.signed
    }

    /// The transactions' ids, in order.
    pub fn txids(&self) -> &[Txid] {
        &self.txids
    }
}
