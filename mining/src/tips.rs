//! The tips of nodes, and the choice of the node to work with.

use std::time::{Duration, Instant};

use bitcoin::BlockHash;
use iop_consensus::params::Params;
use serde::Deserialize;
use serde_json::json;

use crate::rpc::{Node, RpcError, code};

/// The total work of a chain: a 256-bit number in big-endian bytes, so that it compares as a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ChainWork(pub [u8; 32]);

/// The tip of a node's chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChainTip {
    /// The last block.
    pub hash: BlockHash,
    /// Its height.
    pub height: u32,
    /// The work up to it.
    pub work: ChainWork,
}

/// The state of a node's chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainState {
    /// The chain's name.
    pub name: String,
    /// The chain's tip.
    pub tip: ChainTip,
    /// Height of the best header that the node knows.
    pub headers: u32,
    /// Whether the node says that it is in its initial block download; `false` if it does not say.
    pub initial: bool,
}

/// A node that, as far as it knows, is still syncing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Syncing {
    /// It knows headers of blocks that it does not have.
    #[error("still syncing: at block {block} of {headers}")]
    Blocks {
        /// Height of its tip.
        block: u32,
        /// Height of its best header.
        headers: u32,
    },
    /// It knows no further headers, and considers its tip too old.
    #[error(
        "still syncing: its newest block, {block}, is too old for the chain's end (see the node's max tip age)"
    )]
    Old {
        /// Height of its tip.
        block: u32,
    },
}

impl ChainState {
    /// Checks that work on this tip makes sense. In initial download, a private chain that has not been mined on for a
    /// day looks like one that is being synced, so there the headers decide. One header more than blocks proves
    /// nothing: it may belong to a block that was refused.
    ///
    /// # Errors
    /// The node is still syncing.
    pub fn synced(&self, params: &Params) -> Result<(), Syncing> {
        let (block, headers) = (self.tip.height, self.headers);
        match self.initial {
            true if headers > block.saturating_add(1) => Err(Syncing::Blocks { block, headers }),
            true if !params.mine_on_demand => Err(Syncing::Old { block }),
            _ => Ok(()),
        }
    }
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
/// The node did not answer within `limit`.
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
/// The node did not answer within `limit`.
pub async fn ask(node: &Node, limit: Duration) -> Result<(String, ChainTip), RpcError> {
    state(node, limit).await.map(|state| (state.name, state.tip))
}

/// Where a block is, relative to another node's chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In the active chain.
    Active,
    /// The node knows the block, but its chain does not contain it.
    Side,
    /// The node does not know it.
    Unknown,
}

/// Where a block is, relative to a node's chain.
///
/// # Errors
/// The node did not answer within `limit`.
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

/// How long the last job stays in use while no node gives work. Long enough for a node to restart (Core takes minutes
/// with a large chain), short enough that machines waste at most a few blocks' time.
pub const NO_NODE_PATIENCE: Duration = Duration::from_secs(5 * 60);

/// The chain work of a node that was lost. Nodes with less work are not used for a while: the lost node may come back
/// with the chain that the others have yet to receive, and blocks mined below its tip are wasted.
#[derive(Debug, Default)]
pub struct Missed(Option<(ChainWork, usize, Instant)>);

impl Missed {
    /// Records that a node was lost. It last offered work on a tip with this chain work at the instant `offered`.
    pub fn lost(&mut self, index: usize, work: ChainWork, offered: Instant, now: Instant) {
        if self.least(now).is_none_or(|least| work >= least) {
            self.0 = Some((work, index, offered));
        }
    }

    /// The node is back, so what it had before no longer matters.
    pub fn back(&mut self, index: usize) {
        self.0.take_if(|(_, lost, _)| *lost == index);
    }

    /// Forgets the lost node: no work goes on without it, so any node is better than none.
    pub fn forget(&mut self) {
        self.0 = None;
    }

    /// The least chain work a node must have to be used: that of the lost node, as long as its last job stays in use
    /// ([`NO_NODE_PATIENCE`]).
    #[must_use]
    pub fn least(&self, now: Instant) -> Option<ChainWork> {
        self.node(now).map(|(_, work)| work)
    }

    /// The lost node and its chain work.
    #[must_use]
    pub fn node(&self, now: Instant) -> Option<(usize, ChainWork)> {
        let waits = |at: Instant| now.saturating_duration_since(at) < NO_NODE_PATIENCE;
        self.0.filter(|(.., at)| waits(*at)).map(|(work, index, _)| (index, work))
    }
}

/// Index of the node to work with: the one whose chain has the most work. On a tie the node in use is kept, so that the
/// choice does not flip; otherwise the first in the configuration wins. `None` if no node is known to give work, or all
/// have less work than `least`.
#[must_use]
pub fn best(tips: &[Option<ChainTip>], in_use: Option<usize>, least: Option<ChainWork>) -> Option<usize> {
    let known = tips.iter().enumerate().filter_map(|(index, tip)| Some((index, tip.as_ref()?.work)));
    let known = known.filter(|(_, work)| Some(*work) >= least);
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
        assert_eq!(best(&[low, high], Some(0), None), Some(1));
        assert_eq!(
            best(&[high, other], Some(1), None),
            Some(1),
            "as much work on another branch is no reason"
        );
        assert_eq!(best(&[high, other], Some(0), None), Some(0));
        assert_eq!(best(&[None, other, high], None, None), Some(1), "else the first configured");
        assert_eq!(best(&[None, low], Some(0), None), Some(1));
        assert_eq!(best(&[None, None], Some(0), None), None);
    }

    #[test]
    fn what_a_lost_node_had_is_missed_until_it_is_back_or_its_job_is_dead() {
        let (low, high) = (tip(5, 0), tip(6, 0));
        let (start, mut missed) = (Instant::now(), Missed::default());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(missed.least(start), None);
        missed.lost(0, high.work, start, at(1));
        missed.lost(1, low.work, at(1), at(2));
        assert_eq!(missed.node(at(2)), Some((0, high.work)), "not what has less");
        assert_eq!(best(&[None, Some(low)], None, missed.least(at(2))), None);
        assert_eq!(best(&[None, Some(high)], None, missed.least(at(2))), Some(1));
        assert_eq!(missed.least(at(300)), None, "the job is dead");
        missed.back(1);
        assert_eq!(missed.least(at(2)), Some(high.work));
        missed.back(0);
        assert_eq!(missed.node(at(2)), None);
        missed.lost(0, high.work, start, at(1));
        missed.forget();
        assert_eq!(missed.least(at(2)), None);
    }

    #[test]
    fn a_node_that_loads_the_chain_gives_no_work_and_a_fresh_private_chain_does() {
        let state = |headers, initial| ChainState { name: "x".into(), tip: tip(5, 0), headers, initial };
        let (private, main) = (Params::devnet(), Params::main());
        for (headers, initial, params, synced) in [
            (9, true, &private, false),
            (6, true, &private, true),
            (5, true, &private, true),
            (9, false, &private, true),
            (5, true, &main, false),
            (5, false, &main, true),
        ] {
            let found = state(headers, initial).synced(params);
            assert_eq!(found.is_ok(), synced, "{headers} {initial} {}", params.name);
        }
        let words = state(9, true).synced(&private).map_err(|trouble| trouble.to_string());
        assert_eq!(words, Err("still syncing: at block 5 of 9".to_owned()));
    }

    #[test]
    fn more_work_wins_over_more_blocks() {
        let mut short = tip(5, 1);
        short.work.0[0] = 1;
        assert_eq!(best(&[Some(tip(6, 0)), Some(short)], Some(0), None), Some(1));
    }
}
