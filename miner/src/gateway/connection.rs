//! The socket of one connection: bytes in, bytes out, time-outs and rate limits.
//!
//! A peer that does not read is dropped and delays no other: its queue is bounded, and while it lags, nothing more is
//! read from it either. A peer that sends too much is read later, as is one that connects before there is work: the
//! bytes kept from it until then are bounded.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use iop_mining::bans::{End, Offence};
use iop_mining::bucket::Bucket;
use iop_stratum::line::{LineDecoder, MAX_SERVER_LINE};
use iop_stratum::server::{Fatal, HTTP_ANSWER, Outgoing};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tracing::debug;

use super::limits::Limits;
use super::machine::Machine;
use super::served::{MAX_LINE, Snapshot};
use crate::job::Share;

/// Bytes queued above which nothing is read: about fifty replies.
const PAUSE_READING: usize = 8 * 1024;
/// Bytes queued behind the line being sent above which the connection is dropped: the longest job and some more, so
/// that a machine may always be one job behind; or over a hundred notifies of a full block (2 KiB each).
const MAX_QUEUED: usize = MAX_LINE + 2 * PAUSE_READING;
/// Bytes read at a time: several submits.
const READ_SIZE: usize = 4096;
/// Bytes that are read from a machine before there is work: more than any introduction.
const MAX_EARLY: usize = 8 * 1024;
/// Time to send the last lines and to read before the connection is closed.
const FAREWELL_TIME: Duration = Duration::from_secs(1);

/// Serves a connection until it ends.
pub(super) async fn serve(
    stream: TcpStream,
    mut machine: Box<Machine>,
    mut snapshots: watch::Receiver<Arc<Snapshot>>,
    upstream: mpsc::Sender<Share>,
) {
    let _ = stream.set_nodelay(true); // optional: it only makes replies faster
    let mut link = Link::new(stream, *machine.limits());
    link.workless = (!machine.has_work()).then(Instant::now);
    let mut timer = pin!(tokio::time::sleep_until(link.deadline(&machine)));
    let end = loop {
        if let Err(end) = link.send(&mut machine) {
            break end;
        }
        if let Some(reason) = machine.is_leaving() {
            Box::pin(link.hear_out(&mut machine, &upstream)).await;
            break End::new(reason, None);
        }
        let held_up = pass_up(&mut machine, &upstream);
        // Yields to other connections, however fast this one sends.
        tokio::task::consume_budget().await;
        // The deadline usually moves later. The timer then fires once in vain, which is cheaper than resetting it each
        // time.
        let deadline = link.deadline(&machine);
        if deadline < timer.deadline() {
            timer.as_mut().reset(deadline);
        }
        let done = tokio::select! {
            changed = snapshots.changed() => {
                if changed.is_err() {
                    break End::new("the gateway stops", None);
                }
                let snapshot = Arc::clone(&snapshots.borrow_and_update());
                machine.on_snapshot(&snapshot);
                link.on_snapshot(&mut machine)
            }
            permit = upstream.reserve(), if held_up => {
                let Ok(permit) = permit else { break End::new("the gateway stops", None) };
                if let Some(share) = machine.shares().pop_front() {
                    permit.send(share);
                }
                Ok(())
            }
            ready = link.stream.readable(), if link.may_read(&machine) && !held_up => {
                ready.map_err(|error| error.to_string().into()).and_then(|()| link.read(&mut machine))
            }
            _ = link.stream.writable(), if link.sending.is_some() => Ok(()),
            () = &mut timer => {
                let done = link.on_time(&mut machine);
                timer.as_mut().reset(link.deadline(&machine));
                done
            }
        };
        if let Err(end) = done {
            let _ = link.send(&mut machine); // the last lines, as far as there is room
            pass_up(&mut machine, &upstream);
            Box::pin(link.linger()).await;
            break end;
        }
    };
    // The machine may be gone before its share, perhaps a block, is judged. While the channel is full, the share waits
    // here.
    while let Some(share) = machine.shares().pop_front() {
        if upstream.send(share).await.is_err() {
            break;
        }
    }
    if link.sending.is_some() {
        let _ = link.stream.set_zero_linger(); // otherwise the system keeps unread data for minutes
    }
    if let Some(offence) = end.offence {
        machine.offend(offence);
    }
    debug!(peer = %machine.peer(), "connection ends: {}", end.reason);
}

/// Passes shares to the upstream. Returns whether some have to wait.
fn pass_up(machine: &mut Machine, upstream: &mpsc::Sender<Share>) -> bool {
    while let Some(share) = machine.shares().pop_front() {
        match upstream.try_send(share) {
            Ok(()) => {}
            Err(TrySendError::Full(share) | TrySendError::Closed(share)) => {
                machine.shares().push_front(share);
                return true;
            }
        }
    }
    false
}

struct Link {
    stream: TcpStream,
    limits: Limits,
    decoder: LineDecoder,
    /// Bytes in the decoder that wait for work.
    early: usize,
    /// The chunk being sent, and how much of it is sent.
    sending: Option<(Outgoing, usize)>,
    queued: usize,
    /// Start of the wait for an introduction.
    begun: Instant,
    /// When it last sent a line, or was pinged for lack of work.
    heard: Instant,
    pinged: Instant,
    /// Since when there is no work; `None` while there is some.
    workless: Option<Instant>,
    /// Since when none of the queued bytes was taken.
    stuck: Option<Instant>,
    requests: Bucket,
    /// Limits those requests that nothing of ours explains.
    unasked: Bucket,
    /// Nothing is read until this time.
    paused: Option<Instant>,
}

impl Link {
    fn new(stream: TcpStream, limits: Limits) -> Self {
        let now = Instant::now();
        Self {
            stream,
            limits,
            decoder: LineDecoder::new(MAX_SERVER_LINE),
            early: 0,
            sending: None,
            queued: 0,
            begun: now,
            heard: now,
            pinged: now,
            workless: None,
            stuck: None,
            requests: Bucket::new(limits.requests_per_second, now.into_std()),
            unasked: Bucket::new(limits.requests_per_second, now.into_std()),
            paused: None,
        }
    }

    fn may_read(&self, machine: &Machine) -> bool {
        let early = !machine.may_speak() && self.early >= MAX_EARLY;
        self.queued <= PAUSE_READING && self.paused.is_none() && !early
    }

    /// Sends as much as the socket takes now.
    fn send(&mut self, machine: &mut Machine) -> Result<(), End> {
        loop {
            let Some((line, sent)) = &mut self.sending else {
                let Some(line) = machine.next_lines() else { break };
                self.sending = Some((line, 0));
                continue;
            };
            match self.stream.try_write(&line.as_ref()[*sent..]) {
                Ok(0) => return Err(closed()),
                Ok(taken) => {
                    *sent += taken;
                    self.stuck = None;
                    if *sent == line.as_ref().len() {
                        self.sending = None;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.to_string().into()),
            }
        }
        let rest = self.sending.as_ref().map_or(0, |(line, sent)| line.as_ref().len() - sent);
        self.queued = rest + machine.queued_bytes();
        if self.sending.is_some() {
            self.stuck.get_or_insert_with(Instant::now);
        }
        is_bearable(machine)
    }

    /// Reads available bytes and handles their lines. Not async, so that the buffer is not part of an idle connection's
    /// state.
    fn read(&mut self, machine: &mut Machine) -> Result<(), End> {
        let mut buffer = [0; READ_SIZE];
        let count = match self.stream.try_read(&mut buffer) {
            Ok(0) => return Err(closed()),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error.to_string().into()),
        };
        self.decoder.extend(&buffer[..count]);
        self.early += count;
        self.handle_lines(machine, true)
    }

    /// Handles complete lines, unless they have to wait for work.
    fn handle_lines(&mut self, machine: &mut Machine, read: bool) -> Result<(), End> {
        if !machine.may_speak() {
            return Ok(());
        }
        self.early = 0;
        let mut lines = 0;
        while let Some(line) =
            self.decoder.next_line().map_err(|error| End::new(&error.to_string(), Offence::Nonsense))?
        {
            lines += 1;
            if let Err(fatal) = machine.on_line(line) {
                if fatal == Fatal::Http {
                    // Never in the middle of a line.
                    self.sending.get_or_insert((Outgoing::Own(HTTP_ANSWER.into()), 0));
                }
                return Err(End::new(&fatal.to_string(), Offence::from(fatal)));
            }
            if machine.is_hopeless() {
                return Err(End::new("a long run of shares that are none", Offence::BadShares));
            }
            is_bearable(machine)?; // each line may ask for a job
        }
        let now = Instant::now();
        if lines > 0 {
            self.heard = now;
        }
        // A read without a line is charged like a line: otherwise blank lines would be free, and a flood of them would
        // use all our time.
        if read || lines > 0 {
            let (lines, rate, now) = (lines.max(1), self.limits.requests_per_second, now.into_std());
            self.paused = self.requests.take(lines, rate, now).map(Instant::from_std);
            // Shares that the difficulty explains are delayed too, but are no offence: the machine was told to send
            // them.
            let unasked = lines.saturating_sub(machine.take_asked_for());
            if self.unasked.take(unasked, rate, now).is_some() && self.unasked.is_flood(now) {
                machine.offend(Offence::Flood);
            }
        }
        Ok(())
    }

    /// Work has come or gone: restarts the time limits and handles waiting lines.
    fn on_snapshot(&mut self, machine: &mut Machine) -> Result<(), End> {
        let now = Instant::now();
        if !machine.is_working() && self.early > 0 {
            self.begun = now;
        }
        self.pinged = now;
        self.workless = if machine.has_work() { None } else { self.workless.or(Some(now)) };
        self.handle_lines(machine, false)
    }

    /// The machine must leave: sends what is queued, then closes our side, so that it closes its own. For a moment it
    /// still reads and handles what the machine has found meanwhile.
    async fn hear_out(&mut self, machine: &mut Machine, upstream: &mpsc::Sender<Share>) {
        let mut left = MAX_QUEUED;
        let heard = async {
            let (mut more, mut speaks) = (self.hear(machine, &mut left), true);
            loop {
                if speaks && (self.send(machine).is_err() || self.sending.is_none()) {
                    let _ = self.stream.shutdown().await; // on failure it is already closed
                    speaks = false;
                }
                pass_up(machine, upstream);
                if !more && !speaks {
                    break;
                }
                let paused = self.paused;
                let pause = async move { sleep_until(paused.unwrap_or_else(Instant::now)).await };
                tokio::select! {
                    () = pause, if more && paused.is_some() => {
                        self.paused = None;
                        more = self.hear(machine, &mut left);
                    }
                    ready = self.stream.readable(), if more && paused.is_none() => {
                        more = ready.is_ok() && self.hear(machine, &mut left);
                    }
                    _ = self.stream.writable(), if speaks => {}
                }
            }
        };
        let _ = timeout(FAREWELL_TIME, heard).await;
    }

    /// Reads and handles available input, up to `left` bytes or until the rate limit. Returns whether more may come.
    fn hear(&mut self, machine: &mut Machine, left: &mut usize) -> bool {
        let mut buffer = [0; READ_SIZE];
        while *left > 0 && self.paused.is_none() {
            let count = match self.stream.try_read(&mut buffer) {
                Ok(0) => return false,
                Ok(count) => count,
                Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
            };
            *left = left.saturating_sub(count);
            self.decoder.extend(&buffer[..count]);
            if self.handle_lines(machine, true).is_err() {
                return false;
            }
        }
        *left > 0
    }

    /// Closes our side, then reads and discards for a moment: with unread input left, the system would reset the
    /// connection and lose our last lines.
    async fn linger(&mut self) {
        if self.sending.is_some() {
            return; // the peer does not read anyway
        }
        let drain = async {
            let _ = self.stream.shutdown().await; // on failure it is already closed
            let mut left = MAX_QUEUED;
            while left > 0 && self.stream.readable().await.is_ok() {
                match discard(&self.stream) {
                    Ok(0) => break,
                    Ok(count) => left = left.saturating_sub(count),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(_) => break,
                }
            }
        };
        let _ = timeout(FAREWELL_TIME, drain).await;
    }

    fn deadline(&self, machine: &Machine) -> Instant {
        let stuck = self.stuck.map(|stuck| stuck + self.limits.write);
        let silent = machine.silent_from().map(Instant::from_std);
        [stuck, silent, self.paused].into_iter().flatten().fold(self.silence(machine), Instant::min)
    }

    /// The time at which it has been silent for too long or, while there is no work, at which it is pinged or let go.
    fn silence(&self, machine: &Machine) -> Instant {
        if !machine.has_work() {
            let ping = self.pinged + self.limits.ping;
            self.workless.map_or(ping, |since| ping.min(since + self.limits.workless))
        } else if machine.is_working() {
            self.heard + self.limits.idle
        } else {
            self.begun + self.limits.handshake
        }
    }

    /// Does what is due.
    fn on_time(&mut self, machine: &mut Machine) -> Result<(), End> {
        let now = Instant::now();
        if self.stuck.is_some_and(|stuck| now >= stuck + self.limits.write) {
            let reason = format!("nothing was read for {} s", self.limits.write.as_secs_f64());
            return Err(End::new(&reason, Offence::Unread));
        }
        if now >= self.silence(machine) {
            if machine.has_work() {
                let offence = if machine.is_working() { None } else { Some(Offence::Silent) };
                return Err(End::new("silent for too long", offence));
            }
            // Without one, the work has only just gone.
            if now >= *self.workless.get_or_insert(now) + self.limits.workless {
                machine.let_go();
                return Err(End::new("no work for too long", None));
            }
            machine.ping();
            (self.pinged, self.heard) = (now, now);
        }
        self.paused = self.paused.filter(|paused| now < *paused);
        machine.on_silence(now.into_std());
        Ok(())
    }
}

/// Checks that the queue is within its limit. Most of it is jobs, whose size and number depend on the upstream, so
/// exceeding it is no offence. A peer that reads nothing at all is detected by the write time-out.
fn is_bearable(machine: &Machine) -> Result<(), End> {
    match machine.queued_bytes() {
        0..=MAX_QUEUED => Ok(()),
        queued => Err(format!("{queued} bytes wait to be read").into()),
    }
}

fn discard(stream: &TcpStream) -> io::Result<usize> {
    stream.try_read(&mut [0; READ_SIZE])
}

fn closed() -> End {
    End::new("closed by the other side", None)
}

#[cfg(test)]
mod tests;
