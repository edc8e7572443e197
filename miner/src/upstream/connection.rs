//! One connection to a pool: moves bytes between socket and session, jobs to the devices, shares to the pool.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use iop_stratum::client::{self, Event, MAX_UNANSWERED, Options, Reconnect, Session, SubmitId, Verdict};
use iop_stratum::line::{LineDecoder, LineTooLong, MAX_CLIENT_LINE};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{debug, info, warn};

use super::watch::{STALE_IN_A_ROW, Watch};
use super::{Desk, PoolUrl, Timing};
use crate::job::{Job, Serial, Share};

/// Bytes to read at once: a job of a usual size.
const READ: usize = 8 * 1024;

/// Between two lines that a pool gets into our log.
const SPEAK_EVERY: Duration = Duration::from_millis(500);

/// Why a connection is over, or did not come about.
#[derive(Debug, thiserror::Error)]
pub(super) enum Lost {
    #[error("cannot connect: {0}")]
    Connect(String),
    #[error("connection lost: {0}")]
    Io(#[from] io::Error),
    #[error("the pool closed the connection")]
    Closed,
    #[error("the pool did not let us work within {} s", .0.as_secs_f32())]
    Handshake(Duration),
    #[error("nothing of use from the pool for {} s", .0.as_secs_f32())]
    Silent(Duration),
    #[error("no job from the pool for {} s", .0.as_secs_f32())]
    Idle(Duration),
    #[error("the pool did not take a line for {} s", .0.as_secs_f32())]
    Stuck(Duration),
    #[error("the pool sent a {0}")]
    Line(#[from] LineTooLong),
    #[error(transparent)]
    Session(#[from] client::Error),
    #[error("the pool asks us to connect to port {port}")]
    Moved { port: u16, wait: Duration },
}

pub(super) struct Connection<'a> {
    stream: TcpStream,
    url: &'a PoolUrl,
    timing: Timing,
    desk: &'a mut Desk,
    session: Session,
    decoder: LineDecoder,
    opened: Instant,
    watch: Watch,
    /// Shares without a verdict, bounded as the session bounds them.
    submitted: BTreeMap<SubmitId, Share>,
    /// When the pool last got a line into our log.
    spoke: Option<Instant>,
    /// The newest job, kept to be started when the pool lets us work, or again when its version mask changes.
    job: Option<client::Job>,
    /// The serial of the next job.
    next_serial: &'a mut Serial,
    /// The pool takes shares of jobs from here on.
    oldest_live: Serial,
    /// The first serial that the newest job had; it gets others when its version mask changes.
    first_of_job: Serial,
}

impl<'a> Connection<'a> {
    pub(super) fn new(
        stream: TcpStream,
        url: &'a PoolUrl,
        options: Options,
        timing: Timing,
        desk: &'a mut Desk,
        next_serial: &'a mut Serial,
    ) -> Self {
        let now = Instant::now();
        Self {
            stream,
            url,
            timing,
            desk,
            session: Session::new(options),
            decoder: LineDecoder::new(MAX_CLIENT_LINE),
            opened: now,
            watch: Watch::new(now),
            submitted: BTreeMap::new(),
            spoke: None,
            job: None,
            oldest_live: *next_serial,
            first_of_job: *next_serial,
            next_serial,
        }
    }

    /// Works until the connection is lost, and says why it was.
    pub(super) async fn run(mut self) -> Lost {
        match self.work().await {
            Ok(never) => match never {},
            Err(lost) => lost,
        }
    }

    async fn work(&mut self) -> Result<std::convert::Infallible, Lost> {
        // Shares are a few bytes each and must not wait for more to come.
        self.stream.set_nodelay(true)?;
        let mut buffer = vec![0; READ];
        loop {
            self.send().await?;
            let (deadline, late) = self.deadline();
            tokio::select! {
                read = self.stream.read(&mut buffer) => match read? {
                    0 => return Err(Lost::Closed),
                    length => self.read(&buffer[..length])?,
                },
                Some(share) = self.desk.shares.recv() => self.submit(share),
                () = sleep_until(deadline) => return Err(late),
            }
        }
    }

    /// Until when the pool has to be heard of, and what it is if it is not.
    fn deadline(&self) -> (Instant, Lost) {
        let Timing { handshake, silence, .. } = self.timing;
        if !self.session.is_authorized() {
            return (self.opened + handshake, Lost::Handshake(handshake));
        }
        let silent = self.watch.silent_at(silence);
        match self.watch.idle_at(silence) {
            Some(idle) if idle < silent => (idle, Lost::Idle(silence)),
            _ => (silent, Lost::Silent(silence)),
        }
    }

    async fn send(&mut self) -> Result<(), Lost> {
        while let Some(line) = self.session.next_outgoing() {
            match timeout(self.timing.write, self.stream.write_all(&line)).await {
                Err(_) => return Err(Lost::Stuck(self.timing.write)),
                Ok(written) => written?,
            }
        }
        Ok(())
    }

    fn read(&mut self, bytes: &[u8]) -> Result<(), Lost> {
        self.decoder.extend(bytes);
        while let Some(line) = self.decoder.next_line()? {
            if let Some(event) = self.session.handle_line(line)? {
                self.react(event)?;
            }
        }
        Ok(())
    }

    fn react(&mut self, event: Event) -> Result<(), Lost> {
        let now = Instant::now();
        match &event {
            Event::Job(_) => self.watch.job(now),
            // A verdict is of use where it is good: the watch sees to it.
            Event::SubmitResult { .. } | Event::Reconnect(_) | Event::ShowMessage(_) => {}
            Event::Subscribed
            | Event::Authorized
            | Event::Difficulty(_)
            | Event::Extranonce { .. }
            | Event::VersionMask(_) => self.watch.useful(now),
        }
        match event {
            Event::Subscribed => debug!("{}: subscribed", self.url),
            Event::Authorized => {
                info!("{}: the pool takes our shares", self.url);
                self.start(false);
            }
            Event::Job(job) => {
                debug!(job = %job.notify.job_id, clean = job.notify.clean, difficulty = %job.difficulty, "new job");
                let clean = job.notify.clean;
                self.job = Some(job);
                self.first_of_job = *self.next_serial;
                self.start(clean);
            }
            Event::Difficulty(difficulty) => {
                if self.may_speak() {
                    info!("{}: share difficulty {difficulty}", self.url);
                }
            }
            Event::Extranonce { extranonce1, .. } => debug!(%extranonce1, "new extranonce"),
            Event::VersionMask(mask) => {
                debug!(%mask, "version bits that may be rolled");
                if let Some(job) = &mut self.job {
                    job.version_mask = mask;
                    // Shares with bits that may not be rolled any more would be refused.
                    self.start(true);
                }
            }
            Event::SubmitResult { id, verdict } => {
                if let Some(share) = self.submitted.remove(&id) {
                    self.count(&share, &verdict);
                }
                self.judge_job(id, &verdict, now);
            }
            Event::Reconnect(reconnect) => self.moved(reconnect)?,
            Event::ShowMessage(text) => {
                if self.may_speak() {
                    info!("{} says: {text}", self.url);
                }
            }
        }
        Ok(())
    }

    /// Whether a line that the pool can provoke may go into the log: one now and then, or it could fill the
    /// disk.
    fn may_speak(&mut self) -> bool {
        let now = Instant::now();
        let may = self.spoke.is_none_or(|spoke| now - spoke >= SPEAK_EVERY);
        if may {
            self.spoke = Some(now);
        }
        may
    }

    /// Gives the newest job to the devices. Where it is `clean`, shares of those before count no more.
    fn start(&mut self, clean: bool) {
        if clean {
            self.oldest_live = *self.next_serial;
        }
        let Some(job) = self.job.clone().filter(|_| self.session.is_authorized()) else { return };
        let serial = *self.next_serial;
        self.next_serial.0 += 1;
        self.desk.dispatcher.set_job(Arc::new(Job::new(serial, job)));
    }

    fn submit(&mut self, share: Share) {
        if share.job.serial() < self.oldest_live {
            share.finder.add_stale();
            return;
        }
        debug!(job = %share.job.id(), nonce = %share.nonce, "submitting a share");
        let id = self.session.submit(&client::Share {
            job_id: share.job.id().clone(),
            extranonce2: share.extranonce2,
            ntime: share.ntime,
            nonce: share.nonce,
            version_bits: share.version_bits,
        });
        if share.job.serial() >= self.first_of_job {
            self.watch.submitted(id);
        }
        self.submitted.insert(id, share);
        if self.submitted.len() > MAX_UNANSWERED {
            self.submitted.pop_first();
        }
    }

    fn count(&self, share: &Share, verdict: &Verdict) {
        match verdict {
            Verdict::Accepted => {
                share.finder.add_accepted(share.job.difficulty());
                debug!("share accepted");
            }
            Verdict::Refused(refusal) if refusal.is_stale() => {
                share.finder.add_stale();
                debug!("share refused as stale");
            }
            Verdict::Refused(refusal) => {
                if share.finder.add_rejected(&refusal.to_string()) {
                    warn!("{}: share refused: {refusal}; more of these are counted only", self.url);
                }
            }
        }
    }

    /// Takes a job away that the pool does not know any more: without work the devices wait for its next one.
    fn judge_job(&mut self, id: SubmitId, verdict: &Verdict, now: Instant) {
        if !self.watch.verdict(id, verdict, now) {
            return;
        }
        self.job = None;
        self.oldest_live = *self.next_serial;
        self.desk.dispatcher.clear();
        if self.may_speak() {
            warn!("{}: {STALE_IN_A_ROW} stale shares in a row; waiting for another job", self.url);
        }
    }

    /// Follows the pool to another port, never to another host: whoever can write into an unencrypted
    /// connection could otherwise take our work away.
    fn moved(&mut self, Reconnect { host, port, wait }: Reconnect) -> Result<(), Lost> {
        if let Some(host) = host.filter(|host| !host.eq_ignore_ascii_case(&self.url.host)) {
            if self.may_speak() {
                warn!(
                    "{}: the pool asks us to connect to {host}; not followed, as it is another host",
                    self.url
                );
            }
            return Ok(());
        }
        let wait = Duration::from_secs(wait.into()).min(self.timing.longest_asked_wait);
        Err(Lost::Moved { port: port.unwrap_or(self.url.port), wait })
    }
}
