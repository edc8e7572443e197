//! The one thread that owns the chain state, and the handle to it.
//!
//! All other threads send closures through one bounded channel and wait for the result. Closures run in order of
//! arrival, so each sees one consistent state; after each one, the changes are published. If the storage fails, the
//! thread ends and the node with it: nothing may be decided on a state that cannot be stored.

use std::sync::Arc;
use std::thread::JoinHandle;

use bitcoin::block::Header;
use bitcoin::{Block, BlockHash, Transaction};
use iop_consensus::params::Params;
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tracing::error;

use super::checked::CheckedBlock;
use super::clock::{AdjustedClock, now};
use super::events::{ChainEvent, Events};
use super::state::ChainState;
use super::verdict::{BlockAccepted, HeadersAccepted, Submitted};
use crate::mempool::{Accepted, Reject};
use crate::storage::{Storage, StorageError};
use crate::template::{Contents, Template, template_with};

/// Capacity of the queue; when it is full, senders wait.
const QUEUE: usize = 256;

/// Runs on the state and returns the reply, which is sent only after the change is published: a caller that has its
/// reply sees a published state at least that new.
type Work = Box<dyn FnOnce(&mut ChainState) -> Result<Reply, StorageError> + Send>;
type Reply = Box<dyn FnOnce() + Send>;

/// The state that waiting clients watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Published {
    /// The active chain's newest block.
    pub tip: BlockHash,
    /// Its height.
    pub height: u32,
    /// Grows with every change of the mempool.
    pub mempool_changes: u64,
    /// Whether the tip holds nothing but its coinbase.
    pub tip_is_empty: bool,
    /// The header with the most work, whether or not its block is stored.
    pub best_header: BlockHash,
    /// Its height.
    pub best_header_height: u32,
    /// Whether the node is still far behind the network.
    pub initial_block_download: bool,
    /// Whether the node is in initial block download and must run the scripts of the next blocks; only then is it
    /// worth verifying signatures ahead.
    pub verifies_ahead: bool,
}

/// The chain thread has ended, because the node stops or its storage failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stopped;

/// The handle through which other threads reach the chain state. Cheap to clone.
#[derive(Clone)]
pub struct ChainHandle {
    work: mpsc::Sender<Work>,
    published: watch::Receiver<Published>,
    events: Events,
    storage: Arc<Storage>,
    params: Arc<Params>,
    clock: AdjustedClock,
}

/// Starts the thread. It ends when every handle is dropped or the storage fails.
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
                // If a sync is running or queued already, the next tip triggers another.
                let _ = sync.try_send(());
            }
        }
        drop(sync);
        let closed = state.close().inspect_err(failed);
        // The sync thread holds the database, which must be closed before the process ends.
        let _ = syncing.join();
        closed
    });
    let handle = ChainHandle { work, published, events, storage, params, clock: AdjustedClock::default() };
    (handle, thread.expect("the system can start a thread"))
}

/// Starts a thread that syncs written tips to disk, so that nothing waits for it. It ends when the sender is
/// dropped.
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
    /// Runs `act` on the chain thread and returns its result. Nothing else runs in between, so `act` sees one
    /// consistent state.
    pub async fn run<T: Send + 'static>(
        &self,
        act: impl FnOnce(&mut ChainState) -> Result<T, StorageError> + Send + 'static,
    ) -> Result<T, Stopped> {
        let (reply, answer) = oneshot::channel();
        let work: Work = Box::new(move |state| {
            let outcome = act(state)?;
            // It is no error if the caller no longer waits.
            Ok(Box::new(move || drop(reply.send(outcome))))
        });
        self.work.send(work).await.map_err(|_| Stopped)?;
        answer.await.map_err(|_| Stopped)
    }

    /// Like [`ChainHandle::run`], but also passes the current time in seconds since 1970, by this machine's clock
    /// corrected by the peers' (`GetAdjustedTime`). Blocks are judged by this time.
    pub async fn run_at<T: Send + 'static>(
        &self,
        act: impl FnOnce(&mut ChainState, u64) -> Result<T, StorageError> + Send + 'static,
    ) -> Result<T, Stopped> {
        let clock = self.clock.clone();
        self.run(move |state| act(state, clock.now())).await
    }

    /// The time that blocks are judged by, as in [`ChainHandle::run_at`].
    pub fn now(&self) -> u64 {
        self.clock.now()
    }

    /// Sets how many seconds the peers' clocks are ahead of this machine's.
    pub fn correct_clock(&self, offset: i64) {
        self.clock.correct(offset);
    }

    /// Submits a block, as `submitblock` does.
    pub async fn submit_block(&self, block: Block) -> Result<Submitted, Stopped> {
        self.run_at(move |state, now| state.submit(block, now)).await
    }

    /// Accepts headers in order, parents first, until one is refused.
    pub async fn accept_headers(&self, headers: Vec<Header>) -> Result<HeadersAccepted, Stopped> {
        self.run_at(move |state, now| state.accept_headers(&headers, now)).await
    }

    /// Accepts a block from a peer. Its context-free checks run on another thread first, so that a bad block costs
    /// the chain thread nothing. Signatures are verified ahead only for requested blocks, whose headers are known
    /// to be valid, and only during initial block download.
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

    /// Subscribes to all changes from now on.
    pub fn events(&self) -> broadcast::Receiver<ChainEvent> {
        self.events.subscribe()
    }

    /// Offers a transaction to the mempool; it may pay at most `max_fee` base units.
    pub async fn offer_transaction(
        &self,
        tx: impl Into<Arc<Transaction>>,
        max_fee: u64,
    ) -> Result<Result<Accepted, Reject>, Stopped> {
        let tx = tx.into();
        self.run(move |state| state.offer(tx, max_fee, now())).await
    }

    /// What [`ChainHandle::offer_transaction`] would return; changes nothing.
    pub async fn test_transaction(
        &self,
        tx: Transaction,
        max_fee: u64,
    ) -> Result<Result<Accepted, Reject>, Stopped> {
        self.run(move |state| state.test_offer(tx, max_fee, now())).await
    }

    /// A template on top of the tip, with the mempool's change counter as of which it was made.
    pub async fn template(&self, contents: Contents) -> Result<(Template, u64), Stopped> {
        self.run_at(move |state, now| Ok((template_with(state, contents, now), state.mempool().changes())))
            .await
    }

    /// A watch on the latest published state.
    pub fn published(&self) -> watch::Receiver<Published> {
        self.published.clone()
    }
}
