//! Transactions from peers: which peer has which, and whom to request from.
//!
//! Lives here: their announcements, requests, orphans, and copies of the mempool's transactions for serving. Does not
//! live here: whether a transaction is accepted (the chain's mempool), and telling peers of it (`tell.rs`). Sources:
//! `ProcessMessage` (inv, tx), `AlreadyHave`, `AskFor`. A transaction is requested from one peer at a time, and from
//! another after a minute.
//!
//! Limits: 5,000 announced transactions per peer and 75,000 in total (150 bytes each), 120,000 refused ids (10 MB).

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use bitcoin::{Block, Transaction, Txid, Wtxid};
use tracing::debug;

use super::compact::ExtraTransactions;
use super::message::{BLOCK, Inv, Locator, MAX_REASON, Message, Reject, TX, WITNESS};
use super::net::{Net, Question, TxOutcome};
use super::orphans::Orphans;
use super::peer::{Known, Micros, PeerId, SECOND, txid_key};
use super::tell::Rank;

/// A transaction is requested from another peer after this time.
const RETRY: Micros = 60 * SECOND;
/// An announced transaction is served for this long (`vRelayExpiration`).
const KEPT: Micros = 15 * 60 * SECOND;
/// Maximum number of alternative peers remembered per transaction.
const MAX_OTHERS: usize = 8;
/// Maximum number of announced and outstanding transactions per peer.
const MAX_ANNOUNCED: usize = 5_000;
/// Maximum number of announced and outstanding transactions in total, not counting [`FAIR_SHARE`].
const MAX_REQUESTS: usize = 50_000;
/// Announced and outstanding transactions that a peer may always have, even if others have used up the total.
const FAIR_SHARE: usize = 200;
/// Maximum number of transactions of one peer under validation at a time, not counting orphans: the next is read
/// while one is judged.
const MAX_JUDGING: usize = 2;
/// Refused transactions that are remembered, per generation (`recentRejects`).
const REJECTED: usize = 60_000;
/// The lowest fee rate that is relayed, base units per 1,000 virtual bytes.
pub(super) const MIN_FEE: u64 = crate::mempool::policy::MIN_RELAY_FEE.0;

/// A request for an announced transaction.
#[derive(Debug)]
struct Request {
    /// The peer that was asked, and when.
    asked: Option<(PeerId, Micros)>,
    others: VecDeque<PeerId>,
}

/// A transaction of the mempool that can be served.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) tx: Arc<Transaction>,
    pub(super) wtxid: Wtxid,
    pub(super) fee_rate: u64,
    /// Its unconfirmed ancestors, itself included.
    pub(super) ancestors: u64,
    /// It was announced to a peer, so every peer may have it.
    pub(super) announced: bool,
}

impl Waiting {
    /// Its turn among those to be announced; `txid` is its id.
    pub(super) fn rank(&self, txid: Txid) -> Rank {
        Rank { ancestors: self.ancestors, fee_rate: Reverse(self.fee_rate), txid }
    }
}

/// The relay's state.
#[derive(Debug)]
pub(crate) struct Relay {
    pub(super) waiting: HashMap<Txid, Waiting>,
    /// Announced transactions that are no longer in the mempool, until when.
    kept: HashMap<Txid, Arc<Transaction>>,
    expiry: VecDeque<(Micros, Txid)>,
    requests: HashMap<Txid, Request>,
    /// Under validation by the chain; not submitted again.
    judging: HashSet<Wtxid>,
    pub(crate) rejected: Known<REJECTED>,
    pub(crate) orphans: Orphans,
    pub(crate) extra: ExtraTransactions,
    /// New in the mempool, to be fetched from it.
    fetch: Vec<Txid>,
    /// Those and the ones being fetched, while they are in the mempool; answers for others come too late.
    pub(crate) fetched: HashSet<Txid>,
    /// The mempool's minimum fee rate when it was last asked, base units per 1,000 virtual bytes.
    pub(super) min_fee: u64,
    /// When it is asked again.
    pub(super) next_min_fee: Micros,
}

impl Default for Relay {
    fn default() -> Self {
        Self {
            waiting: HashMap::new(),
            kept: HashMap::new(),
            expiry: VecDeque::new(),
            requests: HashMap::new(),
            judging: HashSet::new(),
            rejected: Known::default(),
            orphans: Orphans::default(),
            extra: ExtraTransactions::default(),
            fetch: Vec::new(),
            fetched: HashSet::new(),
            min_fee: MIN_FEE,
            next_min_fee: 0,
        }
    }
}

impl Relay {
    /// The mempool's transactions, for compact blocks.
    pub(crate) fn pool(&self) -> impl Iterator<Item = (Wtxid, &Arc<Transaction>)> {
        self.waiting.values().map(|waiting| (waiting.wtxid, &waiting.tx))
    }

    /// A transaction entered the mempool.
    pub(crate) fn note_accepted(&mut self, txid: Txid) {
        self.fetched.insert(txid);
        self.fetch.push(txid);
    }

    /// Takes the transactions to fetch from the mempool now.
    pub(crate) fn take_fetch(&mut self) -> Vec<Txid> {
        let mut fetch = std::mem::take(&mut self.fetch);
        fetch.retain(|txid| self.fetched.contains(txid));
        fetch
    }

    /// A transaction left the mempool other than by a block.
    pub(crate) fn forget(&mut self, txid: &Txid) {
        self.fetched.remove(txid);
        if let Some(waiting) = self.waiting.remove(txid) {
            self.extra.add(waiting.tx);
        }
    }

    /// Forgets the mempool's transactions before it is read anew.
    pub(crate) fn forget_pool(&mut self) {
        self.waiting.clear();
        self.fetch.clear();
        self.fetched.clear();
    }

    fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.requests.is_empty() && self.fetched.is_empty()
    }

    fn block_connected(&mut self, block: &Block) {
        // A new tip may make refused transactions valid.
        self.rejected.clear();
        self.orphans.block_connected(block);
    }

    /// The turn of a transaction of the mempool among those to be announced.
    pub(super) fn rank(&self, txid: &Txid) -> Option<Rank> {
        self.waiting.get(txid).map(|waiting| waiting.rank(*txid))
    }

    /// Counts ancestors anew after a block took some of them.
    fn recount_ancestors(&mut self) {
        let related = self.waiting.iter().filter(|(_, waiting)| waiting.ancestors > 1);
        let counted: Vec<(Txid, u64)> =
            related.map(|(txid, waiting)| (*txid, self.count_ancestors(&waiting.tx))).collect();
        for (txid, ancestors) in counted {
            if let Some(waiting) = self.waiting.get_mut(&txid) {
                waiting.ancestors = ancestors;
            }
        }
    }

    /// The unconfirmed ancestors of a transaction, itself included. The mempool's limits keep them few.
    fn count_ancestors(&self, tx: &Transaction) -> u64 {
        let (mut seen, mut left) = (HashSet::new(), vec![tx]);
        while let Some(tx) = left.pop() {
            for input in &tx.input {
                let parent = input.previous_output.txid;
                if let Some(waiting) = self.waiting.get(&parent)
                    && seen.insert(parent)
                {
                    left.push(&waiting.tx);
                }
            }
        }
        seen.len() as u64 + 1
    }

    fn has(&self, txid: &Txid) -> bool {
        self.rejected.contains(txid_key(txid))
            || self.waiting.contains_key(txid)
            || self.kept.contains_key(txid)
            || self.orphans.contains(txid)
    }

    pub(super) fn transaction(&self, txid: &Txid, all: bool) -> Option<&Arc<Transaction>> {
        let waiting = self.waiting.get(txid).filter(|waiting| waiting.announced || all);
        waiting.map(|waiting| &waiting.tx).or_else(|| self.kept.get(txid))
    }

    pub(super) fn note_announced(&mut self, txid: &Txid, now: Micros) {
        let Some(waiting) = self.waiting.get_mut(txid) else { return };
        if !std::mem::replace(&mut waiting.announced, true) {
            self.kept.insert(*txid, waiting.tx.clone());
            self.expiry.push_back((now + KEPT, *txid));
        }
    }

    fn expire(&mut self, now: Micros) {
        while let Some((_, txid)) = self.expiry.pop_front_if(|(until, _)| *until < now) {
            self.kept.remove(&txid);
        }
    }
}

impl Net {
    /// Drops the transactions of a connected block from pool and requests.
    pub(super) fn forget_confirmed(&mut self, block: &Block) {
        self.relay.block_connected(block);
        if self.relay.is_idle() {
            return;
        }
        let mut took = false;
        for tx in &block.txdata {
            let txid = tx.compute_txid();
            took |= self.relay.waiting.remove(&txid).is_some();
            self.relay.fetched.remove(&txid);
            self.settle(&txid);
        }
        if took {
            self.relay.recount_ancestors();
            self.peers.values_mut().for_each(|peer| peer.txs.outdated = true);
        }
    }

    pub(super) fn on_inv(&mut self, id: PeerId, list: Vec<Inv>, now: Micros) {
        let mut asked = Vec::new();
        let mut unknown_block = None;
        for inv in list {
            match inv.kind {
                BLOCK => {
                    let hash = inv.block_hash();
                    self.block_announced(id, hash);
                    let known = self.tree.find(&hash).is_some() || self.in_flight.contains_key(&hash);
                    unknown_block = if known { unknown_block } else { Some(hash) };
                }
                TX => {
                    let txid = inv.txid();
                    self.with(id, |peer| {
                        peer.txs.known.insert(txid_key(&txid));
                    });
                    if !self.initial_download && !self.relay.has(&txid) && self.want(id, txid, now) {
                        asked.push(Inv::tx(TX | self.witness_flag(id), &txid));
                    }
                }
                _ => {}
            }
        }
        // One getheaders for all unknown blocks: the answer leads to the newest.
        if let Some(stop) = unknown_block {
            let hashes = self.tree.locator(self.tree.best());
            self.send(id, Message::GetHeaders(Locator { hashes, stop }));
        }
        self.ask_transactions(id, asked);
    }

    fn ask_transactions(&mut self, id: PeerId, asked: Vec<Inv>) {
        asked.chunks(1_000).for_each(|list| self.send(id, Message::GetData(list.to_vec())));
    }

    /// Notes that a peer has a wanted transaction; returns whether to request it from this peer now.
    fn want(&mut self, id: PeerId, txid: Txid, now: Micros) -> bool {
        let Some(peer) = self.peers.get_mut(&id) else { return false };
        let room = self.relay.requests.len() < MAX_REQUESTS || peer.txs.announced < FAIR_SHARE;
        if peer.txs.announced >= MAX_ANNOUNCED {
            return false;
        }
        match self.relay.requests.get_mut(&txid) {
            Some(request) => {
                let known =
                    request.others.contains(&id) || request.asked.is_some_and(|(asked, _)| asked == id);
                if !known && request.others.len() < MAX_OTHERS {
                    request.others.push_back(id);
                    peer.txs.announced += 1;
                }
                false
            }
            None if room => {
                let request = Request { asked: Some((id, now)), others: VecDeque::new() };
                self.relay.requests.insert(txid, request);
                peer.txs.announced += 1;
                true
            }
            None => false,
        }
    }

    /// Removes the request for a transaction.
    fn settle(&mut self, txid: &Txid) {
        let Some(request) = self.relay.requests.remove(txid) else { return };
        for id in request.others.into_iter().chain(request.asked.map(|(id, _)| id)) {
            self.with(id, |peer| peer.txs.announced = peer.txs.announced.saturating_sub(1));
        }
    }

    /// Requests a transaction from the next peer, or gives up.
    fn ask_next(&mut self, txid: Txid, now: Micros) {
        let Some(request) = self.relay.requests.get_mut(&txid) else { return };
        let failed = request.asked.take().map(|(id, _)| id);
        let next = request.others.pop_front();
        request.asked = next.map(|id| (id, now));
        if let Some(failed) = failed {
            self.with(failed, |peer| peer.txs.announced = peer.txs.announced.saturating_sub(1));
        }
        match next {
            Some(id) => {
                let kind = TX | self.witness_flag(id);
                self.send(id, Message::GetData(vec![Inv::tx(kind, &txid)]));
            }
            None => drop(self.relay.requests.remove(&txid)),
        }
    }

    /// Retries requests that are older than a minute with other peers, and drops expired transactions.
    pub(super) fn retry_requests(&mut self, now: Micros) {
        let late = |request: &Request| request.asked.is_some_and(|(_, since)| since + RETRY < now);
        let requests = self.relay.requests.iter();
        let late: Vec<Txid> = requests.filter(|(_, request)| late(request)).map(|(txid, _)| *txid).collect();
        late.into_iter().for_each(|txid| self.ask_next(txid, now));
        self.relay.expire(now);
    }

    /// A peer disconnected: its requests go to other peers.
    pub(super) fn forget_requests(&mut self, id: PeerId, now: Micros) {
        let mut orphaned = Vec::new();
        for (txid, request) in &mut self.relay.requests {
            request.others.retain(|other| *other != id);
            if request.asked.is_some_and(|(asked, _)| asked == id) {
                orphaned.push(*txid);
            }
        }
        orphaned.into_iter().for_each(|txid| self.ask_next(txid, now));
    }

    pub(super) fn on_not_found(&mut self, id: PeerId, list: &[Inv], now: Micros) {
        for inv in list.iter().filter(|inv| inv.kind & !WITNESS == TX) {
            let txid = inv.txid();
            let request = self.relay.requests.get(&txid).and_then(|request| request.asked);
            if request.is_some_and(|(asked, _)| asked == id) {
                self.ask_next(txid, now);
            }
        }
    }

    pub(super) fn on_tx(&mut self, id: PeerId, txid: Txid, tx: Arc<Transaction>) {
        self.with(id, |peer| {
            peer.txs.known.insert(txid_key(&txid));
        });
        self.settle(&txid);
        if self.relay.has(&txid) {
            return;
        }
        if self.relay.judging.insert(tx.compute_wtxid()) {
            self.have_judged(id, txid, tx);
        }
    }

    /// Submits a transaction to the chain.
    fn have_judged(&mut self, id: PeerId, txid: Txid, tx: Arc<Transaction>) {
        self.with(id, |peer| peer.txs.judging += 1);
        self.ask(Question::Tx(id, txid, tx));
    }

    /// Whether a peer's next transaction, and with it all its later messages, must wait: a refused transaction
    /// costs its sender nothing, so the transactions of all peers take turns.
    pub(crate) fn must_wait(&self, id: PeerId, message: &Message) -> bool {
        matches!(message, Message::Tx(..))
            && self.peers.get(&id).is_some_and(|peer| peer.txs.judging >= MAX_JUDGING)
    }

    /// The mempool judged a transaction.
    pub(super) fn tx_judged(
        &mut self,
        id: PeerId,
        txid: Txid,
        tx: Arc<Transaction>,
        outcome: TxOutcome,
        now: Micros,
    ) {
        self.relay.judging.remove(&tx.compute_wtxid());
        self.with(id, |peer| peer.txs.judging = peer.txs.judging.saturating_sub(1));
        match outcome {
            TxOutcome::Accepted => {
                // Set on acceptance, not on arrival: refused ones may be free of charge, and peers with the newest
                // are protected from eviction (`nLastTXTime`).
                self.with(id, |peer| peer.txs.last_accepted = now);
                self.relay.orphans.erase(&txid);
                self.relay.orphans.parent_arrived(&txid);
                self.retry_orphans();
            }
            TxOutcome::Missing => self.keep_orphan(id, txid, tx, now),
            TxOutcome::Refused { code, reason, points, malleable } => {
                let was_orphan = self.relay.orphans.erase(&txid);
                let witness = tx.input.iter().any(|input| !input.witness.is_empty());
                if !witness && !malleable {
                    self.relay.rejected.insert(txid_key(&txid));
                }
                self.relay.extra.add(tx);
                debug!(peer = id.0, %txid, "transaction refused: {reason}");
                if let (Ok(code @ 1..), false) = (u8::try_from(code), was_orphan) {
                    let reason = reason.chars().take(MAX_REASON).collect();
                    let hash: &[u8; 32] = txid.as_ref();
                    let message = "tx".to_owned();
                    self.send(id, Message::Reject(Reject { message, code, reason, hash: Some(*hash) }));
                }
                self.misbehaving(id, points, "a transaction that breaks a rule", now);
            }
        }
    }

    fn keep_orphan(&mut self, id: PeerId, txid: Txid, tx: Arc<Transaction>, now: Micros) {
        if self.relay.orphans.contains(&txid) {
            return;
        }
        let parents: HashSet<Txid> = tx.input.iter().map(|input| input.previous_output.txid).collect();
        if parents.iter().any(|parent| self.relay.rejected.contains(txid_key(parent))) {
            self.relay.rejected.insert(txid_key(&txid));
            return;
        }
        let mut asked = Vec::new();
        for parent in parents {
            self.with(id, |peer| {
                peer.txs.known.insert(txid_key(&parent));
            });
            if !self.relay.has(&parent) && self.want(id, parent, now) {
                asked.push(Inv::tx(TX | self.witness_flag(id), &parent));
            }
        }
        self.ask_transactions(id, asked);
        self.relay.extra.add(tx.clone());
        self.relay.orphans.add(tx, id.0, now / SECOND, &mut self.random.0);
    }

    /// Resubmits orphans whose parents were accepted.
    pub(super) fn retry_orphans(&mut self) {
        while let Some((txid, tx, from)) = self.relay.orphans.next_to_try() {
            // Even if it is being judged: a missing parent may have arrived since.
            self.relay.judging.insert(tx.compute_wtxid());
            self.have_judged(PeerId(from), txid, tx);
        }
    }
}
