//! What follows from the counters: the time to a block, luck.

use std::time::Duration;

use crate::stats::Snapshot;
use crate::upstream::board::{Condition, Source};

/// Hashes for a share of difficulty 1, in the mean: what 65,535 × 2^208 as a target asks for.
const HASHES_PER_DIFFICULTY: f64 = 4_295_032_833.0;

/// The source in use; the first one where none is.
pub(super) fn current(sources: &[Source]) -> Option<&Source> {
    sources.iter().find(|source| source.condition != Condition::Unused).or(sources.first())
}

/// The time to a block, in the mean, at the rate of the last minute. Nothing is known of it without a job or a rate.
pub(super) fn time_to_block(stats: &Snapshot, sources: &[Source]) -> Option<Duration> {
    let job = current(sources)?.job.as_ref()?;
    let rate = stats.rates.minute.0;
    let seconds = job.network_difficulty * HASHES_PER_DIFFICULTY / rate;
    // Beyond what a duration holds there is no block either.
    (rate > 0.0).then(|| Duration::try_from_secs_f64(seconds).ok()).flatten()
}

/// The work of the shares that were accepted, in proportion to the hashes made: 1 in the mean, of a rig that loses
/// none. Nothing is known of it before the first hash.
pub(super) fn luck(stats: &Snapshot) -> Option<f64> {
    let hashes = stats.hashes as f64;
    (stats.hashes > 0).then(|| stats.counts.work * HASHES_PER_DIFFICULTY / hashes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Instant;

    use super::*;
    use crate::stats::{HashRate, Stats};
    use crate::upstream::board::JobView;

    fn source(condition: Condition, network_difficulty: f64) -> Source {
        let job = JobView { id: "1".into(), height: None, network_difficulty, since: Instant::now() };
        Source { condition, job: Some(job), ..Source::default() }
    }

    #[test]
    fn a_block_takes_its_difficulty_of_the_source_in_use() {
        let mut stats = Stats::new().snapshot();
        let sources = [source(Condition::Unused, 1.0), source(Condition::Working, 1000.0)];
        assert_eq!(time_to_block(&stats, &sources), None, "without a rate");
        stats.rates.minute = HashRate(HASHES_PER_DIFFICULTY);
        assert_eq!(time_to_block(&stats, &sources), Some(Duration::from_secs(1000)));
        assert_eq!(time_to_block(&stats, &sources[..1]), Some(Duration::from_secs(1)));
        assert_eq!(time_to_block(&stats, &[]), None);
        assert_eq!(time_to_block(&stats, &[source(Condition::Working, f64::MAX)]), None);
    }

    #[test]
    fn luck_is_one_where_shares_come_as_hashes_say() {
        let stats = Stats::new();
        assert_eq!(luck(&stats.snapshot()), None);
        let cpu = stats.device("cpu");
        cpu.add_hashes(2 * 4_295_032_833);
        cpu.add_accepted(2.0);
        assert!((luck(&stats.snapshot()).unwrap() - 1.0).abs() < 1e-9);
        cpu.add_accepted(1.0);
        assert!((luck(&stats.snapshot()).unwrap() - 1.5).abs() < 1e-9);
    }
}
