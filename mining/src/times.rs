//! The times that a share's header may have, for servers that give out work. The clock is the caller's.

use iop_consensus::header::MAX_FUTURE_BLOCK_TIME;
use iop_stratum::fields::NTime;
use iop_stratum::verdict::Reject;

/// How far a share's time may be ahead of our clock, or of the job's time if that is later, in seconds. Machines roll
/// the time when they run out of nonces, and clocks differ; nodes accept up to two hours, most of which this leaves for
/// differences among the network's clocks. The job's time is ahead of ours if the chain's median is: work that was given
/// out must count. For a block the nodes' limit applies.
pub const MAX_TIME_AHEAD: u32 = 600;

/// The times of a job's shares, in seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    min: u32,
    /// The latest of a share that is no block.
    max: u32,
    /// The latest of a block.
    max_of_block: u32,
}

impl Times {
    /// Of a job that was given out with the time `job`, and whose headers may have times from `min` to `latest`; `now` is
    /// our clock.
    #[must_use]
    pub fn new(job: u32, min: u32, latest: u32, now: u32) -> Self {
        let until = |ahead: u64| (u64::from(now.max(job)) + ahead).min(latest.into()) as u32;
        Self { min, max: until(MAX_TIME_AHEAD.into()), max_of_block: until(MAX_FUTURE_BLOCK_TIME) }
    }

    /// Whether a block may have this time.
    #[must_use]
    pub fn fit_block(&self, ntime: NTime) -> bool {
        (self.min..=self.max_of_block).contains(&ntime.0)
    }

    /// Whether any share may have this time.
    #[must_use]
    pub fn fit_share(&self, ntime: NTime) -> bool {
        (self.min..=self.max).contains(&ntime.0)
    }

    /// What is said of a share whose time does not fit (20).
    #[must_use]
    pub fn reject(&self, ntime: NTime) -> Reject {
        let Self { min, max, .. } = self;
        Reject::other(format!("ntime {ntime} is outside {min:08x} to {max:08x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_may_be_ten_minutes_ahead_and_a_block_two_hours_but_not_after_the_latest_time() {
        // The job's time and the clock, whichever is later; then the latest times of shares and blocks.
        for (job, now, latest, share, block) in [
            (1_000, 900, u32::MAX, 1_600, 8_200),
            (1_000, 2_000, u32::MAX, 2_600, 9_200),
            (1_000, 2_000, 2_700, 2_600, 2_700),
            (1_000, 2_000, 1_500, 1_500, 1_500),
            (1_000, u32::MAX - 1, u32::MAX, u32::MAX, u32::MAX),
        ] {
            let times = Times::new(job, 950, latest, now);
            let fit = |time| (times.fit_share(NTime(time)), times.fit_block(NTime(time)));
            assert_eq!((fit(949), fit(950)), ((false, false), (true, true)));
            assert_eq!((fit(share), fit(block).1), ((true, true), true));
            assert!(share == u32::MAX || !fit(share + 1).0);
            assert!(block == u32::MAX || fit(block + 1) == (false, false));
            assert_eq!(times.reject(NTime(0)).code(), 20);
        }
    }
}
