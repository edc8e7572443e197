//! What the node keeps on disk: one RocksDB with a column family for each kind of record.
//!
//! Lives here: opening and the checks that go with it, typed reads, and [`Batch`], the only way to write.
//! Does not live here: when and what to write; that is the chain's. A batch is applied whole or not at all,
//! and holds everything that one block changes, its tip included, so a crash at any instant leaves the state
//! of some block. Encodings are in `schema.rs`.

mod schema;

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use bitcoin::{Block, BlockHash, OutPoint, consensus::encode};
use iop_consensus::address::Address;
use iop_consensus::coins::{Coin, CoinView};
use iop_consensus::license::registry::{LicenseRecord, Registry};
use iop_consensus::params::Params;
use rocksdb::{
    ColumnFamilyDescriptor, DB, DBCompressionType, IteratorMode, Options, WriteBatch, WriteOptions,
};

pub use schema::{BlockUndo, IndexRecord};

/// The database's format. History: 1, the first.
pub const FORMAT_VERSION: u32 = 1;

const META_FORMAT: &[u8] = b"format";
const META_NETWORK: &[u8] = b"network";
const META_TIP: &[u8] = b"tip";
const META_GLOBALS: &[u8] = b"registry";

/// Log files of RocksDB itself that are kept.
const KEPT_LOG_FILES: usize = 4;
/// Open files that RocksDB may hold; the common limit of a process is 1,024.
const MAX_OPEN_FILES: i32 = 256;

/// Column families. Keys are noted with each; numbers in keys are big-endian, so that they sort.
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
    /// The names above -> format, network, tip, the registry's numbers.
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

/// Storage did not do what was asked; one line for the operator.
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

    /// The database's parts do not belong together.
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
}

/// Changes that are applied together or not at all.
#[derive(Default)]
pub struct Batch {
    /// A column, a key in it, and its new value; `None` deletes.
    writes: Vec<(Column, Vec<u8>, Option<Vec<u8>>)>,
    moves_tip: bool,
}

impl Storage {
    /// Opens the database in `dir`, making it if there is none, and checks that it is this program's, this
    /// network's, and nobody else's at the moment.
    ///
    /// # Errors
    /// One line that names the directory and what is wrong with it.
    pub fn open(dir: &Path, params: &Params) -> Result<Self, StorageError> {
        let mut options = Options::default();
        options.create_if_missing(true);
        options.create_missing_column_families(true);
        options.set_keep_log_file_num(KEPT_LOG_FILES);
        options.set_max_open_files(MAX_OPEN_FILES);
        let columns =
            Column::ALL.map(|column| ColumnFamilyDescriptor::new(column.name(), column_options(column)));
        let db = DB::open_cf_descriptors(&options, dir, columns).map_err(|error| open_error(dir, &error))?;
        let storage = Self { db };
        storage.check_identity(dir, params)?;
        Ok(storage)
    }

    fn check_identity(&self, dir: &Path, params: &Params) -> Result<(), StorageError> {
        let network = schema::network_identity(params);
        let Some(format) = self.get(Column::Meta, META_FORMAT)? else {
            let mut batch = Batch::default();
            batch.put(Column::Meta, META_FORMAT, FORMAT_VERSION.to_be_bytes());
            batch.put(Column::Meta, META_NETWORK, network);
            return self.commit(batch);
        };
        if format != FORMAT_VERSION.to_be_bytes() {
            return Err(StorageError(format!(
                "{} has database format {}, this program reads {FORMAT_VERSION}",
                dir.display(),
                <[u8; 4]>::try_from(&format[..]).map_or(0, u32::from_be_bytes),
            )));
        }
        let found = self.get(Column::Meta, META_NETWORK)?.unwrap_or_default();
        if found != network.as_bytes() {
            return Err(StorageError(format!(
                "{} belongs to another network ({}); this one is {network}",
                dir.display(),
                String::from_utf8_lossy(&found)
            )));
        }
        Ok(())
    }

    /// Applies a batch: whole, or not at all. It survives the end of this process at any instant; a batch that moves
    /// the tip is also on the disk, with all before it, when this returns.
    ///
    /// # Errors
    /// When the database refuses; then nothing was written.
    pub fn commit(&self, batch: Batch) -> Result<(), StorageError> {
        let mut options = WriteOptions::default();
        options.set_sync(batch.moves_tip);
        let mut writes = WriteBatch::default();
        for (column, key, value) in batch.writes {
            match value {
                Some(value) => writes.put_cf(self.handle(column), key, value),
                None => writes.delete_cf(self.handle(column), key),
            }
        }
        Ok(self.db.write_opt(writes, &options)?)
    }

    fn handle(&self, column: Column) -> &rocksdb::ColumnFamily {
        self.db.cf_handle(column.name()).expect("open made every column")
    }

    fn get(&self, column: Column, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError> {
        Ok(self.db.get_cf(self.handle(column), key)?)
    }

    /// The active chain's newest block; `None` in a new database.
    pub fn tip(&self) -> Result<Option<BlockHash>, StorageError> {
        let Some(bytes) = self.get(Column::Meta, META_TIP)? else { return Ok(None) };
        encode::deserialize(&bytes).map(Some).map_err(|_| StorageError::damaged("the tip is no hash"))
    }

    /// A block, as it was stored: with its witness nonce filled in.
    pub fn block(&self, hash: &BlockHash) -> Result<Option<Block>, StorageError> {
        let Some(bytes) = self.get(Column::Blocks, hash.as_ref())? else { return Ok(None) };
        let block = encode::deserialize(&bytes);
        block.map(Some).map_err(|_| StorageError::damaged(&format!("block {hash} cannot be read")))
    }

    /// What takes a block of the active chain back.
    pub fn undo(&self, hash: &BlockHash) -> Result<BlockUndo, StorageError> {
        self.get(Column::Undo, hash.as_ref())?
            .and_then(|bytes| BlockUndo::decode(&bytes))
            .ok_or_else(|| StorageError::damaged(&format!("the undo of block {hash} cannot be read")))
    }

    /// Every known header with its place and status, in no order.
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

impl CoinView for Storage {
    type Error = StorageError;

    fn coin(&self, outpoint: &OutPoint) -> Result<Option<Coin>, StorageError> {
        let key = schema::encode_outpoint(outpoint);
        let Some(bytes) = self.db.get_pinned_cf(self.handle(Column::Coins), key)? else { return Ok(None) };
        schema::decode_coin(&bytes)
            .map(Some)
            .ok_or_else(|| StorageError::damaged(&format!("coin {outpoint} cannot be read")))
    }
}

impl Batch {
    fn put(&mut self, column: Column, key: impl AsRef<[u8]>, value: impl Into<Vec<u8>>) {
        self.writes.push((column, key.as_ref().to_vec(), Some(value.into())));
    }

    fn delete(&mut self, column: Column, key: impl AsRef<[u8]>) {
        self.writes.push((column, key.as_ref().to_vec(), None));
    }

    /// A block's bytes.
    pub fn put_block(&mut self, hash: &BlockHash, block: &Block) {
        self.put(Column::Blocks, hash, encode::serialize(block));
    }

    /// A header's place and status.
    pub fn put_index(&mut self, hash: &BlockHash, record: &IndexRecord) {
        self.put(Column::Index, hash, record.encode());
    }

    /// What takes a block back.
    pub fn put_undo(&mut self, hash: &BlockHash, undo: &BlockUndo) {
        self.put(Column::Undo, hash, undo.encode());
    }

    /// Forgets a disconnected block's undo.
    pub fn delete_undo(&mut self, hash: &BlockHash) {
        self.delete(Column::Undo, hash);
    }

    /// Coins that came to be and coins that are gone.
    pub fn put_coins<'a>(&mut self, changes: impl IntoIterator<Item = (&'a OutPoint, &'a Option<Coin>)>) {
        for (outpoint, coin) in changes {
            let key = schema::encode_outpoint(outpoint);
            match coin {
                Some(coin) => self.put(Column::Coins, key, schema::encode_coin(coin)),
                None => self.delete(Column::Coins, key),
            }
        }
    }

    /// The registry's numbers, the named licenses, and who the blocks at `heights` were counted for.
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

    /// The active chain's newest block.
    pub fn put_tip(&mut self, hash: &BlockHash) {
        self.moves_tip = true;
        self.put(Column::Meta, META_TIP, encode::serialize(hash));
    }
}

fn column_options(column: Column) -> Options {
    let mut options = Options::default();
    match column {
        // Blocks are written once and seldom read: kept out of the tree that compaction rewrites.
        Column::Blocks | Column::Undo => {
            options.set_enable_blob_files(true);
            options.set_blob_compression_type(DBCompressionType::Lz4);
        }
        _ => options.set_compression_type(DBCompressionType::Lz4),
    }
    options
}

fn open_error(dir: &Path, error: &rocksdb::Error) -> StorageError {
    // RocksDB's words, without the path, which may contain any.
    let text = error.to_string().replace(&*dir.to_string_lossy(), "");
    if text.contains("While lock file") || text.contains("lock hold by") {
        StorageError(format!("{} is in use by another node", dir.display()))
    } else {
        StorageError(format!("{} cannot be opened: {text}", dir.display()))
    }
}
