//! The contents of cgminer's records, made from our numbers.
//!
//! Names and types are those of its API description, version 3.7: counts are whole numbers, as is the best share.
//! Values that cgminer counts and we do not are 0. Work of refused and stale shares is estimated by the mean difficulty
//! of accepted ones, a source's work by its part of them. Every device is an ASC: monitors no longer know CPUs.

use super::reply::Record;
use crate::view::numbers::{DeviceNumbers, HashRates, Numbers, Shares, SourceNumbers};

/// The most devices in a reply, the oldest ones.
const MAX_LISTED: usize = 1000;
/// The version of the API that the names are from.
const API_VERSION: &str = "3.7";
/// Seconds between two log lines of cgminer; its shortest rate covers this time and is named after it.
const LOG_INTERVAL: u64 = 5;
/// Hashes in a megahash.
const MEGA: f64 = 1e6;
/// Hashes in a gigahash.
const GIGA: f64 = 1e9;

/// The devices in a reply.
pub(super) fn listed(numbers: &Numbers) -> &[DeviceNumbers] {
    &numbers.devices[..numbers.devices.len().min(MAX_LISTED)]
}

pub(super) fn version() -> Record {
    let program = concat!("iop-miner ", env!("CARGO_PKG_VERSION"));
    Record::default().text("CGMiner", program).text("API", API_VERSION)
}

pub(super) fn config(numbers: &Numbers) -> Record {
    Record::default()
        .integer("ASC Count", listed(numbers).len())
        .integer("PGA Count", 0)
        .integer("Pool Count", numbers.sources.len())
        .text("Strategy", "Failover")
        .integer("Log Interval", LOG_INTERVAL)
        .text("Device Code", "")
        .text("OS", std::env::consts::OS)
        .text("Hotplug", "None")
}

/// Rates in MH/s as in cgminer, and two in GH/s, which monitors of newer machines read.
fn rates(record: Record, rates: &HashRates) -> Record {
    record
        .decimal("MHS av", rates.average / MEGA, 4)
        .decimal("MHS 5s", rates.five_seconds / MEGA, 4)
        .decimal("MHS 1m", rates.minute / MEGA, 4)
        .decimal("MHS 5m", rates.five_minutes / MEGA, 4)
        .decimal("MHS 15m", rates.quarter / MEGA, 4)
        .decimal("GHS av", rates.average / GIGA, 7)
        .decimal("GHS 5s", rates.five_seconds / GIGA, 7)
}

/// Work of shares by outcome, as difficulty.
struct Work {
    accepted: f64,
    rejected: f64,
    stale: f64,
}

impl Work {
    /// Estimates it from the work of the accepted ones.
    fn new(accepted: f64, counts: [u64; 3]) -> Self {
        let [taken, rejected, stale] = counts.map(|count| count as f64);
        let mean = if taken > 0.0 { accepted / taken } else { 0.0 };
        Self { accepted, rejected: mean * rejected, stale: mean * stale }
    }

    fn of(shares: &Shares) -> Self {
        Self::new(shares.accepted_work, [shares.accepted, shares.rejected, shares.stale])
    }

    fn all(&self) -> f64 {
        self.accepted + self.rejected + self.stale
    }
}

fn percent(part: u64, of: u64) -> f64 {
    if of == 0 { 0.0 } else { 100.0 * part as f64 / of as f64 }
}

fn hardware_percent(shares: &Shares) -> f64 {
    let found = shares.accepted + shares.rejected + shares.stale;
    percent(shares.hardware_errors, shares.hardware_errors + found)
}

/// The time in seconds since 1970 that is this long before now; 0 for never.
fn time(ago: Option<f64>, now: u64) -> u64 {
    ago.map_or(0, |ago| now.saturating_sub(ago as u64))
}

pub(super) fn summary(numbers: &Numbers, now: u64) -> Record {
    let total = &numbers.total;
    let work = Work::of(total);
    let sum = |count: fn(&SourceNumbers) -> u64| numbers.sources.iter().map(count).sum::<u64>();
    let record = rates(Record::default().integer("Elapsed", numbers.uptime as u64), &total.hash_rate)
        .integer("Found Blocks", sum(|source| source.blocks))
        .integer("Getworks", sum(|source| source.jobs))
        .integer("Accepted", total.accepted)
        .integer("Rejected", total.rejected)
        .integer("Hardware Errors", total.hardware_errors)
        .decimal("Utility", total.accepted_per_minute, 2)
        .integer("Discarded", 0)
        .integer("Stale", total.stale)
        .integer("Get Failures", 0)
        .integer("Local Work", 0)
        .integer("Remote Failures", 0)
        .integer("Network Blocks", 0)
        .decimal("Total MH", total.hashes as f64 / MEGA, 4)
        .decimal("Work Utility", 60.0 * work.all() / numbers.uptime, 2);
    record
        .decimal("Difficulty Accepted", work.accepted, 8)
        .decimal("Difficulty Rejected", work.rejected, 8)
        .decimal("Difficulty Stale", work.stale, 8)
        .integer("Best Share", total.best.unwrap_or(0.0) as u64)
        .decimal("Device Hardware%", hardware_percent(total), 4)
        .decimal("Device Rejected%", total.rejected_percent.unwrap_or(0.0), 4)
        .decimal("Pool Rejected%", total.rejected_percent.unwrap_or(0.0), 4)
        .decimal("Pool Stale%", total.stale_percent.unwrap_or(0.0), 4)
        .integer("Last getwork", time(numbers.job.as_ref().map(|job| job.age), now))
}

/// cgminer's name for a device's state: one that does not hash at the moment is sick.
fn status(state: &str) -> &'static str {
    match state {
        "working" => "Alive",
        "paused" => "Sick",
        _ => "Dead",
    }
}

pub(super) fn devices(numbers: &Numbers, now: u64) -> Vec<Record> {
    (0..listed(numbers).len()).map(|number| device(number, numbers, now)).collect()
}

/// The device with this number, which must exist.
pub(super) fn device(number: usize, numbers: &Numbers, now: u64) -> Record {
    let device = &numbers.devices[number];
    let shares = &device.shares;
    let work = Work::of(shares);
    let current = numbers.current();
    let pool = current.filter(|_| shares.accepted > 0).and_then(|source| i64::try_from(source.number).ok());
    let last = time(shares.seconds_since_accepted, now);
    let difficulty = current.filter(|_| shares.accepted > 0).and_then(|source| source.difficulty);
    let record = Record::default()
        .integer("ASC", number)
        .text("Name", &*device.name)
        .integer("ID", number)
        .text("Enabled", "Y")
        .text("Status", status(device.state))
        .decimal("Temperature", device.temperature.map_or(0.0, f64::from), 2);
    rates(record, &shares.hash_rate)
        .integer("Accepted", shares.accepted)
        .integer("Rejected", shares.rejected)
        .integer("Hardware Errors", shares.hardware_errors)
        .decimal("Utility", shares.accepted_per_minute, 2)
        .integer("Last Share Pool", pool.unwrap_or(-1))
        .integer("Last Share Time", last)
        .decimal("Total MH", shares.hashes as f64 / MEGA, 4)
        .integer("Diff1 Work", work.all() as u64)
        .decimal("Difficulty Accepted", work.accepted, 8)
        .decimal("Difficulty Rejected", work.rejected, 8)
        .decimal("Last Share Difficulty", difficulty.unwrap_or(0.0), 8)
        .integer("Last Valid Work", last)
        .decimal("Device Hardware%", hardware_percent(shares), 4)
        .decimal("Device Rejected%", shares.rejected_percent.unwrap_or(0.0), 4)
        .integer("Device Elapsed", device.uptime as u64)
}

pub(super) fn pools(numbers: &Numbers, now: u64) -> Vec<Record> {
    numbers.sources.iter().map(|source| pool(source, &numbers.total, now)).collect()
}

fn pool(source: &SourceNumbers, total: &Shares, now: u64) -> Record {
    let part = percent(source.accepted, total.accepted) / 100.0;
    let work = Work::new(total.accepted_work * part, [source.accepted, source.rejected, source.stale]);
    let found = source.accepted + source.rejected + source.stale;
    let stratum = source.url.starts_with("stratum");
    let active = stratum && matches!(source.state, "working" | "waiting");
    let difficulty = source.difficulty.unwrap_or(0.0);
    let alive = !matches!(source.state, "away" | "connecting");
    let record = Record::default()
        .integer("POOL", source.number)
        .text("URL", &*source.url)
        .text("Status", if alive { "Alive" } else { "Dead" })
        .integer("Priority", source.number)
        .integer("Quota", 1)
        .text("Long Poll", if stratum { "N" } else { "Y" })
        .integer("Getworks", source.jobs)
        .integer("Accepted", source.accepted)
        .integer("Rejected", source.rejected)
        .integer("Works", source.jobs)
        .integer("Discarded", 0)
        .integer("Stale", source.stale)
        .integer("Get Failures", 0)
        .integer("Remote Failures", 0)
        .text("User", &*source.user)
        .integer("Last Share Time", time(source.seconds_since_accepted, now))
        .integer("Diff1 Shares", work.all() as u64)
        .text("Proxy Type", "")
        .text("Proxy", "");
    record
        .decimal("Difficulty Accepted", work.accepted, 8)
        .decimal("Difficulty Rejected", work.rejected, 8)
        .decimal("Difficulty Stale", work.stale, 8)
        .decimal("Last Share Difficulty", if source.accepted > 0 { difficulty } else { 0.0 }, 8)
        .decimal("Work Difficulty", difficulty, 8)
        .flag("Has Stratum", stratum)
        .flag("Stratum Active", active)
        .text("Stratum URL", if active { &*source.url } else { "" })
        .decimal("Stratum Difficulty", if active { difficulty } else { 0.0 }, 8)
        .flag("Has Vmask", stratum)
        .flag("Has GBT", !stratum)
        .integer("Best Share", if source.in_use { total.best.unwrap_or(0.0) as u64 } else { 0 })
        .decimal("Pool Rejected%", percent(source.rejected, found), 4)
        .decimal("Pool Stale%", percent(source.stale, found), 4)
        .integer("Bad Work", 0)
        .integer("Current Block Height", source.job.as_ref().and_then(|job| job.height).unwrap_or(0))
        .integer("Current Block Version", 0)
}

pub(super) fn details(numbers: &Numbers) -> Vec<Record> {
    let detail = |(number, device): (usize, &DeviceNumbers)| {
        let driver = device.name.split(':').next().unwrap_or_default();
        Record::default()
            .integer("DEVDETAILS", number)
            .text("Name", &*device.name)
            .integer("ID", number)
            .text("Driver", driver)
            .text("Kernel", "")
            .text("Model", "")
            .text("Device Path", "")
    };
    listed(numbers).iter().enumerate().map(detail).collect()
}

/// Devices, then pools, without further data.
pub(super) fn stats(numbers: &Numbers) -> Vec<Record> {
    let devices = listed(numbers).iter().map(|device| device.name.clone());
    let pools = numbers.sources.iter().map(|source| format!("POOL{}", source.number));
    let entry = |(number, id): (usize, String)| {
        Record::default()
            .integer("STATS", number)
            .text("ID", id)
            .integer("Elapsed", numbers.uptime as u64)
            .integer("Calls", 0)
            .decimal("Wait", 0.0, 6)
            .decimal("Max", 0.0, 6)
            .decimal("Min", 0.0, 6)
    };
    devices.chain(pools).enumerate().map(entry).collect()
}

pub(super) fn coin(numbers: &Numbers) -> Record {
    let long_poll = numbers.current().is_some_and(|source| !source.url.starts_with("stratum"));
    Record::default()
        .text("Hash Method", "sha256")
        .decimal("Current Block Time", 0.0, 6)
        .text("Current Block Hash", "")
        .flag("LP", long_poll)
        .decimal("Network Difficulty", numbers.job.as_ref().map_or(0.0, |job| job.network_difficulty), 8)
}
