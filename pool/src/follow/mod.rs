//! Follows the chain on all nodes and makes jobs: template, license, job, on each new tip and for new transactions.
//!
//! Here: each node's task (`source`), the choice of the chain to work on ([`tips`]), the state of nodes for people
//! ([`health`]), pending admin actions ([`announced`]), work deferred until miners are told ([`telling`]), and the
//! jobs. Not here: which license signs ([`iop_mining::choice`]).
//! Path: node → offer (template, licenses and tip that belong together) → if it is from the node in use, or from a
//! chain with more work: job → sessions.

pub mod announced;
pub mod health;
mod source;
pub mod telling;
mod whitelist;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bitcoin::BlockHash;
use iop_consensus::address::Address;
use iop_consensus::license::key::LicenseKey;
use iop_consensus::params::Params;
use iop_mining::choice::{NoLicense, choose};
use iop_mining::clocks::Clocks;
use iop_mining::rpc::{CALL_TIME, Node};
use iop_mining::source::Wishes;
use iop_mining::template::{ChainError, ChainIdentity, LicenseInfo, Template, check_chain};
pub use iop_mining::tips;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tracing::{debug, error, info, warn};

pub use self::health::{Health, NodeState};
use self::source::{Event, Offer, Source};
use self::telling::{Begun, Telling};
use self::tips::{ChainTip, Missed, NO_NODE_PATIENCE};
use crate::clock;
use crate::job::{Job, Tip};
use crate::ledger::store::BlockId;
use crate::payouts::Payouts;

/// Time for all nodes to report their chain at the start. One that takes longer counts as away.
const START_TIME: Duration = Duration::from_secs(5);
/// How often to check whether any node still gives work.
const TICK: Duration = Duration::from_secs(1);

/// The current work.
#[derive(Debug, Clone)]
pub enum Work {
    /// No node has given a template yet.
    Waiting,
    /// No node has given a template for five minutes. Sessions that hold a job are closed.
    NoNode,
    /// No license may mine the next block. Sessions that hold a job are closed: Stratum has no word for "stop".
    NoLicense(NoLicense),
    /// The ledger cannot be read or written. Sessions that hold a job are closed.
    NoLedger(String),
    /// A job.
    Job(Arc<Job>),
}

/// The latest state of the follower.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// The current work.
    pub work: Work,
    /// The licenses, in the order of the configuration; empty before the first answer.
    pub licenses: Vec<LicenseInfo>,
}

/// Error: a node is on another chain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("node {node} is on chain {found}, {expected} expected")]
pub struct WrongChain {
    /// `host:port`.
    pub node: String,
    /// The node's chain.
    pub found: ChainIdentity,
    /// The configured network's.
    pub expected: ChainIdentity,
}

/// The task that makes jobs.
pub struct Follower {
    params: Arc<Params>,
    nodes: Arc<[Node]>,
    keys: Vec<Arc<LicenseKey>>,
    addresses: Arc<[Address]>,
    payouts: Arc<Payouts>,
    health: Arc<Health>,
    wishes: Arc<Wishes>,
    telling: Telling,
    /// The tip of each node that gives work, and when it last did.
    tips: Vec<Option<(ChainTip, Instant)>>,
    missed: Missed,
    /// What jobs build on: the parent, and the nearest pool block.
    standing: Option<(BlockHash, Option<BlockId>)>,
    tip: Arc<Tip>,
    /// The licenses as the log last told of them: none while the chain requires none.
    told: Vec<LicenseInfo>,
    clocks: Clocks,
    /// When a node last gave work.
    last_work: Instant,
    publish: watch::Sender<Arc<Snapshot>>,
}

impl Follower {
    /// Creates a follower and the channel it publishes on.
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
            params: Arc::new(params),
            wishes: Arc::new(Wishes::new(nodes.len())),
            telling: Telling::default(),
            tips: vec![None; nodes.len()],
            missed: Missed::default(),
            nodes,
            keys: keys.into_iter().map(Arc::new).collect(),
            addresses,
            payouts: Arc::new(payouts),
            health,
            standing: None,
            tip: Arc::default(),
            told: Vec::new(),
            clocks: Clocks::default(),
            last_work: Instant::now(),
            publish,
        };
        (follower, snapshots)
    }

    /// The handle for reporting that miners have been told of a job.
    #[must_use]
    pub fn telling(&self) -> Telling {
        self.telling.clone()
    }

    /// Runs for ever, unless a node reports another chain at the start: that is a mistake in the configuration, best
    /// reported at once. Later it only makes that node unusable.
    pub async fn run(mut self) -> WrongChain {
        if let Some(wrong) = self.first_check().await {
            return wrong;
        }
        let (sender, mut events) = mpsc::channel(self.nodes.len() * 2);
        let mut sources = JoinSet::new(); // they end with this task
        for index in 0..self.nodes.len() {
            sources.spawn(self.source(index, sender.clone()).run());
        }
        let (mut tick, mut refusal) = (tokio::time::interval(TICK), self.payouts.refusal());
        loop {
            tokio::select! {
                Some(event) = events.recv() => {
                    self.on_event(event, Instant::now());
                    self.keep_jobs();
                }
                Ok(()) = refusal.changed() => self.on_refusal(refusal.borrow_and_update().clone()),
                _ = tick.tick() => self.tick(Instant::now()),
            }
        }
    }

    /// After the job is out, and beside the round: the disk may take its time.
    fn keep_jobs(&self) {
        let payouts = Arc::clone(&self.payouts);
        tokio::task::spawn_blocking(move || payouts.keep_jobs());
    }

    /// The ledger cannot be written, or can again. A block of the last job might be unknown to the next run, which would
    /// pay again what it pays: that job is taken back.
    fn on_refusal(&mut self, refusal: Option<String>) {
        let has_job = matches!(self.publish.borrow().work, Work::Job(_));
        match refusal {
            Some(trouble) if has_job => {
                error!("no work is given out, sessions that hold a job are closed: {trouble}");
                self.take_back(Work::NoLedger(trouble));
            }
            Some(_) => {}
            None => {
                info!("the ledger can be written again");
                self.ask_again();
            }
        }
    }

    /// Asks the node in use for a template.
    fn ask_again(&self) {
        if let Some(index) = self.wishes.in_use() {
            self.wishes.ask(index);
        }
    }

    fn take_back(&mut self, work: Work) {
        self.standing = None;
        let licenses = self.publish.borrow().licenses.clone();
        self.publish.send_replace(Arc::new(Snapshot { work, licenses }));
        std::mem::take(&mut self.tip).retire();
    }

    fn source(&self, index: usize, events: mpsc::Sender<Event>) -> Source {
        Source {
            index,
            nodes: Arc::clone(&self.nodes),
            params: Arc::clone(&self.params),
            licenses: Arc::clone(&self.addresses),
            payouts: Arc::clone(&self.payouts),
            health: Arc::clone(&self.health),
            wishes: Arc::clone(&self.wishes),
            telling: self.telling.clone(),
            events,
            parent: Mutex::default(),
        }
    }

    /// Handles an offer from the node in use, or from one whose chain has more work, which is then used from now on.
    fn on_event(&mut self, event: Event, now: Instant) {
        let (index, offer) = match event {
            Event::Offer(index, offer) => (index, Some(offer)),
            Event::Lost(index) => (index, None),
        };
        let before = std::mem::replace(&mut self.tips[index], offer.as_ref().map(|offer| (offer.tip, now)));
        match (&offer, before) {
            (Some(_), _) => self.missed.back(index),
            (None, Some((tip, offered))) => self.missed.lost(index, tip.work, offered, now),
            (None, None) => {}
        }
        let changed = self.decide(now);
        match offer {
            Some(offer) if self.wishes.in_use() == Some(index) => {
                let Offer { template, licenses, base, tip: _, begun } = *offer;
                self.take(template, licenses, base, begun.as_ref());
            }
            _ => changed.into_iter().for_each(|index| self.wishes.ask(index)),
        }
    }

    /// Re-evaluates which node to use: one that fails, or whose chain no longer has most work, is replaced by the best
    /// of the others. While the last job is kept, a node with less work than that job's chain is not used. Returns a
    /// newly chosen node.
    fn decide(&mut self, now: Instant) -> Option<usize> {
        if !matches!(self.publish.borrow().work, Work::Job(_)) {
            self.missed.forget();
        }
        let tips: Vec<Option<ChainTip>> = self.tips.iter().map(|tip| tip.map(|(tip, _)| tip)).collect();
        let in_use = self.wishes.in_use();
        let best = tips::best(&tips, in_use, self.missed.least(now));
        self.health.set_in_use(best);
        self.health.set_missed(self.missed.node(now));
        if best == in_use {
            return None;
        }
        self.wishes.set_in_use(best);
        let name = |index: Option<usize>| index.map_or("none", |index| self.nodes[index].name());
        let (from, to) = (name(in_use), name(best));
        if best.is_some() && in_use.is_some_and(|left| tips[left].is_none()) {
            info!(from, to, "templates come from another node");
        } else {
            debug!(from, to, "templates come from another node");
        }
        if best.is_none() && tips.iter().any(Option::is_some) {
            let minutes = NO_NODE_PATIENCE.as_secs() / 60;
            warn!(
                "the other nodes have less work than {from} had: used when they have caught up, or in {minutes} min"
            );
        }
        best
    }

    /// Checks all nodes concurrently.
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

    /// Handles changes that no event reports.
    fn tick(&mut self, now: Instant) {
        // A node with less work than a missed one had is used once the missed one has been gone too long.
        if self.wishes.in_use().is_none()
            && let Some(index) = self.decide(now)
        {
            self.wishes.ask(index);
            self.give_time(now);
        }
        self.give_up(now);
        if self.payouts.refusal().borrow().is_some() {
            // Tried again: what was not kept, and what a template needs.
            self.keep_jobs();
            self.ask_again();
        }
    }

    /// Withdraws the last job if no node has given work for long: the chain has moved on, and every hash on that job is
    /// wasted. The node in use is asked twice a minute, even on a quiet chain: one that gives nothing for so long is
    /// broken, whatever its state says. Another node gets the time of a call first.
    fn give_up(&mut self, now: Instant) {
        let since = now.saturating_duration_since(self.last_work);
        let has_job = matches!(self.publish.borrow().work, Work::Job(_));
        if since < NO_NODE_PATIENCE || !has_job {
            return;
        }
        if let Some(index) = self.wishes.in_use() {
            warn!(node = self.nodes[index].name(), "no work for {} s: left", since.as_secs());
            self.on_event(Event::Lost(index), now);
            if self.wishes.in_use().is_some() {
                self.give_time(now);
                return;
            }
        }
        warn!("no node has given work for {} s: sessions that hold a job are closed", since.as_secs());
        self.take_back(Work::NoNode);
    }

    /// Gives a node that was just asked for work the time of a call before the last job is withdrawn.
    fn give_time(&mut self, now: Instant) {
        let at_least = now.checked_sub(NO_NODE_PATIENCE - CALL_TIME).unwrap_or(now);
        self.last_work = self.last_work.max(at_least);
    }

    /// Publishes the work that a template and the licenses of its tip allow.
    fn take(
        &mut self,
        template: Template,
        licenses: Vec<LicenseInfo>,
        base: Option<BlockId>,
        begun: Option<&Begun>,
    ) {
        self.last_work = Instant::now();
        // If a pool block becomes known late, jobs made before it pay again what it pays.
        let standing = (template.parent, base);
        let new_tip = self.standing.replace(standing) != Some(standing);
        let mut old_tip = new_tip.then(|| std::mem::take(&mut self.tip));
        if template.license_required {
            whitelist::tell(&self.told, &licenses);
            self.told.clone_from(&licenses);
        }
        let time = template.time;
        let work = self.work(template, &licenses, base, new_tip);
        if old_tip.is_none() && !matches!(work, Work::Job(_)) {
            // The tip is the same but the licenses have changed; no job on this tip may make a block.
            old_tip = Some(std::mem::take(&mut self.tip));
        }
        self.publish.send_modify(|published| {
            *published = Arc::new(Snapshot { work, licenses });
            begun.into_iter().for_each(Begun::tell);
        });
        if let Some(old_tip) = old_tip {
            old_tip.retire();
        }
        self.announce();
        clock::tell(&mut self.clocks, time);
    }

    /// Looks for admin actions in the published job's template; after publishing, so that no miner waits for it.
    fn announce(&self) {
        let Work::Job(job) = self.publish.borrow().work.clone() else { return };
        self.health.announce(announced::announced(&job.template, &self.addresses, &self.params));
    }

    fn work(
        &self,
        template: Template,
        licenses: &[LicenseInfo],
        base: Option<BlockId>,
        new_tip: bool,
    ) -> Work {
        // Also where there is no job: that can last for weeks, in which members look at what they have earned.
        let moved = self.payouts.build_on(base, &template);
        let index = match choose(licenses, template.license_required, template.height) {
            Ok(index) => index,
            Err(none) => {
                self.health.announce(announced::announced(&template, &self.addresses, &self.params));
                if new_tip {
                    warn!("no work is given out, sessions that hold a job are closed: {none}");
                }
                if let Err(trouble) = moved {
                    error!("the books do not follow the chain: {trouble}");
                }
                return Work::NoLicense(none);
            }
        };
        let (height, transactions, license) =
            (template.height, template.txids.len(), &licenses[index].address);
        let refusal = self.payouts.refusal().borrow().clone();
        if new_tip && refusal.is_none() {
            info!(height, license, transactions, "new tip, new job");
        } else {
            debug!(height, license, transactions, "new job on the same tip");
        }
        let key = &self.keys[index];
        match moved.and_then(|standing| self.payouts.job(template, standing, key, Arc::clone(&self.tip))) {
            Ok(job) => refusal.map_or_else(|| Work::Job(Arc::new(job)), Work::NoLedger),
            Err(trouble) => {
                error!("no work is given out: {trouble}");
                Work::NoLedger(trouble.to_string())
            }
        }
    }
}

#[cfg(test)]
mod tests;
