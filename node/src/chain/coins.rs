//! The coins as of the tip: a cache of unwritten changes over the database.
//!
//! Lives here: [`Coins`], the only correct view of the coins between two database writes; its memory use, and when
//! it is full. Does not live here: encodings (`storage`), rules, when to write (`flush.rs`). Data goes: connected
//! or disconnected block -> changes cached here -> one storage batch, together with the tip.

mod shards;

use std::sync::Arc;

use bitcoin::{Block, OutPoint};
use iop_consensus::coins::{Coin, CoinMap, CoinView};
use iop_consensus::connect::{Change, Connected};
use rayon::prelude::*;

use crate::storage::{Batch, Storage, StorageError};
use shards::{Packed, Shards};

/// Extra bytes that a changed coin takes while it is written: in the batch and in the database's buffer.
const WRITE_BYTES: usize = 200;
/// Maximum bytes that a coin with a common script takes in a batch: marks, outpoint, code, amount, script.
const BATCH_BYTES: usize = 4 + 36 + 4 + 8 + 26;
/// Fewer database reads than this are not worth waking other threads for.
const PARALLEL_READS: usize = 16;

/// A coin that differs from the database.
#[derive(Debug, Clone)]
struct Changed {
    /// The coin; `None` when it is spent.
    coin: Option<Packed>,
    /// The database has no coin at this outpoint, so a spent one needs no deletion.
    fresh: bool,
}

/// The coins as of the tip.
pub struct Coins {
    storage: Arc<Storage>,
    limit: usize,
    /// Not yet written.
    changed: Shards<Changed>,
    /// Unchanged since read from the database.
    read: Shards<Packed>,
    /// Coins spent by blocks: `hits` were found in memory, `misses` were read from the database.
    hits: u64,
    misses: u64,
}

impl Coins {
    /// A cache of about `limit` bytes over the database.
    pub(super) fn new(storage: Arc<Storage>, limit: usize) -> Self {
        Self { storage, limit, changed: Shards::default(), read: Shards::default(), hits: 0, misses: 0 }
    }

    /// Bytes in use, including what writing them will take.
    pub fn usage(&self) -> usize {
        self.read.bytes() + self.changed_usage()
    }

    /// Coins held in memory.
    pub fn cached(&self) -> usize {
        self.read.len() + self.changed.len()
    }

    /// Coins spent by connected blocks that were in memory.
    pub fn hits(&self) -> u64 {
        self.hits
    }

    /// Coins spent by connected blocks that had to be looked up in the database, whether or not they exist there.
    pub fn misses(&self) -> u64 {
        self.misses
    }

    /// Keeps nothing in memory after the next write.
    pub(super) fn keep_nothing(&mut self) {
        self.limit = 0;
    }

    fn changed_usage(&self) -> usize {
        self.changed.bytes() + self.changed.len() * WRITE_BYTES
    }

    /// Whether unwritten changes alone fill the cache. Coins that were only read are evicted first.
    pub(super) fn is_full(&mut self) -> bool {
        while self.usage() > self.limit && self.read.drop_one_shard() {}
        self.usage() > self.limit
    }

    /// Reads into memory all coins that the block spends. Uses all cores if there are enough reads.
    pub(super) fn fetch(&mut self, block: &Block) -> Result<(), StorageError> {
        let inputs = block.txdata.iter().skip(1).flat_map(|tx| &tx.input);
        let mut spent = 0u64;
        let inputs = inputs.inspect(|_| spent += 1);
        let missing: Vec<OutPoint> =
            inputs.map(|input| input.previous_output).filter(|outpoint| !self.is_cached(outpoint)).collect();
        self.misses += missing.len() as u64;
        self.hits += spent - missing.len() as u64;
        let read = |outpoint: &OutPoint| self.storage.stored_coin(outpoint);
        let found: Vec<Option<Coin>> = if missing.len() < PARALLEL_READS {
            missing.iter().map(read).collect::<Result<_, _>>()?
        } else {
            missing.par_iter().map(read).collect::<Result<_, _>>()?
        };
        for (outpoint, coin) in missing.into_iter().zip(found) {
            if let Some(coin) = coin {
                self.read.insert(outpoint, Packed::of_coin(&coin));
            }
        }
        Ok(())
    }

    fn is_cached(&self, outpoint: &OutPoint) -> bool {
        self.changed.get(outpoint).is_some() || self.read.get(outpoint).is_some()
    }

    /// Applies the changes of a connected block.
    pub(super) fn connect(&mut self, connected: &Connected<'_>) {
        for (outpoint, change) in &connected.coins {
            match *change {
                Change::Created { output, coinbase } => {
                    let coin = Packed::new(output, connected.height, coinbase);
                    // The coin did not exist (BIP30), but the database still has it if its deletion is not written
                    // yet.
                    let fresh = self.changed.get(outpoint).is_none_or(|changed| changed.fresh);
                    self.changed.insert(*outpoint, Changed { coin: Some(coin), fresh });
                }
                Change::Spent => self.spend(outpoint),
            }
        }
    }

    /// Applies the changes of a disconnected block.
    pub(super) fn disconnect(&mut self, changes: CoinMap<Option<Coin>>) {
        for (outpoint, coin) in changes {
            match coin {
                Some(coin) => {
                    let fresh = self.changed.get(&outpoint).is_some_and(|changed| changed.fresh);
                    self.read.remove(&outpoint);
                    self.changed.insert(outpoint, Changed { coin: Some(Packed::of_coin(&coin)), fresh });
                }
                None => self.spend(&outpoint),
            }
        }
    }

    fn spend(&mut self, outpoint: &OutPoint) {
        if self.changed.get(outpoint).is_some_and(|changed| changed.fresh) {
            self.changed.remove(outpoint);
        } else {
            self.read.remove(outpoint);
            self.changed.insert(*outpoint, Changed { coin: None, fresh: false });
        }
    }

    /// Approximate bytes of the batch that [`Coins::flush_into`] fills. Unused room is never touched.
    pub(super) fn batch_bytes(&self) -> usize {
        self.changed.len() * BATCH_BYTES + self.changed.bytes_beyond_places()
    }

    /// Puts all changes into a batch. Unless memory is short, the coins are kept as read. The batch must be
    /// committed, or the node must end.
    pub(super) fn flush_into(&mut self, batch: &mut Batch) {
        let keep = self.usage() < self.limit / 2;
        if !keep {
            self.read = Shards::default();
        }
        for (outpoint, Changed { coin, .. }) in self.changed.drain() {
            match coin {
                Some(coin) => {
                    batch.put_coin(&outpoint, &coin.unpack());
                    if keep {
                        self.read.insert(outpoint, coin);
                    }
                }
                None => batch.delete_coin(&outpoint),
            }
        }
    }
}

impl CoinView for Coins {
    type Error = StorageError;

    fn coin(&self, outpoint: &OutPoint) -> Result<Option<Coin>, StorageError> {
        if let Some(changed) = self.changed.get(outpoint) {
            return Ok(changed.coin.as_ref().map(Packed::unpack));
        }
        match self.read.get(outpoint) {
            Some(coin) => Ok(Some(coin.unpack())),
            None => self.storage.stored_coin(outpoint),
        }
    }

    fn has_coin(&self, outpoint: &OutPoint) -> Result<bool, StorageError> {
        if let Some(changed) = self.changed.get(outpoint) {
            return Ok(changed.coin.is_some());
        }
        if self.read.get(outpoint).is_some() {
            return Ok(true);
        }
        self.storage.has_stored_coin(outpoint)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use bitcoin::hashes::Hash;
    use bitcoin::{Amount, ScriptBuf, TxOut, Txid};
    use iop_consensus::params::Params;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    use super::*;

    fn outpoint(number: u8) -> OutPoint {
        OutPoint { txid: Txid::from_byte_array([number / 4; 32]), vout: u32::from(number % 4) }
    }

    fn coin(number: u8, salt: u8) -> Coin {
        let script = match number % 3 {
            0 => ScriptBuf::new_p2pkh(&bitcoin::PubkeyHash::from_byte_array([salt; 20])),
            1 => ScriptBuf::new_p2sh(&bitcoin::ScriptHash::from_byte_array([salt; 20])),
            _ => ScriptBuf::from_bytes(vec![salt; usize::from(number)]),
        };
        let output = TxOut { value: Amount::from_sat(u64::from(salt)), script_pubkey: script };
        Coin { output, height: u32::from(number), coinbase: number.is_multiple_of(2) }
    }

    /// What happens to the coin with a number: it is created or spent, whichever is possible; or all changes are
    /// written.
    #[derive(Debug, Clone)]
    enum Step {
        Toggle(u8, u8, bool),
        Flush,
        Look(u8),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            8 => (0u8..32, any::<u8>(), any::<bool>()).prop_map(|(n, salt, back)| Step::Toggle(n, salt, back)),
            1 => Just(Step::Flush),
            3 => (0u8..32).prop_map(Step::Look),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]
        #[test]
        fn coins_and_database_agree_with_a_plain_map(
            steps in prop::collection::vec(step(), 1..200),
            limit in prop_oneof![Just(0usize), Just(1 << 20)],
        ) {
            let dir = tempfile::tempdir().unwrap();
            let storage = Arc::new(Storage::open(dir.path(), &Params::regtest()).unwrap());
            let mut coins = Coins::new(storage.clone(), limit);
            let mut model: BTreeMap<OutPoint, Coin> = BTreeMap::new();
            for step in steps {
                match step {
                    Step::Toggle(number, salt, by_disconnect) => {
                        let (outpoint, coin) = (outpoint(number), coin(number, salt));
                        let there = model.remove(&outpoint).is_some();
                        if !there {
                            model.insert(outpoint, coin.clone());
                        }
                        if by_disconnect {
                            coins.disconnect([(outpoint, (!there).then_some(coin))].into_iter().collect());
                        } else {
                            let change = if there {
                                Change::Spent
                            } else {
                                Change::Created { output: &coin.output, coinbase: coin.coinbase }
                            };
                            coins.connect(&connected(coin.height, outpoint, change));
                        }
                    }
                    Step::Flush => {
                        let mut batch = storage.batch();
                        coins.flush_into(&mut batch);
                        storage.commit(batch).unwrap();
                        let mut stored = BTreeMap::new();
                        storage.for_each_coin(|outpoint, coin| { stored.insert(outpoint, coin); }).unwrap();
                        prop_assert_eq!(&stored, &model);
                    }
                    Step::Look(number) => {
                        let outpoint = outpoint(number);
                        coins.is_full();
                        prop_assert_eq!(coins.coin(&outpoint).unwrap(), model.get(&outpoint).cloned());
                        prop_assert_eq!(coins.has_coin(&outpoint).unwrap(), model.contains_key(&outpoint));
                    }
                }
            }
        }
    }

    fn connected(height: u32, outpoint: OutPoint, change: Change<'_>) -> Connected<'_> {
        let registry = iop_consensus::license::registry::Registry::genesis(&Params::regtest());
        Connected {
            height,
            coins: [(outpoint, change)].into_iter().collect(),
            spent: Vec::new(),
            registry: iop_consensus::license::registry::RegistryUndo {
                globals: *registry.globals(),
                licenses: BTreeMap::new(),
            },
            actions: Vec::new(),
        }
    }
}
