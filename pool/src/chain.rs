//! A node's chain, asked for block by block: what stands at a height, its coinbase, and the nearest block of ours below.
//!
//! Not here: which blocks are in the books ([`crate::ledger`]), and which nobody handed in ([`crate::strays`]).

use bitcoin::block::Header;
use bitcoin::consensus::{Decodable, encode};
use bitcoin::{BlockHash, Transaction, VarInt};
use iop_mining::rpc::{CALL_TIME, Node, RpcError, code};
use serde_json::json;

use crate::ledger::Ledger;
use crate::ledger::store::BlockId;

/// A block of the chain, as far as it matters here.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) id: BlockId,
    pub(crate) header: Header,
    pub(crate) coinbase: Transaction,
}

impl Seen {
    /// From a block in hex, as the node gives it.
    fn read(id: BlockId, text: &str) -> Result<Self, RpcError> {
        let hash = id.hash;
        let wrong = |what: &str| RpcError::Malformed(format!("getblock {hash}: {what}"));
        let bytes = hex::decode(text).map_err(|_| wrong("hex expected"))?;
        let mut rest = &bytes[..];
        let mut read = || -> Result<_, encode::Error> {
            let header = Header::consensus_decode(&mut rest)?;
            VarInt::consensus_decode(&mut rest)?;
            Ok((header, Transaction::consensus_decode(&mut rest)?))
        };
        let (header, coinbase) = read().map_err(|error| wrong(&error.to_string()))?;
        if header.block_hash() != hash {
            return Err(wrong("another block"));
        }
        Ok(Self { id, header, coinbase })
    }

    pub(crate) fn parent(&self) -> BlockId {
        BlockId { height: self.id.height.saturating_sub(1), hash: self.header.prev_blockhash }
    }
}

/// The nearest block of ours below a block of the node's chain: what that stands on in the books. Asked for are the heights
/// where the books have some. Mostly the first is there: none of ours was orphaned since.
///
/// # Errors
/// The node did not say, or has gone to another chain meanwhile.
pub(crate) async fn nearest(
    ledger: &Ledger,
    node: &Node,
    block: BlockId,
) -> Result<Option<BlockId>, RpcError> {
    let (mut below, mut found) = (block.height, None);
    while let Some(height) = ledger.height_below(below).filter(|_| found.is_none()) {
        found = block_at(node, height).await?.filter(|id| ledger.has_block(id));
        below = height;
    }
    if below < block.height && block_at(node, block.height).await? != Some(block) {
        return Err(RpcError::Changed);
    }
    Ok(found)
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

/// A block as a node has it; none where it has deleted its data.
///
/// # Errors
/// The node did not say, or gives another one.
pub(crate) async fn read(node: &Node, id: BlockId) -> Result<Option<Seen>, RpcError> {
    match node.call::<String>("getblock", json!([id.hash, false]), CALL_TIME).await {
        Ok(text) => Seen::read(id, &text).map(Some),
        Err(RpcError::Node { code: code::DELETED, .. }) => Ok(None),
        Err(trouble) => Err(trouble),
    }
}
