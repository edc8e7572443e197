//! The dialogue with the machines on one connection: jobs and difficulties; verdicts are in `shares`. No sockets here.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use iop_mining::bans::{BadRun, Offence};
use iop_mining::vardiff::{Aim, Vardiff};
use iop_stratum::difficulty::Difficulty;
use iop_stratum::fields::{Extranonce1, VersionMask};
use iop_stratum::message::is_printing;
use iop_stratum::server::{Authorize, Event, Fatal, Outgoing, Session, difficulty_in};
use iop_stratum::verdict::Reject;
use tracing::{debug, warn};

use super::held::{Held, Jobs, Sent};
use super::limits::Limits;
use super::prefixes::{Prefix, Spent};
use super::seats::{Name, Seat};
use super::served::{Served, Snapshot};
use super::{SOFTWARE, Shared};
use crate::job::Share;
use crate::stats::DeviceStats;

mod shares;

use shares::now;

/// Most variants of a job per machine: each is a change of difficulty by a factor of four or more, a repeated
/// subscription, or the same work again from the upstream. Each is a second later than the one before, so only few are
/// ahead of the clock.
const MAX_VARIANTS: u32 = 32;
/// Users that a connection may name before it has shares accepted; each accepted share allows one more.
const FREE_USERS: usize = 32;
/// Seconds between shares that vardiff aims at.
const SECONDS_PER_SHARE: f64 = 5.0;
/// Upper limit of vardiff, above any machine's difficulty.
const MAX_DIFFICULTY: f64 = 1e15;
/// A difficulty that differs from the last job's by this factor or more does not wait for the next job.
const BIG_CHANGE: f64 = 4.0;

/// A user of this connection: a machine in the list of devices.
#[derive(Debug)]
struct Worker {
    stats: Arc<DeviceStats>,
    since: Instant,
    /// Shares that we accepted, and those of them that went to the upstream.
    taken: u64,
    passed: u64,
    name: Name,
}

/// One connection.
#[derive(Debug)]
pub struct Machine {
    shared: Arc<Shared>,
    session: Session,
    peer: SocketAddr,
    /// Taken at the first line received while there is work.
    prefix: Option<Prefix>,
    vardiff: Vardiff,
    /// The last suggested difficulty. Repeating it changes nothing.
    wish: Option<Difficulty>,
    /// The least difficulty that the machine can work at or that we give out, whichever is greater.
    minimum: Difficulty,
    /// The difficulty that the machine was last sent.
    told: Option<Difficulty>,
    jobs: Jobs,
    /// Since when there is no work for it.
    idle: Option<Instant>,
    era: u64,
    /// Indexed by slot.
    workers: Vec<Worker>,
    /// Shares that are still to be passed to the upstream.
    up: VecDeque<Share>,
    accepted: usize,
    bad: BadRun,
    /// Shares since the last call of [`Self::take_asked_for`] that we caused: by the difficulty, or by repeated work.
    asked_for: u32,
    leaving: Option<&'static str>,
    _seat: Seat,
}

impl Machine {
    /// A new connection.
    #[must_use]
    pub fn new(shared: Arc<Shared>, seat: Seat, peer: SocketAddr) -> Self {
        let nothing = Extranonce1::new(&[]).expect("no bytes fit");
        Self {
            session: Session::new(nothing, VersionMask::NONE, SOFTWARE)
                .with_any_extranonce2()
                .with_any_version_bits(),
            peer,
            prefix: None,
            vardiff: Vardiff::new(shared.settings.start_difficulty, Instant::now()),
            wish: None,
            minimum: shared.settings.min_difficulty,
            told: None,
            jobs: Jobs::new(Arc::clone(&shared.memory)),
            idle: None,
            era: 0,
            workers: Vec::new(),
            up: VecDeque::new(),
            accepted: 0,
            bad: BadRun::default(),
            asked_for: 0,
            leaving: None,
            shared,
            _seat: seat,
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
        &self.shared.settings.limits
    }

    /// Whether its lines can be answered. Before there is any work, no extranonce can be assigned, so they wait.
    #[must_use]
    pub fn may_speak(&self) -> bool {
        self.prefix.is_some() || self.shared.snapshots.borrow().job.is_some()
    }

    /// Whether it is subscribed and has a user.
    #[must_use]
    pub fn is_working(&self) -> bool {
        self.session.is_subscribed() && !self.workers.is_empty()
    }

    /// Whether there is work for it.
    #[must_use]
    pub fn has_work(&self) -> bool {
        self.shared.snapshots.borrow().job.is_some()
    }

    /// Why its connection should be closed, if it should: queued lines are sent first.
    #[must_use]
    pub fn is_leaving(&self) -> Option<&'static str> {
        self.leaving
    }

    /// Whether it has sent so many bad shares that it should be closed.
    #[must_use]
    pub fn is_hopeless(&self) -> bool {
        self.bad.is_hopeless()
    }

    /// The number of its lines since the last call that were shares explained by its difficulty: no flood, however many
    /// they are.
    pub fn take_asked_for(&mut self) -> u32 {
        std::mem::take(&mut self.asked_for)
    }

    /// Counts an offence of the peer's address.
    pub fn offend(&self, offence: Offence) {
        self.shared.offend(self.peer.ip(), offence);
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

    /// Shares for the upstream, oldest first.
    pub fn shares(&mut self) -> &mut VecDeque<Share> {
        &mut self.up
    }

    /// Pings it, while it has no reason to send anything.
    pub fn ping(&mut self) {
        if self.session.is_subscribed() {
            self.session.ping();
        }
    }

    /// Says that its connection ends for lack of work.
    pub fn let_go(&self) {
        let seconds = self.limits().workless.as_secs_f32();
        if self.shared.words.may_warn() {
            warn!("no work for {seconds} s: machines are let go, to turn to other pools if they have any");
        }
    }

    /// Handles a line, if it [may be answered](Self::may_speak).
    ///
    /// # Errors
    /// The peer does not speak Stratum: close the connection.
    pub fn on_line(&mut self, line: &[u8]) -> Result<(), Fatal> {
        if self.leaving.is_some() {
            return self.on_last_line(line);
        }
        if self.prefix.is_none() && !self.sit_down() {
            return Ok(());
        }
        let event = self.session.handle_line(line)?;
        let mask = self.session.version_mask();
        if let Some(last) = self.jobs.last_mut() {
            last.renew_mask(mask); // the machine may have asked for another mask
        }
        match event {
            Some(Event::Submit(submit)) => self.on_submit(&submit),
            Some(Event::Authorize(request)) => self.on_authorize(&request),
            Some(Event::Refused { worker, reject }) => self.count_refused(worker, &reject.into()),
            Some(Event::SuggestDifficulty(difficulty)) => self.on_wish(difficulty),
            Some(Event::MinimumDifficulty(minimum)) => self.on_minimum(minimum),
            Some(Event::Subscribed { user_agent }) => {
                debug!(peer = %self.peer, %user_agent, "subscribed");
                self.told = None;
                let snapshot = Arc::clone(&self.shared.snapshots.borrow());
                self.on_snapshot(&snapshot);
            }
            None => {}
        }
        Ok(())
    }

    /// Handles a line while the connection is closing: only its shares still count.
    fn on_last_line(&mut self, line: &[u8]) -> Result<(), Fatal> {
        if self.is_working() {
            match self.session.handle_line(line)? {
                Some(Event::Submit(submit)) => self.on_submit(&submit),
                Some(Event::Refused { worker, reject }) => self.count_refused(worker, &reject.into()),
                _ => {}
            }
        }
        Ok(())
    }

    /// Takes a prefix. Connections that send nothing get none.
    fn sit_down(&mut self) -> bool {
        let snapshot = Arc::clone(&self.shared.snapshots.borrow());
        self.era = snapshot.era;
        snapshot.job.as_ref().is_some_and(|job| {
            self.session.set_server_mask(job.mask());
            self.fit_extranonce(job)
        })
    }

    /// Sends the job, if there is one and the machine is subscribed.
    pub fn on_snapshot(&mut self, snapshot: &Snapshot) {
        self.era = snapshot.era;
        if snapshot.ends {
            return self.on_end();
        }
        let Some(job) = &snapshot.job else {
            self.idle.get_or_insert_with(Instant::now);
            return;
        };
        if let Some(idle) = self.idle.take() {
            self.vardiff.resume(idle, Instant::now());
        }
        if self.prefix.is_none() {
            return;
        }
        self.session.set_server_mask(job.mask());
        if !self.fit_extranonce(job) || !self.session.is_subscribed() {
            return;
        }
        if let Some(last) = self.jobs.last_mut().filter(|last| last.job.id() == job.id()) {
            // The same job, perhaps with another mask.
            last.renew(Arc::clone(job), self.session.version_mask());
            if self.told.is_none() {
                let difficulty = last.last().difficulty;
                self.send_again(difficulty);
            }
            return;
        }
        // True if the upstream flagged this job, or an earlier one that this connection has not seen.
        let clean = job.is_clean() || self.jobs.last().is_none_or(|last| last.job.era() != job.era());
        if self.jobs.is_empty() {
            self.vardiff.begin(Instant::now());
        }
        let (difficulty, repeats) = (self.difficulty_of(job), self.jobs.repeats(job));
        let prefix = self.prefix.as_mut().expect("it was fitted to the job");
        prefix.tell(job.work());
        let mask = self.session.version_mask();
        self.jobs.push(Arc::clone(job), prefix.number(), mask, difficulty, repeats.unwrap_or(0));
        if repeats.is_some() {
            // Most machines start over and find the same shares again.
            self.jobs.excuse();
            return self.send_again(difficulty);
        }
        self.tell(difficulty);
        self.session.notify(job.line(clean));
    }

    /// The gateway ends: tells the machine to reconnect.
    fn on_end(&mut self) {
        if self.session.is_subscribed() {
            self.session.reconnect();
        }
        self.leaving = Some("the gateway ends");
    }

    /// Gives the session its extranonces for a job. Returns false if the machine must reconnect for that.
    fn fit_extranonce(&mut self, job: &Served) -> bool {
        let extranonce1 = match self.fit_prefix(job).map(|number| job.extranonce1(number)) {
            Ok(extranonce1) => extranonce1.expect("a job that is served has room for every prefix"),
            Err(spent) => {
                if self.shared.words.may_warn() {
                    warn!("{spent}");
                }
                self.leaving = Some("no part of the upstream's extranonces is left for it");
                return false;
            }
        };
        let size = job.extranonce2_size();
        if *self.session.extranonce1() == extranonce1 && self.session.extranonce2_size() == size {
            return true;
        }
        if self.session.is_subscribed() && !self.session.takes_extranonces() {
            self.session.reconnect();
            self.leaving = Some("the upstream's extranonces have changed");
            self.prefix = None; // the machine may reconnect before this connection has ended
            return false;
        }
        self.session.set_extranonce(extranonce1, size);
        true
    }

    /// Its prefix for a job: the same one as before, if possible.
    fn fit_prefix(&mut self, job: &Served) -> Result<u32, Spent> {
        let (bytes, work) = (job.prefix_size(), job.work());
        let prefix = match self.prefix.take().filter(|prefix| prefix.fits(bytes, work)) {
            Some(prefix) => prefix,
            None => self.shared.prefixes.take(self.peer.ip(), bytes, work)?,
        };
        Ok(self.prefix.insert(prefix).number())
    }

    fn tell(&mut self, difficulty: Difficulty) {
        if self.told != Some(difficulty) {
            self.session.set_difficulty(difficulty);
            self.told = Some(difficulty);
        }
    }

    /// The difficulty for a job: at most the upstream's, or shares that it wants would be lost.
    fn difficulty_of(&self, job: &Served) -> Difficulty {
        let (wanted, upstream) =
            (self.vardiff.difficulty().at_least(self.minimum), job.upstream().stratum().difficulty);
        if wanted > upstream { upstream } else { wanted }
    }

    fn aim(&self) -> Aim {
        let max = Difficulty::new(MAX_DIFFICULTY).expect("above zero");
        Aim { seconds_per_share: SECONDS_PER_SHARE, min: self.minimum, max: max.at_least(self.minimum) }
    }

    /// When to call [`Self::on_silence`] if no share comes before.
    #[must_use]
    pub fn silent_from(&self) -> Option<Instant> {
        let mines =
            !self.workers.is_empty() && self.jobs.last().is_some_and(|last| last.job.era() == self.era);
        self.vardiff.silent_from(&self.aim()).filter(|_| mines)
    }

    /// Lowers the difficulty if no share came for long.
    pub fn on_silence(&mut self, now: Instant) {
        let aim = self.aim();
        if self.silent_from().is_some_and(|silent| now >= silent) && self.vardiff.on_silence(now, &aim) {
            self.on_retarget();
        }
    }

    /// A new difficulty applies from the next job on; after a big change, a new job is sent at once.
    fn on_retarget(&mut self) {
        if let Some((wanted, change)) = self.change()
            && (change <= 1.0 / BIG_CHANGE || change >= BIG_CHANGE)
        {
            self.jobs.excuse();
            self.send_again(wanted);
        }
    }

    /// The difficulty that the current job should have by now, and its ratio to the one it was sent with.
    fn change(&self) -> Option<(Difficulty, f64)> {
        let goes_on = |last: &&Held| last.job.era() == self.era && self.leaving.is_none();
        let last = self.jobs.last().filter(goes_on)?;
        let wanted = self.difficulty_of(&last.job);
        Some((wanted, wanted.get() / last.last().difficulty.get()))
    }

    /// Sends the last job again as a job of its own: shares of the first one do not count again.
    fn send_again(&mut self, difficulty: Difficulty) {
        if self.jobs.last().is_none_or(|last| last.job.era() != self.era) {
            return;
        }
        let last = self.jobs.last_mut().expect("there is one");
        let later = last.later.saturating_add(1);
        // A past time is valid at any pool of a network whose bits do not depend on it, so an upstream may repeat its
        // work once a second for any length of time.
        let (time, latest) = (last.job.upstream().ntime().0, last.job.upstream().latest().0);
        let most =
            MAX_VARIANTS.max(now().saturating_sub(time)).min(latest.saturating_sub(time).saturating_add(1));
        if later >= most || last.sent.len() >= MAX_VARIANTS as usize {
            // Send the same job again, with the shares already counted for it.
            let (line, difficulty) = (last.job.line(true), last.sent[0].difficulty);
            self.tell(difficulty);
            self.session.notify(line);
            return;
        }
        let (id, line) = last.job.variant(later, &self.shared.numbers);
        last.later = later;
        last.sent.push(Sent::new(id, difficulty));
        self.tell(difficulty);
        self.session.notify(line.into());
    }

    /// Applies a suggested difficulty from the next job on.
    fn on_wish(&mut self, difficulty: Difficulty) {
        if self.wish.replace(difficulty) != Some(difficulty) {
            let Aim { min, max, .. } = self.aim();
            self.vardiff = Vardiff::new(difficulty.clamp(min, max), Instant::now());
        }
    }

    /// Lifts vardiff to the minimum: it counts shares by its own difficulty, which must not be below that of the jobs.
    /// A job that is far too easy is replaced at once. One that is too hard is not, or a machine that alternates its
    /// requests would use up the variants that vardiff needs.
    fn on_minimum(&mut self, minimum: Difficulty) {
        self.minimum = minimum.at_least(self.shared.settings.min_difficulty);
        self.vardiff.lift(self.minimum);
        if let Some((wanted, change)) = self.change()
            && change >= BIG_CHANGE
        {
            self.send_again(wanted);
        }
    }

    fn on_authorize(&mut self, request: &Authorize) {
        if let Err(reject) = self.authorize(request) {
            debug!(peer = %self.peer, "user refused: {reject}");
            self.session.refuse(request, &reject);
        }
    }

    fn authorize(&mut self, request: &Authorize) -> Result<(), Reject> {
        if !request.user.chars().all(is_printing) {
            return Err(Reject::Unauthorized("the user name has characters that do not print".into()));
        }
        let is_new = !self.session.workers().contains(&request.user);
        let name = if is_new { Some(self.new_name(&request.user)?) } else { None };
        // The session itself answers a refusal.
        if self.session.accept(request).is_ok()
            && let Some(name) = name
        {
            debug!("{} is connected from {}", name.as_str(), self.peer);
            let stats = self.shared.stats.device(name.as_str());
            self.workers.push(Worker { stats, since: Instant::now(), taken: 0, passed: 0, name });
        }
        if let Some(difficulty) = difficulty_in(&request.password) {
            self.on_wish(difficulty);
        }
        if is_new && self.workers.len() == 1 {
            self.vardiff.begin(Instant::now());
        }
        Ok(())
    }

    fn new_name(&self, user: &Arc<str>) -> Result<Name, Reject> {
        if self.workers.len() >= FREE_USERS.saturating_add(self.accepted) {
            return Err(Reject::Unauthorized("too many users without shares on this connection".into()));
        }
        self.shared
            .seats
            .name(user, self.workers.is_empty())
            .ok_or(Reject::Unauthorized("there is no room for another machine".into()))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        for Worker { stats, since, taken, passed, name } in &self.workers {
            let seconds = since.elapsed().as_secs();
            debug!("{} has left after {seconds} s: {taken} shares, {passed} for the upstream", name.as_str());
            self.shared.stats.remove(stats);
        }
    }
}
