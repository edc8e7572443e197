//! Found blocks: to every node at once, again after a failure, until they are known accepted, refused or stale. Each is
//! kept on disk meanwhile, so that it outlives the miner.

use std::fs::{DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
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
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{error, info, warn};

use crate::device::LAST_FINDS;
use crate::stats::DeviceStats;
use crate::upstream::board::Board;

/// The first wait before a block is submitted again; it doubles up to the longest, which the settings have.
const FIRST_WAIT: Duration = Duration::from_millis(500);
/// How long a node that does not answer is asked in any case when the block is decided without it.
const PATIENCE: Duration = Duration::from_secs(10 * 60);
/// Blocks above a block with which it is decided: it is deep in the chain, or passed by for good.
const DEEP: u32 = 6;
/// Characters of a node's words that are shown.
const MAX_WORDS: usize = 200;

/// A found block, as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Found {
    /// The chain that it is for.
    pub(super) chain: String,
    /// Its height.
    pub(super) height: u32,
    /// Its hash, as printed.
    pub(super) hash: String,
    /// The license that signed, as an address.
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
    /// The block that it stands on; none where there is no header.
    pub(super) fn parent(&self) -> Option<BlockHash> {
        let mut parent = [0; 32];
        hex::decode_to_slice(self.block.get(8..72)?, &mut parent).ok()?;
        Some(BlockHash::from_byte_array(parent))
    }
}

/// What a node made of a block, or what is known in the end.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fate {
    /// No node has said anything, and the chain has gone on without it.
    Unheard,
    /// Refused, with the node's words.
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

/// What happened to a block.
#[derive(Debug)]
pub(super) struct News {
    /// What the block stands on.
    pub(super) parent: Option<BlockHash>,
    /// Who said it; none for the last word of all.
    pub(super) node: Option<usize>,
    /// What it is.
    pub(super) fate: Fate,
}

/// What reject reasons that a miner can do something about mean.
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
    /// Two miners in one folder would submit and forget each other's blocks.
    _lock: File,
    chain: ChainIdentity,
    board: Arc<Board>,
    /// The longest wait between two attempts.
    retry: Duration,
    /// Height of the tip that is worked on.
    tip: watch::Sender<u32>,
    running: Mutex<JoinSet<()>>,
    ending: watch::Sender<bool>,
    news: mpsc::UnboundedSender<News>,
}

impl Deliveries {
    /// Delivers to these nodes, as long as they are on this chain; the blocks lie in `datadir` meanwhile.
    ///
    /// # Errors
    /// The folder cannot be made, or another miner uses it.
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
            Arc::new(Self { ending, nodes, spool, _lock: lock, chain, board, retry, tip, running, news }),
            receiver,
        ))
    }

    /// The chain has a tip at this height.
    pub(super) fn set_tip(&self, height: u32) {
        self.tip.send_replace(height);
    }

    /// Submits the blocks of earlier runs that may not have been answered; gives what they stand on. Those of other
    /// chains stay where they are.
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

    /// Takes a block: sends it to all nodes at once, and to the disk meanwhile where it is not there yet. Whoever
    /// found it has it counted.
    pub(super) fn deliver(
        self: &Arc<Self>,
        found: Found,
        file: Option<PathBuf>,
        finder: Option<Arc<DeviceStats>>,
    ) {
        let (deliveries, found) = (Arc::clone(self), Arc::new(found));
        let mut running = self.running.lock().expect("no panic while the lock is held");
        while running.try_join_next().is_some() {} // forget those that are done
        running.spawn(async move { deliveries.see_through(found, file, finder).await });
    }

    /// From the first attempt to the last word.
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
        let file = match file {
            Some(file) => Some(file),
            None => self.write(&found).await,
        };
        let (mut fate, mut all_ended) = (Fate::Unheard, true);
        while let Some(attempt) = attempts.join_next().await {
            let Ok(heard) = attempt else {
                all_ended = false; // a panic of a task leaves the file for the next start
                continue;
            };
            if heard == Fate::Accepted && fate != Fate::Accepted {
                count(finder.as_deref(), &heard, &found);
            }
            fate = fate.max(heard);
        }
        if fate != Fate::Accepted {
            count(finder.as_deref(), &fate, &found);
        }
        if let Some(file) = file.filter(|_| all_ended)
            && let Err(error) = self.spool.remove(&file)
        {
            warn!(hash = %found.hash, "file of an answered block cannot be removed: {error}");
        }
        self.tell(News { parent: found.parent(), node: None, fate });
    }

    /// Puts a block on the disk, which may take its time.
    async fn write(&self, found: &Arc<Found>) -> Option<PathBuf> {
        let (spool, block) = (self.spool.clone(), Arc::clone(found));
        let written = tokio::task::spawn_blocking(move || spool.keep(spool.write(&block)?)).await;
        let stored = written.unwrap_or_else(|error| Err(io::Error::other(error)));
        stored
            .inspect_err(|error| error!(hash = %found.hash, "found block cannot be written to disk: {error}"))
            .ok()
    }

    /// The upstream lives as long as its deliveries.
    fn tell(&self, news: News) {
        let _ = self.news.send(news);
    }

    /// One node, until it answers or need not.
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

    /// What a node says of a block, or why that is not known yet.
    async fn ask(&self, node: &Node, found: &Found) -> Result<String, String> {
        // A node of another chain would refuse the block for that chain's reasons. The one that templates come
        // from is known to be right; the others are asked, as they may have been replaced since.
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

    /// Comes true when no more work is to be given out.
    pub(super) fn ending(&self) -> watch::Receiver<bool> {
        self.ending.subscribe()
    }

    /// Ends the work, and waits for deliveries in flight, but not for long: what is not answered by then is on disk.
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
        if timeout(limit, all).await.is_err() {
            warn!("a found block is not answered yet; it is on disk and will be submitted at the next start");
        }
    }
}

/// Takes a folder for this miner alone, and makes it where it is missing.
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

/// Counts a block for the device that found it, once.
fn count(finder: Option<&DeviceStats>, fate: &Fate, found: &Found) {
    let Some(finder) = finder else { return };
    match fate {
        Fate::Accepted => finder.add_accepted(difficulty(found)),
        Fate::Refused(reason) => drop(finder.add_rejected(reason)),
        Fate::Stale | Fate::Unheard => finder.add_stale(),
    }
}

/// That of the block's target; 0 where there is no header.
fn difficulty(found: &Found) -> f64 {
    let mut bits = [0; 4];
    let bits =
        found.block.get(144..152).and_then(|text| hex::decode_to_slice(text, &mut bits).ok()).map(|()| bits);
    let target =
        bits.and_then(|bits| iop_stratum::difficulty::Target::from_compact(u32::from_le_bytes(bits)));
    target.map_or(0.0, |target| target.difficulty().get())
}

/// Whether a node that has not answered for so long need not be asked any more: the block is deep in the chain, so that
/// the node gets it from its peers; or it was passed by long ago.
fn may_give_up(asked_for: Duration, depth: u32, taken: bool) -> bool {
    match taken {
        true => asked_for > PATIENCE || depth >= DEEP,
        false => asked_for > PATIENCE && depth >= DEEP,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use iop_consensus::params::Params;
    use iop_mining::rpc::NodeAddress;

    use super::*;
    use crate::stats::Stats;

    fn found(chain: &str, nonce: u32) -> Found {
        let mut block = Params::devnet().genesis.block().clone();
        block.header.nonce = nonce;
        Found {
            chain: chain.into(),
            height: 7,
            hash: block.block_hash().to_string(),
            license: "license".into(),
            block: bitcoin::consensus::encode::serialize_hex(&block),
        }
    }

    fn deliveries(datadir: &Path, nodes: usize) -> (Arc<Deliveries>, mpsc::UnboundedReceiver<News>) {
        let nobody = || Node::new(NodeAddress::parse("http://u:p@127.0.0.1:1", None, 1).unwrap());
        let nodes: Arc<[Node]> = (0..nodes).map(|_| nobody()).collect();
        let board = Arc::new(Board::new([]));
        let chain = ChainIdentity::of(&Params::devnet());
        Deliveries::new(nodes, datadir, chain, board, Duration::from_millis(50)).unwrap()
    }

    fn files(datadir: &Path) -> usize {
        std::fs::read_dir(datadir.join("found")).unwrap().count()
    }

    #[test]
    fn a_block_knows_its_parent_and_its_difficulty() {
        let block = Params::devnet().genesis.block().clone();
        assert_eq!(found("x", 1).parent(), Some(block.header.prev_blockhash));
        let expected = block.header.target().difficulty_float();
        assert!((difficulty(&found("x", 1)) / expected - 1.0).abs() < 1e-6);
        let short = Found { block: "00".into(), ..found("x", 1) };
        assert_eq!((short.parent(), difficulty(&short)), (None, 0.0));
    }

    #[tokio::test]
    async fn a_block_that_no_node_answers_stays_on_disk_and_is_taken_up_by_the_next_run_of_its_chain() {
        let folder = tempfile::tempdir().unwrap();
        let chain = ChainIdentity::of(&Params::devnet()).to_string();
        let (first, _news) = deliveries(folder.path(), 1);
        first.deliver(found(&chain, 1), None, None);
        first.deliver(found("another", 2), None, None);
        first.finish(Duration::from_secs(1)).await;
        // Its tasks are stopped, and let go of the folder when they are looked at next.
        let gone = Arc::downgrade(&first);
        drop(first);
        while gone.strong_count() > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(files(folder.path()), 2);
        // A run without nodes: all have answered at once.
        let (second, mut news) = deliveries(folder.path(), 0);
        assert_eq!(second.resume(), [found(&chain, 1).parent().unwrap()]);
        assert_eq!(news.recv().await.unwrap().fate, Fate::Unheard);
        second.finish(Duration::from_secs(60)).await;
        assert_eq!(files(folder.path()), 1, "the other chain's block stays");
    }

    #[tokio::test]
    async fn a_block_is_counted_once_for_its_finder() {
        let folder = tempfile::tempdir().unwrap();
        let cpu = Stats::new().device("cpu");
        for fate in [Fate::Accepted, Fate::Stale, Fate::Refused("bad-CB-miner".into()), Fate::Unheard] {
            count(Some(&cpu), &fate, &found("x", 1));
        }
        let counts = cpu.snapshot().counts;
        assert_eq!((counts.accepted, counts.stale, counts.refused()), (1, 2, 1));
        let (none, mut news) = deliveries(folder.path(), 0);
        none.deliver(found("x", 1), None, Some(Arc::clone(&cpu)));
        assert!(news.recv().await.unwrap().node.is_none());
        assert_eq!(cpu.snapshot().counts.stale, 3);
    }

    #[test]
    fn nodes_words_have_their_meaning() {
        for (answer, fate) in [
            ("accepted", Fate::Accepted),
            ("duplicate", Fate::Accepted),
            ("inconclusive", Fate::Stale),
            ("duplicate-inconclusive", Fate::Stale),
            ("bad-CAP-miner", Fate::Refused("bad-CAP-miner".into())),
            ("duplicate-invalid", Fate::Refused("duplicate-invalid".into())),
            ("a\u{1b}[2Jb", Fate::Refused("a[2Jb".into())),
        ] {
            assert_eq!(Fate::of(answer), fate);
        }
        assert!(Fate::Accepted > Fate::Stale && Fate::Stale > Fate::of("x") && Fate::of("x") > Fate::Unheard);
    }

    #[test]
    fn a_node_that_is_away_is_asked_until_the_block_is_decided_without_it() {
        let (short, long) = (Duration::from_secs(1), PATIENCE + Duration::from_secs(1));
        for (asked_for, depth, taken, expected) in [
            (short, 0, false, false),
            (long, 5, false, false),
            (short, 6, false, false),
            (long, 6, false, true),
            (short, 0, true, false),
            (short, 6, true, true),
            (long, 0, true, true),
        ] {
            assert_eq!(may_give_up(asked_for, depth, taken), expected, "{asked_for:?} {depth} {taken}");
        }
    }
}
