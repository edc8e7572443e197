//! `submitblock`, and which answers of a node are a verdict on the block.

use serde_json::json;

use crate::rpc::{CALL_TIME, Node, RpcError, code};

/// The answer of a node that does not have the parent yet; it may be catching up.
const NO_PARENT: &str = "prev-blk-not-found";

/// Submits a block (hex, without `0x`) and returns the node's verdict: `accepted`, `duplicate`, `inconclusive` or a
/// reject reason.
///
/// # Errors
/// Why there is no verdict yet; a retry may help.
pub async fn submit(node: &Node, block: &str) -> Result<String, String> {
    verdict(node.call("submitblock", json!([block]), CALL_TIME).await)
}

/// Extracts the verdict on the block from an answer.
///
/// # Errors
/// The answer is about a problem of the node, which may go away.
pub fn verdict(answer: Result<Option<String>, RpcError>) -> Result<String, String> {
    match answer {
        Ok(Some(reason)) if reason == NO_PARENT => Err(format!("{reason}: the node has not caught up")),
        Ok(reason) => Ok(reason.unwrap_or_else(|| "accepted".to_owned())),
        Err(RpcError::Node { code: code::UNREADABLE, message }) => Ok(message),
        Err(trouble) => Err(trouble.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_said_of_the_block_is_a_verdict() {
        let error = |code| Err(RpcError::Node { code, message: "words".into() });
        assert_eq!(verdict(Ok(None)), Ok("accepted".into()));
        assert_eq!(verdict(Ok(Some("bad-CAP-miner".into()))), Ok("bad-CAP-miner".into()));
        assert_eq!(verdict(error(-22)), Ok("words".into()));
        for code in [-32603, -25, -20, -7, -28, -1, -32601, 0] {
            assert!(verdict(error(code)).is_err(), "{code}");
        }
        assert!(verdict(Err(RpcError::Unauthorized)).is_err());
        assert!(verdict(Ok(Some("prev-blk-not-found".into()))).is_err(), "not yet");
    }
}
