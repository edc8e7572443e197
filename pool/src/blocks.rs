//! Delivery of found blocks: to all nodes at once, with retries until they answer.

mod keeping;

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bitcoin::BlockHash;
use iop_mining::rpc::{CALL_TIME, Node};
use iop_mining::template::{ChainIdentity, check_chain};
use serde::{Serialize, Serializer};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{error, info, warn};

use crate::follow::tips::{self, Place};
use crate::follow::{Snapshot, Work};
use crate::ledger::store::BlockId;
use crate::ledger::{Ledger, LedgerError};
use crate::run::RunError;
use crate::spool::{Found, Spool};

/// The first wait before a block is submitted again; it doubles up to [`MAX_WAIT`].
const FIRST_WAIT: Duration = Duration::from_millis(500);
/// The longest wait between two attempts: a node that comes back gets the block within this.
const MAX_WAIT: Duration = Duration::from_secs(15);
/// How long an unresponsive node is retried once another node has taken the block: by then it gets the block from its
/// peers. Until one takes it, retries never end: a refusal by one node says nothing about another.
const PATIENCE: Duration = Duration::from_secs(10 * 60);
/// Blocks on top of a competing block at which ours counts as stale: so many are never reorganised away by chance.
const STALE_DEPTH: u32 = 6;
/// Blocks on top of a block after which its place is no longer checked: the maturity of coinbases (100).
const SETTLED_DEPTH: u32 = 100;
/// How often to check whether the ledger has a block that all nodes have answered: usually it does.
const STORED_POLL: Duration = Duration::from_millis(50);
/// The most blocks that are listed, the latest ones.
const MAX_LISTED: usize = 1000;
/// The most blocks of one height that may wait for an answer. Only one can be in the chain; while no node answers, the
/// miners of an easy chain find hundreds on the last tip, and each would be kept and retried.
const MAX_PENDING: usize = 8;
/// How long a found block waits for its file; a disk takes a millisecond. A disk that hangs must not cost the block.
const WRITE_TIME: Duration = Duration::from_millis(30);

/// A node's answer to a block.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NodeAnswer {
    /// `host:port`.
    pub node: String,
    /// `accepted`, or the node's reason: `duplicate`, `inconclusive`, a reject reason.
    pub answer: String,
}

/// State of a block: the best answer of any node, later its place in the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Status {
    /// No node has answered yet.
    Pending,
    /// Every node that answered refused it.
    Refused,
    /// It is not in the chain, which is six blocks past its height.
    Stale,
    /// It is valid, but another block of its height was faster or has displaced it.
    Side,
    /// It became the tip of a node, and is in the chain as far as known.
    Accepted,
}

impl Status {
    /// The name in JSON.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Refused => "refused",
            Self::Stale => "stale",
            Self::Side => "side",
            Self::Accepted => "accepted",
        }
    }
}

impl Serialize for Status {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.word())
    }
}

/// A found block in the list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FoundBlock {
    /// Its height.
    pub height: u32,
    /// Its hash, as printed.
    pub hash: String,
    /// The license that signed it.
    pub license: String,
    /// The worker whose share it was.
    pub worker: String,
    /// When it was found, in seconds since 1970.
    pub time: u64,
    /// Its state.
    pub status: Status,
    /// The nodes' answers.
    pub answers: Vec<NodeAnswer>,
}

/// Delivers found blocks and lists them.
#[derive(Debug)]
pub struct Blocks {
    nodes: Arc<[Node]>,
    spool: Spool,
    chain: ChainIdentity,
    ledger: Arc<Ledger>,
    records: Mutex<VecDeque<FoundBlock>>,
    found: AtomicU64,
    deliveries: Mutex<JoinSet<()>>,
}

impl Blocks {
    /// Delivers to `nodes`, as long as they are on `chain`.
    #[must_use]
    pub fn new(nodes: Arc<[Node]>, spool: Spool, chain: ChainIdentity, ledger: Arc<Ledger>) -> Arc<Self> {
        Arc::new(Self {
            nodes,
            spool,
            chain,
            ledger,
            records: Mutex::default(),
            found: AtomicU64::new(0),
            deliveries: Mutex::default(),
        })
    }

    /// Submits the blocks of earlier runs that may not have been answered. All readable ones are on their way to the
    /// nodes when this returns, even if it fails.
    ///
    /// # Errors
    /// One cannot be read, or the ledger cannot take it: a template on that block would pay again what it pays. Or one is
    /// missing that another stands on.
    pub fn resume(self: &Arc<Self>) -> Result<(), RunError> {
        let (mut blocks, wrong) = self
            .spool
            .load()
            .map_err(|error| RunError(format!("found blocks of earlier runs cannot be read: {error}")))?;
        blocks.sort_by_key(|(_, found)| found.height); // one stands on another below it
        let mend = "what the block pays could be paid again: mend the file, or move it away once the ledger has its \
                    block or no node does";
        let mut wrong: Vec<String> = (wrong.iter())
            .map(|file| format!("a found block's file is not as it should be: {file}; {mend}"))
            .collect();
        // Sent first: what the ledger needs of the log may take seconds to read.
        let blocks: Vec<_> = blocks.into_iter().map(|(file, found)| (file, Arc::new(found))).collect();
        for (file, found) in &blocks {
            info!(height = found.height, hash = %found.hash, "submitting a block of an earlier run again");
            if self.list(found) {
                let sending = self.send(Arc::clone(found), watch::channel(()).1);
                self.forget_when_answered(sending, Some(file.clone()));
            }
        }
        for (file, found) in &blocks {
            if let Err(error) = self.adopt(found) {
                wrong.push(format!(
                    "a found block cannot be taken into the ledger: {}: {error}; {mend}",
                    file.display()
                ));
            }
        }
        wrong.extend(self.still_off_disk());
        wrong.extend(self.ledger.check_whole().err().map(|torn| torn.to_string()));
        let [first, others @ ..] = &*wrong else { return Ok(()) };
        others.iter().for_each(|trouble| error!("{trouble}"));
        Err(RunError(first.clone()))
    }

    /// Adds a block to the ledger if the pool ended before the ledger had it.
    fn adopt(&self, found: &Found) -> Result<(), LedgerError> {
        let Some(entry) = &found.record else { return Ok(()) };
        if self.ledger.adopt_again(entry)? {
            warn!(height = found.height, hash = %found.hash, "the ledger takes the block now");
        }
        Ok(())
    }

    /// Delivers a newly found block: sends it to all nodes once its file is written, or after `WRITE_TIME` if the disk
    /// hangs, and returns once the file is synced. Requires a multi-threaded tokio runtime, since it blocks on the
    /// disk.
    ///
    /// Returns false if the block is left out because too many of its height wait for a node.
    pub fn deliver(self: &Arc<Self>, found: Found) -> bool {
        self.found.fetch_add(1, Ordering::Relaxed);
        if !self.list(&found) {
            return false;
        }
        // Write the file first, since a node may already have the block when this process is killed; but do not wait
        // long.
        let (writing, on_disk) = watch::channel(());
        let sending = self.send(Arc::new(found), on_disk);
        let found = &sending.found;
        let written = tokio::task::block_in_place(|| {
            self.spool.write(found).inspect_err(|_| self.note_off_disk(found))
        });
        drop(writing);
        // Sync its window's shares before its file: after a power failure the next start may adopt the block.
        let stored = tokio::task::block_in_place(|| {
            self.ledger.sync();
            let kept = written.and_then(|unfinished| self.spool.keep(unfinished, found));
            kept.inspect_err(|error| {
                self.note_off_disk(found);
                not_on_disk(found, error);
            })
        });
        let file = stored.ok();
        self.forget_when_answered(sending, file);
        true
    }

    /// Blocks found since the start, whatever their fate.
    #[must_use]
    pub fn found(&self) -> u64 {
        self.found.load(Ordering::Relaxed)
    }

    /// Starts submitting to all nodes once `on_disk` is closed.
    fn send(self: &Arc<Self>, found: Arc<Found>, on_disk: watch::Receiver<()>) -> Sending {
        let mut attempts: JoinSet<()> = JoinSet::new();
        for index in 0..self.nodes.len() {
            let (blocks, found, mut on_disk) = (Arc::clone(self), Arc::clone(&found), on_disk.clone());
            attempts.spawn(async move {
                let _ = tokio::time::timeout(WRITE_TIME, on_disk.changed()).await; // sent either way
                blocks.submit(index, found).await;
            });
        }
        Sending { found, attempts }
    }

    /// Removes a block's file when all nodes have answered or were given up, and the ledger has the block. Where there is
    /// none, the disk is tried until then.
    fn forget_when_answered(self: &Arc<Self>, sending: Sending, mut file: Option<PathBuf>) {
        let Sending { found, mut attempts } = sending;
        let blocks = Arc::clone(self);
        let mut deliveries = self.deliveries.lock().expect("no panic while the lock is held");
        while deliveries.try_join_next().is_some() {} // drop finished ones
        deliveries.spawn(async move {
            let done = async {
                let mut answered = true;
                while let Some(attempt) = attempts.join_next().await {
                    answered &= attempt.is_ok(); // a panic of a task leaves the file for the next start
                }
                while found.record.as_ref().is_some_and(|record| !blocks.ledger.has_stored(&record.id)) {
                    tokio::time::sleep(STORED_POLL).await;
                }
                answered
            };
            let mut done = std::pin::pin!(done);
            let answered = loop {
                tokio::select! {
                    answered = &mut done => break answered,
                    written = blocks.write_again(&found), if file.is_none() => file = Some(written),
                }
            };
            blocks.note_on_disk(&found);
            if answered
                && let Some(file) = file
                && let Err(error) = blocks.spool.remove(&file)
            {
                warn!(hash = %found.hash, "file of an answered block cannot be removed: {error}");
            }
        });
    }

    /// Submits to one node until it answers or may be given up.
    async fn submit(self: Arc<Self>, index: usize, found: Arc<Found>) {
        let (node, begun, mut wait) = (&self.nodes[index], Instant::now(), FIRST_WAIT);
        loop {
            match self.ask(node, &found).await {
                Ok(verdict) => return self.answered(node, &found, &verdict),
                Err(trouble) => {
                    warn!(hash = %found.hash, node = node.name(), "block not delivered yet: {trouble}");
                }
            }
            if may_give_up(begun.elapsed(), self.status(&found.hash)) {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(wait) => wait = (wait * 2).min(MAX_WAIT),
                () = node.comes_back() => {}
            }
        }
    }

    /// A node's answer to a block, or why there is none yet.
    async fn ask(&self, node: &Node, found: &Found) -> Result<String, String> {
        // A node on another chain would refuse the block by that chain's rules. Nodes that are known to be right are
        // trusted; others are checked, as they may have been replaced since.
        if !node.is_right() {
            check_chain(node, &self.chain).await.map_err(|trouble| trouble.to_string())?;
        }
        iop_mining::submit::submit(node, &found.block).await
    }

    fn answered(&self, node: &Node, found: &Found, answer: &str) {
        let status = status(answer);
        let (height, hash, name) = (found.height, &found.hash, node.name());
        if status == Status::Refused {
            error!(height, %hash, node = name, "block refused: {answer}");
        } else {
            info!(height, %hash, node = name, "block {answer}");
        }
        let mut records = self.records.lock().expect("no panic while the lock is held");
        if let Some(record) = records.iter_mut().find(|record| record.hash == found.hash) {
            record.answers.push(NodeAnswer { node: name.to_owned(), answer: answer.to_owned() });
            record.status = record.status.max(status);
        }
    }

    /// Checks the place of found blocks in the chain at each new tip: another branch may displace one or bring it back.
    /// Runs until the pool ends.
    pub async fn watch(self: Arc<Self>, mut snapshots: watch::Receiver<Arc<Snapshot>>) {
        let mut seen = None;
        while snapshots.changed().await.is_ok() {
            let work = snapshots.borrow_and_update().work.clone();
            let Some(tip) = tip_of(&work).filter(|tip| seen != Some(*tip)) else { continue };
            if self.review(tip).await {
                seen = Some(tip);
            }
            let spool = self.spool.clone();
            let _ = tokio::task::spawn_blocking(move || spool.restore()).await; // the next tip tries again
        }
    }

    /// Returns whether all blocks were checked.
    async fn review(&self, (parent, height): (BlockHash, u32)) -> bool {
        let open: Vec<(u32, String)> = {
            let records = self.records.lock().expect("no panic while the lock is held");
            let open = |record: &&FoundBlock| {
                record.status != Status::Stale && record.height.saturating_add(SETTLED_DEPTH) > height
            };
            records.iter().filter(open).map(|record| (record.height, record.hash.clone())).collect()
        };
        if open.is_empty() {
            return true;
        }
        let Some(node) = self.node_on(&parent).await else { return false };
        for (found_at, hash) in open {
            let Ok(place) = tips::place(node, &hash, CALL_TIME).await else { return false };
            let mut records = self.records.lock().expect("no panic while the lock is held");
            let Some(record) = records.iter_mut().find(|record| record.hash == hash) else { continue };
            let status = reviewed(record.status, place, height.saturating_sub(found_at));
            if status != record.status {
                let was = std::mem::replace(&mut record.status, status);
                let words = "found block has another state";
                match status {
                    Status::Accepted => info!(height = found_at, %hash, ?was, now = ?status, "{words}"),
                    _ => warn!(height = found_at, %hash, ?was, now = ?status, "{words}"),
                }
            }
        }
        true
    }

    /// A node whose active chain contains `parent`.
    async fn node_on(&self, parent: &BlockHash) -> Option<&Node> {
        for node in self.nodes.iter().filter(|node| node.is_right()) {
            if tips::place(node, &parent.to_string(), CALL_TIME).await == Ok(Place::Active) {
                return Some(node);
            }
        }
        None
    }

    /// The block's state; `None` if it is no longer listed.
    fn status(&self, hash: &str) -> Option<Status> {
        let records = self.records.lock().expect("no panic while the lock is held");
        records.iter().find(|record| record.hash == hash).map(|record| record.status)
    }

    /// Lists a block. Returns whether it is to be delivered.
    fn list(&self, found: &Found) -> bool {
        let mut records = self.records.lock().expect("no panic while the lock is held");
        let waits = |record: &&FoundBlock| {
            record.height == found.height
                && record.status < Status::Side
                && record.answers.len() < self.nodes.len()
        };
        if records.iter().filter(waits).count() >= MAX_PENDING {
            let (height, hash) = (found.height, &found.hash);
            warn!(height, %hash, "block left out: {MAX_PENDING} of its height wait for a node");
            return false;
        }
        records.push_front(FoundBlock {
            height: found.height,
            hash: found.hash.clone(),
            license: found.license.clone(),
            worker: found.worker.clone(),
            time: found.time,
            status: Status::Pending,
            answers: Vec::new(),
        });
        records.truncate(MAX_LISTED);
        true
    }

    /// Blocks found since the start, the latest first.
    #[must_use]
    pub fn records(&self) -> Vec<FoundBlock> {
        self.records.lock().expect("no panic while the lock is held").iter().cloned().collect()
    }

    /// Waits a limited time for deliveries in flight: blocks that are not answered by then are on disk.
    pub async fn finish(&self, limit: Duration) {
        let mut deliveries =
            std::mem::take(&mut *self.deliveries.lock().expect("no panic while the lock is held"));
        let all = async { while deliveries.join_next().await.is_some() {} };
        if tokio::time::timeout(limit, all).await.is_err() {
            self.say_unanswered();
        }
    }
}

/// A block being submitted.
struct Sending {
    found: Arc<Found>,
    attempts: JoinSet<()>,
}

/// Logs the file's contents: the nodes may have the block, and an operator can create the file from the log.
fn not_on_disk(found: &Found, error: &io::Error) {
    let text = serde_json::to_string(found).unwrap_or_else(|error| error.to_string());
    let Found { height, hash, .. } = found;
    error!("found block cannot be written to disk: {error}; put it into found/{height}-{hash}.json: {text}");
}

/// Whether an unresponsive node need not be asked any more. A block that is no longer listed has a thousand found after
/// it.
fn may_give_up(asked_for: Duration, status: Option<Status>) -> bool {
    status == Some(Status::Stale)
        || asked_for > PATIENCE && status.is_none_or(|status| status >= Status::Side)
}

/// The current tip and its height; `None` if it is not known.
fn tip_of(work: &Work) -> Option<(BlockHash, u32)> {
    match work {
        Work::Job(job) => Some((job.template.parent, job.template.height.saturating_sub(1))),
        Work::Waiting | Work::NoNode | Work::NoLicense(_) | Work::NoLedger(_) => None,
    }
}

/// The new state of a block with `depth` blocks of height above it.
fn reviewed(before: Status, place: Place, depth: u32) -> Status {
    match place {
        Place::Active => Status::Accepted,
        Place::Side | Place::Unknown if depth >= STALE_DEPTH && before != Status::Refused => Status::Stale,
        // Nodes may not yet know a block that was accepted a moment ago, and one may know what another does not.
        Place::Side if before == Status::Accepted => Status::Side,
        Place::Side | Place::Unknown => before,
    }
}

/// The state that an answer implies.
fn status(answer: &str) -> Status {
    match answer {
        "accepted" | "duplicate" => Status::Accepted,
        "inconclusive" | "duplicate-inconclusive" => Status::Side,
        _ => Status::Refused,
    }
}

#[cfg(test)]
mod tests;
