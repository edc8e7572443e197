//! Found blocks that no node has answered yet, one file each, so that they outlive the pool.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// A found block.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// Its height.
    pub height: u32,
    /// Its hash, as printed.
    pub hash: String,
    /// The license that signed, as an address.
    pub license: String,
    /// Whose share it was.
    pub worker: String,
    /// When it was found, in seconds since 1970.
    pub time: u64,
    /// The block in hex, as `submitblock` takes it.
    pub block: String,
}

/// The folder.
#[derive(Debug, Clone)]
pub struct Spool {
    folder: PathBuf,
}

impl Spool {
    /// Opens it, makes it where it is missing.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn open(datadir: &Path) -> io::Result<Self> {
        let folder = datadir.join("found");
        fs::create_dir_all(&folder)?;
        Ok(Self { folder })
    }

    fn path(&self, found: &Found) -> PathBuf {
        self.folder.join(format!("{}-{}.json", found.height, found.hash))
    }

    /// Writes a block: when this returns, it survives a loss of power.
    ///
    /// # Errors
    /// The file could not be written whole; none is left half.
    pub fn store(&self, found: &Found) -> io::Result<()> {
        let path = self.path(found);
        let unfinished = path.with_extension("tmp");
        let mut file = File::create(&unfinished)?;
        file.write_all(&serde_json::to_vec(found)?)?;
        file.sync_all()?;
        fs::rename(&unfinished, &path)?;
        File::open(&self.folder)?.sync_all()
    }

    /// Forgets a block that was answered.
    ///
    /// # Errors
    /// The file is there and cannot be removed.
    pub fn remove(&self, found: &Found) -> io::Result<()> {
        match fs::remove_file(self.path(found)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// The blocks of earlier runs, and the files that hold none, with the reason.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn load(&self) -> io::Result<(Vec<Found>, Vec<String>)> {
        let (mut blocks, mut broken) = (Vec::new(), Vec::new());
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            if path.extension().is_none_or(|extension| extension != "json") {
                continue; // an unfinished file was never the only copy: its block went to the nodes at once
            }
            match fs::read(&path).and_then(|text| Ok(serde_json::from_slice(&text)?)) {
                Ok(found) => blocks.push(found),
                Err(error) => broken.push(format!("{}: {error}", path.display())),
            }
        }
        Ok((blocks, broken))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn found(height: u32) -> Found {
        let (license, worker, block) = ("license".into(), "worker".into(), "00".into());
        Found { height, hash: "ab".repeat(32), license, worker, time: 5, block }
    }

    #[test]
    fn a_block_comes_back_until_it_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::open(folder.path()).unwrap();
        spool.store(&found(1)).unwrap();
        spool.store(&found(1)).unwrap();
        spool.store(&found(2)).unwrap();
        let again = Spool::open(folder.path()).unwrap();
        let (mut blocks, broken) = again.load().unwrap();
        blocks.sort_by_key(|found| found.height);
        assert_eq!((blocks, broken.len()), (vec![found(1), found(2)], 0));
        again.remove(&found(1)).unwrap();
        again.remove(&found(1)).unwrap();
        assert_eq!(again.load().unwrap().0, [found(2)]);
    }

    #[test]
    fn half_and_broken_files_are_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::open(folder.path()).unwrap();
        fs::write(folder.path().join("found/1-a.tmp"), "{").unwrap();
        fs::write(folder.path().join("found/2-b.json"), "{").unwrap();
        let (blocks, broken) = spool.load().unwrap();
        assert!(blocks.is_empty() && broken.len() == 1 && broken[0].contains("2-b.json"), "{broken:?}");
    }
}
