//! Delivery of found blocks: to every node at once, with retries until they are known to be accepted, refused or stale.
//! Each is kept on disk meanwhile, so that it survives the miner; a failed write is retried, and the log contains the
//! block.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fs::{DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bitcoin::BlockHash;
use bitcoin::hashes::Hash;
use iop_mining::rpc::Node;
use iop_mining::spool::{Kept, Spool};
use iop_mining::submit::submit;
use iop_mining::template::{ChainIdentity, check_chain};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{error, info, warn};

use crate::device::LAST_FINDS;
use crate::log;
use crate::stats::DeviceStats;
use crate::upstream::board::Board;

/// The first wait before a block is submitted again; it doubles up to the longest wait, which is a setting.
const FIRST_WAIT: Duration = Duration::from_millis(500);
/// How long an unresponsive node is retried in any case once the block is decided without it.
const PATIENCE: Duration = Duration::from_secs(10 * 60);
/// Blocks above a block with which it is decided: it is deep in the chain, or will never be in it.
const DEEP: u32 = 6;
/// Most characters of a node's text that are shown.
const MAX_WORDS: usize = 200;

/// A found block, as stored on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Found {
    /// The chain that it is for.
    pub(super) chain: String,
    /// Its height.
    pub(super) height: u32,
    /// Its hash, as printed.
    pub(super) hash: String,
    /// The license that signed it, as an address.
    pub(super) license: String,
    /// The block in hex, as `submitblock` takes it.
    pub(super) block: String,
}

impl Kept for Found {
    fn height(&self) -> u32 {
        self.height
    }

    fn hash(&self) -> &str {
        &self.hash
    }

    fn block(&self) -> &str {
        &self.block
    }
}

impl Found {
    /// Its parent; `None` if there is no header.
    pub(super) fn parent(&self) -> Option<BlockHash> {
        let mut parent = [0; 32];
        hex::decode_to_slice(self.block.get(8..72)?, &mut parent).ok()?;
        Some(BlockHash::from_byte_array(parent))
    }
}

/// A node's decision on a block, or the final one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fate {
    /// No node has answered, and the chain has moved on without it.
    Unheard,
    /// Refused, with the node's reason.
    Refused(String),
    /// Valid, and not in the chain: another block was faster.
    Stale,
    /// In the chain.
    Accepted,
}

impl Fate {
    fn of(answer: &str) -> Self {
        match answer {
            "accepted" | "duplicate" => Self::Accepted,
            "inconclusive" | "duplicate-inconclusive" => Self::Stale,
            reason => {
                Self::Refused(reason.chars().filter(|char| !char.is_control()).take(MAX_WORDS).collect())
            }
        }
    }
}

/// A decision on a block.
#[derive(Debug)]
pub(super) struct News {
    /// The block's parent.
    pub(super) parent: Option<BlockHash>,
    /// The node that decided; `None` for the final decision.
    pub(super) node: Option<usize>,
    /// The decision.
    pub(super) fate: Fate,
}

/// An explanation of reject reasons that the operator can do something about.
fn hint(reason: &str) -> &'static str {
    match reason {
        "bad-CB-miner" => ": the license is not on the chain's whitelist",
        "bad-CAP-miner" => ": the license is over its cap, or mined too short ago",
        "time-too-new" => ": its time is more than two hours ahead of the node's clock",
        _ => "",
    }
}

/// Delivers found blocks.
#[derive(Debug)]
pub(super) struct Deliveries {
    nodes: Arc<[Node]>,
    spool: Spool<Found>,
    /// Two miners in one folder would submit and delete each other's blocks.
    _lock: File,
    chain: ChainIdentity,
    board: Arc<Board>,
    /// The longest wait between two attempts.
    retry: Duration,
    /// Height of the current tip.
    tip: watch::Sender<u32>,
    running: Mutex<JoinSet<()>>,
    /// Undecided blocks by hash, and whether they are on disk.
    open: Mutex<BTreeMap<String, bool>>,
    ending: watch::Sender<bool>,
    news: mpsc::UnboundedSender<News>,
}

impl Deliveries {
    /// Delivers to these nodes, as long as they are on this chain; blocks are kept in `datadir` meanwhile.
    ///
    /// # Errors
    /// The folder cannot be created, or another miner uses it.
    pub(super) fn new(
        nodes: Arc<[Node]>,
        datadir: &Path,
        chain: ChainIdentity,
        board: Arc<Board>,
        retry: Duration,
    ) -> io::Result<(Arc<Self>, mpsc::UnboundedReceiver<News>)> {
        let (news, receiver) = mpsc::unbounded_channel();
        let lock = lock(datadir)?;
        let (spool, tip, running) = (Spool::open(datadir)?, watch::Sender::new(0), Mutex::default());
        let ending = watch::Sender::new(false);
        Ok((
            Arc::new(Self {
                ending,
                nodes,
                spool,
                _lock: lock,
                chain,
                board,
                retry,
                tip,
                running,
                open: Mutex::default(),
                news,
            }),
            receiver,
        ))
    }

    /// Sets the height of the current tip.
    pub(super) fn set_tip(&self, height: u32) {
        self.tip.send_replace(height);
    }

    /// Submits the blocks of earlier runs that may not have been answered; returns their parents. Blocks of other
    /// chains are left in place.
    pub(super) fn resume(self: &Arc<Self>) -> Vec<BlockHash> {
        let (blocks, wrong) = match self.spool.load() {
            Ok(loaded) => loaded,
            Err(error) => {
                error!("found blocks of earlier runs cannot be read: {error}");
                return Vec::new();
            }
        };
        wrong.iter().for_each(|file| error!("found blocks of earlier runs: {file}"));
        let chain = self.chain.to_string();
        let mut parents = Vec::new();
        for (file, found) in blocks {
            if found.chain == chain {
                info!(height = found.height, hash = %found.hash, "submitting a block of an earlier run again");
                parents.extend(found.parent());
                self.deliver(found, Some(file), None);
            } else {
                warn!("{} is a block of another chain, left there", file.display());
            }
        }
        parents
    }

    /// Delivers a block: sends it to all nodes at once, and meanwhile writes it to disk if it has no file. It is
    /// counted for the finder.
    pub(super) fn deliver(
        self: &Arc<Self>,
        found: Found,
        file: Option<PathBuf>,
        finder: Option<Arc<DeviceStats>>,
    ) {
        let (deliveries, found) = (Arc::clone(self), Arc::new(found));
        self.note(&found, file.is_some());
        let mut running = self.running.lock().expect("no panic while the lock is held");
        while running.try_join_next().is_some() {} // drop finished ones
        running.spawn(async move { deliveries.see_through(found, file, finder).await });
    }

    /// Handles a block from the first attempt to the final decision.
    async fn see_through(
        self: Arc<Self>,
        found: Arc<Found>,
        file: Option<PathBuf>,
        finder: Option<Arc<DeviceStats>>,
    ) {
        let taken = Arc::new(AtomicBool::new(false));
        let mut attempts = JoinSet::new();
        for index in 0..self.nodes.len() {
            attempts.spawn(Arc::clone(&self).submit(index, Arc::clone(&found), Arc::clone(&taken)));
        }
        let (decided, decision) = oneshot::channel();
        let outcome = async {
            let _decided = decided; // dropped once the block is decided
            let (mut fate, mut all_ended) = (Fate::Unheard, true);
            while let Some(attempt) = attempts.join_next().await {
                let Ok(heard) = attempt else {
                    all_ended = false; // after a panic the file is kept for the next start
                    continue;
                };
                if heard == Fate::Accepted && fate != Fate::Accepted {
                    count(finder.as_deref(), &heard, &found);
                }
                fate = fate.max(heard);
            }
            (fate, all_ended)
        };
        let ((fate, all_ended), file) = tokio::join!(outcome, self.keep(&found, file, decision));
        if fate != Fate::Accepted {
            count(finder.as_deref(), &fate, &found);
        }
        if let Some(file) = file.filter(|_| all_ended)
            && let Err(error) = self.spool.remove(&file)
        {
            warn!(hash = %found.hash, "file of an answered block cannot be removed: {error}");
        }
        self.open.lock().expect("no panic while the lock is held").remove(&found.hash);
        self.tell(News { parent: found.parent(), node: None, fate });
    }

    /// Records that a block is being delivered, and whether it is on disk.
    fn note(&self, found: &Found, is_kept: bool) {
        self.open.lock().expect("no panic while the lock is held").insert(found.hash.clone(), is_kept);
    }

    /// Writes a block to disk if it has no file yet. Failures are retried until the block is `decided`, as often as
    /// unresponsive nodes are, and once more when the miner ends.
    async fn keep(
        &self,
        found: &Arc<Found>,
        file: Option<PathBuf>,
        mut decided: oneshot::Receiver<Infallible>,
    ) -> Option<PathBuf> {
        if file.is_some() {
            return file;
        }
        let (mut ending, mut wait, mut failed) = (self.ending(), FIRST_WAIT.min(self.retry), false);
        loop {
            match self.write(found).await {
                Ok(file) => {
                    self.note(found, true);
                    if failed {
                        info!(hash = %found.hash, "the found block is on disk now");
                    }
                    return Some(file);
                }
                Err(error) if !failed => not_on_disk(found, &error),
                Err(_) => {}
            }
            failed = true;
            tokio::select! {
                _ = &mut decided => return None,
                () = sleep(wait) => {}
                Ok(()) = ending.changed() => {}
            }
            wait = (wait * 2).min(self.retry);
        }
    }

    /// Writes a block to disk on a blocking thread.
    async fn write(&self, found: &Arc<Found>) -> io::Result<PathBuf> {
        let (spool, block) = (self.spool.clone(), Arc::clone(found));
        let written = tokio::task::spawn_blocking(move || spool.keep(spool.write(&block)?)).await;
        written.unwrap_or_else(|error| Err(io::Error::other(error)))
    }

    /// The receiver lives as long as the deliveries.
    fn tell(&self, news: News) {
        let _ = self.news.send(news);
    }

    /// Submits to one node until it answers or may be given up.
    async fn submit(self: Arc<Self>, index: usize, found: Arc<Found>, taken: Arc<AtomicBool>) -> Fate {
        let (node, begun, mut wait) = (&self.nodes[index], Instant::now(), FIRST_WAIT.min(self.retry));
        let mut tips = self.tip.subscribe();
        loop {
            match self.ask(node, &found).await {
                Ok(answer) => return self.answered(index, &found, &answer, &taken),
                Err(trouble) => {
                    warn!(hash = %found.hash, node = node.name(), "block not delivered yet: {trouble}");
                }
            }
            let again = Instant::now() + wait;
            wait = (wait * 2).min(self.retry);
            loop {
                let depth = tips.borrow_and_update().saturating_sub(found.height);
                if may_give_up(begun.elapsed(), depth, taken.load(Ordering::Relaxed)) {
                    return Fate::Unheard;
                }
                tokio::select! {
                    () = sleep_until(again) => break,
                    () = node.comes_back() => break,
                    _ = tips.changed() => {}
                }
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
        submit(node, &found.block).await
    }

    fn answered(&self, index: usize, found: &Found, answer: &str, taken: &AtomicBool) -> Fate {
        let fate = Fate::of(answer);
        let (height, hash, node) = (found.height, &found.hash, self.nodes[index].name());
        match &fate {
            Fate::Refused(reason) => error!(height, %hash, node, "block refused: {reason}{}", hint(reason)),
            Fate::Stale => warn!(height, %hash, node, "block is stale, another one was faster ({answer})"),
            _ => info!(height, %hash, node, license = found.license, "block {answer}"),
        }
        self.board.change(index, |source| match &fate {
            Fate::Accepted => {
                source.accepted += 1;
                source.last_accepted = Some(std::time::Instant::now());
            }
            Fate::Refused(_) => source.rejected += 1,
            Fate::Stale | Fate::Unheard => source.stale += 1,
        });
        if fate >= Fate::Stale {
            taken.store(true, Ordering::Relaxed);
        }
        self.tell(News { parent: found.parent(), node: Some(index), fate: fate.clone() });
        fate
    }

    /// Becomes true when no more work is to be given out.
    pub(super) fn ending(&self) -> watch::Receiver<bool> {
        self.ending.subscribe()
    }

    /// Ends the work, and waits a limited time for deliveries in flight: logs of each unanswered block whether it is on
    /// disk.
    pub(super) async fn finish(&self, limit: Duration) {
        self.ending.send_replace(true);
        let all = async {
            loop {
                sleep(LAST_FINDS).await;
                let mut running =
                    std::mem::take(&mut *self.running.lock().expect("no panic while the lock is held"));
                if running.is_empty() {
                    return;
                }
                while running.join_next().await.is_some() {}
            }
        };
        let mut all = pin!(all);
        if timeout(limit, all.as_mut()).await.is_err() {
            for (hash, is_kept) in self.open.lock().expect("no panic while the lock is held").iter() {
                let unanswered = "a found block is not answered yet";
                match is_kept {
                    true => {
                        warn!(%hash, "{unanswered}; it is on disk and will be submitted at the next start")
                    }
                    false => {
                        error!(%hash, "{unanswered}, and it is not on disk: only this log has it, above")
                    }
                }
            }
        }
    }
}

/// Logs the file's contents: the nodes may have the block, and an operator can create the file from the log.
fn not_on_disk(found: &Found, error: &io::Error) {
    let text = serde_json::to_string(found).unwrap_or_else(|error| error.to_string());
    let Found { height, hash, .. } = found;
    let trouble = format!("found block cannot be written to disk: {error}");
    error!(target: log::WHOLE, "{trouble}; put it into found/{height}-{hash}.json: {text}");
}

/// Locks a folder for this miner; creates it if it is missing.
fn lock(datadir: &Path) -> io::Result<File> {
    DirBuilder::new().recursive(true).mode(0o700).create(datadir)?;
    let lock = File::create(datadir.join("lock"))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => {
            Err(io::Error::other("it is in use by another iop-miner; --datadir names another one"))
        }
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Counts a block for the device that found it.
fn count(finder: Option<&DeviceStats>, fate: &Fate, found: &Found) {
    let Some(finder) = finder else { return };
    match fate {
        Fate::Accepted => finder.add_accepted(difficulty(found)),
        Fate::Refused(reason) => drop(finder.add_rejected(reason)),
        Fate::Stale | Fate::Unheard => finder.add_stale(),
    }
}

/// The difficulty of the block's target; 0 if there is no header.
fn difficulty(found: &Found) -> f64 {
    let mut bits = [0; 4];
    let bits =
        found.block.get(144..152).and_then(|text| hex::decode_to_slice(text, &mut bits).ok()).map(|()| bits);
    let target =
        bits.and_then(|bits| iop_stratum::difficulty::Target::from_compact(u32::from_le_bytes(bits)));
    target.map_or(0.0, |target| target.difficulty().get())
}

/// Whether an unresponsive node need not be asked any more: the block is deep in the chain, so that the node gets it
/// from its peers; or the chain moved on without it long ago.
fn may_give_up(asked_for: Duration, depth: u32, taken: bool) -> bool {
    match taken {
        true => asked_for > PATIENCE || depth >= DEEP,
        false => asked_for > PATIENCE && depth >= DEEP,
    }
}

#[cfg(test)]
mod tests;
