//! Blocks of which one of ours is on its way, by what they stand on: at most one at a time is sent on each parent, so
//! that easy chains' finds flood no node.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bitcoin::BlockHash;

/// Parents that are remembered.
const MAX_PARENTS: usize = 64;
/// How long no other block is made after one was taken: by then the node has the new tip. If it still has the old one
/// then, the block was taken back, and work goes on.
const TAKEN: Duration = Duration::from_secs(30);
/// How long after a refusal: what was wrong with one block may be wrong with the next.
const REFUSED: Duration = Duration::from_secs(5);

/// The parents, with the time until when nothing is to be found on them; none while the block's fate is open.
#[derive(Debug, Default)]
pub(super) struct Held(VecDeque<(BlockHash, Option<Instant>)>);

impl Held {
    /// Whether nothing is to be found on this parent.
    pub(super) fn holds(&self, parent: &BlockHash, now: Instant) -> bool {
        let until = self.0.iter().find(|(held, _)| held == parent).map(|(_, until)| *until);
        until.is_some_and(|until| until.is_none_or(|until| now < until))
    }

    /// A block on it is on its way.
    pub(super) fn pending(&mut self, parent: BlockHash) {
        self.0.retain(|(held, _)| *held != parent);
        self.0.push_front((parent, None));
        self.0.truncate(MAX_PARENTS);
    }

    /// A block on it was taken.
    pub(super) fn taken(&mut self, parent: BlockHash, now: Instant) {
        self.decide(parent, now + TAKEN);
    }

    /// The block on it was refused, unless a node has taken it.
    pub(super) fn refused(&mut self, parent: BlockHash, now: Instant) {
        self.decide(parent, now + REFUSED);
    }

    /// The later time counts: one node's refusal does not undo what another one took.
    fn decide(&mut self, parent: BlockHash, until: Instant) {
        if let Some((_, held)) = self.0.iter_mut().find(|(held, _)| *held == parent) {
            *held = Some(held.map_or(until, |before| before.max(until)));
        }
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
        assert!(!held.holds(&parent(1), now));
        held.pending(parent(1));
        assert!(held.holds(&parent(1), now + Duration::from_secs(9999)), "until its fate is known");
        assert!(!held.holds(&parent(2), now));
        held.refused(parent(1), now);
        assert!(held.holds(&parent(1), now) && !held.holds(&parent(1), now + REFUSED));
        held.taken(parent(1), now);
        held.refused(parent(1), now);
        assert!(held.holds(&parent(1), now + REFUSED) && !held.holds(&parent(1), now + TAKEN));
        held.pending(parent(1));
        assert!(held.holds(&parent(1), now + TAKEN), "and another one");
        held.taken(parent(3), now);
        assert!(!held.holds(&parent(3), now), "none of ours");
    }

    #[test]
    fn endless_parents_fill_no_memory() {
        let mut held = Held::default();
        (0..=255).for_each(|number| held.pending(parent(number)));
        assert_eq!(held.0.len(), MAX_PARENTS);
        assert!(held.holds(&parent(255), Instant::now()) && !held.holds(&parent(0), Instant::now()));
    }
}
