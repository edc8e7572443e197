//! One node: its templates, by long poll and by polling, and its tip every two seconds. Each node has its own task, so
//! that none delays another; results go to the upstream as events.

use std::convert::Infallible;
use std::fmt;
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
use iop_mining::tips::{self, ChainTip, Syncing};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{debug, error};

/// A template with the licenses of its tip.
#[derive(Debug)]
pub(super) struct Offer {
    pub(super) template: Template,
    pub(super) licenses: Vec<LicenseInfo>,
    /// The tip that the template builds on.
    pub(super) tip: ChainTip,
    /// When the template came, on the monotonic clock: its time is counted from here.
    pub(super) received: std::time::Instant,
}

/// The reason why a node gives no work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Trouble {
    /// It does not answer, rejects our credentials, is on another chain, or still loads it.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// Our code panicked, perhaps because of what the node sent.
    #[error("its task panicked: {0}")]
    Panicked(String),
    /// It answers, but has given no work for this long.
    #[error("no work for {seconds} s")]
    Silent { seconds: u64 },
}

impl From<Syncing> for Trouble {
    fn from(syncing: Syncing) -> Self {
        Self::Chain(syncing.into())
    }
}

impl From<RpcError> for Trouble {
    fn from(error: RpcError) -> Self {
        Self::Chain(error.into())
    }
}

/// An event of a node.
#[derive(Debug)]
pub(super) enum Event {
    /// It has a template: for a new tip, for new transactions, or on request.
    Offer(usize, Box<Offer>),
    /// It answered with its tip after this time.
    Beat(usize, ChainTip, Duration),
    /// It no longer gives templates.
    Lost(usize, Trouble),
}

/// The task of one node.
pub(super) struct Source {
    pub(super) index: usize,
    pub(super) nodes: Arc<[Node]>,
    pub(super) params: Arc<Params>,
    pub(super) licenses: Arc<[Address]>,
    pub(super) wishes: Arc<Wishes>,
    pub(super) events: mpsc::Sender<Event>,
    /// The tip of the last template.
    pub(super) parent: Mutex<Option<BlockHash>>,
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Source({})", self.node().name())
    }
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
    async fn attempt(&self, serving: impl Future<Output = Result<Infallible, Trouble>>) -> Duration {
        let (trouble, pause) = match caught(serving).await {
            Ok(Err(trouble)) => (trouble, RETRY),
            Err(panic) => {
                error!(node = self.node().name(), "the node's task panicked: {panic}");
                (Trouble::Panicked(panic), PANIC_PAUSE)
            }
        };
        self.node().set_right(false);
        self.set_parent(None);
        self.tell(Event::Lost(self.index, trouble)).await;
        pause
    }

    fn node(&self) -> &Node {
        &self.nodes[self.index]
    }

    /// The receiver lives as long as its sources.
    async fn tell(&self, event: Event) {
        let _ = self.events.send(event).await;
    }

    /// Runs as long as the node answers correctly.
    async fn serve(&self) -> Result<Infallible, Trouble> {
        check_chain(self.node(), &ChainIdentity::of(&self.params)).await?;
        self.node().set_right(true);
        tokio::select! {
            ended = self.offers() => ended,
            ended = self.beats() => ended,
        }
    }

    /// Offers a template for each tip at once, but for changes on a tip at most one a second, requested when the second
    /// is over. It keeps waiting for the next long poll meanwhile, as that may be of a new tip.
    async fn offers(&self) -> Result<Infallible, Trouble> {
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
    async fn offer(&self, template: Option<Template>) -> Result<Option<String>, Trouble> {
        let node = self.node();
        let mut template = match template {
            Some(template) => template,
            None => template::template(node).await?,
        };
        for _ in 0..=MAX_TIP_RACES {
            let received = std::time::Instant::now();
            let (licenses, state) = tokio::try_join!(
                template::licenses(node, &self.licenses, &self.params),
                tips::state(node, CALL_TIME),
            )?;
            state.synced(&self.params)?;
            let tip = state.tip;
            if tip.hash == template.parent && licenses.tip.is_none_or(|tip| tip == template.parent) {
                debug!(node = node.name(), height = template.height, "template");
                let id = template.long_poll_id.clone();
                self.set_parent(Some(template.parent));
                let offer = Offer { template, licenses: licenses.infos, tip, received };
                self.tell(Event::Offer(self.index, Box::new(offer))).await;
                return Ok(id);
            }
            template = template::template(node).await?;
        }
        Err(RpcError::Malformed("getlicenseinfo and getblocktemplate are of different tips".into()).into())
    }

    /// Polls the tip. A node that does not answer in time has failed.
    async fn beats(&self) -> Result<Infallible, Trouble> {
        let expected = ChainIdentity::of(&self.params);
        let mut unseen = Unseen::default();
        loop {
            sleep(BEAT).await;
            let asked = Instant::now();
            let (name, tip) = tips::ask(self.node(), BEAT_TIME).await?;
            if name != expected.name {
                let found = ChainIdentity { name, ..expected.clone() };
                return Err(ChainError::Wrong { found, expected }.into());
            }
            self.tell(Event::Beat(self.index, tip, asked.elapsed())).await;
            if unseen.again(tip.hash, self.parent()) {
                self.wishes.ask(self.index);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use iop_mining::rpc::NodeAddress;
    use iop_mining::sample::tip;

    use super::*;

    #[tokio::test]
    async fn a_node_whose_task_panics_is_lost_and_tried_again_later() {
        let node = Node::new(NodeAddress::parse("http://u:p@127.0.0.1:1", None, 1).expect("a URL"));
        node.set_right(true);
        let (sender, mut events) = mpsc::channel(2);
        let source = Source {
            index: 0,
            nodes: [node].into(),
            params: Arc::new(Params::devnet()),
            licenses: [].into(),
            wishes: Arc::new(Wishes::new(1)),
            events: sender,
            parent: Mutex::new(Some(tip(5, 0).hash)),
        };
        let pause = source.attempt(async { panic!("as the test wants it") }).await;
        assert!(pause > RETRY, "no flood of words");
        let Some(Event::Lost(0, trouble)) = events.recv().await else { panic!("lost") };
        assert_eq!(trouble.to_string(), "its task panicked: as the test wants it");
        assert!(!source.node().is_right() && source.parent().is_none());
    }
}
