//! This machine's clock, used to judge the age of tips, and the clock that the times of blocks are judged by.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds since 1970 by this machine's clock.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// This machine's clock corrected by the peers' (`GetAdjustedTime`). Clones are the same clock.
#[derive(Debug, Clone, Default)]
pub struct AdjustedClock(Arc<AtomicI64>);

impl AdjustedClock {
    /// Seconds since 1970.
    pub fn now(&self) -> u64 {
        now().saturating_add_signed(self.0.load(Ordering::Relaxed))
    }

    /// Sets how many seconds the peers' clocks are ahead of this machine's.
    pub fn correct(&self, offset: i64) {
        self.0.store(offset, Ordering::Relaxed);
    }
}
