//! The nearest block of ours below a height in a node's chain: what templates above it stand on in the books.

use bitcoin::BlockHash;
use iop_mining::rpc::{CALL_TIME, Node, RpcError, code};
use serde_json::json;

use crate::ledger::Ledger;
use crate::ledger::store::BlockId;

/// Asks for the blocks at heights where the books have some. Mostly the first is there: none of ours was orphaned since.
///
/// # Errors
/// The node did not say.
pub(crate) async fn nearest(
    ledger: &Ledger,
    node: &Node,
    mut below: u32,
) -> Result<Option<BlockId>, RpcError> {
    while let Some(height) = ledger.height_below(below) {
        match block_at(node, height).await? {
            Some(id) if ledger.has_block(&id) => return Ok(Some(id)),
            _ => below = height,
        }
    }
    Ok(None)
}

/// The block of a height in a node's chain; none above its tip.
///
/// # Errors
/// The node did not say.
pub(crate) async fn block_at(node: &Node, height: u32) -> Result<Option<BlockId>, RpcError> {
    match node.call::<BlockHash>("getblockhash", json!([height]), CALL_TIME).await {
        Ok(hash) => Ok(Some(BlockId { height, hash })),
        Err(RpcError::Node { code: code::NO_SUCH_HEIGHT, .. }) => Ok(None),
        Err(trouble) => Err(trouble),
    }
}
