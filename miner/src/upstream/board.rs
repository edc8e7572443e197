//! The state of the upstream for views: its sources, which of them is in use, and requests to use another.
//!
//! Here: a plain record that the upstream writes and views read, and rate-limited requests. Not here: failover (the
//! upstream's), presentation (the views').

use std::future::pending;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::sleep_until;

/// Longest text of an upstream that is kept, in characters.
const MAX_TEXT: usize = 200;
/// Least time between two requests that the upstream handles: each may cost a connection and a log line, and scripts
/// may send one every millisecond.
const WISH_EVERY: Duration = Duration::from_secs(1);

/// State of a source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Condition {
    /// Another source is in use.
    #[default]
    Unused,
    /// Being connected to.
    Connecting,
    /// It gives work.
    Working,
    /// It is reachable but has no work for us; with the reason, such as a license at its cap and the height at which it
    /// resumes.
    Waiting(String),
    /// It failed; with the reason.
    Away(String),
}

/// The current job, as shown to people.
#[derive(Clone, Debug, PartialEq)]
pub struct JobView {
    /// The upstream's id for it.
    pub id: String,
    /// The height of its block, if known.
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
    /// Our identity there: a pool's user, or a license's address.
    pub user: String,
    /// Its state.
    pub condition: Condition,
    /// Since when it is in that state.
    pub since: Option<Instant>,
    /// The difficulty of its shares.
    pub difficulty: Option<f64>,
    /// The newest job.
    pub job: Option<JobView>,
    /// Number of jobs received.
    pub jobs: u64,
    /// Shares it accepted.
    pub accepted: u64,
    /// Shares it refused, except stale ones.
    pub rejected: u64,
    /// Shares it refused as stale, and those not submitted or not answered.
    pub stale: u64,
    /// When it accepted the last share.
    pub last_accepted: Option<Instant>,
    /// How long its last verdict took.
    pub answer: Option<Duration>,
    /// Blocks found, if known: solo mode.
    pub blocks: u64,
    /// Its last message for people.
    pub message: Option<String>,
}

impl Source {
    /// Changes its state; text from outside is truncated.
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

/// The index of the source that is nearest to giving work; the first one among equals.
#[must_use]
pub fn current(sources: &[Source]) -> usize {
    let far = |source: &Source| match source.condition {
        Condition::Working => 0,
        Condition::Waiting(_) => 1,
        Condition::Connecting => 2,
        Condition::Away(_) => 3,
        Condition::Unused => 4,
    };
    sources.iter().enumerate().min_by_key(|(_, source)| far(source)).map_or(0, |(number, _)| number)
}

/// The sources in order of preference.
#[derive(Debug)]
pub struct Board {
    sources: Mutex<Vec<Source>>,
    /// The index of a source that was asked for.
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

    /// The current state of all sources.
    #[must_use]
    pub fn sources(&self) -> Vec<Source> {
        self.lock().clone()
    }

    /// The source in use: one that gives work before one that may, and the first one among equals.
    #[must_use]
    pub fn current(&self) -> Option<Source> {
        let sources = self.lock();
        sources.get(current(&sources)).cloned()
    }

    /// Changes the record of a source; does nothing if there is no source of that number.
    pub fn change(&self, number: usize, change: impl FnOnce(&mut Source)) {
        if let Some(source) = self.lock().get_mut(number) {
            change(source);
        }
    }

    /// Asks for a source to be used. Returns whether there is a source of that number.
    pub fn ask_for(&self, number: usize) -> bool {
        let there = number < self.lock().len();
        if there {
            self.wish.send_replace(Some(number));
        }
        there
    }

    /// The requests, unfiltered, as source numbers; see [`Wishes`].
    #[must_use]
    pub fn wishes(&self) -> watch::Receiver<Option<usize>> {
        self.wish.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Source>> {
        self.sources.lock().expect("nothing panics while it holds the lock")
    }
}

/// Requests as the upstream handles them: the newest one, at most one a second.
#[derive(Debug)]
pub struct Wishes {
    newest: watch::Receiver<Option<usize>>,
    /// Whether there is one that was not handled yet.
    waits: bool,
    /// When the next one is handled.
    next_at: Instant,
}

impl Wishes {
    /// Of a [board](Board::wishes), including a request that is already there.
    #[must_use]
    pub fn new(mut newest: watch::Receiver<Option<usize>>) -> Self {
        newest.mark_changed();
        Self { newest, waits: false, next_at: Instant::now() }
    }

    /// Waits for a request and returns the number of the source to use. Cancel safe.
    pub async fn next(&mut self) -> usize {
        loop {
            if !self.waits && self.newest.changed().await.is_err() {
                // The board and all who could ask are gone.
                return pending().await;
            }
            self.waits = true;
            sleep_until(self.next_at.into()).await;
            self.waits = false;
            let newest = *self.newest.borrow_and_update();
            if let Some(number) = newest {
                self.next_at = Instant::now() + WISH_EVERY;
                return number;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tokio::time::timeout;

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
        // A failed source is not in use while another one works.
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

    #[tokio::test]
    async fn of_many_wishes_the_newest_is_heard_once_a_second() {
        let board = board();
        assert!(board.ask_for(1));
        let (mut wishes, begun) = (Wishes::new(board.wishes()), Instant::now());
        assert_eq!(wishes.next().await, 1, "the first at once");
        assert!(wishes.next_at >= begun + WISH_EVERY);
        wishes.next_at = begun + Duration::from_secs(3600);
        for number in [1, 1, 0, 1, 0] {
            assert!(board.ask_for(number));
            // The waiting future may be cancelled meanwhile.
            assert!(timeout(Duration::ZERO, wishes.next()).await.is_err(), "too early");
        }
        wishes.next_at = Instant::now();
        assert_eq!(wishes.next().await, 0);
        assert!(!wishes.waits && !wishes.newest.has_changed().unwrap(), "nothing is left");
    }

    #[test]
    fn long_texts_are_cut() {
        let mut source = Source::default();
        source.set(Condition::Away("é".repeat(1000)));
        assert_eq!(source.condition, Condition::Away("é".repeat(MAX_TEXT)));
    }
}
