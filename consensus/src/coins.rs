//! Coins: the unspent outputs, as the rules see them.
//!
//! [`CoinView`] is all that connecting a block needs from storage. A [`BTreeMap`] is a view for tests and tools; the
//! node uses its database behind a cache. [`CoinMap`] is a hash map keyed by outpoint.
//! Does not live here: what a block does to coins ([`crate::connect`]).

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, Hasher, RandomState};

use bitcoin::{OutPoint, TxOut};

/// A map keyed by outpoint, with a hash function made for outpoints: it needs few multiplications, and it is keyed, so
/// that nobody can craft transaction ids that collide.
pub type CoinMap<V> = HashMap<OutPoint, V, OutPointHash>;

/// The hash keys of a [`CoinMap`], drawn at random for each map created by `default`.
#[derive(Debug, Clone)]
pub struct OutPointHash([u64; 2]);

impl Default for OutPointHash {
    fn default() -> Self {
        let random = RandomState::new();
        Self([random.hash_one(0u8), random.hash_one(1u8)])
    }
}

impl BuildHasher for OutPointHash {
    type Hasher = OutPointHasher;

    fn build_hasher(&self) -> OutPointHasher {
        OutPointHasher { state: self.0[0], key: self.0[1] }
    }
}

/// Folds eight bytes at a time into the state by a full 128-bit multiplication.
#[derive(Debug, Clone)]
pub struct OutPointHasher {
    state: u64,
    key: u64,
}

impl OutPointHasher {
    fn fold(&mut self, word: u64) {
        let product = u128::from(self.state ^ word) * u128::from(self.key | 1);
        self.state = (product as u64).rotate_left(23) ^ (product >> 64) as u64;
    }
}

impl Hasher for OutPointHasher {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.fold(u64::from_le_bytes(word));
        }
    }

    fn write_u32(&mut self, number: u32) {
        self.fold(u64::from(number));
    }

    /// Ignores the length prefix of slices, which is the same for all outpoints.
    fn write_usize(&mut self, _: usize) {}

    fn finish(&self) -> u64 {
        let product = u128::from(self.state) * u128::from(self.key | 1);
        (product as u64) ^ (product >> 64) as u64
    }
}

/// An unspent output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Coin {
    /// Amount and script.
    pub output: TxOut,
    /// Height of the block that created it.
    pub height: u32,
    /// Whether a coinbase created it.
    pub coinbase: bool,
}

impl Coin {
    /// Whether an output can never be spent and is therefore not kept: OP_RETURN first, or a script above 10,000 bytes
    /// (`IsUnspendable`).
    pub fn is_unspendable(output: &TxOut) -> bool {
        let script = output.script_pubkey.as_bytes();
        script.first() == Some(&bitcoin::opcodes::all::OP_RETURN.to_u8()) || script.len() > 10_000
    }
}

/// The coins as of a block's parent.
pub trait CoinView {
    /// An error of the storage, never a broken rule.
    type Error;

    /// The coin, if it exists and is unspent.
    ///
    /// # Errors
    /// Only when the storage fails.
    fn coin(&self, outpoint: &OutPoint) -> Result<Option<Coin>, Self::Error>;

    /// Whether the coin exists and is unspent.
    ///
    /// # Errors
    /// Only when the storage fails.
    fn has_coin(&self, outpoint: &OutPoint) -> Result<bool, Self::Error> {
        Ok(self.coin(outpoint)?.is_some())
    }
}

impl CoinView for BTreeMap<OutPoint, Coin> {
    type Error = std::convert::Infallible;

    fn coin(&self, outpoint: &OutPoint) -> Result<Option<Coin>, Self::Error> {
        Ok(self.get(outpoint).cloned())
    }
}
