//! Backups: copied from a running store, and restored into a new directory.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::{Store, StoreError};

impl Store {
    /// Copies the current state of the database into a new directory: a backup that can be opened as a store.
    ///
    /// # Errors
    /// When the directory exists, or cannot be written.
    pub fn backup(&self, folder: &Path) -> Result<(), StoreError> {
        let checkpoint = rocksdb::checkpoint::Checkpoint::new(&self.db);
        let made = checkpoint.and_then(|checkpoint| checkpoint.create_checkpoint(folder));
        made.map_err(|error| self.wrong(format!("no backup in {}: {error}", folder.display())))
    }
}

/// Copies a backup into a new directory, which a home can then open. The backup is not changed.
///
/// Everything is first copied to a neighbouring directory that is renamed at the end, so an interrupted copy is
/// never taken for a complete one.
///
/// # Errors
/// When the new directory exists, the backup is invalid or of another version, or something cannot be read or
/// written.
pub fn restore(backup: &Path, into: &Path) -> Result<(), StoreError> {
    let wrong = |reason: String| StoreError { folder: into.display().to_string(), reason };
    if into.symlink_metadata().is_ok() {
        return Err(wrong("it exists: a backup is restored into a new folder".to_owned()));
    }
    if !backup.join("CURRENT").is_file() {
        return Err(wrong(format!("{} is no backup", backup.display())));
    }
    let part = part_of(into).ok_or_else(|| wrong("the new folder has no name".to_owned()))?;
    fs::create_dir(&part).map_err(|error| {
        wrong(format!("{}, where the backup is copied first, cannot be made: {error}", part.display()))
    })?;
    let done = copy(backup, &part)
        .map_err(|error| wrong(format!("{} cannot be copied: {error}", backup.display())))
        .and_then(|()| Store::open(&part).map(drop))
        .and_then(|()| {
            fs::rename(&part, into).map_err(|error| wrong(format!("it cannot be named: {error}")))
        });
    if done.is_err() {
        // The partial copy is useless; the reason of the failure matters more than a failure to remove it.
        let _ = fs::remove_dir_all(&part);
        return done;
    }
    let parent = into.parent().filter(|parent| !parent.as_os_str().is_empty());
    sync(parent.unwrap_or(Path::new("."))).map_err(|error| wrong(format!("it cannot be synced: {error}")))
}

/// A neighbour of the new directory, so that it is on the same disk.
fn part_of(into: &Path) -> Option<PathBuf> {
    let mut name = into.file_name()?.to_owned();
    name.push(".part");
    Some(into.with_file_name(name))
}

/// Copies a backup, which is a flat directory of plain files.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        if !entry.file_type()?.is_file() {
            return Err(io::Error::other(format!("{} is no plain file", entry.path().display())));
        }
        let target = to.join(entry.file_name());
        fs::copy(entry.path(), &target)?;
        sync(&target)?;
    }
    sync(to)
}

fn sync(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}
