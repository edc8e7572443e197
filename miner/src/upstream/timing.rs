//! How long to wait for a pool.

use std::time::Duration;

/// Time-outs and waits of a pool's connection.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// From looking up the host to the open connection.
    pub connect: Duration,
    /// From the open connection to the pool's leave to work. A pool answers in two round trips.
    pub handshake: Duration,
    /// Without anything of use from the pool (a job, a difficulty, an accepted share), and without a job whatever
    /// else comes. Pools send a job at least every minute, so three minutes mean that the way is cut without
    /// either end having been told, or that the pool has nothing to mine.
    pub silence: Duration,
    /// For one line to get into the network.
    pub write: Duration,
    /// The wait after a first failure; it doubles with each failure that follows, …
    pub first_retry: Duration,
    /// … up to this one.
    pub last_retry: Duration,
    /// A connection that has lasted this long was a good one: the waits begin anew, with the first pool of
    /// the list.
    pub good_after: Duration,
    /// The longest wait that a pool may ask for with `client.reconnect`.
    pub longest_asked_wait: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            handshake: Duration::from_secs(10),
            silence: Duration::from_secs(180),
            write: Duration::from_secs(10),
            first_retry: Duration::from_millis(500),
            last_retry: Duration::from_secs(30),
            good_after: Duration::from_secs(30),
            longest_asked_wait: Duration::from_secs(60),
        }
    }
}
