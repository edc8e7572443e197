//! What one connection may take: times and rates. Settings, so that tests need not wait for minutes.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use tracing::warn;

/// How often machines can make us say something.
const REMIND: Duration = Duration::from_secs(60);

/// Limits of a connection.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// From the moment on at which there is work to the first user. A machine introduces itself at once.
    pub handshake: Duration,
    /// Silence after which a machine with work is taken for gone. Long, since a slow one at a high difficulty may find
    /// no share for long. One whose network is gone is mostly noticed earlier, by `write` or by the system.
    pub idle: Duration,
    /// Time in which something of what is queued must be taken.
    pub write: Duration,
    /// Between two pings to a machine while there is no work for it.
    pub ping: Duration,
    /// Requests a second, above zero; a second's worth may come at once. Who sends more is read later.
    pub requests_per_second: f64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(30),
            idle: Duration::from_secs(60 * 60),
            write: Duration::from_secs(30),
            ping: Duration::from_secs(30),
            requests_per_second: 1_000.0,
        }
    }
}

/// A token bucket: a second's worth of requests, filled steadily.
#[derive(Debug, Clone, Copy)]
pub struct Bucket {
    tokens: f64,
    at: Instant,
}

impl Bucket {
    /// A full one.
    #[must_use]
    pub fn new(rate: f64, now: Instant) -> Self {
        Self { tokens: rate, at: now }
    }

    /// Takes so many out. If that leaves a debt: when it is paid.
    pub fn take(&mut self, count: u32, rate: f64, now: Instant) -> Option<Instant> {
        let seconds = now.saturating_duration_since(self.at).as_secs_f64();
        self.tokens = (self.tokens + seconds * rate).min(rate.max(1.0)) - f64::from(count);
        self.at = now;
        // A bucket is in debt by one read's lines at most: a thousand or so.
        (self.tokens < 0.0).then(|| now + Duration::from_secs_f64((-self.tokens / rate).min(3600.0)))
    }
}

/// A warning that machines can bring about: once a minute, or they could fill the disk.
#[derive(Debug, Default)]
pub struct Rarely(Mutex<Option<Instant>>);

impl Rarely {
    /// Says it, if nothing was said for long.
    pub fn say(&self, text: &str) {
        let mut said = self.0.lock().expect("nothing panics while it holds the lock");
        if said.is_none_or(|at| at.elapsed() > REMIND) {
            warn!("{text}");
            *said = Some(Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_second_of_requests_may_come_at_once_and_then_they_come_at_the_rate() {
        let now = Instant::now();
        let mut bucket = Bucket::new(100.0, now);
        assert_eq!(bucket.take(100, 100.0, now), None);
        let paid = bucket.take(50, 100.0, now).unwrap();
        assert_eq!(paid, now + Duration::from_millis(500));
        assert_eq!(bucket.take(0, 100.0, paid), None);
        assert!(bucket.take(1, 100.0, paid).is_some());
        let later = paid + Duration::from_secs(1000);
        assert_eq!(bucket.take(100, 100.0, later), None, "no more than a second's worth is saved");
        assert!(bucket.take(1, 100.0, later).is_some());
    }
}
