//! Which pool to try next, and when.

use std::time::Duration;

use super::Timing;

/// Goes through the list of pools, and waits longer after each failed round.
#[derive(Debug)]
pub(super) struct Backoff {
    timing: Timing,
    pools: usize,
    failures: u32,
}

impl Backoff {
    /// For a list of so many pools, at least one.
    pub(super) fn new(timing: Timing, pools: usize) -> Self {
        Self { timing, pools, failures: 0 }
    }

    /// The place in the list of the pool to try.
    pub(super) fn pool(&self) -> usize {
        self.failures as usize % self.pools
    }

    /// A connection ended, or did not come about, after `lasted`.
    pub(super) fn ended(&mut self, lasted: Duration) {
        if lasted >= self.timing.good_after {
            self.failures = 0;
        } else {
            self.given_up();
        }
    }

    /// A connection was given up, since the pool had nothing to mine: the next pool's turn, however long it
    /// lasted.
    pub(super) fn given_up(&mut self) {
        self.failures = self.failures.saturating_add(1);
    }

    /// How long to wait before the next try: between half and all of a time that doubles with every round
    /// through the list. The part comes by chance, so that miners which lost their pool together do not come
    /// back together.
    pub(super) fn wait(&self) -> Duration {
        // Without chance all miners come at once: worse, and no reason to stop.
        let chance = getrandom::u32().map_or(1.0, |number| f64::from(number) / f64::from(u32::MAX));
        self.full_wait().mul_f64(0.5 + chance / 2.0)
    }

    fn full_wait(&self) -> Duration {
        let rounds = self.failures.saturating_sub(1) as usize / self.pools;
        let doubled = u32::try_from(rounds).ok().and_then(|rounds| 2u32.checked_pow(rounds));
        let wait = doubled.and_then(|factor| self.timing.first_retry.checked_mul(factor));
        wait.map_or(self.timing.last_retry, |wait| wait.min(self.timing.last_retry))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOMENT: Duration = Duration::from_millis(1);

    #[test]
    fn one_pool_is_tried_after_waits_that_double_up_to_the_longest() {
        let mut backoff = Backoff::new(Timing::default(), 1);
        let waits: Vec<u128> = (0..9)
            .map(|_| {
                backoff.ended(MOMENT);
                backoff.full_wait().as_millis()
            })
            .collect();
        assert_eq!(waits, [500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000, 30_000]);
        backoff.failures = u32::MAX;
        backoff.ended(MOMENT);
        assert_eq!(backoff.full_wait(), Duration::from_secs(30));
    }

    #[test]
    fn the_list_is_gone_through_in_order_and_a_good_connection_starts_it_anew() {
        let mut backoff = Backoff::new(Timing::default(), 3);
        let mut next = |lasted| {
            backoff.ended(lasted);
            (backoff.pool(), backoff.full_wait().as_millis())
        };
        let tried: Vec<_> = (0..7).map(|_| next(MOMENT)).collect();
        assert_eq!(tried, [(1, 500), (2, 500), (0, 500), (1, 1000), (2, 1000), (0, 1000), (1, 2000)]);
        assert_eq!(next(Duration::from_secs(30)), (0, 500));
    }

    #[test]
    fn a_pool_that_is_given_up_is_followed_by_the_next_and_not_by_the_first() {
        let mut backoff = Backoff::new(Timing::default(), 3);
        backoff.ended(Duration::from_secs(3600));
        backoff.given_up();
        assert_eq!(backoff.pool(), 1);
        backoff.given_up();
        assert_eq!(backoff.pool(), 2);
    }

    #[test]
    fn waits_differ_by_chance_within_half_and_full() {
        let mut backoff = Backoff::new(Timing::default(), 1);
        backoff.ended(MOMENT);
        let waits: Vec<Duration> = (0..100).map(|_| backoff.wait()).collect();
        assert!(waits.iter().all(|wait| (250..=500).contains(&wait.as_millis())));
        assert!(waits.iter().any(|wait| *wait != waits[0]));
    }
}
