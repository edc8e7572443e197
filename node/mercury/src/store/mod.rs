//! A home's data, in a RocksDB of its own: typed records, one batch per operation, syncs shared by many batches.
//!
//! | column | key | value | at most |
//! |---|---|---|---|
//! | `meta` | `format` | a number | this |
//! | `hosted` | persona | [`Hosted`] | 10,000 hosted, and twice as many that left |
//! | `profiles` | persona | [`StoredProfile`] | one |
//! | `relations` | owner, other | [`Relation`] | 2,000 held or requested, 2,000 revoked |
//! | `requests` | recipient, slot (1 byte) | [`Request`] | 64 |
//! | `boxes` | recipient | [`Mailbox`] | one |
//! | `mail` | recipient, number (8 bytes) | [`Item`] | 16 Ki, 4 MiB |
//! | `senders` | recipient, sender | [`Sender`] | one for each in `mail` and `seen` |
//! | `seen` | recipient, hash of a message | [`Seen`] | 256 Ki |
//! | `blobs` | owner, hash | [`Blob`] | 1,024 |
//! | `chunks` | owner, hash, number (4 bytes) | bytes | 8 MiB |
//! | `invitations` | code (16 bytes) | when it expires, 8 bytes | 10,000, of the home's owner |
//! | `bans` | persona | why | 100,000, of the home's owner |
//!
//! A persona is the 32 bytes of its id's hash. Numbers are big-endian. Records are CBOR. Limits without a named owner
//! are per hosted persona, whose rows are deleted when it leaves ([`crate::limits`]).

mod records;
mod restore;
mod sync;

pub use records::{
    Blob, Hosted, Item, ItemKind, Mailbox, Relation, RelationState, Request, Seen, Sender, StoredProfile,
};
pub use restore::restore;
pub use sync::{Durable, NotDurable, Ticket};

use std::path::Path;

use minicbor::{Decode, Encode};
use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DB, DBCompressionType, Direction, Env,
    IteratorMode, Options, ReadOptions, WriteBatch, WriteOptions,
};

use crate::id::Id;
use sync::Syncer;

/// The format above. 1: the first.
const FORMAT: u64 = 1;
/// Maximum number of files that the database keeps open.
const MAX_OPEN_FILES: i32 = 64;
/// Write buffer per column, bytes.
const WRITE_BUFFER: usize = 8 << 20;
/// Write buffers of all columns together, bytes.
const WRITE_BUFFERS: usize = 32 << 20;
/// Read cache of all columns together, bytes.
const READ_CACHE: usize = 32 << 20;
/// Bloom filter bits per key: 99 of 100 absent keys are detected without a read. Strangers ask for absent keys.
const BITS_OF_KEY: f64 = 10.0;
/// Maximum length in bytes of the journal. A journal is kept until each column's part of it is written to files, so
/// rarely changing columns are flushed before it is larger.
const JOURNAL: u64 = 64 << 20;
/// Maximum bytes that flushes and merges write to files per second: the rest of the disk's bandwidth is the
/// chain's. Twice the size of 2,000 of the longest messages; with less, messages would have to wait for this.
const WRITES_A_SECOND: i64 = 256 << 20;
/// Interval at which that rate is portioned, microseconds; RocksDB's default.
const PORTION: i64 = 100_000;
/// One of this many portions goes to merges even while flushes wait; RocksDB's default.
const FAIRNESS: i32 = 10;

/// A column family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Column {
    Meta,
    Hosted,
    Profiles,
    Relations,
    Requests,
    Boxes,
    Mail,
    Senders,
    Seen,
    Blobs,
    Chunks,
    Invitations,
    Bans,
}

impl Column {
    /// All columns.
    pub const ALL: [Self; 13] = [
        Self::Meta,
        Self::Hosted,
        Self::Profiles,
        Self::Relations,
        Self::Requests,
        Self::Boxes,
        Self::Mail,
        Self::Senders,
        Self::Seen,
        Self::Blobs,
        Self::Chunks,
        Self::Invitations,
        Self::Bans,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Meta => "meta",
            Self::Hosted => "hosted",
            Self::Profiles => "profiles",
            Self::Relations => "relations",
            Self::Requests => "requests",
            Self::Boxes => "boxes",
            Self::Mail => "mail",
            Self::Senders => "senders",
            Self::Seen => "seen",
            Self::Blobs => "blobs",
            Self::Chunks => "chunks",
            Self::Invitations => "invitations",
            Self::Bans => "bans",
        }
    }
}

/// The database failed, or contains something invalid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("Mercury's database in {folder}: {reason}")]
pub struct StoreError {
    folder: String,
    reason: String,
}

/// A key made of two personas, or of a persona and a hash.
#[must_use]
pub fn pair(first: &[u8; 32], second: &[u8; 32]) -> [u8; 64] {
    let mut key = [0; 64];
    key[..32].copy_from_slice(first);
    key[32..].copy_from_slice(second);
    key
}

/// The smallest key after another.
#[must_use]
pub(crate) fn behind(key: &[u8]) -> Vec<u8> {
    [key, &[0]].concat()
}

/// The key of an item in a recipient's mail.
#[must_use]
pub fn numbered(recipient: Id, number: u64) -> [u8; 40] {
    let mut key = [0; 40];
    key[..32].copy_from_slice(recipient.digest());
    key[32..].copy_from_slice(&number.to_be_bytes());
    key
}

/// Free bytes on a directory's disk; `None` if the system does not tell.
#[must_use]
pub fn free_space(folder: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(folder).ok()?;
    Some(disk.f_bavail.saturating_mul(disk.f_frsize))
}

/// The reason that a database cannot be opened.
fn not_opened(error: &rocksdb::Error) -> String {
    let text = error.to_string();
    // Locked by another process, or by this one.
    let is_locked = text.contains("While lock file") || text.contains("lock hold by");
    if is_locked { "it is in use by another home".to_owned() } else { text }
}

/// The database.
pub struct Store {
    db: std::sync::Arc<DB>,
    syncer: Syncer,
    folder: String,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Store({})", self.folder)
    }
}

/// Changes that are applied atomically.
#[derive(Default)]
pub struct Batch {
    puts: Vec<(Column, Vec<u8>, Option<Vec<u8>>)>,
}

impl Batch {
    /// Writes a record.
    pub fn put<T: Encode<()>>(&mut self, column: Column, key: &[u8], record: &T) {
        let value = crate::cbor::to_vec(record);
        self.puts.push((column, key.to_vec(), Some(value)));
    }

    /// Writes bytes.
    pub fn put_bytes(&mut self, column: Column, key: &[u8], value: &[u8]) {
        self.puts.push((column, key.to_vec(), Some(value.to_vec())));
    }

    /// Writes a number.
    pub fn put_number(&mut self, column: Column, key: &[u8], number: u64) {
        self.put_bytes(column, key, &number.to_be_bytes());
    }

    /// Whether it changes nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.puts.is_empty()
    }

    /// Removes a record.
    pub fn delete(&mut self, column: Column, key: &[u8]) {
        self.puts.push((column, key.to_vec(), None));
    }
}

/// A key and its value.
pub type Row = (Box<[u8]>, Box<[u8]>);

impl Store {
    /// Opens the database in a directory, creating it if it is missing.
    ///
    /// # Errors
    /// When it cannot be opened, or was written by another version.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        let name = folder.display().to_string();
        let wrong = |reason: String| StoreError { folder: name.clone(), reason };
        let column = column_options();
        let columns = Column::ALL.map(|of| ColumnFamilyDescriptor::new(of.name(), column.clone()));
        let db = DB::open_cf_descriptors(&options(), folder, columns)
            .map_err(|error| wrong(not_opened(&error)))?;
        let db = std::sync::Arc::new(db);
        let syncer = Syncer::start(std::sync::Arc::clone(&db)).map_err(|error| wrong(error.to_string()))?;
        let store = Self { db, syncer, folder: name };
        match store.number(Column::Meta, b"format")? {
            None => {
                let mut batch = Batch::default();
                batch.put_number(Column::Meta, b"format", FORMAT);
                store.commit(batch)?;
            }
            Some(FORMAT) => {}
            Some(other) => return Err(store.wrong(format!("its format is {other}, {FORMAT} expected"))),
        }
        Ok(store)
    }

    fn wrong(&self, reason: impl Into<String>) -> StoreError {
        StoreError { folder: self.folder.clone(), reason: reason.into() }
    }

    fn column(&self, column: Column) -> &ColumnFamily {
        self.db.cf_handle(column.name()).expect("all columns are opened")
    }

    /// Applies a batch: readers see it at once. It survives a power failure once the ticket is reached
    /// ([`Self::durable`]).
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn commit(&self, batch: Batch) -> Result<Ticket, StoreError> {
        let mut writes = WriteBatch::default();
        for (column, key, value) in batch.puts {
            match value {
                Some(value) => writes.put_cf(self.column(column), key, value),
                None => writes.delete_cf(self.column(column), key),
            }
        }
        self.db.write_opt(writes, &WriteOptions::default()).map_err(|error| self.wrong(error.to_string()))?;
        Ok(self.syncer.written())
    }

    /// Free bytes on its disk; `None` if the system does not tell.
    #[must_use]
    pub fn free_space(&self) -> Option<u64> {
        free_space(Path::new(&self.folder))
    }

    /// The ticket of the last batch: everything read until now is on disk when it is reached.
    #[must_use]
    pub fn so_far(&self) -> Ticket {
        self.syncer.so_far()
    }

    /// Tells which tickets are on disk.
    #[must_use]
    pub fn durable(&self) -> Durable {
        self.syncer.durable()
    }

    /// Bytes under a key.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn bytes(&self, column: Column, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.db.get_cf(self.column(column), key).map_err(|error| self.wrong(error.to_string()))
    }

    /// The record under a key.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn get<T: for<'b> Decode<'b, ()>>(
        &self,
        column: Column,
        key: &[u8],
    ) -> Result<Option<T>, StoreError> {
        self.bytes(column, key)?.map(|bytes| self.record(column, &bytes)).transpose()
    }

    /// Decodes a record.
    ///
    /// # Errors
    /// When the bytes are not such a record.
    pub fn record<T: for<'b> Decode<'b, ()>>(&self, column: Column, bytes: &[u8]) -> Result<T, StoreError> {
        minicbor::decode(bytes)
            .map_err(|error| self.wrong(format!("a damaged record in {}: {error}", column.name())))
    }

    /// The number under a key.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn number(&self, column: Column, key: &[u8]) -> Result<Option<u64>, StoreError> {
        let bytes = self.bytes(column, key)?;
        let number = |bytes: Vec<u8>| match <[u8; 8]>::try_from(bytes) {
            Ok(bytes) => Ok(u64::from_be_bytes(bytes)),
            Err(_) => Err(self.wrong(format!("a damaged number in {}", column.name()))),
        };
        bytes.map(number).transpose()
    }

    /// The rows whose keys begin with `prefix`, from `from` on, in order. Nothing is read ahead of the caller.
    pub fn rows<'a, P: AsRef<[u8]>>(
        &'a self,
        column: Column,
        prefix: P,
        from: &[u8],
    ) -> impl Iterator<Item = Result<Row, StoreError>> + use<'a, P> {
        let start = if from.is_empty() { prefix.as_ref() } else { from };
        let mut options = ReadOptions::default();
        // After the last row there may be deleted entries that the database still has; the bound keeps it from
        // searching them.
        if let Some(end) = end_of(prefix.as_ref()) {
            options.set_iterate_upper_bound(end);
        }
        let mode = IteratorMode::From(start, Direction::Forward);
        let rows = self.db.iterator_cf_opt(self.column(column), options, mode);
        rows.map(|row| row.map_err(|error| self.wrong(error.to_string())))
            .take_while(move |row| row.as_ref().map_or(true, |(key, _)| key.starts_with(prefix.as_ref())))
    }
}

/// The first key after all those with a prefix; `None` if there is none.
fn end_of(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte < u8::MAX)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end)
}

fn options() -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options.set_max_open_files(MAX_OPEN_FILES);
    options.set_keep_log_file_num(4);
    options.set_db_write_buffer_size(WRITE_BUFFERS);
    options.set_max_total_wal_size(JOURNAL);
    options.set_ratelimiter(WRITES_A_SECOND, PORTION, FAIRNESS);
    if let Ok(mut env) = Env::new() {
        // All databases of a process share these threads, by default one for flushes and one for merges. No
        // database takes more than one of each, so the chain's never waits for this one's.
        env.set_background_threads(2);
        env.set_high_priority_background_threads(2);
        options.set_env(&env);
    }
    options
}

/// Options of a column; clones share the cache.
fn column_options() -> Options {
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_cache(&Cache::new_lru_cache(READ_CACHE));
    // Older files have no filter until they are merged.
    blocks.set_bloom_filter(BITS_OF_KEY, false);
    let mut options = Options::default();
    options.set_block_based_table_factory(&blocks);
    options.set_write_buffer_size(WRITE_BUFFER);
    // The data is mostly encrypted or compressed already.
    options.set_compression_type(DBCompressionType::None);
    options
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn batches_are_there_after_reopening_and_other_formats_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let mut batch = Batch::default();
        batch.put_number(Column::Senders, b"a", 7);
        batch.put_bytes(Column::Chunks, b"a1", b"one");
        batch.put_bytes(Column::Chunks, b"a2", b"two");
        batch.put_bytes(Column::Chunks, b"b", b"other");
        let ticket = store.commit(batch).unwrap();
        store.durable().wait_blocking(ticket).unwrap();
        drop(store);
        let store = Store::open(folder.path()).unwrap();
        assert_eq!(store.number(Column::Senders, b"a").unwrap(), Some(7));
        let rows: Vec<_> = store.rows(Column::Chunks, b"a", b"").map(|row| row.unwrap().1).collect();
        assert_eq!(rows, [Box::from(*b"one"), Box::from(*b"two")]);
        assert_eq!(store.rows(Column::Chunks, b"a", b"a2").count(), 1);
        assert_eq!(store.rows(Column::Chunks, b"", b"a2").count(), 2);
        let mut batch = Batch::default();
        batch.put_number(Column::Meta, b"format", 2);
        batch.delete(Column::Chunks, b"b");
        store.commit(batch).unwrap();
        assert_eq!(store.bytes(Column::Chunks, b"b").unwrap(), None);
        drop(store);
        let error = Store::open(folder.path()).unwrap_err().to_string();
        assert!(error.contains("format is 2, 1 expected"), "{error}");
    }

    #[test]
    fn rows_of_a_prefix_end_where_it_ends() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let keys: [&[u8]; 8] =
            [b"", b"a", b"a\xff", b"a\xff\xff", b"b", b"\xff", b"\xff\xff", b"\xff\xff\xff"];
        let mut batch = Batch::default();
        keys.iter().for_each(|key| batch.put_number(Column::Senders, key, 1));
        store.commit(batch).unwrap();
        for prefix in keys {
            let found: Vec<_> = store.rows(Column::Senders, prefix, b"").map(|row| row.unwrap().0).collect();
            let expected = keys.iter().filter(|key| key.starts_with(prefix));
            assert!(found.iter().map(|key| &**key).eq(expected.copied()), "{prefix:?}: {found:?}");
        }
    }

    #[test]
    fn a_backup_is_a_store() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("live")).unwrap();
        let mut batch = Batch::default();
        batch.put_number(Column::Senders, b"a", 7);
        store.commit(batch).unwrap();
        let copy = folder.path().join("copy");
        store.backup(&copy).unwrap();
        assert_eq!(Store::open(&copy).unwrap().number(Column::Senders, b"a").unwrap(), Some(7));
        assert!(store.backup(&copy).is_err(), "never over another");
    }
}
