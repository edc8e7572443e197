//! The one thread that owns the chain state, and the handle to it.
//!
//! Everyone else sends a piece of work through one bounded channel and waits for its answer; work is done in
//! order of arrival, so every answer is of one state. After each, what changed is published. When the storage
//! fails the thread ends, and the node with it: nothing may be decided on a state that cannot be kept.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::thread::JoinHandle;

use bitcoin::block::Header;
use bitcoin::{Block, BlockHash, Transaction};
use iop_consensus::params::Params;
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tracing::error;

use super::checked::CheckedBlock;
use super::clock::now;
use super::events::{ChainEvent, Events};
use super::state::ChainState;
use super::verdict::{BlockAccepted, HeadersAccepted, Submitted};
use crate::mempool::{Accepted, Reject};
use crate::storage::{Storage, StorageError};
use crate::template::{Contents, Template, template_with};

/// Pieces of work that may wait; senders beyond it wait for room.
const QUEUE: usize = 256;

/// Does its part on the state and gives the reply to be sent once the change is published: whoever has an answer
/// finds what was published at least as new.
type Work = Box<dyn FnOnce(&mut ChainState) -> Result<Reply, StorageError> + Send>;
type Reply = Box<dyn FnOnce() + Send>;

/// What waiting clients want to know of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Published {
    /// The active chain's newest block.
    pub tip: BlockHash,
    /// Its height.
    pub height: u32,
    /// Grows with every change of the mempool.
    pub mempool_changes: u64,
    /// Whether that block holds nothing but its coinbase.
    pub tip_is_empty: bool,
    /// The header with most work, whether or not its block is here.
    pub best_header: BlockHash,
    /// Its height.
    pub best_header_height: u32,
    /// Whether the node is still far behind the network.
    pub initial_block_download: bool,
    /// Whether it is, and the scripts of the next blocks must be run: then their signatures are worth verifying before
    /// their turn comes.
    pub verifies_ahead: bool,
}

/// The chain thread has ended, because the node stops or its storage failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stopped;

/// How everyone reaches the chain state. Cheap to clone.
#[derive(Clone)]
pub struct ChainHandle {
    work: mpsc::Sender<Work>,
    published: watch::Receiver<Published>,
    events: Events,
    storage: Arc<Storage>,
    params: Arc<Params>,
    /// Seconds that the peers' clocks are ahead of this machine's.
    clock_offset: Arc<AtomicI64>,
}

/// Starts the thread. It ends when every handle is gone or the storage fails.
pub fn spawn(mut state: ChainState) -> (ChainHandle, JoinHandle<Result<(), StorageError>>) {
    let (work, mut queue) = mpsc::channel::<Work>(QUEUE);
    let (publish, published) = watch::channel(current(&mut state));
    let (events, storage, params) = (state.events().clone(), state.storage().clone(), state.params().clone());
    let thread = std::thread::Builder::new().name("chain".to_owned()).spawn(move || {
        let failed = |failure: &StorageError| error!("the storage failed: {failure}");
        let (sync, syncing) = spawn_sync(state.storage().clone());
        while let Some(work) = queue.blocking_recv() {
            let reply = work(&mut state).inspect_err(failed)?;
            let new = current(&mut state);
            publish.send_if_modified(|old| std::mem::replace(old, new) != new);
            reply();
            if state.take_unsynced() {
                // If one is under way or waiting, the next tip brings the next.
                let _ = sync.try_send(());
            }
        }
        drop(sync);
        let closed = state.close().inspect_err(failed);
        // It holds the database, which must be closed before the process ends.
        let _ = syncing.join();
        closed
    });
    let handle = ChainHandle { work, published, events, storage, params, clock_offset: Arc::default() };
    (handle, thread.expect("the system can start a thread"))
}

/// A thread that brings written tips to the disk, so that nobody waits for it. It ends with the sender.
fn spawn_sync(storage: Arc<Storage>) -> (std::sync::mpsc::SyncSender<()>, JoinHandle<()>) {
    let (ask, asked) = std::sync::mpsc::sync_channel(1);
    let thread = std::thread::Builder::new().name("sync".to_owned()).spawn(move || {
        while asked.recv().is_ok() {
            if let Err(failure) = storage.sync() {
                error!("the storage failed: {failure}");
                return;
            }
        }
    });
    (ask, thread.expect("the system can start a thread"))
}

fn current(state: &mut ChainState) -> Published {
    let initial_block_download = state.is_initial_block_download(now());
    let index = state.index();
    let (tip, best) = (index.get(index.tip()), index.get(index.best_header()));
    Published {
        tip: tip.hash,
        height: tip.record.height,
        mempool_changes: state.mempool().changes(),
        tip_is_empty: tip.record.tx_count == 1,
        best_header: best.hash,
        best_header_height: best.record.height,
        initial_block_download,
        verifies_ahead: initial_block_download && state.must_run_next_scripts(),
    }
}

impl ChainHandle {
    /// Runs `act` on the chain thread and gives its answer: of one consistent state, with nothing in between.
    pub async fn run<T: Send + 'static>(
        &self,
        act: impl FnOnce(&mut ChainState) -> Result<T, StorageError> + Send + 'static,
    ) -> Result<T, Stopped> {
        let (reply, answer) = oneshot::channel();
        let work: Work = Box::new(move |state| {
            let outcome = act(state)?;
            // A caller that no longer waits is no fault.
            Ok(Box::new(move || drop(reply.send(outcome))))
        });
        self.work.send(work).await.map_err(|_| Stopped)?;
        answer.await.map_err(|_| Stopped)
    }

    /// [`ChainHandle::run`] with the seconds since 1970 when it is done, by this machine's clock as peers correct it
    /// (`GetAdjustedTime`): by it blocks are judged.
    pub async fn run_at<T: Send + 'static>(
        &self,
        act: impl FnOnce(&mut ChainState, u64) -> Result<T, StorageError> + Send + 'static,
    ) -> Result<T, Stopped> {
        let offset = self.clock_offset.clone();
        self.run(move |state| act(state, now().saturating_add_signed(offset.load(Ordering::Relaxed)))).await
    }

    /// Peers' clocks are so many seconds ahead of this machine's.
    pub fn correct_clock(&self, offset: i64) {
        self.clock_offset.store(offset, Ordering::Relaxed);
    }

    /// Offers a block.
    pub async fn submit_block(&self, block: Block) -> Result<Submitted, Stopped> {
        self.run_at(move |state, now| state.submit(block, now)).await
    }

    /// Takes headers in order, parents first, until one is refused.
    pub async fn accept_headers(&self, headers: Vec<Header>) -> Result<HeadersAccepted, Stopped> {
        self.run_at(move |state, now| state.accept_headers(&headers, now)).await
    }

    /// Takes a block from a peer. It is checked alone on another thread first, so that a bad one costs the chain
    /// thread nothing. Signatures are verified ahead only of blocks that were asked for, whose headers are known to be
    /// good, and only while the node is far behind.
    pub async fn accept_block(
        &self,
        block: impl Into<Arc<Block>>,
        requested: bool,
    ) -> Result<BlockAccepted, Stopped> {
        let (block, params) = (block.into(), self.params.clone());
        let ahead = requested && self.published.borrow().verifies_ahead;
        let check = move || {
            let checked = CheckedBlock::new(block, &params);
            checked.as_ref().ok().filter(|_| ahead).inspect(|checked| checked.begin_signatures());
            checked
        };
        let checked = tokio::task::spawn_blocking(check).await.map_err(|_| Stopped)?;
        self.run_at(move |state, now| state.accept_checked(checked, requested, now)).await
    }

    /// The database, for reading blocks off the chain thread.
    pub fn storage(&self) -> &Arc<Storage> {
        &self.storage
    }

    /// Every change from now on.
    pub fn events(&self) -> broadcast::Receiver<ChainEvent> {
        self.events.subscribe()
    }

    /// Offers a transaction that pays at most `max_fee` base units.
    pub async fn offer_transaction(
        &self,
        tx: impl Into<Arc<Transaction>>,
        max_fee: u64,
    ) -> Result<Result<Accepted, Reject>, Stopped> {
        let tx = tx.into();
        self.run(move |state| state.offer(tx, max_fee, now())).await
    }

    /// What [`ChainHandle::offer_transaction`] would say; nothing changes.
    pub async fn test_transaction(
        &self,
        tx: Transaction,
        max_fee: u64,
    ) -> Result<Result<Accepted, Reject>, Stopped> {
        self.run(move |state| state.test_offer(tx, max_fee, now())).await
    }

    /// A template for the tip, with the state of the mempool that it was made from.
    pub async fn template(&self, contents: Contents) -> Result<(Template, u64), Stopped> {
        self.run_at(move |state, now| Ok((template_with(state, contents, now), state.mempool().changes())))
            .await
    }

    /// What changed last; to be waited on.
    pub fn published(&self) -> watch::Receiver<Published> {
        self.published.clone()
    }
}
