//! How often a warning is repeated. Machines and pools could fill the disk with some, so at most one a minute
//! is logged.

use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Least time between two warnings.
const REMIND: Duration = Duration::from_secs(60);

/// A kind of warning.
#[derive(Debug, Default)]
pub struct Rarely(Mutex<Option<Instant>>);

impl Rarely {
    /// Whether the warning may be logged now: not for a minute after this was last true. The caller logs it,
    /// so that it bears the caller's name.
    #[must_use]
    pub fn may_warn(&self) -> bool {
        let mut said = self.0.lock().expect("nothing panics while it holds the lock");
        let due = said.is_none_or(|at| at.elapsed() > REMIND);
        if due {
            *said = Some(Instant::now());
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_said_once_in_a_while() {
        let (one, other) = (Rarely::default(), Rarely::default());
        assert!(one.may_warn() && !one.may_warn() && other.may_warn());
    }
}
