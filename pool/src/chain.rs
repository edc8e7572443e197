//! A node's chain, queried block by block: the block at a height, its coinbase, and the nearest pool block below.
//!
//! Not here: which blocks are in the books ([`crate::ledger`]), and which nobody handed in ([`crate::strays`]).

use bitcoin::block::Header;
use bitcoin::consensus::{Decodable, encode};
use bitcoin::{BlockHash, Transaction, VarInt};
use iop_mining::rpc::{CALL_TIME, Node, RpcError, code};
use serde_json::json;

use crate::ledger::Ledger;
use crate::ledger::store::BlockId;

/// The parts of a block that matter here.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) id: BlockId,
    pub(crate) header: Header,
    pub(crate) coinbase: Transaction,
}

impl Seen {
    /// Asks a node for a block.
    ///
    /// # Errors
    /// The node does not give it, or returned another block.
    pub(crate) async fn ask(node: &Node, id: BlockId) -> Result<Self, RpcError> {
        let text: String = node.call("getblock", json!([id.hash, false]), CALL_TIME).await?;
        Self::read(id, &text)
    }

    /// Parses a block in hex, as the node returns it.
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

/// The nearest pool block at or below a block of the node's chain, which is that block's base in the books. Queries the
/// heights at which the books have blocks. Usually the first one matches: none of the pool's blocks was orphaned since.
///
/// # Errors
/// The node did not answer, or has switched to another chain meanwhile.
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

/// The block at a height of a node's chain; `None` above its tip.
///
/// # Errors
/// The node did not answer.
pub(crate) async fn block_at(node: &Node, height: u32) -> Result<Option<BlockId>, RpcError> {
    match node.call::<BlockHash>("getblockhash", json!([height]), CALL_TIME).await {
        Ok(hash) => Ok(Some(BlockId { height, hash })),
        Err(RpcError::Node { code: code::NO_SUCH_HEIGHT, .. }) => Ok(None),
        Err(trouble) => Err(trouble),
    }
}

/// A block as the node has it; `None` if the node has deleted its data.
///
/// # Errors
/// The node did not answer, or returned another block.
pub(crate) async fn read(node: &Node, id: BlockId) -> Result<Option<Seen>, RpcError> {
    match Seen::ask(node, id).await {
        Ok(seen) => Ok(Some(seen)),
        Err(RpcError::Node { code: code::DELETED, .. }) => Ok(None),
        Err(trouble) => Err(trouble),
    }
}
