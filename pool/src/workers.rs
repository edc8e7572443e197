//! Counters of shares per worker, in memory: they begin at zero with every start of the pool. The durable share
//! log, from which members are paid, is not here.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use iop_stratum::difficulty::Difficulty;
use iop_stratum::verdict::Reject;
use serde::Serialize;

use crate::history::{HashRate, History, Rates, Span};

/// Workers that are listed at most. Names cost nothing, so those that never had a share accepted make room when
/// they leave; at about 450 bytes each, this is 45 MB, and the [history] of those with shares beside it.
///
/// [history]: crate::history
const MAX_LISTED: usize = 100_000;
/// The first and the last of Stratum's codes.
const CODES: std::ops::RangeInclusive<u8> = 20..=25;

/// Shares of one worker or of all.
#[derive(Debug)]
pub struct Counters {
    accepted: AtomicU64,
    rejected: [AtomicU64; 6],
    /// Sum of the accepted difficulties, the bits of an f64.
    work: AtomicU64,
    last_share: AtomicU64,
    history: Mutex<History>,
}

/// Seconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

impl Counters {
    /// All at zero.
    #[must_use]
    pub fn new(history: History) -> Self {
        Self {
            accepted: AtomicU64::new(0),
            rejected: Default::default(),
            work: AtomicU64::new(0),
            last_share: AtomicU64::new(0),
            history: Mutex::new(history),
        }
    }

    /// Counts a share that is good for its difficulty, at a time in seconds since 1970.
    pub fn accept(&self, difficulty: Difficulty, now: u64) {
        self.accepted.fetch_add(1, Ordering::Relaxed);
        let add = |bits| Some((f64::from_bits(bits) + difficulty.get()).to_bits());
        self.work
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, add)
            .expect("the closure always gives a value");
        self.last_share.fetch_max(now, Ordering::Relaxed);
        self.with_history(|history| history.add(difficulty.get(), now));
    }

    fn with_history<T>(&self, action: impl FnOnce(&mut History) -> T) -> T {
        action(&mut self.history.lock().expect("no panic while the lock is held"))
    }

    /// Expected hashes per second, now.
    #[must_use]
    pub fn hash_rate(&self) -> HashRate {
        self.with_history(|history| history.hash_rate(now()))
    }

    /// Expected hashes per second, over time.
    #[must_use]
    pub fn rates(&self, span: Span) -> Rates {
        self.with_history(|history| history.rates(span, now()))
    }

    /// Counts a share that was refused.
    pub fn reject(&self, reject: &Reject) {
        let index = reject.code() - CODES.start();
        self.rejected[usize::from(index)].fetch_add(1, Ordering::Relaxed);
    }

    fn work(&self) -> f64 {
        f64::from_bits(self.work.load(Ordering::Relaxed))
    }

    /// As they are now.
    #[must_use]
    pub fn read(&self) -> Shares {
        let rejected = CODES.zip(&self.rejected).map(|(code, count)| (code, count.load(Ordering::Relaxed)));
        Shares {
            accepted: self.accepted.load(Ordering::Relaxed),
            rejected: rejected.filter(|&(_, count)| count > 0).collect(),
            work: self.work(),
            last_share: Some(self.last_share.load(Ordering::Relaxed)).filter(|&time| time > 0),
        }
    }
}

/// Counters, read.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Shares {
    /// Good shares.
    pub accepted: u64,
    /// Refused shares by Stratum's code, those with any.
    pub rejected: std::collections::BTreeMap<u8, u64>,
    /// Sum of the difficulties of the good ones; times 2³² it is the expected number of hashes.
    pub work: f64,
    /// Time of the last good one, in seconds since 1970.
    pub last_share: Option<u64>,
}

/// A worker: one user name, over all its connections.
#[derive(Debug)]
pub struct Worker {
    /// `ADDRESS[.worker]`.
    pub user: Box<str>,
    /// Its shares.
    pub counters: Counters,
    connections: AtomicU64,
}

/// A worker's presence on one connection.
#[derive(Debug)]
pub struct Presence(Arc<Worker>);

impl std::ops::Deref for Presence {
    type Target = Worker;

    fn deref(&self) -> &Worker {
        &self.0
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A line of the workers' list.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Listed {
    /// `ADDRESS[.worker]`.
    pub user: String,
    /// Connections on which it is authorised.
    pub connections: u64,
    /// Its speed, by its shares.
    pub hash_rate: HashRate,
    /// Its shares.
    #[serde(flatten)]
    pub shares: Shares,
}

/// All workers.
#[derive(Debug)]
pub struct Workers {
    listed: Mutex<HashMap<Box<str>, Arc<Worker>>>,
    /// Shares of all workers together.
    pub totals: Counters,
}

impl Default for Workers {
    /// None yet; the pool's history begins now.
    fn default() -> Self {
        Self { listed: Mutex::default(), totals: Counters::new(History::of_pool(now())) }
    }
}

impl Workers {
    /// A worker begins on a connection; `None` when the list is full.
    #[must_use]
    pub fn join(&self, user: &str) -> Option<Presence> {
        self.join_within(user, MAX_LISTED)
    }

    fn join_within(&self, user: &str, limit: usize) -> Option<Presence> {
        let mut listed = self.listed.lock().expect("no panic while the lock is held");
        if !listed.contains_key(user) {
            if listed.len() >= limit {
                listed.retain(|_, worker| {
                    worker.connections.load(Ordering::Relaxed) > 0
                        || worker.counters.accepted.load(Ordering::Relaxed) > 0
                });
            }
            if listed.len() >= limit {
                return None;
            }
            let counters = Counters::new(History::of_worker(now()));
            let worker = Worker { user: user.into(), counters, connections: AtomicU64::new(0) };
            listed.insert(user.into(), Arc::new(worker));
        }
        let worker = Arc::clone(&listed[user]);
        worker.connections.fetch_add(1, Ordering::Relaxed);
        Some(Presence(worker))
    }

    /// A worker, by its whole user name.
    #[must_use]
    pub fn find(&self, user: &str) -> Option<Arc<Worker>> {
        self.listed.lock().expect("no panic while the lock is held").get(user).cloned()
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.listed.lock().expect("no panic while the lock is held").len()
    }

    /// How many there are, and the `limit` of them with most work.
    #[must_use]
    pub fn list(&self, limit: usize) -> (usize, Vec<Listed>) {
        let workers: Vec<Arc<Worker>> =
            self.listed.lock().expect("no panic while the lock is held").values().cloned().collect();
        let read = |worker: &Arc<Worker>| Listed {
            user: worker.user.to_string(),
            connections: worker.connections.load(Ordering::Relaxed),
            hash_rate: worker.counters.hash_rate(),
            shares: worker.counters.read(),
        };
        let total = workers.len();
        let mut by_work: Vec<(f64, &Arc<Worker>)> =
            workers.iter().map(|worker| (worker.counters.work(), worker)).collect();
        by_work.sort_by(|(a, one), (b, other)| b.total_cmp(a).then_with(|| one.user.cmp(&other.user)));
        by_work.truncate(limit);
        (total, by_work.into_iter().map(|(_, worker)| read(worker)).collect())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn difficulty(value: f64) -> Difficulty {
        Difficulty::new(value).unwrap()
    }

    #[test]
    fn shares_are_counted_by_verdict() {
        let counters = Counters::new(History::of_pool(0));
        counters.accept(difficulty(0.5), 100);
        counters.accept(difficulty(2.0), 90);
        for reject in [Reject::Duplicate, Reject::Duplicate, Reject::other("x"), Reject::NotSubscribed] {
            counters.reject(&reject);
        }
        let shares = counters.read();
        assert_eq!((shares.accepted, shares.work, shares.last_share), (2, 2.5, Some(100)));
        assert_eq!(shares.rejected, [(20, 1), (22, 2), (25, 1)].into());
    }

    #[test]
    fn a_worker_keeps_its_counters_over_connections() {
        let workers = Workers::default();
        let first = workers.join("a").unwrap();
        first.counters.accept(difficulty(1.0), 1);
        let second = workers.join("a").unwrap();
        drop(first);
        second.counters.accept(difficulty(1.0), 2);
        let _idle = workers.join("b");
        let (total, listed) = workers.list(1);
        assert_eq!((total, listed.len()), (2, 1));
        assert_eq!((listed[0].user.as_str(), listed[0].connections, listed[0].shares.accepted), ("a", 1, 2));
    }

    #[test]
    fn names_that_never_worked_make_room_and_others_stay() {
        let workers = Workers::default();
        let worked = workers.join_within("worked", 3).unwrap();
        worked.counters.accept(difficulty(1.0), 1);
        drop(worked);
        let _here = workers.join_within("here", 3).unwrap();
        drop(workers.join_within("gone", 3));
        let _new = workers.join_within("new", 3).expect("the one that is gone made room");
        assert!(workers.join_within("too many", 3).is_none());
        assert_eq!(workers.join_within("worked", 3).unwrap().counters.read().accepted, 1);
    }
}
