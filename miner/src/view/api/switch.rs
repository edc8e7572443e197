//! POST `/api/v1/switch`: asks for another source.
//!
//! The API has no password. So the request is accepted only if the API is reachable from this machine alone, and a page
//! in this machine's browser must not be able to send it: a page of another origin may not send JSON without a
//! preflight, which is never granted here; and one whose name was made to resolve to this machine (DNS rebinding) is
//! detected by that name in `Host`.

use std::net::IpAddr;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::header::{CONTENT_TYPE, HOST};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::json;
use tracing::debug;

use super::{Api, refuse};

/// The body of the request.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    /// The source's number, from 0.
    source: usize,
}

pub(super) async fn switch(State(api): State<Arc<Api>>, headers: HeaderMap, body: Bytes) -> Response {
    if !api.local {
        let error = "the API listens where other machines reach it, and so changes nothing; \
                     bind it to 127.0.0.1 or [::1]";
        return refuse(StatusCode::FORBIDDEN, error);
    }
    if !from_here(&headers) {
        let error = "Host: expected localhost or a loopback address";
        return refuse(StatusCode::FORBIDDEN, error);
    }
    if !is_json(&headers) {
        return refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE, "Content-Type: expected application/json");
    }
    let Ok(Wish { source }) = serde_json::from_slice(&body) else {
        return refuse(
            StatusCode::BAD_REQUEST,
            "expected {\"source\": NUMBER}, numbers as in /api/v1/sources",
        );
    };
    if api.watched.board.ask_for(source) {
        debug!("source {source} is asked for over the API");
        (StatusCode::ACCEPTED, super::json(&json!({"asked_for": source}))).into_response()
    } else {
        let error = format!("there is no source {source}; see /api/v1/sources");
        refuse(StatusCode::NOT_FOUND, &error)
    }
}

/// Whether there is exactly one `Host`, and it names this machine.
fn from_here(headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) => host.to_str().is_ok_and(is_loopback),
        _ => false,
    }
}

/// Checks `HOST`, `HOST:PORT`, `[ADDRESS]` or `[ADDRESS]:PORT`.
fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, port)) if port.is_empty() || port.starts_with(':') => address,
        Some(_) => return false,
        None => host.split_once(':').map_or(host, |(name, _)| name),
    };
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
}

/// Whether the body's content type is JSON, ignoring parameters such as a character set.
fn is_json(headers: &HeaderMap) -> bool {
    let named = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = named.and_then(|value| value.split(';').next()).unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use axum::http::HeaderValue;
    use tokio::runtime::Builder;

    use super::*;
    use crate::stats::Stats;
    use crate::upstream::Board;
    use crate::view::Watched;
    use crate::wall::WallClock;

    /// The answer to an otherwise valid request if the API listens at `address`.
    fn wish(address: &str) -> (StatusCode, Option<usize>) {
        let board = Arc::new(Board::new([("a".to_owned(), "user".to_owned())]));
        let watched =
            Watched { stats: Arc::new(Stats::new()), board: Arc::clone(&board), clock: WallClock::default() };
        let api = Arc::new(Api::new(watched, address.parse().unwrap()));
        let headers = [(HOST, "localhost"), (CONTENT_TYPE, "application/json")];
        let headers = headers.map(|(name, value)| (name, HeaderValue::from_static(value)));
        let body = Bytes::from_static(b"{\"source\": 0}");
        let answer = switch(State(api), HeaderMap::from_iter(headers), body);
        let status = Builder::new_current_thread().build().unwrap().block_on(answer).status();
        (status, *board.wishes().borrow())
    }

    #[test]
    fn where_others_reach_the_api_it_changes_nothing() {
        for address in ["127.0.0.1:80", "127.9.9.9:80", "[::1]:80", "[::ffff:127.0.0.1]:80"] {
            assert_eq!(wish(address), (StatusCode::ACCEPTED, Some(0)), "{address}");
        }
        for address in ["0.0.0.0:80", "[::]:80", "192.168.1.2:80", "[fe80::1]:80"] {
            assert_eq!(wish(address), (StatusCode::FORBIDDEN, None), "{address}");
        }
    }

    #[test]
    fn hosts_of_this_machine_are_told_from_names_that_point_at_it() {
        for host in ["localhost", "LOCALHOST:80", "127.0.0.1", "127.1.2.3:4067", "[::1]", "[::1]:80"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in [
            "",
            "localhost.evil.example",
            "evil.example:80",
            "127.0.0.1.evil.example",
            "10.0.0.1",
            "[::2]",
            "[::1]evil.example",
            "0.0.0.0",
        ] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
