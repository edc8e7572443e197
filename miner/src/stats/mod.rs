//! Statistics: hashes and share verdicts, by device.
//!
//! Here: counters written by devices and upstreams ([`Stats`], [`DeviceStats`]), and their values at one moment
//! ([`Snapshot`]). Not here: how they are shown.

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
    /// Devices that are no longer listed but still referenced: verdicts on their shares may be pending.
    leaving: Vec<Arc<DeviceStats>>,
    /// Sums over devices that are no longer referenced.
    past: Past,
    history: History,
    /// The same by a clock that stops while there is no work.
    at_work: History,
    /// That clock's reading, and the time of the last sample if there was work then.
    worked: Duration,
    work_seen: Option<Duration>,
}

/// Sums over devices that are gone.
#[derive(Debug, Default, Clone)]
struct Past {
    counts: Counts,
    hashes: u128,
    best: f64,
}

impl Past {
    /// Adds a device's counters, `elapsed` after the start.
    fn add(&mut self, device: &DeviceSnapshot, elapsed: Duration) {
        self.counts.add(&device.counts);
        self.counts.last_accepted = self.counts.last_accepted.max(last_accepted(device, elapsed));
        self.hashes += device.hashes;
        self.best = self.best.max(device.best);
    }
}

impl Default for Stats {
    fn default() -> Self {
        Self::new()
    }
}

impl Stats {
    /// Without devices; the clock starts now.
    #[must_use]
    pub fn new() -> Self {
        Self { started: Instant::now(), inner: Mutex::default() }
    }

    /// Adds a device to the list.
    #[must_use]
    pub fn device(&self, name: &str) -> Arc<DeviceStats> {
        let device = Arc::new(DeviceStats::new(name));
        self.lock().devices.push(Arc::clone(&device));
        device
    }

    /// Removes a device from the list, as when a machine has left the gateway. Its counts stay in the totals, and so do
    /// later ones.
    pub fn remove(&self, device: &Arc<DeviceStats>) {
        let mut inner = self.lock();
        if let Some(place) = inner.devices.iter().position(|known| Arc::ptr_eq(known, device)) {
            let device = inner.devices.remove(place);
            inner.leaving.push(device);
        }
    }

    /// Samples all counters for the rates, and whether there is work; to be called every [`rate::SAMPLE_EVERY`].
    pub fn sample(&self, has_work: bool) {
        let (mut inner, elapsed) = (self.lock(), self.started.elapsed());
        inner.forget_those_gone(elapsed);
        let hashes = inner.hashes();
        inner.history.sample(elapsed, hashes);
        inner.sample_work(has_work, elapsed, hashes);
        inner.devices.iter().for_each(|device| device.sample());
    }

    /// The rate of all devices over the last quarter of an hour with work, as of the last sample; `None` until there
    /// was work for `least`. Reads no device counter: cheap for any number of devices.
    #[must_use]
    pub fn known_rate(&self, least: Duration) -> Option<HashRate> {
        let (worked, rate) = self.lock().at_work.last_quarter()?;
        (worked >= least).then_some(rate)
    }

    /// The current values.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let inner = self.lock();
        let elapsed = self.started.elapsed();
        let devices: Vec<DeviceSnapshot> = inner.devices.iter().map(|device| device.snapshot()).collect();
        let mut total = inner.past.clone();
        devices.iter().for_each(|device| total.add(device, elapsed));
        inner.leaving.iter().for_each(|device| total.add(&device.snapshot(), elapsed));
        let Past { counts, hashes, best } = total;
        Snapshot {
            elapsed,
            hashes,
            rates: inner.history.rates(elapsed, hashes),
            by_second: inner.history.by_second(),
            best,
            counts,
            devices,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("nothing panics while it holds the lock")
    }
}

impl Inner {
    fn hashes(&self) -> u128 {
        let devices = self.devices.iter().chain(&self.leaving);
        self.past.hashes + devices.map(|device| device.hashes()).sum::<u128>()
    }

    /// Reduces devices that are no longer referenced to their sums.
    fn forget_those_gone(&mut self, elapsed: Duration) {
        for device in std::mem::take(&mut self.leaving) {
            match Arc::try_unwrap(device) {
                Ok(gone) => self.past.add(&gone.snapshot(), elapsed),
                Err(held) => self.leaving.push(held),
            }
        }
    }

    /// An interval counts as work if there was work at both of its ends.
    fn sample_work(&mut self, has_work: bool, elapsed: Duration, hashes: u128) {
        if let Some(seen) = self.work_seen.filter(|_| has_work) {
            self.worked += elapsed.saturating_sub(seen);
            self.at_work.sample(self.worked, hashes);
        }
        self.work_seen = has_work.then_some(elapsed);
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
    /// Time since the miner's start.
    pub elapsed: Duration,
    /// Headers hashed.
    pub hashes: u128,
    /// Hash rates of all devices together.
    pub rates: Rates,
    /// The rate of each second of the last minute, oldest first.
    pub by_second: Vec<HashRate>,
    /// Outcomes of the shares.
    pub counts: Counts,
    /// The highest difficulty of a find; 0 before the first share.
    pub best: f64,
    /// The listed devices, oldest first.
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

/// The shares, without the hashes: `accepted 7, rejected 2 (Duplicate share 2), stale 1`; hardware errors if there are
/// any.
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
        // Two machines of 200 TH/s reach this in a day and a half.
        for device in [stats.device("a"), stats.device("b")] {
            for _ in 0..3 {
                device.add_hashes(u64::MAX);
            }
        }
        stats.sample(true);
        let now = stats.snapshot();
        assert_eq!(now.hashes, 6 * u128::from(u64::MAX));
        assert_eq!(now.devices[0].hashes, 3 * u128::from(u64::MAX));
    }

    #[test]
    fn the_rate_of_all_is_known_when_there_was_work_for_long_enough_and_goes_by_that_time() {
        let mut inner = Inner::default();
        let at = Duration::from_secs;
        let rate = |inner: &Inner| inner.at_work.last_quarter();
        // A quarter of an hour without a pool.
        (0..900).for_each(|second| inner.sample_work(false, at(second), 0));
        assert_eq!(rate(&inner), None);
        (900..=910).for_each(|second| inner.sample_work(true, at(second), 100 * u128::from(second - 900)));
        assert_eq!(rate(&inner), Some((at(10), HashRate(100.0))));
        // The pool is away again, and back.
        (911..1500).for_each(|second| inner.sample_work(false, at(second), 1000));
        (0..=10)
            .for_each(|second| inner.sample_work(true, at(1500 + second), 1000 + 100 * u128::from(second)));
        assert_eq!(rate(&inner), Some((at(20), HashRate(100.0))));
    }

    #[test]
    fn a_rate_is_known_from_the_first_second_of_work() {
        let stats = Stats::new();
        let devices = [stats.device("a"), stats.device("b")];
        stats.sample(true);
        devices.iter().for_each(|device| device.add_hashes(1_000_000));
        assert_eq!(stats.known_rate(Duration::ZERO), None);
        stats.sample(true);
        assert_eq!(stats.known_rate(Duration::from_secs(3600)), None);
        assert!(stats.known_rate(Duration::ZERO).is_some_and(|rate| rate.0 > 0.0));
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
        let now = stats.snapshot();
        assert_eq!((now.hashes, now.counts.accepted, now.counts.work), (200, 2, 1.0));
        assert!(now.best > 250.0 && now.best < 257.0, "{}", now.best);
        assert_eq!(now.devices.len(), 1);
        let before = now.counts.last_accepted;
        stats.remove(&here);
        let after = stats.snapshot().counts.last_accepted;
        assert!(before.is_some() && after.is_some(), "{before:?}, {after:?}");
    }

    #[test]
    fn verdicts_that_come_when_a_device_is_gone_are_in_the_totals_too() {
        let stats = Stats::new();
        let gone = stats.device("a");
        gone.add_accepted(0.5);
        let on_its_way = Arc::clone(&gone);
        stats.remove(&gone);
        drop(gone);
        stats.sample(true);
        on_its_way.add_accepted(0.5);
        on_its_way.add_rejected("Duplicate share (22)");
        let late = |stats: &Stats| {
            let Counts { accepted, work, rejected, last_accepted, .. } = stats.snapshot().counts;
            (accepted, work, rejected.values().sum::<u64>(), last_accepted.is_some())
        };
        assert_eq!(late(&stats), (2, 1.0, 1, true));
        assert!(stats.snapshot().devices.is_empty());
        drop(on_its_way);
        stats.sample(true);
        assert!(stats.lock().leaving.is_empty(), "nobody can count anything for it");
        assert_eq!(late(&stats), (2, 1.0, 1, true));
    }
}
