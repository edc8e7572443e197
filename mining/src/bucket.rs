//! Rate limit for the requests of one connection.

use std::time::{Duration, Instant};

/// Least time between two floods that count as offences.
const FLOOD_AGAIN: Duration = Duration::from_secs(10);

/// A token bucket that holds one second's worth of requests and refills steadily.
#[derive(Debug, Clone, Copy)]
pub struct Bucket {
    tokens: f64,
    at: Instant,
    /// When a flood last counted.
    flooded: Option<Instant>,
}

impl Bucket {
    /// A full bucket.
    #[must_use]
    pub fn new(rate: f64, now: Instant) -> Self {
        Self { tokens: rate, at: now, flooded: None }
    }

    /// Takes `count` tokens. If that leaves a debt, returns when it will be paid.
    pub fn take(&mut self, count: u32, rate: f64, now: Instant) -> Option<Instant> {
        let seconds = now.saturating_duration_since(self.at).as_secs_f64();
        self.tokens = (self.tokens + seconds * rate).min(rate.max(1.0)) - f64::from(count);
        self.at = now;
        // The debt is at most one read's lines: a thousand or so.
        (self.tokens < 0.0).then(|| now + Duration::from_secs_f64((-self.tokens / rate).min(3600.0)))
    }

    /// Whether the present debt counts as a flood. A long debt counts only once per interval.
    pub fn is_flood(&mut self, now: Instant) -> bool {
        let counts = self.flooded.is_none_or(|at| now > at + FLOOD_AGAIN);
        if counts {
            self.flooded = Some(now);
        }
        counts
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

    #[test]
    fn a_flood_counts_once_in_a_while() {
        let now = Instant::now();
        let mut bucket = Bucket::new(100.0, now);
        assert!(bucket.is_flood(now) && !bucket.is_flood(now + FLOOD_AGAIN));
        assert!(bucket.is_flood(now + FLOOD_AGAIN + Duration::from_millis(1)));
    }
}
