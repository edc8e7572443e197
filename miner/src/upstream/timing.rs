//! Time-outs and waits for pools.

use std::time::Duration;

/// Time-outs and waits of a pool's connection.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// From the name lookup to the open connection, TLS included.
    pub connect: Duration,
    /// From the open connection to the answer to the subscription. A pool answers in one round trip.
    pub handshake: Duration,
    /// From the open connection to the pool's authorization, once the subscription is answered: a pool that was just
    /// started again has all its miners to log in, and may be busy with them for a while.
    pub login: Duration,
    /// From there to the first job, if there is another pool. Pools send one at once.
    pub first_job: Duration,
    /// How long a pool has to get ready with a job before the next one is tried too, while nothing is mined.
    pub head_start: Duration,
    /// Time without anything useful from the pool (a job, a difficulty, an accepted share), and time without a job
    /// whatever else comes. Pools send a job at least every minute, so three minutes mean that the connection is broken
    /// without notice to either end, or that the pool has nothing to mine.
    pub silence: Duration,
    /// Greatest age of the newest job if there is another pool. Three times the silence: a pool that sends no job for
    /// so long but still takes shares is cut off from its node, and its credits are worth nothing.
    pub job_age: Duration,
    /// Time for a share to be answered. A verdict takes a pool milliseconds.
    pub answer: Duration,
    /// How long all shares must be refused before a connection is given up; ten times as long if they are few.
    pub refused: Duration,
    /// Time to write one batch of lines.
    pub write: Duration,
    /// The wait after a first failure; it doubles with each failure that follows, …
    pub first_retry: Duration,
    /// … up to this one.
    pub last_retry: Duration,
    /// A connection that has lasted this long was good: the waits start over, with the first pool of the list.
    pub good_after: Duration,
    /// While a fallback is in use: from the failure of a better pool to the first check whether it is back. Doubles
    /// with each further failure; ten times as long if the pool looked fine but was useless, …
    pub first_probe: Duration,
    /// … up to this one, or ten times that.
    pub last_probe: Duration,
    /// A pool that was in use for this long has its earlier failures forgotten.
    pub steady: Duration,
    /// How long to wait for the verdicts of a pool that was left for a better one.
    pub farewell: Duration,
    /// How long such a pool still gets late finds: machines behind a gateway need time to receive the other pool's job,
    /// and some finish their current work. No longer than `farewell`.
    pub late_finds: Duration,
    /// The longest wait that a pool may ask for with `client.reconnect`.
    pub longest_asked_wait: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            handshake: Duration::from_secs(10),
            login: Duration::from_secs(60),
            first_job: Duration::from_secs(30),
            head_start: Duration::from_secs(3),
            silence: Duration::from_secs(180),
            job_age: Duration::from_secs(540),
            answer: Duration::from_secs(60),
            refused: Duration::from_secs(60),
            write: Duration::from_secs(10),
            first_retry: Duration::from_millis(500),
            last_retry: Duration::from_secs(30),
            good_after: Duration::from_secs(30),
            first_probe: Duration::from_secs(30),
            last_probe: Duration::from_secs(120),
            steady: Duration::from_secs(300),
            farewell: Duration::from_secs(5),
            late_finds: Duration::from_secs(2),
            longest_asked_wait: Duration::from_secs(60),
        }
    }
}
