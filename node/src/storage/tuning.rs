//! RocksDB's settings: memory limits and column options.
//!
//! Lives here: [`Tuning`], the database's share of the operator's memory limit; nothing here depends on the
//! content. Does not live here: the coin cache, which takes the larger part ([`crate::chain::coins`]).

use rocksdb::{BlockBasedOptions, Cache, ColumnFamilyDescriptor, DBCompressionType, Options};

use super::Column;

const MIB: usize = 1 << 20;
/// Number of RocksDB's own log files that are kept.
const KEPT_LOG_FILES: usize = 4;
/// Bytes at which the next of them begins; with RocksDB's statistics in it, a file grows by 4 MB a day.
const LOG_FILE_BYTES: usize = 16 * MIB;
/// Larger buffers make fewer blob files, but take more memory while blocks arrive fast.
const LARGEST_WRITE_BUFFERS: usize = 16 * MIB;
/// Maximum number of files that RocksDB keeps open; the common limit of a process is 1,024.
const MAX_OPEN_FILES: i32 = 256;
/// Bits per coin of the bloom filter that answers most lookups of absent coins; about one in a hundred is a false
/// positive and needs a read.
const FILTER_BITS: f64 = 10.0;
/// Approximate size of a blob file with blocks.
const BLOB_FILE_BYTES: u64 = 128 << 20;

/// Memory limits of the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tuning {
    /// Bytes of the read cache.
    pub read_cache: usize,
    /// Bytes of all columns' write buffers together.
    pub write_buffers: usize,
}

impl Default for Tuning {
    fn default() -> Self {
        Self { read_cache: 32 * MIB, write_buffers: LARGEST_WRITE_BUFFERS }
    }
}

impl Tuning {
    /// The database's share of `total` bytes for coins and database: up to an eighth.
    pub fn share_of(total: usize) -> Self {
        let share = |most: usize| (total / 16).clamp(MIB, most);
        Self { read_cache: share(32 * MIB), write_buffers: share(LARGEST_WRITE_BUFFERS) }
    }

    /// Both together, bytes.
    pub fn total(&self) -> usize {
        self.read_cache + self.write_buffers
    }

    pub(super) fn database(&self) -> Options {
        let mut options = Options::default();
        options.create_if_missing(true);
        options.create_missing_column_families(true);
        options.set_keep_log_file_num(KEPT_LOG_FILES);
        options.set_max_log_file_size(LOG_FILE_BYTES);
        options.set_max_open_files(MAX_OPEN_FILES);
        options.set_db_write_buffer_size(self.write_buffers);
        options
    }

    pub(super) fn columns(&self) -> Vec<ColumnFamilyDescriptor> {
        let cache = Cache::new_lru_cache(self.read_cache);
        let of = |column: Column| ColumnFamilyDescriptor::new(column.name(), self.column(column, &cache));
        Column::ALL.map(of).into()
    }

    fn column(&self, column: Column, cache: &Cache) -> Options {
        let (mut options, mut blocks) = (Options::default(), BlockBasedOptions::default());
        blocks.set_block_cache(cache);
        options.set_write_buffer_size(self.write_buffers);
        match column {
            // Blocks are written once and rarely read: blob files keep them out of the tree that compaction
            // rewrites. They are mostly hashes and signatures, which do not compress.
            Column::Blocks | Column::Undo => {
                options.set_enable_blob_files(true);
                options.set_blob_file_size(BLOB_FILE_BYTES);
                options.set_enable_blob_gc(true);
                options.set_blob_gc_age_cutoff(1.0);
            }
            Column::Coins => {
                blocks.set_bloom_filter(FILTER_BITS, false);
                options.set_memtable_whole_key_filtering(true);
                options.set_memtable_prefix_bloom_ratio(0.05);
                options.set_compression_type(DBCompressionType::Lz4);
            }
            _ => options.set_compression_type(DBCompressionType::Lz4),
        }
        options.set_block_based_table_factory(&blocks);
        options
    }
}
