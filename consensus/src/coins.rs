//! Coins: the unspent outputs, and how the rules look at them.
//!
//! [`CoinView`] is the only thing that connecting a block asks of storage. A [`BTreeMap`] is a view, for
//! tests and tools; the node's is its database behind a cache.

use std::collections::BTreeMap;

use bitcoin::{OutPoint, TxOut};

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
    /// Outputs that can never be spent are not kept: OP_RETURN first, or a script above 10,000 bytes
    /// (`IsUnspendable`).
    pub fn is_unspendable(output: &TxOut) -> bool {
        let script = output.script_pubkey.as_bytes();
        script.first() == Some(&bitcoin::opcodes::all::OP_RETURN.to_u8()) || script.len() > 10_000
    }
}

/// The coins as of a block's parent.
pub trait CoinView {
    /// What can go wrong in getting one: the storage's error, never a rule.
    type Error;

    /// The coin, if it exists and is unspent.
    ///
    /// # Errors
    /// Only when the storage fails.
    fn coin(&self, outpoint: &OutPoint) -> Result<Option<Coin>, Self::Error>;
}

impl CoinView for BTreeMap<OutPoint, Coin> {
    type Error = std::convert::Infallible;

    fn coin(&self, outpoint: &OutPoint) -> Result<Option<Coin>, Self::Error> {
        Ok(self.get(outpoint).cloned())
    }
}
