//! Transactions: which peers to request from, what to announce to which, and what is kept.

use super::*;

fn some_transaction() -> Arc<Transaction> {
    Arc::new(Transaction {
        version: transaction::Version::ONE,
        lock_time: absolute::LockTime::ZERO,
        input: vec![TxIn {
            previous_output: bitcoin::OutPoint { txid: Txid::from_byte_array([1; 32]), vout: 0 },
            script_sig: ScriptBuf::new(),
            sequence: Sequence::MAX,
            witness: Witness::new(),
        }],
        output: vec![TxOut { value: bitcoin::Amount::from_sat(1), script_pubkey: ScriptBuf::new() }],
    })
}

/// A transaction as the mempool hands it over.
fn waiting(tx: &Arc<Transaction>, fee_rate: u64, ancestors: u64) -> PoolTx {
    PoolTx { txid: tx.compute_txid(), tx: tx.clone(), fee_rate, ancestors }
}

/// The transactions that are announced to a peer, in order.
fn announced_to(id: PeerId, actions: Vec<Action>) -> Vec<Txid> {
    let mut told = Vec::new();
    for message in sent_to(id, actions) {
        if let Message::Inv(list) = message {
            told.extend(list.iter().filter(|inv| inv.kind == TX).map(Inv::txid));
        }
    }
    told
}

/// A transaction that differs from others by its lock time and spends an output of another one.
fn child_of(parent: Txid, number: u32) -> Arc<Transaction> {
    let mut tx = (*some_transaction()).clone();
    tx.lock_time = absolute::LockTime::from_consensus(number);
    tx.input[0].previous_output.txid = parent;
    Arc::new(tx)
}

#[test]
fn a_transaction_is_asked_of_one_peer_and_then_of_another() {
    let mut stage = Stage::new();
    stage.net.initial_download = false;
    let (a, b, c) =
        (stage.peer(1, Origin::Inbound), stage.peer(2, Origin::Inbound), stage.peer(3, Origin::Inbound));
    let txid = Txid::from_byte_array([5; 32]);
    let inv = || Message::Inv(vec![Inv::tx(TX, &txid)]);
    stage.say(a, inv());
    let asks = |messages: &[Message]| {
        messages.iter().any(|message| matches!(message, Message::GetData(list) if list[0].txid() == txid))
    };
    assert!(asks(&stage.sent(a)));
    stage.say(b, inv());
    stage.say(c, inv());
    assert!(stage.actions().is_empty(), "one at a time");
    stage.pass(61 * SECOND);
    assert!(asks(&stage.sent(b)), "another after a minute");
    stage.say(b, Message::NotFound(vec![Inv::tx(TX | WITNESS, &txid)]));
    assert!(asks(&stage.sent(c)), "at once when the second does not have it");
    stage.net.closed(c, stage.now);
    stage.say(a, inv());
    assert!(asks(&stage.sent(a)), "anew when nobody is left");
}

/// A refused transaction may cost its sender nothing: so no peer has many judged at a time, and none is judged
/// twice at once.
#[test]
fn transactions_of_a_peer_are_judged_in_turns_and_the_same_one_once() {
    let mut stage = Stage::new();
    stage.net.initial_download = false;
    let (a, b) = (stage.peer(1, Origin::Inbound), stage.peer(2, Origin::Inbound));
    let tx = |time: u32| {
        let lock_time = absolute::LockTime::from_consensus(time);
        let tx = Transaction { version: transaction::Version::TWO, lock_time, input: vec![], output: vec![] };
        Message::Tx(tx.compute_txid(), Arc::new(tx))
    };
    stage.say(a, tx(1));
    stage.say(b, tx(1));
    let judged = stage.actions();
    let [Action::Ask(Question::Tx(from, txid, first))] = &judged[..] else { panic!("{judged:?}") };
    assert_eq!(*from, a);
    assert!(!stage.net.must_wait(a, &tx(2)));
    stage.say(a, tx(2));
    assert!(stage.net.must_wait(a, &tx(3)) && !stage.net.must_wait(a, &Message::GetAddr));
    assert!(!stage.net.must_wait(b, &tx(3)), "others do not wait for it");
    let refused = TxOutcome::Refused { code: 64, reason: "x".to_owned(), points: 0, malleable: true };
    stage.net.chain_says(FromChain::Tx(a, *txid, first.clone(), refused), stage.now);
    assert!(!stage.net.must_wait(a, &tx(3)));
    stage.actions();
    stage.say(b, tx(1));
    assert!(
        matches!(stage.actions()[..], [Action::Ask(Question::Tx(..))]),
        "another copy may have another witness"
    );
}

#[test]
fn a_transaction_is_told_to_others_and_not_back_and_given_to_who_asks() {
    let mut stage = Stage::new();
    stage.net.initial_download = false;
    let (from, to) = (stage.peer(1, Origin::Inbound), stage.peer(2, Origin::Inbound));
    let tx = some_transaction();
    let txid = tx.compute_txid();
    let ask = || Message::GetData(vec![Inv::tx(TX, &txid)]);
    stage.say(from, Message::Tx(txid, tx.clone()));
    assert!(matches!(stage.actions()[..], [Action::Ask(Question::Tx(..))]));
    stage.net.chain_says(FromChain::TxAccepted(txid), stage.now);
    stage.net.flush(stage.now);
    assert!(matches!(&stage.actions()[..], [Action::Ask(Question::Pool(list))] if list[..] == [txid]));
    stage.say(to, ask());
    assert_eq!(names(&stage.sent(to)), ["notfound"], "before it is announced nobody can know of it");
    let grown = FromChain::Pool(vec![waiting(&tx, 2_000, 1)], 0);
    stage.net.chain_says(grown, stage.now);
    stage.pass(60 * SECOND);
    let actions = stage.actions();
    let told = |actions: &[Action], id: PeerId| {
        actions.iter().any(|action| matches!(action, Action::Send(to, Message::Inv(_)) if *to == id))
    };
    assert!(told(&actions, to) && !told(&actions, from));
    stage.say(to, ask());
    assert_eq!(names(&stage.sent(to)), ["tx"]);
}

/// Peers that sent the newest transactions are protected from eviction. Only accepted transactions count: one that
/// costs its sender nothing must not win a place.
#[test]
fn only_a_transaction_that_is_taken_counts_as_the_newest_of_its_sender() {
    let mut stage = Stage::new();
    stage.net.initial_download = false;
    let id = stage.peer(1, Origin::Inbound);
    let tx = some_transaction();
    let txid = tx.compute_txid();
    let refused = TxOutcome::Refused { code: 66, reason: "x".to_owned(), points: 0, malleable: true };
    for (outcome, newest) in [(refused, 0), (TxOutcome::Accepted, stage.now)] {
        stage.say(id, Message::Tx(txid, tx.clone()));
        assert!(matches!(stage.actions()[..], [Action::Ask(Question::Tx(..))]));
        assert_eq!(stage.net.peers[&id].txs.last_accepted, 0);
        stage.net.chain_says(FromChain::Tx(id, txid, tx.clone(), outcome), stage.now);
        assert_eq!(stage.net.peers[&id].txs.last_accepted, newest);
        stage.actions();
    }
}

#[test]
fn a_late_answer_of_the_mempool_brings_nothing_back_that_is_gone() {
    let tx = some_transaction();
    let txid = tx.compute_txid();
    let header = headers_on(&genesis(), 1, 1)[0].1;
    let block = Arc::new(Block { header, txdata: vec![(*tx).clone()] });
    let answer = || FromChain::Pool(vec![waiting(&tx, 2_000, 1)], 0);
    for gone in [FromChain::TxRemoved(txid), FromChain::Connected(block)] {
        let mut stage = Stage::new();
        stage.net.chain_says(FromChain::TxAccepted(txid), stage.now);
        stage.net.flush(stage.now);
        assert!(matches!(&stage.actions()[..], [Action::Ask(Question::Pool(list))] if list[..] == [txid]));
        stage.net.chain_says(gone, stage.now);
        stage.net.chain_says(answer(), stage.now);
        assert_eq!(stage.net.relay.pool().count(), 0);
        // It may arrive again.
        stage.net.chain_says(FromChain::TxAccepted(txid), stage.now);
        stage.net.chain_says(answer(), stage.now);
        assert_eq!(stage.net.relay.pool().count(), 1);
    }
}

#[test]
fn what_is_gone_before_it_was_asked_for_is_not_asked_for() {
    let mut stage = Stage::new();
    let txid = some_transaction().compute_txid();
    stage.net.chain_says(FromChain::TxAccepted(txid), stage.now);
    stage.net.chain_says(FromChain::TxRemoved(txid), stage.now);
    stage.net.flush(stage.now);
    assert!(stage.actions().is_empty());
}

/// A transaction that was sent at a node without peers.
#[test]
fn what_was_sent_here_is_told_to_who_connects_until_one_has_fetched_it() {
    let mut stage = Stage::new();
    stage.net.initial_download = false;
    let tx = some_transaction();
    let txid = tx.compute_txid();
    stage.net.sent_here(txid);
    stage.net.chain_says(FromChain::TxAccepted(txid), stage.now);
    let grown = FromChain::Pool(vec![waiting(&tx, 2_000, 1)], 0);
    stage.net.chain_says(grown, stage.now);
    stage.actions();
    let told = |stage: &mut Stage, id: PeerId| {
        stage.pass(60 * SECOND);
        stage.sent(id).iter().any(|message| matches!(message, Message::Inv(list) if list[0].txid() == txid))
    };
    for number in 1..=2 {
        let id = stage.peer(number, Origin::Inbound);
        assert!(told(&mut stage, id));
        stage.net.sent_here(txid);
        assert!(!told(&mut stage, id), "it knows already");
    }
    stage.say(PeerId(2), Message::GetData(vec![Inv::tx(TX, &txid)]));
    assert_eq!(names(&stage.sent(PeerId(2))), ["tx"]);
    let late = stage.peer(3, Origin::Inbound);
    assert!(!told(&mut stage, late), "others tell it now, and nobody learns where it began");
}

#[test]
fn sending_once_more_tells_those_who_came_since() {
    let mut stage = Stage::new();
    stage.net.initial_download = false;
    let tx = some_transaction();
    let txid = tx.compute_txid();
    stage.net.chain_says(FromChain::TxAccepted(txid), stage.now);
    stage.net.chain_says(FromChain::Pool(vec![waiting(&tx, 2_000, 1)], 0), stage.now);
    let id = stage.peer(1, Origin::Inbound);
    stage.pass(60 * SECOND);
    assert!(!names(&stage.sent(id)).contains(&"inv".to_owned()), "it was somebody else's");
    stage.net.sent_here(txid);
    stage.pass(60 * SECOND);
    assert!(names(&stage.sent(id)).contains(&"inv".to_owned()));
}

/// 1,200 cheap transactions held a well-paying one up for three minutes.
#[test]
fn what_pays_best_is_told_first_and_parents_before_children() {
    let mut stage = Stage::new();
    let id = stage.peer(1, Origin::Inbound);
    let confirmed = Txid::from_byte_array([1; 32]);
    let mut pool: Vec<PoolTx> =
        (0..1_200).map(|number| waiting(&child_of(confirmed, number), 1_000, 1)).collect();
    let parent = child_of(confirmed, 5_000);
    let child = child_of(parent.compute_txid(), 0);
    pool.push(waiting(&child, 900_000, 2));
    pool.push(waiting(&parent, 50_000, 1));
    stage.net.pool_grew(pool, 0);
    stage.pass(60 * SECOND);
    let told = announced_to(id, stage.actions());
    assert_eq!((told.len(), told[0]), (35, parent.compute_txid()));
    assert!(!told.contains(&child.compute_txid()));
    // A block takes the parent: the child is then the best of all.
    let header = headers_on(&genesis(), 1, 1)[0].1;
    let block = Arc::new(Block { header, txdata: vec![(*parent).clone()] });
    stage.net.chain_says(FromChain::Connected(block), stage.now);
    stage.actions();
    stage.pass(60 * SECOND);
    let told = announced_to(id, stage.actions());
    assert_eq!((told.len(), told[0]), (35, child.compute_txid()));
    // What has left the mempool is not told.
    assert!(!stage.net.peers[&id].txs.queued.is_empty());
    let gone: Vec<Txid> = stage.net.relay.waiting.keys().copied().collect();
    gone.into_iter().for_each(|txid| stage.net.chain_says(FromChain::TxRemoved(txid), stage.now));
    stage.actions();
    stage.pass(60 * SECOND);
    assert!(announced_to(id, stage.actions()).is_empty());
    assert!(stage.net.peers[&id].txs.queued.is_empty() && stage.is_connected(id));
}

#[test]
fn a_full_queue_drops_what_pays_least() {
    let mut stage = Stage::new();
    let id = stage.peer(1, Origin::Inbound);
    let confirmed = Txid::from_byte_array([1; 32]);
    let cheap = (0..50_001).map(|number| waiting(&child_of(confirmed, number), 2_000, 1)).collect();
    stage.net.pool_grew(cheap, 0);
    let (worse, better) = (child_of(confirmed, 60_000), child_of(confirmed, 60_001));
    stage.net.pool_grew(vec![waiting(&worse, 1_000, 1), waiting(&better, 9_000, 1)], 0);
    let queued = &stage.net.peers[&id].txs.queued;
    assert_eq!(queued.len(), 50_000);
    assert_eq!(queued.first().map(|rank| rank.txid), Some(better.compute_txid()));
    assert!(queued.iter().all(|rank| rank.txid != worse.compute_txid()));
}

/// The mempool's minimum fee falls with time, also while no transaction comes.
#[test]
fn peers_are_told_the_minimum_fee_of_the_moment() {
    let mut stage = Stage::new();
    let told = |actions: &[Action], id: PeerId| {
        let fee = |action: &Action| match action {
            Action::Send(to, Message::FeeFilter(fee)) if *to == id => Some(*fee),
            _ => None,
        };
        actions.iter().find_map(fee)
    };
    let asks = |actions: &[Action]| {
        let asks = |action: &Action| matches!(action, Action::Ask(Question::Pool(list)) if list.is_empty());
        actions.iter().any(asks)
    };
    let address = SocketAddr::from(([8, 1, 1, 1], 14_877));
    let id = PeerId(1);
    stage.net.connected(id, address, Origin::Inbound, None, stage.now);
    stage.say(id, version(9));
    stage.say(id, Message::Verack);
    assert!(asks(&stage.actions()), "when a peer connects");
    stage.net.chain_says(FromChain::Pool(vec![], 80_000), stage.now);
    stage.pass(2 * SECOND);
    assert_eq!(told(&stage.actions(), id), Some(80_000));
    let mut last = None;
    for minute in 0..15 {
        stage.pass(60 * SECOND);
        stage.say(id, Message::GetAddr);
        let actions = stage.actions();
        assert!(asks(&actions), "in minute {minute}");
        last = told(&actions, id).or(last);
        stage.net.chain_says(FromChain::Pool(vec![], 20_000), stage.now);
        // So much less is told within five minutes, and a minute passes until the mempool is asked.
        assert!(minute < 7 || last == Some(20_000), "in minute {minute}");
    }
}
