//! Work over time, in memory, for hash rates and charts. It starts empty with every start of the pool.
//!
//! An accepted share adds its difficulty to the bucket of its time; full buckets are kept for a fixed span, then the
//! oldest is dropped. There is no timer: buckets turn when a share arrives or a rate is read.

use std::collections::VecDeque;

use iop_stratum::difficulty::HASHES_AT_1;
use serde::Serialize;

/// Seconds in a minute's bucket.
const MINUTE: u64 = 60;
/// Minute buckets in an hour.
const HOUR_OF_MINUTES: usize = 60;
/// Minute buckets in a day: 6 KB, kept once, for the pool.
const DAY_OF_MINUTES: usize = 24 * 60;
/// Seconds in a quarter-hour bucket. A worker's day is kept in quarter hours: with its hour, at most 800 bytes, so 80
/// MB for the 100,000 workers that are listed at most, if all of them have had shares.
const QUARTER: u64 = 15 * 60;
/// Quarter-hour buckets in a day.
const DAY_OF_QUARTERS: usize = 24 * 4;
/// Least number of seconds that a rate is computed over: a first share after one second says little.
const LEAST_TIME: u64 = 10;
/// Buckets that a clock may be set back by without moving the current bucket. Work in so short a time is added to the
/// current bucket; after a larger step, everything until the clock catches up would be added to it.
const SET_BACK: u64 = 2;
/// The current bucket is shown on a chart once 1/`SHOWN_PART` of it is over.
const SHOWN_PART: u64 = 2;

/// Estimated hashes per second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct HashRate {
    /// Over the last ten minutes, or since the start if that is less.
    pub ten_minutes: u64,
    /// Over the last hour, or since the start if that is less.
    pub hour: u64,
}

/// The time span of a chart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Span {
    /// The last hour.
    Hour,
    /// The last day.
    Day,
}

/// A series of hash rates, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rates {
    /// Seconds per value.
    pub step: u64,
    /// Start of the first value, in seconds since 1970; a multiple of `step`.
    pub from: u64,
    /// Estimated hashes per second.
    pub hash_rate: Vec<u64>,
}

/// Work of one worker or of all.
#[derive(Debug)]
pub struct History {
    minutes: Series,
    quarters: Option<Series>,
}

impl History {
    /// History of the whole pool: a day of minutes. Times here and below are in seconds since 1970.
    #[must_use]
    pub fn of_pool(begun: u64) -> Self {
        Self { minutes: Series::new(begun, MINUTE, DAY_OF_MINUTES), quarters: None }
    }

    /// History of a worker: an hour of minutes, a day of quarter hours.
    #[must_use]
    pub fn of_worker(begun: u64) -> Self {
        let quarters = Some(Series::new(begun, QUARTER, DAY_OF_QUARTERS));
        Self { minutes: Series::new(begun, MINUTE, HOUR_OF_MINUTES), quarters }
    }

    /// Adds the difficulty of an accepted share.
    pub fn add(&mut self, difficulty: f64, now: u64) {
        self.minutes.add(difficulty, now);
        if let Some(quarters) = &mut self.quarters {
            quarters.add(difficulty, now);
        }
    }

    /// The current hash rate.
    pub fn hash_rate(&mut self, now: u64) -> HashRate {
        self.minutes.turn(now);
        HashRate { ten_minutes: self.recent(10, now), hour: self.recent(HOUR_OF_MINUTES, now) }
    }

    /// Hash rate over the current minute and this many before it.
    fn recent(&self, minutes: usize, now: u64) -> u64 {
        let from = self.minutes.slot.saturating_sub(minutes as u64) * MINUTE;
        let work = self.minutes.current
            + self.minutes.past.iter().rev().take(minutes).map(|&work| f64::from(work)).sum::<f64>();
        rate(work, now.saturating_sub(from.max(self.minutes.begun)))
    }

    /// Rates for a chart.
    pub fn rates(&mut self, span: Span, now: u64) -> Rates {
        match (&mut self.quarters, span) {
            (Some(quarters), Span::Day) => quarters.rates(DAY_OF_QUARTERS, now),
            (None, Span::Day) => self.minutes.rates(DAY_OF_MINUTES, now),
            (_, Span::Hour) => self.minutes.rates(HOUR_OF_MINUTES, now),
        }
    }
}

/// Hashes per second for this much work in this many seconds.
fn rate(work: f64, seconds: u64) -> u64 {
    let hashes = work * HASHES_AT_1 / seconds.max(LEAST_TIME) as f64;
    hashes.round() as u64
}

/// Work in buckets of equal length.
#[derive(Debug)]
struct Series {
    /// When it began, in seconds since 1970.
    begun: u64,
    /// Seconds in a bucket.
    step: u64,
    /// Buckets that are kept in addition to the current one.
    kept: usize,
    /// The current bucket's number: its time divided by `step`.
    slot: u64,
    /// The current bucket's work. It sums many small values, so it has more precision than the stored buckets.
    current: f64,
    past: VecDeque<f32>,
}

impl Series {
    fn new(begun: u64, step: u64, kept: usize) -> Self {
        Self { begun, step, kept, slot: begun / step, current: 0.0, past: VecDeque::new() }
    }

    fn add(&mut self, difficulty: f64, now: u64) {
        self.turn(now);
        self.current += difficulty;
    }

    /// Makes the bucket of this time the current one. If the clock was set back a little, work is added to the current
    /// bucket; if it was set back far, all buckets move back with it.
    fn turn(&mut self, now: u64) {
        let slot = now / self.step;
        if self.slot > slot + SET_BACK {
            self.set_back(slot, now);
        }
        let turns = slot.saturating_sub(self.slot);
        if turns == 0 {
            return;
        }
        self.push(self.current as f32);
        self.current = 0.0;
        for _ in 1..turns.min(self.kept as u64 + 1) {
            self.push(0.0);
        }
        self.slot = slot;
    }

    /// Moves all buckets back to this time, with the current one as a full one. So no bucket has more work than its
    /// time allows, though some may be missing if the clock was ahead for a while.
    fn set_back(&mut self, slot: u64, now: u64) {
        if self.past.is_empty() && self.current == 0.0 {
            *self = Self::new(now, self.step, self.kept);
            return;
        }
        let back = (self.slot + 1 - slot).saturating_mul(self.step);
        self.begun = self.begun.saturating_sub(back);
        self.push(self.current as f32);
        (self.slot, self.current) = (slot, 0.0);
        while self.past.len() as u64 > slot {
            self.past.pop_front(); // no bucket is before 1970
        }
    }

    fn push(&mut self, work: f32) {
        if self.past.len() >= self.kept {
            self.past.pop_front();
        }
        self.past.push_back(work);
    }

    /// The last `limit` buckets as rates. The current one is included once half of it is over, or if there is no other.
    fn rates(&mut self, limit: usize, now: u64) -> Rates {
        self.turn(now);
        let skipped = self.past.len().saturating_sub(limit);
        let first = self.slot - self.past.len() as u64 + skipped as u64;
        let seconds = |slot: u64, end: u64| end.saturating_sub((slot * self.step).max(self.begun));
        let full = (first..).zip(self.past.iter().skip(skipped));
        let mut hash_rate: Vec<u64> =
            full.map(|(slot, &work)| rate(f64::from(work), seconds(slot, (slot + 1) * self.step))).collect();
        let over = seconds(self.slot, now);
        if hash_rate.is_empty() || over * SHOWN_PART >= self.step {
            hash_rate.push(rate(self.current, over));
        }
        Rates { step: self.step, from: first * self.step, hash_rate }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A minute's and a quarter's begin.
    const BEGIN: u64 = 1_700_000_100 / QUARTER * QUARTER;
    /// A share a second of this difficulty is 2^22 hashes a second.
    const EASY: f64 = 1.0 / 1024.0;
    const RATE: u64 = 1 << 22;

    fn mine(history: &mut History, from: u64, to: u64) {
        (from..to).for_each(|second| history.add(EASY, second));
    }

    #[test]
    fn a_steady_miner_has_its_rate_from_the_first_minute_on() {
        for mut history in [History::of_pool(BEGIN + 7), History::of_worker(BEGIN + 7)] {
            let mut from = BEGIN + 7;
            for to in [BEGIN + 40, BEGIN + 61, BEGIN + 3600, BEGIN + 90_000] {
                mine(&mut history, from, to);
                from = to;
                assert_eq!(
                    history.hash_rate(to),
                    HashRate { ten_minutes: RATE, hour: RATE },
                    "{}",
                    to - BEGIN
                );
                for span in [Span::Hour, Span::Day] {
                    let rates = history.rates(span, to);
                    assert!(rates.hash_rate.iter().all(|&rate| rate == RATE), "{rates:?}");
                }
            }
        }
    }

    #[test]
    fn a_miner_that_stops_fades_within_the_hour() {
        let mut history = History::of_worker(BEGIN);
        mine(&mut history, BEGIN, BEGIN + 3600);
        let later = history.hash_rate(BEGIN + 3600 + 1800);
        assert_eq!(later.ten_minutes, 0);
        assert!(later.hour.abs_diff(RATE / 2) < RATE / 50, "{later:?}");
        assert_eq!(history.hash_rate(BEGIN + 3 * 3600), HashRate { ten_minutes: 0, hour: 0 });
        let day = history.rates(Span::Day, BEGIN + 3 * 3600);
        assert_eq!((day.step, day.from), (QUARTER, BEGIN));
        assert_eq!(day.hash_rate, [[RATE; 4], [0; 4], [0; 4]].concat());
    }

    #[test]
    fn one_share_at_once_is_no_wonder_of_speed() {
        let mut history = History::of_worker(BEGIN);
        history.add(EASY, BEGIN);
        assert_eq!(history.hash_rate(BEGIN).ten_minutes, RATE / LEAST_TIME);
    }

    #[test]
    fn the_past_is_bounded_and_ends_with_now() {
        for (mut history, hour, day) in
            [(History::of_pool(BEGIN), 60, 1440), (History::of_worker(BEGIN), 60, 96)]
        {
            mine(&mut history, BEGIN, BEGIN + 10);
            let now = BEGIN + 900_000 * MINUTE;
            for (span, points) in [(Span::Hour, hour), (Span::Day, day)] {
                let rates = history.rates(span, now);
                assert_eq!(rates.hash_rate, vec![0; points]);
                assert_eq!(rates.from, now / rates.step * rates.step - rates.step * points as u64);
            }
        }
    }

    #[test]
    fn a_clock_that_is_set_back_loses_no_work() {
        let mut history = History::of_pool(BEGIN);
        history.add(EASY, BEGIN + 120);
        history.add(EASY, BEGIN + 30);
        let rates = history.rates(Span::Hour, BEGIN + 180);
        assert_eq!(rates.hash_rate, [0, 0, 2 * RATE / MINUTE]);
        assert_eq!(rates.from, BEGIN);
    }

    #[test]
    fn after_a_clock_was_ahead_for_a_while_rates_are_no_wonder_of_speed() {
        let ways = [2400, 5400, 1_000_000].map(|ahead| [(true, ahead), (false, ahead)]);
        for (is_pool, ahead) in ways.into_iter().flatten() {
            let mut history = if is_pool { History::of_pool(BEGIN) } else { History::of_worker(BEGIN) };
            mine(&mut history, BEGIN, BEGIN + 1200);
            mine(&mut history, BEGIN + ahead, BEGIN + ahead + 60);
            let mut from = BEGIN + 1260;
            for to in [BEGIN + 1300, BEGIN + 1500, BEGIN + 4500] {
                mine(&mut history, from, to);
                from = to;
                let HashRate { ten_minutes, hour } = history.hash_rate(to);
                assert!(
                    ten_minutes <= RATE * 5 / 4 && hour <= RATE * 5 / 4,
                    "{ten_minutes} and {hour} at {to}"
                );
                for span in [Span::Hour, Span::Day] {
                    let rates = history.rates(span, to);
                    assert!(rates.hash_rate.iter().all(|&rate| rate <= RATE * 2), "{ahead}, {to}: {rates:?}");
                }
            }
            assert_eq!(history.hash_rate(from).ten_minutes, RATE);
            let rates = history.rates(Span::Hour, from);
            assert_eq!((rates.from % MINUTE, rates.hash_rate.last()), (0, Some(&RATE)));
        }
    }

    #[test]
    fn a_clock_that_was_ahead_at_the_start_is_forgotten() {
        let mut history = History::of_worker(BEGIN + 100_000);
        mine(&mut history, BEGIN, BEGIN + 1800);
        assert_eq!(history.hash_rate(BEGIN + 1800), HashRate { ten_minutes: RATE, hour: RATE });
    }

    #[test]
    fn a_clock_that_is_set_back_to_1970_breaks_nothing() {
        let mut history = History::of_pool(BEGIN);
        mine(&mut history, BEGIN, BEGIN + 7200);
        for now in [0, 1, 61] {
            history.add(EASY, now);
            history.hash_rate(now);
            for span in [Span::Hour, Span::Day] {
                assert!(history.rates(span, now).from <= now);
            }
        }
    }

    #[test]
    fn the_running_bucket_is_shown_when_half_of_it_is_over() {
        let mut history = History::of_pool(BEGIN);
        mine(&mut history, BEGIN, BEGIN + 100);
        assert_eq!(history.rates(Span::Hour, BEGIN + 89).hash_rate.len(), 1);
        assert_eq!(history.rates(Span::Hour, BEGIN + 100).hash_rate, [RATE, RATE]);
    }
}
