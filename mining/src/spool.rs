//! Found blocks that no node has answered yet, kept in one file each so that they survive a restart.
//!
//! Here: a folder of such files, written so that neither a killed process nor a loss of power leaves half a block.
//! Not here: what is stored with the block ([`Kept`]'s implementors), and when a block may be removed.

use std::fmt::Display;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::marker::PhantomData;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use iop_stratum::work::{HEADER_SIZE, sha256d};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::files;

/// Largest file, in bytes, written or read. A full block (4 M weight) is 8 MB of hex, and what is stored with it is
/// small.
const MAX_FILE: u64 = 64 * 1024 * 1024;
/// Most files in the folder. Blocks wait here while no node answers; real chains give a few.
const MAX_FILES: usize = 1000;
/// Extension of a file that is not complete.
const UNFINISHED: &str = "tmp";
/// The same for a second file of a block whose first file could not be completed.
const UNFINISHED_AGAIN: &str = "tmp2";

/// What a file holds: a found block and the data that belongs to it.
pub trait Kept: Serialize + DeserializeOwned {
    /// The block's height.
    fn height(&self) -> u32;
    /// The block's hash, as printed.
    fn hash(&self) -> &str;
    /// The block in hex, as `submitblock` takes it.
    fn block(&self) -> &str;
}

/// Whether the stated hash is that of the block.
fn is_sound(found: &impl Kept) -> bool {
    let header = hex::decode(found.block()).ok();
    let header = header.as_deref().and_then(|block| block.first_chunk::<HEADER_SIZE>());
    header.is_some_and(|header| {
        let mut hash = sha256d(header);
        hash.reverse();
        hex::encode(hash) == found.hash()
    })
}

/// A block of an earlier run, with the path of its file.
pub type Earlier<F> = (PathBuf, F);

/// A block's file before it is renamed to its final name. The next start loads it anyway if it is whole.
#[derive(Debug)]
pub struct Unfinished {
    file: File,
    unfinished: PathBuf,
    path: PathBuf,
}

/// The folder of found blocks.
#[derive(Debug)]
pub struct Spool<F> {
    folder: PathBuf,
    kept: PhantomData<fn(F) -> F>,
}

impl<F> Clone for Spool<F> {
    fn clone(&self) -> Self {
        Self { folder: self.folder.clone(), kept: PhantomData }
    }
}

impl<F: Kept> Spool<F> {
    /// Opens the folder, and creates it if it is missing.
    ///
    /// # Errors
    /// The folder cannot be created.
    pub fn open(datadir: &Path) -> io::Result<Self> {
        let folder = datadir.join("found");
        DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        Ok(Self { folder, kept: PhantomData })
    }

    /// Writes a block. Once this returns, the block survives the process; after [`Spool::keep`] also a loss of power.
    ///
    /// # Errors
    /// The file could not be written whole (a partial file is removed), it would be larger than what can be read, or
    /// the folder already holds a thousand files.
    pub fn write(&self, found: &F) -> io::Result<Unfinished> {
        let bytes = serde_json::to_vec(found)?;
        if bytes.len() as u64 > MAX_FILE {
            return Err(io::Error::other(format!(
                "it has {} bytes, {MAX_FILE} at most expected",
                bytes.len()
            )));
        }
        if fs::read_dir(&self.folder)?.count() >= MAX_FILES {
            let folder = self.folder.display();
            return Err(io::Error::other(format!("{MAX_FILES} files lie in {folder} already")));
        }
        let path = self.folder.join(format!("{}-{}.json", found.height(), found.hash()));
        let first = path.with_extension(UNFINISHED);
        // An existing file may be whole and this write may fail, so the existing one stays until this one is kept.
        let unfinished = if first.exists() { path.with_extension(UNFINISHED_AGAIN) } else { first };
        let written = || {
            let mut options = File::options();
            let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
            file.write_all(&bytes)?;
            Ok(file)
        };
        match written() {
            Ok(file) => Ok(Unfinished { file, unfinished, path }),
            Err(error) => {
                let _ = fs::remove_file(&unfinished); // if that fails too, the next start removes it
                Err(error)
            }
        }
    }

    /// Makes a written block survive a loss of power, and returns the path of its file.
    ///
    /// # Errors
    /// The disk did not accept it.
    pub fn keep(&self, written: Unfinished) -> io::Result<PathBuf> {
        let Unfinished { file, unfinished, path } = written;
        file.sync_all()?;
        self.complete(&unfinished, &path)?;
        if unfinished != path.with_extension(UNFINISHED) {
            // If this fails, the next start submits the block once more and the node reports a duplicate.
            let _ = fs::remove_file(path.with_extension(UNFINISHED));
        }
        Ok(path)
    }

    fn complete(&self, unfinished: &Path, path: &Path) -> io::Result<()> {
        fs::rename(unfinished, path)?;
        File::open(&self.folder)?.sync_all()
    }

    /// Removes a block that was answered, by the path that [`Spool::keep`] or [`Spool::load`] returned.
    ///
    /// # Errors
    /// The file exists and cannot be removed.
    pub fn remove(&self, path: &Path) -> io::Result<()> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// The blocks of earlier runs with their files, and a message for each file that could not be used.
    ///
    /// A file that was written but not yet renamed when the process ended is loaded too; one that was only partly
    /// written is removed. A file that cannot be read may hold a block, and stays. A problem with one file does not
    /// affect the others.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn load(&self) -> io::Result<(Vec<Earlier<F>>, Vec<String>)> {
        let (mut blocks, mut wrong): (Vec<Earlier<F>>, _) = (Vec::new(), Vec::new());
        for entry in fs::read_dir(&self.folder)? {
            let path = match entry {
                Ok(entry) => entry.path(),
                Err(error) => {
                    wrong.push(format!("{}: {error}", self.folder.display()));
                    continue;
                }
            };
            self.take(path, &mut blocks, &mut wrong);
        }
        Ok((blocks, wrong))
    }

    /// Loads one file.
    fn take(&self, path: PathBuf, blocks: &mut Vec<Earlier<F>>, wrong: &mut Vec<String>) {
        let mut name = |reason: &dyn Display| wrong.push(format!("{}: {reason}", path.display()));
        let extension = path.extension().and_then(|extension| extension.to_str());
        // The second copy is treated like the first.
        let extension = extension.map(|one| if one == UNFINISHED_AGAIN { UNFINISHED } else { one });
        match (extension, read(&path)) {
            (Some("json"), Ok(found)) => add(blocks, path, found),
            (Some("json"), Err(NoBlock::Unread(reason) | NoBlock::Unsound(reason))) => name(&reason),
            (Some(UNFINISHED), Ok(found)) => {
                let complete = path.with_extension("json");
                if let Err(error) = self.complete(&path, &complete) {
                    name(&format_args!("its block is read, but it cannot be named so: {error}"));
                }
                // If the rename failed, the file is where it was.
                let file = if path.exists() { path } else { complete };
                add(blocks, file, found);
            }
            (Some(UNFINISHED), Err(NoBlock::Unread(reason))) => name(&reason),
            (Some(UNFINISHED), Err(NoBlock::Unsound(_))) => {
                if let Err(error) = self.remove(&path) {
                    name(&format_args!("it holds no block, and cannot be removed: {error}"));
                }
            }
            _ => {} // not ours
        }
    }
}

/// Adds a block once per file: a file renamed while the folder is being read may be listed under its new name too.
fn add<F>(blocks: &mut Vec<Earlier<F>>, file: PathBuf, found: F) {
    blocks.retain(|(known, _)| *known != file);
    blocks.push((file, found));
}

/// Why a file yields no block.
enum NoBlock {
    /// It could not be read, so its contents are unknown.
    Unread(String),
    /// It holds no valid block: a partial one, or something else.
    Unsound(String),
}

fn read<F: Kept>(path: &Path) -> Result<F, NoBlock> {
    let bytes = files::read(path, MAX_FILE).map_err(NoBlock::Unread)?;
    let found: F = serde_json::from_slice(&bytes).map_err(|error| NoBlock::Unsound(error.to_string()))?;
    if is_sound(&found) { Ok(found) } else { Err(NoBlock::Unsound("its hash is not its block's".to_owned())) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::PermissionsExt;

    use bitcoin::consensus::encode::serialize_hex;
    use iop_consensus::params::Params;
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    struct Found {
        height: u32,
        hash: String,
        block: String,
    }

    impl Kept for Found {
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

    /// Genesis with another nonce, so that each number gives a different block.
    fn found(height: u32, nonce: u32) -> Found {
        let mut block = Params::devnet().genesis.block().clone();
        block.header.nonce = nonce;
        Found { height, hash: block.block_hash().to_string(), block: serialize_hex(&block) }
    }

    fn store(spool: &Spool<Found>, found: &Found) -> PathBuf {
        spool.keep(spool.write(found).unwrap()).unwrap()
    }

    fn loaded(spool: &Spool<Found>) -> (Vec<Found>, Vec<String>) {
        let (blocks, broken) = spool.load().unwrap();
        let mut blocks: Vec<Found> = blocks.into_iter().map(|(_, found)| found).collect();
        blocks.sort_by_key(|found| found.height);
        (blocks, broken)
    }

    #[test]
    fn a_block_comes_back_until_it_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::<Found>::open(folder.path()).unwrap();
        let path = store(&spool, &found(1, 1));
        assert_eq!(store(&spool, &found(1, 1)), path);
        drop(spool.write(&found(2, 2)).unwrap()); // killed before the block was synced to disk
        let again = Spool::<Found>::open(folder.path()).unwrap();
        assert_eq!(loaded(&again), (vec![found(1, 1), found(2, 2)], vec![]));
        again.remove(&path).unwrap();
        again.remove(&path).unwrap();
        assert_eq!(loaded(&again).0, [found(2, 2)]);
    }

    #[test]
    fn unfinished_files_are_completed_or_removed_and_broken_ones_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::<Found>::open(folder.path()).unwrap();
        let whole = serde_json::to_vec(&found(3, 3)).unwrap();
        fs::write(folder.path().join("found/1-a.tmp"), &whole[..whole.len() - 1]).unwrap();
        fs::write(folder.path().join("found/2-b.json"), "{").unwrap();
        fs::write(folder.path().join("found/3-c.tmp"), &whole).unwrap();
        for _ in 0..2 {
            let (blocks, broken) = loaded(&spool);
            assert_eq!(blocks, [found(3, 3)]);
            assert!(broken.len() == 1 && broken[0].contains("2-b.json"), "{broken:?}");
        }
        assert!(!folder.path().join("found/1-a.tmp").exists());
        assert!(
            folder.path().join("found/3-c.json").exists() && !folder.path().join("found/3-c.tmp").exists()
        );
    }

    #[test]
    fn a_block_in_a_named_and_an_unnamed_file_is_given_once_in_whichever_order_they_are_listed() {
        for names in [["3-c.tmp", "3-c.json"], ["3-c.json", "3-c.tmp"], ["3-c.tmp", "3-c.tmp2"]] {
            let folder = tempfile::tempdir().unwrap();
            let spool = Spool::<Found>::open(folder.path()).unwrap();
            let paths = names.map(|name| folder.path().join("found").join(name));
            for path in &paths {
                fs::write(path, serde_json::to_vec(&found(3, 3)).unwrap()).unwrap();
            }
            // The order of a folder's entries depends on the file system.
            let (mut blocks, mut wrong) = (Vec::new(), Vec::new());
            paths.into_iter().for_each(|path| spool.take(path, &mut blocks, &mut wrong));
            assert_eq!(blocks, [(folder.path().join("found/3-c.json"), found(3, 3))], "{names:?}");
            assert!(wrong.is_empty(), "{names:?}: {wrong:?}");
        }
    }

    #[test]
    fn a_file_that_cannot_be_read_removed_or_renamed_is_named_and_holds_up_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::<Found>::open(folder.path()).unwrap();
        let at = |name: &str| folder.path().join("found").join(name);
        store(&spool, &found(1, 1));
        // A file that cannot be opened: a symbolic link to itself.
        std::os::unix::fs::symlink("2-b.tmp", at("2-b.tmp")).unwrap();
        // A file that cannot be renamed.
        fs::write(at("3-c.tmp"), serde_json::to_vec(&found(3, 3)).unwrap()).unwrap();
        fs::create_dir(at("3-c.json")).unwrap();
        fs::create_dir(at("4-d.tmp")).unwrap();
        for _ in 0..2 {
            let (blocks, wrong) = loaded(&spool);
            assert_eq!(blocks, [found(1, 1), found(3, 3)]);
            for name in ["2-b.tmp", "3-c.tmp", "3-c.json", "4-d.tmp"] {
                assert_eq!(wrong.iter().filter(|line| line.contains(name)).count(), 1, "{name}: {wrong:?}");
            }
            assert!(at("2-b.tmp").is_symlink() && at("3-c.tmp").exists() && at("4-d.tmp").exists());
        }
        let (blocks, _) = spool.load().unwrap();
        blocks.iter().for_each(|(file, _)| spool.remove(file).unwrap());
        assert!(!at("3-c.tmp").exists(), "it is removed from where it is");
    }

    #[test]
    fn a_hash_that_is_not_the_blocks_is_refused_and_names_no_file_to_remove() {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::<Found>::open(folder.path()).unwrap();
        let outside = folder.path().join("precious.json");
        fs::write(&outside, "x").unwrap();
        let lying = Found { hash: "x/../../precious".into(), ..found(1, 1) };
        fs::write(folder.path().join("found/1-a.json"), serde_json::to_vec(&lying).unwrap()).unwrap();
        let other = Found { hash: found(1, 2).hash, ..found(1, 1) };
        fs::write(folder.path().join("found/1-b.json"), serde_json::to_vec(&other).unwrap()).unwrap();
        fs::write(folder.path().join("found/odd.json"), serde_json::to_vec(&found(7, 7)).unwrap()).unwrap();
        let (blocks, broken) = spool.load().unwrap();
        assert_eq!((blocks.len(), broken.len()), (1, 2), "{broken:?}");
        assert!(broken.iter().all(|line| line.contains("its hash is not its block's")), "{broken:?}");
        spool.remove(&blocks[0].0).unwrap();
        assert!(!folder.path().join("found/odd.json").exists(), "the file it came from");
        assert!(outside.exists());
    }

    #[test]
    fn whatever_is_written_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::<Found>::open(folder.path()).unwrap();
        let with_bytes = |count: usize| {
            let mut block = found(1, 1);
            block.block.push_str(&"00".repeat(count));
            block
        };
        store(&spool, &with_bytes(20_000_000));
        assert_eq!(loaded(&spool), (vec![with_bytes(20_000_000)], vec![]));
        let refused = spool.write(&with_bytes(MAX_FILE as usize / 2)).unwrap_err().to_string();
        assert!(refused.contains("67108864 at most expected"), "{refused}");
        assert_eq!(loaded(&spool).0.len(), 1);
    }

    #[test]
    fn files_are_for_their_owner_only_and_there_is_an_end_to_them() {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::<Found>::open(folder.path()).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let path = store(&spool, &found(1, 1));
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        for number in 1..MAX_FILES {
            fs::write(folder.path().join(format!("found/{number}.txt")), "").unwrap();
        }
        let full = spool.write(&found(2, 2)).unwrap_err().to_string();
        assert!(full.contains("1000 files lie in"), "{full}");
    }
}
