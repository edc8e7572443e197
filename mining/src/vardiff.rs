//! Vardiff: adjusts a connection's difficulty to a steady pace of shares. Times and shares in, difficulty out.
//!
//! Here: the statistics. Not here: clocks, jobs, and when a new difficulty is sent (the connection's owner).
//! Shares are compared with the number expected until the two differ by more than chance explains. The difficulty is
//! then set to what the count suggests, and counting starts again.

use std::time::{Duration, Instant};

use iop_stratum::difficulty::Difficulty;

/// Standard deviations beyond which a count is not chance: of the many windows in an hour, one errs every few hours.
const SIGMAS: f64 = 3.3;
/// Shares added to that bound, for when next to none are expected: a Poisson count is not normal there.
const UP_MARGIN: f64 = 2.0;
/// Expected shares added to that bound, for when next to none came: such a silence is chance once in 230 times.
const DOWN_MARGIN: f64 = 5.45;
/// Expected shares without any share before the first one: nothing is known yet, and an error costs little.
const FIRST_SILENCE: f64 = 3.0;
/// Fewest shares that can raise the difficulty: fewer may come at once by chance, or out of a proxy's buffer.
const LEAST_SHARES: f64 = 4.0;
/// Shares, expected or received, above which the past is halved: a window of about 160 to 320 s at 5 s a share. With so
/// few counted, a pace within 0.6 and 1.4 of the right one is left alone.
const MEMORY: f64 = 64.0;
/// Largest factor of one raise: what a few shares say of a much faster machine is right only to this order.
const MOST_UP: f64 = 256.0;
/// Largest factor of one reduction after a share was seen.
const MOST_DOWN: f64 = 8.0;
/// Factor of each reduction from the second on, while no share has been seen at all: a CPU at a pool for ASICs is off
/// by seven orders of magnitude.
const MOST_DOWN_BLIND: f64 = 64.0;

/// The target of vardiff.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Aim {
    /// Seconds between shares; above zero.
    pub seconds_per_share: f64,
    /// Least difficulty.
    pub min: Difficulty,
    /// Greatest difficulty.
    pub max: Difficulty,
}

/// The share statistics of one connection.
#[derive(Debug, Clone)]
pub struct Vardiff {
    difficulty: Difficulty,
    since: Instant,
    /// Seconds that count from before `since`; `shares` and `work` cover them and the time after.
    seconds: f64,
    shares: f64,
    /// The sum of the shares' difficulties: a share of an older job counts with that job's difficulty.
    work: f64,
    /// Reductions since the start; `None` once a share has come.
    blind: Option<u32>,
}

impl Vardiff {
    /// Starts at a difficulty, with nothing known of the machine.
    #[must_use]
    pub fn new(start: Difficulty, now: Instant) -> Self {
        Self { difficulty: start, since: now, seconds: 0.0, shares: 0.0, work: 0.0, blind: Some(0) }
    }

    /// The difficulty for new jobs.
    #[must_use]
    pub fn difficulty(&self) -> Difficulty {
        self.difficulty
    }

    /// Raises the difficulty to `least`, the minimum for jobs now. The count is kept, at its lower worth: otherwise a
    /// minimum that grows a little with every few shares would end each count before it says anything.
    pub fn lift(&mut self, least: Difficulty) {
        self.difficulty = self.difficulty.at_least(least);
    }

    /// Restarts the count at `now`: the miner had no work before.
    pub fn begin(&mut self, now: Instant) {
        self.since = now;
        (self.seconds, self.shares, self.work) = (0.0, 0.0, 0.0);
    }

    /// The miner had no work from `paused` until `now`. What it did before that still counts.
    pub fn resume(&mut self, paused: Instant, now: Instant) {
        self.since = now - paused.saturating_duration_since(self.since);
    }

    /// Counts a share of a job with this difficulty. Returns whether the difficulty changed.
    pub fn on_share(&mut self, difficulty: Difficulty, now: Instant, aim: &Aim) -> bool {
        self.shares += 1.0;
        self.work += difficulty.get();
        self.blind = None;
        self.judge(now, aim)
    }

    /// When to call [`Self::on_silence`] if no share comes first; `None` if that would change nothing.
    #[must_use]
    pub fn silent_from(&self, aim: &Aim) -> Option<Instant> {
        if self.difficulty <= aim.min {
            return None;
        }
        let seconds = self.most_expected() * aim.seconds_per_share - self.seconds;
        // A day is as good as forever; much longer would not fit the clock.
        Some(self.since + Duration::from_secs_f64(seconds.clamp(0.0, 86_400.0)))
    }

    /// Accounts for time that passed without a share. Returns whether the difficulty changed.
    pub fn on_silence(&mut self, now: Instant, aim: &Aim) -> bool {
        self.judge(now, aim)
    }

    /// The work received, in shares of the present difficulty.
    fn come(&self) -> f64 {
        self.work / self.difficulty.get()
    }

    /// The highest number of expected shares that is consistent with those received.
    fn most_expected(&self) -> f64 {
        if self.blind.is_some() {
            return FIRST_SILENCE;
        }
        let come = self.come();
        come + SIGMAS * come.sqrt() + DOWN_MARGIN
    }

    fn judge(&mut self, now: Instant, aim: &Aim) -> bool {
        let seconds = self.seconds + now.saturating_duration_since(self.since).as_secs_f64();
        let (come, expected) = (self.come(), seconds / aim.seconds_per_share);
        let too_many = self.shares >= LEAST_SHARES && come >= expected + SIGMAS * expected.sqrt() + UP_MARGIN;
        let factor = if too_many {
            // The last share ended the count, so it is left out.
            (come * (1.0 - 1.0 / self.shares) / expected.max(f64::MIN_POSITIVE)).clamp(1.0, MOST_UP)
        } else if expected >= self.most_expected() * (1.0 - 1e-9) {
            match self.blind {
                Some(steps) if steps > 0 => 1.0 / MOST_DOWN_BLIND,
                _ => ((come + 0.5) / (expected + 0.5)).clamp(1.0 / MOST_DOWN, 1.0),
            }
        } else {
            // A few shares of a much harder job are worth as much. If halved, they would never suffice to raise
            // anything.
            if come.max(expected) > MEMORY && self.shares >= LEAST_SHARES {
                (self.since, self.seconds) = (now, seconds / 2.0);
                self.shares /= 2.0;
                self.work /= 2.0;
            }
            return false;
        };
        self.blind = self.blind.map(|steps| steps + 1);
        self.begin(now);
        let wanted = Difficulty::new(self.difficulty.get() * factor).unwrap_or(self.difficulty);
        let before = std::mem::replace(&mut self.difficulty, wanted.clamp(aim.min, aim.max));
        self.difficulty != before
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use iop_stratum::difficulty::HASHES_AT_1;
    use proptest::prelude::*;

    use super::*;

    fn difficulty(value: f64) -> Difficulty {
        Difficulty::new(value).unwrap()
    }

    fn aim() -> Aim {
        Aim { seconds_per_share: 5.0, min: difficulty(1e-4), max: difficulty(1e9) }
    }

    /// SplitMix64: a stream of random numbers from a seed.
    struct Random(u64);

    impl Random {
        /// A waiting time of a Poisson process, in units of its mean.
        fn wait(&mut self) -> f64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            let part = ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1u64 << 53) as f64;
            -(1.0 - part).ln()
        }
    }

    /// Simulates a machine of `rate` hashes per second for `seconds`. Returns the times of the changes.
    fn mine(vardiff: &mut Vardiff, random: &mut Random, begun: Instant, rate: f64, seconds: f64) -> Vec<f64> {
        let (mut at, mut changes) = (0.0, Vec::new());
        while at < seconds {
            let current = vardiff.difficulty();
            let next = at + random.wait() * current.get() * HASHES_AT_1 / rate;
            let silent = vardiff.silent_from(&aim()).map(|silent| (silent - begun).as_secs_f64());
            let changed = if let Some(silent) = silent.filter(|silent| *silent < next) {
                at = silent.max(at);
                vardiff.on_silence(begun + Duration::from_secs_f64(at), &aim())
            } else {
                at = next;
                if at > seconds {
                    break;
                }
                vardiff.on_share(current, begun + Duration::from_secs_f64(at), &aim())
            };
            assert!(vardiff.difficulty() >= aim().min && vardiff.difficulty() <= aim().max);
            if changed {
                changes.push(at);
            }
        }
        changes
    }

    fn is_near(vardiff: &Vardiff, rate: f64, factor: f64) -> bool {
        let off = vardiff.difficulty().get() * HASHES_AT_1 / rate / 5.0;
        off < factor && off > 1.0 / factor
    }

    #[test]
    fn every_machine_gets_its_difficulty_within_five_minutes_and_keeps_it() {
        for rate in [1e5, 1e6, 1e8, 1e10, 1e12, 2e14] {
            let (mut near, mut changes) = (0, 0);
            for seed in 0..50 {
                let (begun, mut random) = (Instant::now(), Random(seed));
                let mut vardiff = Vardiff::new(difficulty(1024.0), begun);
                mine(&mut vardiff, &mut random, begun, rate, 300.0);
                near += u32::from(is_near(&vardiff, rate, 2.5));
                let begun = begun + Duration::from_secs(300);
                vardiff.begin(begun);
                changes += mine(&mut vardiff, &mut random, begun, rate, 7200.0).len();
                assert!(is_near(&vardiff, rate, 2.5), "{rate:e}, seed {seed}: {}", vardiff.difficulty());
            }
            assert!(near >= 47, "{rate:e}: {near} of 50 are near after five minutes");
            assert!(changes <= 200, "{rate:e}: {changes} changes in 100 hours");
        }
    }

    #[test]
    fn a_flood_raises_the_difficulty_at_once_and_a_few_shares_do_not() {
        let begun = Instant::now();
        let mut vardiff = Vardiff::new(difficulty(1.0), begun);
        let at = |millis| begun + Duration::from_millis(millis);
        for millis in [1, 2, 3] {
            assert!(!vardiff.on_share(difficulty(1.0), at(millis), &aim()));
        }
        assert!(vardiff.on_share(difficulty(1.0), at(4), &aim()));
        assert_eq!(vardiff.difficulty(), difficulty(256.0), "within a bound: four shares say little");
        for millis in 5..40 {
            assert!(
                !vardiff.on_share(difficulty(1.0), at(millis), &aim()),
                "shares of before count as little"
            );
        }
    }

    /// A machine that finds 500 shares a second at the least difficulty, for an hour.
    #[test]
    fn a_least_difficulty_far_above_the_start_is_kept_and_does_not_hold_the_difficulty_there() {
        for least in [2048.0, 20_480.0, 32_768.0, 1e6] {
            let aim = Aim { min: difficulty(least), ..aim() };
            let (begun, mut random, mut at) = (Instant::now(), Random(7), 0.0);
            let mut vardiff = Vardiff::new(difficulty(1024.0), begun);
            while at < 3600.0 {
                let given = vardiff.difficulty().at_least(aim.min);
                at += random.wait() * given.get() / least / 500.0;
                vardiff.on_share(given, begun + Duration::from_secs_f64(at), &aim);
                assert!(vardiff.difficulty() >= aim.min || vardiff.difficulty() == difficulty(1024.0));
            }
            let off = vardiff.difficulty().get() / least / 2500.0;
            assert!((0.4..2.5).contains(&off), "{least}: {}", vardiff.difficulty());
        }
    }

    /// 500 shares a second, and a least difficulty that grows slightly after every few of them.
    #[test]
    fn a_least_difficulty_that_creeps_upward_does_not_hold_the_difficulty_there() {
        let (begun, mut at, mut aim) = (Instant::now(), 0.0, aim());
        let mut vardiff = Vardiff::new(difficulty(1024.0), begun);
        for shares in 0..2000 {
            let given = vardiff.difficulty();
            at += given.get() / 1024.0 / 500.0;
            vardiff.on_share(given, begun + Duration::from_secs_f64(at), &aim);
            if shares % 3 == 2 {
                aim.min = difficulty(vardiff.difficulty().get() * (1.0 + 1e-12));
                vardiff.lift(aim.min);
            }
        }
        assert!(vardiff.difficulty() > difficulty(1024.0 * 500.0), "{}", vardiff.difficulty());
    }

    #[test]
    fn a_new_least_difficulty_keeps_the_count() {
        let mut vardiff = Vardiff::new(difficulty(1.0), Instant::now());
        vardiff.on_share(difficulty(1.0), Instant::now(), &aim());
        vardiff.lift(difficulty(0.5));
        assert_eq!((vardiff.difficulty(), vardiff.come()), (difficulty(1.0), 1.0));
        vardiff.lift(difficulty(8.0));
        assert_eq!((vardiff.difficulty(), vardiff.come()), (difficulty(8.0), 0.125));
    }

    #[test]
    fn silence_eases_down_to_the_least_and_then_nothing_is_waited_for() {
        let begun = Instant::now();
        let mut vardiff = Vardiff::new(difficulty(1024.0), begun);
        let mut steps = 0;
        while let Some(silent) = vardiff.silent_from(&aim()) {
            assert!(vardiff.on_silence(silent, &aim()), "not in vain");
            steps += 1;
            assert!(steps < 10);
        }
        assert_eq!(vardiff.difficulty(), aim().min);
    }

    #[test]
    fn time_without_work_counts_for_nothing_and_what_was_before_it_still_counts() {
        let begun = Instant::now();
        let at = |seconds| begun + Duration::from_secs(seconds);
        let (mut paused, mut other) =
            (Vardiff::new(difficulty(1.0), begun), Vardiff::new(difficulty(1.0), begun));
        for vardiff in [&mut paused, &mut other] {
            assert!(!vardiff.on_share(difficulty(1.0), at(5), &aim()));
        }
        paused.resume(at(7), at(3607));
        assert_eq!(
            paused.silent_from(&aim()).unwrap(),
            other.silent_from(&aim()).unwrap() + Duration::from_secs(3600)
        );
        assert!(!paused.on_silence(at(3610), &aim()));
        assert!(other.on_silence(at(3610), &aim()));
    }

    proptest! {
        #[test]
        fn whatever_comes_the_difficulty_stays_within_bounds_and_waits_make_progress(
            start in 1e-4..1e9f64,
            events in proptest::collection::vec((0u64..10_000_000, 0.0..1e12f64), 0..300),
        ) {
            let begun = Instant::now();
            let mut vardiff = Vardiff::new(difficulty(start), begun);
            let mut now = begun;
            for (micros, share) in events {
                now += Duration::from_micros(micros);
                if let Some(silent) = vardiff.silent_from(&aim()).filter(|silent| *silent <= now) {
                    prop_assert!(vardiff.on_silence(silent.max(now), &aim()), "waking up changes something");
                }
                vardiff.on_share(difficulty(share.max(1e-9)), now, &aim());
                prop_assert!(vardiff.difficulty() >= aim().min && vardiff.difficulty() <= aim().max);
            }
        }
    }
}
