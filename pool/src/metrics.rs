//! Metrics for Prometheus. State held elsewhere is read on each scrape and never counted twice; only times are
//! collected here. Names and meanings are in `docs/metrics.md`.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use crate::api::{Api, LicenseStatus, Status};
use crate::datadir::free_bytes;

/// Prefix of every name.
const PREFIX: &str = "iop_pool";
/// The content type of the answer (OpenMetrics 1.0).
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// Upper bounds of the buckets of commit times, in seconds: a tenth of a millisecond is usual, seconds mean a failing
/// disk.
const COMMIT_SECONDS: [f64; 10] = [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.1, 1.0, 10.0];
/// Upper bounds of the buckets of shares per commit.
const COMMIT_SHARES: [f64; 8] = [1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 10_000.0];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CodeLabel {
    code: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StatusLabel {
    status: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct NodeLabel {
    node: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LicenseLabel {
    license: String,
}

/// Times of the share log. All clones count together.
#[derive(Debug, Clone)]
pub struct CommitTimes {
    seconds: Histogram,
    shares: Histogram,
}

impl Default for CommitTimes {
    fn default() -> Self {
        Self { seconds: Histogram::new(COMMIT_SECONDS), shares: Histogram::new(COMMIT_SHARES) }
    }
}

impl CommitTimes {
    /// Counts a commit.
    pub fn observe(&self, time: Duration, shares: usize) {
        self.seconds.observe(time.as_secs_f64());
        self.shares.observe(shares as f64);
    }
}

/// Metrics that are collected as events happen.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
}

impl Metrics {
    /// Starts at zero; commits are counted through `commits` and its clones.
    #[must_use]
    pub fn new(commits: &CommitTimes) -> Self {
        let mut registry = Registry::with_prefix(PREFIX);
        registry.register("build", "The program", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
        let started: Gauge = Gauge::default();
        let since = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        started.set(i64::try_from(since).unwrap_or(i64::MAX));
        registry.register_with_unit(
            "start_time",
            "When the pool started, since 1970",
            Unit::Seconds,
            started,
        );
        registry.register_with_unit(
            "share_commit",
            "Time to commit a group of shares",
            Unit::Seconds,
            commits.seconds.clone(),
        );
        registry.register("share_commit_shares", "Shares in a commit", commits.shares.clone());
        Self { registry }
    }

    /// All metrics in the text format.
    #[must_use]
    pub fn text(&self, api: &Api) -> String {
        let state = state(api);
        let mut text = String::new();
        encode_registry(&mut text, &self.registry)
            .and_then(|()| encode_registry(&mut text, &state))
            .and_then(|()| encode_eof(&mut text))
            .expect("a text takes every character");
        text
    }
}

/// The current state of the pool.
fn state(api: &Api) -> Registry {
    let mut registry = Registry::with_prefix(PREFIX);
    let status = api.status();
    gauges(&mut registry, api, &status);
    shares(&mut registry, api, &status);
    nodes(&mut registry, &status);
    licenses(&mut registry, &api.licenses());
    registry
}

fn gauges(registry: &mut Registry, api: &Api, status: &Status) {
    let mut gauge =
        |name: &str, help: &str, value: i64| registry.register(name, help, ConstGauge::new(value));
    gauge("connections", "Stratum connections", count(status.connections as u64));
    gauge("working", "1 while there is a job for miners", i64::from(status.state == "mining"));
    let job = status.job.as_ref();
    gauge(
        "job_height",
        "Height of the block that is mined, 0 without a job",
        job.map_or(0, |job| job.height.into()),
    );
    gauge("job_transactions", "Transactions in it", job.map_or(0, |job| count(job.transactions as u64)));
    let log = api.shared.ledger.log_state();
    gauge("share_log_stuck", "1 while shares cannot be stored", i64::from(log.trouble.is_some()));
    let difficulty = job.map_or(0.0, |job| job.network_difficulty);
    registry.register(
        "network_difficulty",
        "What a block needs, 0 without a job",
        ConstGauge::new(difficulty),
    );
    registry.register("share_log_shares", "Shares in the log", ConstCounter::new(log.logged));
    // Left out where the file system does not tell.
    if let Ok(free) = free_bytes(&api.datadir) {
        let help = "Free space of the file system that the data folder is in";
        registry.register_with_unit("datadir_free", help, Unit::Bytes, ConstGauge::new(count(free)));
    }
    let blocks = Family::<StatusLabel, Gauge>::default();
    let mut by_status: BTreeMap<&'static str, i64> = BTreeMap::new();
    for record in api.blocks() {
        *by_status.entry(record.status.word()).or_default() += 1;
    }
    for (status, number) in by_status {
        blocks.get_or_create(&StatusLabel { status }).set(number);
    }
    registry.register("blocks", "The last thousand blocks found since the start", blocks);
    registry.register("blocks_found", "Blocks found since the start", ConstCounter::new(status.blocks_found));
}

fn shares(registry: &mut Registry, api: &Api, status: &Status) {
    let shares = &status.shares;
    registry.register("shares_accepted", "Good shares", ConstCounter::new(shares.accepted));
    registry.register(
        "work",
        "Sum of their difficulties; times 2^32: hashes",
        ConstCounter::new(shares.work),
    );
    let refused = Family::<CodeLabel, Counter>::default();
    for (&code, &number) in &shares.rejected {
        refused.get_or_create(&CodeLabel { code: code.into() }).inc_by(number);
    }
    registry.register("shares_refused", "Refused shares by Stratum's code", refused);
    let workers = api.shared.workers.count();
    registry.register("workers", "User names that are known", ConstGauge::new(count(workers as u64)));
}

fn nodes(registry: &mut Registry, status: &Status) {
    let (up, height, lag) = (
        Family::<NodeLabel, Gauge>::default(),
        Family::<NodeLabel, Gauge>::default(),
        Family::<NodeLabel, Gauge>::default(),
    );
    for state in &status.nodes {
        let label = NodeLabel { node: state.node.clone() };
        up.get_or_create(&label).set(i64::from(state.trouble.is_none() && state.height.is_some()));
        if let Some(found) = state.height {
            height.get_or_create(&label).set(found.into());
        }
        if let Some(found) = state.lag {
            lag.get_or_create(&label).set(found.into());
        }
    }
    registry.register("node_up", "1 for a node that answers and is not behind", up);
    registry.register("node_height", "Height of its tip", height);
    registry.register("node_lag", "Blocks that the best node is ahead of it", lag);
}

fn licenses(registry: &mut Registry, licenses: &[LicenseStatus]) {
    let (whitelisted, eligible, window, remaining) = (
        Family::<LicenseLabel, Gauge>::default(),
        Family::<LicenseLabel, Gauge>::default(),
        Family::<LicenseLabel, Gauge>::default(),
        Family::<LicenseLabel, Gauge>::default(),
    );
    for license in licenses {
        let info = &license.info;
        let label = LicenseLabel { license: info.address.clone() };
        whitelisted.get_or_create(&label).set(i64::from(info.whitelisted));
        eligible.get_or_create(&label).set(i64::from(info.eligible_next));
        window.get_or_create(&label).set(count(info.blocks_in_window));
        if let Some(left) = info.remaining {
            remaining.get_or_create(&label).set(count(left));
        }
    }
    registry.register("license_whitelisted", "1 for a license on the whitelist", whitelisted);
    registry.register("license_eligible", "1 for a license that may mine the next block", eligible);
    registry.register("license_blocks_in_window", "Its blocks that count in the window", window);
    registry.register("license_remaining", "Blocks left in the window, where it is capped", remaining);
}

fn count(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
