//! `/api/v1/payouts` and `/api/v1/shares`: the ledger, as JSON or CSV.

use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use iop_consensus::address::Address;
use serde::Serialize;
use tracing::error;

use super::{Api, refuse};
use crate::follow::Work;
use crate::ledger::LedgerError;
use crate::ledger::views::MAX_BLOCKS;

/// A parsed query.
#[derive(Debug, Default, PartialEq, Eq)]
struct Query {
    address: Option<String>,
    csv: bool,
}

impl Query {
    /// Parses `address=A&format=csv`.
    fn parse(text: &str) -> Result<Self, String> {
        let mut query = Self::default();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=') {
                Some(("address", value)) => query.address = Some(value.to_owned()),
                Some(("format", "csv")) => query.csv = true,
                Some(("format", "json")) => query.csv = false,
                Some(("format", _)) => return Err("format must be json or csv".to_owned()),
                _ => return Err("address=ADDRESS and format=json|csv are known here".to_owned()),
            }
        }
        Ok(query)
    }
}

fn unreadable(trouble: &LedgerError) -> Response {
    error!("the ledger cannot be read: {trouble}");
    refuse(StatusCode::INTERNAL_SERVER_ERROR, "the ledger cannot be read, see the log")
}

fn csv(name: &str, text: String) -> Response {
    let headers = [
        (CONTENT_TYPE, "text/csv; charset=utf-8".to_owned()),
        (CACHE_CONTROL, "no-store".to_owned()),
        (CONTENT_DISPOSITION, format!("attachment; filename=\"{name}.csv\"")),
    ];
    (headers, text).into_response()
}

/// Answers in JSON, or in CSV if requested.
fn answer<T: Serialize>(
    made: Result<T, LedgerError>,
    query: &Query,
    name: &str,
    to_csv: impl Fn(&T) -> String,
) -> Response {
    match made {
        Ok(value) if query.csv => csv(name, to_csv(&value)),
        Ok(value) => super::json(&value),
        Err(trouble) => unreadable(&trouble),
    }
}

/// `/api/v1/payouts[?address=A][&format=csv]`. Reads the database, so it runs on a thread of its own.
pub(super) async fn payouts(State(api): State<Arc<Api>>, RawQuery(text): RawQuery) -> Response {
    let read = tokio::task::spawn_blocking(move || respond(&api, text.as_deref().unwrap_or_default()));
    read.await.unwrap_or_else(|_| refuse(StatusCode::INTERNAL_SERVER_ERROR, "the answer could not be made"))
}

fn respond(api: &Api, text: &str) -> Response {
    let query = match Query::parse(text) {
        Ok(query) => query,
        Err(reason) => return refuse(StatusCode::BAD_REQUEST, &reason),
    };
    let ledger = &api.shared.ledger;
    let (next_height, reward) = match &api.shared.snapshots.borrow().work {
        Work::Job(job) => (job.template.height, job.template.coinbase_value),
        Work::NoLicense(none) => (none.height, 0),
        // Only the pool's blocks below are known of the chain.
        _ => (ledger.next_height(), 0),
    };
    let Some(text) = &query.address else {
        return answer(ledger.payouts(next_height), &query, "payouts", |payouts| payouts.to_csv());
    };
    match Address::parse(text, &api.shared.prefixes) {
        Ok(member) => {
            let limit = if query.csv { usize::MAX } else { MAX_BLOCKS };
            let account = ledger.member(&member, next_height, reward, limit);
            answer(account, &query, text, |member| member.to_csv())
        }
        Err(wrong) => refuse(StatusCode::BAD_REQUEST, &wrong.to_string()),
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
        let query = |address: Option<&str>, csv| Ok(Query { address: address.map(str::to_owned), csv });
        assert_eq!(Query::parse(""), query(None, false));
        assert_eq!(Query::parse("address=abc&format=csv"), query(Some("abc"), true));
        assert_eq!(Query::parse("format=json&"), query(None, false));
        for wrong in ["format=xml", "adress=a", "address", "=", "a=b=c"] {
            assert!(Query::parse(wrong).is_err(), "{wrong}");
        }
    }
}
