//! The license holder's own nodes: template, license that may mine, signed coinbase, and blocks in return.
//!
//! Here: [`Solo`], the upstream; each node's task (`source`), the choice of the node (`nodes`), the jobs (`work`),
//! found blocks in flight (`delivery`), the end (`ending`). Not here: code that pool
//! and miner share (`iop-mining`). Path: node → offer → license → job → dispatcher → devices → share, which is a block
//! → all nodes.

mod delivery;
mod ending;
mod held;
mod nodes;
mod source;
mod work;

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bitcoin::BlockHash;
use iop_consensus::address::Address;
use iop_consensus::license::key::LicenseKey;
use iop_consensus::params::Params;
use iop_mining::choice::{NoLicense, choose};
use iop_mining::clocks::{Clocks, Words};
use iop_mining::rarely::Rarely;
use iop_mining::rpc::{CALL_TIME, Node, NodeAddress, RpcError};
use iop_mining::source::{BEAT_TIME, REFRESH, Wishes};
use iop_mining::template::{ChainError, ChainIdentity, LicenseInfo};
use iop_mining::tips::{self, NO_NODE_PATIENCE, Place};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{debug, info, warn};

use self::delivery::{Deliveries, Fate, Found, News};
pub use self::ending::Ending;
use self::held::Held;
use self::nodes::Nodes;
use self::source::{Event, Offer, Source, Trouble};
use self::work::{Maker, Prepared};
use super::board::{self, Board, Condition, JobView};
use super::{Desk, Upstream};
use crate::job::Share;
use crate::wall::WallClock;

/// How often to check for work that no event reports.
const TICK: Duration = Duration::from_secs(1);
/// Length of the start: until then, a node on another chain or one that rejects our credentials means wrong settings.
/// Later it only makes that node unusable, unless no node has worked yet.
const START: Duration = Duration::from_secs(60);
/// How long a node that has not worked yet may reject our credentials at the start: it may be about to write its
/// cookie.
const COOKIE_TIME: Duration = Duration::from_secs(3);
/// Most jobs whose finds are still accepted: those of eight minutes on one tip, as many as a gateway knows of each
/// machine.
const MAX_JOBS: usize = 16;

/// Validated settings for mining at nodes.
#[derive(Clone, Debug)]
pub struct NodeSettings {
    /// The chain.
    pub params: Arc<Params>,
    /// Nodes, in order of preference; at least one. Found blocks go to all.
    pub nodes: Vec<NodeAddress>,
    /// At least one license.
    pub licenses: Arc<[LicenseKey]>,
    /// The payout address; the signing license if `None`.
    pub payout: Option<Address>,
    /// Folder for found blocks until they are answered.
    pub datadir: PathBuf,
    /// The longest wait before a block is submitted to a node again.
    pub submit_retry: Duration,
}

/// The upstream of a license holder's own nodes.
#[derive(Debug)]
pub struct Solo {
    params: Arc<Params>,
    nodes: Arc<[Node]>,
    licenses: Arc<[LicenseKey]>,
    addresses: Arc<[Address]>,
    maker: Maker,
    board: Arc<Board>,
    deliveries: Arc<Deliveries>,
    news: mpsc::UnboundedReceiver<News>,
    failed: oneshot::Sender<String>,
}

impl Solo {
    /// Creates the upstream for these nodes. Nothing is sent yet.
    ///
    /// # Errors
    /// The data folder cannot be used.
    pub fn new(settings: NodeSettings) -> io::Result<(Self, Ending)> {
        let NodeSettings { params, nodes, licenses, payout, datadir, submit_retry } = settings;
        let addresses: Arc<[Address]> = licenses.iter().map(LicenseKey::address).collect();
        let user = addresses.first().map_or_else(String::new, |first| first.to_base58(&params.prefixes));
        let board =
            Arc::new(Board::new(nodes.iter().map(|node| (format!("http://{}", node.name()), user.clone()))));
        let nodes: Arc<[Node]> = nodes.into_iter().map(Node::new).collect();
        let (deliveries, news) = deliveries(&nodes, &datadir, &params, &board, submit_retry)?;
        let (failed, failure) = oneshot::channel();
        let ending = Ending { deliveries: Arc::clone(&deliveries), failed: failure };
        let maker = Maker::new(Arc::clone(&licenses), payout, params.prefixes);
        Ok((Self { params, nodes, licenses, addresses, maker, board, deliveries, news, failed }, ending))
    }

    /// The state of these nodes for people.
    #[must_use]
    pub fn board(&self) -> Arc<Board> {
        Arc::clone(&self.board)
    }

    /// The licenses, as addresses.
    #[must_use]
    pub fn license_names(&self) -> Vec<String> {
        self.licenses.iter().map(|key| key.address().to_base58(&self.params.prefixes)).collect()
    }
}

fn deliveries(
    nodes: &Arc<[Node]>,
    datadir: &Path,
    params: &Params,
    board: &Arc<Board>,
    retry: Duration,
) -> io::Result<(Arc<Deliveries>, mpsc::UnboundedReceiver<News>)> {
    let chain = ChainIdentity::of(params);
    Deliveries::new(Arc::clone(nodes), datadir, chain, Arc::clone(board), retry).map_err(|error| {
        io::Error::new(error.kind(), format!("datadir {} cannot be used: {error}", datadir.display()))
    })
}

impl Upstream for Solo {
    async fn run(self, desk: Desk) -> Infallible {
        let Self { params, nodes, addresses, maker, board, deliveries, mut news, failed, licenses: _ } = self;
        let wishes = Arc::new(Wishes::new(nodes.len()));
        let (sender, mut events) = mpsc::channel(nodes.len() * 2);
        let mut sources = JoinSet::new(); // they end with this future
        for index in 0..nodes.len() {
            let source = Source {
                index,
                nodes: Arc::clone(&nodes),
                params: Arc::clone(&params),
                licenses: Arc::clone(&addresses),
                wishes: Arc::clone(&wishes),
                events: sender.clone(),
                parent: Mutex::default(),
            };
            sources.spawn(source.run());
        }
        let Desk { dispatcher, mut shares, board: _ } = desk;
        let (mut people, mut end) = (board::Wishes::new(board.wishes()), deliveries.ending());
        let names = nodes.iter().map(|node| node.name().to_owned());
        let mut held = Held::default();
        deliveries.resume().into_iter().for_each(|parent| held.pending(parent));
        let mut miner = Miner {
            nodes: Nodes::new(names, Arc::clone(&board)),
            chain: ChainIdentity::of(&params).to_string(),
            started: Instant::now(),
            failed: Some(failed),
            last_offer: Instant::now(),
            clients: nodes,
            jobs: VecDeque::new(),
            clocks: Clocks::default(),
            tip: None,
            waiting: None,
            working: false,
            ending: false,
            dispatcher,
            deliveries,
            board,
            wishes,
            maker,
            held,
            words: Rarely::default(),
        };
        let mut places = JoinSet::new();
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                Some(share) = shares.recv() => miner.found(&share),
                Some(event) = events.recv() => miner.on_event(event),
                Some(news) = news.recv() => miner.heard(&news),
                wish = people.next() => miner.wished(wish),
                Some(Ok((index, ahead, place))) = places.join_next() => {
                    miner.nodes.behind(index, ahead, place, Instant::now());
                }
                Ok(()) = end.changed() => {
                    miner.ending = true;
                    miner.rest();
                }
                _ = tick.tick() => miner.tick(&mut places),
            }
        }
    }
}

/// The place of a node that is behind: its index, the index of the node ahead, and the place of its tip in that one's
/// chain.
type Standing = (usize, usize, Option<Place>);

/// The upstream's state.
struct Miner {
    nodes: Nodes,
    clients: Arc<[Node]>,
    chain: String,
    dispatcher: Arc<crate::dispatcher::Dispatcher>,
    deliveries: Arc<Deliveries>,
    board: Arc<Board>,
    wishes: Arc<Wishes>,
    maker: Maker,
    clocks: Clocks,
    started: Instant,
    /// Reports a wrong configuration, once.
    failed: Option<oneshot::Sender<String>>,
    /// The newest jobs, newest first: those of the current tip and of the one before.
    jobs: VecDeque<Prepared>,
    /// The parent that jobs build on.
    tip: Option<BlockHash>,
    held: Held,
    /// Set while no license may mine: the height from which one may again, if known.
    waiting: Option<Option<u64>>,
    /// Whether the devices have a job.
    working: bool,
    /// Whether no more work is given out: the miner is about to end.
    ending: bool,
    /// When a node last gave work.
    last_offer: Instant,
    /// Limits warnings about blocks that come too late.
    words: Rarely,
}

impl Miner {
    fn on_event(&mut self, event: Event) {
        let now = Instant::now();
        let offer = match event {
            Event::Beat(index, tip, answer) => return self.nodes.beat(index, tip, answer, now),
            Event::Lost(index, trouble) => {
                self.lost(index, &trouble, now);
                None
            }
            Event::Offer(index, offer) => {
                self.nodes.up(index, offer.tip, now);
                Some((index, offer))
            }
        };
        let changed = self.decide(now);
        match offer {
            Some((index, offer)) if self.nodes.in_use() == Some(index) => self.take(index, *offer, now),
            _ => changed.into_iter().for_each(|index| self.wishes.ask(index)),
        }
    }

    fn decide(&mut self, now: Instant) -> Option<usize> {
        if !self.working {
            self.nodes.miss_nothing();
        }
        let changed = self.nodes.decide(now);
        self.wishes.set_in_use(self.nodes.in_use());
        changed
    }

    fn lost(&mut self, index: usize, trouble: &Trouble, now: Instant) {
        let is_start =
            !self.nodes.was_right(index) && (now - self.started < START || !self.nodes.any_was_right());
        let hopeless = match trouble {
            Trouble::Chain(ChainError::Wrong { .. }) => is_start,
            Trouble::Chain(ChainError::Trouble(RpcError::Unauthorized)) if is_start => {
                if now - self.started < COOKIE_TIME {
                    return;
                }
                true
            }
            _ => false,
        };
        if let Some(failed) = self.failed.take_if(|_| hopeless) {
            // If the receiver is gone, the miner is ending anyway.
            let _ = failed.send(format!("node {}: {trouble}", self.nodes.name(index)));
        } else {
            self.nodes.lost(index, trouble, now);
        }
    }

    fn wished(&mut self, wish: usize) {
        let is_new = self.nodes.wish(wish);
        match self.decide(Instant::now()) {
            Some(index) => self.wishes.ask(index),
            None if self.nodes.in_use() == Some(wish) || !is_new => {}
            None => info!(node = self.nodes.name(wish), "node is used as soon as it is as far as the others"),
        }
    }

    /// Makes work from a template and the licenses of its tip.
    fn take(&mut self, index: usize, offer: Offer, now: Instant) {
        let Offer { template, licenses, tip, received } = offer;
        self.last_offer = now;
        self.deliveries.set_tip(tip.height);
        self.compare_clocks(template.time, now);
        let new_tip = self.tip.replace(template.parent) != Some(template.parent);
        if new_tip {
            self.working = false;
        }
        if self.ending || self.held.holds(&template.parent, Some(index), now) {
            // A block of ours is in flight: until its fate is known, another one would be in vain.
            self.rest();
            return;
        }
        let license = match choose(&licenses, template.license_required, template.height) {
            Ok(license) => license,
            Err(none) => return self.wait(index, &none),
        };
        if self.waiting.take().is_some() {
            info!(height = template.height, license = licenses[license].address, "a license may mine again");
        }
        let prepared = self.maker.make(template, license, received, new_tip);
        let (height, transactions) = (prepared.template.height, prepared.template.txids.len());
        if new_tip {
            let LicenseInfo { address: license, remaining, .. } = &licenses[license];
            info!(height, license, remaining, transactions, "new tip, new job");
        } else {
            debug!(height, transactions, "new job on the same tip");
        }
        self.start(index, prepared);
    }

    fn start(&mut self, index: usize, prepared: Prepared) {
        self.dispatcher.set_job(Arc::clone(&prepared.job));
        self.working = true;
        self.board.change(index, |source| {
            source.set(Condition::Working);
            source.user.clone_from(&prepared.license);
            source.difficulty = Some(prepared.job.difficulty());
            source.jobs += 1;
            source.job = Some(JobView {
                id: prepared.job.id().to_string(),
                height: Some(prepared.template.height),
                network_difficulty: prepared.job.difficulty(),
                since: Instant::now(),
            });
        });
        let parent_before =
            self.jobs.iter().map(|job| job.template.parent).find(|parent| Some(*parent) != self.tip);
        let (tip, kept) = (self.tip, parent_before);
        self.jobs.retain(|job| Some(job.template.parent) == tip || Some(job.template.parent) == kept);
        self.jobs.push_front(prepared);
        self.jobs.truncate(MAX_JOBS);
    }

    /// Removes the work for now. The jobs are kept: finds may be on their way, and machines behind a gateway continue.
    fn rest(&mut self) {
        self.dispatcher.clear();
        self.working = false;
    }

    /// No license may mine.
    fn wait(&mut self, index: usize, none: &NoLicense) {
        self.rest();
        let reasons = none.reasons.join("; ");
        let words = match none.resumes_from_height {
            Some(height) => format!("waiting for height {height}, from which a license may mine: {reasons}"),
            None => format!("waiting, no license may mine block {}: {reasons}", none.height),
        };
        if self.waiting.replace(none.resumes_from_height) != Some(none.resumes_from_height) {
            warn!("{words}");
        }
        self.board.change(index, |source| {
            source.set(Condition::Waiting(words));
            source.job = None;
        });
    }

    fn compare_clocks(&mut self, node: u32, now: Instant) {
        match self.clocks.compare(node, WallClock::default().now(), now) {
            Some(Words::Wrong(words)) => warn!("{words}. Mining goes on with the node's time"),
            Some(Words::Right) => info!("the clocks of this machine and of the node agree again"),
            None => {}
        }
    }

    /// Handles a share, which is a header that meets the block's target.
    fn found(&mut self, share: &Share) {
        let (now, serial) = (Instant::now(), share.job.serial());
        let (prepared, node) = (self.jobs.iter().find(|job| job.job.serial() == serial), self.nodes.in_use());
        if prepared.is_none() && self.words.may_warn() {
            warn!("a block of job {} came too late: its template is forgotten", share.job.id());
        }
        let Some(prepared) = prepared.filter(|job| !self.held.holds(&job.template.parent, node, now)) else {
            return share.finder.add_stale();
        };
        let Some(solved) = prepared.solve(share) else {
            share.finder.add_rejected("hash above the block's target");
            return;
        };
        let (parent, height) = (prepared.template.parent, prepared.template.height);
        info!(height, hash = %solved.hash, device = share.finder.name(), "block found");
        let found = Found {
            chain: self.chain.clone(),
            height,
            hash: solved.hash,
            license: prepared.license.clone(),
            block: solved.block,
        };
        self.deliveries.deliver(found, None, Some(Arc::clone(&share.finder)));
        self.held.pending(parent);
        if self.tip == Some(parent) {
            self.rest();
        }
        self.board.change(self.nodes.in_use().unwrap_or(0), |source| source.blocks += 1);
    }

    /// Handles a decision on a block, of one node or the final one.
    fn heard(&mut self, news: &News) {
        let Some(parent) = news.parent else { return };
        match (&news.fate, news.node) {
            (Fate::Refused(_), Some(node)) => self.held.refused_by(parent, node, Instant::now()),
            (Fate::Refused(_) | Fate::Unheard, _) => self.held.refused(parent, Instant::now()),
            (Fate::Accepted | Fate::Stale, _) => self.held.taken(parent, Instant::now()),
        }
    }

    fn tick(&mut self, places: &mut JoinSet<Standing>) {
        let now = Instant::now();
        for (index, ahead, tip) in self.nodes.newly_behind(now) {
            let nodes = Arc::clone(&self.clients);
            places.spawn(async move {
                // A failure of the other node does not concern this one.
                let place = tips::place(&nodes[ahead], &tip.hash.to_string(), BEAT_TIME).await.ok();
                (index, ahead, place)
            });
        }
        self.give_up(now);
        if self.nodes.in_use().is_none() {
            // A node with less work than a missed one had is used once the missed one has been gone too long.
            self.decide(now).into_iter().for_each(|index| self.wishes.ask(index));
        }
        match self.nodes.in_use() {
            // The devices are idle, perhaps without need.
            Some(index) if !self.working && self.waiting.is_none() => {
                if self.tip.is_some_and(|tip| !self.held.holds(&tip, Some(index), now)) {
                    self.wishes.ask(index);
                }
            }
            Some(_) => {}
            None => self.alone(now),
        }
    }

    /// Withdraws the last job if no node has given work for long. The node in use is asked twice a minute, even on a
    /// quiet chain: one that gives nothing for so long is broken, whatever its state says. Another node gets the time
    /// of a call first.
    fn give_up(&mut self, now: Instant) {
        let without = now - self.last_offer;
        if !self.working || without < NO_NODE_PATIENCE {
            return;
        }
        if let Some(index) = self.nodes.in_use() {
            self.nodes.lost(index, &Trouble::Silent { seconds: without.as_secs() }, now);
        }
        if let Some(index) = self.decide(now) {
            self.wishes.ask(index);
            self.last_offer = now.checked_sub(NO_NODE_PATIENCE - CALL_TIME).unwrap_or(now);
            return;
        }
        warn!("no node has given work for {} s: devices wait", without.as_secs());
        self.tip = None;
        self.rest();
    }

    /// Handles that no node is in use. The last job continues for a while, as a restarting node accepts its blocks
    /// later.
    fn alone(&mut self, now: Instant) {
        if !self.working {
            return;
        }
        let without = now - self.last_offer;
        let since = self.jobs.front().map(|job| job.job.ntime().0.saturating_sub(job.template.time));
        let due = since.is_some_and(|since| without >= Duration::from_secs(since.into()) + REFRESH);
        let can_be_later = |newest: &&Prepared| newest.job.ntime() < newest.job.latest();
        if let Some(newest) = self.jobs.front().filter(|_| due).filter(can_be_later) {
            let prepared = self.maker.later(newest, now);
            self.dispatcher.set_job(Arc::clone(&prepared.job));
            self.jobs.push_front(prepared);
            self.jobs.truncate(MAX_JOBS);
        }
    }
}

#[cfg(test)]
mod tests;
