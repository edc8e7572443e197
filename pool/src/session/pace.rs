//! How fast a connection works, whatever it wishes: a wish begins vardiff anew, and this count goes on.
//!
//! Without it a client that wishes now this and now that would never be counted, and could have every share that it
//! finds at the least difficulty taken, hashed and stored.

use std::time::{Duration, Instant};

use iop_stratum::difficulty::Difficulty;

/// Time above which the past counts as half of it: at the usual pace sixty shares, which are right within a quarter.
const WINDOW: Duration = Duration::from_secs(5 * 60);
/// Shares without which nothing is known.
const LEAST_SHARES: f64 = 8.0;
/// Part of the right difficulty that may be wished for. Eight shares come by chance where two are due once in a
/// thousand times, so an honest wish is hardly ever taken for another; and four times the usual number of shares cost
/// the pool little.
const WISHED_PART: f64 = 1.0 / 4.0;

/// A connection's accepted shares of late.
#[derive(Debug, Clone, Default)]
pub(super) struct Pace {
    /// Since when they count; the first share begins the time and does not count itself.
    since: Option<Instant>,
    shares: f64,
    /// The sum of their difficulties.
    work: f64,
}

impl Pace {
    /// A share was accepted.
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

    /// The least difficulty that may be wished for, if shares should come once in so many seconds; none where too
    /// little is known. What came faster than that counts as if it had taken as long.
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

    /// A share of a difficulty in every so many milliseconds, for so many seconds; gives the end.
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
