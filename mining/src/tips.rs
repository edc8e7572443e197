//! Tips of nodes, and which node's chain is to be worked on.

use std::time::Duration;

use bitcoin::BlockHash;
use serde::Deserialize;
use serde_json::json;

use crate::rpc::{Node, RpcError, code};

/// All the work in a chain: a number of 256 bits, big endian, so that it compares as a number does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ChainWork(pub [u8; 32]);

/// The end of a node's chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChainTip {
    /// The last block.
    pub hash: BlockHash,
    /// Its height.
    pub height: u32,
    /// The work up to it.
    pub work: ChainWork,
}

/// What a node says of its chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainState {
    /// The chain's name.
    pub name: String,
    /// The end of it.
    pub tip: ChainTip,
    /// Height of the best header that the node knows.
    pub headers: u32,
    /// Whether the node calls this its initial download. Nodes that do not say are not taken to be in it.
    pub initial: bool,
}

#[derive(Deserialize)]
struct WireInfo {
    chain: String,
    blocks: u32,
    headers: Option<u32>,
    bestblockhash: BlockHash,
    chainwork: String,
    #[serde(default)]
    initialblockdownload: bool,
}

/// The state of a node's chain.
///
/// # Errors
/// The node did not say within `limit`.
pub async fn state(node: &Node, limit: Duration) -> Result<ChainState, RpcError> {
    let info: WireInfo = node.call("getblockchaininfo", json!([]), limit).await?;
    let mut work = [0; 32];
    hex::decode_to_slice(&info.chainwork, &mut work).map_err(|_| {
        RpcError::Malformed("getblockchaininfo: chainwork, 64 hex digits expected".to_owned())
    })?;
    Ok(ChainState {
        name: info.chain,
        tip: ChainTip { hash: info.bestblockhash, height: info.blocks, work: ChainWork(work) },
        headers: info.headers.unwrap_or(info.blocks),
        initial: info.initialblockdownload,
    })
}

/// The name of a node's chain, and its tip.
///
/// # Errors
/// The node did not say within `limit`.
pub async fn ask(node: &Node, limit: Duration) -> Result<(String, ChainTip), RpcError> {
    state(node, limit).await.map(|state| (state.name, state.tip))
}

/// Where a block stands in another node's chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In it.
    Active,
    /// The node knows it, and has gone another way.
    Side,
    /// The node does not know it.
    Unknown,
}

/// Where a block stands in a node's chain.
///
/// # Errors
/// The node did not say within `limit`.
pub async fn place(node: &Node, block: &str, limit: Duration) -> Result<Place, RpcError> {
    #[derive(Deserialize)]
    struct Header {
        confirmations: i64,
    }
    match node.call::<Header>("getblockheader", json!([block]), limit).await {
        Ok(header) if header.confirmations > 0 => Ok(Place::Active),
        Ok(_) => Ok(Place::Side),
        Err(RpcError::Node { code: code::UNKNOWN_BLOCK, .. }) => Ok(Place::Unknown),
        Err(error) => Err(error),
    }
}

/// The node to work on: the one whose chain has most work. A tie keeps the one in use, so that nothing swings; else
/// the first of the configuration wins. None when no node is known to give work.
#[must_use]
pub fn best(tips: &[Option<ChainTip>], in_use: Option<usize>) -> Option<usize> {
    let known = tips.iter().enumerate().filter_map(|(index, tip)| Some((index, tip.as_ref()?.work)));
    let rank =
        |(index, work): &(usize, ChainWork)| (*work, in_use == Some(*index), std::cmp::Reverse(*index));
    known.max_by_key(rank).map(|(index, _)| index)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::tip;

    #[test]
    fn most_work_wins_and_a_tie_keeps_the_node_in_use() {
        let (low, high, other) = (Some(tip(5, 0)), Some(tip(6, 0)), Some(tip(6, 1)));
        assert_eq!(best(&[low, high], Some(0)), Some(1));
        assert_eq!(best(&[high, other], Some(1)), Some(1), "as much work on another branch is no reason");
        assert_eq!(best(&[high, other], Some(0)), Some(0));
        assert_eq!(best(&[None, other, high], None), Some(1), "else the first configured");
        assert_eq!(best(&[None, low], Some(0)), Some(1));
        assert_eq!(best(&[None, None], Some(0)), None);
    }

    #[test]
    fn more_work_wins_over_more_blocks() {
        let mut short = tip(5, 1);
        short.work.0[0] = 1;
        assert_eq!(best(&[Some(tip(6, 0)), Some(short)], Some(0)), Some(1));
    }
}
