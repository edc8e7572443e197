//! One connection: what its task and others share, and the task.
//!
//! All take a turn at a time, under a lock that is never held while anything waits: the task reads, answers and keeps the
//! times; the round ([`super::round`]) sends new jobs, and the log's task ([`crate::ledger::queue`]) the answers to shares
//! that are counted now. What a turn of those leaves to be done (the socket is full, a timer must be set earlier), the
//! task is woken for. When the pool ends, those who speak Stratum are told to come again.

use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};
use std::time::Duration;

use iop_mining::bans::Offence;
use rustix::net::Shutdown;
use rustls::ServerConnection;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tracing::debug;

use super::link::{End, Link, MAX_QUEUED, READ_SIZE};
use super::miner::Miner;
use super::round::Seat;
use crate::ledger::{Ticket, Waiter};

/// Time for the last words: to be sent, and then to be read before the connection is torn down.
const FAREWELL_TIME: Duration = Duration::from_secs(1);

/// A connection.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    /// Wakes the task: another's turn has left something to it.
    ticket: Arc<Ticket>,
    /// The round has found the state in use; the task looks for new work itself.
    passed_over: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    link: Link,
    miner: Miner,
    /// When the task's timer fires.
    timer: Instant,
    /// What the round has found, for the task.
    end: Option<End>,
    /// The last words are said: no jobs any more.
    over: bool,
}

/// What the task waits for next.
#[derive(Debug, Clone, Copy)]
struct Wait {
    reading: bool,
    writing: bool,
    /// Until shares are in the log.
    log: bool,
    timer: Instant,
}

impl Connection {
    /// A new one.
    #[must_use]
    pub fn new(stream: TcpStream, tls: Option<Box<ServerConnection>>, miner: Miner) -> Arc<Self> {
        let _ = stream.set_nodelay(true); // it works without, only slower
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

    /// Does something and sends what there is then.
    fn turn(&self, act: impl FnOnce(&mut Link, &mut Miner) -> Result<(), End>) -> Result<Wait, End> {
        let mut state = self.lock();
        let State { link, miner, timer, end, over } = &mut *state;
        let done = end.take().map_or(Ok(()), Err).and_then(|()| act(link, miner));
        let sent = link.send(&self.stream, miner); // the last words too, if there is room for them
        if let Err(end) = done.and(sent) {
            *over = true;
            return Err(end);
        }
        // The deadline mostly moves on. Then the timer fires in vain once, which is cheaper than to set it each time.
        *timer = (*timer).min(link.deadline(miner));
        Ok(Wait {
            reading: is_read(link, miner),
            writing: link.has_more(),
            log: miner.has_uncommitted(),
            timer: *timer,
        })
    }

    /// The turn of another than the task: does something, sends what there is then, and leaves to the task what else
    /// there is to do. False if somebody else has a turn now.
    fn others_turn(&self, act: impl FnOnce(&mut Miner)) -> bool {
        let mut state = match self.state.try_lock() {
            Ok(state) => state,
            Err(TryLockError::WouldBlock) => return false,
            Err(TryLockError::Poisoned(_)) => {
                self.ticket.wake(); // its task ends with a panic too
                return true;
            }
        };
        let State { link, miner, timer, end, over } = &mut *state;
        if *over {
            self.ticket.wake(); // its last words
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

    /// Answers what is counted, says that the pool will be back, and gives the other side a moment to read it.
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
        let _ = timeout(FAREWELL_TIME, all_said).await; // who has not read by now hears no more
    }

    /// What came in has an end. Who has closed one half only still hears of the shares on their way into the log; then
    /// our side ends too.
    async fn part(&self, end: &End) {
        if end.offence.is_none() {
            let said = self.turn(|_, _| Ok(()));
            let _ = timeout(FAREWELL_TIME, self.say_the_rest(said)).await;
        }
        self.linger().await;
    }

    /// Until all shares are answered and all answers are sent.
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

    /// Ends our side, and reads on for a moment without listening: if something came in that nobody read, the system
    /// would tear the connection down, and our last words with it.
    async fn linger(&self) {
        {
            let link = &mut self.lock().link;
            if link.has_more() {
                return; // it does not read anyway
            }
            link.close(&self.stream);
        }
        let _ = rustix::net::shutdown(&self.stream, Shutdown::Write); // else it is closed already
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

/// Whether what comes in is read now.
fn is_read(link: &Link, miner: &Miner) -> bool {
    link.may_read() && !miner.is_ahead_of_the_log()
}

/// Serves a connection until it ends or `stop` changes. What is rare or large is boxed: an idle connection is partly
/// this future.
pub async fn serve(connection: Seat, mut stop: watch::Receiver<bool>) {
    let mut timer = pin!(tokio::time::sleep_until(connection.lock().timer));
    let mut turned = connection.turn(|_, _| Ok(()));
    let end = loop {
        // Who always has something to read does not give up its turn by itself.
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
        let _ = connection.stream.set_zero_linger(); // else the system keeps what is not read for minutes
    }
    let miner = &connection.lock().miner;
    if let Some(offence) = end.offence {
        miner.offend(offence);
    }
    debug!(peer = %miner.peer(), "connection ends: {}", end.reason);
}

fn discard(stream: &TcpStream) -> io::Result<usize> {
    stream.try_read(&mut [0; READ_SIZE])
}

#[cfg(test)]
mod tests;
