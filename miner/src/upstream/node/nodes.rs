//! Choice of the node to use, and the state of all nodes for people.
//!
//! Most work wins at once. Among nodes with the same tip it is the one that the user asked for, else the first of the
//! command line, which is used again once it is back. Equal work on another branch is no reason to switch. If the node
//! with most work is lost, those with less are not used for a while: it may come back with a chain that the others have
//! yet to receive.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bitcoin::BlockHash;
use iop_mining::tips::{ChainTip, ChainWork, Missed, NO_NODE_PATIENCE, Place};
use tracing::{debug, info, warn};

use super::source::Trouble;
use crate::upstream::board::{Board, Condition};

/// How often it is logged again that a node is away or behind.
const REMIND: Duration = Duration::from_secs(5 * 60);
/// How long another node must have had more work before a node counts as behind. Blocks take a second or two from node
/// to node.
const LAG_TIME: Duration = Duration::from_secs(5);

/// The node to use; `None` if all have less work than `least`.
fn choose(
    offered: &[Option<ChainTip>],
    least: Option<ChainWork>,
    in_use: Option<usize>,
    wished: Option<usize>,
) -> Option<usize> {
    let most = offered.iter().flatten().map(|tip| tip.work).max().max(least)?;
    let leader = |index: &usize| offered.get(*index).copied().flatten().filter(|tip| tip.work == most);
    let kept: Option<BlockHash> = in_use.and_then(|index| leader(&index)).map(|tip| tip.hash);
    let may = |index: &usize| leader(index).is_some_and(|tip| kept.is_none_or(|hash| tip.hash == hash));
    wished.filter(may).or_else(|| (0..offered.len()).find(may))
}

#[derive(Debug, Default)]
struct Known {
    name: String,
    /// The tip of its last template; `None` while it gives no work.
    offered: Option<ChainTip>,
    /// When it gave that template.
    offered_at: Option<Instant>,
    /// Its last known tip.
    tip: Option<ChainTip>,
    /// Since when another node has had more work.
    behind_since: Option<Instant>,
    /// Whether that has lasted, and its place was determined or asked for.
    behind: bool,
    /// Whether it was ever known to be right.
    was_right: bool,
    /// When its trouble was last logged.
    said: Option<Instant>,
}

/// State of the nodes.
#[derive(Debug)]
pub(super) struct Nodes {
    known: Vec<Known>,
    in_use: Option<usize>,
    wished: Option<usize>,
    missed: Missed,
    board: Arc<Board>,
}

impl Nodes {
    /// Creates it with nothing known yet.
    pub(super) fn new(names: impl IntoIterator<Item = String>, board: Arc<Board>) -> Self {
        let known: Vec<Known> = names.into_iter().map(|name| Known { name, ..Known::default() }).collect();
        (0..known.len()).for_each(|index| board.change(index, |source| source.set(Condition::Connecting)));
        Self { known, in_use: None, wished: None, missed: Missed::default(), board }
    }

    /// The node in use.
    pub(super) fn in_use(&self) -> Option<usize> {
        self.in_use
    }

    /// Whether the node was ever known to be right.
    pub(super) fn was_right(&self, index: usize) -> bool {
        self.known[index].was_right
    }

    /// Whether any node was.
    pub(super) fn any_was_right(&self) -> bool {
        self.known.iter().any(|node| node.was_right)
    }

    /// The node's name.
    pub(super) fn name(&self, index: usize) -> &str {
        &self.known[index].name
    }

    /// A node gave work on this tip.
    pub(super) fn up(&mut self, index: usize, tip: ChainTip, now: Instant) {
        let node = &mut self.known[index];
        if node.offered.is_none() {
            let words = if node.was_right { "node is back" } else { "node answers" };
            info!(node = node.name, height = tip.height, "{words}");
            node.said = None;
            self.board.change(index, |source| source.set(Condition::Unused));
        }
        (node.offered, node.offered_at) = (Some(tip), Some(now));
        (node.tip, node.was_right) = (Some(tip), true);
        self.missed.back(index);
        self.compare(now);
    }

    /// A node answered with its tip in `answer` time.
    pub(super) fn beat(&mut self, index: usize, tip: ChainTip, answer: Duration, now: Instant) {
        let node = &mut self.known[index];
        if node.offered.is_some() {
            node.tip = Some(tip);
        }
        self.board.change(index, |source| source.answer = Some(answer));
        self.compare(now);
    }

    /// A node gives no work.
    pub(super) fn lost(&mut self, index: usize, trouble: &Trouble, now: Instant) {
        let node = &mut self.known[index];
        if node.offered.is_some() || node.said.is_none_or(|said| now - said > REMIND) {
            warn!(node = node.name, "node gives no work, waiting for it: {trouble}");
            node.said = Some(now);
        }
        let missed = node.offered.map(|tip| tip.work).zip(node.offered_at);
        (node.offered, node.tip, node.behind_since, node.behind) = (None, None, None, false);
        if let Some((work, at)) = missed {
            self.missed.lost(index, work, at, now);
        }
        self.board.change(index, |source| {
            source.set(Condition::Away(trouble.to_string()));
            source.job = None;
        });
        self.compare(now);
    }

    /// The user asks for this node. Returns whether the request is new.
    pub(super) fn wish(&mut self, index: usize) -> bool {
        self.wished.replace(index) != Some(index)
    }

    /// Re-evaluates which node to use. Returns it if it is another one than before.
    pub(super) fn decide(&mut self, now: Instant) -> Option<usize> {
        let offered: Vec<Option<ChainTip>> = self.known.iter().map(|node| node.offered).collect();
        let best = choose(&offered, self.missed.least(now), self.in_use, self.wished);
        let before = std::mem::replace(&mut self.in_use, best);
        if before == best {
            return None;
        }
        if let Some(left) = before {
            self.board.change(left, |source| {
                // A node that is away or behind keeps that state.
                if matches!(source.condition, Condition::Working | Condition::Waiting(_)) {
                    source.set(Condition::Unused);
                }
                source.job = None;
            });
        }
        let name = |index: Option<usize>| index.map_or("none", |index| self.name(index));
        let (from, to) = (name(before), name(best));
        if best.is_some() && before.is_some_and(|left| offered[left].is_none()) {
            info!(from, to, "templates come from another node");
        } else {
            debug!(from, to, "templates come from another node");
        }
        if best.is_none() && offered.iter().any(Option::is_some) {
            let minutes = NO_NODE_PATIENCE.as_secs() / 60;
            warn!(
                "the other nodes have less work than {from} had: used when they have caught up, or in {minutes} min"
            );
        }
        best
    }

    /// Stops waiting for a lost node: nothing depends on it any more, so any work is better.
    pub(super) fn miss_nothing(&mut self) {
        self.missed.forget();
    }

    /// The node whose chain has most work.
    fn best(&self) -> Option<(usize, ChainTip)> {
        let tips = self.known.iter().enumerate().filter_map(|(index, node)| Some((index, node.tip?)));
        tips.max_by_key(|(index, tip)| (tip.work, std::cmp::Reverse(*index)))
    }

    /// Updates since when each node has been behind.
    fn compare(&mut self, now: Instant) {
        let Some(most) = self.best().map(|(_, tip)| tip.work).max(self.missed.least(now)) else { return };
        for (index, node) in self.known.iter_mut().enumerate() {
            if node.tip.is_some_and(|tip| tip.work < most) {
                node.behind_since.get_or_insert(now);
                continue;
            }
            node.behind_since = None;
            // A node that is used despite being behind has not caught up.
            if std::mem::take(&mut node.behind) && self.in_use != Some(index) {
                info!(node = node.name, "node has caught up");
                node.said = None;
                self.board.change(index, |source| source.set(Condition::Unused));
            }
        }
    }

    /// Nodes that have now been behind for long: index, index of the node ahead, and tip. Each is reported once.
    pub(super) fn newly_behind(&mut self, now: Instant) -> Vec<(usize, usize, ChainTip)> {
        let Some((ahead, best)) = self.best() else { return Vec::new() };
        let mut behind = Vec::new();
        for (index, node) in self.known.iter_mut().enumerate() {
            let lasts = node.behind_since.is_some_and(|since| now - since >= LAG_TIME);
            if let Some(tip) = node.tip.filter(|tip| lasts && !node.behind && tip.work < best.work) {
                node.behind = true;
                behind.push((index, ahead, tip));
            }
        }
        behind
    }

    /// Reports a node that is behind, with the place of its tip in the other's chain; `None` if the other did not
    /// answer.
    pub(super) fn behind(&mut self, index: usize, ahead: usize, place: Option<Place>, now: Instant) {
        let (Some(tip), Some(best)) = (self.known[index].tip, self.known[ahead].tip) else { return };
        let (other, lag) = (self.known[ahead].name.clone(), best.height.saturating_sub(tip.height));
        let words = match place {
            Some(Place::Active) | None => format!("lags {lag} blocks behind {other}"),
            Some(Place::Side) => format!("on another branch than {other}, which has more work"),
            Some(Place::Unknown) => format!("on a branch that {other} does not know, with less work"),
        };
        let node = &mut self.known[index];
        if !node.behind {
            return; // it has caught up in the meantime
        }
        warn!(node = node.name, height = tip.height, "node is left until it is right: {words}");
        node.said = Some(now);
        self.board.change(index, |source| source.set(Condition::Away(words)));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use iop_mining::rpc::RpcError;
    use iop_mining::sample::tip;

    use super::*;

    #[test]
    fn most_work_wins_and_on_the_same_tip_the_wished_or_the_first() {
        let (low, high, other) = (Some(tip(5, 0)), Some(tip(6, 0)), Some(tip(6, 1)));
        for (offered, in_use, wished, expected) in [
            ([low, high], Some(0), None, Some(1)),
            ([high, high], Some(1), None, Some(0)), // the first is back
            ([high, high], Some(1), Some(1), Some(1)),
            ([high, high], None, Some(1), Some(1)),
            ([high, low], None, Some(1), Some(0)), // a request for a node with less work
            ([high, other], Some(1), None, Some(1)), // equal work on another branch
            ([high, other], Some(1), Some(0), Some(1)),
            ([high, other], None, None, Some(0)),
            ([None, low], Some(0), Some(0), Some(1)),
            ([None, None], Some(0), None, None),
        ] {
            let chosen = choose(&offered, None, in_use, wished);
            assert_eq!(chosen, expected, "{offered:?} {in_use:?} {wished:?}");
        }
        for (least, expected) in [(low, Some(1)), (high, Some(1)), (Some(tip(7, 0)), None)] {
            assert_eq!(choose(&[low, other], least.map(|tip| tip.work), Some(0), Some(0)), expected);
        }
    }

    fn nodes() -> (Nodes, Arc<Board>) {
        let board = Arc::new(Board::new(["a", "b"].map(|name| (name.to_owned(), String::new()))));
        (Nodes::new(["a", "b"].map(str::to_owned), Arc::clone(&board)), board)
    }

    fn condition(board: &Board, index: usize) -> Condition {
        board.sources()[index].condition.clone()
    }

    #[test]
    fn a_node_that_fails_is_left_and_come_back_to() {
        let (mut nodes, board) = nodes();
        let now = Instant::now();
        nodes.up(1, tip(5, 0), now);
        assert_eq!((nodes.decide(now), nodes.in_use()), (Some(1), Some(1)));
        nodes.up(0, tip(5, 0), now);
        assert_eq!(nodes.decide(now), Some(0), "the first is preferred");
        assert_eq!(nodes.decide(now), None);
        let gone = Trouble::from(RpcError::Unreachable("gone".into()));
        nodes.lost(0, &gone, now);
        assert_eq!(nodes.decide(now), Some(1));
        assert_eq!(condition(&board, 0), Condition::Away("gone".into()));
        nodes.lost(1, &gone, now);
        assert_eq!((nodes.decide(now), nodes.in_use()), (None, None));
        nodes.up(0, tip(5, 0), now);
        assert_eq!((nodes.decide(now), condition(&board, 0)), (Some(0), Condition::Unused));
    }

    #[test]
    fn a_node_is_behind_only_when_another_has_had_more_work_for_long_and_until_it_has_as_much() {
        let (mut nodes, board) = nodes();
        let now = Instant::now();
        nodes.up(0, tip(5, 0), now);
        nodes.up(1, tip(7, 0), now);
        assert!(nodes.newly_behind(now).is_empty(), "it may follow any moment");
        let later = now + LAG_TIME;
        assert_eq!(nodes.newly_behind(later), [(0, 1, tip(5, 0))]);
        assert!(nodes.newly_behind(later).is_empty(), "told once");
        nodes.behind(0, 1, Some(Place::Active), later);
        assert_eq!(condition(&board, 0), Condition::Away("lags 2 blocks behind b".into()));
        nodes.behind(0, 1, Some(Place::Side), later);
        assert!(
            matches!(condition(&board, 0), Condition::Away(words) if words.starts_with("on another branch"))
        );
        nodes.beat(0, tip(7, 1), Duration::from_millis(3), later);
        assert_eq!(condition(&board, 0), Condition::Unused, "as much work is enough");
        assert_eq!(board.sources()[0].answer, Some(Duration::from_millis(3)));
        nodes.behind(0, 1, Some(Place::Active), later);
        assert_eq!(condition(&board, 0), Condition::Unused, "an answer that comes too late");
    }

    #[test]
    fn when_the_node_with_most_work_is_lost_one_with_less_is_used_no_sooner_than_the_last_work_ends() {
        let (mut nodes, board) = nodes();
        let (gone, begun) = (Trouble::from(RpcError::Unreachable("gone".into())), Instant::now());
        let after = |seconds| begun + Duration::from_secs(seconds);
        nodes.up(1, tip(5, 0), begun);
        nodes.up(0, tip(7, 0), begun);
        assert_eq!((nodes.decide(begun), nodes.newly_behind(after(10)).len()), (Some(0), 1));
        nodes.behind(1, 0, Some(Place::Active), after(10));
        nodes.up(0, tip(7, 0), after(20));
        nodes.lost(0, &gone, after(40));
        assert_eq!((nodes.decide(after(40)), nodes.in_use()), (None, None));
        // Being alone brings it no nearer to that work.
        nodes.beat(1, tip(5, 0), Duration::ZERO, after(42));
        assert!(
            matches!(condition(&board, 1), Condition::Away(_)) && nodes.newly_behind(after(60)).is_empty()
        );
        nodes.lost(0, &gone, after(50));
        let ends = after(20) + NO_NODE_PATIENCE;
        assert_eq!(nodes.decide(ends - Duration::from_secs(1)), None);
        assert_eq!((nodes.decide(ends), nodes.in_use()), (Some(1), Some(1)));
        // It comes back, and is lost again.
        nodes.up(0, tip(7, 0), ends);
        assert_eq!(nodes.decide(ends), Some(0));
        nodes.lost(0, &gone, ends);
        assert_eq!(nodes.decide(ends), None);
        nodes.up(1, tip(7, 0), ends);
        assert_eq!(nodes.decide(ends), Some(1), "the other one has caught up");
    }

    #[test]
    fn a_node_that_is_back_with_less_work_is_used_at_once() {
        let (mut nodes, _board) = nodes();
        let (gone, now) = (Trouble::from(RpcError::Unreachable("gone".into())), Instant::now());
        nodes.up(0, tip(7, 0), now);
        assert_eq!(nodes.decide(now), Some(0));
        nodes.lost(0, &gone, now);
        nodes.up(1, tip(5, 0), now);
        assert_eq!((nodes.decide(now), nodes.in_use()), (None, None), "another one is no replacement");
        nodes.up(0, tip(6, 1), now);
        assert_eq!(nodes.decide(now), Some(0));
    }
}
