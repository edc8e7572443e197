//! The files of the ledger's RocksDB: where they are, how many are open, and how they are written.
//!
//! Here: options, and what the folder tells without opening it. Not here: what is in them (`store.rs`).

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use iop_mining::open_files;
use rocksdb::{BlockBasedOptions, Cache, DBCompressionType, Env, Options};

/// Block cache, in bytes: reads follow the log, so little is enough.
const CACHE_BYTES: usize = 16 << 20;
/// Memtable size per column, in bytes: about 300,000 shares. Each time it is full, commits wait some milliseconds for a
/// new journal.
const WRITE_BUFFER_BYTES: usize = 32 << 20;
/// Size of the journal at which all columns are flushed to files, in bytes: it is read whole at the start.
const JOURNAL_BYTES: u64 = 64 << 20;
/// Bytes of journal after which the system is told to start writing them to disk, so that little is left for a sync.
const JOURNAL_AHEAD_BYTES: u64 = 128 << 10;
/// Files that the database keeps open: connections need file descriptors too.
pub(crate) const MAX_OPEN_FILES: u16 = 64;
/// Most tables that are opened all at once to read: each keeps its index in memory, some hundred KiB.
const MOST_TO_READ: usize = 1024;
/// Files that a program which reads a ledger needs besides its tables.
const OTHER_FILES: u64 = 64;
/// Log files that the database keeps about itself.
const KEPT_LOG_FILES: usize = 4;

pub(super) fn place(datadir: &Path) -> (PathBuf, String) {
    let path = datadir.join("ledger");
    let folder = path.display().to_string();
    (path, folder)
}

/// Names and lengths of the MANIFEST files: they change before a file that they list is removed.
pub(super) fn manifest(path: &Path) -> Option<Vec<(OsString, u64)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(path).ok()? {
        let entry = entry.ok()?;
        if entry.file_name().as_encoded_bytes().starts_with(b"MANIFEST") {
            found.push((entry.file_name(), entry.metadata().ok()?.len()));
        }
    }
    found.sort();
    Some(found)
}

/// How many files to open at once to read a ledger beside a pool; -1 for all, since the pool may merge some and delete
/// them. The tables of shares it only moves, so of a large ledger's not all need be there.
pub(super) fn at_once(path: &Path) -> i32 {
    let tables = tables(path);
    let fits = open_files::limit().is_none_or(|limit| tables as u64 + OTHER_FILES <= limit);
    if fits && tables <= MOST_TO_READ { -1 } else { MAX_OPEN_FILES.into() }
}

/// The number of tables in the folder of a database.
fn tables(path: &Path) -> usize {
    let is_table = |entry: &std::fs::DirEntry| entry.path().extension().is_some_and(|kind| kind == "sst");
    std::fs::read_dir(path).map_or(0, |entries| entries.flatten().filter(is_table).count())
}

pub(super) fn options(create: bool) -> Options {
    let mut options = Options::default();
    options.create_if_missing(create);
    options.create_missing_column_families(create);
    options.set_max_open_files(MAX_OPEN_FILES.into());
    options.set_max_total_wal_size(JOURNAL_BYTES);
    options.set_wal_bytes_per_sync(JOURNAL_AHEAD_BYTES);
    options.set_keep_log_file_num(KEPT_LOG_FILES);
    if let Ok(mut env) = Env::new() {
        // Flushes and compactions must not compete with answers to miners.
        env.lower_thread_pool_cpu_priority();
        env.lower_high_priority_thread_pool_cpu_priority();
        options.set_env(&env);
    }
    options
}

pub(super) fn column_options() -> Options {
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_cache(&Cache::new_lru_cache(CACHE_BYTES));
    let mut options = Options::default();
    options.set_block_based_table_factory(&blocks);
    options.set_compression_type(DBCompressionType::Lz4);
    options.set_write_buffer_size(WRITE_BUFFER_BYTES);
    options
}
