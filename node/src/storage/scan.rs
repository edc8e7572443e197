//! Reads the whole coin set from one snapshot while the chain goes on.
//!
//! Lives here: [`Storage::scan_coins`]. Does not live here: what is computed from it. Every batch that changes
//! coins also writes the tip, so a snapshot is the coin set of exactly the block that it names.

use bitcoin::{BlockHash, OutPoint, Txid, consensus::encode};
use iop_consensus::coins::Coin;
use rocksdb::{DBPinnableSlice, Direction, IteratorMode, ReadOptions};

use super::{Column, META_TIP, Storage, StorageError, schema};

/// Read-ahead of a scan, bytes: it is one long sequential read.
const READ_AHEAD: usize = 2 * 1024 * 1024;

/// Whether a scan continues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scan {
    /// Continue with the next coin.
    GoOn,
    /// Stop: the scan returns no result.
    Stop,
}

impl Storage {
    /// Calls `begin` with the block as of which the coins are read, then `visit` with every coin, ordered by
    /// transaction id (in hash byte order) and output. Returns that block, or `None` if `visit` stopped. Unwritten
    /// changes are not seen: flush before.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn scan_coins(
        &self,
        begin: impl FnOnce(BlockHash),
        mut visit: impl FnMut(OutPoint, Coin) -> Scan,
    ) -> Result<Option<BlockHash>, StorageError> {
        let snapshot = self.db.snapshot();
        let tip: Option<DBPinnableSlice<'_>> = snapshot.get_pinned_cf(self.handle(Column::Meta), META_TIP)?;
        let tip = tip.ok_or_else(|| StorageError::inconsistent("there is no tip"))?;
        let tip: BlockHash =
            encode::deserialize(&tip).map_err(|_| StorageError::inconsistent("the tip is no hash"))?;
        begin(tip);
        let mut options = ReadOptions::default();
        // The coins that a scan reads are not the ones the next blocks need.
        options.fill_cache(false);
        options.set_readahead_size(READ_AHEAD);
        for item in snapshot.iterator_cf_opt(self.handle(Column::Coins), options, IteratorMode::Start) {
            let (key, value) = item?;
            let outpoint = schema::decode_outpoint(&key);
            let coin = schema::decode_coin(&value);
            let (Some(outpoint), Some(coin)) = (outpoint, coin) else {
                return Err(StorageError::inconsistent("an entry of 'coins' cannot be read"));
            };
            if visit(outpoint, coin) == Scan::Stop {
                return Ok(None);
            }
        }
        Ok(Some(tip))
    }

    /// The indexes of a transaction's outputs that were unspent at the last write, ascending.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn written_outputs(&self, txid: &Txid) -> Result<Vec<u32>, StorageError> {
        let first = schema::encode_outpoint(&OutPoint { txid: *txid, vout: 0 });
        let from = IteratorMode::From(&first, Direction::Forward);
        let mut outputs = Vec::new();
        for item in self.db.iterator_cf(self.handle(Column::Coins), from) {
            let (key, _) = item?;
            match schema::decode_outpoint(&key) {
                Some(outpoint) if outpoint.txid == *txid => outputs.push(outpoint.vout),
                _ => break,
            }
        }
        Ok(outputs)
    }

    /// Approximate size of the coin set on disk, bytes.
    ///
    /// # Errors
    /// When RocksDB cannot tell.
    pub fn coins_disk_size(&self) -> Result<u64, StorageError> {
        let size =
            self.db.property_int_value_cf(self.handle(Column::Coins), "rocksdb.estimate-live-data-size")?;
        Ok(size.unwrap_or_default())
    }
}
