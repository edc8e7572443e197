//! The dialogue with one miner. Here: authorization, which jobs are sent, their difficulty (`difficulty`), and the
//! handling of shares (`shares`). Not here: sockets.

mod difficulty;
mod shares;

use std::collections::{HashSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use iop_consensus::address::Address;
use iop_mining::bans::{BadRun, Offence};
use iop_mining::vardiff::Vardiff;
use iop_stratum::difficulty::Difficulty;
use iop_stratum::fields::{Extranonce1, VersionMask};
use iop_stratum::message::Id;
use iop_stratum::server::{Authorize, Event, Fatal, Outgoing, Session, WorkerSlot, difficulty_in};
use iop_stratum::verdict::Reject;
use tracing::debug;

use self::difficulty::{BIG_CHANGE, EASY_GRACE, MAX_ASKED};
use super::limits::Limits;
use super::pace::Pace;
use super::{Shared, Slot, user};
use crate::SOFTWARE;
use crate::follow::{Snapshot, Work};
use crate::job::{Job, STALE_GRACE};
use crate::ledger::{Scheme, Ticket, User};
use crate::workers::{Known, Presence};

/// The most recent jobs of one tip whose shares are accepted: eight minutes of work at a job every half minute.
/// Machines switch to each new job within seconds. A job kept for those that do not keeps its template (4 MB for a full
/// block) and, on each connection, the hashes of its shares.
const MAX_JOBS: usize = 16;
/// Users that a connection may name before it has shares accepted; each accepted share allows one more. Names fill the
/// list of workers, so they must cost something.
const FREE_USERS: usize = 32;
/// The same for workers of an address that is on the connection already: a proxy may name each machine behind it.
const FREE_WORKERS: usize = 256;
/// Shares of one connection that may wait to be committed. Reading resumes when some are: a slow disk slows miners down
/// instead of filling memory.
const MAX_UNCOMMITTED: usize = 1024;
/// Capacity for uncommitted shares that an idle connection keeps.
const IDLE_UNCOMMITTED: usize = 4;

/// A job that was sent, with the parameters in force then.
#[derive(Debug)]
struct Sent {
    job: Arc<Job>,
    difficulty: Difficulty,
    /// When its shares stop counting, because a far harder job followed. A block counts at any time.
    until: Option<Instant>,
    /// The first half of each share's hash. Different shares have different headers, hence different hashes; and no
    /// other connection has this extranonce1, so none can submit the same shares. Allocated for the first share: most
    /// jobs of a connection have none for long, and many connections are idle.
    #[expect(clippy::box_collection, reason = "a set takes 48 bytes, and there are 16 of these")]
    seen: Option<Box<HashSet<[u8; 16]>>>,
}

/// A user of this connection.
#[derive(Debug)]
struct Joined {
    presence: Presence,
    user: Arc<User>,
}

/// One connection's miner.
#[derive(Debug)]
pub struct Miner {
    shared: Arc<Shared>,
    session: Session,
    peer: SocketAddr,
    vardiff: Vardiff,
    pace: Pace,
    /// The last difficulty that the client suggested. Repeating it changes nothing.
    wish: Option<Difficulty>,
    /// The least difficulty that the miner can work at or that the pool gives out, whichever is greater.
    minimum: Difficulty,
    /// The difficulty that the miner was last sent.
    told: Option<Difficulty>,
    sent: VecDeque<Sent>,
    /// Jobs of the latest work that were sent because the client asked.
    asked: u32,
    /// Indexed by worker slot.
    workers: Vec<Joined>,
    accepted: usize,
    bad: BadRun,
    /// Accepted shares of jobs that a far harder one has followed.
    easy: u32,
    /// Requests of good shares that are not yet committed, in order.
    uncommitted: VecDeque<Id>,
    /// Reports how many shares are committed.
    ticket: Arc<Ticket>,
    dead_from: Option<Instant>,
    _slot: Slot,
}

impl Miner {
    /// A new connection.
    #[must_use]
    pub fn new(shared: Arc<Shared>, slot: Slot, peer: SocketAddr) -> Self {
        let extranonce1 = Extranonce1::from_u32(slot.extranonce1());
        Self {
            session: Session::new(extranonce1, VersionMask::SERVER, SOFTWARE)
                .with_max_difficulty(shared.difficulty.max),
            peer,
            vardiff: Vardiff::new(shared.difficulty.start, Instant::now()),
            pace: Pace::default(),
            wish: None,
            minimum: shared.difficulty.min,
            told: None,
            sent: VecDeque::new(),
            asked: 0,
            workers: Vec::new(),
            accepted: 0,
            bad: BadRun::default(),
            easy: 0,
            uncommitted: VecDeque::new(),
            ticket: Arc::default(),
            dead_from: None,
            shared,
            _slot: slot,
        }
    }

    /// The peer's address.
    #[must_use]
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// The limits of this connection.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.shared.limits
    }

    /// What all connections share.
    pub(super) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Counts an offence of the peer's address.
    pub fn offend(&self, offence: Offence) {
        self.shared.offend(self.peer.ip(), offence);
    }

    /// Whether it has sent so many bad shares that it should be closed.
    #[must_use]
    pub fn is_hopeless(&self) -> bool {
        self.bad.is_hopeless()
    }

    /// The pool stops: tells the client to reconnect.
    pub fn on_stop(&mut self) {
        if self.session.is_subscribed() {
            self.session.reconnect();
        }
    }

    /// Whether it is subscribed and has a user.
    #[must_use]
    pub fn is_working(&self) -> bool {
        self.session.is_subscribed() && !self.workers.is_empty()
    }

    /// The next lines to send.
    pub fn next_lines(&mut self) -> Option<Outgoing> {
        self.session.next_lines()
    }

    /// Bytes of the lines not yet taken.
    #[must_use]
    pub fn queued_bytes(&self) -> usize {
        self.session.queued_bytes()
    }

    /// Handles a line.
    ///
    /// # Errors
    /// The other side does not speak Stratum: close the connection.
    pub fn on_line(&mut self, line: &[u8]) -> Result<(), Fatal> {
        match self.session.handle_line(line)? {
            Some(Event::Submit(submit)) => self.on_submit(&submit),
            Some(Event::Authorize(request)) => self.on_authorize(&request),
            Some(Event::Refused { worker, reject }) => self.count_refused(worker, &reject),
            Some(Event::SuggestDifficulty(difficulty)) => self.on_wish(difficulty),
            Some(Event::MinimumDifficulty(minimum)) => self.on_minimum(minimum),
            Some(Event::Subscribed { user_agent }) => {
                debug!(peer = %self.peer, %user_agent, "subscribed");
                self.told = None;
                self.on_news();
            }
            None => {}
        }
        Ok(())
    }

    /// The ticket that reports committed shares.
    #[must_use]
    pub fn ticket(&self) -> &Arc<Ticket> {
        &self.ticket
    }

    /// Whether shares wait to be committed.
    #[must_use]
    pub fn has_uncommitted(&self) -> bool {
        !self.uncommitted.is_empty()
    }

    /// Whether so many shares wait to be committed that reading must pause.
    #[must_use]
    pub fn is_ahead_of_the_log(&self) -> bool {
        self.uncommitted.len() >= MAX_UNCOMMITTED
    }

    /// Answers the shares that have been committed.
    pub fn on_committed(&mut self) {
        for _ in 0..self.ticket.take() {
            let Some(id) = self.uncommitted.pop_front() else { break };
            self.session.answer_submit(&id, Ok(()));
        }
        if self.uncommitted.is_empty() {
            self.uncommitted.shrink_to(IDLE_UNCOMMITTED);
        }
    }

    /// When to close the connection because the miner's jobs are dead and there is no other: Stratum has no other way
    /// to say "stop". A miner that reconnects then, or never had a job, just waits for one.
    #[must_use]
    pub fn dead_from(&self) -> Option<Instant> {
        self.dead_from
    }

    /// Handles the latest snapshot. One that was handled before changes nothing.
    pub fn on_news(&mut self) {
        let snapshot = Arc::clone(&self.shared.snapshots.borrow());
        self.on_snapshot(&snapshot);
    }

    /// Sends the job, if there is one and the miner is subscribed.
    pub fn on_snapshot(&mut self, snapshot: &Snapshot) {
        let Work::Job(job) = &snapshot.work else {
            if !self.sent.is_empty() {
                self.dead_from.get_or_insert_with(|| Instant::now() + STALE_GRACE);
            }
            return;
        };
        self.dead_from = None;
        if !self.session.is_subscribed() {
            return;
        }
        let Some(job) = job.for_member(self.workers.first().map(|first| first.user.member())) else { return };
        let job = &job;
        let last = self.sent.back();
        if let Some(last) = last.filter(|sent| sent.job.is_same_work(job)) {
            if self.told.is_none() {
                // A client that subscribes again gets the same work at the same difficulty, but under a new job number,
                // so that shares of the first job cannot count twice.
                let (difficulty, line) = (last.difficulty, last.job.line(false));
                let may_ask = self.asked < MAX_ASKED;
                if let Some(again) = may_ask.then(|| last.job.variant(&self.shared.numbers)).flatten() {
                    self.asked += 1;
                    self.send(again.line(false), difficulty);
                    self.remember(again, difficulty);
                } else {
                    // Too often: send the same job again, with the shares already counted for it.
                    self.send(line, difficulty);
                }
            }
            return;
        }
        let clean = last.is_none_or(|sent| !Arc::ptr_eq(&sent.job.tip, &job.tip));
        if last.is_none() {
            self.vardiff.begin(Instant::now());
        }
        let difficulty = job.share_difficulty(self.wanted());
        self.asked = 0;
        self.send(job.line(clean), difficulty);
        self.remember(Arc::clone(job), difficulty);
    }

    fn send(&mut self, line: Arc<[u8]>, difficulty: Difficulty) {
        if self.told != Some(difficulty) {
            self.session.set_difficulty(difficulty);
            self.told = Some(difficulty);
        }
        self.session.notify(line);
    }

    fn remember(&mut self, job: Arc<Job>, difficulty: Difficulty) {
        self.sent.retain(|sent| !sent.job.tip.is_stale());
        while self.sent.len() >= MAX_JOBS {
            self.sent.pop_front();
        }
        let until = Instant::now() + EASY_GRACE;
        let easy = |sent: &&mut Sent| difficulty.get() >= sent.difficulty.get() * BIG_CHANGE;
        for sent in self.sent.iter_mut().filter(easy) {
            sent.until.get_or_insert(until);
        }
        self.sent.push_back(Sent { job, difficulty, until: None, seen: None });
    }

    fn on_authorize(&mut self, request: &Authorize) {
        if let Err(reject) = self.authorize(request) {
            debug!(peer = %self.peer, "user refused: {reject}");
            self.session.refuse(request, &reject);
        }
    }

    fn authorize(&mut self, request: &Authorize) -> Result<(), Reject> {
        let (name, member) = user::check(&request.user, &self.shared.prefixes)?;
        let is_new = !self.session.workers().contains(&request.user);
        let joined = if is_new {
            let is_member = self.workers.iter().any(|joined| joined.user.member() == member);
            let free = if is_member { FREE_WORKERS } else { FREE_USERS };
            if self.workers.len() >= free.saturating_add(self.accepted) {
                return Err(Reject::Unauthorized("too many users without shares on this connection".into()));
            }
            self.check_solo(member)?;
            Some(self.join(name, member)?)
        } else {
            None
        };
        // The session itself answers a refusal.
        if let Ok(WorkerSlot(slot)) = self.session.accept(request)
            && let Some(joined) = joined
        {
            debug_assert_eq!(slot, self.workers.len(), "slots count up");
            self.workers.push(joined);
        }
        if let Some(difficulty) = difficulty_in(&request.password) {
            self.on_wish(difficulty);
        }
        if is_new && self.workers.len() == 1 {
            self.vardiff.begin(Instant::now());
        }
        if is_new && self.workers.len() == 1 && self.shared.ledger.rules().scheme == Scheme::Solo {
            // Only now is it known which member the job pays.
            self.on_news();
        }
        Ok(())
    }

    fn join(&self, name: &str, member: Address) -> Result<Joined, Reject> {
        let (workers, ledger) = (&self.shared.workers, &self.shared.ledger);
        let user = ledger.user(name, member);
        let known = match () {
            // The ledger returns the same `Arc` each time for a user that it has.
            () if Arc::ptr_eq(&user, &ledger.user(name, member)) => Known::Name,
            () if ledger.has_member(&member) => Known::Member,
            () => Known::Nothing,
        };
        let presence = workers
            .join(name, member, self.peer.ip(), known)
            .map_err(|not_taken| Reject::Unauthorized(not_taken.to_string().into()))?;
        Ok(Joined { presence, user })
    }

    /// In solo mode all jobs of a connection pay one member.
    fn check_solo(&self, member: Address) -> Result<(), Reject> {
        let first = self.workers.first().map(|first| first.user.member());
        match first.filter(|_| self.shared.ledger.rules().scheme == Scheme::Solo) {
            Some(first) if first != member => Err(Reject::Unauthorized(
                "this pool pays each finder alone: another address needs a connection of its own".into(),
            )),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod oracle;
#[cfg(test)]
pub(crate) mod tests;
