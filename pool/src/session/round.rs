//! The round over all connections: who is here, and new work to everybody at once.
//!
//! One task goes round and writes the job to each socket itself. To wake each connection's own task instead would
//! take half as long again as the system's write does. A connection whose socket is full, or that is busy, holds nobody up:
//! its task is woken and does the rest.

use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::watch;
use tracing::error;

use super::connection::Connection;
use crate::follow::Snapshot;
use crate::job::random;

/// Connections that are told before others have a turn: half a millisecond's work.
const BATCH: usize = 64;

/// All connections.
#[derive(Debug, Clone, Default)]
pub struct Round(Arc<Mutex<Seats>>);

#[derive(Debug, Default)]
struct Seats {
    taken: Vec<Option<Arc<Connection>>>,
    free: Vec<usize>,
}

/// A connection's seat in the round. Free again when dropped.
#[derive(Debug)]
pub struct Seat {
    round: Round,
    number: usize,
    connection: Arc<Connection>,
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

    /// Lets a connection take part. It looks for work itself when it subscribes, and hears from here of all that
    /// comes later.
    #[must_use]
    pub fn seat(&self, connection: Connection) -> Seat {
        let connection = Arc::new(connection);
        let mut seats = self.lock();
        let number = seats.free.pop().unwrap_or(seats.taken.len());
        if number == seats.taken.len() {
            seats.taken.push(None);
        }
        seats.taken[number] = Some(Arc::clone(&connection));
        drop(seats);
        Seat { round: self.clone(), number, connection }
    }

    /// Tells everybody of each snapshot; ends with the follower. A panic ends the connection that it was in, and the
    /// round begins anew.
    pub async fn run(self, snapshots: watch::Receiver<Arc<Snapshot>>) {
        loop {
            let told = tokio::spawn(self.clone().tell(snapshots.clone())).await;
            match told {
                Err(error) if error.is_panic() => error!("telling miners of new work: {error}"),
                _ => return,
            }
        }
    }

    async fn tell(self, mut snapshots: watch::Receiver<Arc<Snapshot>>) {
        snapshots.mark_changed();
        while snapshots.changed().await.is_ok() {
            self.go_round(&mut snapshots).await;
        }
    }

    /// Tells everybody who is here now, from any seat on, so that nobody is always the first. If there is something
    /// newer meanwhile, it goes on with that for a whole round.
    async fn go_round(&self, snapshots: &mut watch::Receiver<Arc<Snapshot>>) {
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
            batch.drain(..).for_each(|connection| connection.offer());
            (next, left) = ((next + count) % seats, left - count);
            tokio::task::yield_now().await;
            if snapshots.has_changed().unwrap_or(false) {
                snapshots.mark_unchanged();
                seats = self.lock().taken.len();
                left = seats;
            }
        }
    }
}
