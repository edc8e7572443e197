//! The network task's copy of the header tree, so that answering peers never waits for the chain's thread.
//!
//! Lives here: [`HeaderTree`] with ancestors, locators and the active chain. Does not live here: header validation;
//! only headers that the chain accepted are added. Entries refer to each other by position and have a skip link
//! besides their parent. About 200 bytes an entry including its place in the map: 40 MB for 200,000 headers.

use std::collections::HashMap;

use bitcoin::BlockHash;
use bitcoin::block::Header;
use bitcoin::hashes::Hash;
use bitcoin::pow::Work;
use iop_consensus::difficulty::work;

/// Position of an entry; never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct NodeId(u32);

/// The status of a block, besides its header.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Status {
    /// Its block is stored.
    pub(crate) have: bool,
    /// It was connected once, so its scripts passed.
    pub(crate) valid: bool,
    /// It or an ancestor breaks a rule.
    pub(crate) failed: bool,
}

/// One header.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) hash: BlockHash,
    pub(crate) header: Header,
    pub(crate) height: u32,
    /// Total work of this block and all its ancestors.
    pub(crate) work: Work,
    pub(crate) parent: Option<NodeId>,
    pub(crate) status: Status,
    skip: NodeId,
}

/// All headers.
#[derive(Debug)]
pub(crate) struct HeaderTree {
    nodes: Vec<Node>,
    by_hash: HashMap<BlockHash, NodeId>,
    active: Vec<NodeId>,
    best: NodeId,
}

impl HeaderTree {
    /// A tree with genesis only.
    pub(crate) fn new(genesis: Header) -> Self {
        let mut tree =
            Self { nodes: Vec::new(), by_hash: HashMap::new(), active: Vec::new(), best: NodeId(0) };
        let status = Status { have: true, valid: true, failed: false };
        let id = tree.push(genesis.block_hash(), genesis, None, status);
        tree.active.push(id);
        tree
    }

    /// Adds a header or updates its status; `None` if its parent is unknown.
    pub(crate) fn put(&mut self, hash: BlockHash, header: Header, status: Status) -> Option<NodeId> {
        if let Some(id) = self.find(&hash) {
            let node = &mut self.nodes[id.0 as usize];
            node.status.have |= status.have;
            node.status.valid |= status.valid;
            node.status.failed |= status.failed;
            return Some(id);
        }
        let parent = self.find(&header.prev_blockhash)?;
        let failed = status.failed || self.get(parent).status.failed;
        Some(self.push(hash, header, Some(parent), Status { failed, ..status }))
    }

    fn push(&mut self, hash: BlockHash, header: Header, parent: Option<NodeId>, status: Status) -> NodeId {
        let id = NodeId(u32::try_from(self.nodes.len()).expect("four billion headers do not fit in memory"));
        let own = work(header.bits);
        let (height, total, skip) = match parent {
            Some(parent) => {
                let height = self.get(parent).height + 1;
                (height, self.get(parent).work + own, self.ancestor(parent, skip_height(height)))
            }
            None => (0, own, id),
        };
        self.nodes.push(Node { hash, header, height, work: total, parent, status, skip });
        self.by_hash.insert(hash, id);
        if !status.failed && total > self.get(self.best).work {
            self.best = id;
        }
        id
    }

    pub(crate) fn get(&self, id: NodeId) -> &Node {
        &self.nodes[id.0 as usize]
    }

    pub(crate) fn find(&self, hash: &BlockHash) -> Option<NodeId> {
        self.by_hash.get(hash).copied()
    }

    /// Number of headers.
    pub(crate) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Marks a block and all its descendants as failed.
    pub(crate) fn note_failed(&mut self, id: NodeId) {
        let height = self.get(id).height;
        // Children have higher positions than their parents.
        for other in id.0..self.nodes.len() as u32 {
            if self.get(NodeId(other)).height >= height && self.ancestor(NodeId(other), height) == id {
                self.nodes[other as usize].status.failed = true;
            }
        }
        if self.get(self.best).status.failed {
            self.find_best();
        }
    }

    /// Clears the failure marks of a block, its ancestors and its descendants.
    pub(crate) fn forget_failed(&mut self, id: NodeId) {
        for other in 0..self.nodes.len() as u32 {
            let other = NodeId(other);
            if self.get(other).status.failed && (self.is_ancestor(other, id) || self.is_ancestor(id, other)) {
                self.nodes[other.0 as usize].status.failed = false;
            }
        }
        self.find_best();
    }

    fn find_best(&mut self) {
        let sound = (0..self.nodes.len() as u32).map(NodeId).filter(|&id| !self.get(id).status.failed);
        // Of equal ones, the first.
        let best = sound.max_by_key(|&id| (self.get(id).work, std::cmp::Reverse(id)));
        self.best = best.expect("genesis breaks no rule");
    }

    /// Merges a newer copy of the same chain's headers.
    pub(crate) fn take_over(&mut self, newer: &Self) {
        for node in &newer.nodes {
            if let Some(id) = self.put(node.hash, node.header, node.status) {
                self.nodes[id.0 as usize].status.failed = node.status.failed;
            }
        }
        if let Some(tip) = self.find(&newer.get(newer.tip()).hash) {
            self.set_tip(tip);
        }
        self.find_best();
    }

    /// The header with the most work that is not marked as failed; of equal ones, the first.
    pub(crate) fn best(&self) -> NodeId {
        self.best
    }

    /// The active chain's newest block.
    pub(crate) fn tip(&self) -> NodeId {
        *self.active.last().expect("genesis is always active")
    }

    /// Makes a block the tip, and its ancestors active.
    pub(crate) fn set_tip(&mut self, id: NodeId) {
        let height = self.get(id).height as usize;
        self.active.truncate(height + 1);
        self.active.resize(height + 1, id);
        let mut walk = Some(id);
        while let Some(id) = walk {
            let node = self.get(id);
            let (at, parent) = (node.height as usize, node.parent);
            if at < height && self.active[at] == id {
                break;
            }
            self.active[at] = id;
            self.nodes[id.0 as usize].status = Status { have: true, valid: true, failed: false };
            walk = parent;
        }
        if self.get(id).work > self.get(self.best).work {
            self.best = id;
        }
    }

    pub(crate) fn active_at(&self, height: u32) -> Option<NodeId> {
        self.active.get(height as usize).copied()
    }

    pub(crate) fn is_active(&self, id: NodeId) -> bool {
        self.active_at(self.get(id).height) == Some(id)
    }

    /// The ancestor of `id` at `height`, which must not be above `id`'s own.
    pub(crate) fn ancestor(&self, mut id: NodeId, height: u32) -> NodeId {
        debug_assert!(height <= self.get(id).height);
        loop {
            let node = self.get(id);
            if node.height <= height {
                return id;
            }
            if self.is_active(id) {
                return self.active[height as usize];
            }
            let skips = self.get(node.skip).height >= height;
            id =
                if skips { node.skip } else { node.parent.expect("only genesis has none, and it is lowest") };
        }
    }

    /// Whether `id` is `other` or an ancestor of it.
    pub(crate) fn is_ancestor(&self, id: NodeId, other: NodeId) -> bool {
        let height = self.get(id).height;
        height <= self.get(other).height && self.ancestor(other, height) == id
    }

    /// The last block that two branches share.
    pub(crate) fn common(&self, mut a: NodeId, mut b: NodeId) -> NodeId {
        let height = self.get(a).height.min(self.get(b).height);
        (a, b) = (self.ancestor(a, height), self.ancestor(b, height));
        while a != b {
            let up = |id: NodeId| self.get(id).parent.expect("all branches share genesis");
            (a, b) = (up(a), up(b));
        }
        a
    }

    /// Hashes from `id` back to genesis, the first ten consecutive, then increasingly sparse
    /// (`CChain::GetLocator`).
    pub(crate) fn locator(&self, id: NodeId) -> Vec<BlockHash> {
        let (mut hashes, mut step, mut at) = (Vec::with_capacity(32), 1, id);
        loop {
            let node = self.get(at);
            hashes.push(node.hash);
            if node.height == 0 {
                return hashes;
            }
            at = self.ancestor(at, node.height.saturating_sub(step));
            if hashes.len() > 10 {
                step *= 2;
            }
        }
    }

    /// The newest active block in a locator; genesis if there is none (`FindForkInGlobalIndex`).
    pub(crate) fn fork_in_active(&self, locator: &[BlockHash]) -> NodeId {
        for hash in locator {
            if let Some(id) = self.find(hash) {
                if self.is_active(id) {
                    return id;
                }
                let tip = self.tip();
                if self.is_ancestor(tip, id) {
                    return tip;
                }
            }
        }
        self.active[0]
    }

    /// The active blocks after `id`, which must be active.
    pub(crate) fn active_after(&self, id: NodeId) -> impl Iterator<Item = NodeId> + '_ {
        self.active.iter().skip(self.get(id).height as usize + 1).copied()
    }

    /// Seconds that the work between two headers takes at the newer one's difficulty
    /// (`GetBlockProofEquivalentTime`), at `spacing` seconds per block.
    pub(crate) fn equivalent_time(&self, newer: NodeId, older: NodeId, spacing: u32) -> u64 {
        let (newer, older) = (self.get(newer), self.get(older));
        if newer.work <= older.work {
            return 0;
        }
        let blocks = (newer.work - older.work).to_be_bytes();
        let one = work(newer.header.bits).to_be_bytes();
        // 128 bits are precise enough for a time: both numbers are shifted by the same number of bits.
        let top = |bytes: &[u8; 32]| u128::from_be_bytes(bytes[16..].try_into().expect("half of 32 bytes"));
        if blocks[..16].iter().chain(&one[..16]).any(|&byte| byte != 0) {
            return u64::MAX;
        }
        let blocks = top(&blocks) / top(&one).max(1);
        u64::try_from(blocks).unwrap_or(u64::MAX).saturating_mul(u64::from(spacing))
    }

    /// The all-zero hash.
    pub(crate) fn no_hash() -> BlockHash {
        BlockHash::all_zeros()
    }
}

/// The height that the skip link of an entry at `height` points to: one or two of the lowest set bits are cleared
/// (`GetSkipHeight`).
fn skip_height(height: u32) -> u32 {
    let clear_lowest = |n: u32| n & n.saturating_sub(1);
    match height {
        0 | 1 => 0,
        h if h % 2 == 1 => clear_lowest(clear_lowest(h - 1)) + 1,
        h => clear_lowest(h),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use iop_consensus::params::Params;

    /// Adds a branch of `length` headers on top of `from`; `salt` makes branches differ.
    fn extend(tree: &mut HeaderTree, from: NodeId, length: u32, salt: u32) -> Vec<NodeId> {
        let mut ids = vec![from];
        for i in 1..=length {
            let parent = tree.get(*ids.last().unwrap());
            let mut header = parent.header;
            (header.prev_blockhash, header.nonce, header.time) = (parent.hash, i, salt);
            ids.push(tree.put(header.block_hash(), header, Status::default()).unwrap());
        }
        ids
    }

    fn tree() -> HeaderTree {
        HeaderTree::new(Params::regtest().genesis.block().header)
    }

    #[test]
    fn ancestors_forks_and_common_blocks_of_branches_are_found() {
        let mut tree = tree();
        let genesis = tree.tip();
        let main = extend(&mut tree, genesis, 300, 1);
        tree.set_tip(main[200]);
        let side = extend(&mut tree, main[50], 200, 2);
        for height in 0..=250u32 {
            let expected = if height <= 50 { main[height as usize] } else { side[height as usize - 50] };
            assert_eq!(tree.ancestor(side[200], height), expected);
            assert_eq!(tree.ancestor(main[300], height), main[height as usize]);
        }
        assert_eq!(tree.common(side[200], main[300]), main[50]);
        assert_eq!(tree.best(), main[300]);
        tree.set_tip(side[180]);
        assert_eq!((tree.tip(), tree.active_at(100)), (side[180], Some(side[50])));
        assert_eq!(tree.active_after(side[178]).collect::<Vec<_>>(), side[179..=180]);
    }

    #[test]
    fn a_failed_block_takes_its_descendants_and_the_best_header_with_it() {
        let mut tree = tree();
        let genesis = tree.tip();
        let main = extend(&mut tree, genesis, 20, 1);
        let side = extend(&mut tree, main[5], 10, 2);
        tree.note_failed(main[10]);
        assert!(main[10..].iter().all(|&id| tree.get(id).status.failed));
        assert!(!tree.get(main[9]).status.failed && !tree.get(side[10]).status.failed);
        assert_eq!(tree.best(), side[10]);
        assert!(extend(&mut tree, main[20], 1, 3).iter().all(|&id| tree.get(id).status.failed));
        assert_eq!(tree.best(), side[10]);
    }

    #[test]
    fn a_locator_leads_to_the_fork() {
        let mut tree = tree();
        let genesis = tree.tip();
        let main = extend(&mut tree, genesis, 500, 1);
        tree.set_tip(main[500]);
        let locator = tree.locator(main[500]);
        assert_eq!(locator.len(), 12 + 7 + 1, "twelve one by one, then seven doubling steps, then genesis");
        assert_eq!((locator[0], locator[10]), (tree.get(main[500]).hash, tree.get(main[490]).hash));
        let side = extend(&mut tree, main[450], 100, 2);
        let fork = tree.fork_in_active(&tree.locator(side[100]));
        assert!((400..=450).contains(&tree.get(fork).height), "{}", tree.get(fork).height);
        assert_eq!(tree.fork_in_active(&[BlockHash::all_zeros()]), main[0]);
    }
}
