//! Decides which pool to try next and when, and when to check whether a better one is back.

use std::time::Duration;

use tokio::time::Instant;

use super::Timing;

/// How many times longer to avoid a pool that only proved useless in use than one that is visibly away.
const SEEN_LATE: u32 = 10;

/// Steps through the list of pools, with waits that grow after each failed round.
#[derive(Debug)]
pub(super) struct Backoff {
    timing: Timing,
    /// Index of the pool to try.
    pool: usize,
    /// Failures in a row, of any pools.
    failures: u32,
    records: Vec<Record>,
}

/// How a pool did recently.
#[derive(Clone, Copy, Debug, Default)]
struct Record {
    /// Failures since it last did well.
    failures: u32,
    /// When to check it again while another pool is in use.
    probe_at: Option<Instant>,
}

impl Backoff {
    /// For a list of this many pools, at least one.
    pub(super) fn new(timing: Timing, pools: usize) -> Self {
        Self { timing, pool: 0, failures: 0, records: vec![Record::default(); pools] }
    }

    /// Index of the pool to try, or in use.
    pub(super) fn pool(&self) -> usize {
        self.pool
    }

    /// Switches to another pool, because it answers or because the user asked for it.
    pub(super) fn turn_to(&mut self, pool: usize) {
        self.pool = pool;
        self.failures = 0;
    }

    /// Switches to another pool, because it was ready first. This is no success yet: it may close at once, and the
    /// waits continue to double.
    pub(super) fn overtaken_by(&mut self, pool: usize) {
        self.pool = pool;
    }

    /// A connection ended after `lasted`, or could not be established.
    pub(super) fn ended(&mut self, lasted: Duration, now: Instant) {
        self.note(self.pool, lasted, 1, now);
        if lasted >= self.timing.good_after {
            // Start again from the top of the list, skipping pools that are still to be avoided.
            let first = (0..self.pool).find(|pool| self.records[*pool].probe_at.is_none_or(|at| at <= now));
            (self.pool, self.failures) = (first.unwrap_or(self.pool), 0);
        } else {
            self.next();
        }
    }

    /// A connection was given up because the pool was useless: the next pool is tried, however long it lasted.
    pub(super) fn given_up(&mut self, lasted: Duration, seen_late: bool, now: Instant) {
        self.note(self.pool, lasted, if seen_late { SEEN_LATE } else { 1 }, now);
        if lasted >= self.timing.good_after {
            self.failures = 0;
        }
        self.next();
    }

    /// A pool was checked while another one is in use, and is not back.
    pub(super) fn still_away(&mut self, pool: usize, now: Instant) {
        self.note(pool, Duration::ZERO, 1, now);
    }

    /// How long to wait before the next try: between half and all of a time that doubles with every round through the
    /// list. The fraction is random, so that miners which lost their pool at the same time do not return at the same
    /// time.
    pub(super) fn wait(&self) -> Duration {
        by_chance(self.full_wait())
    }

    /// While the current pool is in use: which better one to check, and when.
    pub(super) fn probe(&self, now: Instant) -> Option<(usize, Instant)> {
        let better = self.records.iter().take(self.pool).enumerate();
        better.map(|(pool, record)| (pool, record.probe_at.unwrap_or(now))).min_by_key(|(_, at)| *at)
    }

    fn next(&mut self) {
        self.failures = self.failures.saturating_add(1);
        self.pool = (self.pool + 1) % self.records.len();
    }

    fn note(&mut self, pool: usize, lasted: Duration, factor: u32, now: Instant) {
        let Timing { first_probe, last_probe, steady, .. } = self.timing;
        let record = &mut self.records[pool];
        record.failures = if lasted >= steady { 1 } else { record.failures.saturating_add(1) };
        let wait = doubled(first_probe, record.failures - 1, last_probe);
        record.probe_at = Some(now + by_chance(wait.saturating_mul(factor)));
    }

    fn full_wait(&self) -> Duration {
        let rounds = self.failures.saturating_sub(1) / u32::try_from(self.records.len()).unwrap_or(u32::MAX);
        doubled(self.timing.first_retry, rounds, self.timing.last_retry)
    }
}

/// `first`, doubled this many times, up to `last`.
fn doubled(first: Duration, times: u32, last: Duration) -> Duration {
    let wait = 2u32.checked_pow(times).and_then(|factor| first.checked_mul(factor));
    wait.map_or(last, |wait| wait.min(last))
}

/// A random time between half of `full` and all of it.
pub(super) fn by_chance(full: Duration) -> Duration {
    // Without random numbers all miners return at once: worse, but no reason to stop.
    let chance = getrandom::u32().map_or(1.0, |number| f64::from(number) / f64::from(u32::MAX));
    full.mul_f64(0.5 + chance / 2.0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const MOMENT: Duration = Duration::from_millis(1);

    #[test]
    fn one_pool_is_tried_after_waits_that_double_up_to_the_longest() {
        let (mut backoff, now) = (Backoff::new(Timing::default(), 1), Instant::now());
        let waits: Vec<u128> = (0..9)
            .map(|_| {
                backoff.ended(MOMENT, now);
                backoff.full_wait().as_millis()
            })
            .collect();
        assert_eq!(waits, [500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000, 30_000]);
        backoff.failures = u32::MAX;
        backoff.ended(MOMENT, now);
        assert_eq!(backoff.full_wait(), Duration::from_secs(30));
    }

    #[test]
    fn the_list_is_gone_through_in_order_and_a_good_connection_starts_it_anew() {
        let (mut backoff, start) = (Backoff::new(Timing::default(), 3), Instant::now());
        let mut next = |lasted, now| {
            backoff.ended(lasted, now);
            (backoff.pool(), backoff.full_wait().as_millis())
        };
        let tried: Vec<_> = (0..8).map(|_| next(MOMENT, start)).collect();
        let expected = [(1, 500), (2, 500), (0, 500), (1, 1000), (2, 1000), (0, 1000), (1, 2000), (2, 2000)];
        assert_eq!(tried, expected);
        let good = Duration::from_secs(30);
        assert_eq!(next(good, start + good), (2, 500), "those before it failed a moment ago");
        assert_eq!(next(good, start + Duration::from_secs(600)), (0, 500));
        assert_eq!(next(good, start + Duration::from_secs(630)), (0, 500));
    }

    #[test]
    fn a_pool_that_is_given_up_is_followed_by_the_next_and_not_by_the_first() {
        let (mut backoff, now) = (Backoff::new(Timing::default(), 3), Instant::now());
        backoff.ended(Duration::from_secs(3600), now);
        backoff.given_up(Duration::from_secs(3600), false, now);
        assert_eq!(backoff.pool(), 1);
        backoff.given_up(Duration::from_secs(3600), true, now);
        assert_eq!(backoff.pool(), 2);
        backoff.turn_to(1);
        backoff.given_up(MOMENT, true, now);
        assert_eq!(backoff.pool(), 2);
    }

    #[test]
    fn a_pool_that_is_ready_first_and_closes_makes_waits_double_and_a_good_connection_ends_that() {
        let (mut backoff, now) = (Backoff::new(Timing::default(), 2), Instant::now());
        for _ in 0..12 {
            backoff.still_away(0, now);
            backoff.overtaken_by(1);
            backoff.ended(MOMENT, now);
            assert_eq!(backoff.pool(), 0);
        }
        assert_eq!(backoff.full_wait(), Duration::from_secs(16));
        backoff.given_up(Duration::from_secs(30), false, now);
        assert_eq!((backoff.pool(), backoff.full_wait().as_millis()), (1, 500));
    }

    #[test]
    fn waits_differ_by_chance_within_half_and_full() {
        let mut backoff = Backoff::new(Timing::default(), 1);
        backoff.ended(MOMENT, Instant::now());
        let waits: Vec<Duration> = (0..100).map(|_| backoff.wait()).collect();
        assert!(waits.iter().all(|wait| (250..=500).contains(&wait.as_millis())));
        assert!(waits.iter().any(|wait| *wait != waits[0]));
    }

    /// Whether it is between half and all of this many seconds.
    fn about(wait: Duration, seconds: u64) -> bool {
        (seconds * 500..=seconds * 1000).contains(&(wait.as_millis() as u64))
    }

    #[test]
    fn only_better_pools_are_looked_at_and_those_that_fail_less_and_less_often() {
        let (mut backoff, now) = (Backoff::new(Timing::default(), 3), Instant::now());
        assert_eq!(backoff.probe(now), None, "there is no better one than the first");
        for seconds in [30, 60, 120, 120] {
            backoff.still_away(0, now);
            backoff.turn_to(1);
            let (pool, at) = backoff.probe(now).unwrap();
            assert!(pool == 0 && about(at - now, seconds), "{:?}", at - now);
        }
        backoff.turn_to(2);
        assert_eq!(backoff.probe(now), Some((1, now)), "one that was not tried yet");
        for _ in 0..4 {
            backoff.still_away(1, now + Duration::from_secs(300));
        }
        assert_eq!(backoff.probe(now).unwrap().0, 0);
    }

    #[test]
    fn a_pool_that_only_looked_well_is_left_alone_longer_until_it_does_well() {
        let (mut backoff, now) = (Backoff::new(Timing::default(), 2), Instant::now());
        let mut wait = |lasted: u64| {
            backoff.turn_to(0);
            backoff.given_up(Duration::from_secs(lasted), true, now);
            backoff.probe(now).unwrap().1 - now
        };
        assert!(about(wait(60), 300));
        assert!(about(wait(60), 600));
        assert!(about(wait(60), 1200));
        assert!(about(wait(60), 1200));
        assert!(about(wait(300), 300));
    }
}
