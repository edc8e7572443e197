//! How long to wait for a pool.

use std::time::Duration;

/// Time-outs and waits of a pool's connection.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// From looking up the host to the open connection, TLS included.
    pub connect: Duration,
    /// From the open connection to the pool's leave to work. A pool answers in two round trips.
    pub handshake: Duration,
    /// From there to the first job, where there is another pool to go to. Pools send one at once.
    pub first_job: Duration,
    /// How long a pool has to be ready with a job before the next one is tried as well, while nothing is mined.
    pub head_start: Duration,
    /// Without anything of use from the pool (a job, a difficulty, an accepted share), and without a job whatever
    /// else comes. Pools send a job at least every minute, so three minutes mean that the way is cut without
    /// either end having been told, or that the pool has nothing to mine.
    pub silence: Duration,
    /// How old the newest job may become where there is another pool to go to. Three times the silence: a pool that sends
    /// no job for so long and still takes shares is cut off from its node, and what it credits is worth nothing.
    pub job_age: Duration,
    /// For a share to be answered. A verdict takes a pool milliseconds.
    pub answer: Duration,
    /// How long all shares are refused before a pool is left for another one; ten times as long where they are few.
    pub refused: Duration,
    /// For one line to get into the network.
    pub write: Duration,
    /// The wait after a first failure; it doubles with each failure that follows, …
    pub first_retry: Duration,
    /// … up to this one.
    pub last_retry: Duration,
    /// A connection that has lasted this long was a good one: the waits begin anew, with the first pool of
    /// the list.
    pub good_after: Duration,
    /// While a fallback is mined at: from the failure of a pool before it to the first look whether it is back. Doubles
    /// with each failure that follows; ten times as long where the pool looked well and was of no use, …
    pub first_probe: Duration,
    /// … up to this one, or ten times that.
    pub last_probe: Duration,
    /// A pool that was mined at for this long has its earlier failures forgotten.
    pub steady: Duration,
    /// How long verdicts of a pool are waited for that we have left for a better one.
    pub farewell: Duration,
    /// How long such a pool still gets what was found for it: machines behind a gateway hear of the other pool's job within
    /// their way there, and some finish what they are at. No longer than `farewell`.
    pub late_finds: Duration,
    /// The longest wait that a pool may ask for with `client.reconnect`.
    pub longest_asked_wait: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            handshake: Duration::from_secs(10),
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
