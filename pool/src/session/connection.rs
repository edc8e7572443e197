//! One connection: its shared state and its task.
//!
//! Access takes turns, under a lock that is never held across an await: the task reads, answers and keeps the timers;
//! the round ([`super::round`]) sends new jobs; the ledger's task ([`crate::ledger::queue`]) sends the answers to
//! committed shares. If such a turn leaves work to do (the socket is full, a timer must fire earlier), the connection's
//! task is woken. When the pool stops, Stratum clients are told to reconnect.

use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};
use std::time::Duration;

use iop_mining::bans::{End, Offence};
use rustix::net::Shutdown;
use rustls::ServerConnection;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tracing::debug;

use super::link::{Link, MAX_QUEUED, READ_SIZE};
use super::miner::Miner;
use super::round::Seat;
use crate::ledger::{Ticket, Waiter};

/// Time to send the last lines, and again to drain the socket before it is closed.
const FAREWELL_TIME: Duration = Duration::from_secs(1);

/// A connection.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    /// Wakes the task when another's turn has left work for it.
    ticket: Arc<Ticket>,
    /// The round found the state locked, so the task must fetch the new work itself.
    passed_over: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    link: Link,
    miner: Miner,
    /// When the task's timer fires.
    timer: Instant,
    /// A failure that the round or the ledger's task met, for the task.
    end: Option<End>,
    /// The last lines are queued: no more jobs are sent.
    over: bool,
}

/// What the task waits for next.
#[derive(Debug, Clone, Copy)]
struct Wait {
    reading: bool,
    writing: bool,
    /// Wait until shares are committed.
    log: bool,
    timer: Instant,
}

impl Connection {
    /// A new one.
    #[must_use]
    pub fn new(stream: TcpStream, tls: Option<Box<ServerConnection>>, miner: Miner) -> Arc<Self> {
        let _ = stream.set_nodelay(true); // optional: it only makes replies faster
        let link = Link::new(tls, *miner.limits());
        let timer = link.deadline(&miner);
        let connection = Arc::new(Self {
            stream,
            ticket: Arc::clone(miner.ticket()),
            passed_over: AtomicBool::new(false),
            state: Mutex::new(State { link, miner, timer, end: None, over: false }),
        });
        connection.ticket.belongs_to(&connection);
        connection
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic while the lock is held")
    }

    /// Runs `act`, then sends what is queued.
    fn turn(&self, act: impl FnOnce(&mut Link, &mut Miner) -> Result<(), End>) -> Result<Wait, End> {
        let mut state = self.lock();
        let State { link, miner, timer, end, over } = &mut *state;
        let done = end.take().map_or(Ok(()), Err).and_then(|()| act(link, miner));
        let sent = link.send(&self.stream, miner); // the last lines too, as far as there is room
        if let Err(end) = done.and(sent) {
            *over = true;
            return Err(end);
        }
        // The deadline usually moves later. The timer then fires once in vain, which is cheaper than resetting it each
        // time.
        *timer = (*timer).min(link.deadline(miner));
        Ok(Wait {
            reading: is_read(link, miner),
            writing: link.has_more(),
            log: miner.has_uncommitted(),
            timer: *timer,
        })
    }

    /// A turn taken by the round or the ledger's task: runs `act`, sends what is queued, and leaves the rest to the
    /// connection's task. Returns false if the state is locked.
    fn others_turn(&self, act: impl FnOnce(&mut Miner)) -> bool {
        let mut state = match self.state.try_lock() {
            Ok(state) => state,
            Err(TryLockError::WouldBlock) => return false,
            Err(TryLockError::Poisoned(_)) => {
                self.ticket.wake(); // the task then panics on the lock as well
                return true;
            }
        };
        let State { link, miner, timer, end, over } = &mut *state;
        if *over {
            self.ticket.wake(); // the last lines are being sent
            return true;
        }
        let (reading, waited) = (is_read(link, miner), link.has_more());
        act(miner);
        let sent = link.send(&self.stream, miner);
        let left = waited || link.has_more() || sent.is_err() || is_read(link, miner) != reading;
        if left || link.deadline(miner) < *timer {
            self.ticket.wake();
        }
        if let Err(found) = sent {
            end.get_or_insert(found);
        }
        true
    }

    /// Sends the job of the latest snapshot.
    pub(super) fn offer(&self) {
        if !self.others_turn(Miner::on_news) {
            self.passed_over.store(true, Ordering::Release);
            self.ticket.wake();
        }
    }

    fn on_wake(&self) -> Result<Wait, End> {
        self.turn(|_, miner| {
            miner.on_committed();
            if self.passed_over.swap(false, Ordering::Acquire) {
                miner.on_news();
            }
            Ok(())
        })
    }

    fn on_timer(&self) -> Result<Wait, End> {
        self.turn(|link, miner| link.on_time(miner))?;
        let mut state = self.lock();
        state.timer = state.link.deadline(&state.miner);
        drop(state);
        self.turn(|_, _| Ok(()))
    }

    /// Answers committed shares, tells the client to reconnect, and gives it a moment to read that.
    async fn farewell(&self) {
        let all_said = async {
            self.lock().over = true; // from here on the round sends nothing
            let said = self.turn(|_, miner| {
                miner.on_stop();
                Ok(())
            });
            self.say_the_rest(said).await;
            self.linger().await;
        };
        let _ = timeout(FAREWELL_TIME, all_said).await; // a client that has not read them by now gets no more
    }

    /// Handles the end of the input. A peer that closed only its sending half still gets the answers to shares that are
    /// not yet committed; then our side closes too.
    async fn part(&self, end: &End) {
        if end.offence.is_none() {
            let said = self.turn(|_, _| Ok(()));
            let _ = timeout(FAREWELL_TIME, self.say_the_rest(said)).await;
        }
        self.linger().await;
    }

    /// Runs until all shares are answered and all answers are sent.
    async fn say_the_rest(&self, mut said: Result<Wait, End>) {
        while let Ok(Wait { writing, log, .. }) = said
            && (writing || log)
        {
            said = tokio::select! {
                () = self.ticket.changed() => self.turn(|_, miner| {
                    miner.on_committed();
                    Ok(())
                }),
                _ = self.stream.writable(), if writing => self.turn(|_, _| Ok(())),
            };
        }
    }

    /// Closes our side, then reads and discards for a moment: with unread input left, the system would reset the
    /// connection and lose our last lines.
    async fn linger(&self) {
        {
            let link = &mut self.lock().link;
            if link.has_more() {
                return; // the peer does not read anyway
            }
            link.close(&self.stream);
        }
        let _ = rustix::net::shutdown(&self.stream, Shutdown::Write); // on failure it is already closed
        let drain = async {
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
}

impl Waiter for Connection {
    fn on_committed(&self) {
        if !self.others_turn(Miner::on_committed) {
            self.ticket.wake();
        }
    }
}

/// Whether input is read now.
fn is_read(link: &Link, miner: &Miner) -> bool {
    link.may_read() && !miner.is_ahead_of_the_log()
}

/// Serves a connection until it ends or `stop` changes. Rare or large futures are boxed, as this future is part of what
/// an idle connection costs.
pub async fn serve(connection: Seat, mut stop: watch::Receiver<bool>) {
    let mut timer = pin!(tokio::time::sleep_until(connection.lock().timer));
    let mut turned = connection.turn(|_, _| Ok(()));
    let end = loop {
        // A connection that always has input to read would not yield by itself.
        tokio::task::consume_budget().await;
        let wait = match turned {
            Ok(wait) => wait,
            Err(end) => break end,
        };
        if wait.timer != timer.deadline() {
            timer.as_mut().reset(wait.timer);
        }
        turned = tokio::select! {
            _ = stop.changed() => {
                Box::pin(connection.farewell()).await;
                break End::new("the pool stops", None);
            }
            () = connection.ticket.changed() => connection.on_wake(),
            ready = connection.stream.readable(), if wait.reading => {
                let read = ready.map_err(|error| error.to_string().into()).and_then(|()| {
                    connection.turn(|link, miner| link.read(&connection.stream, miner))
                });
                if let Err(end) = &read {
                    Box::pin(connection.part(end)).await;
                }
                read
            }
            _ = connection.stream.writable(), if wait.writing => connection.turn(|_, _| Ok(())),
            () = &mut timer => connection.on_timer(),
        };
    };
    if end.offence == Some(Offence::Unread) {
        let _ = connection.stream.set_zero_linger(); // otherwise the system keeps unread data for minutes
    }
    let miner = &connection.lock().miner;
    if let Some(offence) = end.offence {
        miner.offend(offence);
    }
    if end.offence == Some(Offence::Plaintext) {
        miner.shared().plain_hint.say(miner.peer());
    }
    debug!(peer = %miner.peer(), "connection ends: {}", end.reason);
}

fn discard(stream: &TcpStream) -> io::Result<usize> {
    stream.try_read(&mut [0; READ_SIZE])
}

#[cfg(test)]
mod tests;
