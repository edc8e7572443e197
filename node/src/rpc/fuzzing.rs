//! Fuzz target for the envelope.

use super::envelope::{Call, answer};

/// See [`crate::fuzzing::rpc_envelope`].
pub(crate) fn rpc_envelope(data: &[u8]) {
    let Ok(value) = serde_json::from_slice(data) else { return };
    let Call { id, version_2, request } = Call::parse(value);
    let refused = request.is_err();
    let (_, body) = answer(id.clone(), version_2, request.map(|(method, _)| method.into()));
    assert_eq!(body["id"], id);
    assert_eq!(body.get("error").is_some_and(|error| !error.is_null()), refused);
}

/// Seed inputs for the target.
pub(crate) fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let texts: [(&str, &str); 5] = [
        ("core", r#"{"id": 1, "method": "getblockcount", "params": []}"#),
        ("version_2", r#"{"jsonrpc": "2.0", "id": "a", "method": "getblockhash", "params": {"height": 7}}"#),
        ("batch", r#"[{"id": 1, "method": "help"}, 7]"#),
        ("no_method", r#"{"id": null, "method": 3}"#),
        ("deep", "[[[[[[[[[[[[[[[[{}]]]]]]]]]]]]]]]]"),
    ];
    texts.map(|(name, text)| (name, text.as_bytes().to_vec())).to_vec()
}
