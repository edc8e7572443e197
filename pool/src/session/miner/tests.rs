//! A miner's dialogue without a socket: jobs, difficulties and verdicts.

#![allow(clippy::unwrap_used)]

use bitcoin::BlockHash;
use bitcoin::hashes::Hash;
use iop_consensus::params::Params;
use iop_mining::bans::{BAD_RUN, Bans, HOPELESS_RUN};
use iop_mining::choice::NoLicense;
use iop_mining::sample::{key, template};
use iop_mining::template::{ChainIdentity, Template};
use iop_stratum::difficulty::Target;
use iop_stratum::fields::{Extranonce2, NTime, Nonce, Version};
use iop_stratum::work::sha256d;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::*;
use crate::blocks::Blocks;
use crate::config::DifficultyBounds;
use crate::job::Tip;
use crate::job::tests::plain_job;
use crate::session::Slots;
use crate::session::round::Round;
use crate::session::tls::PlainHint;
use crate::spool::Spool;
use crate::workers::Workers;

mod blocks;
mod vardiff;
mod wishes;

pub(crate) struct Pool {
    pub(crate) shared: Arc<Shared>,
    publish: watch::Sender<Arc<Snapshot>>,
    tip: Arc<Tip>,
    number: u64,
    _datadir: tempfile::TempDir,
}

fn difficulty(value: f64) -> Difficulty {
    Difficulty::new(value).unwrap()
}

/// About one hash in 16.
pub(crate) const EASY: f64 = 1.0 / (1u64 << 28) as f64;

impl Pool {
    pub(crate) fn new() -> Self {
        let datadir = tempfile::tempdir().unwrap();
        let waiting = Snapshot { work: Work::Waiting, licenses: vec![] };
        let (publish, snapshots) = watch::channel(Arc::new(waiting));
        let ledger = crate::ledger::tests::temporary();
        let shared = Shared {
            prefixes: Params::devnet().prefixes,
            difficulty: DifficultyBounds {
                start: difficulty(EASY),
                min: difficulty(EASY / 4.0),
                max: difficulty(1.0),
            },
            vardiff: None,
            limits: Limits::default(),
            plain_hint: PlainHint::default(),
            bans: Bans::new(32.0),
            numbers: Arc::default(),
            snapshots,
            workers: Workers::default(),
            blocks: Blocks::new(
                Arc::from([]),
                Spool::open(datadir.path()).unwrap(),
                ChainIdentity::of(&Params::devnet()),
                Arc::clone(&ledger),
            ),
            slots: Slots::new(1000, 10),
            round: Round::default(),
            ledger,
        };
        Self { shared: Arc::new(shared), publish, tip: Arc::default(), number: 0, _datadir: datadir }
    }

    /// A template with unreachable block difficulty, so that shares are only shares.
    pub(crate) fn hard_template(height: u32) -> Template {
        let bits = 0x1d00_ffff;
        Template { bits, target: Target::from_compact(bits).unwrap(), ..template(height) }
    }

    pub(crate) fn job(&mut self, template: Template) -> Arc<Job> {
        self.number += 1;
        let job = Arc::new(plain_job(self.number, template, Arc::clone(&self.tip)));
        self.publish.send_replace(Arc::new(Snapshot { work: Work::Job(Arc::clone(&job)), licenses: vec![] }));
        job
    }

    pub(crate) fn new_tip(&mut self) {
        std::mem::take(&mut self.tip).retire();
    }

    pub(crate) fn connect(&self) -> Miner {
        let peer: SocketAddr = "127.0.0.1:1".parse().unwrap();
        let slot = self.shared.slots.take(peer.ip()).unwrap();
        Miner::new(Arc::clone(&self.shared), slot, peer)
    }

    pub(crate) fn user(&self) -> String {
        format!("{}.rig", key(true).address().to_base58(&self.shared.prefixes))
    }

    /// A subscribed and authorized miner, with its greeting lines read.
    pub(super) fn ready(&self) -> Miner {
        let mut miner = self.connect();
        say(&mut miner, json!({"id": 0, "method": "mining.configure", "params": [["version-rolling"], {}]}));
        self.introduce(miner)
    }

    /// One that has never asked whether it may roll.
    pub(super) fn ready_unasked(&self) -> Miner {
        self.introduce(self.connect())
    }

    /// One that has asked, for bits of which it gets none.
    pub(super) fn ready_without_rolling(&self) -> Miner {
        let mut miner = self.connect();
        let asks = json!([["version-rolling"], {"version-rolling.mask": "e0000000"}]);
        say(&mut miner, json!({"id": 0, "method": "mining.configure", "params": asks}));
        self.introduce(miner)
    }

    fn introduce(&self, mut miner: Miner) -> Miner {
        say(&mut miner, json!({"id": 1, "method": "mining.subscribe", "params": []}));
        let answers =
            say(&mut miner, json!({"id": 2, "method": "mining.authorize", "params": [self.user(), "x"]}));
        assert_eq!(answers[0]["result"], true);
        miner
    }

    pub(super) fn tell(&self, miner: &mut Miner) -> Vec<Value> {
        let snapshot = Arc::clone(&self.publish.borrow());
        miner.on_snapshot(&snapshot);
        heard(miner)
    }
}

/// Whether `job` is the last one the miner was sent.
pub(crate) fn holds(miner: &Miner, job: &Job) -> bool {
    miner.sent.back().is_some_and(|sent| sent.job.id == job.id)
}

/// Shares that wait to be committed.
pub(crate) fn waiting(miner: &Miner) -> usize {
    miner.uncommitted.len()
}

/// The lines sent once all good shares are committed.
pub(super) fn committed(miner: &mut Miner) -> Vec<Value> {
    while miner.has_uncommitted() {
        std::thread::yield_now(); // the ledger's thread writes
        miner.on_committed();
    }
    heard(miner)
}

fn heard(miner: &mut Miner) -> Vec<Value> {
    let lines: Vec<Outgoing> = std::iter::from_fn(|| miner.session.next_outgoing()).collect();
    lines.iter().map(|line| serde_json::from_slice(line.as_ref()).unwrap()).collect()
}

fn say(miner: &mut Miner, call: Value) -> Vec<Value> {
    miner.on_line(call.to_string().as_bytes()).unwrap();
    committed(miner)
}

/// serde_json's parsing of a number, here in the test, may be off in the last bit.
fn is_about(value: &Value, expected: f64) -> bool {
    (value.as_f64().unwrap() / expected - 1.0).abs() < 1e-12
}

fn methods(lines: &[Value]) -> Vec<&str> {
    lines.iter().map(|line| line["method"].as_str().unwrap_or("answer")).collect()
}

/// Finds a nonce whose hash meets (or misses) a difficulty.
pub(crate) fn solve(job: &Job, extranonce1: Extranonce1, within: f64, good: bool) -> Nonce {
    solutions(job, extranonce1, within, good).next().unwrap()
}

/// All such nonces.
pub(crate) fn solutions(
    job: &Job,
    extranonce1: Extranonce1,
    within: f64,
    good: bool,
) -> impl Iterator<Item = Nonce> {
    let target = Target::from_difficulty(difficulty(within));
    let extranonce2 = Extranonce2::from_counter(0, 8).unwrap();
    let (version, ntime) = (Version(job.template.version), NTime(job.template.time));
    let header = move |nonce| job.work.header(&extranonce1, &extranonce2, version, ntime, nonce);
    (0..).map(Nonce).filter(move |&nonce| target.is_met_by(&sha256d(&header(nonce))) == good)
}

fn submit(miner: &mut Miner, user: &str, job: &Job, nonce: Nonce) -> Value {
    let params = json!([
        user,
        job.id.as_str(),
        "0".repeat(16),
        format!("{:08x}", job.template.time),
        nonce.to_string()
    ]);
    let answers = say(miner, json!({"id": 9, "method": "mining.submit", "params": params}));
    assert_eq!(answers.len(), 1);
    if answers[0]["result"] == true { json!(0) } else { answers[0]["error"][0].clone() }
}

#[test]
fn a_miner_gets_the_job_after_the_reply_and_at_its_difficulty() {
    let mut pool = Pool::new();
    pool.job(Pool::hard_template(1));
    let mut miner = pool.connect();
    assert!(pool.tell(&mut miner).is_empty(), "nothing before it subscribes");
    let lines = say(&mut miner, json!({"id": 1, "method": "mining.subscribe", "params": ["m"]}));
    assert_eq!(methods(&lines), ["answer", "mining.set_difficulty", "mining.notify"]);
    assert!(is_about(&lines[1]["params"][0], EASY));
    assert_eq!(lines[2]["params"][8], true, "the first job is clean");
    pool.job(Pool::hard_template(1));
    let lines = pool.tell(&mut miner);
    assert_eq!(methods(&lines), ["mining.notify"], "an unchanged difficulty is not repeated");
    assert_eq!(lines[0]["params"][8], false, "the tip is the same");
    pool.new_tip();
    pool.job(Pool::hard_template(2));
    assert_eq!(pool.tell(&mut miner)[0]["params"][8], true);
}

#[test]
fn a_share_counts_once_for_its_worker_at_its_difficulty() {
    let mut pool = Pool::new();
    let job = pool.job(Pool::hard_template(1));
    let (mut miner, user) = (pool.ready(), pool.user());
    let extranonce1 = *miner.session.extranonce1();
    let good = solve(&job, extranonce1, EASY, true);
    assert_eq!(submit(&mut miner, &user, &job, good), 0);
    assert_eq!(submit(&mut miner, &user, &job, good), 22);
    assert_eq!(submit(&mut miner, &user.to_uppercase(), &job, good), 24);
    let bad = solve(&job, extranonce1, EASY, false);
    assert_eq!(submit(&mut miner, &user, &job, bad), 23);
    assert_eq!(submit(&mut miner, &user, &job, bad), 23, "what does not count is not remembered");
    let (_, listed) = pool.shared.workers.list(9);
    assert_eq!((listed[0].shares.accepted, listed[0].shares.work), (1, EASY));
    assert_eq!(listed[0].shares.rejected, [(22, 1), (23, 2)].into());
    assert_eq!(pool.shared.workers.totals.read(), listed[0].shares);
}

#[test]
fn a_share_of_another_connection_is_worth_nothing() {
    let mut pool = Pool::new();
    let job = pool.job(Pool::hard_template(1));
    let (mut one, mut two, user) = (pool.ready(), pool.ready(), pool.user());
    let target = Target::from_difficulty(difficulty(EASY));
    let theirs = *two.session.extranonce1();
    let extranonce2 = Extranonce2::from_counter(0, 8).unwrap();
    let fails_for_two = |nonce: &u32| {
        let (version, ntime) = (Version(job.template.version), NTime(job.template.time));
        !target.is_met_by(&sha256d(&job.work.header(&theirs, &extranonce2, version, ntime, Nonce(*nonce))))
    };
    let mine = *one.session.extranonce1();
    let meets = |nonce: &u32| {
        let (version, ntime) = (Version(job.template.version), NTime(job.template.time));
        target.is_met_by(&sha256d(&job.work.header(&mine, &extranonce2, version, ntime, Nonce(*nonce))))
    };
    let nonce = Nonce((0..).find(|nonce| meets(nonce) && fails_for_two(nonce)).unwrap());
    assert_eq!(submit(&mut one, &user, &job, nonce), 0);
    assert_eq!(submit(&mut two, &user, &job, nonce), 23);
}

#[test]
fn jobs_never_sent_and_old_ones_are_unknown() {
    let mut pool = Pool::new();
    let before = pool.job(Pool::hard_template(1));
    let first = pool.job(Pool::hard_template(1));
    let (mut miner, user) = (pool.ready(), pool.user());
    let extranonce1 = *miner.session.extranonce1();
    assert_eq!(
        submit(&mut miner, &user, &before, solve(&before, extranonce1, EASY, true)),
        21,
        "it was not sent"
    );
    for _ in 0..MAX_JOBS - 1 {
        pool.job(Pool::hard_template(1));
        pool.tell(&mut miner);
    }
    assert_eq!(submit(&mut miner, &user, &first, solve(&first, extranonce1, EASY, true)), 0);
    pool.job(Pool::hard_template(1));
    pool.tell(&mut miner);
    assert_eq!(submit(&mut miner, &user, &first, Nonce(0)), 21, "too many since");
    assert_eq!(miner.sent.len(), MAX_JOBS);
}

#[test]
fn shares_of_the_old_tip_count_for_the_grace_and_not_longer() {
    let now = Instant::now();
    for (retired, code) in [(now + STALE_GRACE * 1000, 0), (now - STALE_GRACE * 2, 21)] {
        let mut pool = Pool::new();
        let old = pool.job(Pool::hard_template(1));
        let (mut miner, user) = (pool.ready(), pool.user());
        std::mem::take(&mut pool.tip).retire_at(retired);
        let nonce = solve(&old, *miner.session.extranonce1(), EASY, true);
        assert_eq!(submit(&mut miner, &user, &old, nonce), code);
        pool.job(Template { parent: BlockHash::from_byte_array([9; 32]), ..Pool::hard_template(2) });
        pool.tell(&mut miner);
        assert_eq!(submit(&mut miner, &user, &old, nonce), if code == 0 { 22 } else { 21 }, "known or not");
    }
}

#[test]
fn without_a_license_nothing_is_sent() {
    let pool = Pool::new();
    let none = NoLicense { height: 5, reasons: vec![], resumes_from_height: None };
    pool.publish.send_replace(Arc::new(Snapshot { work: Work::NoLicense(none), licenses: vec![] }));
    let mut miner = pool.connect();
    let lines = say(&mut miner, json!({"id": 1, "method": "mining.subscribe", "params": []}));
    assert_eq!(methods(&lines), ["answer"]);
    assert!(pool.tell(&mut miner).is_empty());
}

#[test]
fn users_must_be_addresses_of_this_network_and_cannot_flood() {
    let pool = Pool::new();
    let mut miner = pool.connect();
    let address = key(true).address();
    let main = address.to_base58(&Params::main().prefixes);
    let mut authorize = |user: &str| {
        let answers = say(&mut miner, json!({"id": 1, "method": "mining.authorize", "params": [user]}));
        answers[0]["error"][1].as_str().unwrap_or_default().to_owned()
    };
    assert!(authorize(&main).contains("belongs to main (version byte 117)"), "{}", authorize(&main));
    assert!(authorize("worker").contains("ADDRESS[.worker]"));
    assert!(authorize(&format!("{main}\u{1b}")).contains("do not print"));
    let own = address.to_base58(&pool.shared.prefixes);
    assert!(authorize("").contains("1 to 127") && authorize(" .").contains("ADDRESS[.worker]"));
    assert!(authorize(&format!("{own}.\u{202e}gir")).contains("do not print"), "turns what follows around");
    assert!(authorize(&format!("{own}.a\u{200b}")).contains("do not print"), "cannot be seen");
    for worker in 0..FREE_WORKERS {
        if worker == FREE_USERS {
            let other = key(false).address().to_base58(&pool.shared.prefixes);
            assert!(authorize(&other).contains("too many users"), "another address");
        }
        assert_eq!(authorize(&format!("{}.{worker}", address.to_base58(&pool.shared.prefixes))), "");
    }
    let one_more = format!("{}.more", address.to_base58(&pool.shared.prefixes));
    assert!(authorize(&one_more).contains("too many users"));
    assert_eq!(authorize(&format!("{}.0", address.to_base58(&pool.shared.prefixes))), "", "known ones stay");
}

#[test]
fn blanks_around_a_user_and_a_dot_without_a_worker_make_no_other_user() {
    let pool = Pool::new();
    let own = key(true).address().to_base58(&pool.shared.prefixes);
    for (said, name) in [
        (format!("{own}."), own.clone()),
        (format!(" {own}\t"), own.clone()),
        (format!("{own}. "), own.clone()),
        (format!(" {own}.rig "), format!("{own}.rig")),
        (format!("{own}.rig."), format!("{own}.rig.")),
    ] {
        let mut miner = pool.connect();
        let answers = say(&mut miner, json!({"id": 1, "method": "mining.authorize", "params": [said]}));
        assert_eq!(answers[0]["result"], true, "{said:?}");
        assert_eq!(miner.workers[0].user.name(), name);
        // Its shares come with the name as it was said.
        assert_eq!(&*miner.session.workers()[0], said);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_share_that_is_a_block_is_delivered() {
    let mut pool = Pool::new();
    let job = pool.job(template(4));
    let (mut miner, user) = (pool.ready(), pool.user());
    let needed = job.network_difficulty.get();
    let block = solve(&job, *miner.session.extranonce1(), needed, true);
    assert_eq!(submit(&mut miner, &user, &job, block), 0);
    let records = pool.shared.blocks.records();
    assert_eq!((records.len(), records[0].height, records[0].worker.as_str()), (1, 4, user.as_str()));
    assert_eq!(records[0].license, key(true).address().to_base58(&pool.shared.prefixes));
    pool.shared.blocks.finish(std::time::Duration::from_secs(5)).await;
}

#[test]
fn a_miner_whose_jobs_are_dead_is_closed_after_the_grace_and_others_wait() {
    let mut pool = Pool::new();
    pool.job(Pool::hard_template(1));
    let (mut holds, mut fresh) = (pool.ready(), pool.connect());
    say(&mut fresh, json!({"id": 0, "method": "mining.ping", "params": []}));
    let none = NoLicense { height: 5, reasons: vec![], resumes_from_height: None };
    for work in [Work::NoLicense(none), Work::NoNode] {
        pool.publish.send_replace(Arc::new(Snapshot { work, licenses: vec![] }));
        let before = Instant::now();
        pool.tell(&mut holds);
        let first = holds.dead_from().expect("it holds a job");
        assert!(first >= before + STALE_GRACE && first <= Instant::now() + STALE_GRACE);
        pool.tell(&mut holds);
        assert_eq!(holds.dead_from(), Some(first), "once");
        pool.tell(&mut fresh);
        assert_eq!(fresh.dead_from(), None);
        let mut late = pool.ready();
        assert!(pool.tell(&mut late).is_empty());
        assert_eq!(late.dead_from(), None, "who comes now waits");
        pool.new_tip();
        pool.job(Pool::hard_template(2));
        assert!(!pool.tell(&mut holds).is_empty());
        assert_eq!(holds.dead_from(), None, "work came in time");
        assert_eq!(methods(&pool.tell(&mut late)).last(), Some(&"mining.notify"));
    }
}

#[test]
fn shares_that_the_session_refuses_are_counted() {
    let mut pool = Pool::new();
    let job = pool.job(Pool::hard_template(1));
    let (mut miner, user) = (pool.ready(), pool.user());
    let time = format!("{:08x}", job.template.time);
    for (number, params) in [
        json!([user, job.id.as_str(), "00", time, "00000000"]),
        json!([user, job.id.as_str(), "0".repeat(16), time, "xyz"]),
        json!([user, job.id.as_str(), "0".repeat(16), time, "00000000", "20000000"]),
    ]
    .into_iter()
    .enumerate()
    {
        let answers = say(&mut miner, json!({"id": 9, "method": "mining.submit", "params": params}));
        assert_eq!((answers.len(), &answers[0]["error"][0]), (1, &json!(20)));
        let (_, listed) = pool.shared.workers.list(9);
        assert_eq!(listed[0].shares.rejected, [(20, number as u64 + 1)].into());
        assert_eq!(pool.shared.workers.totals.read().rejected, listed[0].shares.rejected);
    }
}

#[test]
fn long_runs_of_bad_shares_are_an_offence_and_then_hopeless() {
    let mut pool = Pool::new();
    let job = pool.job(Pool::hard_template(1));
    let peer: SocketAddr = "9.9.9.9:1".parse().unwrap();
    let slot = pool.shared.slots.take(peer.ip()).unwrap();
    let mut miner = Miner::new(Arc::clone(&pool.shared), slot, peer);
    say(&mut miner, json!({"id": 1, "method": "mining.subscribe", "params": []}));
    say(&mut miner, json!({"id": 2, "method": "mining.authorize", "params": [pool.user(), "x"]}));
    let bad = solve(&job, *miner.session.extranonce1(), EASY, false);
    let good = solve(&job, *miner.session.extranonce1(), EASY, true);
    for _ in 0..BAD_RUN - 1 {
        assert_eq!(submit(&mut miner, &pool.user(), &job, bad), 23);
    }
    assert_eq!(submit(&mut miner, &pool.user(), &job, good), 0);
    for number in 1..=HOPELESS_RUN {
        assert!(!miner.is_hopeless(), "{number}");
        assert_eq!(submit(&mut miner, &pool.user(), &job, bad), 23);
        let banned = pool.shared.bans.count(Instant::now()) > 0;
        assert_eq!(banned, number >= 4 * BAD_RUN + BAD_RUN, "{number}: points decay, so it takes a fifth");
    }
    assert!(miner.is_hopeless());
}

#[test]
fn who_is_subscribed_is_told_to_come_again() {
    let pool = Pool::new();
    let (mut miner, mut stranger) = (pool.ready(), pool.connect());
    miner.on_stop();
    stranger.on_stop();
    assert_eq!(heard(&mut miner), [json!({"id": null, "method": "client.reconnect", "params": []})]);
    assert!(heard(&mut stranger).is_empty());
}

#[test]
fn a_share_counts_once_however_often_its_miner_subscribes_again() {
    let mut pool = Pool::new();
    let job = pool.job(Pool::hard_template(1));
    let mut miner = pool.ready();
    let subscribe = json!({"id": 1, "method": "mining.subscribe", "params": []});
    for _ in 0..80 {
        say(&mut miner, subscribe.clone()); // more often than it may ask
    }
    let last = Arc::clone(&miner.sent.back().unwrap().job);
    assert_ne!(last.id, job.id);
    let nonce = solve(&last, *miner.session.extranonce1(), EASY, true);
    assert_eq!(submit(&mut miner, &pool.user(), &last, nonce), 0);
    for _ in 0..20 {
        say(&mut miner, subscribe.clone());
        assert_eq!(submit(&mut miner, &pool.user(), &last, nonce), 22);
    }
}
