//! The mempool file, which survives restarts.
//!
//! Lives here: its format, writing it atomically, and reading one that may be damaged. Does not live here: whether
//! a transaction that was read is still acceptable; it is offered again like a new one. Format, numbers
//! little-endian: eight bytes `IoPmpool`, u32 version, u64 count; per transaction the u64 arrival time (seconds)
//! and the transaction with its witness; u64 count; per transaction of [`Kept::own`] its id, 32 bytes; then 32
//! bytes, the double SHA-256 of everything before.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::path::Path;
use std::sync::Arc;

use bitcoin::consensus::Encodable;
use bitcoin::hashes::{Hash, HashEngine, sha256d};
use bitcoin::{Transaction, Txid};
use iop_consensus::wire::read_transaction;

use super::Mempool;

/// The file's name in the data directory.
pub const FILE_NAME: &str = "mempool.dat";
const MAGIC: &[u8; 8] = b"IoPmpool";
/// History: 1, the first; 2, with the ids of those that were sent at this node. Both are read.
const VERSION: u32 = 2;
const CHECKSUM: usize = 32;
/// A larger file was not written by this program: transactions take more memory in the pool than bytes in the file,
/// and `--max-mempool` allows no more than this.
const MAX_BYTES: u64 = 1_000_000 * 1_000_000;

/// A transaction with its arrival time in seconds.
pub type Waiting = (Arc<Transaction>, u64);

/// What the file holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Kept {
    /// The transactions, parents before children.
    pub waiting: Vec<Waiting>,
    /// The ids of those that were sent at this node and that no peer has fetched.
    pub own: Vec<Txid>,
}

/// Why a file cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// It cannot be read.
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
    /// It is not a mempool file, or part of it is missing or changed.
    #[error("is damaged: {0}")]
    Damaged(&'static str),
    /// It was written by another version.
    #[error("has version {0}, this program reads 1 to {VERSION}")]
    Version(u32),
}

impl Mempool {
    /// The transactions to save, parents before children.
    pub fn waiting(&self) -> Vec<Waiting> {
        let entries = self.txids();
        entries
            .iter()
            .filter_map(|txid| self.get(txid))
            .map(|entry| (Arc::clone(&entry.tx), entry.time))
            .collect()
    }
}

/// Writes the file atomically: a crash at any point leaves the old file or the new one.
///
/// # Errors
/// When the folder cannot be written to.
pub fn save(path: &Path, kept: &Kept) -> io::Result<()> {
    let unfinished = path.with_extension("dat.new");
    let mut file =
        Hashing { file: BufWriter::new(File::create(&unfinished)?), hash: sha256d::Hash::engine() };
    file.write_all(MAGIC)?;
    file.write_all(&VERSION.to_le_bytes())?;
    file.write_all(&(kept.waiting.len() as u64).to_le_bytes())?;
    for (tx, time) in &kept.waiting {
        file.write_all(&time.to_le_bytes())?;
        file.write_all(&encoded(tx))?;
    }
    file.write_all(&(kept.own.len() as u64).to_le_bytes())?;
    for txid in &kept.own {
        file.write_all(txid.as_byte_array())?;
    }
    let Hashing { mut file, hash } = file;
    file.write_all(sha256d::Hash::from_engine(hash).as_byte_array())?;
    file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
    fs::rename(unfinished, path)?;
    // The new name survives a crash only once the directory is synced.
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

fn encoded(tx: &Transaction) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(tx.total_size());
    tx.consensus_encode(&mut bytes).expect("a vector takes any bytes");
    bytes
}

/// Reads the file; `None` if it does not exist.
///
/// # Errors
/// What is wrong with the file, phrased to follow its name. Nothing of a damaged file is used.
pub fn load(path: &Path) -> Result<Option<Kept>, LoadError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(LoadError::Damaged("it is too large"));
    }
    decode(&bytes).map(Some)
}

fn decode(bytes: &[u8]) -> Result<Kept, LoadError> {
    let damaged = LoadError::Damaged;
    let body = bytes.strip_prefix(MAGIC).ok_or(damaged("it does not begin as a mempool file"))?;
    let (version, _) = body.split_first_chunk().ok_or(damaged("it ends early"))?;
    let version = u32::from_le_bytes(*version);
    if !(1..=VERSION).contains(&version) {
        return Err(LoadError::Version(version));
    }
    let (hashed, checksum) = bytes.split_last_chunk::<CHECKSUM>().ok_or(damaged("it ends early"))?;
    if sha256d::Hash::hash(hashed).as_byte_array() != checksum {
        return Err(damaged("its checksum does not fit"));
    }
    let rest = hashed.get(MAGIC.len() + 4..).ok_or(damaged("it ends early"))?;
    let (count, mut rest) = rest.split_first_chunk().ok_or(damaged("it ends early"))?;
    let (mut waiting, mut own) = (Vec::new(), Vec::new());
    for _ in 0..u64::from_le_bytes(*count) {
        let (time, behind) = rest.split_first_chunk().ok_or(damaged("it ends early"))?;
        rest = behind;
        let tx = read_transaction(&mut rest).map_err(|_| damaged("a transaction cannot be read"))?;
        waiting.push((Arc::new(tx), u64::from_le_bytes(*time)));
    }
    if version > 1 {
        let (count, behind) = rest.split_first_chunk().ok_or(damaged("it ends early"))?;
        rest = behind;
        for _ in 0..u64::from_le_bytes(*count) {
            let (txid, behind) = rest.split_first_chunk().ok_or(damaged("it ends early"))?;
            rest = behind;
            own.push(Txid::from_byte_array(*txid));
        }
    }
    if rest.is_empty() { Ok(Kept { waiting, own }) } else { Err(damaged("something stands behind its end")) }
}

/// A file writer that hashes the bytes it writes.
struct Hashing {
    file: BufWriter<File>,
    hash: bitcoin::hashes::sha256::HashEngine,
}

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hash.input(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
