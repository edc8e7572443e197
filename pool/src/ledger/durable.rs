//! What the disk has for certain: how many shares and blocks the ledger had when it was last made durable, and the blocks
//! that nodes may have and no disk has taken.
//!
//! Here: the file beside the database that says so, and whether a database has as much. One whose journal is damaged opens
//! as if it ended there, and one that is gone is made anew: a pool would go on with what is left, and pay once more what
//! the lost blocks have paid. Path: sync → [`Note::write`]; start → [`Note::read`] → [`Durable::missing_in`], and later
//! [`crate::blocks`] looks for the blocks.

use std::fmt::Write;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::MutexGuard;

use super::store::BlockId;
use super::{Ledger, LedgerError};

/// The file's name in the data directory.
const FILE: &str = "ledger.durable";
/// Its length in bytes: a disk writes so much whole or not at all. It is never longer nor written elsewhere, so a disk
/// without room takes it too.
const LENGTH: usize = 512;
/// Blocks that it has room for, 81 bytes each after 56 of counts. One keeps the pool from starting, so more say no more.
const MAX_OFF_DISK: usize = 5;

/// Numbers of shares and blocks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Durable {
    pub(super) shares: u64,
    pub(super) blocks: u64,
}

impl Durable {
    /// Why a database with so much must not be used, if it has less.
    pub(super) fn missing_in(self, found: Self, datadir: &Path) -> Option<String> {
        let Self { shares, blocks } = self;
        (found.shares < shares || found.blocks < blocks).then(|| {
            format!(
                "it has {} shares and {} blocks, and had {shares} and {blocks} on the disk before: it is damaged, or \
                 an older copy; put it back as it was, or remove {} to go on with what is left",
                found.shares,
                found.blocks,
                place(datadir).display()
            )
        })
    }
}

/// The file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Note {
    /// What a database must have.
    pub(super) least: Durable,
    /// Found blocks that were on no disk when this was written.
    pub(super) off_disk: Vec<BlockId>,
}

impl Note {
    /// What was noted in a data directory; nothing where nothing was.
    pub(super) fn read(datadir: &Path) -> Result<Self, LedgerError> {
        let path = place(datadir);
        match std::fs::read(&path) {
            Ok(text) if text.is_empty() => Ok(Self::default()), // made just before a loss of power
            Ok(text) => {
                let text = String::from_utf8_lossy(&text);
                parse(&text).ok_or_else(|| unusable(&path, &damaged(&text)))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(unusable(&path, &error.to_string())),
        }
    }

    /// Notes that the disk has so much. Always as many bytes in the same place: there is no half of it.
    pub(super) fn write(&self, datadir: &Path) -> Result<(), LedgerError> {
        let path = place(datadir);
        let written = File::options().write(true).create(true).truncate(false).open(&path).and_then(|file| {
            file.write_all_at(self.text().as_bytes(), 0)?;
            file.sync_data()
        });
        written.map_err(|error| unusable(&path, &error.to_string()))
    }

    fn text(&self) -> String {
        let Durable { shares, blocks } = self.least;
        let mut text = format!("shares {shares:020} blocks {blocks:020}\n");
        for BlockId { height, hash } in self.off_disk.iter().take(MAX_OFF_DISK) {
            let _ = writeln!(text, "lost {height:010} {hash}"); // writing to a String cannot fail
        }
        format!("{text:<width$}\n", width = LENGTH - 1)
    }
}

impl Ledger {
    fn noted(&self) -> MutexGuard<'_, Note> {
        self.note.lock().expect("no panic while the lock is held")
    }

    /// Notes what the disk has for certain.
    pub(super) fn note_durable(&self, least: Durable) -> Result<(), LedgerError> {
        let mut note = self.noted();
        note.least = least;
        note.write(&self.datadir)
    }

    /// Notes a block that nodes may have and no disk has taken: until it is found on one, no pool may start here, for it
    /// would pay again what that block pays.
    ///
    /// # Errors
    /// That cannot be written either; the next note has it.
    pub fn note_off_disk(&self, id: BlockId) -> Result<(), LedgerError> {
        let mut note = self.noted();
        if note.off_disk.contains(&id) {
            return Ok(());
        }
        note.off_disk.push(id);
        note.write(&self.datadir)
    }

    /// Notes that a disk has taken a block after all.
    ///
    /// # Errors
    /// That cannot be written; the next note has it.
    pub fn note_on_disk(&self, id: &BlockId) -> Result<(), LedgerError> {
        let mut note = self.noted();
        let before = note.off_disk.len();
        note.off_disk.retain(|noted| noted != id);
        if note.off_disk.len() == before { Ok(()) } else { note.write(&self.datadir) }
    }

    /// The blocks that nodes may have and no disk has taken.
    #[must_use]
    pub fn off_disk(&self) -> Vec<BlockId> {
        self.noted().off_disk.clone()
    }
}

fn place(datadir: &Path) -> PathBuf {
    datadir.join(FILE)
}

fn parse(text: &str) -> Option<Note> {
    let mut words = text.split_ascii_whitespace();
    let mut number = |name: &str| words.next().filter(|word| *word == name).and(words.next())?.parse().ok();
    let least = Durable { shares: number("shares")?, blocks: number("blocks")? };
    let mut off_disk = Vec::new();
    while let Some(word) = words.next() {
        let (height, hash) = Some(words.next()?).filter(|_| word == "lost").zip(words.next())?;
        off_disk.push(BlockId { height: height.parse().ok()?, hash: hash.parse().ok()? });
    }
    Some(Note { least, off_disk })
}

fn damaged(text: &str) -> String {
    let found: String = text.lines().next().unwrap_or_default().escape_debug().take(32).collect();
    format!(
        "the file is damaged, it begins with '{found}', 'shares N blocks N' expected: put it back as it was, or remove it \
         to go on with the ledger as it is, if that is whole"
    )
}

fn unusable(path: &Path, reason: &str) -> LedgerError {
    LedgerError { folder: path.display().to_string(), reason: reason.to_owned() }
}
