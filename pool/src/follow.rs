//! Follows the chain: template, license, job, whenever the tip changes or transactions have come in.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bitcoin::BlockHash;
use iop_consensus::address::Address;
use iop_consensus::license::key::LicenseKey;
use iop_consensus::params::Params;
use serde::Serialize;
use tokio::sync::watch;
use tracing::{debug, info, warn};

use crate::choice::{NoLicense, choose};
use crate::job::{Job, JobNumbers, Tip};
use crate::rpc::{Node, RpcError};
use crate::template::{self, LicenseInfo, Template};

/// How often the template is asked for on an unchanged tip, for the fees of new transactions.
const REFRESH: Duration = Duration::from_secs(30);
/// How often a node without long poll is asked; also the least time between two jobs on one tip, so that a node
/// whose long poll does not wait cannot make us spin.
const POLL: Duration = Duration::from_secs(1);
/// Wait before a node, or the next one, is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// How often it is said again that a node is away.
const REMIND: Duration = Duration::from_secs(5 * 60);
/// How often template and licenses are asked for until both are of one tip. Tips are seconds apart at least.
const MAX_TIP_RACES: u32 = 10;

/// What there is to do.
#[derive(Debug, Clone)]
pub enum Work {
    /// No node has given a template yet.
    Waiting,
    /// No license may mine the next block. Sessions are sent nothing: the jobs they have are stale with their tip.
    NoLicense(NoLicense),
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

    fn down(&self, index: usize, trouble: &RpcError) {
        let (state, said) = &mut self.nodes.lock().expect("no panic while the lock is held")[index];
        if said.is_none_or(|said| said.elapsed() > REMIND) {
            warn!(node = state.node, "node gives no work, waiting for it: {trouble}");
            *said = Some(Instant::now());
        }
        (state.in_use, state.trouble) = (false, Some(trouble.to_string()));
    }
}

/// Why the pool cannot go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("node {node} is on chain '{found}', '{expected}' expected")]
pub struct WrongChain {
    /// `host:port`.
    pub node: String,
    /// Its chain.
    pub found: String,
    /// The configured network.
    pub expected: String,
}

enum Stop {
    Trouble(RpcError),
    WrongChain(WrongChain),
}

impl From<RpcError> for Stop {
    fn from(trouble: RpcError) -> Self {
        Self::Trouble(trouble)
    }
}

/// The task that makes jobs.
pub struct Follower {
    params: Params,
    nodes: Arc<[Node]>,
    keys: Vec<LicenseKey>,
    addresses: Vec<Address>,
    payout: Option<Address>,
    health: Arc<Health>,
    numbers: JobNumbers,
    parent: Option<BlockHash>,
    tip: Arc<Tip>,
    publish: watch::Sender<Arc<Snapshot>>,
}

impl Follower {
    /// A follower and where it publishes.
    #[must_use]
    pub fn new(
        params: Params,
        nodes: Arc<[Node]>,
        keys: Vec<LicenseKey>,
        payout: Option<Address>,
        health: Arc<Health>,
    ) -> (Self, watch::Receiver<Arc<Snapshot>>) {
        let nothing = Snapshot { work: Work::Waiting, licenses: Vec::new() };
        let (publish, snapshots) = watch::channel(Arc::new(nothing));
        let addresses = keys.iter().map(LicenseKey::address).collect();
        let (numbers, parent, tip) = (JobNumbers::new(), None, Arc::default());
        (Self { params, nodes, keys, addresses, payout, health, numbers, parent, tip, publish }, snapshots)
    }

    /// Runs until a node turns out to be on another chain.
    pub async fn run(mut self) -> WrongChain {
        let nodes = Arc::clone(&self.nodes);
        loop {
            for (index, node) in nodes.iter().enumerate() {
                match self.follow(index, node).await {
                    Stop::Trouble(trouble) => self.health.down(index, &trouble),
                    Stop::WrongChain(wrong) => return wrong,
                }
                tokio::time::sleep(RETRY).await;
            }
        }
    }

    /// One node, as long as it answers.
    async fn follow(&mut self, index: usize, node: &Node) -> Stop {
        match self.follow_inner(index, node).await {
            Ok(never) => match never {},
            Err(stop) => stop,
        }
    }

    async fn follow_inner(&mut self, index: usize, node: &Node) -> Result<std::convert::Infallible, Stop> {
        check_chain(node, &self.params).await?;
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

    /// Makes the job of a template, or says that there is none.
    async fn publish(&mut self, node: &Node, mut template: Template) -> Result<(), RpcError> {
        let mut races = 0;
        let licenses = loop {
            let licenses = template::licenses(node, &self.addresses, &self.params).await?;
            if licenses.tip.is_none_or(|tip| tip == template.parent) {
                break licenses.infos;
            }
            races += 1;
            if races > MAX_TIP_RACES {
                return Err(RpcError::Malformed(
                    "getlicenseinfo and getblocktemplate are of different tips".into(),
                ));
            }
            template = template::template(node, None).await?;
        };
        let new_tip = self.parent != Some(template.parent);
        let old_tip = new_tip.then(|| {
            self.parent = Some(template.parent);
            std::mem::take(&mut self.tip)
        });
        let work = self.work(template, &licenses, new_tip);
        self.publish.send_replace(Arc::new(Snapshot { work, licenses }));
        if let Some(old_tip) = old_tip {
            old_tip.retire();
        }
        Ok(())
    }

    fn work(&self, template: Template, licenses: &[LicenseInfo], new_tip: bool) -> Work {
        let index = match choose(licenses, template.license_required, template.height) {
            Ok(index) => index,
            Err(none) => {
                if new_tip {
                    warn!("no work is given out: {none}");
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
        let payout = self.payout.unwrap_or(self.addresses[index]);
        Work::Job(Arc::new(Job::new(
            self.numbers.next(),
            template,
            &self.keys[index],
            &payout,
            Arc::clone(&self.tip),
        )))
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

/// Whether a node is on the configured chain.
async fn check_chain(node: &Node, params: &Params) -> Result<(), Stop> {
    let found = template::chain(node).await?;
    if found == params.name {
        return Ok(());
    }
    Err(Stop::WrongChain(WrongChain { node: node.name().to_owned(), found, expected: params.name.clone() }))
}
