//! Accepted shares on their way to the writer, which takes all there are; notifies sessions of committed ones.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, Weak};
use std::time::{Duration, Instant};

use iop_stratum::difficulty::Difficulty;
use tokio::sync::Notify;

use super::book::Record;
use super::live::User;
use super::share::ShareHash;

/// How long after a commit the writer lets shares gather. A commit costs about as much as ten shares by itself, and so
/// do the switches between the two threads; this keeps commits below 4,000 a second. A share after a pause is committed
/// at once.
const GATHER_TIME: Duration = Duration::from_micros(200);

/// A party that waits for shares to be committed.
pub trait Waiter: std::fmt::Debug + Send + Sync {
    /// Some of its shares were committed: [`Ticket::take`] returns how many. Must not block.
    fn on_committed(&self);
}

/// Tells a session how many of its shares are committed.
#[derive(Debug, Default)]
pub struct Ticket {
    committed: AtomicU64,
    changed: Notify,
    waiter: OnceLock<Weak<dyn Waiter>>,
}

impl Ticket {
    /// Sets the waiter to be called from now on. Without one, or once it is dropped, [`Ticket::changed`] is woken.
    pub fn belongs_to<W: Waiter + 'static>(&self, waiter: &Arc<W>) {
        let waiter: Weak<W> = Arc::downgrade(waiter);
        let _ = self.waiter.set(waiter); // the first one stays
    }

    /// The number of shares committed since the last call; they are committed in the order they were queued.
    #[must_use]
    pub fn take(&self) -> u64 {
        self.committed.swap(0, Ordering::Acquire)
    }

    /// Wakes [`Ticket::changed`], though there may be nothing to take.
    pub fn wake(&self) {
        self.changed.notify_one();
    }

    /// Waits until there may be something to take.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    fn tell(&self) {
        let Some(waiter) = self.waiter.get().and_then(Weak::upgrade) else { return self.wake() };
        // A panic in one session must not affect others, nor one in its drop, if this is the last reference to it.
        if catch_unwind(AssertUnwindSafe(move || waiter.on_committed())).is_err() {
            self.wake();
        }
    }
}

/// An accepted share, to be written to the log.
#[derive(Debug)]
pub struct Accepted {
    /// The user that submitted it.
    pub user: Arc<User>,
    /// When it came, in seconds since 1970.
    pub time: u64,
    /// The difficulty that it counts for.
    pub difficulty: Difficulty,
    /// Height of the block that it was for.
    pub height: u32,
    /// Identifies the share.
    pub hash: ShareHash,
    /// The block that it makes.
    pub block: Option<Arc<Record>>,
    /// The session's ticket.
    pub ticket: Arc<Ticket>,
}

#[derive(Debug, Default)]
struct Pending {
    shares: Vec<Accepted>,
    asleep: bool,
    closed: bool,
}

/// Shares that the writer has not taken yet.
#[derive(Debug, Default)]
pub(super) struct Queue {
    pending: Mutex<Pending>,
    arrived: Condvar,
}

impl Queue {
    /// Adds a share.
    pub(super) fn push(&self, share: Accepted) {
        let mut pending = self.lock();
        pending.shares.push(share);
        let wake = std::mem::take(&mut pending.asleep);
        drop(pending);
        if wake {
            self.arrived.notify_one();
        }
    }

    /// Lets the writer end once it has taken all shares.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.arrived.notify_one();
    }

    /// Whether it was closed.
    pub(super) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    fn lock(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().expect("no panic while the lock is held")
    }

    /// Takes the queued shares, or waits for some. Returns whether the queue is closed.
    pub(super) fn gather(&self, shares: &mut Vec<Accepted>) -> bool {
        let begun = Instant::now();
        let mut pending = self.lock();
        if pending.shares.is_empty() && !pending.closed {
            pending.asleep = true;
            let may_wait = |pending: &mut Pending| pending.shares.is_empty() && !pending.closed;
            pending = self.arrived.wait_while(pending, may_wait).expect("no panic while the lock is held");
            pending.asleep = false;
        }
        let rest = GATHER_TIME.saturating_sub(begun.elapsed());
        if !rest.is_zero() && !pending.closed {
            drop(pending);
            std::thread::sleep(rest);
            pending = self.lock();
        }
        std::mem::swap(shares, &mut pending.shares);
        pending.closed
    }
}

/// Sessions that are notified before the task yields.
const BATCH: usize = 64;

/// Tickets of sessions to be notified.
///
/// Waking a task from a thread outside the runtime takes a lock and often a system call for each. So the writer leaves
/// the tickets here for a task of the runtime; until that task runs, the writer wakes the sessions itself. The task
/// lets each session answer at once: waking the session's own task would cost about a sixth of all that a share costs.
#[derive(Debug, Default)]
pub(super) struct Wakes {
    tickets: Mutex<Vec<Arc<Ticket>>>,
    some: Notify,
    passed_on: AtomicBool,
}

impl Wakes {
    /// Counts committed shares on their tickets, and notifies each session once per run of its shares.
    pub(super) fn wake(&self, shares: &[Accepted]) {
        let passed_on = self.passed_on.load(Ordering::Relaxed);
        let mut tickets = self.tickets.lock().expect("no panic while the lock is held");
        for (index, share) in shares.iter().enumerate() {
            share.ticket.committed.fetch_add(1, Ordering::Release);
            let is_last = shares.get(index + 1).is_none_or(|next| !Arc::ptr_eq(&next.ticket, &share.ticket));
            if is_last && passed_on {
                tickets.push(Arc::clone(&share.ticket));
            } else if is_last {
                share.ticket.wake();
            }
        }
        drop(tickets);
        self.some.notify_one();
    }

    /// Notifies sessions from now on; never ends.
    pub(super) async fn pass_on(&self) {
        self.passed_on.store(true, Ordering::Relaxed);
        let mut tickets = Vec::new();
        loop {
            self.some.notified().await;
            std::mem::swap(&mut tickets, &mut *self.tickets.lock().expect("no panic while the lock is held"));
            for (told, ticket) in tickets.drain(..).enumerate() {
                ticket.tell();
                if told % BATCH == BATCH - 1 {
                    tokio::task::yield_now().await;
                }
            }
        }
    }
}
