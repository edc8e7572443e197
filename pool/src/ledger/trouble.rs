//! What keeps the ledger from storing what it is given: a disk that refuses, or one that hangs.
//!
//! Here: what is refused and since when, what a write that does not end looks like, who is told. Not here: the writes
//! ([`super::writer`], [`super::live`]), and what the pool does without a ledger ([`crate::follow`], [`crate::run`]).

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::LedgerError;

/// How long what is refused is tried again. RocksDB takes nothing more after a disk was full, until it is opened again: so
/// the pool ends, and whoever keeps it running starts it again. What was not answered by then was never promised.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// A write that takes longer is said to hang: a healthy disk takes milliseconds, a busy one some hundred of them.
const HANGING: Duration = Duration::from_secs(2);

/// What is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Writing {
    /// Shares, with the blocks that they make.
    Shares,
    /// Blocks that come without a share.
    Blocks,
    /// The block that templates stand on.
    Base,
    /// What is remembered of jobs.
    Jobs,
    /// What the disk has for certain.
    Note,
}

/// What does not work now.
#[derive(Debug, Default)]
pub(super) struct Troubles {
    /// What is refused: since when, and why.
    refused: Mutex<BTreeMap<Writing, (Instant, String)>>,
    /// When what is being written was begun.
    begun: Mutex<BTreeMap<Writing, Instant>>,
    /// Why something is refused.
    told: watch::Sender<Option<String>>,
    /// As by a full disk.
    #[cfg(test)]
    pub(super) disk_is_full: std::sync::atomic::AtomicBool,
}

impl Troubles {
    /// Writes, and keeps in mind whether that works and how long it takes.
    pub(super) fn watch(
        &self,
        what: Writing,
        write: impl FnOnce() -> Result<(), LedgerError>,
    ) -> Result<(), LedgerError> {
        #[cfg(test)]
        let write = || self.full().map_or_else(write, Err);
        self.begun().insert(what, Instant::now());
        let written = write();
        self.begun().remove(&what);
        let mut refused = self.refused();
        match &written {
            Ok(()) => {
                refused.remove(&what);
                // Nobody may try these again, and the database takes all or nothing.
                if what != Writing::Note {
                    refused.retain(|what, _| !matches!(what, Writing::Blocks | Writing::Base));
                }
            }
            Err(trouble) => {
                let since = refused.get(&what).map_or_else(Instant::now, |(since, _)| *since);
                refused.insert(what, (since, trouble.to_string()));
            }
        }
        let reason = refused.values().next().map(|(_, reason)| reason.clone());
        // Still locked, so that the last one to change it is the last one to tell.
        self.told.send_if_modified(|told| {
            let is_new = told.is_some() != reason.is_some();
            *told = reason;
            is_new
        });
        written
    }

    #[cfg(test)]
    fn full(&self) -> Option<LedgerError> {
        let (folder, reason) = ("of a test".to_owned(), "No space left on device".to_owned());
        self.disk_is_full.load(std::sync::atomic::Ordering::Relaxed).then_some(LedgerError { folder, reason })
    }

    fn refused(&self) -> MutexGuard<'_, BTreeMap<Writing, (Instant, String)>> {
        self.refused.lock().expect("no panic while the lock is held")
    }

    fn begun(&self) -> MutexGuard<'_, BTreeMap<Writing, Instant>> {
        self.begun.lock().expect("no panic while the lock is held")
    }

    /// Why something is refused; none while all is taken.
    pub(super) fn refusal(&self) -> Option<String> {
        self.told.borrow().clone()
    }

    /// Whether something has been refused for so long that there is no hope.
    pub(super) fn is_hopeless(&self) -> bool {
        self.refused().values().any(|(since, _)| since.elapsed() > PATIENCE)
    }

    /// What a write that does not end looks like; none while none takes long.
    pub(super) fn hanging(&self) -> Option<String> {
        let longest = self.begun().values().map(Instant::elapsed).max()?;
        (longest > HANGING)
            .then(|| format!("the disk hangs: it has not taken a write for {} s", longest.as_secs()))
    }

    /// Why something is refused; changes when that begins, and when all is taken again.
    pub(super) fn told(&self) -> watch::Receiver<Option<String>> {
        self.told.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refuse(reason: &str) -> Result<(), LedgerError> {
        Err(LedgerError { folder: "f".to_owned(), reason: reason.to_owned() })
    }

    #[test]
    fn what_is_refused_is_told_once_until_it_works_again() {
        let troubles = Troubles::default();
        let mut told = troubles.told();
        for (reason, is_new) in [("full", true), ("still full", false)] {
            assert!(troubles.watch(Writing::Jobs, || refuse(reason)).is_err());
            assert_eq!(troubles.refusal(), Some(format!("ledger f: {reason}")));
            assert_eq!(told.has_changed().ok(), Some(is_new), "{reason}");
            told.mark_unchanged();
        }
        assert!(troubles.watch(Writing::Note, || refuse("gone")).is_err());
        assert_eq!(troubles.watch(Writing::Jobs, || Ok(())), Ok(()));
        assert_eq!(troubles.refusal().as_deref(), Some("ledger f: gone"), "one that works hides no other");
        assert_eq!(told.has_changed().ok(), Some(false));
        assert_eq!(troubles.watch(Writing::Note, || Ok(())), Ok(()));
        assert_eq!((troubles.refusal(), troubles.is_hopeless()), (None, false));
        assert_eq!(told.has_changed().ok(), Some(true));
    }

    #[test]
    fn a_write_that_does_not_end_is_seen_while_it_lasts() {
        let (troubles, mut seen) = (Troubles::default(), None);
        let written = troubles.watch(Writing::Shares, || {
            let long_ago = Instant::now().checked_sub(HANGING + Duration::from_secs(1));
            troubles.begun().extend(long_ago.map(|begun| (Writing::Shares, begun)));
            seen = troubles.hanging();
            Ok(())
        });
        assert_eq!(written, Ok(()));
        assert_eq!(seen.as_deref(), Some("the disk hangs: it has not taken a write for 3 s"));
        assert_eq!((troubles.hanging(), troubles.refusal()), (None, None));
    }
}
