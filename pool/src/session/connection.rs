//! One connection's socket, plain or TLS: bytes in, bytes out, its time-outs and its pace.
//!
//! A reader that does not read is dropped and holds up nobody: what it was not sent is bounded, and while it is
//! behind, nothing more is read from it either. One that sends too much is read later. When the pool ends, those who
//! speak Stratum are told to come again.

use std::io::{self, Write};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use iop_stratum::line::{LineDecoder, MAX_SERVER_LINE};
use iop_stratum::server::{Fatal, Outgoing};
use rustls::ServerConnection;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tracing::debug;

use super::limits::{Bucket, Limits};
use super::miner::Miner;
use super::tls;
use crate::bans::Offence;
use crate::follow::Snapshot;
use crate::ledger::Ticket;

/// Bytes queued above which nothing is read: about fifty replies.
const PAUSE_READING: usize = 8 * 1024;
/// Bytes queued above which the connection is dropped: a hundred notifies of a full block (2 KiB each).
const MAX_QUEUED: usize = 256 * 1024;
/// Bytes read at a time: several submits.
const READ_SIZE: usize = 4096;
/// Bytes up to which lines are sent in one write.
const JOIN: usize = 4096;
/// Time for the last words: to be sent, and then to be read before the connection is torn down.
const FAREWELL_TIME: Duration = Duration::from_secs(1);
/// Time between two floods that count.
const FLOOD_AGAIN: Duration = Duration::from_secs(10);
/// What a web browser is told.
const HTTP_ANSWER: &str = "HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\ncontent-length: 27\r\n\
    connection: close\r\n\r\n400: this is a Stratum port";

/// Why a connection ends.
struct End {
    reason: String,
    offence: Option<Offence>,
}

impl From<String> for End {
    fn from(reason: String) -> Self {
        Self { reason, offence: None }
    }
}

impl End {
    fn new(reason: &str, offence: impl Into<Option<Offence>>) -> Self {
        Self { reason: reason.to_owned(), offence: offence.into() }
    }
}

/// Serves a connection until it ends or `stop` changes. What is rare or large is boxed: an idle connection is mostly
/// this future.
pub async fn serve(
    stream: TcpStream,
    tls: Option<Box<ServerConnection>>,
    mut miner: Box<Miner>,
    mut snapshots: watch::Receiver<Arc<Snapshot>>,
    mut stop: watch::Receiver<bool>,
) {
    let _ = stream.set_nodelay(true); // it works without, only slower
    let mut link = Link::new(stream, tls, *miner.limits());
    let mut timer = pin!(tokio::time::sleep_until(link.deadline(&miner)));
    let end = loop {
        if let Err(end) = link.send(&mut miner) {
            break end;
        }
        // The deadline mostly moves on. Then the timer fires in vain once, which is cheaper than to set it each time.
        let deadline = link.deadline(&miner);
        if deadline < timer.deadline() {
            timer.as_mut().reset(deadline);
        }
        tokio::select! {
            _ = stop.changed() => {
                Box::pin(farewell(&mut link, &mut miner)).await;
                break End::new("the pool stops", None);
            }
            changed = snapshots.changed() => {
                if changed.is_err() {
                    Box::pin(farewell(&mut link, &mut miner)).await;
                    break End::new("the pool stops", None);
                }
                let snapshot = Arc::clone(&snapshots.borrow_and_update());
                miner.on_snapshot(&snapshot);
            }
            () = committed(miner.uncommitted()) => miner.on_committed(),
            ready = link.stream.readable(), if link.may_read() && !miner.is_ahead_of_the_log() => {
                if let Err(end) = ready.map_err(|error| error.to_string().into()).and_then(|()| link.read(&mut miner)) {
                    let _ = link.send(&mut miner); // the last words, if there is room for them
                    Box::pin(link.linger()).await;
                    break end;
                }
            }
            _ = link.stream.writable(), if link.has_more() => {}
            () = &mut timer => {
                if let Some(end) = link.on_time(&mut miner) {
                    break end;
                }
                timer.as_mut().reset(link.deadline(&miner));
            }
        }
    };
    if end.offence == Some(Offence::Unread) {
        let _ = link.stream.set_zero_linger(); // else the system keeps what is not read for minutes
    }
    if let Some(offence) = end.offence {
        miner.offend(offence);
    }
    debug!(peer = %miner.peer(), "connection ends: {}", end.reason);
}

/// Until the log has taken shares that wait for it.
async fn committed(ticket: Option<Arc<Ticket>>) {
    match ticket {
        Some(ticket) => ticket.changed().await,
        None => std::future::pending().await,
    }
}

/// Answers what is counted, says that the pool will be back, and gives the other side a moment to read it.
async fn farewell(link: &mut Link, miner: &mut Miner) {
    miner.on_stop();
    let all_said = async {
        while link.send(miner).is_ok() && (link.has_more() || miner.uncommitted().is_some()) {
            tokio::select! {
                () = committed(miner.uncommitted()) => miner.on_committed(),
                _ = link.stream.writable(), if link.has_more() => {}
            }
        }
        link.linger().await;
    };
    let _ = timeout(FAREWELL_TIME, all_said).await; // who has not read by now hears no more
}

struct Link {
    stream: TcpStream,
    tls: Option<Box<ServerConnection>>,
    limits: Limits,
    decoder: LineDecoder,
    /// What is on its way, and how much of it is sent.
    sending: Option<(Outgoing, usize)>,
    queued: usize,
    begun: Instant,
    heard: Instant,
    /// Since when nothing of what is queued was taken.
    stuck: Option<Instant>,
    requests: Bucket,
    /// Nothing is read until then.
    paused: Option<Instant>,
    /// When too many requests were last counted as an offence.
    flooded: Option<Instant>,
}

impl Link {
    fn new(stream: TcpStream, tls: Option<Box<ServerConnection>>, limits: Limits) -> Self {
        let now = Instant::now();
        Self {
            stream,
            tls,
            limits,
            decoder: LineDecoder::new(MAX_SERVER_LINE),
            sending: None,
            queued: 0,
            begun: now,
            heard: now,
            stuck: None,
            requests: Bucket::new(limits.requests_per_second, now.into_std()),
            paused: None,
            flooded: None,
        }
    }

    fn has_more(&self) -> bool {
        self.sending.is_some() || self.tls.as_ref().is_some_and(|tls| tls.wants_write())
    }

    fn may_read(&self) -> bool {
        self.queued <= PAUSE_READING && self.paused.is_none()
    }

    /// Sends as much as the socket takes now.
    fn send(&mut self, miner: &mut Miner) -> Result<(), End> {
        loop {
            if let Some(tls) = &mut self.tls {
                if tls::flush(tls, &self.stream).map_err(|error| error.to_string())? {
                    self.stuck = None;
                }
                if tls.wants_write() {
                    break;
                }
            }
            let Some((line, sent)) = &mut self.sending else {
                let Some(line) = next_lines(miner) else { break };
                self.sending = Some((line, 0));
                continue;
            };
            let rest = &line.as_ref()[*sent..];
            let taken = match &mut self.tls {
                Some(tls) => tls.writer().write(rest),
                None => self.stream.try_write(rest),
            };
            match taken {
                Ok(0) => return Err(End::new("closed by the other side", None)),
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
        self.queued = rest + miner.queued_bytes();
        if self.has_more() {
            self.stuck.get_or_insert_with(Instant::now);
        } else {
            self.stuck = None;
        }
        if self.queued > MAX_QUEUED {
            return Err(End::new(&format!("{} bytes wait to be read", self.queued), Offence::Unread));
        }
        Ok(())
    }

    /// Reads what is there and handles its lines. Not async: the buffer is no part of an idle connection's state.
    fn read(&mut self, miner: &mut Miner) -> Result<(), End> {
        let mut buffer = [0; READ_SIZE];
        let count = match self.stream.try_read(&mut buffer) {
            Ok(0) => return Err(End::new("closed by the other side", None)),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error.to_string().into()),
        };
        let (decoder, mut lines) = (&mut self.decoder, 0);
        let mut take = |bytes: &[u8]| {
            decoder.extend(bytes);
            while let Some(line) =
                decoder.next_line().map_err(|error| End::new(&error.to_string(), Offence::Nonsense))?
            {
                lines += 1;
                miner.on_line(line).map_err(fatal)?;
                if miner.is_hopeless() {
                    return Err(End::new("a long run of shares that are none", Offence::BadShares));
                }
            }
            Ok(())
        };
        let taken = match &mut self.tls {
            Some(tls) => tls::decrypt(tls, &buffer[..count], take),
            None => take(&buffer[..count]),
        };
        if let Err(End { offence: Some(Offence::Http), .. }) = taken {
            self.sending = Some((Outgoing::Own(HTTP_ANSWER.into()), 0));
        }
        taken?;
        if lines > 0 {
            self.on_lines(lines, miner);
        }
        Ok(())
    }

    fn on_lines(&mut self, lines: u32, miner: &Miner) {
        let now = Instant::now();
        self.heard = now;
        let paid = self.requests.take(lines, self.limits.requests_per_second, now.into_std());
        self.paused = paid.map(Instant::from_std);
        if self.paused.is_some() && self.flooded.is_none_or(|at| now > at + FLOOD_AGAIN) {
            self.flooded = Some(now);
            miner.offend(Offence::Flood);
        }
    }

    /// Ends our side, and reads on for a moment without listening: if something came in that nobody read, the system
    /// would tear the connection down, and our last words with it.
    async fn linger(&mut self) {
        if self.has_more() {
            return; // it does not read anyway
        }
        if let Some(tls) = &mut self.tls {
            tls.send_close_notify();
            let _ = tls::flush(tls, &self.stream);
        }
        let drain = async {
            let _ = self.stream.shutdown().await; // then it is closed already
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

    fn deadline(&self, miner: &Miner) -> Instant {
        let stuck = self.stuck.map(|stuck| stuck + self.limits.write);
        let dead = miner.dead_from().map(Instant::from_std);
        let silent = miner.silent_from().map(Instant::from_std);
        [stuck, dead, silent, self.paused].into_iter().flatten().fold(self.silence(miner), Instant::min)
    }

    /// When it has said nothing for too long.
    fn silence(&self, miner: &Miner) -> Instant {
        if miner.is_working() { self.heard + self.limits.idle } else { self.begun + self.limits.handshake }
    }

    /// Does what is due; gives the end if that is.
    fn on_time(&mut self, miner: &mut Miner) -> Option<End> {
        let now = Instant::now();
        if self.stuck.is_some_and(|stuck| now >= stuck + self.limits.write) {
            let reason = format!("nothing was read for {} s", self.limits.write.as_secs_f64());
            return Some(End::new(&reason, Offence::Unread));
        }
        if miner.dead_from().is_some_and(|dead| now >= Instant::from_std(dead)) {
            return Some(End::new("its jobs are dead and there is no other", None));
        }
        if now >= self.silence(miner) {
            let (limit, offence) = if miner.is_working() {
                (self.limits.idle, None)
            } else {
                (self.limits.handshake, Some(Offence::Silent))
            };
            return Some(End::new(&format!("silent for {} s", limit.as_secs_f64()), offence));
        }
        self.paused = self.paused.filter(|paused| now < *paused);
        miner.on_silence(now.into_std());
        None
    }
}

/// The next line, with those after it as far as one write should carry them.
fn next_lines(miner: &mut Miner) -> Option<Outgoing> {
    let first = miner.next_outgoing()?;
    if miner.queued_bytes() == 0 {
        return Some(first); // a job for all is not copied
    }
    let mut joined = first.as_ref().to_vec();
    while joined.len() < JOIN
        && let Some(line) = miner.next_outgoing()
    {
        joined.extend_from_slice(line.as_ref());
    }
    Some(Outgoing::Own(joined))
}

fn discard(stream: &TcpStream) -> io::Result<usize> {
    stream.try_read(&mut [0; READ_SIZE])
}

fn fatal(fatal: Fatal) -> End {
    let offence = match fatal {
        Fatal::Http => Offence::Http,
        Fatal::Malformed => Offence::Nonsense,
    };
    End::new(&fatal.to_string(), offence)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[tokio::test]
    async fn an_idle_connection_takes_little_memory() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap());
        let (stream, client) = tokio::join!(listener.accept(), client);
        let pool = super::super::miner::tests::Pool::new();
        let miner = Box::new(pool.connect());
        let (_stop, stopped) = watch::channel(false);
        let snapshots = pool.shared.snapshots.clone();
        let served = serve(stream.unwrap().0, None, miner, snapshots, stopped);
        // The rest of 4 KiB is for what lies elsewhere: the socket's own state, the jobs that were sent.
        let size = size_of_val(&served);
        assert!(
            size <= 1800,
            "{size} bytes, of which Miner {} and Link {}",
            size_of::<Miner>(),
            size_of::<Link>()
        );
        drop(client);
    }

    #[test]
    fn the_answer_to_http_has_the_length_that_it_says() {
        let (head, body) = HTTP_ANSWER.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}\r\n", body.len())), "{}", body.len());
    }
}
