//! What people see of the upstream: its sources, which of them is in use, and their wish to use another.
//!
//! Here: a plain record that the upstream writes and views read, and wishes at the pace at which they are heard. Not here: failover (the upstream's), how it looks
//! (the views').

use std::future::pending;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::sleep_until;

/// Longest text of an upstream that is kept, in characters.
const MAX_TEXT: usize = 200;
/// Between two wishes that the upstream hears: each may cost a connection and a line in the log, and scripts may have one
/// a millisecond.
const WISH_EVERY: Duration = Duration::from_secs(1);

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
    /// Shares that it refused as stale, that were kept back, or that it has not answered.
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

/// The number of the source that is nearest to giving work; the first of those that are equally near.
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
        let sources = self.lock();
        sources.get(current(&sources)).cloned()
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

    /// Where wishes come out, all of them, as numbers of sources; see [`Wishes`].
    #[must_use]
    pub fn wishes(&self) -> watch::Receiver<Option<usize>> {
        self.wish.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Source>> {
        self.sources.lock().expect("nothing panics while it holds the lock")
    }
}

/// Wishes as the upstream hears them: the newest, one a second.
#[derive(Debug)]
pub struct Wishes {
    newest: watch::Receiver<Option<usize>>,
    /// Whether there is one that was not heard yet.
    waits: bool,
    /// When the next one is heard.
    next_at: Instant,
}

impl Wishes {
    /// Of a [board](Board::wishes), with the one that is there already.
    #[must_use]
    pub fn new(mut newest: watch::Receiver<Option<usize>>) -> Self {
        newest.mark_changed();
        Self { newest, waits: false, next_at: Instant::now() }
    }

    /// Waits for one, and gives the number of the source to use. May be dropped at any time: nothing is lost.
    pub async fn next(&mut self) -> usize {
        loop {
            if !self.waits && self.newest.changed().await.is_err() {
                // The board is gone with all who could want something.
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
            // Whoever waits may be called away meanwhile.
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
