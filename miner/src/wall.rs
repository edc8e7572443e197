//! The wall clock: the time as shown to people and other programs.
//!
//! It is read only here, except that the gateway uses it to report or compare the time of a share or a job: it may be
//! set at any moment, by any amount. Waits, rates and ages use [`std::time::Instant`]; headers carry the time of the
//! pool or the node.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// The system clock, with the offset that a test has set. Clones share one clock.
#[derive(Clone, Debug, Default)]
pub struct WallClock(Arc<AtomicI64>);

impl WallClock {
    /// Seconds since 1970; 0 before that.
    #[must_use]
    pub fn now(&self) -> u64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        now.saturating_add_signed(self.0.load(Ordering::Relaxed))
    }

    /// Moves the clock ahead of the system's by this many seconds, or back: as if it had been set.
    pub fn set_ahead(&self, seconds: i64) {
        self.0.store(seconds, Ordering::Relaxed);
    }
}
