//! Transactions between peers: who has which, whom to ask, and what to tell whom.
//!
//! Lives here: announcements in and out, requests, orphans, the copies of waiting transactions that are given on. Does
//! not live here: whether a transaction is taken (the chain's mempool). Sources: `ProcessMessage` (inv, tx, mempool,
//! feefilter), `SendMessages`, `AlreadyHave`, `AskFor`. Announcements go out at random moments, so that nobody sees
//! where a transaction began. A transaction is asked of one peer at a time, and of another after a minute.
//!
//! Bounds: 5,000 announced transactions for each peer and 75,000 in all (150 bytes each), 120,000 refused ids (10 MB).

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use bitcoin::{Block, Transaction, Txid, Wtxid};
use tracing::debug;

use super::compact::ExtraTransactions;
use super::handshake::FEEFILTER_VERSION;
use super::message::{BLOCK, Inv, Locator, MAX_INV, MAX_REASON, Message, Reject, TX, WITNESS};
use super::net::{Net, PoolTx, Question, TxOutcome};
use super::orphans::Orphans;
use super::peer::{Known, Micros, PeerId, SECOND, txid_key};

/// Mean seconds between announcements to an inbound peer; half of it to others (`INVENTORY_BROADCAST_INTERVAL`).
const ANNOUNCE_EVERY: f64 = 5.0;
/// Transactions in one announcement (`INVENTORY_BROADCAST_MAX`).
const ANNOUNCE_MAX: usize = 35;
/// Announcements that may wait for one peer; more of them it learns from others.
const MAX_QUEUED: usize = 50_000;
/// A transaction is asked of another peer after this.
const RETRY: Micros = 60 * SECOND;
/// A transaction can still be had this long after it was announced (`vRelayExpiration`).
const KEPT: Micros = 15 * 60 * SECOND;
/// Other peers that are remembered for a transaction.
const MAX_OTHERS: usize = 8;
/// Announced and not yet received, of one peer.
const MAX_ANNOUNCED: usize = 5_000;
/// Announced and not yet received, in all, but for [`FAIR_SHARE`].
const MAX_REQUESTS: usize = 50_000;
/// Announced and not yet received, that a peer may always have, also where others have taken all the room.
const FAIR_SHARE: usize = 200;
/// Transactions of one peer that are with the chain at a time, but for orphans: the next is read while one is judged.
const MAX_JUDGING: usize = 2;
/// Refused transactions that are remembered, by halves (`recentRejects`).
const REJECTED: usize = 60_000;
/// Mean seconds between fee filters (`AVG_FEEFILTER_BROADCAST_INTERVAL`).
const FEE_FILTER_EVERY: f64 = 600.0;
/// The least fee rate that is relayed, base units per 1,000 virtual bytes.
const MIN_FEE: u64 = crate::mempool::policy::MIN_RELAY_FEE.0;

/// A transaction that somebody has.
#[derive(Debug)]
struct Request {
    /// Who was asked, and when.
    asked: Option<(PeerId, Micros)>,
    others: VecDeque<PeerId>,
}

/// A waiting transaction that can be given on.
#[derive(Debug)]
struct Waiting {
    tx: Arc<Transaction>,
    wtxid: Wtxid,
    fee_rate: u64,
    arrival: u64,
    /// Told to somebody, so that everybody may have it.
    announced: bool,
}

/// All that is known of transactions.
#[derive(Debug)]
pub(crate) struct Relay {
    waiting: HashMap<Txid, Waiting>,
    arrivals: u64,
    /// Announced transactions that are no longer in the mempool, until when.
    kept: HashMap<Txid, Arc<Transaction>>,
    expiry: VecDeque<(Micros, Txid)>,
    requests: HashMap<Txid, Request>,
    /// With the chain, which judges them: the same one again is not.
    judging: HashSet<Wtxid>,
    pub(crate) rejected: Known,
    pub(crate) orphans: Orphans,
    pub(crate) extra: ExtraTransactions,
    /// New in the mempool, to be fetched from there.
    fetch: Vec<Txid>,
    /// These and those under way, while they wait: what comes of others comes too late.
    pub(crate) fetched: HashSet<Txid>,
    min_fee: u64,
}

impl Default for Relay {
    fn default() -> Self {
        Self {
            waiting: HashMap::new(),
            arrivals: 0,
            kept: HashMap::new(),
            expiry: VecDeque::new(),
            requests: HashMap::new(),
            judging: HashSet::new(),
            rejected: Known::new(REJECTED),
            orphans: Orphans::default(),
            extra: ExtraTransactions::default(),
            fetch: Vec::new(),
            fetched: HashSet::new(),
            min_fee: MIN_FEE,
        }
    }
}

impl Relay {
    /// The waiting transactions, for compact blocks.
    pub(crate) fn pool(&self) -> impl Iterator<Item = (Wtxid, &Arc<Transaction>)> {
        self.waiting.values().map(|waiting| (waiting.wtxid, &waiting.tx))
    }

    /// It came into the mempool.
    pub(crate) fn note_accepted(&mut self, txid: Txid) {
        self.fetched.insert(txid);
        self.fetch.push(txid);
    }

    /// What is to be fetched from the mempool now.
    pub(crate) fn take_fetch(&mut self) -> Vec<Txid> {
        let mut fetch = std::mem::take(&mut self.fetch);
        fetch.retain(|txid| self.fetched.contains(txid));
        fetch
    }

    /// It left the mempool without a block.
    pub(crate) fn forget(&mut self, txid: &Txid) {
        self.fetched.remove(txid);
        if let Some(waiting) = self.waiting.remove(txid) {
            self.extra.add(waiting.tx);
        }
    }

    /// The mempool is read anew.
    pub(crate) fn forget_pool(&mut self) {
        self.waiting.clear();
        self.fetch.clear();
        self.fetched.clear();
    }

    fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.requests.is_empty() && self.fetched.is_empty()
    }

    fn block_connected(&mut self, block: &Block) {
        // A new tip may make good what was refused.
        self.rejected.clear();
        self.orphans.block_connected(block);
    }

    fn has(&self, txid: &Txid) -> bool {
        self.rejected.contains(txid_key(txid))
            || self.waiting.contains_key(txid)
            || self.kept.contains_key(txid)
            || self.orphans.contains(txid)
    }

    fn transaction(&self, txid: &Txid, all: bool) -> Option<&Arc<Transaction>> {
        let waiting = self.waiting.get(txid).filter(|waiting| waiting.announced || all);
        waiting.map(|waiting| &waiting.tx).or_else(|| self.kept.get(txid))
    }

    fn note_announced(&mut self, txid: &Txid, now: Micros) {
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
    /// A block's transactions neither wait nor are wanted any more.
    pub(super) fn forget_confirmed(&mut self, block: &Block) {
        self.relay.block_connected(block);
        if self.relay.is_idle() {
            return;
        }
        for tx in &block.txdata {
            let txid = tx.compute_txid();
            self.relay.waiting.remove(&txid);
            self.relay.fetched.remove(&txid);
            self.settle(&txid);
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
                        peer.known.insert(txid_key(&txid));
                    });
                    if !self.initial_download && !self.relay.has(&txid) && self.want(id, txid, now) {
                        asked.push(Inv::tx(TX | self.witness_flag(id), &txid));
                    }
                }
                _ => {}
            }
        }
        // One question for all: the answer leads to the newest.
        if let Some(stop) = unknown_block {
            let hashes = self.tree.locator(self.tree.best());
            self.send(id, Message::GetHeaders(Locator { hashes, stop }));
        }
        self.ask_transactions(id, asked);
    }

    fn ask_transactions(&mut self, id: PeerId, asked: Vec<Inv>) {
        asked.chunks(1_000).for_each(|list| self.send(id, Message::GetData(list.to_vec())));
    }

    /// A peer has a transaction that is wanted; whether to ask it now.
    fn want(&mut self, id: PeerId, txid: Txid, now: Micros) -> bool {
        let Some(peer) = self.peers.get_mut(&id) else { return false };
        let room = self.relay.requests.len() < MAX_REQUESTS || peer.announced < FAIR_SHARE;
        if peer.announced >= MAX_ANNOUNCED {
            return false;
        }
        match self.relay.requests.get_mut(&txid) {
            Some(request) => {
                let known =
                    request.others.contains(&id) || request.asked.is_some_and(|(asked, _)| asked == id);
                if !known && request.others.len() < MAX_OTHERS {
                    request.others.push_back(id);
                    peer.announced += 1;
                }
                false
            }
            None if room => {
                let request = Request { asked: Some((id, now)), others: VecDeque::new() };
                self.relay.requests.insert(txid, request);
                peer.announced += 1;
                true
            }
            None => false,
        }
    }

    /// A transaction needs not be asked for any more.
    fn settle(&mut self, txid: &Txid) {
        let Some(request) = self.relay.requests.remove(txid) else { return };
        for id in request.others.into_iter().chain(request.asked.map(|(id, _)| id)) {
            self.with(id, |peer| peer.announced = peer.announced.saturating_sub(1));
        }
    }

    /// Asks the next peer for a transaction, or gives up.
    fn ask_next(&mut self, txid: Txid, now: Micros) {
        let Some(request) = self.relay.requests.get_mut(&txid) else { return };
        let failed = request.asked.take().map(|(id, _)| id);
        let next = request.others.pop_front();
        request.asked = next.map(|id| (id, now));
        if let Some(failed) = failed {
            self.with(failed, |peer| peer.announced = peer.announced.saturating_sub(1));
        }
        match next {
            Some(id) => {
                let kind = TX | self.witness_flag(id);
                self.send(id, Message::GetData(vec![Inv::tx(kind, &txid)]));
            }
            None => drop(self.relay.requests.remove(&txid)),
        }
    }

    /// Asks others for what did not come in a minute; what was sent long ago is no longer kept.
    pub(super) fn retry_requests(&mut self, now: Micros) {
        let late = |request: &Request| request.asked.is_some_and(|(_, since)| since + RETRY < now);
        let requests = self.relay.requests.iter();
        let late: Vec<Txid> = requests.filter(|(_, request)| late(request)).map(|(txid, _)| *txid).collect();
        late.into_iter().for_each(|txid| self.ask_next(txid, now));
        self.relay.expire(now);
    }

    /// A peer is gone: others are asked.
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
            peer.known.insert(txid_key(&txid));
        });
        self.settle(&txid);
        if self.relay.has(&txid) {
            return;
        }
        if self.relay.judging.insert(tx.compute_wtxid()) {
            self.have_judged(id, txid, tx);
        }
    }

    /// Hands a transaction to the chain.
    fn have_judged(&mut self, id: PeerId, txid: Txid, tx: Arc<Transaction>) {
        self.with(id, |peer| peer.judging += 1);
        self.ask(Question::Tx(id, txid, tx));
    }

    /// Whether a peer's next transaction has to wait, and with it what the peer said behind: a refused one costs its sender
    /// nothing, and those of all peers take turns.
    pub(crate) fn must_wait(&self, id: PeerId, message: &Message) -> bool {
        matches!(message, Message::Tx(..))
            && self.peers.get(&id).is_some_and(|peer| peer.judging >= MAX_JUDGING)
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
        self.with(id, |peer| peer.judging = peer.judging.saturating_sub(1));
        match outcome {
            TxOutcome::Accepted => {
                // Not when it comes: one that is refused may cost nothing, and the newest keep a place (`nLastTXTime`).
                self.with(id, |peer| peer.last_tx = now);
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
                peer.known.insert(txid_key(&parent));
            });
            if !self.relay.has(&parent) && self.want(id, parent, now) {
                asked.push(Inv::tx(TX | self.witness_flag(id), &parent));
            }
        }
        self.ask_transactions(id, asked);
        self.relay.extra.add(tx.clone());
        self.relay.orphans.add(tx, id.0, now / SECOND, &mut self.random.0);
    }

    /// Offers orphans again whose parents came.
    pub(super) fn retry_orphans(&mut self) {
        while let Some((txid, tx, from)) = self.relay.orphans.next_to_try() {
            // Also while it is with the chain: what it waited for may have come since.
            self.relay.judging.insert(tx.compute_wtxid());
            self.have_judged(PeerId(from), txid, tx);
        }
    }

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
            for peer in self.peers.values_mut().filter(|peer| peer.is_ready() && peer.wants_txs) {
                let wanted = fee_rate >= peer.fee_filter && !peer.known.contains(txid_key(&txid));
                if wanted && peer.relay.len() < MAX_QUEUED {
                    peer.relay.insert(txid);
                }
            }
        }
    }

    /// Announces transactions to a peer when its moment has come.
    pub(super) fn trickle(&mut self, id: PeerId, now: Micros) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if now < peer.next_inv || (peer.relay.is_empty() && !peer.wants_mempool) {
            return;
        }
        let mean = if peer.inbound() { ANNOUNCE_EVERY } else { ANNOUNCE_EVERY / 2.0 };
        peer.next_inv = self.random.poisson(now, mean);
        let all = std::mem::take(&mut peer.wants_mempool);
        peer.saw_mempool |= all;
        let relay = &mut self.relay;
        let candidates: Vec<Txid> =
            if all { relay.waiting.keys().copied().collect() } else { peer.relay.iter().copied().collect() };
        // In order of arrival: parents before children.
        let mut list: Vec<(u64, Txid)> = Vec::new();
        for txid in candidates {
            let waiting = relay.waiting.get(&txid);
            match waiting.filter(|waiting| waiting.fee_rate >= peer.fee_filter) {
                Some(_) if !all && peer.known.contains(txid_key(&txid)) => drop(peer.relay.remove(&txid)),
                Some(waiting) => list.push((waiting.arrival, txid)),
                None => drop(peer.relay.remove(&txid)),
            }
        }
        list.sort_unstable();
        list.truncate(if all { MAX_INV } else { ANNOUNCE_MAX });
        let mut invs = Vec::with_capacity(list.len());
        for (_, txid) in list {
            peer.relay.remove(&txid);
            peer.known.insert(txid_key(&txid));
            relay.note_announced(&txid, now);
            invs.push(Inv::tx(TX, &txid));
        }
        if !invs.is_empty() {
            self.send(id, Message::Inv(invs));
        }
    }

    /// Gives a transaction to a peer, if it was announced or the peer asked for the whole mempool; its bytes if so.
    pub(super) fn serve_tx(&mut self, id: PeerId, inv: &Inv) -> Option<usize> {
        let all = self.peers.get(&id).is_some_and(|peer| peer.saw_mempool);
        let txid = inv.txid();
        let tx = self.relay.transaction(&txid, all).cloned()?;
        let bytes = tx.total_size();
        let message = if inv.kind & WITNESS != 0 { Message::Tx(txid, tx) } else { Message::StrippedTx(tx) };
        self.send(id, message);
        Some(bytes)
    }

    pub(super) fn on_fee_filter(&mut self, id: PeerId, rate: i64) {
        if let Some(rate) = u64::try_from(rate).ok().filter(|rate| *rate <= iop_consensus::MAX_MONEY) {
            self.with(id, |peer| peer.fee_filter = rate);
        }
    }

    /// Tells a peer now and then which fees are too low for us.
    pub(super) fn send_fee_filter(&mut self, id: PeerId, now: Micros) {
        let min_fee = self.relay.min_fee;
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if peer.version < FEEFILTER_VERSION || now < peer.next_fee_filter {
            return;
        }
        peer.next_fee_filter = self.random.poisson(now, FEE_FILTER_EVERY);
        if peer.sent_fee_filter != min_fee {
            peer.sent_fee_filter = min_fee;
            self.send(id, Message::FeeFilter(min_fee.cast_signed()));
        }
    }
}
