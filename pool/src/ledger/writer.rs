//! The writer thread: takes the queued shares, commits them as one batch, and notifies the sessions that wait for them.
//!
//! What is written survives the process at once (`kill -9`), and the machine after [`SYNC_TIME`] at most; found blocks
//! survive the machine at once. Where the disk refuses, the batch is tried again for a moment, and then the pool ends:
//! nothing is answered meanwhile, so that nothing is promised. So it is with all else that the ledger has to write.

use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tracing::{error, info, warn};

use super::LedgerError;
use super::book::Record;
use super::durable::Durable;
use super::live::{Ledger, State, User};
use super::queue::Accepted;
use super::share::{Share, UserId, work_of};
use super::store::Batch;
use super::trouble::{PATIENCE, Writing};

/// For how long acknowledged shares may still be lost to a power failure.
pub const SYNC_TIME: Duration = Duration::from_secs(1);
/// Wait before a failed batch is tried again.
const RETRY_TIME: Duration = Duration::from_secs(1);
/// How often it is looked whether the disk takes what it is given.
const LOOK_TIME: Duration = Duration::from_millis(500);

/// The writer's threads. [`Writer::close`] ends them.
#[derive(Debug)]
pub struct Writer {
    ledger: Arc<Ledger>,
    thread: JoinHandle<()>,
    syncing: JoinHandle<()>,
    /// Dropped to end [`Writer::syncing`].
    synced: mpsc::Sender<()>,
    /// Closed when the thread ends.
    alive: oneshot::Receiver<()>,
}

impl Writer {
    pub(super) fn start(ledger: Arc<Ledger>) -> Result<Self, LedgerError> {
        let (writing, (living, alive)) = (Arc::clone(&ledger), oneshot::channel());
        let thread = spawn(&ledger, "ledger", move || {
            writing.run();
            drop(living);
        })?;
        let (syncer, (synced, end)) = (Arc::clone(&ledger), mpsc::channel());
        let syncing = spawn(&ledger, "ledger-sync", move || syncer.sync_until(&end))?;
        Ok(Self { ledger, thread, syncing, synced, alive })
    }

    /// Until the thread has ended by itself, which is a failure as without it nothing is answered any more, or something
    /// has been refused for long. Says meanwhile when the disk hangs.
    pub async fn failed(&mut self) {
        let (mut looks, mut hangs) = (tokio::time::interval(LOOK_TIME), false);
        loop {
            tokio::select! {
                _ = &mut self.alive => return, // nothing is ever sent
                _ = looks.tick() => {}
            }
            let hanging = self.ledger.troubles.hanging();
            match &hanging {
                Some(trouble) if !hangs => warn!("{trouble}; shares are answered when it does"),
                None if hangs => info!("the disk takes writes again"),
                _ => {}
            }
            hangs = hanging.is_some();
            if self.ledger.troubles.is_hopeless() {
                return;
            }
        }
    }

    /// Commits what is queued, makes it durable, and ends the threads. Later shares are not taken.
    pub fn close(self) {
        self.ledger.queue.close();
        let ended = self.thread.join();
        drop(self.synced);
        if ended.and(self.syncing.join()).is_err() {
            error!("the ledger's thread failed; what it had committed is kept");
        }
    }
}

fn spawn(
    ledger: &Ledger,
    name: &str,
    work: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>, LedgerError> {
    let spawned = std::thread::Builder::new().name(name.to_owned()).spawn(work);
    spawned.map_err(|error| ledger.store.broken(&format!("no thread can be started: {error}")))
}

impl Ledger {
    /// The thread that commits.
    fn run(&self) {
        let mut shares = Vec::new();
        loop {
            let closed = self.queue.gather(&mut shares);
            if shares.is_empty() && closed || !self.commit(&mut shares) {
                return;
            }
        }
    }

    /// The thread that syncs committed shares until `end` is closed, so that commits do not wait for the disk.
    fn sync_until(&self, end: &mpsc::Receiver<()>) {
        let mut synced = Durable::default();
        loop {
            let ended = end.recv_timeout(SYNC_TIME) != Err(mpsc::RecvTimeoutError::Timeout);
            let stored = self.stored();
            if stored != synced {
                let sync = || self.store.sync().and_then(|()| self.note_durable(stored));
                match self.troubles.watch(Writing::Note, sync) {
                    Ok(()) => synced = stored,
                    Err(trouble) => error!("what is stored cannot be made durable: {trouble}"),
                }
            }
            if ended {
                return;
            }
        }
    }

    /// Retries until it succeeds or [`PATIENCE`] is over; only once if the queue is closed. Returns whether it
    /// succeeded.
    fn insist(&self, write: impl Fn() -> Result<(), LedgerError>) -> bool {
        let begun = Instant::now();
        while let Err(trouble) = self.troubles.watch(Writing::Shares, &write) {
            error!("shares cannot be stored and are not answered: {trouble}");
            if self.queue.is_closed() || begun.elapsed() > PATIENCE {
                return false;
            }
            std::thread::sleep(RETRY_TIME);
        }
        true
    }

    /// Writes shares, notifies their sessions, and moves the window. Returns false if they could not be written.
    fn commit(&self, shares: &mut Vec<Accepted>) -> bool {
        if shares.is_empty() {
            return true;
        }
        let begun = Instant::now();
        let new_users = self.number_users(shares);
        let first = self.lock_state().window.range().end;
        let written = self.insist(|| {
            let (batch, has_block) = self.batch(shares, &new_users, first);
            self.store.write(batch, has_block)
        });
        if !written {
            return false;
        }
        self.wakes.wake(shares);
        if let Some(times) = self.commit_times.get() {
            times.observe(begun.elapsed(), shares.len());
        }
        let mut state = self.lock_state();
        for share in shares.drain(..) {
            state.window.push(share.user.member, work_of(share.difficulty));
            if let Some(block) = share.block {
                self.take_block(&mut state, &block);
            }
        }
        let wanted = state.window.wanted();
        if let Err(trouble) = self.settle(&mut state, wanted) {
            error!("the window cannot be moved, it stays as it is: {trouble}");
        }
        true
    }

    /// Handles a block that is now in the database, perhaps after templates that build on it.
    fn take_block(&self, state: &mut State, block: &Record) {
        state.book.add(block);
        if state.book.base() == Some(block.id)
            && let Err(trouble) = self.store_base(Some(block.id))
        {
            error!("the block that templates stand on cannot be noted, the next one will be: {trouble}");
        }
    }

    /// Assigns numbers to new users.
    fn number_users(&self, shares: &[Accepted]) -> Vec<Arc<User>> {
        let mut new = Vec::new();
        for share in shares.iter().filter(|share| share.user.id.get().is_none()) {
            let user = &share.user;
            let mut state = self.lock_state();
            let known = state.users.get(&user.name).and_then(|known| known.id.get().copied());
            let id = known.unwrap_or_else(|| {
                let id = UserId(
                    u32::try_from(state.members.len()).expect("four billion names took as many shares"),
                );
                state.members.push(user.member);
                state.addresses.insert(user.member);
                state.users.insert(user.name.clone(), Arc::clone(user));
                new.push(Arc::clone(user));
                id
            });
            let _ = user.id.set(id); // this thread alone sets it
        }
        new
    }

    fn batch(&self, shares: &[Accepted], new_users: &[Arc<User>], first: u64) -> (Batch, bool) {
        let (mut batch, mut has_block) = (Batch::default(), false);
        for user in new_users {
            self.store.put_user(&mut batch, id_of(user), &user.name);
        }
        for (accepted, number) in shares.iter().zip(first..) {
            let share = Share {
                time: u32::try_from(accepted.time).unwrap_or(u32::MAX),
                user: id_of(&accepted.user),
                work: work_of(accepted.difficulty),
                height: accepted.height,
                hash: accepted.hash,
            };
            self.store.put_share(&mut batch, number, share);
            if let Some(block) = &accepted.block {
                has_block = true;
                // A block found in the chain before its share was committed is already there.
                if !self.has_stored(&block.id) {
                    self.store.put_block(&mut batch, block);
                }
            }
        }
        (batch, has_block)
    }
}

fn id_of(user: &User) -> UserId {
    *user.id.get().expect("users are numbered before they are written")
}
