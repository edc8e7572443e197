//! The ledger of a running pool: users, window and book in memory, updated as the log grows.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use iop_consensus::address::{Address, Prefixes};
use tokio::sync::watch;
use tracing::{error, info};

use super::LedgerError;
use super::book::{Book, Entry, Record};
use super::durable::{Durable, Note};
use super::log::StoredLog;
use super::queue::{Accepted, Queue, Wakes};
use super::share::{UserId, member_of};
use super::split::Rules;
use super::store::{Batch, BlockId, JobKey, KeptJob, Store};
use super::sums::Sums;
use super::trouble::{Troubles, Writing};
use super::window::Window;
use super::writer::Writer;
use crate::metrics::CommitTimes;

/// A user name in the ledger.
#[derive(Debug)]
pub struct User {
    pub(super) name: Box<str>,
    pub(super) member: Address,
    pub(super) id: OnceLock<UserId>,
}

impl User {
    /// `ADDRESS[.worker]`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The address that is paid.
    #[must_use]
    pub fn member(&self) -> Address {
        self.member
    }
}

/// State of the log, for people.
#[derive(Debug, Clone, Default)]
pub struct LogState {
    /// Shares in the log.
    pub logged: u64,
    /// Why nothing can be written now, or what does not end.
    pub trouble: Option<String>,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) users: HashMap<Box<str>, Arc<User>>,
    /// Indexed by user number.
    pub(super) members: Vec<Address>,
    /// The same without duplicates.
    pub(super) addresses: HashSet<Address>,
    pub(super) window: Window,
    pub(super) book: Book,
}

/// The ledger of a running pool.
#[derive(Debug)]
pub struct Ledger {
    pub(super) store: Store,
    pub(super) datadir: PathBuf,
    pub(super) rules: Rules,
    pub(super) prefixes: Prefixes,
    pub(super) queue: Queue,
    pub(super) wakes: Wakes,
    state: Mutex<State>,
    pub(super) troubles: Troubles,
    pub(super) note: Mutex<Note>,
    pub(super) commit_times: OnceLock<CommitTimes>,
    pub(super) sums: Sums,
}

impl Ledger {
    /// Opens the ledger in a data directory and starts its threads.
    ///
    /// # Errors
    /// It cannot be read, or belongs to another network.
    pub fn open(
        datadir: &Path,
        rules: Rules,
        prefixes: Prefixes,
    ) -> Result<(Arc<Self>, Writer), LedgerError> {
        let store = Store::open(datadir)?;
        let mut users = HashMap::new();
        let mut members = Vec::new();
        for (number, name) in store.users()?.into_iter().enumerate() {
            let member = member_of(&name, &prefixes)
                .ok_or_else(|| store.broken(&format!("user {number} has no address of this network")))?;
            let id = OnceLock::from(UserId(u32::try_from(number).expect("numbers are 32 bits wide")));
            let user = User { name: name.into(), member, id };
            members.push(member);
            users.insert(user.name.clone(), Arc::new(user));
        }
        let window = Window::at(store.next_share()?);
        let book = Book::load(&store)?;
        // If this cannot be recorded now, it could not be later either, and a loss would go unnoticed.
        let durable = Durable { shares: window.range().end, blocks: book.stored() };
        let note = Note { least: durable, ..Note::read(datadir)? };
        store.sync().and_then(|()| note.write(datadir))?;
        info!(shares = window.range().end, users = members.len(), "ledger is open");
        let addresses = members.iter().copied().collect();
        let state = State { users, members, addresses, window, book };
        let ledger = Arc::new(Self {
            store,
            datadir: datadir.to_owned(),
            rules,
            prefixes,
            queue: Queue::default(),
            wakes: Wakes::default(),
            state: Mutex::new(state),
            troubles: Troubles::default(),
            note: Mutex::new(note),
            commit_times: OnceLock::new(),
            sums: Sums::default(),
        });
        let writer = Writer::start(Arc::clone(&ledger))?;
        Ok((ledger, writer))
    }

    /// Sets where commits are counted.
    pub fn observe_commits(&self, times: CommitTimes) {
        let _ = self.commit_times.set(times); // the first one stays
    }

    /// The rules that rewards are split by.
    #[must_use]
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// The network's address prefixes.
    #[must_use]
    pub fn prefixes(&self) -> &Prefixes {
        &self.prefixes
    }

    /// The database.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Returns a user. A new one is added to the ledger with its first share.
    #[must_use]
    pub fn user(&self, name: &str, member: Address) -> Arc<User> {
        let known = self.lock_state().users.get(name).cloned();
        known.unwrap_or_else(|| Arc::new(User { name: name.into(), member, id: OnceLock::new() }))
    }

    /// Whether the ledger has shares of a member.
    #[must_use]
    pub fn has_member(&self, member: &Address) -> bool {
        self.lock_state().addresses.contains(member)
    }

    /// Queues a share. Its ticket reports when it is committed.
    pub fn log(&self, share: Accepted) {
        self.queue.push(share);
    }

    /// Notifies sessions whose shares are committed. Run it as a task in the runtime of the sessions; it never ends.
    pub async fn pass_wakes_on(self: Arc<Self>) {
        self.wakes.pass_on().await;
    }

    /// The state of the log.
    #[must_use]
    pub fn log_state(&self) -> LogState {
        let trouble = self.troubles.refusal().or_else(|| self.troubles.hanging());
        LogState { logged: self.lock_state().window.range().end, trouble }
    }

    /// Why something cannot be written now; changes when that begins, and when all is written again. What is mined
    /// meanwhile, the next run may not know.
    #[must_use]
    pub fn refusal(&self) -> watch::Receiver<Option<String>> {
        self.troubles.told()
    }

    /// Reads the window and the book: range, total and wanted work, work by member, carried amounts.
    pub(super) fn read<T>(&self, read: impl FnOnce(&Window, &Book) -> T) -> T {
        let state = self.lock_state();
        read(&state.window, &state.book)
    }

    /// The height above the pool's highest block in the chain; 0 if there is none.
    #[must_use]
    pub fn next_height(&self) -> u32 {
        self.lock_state().book.base().map_or(0, |base| base.height.saturating_add(1))
    }

    /// The numbers of shares and blocks in the database.
    pub(super) fn stored(&self) -> Durable {
        let state = self.lock_state();
        Durable { shares: state.window.range().end, blocks: state.book.stored() }
    }

    /// Whether a block is in the book.
    #[must_use]
    pub fn has_block(&self, id: &BlockId) -> bool {
        self.lock_state().book.has(id)
    }

    /// Whether each block in the book stands on one that is there too: what is carried after it is made of that one's.
    ///
    /// # Errors
    /// One does not.
    pub fn check_whole(&self) -> Result<(), LedgerError> {
        let Some((id, base)) = self.lock_state().book.torn() else { return Ok(()) };
        Err(self.store.broken(&format!(
            "block {} at height {} stands on block {} at height {}, which is missing: it is a copy of parts of different \
             times; put the whole folder back as it was at one",
            id.hash, id.height, base.hash, base.height
        )))
    }

    /// A number that differs when other blocks are in the book.
    #[must_use]
    pub fn book_state(&self) -> u64 {
        self.lock_state().book.changes()
    }

    /// Stores jobs, so that their plans can be made again after a restart, and deletes others. The data has reached the
    /// system when this returns; a power failure may lose it.
    ///
    /// # Errors
    /// The database cannot be written.
    pub fn keep_jobs(&self, jobs: &[KeptJob], gone: &[JobKey]) -> Result<(), LedgerError> {
        let mut batch = Batch::default();
        gone.iter().for_each(|key| self.store.drop_job(&mut batch, key));
        jobs.iter().for_each(|(key, job)| self.store.put_job(&mut batch, key, job));
        self.troubles.watch(Writing::Jobs, || self.store.write(batch, false))
    }

    /// The stored jobs, in the order of their keys.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn kept_jobs(&self) -> Result<Vec<KeptJob>, LedgerError> {
        self.store.jobs()
    }

    /// The greatest height below `height` with a block of the pool.
    #[must_use]
    pub fn height_below(&self, height: u32) -> Option<u32> {
        self.lock_state().book.height_below(height)
    }

    /// Syncs the log, so that it survives a power failure; an error is only logged.
    pub fn sync(&self) {
        if let Err(trouble) = self.store.sync() {
            error!("the share log is not on the disk yet: {trouble}");
        }
    }

    /// Adds a block that is about to be sent to nodes. Their next template may build on it before its share is in the
    /// database, and must not pay again what this block pays. A block already in the book is left as it is.
    pub fn announce(&self, record: Arc<Record>) {
        let mut state = self.lock_state();
        if !state.book.has(&record.id) {
            state.book.announce(record);
        }
    }

    /// Forgets an announced block that was not sent.
    pub fn withdraw(&self, id: &BlockId) {
        self.lock_state().book.withdraw(id);
    }

    /// Whether a block is in the database.
    #[must_use]
    pub fn has_stored(&self, id: &BlockId) -> bool {
        let state = self.lock_state();
        state.book.has(id) && state.book.coming(id).is_none()
    }

    /// Adds a block of an earlier run that ended before the block was in the ledger. Returns whether it was new.
    ///
    /// # Errors
    /// The database cannot be written.
    pub fn adopt(&self, record: &Record) -> Result<bool, LedgerError> {
        if self.has_block(&record.id) {
            return Ok(false);
        }
        let mut batch = Batch::default();
        self.store.put_block(&mut batch, record);
        // Nobody waits for the disk: who writes the same block meanwhile writes the same.
        self.troubles.watch(Writing::Blocks, || self.store.write(batch, true))?;
        let mut state = self.lock_state();
        let is_new = !state.book.has(&record.id);
        state.book.add(record);
        Ok(is_new)
    }

    /// Like [`Ledger::adopt`], from what a found-block file holds: the rest is recomputed from the log.
    ///
    /// # Errors
    /// The database cannot be read or written, or lacks what the block's plan is made from.
    pub fn adopt_again(&self, entry: &Entry) -> Result<bool, LedgerError> {
        let Entry { id, facts } = entry;
        if self.has_block(id) {
            return Ok(false);
        }
        let broken = |reason: &str| Err(self.store.broken(&format!("block {}: {reason}", id.hash)));
        let Some(terms) = facts.terms(&self.prefixes) else {
            return broken("its chapter has no address of this network");
        };
        if let Some(base) = terms.base.filter(|base| base.height >= id.height || !self.has_block(base)) {
            return broken(&format!("the block {} that it stands on is missing", base.hash));
        }
        let plan = self.plan_again(&terms, facts.solo(&self.prefixes))?;
        if (plan.split.fee, plan.split.chapter) != (facts.fee, facts.chapter) {
            return broken("the log makes other payments of it than it has");
        }
        self.adopt(&Record { id: *id, facts: facts.clone(), plan: Arc::new(plan) })
    }

    pub(super) fn settle(&self, state: &mut State, wanted: u128) -> Result<(), LedgerError> {
        let State { window, members, .. } = state;
        window.settle(wanted, &StoredLog { store: &self.store, members })
    }

    /// From now on nothing can be written, or again all.
    #[cfg(test)]
    pub(crate) fn fill_disk(&self, full: bool) {
        self.troubles.disk_is_full.store(full, std::sync::atomic::Ordering::Relaxed);
    }

    /// Nothing is committed until what this gives is dropped.
    #[cfg(test)]
    pub(crate) fn hold(&self) -> impl Sized {
        self.lock_state()
    }

    pub(super) fn lock_state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic while the lock is held")
    }
}
