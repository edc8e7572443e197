//! Choice of the pool: the first useful one of the list, or the one that the user asked for.
//!
//! Path: no pool → [`Failover::connect`] → a ready connection → [`Failover::work`], with regular checks whether a
//! better pool is back → the reason why the connection is over → [`Failover::lost`] → no pool.

use std::convert::Infallible;
use std::future::pending;
use std::ops::Range;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use iop_mining::rarely::Rarely;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{debug, info, warn};

use super::backoff::Backoff;
use super::board::{Condition, Wishes};
use super::connection::Connection;
use super::lost::{Lost, lost_block};
use super::open::{LONG_WAIT, Manner, Place};
use super::{Desk, PoolUrl};
use crate::job::{Serial, Share};

/// Most shares sent together.
const TOGETHER: usize = 64;
/// Most queued shares for a pool that was left.
const LATE: usize = 1024;

/// A pool being connected to while another one is in use.
struct Probe {
    number: usize,
    opening: Pin<Box<dyn Future<Output = Result<Connection, Lost>> + Send>>,
    /// The user asked for it.
    wished: bool,
}

/// A pool that was left for another one, while its connection lives.
struct Left {
    /// Serials of its jobs.
    jobs: Range<Serial>,
    /// The sender for late finds.
    shares: mpsc::Sender<Share>,
}

pub(super) struct Failover {
    urls: Vec<PoolUrl>,
    manner: Arc<Manner>,
    desk: Desk,
    wishes: Wishes,
    backoff: Backoff,
    /// The user asked for the current pool: it is kept until it fails.
    wished: bool,
    /// Where the current pool is, if we were connected: it may have redirected us.
    moved: Option<Place>,
    /// The last connection was sent shares, and accepted none.
    fruitless: bool,
    /// Since when the current pool is the current one.
    since: Instant,
    next_serial: Serial,
    /// Connections that only send late finds and receive their last verdicts.
    farewells: JoinSet<()>,
    left: Vec<Left>,
    /// Limits warnings about lost blocks.
    words: Rarely,
}

impl Failover {
    pub(super) fn new(urls: Vec<PoolUrl>, manner: Arc<Manner>, desk: Desk) -> Self {
        Self {
            backoff: Backoff::new(manner.timing, urls.len()),
            urls,
            manner,
            wishes: Wishes::new(desk.board.wishes()),
            desk,
            wished: false,
            moved: None,
            fruitless: false,
            since: Instant::now(),
            next_serial: Serial::default(),
            farewells: JoinSet::new(),
            left: Vec::new(),
            words: Rarely::default(),
        }
    }

    pub(super) async fn run(mut self) -> Infallible {
        loop {
            self.since = Instant::now();
            let lost = match self.connect().await {
                Some(Ok(connection)) => self.work(connection).await,
                Some(Err(lost)) => lost,
                None => continue,
            };
            let wait = self.lost(&lost);
            let wished = tokio::select! {
                () = idle(&mut self.desk, &self.left, &self.words, sleep(wait)) => continue,
                wished = self.wishes.next() => wished,
            };
            self.turn_to_wished(wished);
        }
    }

    fn place(&self, number: usize, aside: bool) -> Place {
        Place { manner: Arc::clone(&self.manner), number, url: self.urls[number].clone(), moves: 0, aside }
    }

    fn set(&self, number: usize, condition: Condition) {
        self.desk.board.change(number, |source| {
            source.set(condition);
            source.job = None; // it is not in use in any of these states
        });
    }

    /// Connects to the current pool, or to one after it, each in turn, if that is ready first; `None` if the user asks
    /// for another pool meanwhile.
    async fn connect(&mut self) -> Option<Result<Connection, Lost>> {
        let number = self.backoff.pool();
        let place = self.moved.clone().unwrap_or_else(|| self.place(number, false));
        self.set(number, Condition::Connecting);
        let mut opening = Box::pin(place.open());
        let first = (number + 1) % self.urls.len();
        let mut pause = self.manner.timing.head_start;
        let mut rival_from = (first != number && !self.wished).then(|| (first, self.since + pause));
        let mut rival: Option<Probe> = None;
        loop {
            tokio::select! {
                opened = idle(&mut self.desk, &self.left, &self.words, &mut opening) => return Some(opened),
                next = due(rival_from) => (rival, rival_from) = (Some(self.rival(next)), None),
                (next, _, opened) = opened(&mut rival) => match opened {
                    Ok(ready) => {
                        self.overtaken(number, next);
                        return Some(Ok(ready));
                    }
                    Err(lost) => {
                        self.still_away(next, &lost);
                        // The current pool may take its time: the list is gone through meanwhile, again and again.
                        let (mut after, mut at) = ((next + 1) % self.urls.len(), Instant::now());
                        if after == number {
                            (after, at) = (first, at + pause);
                            pause = pause.saturating_mul(2);
                        }
                        rival_from = Some((after, at));
                    }
                },
                wished = self.wishes.next() => if wished != number {
                    self.set(number, Condition::Unused);
                    self.turn_to_wished(wished);
                    return None;
                } else if !self.wished {
                    info!("{}: somebody wants this pool", self.urls[number]);
                    (self.wished, rival, rival_from) = (true, None, None);
                },
            }
        }
    }

    /// The next pool is ready before the current one.
    fn overtaken(&mut self, number: usize, next: usize) {
        let (slow, ready) = (&self.urls[number], &self.urls[next]);
        let why = format!("no job from it within {:.1} s", self.since.elapsed().as_secs_f32());
        warn!("{slow}: {why}; mining at {ready} meanwhile");
        self.set(number, Condition::Away(why));
        self.backoff.still_away(number, Instant::now());
        self.backoff.overtaken_by(next);
        (self.moved, self.since) = (None, Instant::now());
    }

    /// A pool that was checked in the background is not available.
    fn still_away(&mut self, number: usize, lost: &Lost) {
        debug!("{}: {lost}", self.urls[number]);
        self.backoff.still_away(number, Instant::now());
        self.set(number, Condition::Away(lost.to_string()));
    }

    /// Switches to a pool that the user asked for while there is no connection.
    fn turn_to_wished(&mut self, number: usize) {
        info!("{}: somebody wants this pool", self.urls[number]);
        self.backoff.turn_to(number);
        (self.wished, self.moved) = (true, None);
    }

    /// Mines at a pool until its connection is lost; switches to better ones without a pause.
    async fn work(&mut self, mut connection: Connection) -> Lost {
        connection.take_over(Arc::clone(&self.desk.dispatcher), self.next_serial);
        let mut probe: Option<Probe> = None;
        let lost = loop {
            if let Err(lost) = connection.send().await {
                break lost;
            }
            let idle = probe.is_none() && !self.wished;
            let look = self.backoff.probe(Instant::now()).filter(|_| idle);
            tokio::select! {
                received = connection.receive() => if let Err(lost) = received {
                    break lost;
                },
                Some(share) = self.desk.shares.recv(), if connection.takes_shares() => {
                    self.hand_in(share, &mut connection);
                }
                (number, wished, opened) = opened(&mut probe) => {
                    self.probed(number, wished, opened, &mut connection);
                }
                number = self.wishes.next() => self.wish(number, &mut probe),
                number = due(look) => probe = Some(self.probe(number, false)),
            }
        };
        self.next_serial = connection.next_serial();
        self.fruitless = connection.is_fruitless();
        self.moved = Some(connection.place().clone());
        self.desk.dispatcher.clear();
        if matches!(lost, Lost::Moved { .. }) {
            self.part(connection); // the connection still works
        } else {
            connection.abandon();
        }
        lost
    }

    /// Sends a share, and others that are already queued, each to the pool that its job is from.
    fn hand_in(&mut self, share: Share, connection: &mut Connection) {
        let others = std::iter::from_fn(|| self.desk.shares.try_recv().ok()).take(TOGETHER - 1);
        for share in std::iter::once(share).chain(others) {
            if let Err(share) = to_left(&self.left, share) {
                connection.submit(share);
            }
        }
    }

    /// Starts to open a connection in addition to the current one. Unless the user asked for that pool, it must lower
    /// its difficulty to what this machine can do before it is used.
    fn probe(&self, number: usize, wished: bool) -> Probe {
        debug!("{}: looking whether it is there", self.urls[number]);
        let place = self.place(number, true);
        let opening = async move {
            let opened = place.open().await?;
            if wished { Ok(opened) } else { opened.bearable().await }
        };
        Probe { number, wished, opening: Box::pin(opening) }
    }

    /// Starts to open a second connection while there is none: it is used as it is.
    fn rival(&self, number: usize) -> Probe {
        debug!("{}: looking whether it is there", self.urls[number]);
        Probe { number, wished: false, opening: Box::pin(self.place(number, true).open()) }
    }

    /// Handles a request for a pool while one is in use. Repeating it changes nothing, and a probe for it continues.
    fn wish(&mut self, number: usize, probe: &mut Option<Probe>) {
        let is_at_hand = number == self.backoff.pool();
        let is_old = match probe {
            Some(probe) => probe.wished && probe.number == number,
            None => self.wished && is_at_hand,
        };
        if is_old {
            return;
        }
        info!("{}: somebody wants this pool", self.urls[number]);
        self.wished |= is_at_hand;
        *probe = (!is_at_hand).then(|| self.probe(number, true));
    }

    /// Switches to a pool that is ready, or stays at the current one.
    fn probed(
        &mut self,
        number: usize,
        wished: bool,
        opened: Result<Connection, Lost>,
        connection: &mut Connection,
    ) {
        let opened = match opened {
            Ok(opened) if !wished && opened.is_hopeless() => Err(Lost::Hopeless),
            opened => opened,
        };
        match opened {
            Err(lost) => {
                if wished {
                    warn!("{}: {lost}; staying at {}", self.urls[number], connection.place().url);
                }
                self.still_away(number, &lost);
            }
            Ok(ready) => {
                let (here, left) = (&ready.place().url, &connection.place().url);
                info!("{here}: mining here from now on, no longer at {left}");
                self.set(self.backoff.pool(), Condition::Unused);
                self.backoff.turn_to(number);
                (self.wished, self.moved) = (wished, None);
                self.since = Instant::now();
                let left = std::mem::replace(connection, ready);
                connection.take_over(Arc::clone(&self.desk.dispatcher), left.next_serial());
                self.part(left);
            }
        }
    }

    /// Leaves a pool whose connection works: earlier finds, and those on their way, still go there.
    fn part(&mut self, connection: Connection) {
        while self.farewells.try_join_next().is_some() {}
        self.left.retain(|left| !left.shares.is_closed());
        let (shares, found) = mpsc::channel(LATE);
        self.left.push(Left { jobs: connection.jobs(), shares });
        self.farewells.spawn(connection.farewell(found));
    }

    /// The current pool is lost or not available. Returns how long to wait before the next try.
    fn lost(&mut self, lost: &Lost) -> Duration {
        let (number, now, lasted) = (self.backoff.pool(), Instant::now(), self.since.elapsed());
        let mut left = self.moved.take().unwrap_or_else(|| self.place(number, false));
        self.set(number, Condition::Away(lost.to_string()));
        if lasted >= self.manner.timing.steady {
            left.moves = 0;
        }
        let others = self.urls.len() > 1;
        let took_nothing = std::mem::take(&mut self.fruitless);
        let fruitless = took_nothing && others;
        // If it wants us to wait for long, another pool is used meanwhile.
        let follows = |wait: Duration| !fruitless && (!others || wait <= LONG_WAIT);
        if let Lost::Moved { to, wait } = lost
            && follows(*wait)
            && let Some(next) = left.follow(to.clone())
        {
            self.moved = Some(next);
            let wait = self.backoff.wait().max(*wait);
            warn!("{}: {lost}; doing so in {:.1} s", left.url, wait.as_secs_f32());
            return wait;
        }
        self.wished = false;
        let waits = matches!(lost, Lost::Moved { wait, .. } if *wait > LONG_WAIT) && others;
        if lost.is_useless() || fruitless || waits {
            // Where there is no other pool, one that takes nothing is no better for having been there for long.
            let lasted = if took_nothing && !others { Duration::ZERO } else { lasted };
            self.backoff.given_up(lasted, lost.is_seen_late() || fruitless, now);
        } else {
            self.backoff.ended(lasted, now);
        }
        let (wait, next) = (self.backoff.wait(), &self.urls[self.backoff.pool()]);
        let left = left.url;
        let again = if *next == left { "again".to_owned() } else { next.to_string() };
        warn!("{left}: {lost}; trying {again} in {:.1} s", wait.as_secs_f32());
        wait
    }
}

/// Passes a share to a pool that was left, if it is of one of its jobs and there is room; otherwise returns it.
fn to_left(left: &[Left], share: Share) -> Result<(), Share> {
    let serial = share.job.serial();
    match left.iter().find(|left| left.jobs.contains(&serial)) {
        Some(left) => left.shares.try_send(share).map_err(TrySendError::into_inner),
        None => Err(share),
    }
}

/// Waits for a future while no pool is in use: shares that still come are stale, except those for a pool that was just
/// left.
async fn idle<T>(desk: &mut Desk, left: &[Left], words: &Rarely, until: impl Future<Output = T>) -> T {
    let mut until = pin!(until);
    loop {
        tokio::select! {
            done = &mut until => return done,
            Some(share) = desk.shares.recv() => if let Err(share) = to_left(left, share) {
                if share.is_block() && words.may_warn() {
                    warn!("{}", lost_block(&share));
                }
                share.finder.add_stale();
            }
        }
    }
}

/// The result of a probe, if there is one. The probe continues if this is dropped.
async fn opened(probe: &mut Option<Probe>) -> (usize, bool, Result<Connection, Lost>) {
    let Some(running) = probe else { return pending().await };
    let (number, wished, opened) = (running.number, running.wished, running.opening.as_mut().await);
    *probe = None;
    (number, wished, opened)
}

/// Waits until it is time to check a pool, if there is one to check.
async fn due(look: Option<(usize, Instant)>) -> usize {
    let Some((number, at)) = look else { return pending().await };
    sleep_until(at).await;
    number
}

#[cfg(test)]
mod tests;
