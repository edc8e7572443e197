//! The wall clock: what people and other programs call the time.
//!
//! All that reads it does so here, but for the gateway's look at a share's or a job's time, and only to say what it is or to
//! compare it: somebody may set it at any moment, and by any amount. Waits, rates and ages go by
//! [`std::time::Instant`]; headers carry the time of the pool or the node.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// The system's clock, and what a test has set it by. Its clones are one clock.
#[derive(Clone, Debug, Default)]
pub struct WallClock(Arc<AtomicI64>);

impl WallClock {
    /// Seconds since 1970; 0 before that.
    #[must_use]
    pub fn now(&self) -> u64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        now.saturating_add_signed(self.0.load(Ordering::Relaxed))
    }

    /// From now on it shows so many seconds more than the system's, or less: as if somebody had set it.
    pub fn set_ahead(&self, seconds: i64) {
        self.0.store(seconds, Ordering::Relaxed);
    }
}
