//! The hash rate over the last hour.

use std::collections::VecDeque;
use std::time::Duration;

/// One sample a second: an hour.
const SAMPLES: usize = 3600;
/// Possible numbers of seconds per column of the graph.
const STEPS: [usize; 8] = [1, 2, 5, 10, 15, 30, 60, 120];

/// Hash rates, one a second, newest last; 15 kB at most.
#[derive(Debug, Default)]
pub(super) struct History {
    rates: VecDeque<f32>,
}

/// The data of a graph.
pub(super) struct Columns {
    /// The mean rate in hashes per second of each column, oldest first.
    pub(super) rates: Vec<u64>,
    /// The time from the first column to the last.
    pub(super) span: Duration,
}

impl History {
    /// Adds a rate in hashes per second, once a second.
    pub(super) fn push(&mut self, rate: f64) {
        if self.rates.len() == SAMPLES {
            self.rates.pop_front();
        }
        self.rates.push_back(rate as f32);
    }

    /// At most `most` columns, each over the fewest seconds for which all samples fit, if possible.
    pub(super) fn columns(&self, most: usize) -> Columns {
        let fits = |step: &&usize| self.rates.len() <= most * **step;
        let step = STEPS.iter().find(fits).copied().unwrap_or(STEPS[STEPS.len() - 1]);
        let shown = self.rates.len().min(most * step);
        let samples: Vec<f32> = self.rates.range(self.rates.len() - shown..).copied().collect();
        // From the newest backwards, so that a full column no longer changes.
        let mean =
            |some: &[f32]| (some.iter().map(|rate| f64::from(*rate)).sum::<f64>() / some.len() as f64) as u64;
        let mut rates: Vec<u64> = samples.rchunks(step).map(mean).collect();
        rates.reverse();
        Columns { rates, span: Duration::from_secs(shown as u64) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_is_kept_and_fits_any_width() {
        let mut history = History::default();
        assert!(history.columns(80).rates.is_empty());
        for second in 0..30 {
            history.push(f64::from(second));
        }
        assert_eq!(history.columns(30).rates, (0..30).collect::<Vec<_>>());
        assert_eq!(history.columns(15).rates, (0..15).map(|i| 2 * i).collect::<Vec<_>>());
        for second in 0..10_000 {
            history.push(f64::from(second));
        }
        assert_eq!(history.rates.len(), SAMPLES);
        let all = history.columns(80);
        assert_eq!((all.rates.len(), all.span), (60, Duration::from_secs(3600)));
        assert!(all.rates.is_sorted() && all.rates[0] >= 6400);
        let few = history.columns(3);
        assert_eq!((few.rates.len(), few.span), (3, Duration::from_secs(360)));
        assert!(history.columns(0).rates.is_empty());
    }
}
