//! What people see of the upstream: its sources, which of them is in use, and their wish to use another.
//!
//! Here: a plain record that the upstream writes and views read. Not here: failover (the upstream's), how it looks
//! (the views').

use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::sync::watch;

/// Longest text of an upstream that is kept, in characters.
const MAX_TEXT: usize = 200;

/// What a source is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Condition {
    /// Not in use: another one is.
    #[default]
    Unused,
    /// On the way to it.
    Connecting,
    /// It gives work.
    Working,
    /// It is there and has no work for us: why, such as a license at its cap and the height from which it goes on.
    Waiting(String),
    /// It failed: why.
    Away(String),
}

/// The job at hand, as far as people care.
#[derive(Clone, Debug, PartialEq)]
pub struct JobView {
    /// The upstream's name for it.
    pub id: String,
    /// The height of its block, where known.
    pub height: Option<u32>,
    /// The difficulty of a block.
    pub network_difficulty: f64,
    /// When it came.
    pub since: Instant,
}

/// A pool or a node.
#[derive(Clone, Debug, Default)]
pub struct Source {
    /// Where it is, without secrets.
    pub url: String,
    /// Who we are there: a pool's user, or a license's address.
    pub user: String,
    /// What it is doing.
    pub condition: Condition,
    /// Since when it is doing that.
    pub since: Option<Instant>,
    /// The difficulty of its shares.
    pub difficulty: Option<f64>,
    /// The newest job.
    pub job: Option<JobView>,
    /// Jobs that came.
    pub jobs: u64,
    /// Shares that it took.
    pub accepted: u64,
    /// Shares that it refused, but for stale ones.
    pub rejected: u64,
    /// Shares that it refused as stale, or that were kept back.
    pub stale: u64,
    /// When it took the last one.
    pub last_accepted: Option<Instant>,
    /// How long its last verdict took to come.
    pub answer: Option<Duration>,
    /// Blocks found, where that is known: solo.
    pub blocks: u64,
    /// The last text that it had for people.
    pub message: Option<String>,
}

impl Source {
    /// Takes it into another condition; texts of strangers are cut.
    pub fn set(&mut self, condition: Condition) {
        let cut = |text: String| text.chars().take(MAX_TEXT).collect();
        let condition = match condition {
            Condition::Waiting(text) => Condition::Waiting(cut(text)),
            Condition::Away(text) => Condition::Away(cut(text)),
            other => other,
        };
        if self.condition != condition {
            self.condition = condition;
            self.since = Some(Instant::now());
        }
    }
}

/// The sources in order of preference.
#[derive(Debug)]
pub struct Board {
    sources: Mutex<Vec<Source>>,
    /// The number of a source that somebody wants to be used.
    wish: watch::Sender<Option<usize>>,
}

impl Board {
    /// With sources of these URLs and users, none in use yet.
    #[must_use]
    pub fn new(sources: impl IntoIterator<Item = (String, String)>) -> Self {
        let source = |(url, user)| Source { url, user, ..Source::default() };
        Self {
            sources: Mutex::new(sources.into_iter().map(source).collect()),
            wish: watch::Sender::new(None),
        }
    }

    /// All sources as they are now.
    #[must_use]
    pub fn sources(&self) -> Vec<Source> {
        self.lock().clone()
    }

    /// The source in use, as it is now: one that gives work before one that may, and the first where all are alike.
    #[must_use]
    pub fn current(&self) -> Option<Source> {
        let far = |source: &&Source| match source.condition {
            Condition::Working => 0,
            Condition::Waiting(_) => 1,
            Condition::Connecting => 2,
            Condition::Away(_) => 3,
            Condition::Unused => 4,
        };
        self.lock().iter().min_by_key(far).cloned()
    }

    /// Changes what is known of a source; nothing where there is none of that number.
    pub fn change(&self, number: usize, change: impl FnOnce(&mut Source)) {
        if let Some(source) = self.lock().get_mut(number) {
            change(source);
        }
    }

    /// Asks for a source to be used. Says whether there is one of that number.
    pub fn ask_for(&self, number: usize) -> bool {
        let there = number < self.lock().len();
        if there {
            self.wish.send_replace(Some(number));
        }
        there
    }

    /// Where wishes come out: the upstream waits for changes and takes the number of the source to use.
    #[must_use]
    pub fn wishes(&self) -> watch::Receiver<Option<usize>> {
        self.wish.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Source>> {
        self.sources.lock().expect("nothing panics while it holds the lock")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn board() -> Board {
        Board::new(["a", "b"].map(|name| (name.to_owned(), "user".to_owned())))
    }

    #[test]
    fn the_current_source_is_the_one_in_use_or_the_first() {
        let board = board();
        assert_eq!(board.current().unwrap().url, "a");
        board.change(1, |source| source.set(Condition::Working));
        assert_eq!(board.current().unwrap().url, "b");
        // One that failed is not in use while another works.
        board.change(0, |source| source.set(Condition::Away("gone".to_owned())));
        assert_eq!(board.current().unwrap().url, "b");
        board.change(1, |source| source.set(Condition::Unused));
        assert_eq!(board.current().unwrap().url, "a");
        board.change(7, |_| unreachable!("there is no such source"));
    }

    #[test]
    fn a_wish_for_a_source_that_is_there_comes_out_and_no_other() {
        let board = board();
        let mut wishes = board.wishes();
        assert!(!board.ask_for(2));
        assert!(!wishes.has_changed().unwrap());
        assert!(board.ask_for(1));
        assert_eq!(*wishes.borrow_and_update(), Some(1));
    }

    #[test]
    fn long_texts_are_cut() {
        let mut source = Source::default();
        source.set(Condition::Away("é".repeat(1000)));
        assert_eq!(source.condition, Condition::Away("é".repeat(MAX_TEXT)));
    }
}
