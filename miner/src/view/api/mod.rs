//! The HTTP API: the numbers as JSON and for Prometheus, the health of the rig, and a request for another source.
//!
//! Here: paths and their answers. Not here: connections and their limits ([`serve`](self::serve())), the numbers
//! ([`super::numbers`]). There is no password: a client that can connect may read everything, and only one on this
//! machine may change anything ([`switch`]).

mod metrics;
mod serve;
mod switch;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::Serialize;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use super::Watched;
use super::numbers::{DeviceNumbers, JobNumbers, Numbers, Shares, SourceNumbers};
use metrics::Metrics;

/// The most devices in one answer, the oldest ones.
const MAX_LISTED: usize = 1000;
/// Most bytes of a request's body: a request for a source has a few dozen.
const MAX_BODY: usize = 1024;

/// State that answers are made from.
#[derive(Debug)]
struct Api {
    watched: Watched,
    metrics: Metrics,
    /// Whether only programs on this machine can connect to the API.
    local: bool,
    /// Only one answer is made at a time: with a thousand devices it takes milliseconds.
    turn: Semaphore,
}

/// `/api/v1/status`.
#[derive(Debug, Serialize)]
struct Status<'a> {
    version: &'a str,
    uptime: f64,
    state: super::numbers::State,
    reason: Option<&'a str>,
    #[serde(flatten)]
    total: &'a Shares,
    job: Option<&'a JobNumbers>,
    expected_seconds_to_block: Option<f64>,
    /// The number of devices.
    devices: usize,
    sources: &'a [SourceNumbers],
}

/// `/api/v1/devices`.
#[derive(Debug, Serialize)]
struct DeviceList<'a> {
    /// The number of devices; the list holds the first thousand.
    total: usize,
    devices: &'a [DeviceNumbers],
}

/// `/api/v1/sources`.
#[derive(Debug, Serialize)]
struct SourceList<'a> {
    /// The number of the source in use.
    in_use: Option<usize>,
    sources: &'a [SourceNumbers],
}

/// Serves while it is polled.
pub(super) async fn serve(listener: TcpListener, address: SocketAddr, watched: Watched) -> io::Result<()> {
    let router = Router::new()
        .route("/healthz", get(health))
        .route("/metrics", get(scrape))
        .route("/api/v1/status", get(status))
        .route("/api/v1/devices", get(devices))
        .route("/api/v1/sources", get(sources))
        .route("/api/v1/switch", post(switch::switch))
        .fallback(async || {
            refuse(StatusCode::NOT_FOUND, "no such path: /healthz /metrics /api/v1/… are known")
        })
        .method_not_allowed_fallback(async || {
            refuse(
                StatusCode::METHOD_NOT_ALLOWED,
                "GET and HEAD are answered here; /api/v1/switch takes POST",
            )
        })
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(Arc::new(Api::new(watched, address)));
    serve::serve(tokio::net::TcpListener::from_std(listener)?, router).await;
    Ok(())
}

impl Api {
    fn new(watched: Watched, address: SocketAddr) -> Self {
        let local = address.ip().to_canonical().is_loopback();
        Self { watched, metrics: Metrics::default(), local, turn: Semaphore::new(1) }
    }

    /// Makes an answer from the numbers, on a blocking thread: this one carries shares to the pool.
    async fn answer(
        self: Arc<Self>,
        make: impl FnOnce(&Self, &Numbers) -> Response + Send + 'static,
    ) -> Response {
        let api = Arc::clone(&self);
        let _turn = self.turn.acquire().await.expect("the semaphore is never closed");
        let made = spawn_blocking(move || make(&api, &api.watched.numbers())).await;
        made.unwrap_or_else(|_| refuse(StatusCode::INTERNAL_SERVER_ERROR, "the answer could not be made"))
    }
}

async fn status(State(api): State<Arc<Api>>) -> Response {
    api.answer(|_, numbers| {
        json(&Status {
            version: numbers.version,
            uptime: numbers.uptime,
            state: numbers.state,
            reason: numbers.reason.as_deref(),
            total: &numbers.total,
            job: numbers.job.as_ref(),
            expected_seconds_to_block: numbers.expected_seconds_to_block,
            devices: numbers.devices.len(),
            sources: &numbers.sources,
        })
    })
    .await
}

async fn devices(State(api): State<Arc<Api>>) -> Response {
    api.answer(|_, numbers| {
        let listed = &numbers.devices[..numbers.devices.len().min(MAX_LISTED)];
        json(&DeviceList { total: numbers.devices.len(), devices: listed })
    })
    .await
}

async fn sources(State(api): State<Arc<Api>>) -> Response {
    api.answer(|_, numbers| {
        let in_use = numbers.sources.iter().find(|source| source.in_use).map(|source| source.number);
        json(&SourceList { in_use, sources: &numbers.sources })
    })
    .await
}

async fn scrape(State(api): State<Arc<Api>>) -> Response {
    api.answer(|api, numbers| {
        let headers = [(CONTENT_TYPE, metrics::CONTENT_TYPE), (CACHE_CONTROL, "no-store")];
        (headers, api.metrics.text(numbers, api.watched.clock.now())).into_response()
    })
    .await
}

/// 200 while the rig mines, otherwise 503 with the reason.
async fn health(State(api): State<Arc<Api>>) -> Response {
    api.answer(|_, numbers| {
        let (status, text) = match &numbers.reason {
            None => (StatusCode::OK, "ok"),
            Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, &**reason),
        };
        let printable = |character: char| if character.is_control() { ' ' } else { character };
        let text: String = text.chars().map(printable).chain(['\n']).collect();
        (status, [(CACHE_CONTROL, "no-store"), (X_CONTENT_TYPE_OPTIONS, "nosniff")], text).into_response()
    })
    .await
}

fn json(value: &impl Serialize) -> Response {
    let body = serde_json::to_vec(value).expect("string keys and no I/O: encoding cannot fail");
    ([(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-store")], body).into_response()
}

/// A one-line error response.
fn refuse(status: StatusCode, error: &str) -> Response {
    (status, json(&serde_json::json!({"error": error}))).into_response()
}
