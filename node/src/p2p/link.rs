//! The network's link to the chain, so that the protocol's task never waits for it.
//!
//! Lives here: three queues - headers and queries in order; transactions in order, which yield to the former; and
//! blocks, which are checked in parallel - and the chain's events as [`FromChain`]. Does not live here: what is
//! done with the answers. Data goes: [`Question`] -> a task that asks the chain -> [`FromChain`] to the manager.

use std::pin::Pin;
use std::sync::Arc;

use bitcoin::block::Header;
use bitcoin::{Block, BlockHash, Transaction, Txid};
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::net::{FromChain, PoolTx, Question, TxOutcome};
use super::peer::PeerId;
use super::score::refusal;
use super::serve::Purpose;
use super::tree::{HeaderTree, Status};
use crate::chain::actor::{ChainHandle, Stopped};
use crate::chain::clock::now;
use crate::chain::events::ChainEvent;
use crate::chain::state::ChainState;
use crate::mempool::Reject;

/// The permit of a message: its memory counts until the chain is done with it.
pub(crate) type Permit = Option<Arc<OwnedSemaphorePermit>>;

/// A question to the chain, and the permit of the message it comes from.
type Asked = (Pin<Box<dyn Future<Output = Result<FromChain, Stopped>> + Send>>, Permit);

/// The network's link to the chain.
#[derive(Clone)]
pub(crate) struct ChainLink {
    chain: ChainHandle,
    first: mpsc::UnboundedSender<Asked>,
    transactions: mpsc::UnboundedSender<Asked>,
    answers: mpsc::UnboundedSender<FromChain>,
}

/// The initial state.
pub(crate) struct Snapshot {
    pub(crate) tree: HeaderTree,
    pub(crate) pool: Vec<PoolTx>,
}

impl ChainLink {
    /// Starts the task that sends one request after another. Transactions come last: they cost their sender
    /// nothing, and the header of a new block must not wait for many of them.
    pub(crate) fn start(chain: ChainHandle, answers: mpsc::UnboundedSender<FromChain>) -> Self {
        let (first, mut before) = mpsc::unbounded_channel::<Asked>();
        let (transactions, mut behind) = mpsc::unbounded_channel::<Asked>();
        let link = Self { chain, first, transactions, answers: answers.clone() };
        tokio::spawn(async move {
            loop {
                let (question, permit) = tokio::select! {
                    biased;
                    Some(next) = before.recv() => next,
                    Some(next) = behind.recv() => next,
                    else => return,
                };
                let Ok(answer) = question.await else { return };
                drop(permit);
                if answers.send(answer).is_err() {
                    return;
                }
            }
        });
        link
    }

    /// Passes on the offset of the peers' clocks.
    pub(crate) fn correct_clock(&self, offset: i64) {
        self.chain.correct_clock(offset);
    }

    /// Everything that the network copies from the chain. Events must be subscribed to before, so that none is missed.
    pub(crate) async fn snapshot(&self) -> Result<Snapshot, Stopped> {
        self.chain.run(|state| Ok(snapshot(state))).await
    }

    /// Sends an action to the chain; `permit` is released when it is done.
    pub(crate) fn ask(&self, question: Question, permit: Permit) {
        let chain = self.chain.clone();
        // A task that takes no questions any more means that the node stops.
        match question {
            Question::Headers(peer, headers) => {
                let _ = self.first.send((Box::pin(judge_headers(chain, peer, headers)), permit));
            }
            Question::Pool(txids) => {
                let _ = self.first.send((Box::pin(read_pool(chain, txids)), permit));
            }
            Question::Tx(peer, txid, tx) => {
                let _ = self.transactions.send((Box::pin(judge_transaction(chain, peer, txid, tx)), permit));
            }
            Question::Block(peer, hash, block, requested) => {
                let answers = self.answers.clone();
                tokio::spawn(async move {
                    if let Ok(answer) = judge_block(chain, peer, hash, block, requested).await {
                        let _ = answers.send(answer);
                    }
                    drop(permit);
                });
            }
            Question::Read(hash, purpose) => self.read(hash, purpose),
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
    chain: ChainHandle,
    peer: PeerId,
    hash: BlockHash,
    block: Arc<Block>,
    requested: bool,
) -> Result<FromChain, Stopped> {
    let accepted = chain.accept_block(block.clone(), requested).await?;
    let refused = accepted.verdict.and_then(Result::err).map(|rejection| refusal(&rejection));
    Ok(FromChain::Block(peer, hash, block, accepted.stored, refused))
}

async fn judge_headers(
    chain: ChainHandle,
    peer: PeerId,
    headers: Vec<(BlockHash, Header)>,
) -> Result<FromChain, Stopped> {
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

async fn judge_transaction(
    chain: ChainHandle,
    peer: PeerId,
    txid: Txid,
    tx: Arc<Transaction>,
) -> Result<FromChain, Stopped> {
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

async fn read_pool(chain: ChainHandle, txids: Vec<Txid>) -> Result<FromChain, Stopped> {
    let (pool, min_fee) = chain.run(move |state| Ok((pool_of(state, &txids), min_fee(state)))).await?;
    Ok(FromChain::Pool(pool, min_fee))
}

fn pool_of(state: &ChainState, txids: &[Txid]) -> Vec<PoolTx> {
    let entry = |txid: &Txid| {
        let entry = state.mempool().get(txid)?;
        let (fee_rate, ancestors) = (entry.fee_rate().0, entry.ancestors.count);
        Some(PoolTx { txid: *txid, tx: entry.tx.clone(), fee_rate, ancestors })
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

/// Converts an event of the chain.
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
    use bitcoin::{absolute, transaction};
    use iop_consensus::params::Params;

    use super::*;
    use crate::chain::actor;
    use crate::storage::Storage;

    fn transaction(number: u32) -> Question {
        let lock_time = absolute::LockTime::from_consensus(number);
        let tx = Transaction { version: transaction::Version::TWO, lock_time, input: vec![], output: vec![] };
        Question::Tx(PeerId(1), tx.compute_txid(), Arc::new(tx))
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
        // The first one keeps the chain busy now.
        tokio::task::yield_now().await;
        (1..50).for_each(|number| link.ask(transaction(number), None));
        let genesis = params.genesis.block().header;
        link.ask(Question::Headers(PeerId(2), vec![(genesis.block_hash(), genesis)]), None);
        go_on.send(()).unwrap();
        let mut place = 0;
        while !matches!(answers.recv().await.unwrap(), FromChain::Headers(..)) {
            place += 1;
        }
        assert!(place <= 1, "{place} transactions came before");
        busy.await.unwrap().unwrap().unwrap();
        drop((link, chain));
        // The link's task must end first.
        tokio::task::spawn_blocking(|| thread.join()).await.unwrap().unwrap().unwrap();
    }
}
