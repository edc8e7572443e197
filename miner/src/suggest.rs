//! The share difficulty that suits this machine.
//!
//! A pool begins with a difficulty for the machines that it expects. A CPU at a pool for ASICs finds a share in
//! hours, and a worker whose shares do not come looks dead and is paid nothing: so we say what we would like.

use std::time::Duration;

use iop_stratum::difficulty::{Difficulty, HASHES_AT_1};

use crate::bench::measure;
use crate::dispatcher::VERSIONS;
use crate::rig::Opened;
use crate::stats::HashRate;

/// Between two shares: often enough to see that all is well, and seldom enough for a pool with many miners.
const SHARE_EVERY: Duration = Duration::from_secs(10);
/// How long to measure. The difficulty need be right to a factor of two; nobody waits for this.
const MEASURE: Duration = Duration::from_millis(200);

/// What to suggest to a pool.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Suggestion {
    /// What the kernel's rate asks for.
    Measured,
    /// This.
    Given(Difficulty),
    /// Nothing: the password says it.
    Nothing,
}

impl Suggestion {
    /// The difficulty, measured for a fifth of a second where that is asked for. `None` where there is nothing
    /// to suggest, where no thread starts to measure with, and where the CPU does not mine alone: only its rate is
    /// measured before there is work.
    #[must_use]
    pub fn difficulty(self, rig: &Opened) -> Option<Difficulty> {
        match (self, rig.cpu) {
            (Self::Given(difficulty), _) => Some(difficulty),
            (Self::Measured, Some((kernel, threads))) if rig.devices.len() == 1 => {
                let measured = measure(kernel, threads, VERSIONS as usize, MEASURE).ok()?;
                for_rate(HashRate(measured.hashes_per_second))
            }
            (Self::Measured | Self::Nothing, _) => None,
        }
    }
}

/// The difficulty at which a machine of this rate finds a share in `SHARE_EVERY`, on average. `None` for a
/// rate of nothing.
#[must_use]
pub fn for_rate(rate: HashRate) -> Option<Difficulty> {
    Difficulty::new(rate.0 * SHARE_EVERY.as_secs_f64() / HASHES_AT_1)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::choice::Choice;
    use crate::device::{DeviceName, Tuning};
    use crate::rig::RigSettings;

    fn cpu(threads: usize) -> Opened {
        let (devices, tuning) = (vec![DeviceName::Cpu], Tuning::default());
        let settings = RigSettings { devices, kernel: Choice::Auto, threads, tuning };
        settings.open().unwrap()
    }

    #[test]
    fn a_machine_finds_a_share_in_ten_seconds_at_the_difficulty_that_suits_it() {
        let difficulty = |rate| for_rate(HashRate(rate)).map(Difficulty::get);
        // 2^32 hashes in ten seconds are a share of difficulty 1.
        assert_eq!(difficulty(429_496_729.6), Some(1.0));
        assert_eq!(difficulty(4_294_967.296), Some(0.01));
        assert_eq!(difficulty(0.0), None);
    }

    #[test]
    fn a_given_difficulty_is_taken_as_it_is_and_a_measured_one_is_above_zero() {
        let one = Some(Difficulty::ONE);
        assert_eq!(Suggestion::Given(Difficulty::ONE).difficulty(&cpu(1)), one);
        assert_eq!(Suggestion::Nothing.difficulty(&cpu(1)), None);
        assert!(Suggestion::Measured.difficulty(&cpu(2)).unwrap().get() > 0.0);
    }
}
