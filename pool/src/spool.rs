//! Found blocks that not all nodes have answered yet, with what the pool must know about them after a restart.
//!
//! Here: what is kept of a block, and the reserve: disk space for a block found on a full disk. A block that nodes have
//! but no file holds could be missing in the ledger after the next start, and its payments be made again.
//! Not here: the files themselves ([`iop_mining::spool`]), when a block is done ([`crate::blocks`]).

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use iop_mining::spool::{Earlier, Unfinished};
use rustix::fs::FallocateFlags;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::datadir::free_bytes;
use crate::ledger::book::Entry;
use crate::ledger::store::BlockId;

/// The reserve's size in bytes: four full blocks in hex; a file adds some hundred bytes to its block. Real blocks take
/// some kilobytes, so it holds a thousand of them.
const RESERVE: u64 = 32 << 20;
/// Free space needed to create a reserve, in reserves: the ledger and the log need some too, and a reserve that itself
/// fills the disk helps nobody.
const ROOM_IN_RESERVES: u64 = 2;
/// The reserve's name in the folder of found blocks.
const RESERVE_FILE: &str = "reserve";
/// Bytes that are written at a time if the file system cannot preallocate.
const CHUNK: usize = 1 << 20;

/// The folder of found blocks, with its reserve.
#[derive(Debug, Clone)]
pub struct Spool {
    files: iop_mining::spool::Spool<Found>,
    reserve: PathBuf,
}

impl Spool {
    /// Opens the folder; creates it if it is missing.
    ///
    /// # Errors
    /// The folder cannot be created.
    pub fn open(datadir: &Path) -> io::Result<Self> {
        let files = iop_mining::spool::Spool::open(datadir)?;
        let spool = Self { files, reserve: datadir.join("found").join(RESERVE_FILE) };
        spool.restore();
        Ok(spool)
    }

    /// Writes a block, if necessary into the reserve's space. The file then survives the process, and a power failure
    /// after [`Spool::keep`].
    ///
    /// # Errors
    /// Those of [`iop_mining::spool::Spool::write`], even with the reserve given up.
    pub fn write(&self, found: &Found) -> io::Result<Unfinished> {
        self.files.write(found).or_else(|error| self.without_reserve(error, || self.files.write(found)))
    }

    /// Makes a written block survive a power failure, if necessary by writing it again into the reserve's space, and
    /// returns its file.
    ///
    /// # Errors
    /// The disk did not take it, even with the reserve given up.
    pub fn keep(&self, written: Unfinished, found: &Found) -> io::Result<PathBuf> {
        let again = || self.files.keep(self.files.write(found)?);
        self.files.keep(written).or_else(|error| self.without_reserve(error, again))
    }

    fn without_reserve<T>(&self, error: io::Error, again: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        if fs::remove_file(&self.reserve).is_err() {
            return Err(error); // it is already given up
        }
        warn!("the reserve on the disk is given up for a found block: {error}");
        again()
    }

    /// Deletes the file of an answered block, as returned by [`Spool::keep`] or [`Spool::load`].
    ///
    /// # Errors
    /// The file exists and cannot be removed.
    pub fn remove(&self, path: &Path) -> io::Result<()> {
        self.files.remove(path)
    }

    /// The blocks of earlier runs with their files, and the files that hold none, with the reason.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn load(&self) -> io::Result<(Vec<Earlier<Found>>, Vec<String>)> {
        self.files.load()
    }

    /// Creates the reserve if it is missing and the disk has room for it. May wait for the disk.
    pub fn restore(&self) {
        if fs::metadata(&self.reserve).is_ok_and(|file| file.len() == RESERVE) {
            return;
        }
        if let Err(error) = self.set_aside() {
            let _ = fs::remove_file(&self.reserve); // an incomplete reserve must not remain
            let name = self.reserve.display();
            warn!("no room is kept for found blocks, make room on the disk: {name}: {error}");
        }
    }

    fn set_aside(&self) -> io::Result<()> {
        let mut options = File::options();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&self.reserve)?;
        let (free, wanted) = (free_bytes(&self.reserve)?, ROOM_IN_RESERVES * RESERVE);
        if free < wanted {
            return Err(io::Error::other(format!("the disk has {free} bytes left, {wanted} expected")));
        }
        match rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, RESERVE) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
                let chunk = vec![0; CHUNK];
                (0..RESERVE / CHUNK as u64).try_for_each(|_| file.write_all(&chunk))
            }
            done => Ok(done?),
        }
    }
}

/// A found block.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Found {
    /// Its height.
    pub height: u32,
    /// Its hash, as printed.
    pub hash: String,
    /// The license that signed it, as an address.
    pub license: String,
    /// The worker whose share it was.
    pub worker: String,
    /// When it was found, in seconds since 1970.
    pub time: u64,
    /// The block in hex, as `submitblock` takes it.
    pub block: String,
    /// The terms of its payment: the ledger may not have them yet when the pool is killed.
    #[serde(default)]
    pub record: Option<Entry>,
}

impl Found {
    /// As the ledger names it.
    pub(crate) fn id(&self) -> Option<BlockId> {
        Some(BlockId { height: self.height, hash: self.hash.parse().ok()? })
    }
}

impl iop_mining::spool::Kept for Found {
    fn height(&self) -> u32 {
        self.height
    }

    fn hash(&self) -> &str {
        &self.hash
    }

    fn block(&self) -> &str {
        &self.block
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use bitcoin::consensus::encode::serialize_hex;
    use iop_consensus::params::Params;

    use super::*;

    /// The genesis block with another nonce: a different block for each number.
    pub(crate) fn found(height: u32, nonce: u32) -> Found {
        let mut block = Params::devnet().genesis.block().clone();
        block.header.nonce = nonce;
        let (license, worker) = ("license".into(), "worker".into());
        let (hash, block) = (block.block_hash().to_string(), serialize_hex(&block));
        Found { height, hash, license, worker, time: 5, block, record: None }
    }

    /// Fills the folder with files until it takes no more: including the reserve, up to `files` files.
    pub(crate) fn fill(datadir: &Path, files: usize) {
        for number in 0..files {
            fs::write(datadir.join(format!("found/{number}.txt")), "").unwrap();
        }
    }

    fn loaded(spool: &Spool) -> Vec<Found> {
        spool.load().unwrap().0.into_iter().map(|(_, found)| found).collect()
    }

    fn has_reserve(spool: &Spool) -> bool {
        fs::metadata(&spool.reserve).is_ok_and(|file| file.len() == RESERVE)
    }

    #[test]
    fn a_block_that_finds_no_room_takes_the_reserves() {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::open(folder.path()).unwrap();
        assert!(has_reserve(&spool));
        fill(folder.path(), 999);
        let path = spool.keep(spool.write(&found(1, 1)).unwrap(), &found(1, 1)).unwrap();
        assert!(!has_reserve(&spool));
        assert_eq!(loaded(&spool), [found(1, 1)]);
        assert!(spool.write(&found(2, 2)).is_err(), "there is one only");
        spool.remove(&path).unwrap();
        spool.restore();
        assert!(has_reserve(&spool));
    }

    #[test]
    fn a_block_that_the_disk_does_not_keep_is_written_again() {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::open(folder.path()).unwrap();
        let written = spool.write(&found(1, 1)).unwrap();
        // A folder in the file's place prevents the rename.
        let place = folder.path().join(format!("found/1-{}.json", found(1, 1).hash));
        fs::create_dir_all(place.join("x")).unwrap();
        assert!(spool.keep(written, &found(1, 1)).is_err());
        assert!(!has_reserve(&spool), "that was tried too");
        fs::remove_dir_all(&place).unwrap();
        assert_eq!(loaded(&spool), [found(1, 1)], "what was written first is still there");
        // Once the disk works, one copy is left.
        let written = spool.write(&found(2, 2)).unwrap();
        fs::remove_file(folder.path().join(format!("found/2-{}.tmp", found(2, 2).hash))).unwrap();
        spool.restore();
        spool.keep(written, &found(2, 2)).unwrap();
        let mut all = loaded(&spool);
        all.sort_by_key(|found| found.height);
        assert_eq!(all, [found(1, 1), found(2, 2)]);
        let left = fs::read_dir(folder.path().join("found")).unwrap();
        assert!(left.into_iter().all(|file| !file.unwrap().file_name().to_string_lossy().contains("tmp")));
    }

    #[test]
    fn a_part_of_a_reserve_is_made_whole_and_is_no_block() {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::open(folder.path()).unwrap();
        fs::write(&spool.reserve, "").unwrap();
        let again = Spool::open(folder.path()).unwrap();
        assert!(has_reserve(&again));
        assert_eq!(again.load().unwrap(), (vec![], vec![]));
    }
}
