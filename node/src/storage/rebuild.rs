//! Rebuilds everything that can be derived from the stored blocks.
//!
//! Lives here: the database part of `reindex`: iterating over all stored blocks, whatever the index says, and the
//! batch that deletes everything else. Does not live here: building the new index; see `offline/reindex.rs`.

use std::collections::BTreeSet;

use bitcoin::BlockHash;
use bitcoin::block::Header;
use bitcoin::consensus::encode::deserialize;
use rocksdb::{Direction, IteratorMode, WriteBatch};

use super::schema::IndexRecord;
use super::{Column, META_FORMAT, META_NETWORK, Storage, StorageError};

/// Columns that can be derived from the blocks.
const DERIVED: [Column; 5] = [Column::Index, Column::Undo, Column::Coins, Column::Licenses, Column::Miners];
/// Greater than every key of those columns.
const ABOVE_ALL_KEYS: [u8; 64] = [0xff; 64];

impl Storage {
    /// Calls `see` with key and bytes of every stored block, ordered by key; without bytes if the database cannot read
    /// them. An iterator ends at such a block without naming it, so it is continued at one of `hashes`, those in the index.
    pub(crate) fn for_each_block(
        &self,
        hashes: &BTreeSet<BlockHash>,
        mut see: impl FnMut(&[u8], Option<&[u8]>),
    ) {
        let column = self.handle(Column::Blocks);
        let mut next: Option<Vec<u8>> = Some(Vec::new());
        while let Some(from) = next.take() {
            let mut last = None;
            for item in self.db.iterator_cf(column, IteratorMode::From(&from, Direction::Forward)) {
                let Ok((key, value)) = item else {
                    next = self.after_unreadable(&last.unwrap_or(from), hashes, &mut see);
                    break;
                };
                see(&key, Some(&value));
                last = Some(key.into_vec());
            }
        }
    }

    /// The key at which to continue if the block after the key `last` cannot be read: the next one in the index that can.
    fn after_unreadable(
        &self,
        last: &[u8],
        hashes: &BTreeSet<BlockHash>,
        see: &mut impl FnMut(&[u8], Option<&[u8]>),
    ) -> Option<Vec<u8>> {
        let mut known = hashes.iter().map(AsRef::<[u8]>::as_ref).skip_while(|hash| *hash <= last);
        known.find_map(|hash| match self.db.get_pinned_cf(self.handle(Column::Blocks), hash) {
            Ok(None) => None,
            Ok(Some(_)) => Some(hash.to_vec()),
            Err(_) => {
                see(hash, None);
                None
            }
        })
    }

    /// The headers of the index that can be decoded and match their keys, and whether any block was pruned. Blocks hold
    /// their headers too, so an index that cannot be read to its end is no error.
    pub(crate) fn readable_headers(&self) -> (Vec<(BlockHash, Header)>, bool) {
        let (mut headers, mut pruned) = (Vec::new(), false);
        for item in self.db.iterator_cf(self.handle(Column::Index), IteratorMode::Start) {
            let Ok((key, value)) = item else { break };
            let Some(record) = IndexRecord::decode(&value) else { continue };
            pruned |= record.pruned;
            let hash = record.header.block_hash();
            if Self::block_of_key(&key) == Some(hash) {
                headers.push((hash, record.header));
            }
        }
        (headers, pruned)
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeMap;
    use std::fs;
    use std::sync::Arc;

    use bitcoin::hashes::Hash;
    use iop_consensus::params::Params;

    use super::*;

    /// A byte that fell over on the disk: the database gives an error in the place of the block.
    #[test]
    fn a_block_that_the_disk_has_spoilt_hides_no_other() {
        let (dir, params) = (tempfile::tempdir().unwrap(), Params::regtest());
        let hashes: BTreeSet<BlockHash> = (0..20_u8).map(|number| BlockHash::hash(&[number])).collect();
        let storage = Arc::new(Storage::open(dir.path(), &params).unwrap());
        let mut batch = storage.batch();
        for hash in &hashes {
            batch.put_block(hash, &[hash.as_byte_array()[0]; 5_000]);
        }
        storage.commit(batch).unwrap();
        storage.db.flush_cf(storage.handle(Column::Blocks)).unwrap();
        drop(storage);
        // Of the first, of two that follow each other, and of the last.
        let order: Vec<&BlockHash> = hashes.iter().collect();
        let spoilt: BTreeSet<BlockHash> = [0, 7, 8, 19].into_iter().map(|place| *order[place]).collect();
        let is_blob = |path: &std::path::PathBuf| path.extension().is_some_and(|end| end == "blob");
        let files = walk(dir.path());
        for path in files.iter().filter(|path| is_blob(path)) {
            let mut bytes = fs::read(path).unwrap();
            for hash in &spoilt {
                let key = bytes.windows(32).position(|bytes| bytes == hash.as_byte_array());
                if let Some(key) = key {
                    bytes[key + 32] ^= 1;
                }
            }
            fs::write(path, bytes).unwrap();
        }
        let storage = Storage::open(dir.path(), &params).unwrap();
        for known in [hashes.clone(), hashes.iter().step_by(2).copied().collect()] {
            let mut seen = BTreeMap::new();
            storage.for_each_block(&known, |key, bytes| {
                let hash = Storage::block_of_key(key).unwrap();
                assert!(seen.insert(hash, bytes.map(<[u8]>::to_vec)).is_none(), "each once");
            });
            for hash in &hashes {
                match seen.get(hash) {
                    Some(Some(bytes)) => assert_eq!(bytes[..], [hash.as_byte_array()[0]; 5_000]),
                    Some(None) => assert!(spoilt.contains(hash)),
                    None => assert!(!known.contains(hash), "{hash} is in the index"),
                }
            }
        }
    }

    fn walk(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
        let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
    }
}
