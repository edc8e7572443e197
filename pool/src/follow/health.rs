//! State of the nodes, for people: which answer, which are behind, which is in use.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use iop_mining::rpc::Node;
use serde::Serialize;
use tracing::{info, warn};

use super::announced::Announced;
use super::tips::{ChainTip, ChainWork, Place};

/// How often it is logged again that a node is away or behind.
const REMIND: Duration = Duration::from_secs(5 * 60);
/// How long another node must have had more work before a node counts as behind. Blocks take a second or two from node
/// to node.
const LAG_TIME: Duration = Duration::from_secs(5);

/// State of a node, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NodeState {
    /// `host:port`.
    pub node: String,
    /// Whether templates come from it.
    pub in_use: bool,
    /// Height of its tip; `None` while it does not answer.
    pub height: Option<u32>,
    /// Hash of its tip, as printed.
    pub tip: Option<String>,
    /// Blocks that the best node is ahead.
    pub lag: Option<u32>,
    /// Milliseconds its last answer took.
    pub answer_ms: Option<u32>,
    /// The problem with it, if any.
    pub trouble: Option<String>,
}

#[derive(Debug, Default)]
struct Known {
    name: String,
    tip: Option<ChainTip>,
    answer: Option<Duration>,
    /// Why it gives no work.
    down: Option<String>,
    /// Since when another node has had more work.
    behind_since: Option<Instant>,
    /// A description of how it is behind, once that has lasted.
    behind: Option<String>,
    /// When its trouble was last logged.
    said: Option<Instant>,
}

#[derive(Debug)]
struct Inner {
    nodes: Vec<Known>,
    in_use: Option<usize>,
    /// The node that is missed, with the work of its chain, while nodes with less work are not used.
    missed: Option<(usize, ChainWork)>,
    announced: Vec<Option<Announced>>,
    /// For each license, the action last logged.
    said: Vec<Option<Announced>>,
}

/// State of all nodes.
#[derive(Debug)]
pub struct Health(Mutex<Inner>);

impl Health {
    /// Creates it with nothing known yet.
    #[must_use]
    pub fn new(nodes: &[Node]) -> Self {
        let unknown = |node: &Node| Known { name: node.name().to_owned(), ..Known::default() };
        let nodes = nodes.iter().map(unknown).collect();
        Self(Mutex::new(Inner { nodes, in_use: None, missed: None, announced: Vec::new(), said: Vec::new() }))
    }

    /// The current state.
    #[must_use]
    pub fn read(&self) -> Vec<NodeState> {
        let inner = self.inner();
        let best = inner.best();
        let state = |(index, node): (usize, &Known)| NodeState {
            node: node.name.clone(),
            in_use: inner.in_use == Some(index),
            height: node.tip.map(|tip| tip.height),
            tip: node.tip.map(|tip| tip.hash.to_string()),
            lag: node.tip.zip(best).map(|(tip, (_, best))| best.height.saturating_sub(tip.height)),
            answer_ms: node.answer.map(|answer| u32::try_from(answer.as_millis()).unwrap_or(u32::MAX)),
            trouble: node.down.clone().or_else(|| inner.lacking(node)).or_else(|| node.behind.clone()),
        };
        inner.nodes.iter().enumerate().map(state).collect()
    }

    /// Effects of the template's admin actions, in the order of the licenses; empty before the first template.
    #[must_use]
    pub fn announced(&self) -> Vec<Option<Announced>> {
        self.inner().announced.clone()
    }

    /// Stores the effects of admin actions and logs new ones. The first template on a tip has no transactions, so a
    /// waiting action disappears for a moment: that does not make it new. Returns the number of new ones.
    pub(super) fn announce(&self, announced: Vec<Option<Announced>>) -> usize {
        let mut inner = self.inner();
        inner.said.resize(announced.len(), None);
        let mut new = 0;
        for (found, said) in announced.iter().zip(&mut inner.said) {
            if let Some(action) = found
                && said != found
            {
                warn!(txid = action.txid, "an admin action waits for a block: {action}");
                said.clone_from(found);
                new += 1;
            }
        }
        inner.announced = announced;
        new
    }

    /// Sets the node that templates come from, if any.
    pub(super) fn set_in_use(&self, index: Option<usize>) {
        self.inner().in_use = index;
    }

    /// Sets the node that is missed, if any, with its work: nodes with less are not used.
    pub(super) fn set_missed(&self, missed: Option<(usize, ChainWork)>) {
        self.inner().missed = missed;
    }

    /// A node gave work on this tip.
    pub(super) fn up(&self, index: usize, tip: ChainTip) {
        let mut inner = self.inner();
        let node = &mut inner.nodes[index];
        if node.tip.is_none() {
            let words = if node.down.is_some() { "node is back" } else { "node answers" };
            info!(node = node.name, height = tip.height, "{words}");
            node.said = None;
        }
        (node.tip, node.down) = (Some(tip), None);
        inner.compare(Instant::now());
    }

    /// A node answered with its tip in `answer` time. Counts only if it gives work.
    pub(super) fn beat(&self, index: usize, tip: ChainTip, answer: Duration) {
        let mut inner = self.inner();
        let node = &mut inner.nodes[index];
        node.answer = Some(answer);
        if node.tip.is_some() {
            node.tip = Some(tip);
        }
        inner.compare(Instant::now());
    }

    /// The node that has been ahead of this one for long, and this one's tip.
    pub(super) fn ahead_of(&self, index: usize) -> Option<(usize, ChainTip)> {
        let inner = self.inner();
        let node = &inner.nodes[index];
        let lasts = node.behind_since.is_some_and(|since| since.elapsed() >= LAG_TIME);
        let (best, _) = inner.best().filter(|_| lasts)?;
        Some((best, node.tip?))
    }

    /// A node has long been behind `ahead`; `place` is the place of its tip in the other's chain.
    pub(super) fn behind(&self, index: usize, ahead: usize, place: Place) {
        let mut inner = self.inner();
        let (Some(tip), Some(best)) = (inner.nodes[index].tip, inner.nodes[ahead].tip) else { return };
        let (other, lag) = (inner.nodes[ahead].name.clone(), best.height.saturating_sub(tip.height));
        let words = match place {
            Place::Active => format!("lags {lag} blocks behind {other}"),
            Place::Side => format!("on another branch than {other}, which has more work"),
            Place::Unknown => {
                format!("on a branch that {other} does not know; its own has more work and {lag} more blocks")
            }
        };
        let node = &mut inner.nodes[index];
        if node.behind.is_none() || node.said.is_none_or(|said| said.elapsed() > REMIND) {
            warn!(node = node.name, height = tip.height, "node is left until it is right: {words}");
            node.said = Some(Instant::now());
        }
        node.behind = Some(words);
    }

    /// A node gives no work.
    pub(super) fn down(&self, index: usize, trouble: &str) {
        let mut inner = self.inner();
        if inner.in_use == Some(index) {
            inner.in_use = None;
        }
        let node = &mut inner.nodes[index];
        if node.down.is_none() && node.tip.is_some() || node.said.is_none_or(|said| said.elapsed() > REMIND) {
            warn!(node = node.name, "node gives no work, waiting for it: {trouble}");
            node.said = Some(Instant::now());
        }
        let (name, said) = (std::mem::take(&mut node.name), node.said);
        *node = Known { name, said, down: Some(trouble.to_owned()), ..Known::default() };
        inner.compare(Instant::now());
    }

    fn inner(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.0.lock().expect("no panic while the lock is held")
    }
}

impl Inner {
    /// Why a node that gives work is not used while another one is missed.
    fn lacking(&self, node: &Known) -> Option<String> {
        let (missed, least) = self.missed?;
        let lacks = node.tip.is_some_and(|tip| tip.work < least);
        lacks.then(|| format!("has less work than {} had", self.nodes[missed].name))
    }

    /// The node whose chain has most work.
    fn best(&self) -> Option<(usize, ChainTip)> {
        let tips = self.nodes.iter().enumerate().filter_map(|(index, node)| Some((index, node.tip?)));
        tips.max_by_key(|(index, tip)| (tip.work, std::cmp::Reverse(*index)))
    }

    /// Updates since when each node has been behind.
    fn compare(&mut self, now: Instant) {
        let Some((_, best)) = self.best() else { return };
        for node in &mut self.nodes {
            if node.tip.is_some_and(|tip| tip.work < best.work) {
                node.behind_since.get_or_insert(now);
                continue;
            }
            node.behind_since = None;
            if node.behind.take().is_some() {
                info!(node = node.name, "node has caught up");
                node.said = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use iop_mining::rpc::{NodeAddress, RpcError};
    use iop_mining::sample::tip;

    use super::*;

    fn health() -> Health {
        let node = |port| Node::new(NodeAddress::parse(&format!("http://u:p@h:{port}"), None, 1).unwrap());
        Health::new(&[node(1), node(2)])
    }

    /// Pretends that this much time has passed.
    fn age(health: &Health, index: usize, by: Duration) {
        let since = &mut health.inner().nodes[index].behind_since;
        *since = since.map(|since| since.checked_sub(by).unwrap());
    }

    #[test]
    fn a_node_is_behind_only_when_another_has_had_more_work_for_long() {
        let health = health();
        health.up(0, tip(5, 0));
        health.up(1, tip(7, 0));
        assert_eq!(health.ahead_of(0), None, "it may follow any moment");
        assert_eq!(health.read()[0].lag, Some(2), "but the lag is shown at once");
        age(&health, 0, LAG_TIME);
        assert_eq!(health.ahead_of(0), Some((1, tip(5, 0))));
        assert_eq!(health.ahead_of(1), None);
        health.behind(0, 1, Place::Active);
        assert_eq!(health.read()[0].trouble.as_deref(), Some("lags 2 blocks behind h:2"));
        health.behind(0, 1, Place::Side);
        assert!(health.read()[0].trouble.as_deref().unwrap().starts_with("on another branch than h:2"));
        health.beat(0, tip(7, 1), Duration::from_millis(3));
        let state = &health.read()[0];
        assert_eq!((&state.trouble, state.lag, state.answer_ms), (&None, Some(0), Some(3)), "it caught up");
        assert_eq!(health.ahead_of(0), None);
    }

    #[test]
    fn an_action_is_said_once_though_empty_templates_come_between() {
        use super::super::announced::Action;
        let health = health();
        let action = |action| vec![None, Some(Announced { action, txid: "7".into(), license: "a".into() })];
        assert_eq!(health.announce(action(Action::Remove)), 1);
        assert_eq!(health.announce(vec![None, None]), 0);
        assert_eq!(health.announced(), [None, None]);
        assert_eq!(health.announce(action(Action::Remove)), 0);
        assert_eq!(health.announced(), action(Action::Remove));
        assert_eq!(health.announce(action(Action::Add)), 1);
    }

    #[test]
    fn a_node_that_is_down_counts_for_nothing() {
        let health = health();
        health.up(0, tip(5, 0));
        health.up(1, tip(7, 0));
        health.set_in_use(Some(1));
        health.down(1, &RpcError::Unauthorized.to_string());
        let states = health.read();
        assert_eq!((states[0].lag, states[1].lag, states[1].height), (Some(0), None, None));
        assert!(!states[1].in_use && states[1].trouble.as_deref().unwrap().contains("401"));
        health.beat(1, tip(9, 0), Duration::ZERO);
        assert_eq!(health.read()[1].height, None, "an answer about its tip alone is no work");
        health.up(1, tip(9, 0));
        assert_eq!((health.read()[1].height, health.read()[0].lag), (Some(9), Some(4)));
    }
}
