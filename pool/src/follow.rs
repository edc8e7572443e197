//! Follows the chain: template, license, job, whenever the tip changes or transactions have come in.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bitcoin::BlockHash;
use iop_consensus::address::Address;
use iop_consensus::license::key::LicenseKey;
use iop_consensus::params::Params;
use serde::Serialize;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{debug, error, info, warn};

use crate::choice::{NoLicense, choose};
use crate::job::{Job, Tip};
use crate::ledger::store::BlockId;
use crate::payouts::Payouts;
use crate::rpc::{Node, RpcError};
use crate::template::{self, ChainError, ChainIdentity, LicenseInfo, Template, check_chain};

/// How often the template is asked for on an unchanged tip, for the fees of new transactions.
const REFRESH: Duration = Duration::from_secs(30);
/// How often a node without long poll is asked; also the least time between two jobs on one tip, so that a node
/// whose long poll does not wait cannot make us spin.
const POLL: Duration = Duration::from_secs(1);
/// Wait before a node, or the next one, is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// How often it is said again that a node is away.
const REMIND: Duration = Duration::from_secs(5 * 60);
/// Time for all nodes to say at the start which chain they are on. One that takes longer counts as away.
const START_TIME: Duration = Duration::from_secs(5);
/// Time without work from any node after which the last job is taken for dead. Long enough for a node to restart
/// (Core takes minutes with a large chain), short enough that machines hash a few blocks' time in vain at most.
const NO_NODE_PATIENCE: Duration = Duration::from_secs(5 * 60);
/// How often template and licenses are asked for until both are of one tip. Tips are seconds apart at least.
const MAX_TIP_RACES: u32 = 10;

/// What there is to do.
#[derive(Debug, Clone)]
pub enum Work {
    /// No node has given a template yet.
    Waiting,
    /// No node has given one for five minutes. Sessions that hold a job are closed.
    NoNode,
    /// No license may mine the next block. Sessions that hold a job are closed: Stratum has no word for "stop".
    NoLicense(NoLicense),
    /// The ledger cannot be read. Sessions that hold a job are closed.
    NoLedger(String),
    /// A job.
    Job(Arc<Job>),
}

/// What the follower last learned.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// What there is to do.
    pub work: Work,
    /// The licenses, in the order of the configuration; empty before the first answer.
    pub licenses: Vec<LicenseInfo>,
}

/// State of a node, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NodeState {
    /// `host:port`.
    pub node: String,
    /// Whether templates come from it.
    pub in_use: bool,
    /// What was wrong when it was last asked.
    pub trouble: Option<String>,
}

/// What is known of the nodes.
#[derive(Debug)]
pub struct Health {
    nodes: Mutex<Vec<(NodeState, Option<Instant>)>>,
}

impl Health {
    /// Nothing known yet.
    #[must_use]
    pub fn new(nodes: &[Node]) -> Self {
        let unknown =
            |node: &Node| (NodeState { node: node.name().to_owned(), in_use: false, trouble: None }, None);
        Self { nodes: Mutex::new(nodes.iter().map(unknown).collect()) }
    }

    /// As of now.
    #[must_use]
    pub fn read(&self) -> Vec<NodeState> {
        self.nodes
            .lock()
            .expect("no panic while the lock is held")
            .iter()
            .map(|(state, _)| state.clone())
            .collect()
    }

    fn up(&self, index: usize) {
        let (state, said) = &mut self.nodes.lock().expect("no panic while the lock is held")[index];
        info!(node = state.node, "{}", if state.trouble.is_some() { "node is back" } else { "node answers" });
        (state.in_use, state.trouble, *said) = (true, None, None);
    }

    fn down(&self, index: usize, trouble: &ChainError) {
        let (state, said) = &mut self.nodes.lock().expect("no panic while the lock is held")[index];
        if said.is_none_or(|said| said.elapsed() > REMIND) {
            warn!(node = state.node, "node gives no work, waiting for it: {trouble}");
            *said = Some(Instant::now());
        }
        (state.in_use, state.trouble) = (false, Some(trouble.to_string()));
    }
}

/// Why the pool cannot start.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("node {node} is on chain {found}, {expected} expected")]
pub struct WrongChain {
    /// `host:port`.
    pub node: String,
    /// Its chain.
    pub found: ChainIdentity,
    /// The configured network's.
    pub expected: ChainIdentity,
}

/// The task that makes jobs.
pub struct Follower {
    params: Params,
    nodes: Arc<[Node]>,
    keys: Vec<Arc<LicenseKey>>,
    addresses: Vec<Address>,
    payouts: Payouts,
    health: Arc<Health>,
    parent: Option<BlockHash>,
    tip: Arc<Tip>,
    /// When a node last gave work.
    last_work: Instant,
    publish: watch::Sender<Arc<Snapshot>>,
}

impl Follower {
    /// A follower and where it publishes.
    #[must_use]
    pub fn new(
        params: Params,
        nodes: Arc<[Node]>,
        keys: Vec<LicenseKey>,
        payouts: Payouts,
        health: Arc<Health>,
    ) -> (Self, watch::Receiver<Arc<Snapshot>>) {
        let nothing = Snapshot { work: Work::Waiting, licenses: Vec::new() };
        let (publish, snapshots) = watch::channel(Arc::new(nothing));
        let addresses = keys.iter().map(LicenseKey::address).collect();
        let follower = Self {
            params,
            nodes,
            keys: keys.into_iter().map(Arc::new).collect(),
            addresses,
            payouts,
            health,
            parent: None,
            tip: Arc::default(),
            last_work: Instant::now(),
            publish,
        };
        (follower, snapshots)
    }

    /// Runs for ever, unless a node answers at the start that it is on another chain: that is a mistake in the
    /// configuration, and better said at once. Later it is trouble of that node only.
    pub async fn run(mut self) -> WrongChain {
        if let Some(wrong) = self.first_check().await {
            return wrong;
        }
        let nodes = Arc::clone(&self.nodes);
        loop {
            for (index, node) in nodes.iter().enumerate() {
                let Err(trouble) = self.follow(index, node).await;
                node.set_right(false);
                self.health.down(index, &trouble);
                self.give_up(Instant::now());
                tokio::time::sleep(RETRY).await;
            }
        }
    }

    /// Asks all nodes at once.
    async fn first_check(&self) -> Option<WrongChain> {
        let expected = ChainIdentity::of(&self.params);
        let mut checks = JoinSet::new();
        for index in 0..self.nodes.len() {
            let (nodes, expected) = (Arc::clone(&self.nodes), expected.clone());
            checks.spawn(async move {
                let checked = tokio::time::timeout(START_TIME, check_chain(&nodes[index], &expected)).await;
                match checked {
                    Ok(Err(ChainError::Wrong { found, expected })) => {
                        Some(WrongChain { node: nodes[index].name().to_owned(), found, expected })
                    }
                    _ => None,
                }
            });
        }
        while let Some(checked) = checks.join_next().await {
            if let Ok(Some(wrong)) = checked {
                return Some(wrong);
            }
        }
        None
    }

    /// One node, as long as it answers.
    async fn follow(&mut self, index: usize, node: &Node) -> Result<Infallible, ChainError> {
        check_chain(node, &ChainIdentity::of(&self.params)).await?;
        node.set_right(true);
        let mut template = template::template(node, None).await?;
        let mut known_up = false;
        loop {
            let (id, begun) = (template.long_poll_id.clone(), Instant::now());
            self.publish(node, template).await?;
            if !std::mem::replace(&mut known_up, true) {
                self.health.up(index);
            }
            template = next_template(node, id.as_deref()).await?;
            if Some(template.parent) == self.parent {
                tokio::time::sleep(POLL.saturating_sub(begun.elapsed())).await;
            }
        }
    }

    /// Takes the last job back when no node has given work for long: the chain has gone on without us, and every
    /// hash on that job is lost.
    fn give_up(&mut self, now: Instant) {
        let since = now.saturating_duration_since(self.last_work);
        let has_job = matches!(self.publish.borrow().work, Work::Job(_));
        if since < NO_NODE_PATIENCE || !has_job {
            return;
        }
        warn!("no node has given work for {} s: sessions that hold a job are closed", since.as_secs());
        self.parent = None;
        let licenses = self.publish.borrow().licenses.clone();
        self.publish.send_replace(Arc::new(Snapshot { work: Work::NoNode, licenses }));
        std::mem::take(&mut self.tip).retire();
    }

    /// Makes the job of a template, or says that there is none.
    async fn publish(&mut self, node: &Node, mut template: Template) -> Result<(), RpcError> {
        let mut races = 0;
        let (licenses, base) = loop {
            let base = self.payouts.base(node, &template).await?;
            let licenses = template::licenses(node, &self.addresses, &self.params).await?;
            if licenses.tip.is_none_or(|tip| tip == template.parent) {
                break (licenses.infos, base);
            }
            races += 1;
            if races > MAX_TIP_RACES {
                return Err(RpcError::Malformed(
                    "getlicenseinfo and getblocktemplate are of different tips".into(),
                ));
            }
            template = template::template(node, None).await?;
        };
        self.take(template, licenses, base);
        Ok(())
    }

    /// Publishes what a template and the licenses of its tip make.
    fn take(&mut self, template: Template, licenses: Vec<LicenseInfo>, base: Option<BlockId>) {
        self.last_work = Instant::now();
        let new_tip = self.parent.replace(template.parent) != Some(template.parent);
        let mut old_tip = new_tip.then(|| std::mem::take(&mut self.tip));
        let work = self.work(template, &licenses, base, new_tip);
        if old_tip.is_none() && !matches!(work, Work::Job(_)) {
            // Without a new tip the licenses have changed all the same; no job on this one may make a block.
            old_tip = Some(std::mem::take(&mut self.tip));
        }
        self.publish.send_replace(Arc::new(Snapshot { work, licenses }));
        if let Some(old_tip) = old_tip {
            old_tip.retire();
        }
    }

    fn work(
        &self,
        template: Template,
        licenses: &[LicenseInfo],
        base: Option<BlockId>,
        new_tip: bool,
    ) -> Work {
        let index = match choose(licenses, template.license_required, template.height) {
            Ok(index) => index,
            Err(none) => {
                if new_tip {
                    warn!("no work is given out, sessions that hold a job are closed: {none}");
                }
                return Work::NoLicense(none);
            }
        };
        let (height, transactions, license) =
            (template.height, template.txids.len(), &licenses[index].address);
        if new_tip {
            info!(height, license, transactions, "new tip, new job");
        } else {
            debug!(height, license, transactions, "new job on the same tip");
        }
        match self.payouts.job(template, base, &self.keys[index], Arc::clone(&self.tip)) {
            Ok(job) => Work::Job(Arc::new(job)),
            Err(trouble) => {
                error!("no work is given out: {trouble}");
                Work::NoLedger(trouble.to_string())
            }
        }
    }
}

/// The next template: when the long poll answers, or after a while on the same tip.
async fn next_template(node: &Node, long_poll_id: Option<&str>) -> Result<Template, RpcError> {
    let Some(id) = long_poll_id else {
        tokio::time::sleep(POLL).await;
        return template::template(node, None).await;
    };
    tokio::select! {
        template = template::template(node, Some(id)) => template,
        () = tokio::time::sleep(REFRESH) => template::template(node, None).await,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::coinbase::tests::{key, template};

    fn follower() -> (Follower, watch::Receiver<Arc<Snapshot>>) {
        let nodes: Arc<[Node]> = Arc::from([]);
        let health = Arc::new(Health::new(&nodes));
        let payouts = Payouts::new(crate::ledger::tests::temporary(), None);
        Follower::new(Params::devnet(), nodes, vec![key(true)], payouts, health)
    }

    fn license(follower: &Follower, eligible_next: bool) -> LicenseInfo {
        LicenseInfo {
            address: follower.addresses[0].to_base58(&follower.params.prefixes),
            whitelisted: true,
            admin: false,
            blocks_in_window: 0,
            cap: None,
            remaining: None,
            last_block: None,
            eligible_next,
            eligible_from_height: None,
        }
    }

    fn with_job() -> (Follower, watch::Receiver<Arc<Snapshot>>, Arc<Job>) {
        let (mut follower, snapshots) = follower();
        let licenses = vec![license(&follower, true)];
        follower.take(template(3), licenses, None);
        let Work::Job(job) = snapshots.borrow().work.clone() else { panic!("a job") };
        (follower, snapshots, job)
    }

    #[test]
    fn the_last_job_is_taken_back_when_no_node_has_given_work_for_long() {
        let (mut follower, snapshots, job) = with_job();
        let last = follower.last_work;
        follower.give_up(last + NO_NODE_PATIENCE - Duration::from_secs(1));
        assert!(matches!(snapshots.borrow().work, Work::Job(_)) && !job.tip.is_retired());
        follower.give_up(last + NO_NODE_PATIENCE);
        assert!(matches!(snapshots.borrow().work, Work::NoNode) && job.tip.is_retired());
        // The node comes back on the same tip.
        let licenses = vec![license(&follower, true)];
        follower.take(template(3), licenses, None);
        let Work::Job(job) = snapshots.borrow().work.clone() else { panic!("a job") };
        assert!(!job.tip.is_retired());
    }

    #[test]
    fn before_the_first_template_there_is_nothing_to_take_back() {
        let (mut follower, snapshots) = follower();
        follower.give_up(follower.last_work + NO_NODE_PATIENCE * 2);
        assert!(matches!(snapshots.borrow().work, Work::Waiting));
    }

    #[test]
    fn without_a_license_all_jobs_are_dead_also_those_on_the_same_tip() {
        let (mut follower, snapshots, job) = with_job();
        let licenses = vec![license(&follower, false)];
        follower.take(template(3), licenses, None);
        assert!(matches!(snapshots.borrow().work, Work::NoLicense(_)) && job.tip.is_retired());
        let licenses = vec![license(&follower, true)];
        follower.take(template(3), licenses, None);
        let Work::Job(job) = snapshots.borrow().work.clone() else { panic!("a job") };
        assert!(!job.tip.is_retired(), "and work resumes");
    }
}
