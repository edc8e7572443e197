//! All known headers as a tree, in memory.
//!
//! Entries are in one vector and refer to each other by position. Each has a skip link besides its parent, so an
//! ancestor is found in logarithmic time. About 250 bytes an entry: 50 MB for 200,000 blocks.

use std::collections::{BTreeSet, HashMap};

use std::sync::atomic::{AtomicU32, Ordering};

use bitcoin::BlockHash;
use bitcoin::block::Header;
use bitcoin::pow::Work;
use iop_consensus::ancestors::{Ancestors, HeaderInfo};
use iop_consensus::difficulty::work;
use iop_consensus::params::Params;

use crate::storage::IndexRecord;

/// Position of an entry; never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockId(u32);

/// One known header.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The header's hash.
    pub hash: BlockHash,
    /// The stored record.
    pub record: IndexRecord,
    /// The parent entry; `None` for genesis.
    pub parent: Option<BlockId>,
    /// Total work of this block and all its ancestors.
    pub work: Work,
    /// Whether its block and all its ancestors' blocks are stored.
    pub linked: bool,
    /// The order in which blocks were linked: of two tips with the same work, the earlier one stays active.
    /// Negative for blocks that an operator prefers.
    pub arrival: i64,
    skip: Option<BlockId>,
    children: Vec<BlockId>,
}

impl Entry {
    /// Whether this block or an ancestor breaks a rule.
    pub fn is_failed(&self) -> bool {
        self.record.failed || self.record.failed_ancestor
    }

    /// Whether the block is stored.
    pub fn has_block(&self) -> bool {
        self.was_here() && !self.record.pruned
    }

    /// Whether the block is stored, or was until it was pruned.
    pub fn was_here(&self) -> bool {
        self.record.tx_count > 0
    }
}

/// The tree of headers and the active chain in it.
#[derive(Debug, Default)]
pub struct BlockIndex {
    entries: Vec<Entry>,
    by_hash: HashMap<BlockHash, BlockId>,
    active: Vec<BlockId>,
    arrivals: u32,
    firsts: i64,
    best_header: Option<BlockId>,
    /// Blocks found to break a rule when they were connected (`g_failed_blocks`).
    failed: BTreeSet<BlockId>,
}

impl BlockIndex {
    /// The entry at a position.
    pub fn get(&self, id: BlockId) -> &Entry {
        &self.entries[id.0 as usize]
    }

    /// Mutable access to the entry at a position.
    pub fn get_mut(&mut self, id: BlockId) -> &mut Entry {
        &mut self.entries[id.0 as usize]
    }

    /// The position of the header with this hash.
    pub fn find(&self, hash: &BlockHash) -> Option<BlockId> {
        self.by_hash.get(hash).copied()
    }

    /// All positions, parents before children.
    pub fn ids(&self) -> impl Iterator<Item = BlockId> + use<> {
        (0..self.entries.len() as u32).map(BlockId)
    }

    /// Adds a header whose parent is known (or genesis) and returns its position.
    pub fn insert(&mut self, hash: BlockHash, record: IndexRecord) -> BlockId {
        let id =
            BlockId(u32::try_from(self.entries.len()).expect("four billion headers do not fit in memory"));
        let parent = self.find(&record.header.prev_blockhash);
        let own_work = work(record.header.bits);
        let work = parent.map_or(own_work, |parent| self.get(parent).work + own_work);
        let skip = parent.map(|parent| self.ancestor(parent, skip_height(record.height)));
        self.entries.push(Entry {
            hash,
            record,
            parent,
            work,
            linked: false,
            arrival: i64::from(record.arrival),
            skip,
            children: Vec::new(),
        });
        if let Some(parent) = parent {
            self.get_mut(parent).children.push(id);
        }
        self.by_hash.insert(hash, id);
        self.consider_header(id);
        id
    }

    /// Makes this the best header if it has more work.
    pub(super) fn consider_header(&mut self, id: BlockId) {
        let is_better = |best| self.get(best).work < self.get(id).work;
        if !self.get(id).is_failed() && self.best_header.is_none_or(is_better) {
            self.best_header = Some(id);
        }
    }

    /// The header with the most work among those not known to break a rule when they were added; of equal ones, the
    /// first to arrive (`pindexBestHeader`).
    pub fn best_header(&self) -> BlockId {
        self.best_header.expect("genesis is always here")
    }

    /// Remembers a block that broke a rule when it was connected.
    pub(super) fn note_failed(&mut self, id: BlockId) {
        self.failed.insert(id);
    }

    /// Forgets a block noted by [`BlockIndex::note_failed`].
    pub(super) fn forget_failed(&mut self, id: BlockId) {
        self.failed.remove(&id);
    }

    /// A block noted by [`BlockIndex::note_failed`] that is `id` or an ancestor of it.
    pub(super) fn failed_ancestor(&self, id: BlockId) -> Option<BlockId> {
        let height = self.get(id).record.height;
        let below = |failed: &BlockId| self.get(*failed).record.height <= height;
        let mut known = self.failed.iter().copied().filter(below);
        known.find(|&failed| self.ancestor(id, self.get(failed).record.height) == failed)
    }

    /// Notes that an entry's block was stored. Returns the entries that are linked now: itself and the descendants
    /// that waited for it; none if an ancestor's block is missing. Their records are changed.
    pub fn block_arrived(&mut self, id: BlockId) -> Vec<BlockId> {
        let mut newly = if self.can_link(id) { vec![id] } else { Vec::new() };
        let mut next = 0;
        while let Some(&id) = newly.get(next) {
            self.arrivals += 1;
            let arrival = self.arrivals;
            let entry = self.get_mut(id);
            (entry.linked, entry.arrival, entry.record.arrival) = (true, i64::from(arrival), arrival);
            let waiting = entry.children.clone();
            newly.extend(waiting.into_iter().filter(|&child| self.get(child).was_here()));
            next += 1;
        }
        newly
    }

    /// Notes at the start that an entry's block is stored; ancestors must be noted first. The entry keeps its place
    /// in the order of arrival.
    pub(super) fn block_was_here(&mut self, id: BlockId) {
        self.get_mut(id).linked = self.can_link(id);
        self.arrivals = self.arrivals.max(self.get(id).record.arrival);
    }

    fn can_link(&self, id: BlockId) -> bool {
        self.get(id).parent.is_none_or(|parent| self.get(parent).linked)
    }

    /// Moves an entry to the front of the order of arrival.
    pub(super) fn make_first(&mut self, id: BlockId) {
        self.firsts -= 1;
        self.get_mut(id).arrival = self.firsts;
    }

    /// All descendants of an entry, excluding itself.
    pub fn descendants(&self, id: BlockId) -> Vec<BlockId> {
        let mut found = self.get(id).children.clone();
        let mut next = 0;
        while let Some(&id) = found.get(next) {
            found.extend_from_slice(&self.get(id).children);
            next += 1;
        }
        found
    }

    /// The ancestor of `id` at `height`, which must not be above `id`'s own.
    pub fn ancestor(&self, mut id: BlockId, height: u32) -> BlockId {
        loop {
            let entry = self.get(id);
            let at = entry.record.height;
            debug_assert!(height <= at, "an ancestor is not above its descendant");
            if at == height {
                return id;
            }
            if self.active_at(at) == Some(id) {
                return self.active[height as usize];
            }
            let skip = entry.skip.filter(|_| skip_height(at) >= height);
            id = skip.or(entry.parent).expect("only genesis has no parent, and nothing is below it");
        }
    }

    /// The last entry that the branch of `id` shares with the active chain.
    pub fn fork_point(&self, mut id: BlockId) -> BlockId {
        while !self.is_active(id) {
            id = self.get(id).parent.expect("every branch comes from genesis, which is active");
        }
        id
    }

    /// The active chain's entry at `height`.
    pub fn active_at(&self, height: u32) -> Option<BlockId> {
        self.active.get(height as usize).copied()
    }

    /// Whether the entry is in the active chain.
    pub fn is_active(&self, id: BlockId) -> bool {
        self.active_at(self.get(id).record.height) == Some(id)
    }

    /// The active chain's newest entry.
    pub fn tip(&self) -> BlockId {
        *self.active.last().expect("genesis is always active")
    }

    /// Makes the chain that ends at `tip` the active one.
    pub(super) fn activate(&mut self, tip: BlockId) {
        let mut walk = Some(tip);
        self.active.clear();
        while let Some(id) = walk {
            self.active.push(id);
            walk = self.get(id).parent;
        }
        self.active.reverse();
    }

    /// Makes `id`, a child of the tip (or genesis), the tip.
    pub fn push_tip(&mut self, id: BlockId) {
        debug_assert_eq!(self.get(id).record.height as usize, self.active.len());
        self.active.push(id);
    }

    /// Makes the tip's parent the tip.
    pub fn pop_tip(&mut self) {
        self.active.pop();
    }

    /// The chain that ends at `id`, in the form that the rules use.
    pub fn chain(&self, id: BlockId) -> Chain<'_> {
        Chain { index: self, tip: id, last: AtomicU32::new(id.0) }
    }

    /// Height of the highest checkpoint whose header is known; 0 if there is none.
    pub fn last_checkpoint(&self, params: &Params) -> u32 {
        let known = params.checkpoints.iter().rev().find(|(_, hash)| self.by_hash.contains_key(hash));
        known.map_or(0, |(height, _)| *height)
    }

    /// The header at a position.
    pub fn header(&self, id: BlockId) -> &Header {
        &self.get(id).record.header
    }
}

/// The height that the skip link of an entry at `height` points to. As in Core, one or two of the lowest set bits
/// are cleared, so that any ancestor is few links away.
fn skip_height(height: u32) -> u32 {
    let clear_lowest = |n: u32| n & n.saturating_sub(1);
    match height {
        0 | 1 => 0,
        h if h % 2 == 1 => clear_lowest(clear_lowest(h - 1)) + 1,
        h => clear_lowest(h),
    }
}

/// A chain from genesis to some entry.
pub struct Chain<'a> {
    index: &'a BlockIndex,
    tip: BlockId,
    /// The entry returned last. Rules walk back block by block, two thousand of them where minimum-difficulty
    /// blocks are allowed, and stepping to the parent is much quicker than searching from the tip.
    last: AtomicU32,
}

impl Chain<'_> {
    fn at(&self, height: u32) -> BlockId {
        let last = BlockId(self.last.load(Ordering::Relaxed));
        let entry = self.index.get(last);
        let parent = entry.parent.filter(|_| entry.record.height == height.wrapping_add(1));
        let id = parent.unwrap_or_else(|| self.index.ancestor(self.tip, height));
        self.last.store(id.0, Ordering::Relaxed);
        id
    }
}

impl Ancestors for Chain<'_> {
    fn tip_height(&self) -> u32 {
        self.index.get(self.tip).record.height
    }

    fn header(&self, height: u32) -> HeaderInfo {
        let header = self.index.header(self.at(height));
        HeaderInfo { version: header.version.to_consensus(), time: header.time, bits: header.bits }
    }

    fn hash(&self, height: u32) -> BlockHash {
        self.index.get(self.at(height)).hash
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn record(header: Header, height: u32) -> IndexRecord {
        IndexRecord { tx_count: 1, ..IndexRecord::of_header(header, height) }
    }

    /// Adds a chain of `length` headers on top of `from`; `salt` makes branches differ.
    fn extend(index: &mut BlockIndex, from: BlockId, length: u32, salt: u32) -> Vec<BlockId> {
        let mut ids = vec![from];
        for i in 1..=length {
            let parent = index.get(*ids.last().unwrap());
            let mut header = parent.record.header;
            (header.prev_blockhash, header.nonce, header.time) = (parent.hash, i, salt);
            let record = record(header, parent.record.height + 1);
            ids.push(index.insert(header.block_hash(), record));
        }
        ids
    }

    fn with_genesis() -> (BlockIndex, BlockId) {
        let header = Params::regtest().genesis.block().header;
        let mut index = BlockIndex::default();
        let genesis = index.insert(header.block_hash(), record(header, 0));
        index.push_tip(genesis);
        (index, genesis)
    }

    #[test]
    fn every_ancestor_of_a_side_branch_is_found() {
        let (mut index, genesis) = with_genesis();
        let main = extend(&mut index, genesis, 300, 1);
        main[1..100].iter().for_each(|&id| index.push_tip(id));
        let side = extend(&mut index, main[50], 200, 2);
        for height in 0..=250 {
            let expected = if height <= 50 { main[height] } else { side[height - 50] };
            assert_eq!(index.ancestor(*side.last().unwrap(), height as u32), expected);
            assert_eq!(index.ancestor(main[300], height as u32), main[height]);
        }
        assert_eq!(index.fork_point(*side.last().unwrap()), main[50]);
    }

    #[test]
    fn a_block_that_fills_a_gap_links_all_that_waited_for_it() {
        let (mut index, genesis) = with_genesis();
        assert_eq!(index.block_arrived(genesis), [genesis]);
        let ids = extend(&mut index, genesis, 3, 1);
        index.get_mut(ids[1]).record.tx_count = 0;
        assert!(index.block_arrived(ids[2]).is_empty());
        assert!(index.block_arrived(ids[3]).is_empty());
        index.get_mut(ids[1]).record.tx_count = 1;
        assert_eq!(index.block_arrived(ids[1]), [ids[1], ids[2], ids[3]]);
        assert_eq!(index.descendants(ids[1]), [ids[2], ids[3]]);
    }
}
