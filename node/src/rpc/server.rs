//! HTTP: one POST, one answer.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, FromRequest, Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tracing::warn;

use super::auth::Credentials;
use super::envelope::{Call, answer};
use super::error::{PARSE, RpcError};
use super::methods::{self, Context};

/// The largest request: a whole block in hex, and room.
const MAX_BODY_BYTES: usize = 32 * 1024 * 1024;
/// Connections at a time; the next wait. With RocksDB's files this stays below the common limit of 1,024 open files,
/// past which the database could not write.
const MAX_CONNECTIONS: usize = 512;
/// A client has this long for a request's headers, idle time before them included (Core's -rpcservertimeout).
const HEADER_TIME: Duration = Duration::from_secs(30);
/// Wait after a connection could not be taken.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// A wrong password is answered this late, so that guessing is slow.
const WRONG_PASSWORD_DELAY: Duration = Duration::from_millis(250);

struct Shared {
    context: Context,
    credentials: Credentials,
}

/// Serves until `shutdown` says so; calls under way are answered first.
pub(crate) async fn serve(
    listener: TcpListener,
    context: Context,
    credentials: Credentials,
    mut shutdown: watch::Receiver<bool>,
) {
    let shared = Arc::new(Shared { context, credentials });
    let router =
        Router::new().fallback(handle).layer(DefaultBodyLimit::max(MAX_BODY_BYTES)).with_state(shared);
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEADER_TIME);
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let connections = GracefulShutdown::new();
    loop {
        let (place, stream) = tokio::select! {
            next = next_connection(&listener, &places) => next,
            // The sender gone means the same.
            _ = shutdown.wait_for(|stop| *stop) => break,
        };
        let service = TowerToHyperService::new(router.clone());
        let connection = connections.watch(http.serve_connection(TokioIo::new(stream), service));
        tokio::spawn(async move {
            // What a client does to its connection concerns nobody else.
            let _ = connection.await;
            drop(place);
        });
    }
    drop(listener);
    connections.shutdown().await;
}

/// Waits for a place, then for a client.
async fn next_connection(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> (OwnedSemaphorePermit, TcpStream) {
    let place = places.clone().acquire_owned().await.expect("the semaphore is never closed");
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return (place, stream),
            Err(error) => {
                warn!("RPC cannot take a connection: {error}");
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

/// Authorization comes before the body is read.
async fn handle(
    State(shared): State<Arc<Shared>>,
    method: Method,
    headers: HeaderMap,
    request: Request,
) -> Response {
    if method != Method::POST {
        return (StatusCode::METHOD_NOT_ALLOWED, "JSONRPC server handles only POST requests").into_response();
    }
    let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    if !given.is_some_and(|value| shared.credentials.accept(value)) {
        if given.is_some() {
            warn!("RPC call with a wrong password");
            tokio::time::sleep(WRONG_PASSWORD_DELAY).await;
        }
        let challenge = [(header::WWW_AUTHENTICATE, "Basic realm=\"jsonrpc\"")];
        return (StatusCode::UNAUTHORIZED, challenge).into_response();
    }
    match Bytes::from_request(request, &()).await {
        Ok(body) => answer_body(&shared.context, body).await,
        Err(rejection) => rejection.into_response(),
    }
}

async fn answer_body(context: &Context, body: Bytes) -> Response {
    let (status, value) = match serde_json::from_slice(&body) {
        Ok(Value::Array(calls)) => {
            let mut answers = Vec::with_capacity(calls.len());
            for call in calls {
                answers.push(execute(context, Call::parse(call)).await.1);
            }
            (StatusCode::OK, Value::Array(answers))
        }
        Ok(value @ Value::Object(_)) => execute(context, Call::parse(value)).await,
        Ok(_) => parse_error("Top-level object parse error"),
        Err(_) => parse_error("Parse error"),
    };
    (status, [(header::CONTENT_TYPE, "application/json")], format!("{value}\n")).into_response()
}

fn parse_error(message: &str) -> (StatusCode, Value) {
    answer(Value::Null, false, Err(RpcError::new(PARSE, message)))
}

async fn execute(context: &Context, call: Call) -> (StatusCode, Value) {
    let outcome = match call.request {
        Ok((method, params)) => methods::call(context, &method, params).await,
        Err(error) => Err(error),
    };
    answer(call.id, call.version_2, outcome)
}
