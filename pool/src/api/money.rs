//! `/api/v1/payouts` and `/api/v1/shares`: the ledger, as JSON or CSV.

use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use axum::extract::{RawQuery, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::http::{StatusCode, Version};
use axum::response::{IntoResponse, Response};
use hyper::body::Frame;
use iop_consensus::address::Address;
use tokio::sync::mpsc;
use tracing::error;

use super::{Api, broken, refuse};
use crate::follow::Work;
use crate::ledger::LedgerError;
use crate::ledger::views::MAX_BLOCKS;

/// A parsed query.
#[derive(Debug, Default, PartialEq, Eq)]
struct Query {
    address: Option<String>,
    csv: bool,
    /// The least height.
    from: Option<u32>,
    /// The height above the greatest.
    to: Option<u32>,
}

impl Query {
    /// Parses `address=A&format=csv` or `format=csv&from=HEIGHT&to=HEIGHT`.
    fn parse(text: &str) -> Result<Self, String> {
        let mut query = Self::default();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=') {
                Some(("address", value)) => query.address = Some(value.to_owned()),
                Some(("format", "csv")) => query.csv = true,
                Some(("format", "json")) => query.csv = false,
                Some(("format", _)) => return Err("format must be json or csv".to_owned()),
                Some(("from", value)) => query.from = Some(height("from", value)?),
                Some(("to", value)) => query.to = Some(height("to", value)?),
                _ => {
                    return Err("address=ADDRESS, format=json|csv, from=HEIGHT and to=HEIGHT are known here"
                        .to_owned());
                }
            }
        }
        match query {
            Self { from: None, to: None, .. } | Self { csv: true, address: None, .. } => Ok(query),
            _ => Err("from and to are for format=csv without an address".to_owned()),
        }
    }

    /// The heights of the blocks to be listed.
    fn heights(&self) -> Range<u32> {
        self.from.unwrap_or(u32::MIN)..self.to.unwrap_or(u32::MAX)
    }
}

fn height(name: &str, value: &str) -> Result<u32, String> {
    value.parse().map_err(|_| format!("{name} must be a height"))
}

fn unreadable(trouble: &LedgerError) -> Response {
    error!("the ledger cannot be read: {trouble}");
    refuse(StatusCode::INTERNAL_SERVER_ERROR, "the ledger cannot be read, see the log")
}

fn csv(name: &str, text: impl Into<Body>) -> Response {
    let headers = [
        (CONTENT_TYPE, "text/csv; charset=utf-8".to_owned()),
        (CACHE_CONTROL, "no-store".to_owned()),
        (CONTENT_DISPOSITION, format!("attachment; filename=\"{name}.csv\"")),
    ];
    (headers, text.into()).into_response()
}

/// A text that is made while it is sent: its first part, then those that come. An error cuts it off, so that nobody takes
/// a piece for the whole.
struct Parts {
    first: Option<String>,
    rest: mpsc::Receiver<Result<String, LedgerError>>,
}

impl hyper::body::Body for Parts {
    type Data = Bytes;
    type Error = LedgerError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, LedgerError>>> {
        let frame = |part: String| Frame::data(Bytes::from(part));
        if let Some(part) = self.first.take() {
            return Poll::Ready(Some(Ok(frame(part))));
        }
        let log =
            |trouble: &LedgerError| error!("an answer is cut off, the ledger cannot be read: {trouble}");
        self.rest.poll_recv(context).map(|part| part.map(|part| part.map(frame).inspect_err(log)))
    }
}

/// The blocks of these heights as CSV. They are read on a thread of its own, not much faster than the client takes them.
/// For HTTP/1.0, which cannot tell a piece from the whole without a length, as a proxy speaks it, they are put together
/// first.
async fn blocks(api: &Api, heights: Range<u32>, whole: bool) -> Response {
    let (ledger, (next_height, _)) = (Arc::clone(&api.shared.ledger), next_block(api));
    let (parts, mut rest) = mpsc::channel(1);
    tokio::task::spawn_blocking(move || {
        // Who has gone away takes no more.
        let done = ledger.payouts_csv(heights, next_height, |part| parts.blocking_send(Ok(part)).is_ok());
        if let Err(trouble) = done {
            let _ = parts.blocking_send(Err(trouble)); // in vain if the client has gone away too
        }
    });
    let mut first = rest.recv().await;
    while whole && let Some(Ok(text)) = &mut first {
        match rest.recv().await {
            Some(Ok(part)) => text.push_str(&part),
            Some(Err(trouble)) => first = Some(Err(trouble)),
            None => break,
        }
    }
    match first {
        Some(Ok(first)) if whole => csv("payouts", first),
        Some(Ok(first)) => csv("payouts", Body::new(Parts { first: Some(first), rest })),
        Some(Err(trouble)) => unreadable(&trouble),
        None => broken(),
    }
}

/// `/api/v1/payouts[?address=A][&format=csv][&from=HEIGHT][&to=HEIGHT]`. Reads the database, so it runs on
/// a thread of its own.
pub(super) async fn payouts(
    State(api): State<Arc<Api>>,
    version: Version,
    RawQuery(text): RawQuery,
) -> Response {
    let query = match Query::parse(text.as_deref().unwrap_or_default()) {
        Ok(query) => query,
        Err(reason) => return refuse(StatusCode::BAD_REQUEST, &reason),
    };
    if query.csv && query.address.is_none() {
        return blocks(&api, query.heights(), version < Version::HTTP_11).await;
    }
    tokio::task::spawn_blocking(move || respond(&api, &query)).await.unwrap_or_else(|_| broken())
}

/// The height that is mined, and what a block brings there, in base units.
fn next_block(api: &Api) -> (u32, u64) {
    match &api.shared.snapshots.borrow().work {
        Work::Job(job) => (job.template.height, job.template.coinbase_value),
        Work::NoLicense(none) => (none.height, 0),
        // Only the pool's blocks below are known of the chain.
        _ => (api.shared.ledger.next_height(), 0),
    }
}

fn respond(api: &Api, query: &Query) -> Response {
    let ledger = &api.shared.ledger;
    let (next_height, reward) = next_block(api);
    let Some(text) = &query.address else {
        return ledger
            .payouts(next_height)
            .map_or_else(|trouble| unreadable(&trouble), |all| super::json(&all));
    };
    let member = match Address::parse(text, &api.shared.prefixes) {
        Ok(member) => member,
        Err(wrong) => return refuse(StatusCode::BAD_REQUEST, &wrong.to_string()),
    };
    let limit = if query.csv { usize::MAX } else { MAX_BLOCKS };
    match ledger.member(&member, next_height, reward, limit) {
        Ok(account) if query.csv => csv(text, account.to_csv()),
        Ok(account) => super::json(&account),
        Err(trouble) => unreadable(&trouble),
    }
}

/// `/api/v1/shares`.
pub(super) async fn shares(State(api): State<Arc<Api>>) -> Response {
    super::json(&api.shared.ledger.shares())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_read_or_refused_in_words() {
        let query = |address: Option<&str>, csv| {
            Ok(Query { address: address.map(str::to_owned), csv, ..Query::default() })
        };
        assert_eq!(Query::parse(""), query(None, false));
        assert_eq!(Query::parse("address=abc&format=csv"), query(Some("abc"), true));
        assert_eq!(Query::parse("format=json&"), query(None, false));
        let heights = |text: &str| Query::parse(text).map(|query| query.heights());
        assert_eq!(heights("format=csv"), Ok(0..u32::MAX));
        assert_eq!(heights("from=7&format=csv"), Ok(7..u32::MAX));
        assert_eq!(heights("format=csv&from=7&to=9"), Ok(7..9));
        for wrong in
            ["format=csv&from=-1", "format=csv&to=4294967296", "from=1", "to=1&format=csv&address=abc"]
        {
            assert!(Query::parse(wrong).is_err(), "{wrong}");
        }
        for wrong in ["format=xml", "adress=a", "address", "=", "a=b=c"] {
            assert!(Query::parse(wrong).is_err(), "{wrong}");
        }
    }
}
