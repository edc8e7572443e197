//! Atomic writes.
//!
//! Lives here: [`Batch`], the only way to write: typed puts, each encoded straight into RocksDB's batch. Does not
//! live here: what belongs into one batch; the chain decides that. Data goes: chain -> batch ->
//! [`Storage::commit`], which applies all of it or nothing.

use std::sync::Arc;

use bitcoin::BlockHash;
use bitcoin::OutPoint;
use bitcoin::consensus::encode;
use iop_consensus::address::Address;
use iop_consensus::coins::Coin;
use iop_consensus::license::registry::Registry;
use rocksdb::WriteBatch;

use super::schema::{self, IndexRecord};
use super::{Column, META_GLOBALS, META_TIP, Storage};

/// Changes to one database that are applied atomically.
pub struct Batch {
    storage: Arc<Storage>,
    writes: WriteBatch,
}

impl Batch {
    pub(super) fn new(storage: Arc<Storage>) -> Self {
        Self { storage, writes: WriteBatch::default() }
    }

    /// A batch that grows up to `bytes` without being moved; growing by doubling would copy it each time.
    pub(super) fn with_capacity(storage: Arc<Storage>, bytes: usize) -> Self {
        Self { storage, writes: WriteBatch::with_capacity_bytes(bytes) }
    }

    pub(super) fn into_writes(self) -> WriteBatch {
        self.writes
    }

    fn put(&mut self, column: Column, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) {
        self.writes.put_cf(self.storage.handle(column), key, value);
    }

    fn delete(&mut self, column: Column, key: impl AsRef<[u8]>) {
        self.writes.delete_cf(self.storage.handle(column), key);
    }

    /// Stores a block.
    pub fn put_block(&mut self, hash: &BlockHash, bytes: &[u8]) {
        self.put(Column::Blocks, hash, bytes);
    }

    /// Deletes a block and its undo data.
    pub fn delete_block(&mut self, hash: &BlockHash) {
        self.delete(Column::Blocks, hash);
        self.delete(Column::Undo, hash);
    }

    /// Stores an index record.
    pub fn put_index(&mut self, hash: &BlockHash, record: &IndexRecord) {
        self.put(Column::Index, hash, record.encode());
    }

    /// Stores a block's undo data, encoded by [`schema::BlockUndo::encode`].
    pub fn put_undo(&mut self, hash: &BlockHash, encoded: &[u8]) {
        self.put(Column::Undo, hash, encoded);
    }

    /// Stores a created coin.
    pub fn put_coin(&mut self, outpoint: &OutPoint, coin: &Coin) {
        self.put(Column::Coins, schema::encode_outpoint(outpoint), schema::encode_coin(coin));
    }

    /// Deletes a spent coin.
    pub fn delete_coin(&mut self, outpoint: &OutPoint) {
        self.delete(Column::Coins, schema::encode_outpoint(outpoint));
    }

    /// Stores the registry's globals, the given licenses, and the licenses that the blocks at `heights` were
    /// counted for.
    pub fn put_registry<'a>(
        &mut self,
        registry: &Registry,
        licenses: impl IntoIterator<Item = &'a Address>,
        heights: impl IntoIterator<Item = u32>,
    ) {
        self.put(Column::Meta, META_GLOBALS, schema::encode_globals(registry.globals()));
        for address in licenses {
            let key = schema::encode_address(address);
            match registry.license(address) {
                Some(record) => self.put(Column::Licenses, key, schema::encode_license(record)),
                None => self.delete(Column::Licenses, key),
            }
        }
        for height in heights {
            match registry.miner_of(height) {
                Some(miner) => self.put(Column::Miners, height.to_be_bytes(), schema::encode_address(miner)),
                None => self.delete(Column::Miners, height.to_be_bytes()),
            }
        }
    }

    /// Stores the tip.
    pub fn put_tip(&mut self, hash: &BlockHash) {
        self.put(Column::Meta, META_TIP, encode::serialize(hash));
    }
}
