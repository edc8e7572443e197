//! Tips of nodes, and which node's chain is to be worked on.

use std::time::{Duration, Instant};

use bitcoin::BlockHash;
use iop_consensus::params::Params;
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

/// A node is still loading its chain, as far as it knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Syncing {
    /// It knows headers whose blocks it has not.
    #[error("still syncing: at block {block} of {headers}")]
    Blocks {
        /// Height of its tip.
        block: u32,
        /// Height of its best header.
        headers: u32,
    },
    /// It knows no more, and takes that for old.
    #[error(
        "still syncing: its newest block, {block}, is too old for the chain's end (see the node's max tip age)"
    )]
    Old {
        /// Height of its tip.
        block: u32,
    },
}

impl ChainState {
    /// Whether work on this tip makes sense. A private chain that nobody has mined on for a day looks like one that is
    /// being loaded; there the headers tell. One header more than blocks tells nothing: it may be of a block that was refused.
    ///
    /// # Errors
    /// It makes none.
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

/// Time without work from any node after which the last job is taken for dead. Long enough for a node to restart
/// (Core takes minutes with a large chain), short enough that machines hash a few blocks' time in vain at most.
pub const NO_NODE_PATIENCE: Duration = Duration::from_secs(5 * 60);

/// The work that a node had to offer which was then lost. Nodes with less are no use for a while: it may be back with the
/// chain that the others have yet to hear of, and what is mined below its tip is mined for nothing.
#[derive(Debug, Default)]
pub struct Missed(Option<(ChainWork, usize, Instant)>);

impl Missed {
    /// A node is lost that last offered work on a tip of so much work at this instant.
    pub fn lost(&mut self, index: usize, work: ChainWork, offered: Instant, now: Instant) {
        if self.least(now).is_none_or(|least| work >= least) {
            self.0 = Some((work, index, offered));
        }
    }

    /// A node is back, with what it has now.
    pub fn back(&mut self, index: usize) {
        self.0.take_if(|(_, lost, _)| *lost == index);
    }

    /// Nothing goes on without the node that was lost, so that any work is better.
    pub fn forget(&mut self) {
        self.0 = None;
    }

    /// The least work that is of use: what the lost node had, as long as its last job goes on without it
    /// ([`NO_NODE_PATIENCE`]).
    #[must_use]
    pub fn least(&self, now: Instant) -> Option<ChainWork> {
        self.node(now).map(|(_, work)| work)
    }

    /// The node that is missed, and what it had.
    #[must_use]
    pub fn node(&self, now: Instant) -> Option<(usize, ChainWork)> {
        let waits = |at: Instant| now.saturating_duration_since(at) < NO_NODE_PATIENCE;
        self.0.filter(|(.., at)| waits(*at)).map(|(work, index, _)| (index, work))
    }
}

/// The node to work on: the one whose chain has most work. A tie keeps the one in use, so that nothing swings; else
/// the first of the configuration wins. None when no node is known to give work, or all have less than `least`.
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
