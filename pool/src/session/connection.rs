//! One connection's socket: bytes in, bytes out, and its time-outs.
//!
//! A reader that does not read is dropped and holds up nobody: what it was not sent is bounded, and while it is
//! behind, nothing more is read from it either.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use iop_stratum::line::{LineDecoder, MAX_SERVER_LINE};
use iop_stratum::server::Outgoing;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::debug;

use super::miner::Miner;
use crate::follow::Snapshot;
use crate::ledger::Ticket;

/// From connecting to the first user. A machine introduces itself at once; 30 s allow for very slow networks.
const HANDSHAKE_TIME: Duration = Duration::from_secs(30);
/// Silence after which a miner is taken for gone. Long, since a slow machine at a high difficulty may find no
/// share for long. One whose network is gone is mostly noticed earlier, by [`WRITE_TIME`] or by the system.
const IDLE_TIME: Duration = Duration::from_secs(60 * 60);
/// Time in which something of what is queued here must be taken. The system's own buffer comes before: it takes
/// some hundred jobs for a machine that is gone, until the system gives the connection up itself (on Linux, by
/// default, about a quarter of an hour after the first job that is not acknowledged).
const WRITE_TIME: Duration = Duration::from_secs(30);
/// Bytes queued above which nothing is read: about fifty replies.
const PAUSE_READING: usize = 8 * 1024;
/// Bytes queued above which the connection is dropped: a hundred notifies of a full block (2 KiB each).
const MAX_QUEUED: usize = 256 * 1024;
/// Bytes read at a time: several submits.
const READ_SIZE: usize = 4096;

/// Serves a connection until it ends or `stop` changes.
pub async fn serve(
    stream: TcpStream,
    mut miner: Miner,
    mut snapshots: watch::Receiver<Arc<Snapshot>>,
    mut stop: watch::Receiver<bool>,
) {
    let _ = stream.set_nodelay(true); // it works without, only slower
    let mut link = Link::new(stream);
    let reason = loop {
        if let Err(reason) = link.send(&mut miner) {
            break reason;
        }
        tokio::select! {
            _ = stop.changed() => break "the pool stops".to_owned(),
            changed = snapshots.changed() => {
                if changed.is_err() {
                    break "the pool stops".to_owned();
                }
                let snapshot = Arc::clone(&snapshots.borrow_and_update());
                miner.on_snapshot(&snapshot);
            }
            () = committed(miner.uncommitted()) => miner.on_committed(),
            ready = link.stream.readable(), if link.may_read() && !miner.is_ahead_of_the_log() => {
                if let Err(reason) = ready.map_err(|error| error.to_string()).and_then(|()| link.read(&mut miner)) {
                    let _ = link.send(&mut miner); // the last words, if there is room for them
                    break reason;
                }
            }
            _ = link.stream.writable(), if link.has_more() => {}
            () = tokio::time::sleep_until(link.deadline(&miner)) => {
                if let Some(reason) = link.too_late(&miner) {
                    break reason;
                }
            }
        }
    };
    debug!(peer = %miner.peer(), "connection ends: {reason}");
}

/// Until the log has taken shares that wait for it.
async fn committed(ticket: Option<Arc<Ticket>>) {
    match ticket {
        Some(ticket) => ticket.changed().await,
        None => std::future::pending().await,
    }
}

struct Link {
    stream: TcpStream,
    decoder: LineDecoder,
    /// The line on its way, and how much of it is sent.
    sending: Option<(Outgoing, usize)>,
    queued: usize,
    begun: Instant,
    heard: Instant,
    /// Since when nothing of what is queued was taken.
    stuck: Option<Instant>,
}

impl Link {
    fn new(stream: TcpStream) -> Self {
        let now = Instant::now();
        let decoder = LineDecoder::new(MAX_SERVER_LINE);
        Self { stream, decoder, sending: None, queued: 0, begun: now, heard: now, stuck: None }
    }

    fn has_more(&self) -> bool {
        self.sending.is_some()
    }

    fn may_read(&self) -> bool {
        self.queued <= PAUSE_READING
    }

    /// Sends as much as the socket takes now.
    fn send(&mut self, miner: &mut Miner) -> Result<(), String> {
        loop {
            let Some((line, sent)) = &mut self.sending else {
                let Some(line) = miner.next_outgoing() else { break };
                self.sending = Some((line, 0));
                continue;
            };
            match self.stream.try_write(&line.as_ref()[*sent..]) {
                Ok(0) => return Err("closed by the other side".to_owned()),
                Ok(taken) => {
                    *sent += taken;
                    self.stuck = None;
                    if *sent == line.as_ref().len() {
                        self.sending = None;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.to_string()),
            }
        }
        let rest = self.sending.as_ref().map_or(0, |(line, sent)| line.as_ref().len() - sent);
        self.queued = rest + miner.queued_bytes();
        if self.queued == 0 {
            self.stuck = None;
        } else {
            self.stuck.get_or_insert_with(Instant::now);
        }
        if self.queued > MAX_QUEUED { Err(format!("{} bytes wait to be read", self.queued)) } else { Ok(()) }
    }

    /// Reads what is there and handles its lines. Not async: the buffer is no part of an idle connection's state.
    fn read(&mut self, miner: &mut Miner) -> Result<(), String> {
        let mut buffer = [0; READ_SIZE];
        let count = match self.stream.try_read(&mut buffer) {
            Ok(0) => return Err("closed by the other side".to_owned()),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error.to_string()),
        };
        self.decoder.extend(&buffer[..count]);
        while let Some(line) = self.decoder.next_line().map_err(|error| error.to_string())? {
            miner.on_line(line).map_err(|fatal| fatal.to_string())?;
            self.heard = Instant::now();
        }
        Ok(())
    }

    fn deadline(&self, miner: &Miner) -> Instant {
        let silence = if miner.is_working() { self.heard + IDLE_TIME } else { self.begun + HANDSHAKE_TIME };
        let stuck = self.stuck.map(|stuck| stuck + WRITE_TIME);
        let dead = miner.dead_from().map(Instant::from_std);
        [stuck, dead].into_iter().flatten().fold(silence, Instant::min)
    }

    fn too_late(&self, miner: &Miner) -> Option<String> {
        let now = Instant::now();
        if self.stuck.is_some_and(|stuck| now >= stuck + WRITE_TIME) {
            return Some(format!("nothing was read for {} s", WRITE_TIME.as_secs()));
        }
        if miner.dead_from().is_some_and(|dead| now >= Instant::from_std(dead)) {
            return Some("its jobs are dead and there is no other".to_owned());
        }
        (now >= self.deadline(miner)).then(|| {
            let limit = if miner.is_working() { IDLE_TIME } else { HANDSHAKE_TIME };
            format!("silent for {} s", limit.as_secs())
        })
    }
}
