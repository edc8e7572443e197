//! The HTTP layer: one POST, one answer.
//!
//! Lives here: access checks, limits of the body, and the reference's statuses (`httpserver.cpp`, `httprpc.cpp`):
//! 403 for an address that is not allowed, 404 for another path, 405 for another method, 401 without the right
//! password. Does not live here: sockets ([`super::server`]) and the methods ([`super::methods`]).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::Value;
use tracing::warn;

use super::envelope::{Call, answer};
use super::error::{OUT_OF_MEMORY, PARSE, RpcError};
use super::methods::{self, Context};
use super::numbers::to_text;
use super::server::Access;

/// Maximum length in bytes of a request: a whole block in hex, with some room.
pub(super) const MAX_BODY_BYTES: usize = 32 * 1024 * 1024;
/// Maximum number of JSON values in a body: each takes up to a hundred bytes of memory when parsed, even if it is
/// one byte long.
const MAX_VALUES: usize = 200_000;
/// Maximum number of calls in a batch.
const MAX_BATCH: usize = 10_000;
/// Maximum length in bytes of a batch's answers; further calls are answered with an error. A single answer may be
/// longer.
const MAX_BATCH_ANSWER: usize = 128 * 1024 * 1024;
/// Delay of the answer to a wrong password, so that guessing is slow.
const WRONG_PASSWORD_DELAY: Duration = Duration::from_millis(250);

/// State shared by all connections.
pub(super) struct Shared {
    pub(super) context: Context,
    pub(super) access: Access,
}

/// Handles a request. Authorization is checked before the body is read. Whoever is refused is also disconnected:
/// otherwise clients without a password could hold all places by asking once.
pub(super) async fn handle(
    Extension((shared, peer)): Extension<(Arc<Shared>, SocketAddr)>,
    request: Request,
) -> Response {
    let access = &shared.access;
    if let Some(refusal) = refusal(access, peer, &request) {
        if refusal.status() == StatusCode::UNAUTHORIZED
            && request.headers().contains_key(header::AUTHORIZATION)
        {
            warn!(%peer, "RPC call with a wrong password");
            tokio::time::sleep(WRONG_PASSWORD_DELAY).await;
        }
        return ([(header::CONNECTION, "close")], refusal).into_response();
    }
    match tokio::time::timeout(access.patience, Bytes::from_request(request, &())).await {
        Ok(Ok(body)) => answer_body(&shared.context, body).await,
        Ok(Err(rejection)) => rejection.into_response(),
        Err(_) => (StatusCode::REQUEST_TIMEOUT, [(header::CONNECTION, "close")]).into_response(),
    }
}

/// What a request is answered that no method is called for.
fn refusal(access: &Access, peer: SocketAddr, request: &Request) -> Option<Response> {
    if !access.lets_in(peer.ip()) {
        return Some(StatusCode::FORBIDDEN.into_response());
    }
    if request.uri().path_and_query().is_some_and(|path| path != "/") {
        return Some(StatusCode::NOT_FOUND.into_response());
    }
    if request.method() != Method::POST {
        let words = "JSONRPC server handles only POST requests";
        return Some((StatusCode::METHOD_NOT_ALLOWED, words).into_response());
    }
    let given = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    if !given.is_some_and(|value| access.credentials.accept(value)) {
        let challenge = [(header::WWW_AUTHENTICATE, "Basic realm=\"jsonrpc\"")];
        return Some((StatusCode::UNAUTHORIZED, challenge).into_response());
    }
    None
}

async fn answer_body(context: &Context, body: Bytes) -> Response {
    let parsed = if values_at_most(&body, MAX_VALUES) { serde_json::from_slice(&body).ok() } else { None };
    drop(body);
    let (status, text) = match parsed {
        Some(Value::Array(calls)) if calls.len() > MAX_BATCH => {
            error_text(PARSE, format!("a batch has at most {MAX_BATCH} calls, this one {}", calls.len()))
        }
        Some(Value::Array(calls)) => (StatusCode::OK, batch(context, calls).await),
        Some(value @ Value::Object(_)) => execute(context, Call::parse(value)).await,
        // The reference reports any other value as invalid JSON.
        _ => error_text(PARSE, "Parse error"),
    };
    (status, [(header::CONTENT_TYPE, "application/json")], text + "\n").into_response()
}

fn error_text(code: i32, message: impl Into<String>) -> (StatusCode, String) {
    let (status, value) = answer(Value::Null, false, Err(RpcError::new(code, message)));
    (status, to_text(&value))
}

/// Whether a JSON text has at most `most` values, counting commas and brackets outside of strings.
fn values_at_most(body: &[u8], most: usize) -> bool {
    let (mut count, mut in_string, mut escaped) = (0, false, false);
    for byte in body {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b',' | b'[' | b'{' if !in_string => count += 1,
            _ => {}
        }
    }
    count <= most
}

async fn batch(context: &Context, calls: Vec<Value>) -> String {
    let mut out = String::from("[");
    for call in calls {
        let call = Call::parse(call);
        let (_, text) = if out.len() < MAX_BATCH_ANSWER {
            execute(context, call).await
        } else {
            let error = RpcError::new(OUT_OF_MEMORY, "the batch's answers are too long");
            let (status, value) = answer(call.id, call.version_2, Err(error));
            (status, to_text(&value))
        };
        if out.len() > 1 {
            out.push(',');
        }
        out.push_str(&text);
    }
    out.push(']');
    out
}

async fn execute(context: &Context, call: Call) -> (StatusCode, String) {
    let outcome = match call.request {
        Ok((name, params)) => methods::call(context, &name, params).await,
        Err(error) => Err(error),
    };
    let (status, value) = answer(call.id, call.version_2, outcome);
    (status, to_text(&value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_counted_outside_of_strings_only() {
        assert!(values_at_most(br#"{"a":[1,2,",,,[[[\"{{{,,,"]}"#, 4));
        assert!(!values_at_most(br#"{"a":[1,2,",,,[[[\"{{{,,,"]}"#, 3));
        assert!(!values_at_most(b"[[[[", 3));
    }
}
