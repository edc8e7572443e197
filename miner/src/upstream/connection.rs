//! One connection to a pool: moves bytes between socket and session, jobs to the devices, shares to the pool.
//!
//! It first gets ready while another pool may be in use; from [`Connection::take_over`] on the devices work on its
//! jobs; after [`Connection::farewell`] it only sends late finds and receives the remaining verdicts.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use iop_stratum::client::{self, Event, Reconnect, Session, SubmitId};
use iop_stratum::difficulty::{HASHES_AT_1, Target};
use iop_stratum::fields::VersionMask;
use iop_stratum::line::{LineDecoder, MAX_CLIENT_LINE};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{debug, info, warn};

use super::board::Condition;
use super::glance;
use super::lost::Lost;
use super::open::{Place, Socket};
use super::pace::Pace;
use super::watch::Watch;
use crate::dispatcher::Dispatcher;
use crate::job::{Job, Serial};
use crate::split::{Split, Unservable};
use crate::stats::HashRate;

mod farewell;
mod shares;

use shares::Sent;

/// Bytes to read at once: a job of usual size.
const READ: usize = 8 * 1024;
/// Least time between two log lines that a pool can cause.
const SPEAK_EVERY: Duration = Duration::from_millis(500);

/// Changes of job that reach the devices at once, and per second in the long run: each costs them a part of a chunk of
/// headers, 0.2 ms. If more come, the newest one is held back for some milliseconds.
const JOBS: (u32, u32) = (8, 100);
/// Bytes that are read at once, and per second in the long run: the former is a few of the longest jobs, the latter ten
/// times what thousands of machines behind one connection need, and takes a twentieth of one core.
const BYTES: (u32, u32) = (4 << 20, 1 << 20);
/// Cost of a line besides its bytes.
const LINE: u32 = 100;
/// Shares that are sent at once, and per second in the long run: many more than a thousand machines find at a sensible
/// difficulty. If a pool wants every hash, only the devices wait.
const SHARES: (u32, u32) = (4096, 2000);
/// A share that takes longer than this is as good as none.
const HOPELESS: Duration = Duration::from_secs(24 * 3600);
/// The rate counts as known after this much work.
const RATE_KNOWN: Duration = Duration::from_secs(10);

pub(super) struct Connection {
    stream: Box<dyn Socket>,
    buffer: Vec<u8>,
    place: Place,
    session: Session,
    decoder: LineDecoder,
    opened: Instant,
    watch: Watch,
    /// Shares without a verdict, with the same bound as in the session.
    submitted: BTreeMap<SubmitId, Sent>,
    /// When the pool last caused a log line, and when one of its refusals did.
    spoke: Option<Instant>,
    refused: Option<Instant>,
    /// Whether the user was told that the pool's shares are too hard.
    told_hopeless: bool,
    /// The newest job, kept to be started when this pool is used, or again when its version mask changes.
    job: Option<client::Job>,
    /// Whether it is to be started as soon as possible, and whether it voids all earlier jobs of the devices.
    due: bool,
    breaks: bool,
    /// Rate limits for changes of job, received bytes, and shares.
    jobs: Pace,
    bytes: Pace,
    shares: Pace,
    /// The destination of its jobs while this pool is in use.
    dispatcher: Option<Arc<Dispatcher>>,
    /// The serial of the next job.
    next_serial: Serial,
    /// Its own first serial: earlier jobs belong to other connections.
    first_serial: Serial,
    /// The pool accepts shares of jobs from this one on.
    oldest_live: Serial,
    /// The first serial of the newest job, which gets further ones when its version mask changes.
    first_of_job: Serial,
}

impl Connection {
    pub(super) fn new(stream: Box<dyn Socket>, place: Place) -> Self {
        let now = Instant::now();
        Self {
            stream,
            buffer: vec![0; READ],
            session: Session::new(place.manner.options.clone()),
            place,
            decoder: LineDecoder::new(MAX_CLIENT_LINE),
            opened: now,
            watch: Watch::new(now),
            submitted: BTreeMap::new(),
            spoke: None,
            refused: None,
            told_hopeless: false,
            job: None,
            due: false,
            breaks: false,
            jobs: Pace::new(JOBS.0, JOBS.1, now),
            bytes: Pace::new(BYTES.0, BYTES.1, now),
            shares: Pace::new(SHARES.0, SHARES.1, now),
            dispatcher: None,
            next_serial: Serial::default(),
            first_serial: Serial::default(),
            oldest_live: Serial::default(),
            first_of_job: Serial::default(),
        }
    }

    /// Waits for a job and for permission to submit shares.
    pub(super) async fn ready(mut self) -> Result<Self, Lost> {
        while self.job.is_none() || !self.session.is_authorized() {
            self.send().await?;
            self.receive().await?;
        }
        Ok(self)
    }

    /// Waits until its job's difficulty suits this machine: many pools start with a difficulty for larger machines, and
    /// lower it when no share comes.
    pub(super) async fn bearable(mut self) -> Result<Self, Lost> {
        while self.is_hopeless() {
            self.watch.hopeless(true, Instant::now());
            self.send().await?;
            self.receive().await?;
        }
        self.watch.hopeless(false, Instant::now());
        Ok(self)
    }

    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// The serial of the next job, of this pool or of the one that follows.
    pub(super) fn next_serial(&self) -> Serial {
        self.next_serial
    }

    /// Starts giving its jobs to the devices, in place of the earlier ones.
    pub(super) fn take_over(&mut self, dispatcher: Arc<Dispatcher>, next_serial: Serial) {
        self.place.aside = false;
        self.dispatcher = Some(dispatcher);
        self.next_serial = next_serial;
        (self.first_serial, self.oldest_live, self.first_of_job) = (next_serial, next_serial, next_serial);
        // Whatever flag the pool set: earlier jobs were another pool's.
        self.breaks = true;
        self.start();
    }

    /// The serials of its own jobs so far.
    pub(super) fn jobs(&self) -> Range<Serial> {
        self.first_serial..self.next_serial
    }

    /// Whether a share may be sent now.
    pub(super) fn takes_shares(&self) -> bool {
        self.shares.free_at() <= Instant::now()
    }

    /// Sends the session's lines.
    pub(super) async fn send(&mut self) -> Result<(), Lost> {
        let limit = self.place.manner.timing.write;
        let mut lines = Vec::new();
        while let Some(line) = self.session.next_outgoing() {
            lines.extend_from_slice(&line);
        }
        if lines.is_empty() {
            return Ok(());
        }
        let stream = &mut self.stream;
        let written = async {
            stream.write_all(&lines).await?;
            stream.flush().await
        };
        timeout(limit, written).await.map_err(|_| Lost::Stuck(limit))?.map_err(Lost::Io)
    }

    /// Waits for an event of this connection, and handles it. Cancel safe.
    pub(super) async fn receive(&mut self) -> Result<(), Lost> {
        let ((deadline, late), now) = (self.deadline(), Instant::now());
        let readable = self.bytes.free_at();
        let may_read = readable <= now;
        // Rate limits that are currently exceeded.
        let waits = [readable, self.shares.free_at()].into_iter().filter(|free| *free > now);
        let mut wake = waits.fold(deadline, Instant::min);
        if self.due && self.dispatcher.is_some() {
            wake = wake.min(self.jobs.free_at());
        }
        tokio::select! {
            // Input that is already here counts, even after the whole process was suspended.
            biased;
            read = self.stream.read(&mut self.buffer), if may_read => match read? {
                0 => return Err(Lost::Closed),
                length => self.read(length)?,
            },
            () = sleep_until(wake) => if deadline <= Instant::now() {
                return Err(late);
            },
        }
        self.give();
        Ok(())
    }

    /// The time by which the pool must send something, and the error if it does not.
    fn deadline(&self) -> (Instant, Lost) {
        let timing = &self.place.manner.timing;
        if !self.session.is_authorized() {
            let limit = if self.session.is_subscribed() { timing.login } else { timing.handshake };
            return (self.opened + limit, Lost::Handshake(limit));
        }
        self.watch.deadline(timing, self.place.manner.pools > 1 || self.place.aside)
    }

    fn read(&mut self, length: usize) -> Result<(), Lost> {
        self.decoder.extend(&self.buffer[..length]);
        let mut cost = u32::try_from(length).expect("the buffer is small");
        while let Some(line) = self.decoder.next_line()? {
            cost += LINE;
            if let Some(event) = self.session.handle_line(line)? {
                self.react(event)?;
            }
        }
        self.bytes.spend(cost, Instant::now());
        Ok(())
    }

    fn react(&mut self, event: Event) -> Result<(), Lost> {
        let now = Instant::now();
        if let Event::Job(job) = &event
            && self.place.manner.only_machines
            && let Err(why) = Split::default().prefix_in(job)
        {
            self.unservable(job.notify.clean, &why);
            return Ok(());
        }
        if matches!(event, Event::Job(_)) {
            self.watch.job(now);
        } else if is_useful(&event) {
            self.watch.useful(now);
        }
        match event {
            Event::Subscribed(early) => {
                debug!("{}: subscribed", self.place.url);
                if let Some(job) = early {
                    self.react(Event::Job(job))?;
                }
            }
            Event::Authorized => self.authorized(),
            Event::Job(job) => self.new_job(job),
            Event::Difficulty(difficulty) => {
                self.place.note(|source| source.difficulty = Some(difficulty.get()));
                if !self.place.aside && self.may_speak() {
                    info!("{}: share difficulty {difficulty}", self.place.url);
                }
            }
            Event::Extranonce { extranonce1, .. } => debug!(%extranonce1, "new extranonce"),
            Event::VersionMask(mask) => {
                debug!(%mask, "version bits that may be rolled");
                self.new_mask(mask);
            }
            Event::SubmitResult { id, verdict } => {
                if let Some(sent) = self.submitted.remove(&id) {
                    self.count(&sent, &verdict, now);
                }
                self.judge_job(id, &verdict, now);
            }
            Event::Reconnect(reconnect) => self.moved(reconnect)?,
            Event::ShowMessage(text) => {
                if self.may_speak() {
                    info!("{} says: {text}", self.place.url);
                }
                self.place.note(|source| source.message = Some(text.into()));
            }
            Event::PassedOver(error) => {
                if self.may_speak() {
                    warn!("{}: {error}; passed over", self.place.url);
                }
            }
        }
        Ok(())
    }

    fn authorized(&mut self) {
        if self.place.aside {
            debug!("{}: the pool takes our shares", self.place.url);
            return;
        }
        info!("{}: the pool takes our shares", self.place.url);
        if self.job.is_none() {
            self.place.note(|source| source.set(Condition::Waiting("no job yet".to_owned())));
        }
    }

    fn new_job(&mut self, job: client::Job) {
        debug!(job = %job.notify.job_id, clean = job.notify.clean, difficulty = %job.difficulty, "new job");
        self.place.note(|source| source.jobs += 1);
        // Some pools repeat a job again and again: its shares continue to count.
        let same = self.job.as_ref() == Some(&job);
        // Another job with the same id: shares of the old one would be judged by the new one.
        let renamed = self.job.as_ref().is_some_and(|old| old.notify.job_id == job.notify.job_id);
        let clean = !same && (job.notify.clean || renamed);
        self.job = Some(job);
        if !same {
            self.first_of_job = self.next_serial;
        }
        if clean {
            // Shares of earlier jobs no longer count.
            self.oldest_live = self.next_serial;
            self.breaks = true;
        }
        self.start();
    }

    /// Changes the current job's version mask; pools may repeat the same one. Earlier shares are checked when they
    /// come: they count if they rolled only bits of the new mask.
    fn new_mask(&mut self, mask: VersionMask) {
        if let Some(job) = self.job.as_mut().filter(|job| job.version_mask != mask) {
            job.version_mask = mask;
            self.start();
        }
    }

    /// A job that none of our machines can use: there is no work until the pool sends another.
    fn unservable(&mut self, clean: bool, why: &Unservable) {
        self.watch.no_job(Instant::now());
        if clean {
            self.oldest_live = self.next_serial;
        }
        self.without_job(&why.to_string());
    }

    fn may_speak(&mut self) -> bool {
        may_speak(&mut self.spoke)
    }

    /// Marks the newest job to be given to the devices.
    fn start(&mut self) {
        self.due = true;
        self.give();
    }

    /// Gives the newest job to the devices if it is due and the rate limit allows it.
    fn give(&mut self) {
        let now = Instant::now();
        if !self.due || self.jobs.free_at() > now {
            return;
        }
        let (Some(dispatcher), Some(job)) = (&self.dispatcher, &self.job) else { return };
        self.due = false;
        self.jobs.spend(1, now);
        let serial = self.next_serial;
        self.next_serial.0 += 1;
        let breaks = std::mem::take(&mut self.breaks); // including breaks of jobs that were skipped
        dispatcher.replace_job(Arc::new(Job::new(serial, job.clone())), breaks);
        let view = glance::view(job);
        let hopeless = self.is_hopeless();
        self.watch.hopeless(hopeless, now);
        self.place.note(|source| {
            source.difficulty = Some(job.difficulty.get());
            source.job = Some(view);
            source.set(Condition::Working);
        });
        if hopeless && !self.told_hopeless {
            self.told_hopeless = true;
            warn!("{}: {}", self.place.url, Lost::Hopeless);
        }
    }

    /// Whether all work for the pool over this connection was in vain.
    pub(super) fn is_fruitless(&self) -> bool {
        self.watch.is_fruitless()
    }

    /// Whether a share of its job takes this machine more than a day on average, or cannot be found at all.
    pub(super) fn is_hopeless(&self) -> bool {
        let Some(job) = &self.job else { return false };
        if job.target() == Target::from_le_bytes([0; 32]) {
            return true;
        }
        let Some(stats) = &self.place.manner.stats else { return false };
        let Some(HashRate(rate)) = stats.known_rate(RATE_KNOWN) else { return false };
        let expected = job.difficulty.get() * HASHES_AT_1 / rate;
        rate > 0.0 && expected > HOPELESS.as_secs_f64()
    }

    /// Follows the pool to another port, and to another host only if that is enabled: an attacker that can write into
    /// an unencrypted connection could otherwise take our work away.
    fn moved(&mut self, Reconnect { host, port, wait }: Reconnect) -> Result<(), Lost> {
        let (here, manner) = (&self.place.url, &self.place.manner);
        let to = here.moved(host.as_deref(), port.unwrap_or(here.port));
        if let Some(to) = to.filter(|to| manner.follow || to.host.eq_ignore_ascii_case(&here.host)) {
            let wait = Duration::from_secs(wait.into()).min(manner.timing.longest_asked_wait);
            return Err(Lost::Moved { to, wait });
        }
        if self.may_speak() {
            let host = host.unwrap_or_default();
            warn!(
                "{}: the pool asks us to connect to {}; not followed, as it is another host",
                self.place.url,
                host.escape_debug()
            );
        }
        Ok(())
    }
}

/// Whether an event is something that mining needs.
fn is_useful(event: &Event) -> bool {
    match event {
        Event::Subscribed(_)
        | Event::Authorized
        | Event::Job(_)
        | Event::Difficulty(_)
        | Event::Extranonce { .. }
        | Event::VersionMask(_) => true,
        // A verdict is of use where it is good: the watch sees to it.
        Event::SubmitResult { .. } | Event::Reconnect(_) | Event::ShowMessage(_) | Event::PassedOver(_) => {
            false
        }
    }
}

/// Whether a line that the pool can cause may be logged, after the one at `spoke`: rate-limited, as it could otherwise
/// fill the disk.
fn may_speak(spoke: &mut Option<Instant>) -> bool {
    let now = Instant::now();
    let may = spoke.is_none_or(|spoke| now - spoke >= SPEAK_EVERY);
    if may {
        *spoke = Some(now);
    }
    may
}

#[cfg(test)]
mod tests;
