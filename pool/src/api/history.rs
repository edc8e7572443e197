//! `/api/v1/history`: hash rates over time, of the pool or of one worker.

use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;

use super::{Api, json, refuse};
use crate::history::{Rates, Span};

/// A parsed query.
#[derive(Debug, PartialEq, Eq)]
struct Query {
    worker: Option<String>,
    span: Span,
}

/// `/api/v1/history`.
#[derive(Debug, Serialize)]
struct Answer {
    worker: Option<String>,
    #[serde(flatten)]
    rates: Rates,
}

impl Query {
    /// Parses `worker=USER&span=day`.
    fn parse(text: &str) -> Result<Self, &'static str> {
        let mut query = Self { worker: None, span: Span::Hour };
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=') {
                Some(("worker", user)) => query.worker = Some(unescape(user)?),
                Some(("span", "hour")) => query.span = Span::Hour,
                Some(("span", "day")) => query.span = Span::Day,
                Some(("span", _)) => return Err("span must be hour or day"),
                _ => return Err("worker=USER and span=hour|day are known here"),
            }
        }
        Ok(query)
    }
}

/// Decodes percent encoding, and `+` as a space as in forms.
fn unescape(text: &str) -> Result<String, &'static str> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        match (first, after) {
            (b'%', [high, low, after @ ..]) => {
                let mut byte = [0];
                hex::decode_to_slice([*high, *low], &mut byte)
                    .map_err(|_| "worker: % needs two hex digits")?;
                bytes.extend(byte);
                rest = after;
            }
            (b'%', _) => return Err("worker: % needs two hex digits"),
            (b'+', _) => bytes.push(b' '),
            (other, _) => bytes.push(*other),
        }
    }
    String::from_utf8(bytes).map_err(|_| "worker must be UTF-8")
}

/// `/api/v1/history[?worker=USER][&span=hour|day]`.
pub(super) async fn history(State(api): State<Arc<Api>>, RawQuery(text): RawQuery) -> Response {
    let query = match Query::parse(text.as_deref().unwrap_or_default()) {
        Ok(query) => query,
        Err(reason) => return refuse(StatusCode::BAD_REQUEST, reason),
    };
    let workers = &api.shared.workers;
    let rates = match &query.worker {
        None => Some(workers.totals.rates(query.span)),
        Some(user) => workers.find(user).map(|worker| worker.counters.rates(query.span)),
    };
    match rates {
        Some(rates) => json(&Answer { worker: query.worker, rates }),
        None => refuse(StatusCode::NOT_FOUND, "no such worker since the pool started"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_read_or_refused_in_words() {
        let query = |worker: Option<&str>, span| Ok(Query { worker: worker.map(str::to_owned), span });
        assert_eq!(Query::parse(""), query(None, Span::Hour));
        assert_eq!(Query::parse("worker=a.b&span=day"), query(Some("a.b"), Span::Day));
        assert_eq!(Query::parse("worker=a%3Cb%3e+%26%c3%BC%3D=&"), query(Some("a<b> &ü=="), Span::Hour));
        for wrong in [
            "span=week",
            "user=a",
            "worker",
            "=",
            "worker=%",
            "worker=%4",
            "worker=%zz",
            "worker=%ff",
            "worker=%+1",
        ] {
            assert!(Query::parse(wrong).is_err(), "{wrong}");
        }
    }
}
