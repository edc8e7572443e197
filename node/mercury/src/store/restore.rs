//! Backups: copied out of a running store, and into a new folder when one is needed.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::{Store, StoreError};

impl Store {
    /// Copies the database, as it is at this moment, into a new folder: a backup that can be opened as a store.
    ///
    /// # Errors
    /// The folder exists, or cannot be written.
    pub fn backup(&self, folder: &Path) -> Result<(), StoreError> {
        let checkpoint = rocksdb::checkpoint::Checkpoint::new(&self.db);
        let made = checkpoint.and_then(|checkpoint| checkpoint.create_checkpoint(folder));
        made.map_err(|error| self.wrong(format!("no backup in {}: {error}", folder.display())))
    }
}

/// Copies a backup into a new folder, which a home can then open. The backup stays as it is.
///
/// All is copied beside that folder first and takes its name at the end: one that was cut off is never taken for whole.
///
/// # Errors
/// The new folder exists, the backup is none or of another version, or something cannot be read or written.
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
        // What was copied is of no use; why it failed says more than that it is still there.
        let _ = fs::remove_dir_all(&part);
        return done;
    }
    let parent = into.parent().filter(|parent| !parent.as_os_str().is_empty());
    sync(parent.unwrap_or(Path::new("."))).map_err(|error| wrong(format!("it cannot be synced: {error}")))
}

/// Beside the new folder, so that it is on the same disk.
fn part_of(into: &Path) -> Option<PathBuf> {
    let mut name = into.file_name()?.to_owned();
    name.push(".part");
    Some(into.with_file_name(name))
}

/// A backup is a flat folder of plain files.
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
