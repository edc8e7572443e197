//! Metrics for Prometheus, as OpenMetrics text. Names and meanings are in `docs/metrics.md`.
//!
//! All values are read on each scrape; nothing is counted twice. Labels are bounded: windows, states and reject reasons
//! are few, sources are those of the command line, and of the devices the first [`MAX_LISTED`] are distinguished.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use super::MAX_LISTED;
use crate::view::numbers::{DeviceNumbers, HashRates, Numbers, SourceNumbers, State};

/// Prefix of every name.
const PREFIX: &str = "iop_miner";
/// The content type of the answer (OpenMetrics 1.0).
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Seconds by which the wall clock may drift from the monotonic clock before it counts as set.
const CLOCK_SLACK: u64 = 2;

type Numeric = Gauge<f64, AtomicU64>;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WindowLabel {
    window: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabel {
    state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DeviceLabel {
    device: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SourceLabel {
    source: usize,
    url: String,
}

/// State that is kept between scrapes.
#[derive(Debug, Default)]
pub(super) struct Metrics {
    /// When the miner started, in seconds since 1970, as last reported.
    started: AtomicI64,
}

impl Metrics {
    /// When the miner started: constant until the clock is set. Then it is recomputed by the new clock, so that the
    /// uptime computed from it stays right.
    fn started(&self, uptime: f64, now: u64) -> i64 {
        let reckoned = i64::try_from(now).unwrap_or(i64::MAX).saturating_sub(uptime as i64);
        let told = self.started.load(Ordering::Relaxed);
        if reckoned.abs_diff(told) <= CLOCK_SLACK {
            return told;
        }
        self.started.store(reckoned, Ordering::Relaxed);
        reckoned
    }

    /// All metrics as text at `now`, in seconds since 1970.
    pub(super) fn text(&self, numbers: &Numbers, now: u64) -> String {
        let mut registry = Registry::with_prefix(PREFIX);
        registry.register("build", "The program", Info::new([("version", numbers.version)]));
        let started = ConstGauge::new(self.started(numbers.uptime, now));
        let help = "When the miner started, since 1970";
        registry.register_with_unit("start_time", help, Unit::Seconds, started);
        totals(&mut registry, numbers);
        expectations(&mut registry, numbers);
        devices(&mut registry, &numbers.devices);
        sources(&mut registry, &numbers.sources);
        let mut text = String::new();
        encode(&mut text, &registry).expect("a text takes every character");
        text
    }
}

fn totals(registry: &mut Registry, numbers: &Numbers) {
    let total = &numbers.total;
    let mining = i64::from(numbers.state == State::Mining);
    registry.register("mining", "1 while a source works and there are hashes", ConstGauge::new(mining));
    rates(registry, &total.hash_rate);
    let mut count = |name: &str, help: &str, value| registry.register(name, help, ConstCounter::new(value));
    count("hashes", "Headers hashed", total.hashes as f64);
    count("shares_accepted", "Shares that the source took", total.accepted as f64);
    count("shares_stale", "Shares that came too late, submitted or not", total.stale as f64);
    count("hardware_errors", "Nonces found wrongly, and not submitted", total.hardware_errors as f64);
    registry.register(
        "work",
        "Sum of the difficulties of accepted shares; times 2^32: hashes",
        ConstCounter::new(total.accepted_work),
    );
    let rejected = Family::<ReasonLabel, Counter>::default();
    for (reason, times) in &total.rejected_reasons {
        rejected.get_or_create(&ReasonLabel { reason: reason.clone() }).inc_by(*times);
    }
    registry.register("shares_rejected", "Shares that the source refused, by its words", rejected);
}

fn rates(registry: &mut Registry, rates: &HashRates) {
    let family = Family::<WindowLabel, Numeric>::default();
    for (window, rate) in [
        ("10s", rates.ten_seconds),
        ("1min", rates.minute),
        ("15min", rates.quarter),
        ("average", rates.average),
    ] {
        family.get_or_create(&WindowLabel { window }).set(rate);
    }
    registry.register_with_unit("hash_rate", "How fast it hashes", hashes_per_second(), family);
}

fn hashes_per_second() -> Unit {
    Unit::Other("hashes_per_second".to_owned())
}

/// Unknown values have no line.
fn expectations(registry: &mut Registry, numbers: &Numbers) {
    let total = &numbers.total;
    let mut gauge = |name: &str, help: &str, unit: Option<Unit>, value: Option<f64>| {
        let Some(value) = value.map(ConstGauge::new) else { return };
        match unit {
            Some(unit) => registry.register_with_unit(name, help, unit, value),
            None => registry.register(name, help, value),
        }
    };
    let job = numbers.job.as_ref();
    let height = job.and_then(|job| job.height).map(f64::from);
    gauge("best_share_difficulty", "Greatest difficulty that a hash met", None, total.best);
    gauge("luck_ratio", "Accepted work times 2^32 over hashes, once there are 16 shares", None, total.luck);
    let age = total.seconds_since_accepted;
    gauge("accepted_share_age", "Time since a share was accepted", Some(Unit::Seconds), age);
    let expected = numbers.expected_seconds_to_block;
    gauge("time_to_block", "Time that a block takes on average", Some(Unit::Seconds), expected);
    let difficulty = job.map(|job| job.network_difficulty);
    gauge("network_difficulty", "What a block needs", None, difficulty);
    gauge("job_height", "Height of the block that is mined", None, height);
    gauge("job_age", "Time since the job came", Some(Unit::Seconds), job.map(|job| job.age));
}

/// The devices with one name: machines behind the gateway choose theirs.
#[derive(Default)]
struct Named {
    hashes: u128,
    rate: f64,
    accepted: u64,
    rejected: u64,
    stale: u64,
    hardware_errors: u64,
    working: i64,
    best: f64,
    temperature: Option<f32>,
}

impl Named {
    fn add(&mut self, device: &DeviceNumbers) {
        let shares = &device.shares;
        self.hashes += shares.hashes;
        self.rate += shares.hash_rate.minute;
        self.accepted += shares.accepted;
        self.rejected += shares.rejected;
        self.stale += shares.stale;
        self.hardware_errors += shares.hardware_errors;
        self.working += i64::from(device.state == "working");
        self.best = self.best.max(shares.best.unwrap_or(0.0));
        self.temperature = self.temperature.into_iter().chain(device.temperature).reduce(f32::max);
    }
}

fn devices(registry: &mut Registry, devices: &[DeviceNumbers]) {
    let mut by_name: BTreeMap<&str, Named> = BTreeMap::new();
    for device in devices.iter().take(MAX_LISTED) {
        by_name.entry(&device.name).or_default().add(device);
    }
    let states = Family::<StateLabel, Gauge>::default();
    for state in ["working", "paused", "failed"] {
        let count = devices.iter().filter(|device| device.state == state).count();
        states.get_or_create(&StateLabel { state }).set(i64::try_from(count).unwrap_or(i64::MAX));
    }
    registry.register("devices", "Devices, and machines behind the gateway", states);
    let mut count = |name: &str, help: &str, value: fn(&Named) -> f64| {
        let family = Family::<DeviceLabel, Counter<f64, AtomicU64>>::default();
        for (device, named) in &by_name {
            family.get_or_create(&device_label(device)).inc_by(value(named));
        }
        registry.register(name, help, family);
    };
    count("device_hashes", "Headers hashed by a device", |named| named.hashes as f64);
    count("device_shares_accepted", "Its shares that the source took", |named| named.accepted as f64);
    count("device_shares_rejected", "Its shares that the source refused", |named| named.rejected as f64);
    count("device_shares_stale", "Its shares that came too late", |named| named.stale as f64);
    count("device_hardware_errors", "Nonces that it found wrongly", |named| named.hardware_errors as f64);
    let gauge = |value: &dyn Fn(&Named) -> Option<f64>| {
        let family = Family::<DeviceLabel, Numeric>::default();
        for (device, named) in &by_name {
            value(named).map(|value| family.get_or_create(&device_label(device)).set(value));
        }
        family
    };
    let rates = gauge(&|named| Some(named.rate));
    let help = "How fast it hashed over the last minute";
    registry.register_with_unit("device_hash_rate", help, hashes_per_second(), rates);
    let working = gauge(&|named| Some(named.working as f64));
    registry.register(
        "device_working",
        "1 while it works, 0 while it pauses and once it has failed",
        working,
    );
    let best = gauge(&|named| (named.best > 0.0).then_some(named.best));
    registry.register("device_best_share_difficulty", "Greatest difficulty that a hash of it met", best);
    let heat = gauge(&|named| named.temperature.map(f64::from));
    registry.register_with_unit("device_temperature", "Its temperature", Unit::Celsius, heat);
}

fn device_label(name: &str) -> DeviceLabel {
    DeviceLabel { device: name.to_owned() }
}

fn sources(registry: &mut Registry, sources: &[SourceNumbers]) {
    let label = |source: &SourceNumbers| SourceLabel { source: source.number, url: source.url.clone() };
    let mut count = |name: &str, help: &str, value: fn(&SourceNumbers) -> u64| {
        let family = Family::<SourceLabel, Counter>::default();
        for source in sources {
            family.get_or_create(&label(source)).inc_by(value(source));
        }
        registry.register(name, help, family);
    };
    count("source_jobs", "Jobs that a source sent", |source| source.jobs);
    count("source_shares_accepted", "Shares that it took", |source| source.accepted);
    count("source_shares_rejected", "Shares that it refused", |source| source.rejected);
    count("source_shares_stale", "Shares that came too late for it", |source| source.stale);
    count("source_blocks_found", "Blocks found, where that is known", |source| source.blocks);
    let gauge = |value: fn(&SourceNumbers) -> Option<f64>| {
        let family = Family::<SourceLabel, Numeric>::default();
        for source in sources {
            value(source).map(|value| family.get_or_create(&label(source)).set(value));
        }
        family
    };
    let working = gauge(|source| Some(f64::from(u8::from(source.state == "working"))));
    registry.register("source_working", "1 while it gives work", working);
    let in_use = gauge(|source| Some(f64::from(u8::from(source.in_use))));
    registry.register("source_in_use", "1 for the source in use, or on the way to be", in_use);
    let difficulty = gauge(|source| source.difficulty);
    registry.register("source_share_difficulty", "What its shares need", difficulty);
    let answer = gauge(|source| source.answer_seconds);
    registry.register_with_unit("source_answer", "How long its last verdict took", Unit::Seconds, answer);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_is_told_alike_until_somebody_sets_the_clock() {
        let metrics = Metrics::default();
        assert_eq!(metrics.started(10.2, 1_000_010), 1_000_000);
        // The second is not over yet, and the clock is slewed.
        assert_eq!(metrics.started(20.9, 1_000_020), 1_000_000);
        assert_eq!(metrics.started(30.0, 1_000_032), 1_000_000);
        assert_eq!(metrics.started(40.0, 5_000_040), 5_000_000);
        assert_eq!(metrics.started(50.0, 0), -50);
    }
}
