//! `mine` against pools of every kind, over real sockets.

use std::collections::HashSet;
use std::io;
use std::net::TcpListener;
use std::thread;
use std::time::{Duration, Instant};

use iop_miner::device::{Cpu, Device, Feed};
use iop_miner::rig::Rig;
use iop_miner::upstream::Timing;
use serde_json::{Value, json};

use crate::support::{Client, EASY, HARDER, JOB, Miner, PATIENCE, SUGGESTED, TIMING, Template, listen, pool};

/// A time limit that a test waits for.
const SHORT: Duration = Duration::from_secs(1);

/// A pool's refusal of a share of an unknown job.
fn stale() -> Value {
    json!([21, "Job not found", null])
}

#[test]
fn shares_meet_the_target_and_no_header_is_submitted_twice() {
    let (listener, address) = listen();
    let miner = Miner::start(&[address]);
    let mut client = Client::accept(&listener);
    client.handshake(&JOB);
    client.set_difficulty(EASY);
    client.send(&JOB.notify(true));
    let mut headers = HashSet::new();
    for _ in 0..200 {
        let submit = client.read_submit();
        assert!(headers.insert(JOB.check(&submit)), "submitted twice");
        client.answer(&submit, json!(true));
    }
    let snapshot = miner.wait_for(|snapshot| snapshot.counts.accepted == 200);
    assert!(snapshot.hashes > 0);
    assert_eq!((snapshot.counts.hardware_errors, snapshot.counts.rejected.len()), (0, 0));
}

#[test]
fn a_pool_without_version_rolling_gets_shares_without_version_bits() {
    let (listener, address) = listen();
    let _miner = Miner::start(&[address]);
    Client::accept(&listener).serve_until_share(&Template { mask: 0, extranonce2_size: 1, ..JOB });
}

#[test]
fn a_new_difficulty_and_a_new_extranonce_hold_from_the_next_job_on() {
    let (listener, address) = listen();
    let _miner = Miner::start(&[address]);
    let mut client = Client::accept(&listener);
    client.serve_until_share(&JOB);
    client.set_difficulty(HARDER);
    client.send(&json!({"id": null, "method": "mining.set_extranonce", "params": ["abcdef", 8]}));
    // Still the first job, with its own difficulty and extranonce. The chance that all eight shares would also be valid
    // for the second one is one in 65,536.
    for _ in 0..8 {
        JOB.check(&client.accept_share());
    }
    let second =
        Template { id: "job-2", extranonce1: "abcdef", extranonce2_size: 8, share_bound: 0x4000, ..JOB };
    client.send(&second.notify(true));
    let mut of_second = 0;
    while of_second < 8 {
        let submit = client.accept_share();
        if submit["params"][1] == second.id {
            second.check(&submit);
            of_second += 1;
        } else {
            JOB.check(&submit);
            assert_eq!(of_second, 0, "a stale share was submitted after a clean job");
        }
    }
}

#[test]
fn version_bits_follow_a_mask_that_changes() {
    let (listener, address) = listen();
    let _miner = Miner::start(&[address]);
    let mut client = Client::accept(&listener);
    client.serve_until_share(&JOB);
    client.send(&json!({"id": null, "method": "mining.set_version_mask", "params": ["00000000"]}));
    let unrolled = Template { mask: 0, ..JOB };
    let start = Instant::now();
    loop {
        let submit = client.accept_share();
        if submit["params"].as_array().unwrap().len() == 5 {
            unrolled.check(&submit);
            return;
        }
        assert!(start.elapsed() < PATIENCE);
    }
}

#[test]
fn verdicts_are_counted_by_the_pools_reasons() {
    let (listener, address) = listen();
    let miner = Miner::start(&[address]);
    let mut client = Client::accept(&listener);
    client.serve_until_share(&JOB);
    for error in [
        json!([23, "Low difficulty share", null]),
        json!([22, "Duplicate share", null]),
        json!([21, "Stale", null]),
    ] {
        let submit = client.read_submit();
        client.refuse(&submit, &error);
    }
    let snapshot = miner.wait_for(|snapshot| snapshot.counts.stale == 1);
    assert_eq!(
        snapshot.counts.to_string(),
        "accepted 1, rejected 2 (Duplicate share (22) 1, Low difficulty share (23) 1), stale 1"
    );
}

#[test]
fn a_pool_that_comes_late_goes_and_comes_back_is_mined_at_each_time() {
    let (listener, address) = listen();
    drop(listener);
    let miner = Miner::start(&[address]);
    for _ in 0..2 {
        thread::sleep(Duration::from_millis(300));
        let listener = TcpListener::bind(address).unwrap();
        let mut client = Client::accept(&listener);
        client.serve_until_share(&JOB);
        drop((client, listener));
        // Without a pool there is no work, and the rest of it is discarded.
        miner.wait_until_idle();
    }
}

#[test]
fn the_next_pool_of_the_list_is_tried_when_one_fails() {
    let (dead, dead_address) = listen();
    drop(dead);
    let (listener, address) = listen();
    let _miner = Miner::start(&[dead_address, address]);
    Client::accept(&listener).serve_until_share(&JOB);
}

#[test]
fn a_pool_that_refuses_the_user_is_left() {
    let (listener, address) = listen();
    let _miner = Miner::start(&[address]);
    let mut client = Client::accept(&listener);
    let subscribed = json!([[["mining.notify", "1"]], "00", 4]);
    client.send(&json!({"id": 2, "result": subscribed, "error": null}));
    client.send(&json!({"id": 3, "result": false, "error": [24, "Unauthorized worker", null]}));
    client.wait_until_closed();
    Client::accept(&listener).serve_until_share(&JOB);
}

/// Actions of a hostile pool on a connection.
type Attack = Box<dyn Fn(&mut Client)>;

#[test]
fn what_a_hostile_pool_sends_ends_its_connection_and_nothing_else() {
    let (listener, address) = listen();
    let _miner = Miner::start(&[address]);
    let subscribe = |size: &str| {
        let line = format!("{{\"id\":2,\"result\":[[],\"00\",{size}],\"error\":null}}\n");
        move |client: &mut Client| client.send_bytes(line.as_bytes())
    };
    let notify = |place: usize, value: serde_json::Value| {
        let mut message = JOB.notify(true);
        message["params"][place] = value;
        move |client: &mut Client| {
            client.handshake(&JOB);
            client.send(&message);
        }
    };
    let hostile: Vec<Attack> = vec![
        Box::new(|client| client.send_bytes(&vec![b'x'; 4 << 20])),
        Box::new(|client| client.send_bytes(b"HTTP/1.1 400 Bad Request\r\n\r\n")),
        Box::new(|client| client.send_bytes(&[0xff, 0xfe, b'\n'])),
        Box::new(|client| client.send_bytes(format!("{}\n", "[".repeat(100_000)).as_bytes())),
        Box::new(subscribe("1000000000")),
        Box::new(subscribe("-1")),
        Box::new(subscribe("1e400")),
        Box::new(notify(0, json!(""))),
        Box::new(notify(1, json!("zz".repeat(32)))),
        Box::new(notify(2, json!("abc"))),
        Box::new(notify(3, json!(null))),
        Box::new(notify(4, json!(vec!["00".repeat(32); 1000]))),
        Box::new(notify(5, json!("20000000ff"))),
        Box::new(notify(8, json!("maybe"))),
        Box::new(|client| {
            client.handshake(&JOB);
            client.send(
                &json!({"id": null, "method": "mining.set_extranonce", "params": ["00".repeat(1000), 4]}),
            );
        }),
    ];
    for attack in hostile {
        let mut client = Client::accept(&listener);
        attack(&mut client);
        client.wait_until_closed();
    }
    Client::accept(&listener).serve_until_share(&JOB);
}

#[test]
fn a_pool_that_takes_every_hash_and_reads_none_is_left() {
    let (listener, address) = listen();
    let miner = Miner::start_with(&[address], Timing { write: SHORT, ..TIMING });
    let mut client = Client::accept(&listener);
    client.handshake(&JOB);
    client.set_difficulty(1e-300);
    client.send(&JOB.notify(true));
    // Every hash is a share now. The pool reads none, until the miner finds that it takes nothing.
    let _again = Client::accept(&listener);
    assert!(miner.stats.snapshot().hashes > 0);
}

#[test]
fn a_pool_that_is_silent_before_the_hand_shake_is_left() {
    let (listener, address) = listen();
    let _miner = Miner::start_with(&[address], Timing { handshake: SHORT, ..TIMING });
    Client::accept(&listener).wait_until_closed();
    Client::accept(&listener);
}

#[test]
fn a_pool_that_takes_its_time_to_authorise_is_waited_for_longer_but_not_for_ever() {
    let (listener, address) = listen();
    let timing = Timing { handshake: 2 * SHORT, login: 6 * SHORT, ..TIMING };
    let _miner = Miner::start_with(&[address], timing);
    let mut client = Client::accept(&listener);
    let authorize = client.begin_handshake(&JOB).expect("the miner stays");
    thread::sleep(3 * SHORT);
    client.answer(&authorize, json!(true));
    client.set_difficulty(EASY);
    client.send(&JOB.notify(true));
    JOB.check(&client.accept_share());
    drop(client);
    let mut client = Client::accept(&listener);
    client.begin_handshake(&JOB).expect("the miner stays");
    client.wait_until_closed();
    Client::accept(&listener);
}

#[test]
fn a_pool_that_falls_silent_is_left_for_the_next_however_long_it_was_good() {
    let [(first, first_address), (second, second_address)] = [listen(), listen()];
    let timing = Timing { silence: SHORT, good_after: Duration::ZERO, ..TIMING };
    let _miner = Miner::start_with(&[first_address, second_address], timing);
    let mut client = Client::accept(&first);
    client.try_handshake(&JOB, "x");
    client.wait_until_closed();
    Client::accept(&second);
}

#[test]
fn refusals_and_messages_do_not_break_the_silence() {
    let [(first, first_address), (second, second_address)] = [listen(), listen()];
    let timing = Timing { silence: SHORT, ..TIMING };
    let _miner = Miner::start_with(&[first_address, second_address], timing);
    let mut client = Client::accept(&first);
    client.try_handshake(&JOB, "x");
    client.set_difficulty(EASY);
    client.send(&JOB.notify(true));
    let start = Instant::now();
    while let Some(request) = client.read() {
        assert!(start.elapsed() < PATIENCE, "a pool that takes no share is mined at for ever");
        client.refuse(&request, &json!([23, "Low difficulty share", null]));
        client.send(&json!({"id": null, "method": "client.show_message", "params": ["still here"]}));
        client.send(&json!({"id": 7, "method": "mining.ping", "params": []}));
    }
    Client::accept(&second);
}

#[test]
fn a_job_of_which_every_share_is_stale_is_dropped_until_the_next_one() {
    let (listener, address) = listen();
    let miner = Miner::start(&[address]);
    let mut client = Client::accept(&listener);
    client.serve_until_share(&JOB);
    for _ in 0..16 {
        let submit = client.read_submit();
        client.refuse(&submit, &stale());
    }
    miner.wait_for(|snapshot| snapshot.counts.stale >= 16);
    miner.wait_until_idle();
    // A change of the mask does not bring the job back. Shares from before the drop precede the pong.
    client.send(&json!({"id": null, "method": "mining.set_version_mask", "params": ["00ffe000"]}));
    client.send(&json!({"id": 7, "method": "mining.ping", "params": []}));
    while client.read().expect("the miner stays")["result"] != "pong" {}
    thread::sleep(Duration::from_millis(200));
    let second = Template { id: "job-2", mask: 0x00ff_e000, ..JOB };
    client.send(&second.notify(false));
    second.check(&client.accept_share());
}

#[test]
fn stale_shares_with_an_accepted_one_now_and_then_drop_no_job() {
    let (listener, address) = listen();
    let _miner = Miner::start(&[address]);
    let mut client = Client::accept(&listener);
    client.serve_until_share(&JOB);
    for _ in 0..3 {
        for _ in 0..15 {
            let submit = client.read_submit();
            client.refuse(&submit, &stale());
        }
        JOB.check(&client.accept_share());
    }
    JOB.check(&client.accept_share());
}

#[test]
fn a_pool_that_has_no_job_is_left_for_the_next_whatever_else_it_sends() {
    let [(first, first_address), (second, second_address)] = [listen(), listen()];
    let timing = Timing { silence: SHORT, ..TIMING };
    let _miner = Miner::start_with(&[first_address, second_address], timing);
    let mut client = Client::accept(&first);
    client.try_handshake(&JOB, "x");
    client.set_difficulty(EASY);
    client.send(&JOB.notify(true));
    for _ in 0..16 {
        let Some(submit) = client.read_submit_if_any() else { break };
        client.refuse(&submit, &stale());
        // This breaks the silence, and continues to.
        client.set_difficulty(EASY);
    }
    let start = Instant::now();
    second.set_nonblocking(true).unwrap();
    while second.accept().is_err() {
        assert!(start.elapsed() < PATIENCE, "a pool without a job is kept for ever");
        client.set_difficulty(EASY);
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_pool_that_refuses_the_suggested_difficulty_is_mined_at() {
    for error in [json!([20, "Unknown method", null]), json!("no")] {
        let (listener, address) = listen();
        let miner = Miner::start(&[address]);
        let mut client = Client::accept(&listener);
        client.handshake(&JOB);
        let suggestion = client.read_request("mining.suggest_difficulty");
        assert_eq!(suggestion["params"], json!([SUGGESTED]));
        client.refuse(&suggestion, &error);
        client.set_difficulty(EASY);
        client.send(&JOB.notify(true));
        JOB.check(&client.accept_share());
        assert!(miner.wait_for(|snapshot| snapshot.counts.accepted >= 1).counts.rejected.is_empty());
    }
}

/// A device that cannot hash.
struct Broken;

impl Device for Broken {
    fn name(&self) -> &str {
        "broken"
    }

    fn run(&self, _: &Feed) -> io::Result<()> {
        Err(io::Error::other("no fan"))
    }
}

/// However the rig ends, as by a key in the live view: futures that were added for the end are waited for.
#[test]
fn what_is_to_be_waited_for_at_the_end_is_waited_for_whoever_ends_it() {
    let (_listener, address) = listen();
    let pool = pool(&[address], None, TIMING);
    let mut rig = Rig::new(vec![Box::new(Cpu::new(iop_kernels::auto(), 1))], pool.board());
    let (end, (done, waited)) = (rig.end(), std::sync::mpsc::channel());
    rig.before_end(async move {
        tokio::time::sleep(Duration::from_millis(100)).await;
        done.send(()).unwrap();
    });
    end.end(Ok(()));
    rig.run(pool, std::future::pending()).unwrap();
    waited.try_recv().unwrap();
}

#[test]
fn mining_ends_when_no_device_works_and_not_before() {
    let (_listener, address) = listen();
    let run = |devices: Vec<Box<dyn Device>>, asked_to_end_after| {
        let until = async move {
            tokio::time::sleep(asked_to_end_after).await;
            Ok(())
        };
        let pool = pool(&[address], None, TIMING);
        Rig::new(devices, pool.board()).run(pool, until)
    };
    let error = run(vec![Box::new(Broken), Box::new(Broken)], PATIENCE).unwrap_err();
    assert_eq!(error.to_string(), "broken: no fan");
    // Machines behind a gateway continue.
    let mut rig = Rig::new(vec![Box::new(Broken)], pool(&[address], None, TIMING).board());
    rig.go_on_without_devices();
    let until = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        Ok(())
    };
    rig.run(pool(&[address], None, TIMING), until).unwrap();
    let one_works: Vec<Box<dyn Device>> = vec![Box::new(Broken), Box::new(Cpu::new(iop_kernels::auto(), 1))];
    run(one_works, Duration::from_millis(300)).unwrap();
}

#[test]
fn a_pool_may_move_to_another_port_and_not_to_another_host() {
    let (listener, address) = listen();
    let (other, other_address) = listen();
    let _miner = Miner::start(&[address]);
    let mut client = Client::accept(&listener);
    client.handshake(&JOB);
    let reconnect = |host: &str| json!({"id": null, "method": "client.reconnect", "params": [host, other_address.port(), 0]});
    client.send(&reconnect("thief.example.org"));
    client.set_difficulty(EASY);
    client.send(&JOB.notify(true));
    JOB.check(&client.read_submit());
    client.send(&reconnect("127.0.0.1"));
    client.wait_until_closed();
    Client::accept(&other).serve_until_share(&JOB);
}
