//! What the disk has for certain: how many shares and blocks the ledger had when it was last made durable.
//!
//! Here: the file beside the database that says so, and whether a database has as much. One whose journal is damaged opens
//! as if it ended there, and one that is gone is made anew: a pool would go on with what is left, and pay once more what
//! the lost blocks have paid. Path: sync → [`Durable::note`]; start → [`Durable::read`] → [`Durable::missing_in`].

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::LedgerError;

/// The file's name in the data directory.
const FILE: &str = "ledger.durable";

/// Shares and blocks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Durable {
    pub(super) shares: u64,
    pub(super) blocks: u64,
}

impl Durable {
    /// What was noted in a data directory; nothing where nothing was.
    pub(super) fn read(datadir: &Path) -> Result<Self, LedgerError> {
        let path = place(datadir);
        match std::fs::read_to_string(&path) {
            Ok(text) if text.is_empty() => Ok(Self::default()), // made just before a loss of power
            Ok(text) => parse(&text).ok_or_else(|| unusable(&path, "'shares N blocks N' expected")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(unusable(&path, &error.to_string())),
        }
    }

    /// Notes that the disk has so much. Always as many bytes in the same place: there is no half of it.
    pub(super) fn note(self, datadir: &Path) -> Result<(), LedgerError> {
        let Self { shares, blocks } = self;
        let path = place(datadir);
        let written = File::options().write(true).create(true).truncate(false).open(&path).and_then(|file| {
            file.write_all_at(format!("shares {shares:020} blocks {blocks:020}\n").as_bytes(), 0)?;
            file.sync_data()
        });
        written.map_err(|error| unusable(&path, &error.to_string()))
    }

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

fn place(datadir: &Path) -> PathBuf {
    datadir.join(FILE)
}

fn parse(text: &str) -> Option<Durable> {
    let words: Vec<&str> = text.split_ascii_whitespace().collect();
    match words[..] {
        ["shares", shares, "blocks", blocks] => {
            Some(Durable { shares: shares.parse().ok()?, blocks: blocks.parse().ok()? })
        }
        _ => None,
    }
}

fn unusable(path: &Path, reason: &str) -> LedgerError {
    LedgerError { folder: path.display().to_string(), reason: reason.to_owned() }
}
