//! A digest of the whole coin set, equal to `hash_serialized_2` of IoP Core's `gettxoutsetinfo` (`GetUTXOStats`),
//! so that two nodes can be compared.
//!
//! Coins must be added ordered by the bytes of their transaction id, then by output index.

use bitcoin::consensus::encode::serialize;
use bitcoin::hashes::{Hash, HashEngine, sha256, sha256d};
use bitcoin::{BlockHash, OutPoint, Txid};
use iop_consensus::coins::Coin;

/// A digest in progress.
pub(crate) struct CoinSetHash {
    engine: sha256::HashEngine,
    /// The transaction of the coin added last.
    current: Option<Txid>,
    /// Number of coins so far.
    pub(crate) coins: u64,
    /// Their total value, base units.
    pub(crate) amount: u64,
}

impl CoinSetHash {
    /// Starts the digest of the coins as of the block `tip`.
    pub(crate) fn new(tip: &BlockHash) -> Self {
        let mut engine = sha256d::Hash::engine();
        engine.input(tip.as_ref());
        Self { engine, current: None, coins: 0, amount: 0 }
    }

    /// Adds the next coin in order.
    pub(crate) fn add(&mut self, outpoint: &OutPoint, coin: &Coin) {
        if self.current != Some(outpoint.txid) {
            self.close();
            self.current = Some(outpoint.txid);
            self.engine.input(outpoint.txid.as_ref());
            self.number(u64::from(coin.height) * 2 + u64::from(coin.coinbase));
        }
        self.number(u64::from(outpoint.vout) + 1);
        self.engine.input(&serialize(&coin.output.script_pubkey));
        self.number(coin.output.value.to_sat());
        self.coins += 1;
        self.amount += coin.output.value.to_sat();
    }

    /// The digest as hex text.
    pub(crate) fn finish(mut self) -> String {
        self.close();
        sha256d::Hash::from_engine(self.engine).to_string()
    }

    /// Finishes the coins of a transaction.
    fn close(&mut self) {
        if self.current.is_some() {
            self.number(0);
        }
    }

    /// Core's VARINT: seven bits per byte, highest first; one is subtracted in all but the last.
    fn number(&mut self, mut number: u64) {
        let mut bytes = vec![(number & 0x7f) as u8];
        while number > 0x7f {
            number = (number >> 7) - 1;
            bytes.push((number & 0x7f) as u8 | 0x80);
        }
        bytes.reverse();
        self.engine.input(&bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitcoin::hashes::Hash;

    #[test]
    fn numbers_are_written_as_the_reference_does() {
        // Examples from the comment in Core's serialize.h.
        for (number, bytes) in [
            (0u64, &[0u8][..]),
            (127, &[0x7f]),
            (128, &[0x80, 0x00]),
            (255, &[0x80, 0x7f]),
            (256, &[0x81, 0x00]),
            (16_383, &[0xfe, 0x7f]),
            (16_384, &[0xff, 0x00]),
            (65_535, &[0x82, 0xfe, 0x7f]),
        ] {
            let tip = BlockHash::all_zeros();
            let mut hash = CoinSetHash::new(&tip);
            hash.number(number);
            let oracle = sha256d::Hash::hash(&[tip.as_ref() as &[u8], bytes].concat());
            assert_eq!(hash.finish(), oracle.to_string(), "{number}");
        }
    }
}
