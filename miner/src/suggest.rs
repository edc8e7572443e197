//! The share difficulty that suits this machine.
//!
//! A pool starts with a difficulty for the machines that it expects. At a pool for ASICs a CPU finds a share in hours,
//! and a worker without shares looks dead and is paid nothing: so we suggest a difficulty.

use std::time::Duration;

use iop_stratum::difficulty::{Difficulty, HASHES_AT_1};

use crate::bench::measure;
use crate::dispatcher::VERSIONS;
use crate::rig::Opened;
use crate::stats::HashRate;

/// Time between two shares: short enough to show that all is well, long enough for a pool with many miners.
const SHARE_EVERY: Duration = Duration::from_secs(10);
/// Length of the measurement. The difficulty need only be right to a factor of two; this short wait is not noticed.
const MEASURE: Duration = Duration::from_millis(200);

/// The suggestion to a pool.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Suggestion {
    /// The difficulty for the kernel's measured rate.
    Measured,
    /// A given difficulty.
    Given(Difficulty),
    /// None: the password contains a difficulty.
    Nothing,
}

impl Suggestion {
    /// The difficulty, if necessary measured for a fifth of a second. `None` if there is nothing to suggest, if no
    /// thread can be started to measure, or if the CPU is not the only device: only its rate is measured before there
    /// is work.
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

/// The difficulty at which a machine with this rate finds a share every `SHARE_EVERY`, on average. `None` for a rate of
/// zero.
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
