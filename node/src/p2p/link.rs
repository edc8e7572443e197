//! The network's way to the chain, so that the protocol's task never waits for it.
//!
//! Lives here: three ways in, of headers and questions in their order, of transactions in theirs, which wait for the
//! former, and of blocks, which are checked beside each other; and the chain's events as [`FromChain`]. Does not live
//! here: what is done with the answers. Data goes: [`Action`] -> a task that asks the chain -> [`FromChain`] to the
//! manager.

use std::sync::Arc;

use bitcoin::{Block, BlockHash, Txid};
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::net::{Action, FromChain, PoolTx, TxOutcome};
use super::peer::PeerId;
use super::score::refusal;
use super::serve::Purpose;
use super::tree::{HeaderTree, Status};
use crate::chain::actor::{ChainHandle, Stopped};
use crate::chain::clock::now;
use crate::chain::events::ChainEvent;
use crate::chain::state::ChainState;
use crate::mempool::Reject;

/// A message's permit: what it takes counts until the chain is done with it.
pub(crate) type Permit = Option<Arc<OwnedSemaphorePermit>>;

/// The way to the chain.
#[derive(Clone)]
pub(crate) struct ChainLink {
    chain: ChainHandle,
    first: mpsc::UnboundedSender<(Action, Permit)>,
    transactions: mpsc::UnboundedSender<(Action, Permit)>,
    answers: mpsc::UnboundedSender<FromChain>,
}

/// The state to begin with.
pub(crate) struct Snapshot {
    pub(crate) tree: HeaderTree,
    pub(crate) pool: Vec<PoolTx>,
}

impl ChainLink {
    /// Starts the task that asks one thing after another. Transactions cost their sender nothing, and a new block's header
    /// must not wait for many of them.
    pub(crate) fn start(chain: ChainHandle, answers: mpsc::UnboundedSender<FromChain>) -> Self {
        let (first, mut before) = mpsc::unbounded_channel::<(Action, Permit)>();
        let (transactions, mut behind) = mpsc::unbounded_channel::<(Action, Permit)>();
        let link = Self { chain, first, transactions, answers };
        let (worker, handle) = (link.clone_for_worker(), link.chain.clone());
        tokio::spawn(async move {
            loop {
                let (action, permit) = tokio::select! {
                    biased;
                    Some(next) = before.recv() => next,
                    Some(next) = behind.recv() => next,
                    else => return,
                };
                let Ok(answer) = ask(&handle, action).await else { return };
                drop(permit);
                if worker.send(answer).is_err() {
                    return;
                }
            }
        });
        link
    }

    /// Passes on what the peers' clocks say.
    pub(crate) fn correct_clock(&self, offset: i64) {
        self.chain.correct_clock(offset);
    }

    fn clone_for_worker(&self) -> mpsc::UnboundedSender<FromChain> {
        self.answers.clone()
    }

    /// Everything that the network copies from the chain. Events must be subscribed to before, so that none is missed.
    pub(crate) async fn snapshot(&self) -> Result<Snapshot, Stopped> {
        self.chain.run(|state| Ok(snapshot(state))).await
    }

    /// Passes an action on to the chain; `permit` is freed when it is done.
    pub(crate) fn ask(&self, action: Action, permit: Permit) {
        match action {
            Action::Block(peer, hash, block, requested) => {
                let (chain, answers) = (self.chain.clone(), self.answers.clone());
                tokio::spawn(async move {
                    if let Ok(answer) = judge_block(&chain, peer, hash, block, requested).await {
                        let _ = answers.send(answer);
                    }
                    drop(permit);
                });
            }
            Action::Read(hash, purpose) => self.read(hash, purpose),
            // A worker that is gone means that the node stops.
            Action::Tx(..) => drop(self.transactions.send((action, permit))),
            other => drop(self.first.send((other, permit))),
        }
    }

    fn read(&self, hash: BlockHash, purpose: Purpose) {
        let (storage, answers) = (self.chain.storage().clone(), self.answers.clone());
        tokio::task::spawn_blocking(move || {
            let bytes = storage.block_bytes(&hash).unwrap_or_else(|error| {
                tracing::error!(%hash, "a block cannot be read: {error}");
                None
            });
            let _ = answers.send(FromChain::Read(hash, purpose, bytes.map(Arc::new)));
        });
    }
}

async fn judge_block(
    chain: &ChainHandle,
    peer: PeerId,
    hash: BlockHash,
    block: Arc<Block>,
    requested: bool,
) -> Result<FromChain, Stopped> {
    let accepted = chain.accept_block(block.clone(), requested).await?;
    let refused = accepted.verdict.and_then(Result::err).map(|rejection| refusal(&rejection));
    Ok(FromChain::Block(peer, hash, block, accepted.stored, refused))
}

async fn ask(chain: &ChainHandle, action: Action) -> Result<FromChain, Stopped> {
    match action {
        Action::Headers(peer, headers) => {
            let list: Vec<_> = headers.iter().map(|(_, header)| *header).collect();
            let accept = chain.run_at(move |state, now| {
                let accepted = state.accept_headers(&list, now)?;
                let last = accepted.last.map(|id| state.index().get(id).hash);
                Ok((last, accepted.refused))
            });
            let (last, refused) = accept.await?;
            let refused = refused.map(|(hash, rejection)| (hash, refusal(&rejection)));
            Ok(FromChain::Headers(peer, headers, last, refused))
        }
        Action::Tx(peer, txid, tx) => {
            let offered = chain.offer_transaction(tx.clone(), u64::MAX).await?;
            let outcome = match offered {
                Ok(_) => TxOutcome::Accepted,
                Err(Reject::MissingInputs) => TxOutcome::Missing,
                Err(reject) => TxOutcome::Refused {
                    code: reject.code(),
                    reason: reject.reason().into_owned(),
                    points: reject.misbehaviour(),
                    malleable: reject.witness_may_differ(),
                },
            };
            Ok(FromChain::Tx(peer, txid, tx, outcome))
        }
        Action::Pool(txids) => {
            let read = chain.run(move |state| Ok((pool_of(state, &txids), min_fee(state))));
            let (pool, min_fee) = read.await?;
            Ok(FromChain::Pool(pool, min_fee))
        }
        other => unreachable!("not for the chain: {other:?}"),
    }
}

fn pool_of(state: &ChainState, txids: &[Txid]) -> Vec<PoolTx> {
    let entry = |txid: &Txid| {
        let entry = state.mempool().get(txid)?;
        Some(PoolTx { txid: *txid, tx: entry.tx.clone(), fee_rate: entry.fee_rate().0 })
    };
    txids.iter().filter_map(entry).collect()
}

fn min_fee(state: &ChainState) -> u64 {
    state.mempool().min_fee(now()).0.max(crate::mempool::MIN_FEE_PER_KVB)
}

fn snapshot(state: &ChainState) -> Snapshot {
    let index = state.index();
    let mut ids = index.ids();
    let genesis = ids.next().map(|id| *index.header(id)).expect("the index has genesis");
    let mut tree = HeaderTree::new(genesis);
    for id in ids {
        let entry = index.get(id);
        let status =
            Status { have: entry.has_block(), valid: entry.record.connected_once, failed: entry.is_failed() };
        tree.put(entry.hash, entry.record.header, status);
    }
    if let Some(tip) = tree.find(&index.get(index.tip()).hash) {
        tree.set_tip(tip);
    }
    let pool = pool_of(state, &state.mempool().txids());
    Snapshot { tree, pool }
}

/// An event of the chain as the network knows it.
pub(crate) fn news(event: ChainEvent) -> FromChain {
    match event {
        ChainEvent::Arrived { block, .. } => FromChain::Arrived(block),
        ChainEvent::Connected { block, .. } => FromChain::Connected(block),
        ChainEvent::Disconnected { block, .. } => FromChain::Disconnected(block),
        ChainEvent::Checked { hash, verdict } => {
            FromChain::Checked(hash, verdict.err().map(|rejection| refusal(&rejection)))
        }
        ChainEvent::Reconsidered(hash) => FromChain::Reconsidered(hash),
        ChainEvent::TxAccepted(txid) => FromChain::TxAccepted(txid),
        ChainEvent::TxRemoved(txid) => FromChain::TxRemoved(txid),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use bitcoin::{Transaction, absolute, transaction};
    use iop_consensus::params::Params;

    use super::*;
    use crate::chain::actor;
    use crate::storage::Storage;

    fn transaction(number: u32) -> Action {
        let lock_time = absolute::LockTime::from_consensus(number);
        let tx = Transaction { version: transaction::Version::TWO, lock_time, input: vec![], output: vec![] };
        Action::Tx(PeerId(1), tx.compute_txid(), Arc::new(tx))
    }

    #[tokio::test]
    async fn headers_wait_for_one_transaction_at_most() {
        let dir = tempfile::tempdir().unwrap();
        let params = Arc::new(Params::regtest());
        let storage = Arc::new(Storage::open(dir.path(), &params).unwrap());
        let (chain, thread) = actor::spawn(ChainState::load(params.clone(), storage).unwrap());
        let (answer, mut answers) = mpsc::unbounded_channel();
        let link = ChainLink::start(chain.clone(), answer);
        let (go_on, waits) = std::sync::mpsc::channel::<()>();
        let busy = {
            let chain = chain.clone();
            tokio::spawn(async move { chain.run(move |_| Ok(waits.recv())).await })
        };
        link.ask(transaction(0), None);
        // The first one is with the chain now, which is busy.
        tokio::task::yield_now().await;
        (1..50).for_each(|number| link.ask(transaction(number), None));
        let genesis = params.genesis.block().header;
        link.ask(Action::Headers(PeerId(2), vec![(genesis.block_hash(), genesis)]), None);
        go_on.send(()).unwrap();
        let mut place = 0;
        while !matches!(answers.recv().await.unwrap(), FromChain::Headers(..)) {
            place += 1;
        }
        assert!(place <= 1, "{place} transactions came before");
        busy.await.unwrap().unwrap().unwrap();
        drop((link, chain));
        // The link's task has to end first.
        tokio::task::spawn_blocking(|| thread.join()).await.unwrap().unwrap().unwrap();
    }
}
