//! A map of coins that grows in small steps, and the compact form of a coin in it.
//!
//! Lives here: [`Shards`], many small hash maps instead of a large one, so that growing one copies little; and
//! [`Packed`], a coin that needs no allocation of its own for the common scripts. Does not live here: what the maps
//! mean.

use bitcoin::hashes::Hash;
use bitcoin::{Amount, OutPoint, PubkeyHash, ScriptBuf, ScriptHash, TxOut};
use iop_consensus::coins::{Coin, CoinMap};

/// Number of maps; a power of two.
const SHARDS: usize = 64;

/// A coin in its compact in-memory form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Packed {
    script: PackedScript,
    amount: u64,
    /// Height times two plus the coinbase bit.
    code: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum PackedScript {
    KeyHash([u8; 20]),
    ScriptHash([u8; 20]),
    Other(Box<[u8]>),
}

impl Packed {
    pub(super) fn new(output: &TxOut, height: u32, coinbase: bool) -> Self {
        let bytes = output.script_pubkey.as_bytes();
        let hash = |at: usize| <[u8; 20]>::try_from(&bytes[at..at + 20]).expect("twenty bytes were cut out");
        let script = if output.script_pubkey.is_p2pkh() {
            PackedScript::KeyHash(hash(3))
        } else if output.script_pubkey.is_p2sh() {
            PackedScript::ScriptHash(hash(2))
        } else {
            PackedScript::Other(bytes.into())
        };
        Self { script, amount: output.value.to_sat(), code: height << 1 | u32::from(coinbase) }
    }

    pub(super) fn of_coin(coin: &Coin) -> Self {
        Self::new(&coin.output, coin.height, coin.coinbase)
    }

    pub(super) fn unpack(&self) -> Coin {
        let script_pubkey = match &self.script {
            PackedScript::KeyHash(hash) => ScriptBuf::new_p2pkh(&PubkeyHash::from_byte_array(*hash)),
            PackedScript::ScriptHash(hash) => ScriptBuf::new_p2sh(&ScriptHash::from_byte_array(*hash)),
            PackedScript::Other(bytes) => ScriptBuf::from_bytes(bytes.to_vec()),
        };
        let output = TxOut { value: Amount::from_sat(self.amount), script_pubkey };
        Coin { output, height: self.code >> 1, coinbase: self.code & 1 != 0 }
    }
}

/// The heap memory of a value, besides its slot in the map.
pub(super) trait Heap {
    /// Bytes, as the allocator rounds them.
    fn heap(&self) -> usize;
}

impl Heap for Packed {
    fn heap(&self) -> usize {
        match &self.script {
            PackedScript::Other(bytes) if !bytes.is_empty() => (bytes.len() + 8).next_multiple_of(16).max(32),
            _ => 0,
        }
    }
}

impl Heap for super::Changed {
    fn heap(&self) -> usize {
        self.coin.as_ref().map_or(0, Heap::heap)
    }
}

/// A map by outpoint, split into many parts.
pub(super) struct Shards<V> {
    maps: Vec<CoinMap<V>>,
    len: usize,
    heap: usize,
    next_to_drop: usize,
}

impl<V> Default for Shards<V> {
    fn default() -> Self {
        Self { maps: (0..SHARDS).map(|_| CoinMap::default()).collect(), len: 0, heap: 0, next_to_drop: 0 }
    }
}

fn shard(outpoint: &OutPoint) -> usize {
    usize::from(outpoint.txid.as_raw_hash().as_byte_array()[0]) % SHARDS
}

impl<V: Heap> Shards<V> {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Bytes of the maps and of what their values hold.
    pub(super) fn bytes(&self) -> usize {
        // One control byte per slot, and an eighth of the slots always free.
        let place = size_of::<(OutPoint, V)>() + 1;
        self.maps.iter().map(|map| map.capacity() / 7 * 8 * place).sum::<usize>() + self.heap
    }

    /// Heap bytes of the values, besides their slots.
    pub(super) fn bytes_beyond_places(&self) -> usize {
        self.heap
    }

    pub(super) fn get(&self, outpoint: &OutPoint) -> Option<&V> {
        self.maps[shard(outpoint)].get(outpoint)
    }

    pub(super) fn insert(&mut self, outpoint: OutPoint, value: V) {
        self.heap += value.heap();
        match self.maps[shard(&outpoint)].insert(outpoint, value) {
            Some(old) => self.heap -= old.heap(),
            None => self.len += 1,
        }
    }

    pub(super) fn remove(&mut self, outpoint: &OutPoint) {
        if let Some(old) = self.maps[shard(outpoint)].remove(outpoint) {
            self.len -= 1;
            self.heap -= old.heap();
        }
    }

    /// Drops one part; returns false when all are empty.
    pub(super) fn drop_one_shard(&mut self) -> bool {
        if self.maps.iter().all(|map| map.capacity() == 0) {
            return false;
        }
        let place = self.next_to_drop;
        self.next_to_drop = (place + 1) % SHARDS;
        let dropped = std::mem::take(&mut self.maps[place]);
        self.len -= dropped.len();
        self.heap -= dropped.values().map(Heap::heap).sum::<usize>();
        true
    }

    /// Takes all entries out, one part at a time, freeing memory along the way.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = (OutPoint, V)> + use<V> {
        let maps = std::mem::take(self).maps;
        maps.into_iter().flatten()
    }
}
