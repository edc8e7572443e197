//! The ledger's RocksDB: typed column families, one write batch at a time.
//!
//! | column | key | value |
//! |---|---|---|
//! | `meta` | `format`, `base` | a number; hash of the block that the last template stood on, of ours |
//! | `meta` | `job`, height, number | what is remembered of a job, as JSON |
//! | `users` | number, 4 bytes | user name |
//! | `shares` | number, 8 bytes | [`Share`] |
//! | `blocks` | block | facts as JSON ([`Facts`]) |
//! | `credits` | block, address | earned, paid: 8 bytes each |
//! | `members` | address, block | the same, for a member's page |
//! | `carried` | block, address | what is carried after the block, 8 bytes |
//!
//! Numbers in keys are big-endian, so that they sort; in values little-endian. A block is its height (4 bytes) and
//! its hash; an address is 0 (P2PKH) or 1 (P2SH) and its hash.

use std::path::Path;
use std::time::Duration;

use bitcoin::BlockHash;
use bitcoin::hashes::Hash;
use iop_consensus::address::{Address, AddressKind};
use rocksdb::{ColumnFamily, ColumnFamilyDescriptor, DB, Direction, IteratorMode, WriteBatch, WriteOptions};
use serde::{Deserialize, Serialize};

use super::LedgerError;
use super::book::{Facts, Record};
use super::durable::{Durable, Note};
use super::files::{self, MAX_OPEN_FILES, column_options, manifest, options, place};
use super::share::{Share, UserId};
use super::split::{Amounts, Credit};

/// The layout above. 1: the first.
const FORMAT: u32 = 1;
const COLUMNS: [&str; 7] = ["meta", "users", "shares", "blocks", "credits", "members", "carried"];
/// How often to try to open a ledger read-only while a running pool changes its files, every few seconds at most.
const OPEN_TRIES: u32 = 50;
/// Wait between two tries.
const OPEN_WAIT: Duration = Duration::from_millis(20);
/// Key prefix of jobs in `meta`.
const JOB: &[u8] = b"job";
const ADDRESS_BYTES: usize = 21;
const BLOCK_BYTES: usize = 36;

/// The key of a job: its height and its number, both big-endian.
pub type JobKey = [u8; 12];
/// A job stored for the next run; only `strays::jobs`, behind [`crate::payouts`], knows its format.
pub type KeptJob = (JobKey, Vec<u8>);

/// The identity of a block in the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BlockId {
    /// Its height.
    pub height: u32,
    /// Its hash.
    pub hash: BlockHash,
}

impl BlockId {
    fn key(&self) -> [u8; BLOCK_BYTES] {
        let mut key = [0; BLOCK_BYTES];
        key[..4].copy_from_slice(&self.height.to_be_bytes());
        key[4..].copy_from_slice(self.hash.as_byte_array());
        key
    }

    fn read(key: &[u8]) -> Option<Self> {
        let (height, hash) = key.split_first_chunk()?;
        let hash = BlockHash::from_byte_array(hash.try_into().ok()?);
        Some(Self { height: u32::from_be_bytes(*height), hash })
    }
}

type Row = (Box<[u8]>, Box<[u8]>);

/// The database.
pub struct Store {
    db: DB,
    folder: String,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Store({})", self.folder)
    }
}

impl Store {
    /// Opens the database in `datadir/ledger`; creates it if it is missing.
    ///
    /// # Errors
    /// It cannot be opened, was written by a newer version, or has less than was recorded as durable.
    pub fn open(datadir: &Path) -> Result<Self, LedgerError> {
        if Note::read(datadir)?.least != Durable::default() {
            // Looked at first: what cannot be read of a damaged journal is gone when it is opened to write. No pool runs
            // on it, so its files stay, and need not be open all at once: a year has thousands.
            Self::read(datadir, MAX_OPEN_FILES.into())?;
        }
        let (path, folder) = place(datadir);
        let columns = COLUMNS.map(|name| ColumnFamilyDescriptor::new(name, column_options()));
        let db = DB::open_cf_descriptors(&options(true), &path, columns)
            .map_err(|error| wrong(&folder, &error))?;
        let store = Self { db, folder };
        store.check_format(true)?;
        Ok(store)
    }

    /// Opens it read-only, even while a pool is running; what that pool commits later is not seen.
    ///
    /// # Errors
    /// There is none, it cannot be read, was written by a newer version, or has less than was recorded as durable.
    pub fn open_to_read(datadir: &Path) -> Result<Self, LedgerError> {
        Self::read(datadir, files::at_once(&place(datadir).0))
    }

    /// Opens it read-only, with at most so many files open at a time; -1 for all at once.
    pub(super) fn read(datadir: &Path, files: i32) -> Result<Self, LedgerError> {
        let (path, folder) = place(datadir);
        let least = Note::read(datadir)?.least;
        if !path.join("CURRENT").exists() {
            let none = || "there is none: a pool that has run is expected".to_owned();
            let reason = least.missing_in(Durable::default(), datadir).unwrap_or_else(none);
            return Err(LedgerError { folder, reason });
        }
        // If a running pool flushes its journal into files meanwhile, an open that began before may miss shares.
        for _ in 0..OPEN_TRIES {
            let before = manifest(&path);
            let opened = Self::open_files(&path, &folder, files);
            if before.is_some() && before == manifest(&path) {
                let store = opened?;
                let blocks = store.db.iterator_cf(store.column("blocks"), IteratorMode::Start).count() as u64;
                let found = Durable { shares: store.next_share()?, blocks };
                return least
                    .missing_in(found, datadir)
                    .map_or(Ok(store), |reason| Err(LedgerError { folder, reason }));
            }
            std::thread::sleep(OPEN_WAIT);
        }
        Err(LedgerError { folder, reason: "the pool changes its files all the time, try again".into() })
    }

    fn open_files(path: &Path, folder: &str, files: i32) -> Result<Self, LedgerError> {
        let columns = COLUMNS.map(|name| ColumnFamilyDescriptor::new(name, column_options()));
        let mut options = options(false);
        options.set_max_open_files(files);
        let db = DB::open_cf_descriptors_read_only(&options, path, columns, false)
            .map_err(|error| wrong(folder, &error))?;
        let store = Self { db, folder: folder.to_owned() };
        store.check_format(false)?;
        Ok(store)
    }

    fn check_format(&self, may_be_new: bool) -> Result<(), LedgerError> {
        let found = self.get("meta", b"format")?;
        if found.is_none() && !may_be_new {
            return Err(self.broken("its beginning is lost: put it back as it was"));
        }
        let Some(found) = found else {
            let mut batch = Batch::default();
            batch.0.put_cf(self.column("meta"), b"format", FORMAT.to_le_bytes());
            return self.write(batch, true);
        };
        let found = found.try_into().map(u32::from_le_bytes).unwrap_or(u32::MAX);
        if found == FORMAT {
            return Ok(());
        }
        Err(self.broken(&format!("it has format {found}, {FORMAT} expected: use the iop-pool that wrote it")))
    }

    fn column(&self, name: &str) -> &ColumnFamily {
        self.db.cf_handle(name).expect("every column was opened")
    }

    fn get(&self, column: &str, key: &[u8]) -> Result<Option<Vec<u8>>, LedgerError> {
        self.db.get_cf(self.column(column), key).map_err(|error| wrong(&self.folder, &error))
    }

    /// An error about this database.
    pub(super) fn broken(&self, reason: &str) -> LedgerError {
        LedgerError { folder: self.folder.clone(), reason: reason.to_owned() }
    }

    /// Writes a batch atomically. It then survives a crash of the process, and with `durable` also of the machine.
    pub(super) fn write(&self, batch: Batch, durable: bool) -> Result<(), LedgerError> {
        let mut how = WriteOptions::default();
        how.set_sync(durable);
        self.db.write_opt(batch.0, &how).map_err(|error| wrong(&self.folder, &error))
    }

    /// Syncs everything written so far, so that it survives a power failure.
    pub(super) fn sync(&self) -> Result<(), LedgerError> {
        self.db.flush_wal(true).map_err(|error| wrong(&self.folder, &error))
    }

    /// Writes what is in memory to a table of its own, as the database otherwise does when there is enough.
    #[cfg(test)]
    pub(super) fn flush(&self) {
        self.db.flush_cf(self.column("shares")).expect("a test's disk has room");
    }

    /// Flushes and compacts, as the database otherwise does by itself when there is enough.
    #[cfg(test)]
    pub(super) fn merge(&self) {
        for name in COLUMNS {
            self.db.flush_cf(self.column(name)).expect("a test's disk has room");
            self.db.compact_range_cf(self.column(name), None::<&[u8]>, None::<&[u8]>);
        }
    }

    /// All users, by number.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn users(&self) -> Result<Vec<String>, LedgerError> {
        let mut users = Vec::new();
        for row in self.db.iterator_cf(self.column("users"), IteratorMode::Start) {
            let (key, name) = row.map_err(|error| wrong(&self.folder, &error))?;
            if *key != u32::try_from(users.len()).unwrap_or(u32::MAX).to_be_bytes() {
                return Err(self.broken(&format!("user {} is missing", users.len())));
            }
            users.push(String::from_utf8_lossy(&name).into_owned());
        }
        Ok(users)
    }

    /// The number of the next share.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn next_share(&self) -> Result<u64, LedgerError> {
        let last = self.db.iterator_cf(self.column("shares"), IteratorMode::End).next().transpose();
        let last = last.map_err(|error| wrong(&self.folder, &error))?;
        last.map_or(Ok(0), |(key, _)| self.share_number(&key).map(|number| number + 1))
    }

    fn share_number(&self, key: &[u8]) -> Result<u64, LedgerError> {
        key.try_into().map(u64::from_be_bytes).map_err(|_| self.broken("a share has a malformed number"))
    }

    /// Reads shares from a number on, in order, until `visit` returns false.
    ///
    /// # Errors
    /// The database cannot be read, a share is malformed, or one is missing.
    pub fn read_shares(
        &self,
        from: u64,
        mut visit: impl FnMut(u64, Share) -> bool,
    ) -> Result<(), LedgerError> {
        let start = from.to_be_bytes();
        let mode = IteratorMode::From(&start, Direction::Forward);
        for (row, expected) in self.db.iterator_cf(self.column("shares"), mode).zip(from..) {
            let (key, value) = row.map_err(|error| wrong(&self.folder, &error))?;
            if self.share_number(&key)? != expected {
                return Err(self.broken(&format!("share {expected} is missing")));
            }
            let share = Share::from_bytes(&value);
            let share = share.ok_or_else(|| self.broken(&format!("share {expected} is malformed")))?;
            if !visit(expected, share) {
                break;
            }
        }
        Ok(())
    }

    /// The facts of all blocks, by height.
    ///
    /// # Errors
    /// The database cannot be read or a block is malformed.
    pub fn blocks(&self) -> Result<Vec<(BlockId, Facts)>, LedgerError> {
        let rows = self.db.iterator_cf(self.column("blocks"), IteratorMode::Start);
        rows.map(|row| self.block(row)).collect()
    }

    /// The facts of the newest blocks, the highest first; with `below` only of those in front of that block.
    ///
    /// # Errors
    /// The database cannot be read or a block is malformed.
    pub fn newest_blocks(
        &self,
        below: Option<&BlockId>,
        limit: usize,
    ) -> Result<Vec<(BlockId, Facts)>, LedgerError> {
        let key = below.map(BlockId::key);
        let mode = match &key {
            Some(key) => IteratorMode::From(key, Direction::Reverse),
            None => IteratorMode::End,
        };
        let rows = self.db.iterator_cf(self.column("blocks"), mode).map(|row| self.block(row));
        rows.filter(|row| row.as_ref().map_or(true, |(id, _)| Some(id) != below)).take(limit).collect()
    }

    /// The facts of a block.
    ///
    /// # Errors
    /// The database cannot be read or the block is malformed.
    pub fn facts(&self, id: &BlockId) -> Result<Option<Facts>, LedgerError> {
        let Some(value) = self.get("blocks", &id.key())? else { return Ok(None) };
        self.block(Ok((Box::from(id.key()), value.into()))).map(|(_, facts)| Some(facts))
    }

    fn block(&self, row: Result<Row, rocksdb::Error>) -> Result<(BlockId, Facts), LedgerError> {
        let (key, value) = row.map_err(|error| wrong(&self.folder, &error))?;
        let id = BlockId::read(&key).ok_or_else(|| self.broken("a block has a malformed key"))?;
        let facts = serde_json::from_slice(&value);
        Ok((id, facts.map_err(|error| self.broken(&format!("block {}: {error}", id.hash)))?))
    }

    fn rows<'a>(
        &'a self,
        column: &str,
        prefix: &'a [u8],
    ) -> impl Iterator<Item = Result<Row, LedgerError>> + 'a {
        let mode = IteratorMode::From(prefix, Direction::Forward);
        self.db
            .iterator_cf(self.column(column), mode)
            .map(|row| row.map_err(|error| wrong(&self.folder, &error)))
            .take_while(move |row| row.as_ref().map_or(true, |(key, _)| key.starts_with(prefix)))
            .map(move |row| row.map(|(key, value)| (Box::from(&key[prefix.len()..]), value)))
    }

    /// The members' credits of a block.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn credits(&self, block: &BlockId) -> Result<Vec<(Address, Credit)>, LedgerError> {
        let prefix = block.key();
        let rows = self.rows("credits", &prefix);
        rows.map(|row| {
            let (key, value) = row?;
            let pair = address(&key).zip(credit(&value));
            pair.ok_or_else(|| self.broken(&format!("a credit of block {} is malformed", block.hash)))
        })
        .collect()
    }

    /// A member's credits by block, in order of height.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn credits_of(&self, member: &Address) -> Result<Vec<(BlockId, Credit)>, LedgerError> {
        let prefix = address_key(member);
        let rows = self.rows("members", &prefix);
        rows.map(|row| {
            let (key, value) = row?;
            BlockId::read(&key)
                .zip(credit(&value))
                .ok_or_else(|| self.broken("a member's credit is malformed"))
        })
        .collect()
    }

    /// The amounts carried after a block.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn carried(&self, block: &BlockId) -> Result<Amounts, LedgerError> {
        let prefix = block.key();
        let rows = self.rows("carried", &prefix);
        rows.map(|row| {
            let (key, value) = row?;
            let amount = value.as_ref().try_into().map(u64::from_le_bytes).ok();
            address(&key).zip(amount).ok_or_else(|| self.broken("what is carried is malformed"))
        })
        .collect()
    }

    /// The pool's block that the last template built on.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn base(&self) -> Result<Option<BlockId>, LedgerError> {
        Ok(self.get("meta", b"base")?.as_deref().and_then(BlockId::read))
    }

    pub(super) fn put_base(&self, batch: &mut Batch, base: Option<&BlockId>) {
        let column = self.column("meta");
        match base {
            Some(base) => batch.0.put_cf(column, b"base", base.key()),
            None => batch.0.delete_cf(column, b"base"),
        }
    }

    /// The stored jobs, in the order of their keys.
    pub(super) fn jobs(&self) -> Result<Vec<KeptJob>, LedgerError> {
        let rows = self.rows("meta", JOB).map(|row| {
            let (key, job) = row?;
            let key = key[..].try_into().map_err(|_| self.broken("the key of a job is malformed"))?;
            Ok((key, job.into_vec()))
        });
        rows.collect()
    }

    pub(super) fn put_job(&self, batch: &mut Batch, key: &JobKey, job: &[u8]) {
        batch.0.put_cf(self.column("meta"), [JOB, &key[..]].concat(), job);
    }

    pub(super) fn drop_job(&self, batch: &mut Batch, key: &JobKey) {
        batch.0.delete_cf(self.column("meta"), [JOB, &key[..]].concat());
    }

    pub(super) fn put_user(&self, batch: &mut Batch, id: UserId, name: &str) {
        batch.0.put_cf(self.column("users"), id.0.to_be_bytes(), name);
    }

    pub(super) fn put_share(&self, batch: &mut Batch, number: u64, share: Share) {
        batch.0.put_cf(self.column("shares"), number.to_be_bytes(), share.to_bytes());
    }

    pub(super) fn put_block(&self, batch: &mut Batch, record: &Record) {
        let block = record.id.key();
        let facts = serde_json::to_vec(&record.facts).expect("string keys and no I/O: encoding cannot fail");
        batch.0.put_cf(self.column("blocks"), block, facts);
        for (member, credit) in &record.credits() {
            let (member, mut value) = (address_key(member), [0; 16]);
            value[..8].copy_from_slice(&credit.earned.to_le_bytes());
            value[8..].copy_from_slice(&credit.paid.to_le_bytes());
            batch.0.put_cf(self.column("credits"), [&block[..], &member].concat(), value);
            batch.0.put_cf(self.column("members"), [&member[..], &block].concat(), value);
        }
        for (member, amount) in &**record.carried() {
            let key = [&block[..], &address_key(member)].concat();
            batch.0.put_cf(self.column("carried"), key, amount.to_le_bytes());
        }
    }
}

/// Writes to be applied atomically.
#[derive(Default)]
pub(super) struct Batch(WriteBatch);

fn wrong(folder: &str, error: &rocksdb::Error) -> LedgerError {
    LedgerError { folder: folder.to_owned(), reason: error.to_string() }
}

pub(super) fn address_key(address: &Address) -> [u8; ADDRESS_BYTES] {
    let mut key = [0; ADDRESS_BYTES];
    key[0] = match address.kind {
        AddressKind::PubkeyHash => 0,
        AddressKind::ScriptHash => 1,
    };
    key[1..].copy_from_slice(&address.hash);
    key
}

pub(super) fn address(key: &[u8]) -> Option<Address> {
    let (kind, hash) = key.split_first()?;
    let kind = match kind {
        0 => AddressKind::PubkeyHash,
        1 => AddressKind::ScriptHash,
        _ => return None,
    };
    Some(Address { kind, hash: hash.try_into().ok()? })
}

fn credit(value: &[u8]) -> Option<Credit> {
    let (earned, paid) = value.split_first_chunk()?;
    Some(Credit { earned: u64::from_le_bytes(*earned), paid: u64::from_le_bytes(paid.try_into().ok()?) })
}
