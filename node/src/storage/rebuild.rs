//! Making everything anew that can be made from the stored blocks.
//!
//! Lives here: what `reindex` needs of the database: every block as it lies there, whatever the index says, and the
//! one batch that forgets all the rest. Does not live here: what the new index is; see `offline/reindex.rs`.

use bitcoin::BlockHash;
use bitcoin::block::Header;
use bitcoin::consensus::encode::deserialize;
use rocksdb::{IteratorMode, WriteBatch};

use super::schema::IndexRecord;
use super::{Column, META_FORMAT, META_NETWORK, Storage, StorageError};

/// Columns that follow from the blocks.
const DERIVED: [Column; 5] = [Column::Index, Column::Undo, Column::Coins, Column::Licenses, Column::Miners];
/// Above every key of those columns.
const ABOVE_ALL_KEYS: [u8; 64] = [0xff; 64];

impl Storage {
    /// Shows the key and the bytes of every stored block, in order of the keys.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub(crate) fn for_each_block(&self, mut see: impl FnMut(&[u8], &[u8])) -> Result<(), StorageError> {
        for item in self.db.iterator_cf(self.handle(Column::Blocks), IteratorMode::Start) {
            let (key, value) = item?;
            see(&key, &value);
        }
        Ok(())
    }

    /// The index's headers as far as they can be read and belong to their keys, and whether a block was pruned.
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

    /// Forgets everything but blocks, and the tip too, and puts this index in its place; also forgets the blocks under
    /// `bad` keys. All of it at once: whatever happens, the old state is there, or the new one.
    ///
    /// # Errors
    /// When the database refuses; then nothing has changed.
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
        // Else every question for a coin would meet what was forgotten.
        for column in DERIVED {
            self.db.compact_range_cf(self.handle(column), None::<&[u8]>, None::<&[u8]>);
        }
        Ok(())
    }

    /// The hash of a key, if it is one.
    pub(crate) fn block_of_key(key: &[u8]) -> Option<BlockHash> {
        deserialize(key).ok()
    }
}
