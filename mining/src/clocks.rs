//! Compares this machine's clock, as the caller has read it, with the node's. Headers carry the node's time,
//! whatever this machine's is.

use std::fmt;
use std::time::{Duration, Instant};

use iop_consensus::header::MAX_FUTURE_BLOCK_TIME;

/// How often the warning that the clocks differ is repeated.
const REMIND: Duration = Duration::from_secs(10 * 60);
/// Seconds in a day.
const DAY: u64 = 24 * 60 * 60;

/// Seconds since 1970, displayed as date and time in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Utc(u64);

impl fmt::Display for Utc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Years are counted from March, so that a leap day is the last day of a year; eras of 400 years are
        // all alike.
        let (days, second) = (self.0 / DAY + 719_468, self.0 % DAY);
        let (era, day_of_era) = (days / 146_097, days % 146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * shifted + 2) / 5 + 1;
        let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
        let year = era * 400 + year_of_era + u64::from(month <= 2);
        let (hour, minute) = (second / 3600, second / 60 % 60);
        write!(f, "{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{:02} UTC", second % 60)
    }
}

/// A message about the clocks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Words {
    /// They differ by more than the chain allows: a clause with both times.
    Wrong(String),
    /// They no longer differ.
    Right,
}

/// Remembers the last message.
#[derive(Debug, Default)]
pub struct Clocks {
    said: Option<Instant>,
}

impl Clocks {
    /// Compares a template's time with this machine's, both in seconds since 1970.
    ///
    /// A template's time is the node's clock or, if later, just after the median of the last blocks: at most
    /// two hours ahead of the node's clock, or the node would not have accepted those blocks.
    #[must_use]
    pub fn compare(&mut self, node: u32, local: u64, now: Instant) -> Option<Words> {
        let node = u64::from(node);
        if node.abs_diff(local) <= MAX_FUTURE_BLOCK_TIME {
            return self.said.take().map(|_| Words::Right);
        }
        if self.said.is_some_and(|said| now - said < REMIND) {
            return None;
        }
        self.said = Some(now);
        let (side, hours) = if local > node { ("ahead of", local - node) } else { ("behind", node - local) };
        Some(Words::Wrong(format!(
            "this machine's clock ({}) is {:.1} h {side} the node's ({}); the chain allows {} h, so one of them is \
             wrong",
            Utc(local),
            hours as f64 / 3600.0,
            Utc(node),
            MAX_FUTURE_BLOCK_TIME / 3600,
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_shown_as_the_calendar_has_them() {
        for (seconds, shown) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_782_399, "2000-02-28 23:59:59 UTC"),
            (951_782_400, "2000-02-29 00:00:00 UTC"),
            (951_868_800, "2000-03-01 00:00:00 UTC"),
            (1_700_000_000, "2023-11-14 22:13:20 UTC"),
            (4_102_444_800, "2100-01-01 00:00:00 UTC"),
            (4_107_542_400, "2100-03-01 00:00:00 UTC"),
        ] {
            assert_eq!(Utc(seconds).to_string(), shown);
        }
    }

    #[test]
    fn clocks_that_differ_by_more_than_two_hours_are_named_with_both_times_now_and_then() {
        let (mut clocks, now) = (Clocks::default(), Instant::now());
        let node = 1_700_000_000;
        assert_eq!(clocks.compare(node, 1_700_007_200, now), None);
        let Some(Words::Wrong(words)) = clocks.compare(node, 1_700_010_800, now) else { panic!("a warning") };
        assert!(
            words
                .contains("(2023-11-15 01:13:20 UTC) is 3.0 h ahead of the node's (2023-11-14 22:13:20 UTC)"),
            "{words}"
        );
        assert_eq!(clocks.compare(node, 1_700_010_801, now), None, "said a moment ago");
        let Some(Words::Wrong(words)) = clocks.compare(node, 0, now + REMIND) else { panic!("a warning") };
        assert!(words.contains("(1970-01-01 00:00:00 UTC) is 472222.2 h behind"), "{words}");
        assert_eq!(clocks.compare(node, 1_700_000_001, now + REMIND), Some(Words::Right));
        assert_eq!(clocks.compare(node, 1_700_000_001, now + REMIND), None);
    }
}
