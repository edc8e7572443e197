//! The counters of one device.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use iop_stratum::difficulty::Target;

use super::rate::{History, Rates};

/// Most reject reasons counted separately. They are the pool's text, and a pool may use many.
pub(super) const MAX_REASONS: usize = 16;

/// State of a device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Health {
    /// It works, or would if there were work.
    #[default]
    Working,
    /// It is paused, and resumes by itself; with the reason, such as its temperature.
    Paused(String),
    /// It has failed and takes no more work; with the reason.
    Failed(String),
}

/// Counters written by a device and the upstream; any thread may read them.
#[derive(Debug)]
pub struct DeviceStats {
    name: String,
    started: Instant,
    hashes: AtomicU64,
    /// How often the hash counter has wrapped.
    rounds: AtomicU64,
    /// The bits of an `f64`: positive numbers order like their bits.
    best: AtomicU64,
    shares: Mutex<Shares>,
}

#[derive(Debug, Default)]
struct Shares {
    counts: Counts,
    history: History,
    health: Health,
    temperature: Option<f32>,
}

/// Outcomes of a device's shares.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Counts {
    /// Shares accepted by the upstream.
    pub accepted: u64,
    /// The sum of their difficulties.
    pub work: f64,
    /// Shares that came too late: not submitted, refused as stale, or unanswered when the connection was lost.
    pub stale: u64,
    /// Wrong nonces, which were not submitted.
    pub hardware_errors: u64,
    /// Shares refused by the upstream, by its reason.
    pub rejected: BTreeMap<String, u64>,
    /// When the last share was accepted, counted from the device's start.
    pub last_accepted: Option<Duration>,
}

impl Counts {
    /// Refused shares, for any reason.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.rejected.values().sum()
    }

    /// Counts a refusal. Returns whether its reason is new.
    pub(super) fn reject(&mut self, reason: &str, times: u64) -> bool {
        let told_apart = self.rejected.contains_key(reason) || self.rejected.len() < MAX_REASONS;
        let count = self.rejected.entry(if told_apart { reason } else { "other reasons" }.to_owned());
        let count = count.or_default();
        *count += times;
        *count == times
    }

    /// Adds another device's outcomes.
    pub(super) fn add(&mut self, other: &Self) {
        self.accepted += other.accepted;
        self.work += other.work;
        self.stale += other.stale;
        self.hardware_errors += other.hardware_errors;
        for (reason, times) in &other.rejected {
            self.reject(reason, *times);
        }
    }
}

/// A device's counters at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct DeviceSnapshot {
    /// Its name in `--devices`, or the name a machine uses.
    pub name: String,
    /// Time since it started.
    pub elapsed: Duration,
    /// Headers hashed. For a machine behind the gateway, estimated from its shares.
    pub hashes: u128,
    /// Its hash rates.
    pub rates: Rates,
    /// Outcomes of its shares.
    pub counts: Counts,
    /// The highest difficulty of its finds; 0 before the first share.
    pub best: f64,
    /// Its state.
    pub health: Health,
    /// Degrees Celsius, if the platform reports it.
    pub temperature: Option<f32>,
}

impl DeviceStats {
    pub(super) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            started: Instant::now(),
            hashes: AtomicU64::new(0),
            rounds: AtomicU64::new(0),
            best: AtomicU64::new(0),
            shares: Mutex::default(),
        }
    }

    /// The device's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Counts hashes that were computed.
    pub fn add_hashes(&self, hashes: u64) {
        let before = self.hashes.fetch_add(hashes, Ordering::Relaxed);
        if before.checked_add(hashes).is_none() {
            self.rounds.fetch_add(1, Ordering::Release);
        }
    }

    /// Hashes that were computed.
    pub(super) fn hashes(&self) -> u128 {
        loop {
            let rounds = self.rounds.load(Ordering::Acquire);
            let hashes = self.hashes.load(Ordering::Acquire);
            if rounds == self.rounds.load(Ordering::Acquire) {
                return u128::from(rounds) << 64 | u128::from(hashes);
            }
        }
    }

    /// Records a hash that met its share's target, in SHA-256 byte order.
    pub fn found(&self, hash: [u8; 32]) {
        let difficulty = Target::from_le_bytes(hash).difficulty().get();
        self.best.fetch_max(difficulty.to_bits(), Ordering::Relaxed);
    }

    /// Counts an accepted share of this difficulty.
    pub fn add_accepted(&self, difficulty: f64) {
        let mut shares = self.lock();
        shares.counts.accepted += 1;
        shares.counts.work += difficulty;
        shares.counts.last_accepted = Some(self.started.elapsed());
    }

    /// Counts a share that came too late: not submitted, refused as stale, or unanswered.
    pub fn add_stale(&self) {
        self.lock().counts.stale += 1;
    }

    /// Counts a nonce that the independent hash does not confirm.
    pub fn add_hardware_error(&self) {
        self.lock().counts.hardware_errors += 1;
    }

    /// Counts a share that the upstream refused for any other reason. Returns whether that reason is new for this
    /// device.
    pub fn add_rejected(&self, reason: &str) -> bool {
        self.lock().counts.reject(reason, 1)
    }

    /// Sets the device's state.
    pub fn set_health(&self, health: Health) {
        self.lock().health = health;
    }

    /// Sets the reason why the device is paused; `None` if it goes on. A failed device stays failed.
    pub fn set_paused(&self, why: Option<String>) {
        let mut shares = self.lock();
        if matches!(shares.health, Health::Working | Health::Paused(_)) {
            shares.health = why.map_or(Health::Working, Health::Paused);
        }
    }

    /// Sets its temperature, in degrees Celsius.
    pub fn set_temperature(&self, celsius: Option<f32>) {
        self.lock().temperature = celsius;
    }

    /// Samples the hash counter for the rates; to be called every [`super::rate::SAMPLE_EVERY`].
    pub(super) fn sample(&self) {
        let (elapsed, hashes) = (self.started.elapsed(), self.hashes());
        self.lock().history.sample(elapsed, hashes);
    }

    /// The current values.
    #[must_use]
    pub fn snapshot(&self) -> DeviceSnapshot {
        let (elapsed, hashes) = (self.started.elapsed(), self.hashes());
        let shares = self.lock();
        DeviceSnapshot {
            name: self.name.clone(),
            elapsed,
            hashes,
            rates: shares.history.rates(elapsed, hashes),
            counts: shares.counts.clone(),
            best: f64::from_bits(self.best.load(Ordering::Relaxed)),
            health: shares.health.clone(),
            temperature: shares.temperature,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Shares> {
        self.shares.lock().expect("nothing panics while it holds the lock")
    }
}
