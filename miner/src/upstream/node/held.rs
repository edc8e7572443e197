//! Parents with a block of ours in flight: at most one at a time is submitted on each parent, so that on an easy chain
//! the finds flood no node.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use bitcoin::BlockHash;

/// Most parents remembered.
const MAX_PARENTS: usize = 64;
/// How long no other block is made after one was accepted: by then the node has the new tip. If it still has the old
/// one then, the block was reorganised away, and work continues.
const TAKEN: Duration = Duration::from_secs(30);
/// The same after a refusal: what was wrong with one block may be wrong with the next.
const REFUSED: Duration = Duration::from_secs(5);
/// How long a node that gives work may leave a block unanswered. It is retried meanwhile, and validating the worst
/// block takes it seconds; an unresponsive node would otherwise stop the mining for good.
const SILENT: Duration = Duration::from_secs(60);

/// A parent with a block of ours in flight.
#[derive(Debug)]
struct Parent {
    hash: BlockHash,
    /// Until when no block is to be found on it, for any node; `None` while no node has accepted the block and not all
    /// have refused it.
    until: Option<Instant>,
    /// The same for single nodes, by number.
    nodes: BTreeMap<usize, Instant>,
}

/// The parents, newest first.
#[derive(Debug, Default)]
pub(super) struct Held(VecDeque<Parent>);

impl Held {
    /// Whether no block is to be found on this parent for the node in use. If none is in use, this holds until the
    /// block's fate is known: the block must first be submitted to the node that comes back.
    pub(super) fn holds(&mut self, hash: &BlockHash, node: Option<usize>, now: Instant) -> bool {
        let Some(parent) = self.find(hash) else { return false };
        match (parent.until, node) {
            (Some(until), _) => now < until,
            (None, Some(node)) => now < *parent.nodes.entry(node).or_insert(now + SILENT),
            (None, None) => true,
        }
    }

    /// A block on it is in flight.
    pub(super) fn pending(&mut self, hash: BlockHash) {
        self.0.retain(|parent| parent.hash != hash);
        self.0.push_front(Parent { hash, until: None, nodes: BTreeMap::new() });
        self.0.truncate(MAX_PARENTS);
    }

    /// A block on it was accepted.
    pub(super) fn taken(&mut self, hash: BlockHash, now: Instant) {
        self.decide(hash, now + TAKEN);
    }

    /// A node refused the block on it. It may be in use now or later; other nodes decide for themselves.
    pub(super) fn refused_by(&mut self, hash: BlockHash, node: usize, now: Instant) {
        if let Some(parent) = self.find(&hash) {
            parent.nodes.insert(node, now + REFUSED);
        }
    }

    /// No node accepted the block on it, and none will be asked again.
    pub(super) fn refused(&mut self, hash: BlockHash, now: Instant) {
        self.decide(hash, now + REFUSED);
    }

    /// The later time counts: a refusal does not undo another node's acceptance.
    fn decide(&mut self, hash: BlockHash, until: Instant) {
        if let Some(parent) = self.find(&hash) {
            parent.until = Some(parent.until.map_or(until, |before| before.max(until)));
        }
    }

    fn find(&mut self, hash: &BlockHash) -> Option<&mut Parent> {
        self.0.iter_mut().find(|parent| parent.hash == *hash)
    }
}

#[cfg(test)]
mod tests {
    use bitcoin::hashes::Hash;

    use super::*;

    fn parent(number: u8) -> BlockHash {
        BlockHash::from_byte_array([number; 32])
    }

    #[test]
    fn one_block_at_a_time_on_each_parent() {
        let (mut held, now) = (Held::default(), Instant::now());
        assert!(!held.holds(&parent(1), Some(0), now));
        held.pending(parent(1));
        assert!(held.holds(&parent(1), None, now + Duration::from_secs(9999)), "until its fate is known");
        assert!(held.holds(&parent(1), Some(0), now) && !held.holds(&parent(2), Some(0), now));
        held.refused(parent(1), now);
        assert!(held.holds(&parent(1), Some(0), now) && !held.holds(&parent(1), Some(0), now + REFUSED));
        held.taken(parent(1), now);
        held.refused(parent(1), now);
        let later = now + REFUSED;
        assert!(held.holds(&parent(1), Some(0), later) && !held.holds(&parent(1), None, now + TAKEN));
        held.pending(parent(1));
        assert!(held.holds(&parent(1), Some(0), now + TAKEN), "and another one");
        held.taken(parent(3), now);
        assert!(!held.holds(&parent(3), Some(0), now), "none of ours");
    }

    #[test]
    fn a_nodes_refusal_counts_when_that_node_is_mined_at_also_later() {
        let (mut held, now) = (Held::default(), Instant::now());
        held.pending(parent(1));
        held.refused_by(parent(1), 1, now);
        assert!(held.holds(&parent(1), None, now + REFUSED), "another node may take it");
        assert!(held.holds(&parent(1), Some(0), now + REFUSED), "it has not spoken yet");
        assert!(held.holds(&parent(1), Some(1), now) && !held.holds(&parent(1), Some(1), now + REFUSED));
        held.taken(parent(1), now + REFUSED);
        assert!(held.holds(&parent(1), Some(1), now + REFUSED), "the other one took it");
    }

    #[test]
    fn a_node_that_gives_work_and_no_answer_is_waited_for_a_minute() {
        let (mut held, now) = (Held::default(), Instant::now());
        held.pending(parent(1));
        let back = now + Duration::from_secs(9999);
        assert!(held.holds(&parent(1), Some(0), back) && held.holds(&parent(1), Some(0), back + SILENT / 2));
        assert!(!held.holds(&parent(1), Some(0), back + SILENT));
        held.pending(parent(1));
        assert!(held.holds(&parent(1), Some(0), back + SILENT), "another one is asked for as long");
    }

    #[test]
    fn endless_parents_fill_no_memory() {
        let (mut held, now) = (Held::default(), Instant::now());
        (0..=255).for_each(|number| held.pending(parent(number)));
        assert_eq!(held.0.len(), MAX_PARENTS);
        assert!(held.holds(&parent(255), Some(0), now) && !held.holds(&parent(0), Some(0), now));
    }
}
