//! What was done: hashes counted, shares judged, by device.
//!
//! Here: counters that devices and upstreams write ([`Stats`], [`DeviceStats`]), and what they were at one moment
//! ([`Snapshot`]). Not here: how people see them.

mod device;
pub mod rate;

pub use device::{Counts, DeviceSnapshot, DeviceStats, Health};
pub use rate::HashRate;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use rate::{History, Rates};

/// The counters of all devices.
#[derive(Debug)]
pub struct Stats {
    started: Instant,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    devices: Vec<Arc<DeviceStats>>,
    /// What devices did that are no longer listed.
    past: Counts,
    past_hashes: u128,
    past_best: f64,
    history: History,
}

impl Default for Stats {
    fn default() -> Self {
        Self::new()
    }
}

impl Stats {
    /// No device yet; the clock starts now.
    #[must_use]
    pub fn new() -> Self {
        Self { started: Instant::now(), inner: Mutex::default() }
    }

    /// Lists a device.
    #[must_use]
    pub fn device(&self, name: &str) -> Arc<DeviceStats> {
        let device = Arc::new(DeviceStats::new(name));
        self.lock().devices.push(Arc::clone(&device));
        device
    }

    /// Takes a device off the list, as when a machine has left the gateway. What it did stays in the totals.
    pub fn remove(&self, device: &Arc<DeviceStats>) {
        let mut inner = self.lock();
        let listed = inner.devices.len();
        inner.devices.retain(|known| !Arc::ptr_eq(known, device));
        if inner.devices.len() < listed {
            let end = device.snapshot();
            inner.past.add(&end.counts);
            let last = last_accepted(&end, self.started.elapsed());
            inner.past.last_accepted = inner.past.last_accepted.max(last);
            inner.past_hashes += end.hashes;
            inner.past_best = inner.past_best.max(end.best);
        }
    }

    /// Notes all counters for the rates; to be called every [`rate::SAMPLE_EVERY`].
    pub fn sample(&self) {
        let mut inner = self.lock();
        let hashes = inner.past_hashes + inner.devices.iter().map(|device| device.hashes()).sum::<u128>();
        let elapsed = self.started.elapsed();
        inner.history.sample(elapsed, hashes);
        inner.devices.iter().for_each(|device| device.sample());
    }

    /// The rate of all devices over the last quarter of an hour, as it was noted last; none before there are counters of
    /// so long a time. Looks at no device: cheap, however many there are.
    #[must_use]
    pub fn known_rate(&self, least: Duration) -> Option<HashRate> {
        let (elapsed, rate) = self.lock().history.last_quarter()?;
        (elapsed >= least).then_some(rate)
    }

    /// The counters as they are now.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let inner = self.lock();
        let elapsed = self.started.elapsed();
        let devices: Vec<DeviceSnapshot> = inner.devices.iter().map(|device| device.snapshot()).collect();
        let hashes = inner.past_hashes + devices.iter().map(|device| device.hashes).sum::<u128>();
        let mut counts = inner.past.clone();
        devices.iter().for_each(|device| counts.add(&device.counts));
        let last = devices.iter().filter_map(|device| last_accepted(device, elapsed)).max();
        counts.last_accepted = counts.last_accepted.max(last);
        Snapshot {
            elapsed,
            hashes,
            rates: inner.history.rates(elapsed, hashes),
            by_second: inner.history.by_second(),
            best: devices.iter().map(|device| device.best).fold(inner.past_best, f64::max),
            counts,
            devices,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("nothing panics while it holds the lock")
    }
}

/// When a device's last share was accepted, counted from a start that is `elapsed` ago.
fn last_accepted(device: &DeviceSnapshot, elapsed: Duration) -> Option<Duration> {
    let ago = device.elapsed.saturating_sub(device.counts.last_accepted?);
    Some(elapsed.saturating_sub(ago))
}

/// The counters of all devices, listed or gone, at one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Since the miner's start.
    pub elapsed: Duration,
    /// Headers hashed.
    pub hashes: u128,
    /// How fast all were together.
    pub rates: Rates,
    /// The rate of each second of the last minute, oldest first.
    pub by_second: Vec<HashRate>,
    /// What became of the shares.
    pub counts: Counts,
    /// The greatest difficulty that a hash met; 0 before the first share.
    pub best: f64,
    /// The devices, in the order in which they came.
    pub devices: Vec<DeviceSnapshot>,
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
impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "accepted {}, rejected {}", self.accepted, self.refused())?;
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

#[cfg(test)]
mod tests {
    use super::device::MAX_REASONS;
    use super::*;

    #[test]
    fn the_counters_print_as_one_line() {
        let stats = Stats::new();
        let (cpu, gpu) = (stats.device("cpu"), stats.device("opencl:0.0"));
        assert_eq!(stats.snapshot().counts.to_string(), "accepted 0, rejected 0, stale 0");
        cpu.add_accepted(1.0);
        gpu.add_stale();
        cpu.add_rejected("Low difficulty share (23)");
        cpu.add_rejected("Duplicate share (22)");
        gpu.add_rejected("Duplicate share (22)");
        gpu.add_hardware_error();
        assert_eq!(
            stats.snapshot().counts.to_string(),
            "accepted 1, rejected 3 (Duplicate share (22) 2, Low difficulty share (23) 1), stale 1, hardware errors 1"
        );
    }

    #[test]
    fn a_pool_with_endless_reasons_fills_no_memory() {
        let stats = Stats::new();
        let cpu = stats.device("cpu");
        for i in 0..1000 {
            cpu.add_rejected(&i.to_string());
        }
        let rejected = stats.snapshot().counts.rejected;
        assert!(rejected.len() <= MAX_REASONS + 1);
        assert_eq!(rejected.values().sum::<u64>(), 1000);
        assert!(rejected["other reasons"] >= 1000 - MAX_REASONS as u64);
    }

    #[test]
    fn machines_hash_more_than_64_bits_count() {
        let stats = Stats::new();
        // Two machines of 200 TH/s come to this in a day and a half.
        for device in [stats.device("a"), stats.device("b")] {
            for _ in 0..3 {
                device.add_hashes(u64::MAX);
            }
        }
        stats.sample();
        let now = stats.snapshot();
        assert_eq!(now.hashes, 6 * u128::from(u64::MAX));
        assert_eq!(now.devices[0].hashes, 3 * u128::from(u64::MAX));
    }

    #[test]
    fn the_rate_of_all_is_known_from_the_first_note_of_a_time_that_is_long_enough() {
        let stats = Stats::new();
        let (one, other) = (stats.device("a"), stats.device("b"));
        assert_eq!(stats.known_rate(Duration::ZERO), None);
        [one, other].iter().for_each(|device| device.add_hashes(1_000_000));
        stats.sample();
        assert_eq!(stats.known_rate(Duration::from_secs(3600)), None);
        let noted = stats.known_rate(Duration::ZERO).map(|rate| rate.0);
        let now = stats.snapshot();
        assert!(
            noted.is_some_and(|noted| noted >= now.rates.quarter.0 && now.hashes == 2_000_000),
            "{noted:?}"
        );
    }

    #[test]
    fn what_a_device_did_stays_in_the_totals_when_it_is_gone() {
        let stats = Stats::new();
        let (here, gone) = (stats.device("a"), stats.device("b"));
        for device in [&here, &gone] {
            device.add_hashes(100);
            device.add_accepted(0.5);
        }
        let mut hash = [0; 32];
        hash[27] = 1; // a little above the target of difficulty 256
        gone.found(hash);
        stats.remove(&gone);
        stats.remove(&gone);
        gone.add_hashes(7);
        let now = stats.snapshot();
        assert_eq!((now.hashes, now.counts.accepted, now.counts.work), (200, 2, 1.0));
        assert!(now.best > 250.0 && now.best < 257.0, "{}", now.best);
        assert_eq!(now.devices.len(), 1);
        let before = now.counts.last_accepted;
        stats.remove(&here);
        let after = stats.snapshot().counts.last_accepted;
        assert!(before.is_some() && after.is_some(), "{before:?}, {after:?}");
    }
}
