//! The HTTP API: JSON for scripts, a dashboard for people.

mod assets;
mod history;
mod money;
mod serve;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use iop_mining::template::LicenseInfo;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::sync::watch;

pub(crate) use self::serve::MAX_CONNECTIONS;

use crate::SOFTWARE;
use crate::blocks::FoundBlock;
use crate::follow::announced::Announced;
use crate::follow::{Health, NodeState, Work};
use crate::history::HashRate;
use crate::metrics::{self, Metrics};
use crate::session::Shared;
use crate::workers::{Listed, Shares};

/// The most workers in one answer, those with most work.
const MAX_LISTED_WORKERS: usize = 1000;

/// State that the API reads.
#[derive(Debug)]
pub struct Api {
    /// The network's name.
    pub network: String,
    /// State shared with the Stratum connections.
    pub shared: Arc<Shared>,
    /// The nodes.
    pub health: Arc<Health>,
    /// When the pool started.
    pub started: Instant,
    /// Prometheus metrics.
    pub metrics: Metrics,
    /// The folder for what must survive a restart.
    pub datadir: PathBuf,
}

/// `/api/v1/status`.
#[derive(Debug, Serialize)]
pub struct Status {
    /// Name and version of the program.
    pub software: &'static str,
    /// The network's name.
    pub network: String,
    /// The time of this answer, in seconds since 1970.
    pub time: u64,
    /// Seconds since the start.
    pub uptime: u64,
    /// `mining`, `no_license`, `no_node` or `no_ledger`.
    pub state: &'static str,
    /// Why there is no work, in words.
    pub reason: Option<String>,
    /// The height from which a license may mine again, if none may now and the height is known.
    pub resumes_from_height: Option<u64>,
    /// The job that sessions have.
    pub job: Option<JobStatus>,
    /// The nodes.
    pub nodes: Vec<NodeState>,
    /// Stratum connections.
    pub connections: usize,
    /// Hash rate of all workers, estimated from their shares.
    pub hash_rate: HashRate,
    /// Shares of all workers since the start.
    pub shares: Shares,
    /// Blocks found since the start, whatever their fate.
    pub blocks_found: u64,
}

/// The job in [`Status`].
#[derive(Debug, Serialize)]
pub struct JobStatus {
    /// Its id.
    pub id: String,
    /// Height of the block.
    pub height: u32,
    /// The hash of the block it builds on.
    pub parent: String,
    /// The license that signed it.
    pub license: String,
    /// Number of transactions without the coinbase.
    pub transactions: usize,
    /// What the coinbase pays, in base units.
    pub coinbase_value: u64,
    /// The difficulty of a block.
    pub network_difficulty: f64,
}

/// `/api/v1/workers`.
#[derive(Debug, Serialize)]
pub struct WorkerList {
    /// The number of workers; the list holds the thousand with most work.
    pub total: usize,
    /// Workers since the start of the pool.
    pub workers: Vec<Listed>,
}

/// `/api/v1/licenses`.
#[derive(Debug, Serialize)]
pub struct LicenseStatus {
    /// Whether it signs the current job.
    pub in_use: bool,
    /// The effect on it of an admin action that waits in the mempool.
    pub announced: Option<Announced>,
    /// Its state on the node.
    #[serde(flatten)]
    pub info: LicenseInfo,
}

impl Api {
    /// `/api/v1/status`.
    #[must_use]
    pub fn status(&self) -> Status {
        let snapshot = Arc::clone(&self.shared.snapshots.borrow());
        let nodes = self.health.read();
        let (state, reason, resumes_from_height, job) = match &snapshot.work {
            Work::Job(job) if nodes.iter().all(|node| !node.in_use) => {
                let reason = "no node gives work; machines keep the last job for five minutes, blocks are kept until a node is back";
                ("no_node", Some(reason.to_owned()), None, Some(job))
            }
            Work::Waiting => ("no_node", Some("no node has given work yet".to_owned()), None, None),
            Work::NoNode => {
                let reason =
                    "no node has given work for five minutes; connections that held a job were closed";
                ("no_node", Some(reason.to_owned()), None, None)
            }
            Work::NoLicense(none) => {
                let reason = format!("{none}; connections that held a job were closed");
                ("no_license", Some(reason), none.resumes_from_height, None)
            }
            Work::NoLedger(trouble) => {
                ("no_ledger", Some(format!("{trouble}; connections that held a job were closed")), None, None)
            }
            Work::Job(job) => ("mining", None, None, Some(job)),
        };
        Status {
            software: SOFTWARE,
            network: self.network.clone(),
            time: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
            uptime: self.started.elapsed().as_secs(),
            state,
            reason,
            resumes_from_height,
            job: job.map(|job| JobStatus {
                id: job.id.to_string(),
                height: job.template.height,
                parent: job.template.parent.to_string(),
                license: job.license.to_base58(&self.shared.prefixes),
                transactions: job.template.txids.len(),
                coinbase_value: job.template.coinbase_value,
                network_difficulty: job.network_difficulty.get(),
            }),
            nodes,
            connections: self.shared.slots.count(),
            hash_rate: self.shared.workers.totals.hash_rate(),
            shares: self.shared.workers.totals.read(),
            blocks_found: self.shared.blocks.found(),
        }
    }

    /// `/api/v1/workers`.
    #[must_use]
    pub fn workers(&self) -> WorkerList {
        let (total, workers) = self.shared.workers.list(MAX_LISTED_WORKERS);
        WorkerList { total, workers }
    }

    /// `/api/v1/blocks`, the latest first.
    #[must_use]
    pub fn blocks(&self) -> Vec<FoundBlock> {
        self.shared.blocks.records()
    }

    /// `/api/v1/licenses`.
    #[must_use]
    pub fn licenses(&self) -> Vec<LicenseStatus> {
        let snapshot = Arc::clone(&self.shared.snapshots.borrow());
        let signing = match &snapshot.work {
            Work::Job(job) => Some(job.license.to_base58(&self.shared.prefixes)),
            Work::Waiting | Work::NoNode | Work::NoLicense(_) | Work::NoLedger(_) => None,
        };
        let announced = self.health.announced();
        let status = |(index, info): (usize, &LicenseInfo)| LicenseStatus {
            in_use: signing.as_ref() == Some(&info.address),
            announced: announced.get(index).cloned().flatten(),
            info: info.clone(),
        };
        snapshot.licenses.iter().enumerate().map(status).collect()
    }
}

fn json(value: &impl Serialize) -> Response {
    let body = serde_json::to_vec(value).expect("string keys and no I/O: encoding cannot fail");
    ([(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-store")], body).into_response()
}

async fn unknown() -> Response {
    refuse(StatusCode::NOT_FOUND, "no such path: / /healthz /metrics /api/v1/… are known")
}

async fn not_allowed() -> Response {
    let refusal =
        refuse(StatusCode::METHOD_NOT_ALLOWED, "this path is known and read only: GET or HEAD expected");
    ([(ALLOW, "GET, HEAD")], refusal).into_response()
}

/// A one-line error response.
fn refuse(status: StatusCode, reason: &str) -> Response {
    (status, json(&serde_json::json!({"error": reason}))).into_response()
}

/// An answer that was not made: its task has panicked.
fn broken() -> Response {
    refuse(StatusCode::INTERNAL_SERVER_ERROR, "the answer could not be made")
}

/// Asks the file system too, so it runs on a thread of its own: a disk that hangs holds nobody else up.
async fn metrics(State(api): State<Arc<Api>>) -> Response {
    match tokio::task::spawn_blocking(move || api.metrics.text(&api)).await {
        Ok(text) => {
            ([(CONTENT_TYPE, metrics::CONTENT_TYPE), (CACHE_CONTROL, "no-store")], text).into_response()
        }
        Err(_) => broken(),
    }
}

/// Serves until `stop` changes.
pub async fn serve(listener: TcpListener, api: Arc<Api>, stop: watch::Receiver<bool>) {
    let router = Router::new()
        .route("/", get(assets::page))
        .route("/assets/{name}", get(assets::file))
        .route("/healthz", get(async || ([(CACHE_CONTROL, "no-store")], "ok\n")))
        .route("/metrics", get(metrics))
        .route("/api/v1/status", get(async |State(api): State<Arc<Api>>| json(&api.status())))
        .route("/api/v1/workers", get(async |State(api): State<Arc<Api>>| json(&api.workers())))
        .route("/api/v1/history", get(history::history))
        .route("/api/v1/blocks", get(async |State(api): State<Arc<Api>>| json(&api.blocks())))
        .route("/api/v1/payouts", get(money::payouts))
        .route("/api/v1/shares", get(money::shares))
        .route("/api/v1/licenses", get(async |State(api): State<Arc<Api>>| json(&api.licenses())))
        .fallback(unknown)
        .method_not_allowed_fallback(not_allowed)
        .with_state(api);
    serve::serve(listener, router, stop).await;
}
