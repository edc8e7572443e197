//! The one thread that owns the chain state, and the handle to it.
//!
//! Everyone else sends a piece of work through one bounded channel and waits for its answer; work is done in
//! order of arrival, so every answer is of one state. After each, what changed is published. When the storage
//! fails the thread ends, and the node with it: nothing may be decided on a state that cannot be kept.

use std::thread::JoinHandle;
use std::time::{SystemTime, UNIX_EPOCH};

use bitcoin::{Block, BlockHash, Transaction, Txid};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::error;

use super::state::ChainState;
use super::verdict::Submitted;
use crate::mempool::Reject;
use crate::storage::StorageError;
use crate::template::{Template, template};

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
}

/// The chain thread has ended, because the node stops or its storage failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stopped;

/// How everyone reaches the chain state. Cheap to clone.
#[derive(Clone)]
pub struct ChainHandle {
    work: mpsc::Sender<Work>,
    published: watch::Receiver<Published>,
}

/// Seconds since 1970 by this machine's clock.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Starts the thread. It ends when every handle is gone or the storage fails.
pub fn spawn(mut state: ChainState) -> (ChainHandle, JoinHandle<Result<(), StorageError>>) {
    let (work, mut queue) = mpsc::channel::<Work>(QUEUE);
    let (publish, published) = watch::channel(current(&state));
    let thread = std::thread::Builder::new().name("chain".to_owned()).spawn(move || {
        while let Some(work) = queue.blocking_recv() {
            let reply = work(&mut state).inspect_err(|failure| error!("the storage failed: {failure}"))?;
            let new = current(&state);
            publish.send_if_modified(|old| std::mem::replace(old, new) != new);
            reply();
        }
        Ok(())
    });
    (ChainHandle { work, published }, thread.expect("the system can start a thread"))
}

fn current(state: &ChainState) -> Published {
    let tip = state.index().get(state.index().tip());
    Published { tip: tip.hash, height: tip.record.height, mempool_changes: state.mempool().changes() }
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

    /// Offers a block.
    pub async fn submit_block(&self, block: Block) -> Result<Submitted, Stopped> {
        self.run(move |state| state.submit(block, now())).await
    }

    /// Offers a transaction that pays at most `max_fee` base units.
    pub async fn offer_transaction(
        &self,
        tx: Transaction,
        max_fee: u64,
    ) -> Result<Result<Txid, Reject>, Stopped> {
        self.run(move |state| state.offer(tx, max_fee, now())).await
    }

    /// A template for the tip, with the state of the mempool that it was made from.
    pub async fn template(&self) -> Result<(Template, u64), Stopped> {
        self.run(|state| Ok((template(state, now()), state.mempool().changes()))).await
    }

    /// What changed last; to be waited on.
    pub fn published(&self) -> watch::Receiver<Published> {
        self.published.clone()
    }
}
