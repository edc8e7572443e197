//! Rebuilds everything that can be derived from the stored blocks.
//!
//! Lives here: the database part of `reindex`: iterating over all stored blocks, whatever the index says, and the
//! batch that deletes everything else. Does not live here: building the new index; see `offline/reindex.rs`.

use bitcoin::BlockHash;
use bitcoin::block::Header;
use bitcoin::consensus::encode::deserialize;
use rocksdb::{IteratorMode, WriteBatch};

use super::schema::IndexRecord;
use super::{Column, META_FORMAT, META_NETWORK, Storage, StorageError};

/// Columns that can be derived from the blocks.
const DERIVED: [Column; 5] = [Column::Index, Column::Undo, Column::Coins, Column::Licenses, Column::Miners];
/// Greater than every key of those columns.
const ABOVE_ALL_KEYS: [u8; 64] = [0xff; 64];

impl Storage {
    /// Calls `see` with key and bytes of every stored block, ordered by key.
    ///
    /// # Errors
    /// When the database cannot be read. Then it is not known what else is stored.
    pub(crate) fn for_each_block(&self, mut see: impl FnMut(&[u8], &[u8])) -> Result<(), StorageError> {
        for item in self.db.iterator_cf(self.handle(Column::Blocks), IteratorMode::Start) {
            let (key, value) = item?;
            see(&key, &value);
        }
        Ok(())
    }

    /// The headers of the index that can be decoded and match their keys, and whether any block was pruned.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub(crate) fn readable_headers(&self) -> Result<(Vec<(BlockHash, Header)>, bool), StorageError> {
        let (mut headers, mut pruned) = (Vec::new(), false);
        for item in self.db.iterator_cf(self.handle(Column::Index), IteratorMode::Start) {
            let (key, value) = item?;
            let Some(record) = IndexRecord::decode(&value) else { continue };
            pruned |= record.pruned;
            let hash = record.header.block_hash();
            if Self::block_of_key(&key) == Some(hash) {
                headers.push((hash, record.header));
            }
        }
        Ok((headers, pruned))
    }

    /// Deletes everything except blocks, including the tip, and stores this index instead; also deletes the blocks
    /// under `bad` keys. This is atomic: a crash leaves the old state or the new one.
    ///
    /// # Errors
    /// When RocksDB fails; nothing has changed then.
    pub(crate) fn forget_derived(
        &self,
        index: &[(BlockHash, IndexRecord)],
        bad: &[Vec<u8>],
    ) -> Result<(), StorageError> {
        let mut writes = WriteBatch::default();
        for column in DERIVED {
            writes.delete_range_cf(self.handle(column), &[][..], &ABOVE_ALL_KEYS[..]);
        }
        for item in self.db.iterator_cf(self.handle(Column::Meta), IteratorMode::Start) {
            let (key, _) = item?;
            if ![META_FORMAT, META_NETWORK].contains(&&key[..]) {
                writes.delete_cf(self.handle(Column::Meta), key);
            }
        }
        for key in bad {
            writes.delete_cf(self.handle(Column::Blocks), key);
        }
        for (hash, record) in index {
            writes.put_cf(self.handle(Column::Index), hash, record.encode());
        }
        self.db.write(writes)?;
        // Otherwise every coin lookup would have to skip the deleted entries.
        for column in DERIVED {
            self.db.compact_range_cf(self.handle(column), None::<&[u8]>, None::<&[u8]>);
        }
        Ok(())
    }

    /// The block hash that a key encodes, if it is valid.
    pub(crate) fn block_of_key(key: &[u8]) -> Option<BlockHash> {
        deserialize(key).ok()
    }
}
