//! Hash rates: their text form, and their values over the last seconds and minutes.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

/// Hashes per second; prints with a unit that fits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HashRate(pub f64);

impl HashRate {
    /// The rate of this many hashes in this time; 0 if no time passed.
    #[must_use]
    pub fn new(hashes: u128, elapsed: Duration) -> Self {
        let seconds = elapsed.as_secs_f64();
        Self(if seconds > 0.0 { hashes as f64 / seconds } else { 0.0 })
    }
}

impl fmt::Display for HashRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut rate, mut units) = (self.0, ["H/s", "kH/s", "MH/s", "GH/s", "TH/s"].into_iter().peekable());
        while let Some(unit) = units.next() {
            if rate < 1000.0 || units.peek().is_none() {
                return write!(f, "{rate:.2} {unit}");
            }
            rate /= 1000.0;
        }
        unreachable!("the last unit returns")
    }
}

/// How often [`History::sample`] is to be called.
pub const SAMPLE_EVERY: Duration = Duration::from_secs(1);
/// Samples, one a second, for the short windows: a minute.
const FINE: usize = 60;
/// Seconds between the samples for the long windows.
const COARSE_STEP: u64 = 15;
/// Number of those samples: a quarter of an hour.
const COARSE: usize = 60;

/// The longest window.
const QUARTER: Duration = Duration::from_secs(15 * 60);

/// Hash rates of a device over several windows, in hashes per second. A window longer than the device's run covers the
/// whole run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates {
    /// Over the last five seconds.
    pub five_seconds: HashRate,
    /// Over the last ten seconds.
    pub ten_seconds: HashRate,
    /// Over the last minute.
    pub minute: HashRate,
    /// Over the last five minutes.
    pub five_minutes: HashRate,
    /// Over the last quarter of an hour.
    pub quarter: HashRate,
    /// Since the device started.
    pub average: HashRate,
}

/// Samples of a hash counter, one a second: two kilobytes per device.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// Time since the start and hashes, newest last.
    fine: VecDeque<(Duration, u128)>,
    coarse: VecDeque<(Duration, u128)>,
}

impl History {
    /// Records the number of hashes at a time since the start.
    pub fn sample(&mut self, elapsed: Duration, hashes: u128) {
        let due = self.coarse.back().is_none_or(|(last, _)| (elapsed - *last).as_secs() >= COARSE_STEP);
        if due {
            push(&mut self.coarse, COARSE, (elapsed, hashes));
        }
        push(&mut self.fine, FINE, (elapsed, hashes));
    }

    /// The time of the newest sample, and the rate over the quarter of an hour up to it.
    #[must_use]
    pub fn last_quarter(&self) -> Option<(Duration, HashRate)> {
        let (elapsed, hashes) = *self.fine.back()?;
        Some((elapsed, self.over(QUARTER, elapsed, hashes)))
    }

    fn over(&self, window: Duration, elapsed: Duration, hashes: u128) -> HashRate {
        let from = elapsed.saturating_sub(window);
        let samples = self.coarse.iter().chain(&self.fine);
        // The oldest sample within the window; before the first sample, the start counts.
        let oldest = samples.filter(|(at, _)| *at >= from).min().copied();
        let (at, then) = match oldest {
            Some(sample) if !from.is_zero() => sample,
            _ => (Duration::ZERO, 0),
        };
        HashRate::new(hashes.saturating_sub(then), elapsed.saturating_sub(at))
    }

    /// The rates up to now.
    #[must_use]
    pub fn rates(&self, elapsed: Duration, hashes: u128) -> Rates {
        let over = |window| self.over(window, elapsed, hashes);
        Rates {
            five_seconds: over(Duration::from_secs(5)),
            ten_seconds: over(Duration::from_secs(10)),
            minute: over(Duration::from_secs(60)),
            five_minutes: over(Duration::from_secs(5 * 60)),
            quarter: over(QUARTER),
            average: HashRate::new(hashes, elapsed),
        }
    }

    /// The rate of each second of the last minute, oldest first.
    #[must_use]
    pub fn by_second(&self) -> Vec<HashRate> {
        let pairs = self.fine.iter().zip(self.fine.iter().skip(1));
        pairs.map(|(from, to)| HashRate::new(to.1.saturating_sub(from.1), to.0 - from.0)).collect()
    }
}

fn push(ring: &mut VecDeque<(Duration, u128)>, most: usize, sample: (Duration, u128)) {
    if ring.len() > most {
        ring.pop_front();
    }
    ring.push_back(sample);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_take_the_unit_that_fits() {
        let rate = |hashes| HashRate::new(hashes, Duration::from_secs(2)).to_string();
        assert_eq!(rate(0), "0.00 H/s");
        assert_eq!(rate(1_998), "999.00 H/s");
        assert_eq!(rate(78_624_000), "39.31 MH/s");
        assert_eq!(rate(u64::MAX.into()), "9223372.04 TH/s");
        assert_eq!(HashRate::new(5, Duration::ZERO), HashRate(0.0));
    }

    #[test]
    fn windows_see_what_lies_within_them() {
        let mut history = History::default();
        let mut hashes = 0;
        // An hour at 100 a second, then ten minutes at 700, then 20 seconds of nothing.
        for second in 0..=3600 + 600 + 20u64 {
            history.sample(Duration::from_secs(second), hashes);
            hashes += match second {
                0..3600 => 100,
                3600..4200 => 700,
                _ => 0,
            };
        }
        let rates = history.rates(Duration::from_secs(4220), hashes);
        assert_eq!([rates.five_seconds, rates.ten_seconds], [HashRate(0.0); 2]);
        let five_minutes = 280.0 * 700.0 / 300.0;
        assert!((rates.five_minutes.0 - five_minutes).abs() < five_minutes * 0.06, "{rates:?}");
        assert!((rates.minute.0 - 700.0 * 40.0 / 60.0).abs() < 1.0, "{rates:?}");
        let quarter = (280.0 * 100.0 + 600.0 * 700.0) / 900.0;
        assert!((rates.quarter.0 - quarter).abs() < quarter * 0.02, "{rates:?}");
        assert_eq!(rates.average, HashRate((360_000 + 420_000) as f64 / 4220.0));
        assert_eq!(history.last_quarter(), Some((Duration::from_secs(4220), rates.quarter)));
        assert_eq!(history.by_second().len(), FINE);
    }

    #[test]
    fn a_young_device_has_its_average_in_every_window() {
        let mut history = History::default();
        history.sample(Duration::from_secs(1), 0);
        history.sample(Duration::from_secs(2), 500);
        let rates = history.rates(Duration::from_secs(4), 2000);
        let windows =
            [rates.five_seconds, rates.ten_seconds, rates.minute, rates.five_minutes, rates.quarter];
        assert_eq!(windows, [HashRate(500.0); 5]);
        assert_eq!(rates.average, HashRate(500.0));
        assert_eq!(History::default().rates(Duration::ZERO, 0).average, HashRate(0.0));
    }
}
