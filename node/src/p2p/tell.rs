//! Transactions to peers: which are announced to whom, and when.
//!
//! Lives here: announcements, the transactions that were sent at this node, serving, and fee filters. Does not live here:
//! what peers announce (`relay.rs`). Data goes: mempool or RPC -> a peer's queue -> [`Net::trickle`] at random times, to
//! hide where a transaction originated -> getdata -> [`Net::serve_tx`]. Sources: `ProcessMessage` (mempool, feefilter),
//! `SendMessages`, `RelayTransaction`.

use std::collections::VecDeque;

use bitcoin::Txid;

use super::handshake::FEEFILTER_VERSION;
use super::message::{Inv, MAX_INV, Message, TX, WITNESS};
use super::net::{Net, PoolTx};
use super::peer::{Micros, Peer, PeerId, txid_key};
use super::relay::{MIN_FEE, Waiting};

/// Mean seconds between announcements to an inbound peer; half of it to others (`INVENTORY_BROADCAST_INTERVAL`).
const ANNOUNCE_EVERY: f64 = 5.0;
/// Transactions in one announcement (`INVENTORY_BROADCAST_MAX`).
const ANNOUNCE_MAX: usize = 35;
/// Announcements that may wait for one peer; more of them it learns from others.
const MAX_QUEUED: usize = 50_000;
/// Mean seconds between fee filters (`AVG_FEEFILTER_BROADCAST_INTERVAL`).
const FEE_FILTER_EVERY: f64 = 600.0;
/// Maximum number of remembered transactions that were sent at this node.
const MAX_OWN: usize = 1_000;

/// Transactions that were sent at this node and that no peer has fetched. Peers that connect meanwhile are told of them;
/// otherwise a transaction that was sent while no peer was connected would never be announced.
#[derive(Debug, Default)]
pub(crate) struct Own(VecDeque<Txid>);

impl Own {
    fn insert(&mut self, txid: Txid) {
        if !self.0.contains(&txid) {
            self.0.push_back(txid);
            if self.0.len() > MAX_OWN {
                self.0.pop_front();
            }
        }
    }

    fn forget(&mut self, txid: &Txid) {
        self.0.retain(|own| own != txid);
    }
}

/// Queues a waiting transaction for a peer that may not have it; [`Net::trickle`] announces it.
fn queue(peer: &mut Peer, txid: Txid, fee_rate: u64) {
    let wants = peer.is_ready() && peer.version.wants_txs && fee_rate >= peer.txs.fee_filter;
    if wants && !peer.txs.known.contains(txid_key(&txid)) && peer.txs.queued.len() < MAX_QUEUED {
        peer.txs.queued.insert(txid);
    }
}

impl Net {
    /// Transactions that are new in the mempool: given on.
    pub(super) fn pool_grew(&mut self, transactions: Vec<PoolTx>, min_fee: u64) {
        self.relay.min_fee = min_fee.max(MIN_FEE);
        for PoolTx { txid, tx, fee_rate } in transactions {
            self.relay.arrivals += 1;
            let (wtxid, arrival) = (tx.compute_wtxid(), self.relay.arrivals);
            let waiting = Waiting { tx, wtxid, fee_rate, arrival, announced: false };
            if self.relay.waiting.insert(txid, waiting).is_some() {
                continue;
            }
            self.peers.values_mut().for_each(|peer| queue(peer, txid, fee_rate));
        }
    }

    /// A transaction was sent at this node, perhaps once more: peers that may not have it are told.
    pub(crate) fn sent_here(&mut self, txid: Txid) {
        self.own_txs.insert(txid);
        if let Some(waiting) = self.relay.waiting.get(&txid) {
            self.peers.values_mut().for_each(|peer| queue(peer, txid, waiting.fee_rate));
        }
    }

    /// Announces to a new peer what was sent at this node and no peer has fetched yet. After some time, as to all, so that
    /// the peer cannot tell it from what this node was told.
    pub(super) fn tell_own(&mut self, id: PeerId, now: Micros) {
        let Some(peer) = self.peers.get_mut(&id).filter(|_| !self.own_txs.0.is_empty()) else { return };
        for txid in &self.own_txs.0 {
            if let Some(waiting) = self.relay.waiting.get(txid) {
                queue(peer, *txid, waiting.fee_rate);
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
        let relay = &mut self.relay;
        let candidates: Vec<Txid> = if all {
            relay.waiting.keys().copied().collect()
        } else {
            peer.txs.queued.iter().copied().collect()
        };
        // In order of arrival: parents before children.
        let mut list: Vec<(u64, Txid)> = Vec::new();
        for txid in candidates {
            let waiting = relay.waiting.get(&txid);
            match waiting.filter(|waiting| waiting.fee_rate >= peer.txs.fee_filter) {
                Some(waiting) if all || !peer.txs.known.contains(txid_key(&txid)) => {
                    list.push((waiting.arrival, txid));
                }
                _ => _ = peer.txs.queued.remove(&txid),
            }
        }
        list.sort_unstable();
        list.truncate(if all { MAX_INV } else { ANNOUNCE_MAX });
        let mut invs = Vec::with_capacity(list.len());
        for (_, txid) in list {
            peer.txs.queued.remove(&txid);
            peer.txs.known.insert(txid_key(&txid));
            relay.note_announced(&txid, now);
            invs.push(Inv::tx(TX, &txid));
        }
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

    /// Tells a peer now and then which fees are too low for us.
    pub(super) fn send_fee_filter(&mut self, id: PeerId, now: Micros) {
        let min_fee = self.relay.min_fee;
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if peer.version.number < FEEFILTER_VERSION || now < peer.txs.next_fee_filter {
            return;
        }
        peer.txs.next_fee_filter = self.random.poisson(now, FEE_FILTER_EVERY);
        if peer.txs.sent_fee_filter != min_fee {
            peer.txs.sent_fee_filter = min_fee;
            self.send(id, Message::FeeFilter(min_fee.cast_signed()));
        }
    }
}
