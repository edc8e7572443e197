//! Share counters per worker, in memory: they start at zero with every start of the pool. The durable share log, from
//! which members are paid, is not here.

mod newcomers;

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use iop_consensus::address::Address;
use iop_stratum::difficulty::Difficulty;
use iop_stratum::verdict::Reject;
use serde::Serialize;

use self::newcomers::Newcomers;
use crate::clock::now;
use crate::history::{HashRate, History, Rates, Span};

/// The most workers listed. Names cost little, so among workers without a connection the one with the oldest last share
/// is dropped to make room; at about 500 bytes each, this is 50 MB, plus the [history] of those with shares.
///
/// [history]: crate::history
const MAX_LISTED: usize = 100_000;
/// Range of Stratum's error codes.
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

impl Counters {
    /// Starts at zero.
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

    /// Counts a good share of this difficulty, at a time in seconds since 1970.
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

    /// The current estimated hash rate.
    #[must_use]
    pub fn hash_rate(&self) -> HashRate {
        self.with_history(|history| history.hash_rate(now()))
    }

    /// Estimated hash rates over time.
    #[must_use]
    pub fn rates(&self, span: Span) -> Rates {
        self.with_history(|history| history.rates(span, now()))
    }

    /// Counts a share that was refused.
    pub fn reject(&self, reject: &Reject) {
        let index = reject.code() - CODES.start();
        self.rejected[usize::from(index)].fetch_add(1, Ordering::Relaxed);
    }

    /// Time of the last good share, in seconds since 1970; 0 if there is none.
    fn last_share(&self) -> u64 {
        self.last_share.load(Ordering::Relaxed)
    }

    fn work(&self) -> f64 {
        f64::from_bits(self.work.load(Ordering::Relaxed))
    }

    /// The current values.
    #[must_use]
    pub fn read(&self) -> Shares {
        let rejected = CODES.zip(&self.rejected).map(|(code, count)| (code, count.load(Ordering::Relaxed)));
        Shares {
            accepted: self.accepted.load(Ordering::Relaxed),
            rejected: rejected.filter(|&(_, count)| count > 0).collect(),
            work: self.work(),
            last_share: Some(self.last_share()).filter(|&time| time > 0),
        }
    }
}

/// A reading of [`Counters`].
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Shares {
    /// Good shares.
    pub accepted: u64,
    /// Refused shares by Stratum error code, without zero counts.
    pub rejected: std::collections::BTreeMap<u8, u64>,
    /// Sum of the difficulties of good shares; times 2³² it is the expected number of hashes.
    pub work: f64,
    /// Time of the last good share, in seconds since 1970.
    pub last_share: Option<u64>,
}

/// A worker: one user name, over all its connections.
#[derive(Debug)]
pub struct Worker {
    /// `ADDRESS[.worker]`.
    pub user: Box<str>,
    member: Address,
    /// Its shares. They increase while it is connected.
    pub counters: Counters,
    connections: AtomicU64,
    /// Number of workers listed before it.
    number: u64,
}

/// A worker's presence on one connection.
#[derive(Debug)]
pub struct Presence {
    worker: Arc<Worker>,
    list: Arc<Mutex<List>>,
}

impl std::ops::Deref for Presence {
    type Target = Worker;

    fn deref(&self) -> &Worker {
        &self.worker
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        let mut list = lock(&self.list);
        if self.worker.connections.fetch_sub(1, Ordering::Relaxed) == 1 {
            list.away.insert(self.worker.rank(), Arc::clone(&self.worker));
        }
    }
}

/// Time of the last share, then the number: the lowest is dropped first.
type Rank = (u64, u64);

impl Worker {
    /// Does not change while it has no connection.
    fn rank(&self) -> Rank {
        (self.counters.last_share(), self.number)
    }
}

/// The listed workers.
#[derive(Debug, Default)]
struct List {
    by_name: HashMap<Box<str>, Arc<Worker>>,
    /// Workers per payout address.
    by_member: HashMap<Address, usize>,
    /// Workers without a connection.
    away: BTreeMap<Rank, Arc<Worker>>,
    /// Workers listed since the start.
    listed: u64,
}

impl List {
    /// Whether there is room for one more, or room can be made.
    fn has_room(&self, limit: usize) -> bool {
        self.by_name.len() < limit || !self.away.is_empty()
    }

    /// Drops the worker with the oldest last share if the list is full.
    fn make_room(&mut self, limit: usize) {
        if self.by_name.len() >= limit
            && let Some((_, oldest)) = self.away.pop_first()
        {
            self.by_name.remove(&oldest.user);
            if let Entry::Occupied(mut workers) = self.by_member.entry(oldest.member) {
                *workers.get_mut() -= 1;
                if *workers.get() == 0 {
                    workers.remove();
                }
            }
        }
    }

    fn add(&mut self, user: &str, member: Address) -> Arc<Worker> {
        let (counters, number, connections) =
            (Counters::new(History::of_worker(now())), self.listed, AtomicU64::new(0));
        self.listed += 1;
        *self.by_member.entry(member).or_default() += 1;
        let worker = Arc::new(Worker { user: user.into(), member, counters, connections, number });
        self.by_name.insert(user.into(), Arc::clone(&worker));
        worker
    }
}

fn lock(list: &Mutex<List>) -> MutexGuard<'_, List> {
    list.lock().expect("no panic while the lock is held")
}

/// Why a worker is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotTaken {
    /// The list is full of connected workers.
    #[error("the pool has no room for another worker")]
    Full,
    /// Its host has brought too many names.
    #[error(
        "too many new worker names from your address: use names that have worked here, or come again later"
    )]
    TooManyNames,
    /// Its host has brought too many payout addresses.
    #[error(
        "too many new payout addresses from your network: use one that has worked here, or come again later"
    )]
    TooManyAddresses,
}

/// What the ledger has of a joining worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// Shares under its name.
    Name,
    /// Shares for its payout address.
    Member,
    /// Nothing.
    Nothing,
}

/// An entry of the workers' list.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Listed {
    /// `ADDRESS[.worker]`.
    pub user: String,
    /// Connections on which it is authorized.
    pub connections: u64,
    /// Its hash rate, estimated from its shares.
    pub hash_rate: HashRate,
    /// Its shares.
    #[serde(flatten)]
    pub shares: Shares,
}

/// All workers.
#[derive(Debug)]
pub struct Workers {
    list: Arc<Mutex<List>>,
    newcomers: Newcomers,
    /// Shares of all workers together.
    pub totals: Counters,
}

impl Default for Workers {
    /// Starts empty; the pool's history begins now.
    fn default() -> Self {
        let totals = Counters::new(History::of_pool(now()));
        Self { list: Arc::default(), newcomers: Newcomers::default(), totals }
    }
}

impl Workers {
    /// A worker joins on a connection from an address. If it is not listed, it counts as a new name of that host unless
    /// the ledger has it, and its payout address as a new one unless the ledger or the list has that.
    ///
    /// # Errors
    /// The list is full, or the host has brought too many names or payout addresses.
    pub fn join(&self, user: &str, member: Address, ip: IpAddr, known: Known) -> Result<Presence, NotTaken> {
        let may_come = |is_listed: bool| match known {
            Known::Name => Ok(()),
            Known::Member => self.newcomers.admit(ip, false, Instant::now()),
            Known::Nothing => self.newcomers.admit(ip, !is_listed, Instant::now()),
        };
        self.join_within(user, member, MAX_LISTED, may_come)
    }

    /// `may_come` is called for a name that is not listed, with whether its payout address is.
    fn join_within(
        &self,
        user: &str,
        member: Address,
        limit: usize,
        may_come: impl FnOnce(bool) -> Result<(), NotTaken>,
    ) -> Result<Presence, NotTaken> {
        let mut list = lock(&self.list);
        let worker = match list.by_name.get(user).cloned() {
            Some(worker) => {
                list.away.remove(&worker.rank());
                worker
            }
            None if !list.has_room(limit) => return Err(NotTaken::Full),
            None => {
                may_come(list.by_member.contains_key(&member))?;
                list.make_room(limit);
                list.add(user, member)
            }
        };
        worker.connections.fetch_add(1, Ordering::Relaxed);
        Ok(Presence { worker, list: Arc::clone(&self.list) })
    }

    /// Finds a worker by its whole user name.
    #[must_use]
    pub fn find(&self, user: &str) -> Option<Arc<Worker>> {
        lock(&self.list).by_name.get(user).cloned()
    }

    /// The number of workers.
    #[must_use]
    pub fn count(&self) -> usize {
        lock(&self.list).by_name.len()
    }

    /// The number of workers, and the `limit` of them with most work.
    #[must_use]
    pub fn list(&self, limit: usize) -> (usize, Vec<Listed>) {
        let workers: Vec<Arc<Worker>> = lock(&self.list).by_name.values().cloned().collect();
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

    fn member(number: u8) -> Address {
        Address::of_pubkey(&[number])
    }

    fn join(workers: &Workers, user: &str) -> Presence {
        workers.join(user, member(0), IpAddr::from([9, 9, 9, 9]), Known::Nothing).unwrap()
    }

    #[test]
    fn a_worker_keeps_its_counters_over_connections() {
        let workers = Workers::default();
        let first = join(&workers, "a");
        first.counters.accept(difficulty(1.0), 1);
        let second = join(&workers, "a");
        drop(first);
        second.counters.accept(difficulty(1.0), 2);
        let _idle = join(&workers, "b");
        let (total, listed) = workers.list(1);
        assert_eq!((total, listed.len()), (2, 1));
        assert_eq!((listed[0].user.as_str(), listed[0].connections, listed[0].shares.accepted), ("a", 1, 2));
    }

    #[test]
    fn whoever_left_makes_room_the_oldest_share_first_and_who_is_here_stays() {
        let workers = Workers::default();
        let join = |user| workers.join_within(user, member(user.len() as u8), 3, |_| Ok(()));
        let present = |user: &str| workers.find(user).is_some();
        for (user, last) in [("late", 20), ("early", 10)] {
            join(user).unwrap().counters.accept(difficulty(1.0), last);
        }
        drop(join("never"));
        let _new = join("new").expect("the one that never worked made room");
        assert!(!present("never") && present("early"));
        // A connected worker is not dropped, however old its share; one that disconnected is.
        let early = join("early").unwrap();
        let _other = join("other").unwrap();
        assert!(present("early") && !present("late"));
        assert_eq!(join("too many").unwrap_err(), NotTaken::Full);
        let refused = workers
            .join_within("too many", member(0), 3, |_| panic!("a name that finds no room is not counted"));
        assert_eq!(refused.unwrap_err(), NotTaken::Full);
        assert_eq!(join("early").unwrap().counters.read().accepted, 1, "one that is listed needs no room");
        drop(early);
        let _another = join("another").unwrap();
        assert!(!present("early"));
        assert_eq!((workers.count(), lock(&workers.list).away.len()), (3, 0));
        let members = lock(&workers.list).by_member.clone();
        assert_eq!(members, ["new", "other", "another"].map(|user| (member(user.len() as u8), 1)).into());
    }

    #[test]
    fn a_host_that_made_up_too_many_names_still_has_those_that_are_known() {
        let (workers, host) = (Workers::default(), IpAddr::from([9, 9, 9, 9]));
        let join = |user: &str, known| workers.join(user, member(0), host, known).map(|_| ());
        let made_up = (0..).take_while(|number| join(&number.to_string(), Known::Nothing).is_ok()).count();
        assert_eq!((made_up, join("x", Known::Nothing)), (4096, Err(NotTaken::TooManyNames)));
        assert_eq!((join("0", Known::Nothing), join("paid before", Known::Name)), (Ok(()), Ok(())));
        assert!(workers.join("x", member(0), IpAddr::from([9, 9, 9, 8]), Known::Nothing).is_ok());
    }

    #[test]
    fn a_host_that_made_up_too_many_payout_addresses_still_has_those_that_are_known() {
        let (workers, host) = (Workers::default(), IpAddr::from([9, 9, 9, 9]));
        let join = |user: &str, number, known| workers.join(user, member(number), host, known).map(|_| ());
        let made_up = (0..).take_while(|&n| join(&format!("{n}"), n, Known::Nothing).is_ok()).count();
        assert_eq!((made_up, join("x", 200, Known::Nothing)), (64, Err(NotTaken::TooManyAddresses)));
        assert_eq!(join("0.second", 0, Known::Nothing), Ok(()), "an address that is listed");
        assert_eq!(join("201.second", 201, Known::Member), Ok(()), "one that has shares");
        assert_eq!(join("202", 202, Known::Name), Ok(()));
    }
}
