//! Prometheus metrics: counters, and the endpoint that serves them.
//!
//! Lives here: [`Metrics`], the handle for code that counts events, and the endpoint `/metrics` of
//! `--metrics-bind`. Does not live here: the state of chain, mempool and peers, which is queried on each scrape.
//! Data goes: events -> counters in the handle; a scrape -> state -> text. Names and meanings are in
//! `docs/metrics.md`.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::chain::actor::{ChainHandle, Stopped};
use crate::chain::clock::now;
use crate::chain::state::ChainState;
use crate::connections::{self, HalfClosed, Limits};
use crate::p2p::handle::NetHandle;

/// The prefix of every name.
const PREFIX: &str = "iop_node";
/// The content type of the response (OpenMetrics 1.0).
const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// Upper bounds of the buckets for block validation times, seconds: a nearly empty block takes a millisecond, a
/// full one on a slow disk some seconds.
const VALIDATION_SECONDS: [f64; 12] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];
/// Maximum number of simultaneous connections: a scraper or two, and an operator.
const MAX_SCRAPERS: usize = 16;
/// How long a client may keep the node waiting.
const PATIENCE: Duration = Duration::from_secs(90);

/// The label for the method that was called.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct MethodLabel {
    method: &'static str,
}

/// The counters of events. Cheap to clone; all clones share the counters.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Arc<Registry>,
    /// Time from the start of a block's checks to its commit, seconds. Observed once per connected block.
    pub block_validation: Histogram,
    /// Blocks that became the tip.
    pub blocks_connected: Counter,
    /// Blocks that were the tip and were disconnected.
    pub blocks_disconnected: Counter,
    rpc_calls: Family<MethodLabel, Counter>,
    rpc_errors: Family<MethodLabel, Counter>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Creates all counters at zero.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix(PREFIX);
        let block_validation = Histogram::new(VALIDATION_SECONDS);
        let (blocks_connected, blocks_disconnected) = (Counter::default(), Counter::default());
        let (rpc_calls, rpc_errors) = (Family::default(), Family::default());
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "The program", build);
        let started: Gauge = Gauge::default();
        started.set(now() as i64);
        registry.register_with_unit(
            "start_time",
            "When the node started, since 1970",
            Unit::Seconds,
            started,
        );
        registry.register_with_unit(
            "block_validation",
            "Time to check and connect a block",
            Unit::Seconds,
            block_validation.clone(),
        );
        registry.register("blocks_connected", "Blocks that became the tip", blocks_connected.clone());
        registry.register("blocks_disconnected", "Blocks taken back", blocks_disconnected.clone());
        registry.register("rpc_calls", "JSON-RPC calls", rpc_calls.clone());
        registry.register("rpc_errors", "JSON-RPC calls answered with an error", rpc_errors.clone());
        Self {
            registry: Arc::new(registry),
            block_validation,
            blocks_connected,
            blocks_disconnected,
            rpc_calls,
            rpc_errors,
        }
    }

    /// Counts a call of an existing method.
    pub(crate) fn rpc_called(&self, method: &'static str, succeeded: bool) {
        let label = MethodLabel { method };
        self.rpc_calls.get_or_create(&label).inc();
        if !succeeded {
            self.rpc_errors.get_or_create(&label).inc();
        }
    }
}

/// The sources that a scrape is answered from.
#[derive(Clone)]
pub(crate) struct Source {
    pub(crate) metrics: Metrics,
    pub(crate) chain: ChainHandle,
    pub(crate) net: Option<NetHandle>,
    /// The Mercury relay, if one is hosted.
    pub(crate) mercury: Option<crate::mercury::Watched>,
}

/// Serves `/metrics` until `shutdown` becomes true.
pub(crate) async fn serve(listener: TcpListener, source: Source, shutdown: watch::Receiver<bool>) {
    let router = Router::new().route("/metrics", get(scrape)).with_state(source);
    let limits = Limits { connections: MAX_SCRAPERS, patience: PATIENCE, half_closed: HalfClosed::Answered };
    connections::serve(listener, limits, |_| router.clone(), shutdown).await;
}

async fn scrape(State(source): State<Source>) -> Response {
    match text(&source).await {
        Ok(text) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response(),
        Err(Stopped) => (StatusCode::SERVICE_UNAVAILABLE, "the node is stopping\n").into_response(),
    }
}

async fn text(source: &Source) -> Result<String, Stopped> {
    let state = state(source).await?;
    let mut out = String::new();
    encode_registry(&mut out, &source.metrics.registry)
        .and_then(|()| encode_registry(&mut out, &state))
        .and_then(|()| encode_eof(&mut out))
        .expect("a text takes every character");
    Ok(out)
}

/// The figures queried from the chain thread.
struct Looked {
    tip_time: u32,
    transactions: usize,
    transaction_bytes: u64,
    mempool_usage: usize,
    unsigned_actions: u64,
    cached_coins: usize,
    cached_bytes: usize,
    hits: u64,
    misses: u64,
}

impl Looked {
    fn at(state: &mut ChainState) -> Self {
        let (pool, coins) = (state.mempool(), state.coins());
        Self {
            tip_time: state.index().header(state.index().tip()).time,
            transactions: pool.len(),
            mempool_usage: pool.usage(),
            transaction_bytes: pool.vsize(),
            unsigned_actions: state.unsigned_actions(),
            cached_coins: coins.cached(),
            cached_bytes: coins.usage(),
            hits: coins.hits(),
            misses: coins.misses(),
        }
    }
}

/// The current state of chain, mempool and network.
async fn state(source: &Source) -> Result<Registry, Stopped> {
    let published = *source.chain.published().borrow();
    let asked = source.chain.run(|state| Ok(Looked::at(state))).await?;
    let since = |time: u64| SystemTime::now().duration_since(UNIX_EPOCH + Duration::from_secs(time));
    let tip_age = since(u64::from(asked.tip_time)).map_or(0.0, |age| age.as_secs_f64());
    let mut registry = Registry::with_prefix(PREFIX);
    let mut gauge = |name: &str, help: &str, value: i64| {
        registry.register(name, help, ConstGauge::new(value));
    };
    gauge("block_height", "Height of the tip", i64::from(published.height));
    gauge("header_height", "Height of the best known header", i64::from(published.best_header_height));
    gauge(
        "initial_block_download",
        "1 while the node is still far behind the network",
        i64::from(published.initial_block_download),
    );
    gauge("mempool_transactions", "Waiting transactions", asked.transactions as i64);
    gauge("mempool_bytes", "Virtual bytes of the waiting transactions", asked.transaction_bytes as i64);
    gauge("mempool_usage_bytes", "Memory of the waiting transactions", asked.mempool_usage as i64);
    gauge("coin_cache_coins", "Coins in memory", asked.cached_coins as i64);
    gauge("coin_cache_bytes", "Memory of the coins", asked.cached_bytes as i64);
    registry.register_with_unit(
        "tip_age",
        "Time since the tip's own",
        Unit::Seconds,
        ConstGauge::new(tip_age),
    );
    registry.register(
        "unsigned_admin_actions",
        "Admin actions in connected blocks that no admin signed",
        ConstCounter::new(asked.unsigned_actions),
    );
    registry.register("coin_cache_hits", "Spent coins found in memory", ConstCounter::new(asked.hits));
    registry.register(
        "coin_cache_misses",
        "Spent coins read from the database",
        ConstCounter::new(asked.misses),
    );
    if let Some(net) = &source.net {
        register_network(&mut registry, net).await;
    }
    if let Some(mercury) = &source.mercury {
        register_mercury(&mut registry, mercury);
    }
    Ok(registry)
}

/// The label for the direction of a connection.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DirectionLabel {
    direction: &'static str,
}

async fn register_network(registry: &mut Registry, net: &NetHandle) {
    // The network ends before the node; then there are no peers.
    let peers = net.peers().await.unwrap_or_default();
    let inbound = peers.iter().filter(|peer| peer.inbound).count();
    let connected = Family::<DirectionLabel, Gauge>::default();
    for (direction, count) in [("inbound", inbound), ("outbound", peers.len() - inbound)] {
        connected.get_or_create(&DirectionLabel { direction }).set(count as i64);
    }
    registry.register("peers", "Connected peers", connected);
    let totals = net.totals();
    for (name, help, value) in [
        ("network_received", "Received from peers", totals.received),
        ("network_sent", "Sent to peers", totals.sent),
    ] {
        registry.register_with_unit(name, help, Unit::Bytes, ConstCounter::new(value));
    }
}

fn register_mercury(registry: &mut Registry, mercury: &crate::mercury::Watched) {
    let (up, figures) = mercury.figures();
    registry.register("mercury_up", "1 while the relay runs", ConstGauge::new(i64::from(up)));
    for figure in figures {
        let name = format!("mercury_{}", figure.name);
        if figure.counter {
            registry.register(name, figure.help, ConstCounter::new(figure.value));
        } else {
            registry.register(name, figure.help, ConstGauge::new(figure.value as i64));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_told_under_its_name() {
        let metrics = Metrics::new();
        metrics.clone().block_validation.observe(0.003);
        metrics.clone().blocks_connected.inc();
        metrics.rpc_called("getblock", false);
        let mut text = String::new();
        encode_registry(&mut text, &metrics.registry).expect("a text takes every character");
        for line in [
            "iop_node_block_validation_seconds_count 1",
            "iop_node_block_validation_seconds_bucket{le=\"0.005\"} 1",
            "iop_node_block_validation_seconds_bucket{le=\"0.0025\"} 0",
            "iop_node_blocks_connected_total 1",
            "iop_node_rpc_calls_total{method=\"getblock\"} 1",
            "iop_node_rpc_errors_total{method=\"getblock\"} 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }
}
