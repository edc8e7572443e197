#![allow(clippy::unwrap_used)]

use iop_stratum::client::Options;
use iop_stratum::fields::{Nonce, VersionBits};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader, DuplexStream};
use tokio::sync::mpsc;

use super::*;
use crate::job::Share;
use crate::log::tests::Heard;
use crate::stats::{DeviceStats, Stats};
use crate::upstream::Timing;
use crate::upstream::board::Board;
use crate::upstream::open::{Manner, Unready};

/// nBits that nearly every hash meets, and those of difficulty 1.
const ANY_HASH: &str = "2100ffff";
const HARD: &str = "1d00ffff";
/// For operations that take no time.
const PATIENCE: Duration = Duration::from_secs(60);

/// The pool's end of a connection.
struct Pool(BufReader<DuplexStream>);

impl Pool {
    async fn send(&mut self, message: Value) {
        self.0.write_all(format!("{message}\n").as_bytes()).await.unwrap();
    }

    async fn job(&mut self, id: &str, nbits: &str) {
        self.any_job(id, nbits, true).await;
    }

    async fn any_job(&mut self, id: &str, nbits: &str, clean: bool) {
        let (zeros, coinbase) = ("00".repeat(32), "01000000010000");
        let params = json!([id, zeros, coinbase, "00", [], "20000000", nbits, "65501234", clean]);
        self.send(json!({"id": null, "method": "mining.notify", "params": params})).await;
    }

    /// The job id of the miner's next share.
    async fn submitted(&mut self) -> String {
        self.submit().await["params"][1].as_str().unwrap().to_owned()
    }

    /// The miner's next share.
    async fn submit(&mut self) -> Value {
        loop {
            let mut line = String::new();
            assert!(self.0.read_line(&mut line).await.unwrap() > 0, "the miner stays");
            let request: Value = serde_json::from_str(&line).unwrap();
            if request["method"] == "mining.submit" {
                return request;
            }
        }
    }
}

/// A connection in use, with a job of this id.
async fn mined_at(id: &str, nbits: &str, next_serial: Serial) -> (Connection, Pool, Arc<Dispatcher>) {
    let (mut connection, pool) = ready(id, nbits, true).await;
    let dispatcher = Arc::new(Dispatcher::new());
    connection.take_over(Arc::clone(&dispatcher), next_serial);
    (connection, pool, dispatcher)
}

/// A connection that is ready to be used.
async fn ready(id: &str, nbits: &str, clean: bool) -> (Connection, Pool) {
    opened(id, nbits, clean, VersionMask::NONE).await
}

/// The same, with version rolling allowed.
async fn rolling(id: &str, nbits: &str) -> (Connection, Pool) {
    opened(id, nbits, true, VersionMask::SERVER).await
}

async fn opened(id: &str, nbits: &str, clean: bool, version_mask: VersionMask) -> (Connection, Pool) {
    let (connection, mut pool) = unready(version_mask);
    if version_mask != VersionMask::NONE {
        let rolls = json!({"version-rolling": true, "version-rolling.mask": version_mask.to_string()});
        pool.send(json!({"id": 1, "result": rolls, "error": null})).await;
    }
    pool.send(json!({"id": 2, "result": [[], "f00d", 4], "error": null})).await;
    pool.send(json!({"id": 3, "result": true, "error": null})).await;
    pool.any_job(id, nbits, clean).await;
    (connection.ready().await.unwrap(), pool)
}

/// A connection over which nothing was said yet, and its pool.
fn unready(version_mask: VersionMask) -> (Connection, Pool) {
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    let options = Options {
        user: "a.b".into(),
        password: "x".into(),
        user_agent: "test".into(),
        version_mask,
        suggest_difficulty: None,
    };
    let board = Arc::new(Board::new([(String::new(), String::new())]));
    let manner = Manner {
        options,
        timing: Timing::default(),
        tls: None,
        follow: false,
        only_machines: false,
        pools: 1,
        stats: None,
        board,
        unready: Unready::default(),
    };
    let url = "stratum+tcp://pool:1".parse().unwrap();
    let place = Place { manner: Arc::new(manner), number: 0, url, moves: 0, aside: false };
    (Connection::new(Box::new(ours), place), Pool(BufReader::new(theirs)))
}

/// Waits until the connection has received the job.
async fn receive_job(connection: &mut Connection, id: &str) {
    while connection.job.as_ref().is_none_or(|job| job.notify.job_id.to_string() != id) {
        connection.receive().await.unwrap();
    }
}

fn share(dispatcher: &Dispatcher, finder: &Arc<DeviceStats>) -> Share {
    let assignment = dispatcher.take(1).unwrap();
    let share = assignment.share(iop_kernels::Found { nonce: 0, version: 0 }, Arc::clone(finder));
    Share { nonce: Nonce(7), ..share }
}

#[tokio::test]
async fn a_block_of_a_job_that_was_just_replaced_goes_to_the_pool_and_other_shares_of_it_do_not() {
    let (mut connection, mut pool, dispatcher) = mined_at("easy", ANY_HASH, Serial(5)).await;
    let finder = Stats::new().device("cpu");
    let block = share(&dispatcher, &finder);
    pool.job("hard", HARD).await;
    receive_job(&mut connection, "hard").await;
    let ordinary = share(&dispatcher, &finder);
    pool.job("last", HARD).await;
    receive_job(&mut connection, "last").await;
    assert!(block.is_block() && !ordinary.is_block());
    let stale = |finder: &DeviceStats| finder.snapshot().counts.stale;
    connection.submit(ordinary);
    assert_eq!(stale(&finder), 1);
    connection.submit(block);
    connection.submit(share(&dispatcher, &finder));
    connection.send().await.unwrap();
    assert_eq!((pool.submitted().await, pool.submitted().await), ("easy".into(), "last".into()));
    assert_eq!(stale(&finder), 1, "the pool decides on the block");
    // The pool refuses the block as too late.
    let refused = json!([21, "Job not found", null]);
    let first = connection.submitted.keys().next().unwrap().0;
    pool.send(json!({"id": first, "result": null, "error": refused})).await;
    while connection.submitted.len() > 1 {
        connection.receive().await.unwrap();
    }
    assert_eq!(stale(&finder), 2);
}

#[tokio::test]
async fn a_job_that_comes_before_the_answer_to_the_subscription_is_worked_on() {
    let (connection, mut pool) = unready(VersionMask::NONE);
    pool.job("old", HARD).await;
    pool.job("early", HARD).await;
    pool.send(json!({"id": 2, "result": [[], "f00d", 4], "error": null})).await;
    pool.send(json!({"id": 3, "result": true, "error": null})).await;
    let mut connection = timeout(PATIENCE, connection.ready()).await.unwrap().unwrap();
    let dispatcher = Arc::new(Dispatcher::new());
    connection.take_over(Arc::clone(&dispatcher), Serial(5));
    assert_eq!(at_hand(&dispatcher).0, "early");
}

#[tokio::test]
async fn a_block_of_another_pool_is_not_sent() {
    let (_left, _other, dispatcher) = mined_at("easy", ANY_HASH, Serial(5)).await;
    let finder = Stats::new().device("cpu");
    let block = share(&dispatcher, &finder);
    let (mut connection, _pool, _) = mined_at("easy", ANY_HASH, Serial(6)).await;
    connection.submit(block);
    assert_eq!((finder.snapshot().counts.stale, connection.submitted.len()), (1, 0));
}

#[tokio::test]
async fn what_comes_too_late_for_a_pool_that_was_left_is_counted_and_given_back() {
    let (mut connection, mut pool, dispatcher) = mined_at("easy", ANY_HASH, Serial(5)).await;
    let finder = Stats::new().device("cpu");
    // A share without a verdict keeps the connection for the whole farewell.
    connection.submit(share(&dispatcher, &finder));
    let timing = &mut Arc::get_mut(&mut connection.place.manner).unwrap().timing;
    (timing.late_finds, timing.farewell) = (Duration::ZERO, 2 * PATIENCE);
    let (shares, found) = mpsc::channel(8);
    let leaving = tokio::spawn(connection.farewell(found));
    assert_eq!(pool.submitted().await, "easy");
    timeout(PATIENCE, shares.closed()).await.expect("while the verdict is waited for");
    assert!(shares.try_send(share(&dispatcher, &finder)).is_err(), "not swallowed");
    leaving.abort();
    // One share is still queued when the pool closes.
    let (mut connection, pool, dispatcher) = mined_at("easy", ANY_HASH, Serial(5)).await;
    let (shares, found) = mpsc::channel(8);
    connection.shares.spend(2 * SHARES.0, Instant::now());
    drop(pool);
    shares.try_send(share(&dispatcher, &finder)).unwrap();
    connection.farewell(found).await;
    assert_eq!(finder.snapshot().counts.stale, 1);
}

#[tokio::test]
async fn shares_without_a_verdict_keep_no_job_and_are_given_up_when_one_is_overdue() {
    let (mut connection, mut pool, dispatcher) = mined_at("big", ANY_HASH, Serial(5)).await;
    let finder = Stats::new().device("cpu");
    connection.submit(share(&dispatcher, &finder));
    let big = Arc::downgrade(dispatcher.follow().borrow().job.as_ref().unwrap());
    pool.job("next", HARD).await;
    receive_job(&mut connection, "next").await;
    assert!(big.upgrade().is_none(), "the job is kept for its share");
    assert_eq!(connection.submitted.len(), 1);
    // The pool answers others, and never this one.
    Arc::get_mut(&mut connection.place.manner).unwrap().timing.answer = Duration::ZERO;
    tokio::time::sleep(Duration::from_millis(2)).await;
    connection.submit(share(&dispatcher, &finder));
    assert_eq!((connection.submitted.len(), finder.snapshot().counts.stale), (1, 1));
}

#[tokio::test]
async fn shares_without_a_verdict_are_stale_when_the_connection_is_lost_and_blocks_are_named() {
    let log = Heard::begin();
    let (mut connection, _pool, dispatcher) = mined_at("easy", ANY_HASH, Serial(5)).await;
    let finder = Stats::new().device("cpu");
    connection.submit(share(&dispatcher, &finder));
    connection.submit(share(&dispatcher, &finder));
    connection.abandon();
    assert_eq!((finder.snapshot().counts.stale, connection.submitted.len()), (2, 0));
    assert_eq!(connection.place.manner.board.sources()[0].stale, 2);
    assert_eq!(log.lines("2 blocks were sent, the last of job easy, and the pool has not answered"), 1);
}

#[tokio::test]
async fn verdicts_that_come_behind_the_line_that_sends_us_on_are_heard() {
    let (mut connection, mut pool, dispatcher) = mined_at("one", HARD, Serial(5)).await;
    let finder = Stats::new().device("cpu");
    (0..2).for_each(|_| connection.submit(share(&dispatcher, &finder)));
    let ids: Vec<u64> = connection.submitted.keys().map(|id| id.0).collect();
    // All of it arrives in one read.
    let moved = json!({"id": null, "method": "client.reconnect", "params": ["", 2, 0]});
    let accepted = |id: u64| json!({"id": id, "result": true, "error": null});
    let lines = format!("{moved}\n{}\n{moved}\n{}\n", accepted(ids[0]), accepted(ids[1]));
    pool.0.write_all(lines.as_bytes()).await.unwrap();
    assert!(matches!(connection.receive().await, Err(Lost::Moved { .. })));
    let (_shares, found) = mpsc::channel(8);
    let timing = &mut Arc::get_mut(&mut connection.place.manner).unwrap().timing;
    (timing.late_finds, timing.farewell) = (Duration::ZERO, PATIENCE);
    connection.farewell(found).await;
    let counts = finder.snapshot().counts;
    assert_eq!((counts.accepted, counts.stale), (2, 0));
}

#[tokio::test]
async fn a_job_that_is_sent_again_unchanged_leaves_the_devices_where_they_are() {
    let (mut connection, mut pool, dispatcher) = mined_at("one", HARD, Serial(5)).await;
    let before = dispatcher.take(1).unwrap();
    for _ in 0..300 {
        pool.any_job("one", HARD, true).await;
    }
    pool.send(json!({"id": null, "method": "client.show_message", "params": ["read"]})).await;
    while connection.place.manner.board.sources()[0].message.is_none() {
        connection.receive().await.unwrap();
    }
    assert_eq!(connection.place.manner.board.sources()[0].jobs, 301);
    assert!(dispatcher.is_current(&before));
    assert_eq!(dispatcher.take(1).unwrap().extranonce2, before.extranonce2);
}

/// The id of the job for machines, and the number of breaks before it.
fn at_hand(dispatcher: &Dispatcher) -> (String, u64) {
    let current = dispatcher.follow().borrow().clone();
    (current.job.unwrap().id().to_string(), current.era)
}

#[tokio::test]
async fn whatever_ends_the_jobs_before_is_a_break_also_where_the_job_itself_does_not_say_so() {
    let (left, _pool, dispatcher) = mined_at("one", HARD, Serial(5)).await;
    assert_eq!(at_hand(&dispatcher), ("one".into(), 1));
    // Another pool, as if the user asked for it.
    let (mut connection, mut pool) = ready("other", HARD, false).await;
    connection.take_over(Arc::clone(&dispatcher), left.next_serial());
    assert_eq!(at_hand(&dispatcher), ("other".into(), 2));
    pool.any_job("beside", HARD, false).await;
    receive_job(&mut connection, "beside").await;
    assert_eq!(at_hand(&dispatcher), ("beside".into(), 2), "its own jobs go on to count");
    // Another job with the id of the one before.
    pool.any_job("beside", ANY_HASH, false).await;
    while connection.job.as_ref().unwrap().notify.nbits.0 != 0x2100_ffff {
        connection.receive().await.unwrap();
    }
    assert_eq!(at_hand(&dispatcher), ("beside".into(), 3));
    // The same job again is no break.
    pool.any_job("beside", ANY_HASH, false).await;
    pool.any_job("last", ANY_HASH, false).await;
    receive_job(&mut connection, "last").await;
    assert_eq!(at_hand(&dispatcher), ("last".into(), 3));
}

#[tokio::test]
async fn a_clean_job_that_comes_and_goes_too_fast_to_be_worked_on_is_a_break_all_the_same() {
    let (mut connection, mut pool, dispatcher) = mined_at("one", HARD, Serial(5)).await;
    connection.jobs = Pace::new(1, 1, Instant::now());
    connection.jobs.spend(60, Instant::now());
    pool.any_job("clean", HARD, true).await;
    pool.any_job("beside", HARD, false).await;
    receive_job(&mut connection, "beside").await;
    assert_eq!(at_hand(&dispatcher), ("one".into(), 1), "it has to wait");
    connection.jobs = Pace::new(1, 1, Instant::now());
    connection.give();
    assert_eq!(at_hand(&dispatcher), ("beside".into(), 2));
}

#[tokio::test]
async fn machines_that_come_again_and_again_do_not_multiply_what_a_pool_makes_us_log() {
    let log = Heard::begin();
    let (mut connection, mut pool, dispatcher) = mined_at("one", HARD, Serial(5)).await;
    let stats = Stats::new();
    let machines: Vec<_> = (0..50).map(|number| stats.device(&format!("machine#{number}"))).collect();
    for machine in &machines {
        connection.submit(share(&dispatcher, machine));
    }
    connection.send().await.unwrap();
    let ids: Vec<u64> = connection.submitted.keys().map(|id| id.0).collect();
    for id in ids {
        pool.send(json!({"id": id, "result": null, "error": [20, "no", null]})).await;
    }
    while !connection.submitted.is_empty() {
        connection.receive().await.unwrap();
    }
    assert_eq!(stats.snapshot().counts.refused(), 50);
    let lines = log.lines("share refused");
    assert!((1..50).contains(&lines), "{lines}");
}

#[tokio::test]
async fn a_job_that_is_not_for_machines_is_none_where_there_is_nobody_else() {
    for (only_machines, expected) in [(true, None), (false, Some("narrow"))] {
        let (mut connection, mut pool, dispatcher) = mined_at("one", HARD, Serial(5)).await;
        let manner = Arc::get_mut(&mut connection.place.manner).unwrap();
        (manner.only_machines, manner.pools) = (only_machines, 2);
        // An extranonce2 of one byte; the message after it shows that the job was read. A message without a job is not
        // useful.
        pool.send(json!({"id": null, "method": "mining.set_extranonce", "params": ["f00d", 1]})).await;
        pool.any_job("narrow", HARD, true).await;
        pool.send(json!({"id": null, "method": "mining.set_difficulty", "params": [2]})).await;
        pool.send(json!({"id": null, "method": "client.show_message", "params": ["read"]})).await;
        let message = |connection: &Connection| connection.place.manner.board.sources()[0].message.clone();
        while message(&connection).is_none() {
            connection.receive().await.unwrap();
        }
        let at_hand = dispatcher.follow().borrow().job.as_ref().map(|job| job.id().to_string());
        assert_eq!(at_hand.as_deref(), expected);
        let lost = connection.deadline().1;
        assert_eq!(matches!(lost, Lost::Idle(_)), only_machines, "{lost}");
        let condition = connection.place.manner.board.sources()[0].condition.clone();
        assert_eq!(matches!(condition, Condition::Waiting(_)), only_machines, "{condition:?}");
        // Another job of the same pool is served again.
        pool.send(json!({"id": null, "method": "mining.set_extranonce", "params": ["f00d", 4]})).await;
        pool.any_job("wide", HARD, true).await;
        receive_job(&mut connection, "wide").await;
        assert!(!matches!(connection.deadline().1, Lost::Idle(_)));
    }
}

#[tokio::test]
async fn a_block_that_was_rolled_before_the_pool_forbade_it_goes_up_with_its_bits() {
    let (mut connection, mut pool) = rolling("easy", ANY_HASH).await;
    let dispatcher = Arc::new(Dispatcher::new());
    connection.take_over(Arc::clone(&dispatcher), Serial(5));
    let finder = Stats::new().device("machine");
    let block = Share { version_bits: VersionBits(0x4000), ..share(&dispatcher, &finder) };
    let block =
        (0..).map(|nonce| Share { nonce: Nonce(nonce), ..block.clone() }).find(Share::is_block).unwrap();
    pool.send(json!({"id": null, "method": "mining.set_version_mask", "params": ["00000000"]})).await;
    while connection.job.as_ref().unwrap().version_mask != VersionMask::NONE {
        connection.receive().await.unwrap();
    }
    connection.submit(block);
    connection.send().await.unwrap();
    assert_eq!(pool.submit().await["params"][5], "00004000");
}

/// A connection in use, with version rolling allowed.
async fn mined_rolling() -> (Connection, Pool, Arc<Dispatcher>) {
    let (mut connection, pool) = rolling("one", HARD).await;
    let dispatcher = Arc::new(Dispatcher::new());
    connection.take_over(Arc::clone(&dispatcher), Serial(5));
    (connection, pool, dispatcher)
}

/// The pool changes the mask, once for each of `masks`.
async fn change_masks(connection: &mut Connection, pool: &mut Pool, masks: &[u32]) {
    for mask in masks {
        let mask = VersionMask(*mask).to_string();
        pool.send(json!({"id": null, "method": "mining.set_version_mask", "params": [mask]})).await;
    }
    pool.send(json!({"id": null, "method": "client.show_message", "params": ["read"]})).await;
    connection.place.manner.board.change(0, |source| source.message = None);
    while connection.place.manner.board.sources()[0].message.is_none() {
        connection.receive().await.unwrap();
    }
}

#[tokio::test]
async fn a_version_mask_that_is_told_again_costs_no_share_and_changes_no_job() {
    let (mut connection, mut pool, dispatcher) = mined_rolling().await;
    let finder = Stats::new().device("cpu");
    let (before, job) = (share(&dispatcher, &finder), at_hand(&dispatcher));
    // Also by an answer that is late or repeated.
    let mask = VersionMask::SERVER.to_string();
    let rolls = json!({"version-rolling": true, "version-rolling.mask": mask});
    pool.send(json!({"id": 1, "result": rolls, "error": null})).await;
    change_masks(&mut connection, &mut pool, &[VersionMask::SERVER.0; 3]).await;
    for share in [before, share(&dispatcher, &finder)] {
        connection.submit(share);
    }
    assert_eq!((connection.submitted.len(), finder.snapshot().counts.stale), (2, 0));
    assert_eq!((at_hand(&dispatcher), connection.next_serial), (job, Serial(6)));
}

#[tokio::test]
async fn more_version_bits_take_nothing_from_shares_before_and_fewer_only_those_that_rolled_more() {
    let (mut connection, mut pool, dispatcher) = mined_rolling().await;
    let finder = Stats::new().device("cpu");
    let all = share(&dispatcher, &finder);
    let rolled = |bits| Share { version_bits: VersionBits(bits), ..all.clone() };
    change_masks(&mut connection, &mut pool, &[0x2000]).await;
    let few = share(&dispatcher, &finder);
    assert_eq!(few.job.stratum().version_mask, VersionMask(0x2000));
    connection.submit(rolled(0x4000));
    assert_eq!((connection.submitted.len(), finder.snapshot().counts.stale), (0, 1), "would be refused");
    connection.submit(rolled(0x2000));
    assert_eq!((connection.submitted.len(), finder.snapshot().counts.stale), (1, 1));
    change_masks(&mut connection, &mut pool, &[VersionMask::SERVER.0]).await;
    for share in [few, rolled(0x4000), share(&dispatcher, &finder)] {
        connection.submit(share);
    }
    assert_eq!((connection.submitted.len(), finder.snapshot().counts.stale), (4, 1));
}

#[tokio::test]
async fn a_version_mask_that_comes_and_goes_too_fast_to_be_worked_with_costs_no_share() {
    let (mut connection, mut pool, dispatcher) = mined_rolling().await;
    let finder = Stats::new().device("cpu");
    let before = share(&dispatcher, &finder);
    connection.jobs = Pace::new(1, 1, Instant::now());
    connection.jobs.spend(60, Instant::now());
    change_masks(&mut connection, &mut pool, &[0x2000, VersionMask::SERVER.0]).await;
    connection.jobs = Pace::new(1, 1, Instant::now());
    connection.give();
    for share in [before, share(&dispatcher, &finder)] {
        connection.submit(share);
    }
    assert_eq!((connection.submitted.len(), finder.snapshot().counts.stale), (2, 0));
}
