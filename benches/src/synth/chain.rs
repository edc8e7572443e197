//! A chain under construction: coinbases signed by licenses in turn, headers with their proof of work.
//!
//! The caller chooses the transactions; see `load.rs`. The target is regtest's: every second hash meets it.

use std::sync::Arc;

use bitcoin::block::{Header, Version};
use bitcoin::hashes::{Hash, sha256};
use bitcoin::{
    Amount, Block, BlockHash, CompactTarget, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxMerkleNode,
    TxOut, Witness, absolute, transaction,
};
use iop_consensus::license::coinbase;
use iop_consensus::license::key::LicenseKey;
use iop_consensus::params::Params;
use iop_consensus::subsidy::subsidy;

/// Number of licenses that are added; they and the admin's own sign in turn.
pub const LICENSES: usize = 8;
/// Seconds between blocks.
const SPACING: u32 = 600;
/// A block version without votes.
const VERSION: i32 = 0x2000_0000;

/// A published key of these chains: the SHA-256 of a text.
///
/// # Panics
/// Never: the digests of the few names in use are all valid keys.
pub fn secret_key(name: &str) -> LicenseKey {
    LicenseKey::from_secret(&secret(name), true).expect("a digest below the curve's order")
}

/// The secret number of [`secret_key`].
pub(super) fn secret(name: &str) -> [u8; 32] {
    sha256::Hash::hash(format!("IoP synthetic chain {name}").as_bytes()).to_byte_array()
}

/// The keys of the licenses that the admin adds.
pub fn license_keys() -> Vec<LicenseKey> {
    (0..LICENSES).map(|n| secret_key(&format!("license {n}"))).collect()
}

/// The end of a chain. A clone continues as a separate branch.
#[derive(Debug, Clone)]
pub struct Chain {
    params: Arc<Params>,
    /// Possible signers, the admin first.
    signers: Arc<Vec<LicenseKey>>,
    /// Number of them that are whitelisted so far.
    licensed: usize,
    tip: BlockHash,
    height: u32,
    time: u32,
    spacing: u32,
}

impl Default for Chain {
    fn default() -> Self {
        Self::new()
    }
}

impl Chain {
    /// Genesis.
    pub fn new() -> Self {
        let params = super::network();
        let genesis = params.genesis.block();
        let signers = std::iter::once(secret_key("admin")).chain(license_keys()).collect();
        Self {
            tip: genesis.block_hash(),
            height: 0,
            time: genesis.header.time,
            spacing: SPACING,
            params: Arc::new(params),
            signers: Arc::new(signers),
            licensed: 1,
        }
    }

    /// Sets the time of the next block, in seconds since 1970, which must be after the newest block's; later ones are
    /// `spacing` seconds apart.
    pub fn set_clock(&mut self, time: u32, spacing: u32) {
        (self.time, self.spacing) = (time - spacing, spacing);
    }

    /// Height of the newest block.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// Hash of the newest block.
    pub fn tip(&self) -> BlockHash {
        self.tip
    }

    /// Lets all licenses sign from the next block on: the newest block adds them.
    pub(super) fn license_all(&mut self) {
        self.licensed = self.signers.len();
    }

    /// Makes the next block.
    pub fn extend(&mut self, transactions: Vec<Transaction>) -> Block {
        self.extend_salted(transactions, 0)
    }

    /// Makes the next block; different salts make different blocks.
    pub fn extend_salted(&mut self, transactions: Vec<Transaction>, salt: u32) -> Block {
        let height = self.height + 1;
        let coinbase = self.coinbase(height, salt);
        let txdata: Vec<Transaction> = std::iter::once(coinbase).chain(transactions).collect();
        let header = Header {
            version: Version::from_consensus(VERSION),
            prev_blockhash: self.tip,
            merkle_root: TxMerkleNode::all_zeros(),
            time: self.time + self.spacing,
            bits: CompactTarget::from_consensus(self.params.genesis.bits),
            nonce: 0,
        };
        let mut block = Block { header, txdata };
        block.header.merkle_root = block.compute_merkle_root().expect("a block has a coinbase");
        while !block.header.target().is_met_by(block.block_hash()) {
            block.header.nonce += 1;
        }
        (self.tip, self.height, self.time) = (block.block_hash(), height, block.header.time);
        block
    }

    fn coinbase(&self, height: u32, salt: u32) -> Transaction {
        let key = &self.signers[height as usize % self.licensed];
        let value = subsidy(height, self.params.halving_interval);
        let mut coinbase = Transaction {
            version: transaction::Version::ONE,
            lock_time: absolute::LockTime::ZERO,
            input: vec![TxIn {
                previous_output: OutPoint::null(),
                script_sig: ScriptBuf::new(),
                sequence: Sequence::MAX,
                witness: Witness::new(),
            }],
            output: vec![TxOut {
                value: Amount::from_sat(value),
                script_pubkey: key.address().script_pubkey(),
            }],
        };
        let signature = coinbase::sign(&coinbase, key);
        let unsigned = [&coinbase::script_number(height)[..], &salt.to_le_bytes()];
        coinbase.input[0].script_sig = coinbase::script_sig(&signature, &unsigned, key.pubkey());
        coinbase
    }
}
