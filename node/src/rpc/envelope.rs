//! JSON-RPC envelopes around calls and their answers.
//!
//! JSON-RPC 1.0 follows Core: `result`, `error` and `id` are always present, and an error also sets the HTTP
//! status. A request with `"jsonrpc": "2.0"` gets a 2.0 answer: either `result` or `error`, and HTTP 200.

use axum::http::StatusCode;
use serde_json::{Value, json};

use super::error::{INVALID_REQUEST, METHOD_NOT_FOUND, RpcError};

/// A call, taken out of its envelope.
#[derive(Debug)]
pub(crate) struct Call {
    /// Echoed in the answer.
    pub(crate) id: Value,
    /// Whether the request is JSON-RPC 2.0.
    pub(crate) version_2: bool,
    /// Method and parameters.
    pub(crate) request: Result<(String, Option<Value>), RpcError>,
}

impl Call {
    /// Parses a call. Always returns one, so that an invalid request can be answered.
    pub(crate) fn parse(value: Value) -> Self {
        let Value::Object(mut object) = value else {
            let request = Err(RpcError::new(INVALID_REQUEST, "Invalid Request object"));
            return Self { id: Value::Null, version_2: false, request };
        };
        let id = object.remove("id").unwrap_or(Value::Null);
        let version_2 = object.get("jsonrpc").is_some_and(|version| version == "2.0");
        let request = match object.remove("method") {
            Some(Value::String(method)) => Ok((method, object.remove("params"))),
            Some(_) => Err(RpcError::new(INVALID_REQUEST, "Method must be a string")),
            None => Err(RpcError::new(INVALID_REQUEST, "Missing method")),
        };
        Self { id, version_2, request }
    }
}

/// Builds the answer to one call.
pub(crate) fn answer(id: Value, version_2: bool, outcome: Result<Value, RpcError>) -> (StatusCode, Value) {
    let error = |e: &RpcError| json!({ "code": e.code, "message": e.message });
    match (outcome, version_2) {
        (Ok(result), false) => (StatusCode::OK, json!({ "result": result, "error": null, "id": id })),
        (Ok(result), true) => (StatusCode::OK, json!({ "jsonrpc": "2.0", "result": result, "id": id })),
        (Err(e), true) => (StatusCode::OK, json!({ "jsonrpc": "2.0", "error": error(&e), "id": id })),
        (Err(e), false) => (status(&e), json!({ "result": null, "error": error(&e), "id": id })),
    }
}

fn status(error: &RpcError) -> StatusCode {
    match error.code {
        INVALID_REQUEST => StatusCode::BAD_REQUEST,
        METHOD_NOT_FOUND => StatusCode::NOT_FOUND,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_1_0_error_is_also_the_http_status_and_a_2_0_error_is_not() {
        let error = || Err(RpcError::new(METHOD_NOT_FOUND, "Method not found"));
        let (status, body) = answer(json!(1), false, error());
        assert_eq!(status, StatusCode::NOT_FOUND);
        assert_eq!(
            body,
            json!({"result": null, "error": {"code": -32601, "message": "Method not found"}, "id": 1})
        );
        let (status, body) = answer(json!("a"), true, error());
        assert_eq!(status, StatusCode::OK);
        assert!(body.get("result").is_none() && body["jsonrpc"] == "2.0" && body["id"] == "a");
    }

    #[test]
    fn a_malformed_call_is_answered_under_its_id() {
        let call = Call::parse(json!({"id": 7, "method": 3}));
        assert_eq!(call.id, json!(7));
        assert!(call.request.is_err());
        assert!(Call::parse(json!("x")).request.is_err());
    }
}
