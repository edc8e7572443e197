//! The ledger as a whole: what is committed stays, and an audit agrees with it or says what is wrong.
#![allow(clippy::unwrap_used)]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bitcoin::BlockHash;
use bitcoin::hashes::Hash;
use iop_consensus::address::{Address, Prefixes};
use iop_consensus::params::Params;
use iop_stratum::difficulty::Difficulty;

use super::audit::{Report, audit};
use super::book::{Entry, Facts, Finding, Plan, Record};
use super::plan::Request;
use super::queue::Accepted;
use super::split::tests::{member, rules};
use super::split::{Input, Split};
use super::store::{Batch, BlockId, Store};
use super::window::wanted_work;
use super::writer::Writer;
use super::*;

thread_local! {
    /// Folders of this test, removed with its thread.
    static FOLDERS: RefCell<Vec<tempfile::TempDir>> = const { RefCell::new(Vec::new()) };
}

/// A devnet ledger in a folder that is removed with the test.
pub(crate) fn temporary() -> Arc<Ledger> {
    let folder = tempfile::tempdir().unwrap();
    let (ledger, _) = Ledger::open(folder.path(), rules(), prefixes()).unwrap();
    FOLDERS.with_borrow_mut(|folders| folders.push(folder));
    ledger
}

/// A ledger of devnet in a folder.
pub(crate) fn open(folder: &Path) -> (Arc<Ledger>, Writer) {
    Ledger::open(folder, rules(), prefixes()).unwrap()
}

/// A block of the chapter's alone.
pub(crate) fn record(ledger: &Ledger, height: u32, hash: &str) -> Record {
    let request = request(None, 5000);
    let id = BlockId { height, hash: hash.parse().unwrap() };
    let user = member(1).to_base58(&prefixes());
    let finding = Finding { time: 5, license: member(100), finder: &user };
    Arc::new(ledger.plan(&request).unwrap()).record(id, finding, &prefixes())
}

fn prefixes() -> Prefixes {
    Params::devnet().prefixes
}

/// A template's request on a base, for any finder.
fn request(base: Option<BlockId>, reward: u64) -> Request {
    Request { base, reward, room: 10, chapter: member(200), solo: None }
}

fn difficulty(value: f64) -> Difficulty {
    Difficulty::new(value).unwrap()
}

mod accounts;
mod durable;
mod model;
mod periods;

/// A pool without sockets: shares are logged, and blocks are found with the current plan.
struct Pool {
    ledger: Arc<Ledger>,
    writer: Option<Writer>,
    ticket: Arc<Ticket>,
    next: u64,
    /// When blocks are found, in seconds since 1970.
    clock: u64,
}

impl Pool {
    fn open(folder: &Path, rules: Rules) -> Self {
        let (ledger, writer) = Ledger::open(folder, rules, prefixes()).unwrap();
        let next = ledger.log_state().logged;
        ledger.build_on(ledger.read(|_, book| book.base()), difficulty(8.0)).unwrap();
        Self { ledger, writer: Some(writer), ticket: Arc::default(), next, clock: 5 }
    }

    fn close(mut self) {
        self.writer.take().unwrap().close();
    }

    fn share(&mut self, number: u8, work: f64, height: u32, block: Option<Arc<Record>>) {
        let member = member(number);
        let user = self.ledger.user(&format!("{}.rig{}", member.to_base58(&prefixes()), number % 3), member);
        let mut hash = [0; 16];
        hash[..8].copy_from_slice(&self.next.to_le_bytes());
        self.next += 1;
        let (ticket, difficulty) = (Arc::clone(&self.ticket), difficulty(work));
        self.ledger.log(Accepted { user, time: self.next, difficulty, height, hash, block, ticket });
    }

    /// Waits until all shares are committed.
    fn wait(&self) {
        while self.ledger.log_state().logged < self.next {
            std::thread::yield_now();
        }
    }

    /// Finds a block on a base, by a member, with all shares so far in its window.
    fn block(&mut self, base: Option<BlockId>, finder: u8, reward: u64) -> BlockId {
        self.wait();
        let height = base.map_or(1, |base| base.height + 1);
        let request = Request { solo: Some(member(finder)), ..request(base, reward) };
        let plan = Arc::new(self.ledger.plan(&request).unwrap());
        let outputs: u64 = plan.outputs().iter().map(|(_, amount)| amount).sum();
        assert_eq!(outputs, reward);
        let hash = BlockHash::hash(&[&self.next.to_le_bytes()[..], &height.to_le_bytes()].concat());
        let id = BlockId { height, hash };
        let user = format!("{}.rig{}", member(finder).to_base58(&prefixes()), finder % 3);
        let finding = Finding { time: self.clock, license: member(100), finder: &user };
        let record = Arc::new(plan.record(id, finding, &prefixes()));
        self.share(finder, 1.0, height, Some(record));
        self.wait();
        id
    }

    /// Lets templates build on a block from now on.
    fn stand_on(&self, base: Option<BlockId>) {
        self.ledger.build_on(base, difficulty(8.0)).unwrap();
        assert_eq!(self.ledger.read(|_, book| book.base()), base);
        // A late request for an earlier template moves nothing.
        for solo in [None, Some(member(1))] {
            self.ledger.plan(&Request { solo, ..request(None, 0) }).unwrap();
            assert_eq!(self.ledger.read(|_, book| book.base()), base);
        }
    }
}

fn audited(folder: &Path) -> Report {
    audit(&Store::open_to_read(folder).unwrap(), &prefixes()).unwrap()
}

/// Counts its shares.
#[derive(Debug, Default)]
struct Counter {
    ticket: Arc<Ticket>,
    committed: AtomicU64,
    panics: bool,
}

impl Waiter for Counter {
    fn on_committed(&self) {
        self.committed.fetch_add(self.ticket.take(), Ordering::Relaxed);
        assert!(!self.panics, "as a bug would");
    }
}

/// Drops itself when it is notified, and panics.
#[derive(Debug)]
struct Leaver(Mutex<Option<Arc<Leaver>>>);

impl Waiter for Leaver {
    fn on_committed(&self) {
        let itself = self.0.lock().unwrap().take();
        drop(itself);
    }
}

impl Drop for Leaver {
    fn drop(&mut self) {
        panic!("as a bug would");
    }
}

/// On one thread, so that the task has started when the shares come.
#[tokio::test]
async fn each_who_waits_hears_of_all_its_shares_though_others_panic_or_are_gone() {
    let folder = tempfile::tempdir().unwrap();
    let mut pool = Pool::open(folder.path(), rules());
    let task = tokio::spawn(Arc::clone(&pool.ledger).pass_wakes_on());
    tokio::task::yield_now().await;
    let waiters = [false, true, false].map(|panics| Arc::new(Counter { panics, ..Counter::default() }));
    for waiter in &waiters {
        waiter.ticket.belongs_to(waiter);
    }
    let [bad, gone] = [1, 2].map(|index| Arc::clone(&waiters[index].ticket));
    let [good, bad_waiter, last] = waiters;
    drop(last);
    let (leaving, leaver) = (Arc::new(Ticket::default()), Arc::new(Leaver(Mutex::default())));
    leaving.belongs_to(&leaver);
    *leaver.0.lock().unwrap() = Some(Arc::clone(&leaver));
    drop(leaver);
    for _ in 0..100 {
        for ticket in [&gone, &bad, &leaving, &good.ticket] {
            pool.ticket = Arc::clone(ticket);
            pool.share(1, 1.0, 1, None);
        }
        pool.wait();
        tokio::task::yield_now().await;
    }
    let told = async {
        while good.committed.load(Ordering::Relaxed) < 100 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        bad.changed().await;
        gone.changed().await;
    };
    tokio::time::timeout(Duration::from_secs(20), told).await.expect("all are told");
    assert_eq!(bad_waiter.committed.load(Ordering::Relaxed), 100);
    assert_eq!(gone.take(), 100, "as much is left to whoever waits for the change");
    task.abort();
    pool.close();
}

#[test]
fn committed_shares_are_there_after_the_process_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let mut pool = Pool::open(folder.path(), rules());
    for number in 0..1000u32 {
        pool.share((number % 7) as u8, 1.0, 1, None);
    }
    let mut committed = 0;
    while committed < 1000 {
        committed += pool.ticket.take();
        std::thread::yield_now();
    }
    // While the pool runs, as after its end without any shutdown: nothing was closed.
    let store = Store::open_to_read(folder.path()).unwrap();
    let mut found = Vec::new();
    store
        .read_shares(0, |number, share| {
            found.push((number, share));
            true
        })
        .unwrap();
    assert_eq!(found.len(), 1000);
    assert!(
        found.iter().zip(0..).all(|((number, share), expected)| *number == expected && share.work == 1 << 32)
    );
    assert_eq!(store.users().unwrap().len(), 7);
    pool.close();
    let report = audited(folder.path());
    assert_eq!((report.shares, report.users, report.is_clean()), (1000, 7, true), "{report:?}");
}

#[test]
fn a_reopened_ledger_goes_on_where_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let mut base = None;
    for round in 0..4u8 {
        let mut pool = Pool::open(folder.path(), rules());
        for number in 0..40 {
            pool.share(number % 5 + round, 0.5, u32::from(round), None);
        }
        base = Some(pool.block(base, round, 1_000_000));
        pool.stand_on(base);
        assert_eq!(pool.ledger.next_height(), u32::from(round) + 2);
        pool.close();
    }
    let report = audited(folder.path());
    assert!(report.is_clean(), "{report:?}");
    assert_eq!((report.blocks, report.in_chain, report.rewards), (4, 4, 4_000_000));
}

#[test]
fn an_orphaned_block_takes_its_payments_back() {
    let folder = tempfile::tempdir().unwrap();
    let mut pool = Pool::open(folder.path(), Rules { min_payout: 400_000, fee: 0, ..rules() });
    (0..6).for_each(|number| pool.share(number % 3, 1.0, 1, None));
    let first = pool.block(None, 0, 999_999);
    pool.stand_on(Some(first));
    let owed = |pool: &Pool| pool.ledger.read(|_, book| book.carried().values().sum::<u64>());
    assert_eq!(owed(&pool), 999_999, "a third each, and that is too little to pay");
    let second = pool.block(Some(first), 1, 999_999);
    pool.stand_on(Some(second));
    assert!(owed(&pool) < 2 * 999_999, "now somebody is paid");
    pool.stand_on(Some(first));
    assert_eq!(owed(&pool), 999_999, "the second is orphaned");
    let other = pool.block(Some(first), 2, 999_999);
    pool.stand_on(Some(other));
    let view = serde_json::to_value(pool.ledger.payouts(4).unwrap()).unwrap();
    let states: Vec<&str> =
        view["blocks"].as_array().unwrap().iter().map(|b| b["state"].as_str().unwrap()).collect();
    assert_eq!(states.iter().filter(|state| **state == "orphaned").count(), 1, "{states:?}");
    let account = serde_json::to_value(pool.ledger.member(&member(0), 4, 1000, 9).unwrap()).unwrap();
    let (earned, paid, balance) =
        (&account["earned"], &account["paid"], account["balance"].as_u64().unwrap());
    assert_eq!(earned.as_u64().unwrap(), paid.as_u64().unwrap() + balance, "{account}");
    pool.close();
    let report = audited(folder.path());
    assert!(report.is_clean() && report.blocks == 3 && report.in_chain == 2, "{report:?}");
}

#[test]
fn a_block_of_a_pool_that_was_killed_is_taken_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut pool = Pool::open(folder.path(), rules());
    (0..6).for_each(|number| pool.share(number % 3, 1.0, 1, None));
    pool.wait();
    pool.ledger.build_on(None, difficulty(1.0)).unwrap();
    let plan = Arc::new(pool.ledger.plan(&request(None, 5000)).unwrap());
    let id = BlockId { height: 1, hash: BlockHash::hash(b"found") };
    let user = member(1).to_base58(&prefixes());
    let finding = Finding { time: 5, license: member(100), finder: &user };
    let record = plan.record(id, finding, &prefixes());
    let kept: Entry = serde_json::from_str(&serde_json::to_string(&record.entry()).unwrap()).unwrap();
    assert_eq!(kept, record.entry(), "it survives in a file");
    let members = ["credits", "carried", &member(1).to_base58(&prefixes())[1..]];
    let text =
        serde_json::to_string(&Entry { facts: Facts { finder: String::new(), ..kept.facts.clone() }, id })
            .unwrap();
    assert!(members.iter().all(|word| !text.contains(word)), "as long for a million members: {text}");
    pool.share(1, 1.0, 1, None);
    pool.wait();
    for (facts, reason) in [
        (Facts { base: Some(BlockId { height: 0, ..id }), ..record.facts.clone() }, "stands on is missing"),
        (Facts { chapter: 1, ..record.facts.clone() }, "the log makes other payments"),
        (Facts { ends: 99, ..record.facts.clone() }, "are not all there"),
    ] {
        let refused = pool.ledger.adopt_again(&Entry { id, facts }).unwrap_err().to_string();
        assert!(refused.contains(reason), "{refused}");
    }
    assert_eq!(pool.ledger.adopt_again(&kept), Ok(true));
    assert_eq!(pool.ledger.adopt_again(&kept), Ok(false));
    pool.stand_on(Some(id));
    pool.close();
    let report = audited(folder.path());
    assert!(report.is_clean() && report.in_chain == 1, "{report:?}");
}

#[test]
fn a_template_stands_on_a_block_that_the_log_does_not_have_yet() {
    let folder = tempfile::tempdir().unwrap();
    let mut pool = Pool::open(folder.path(), Rules { min_payout: 400_000, fee: 0, ..rules() });
    (0..6).for_each(|number| pool.share(number % 3, 1.0, 1, None));
    let first = pool.block(None, 0, 999_999);
    pool.stand_on(Some(first));
    let request = request(Some(first), 999_999);
    let plan = Arc::new(pool.ledger.plan(&request).unwrap());
    let id = BlockId { height: 2, hash: BlockHash::hash(b"second") };
    let user = member(1).to_base58(&prefixes());
    let record =
        Arc::new(plan.record(id, Finding { time: 5, license: member(100), finder: &user }, &prefixes()));
    pool.ledger.announce(Arc::clone(&record));
    // The node has it at once and returns the next template; the log is slow.
    assert!(pool.ledger.has_block(&id) && !pool.ledger.has_stored(&id));
    assert_eq!(pool.ledger.height_below(3), Some(2));
    pool.ledger.build_on(Some(id), difficulty(8.0)).unwrap();
    let next = pool.ledger.plan(&Request { base: Some(id), ..request }).unwrap();
    assert_eq!(
        (next.terms.base, pool.ledger.read(|_, book| (*book.carried()).clone())),
        (Some(id), (**record.carried()).clone())
    );
    let noted = || Store::open_to_read(folder.path()).unwrap().base().unwrap();
    assert_eq!(noted(), Some(first), "killed now, the ledger would not know the other");
    pool.share(1, 1.0, 2, Some(Arc::clone(&record)));
    pool.wait();
    assert!(pool.ledger.has_stored(&id));
    assert_eq!(noted(), Some(id));
    // A block that no node was given.
    let other = BlockId { height: 3, hash: BlockHash::hash(b"left out") };
    pool.ledger.announce(Arc::new(Record { id: other, ..Record::clone(&record) }));
    pool.ledger.withdraw(&other);
    pool.ledger.withdraw(&id);
    assert!(!pool.ledger.has_block(&other) && pool.ledger.has_block(&id));
    pool.close();
    let report = audited(folder.path());
    assert!(report.is_clean() && report.in_chain == 2, "{report:?}");
}

#[test]
fn an_audit_names_what_was_changed() {
    let folder = tempfile::tempdir().unwrap();
    let mut pool = Pool::open(folder.path(), rules());
    (0..20).for_each(|number| pool.share(number % 4, 1.0, 1, None));
    let block = pool.block(None, 0, 1_000_000);
    pool.stand_on(Some(block));
    pool.close();
    assert!(audited(folder.path()).is_clean());
    let change = |change: &dyn Fn(&Store, &mut Batch)| {
        let store = Store::open(folder.path()).unwrap();
        let mut batch = Batch::default();
        change(&store, &mut batch);
        store.write(batch, true).unwrap();
        drop(store);
        audited(folder.path()).mistakes.join("\n")
    };
    let mut shares = Vec::new();
    Store::open_to_read(folder.path())
        .unwrap()
        .read_shares(0, |_, share| {
            shares.push(share);
            true
        })
        .unwrap();
    // A share of the window gets more work than it had.
    let heavier = Share { work: shares[9].work * 3, ..shares[9] };
    let said = change(&|store, batch| store.put_share(batch, 9, heavier));
    assert!(said.contains("expected") && said.contains("at height 1"), "{said}");
    // A share is counted twice.
    let said = change(&|store, batch| store.put_share(batch, 9, Share { hash: shares[3].hash, ..shares[9] }));
    assert!(said.contains("share 9 was counted before"), "{said}");
    let said = change(&|store, batch| store.put_share(batch, 9, shares[9]));
    assert_eq!(said, "", "as it was");
    // A share of an unknown user.
    let said = change(&|store, batch| store.put_share(batch, 20, Share { user: UserId(77), ..shares[20] }));
    assert!(said.contains("share 20 is of an unknown user"), "{said}");
}

#[test]
fn an_audit_ends_and_names_blocks_whose_base_or_window_cannot_be() {
    let folder = tempfile::tempdir().unwrap();
    let mut pool = Pool::open(folder.path(), rules());
    (0..6).for_each(|number| pool.share(number % 3, 1.0, 1, None));
    let block = pool.block(None, 0, 1_000_000);
    pool.stand_on(Some(block));
    pool.close();
    let store = Store::open(folder.path()).unwrap();
    let facts = store.facts(&block).unwrap().unwrap();
    let write = |facts: Facts| {
        // The members' credits for it stay as they are.
        let plan = Arc::new(Plan::of_chapter(member(200), 0));
        let record = Record { id: block, facts, plan };
        let mut batch = Batch::default();
        store.put_block(&mut batch, &record);
        store.write(batch, true).unwrap();
        audit(&store, &prefixes()).unwrap().mistakes.join("\n")
    };
    let said = write(Facts { base: Some(block), ..facts.clone() });
    assert!(said.contains("is not below it"), "{said}");
    let said = write(Facts { ends: 8, ..facts.clone() });
    assert!(said.contains("its window ends before share 8, the log has 7"), "{said}");
    assert_eq!(write(facts), "", "as it was");
}

#[test]
fn a_reward_of_nothing_has_an_output_too() {
    assert_eq!(book::Plan::of_chapter(member(1), 0).outputs(), [(member(1), 0)]);
    assert_eq!(book::Plan::of_chapter(member(1), 5).outputs(), [(member(1), 5)]);
}

#[test]
fn a_record_survives_a_file_with_numbers_of_any_size() {
    let (ledger, hash) = (temporary(), BlockHash::hash(b"huge"));
    let mut record = record(&ledger, 1, &hash.to_string());
    record.facts.wanted = u128::MAX;
    (record.facts.reward, record.facts.rules.window) = (u64::MAX, 0.1);
    let kept: Entry = serde_json::from_str(&serde_json::to_string(&record.entry()).unwrap()).unwrap();
    assert_eq!(kept, record.entry());
    assert_eq!(ledger.adopt(&record), Ok(true));
    assert_eq!(ledger.store().facts(&kept.id).unwrap(), Some(kept.facts));
}

#[test]
fn a_ledger_can_be_read_at_any_moment_beside_a_pool_that_writes() {
    let folder = tempfile::tempdir().unwrap();
    let mut pool = Pool::open(folder.path(), rules());
    let reader = {
        let folder = folder.path().to_owned();
        std::thread::spawn(move || {
            let mut last = 0;
            for _ in 0..100 {
                let report = audited(&folder);
                assert!(report.is_clean() && report.shares >= last, "{report:?}");
                last = report.shares;
            }
        })
    };
    for pause in (0..).map(|round| Duration::from_millis(round * 7 % 60)) {
        if reader.is_finished() {
            break;
        }
        (0..50).for_each(|number| pool.share(number % 7, 1.0, 1, None));
        pool.wait();
        pool.ledger.store().merge();
        std::thread::sleep(pause);
    }
    reader.join().unwrap();
    pool.close();
}

/// A share log only grows, so after some months it has more tables than a pool may have files open.
#[cfg(target_os = "linux")]
#[test]
fn a_ledger_of_many_tables_is_looked_at_with_few_of_them_open() {
    const MOST: usize = 8;
    let folder = tempfile::tempdir().unwrap();
    let mut pool = Pool::open(folder.path(), rules());
    for number in 0..10 * MOST {
        pool.share(number as u8, 1.0, 1, None);
        pool.wait();
        pool.ledger.store().flush();
    }
    pool.close();
    let open = || {
        let files = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
        let names = files.filter_map(|file| std::fs::read_link(file.path()).ok());
        let ours = names.filter(|name| name.starts_with(folder.path().canonicalize().unwrap()));
        ours.filter(|name| name.extension().is_some_and(|kind| kind == "sst")).count()
    };
    let all = Store::open_to_read(folder.path()).unwrap();
    assert!(open() > MOST, "{} tables", open());
    drop(all);
    let few = Store::read(folder.path(), MOST as i32).unwrap();
    assert_eq!(few.next_share().unwrap(), 10 * MOST as u64);
    assert!(open() <= MOST, "{} tables", open());
}
