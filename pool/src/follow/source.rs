//! One node: its templates, by long poll and by polling, and its tip every two seconds. Each node has its own task, so
//! that none delays another; results go to the follower as events.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bitcoin::BlockHash;
use iop_consensus::address::Address;
use iop_consensus::params::Params;
use iop_mining::caught::{PANIC_PAUSE, caught};
use iop_mining::rpc::{CALL_TIME, LONG_POLL_TIME, Node, RpcError};
use iop_mining::source::{BEAT, BEAT_TIME, MAX_TIP_RACES, POLL, REFRESH, RETRY, Unseen, Wishes};
use iop_mining::template::{self, ChainError, ChainIdentity, LicenseInfo, Template, check_chain};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{debug, error, warn};

use super::health::Health;
use super::telling::{Begun, Telling};
use super::tips::{self, ChainTip};
use crate::ledger::store::BlockId;
use crate::payouts::{Payouts, parent_of};
use crate::strays::Trouble;

/// Wait before the ledger write that must precede a job is retried.
const LEDGER_PAUSE: Duration = Duration::from_secs(1);

/// A template with the licenses of its tip.
#[derive(Debug)]
pub(super) struct Offer {
    pub template: Template,
    pub licenses: Vec<LicenseInfo>,
    /// The nearest pool block below the new one.
    pub base: Option<BlockId>,
    /// The tip that the template builds on.
    pub tip: ChainTip,
    /// Set if this is the node's first offer on this tip.
    pub begun: Option<Begun>,
}

/// An event of a node.
#[derive(Debug)]
pub(super) enum Event {
    /// It has a template: for a new tip, for new transactions, or on request.
    Offer(usize, Box<Offer>),
    /// It no longer gives templates.
    Lost(usize),
}

/// The task of one node.
pub(super) struct Source {
    pub index: usize,
    pub nodes: Arc<[Node]>,
    pub params: Arc<Params>,
    pub licenses: Arc<[Address]>,
    pub payouts: Arc<Payouts>,
    pub health: Arc<Health>,
    pub wishes: Arc<Wishes>,
    pub telling: Telling,
    pub events: mpsc::Sender<Event>,
    /// The tip of the last template.
    pub parent: Mutex<Option<BlockHash>>,
}

impl Source {
    /// Runs for ever.
    pub(super) async fn run(self) -> Infallible {
        loop {
            let pause = self.attempt(self.serve()).await;
            sleep(pause).await;
        }
    }

    /// Runs `serving` until it ends and reports the node as lost. Returns the wait before it is tried again.
    pub(super) async fn attempt(
        &self,
        serving: impl Future<Output = Result<Infallible, ChainError>>,
    ) -> Duration {
        let (trouble, pause) = match caught(serving).await {
            Ok(Err(trouble)) => (trouble.to_string(), RETRY),
            Err(panic) => {
                error!(node = self.node().name(), "the node's task panicked: {panic}");
                (format!("its task panicked: {panic}"), PANIC_PAUSE)
            }
        };
        self.node().set_right(false);
        self.set_parent(None);
        self.health.down(self.index, &trouble);
        // The receiver lives as long as its sources.
        let _ = self.events.send(Event::Lost(self.index)).await;
        pause
    }

    fn node(&self) -> &Node {
        &self.nodes[self.index]
    }

    /// Runs as long as the node answers correctly.
    async fn serve(&self) -> Result<Infallible, ChainError> {
        check_chain(self.node(), &ChainIdentity::of(&self.params)).await?;
        self.node().set_right(true);
        tokio::select! {
            ended = self.offers() => ended,
            ended = self.beats() => ended,
        }
    }

    /// Offers a template for each tip at once, but for changes on a tip at most one a second, requested when the second
    /// is over. It keeps waiting for the next long poll meanwhile, as that may be of a new tip.
    async fn offers(&self) -> Result<Infallible, ChainError> {
        let mut id = self.offer(None).await?;
        let (mut offered, mut early) = (Instant::now(), 0);
        loop {
            // A node whose long poll returns at once is not asked before the second is over.
            let pause = if early > 1 { offered + POLL } else { offered };
            tokio::select! {
                template = self.next_template(id.as_deref(), pause) => {
                    let template = template?;
                    if self.parent() == Some(template.parent) && offered.elapsed() < POLL {
                        (id, early) = (template.long_poll_id, early + 1);
                        continue;
                    }
                    id = self.offer(Some(template)).await?;
                }
                () = sleep_until(offered + POLL), if early > 0 => id = self.offer(None).await?,
            }
            (offered, early) = (Instant::now(), 0);
        }
    }

    fn parent(&self) -> Option<BlockHash> {
        *self.parent.lock().expect("no panic while the lock is held")
    }

    fn set_parent(&self, parent: Option<BlockHash>) {
        *self.parent.lock().expect("no panic while the lock is held") = parent;
    }

    /// The next template: when the long poll answers, when one is wanted, or for the node in use after a while on the
    /// same tip.
    async fn next_template(&self, id: Option<&str>, pause: Instant) -> Result<Template, RpcError> {
        let poll = async {
            sleep_until(pause).await;
            // After an empty template the next one comes at once, and is large.
            self.telling.wait().await;
            match id {
                Some(id) => template::next(self.node(), id, LONG_POLL_TIME).await,
                None => {
                    sleep(POLL).await;
                    template::template(self.node()).await
                }
            }
        };
        let mut poll = pin!(poll);
        loop {
            tokio::select! {
                template = &mut poll => return template,
                () = self.wishes.asked(self.index) => break,
                () = sleep(REFRESH) => if self.wishes.in_use() == Some(self.index) { break },
            }
        }
        template::template(self.node()).await
    }

    /// Offers a template, or a newly requested one, with its tip and current licenses; returns its long-poll id.
    async fn offer(&self, template: Option<Template>) -> Result<Option<String>, ChainError> {
        let node = self.node();
        let fresh = template.is_none();
        let mut template = match template {
            Some(template) => template,
            None => template::template(node).await?,
        };
        for _ in 0..=MAX_TIP_RACES {
            let asked = tokio::try_join!(
                template::licenses(node, &self.licenses, &self.params),
                tips::state(node, CALL_TIME),
                self.payouts.base(node, &template),
            );
            if matches!(asked, Err(RpcError::Changed)) {
                template = template::template(node).await?;
                continue;
            }
            let (licenses, state, mut base) = asked?;
            state.synced(&self.params)?;
            let tip = state.tip;
            if tip.hash == template.parent && licenses.tip.is_none_or(|tip| tip == template.parent) {
                debug!(node = node.name(), height = template.height, fresh, "template");
                let (id, parent) = (template.long_poll_id.clone(), parent_of(&template));
                let last = licenses.infos.iter().filter_map(|license| license.last_block).max();
                if self.payouts.must_look(&parent, last, base.as_ref()) {
                    while !take_strays(&self.payouts, node, parent, &self.wishes).await? {
                        // No job may be made that pays again what that block has paid.
                        sleep(LEDGER_PAUSE).await;
                    }
                    base = self.payouts.base(node, &template).await?;
                }
                let before = self.parent();
                self.set_parent(Some(template.parent));
                self.health.up(self.index, tip);
                let begun = (before != Some(parent.hash)).then(|| self.telling.begin());
                let offer = Box::new(Offer { template, licenses: licenses.infos, base, tip, begun });
                // The receiver lives as long as its sources.
                let _ = self.events.send(Event::Offer(self.index, offer)).await;
                let (nodes, index, payouts) =
                    (Arc::clone(&self.nodes), self.index, Arc::clone(&self.payouts));
                let (wishes, telling) = (Arc::clone(&self.wishes), self.telling.clone());
                // A block that the licenses do not show, as after a reorganisation, is looked for in the background.
                tokio::spawn(async move {
                    telling.wait().await;
                    let looked = take_strays(&payouts, &nodes[index], parent, &wishes).await;
                    let unknown = "it is not known whether a block of ours was not handed in";
                    // The next tip tries again.
                    looked.map_or_else(
                        |trouble| warn!(node = nodes[index].name(), "{unknown}: {trouble}"),
                        drop,
                    );
                });
                return Ok(id);
            }
            template = template::template(node).await?;
        }
        Err(RpcError::Malformed("getlicenseinfo and getblocktemplate are of different tips".into()).into())
    }

    /// Polls the tip. A node that does not answer in time has failed.
    async fn beats(&self) -> Result<Infallible, ChainError> {
        let expected = ChainIdentity::of(&self.params);
        let mut unseen = Unseen::default();
        loop {
            sleep(BEAT).await;
            let asked = Instant::now();
            let (name, tip) = tips::ask(self.node(), BEAT_TIME).await?;
            if name != expected.name {
                return Err(ChainError::Wrong {
                    found: ChainIdentity { name, ..expected.clone() },
                    expected,
                });
            }
            self.health.beat(self.index, tip, asked.elapsed());
            if unseen.again(tip.hash, self.parent()) {
                self.wishes.ask(self.index);
            }
            if let Some((ahead, tip)) = self.health.ahead_of(self.index) {
                // A failure of the other node does not concern this one.
                if let Ok(place) = tips::place(&self.nodes[ahead], &tip.hash.to_string(), BEAT_TIME).await {
                    self.health.behind(self.index, ahead, place);
                }
            }
        }
    }
}

/// Looks for pool blocks that nobody handed in, from a tip down. If there are any, new work is requested to build on
/// them. Returns whether they are all in the books.
async fn take_strays(
    payouts: &Payouts,
    node: &Node,
    tip: BlockId,
    wishes: &Wishes,
) -> Result<bool, RpcError> {
    match payouts.take_strays(node, tip).await {
        Ok(0) => {}
        Ok(_) => wishes.in_use().into_iter().for_each(|index| wishes.ask(index)),
        Err(Trouble::Node(trouble)) => return Err(trouble),
        Err(Trouble::Ledger(trouble)) => {
            error!("a block that nobody handed in is not in the books: {trouble}");
            return Ok(false);
        }
    }
    Ok(true)
}
