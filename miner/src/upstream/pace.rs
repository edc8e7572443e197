//! A rate limit for what a pool can make us do.

use std::time::Duration;

use tokio::time::Instant;

/// Allows a burst at once, and a rate per second in the long run.
#[derive(Debug)]
pub(super) struct Pace {
    burst: f64,
    per_second: f64,
    /// The amount spent and not yet renewed; above `burst`, a pause is due.
    spent: f64,
    at: Instant,
}

impl Pace {
    pub(super) fn new(burst: u32, per_second: u32, now: Instant) -> Self {
        Self { burst: burst.into(), per_second: per_second.into(), spent: 0.0, at: now }
    }

    /// Spends an amount, even beyond what is left.
    pub(super) fn spend(&mut self, amount: u32, now: Instant) {
        let back = now.saturating_duration_since(self.at).as_secs_f64() * self.per_second;
        self.spent = (self.spent - back).max(0.0) + f64::from(amount);
        self.at = now;
    }

    /// When more may be spent; a past time if it may be now.
    pub(super) fn free_at(&self) -> Instant {
        let over = (self.spent - self.burst + 1.0).max(0.0);
        self.at + Duration::from_secs_f64(over / self.per_second)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_goes_at_once_and_a_flood_at_its_rate() {
        let start = Instant::now();
        let mut pace = Pace::new(4, 100, start);
        for _ in 0..4 {
            assert!(pace.free_at() <= start);
            pace.spend(1, start);
        }
        let mut now = start;
        for done in 1..=50u32 {
            now = pace.free_at();
            let expected = start + Duration::from_millis(10) * done;
            assert!(now >= expected - Duration::from_millis(1) && now <= expected + Duration::from_millis(1));
            pace.spend(1, now);
        }
        let later = now + Duration::from_secs(3600);
        pace.spend(4, later);
        assert!(pace.free_at() > later, "rest does not add up to more than a burst");
    }

    #[test]
    fn what_went_beyond_is_paid_for_by_a_longer_pause() {
        let start = Instant::now();
        let mut pace = Pace::new(10, 10, start);
        pace.spend(1009, start);
        assert!(pace.free_at() >= start + Duration::from_millis(99_900));
    }
}
