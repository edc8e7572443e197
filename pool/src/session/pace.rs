//! How fast a connection really works, whatever it suggests: a suggestion restarts vardiff, but not this count.
//!
//! Without it, a client that alternates between suggested difficulties would never be measured, and the pool would have
//! to accept, hash and store every share it finds at the minimum difficulty.

use std::time::{Duration, Instant};

use iop_stratum::difficulty::Difficulty;

/// The time after which past work is halved. At the usual pace it holds sixty shares, which are right within a quarter.
const WINDOW: Duration = Duration::from_secs(5 * 60);
/// With fewer shares than this, nothing is known.
const LEAST_SHARES: f64 = 8.0;
/// The fraction of the right difficulty that a client may suggest. Where two shares are due, eight come by chance once
/// in a thousand times, so an honest suggestion is hardly ever overruled; and four times the usual number of shares
/// cost the pool little.
const WISHED_PART: f64 = 1.0 / 4.0;

/// A connection's recently accepted shares.
#[derive(Debug, Clone, Default)]
pub(super) struct Pace {
    /// When the count began. The first share starts the clock and is not counted itself.
    since: Option<Instant>,
    shares: f64,
    /// The sum of their difficulties.
    work: f64,
}

impl Pace {
    /// Counts an accepted share.
    pub(super) fn on_share(&mut self, difficulty: Difficulty, now: Instant) {
        let Some(since) = self.since else {
            self.since = Some(now);
            return;
        };
        let elapsed = now.saturating_duration_since(since);
        if elapsed > WINDOW {
            let kept = (WINDOW / 2).as_secs_f64() / elapsed.as_secs_f64();
            self.shares *= kept;
            self.work *= kept;
            self.since = Some(now - WINDOW / 2);
        }
        self.shares += 1.0;
        self.work += difficulty.get();
    }

    /// The least difficulty that may be suggested if shares should come every `seconds_per_share`; `None` while too
    /// little is known. A shorter elapsed time counts as `seconds_per_share`.
    pub(super) fn least_wish(&self, seconds_per_share: f64, now: Instant) -> Option<Difficulty> {
        let seconds = now.saturating_duration_since(self.since?).as_secs_f64().max(seconds_per_share);
        let right = self.work / seconds * seconds_per_share;
        Difficulty::new(right * WISHED_PART).filter(|_| self.shares >= LEAST_SHARES)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const SECONDS: f64 = 5.0;

    fn difficulty(value: f64) -> Difficulty {
        Difficulty::new(value).unwrap()
    }

    /// Adds a share of the difficulty every `millis` milliseconds for `seconds` seconds; returns the end time.
    fn work(pace: &mut Pace, begun: Instant, each: f64, millis: u64, seconds: u64) -> Instant {
        let at = |number: u64| begun + Duration::from_millis(millis * number);
        (1..=seconds * 1000 / millis).for_each(|number| pace.on_share(difficulty(each), at(number)));
        begun + Duration::from_secs(seconds)
    }

    fn is_about(found: Option<Difficulty>, expected: f64) -> bool {
        (found.unwrap().get() / expected - 1.0).abs() < 0.05
    }

    #[test]
    fn a_quarter_of_what_the_pace_speaks_for_may_be_wished_whatever_the_shares_were_worth() {
        let (mut pace, begun) = (Pace::default(), Instant::now());
        let now = work(&mut pace, begun, 100.0, 5000, 600);
        assert!(is_about(pace.least_wish(SECONDS, now), 25.0));
        let now = work(&mut pace, now, 1.0, 50, 600);
        assert!(is_about(pace.least_wish(SECONDS, now), 25.0), "many easy ones are the same work");
    }

    #[test]
    fn a_few_shares_say_nothing() {
        let (mut pace, now) = (Pace::default(), Instant::now());
        assert_eq!(pace.least_wish(SECONDS, now), None);
        for _ in 0..8 {
            pace.on_share(difficulty(1.0), now);
            assert_eq!(pace.least_wish(SECONDS, now), None);
        }
        pace.on_share(difficulty(1.0), now);
        assert_eq!(pace.least_wish(SECONDS, now), Some(difficulty(2.0)), "eight, in five seconds at least");
    }

    #[test]
    fn what_was_long_ago_is_forgotten() {
        let (mut pace, begun) = (Pace::default(), Instant::now());
        let now = work(&mut pace, begun, 100.0, 5000, 600) + Duration::from_secs(4 * 3600);
        pace.on_share(difficulty(1.0), now);
        assert_eq!(pace.least_wish(SECONDS, now), None);
        let now = work(&mut pace, now, 1.0, 5000, 900);
        assert!(is_about(pace.least_wish(SECONDS, now), 0.25));
    }
}
