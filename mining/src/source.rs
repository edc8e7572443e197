//! What the tasks that take work from one node each have in common, in the pool and in the miner.
//!
//! Here: how often a node is asked, what is wished of which node ([`Wishes`]), and tips that came without a
//! template ([`Unseen`]). Not here: the tasks themselves, which tell their owners different things.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bitcoin::BlockHash;
use tokio::sync::Notify;

/// How often a template is requested on an unchanged tip, for the header's time and the fees of new
/// transactions.
pub const REFRESH: Duration = Duration::from_secs(30);
/// How often a node without long poll is asked; also the least time between two jobs on one tip, so that a
/// node whose long poll returns at once cannot make us spin.
pub const POLL: Duration = Duration::from_secs(1);
/// Wait before a node is tried again.
pub const RETRY: Duration = Duration::from_secs(1);
/// How often a node is asked for its tip.
pub const BEAT: Duration = Duration::from_secs(2);
/// Time for that answer. A slower node is no use for templates either; validating the worst blocks takes a
/// node a second or two.
pub const BEAT_TIME: Duration = Duration::from_secs(5);
/// How often template, licenses and tip are requested again until all belong to one tip. Tips are seconds
/// apart at least.
pub const MAX_TIP_RACES: u32 = 10;

/// Stands for no node.
const NONE: usize = usize::MAX;

/// What the owner of the tasks wishes of them. Nodes are known by their index.
#[derive(Debug)]
pub struct Wishes {
    /// The node in use, [`NONE`] for none.
    in_use: AtomicUsize,
    /// For each node: notified when a template is wanted now.
    now: Vec<Notify>,
}

impl Wishes {
    /// Wishes of so many nodes, none of them in use.
    #[must_use]
    pub fn new(nodes: usize) -> Self {
        Self { in_use: AtomicUsize::new(NONE), now: (0..nodes).map(|_| Notify::new()).collect() }
    }

    /// The node that work is taken from.
    #[must_use]
    pub fn in_use(&self) -> Option<usize> {
        Some(self.in_use.load(Ordering::Relaxed)).filter(|&index| index != NONE)
    }

    /// Says which node work is taken from.
    pub fn set_in_use(&self, index: Option<usize>) {
        self.in_use.store(index.unwrap_or(NONE), Ordering::Relaxed);
    }

    /// Requests a template of this node at once.
    ///
    /// # Panics
    /// There is no such node.
    pub fn ask(&self, index: usize) {
        self.now[index].notify_one();
    }

    /// Ends when a template of this node is requested. Requests while nobody waits here count as one, for who
    /// comes next.
    ///
    /// # Panics
    /// There is no such node.
    pub async fn asked(&self, index: usize) {
        self.now[index].notified().await;
    }
}

/// The tip that a node had at the last beat, if it had given no template for it.
#[derive(Debug, Default)]
pub struct Unseen(Option<BlockHash>);

impl Unseen {
    /// Takes a beat: the node's tip, and the one of its last template. Returns whether the tip is without a
    /// template once more, so that the long poll should have reported it long ago.
    #[must_use]
    pub fn again(&mut self, tip: BlockHash, parent: Option<BlockHash>) -> bool {
        let missed = parent.is_some_and(|parent| parent != tip).then_some(tip);
        let again = missed.is_some() && missed == self.0;
        self.0 = missed;
        again
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::tip;

    #[test]
    fn a_tip_without_a_template_counts_from_the_second_beat_on() {
        let [old, new, newer] = [5, 6, 7].map(|height| tip(height, 0).hash);
        let mut unseen = Unseen::default();
        assert!(!unseen.again(old, Some(old)), "it is known");
        assert!(!unseen.again(new, Some(old)), "it may have just come");
        assert!(!unseen.again(newer, Some(old)), "this one too");
        assert!(unseen.again(newer, Some(old)));
        assert!(unseen.again(newer, Some(old)), "it is asked until it answers");
        assert!(!unseen.again(newer, Some(newer)));
        assert!(!unseen.again(newer, Some(old)), "and it begins anew");
        assert!(!unseen.again(newer, None), "there is no template at all yet");
    }

    #[tokio::test]
    async fn a_request_waits_for_who_hears_it() {
        let wishes = Wishes::new(2);
        assert_eq!(wishes.in_use(), None);
        wishes.set_in_use(Some(1));
        assert_eq!(wishes.in_use(), Some(1));
        wishes.ask(1);
        wishes.asked(1).await;
    }
}
