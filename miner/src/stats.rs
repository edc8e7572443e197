//! What was done: hashes counted, shares judged.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Most reasons for rejection that are told apart. Reasons are the pool's words, and a pool may have many.
const MAX_REASONS: usize = 16;

/// Counters that devices and upstream write, and anyone may read.
#[derive(Debug)]
pub struct Stats {
    started: Instant,
    hashes: AtomicU64,
    accepted: AtomicU64,
    stale: AtomicU64,
    hardware_errors: AtomicU64,
    rejected: Mutex<BTreeMap<String, u64>>,
}

impl Default for Stats {
    fn default() -> Self {
        Self::new()
    }
}

impl Stats {
    /// All zero; the clock starts now.
    #[must_use]
    pub fn new() -> Self {
        Self {
            started: Instant::now(),
            hashes: AtomicU64::new(0),
            accepted: AtomicU64::new(0),
            stale: AtomicU64::new(0),
            hardware_errors: AtomicU64::new(0),
            rejected: Mutex::new(BTreeMap::new()),
        }
    }

    /// Counts hashes that were computed.
    pub fn add_hashes(&self, hashes: u64) {
        self.hashes.fetch_add(hashes, Ordering::Relaxed);
    }

    /// Counts a share that the pool took.
    pub fn add_accepted(&self) {
        self.accepted.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a share that came too late: kept back, or refused as stale by the pool.
    pub fn add_stale(&self) {
        self.stale.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a nonce that a device found and that the independent hash does not confirm.
    pub fn add_hardware_error(&self) {
        self.hardware_errors.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a share that the pool refused for any other reason. Says whether that is a reason not seen
    /// before.
    pub fn add_rejected(&self, reason: &str) -> bool {
        let mut rejected = self.rejected.lock().expect("nothing panics while it holds the lock");
        let told_apart = rejected.contains_key(reason) || rejected.len() < MAX_REASONS;
        let count = rejected.entry(if told_apart { reason } else { "other reasons" }.to_owned()).or_default();
        *count += 1;
        *count == 1
    }

    /// The counters as they are now.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            elapsed: self.started.elapsed(),
            hashes: self.hashes.load(Ordering::Relaxed),
            accepted: self.accepted.load(Ordering::Relaxed),
            stale: self.stale.load(Ordering::Relaxed),
            hardware_errors: self.hardware_errors.load(Ordering::Relaxed),
            rejected: self.rejected.lock().expect("nothing panics while it holds the lock").clone(),
        }
    }
}

/// The counters at one moment.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Since the miner's start.
    pub elapsed: Duration,
    /// Headers hashed.
    pub hashes: u64,
    /// Shares that the pool took.
    pub accepted: u64,
    /// Shares that came too late.
    pub stale: u64,
    /// Nonces that were found wrongly.
    pub hardware_errors: u64,
    /// Shares that the pool refused, by the pool's words.
    pub rejected: BTreeMap<String, u64>,
}

impl Snapshot {
    /// Hashes per second since an earlier moment.
    #[must_use]
    pub fn rate_since(&self, earlier: &Self) -> HashRate {
        HashRate::new(
            self.hashes.saturating_sub(earlier.hashes),
            self.elapsed.saturating_sub(earlier.elapsed),
        )
    }
}

/// Shares, without the hashes: `accepted 7, rejected 2 (Duplicate share 2), stale 1`; hardware errors if
/// there are any.
impl fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "accepted {}, rejected {}", self.accepted, self.rejected.values().sum::<u64>())?;
        for (i, (reason, count)) in self.rejected.iter().enumerate() {
            write!(f, "{}{reason} {count}", if i == 0 { " (" } else { ", " })?;
        }
        let close = if self.rejected.is_empty() { "" } else { ")" };
        write!(f, "{close}, stale {}", self.stale)?;
        if self.hardware_errors > 0 {
            write!(f, ", hardware errors {}", self.hardware_errors)?;
        }
        Ok(())
    }
}

/// Hashes per second; prints with a unit that fits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HashRate(pub f64);

impl HashRate {
    /// So many hashes in so much time; 0 where no time passed.
    #[must_use]
    pub fn new(hashes: u64, elapsed: Duration) -> Self {
        let seconds = elapsed.as_secs_f64();
        Self(if seconds > 0.0 { hashes as f64 / seconds } else { 0.0 })
    }
}

impl fmt::Display for HashRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut rate, mut units) = (self.0, ["H/s", "kH/s", "MH/s", "GH/s", "TH/s"].into_iter().peekable());
        while let Some(unit) = units.next() {
            if rate < 1000.0 || units.peek().is_none() {
                return write!(f, "{rate:.2} {unit}");
            }
            rate /= 1000.0;
        }
        unreachable!("the last unit returns")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counters_print_as_one_line() {
        let stats = Stats::new();
        assert_eq!(stats.snapshot().to_string(), "accepted 0, rejected 0, stale 0");
        stats.add_accepted();
        stats.add_stale();
        stats.add_rejected("Low difficulty share (23)");
        stats.add_rejected("Duplicate share (22)");
        stats.add_rejected("Duplicate share (22)");
        stats.add_hardware_error();
        assert_eq!(
            stats.snapshot().to_string(),
            "accepted 1, rejected 3 (Duplicate share (22) 2, Low difficulty share (23) 1), stale 1, hardware errors 1"
        );
    }

    #[test]
    fn a_pool_with_endless_reasons_fills_no_memory() {
        let stats = Stats::new();
        for i in 0..1000 {
            stats.add_rejected(&i.to_string());
        }
        let rejected = stats.snapshot().rejected;
        assert_eq!(rejected.len(), MAX_REASONS + 1);
        assert_eq!(rejected.values().sum::<u64>(), 1000);
        assert_eq!(rejected["other reasons"], 1000 - MAX_REASONS as u64);
    }

    #[test]
    fn rates_take_the_unit_that_fits() {
        let rate = |hashes| HashRate::new(hashes, Duration::from_secs(2)).to_string();
        assert_eq!(rate(0), "0.00 H/s");
        assert_eq!(rate(1_998), "999.00 H/s");
        assert_eq!(rate(78_624_000), "39.31 MH/s");
        assert_eq!(rate(u64::MAX), "9223372.04 TH/s");
        assert_eq!(HashRate::new(5, Duration::ZERO), HashRate(0.0));
    }

    #[test]
    fn the_rate_since_an_earlier_moment_counts_only_what_came_after() {
        let at = |seconds, hashes| Snapshot {
            elapsed: Duration::from_secs(seconds),
            hashes,
            ..Snapshot::default()
        };
        assert_eq!(at(20, 5_000).rate_since(&at(10, 3_000)), HashRate(200.0));
    }
}
