//! Transactions to peers: which are announced to whom, and when.
//!
//! Lives here: announcements, the transactions that were sent at this node, serving, and fee filters. Does not live here:
//! what peers announce (`relay.rs`). Data goes: mempool or RPC -> a peer's queue -> [`Net::trickle`] at random times, to
//! hide where a transaction originated -> getdata -> [`Net::serve_tx`]. Sources: `ProcessMessage` (mempool, feefilter),
//! `SendMessages`, `RelayTransaction`.

use std::cmp::Reverse;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bitcoin::Txid;

use super::handshake::FEEFILTER_VERSION;
use super::message::{Inv, MAX_INV, Message, TX, WITNESS};
use super::net::{Net, PoolTx, Question};
use super::peer::{Micros, Peer, PeerId, SECOND, Txs, txid_key};
use super::relay::{MIN_FEE, Relay, Waiting};

/// Mean seconds between announcements to an inbound peer; half of it to others (`INVENTORY_BROADCAST_INTERVAL`).
const ANNOUNCE_EVERY: f64 = 5.0;
/// Transactions in one announcement (`INVENTORY_BROADCAST_MAX`).
const ANNOUNCE_MAX: usize = 35;
/// Announcements that may wait for one peer (4 MB). Of more, the last by [`Rank`] are left out; others tell it of
/// them.
const MAX_QUEUED: usize = 50_000;
/// Mean seconds between fee filters (`AVG_FEEFILTER_BROADCAST_INTERVAL`).
const FEE_FILTER_EVERY: f64 = 600.0;
/// When the fees that are too low have changed by a quarter or more, a peer is told within this time
/// (`MAX_FEEFILTER_CHANGE_DELAY`).
const FEE_FILTER_SOON: Micros = 5 * 60 * SECOND;
/// How often the mempool is asked for its minimum fee, which also falls with time.
const MIN_FEE_EVERY: Micros = 60 * SECOND;
/// A new peer's first fee filter waits this long for the mempool's answer.
const FIRST_FEE_FILTER_AFTER: Micros = SECOND;
/// Maximum number of remembered transactions that were sent at this node.
const MAX_OWN: usize = 1_000;

/// Transactions that were sent at this node and that no peer has fetched. Peers that connect meanwhile are told of them;
/// otherwise a transaction that was sent while no peer was connected would never be announced. Shared, since they
/// are kept in the mempool file when the node stops.
#[derive(Debug, Clone, Default)]
pub(crate) struct Own(Arc<Mutex<VecDeque<Txid>>>);

impl Own {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Txid>> {
        // The list is whole between any two steps, also where a task panicked.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn insert(&self, txid: Txid) {
        let mut own = self.lock();
        if !own.contains(&txid) {
            own.push_back(txid);
            if own.len() > MAX_OWN {
                own.pop_front();
            }
        }
    }

    fn forget(&self, txid: &Txid) {
        self.lock().retain(|own| own != txid);
    }

    /// All of them, oldest first.
    pub(super) fn list(&self) -> Vec<Txid> {
        self.lock().iter().copied().collect()
    }
}

/// A transaction's turn among those to be announced, the first one least: fewest unconfirmed ancestors, so that
/// parents come before children, then the best fee rate (`CompareDepthAndScore`). So a flood of cheap ones holds
/// up only what pays no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank {
    /// Unconfirmed ancestors, itself included.
    pub(super) ancestors: u64,
    /// Base units per 1,000 virtual bytes.
    pub(super) fee_rate: Reverse<u64>,
    pub(super) txid: Txid,
}

/// Queues a waiting transaction for a peer that may not have it; [`Net::trickle`] announces it.
fn queue(peer: &mut Peer, rank: Rank) {
    let wants = peer.is_ready() && peer.version.wants_txs && rank.fee_rate.0 >= peer.txs.fee_filter;
    if wants && !peer.txs.known.contains(txid_key(&rank.txid)) {
        peer.txs.queued.insert(rank);
        if peer.txs.queued.len() > MAX_QUEUED {
            peer.txs.queued.pop_last();
        }
    }
}

/// Takes what is announced to a peer next. What has left the mempool meanwhile is dropped.
fn take_queued(txs: &mut Txs, relay: &Relay) -> Vec<Txid> {
    if std::mem::take(&mut txs.outdated) {
        let queued = std::mem::take(&mut txs.queued);
        txs.queued = queued.iter().filter_map(|rank| relay.rank(&rank.txid)).collect();
    }
    let mut list = Vec::new();
    while list.len() < ANNOUNCE_MAX {
        let Some(queued) = txs.queued.pop_first() else { break };
        let Some(rank) = relay.rank(&queued.txid) else { continue };
        if rank > queued {
            // It left the mempool and came back with more ancestors.
            txs.queued.insert(rank);
        } else if rank.fee_rate.0 >= txs.fee_filter && txs.known.insert(txid_key(&rank.txid)) {
            list.push(rank.txid);
        }
    }
    list
}

/// The answer to a peer that asks for the whole mempool: as much of it as one message holds.
fn take_all(txs: &mut Txs, relay: &Relay) -> Vec<Txid> {
    let ranks = relay.waiting.iter().map(|(txid, waiting)| waiting.rank(*txid));
    let mut list: Vec<Rank> = ranks.filter(|rank| rank.fee_rate.0 >= txs.fee_filter).collect();
    if list.len() > MAX_INV {
        list.select_nth_unstable(MAX_INV);
        list.truncate(MAX_INV);
    }
    list.sort_unstable();
    for rank in &list {
        txs.queued.remove(rank);
        txs.known.insert(txid_key(&rank.txid));
    }
    list.into_iter().map(|rank| rank.txid).collect()
}

impl Net {
    /// Transactions that are new in the mempool: given on.
    pub(super) fn pool_grew(&mut self, transactions: Vec<PoolTx>, min_fee: u64) {
        self.relay.min_fee = min_fee.max(MIN_FEE);
        for PoolTx { txid, tx, fee_rate, ancestors } in transactions {
            let wtxid = tx.compute_wtxid();
            let waiting = Waiting { tx, wtxid, fee_rate, ancestors, announced: false };
            let rank = waiting.rank(txid);
            if self.relay.waiting.insert(txid, waiting).is_some() {
                continue;
            }
            self.peers.values_mut().for_each(|peer| queue(peer, rank));
        }
    }

    /// A transaction was sent at this node, perhaps once more: peers that may not have it are told.
    pub(crate) fn sent_here(&mut self, txid: Txid) {
        self.own_txs.insert(txid);
        if let Some(rank) = self.relay.rank(&txid) {
            self.peers.values_mut().for_each(|peer| queue(peer, rank));
        }
    }

    /// Announces to a new peer what was sent at this node and no peer has fetched yet. After some time, as to all, so that
    /// the peer cannot tell it from what this node was told.
    pub(super) fn tell_own(&mut self, id: PeerId, now: Micros) {
        let own = self.own_txs.list();
        let Some(peer) = self.peers.get_mut(&id).filter(|_| !own.is_empty()) else { return };
        for txid in own {
            if let Some(rank) = self.relay.rank(&txid) {
                queue(peer, rank);
            }
        }
        peer.txs.next_inv = self.random.poisson(now, ANNOUNCE_EVERY);
    }

    /// Announces transactions to a peer when its moment has come.
    pub(super) fn trickle(&mut self, id: PeerId, now: Micros) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if now < peer.txs.next_inv || (peer.txs.queued.is_empty() && !peer.txs.wants_mempool) {
            return;
        }
        let mean = if peer.inbound() { ANNOUNCE_EVERY } else { ANNOUNCE_EVERY / 2.0 };
        peer.txs.next_inv = self.random.poisson(now, mean);
        let all = std::mem::take(&mut peer.txs.wants_mempool);
        peer.txs.saw_mempool |= all;
        let (txs, relay) = (&mut peer.txs, &self.relay);
        let list = if all { take_all(txs, relay) } else { take_queued(txs, relay) };
        list.iter().for_each(|txid| self.relay.note_announced(txid, now));
        let invs: Vec<Inv> = list.iter().map(|txid| Inv::tx(TX, txid)).collect();
        if !invs.is_empty() {
            self.send(id, Message::Inv(invs));
        }
    }

    /// Gives a transaction to a peer, if it was announced or the peer asked for the whole mempool; its bytes if so.
    pub(super) fn serve_tx(&mut self, id: PeerId, inv: &Inv) -> Option<usize> {
        let all = self.peers.get(&id).is_some_and(|peer| peer.txs.saw_mempool);
        let txid = inv.txid();
        let tx = self.relay.transaction(&txid, all).cloned()?;
        // Others hear of it from this peer: a node that told every newcomer would show what began here.
        self.own_txs.forget(&txid);
        let bytes = tx.total_size();
        let message = if inv.kind & WITNESS != 0 { Message::Tx(txid, tx) } else { Message::StrippedTx(tx) };
        self.send(id, message);
        Some(bytes)
    }

    pub(super) fn on_fee_filter(&mut self, id: PeerId, rate: i64) {
        if let Some(rate) = u64::try_from(rate).ok().filter(|rate| *rate <= iop_consensus::MAX_MONEY) {
            self.with(id, |peer| peer.txs.fee_filter = rate);
        }
    }

    /// Asks the mempool for its minimum fee once a minute.
    pub(super) fn ask_min_fee(&mut self, now: Micros) {
        if now >= self.relay.next_min_fee {
            self.relay.next_min_fee = now + MIN_FEE_EVERY;
            self.ask(Question::Pool(Vec::new()));
        }
    }

    /// Asks for the minimum fee that a new peer is told of.
    pub(super) fn prepare_fee_filter(&mut self, id: PeerId, now: Micros) {
        self.with(id, |peer| peer.txs.next_fee_filter = now + FIRST_FEE_FILTER_AFTER);
        self.ask(Question::Pool(Vec::new()));
    }

    /// Tells a peer now and then which fees are too low for us.
    pub(super) fn send_fee_filter(&mut self, id: PeerId, now: Micros) {
        let min_fee = self.relay.min_fee;
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if peer.version.number < FEEFILTER_VERSION {
            return;
        }
        if now < peer.txs.next_fee_filter {
            let told = peer.txs.sent_fee_filter;
            let changed = min_fee < told - told / 4 || min_fee > told.saturating_add(told / 3);
            if told > 0 && changed && now + FEE_FILTER_SOON < peer.txs.next_fee_filter {
                peer.txs.next_fee_filter = now + self.random.below(FEE_FILTER_SOON);
            }
            return;
        }
        peer.txs.next_fee_filter = self.random.poisson(now, FEE_FILTER_EVERY);
        if peer.txs.sent_fee_filter != min_fee {
            peer.txs.sent_fee_filter = min_fee;
            self.send(id, Message::FeeFilter(min_fee.cast_signed()));
        }
    }
}
