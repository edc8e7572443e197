//! Sends new work to all connections at once.
//!
//! One task visits all connections and writes the job to each socket itself. Waking each connection's own task instead
//! would take half as long again as the system's write. A connection that is busy or whose socket is full delays no
//! other: its task is woken and sends the rest.

use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tracing::error;

use super::connection::Connection;
use crate::follow::Snapshot;
use crate::follow::telling::Telling;
use crate::job::random;

/// Connections that are told before the task yields: usually half a millisecond's work.
const BATCH: usize = 64;
/// The time after which the task yields anyhow. In solo mode a job is signed for each member.
const TURN: Duration = Duration::from_millis(1);
/// Connections between two looks at the clock, which costs a fraction of what telling a connection does.
const LOOK: usize = 8;

/// All connections.
#[derive(Debug, Clone, Default)]
pub struct Round(Arc<Mutex<Seats>>);

#[derive(Debug, Default)]
struct Seats {
    taken: Vec<Option<Arc<Connection>>>,
    free: Vec<usize>,
}

/// A connection's seat in the round. It is freed when dropped.
#[derive(Debug)]
pub struct Seat {
    round: Round,
    number: usize,
    pub(super) connection: Arc<Connection>,
}

impl Deref for Seat {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.connection
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut seats = self.round.lock();
        seats.taken[self.number] = None;
        seats.free.push(self.number);
    }
}

impl Round {
    fn lock(&self) -> MutexGuard<'_, Seats> {
        self.0.lock().expect("no panic while the lock is held")
    }

    /// Adds a connection to the round. It fetches work itself when it subscribes; all later work is sent by the round.
    #[must_use]
    pub fn seat(&self, connection: Arc<Connection>) -> Seat {
        let mut seats = self.lock();
        let number = seats.free.pop().unwrap_or(seats.taken.len());
        if number == seats.taken.len() {
            seats.taken.push(None);
        }
        seats.taken[number] = Some(Arc::clone(&connection));
        drop(seats);
        Seat { round: self.clone(), number, connection }
    }

    /// Tells all connections of each snapshot; ends with the follower. A panic ends the connection it occurred in, and
    /// the round is started again.
    pub async fn run(self, snapshots: watch::Receiver<Arc<Snapshot>>, telling: Telling) {
        again_after_panics(|| self.clone().tell(snapshots.clone(), telling.clone())).await;
    }

    async fn tell(self, mut snapshots: watch::Receiver<Arc<Snapshot>>, telling: Telling) {
        snapshots.mark_changed();
        while snapshots.changed().await.is_ok() {
            let told = self.go_round(&mut snapshots, &telling).await;
            telling.over(told);
        }
    }

    /// Tells all present connections, starting at a random seat so that none is always first. If a newer snapshot
    /// arrives meanwhile, it continues with that one for a full round. Returns the count ([`Telling::count`]) that is
    /// now told.
    async fn go_round(&self, snapshots: &mut watch::Receiver<Arc<Snapshot>>, telling: &Telling) -> u64 {
        let mut tells = telling.count();
        let mut seats = self.lock().taken.len();
        let (mut next, mut left) = (random() as usize, seats);
        let mut batch = Vec::with_capacity(BATCH);
        while left > 0 {
            let count = BATCH.min(left);
            let numbers = (next..next + count).map(|number| number % seats);
            {
                let all = self.lock();
                batch.extend(numbers.filter_map(|number| all.taken[number].clone()));
            }
            let mut begun = Instant::now();
            for (told, connection) in batch.drain(..).enumerate() {
                connection.offer();
                if told % LOOK == LOOK - 1 && begun.elapsed() > TURN {
                    tokio::task::yield_now().await;
                    begun = Instant::now();
                }
            }
            (next, left) = ((next + count) % seats, left - count);
            tokio::task::yield_now().await;
            if snapshots.has_changed().unwrap_or(false) {
                snapshots.mark_unchanged();
                tells = telling.count();
                seats = self.lock().taken.len();
                left = seats;
            }
        }
        tells
    }
}

async fn again_after_panics<F: Future<Output = ()> + Send + 'static>(begin: impl Fn() -> F) {
    while let Err(error) = tokio::spawn(begin()).await
        && error.is_panic()
    {
        error!("telling miners of new work: {error}");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::follow::Work;

    #[tokio::test]
    async fn what_panics_begins_anew_and_what_ends_does_not() {
        let begun = Arc::new(AtomicU32::new(0));
        again_after_panics(|| {
            let begun = Arc::clone(&begun);
            async move { assert!(begun.fetch_add(1, Ordering::Relaxed) == 2, "as a bug would") }
        })
        .await;
        assert_eq!(begun.load(Ordering::Relaxed), 3);
    }

    #[tokio::test]
    async fn it_is_over_when_all_are_told() {
        let (telling, nothing) =
            (Telling::default(), Arc::new(Snapshot { work: Work::Waiting, licenses: Vec::new() }));
        let (publish, snapshots) = watch::channel(Arc::clone(&nothing));
        let _round = tokio::spawn(Round::default().run(snapshots, telling.clone()));
        for _ in 0..2 {
            telling.begin().tell();
            publish.send_replace(Arc::clone(&nothing));
            let told = async {
                while telling.is_on() {
                    tokio::task::yield_now().await;
                }
            };
            tokio::time::timeout(Duration::from_secs(20), told).await.expect("all are told");
        }
    }
}
