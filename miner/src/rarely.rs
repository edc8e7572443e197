//! Rate-limited warnings. Machines and pools could fill the disk with them, so at most one a minute is logged.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use tracing::warn;

/// Least time between two warnings.
const REMIND: Duration = Duration::from_secs(60);

/// A kind of warning.
#[derive(Debug, Default)]
pub struct Rarely(Mutex<Option<Instant>>);

impl Rarely {
    /// Logs the warning, unless one was logged recently.
    pub fn say(&self, text: &str) {
        let mut said = self.0.lock().expect("nothing panics while it holds the lock");
        if said.is_none_or(|at| at.elapsed() > REMIND) {
            warn!("{text}");
            *said = Some(Instant::now());
        }
    }
}
