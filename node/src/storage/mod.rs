//! The node's database: one RocksDB with a column family per kind of record.
//!
//! Lives here: opening with its checks, typed reads, and [`Batch`], the only way to write. Does not live here: when
//! and what to write; that is the chain's. A batch is applied atomically. Tip, coins and registry are always
//! written together, as of one block, so a crash at any point leaves the state of some block; blocks and undo data
//! are written before. Encodings are in `schema.rs`, memory settings in `tuning.rs`.

mod batch;
pub(crate) mod fuzzing;
mod rebuild;
mod scan;
mod schema;
mod tuning;

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use bitcoin::{Block, BlockHash, OutPoint, consensus::encode};
use iop_consensus::address::Address;
use iop_consensus::coins::Coin;
use iop_consensus::license::registry::{LicenseRecord, Registry};
use iop_consensus::params::Params;
use iop_consensus::wire::whole_block;
use rocksdb::{DB, IteratorMode, WriteBatch};

pub use batch::Batch;
pub use scan::Scan;
pub use schema::{BlockUndo, IndexRecord};
pub use tuning::Tuning;

/// The database format. History: 1, the first; 2, the index has each block's size and whether it was pruned; 3, and
/// the order in which blocks arrived.
pub const FORMAT_VERSION: u32 = 3;
/// An older format that can be read; opening such a database marks it as [`FORMAT_VERSION`].
const READABLE_FORMAT: u32 = 2;

const META_FORMAT: &[u8] = b"format";
const META_NETWORK: &[u8] = b"network";
const META_TIP: &[u8] = b"tip";
const META_GLOBALS: &[u8] = b"registry";

/// The column families, each with its keys. Numbers in keys are big-endian, so that they sort.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Column {
    /// Block hash -> block, in blob files.
    Blocks,
    /// Block hash -> [`IndexRecord`].
    Index,
    /// Block hash -> [`BlockUndo`], for blocks of the active chain.
    Undo,
    /// Outpoint -> coin.
    Coins,
    /// Address -> license record.
    Licenses,
    /// Height -> address of the license it was counted for.
    Miners,
    /// The `META_` names -> format, network, tip, the registry's globals.
    Meta,
}

impl Column {
    const ALL: [Self; 7] =
        [Self::Blocks, Self::Index, Self::Undo, Self::Coins, Self::Licenses, Self::Miners, Self::Meta];

    fn name(self) -> &'static str {
        match self {
            Self::Blocks => "blocks",
            Self::Index => "index",
            Self::Undo => "undo",
            Self::Coins => "coins",
            Self::Licenses => "licenses",
            Self::Miners => "miners",
            Self::Meta => "meta",
        }
    }
}

/// A storage failure, in one line for the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StorageError(String);

impl fmt::Display for StorageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for StorageError {}

impl StorageError {
    fn damaged(what: &str) -> Self {
        Self(format!("the database is damaged: {what}"))
    }

    /// The parts of the database are inconsistent.
    pub(crate) fn inconsistent(what: &str) -> Self {
        Self::damaged(what)
    }
}

impl From<rocksdb::Error> for StorageError {
    fn from(error: rocksdb::Error) -> Self {
        Self(format!("database: {error}"))
    }
}

/// The open database.
pub struct Storage {
    db: DB,
    /// Number of further writes that succeed, for crash tests.
    #[cfg(test)]
    writes_left: std::sync::atomic::AtomicI64,
}

impl Storage {
    /// Opens the database in `dir`, creating it if needed, and checks that it belongs to this program and network
    /// and is not in use by another process.
    ///
    /// # Errors
    /// One line that names the directory and what is wrong with it.
    pub fn open(dir: &Path, params: &Params) -> Result<Self, StorageError> {
        Self::open_with(dir, params, &Tuning::default())
    }

    /// Like [`Storage::open`], with other memory settings.
    ///
    /// # Errors
    /// As [`Storage::open`].
    pub fn open_with(dir: &Path, params: &Params, tuning: &Tuning) -> Result<Self, StorageError> {
        let columns = tuning.columns();
        let db = DB::open_cf_descriptors(&tuning.database(), dir, columns)
            .map_err(|error| open_error(dir, &error))?;
        let storage = Self {
            db,
            #[cfg(test)]
            writes_left: std::sync::atomic::AtomicI64::new(i64::MAX),
        };
        storage.check_identity(dir, params)?;
        Ok(storage)
    }

    fn check_identity(&self, dir: &Path, params: &Params) -> Result<(), StorageError> {
        let network = schema::network_identity(params);
        let Some(format) = self.get(Column::Meta, META_FORMAT)? else {
            let mut writes = WriteBatch::default();
            writes.put_cf(self.handle(Column::Meta), META_FORMAT, FORMAT_VERSION.to_be_bytes());
            writes.put_cf(self.handle(Column::Meta), META_NETWORK, network);
            return Ok(self.db.write(writes)?);
        };
        let is_readable = format == READABLE_FORMAT.to_be_bytes();
        if format != FORMAT_VERSION.to_be_bytes() && !is_readable {
            return Err(StorageError(format!(
                "{} has database format {}, this program reads {FORMAT_VERSION}: remove the directory and sync again, or \
                 give another one",
                dir.display(),
                <[u8; 4]>::try_from(&format[..]).map_or(0, u32::from_be_bytes),
            )));
        }
        let found = self.get(Column::Meta, META_NETWORK)?.unwrap_or_default();
        if found != network.as_bytes() {
            return Err(other_network(dir, &String::from_utf8_lossy(&found), &network));
        }
        if is_readable {
            self.db.put_cf(self.handle(Column::Meta), META_FORMAT, FORMAT_VERSION.to_be_bytes())?;
        }
        Ok(())
    }

    /// An empty batch for this database.
    pub fn batch(self: &Arc<Self>) -> Batch {
        Batch::new(self.clone())
    }

    /// An empty batch with room for about this many bytes.
    pub(crate) fn batch_of(self: &Arc<Self>, bytes: usize) -> Batch {
        Batch::with_capacity(self.clone(), bytes)
    }

    /// Applies a batch atomically. It survives a crash of this process at any point. If the machine fails, the
    /// newest batches may be lost, but none older than one that survives: see [`Storage::sync`].
    ///
    /// # Errors
    /// When RocksDB fails; nothing was written then.
    pub fn commit(&self, batch: Batch) -> Result<(), StorageError> {
        let writes = batch.into_writes();
        if !writes.is_empty() {
            #[cfg(test)]
            self.count_write()?;
            self.db.write(writes)?;
        }
        Ok(())
    }

    /// Converts the database back to format 2.
    #[cfg(test)]
    pub(crate) fn become_format_2(&self) {
        let mut writes = WriteBatch::default();
        writes.put_cf(self.handle(Column::Meta), META_FORMAT, READABLE_FORMAT.to_be_bytes());
        for item in self.db.iterator_cf(self.handle(Column::Index), IteratorMode::Start) {
            let (key, value) = item.expect("the index can be read");
            writes.put_cf(self.handle(Column::Index), key, &value[..value.len() - 4]);
        }
        self.db.write(writes).expect("the database takes it");
    }

    /// Lets this many more writes succeed; all later ones fail, as if the process had been killed.
    #[cfg(test)]
    pub(crate) fn fail_after(&self, writes: i64) {
        self.writes_left.store(writes, std::sync::atomic::Ordering::SeqCst);
    }

    #[cfg(test)]
    fn count_write(&self) -> Result<(), StorageError> {
        match self.writes_left.fetch_sub(1, std::sync::atomic::Ordering::SeqCst) {
            ..=0 => Err(StorageError("a test stopped the writes".to_owned())),
            _ => Ok(()),
        }
    }

    /// Returns when everything committed so far is on disk and survives a failure of the machine.
    ///
    /// # Errors
    /// When the operating system fails.
    pub fn sync(&self) -> Result<(), StorageError> {
        Ok(self.db.flush_wal(true)?)
    }

    fn handle(&self, column: Column) -> &rocksdb::ColumnFamily {
        self.db.cf_handle(column.name()).expect("open made every column")
    }

    /// Returns the disk space of deleted blocks to the system. Takes seconds; the database stays usable.
    pub(crate) fn reclaim(&self) {
        for column in [Column::Blocks, Column::Undo] {
            self.db.compact_range_cf(self.handle(column), None::<&[u8]>, None::<&[u8]>);
        }
    }

    fn get(&self, column: Column, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError> {
        Ok(self.db.get_cf(self.handle(column), key)?)
    }

    /// The hash of the tip; `None` in a new database.
    pub fn tip(&self) -> Result<Option<BlockHash>, StorageError> {
        let Some(bytes) = self.get(Column::Meta, META_TIP)? else { return Ok(None) };
        encode::deserialize(&bytes).map(Some).map_err(|_| StorageError::damaged("the tip is no hash"))
    }

    /// A block's bytes as stored, with its witness nonce filled in.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn block_bytes(&self, hash: &BlockHash) -> Result<Option<Vec<u8>>, StorageError> {
        self.get(Column::Blocks, hash.as_ref())
    }

    /// Whether a coin exists as of the last write, which may lag behind the tip.
    pub(crate) fn has_stored_coin(&self, outpoint: &OutPoint) -> Result<bool, StorageError> {
        let key = schema::encode_outpoint(outpoint);
        Ok(self.db.get_pinned_cf(self.handle(Column::Coins), key)?.is_some())
    }

    /// Calls `see` with every coin as of the last write, ordered by the bytes of their outpoints.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn for_each_coin(&self, mut see: impl FnMut(OutPoint, Coin)) -> Result<(), StorageError> {
        for item in self.db.iterator_cf(self.handle(Column::Coins), IteratorMode::Start) {
            let (key, value) = item?;
            let outpoint = schema::decode_outpoint(&key);
            let (outpoint, coin) = outpoint
                .zip(schema::decode_coin(&value))
                .ok_or_else(|| StorageError::damaged("an entry of 'coins' cannot be read"))?;
            see(outpoint, coin);
        }
        Ok(())
    }

    /// A block as stored, with its witness nonce filled in.
    pub fn block(&self, hash: &BlockHash) -> Result<Option<Block>, StorageError> {
        let Some(bytes) = self.get(Column::Blocks, hash.as_ref())? else { return Ok(None) };
        let block = whole_block(&bytes);
        block.map(Some).map_err(|_| StorageError::damaged(&format!("block {hash} cannot be read")))
    }

    /// The undo data of an active block.
    pub fn undo(&self, hash: &BlockHash) -> Result<BlockUndo, StorageError> {
        self.get(Column::Undo, hash.as_ref())?
            .and_then(|bytes| BlockUndo::decode(&bytes))
            .ok_or_else(|| StorageError::damaged(&format!("the undo of block {hash} cannot be read")))
    }

    /// All index records, in no particular order.
    pub fn index(&self) -> Result<Vec<(BlockHash, IndexRecord)>, StorageError> {
        self.read_all(Column::Index, |key, value| {
            Some((encode::deserialize(key).ok()?, IndexRecord::decode(value)?))
        })
    }

    /// The registry as of the tip; `None` in a new database.
    pub fn registry(&self) -> Result<Option<Registry>, StorageError> {
        let Some(globals) = self.get(Column::Meta, META_GLOBALS)? else { return Ok(None) };
        let globals = schema::decode_globals(&globals)
            .ok_or_else(|| StorageError::damaged("the registry's numbers cannot be read"))?;
        let licenses: Vec<(Address, LicenseRecord)> = self.read_all(Column::Licenses, |key, value| {
            Some((schema::decode_address(key)?, schema::decode_license(value)?))
        })?;
        let miners: Vec<(u32, Address)> = self.read_all(Column::Miners, |key, value| {
            Some((u32::from_be_bytes(key.try_into().ok()?), schema::decode_address(value)?))
        })?;
        let licenses: BTreeMap<_, _> = licenses.into_iter().collect();
        Ok(Some(Registry::from_parts(globals, licenses, miners.into_iter().collect())))
    }

    fn read_all<T>(
        &self,
        column: Column,
        decode: impl Fn(&[u8], &[u8]) -> Option<T>,
    ) -> Result<Vec<T>, StorageError> {
        let mut all = Vec::new();
        for item in self.db.iterator_cf(self.handle(column), IteratorMode::Start) {
            let (key, value) = item?;
            all.push(decode(&key, &value).ok_or_else(|| {
                StorageError::damaged(&format!("an entry of '{}' cannot be read", column.name()))
            })?);
        }
        Ok(all)
    }
}

impl Storage {
    /// A coin as of the last write, which may lag behind the tip.
    pub(crate) fn stored_coin(&self, outpoint: &OutPoint) -> Result<Option<Coin>, StorageError> {
        let key = schema::encode_outpoint(outpoint);
        let Some(bytes) = self.db.get_pinned_cf(self.handle(Column::Coins), key)? else { return Ok(None) };
        schema::decode_coin(&bytes)
            .map(Some)
            .ok_or_else(|| StorageError::damaged(&format!("coin {outpoint} cannot be read")))
    }
}

/// The error for data of the identity `found` where `own` is expected (see [`schema::network_identity`]). A
/// network file that was changed has the name and the genesis of before.
fn other_network(dir: &Path, found: &str, own: &str) -> StorageError {
    let dir = dir.display();
    let chain = |identity: &str| identity.split_once(schema::RULES).map(|(chain, _)| chain.to_owned());
    match (chain(found), chain(own)) {
        (Some(before), Some(now)) if before == now => StorageError(format!(
            "{dir} was made with other parameters of this network: {found}, where they are {own} now. The network \
             file has been changed since, or it is another one of the same name; give the one from then, or another \
             directory"
        )),
        _ => StorageError(format!("{dir} belongs to another network ({found}); this one is {own}")),
    }
}

fn open_error(dir: &Path, error: &rocksdb::Error) -> StorageError {
    // RocksDB's message, without the path, which may contain any text.
    let text = error.to_string().replace(&*dir.to_string_lossy(), "");
    if text.contains("While lock file") || text.contains("lock hold by") {
        StorageError(format!("{} is in use by another node", dir.display()))
    } else {
        StorageError(format!("{} cannot be opened: {text}", dir.display()))
    }
}
