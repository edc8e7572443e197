//! The ledger of a running pool: shares come in, are committed in groups, and are answered after that.
//!
//! One thread writes. A session puts a share into the queue and waits with the answer; the thread takes all there
//! is, writes it as one batch, and wakes the sessions. What is written survives the process at once (`kill -9`),
//! and the machine after [`SYNC_TIME`] at most; found blocks survive the machine at once. Where the disk refuses,
//! the batch is tried again until it takes it: nothing is answered meanwhile, so that nothing is promised.

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

use iop_consensus::address::{Address, Prefixes};
use iop_stratum::difficulty::Difficulty;
use tokio::sync::{Notify, oneshot};
use tracing::{error, info};

use super::LedgerError;
use super::book::{Book, Plan, Record};
use super::share::{Share, ShareHash, UserId, work_of};
use super::split::{Amounts, Input, Rules, Scheme, Split};
use super::store::{Batch, BlockId, Store};
use super::window::{Log, Window};

/// How long acknowledged shares may be lost to a loss of power.
pub const SYNC_TIME: Duration = Duration::from_secs(1);
/// How long the thread lets shares gather while they come in faster than one at a time. A commit has costs of its
/// own, about those of ten shares; this keeps it below 4,000 a second.
const GATHER_TIME: Duration = Duration::from_micros(200);
/// Wait before a batch that could not be written is tried again.
const RETRY_TIME: Duration = Duration::from_secs(1);

/// A user name in the ledger.
#[derive(Debug)]
pub struct User {
    name: Box<str>,
    member: Address,
    id: OnceLock<UserId>,
}

impl User {
    /// `ADDRESS[.worker]`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Who is paid.
    #[must_use]
    pub fn member(&self) -> Address {
        self.member
    }
}

/// Where a session learns how many of its shares are committed.
#[derive(Debug, Default)]
pub struct Ticket {
    committed: AtomicU64,
    changed: Notify,
}

impl Ticket {
    /// Shares committed since this was last asked, in the order in which they were given.
    #[must_use]
    pub fn take(&self) -> u64 {
        self.committed.swap(0, Ordering::Acquire)
    }

    /// Until there may be something to take.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }
}

/// A share on its way into the log.
#[derive(Debug)]
pub struct Accepted {
    /// Whose it is.
    pub user: Arc<User>,
    /// When it came, in seconds since 1970.
    pub time: u64,
    /// What it counts.
    pub difficulty: Difficulty,
    /// Height of the block that it was for.
    pub height: u32,
    /// Which share it is.
    pub hash: ShareHash,
    /// The block that it makes.
    pub block: Option<Arc<Record>>,
    /// Who waits for it.
    pub ticket: Arc<Ticket>,
}

/// What a template asks of the ledger.
#[derive(Debug, Clone, Copy)]
pub struct Request {
    /// The nearest block of ours below the new one.
    pub base: Option<BlockId>,
    /// What the coinbase may claim, in base units.
    pub reward: u64,
    /// What a block needs.
    pub network_difficulty: Difficulty,
    /// Outputs that the block has room for.
    pub room: usize,
    /// The chapter's address.
    pub chapter: Address,
    /// Who is paid where every member mines alone.
    pub solo: Option<Address>,
}

/// How the log does, for people.
#[derive(Debug, Clone, Default)]
pub struct LogState {
    /// Shares in the log.
    pub logged: u64,
    /// Why nothing can be written now.
    pub trouble: Option<String>,
}

#[derive(Debug, Default)]
struct Pending {
    shares: Vec<Accepted>,
    asleep: bool,
    closed: bool,
}

#[derive(Debug)]
struct State {
    users: HashMap<Box<str>, Arc<User>>,
    /// By number.
    members: Vec<Address>,
    window: Window,
    book: Book,
    trouble: Option<String>,
}

/// The ledger of a running pool.
#[derive(Debug)]
pub struct Ledger {
    store: Store,
    rules: Rules,
    prefixes: Prefixes,
    pending: Mutex<Pending>,
    arrived: Condvar,
    state: Mutex<State>,
    observe: OnceLock<fn(Duration, usize)>,
}

/// The thread that writes. [`Writer::close`] ends it.
#[derive(Debug)]
pub struct Writer {
    ledger: Arc<Ledger>,
    thread: std::thread::JoinHandle<()>,
    /// Closed when the thread ends.
    alive: oneshot::Receiver<()>,
}

impl Writer {
    /// Until the thread has ended by itself, which is a failure: without it nothing is answered any more.
    pub async fn failed(&mut self) {
        let _ = (&mut self.alive).await; // nothing is ever sent
    }

    /// Commits what is waiting, makes it durable, and ends the thread. Shares that come later are not taken.
    pub fn close(self) {
        self.ledger.lock_pending().closed = true;
        self.ledger.arrived.notify_one();
        if self.thread.join().is_err() {
            error!("the ledger's thread failed; what it had committed is kept");
        }
    }
}

impl Ledger {
    /// Opens the ledger in a data directory and starts its thread.
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
        info!(shares = window.range().end, users = members.len(), "ledger is open");
        let state = State { users, members, window, book, trouble: None };
        let ledger = Arc::new(Self {
            store,
            rules,
            prefixes,
            pending: Mutex::default(),
            arrived: Condvar::new(),
            state: Mutex::new(state),
            observe: OnceLock::new(),
        });
        let (writing, (living, alive)) = (Arc::clone(&ledger), oneshot::channel());
        let thread = std::thread::Builder::new()
            .name("ledger".to_owned())
            .spawn(move || {
                writing.run();
                drop(living);
            })
            .map_err(|error| ledger.store.broken(&format!("no thread can be started: {error}")))?;
        Ok((Arc::clone(&ledger), Writer { ledger, thread, alive }))
    }

    /// Who is told how long a commit took, and of how many shares.
    pub fn observe_commits(&self, observe: fn(Duration, usize)) {
        let _ = self.observe.set(observe); // the first one stays
    }

    /// The rules that rewards are split by.
    #[must_use]
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// How addresses are written.
    #[must_use]
    pub fn prefixes(&self) -> &Prefixes {
        &self.prefixes
    }

    /// The database.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// A user. It takes a place in the ledger with its first share.
    #[must_use]
    pub fn user(&self, name: &str, member: Address) -> Arc<User> {
        let known = self.lock_state().users.get(name).cloned();
        known.unwrap_or_else(|| Arc::new(User { name: name.into(), member, id: OnceLock::new() }))
    }

    /// Takes a share. Its ticket tells when it is committed.
    pub fn log(&self, share: Accepted) {
        let mut pending = self.lock_pending();
        pending.shares.push(share);
        let wake = std::mem::take(&mut pending.asleep);
        drop(pending);
        if wake {
            self.arrived.notify_one();
        }
    }

    /// How the log does.
    #[must_use]
    pub fn log_state(&self) -> LogState {
        let state = self.lock_state();
        LogState { logged: state.window.range().end, trouble: state.trouble.clone() }
    }

    /// Reads what the window holds and what is owed: range, total and wanted work, work by member, carried amounts.
    pub(super) fn read<T>(&self, read: impl FnOnce(&Window, &Book) -> T) -> T {
        let state = self.lock_state();
        read(&state.window, &state.book)
    }

    /// The height above our nearest block in the chain; 0 if there is none.
    #[must_use]
    pub fn next_height(&self) -> u32 {
        self.lock_state().book.base().map_or(0, |base| base.height.saturating_add(1))
    }

    /// Whether a block is in the book.
    #[must_use]
    pub fn has_block(&self, id: &BlockId) -> bool {
        self.lock_state().book.has(id)
    }

    /// The greatest height below another at which there are blocks of ours.
    #[must_use]
    pub fn height_below(&self, height: u32) -> Option<u32> {
        self.lock_state().book.height_below(height)
    }

    /// Takes the block of an earlier run that ended before it was in the ledger; whether it was new.
    ///
    /// # Errors
    /// The database cannot be written.
    pub fn adopt(&self, record: &Record) -> Result<bool, LedgerError> {
        let mut state = self.lock_state();
        if state.book.has(&record.id) {
            return Ok(false);
        }
        let mut batch = Batch::default();
        self.store.put_block(&mut batch, record);
        self.store.write(batch, true)?;
        state.book.add(record);
        Ok(true)
    }

    /// How a block is paid for if it is found now.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn plan(&self, request: &Request) -> Result<Plan, LedgerError> {
        let &Request { base, reward, network_difficulty, room, chapter, solo } = request;
        let rules = Rules { max_outputs: self.rules.max_outputs.min(room), ..self.rules };
        let mut state = self.lock_state();
        let carried = self.carried_after(&mut state, base)?;
        let (mut window, mut wanted, mut work) = (0..0, 0, std::collections::BTreeMap::new());
        match (rules.scheme, solo) {
            (Scheme::Solo, Some(member)) => {
                work.insert(member, 1);
            }
            (Scheme::Pplns, _) => {
                wanted = wanted_work(network_difficulty, rules.window);
                self.settle(&mut state, wanted)?;
                (window, work) = (state.window.range(), state.window.work());
            }
            _ => {}
        }
        drop(state);
        let split = Split::new(Input { reward, work: &work, carried: &carried }, &rules);
        Ok(Plan { base, window, wanted, reward, rules, chapter, split })
    }

    /// What is carried after a block; moves the book there.
    fn carried_after(&self, state: &mut State, base: Option<BlockId>) -> Result<Arc<Amounts>, LedgerError> {
        if state.book.base() != base {
            let carried = base.map_or_else(|| Ok(Amounts::new()), |base| self.store.carried(&base))?;
            let mut batch = Batch::default();
            self.store.put_base(&mut batch, base.as_ref());
            self.store.write(batch, false)?;
            state.book.stand_on(base, carried);
        }
        Ok(state.book.carried())
    }

    fn settle(&self, state: &mut State, wanted: u128) -> Result<(), LedgerError> {
        let State { window, members, .. } = state;
        window.settle(wanted, &StoredLog { store: &self.store, members })
    }

    fn lock_pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().expect("no panic while the lock is held")
    }

    fn lock_state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic while the lock is held")
    }

    /// The thread.
    fn run(&self) {
        let (mut shares, mut unsynced) = (Vec::new(), None::<Instant>);
        loop {
            let sync_in = unsynced.map(|since: Instant| SYNC_TIME.saturating_sub(since.elapsed()));
            if sync_in == Some(Duration::ZERO) {
                self.insist(|| self.store.sync());
                unsynced = None;
            }
            let closed = self.gather(&mut shares, sync_in);
            if !shares.is_empty() {
                self.commit(&mut shares);
                unsynced.get_or_insert_with(Instant::now);
            } else if closed {
                self.insist(|| self.store.sync());
                return;
            }
        }
    }

    /// Takes what has come, or waits for it for a while; whether there will be no more.
    fn gather(&self, shares: &mut Vec<Accepted>, limit: Option<Duration>) -> bool {
        let mut pending = self.lock_pending();
        if pending.shares.is_empty() && !pending.closed {
            pending.asleep = true;
            let poisoned = "no panic while the lock is held";
            let may_wait = |pending: &mut Pending| pending.shares.is_empty() && !pending.closed;
            pending = match limit {
                None => self.arrived.wait_while(pending, may_wait).expect(poisoned),
                Some(limit) => self.arrived.wait_timeout_while(pending, limit, may_wait).expect(poisoned).0,
            };
            pending.asleep = false;
        } else if !pending.closed {
            drop(pending);
            std::thread::sleep(GATHER_TIME);
            pending = self.lock_pending();
        }
        std::mem::swap(shares, &mut pending.shares);
        pending.closed
    }

    /// Until it works; or once, when the pool ends and nobody waits for an answer any more. Whether it worked.
    fn insist(&self, write: impl Fn() -> Result<(), LedgerError>) -> bool {
        let mut failed = false;
        while let Err(trouble) = write() {
            error!("shares cannot be stored and are not answered: {trouble}");
            self.lock_state().trouble = Some(trouble.to_string());
            if self.lock_pending().closed {
                return false;
            }
            failed = true;
            std::thread::sleep(RETRY_TIME);
        }
        if failed {
            info!("shares are stored again");
            self.lock_state().trouble = None;
        }
        true
    }

    /// Writes shares, wakes who waits for them, and moves the window.
    fn commit(&self, shares: &mut Vec<Accepted>) {
        let begun = Instant::now();
        let new_users = self.number_users(shares);
        let first = self.lock_state().window.range().end;
        let written = self.insist(|| {
            let (batch, has_block) = self.batch(shares, &new_users, first);
            self.store.write(batch, has_block)
        });
        if !written {
            shares.clear();
            return;
        }
        wake(shares);
        if let Some(observe) = self.observe.get() {
            observe(begun.elapsed(), shares.len());
        }
        let mut state = self.lock_state();
        for share in shares.drain(..) {
            state.window.push(share.user.member, work_of(share.difficulty));
            if let Some(block) = share.block {
                state.book.add(&block);
            }
        }
        let wanted = state.window.wanted();
        if let Err(trouble) = self.settle(&mut state, wanted) {
            error!("the window cannot be moved, it stays as it is: {trouble}");
        }
    }

    /// Gives users that are new their numbers.
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
                self.store.put_block(&mut batch, block);
            }
        }
        (batch, has_block)
    }
}

fn id_of(user: &User) -> UserId {
    *user.id.get().expect("users are numbered before they are written")
}

/// The work that a window shall reach, in hashes.
#[must_use]
pub fn wanted_work(network_difficulty: Difficulty, window: f64) -> u128 {
    // A cast saturates.
    (network_difficulty.get() * 4_294_967_296.0 * window).ceil() as u128
}

/// Each session once, though it may have several shares.
fn wake(shares: &[Accepted]) {
    for (index, share) in shares.iter().enumerate() {
        share.ticket.committed.fetch_add(1, Ordering::Release);
        let is_last = shares.get(index + 1).is_none_or(|next| !Arc::ptr_eq(&next.ticket, &share.ticket));
        if is_last {
            share.ticket.changed.notify_one();
        }
    }
}

/// The address that a user name begins with.
#[must_use]
pub fn member_of(name: &str, prefixes: &Prefixes) -> Option<Address> {
    Address::parse(name.split('.').next().unwrap_or_default(), prefixes).ok()
}

/// The log with the members that its users stand for.
pub(super) struct StoredLog<'a> {
    pub(super) store: &'a Store,
    pub(super) members: &'a [Address],
}

impl Log for StoredLog<'_> {
    type Error = LedgerError;

    fn read(&self, range: Range<u64>) -> Result<Vec<(Address, u64)>, LedgerError> {
        let mut shares = Vec::new();
        let mut unknown = None;
        self.store.read_shares(range.start, |number, share| {
            if number >= range.end {
                return false;
            }
            match self.members.get(share.user.0 as usize) {
                Some(&member) => shares.push((member, share.work)),
                None => unknown = Some(number),
            }
            number + 1 < range.end && unknown.is_none()
        })?;
        if let Some(number) = unknown {
            return Err(self.store.broken(&format!("share {number} is of an unknown user")));
        }
        if shares.len() as u64 != range.end - range.start {
            return Err(self
                .store
                .broken(&format!("shares {} to {} are not all there", range.start, range.end)));
        }
        Ok(shares)
    }
}
