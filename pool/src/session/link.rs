//! A connection's bytes, plain or TLS: lines in, lines out, time-outs and rate limits. Nothing here blocks.
//!
//! A peer that does not read is dropped: its queue is bounded, and while it lags, nothing more is read from it either.
//! A peer that sends too much is read later.

use std::io::{self, Write};

use iop_mining::bans::{End, Offence};
use iop_mining::bucket::Bucket;
use iop_stratum::line::{LineDecoder, MAX_SERVER_LINE};
use iop_stratum::server::{Fatal, HTTP_ANSWER, Outgoing};
use rustix::io::Errno;
use rustix::net::SendFlags;
use rustls::ServerConnection;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::limits::Limits;
use super::miner::Miner;
use super::tls;

/// Bytes queued above which nothing is read: about fifty replies.
const PAUSE_READING: usize = 8 * 1024;
/// Bytes queued above which the connection is dropped: a hundred notifies of a full block (2 KiB each).
pub(super) const MAX_QUEUED: usize = 256 * 1024;
/// Bytes read at a time: several submits.
pub(super) const READ_SIZE: usize = 4096;
/// The least number of bytes that count as one request, as does each read. No usual request is larger, and reading
/// costs the same if the bytes make no request.
const REQUEST_BYTES: usize = 1024;

/// The state of the byte stream; the socket itself belongs to the connection.
#[derive(Debug)]
pub(super) struct Link {
    tls: Option<Box<ServerConnection>>,
    limits: Limits,
    decoder: LineDecoder,
    /// The chunk being sent, and how much of it is sent.
    sending: Option<(Outgoing, usize)>,
    queued: usize,
    begun: Instant,
    heard: Instant,
    /// Since when none of the queued bytes was taken.
    stuck: Option<Instant>,
    requests: Bucket,
    /// Nothing is read until this time.
    paused: Option<Instant>,
}

impl Link {
    pub(super) fn new(tls: Option<Box<ServerConnection>>, limits: Limits) -> Self {
        let now = Instant::now();
        Self {
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
        }
    }

    /// Whether something waits for the socket.
    pub(super) fn has_more(&self) -> bool {
        self.sending.is_some() || self.tls.as_ref().is_some_and(|tls| tls.wants_write())
    }

    /// Whether the socket may be read now.
    pub(super) fn may_read(&self) -> bool {
        self.queued <= PAUSE_READING && self.paused.is_none()
    }

    /// Sends as much as the socket takes now.
    ///
    /// # Errors
    /// The socket fails, or too much is queued for a peer that does not read.
    pub(super) fn send(&mut self, stream: &TcpStream, miner: &mut Miner) -> Result<(), End> {
        loop {
            if let Some(tls) = &mut self.tls {
                if tls::flush(tls, stream).map_err(|error| error.to_string())? {
                    self.stuck = None;
                }
                if tls.wants_write() {
                    break;
                }
            }
            let Some((line, sent)) = &mut self.sending else {
                let Some(line) = miner.next_lines() else { break };
                self.sending = Some((line, 0));
                continue;
            };
            let rest = &line.as_ref()[*sent..];
            let taken = match &mut self.tls {
                Some(tls) => tls.writer().write(rest),
                None => transmit(stream, rest),
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

    /// Reads available bytes and handles their lines. Not async, so that the buffer is not part of an idle connection's
    /// state.
    pub(super) fn read(&mut self, stream: &TcpStream, miner: &mut Miner) -> Result<(), End> {
        let mut buffer = [0; READ_SIZE];
        let count = match receive(stream, &mut buffer) {
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
            self.sending.get_or_insert((Outgoing::Own(HTTP_ANSWER.into()), 0)); // never in the middle of a line
        }
        taken?;
        self.on_read(lines, count, miner);
        Ok(())
    }

    /// Charges what was read. Bytes that make no line, such as empty lines, cost work too but are no sign of life.
    fn on_read(&mut self, lines: u32, bytes: usize, miner: &Miner) {
        let now = Instant::now();
        if lines > 0 {
            self.heard = now;
        }
        let requests = lines.max(u32::try_from(bytes.div_ceil(REQUEST_BYTES)).unwrap_or(u32::MAX));
        let paid = self.requests.take(requests, self.limits.requests_per_second, now.into_std());
        self.paused = paid.map(Instant::from_std);
        if paid.is_some() && self.requests.is_flood(now.into_std()) {
            miner.offend(Offence::Flood);
        }
    }

    /// Says that nothing follows, if the transport has a way to say so.
    pub(super) fn close(&mut self, stream: &TcpStream) {
        if let Some(tls) = &mut self.tls {
            tls.send_close_notify();
            let _ = tls::flush(tls, stream);
        }
    }

    /// The time at which [`Self::on_time`] has something to do.
    pub(super) fn deadline(&self, miner: &Miner) -> Instant {
        let stuck = self.stuck.map(|stuck| stuck + self.limits.write);
        let dead = miner.dead_from().map(Instant::from_std);
        let silent = miner.silent_from().map(Instant::from_std);
        [stuck, dead, silent, self.paused].into_iter().flatten().fold(self.silence(miner), Instant::min)
    }

    /// The time at which the peer has been silent for too long.
    fn silence(&self, miner: &Miner) -> Instant {
        if miner.is_working() { self.heard + self.limits.idle } else { self.begun + self.limits.handshake }
    }

    /// Does what is due.
    ///
    /// # Errors
    /// The connection must end.
    pub(super) fn on_time(&mut self, miner: &mut Miner) -> Result<(), End> {
        let now = Instant::now();
        if self.stuck.is_some_and(|stuck| now >= stuck + self.limits.write) {
            let reason = format!("nothing was read for {} s", self.limits.write.as_secs_f64());
            return Err(End::new(&reason, Offence::Unread));
        }
        if miner.dead_from().is_some_and(|dead| now >= Instant::from_std(dead)) {
            return Err(End::new("its jobs are dead and there is no other", None));
        }
        if now >= self.silence(miner) {
            let (limit, offence) = if miner.is_working() {
                (self.limits.idle, None)
            } else {
                (self.limits.handshake, Some(Offence::Silent))
            };
            return Err(End::new(&format!("silent for {} s", limit.as_secs_f64()), offence));
        }
        self.paused = self.paused.filter(|paused| now < *paused);
        miner.on_silence(now.into_std());
        Ok(())
    }
}

/// Writes without blocking. The runtime's readiness state is consulted only if the socket is full: reading it takes as
/// long as some of these lines take here, and a new job goes to thousands of sockets.
fn transmit(stream: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    match rustix::net::send(stream, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
        Err(Errno::AGAIN) => stream.try_write(bytes), // so that the runtime knows what to wait for
        sent => Ok(sent?),
    }
}

/// Reads without blocking. A read that does not fill the buffer was all there is: reporting that to the runtime saves
/// the read that would find out.
fn receive(stream: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    let mut count = 0;
    let read = stream.try_io(Interest::READABLE, || {
        count = rustix::io::read(stream, &mut *buffer)?;
        if count > 0 && count < buffer.len() { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
    });
    if count > 0 { Ok(count) } else { read.map(|()| 0) }
}

fn fatal(fatal: Fatal) -> End {
    End::new(&fatal.to_string(), Offence::from(fatal))
}
