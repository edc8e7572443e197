//! Several pools: leaving one, returning to another, and what is shown.

use std::net::{SocketAddr, TcpListener};
use std::thread;
use std::time::{Duration, Instant};

use iop_miner::upstream::Timing;
use iop_miner::upstream::board::{Condition, Source};
use iop_miner::upstream::pool::{Pool, PoolSettings};
use serde_json::{Value, json};

use crate::support::{Client, EASY, JOB, Miner, PATIENCE, TIMING, Template, listen, settings};

/// A time limit that a test waits for.
const SHORT: Duration = Duration::from_millis(500);
/// Checks better pools continuously.
const CURIOUS: Timing =
    Timing { first_probe: Duration::from_millis(40), last_probe: Duration::from_millis(80), ..TIMING };

const SECOND: Template = Template { id: "job-2", extranonce1: "beef", ..JOB };

/// Two listeners, and a miner with them as pools in this order.
fn two(timing: Timing) -> (Miner, [TcpListener; 2]) {
    let [(first, first_address), (second, second_address)] = [listen(), listen()];
    (Miner::start_with(&[first_address, second_address], timing), [first, second])
}

/// An address that nothing listens on yet, and a fallback pool in use in its place.
fn fallback(timing: Timing) -> (SocketAddr, Miner, Client) {
    let [(first, first_address), (second, second_address)] = [listen(), listen()];
    drop(first);
    let miner = Miner::start_with(&[first_address, second_address], timing);
    let mut client = Client::accept(&second);
    client.serve_until_share(&JOB);
    (first_address, miner, client)
}

fn reconnect(params: Value) -> Value {
    json!({"id": null, "method": "client.reconnect", "params": params})
}

#[test]
fn a_better_pool_that_is_back_is_gone_over_to_without_a_pause_and_the_old_one_judges_its_shares() {
    let (first_address, miner, mut old) = fallback(CURIOUS);
    assert!(matches!(miner.wait_for_source(0, |_| true).condition, Condition::Away(_)));
    let back = TcpListener::bind(first_address).unwrap();
    let mut new = Client::accept(&back);
    new.handshake(&SECOND);
    new.set_difficulty(EASY);
    // Until there is a job here, the old pool's job continues.
    for _ in 0..20 {
        JOB.check(&old.accept_share());
    }
    new.send(&SECOND.notify(true));
    SECOND.check(&new.accept_share());
    // Earlier finds still go to the old pool and get their verdicts there.
    let mut last = 0;
    while let Some(submit) = old.read_submit_if_any() {
        JOB.check(&submit);
        old.answer(&submit, json!(true));
        last += 1;
    }
    for _ in 0..20 {
        SECOND.check(&new.accept_share());
    }
    let left = miner.wait_for_source(1, |source| source.accepted == 21 + last);
    assert_eq!(left.condition, Condition::Unused);
    let sources = miner.board.sources();
    assert_eq!((&sources[0].condition, sources[0].rejected), (&Condition::Working, 0));
    assert!(miner.wait_for(|snapshot| snapshot.counts.accepted >= 42).counts.rejected.is_empty());
}

#[test]
fn a_better_pool_without_a_job_is_not_gone_over_to() {
    let (first_address, miner, mut old) = fallback(Timing { first_job: SHORT, ..CURIOUS });
    let back = TcpListener::bind(first_address).unwrap();
    for _ in 0..2 {
        let mut idle = Client::accept(&back);
        idle.handshake(&SECOND);
        idle.set_difficulty(EASY);
        for _ in 0..5 {
            JOB.check(&old.accept_share());
        }
        idle.wait_until_closed();
    }
    let source = miner.wait_for_source(0, |source| matches!(source.condition, Condition::Away(_)));
    assert_eq!(source.condition, Condition::Away("no job from the pool for 0.5 s".to_owned()));
    JOB.check(&old.accept_share());
}

#[test]
fn a_better_pool_that_begins_too_hard_is_waited_for_and_looked_at_again() {
    let (first_address, _miner, old) = fallback(Timing { silence: SHORT, ..CURIOUS });
    let serving = old.serve_aside();
    let back = TcpListener::bind(first_address).unwrap();
    let hard = || {
        let mut hard = Client::accept(&back);
        hard.handshake(&SECOND);
        hard.set_difficulty(1e300);
        hard.send(&SECOND.notify(true));
        hard
    };
    // It stays too hard.
    for _ in 0..2 {
        hard().wait_until_closed();
    }
    // It lowers its difficulty once the miner has seen how hard it is.
    let mut new = hard();
    new.send(&json!({"id": 7, "method": "mining.ping", "params": []}));
    while new.read().expect("the miner stays")["result"] != "pong" {}
    new.set_difficulty(EASY);
    new.send(&SECOND.notify(true));
    SECOND.check(&new.accept_share());
    serving.join().unwrap();
}

#[test]
fn the_next_pool_is_mined_at_while_the_first_is_slow_to_begin() {
    let (miner, [first, second]) = two(Timing { head_start: SHORT, ..CURIOUS });
    // It accepts the connection, but takes its time.
    let mut slow = Client::accept(&first);
    let mut next = Client::accept(&second);
    next.serve_until_share(&SECOND);
    slow.wait_until_closed();
    let source = miner.wait_for_source(0, |source| matches!(source.condition, Condition::Away(_)));
    assert!(format!("{source:?}").contains("no job from it within"), "{source:?}");
    // It is checked again, and answers now.
    let mut back = Client::accept(&first);
    back.serve_until_share(&JOB);
    next.serve_aside().join().unwrap();
    assert_eq!(miner.wait_for_source(1, |_| true).condition, Condition::Unused);
}

#[test]
fn the_third_pool_is_mined_at_while_the_first_is_slow_and_the_second_is_of_no_use() {
    let [(first, first_address), (second, second_address), (third, third_address)] =
        [listen(), listen(), listen()];
    let timing = Timing { head_start: SHORT, ..TIMING };
    let miner = Miner::start_with(&[first_address, second_address, third_address], timing);
    let _slow = Client::accept(&first);
    drop(Client::accept(&second));
    Client::accept(&third).serve_until_share(&SECOND);
    let away = |source: &Source| matches!(source.condition, Condition::Away(_));
    miner.wait_for_source(0, away);
    miner.wait_for_source(1, away);
}

#[test]
fn a_pool_that_answers_no_share_is_left_for_the_next_whatever_jobs_it_sends() {
    let (_miner, [first, second]) = two(Timing { answer: SHORT, ..TIMING });
    let mut client = Client::accept(&first);
    client.serve_until_share(&JOB);
    let start = Instant::now();
    while client.read().is_some() {
        client.send(&JOB.notify(true));
        assert!(start.elapsed() < PATIENCE, "a pool that answers nothing is mined at for ever");
    }
    Client::accept(&second).serve_until_share(&SECOND);
}

#[test]
fn a_pool_that_refuses_everything_is_left_for_another_one_and_connected_to_anew_where_there_is_none() {
    let refuse = |client: &mut Client| {
        let Some(request) = client.read() else { return false };
        client.refuse(&request, &json!([23, "Low difficulty share", null]));
        client.send(&JOB.notify(false));
        true
    };
    let timing = Timing { refused: SHORT, ..TIMING };
    let (miner, [first, second]) = two(timing);
    let mut client = Client::accept(&first);
    client.serve_until_share(&JOB);
    while refuse(&mut client) {}
    Client::accept(&second).serve_until_share(&SECOND);
    assert!(miner.board.sources()[0].rejected >= 16);

    let (listener, address) = listen();
    let miner = Miner::start_with(&[address], timing);
    let mut client = Client::accept(&listener);
    client.serve_until_share(&JOB);
    while refuse(&mut client) {}
    assert!(miner.board.sources()[0].rejected >= 16);
    // The new login helps.
    Client::accept(&listener).serve_until_share(&JOB);
}

#[test]
fn a_pool_whose_shares_are_impossible_is_left_for_another_one() {
    let (_miner, [first, second]) = two(Timing { silence: SHORT, ..TIMING });
    let mut client = Client::accept(&first);
    client.handshake(&JOB);
    client.set_difficulty(1e300);
    let sending = thread::spawn(move || {
        let start = Instant::now();
        for number in 0.. {
            // A steady stream of jobs: it is not silent.
            client.send(&Template { ntime: number, ..JOB }.notify(true));
            thread::sleep(Duration::from_millis(20));
            if start.elapsed() > PATIENCE {
                return;
            }
        }
    });
    Client::accept(&second).serve_until_share(&SECOND);
    drop(sending);
}

#[test]
fn a_pool_that_somebody_asks_for_is_mined_at_until_it_fails() {
    let (miner, [first, second]) = two(CURIOUS);
    let mut one = Client::accept(&first);
    one.serve_until_share(&JOB);
    assert!(miner.board.ask_for(1));
    let mut two = Client::accept(&second);
    two.handshake(&SECOND);
    two.set_difficulty(EASY);
    JOB.check(&one.accept_share());
    two.send(&SECOND.notify(true));
    SECOND.check(&two.accept_share());
    one.serve_aside().join().unwrap();
    // It stays, though the first pool is back: nothing connects to that.
    for _ in 0..20 {
        SECOND.check(&two.accept_share());
    }
    thread::sleep(SHORT);
    assert!(first.accept().is_err(), "the first pool was looked at");
    drop(two);
    Client::accept(&first).serve_until_share(&JOB);
}

#[test]
fn a_pool_that_somebody_asks_for_and_that_is_away_is_not_waited_for() {
    let [(first, first_address), (second, second_address)] = [listen(), listen()];
    drop(second);
    let miner = Miner::start_with(&[first_address, second_address], TIMING);
    let mut client = Client::accept(&first);
    client.serve_until_share(&JOB);
    assert!(miner.board.ask_for(1));
    miner.wait_for_source(1, |source| matches!(source.condition, Condition::Away(_)));
    JOB.check(&client.accept_share());
    assert_eq!(miner.board.current().unwrap().condition, Condition::Working);
}

#[test]
fn somebody_who_asks_while_no_pool_is_there_gets_that_pool_next() {
    let [(first, first_address), (second, second_address)] = [listen(), listen()];
    // The first pool never authorizes the miner.
    let miner = Miner::start_with(&[first_address, second_address], TIMING);
    let _silent = Client::accept(&first);
    assert!(miner.board.ask_for(1));
    Client::accept(&second).serve_until_share(&JOB);
}

#[test]
fn the_board_says_what_a_pool_is_doing() {
    let (listener, address) = listen();
    let miner = Miner::start(&[address]);
    let mut client = Client::accept(&listener);
    assert_eq!(miner.wait_for_source(0, |source| source.since.is_some()).condition, Condition::Connecting);
    client.handshake(&JOB);
    miner.wait_for_source(0, |source| matches!(source.condition, Condition::Waiting(_)));
    client.set_difficulty(EASY);
    client.send(&JOB.notify(true));
    let submit = client.read_submit();
    let working = miner.wait_for_source(0, |source| source.condition == Condition::Working);
    let job = working.job.unwrap();
    assert_eq!((&*job.id, job.height, job.network_difficulty), (JOB.id, None, 1.0));
    assert_eq!((working.difficulty, working.jobs, working.answer), (Some(EASY), 1, None));
    client.answer(&submit, json!(true));
    for code in [21, 23] {
        let submit = client.read_submit();
        client.refuse(&submit, &json!([code, "no", null]));
    }
    client.send(&json!({"id": null, "method": "client.show_message", "params": ["back \u{1b}[2Jat six"]}));
    let counted = miner.wait_for_source(0, |source| source.message.is_some());
    assert_eq!((counted.accepted, counted.stale, counted.rejected), (1, 1, 1));
    assert_eq!(counted.message.as_deref(), Some("back [2Jat six"));
    assert!(counted.answer.is_some() && counted.last_accepted.is_some());
    drop((client, listener));
    miner.wait_for_source(0, |source| matches!(&source.condition, Condition::Away(_)));
}

#[test]
fn a_pool_that_sends_the_miner_on_and_on_is_left_for_the_next_after_three_times() {
    let (_miner, [first, second]) = two(TIMING);
    let port = first.local_addr().unwrap().port();
    // It redirects the miner each time, after giving a job or before.
    let sending_on = thread::spawn(move || {
        for number in 0..4 {
            let mut client = Client::accept(&first);
            client.handshake(&JOB);
            if number % 2 == 1 {
                client.set_difficulty(EASY);
                client.send(&JOB.notify(true));
                client.accept_share();
            }
            client.send(&reconnect(json!(["127.0.0.1", port, 0])));
            client.serve_aside();
        }
        first
    });
    let mut next = Client::accept(&second);
    next.serve_until_share(&SECOND);
    let first = sending_on.join().unwrap();
    assert!(first.accept().is_err(), "it was connected to a fifth time");
}

#[test]
fn a_pool_that_takes_shares_of_one_job_for_ever_is_left_for_the_next() {
    let (miner, [first, second]) = two(Timing { job_age: SHORT, ..TIMING });
    let mut dead = Client::accept(&first);
    dead.serve_until_share(&JOB);
    dead.serve_aside();
    Client::accept(&second).serve_until_share(&SECOND);
    let source = miner.wait_for_source(0, |source| matches!(source.condition, Condition::Away(_)));
    assert_eq!(source.condition, Condition::Away("no new job from the pool for 0.5 s".to_owned()));
    assert_eq!(source.job, None);
}

#[test]
fn every_share_is_accepted_rejected_or_stale_when_a_pool_has_closed() {
    let (miner, [first, second]) = two(TIMING);
    let mut client = Client::accept(&first);
    client.serve_until_share(&JOB);
    let refused = client.read_submit();
    client.refuse(&refused, &json!([23, "Low difficulty share", null]));
    (0..5).for_each(|_| drop(client.read_submit()));
    drop(client);
    Client::accept(&second).handshake(&SECOND);
    let source = miner.wait_for_source(0, |source| matches!(source.condition, Condition::Away(_)));
    assert_eq!((source.accepted, source.rejected), (1, 1));
    assert!(source.stale >= 5, "{source:?}");
}

#[test]
fn a_pool_may_move_to_another_host_where_that_is_wanted() {
    let (listener, address) = listen();
    let (other, other_address) = listen();
    let urls = [format!("stratum+tcp://{address}")];
    let settings = PoolSettings { follow_reconnect: true, ..settings(&urls) };
    let _miner = Miner::start_at(Pool::new(settings, None, TIMING));
    let mut client = Client::accept(&listener);
    client.serve_until_share(&JOB);
    client.send(&reconnect(json!(["localhost", other_address.port().to_string(), 0])));
    client.wait_until_closed();
    Client::accept(&other).serve_until_share(&JOB);
}

/// A pool that refuses all shares, and closes before the refusals in a row reach the limit.
#[test]
fn a_pool_that_credits_nothing_and_closes_each_time_is_left_for_the_next() {
    let (_miner, [first, second]) = two(Timing { good_after: Duration::ZERO, ..TIMING });
    let mut useless = Client::accept(&first);
    useless.handshake(&JOB);
    useless.set_difficulty(EASY);
    useless.send(&JOB.notify(true));
    for _ in 0..4 {
        let submit = useless.read_submit();
        useless.refuse(&submit, &json!([23, "Low difficulty share", null]));
    }
    drop(useless);
    let mut next = Client::accept(&second);
    next.serve_until_share(&SECOND);
}

#[test]
fn a_pool_that_wants_its_miner_to_wait_for_long_is_left_for_the_next_meanwhile() {
    let timing = Timing { longest_asked_wait: PATIENCE, ..TIMING };
    let (_miner, [first, second]) = two(timing);
    let mut lazy = Client::accept(&first);
    lazy.serve_until_share(&JOB);
    lazy.send(&reconnect(json!(["", 0, 25])));
    let mut next = Client::accept(&second);
    next.serve_until_share(&SECOND);
}
