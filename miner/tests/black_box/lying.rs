//! Pools that lie, flood, drip and break: each affects only its own connection.

use std::collections::HashSet;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use iop_miner::upstream::Timing;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};

use crate::support::{Client, EASY, JOB, Miner, PATIENCE, TIMING, Template, accept, listen};

/// A time limit that a test waits for.
const SHORT: Duration = Duration::from_millis(500);

fn call(method: &str, params: Value) -> Value {
    json!({"id": null, "method": method, "params": params})
}

/// One end of a connection, shared by two threads: lines are written whole.
#[derive(Clone)]
struct Shared(Arc<(TcpStream, Mutex<TcpStream>)>);

impl Shared {
    fn new(socket: TcpStream) -> Self {
        Self(Arc::new((socket.try_clone().unwrap(), Mutex::new(socket))))
    }
}

impl Read for Shared {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (&self.0.0).read(buffer)
    }
}

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.1.lock().unwrap().write_all(bytes).map(|()| bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Sends lines as fast as they are taken, on its own thread, until it is dropped.
struct Flood {
    over: Arc<AtomicBool>,
    sent: Arc<AtomicU32>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Flood {
    fn start(mut socket: Shared, line: impl Fn(u32) -> String + Send + 'static) -> Self {
        let (over, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
        let (ends, counts) = (Arc::clone(&over), Arc::clone(&sent));
        let thread = thread::spawn(move || {
            while !ends.load(Ordering::Relaxed) {
                let first = counts.load(Ordering::Relaxed);
                let lines: String = (first..first + 50).map(|number| line(number) + "\n").collect();
                socket.write_all(lines.as_bytes()).expect("the miner stays");
                counts.store(first + 50, Ordering::Relaxed);
            }
        });
        Self { over, sent, thread: Some(thread) }
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        let ended = self.thread.take().unwrap().join();
        assert!(ended.is_ok() || thread::panicking());
    }
}

#[test]
fn a_flood_of_jobs_starves_no_device_and_the_last_job_wins() {
    let (listener, address) = listen();
    let miner = Miner::start(&[address]);
    let socket = Shared::new(accept(&listener));
    let mut client = Client::over(socket.clone());
    client.handshake(&JOB);
    client.set_difficulty(EASY);
    // Each is a new job by its time and its id.
    let flood = Flood::start(socket, |number| {
        let mut notify = JOB.notify(true);
        notify["params"][0] = json!(format!("flood-{number}"));
        notify["params"][7] = json!(format!("{number:08x}"));
        notify.to_string()
    });
    let mut of_jobs = HashSet::new();
    while of_jobs.len() < 30 || flood.sent.load(Ordering::Relaxed) < 10_000 {
        let submit = client.accept_share();
        let id = submit["params"][1].as_str().unwrap().to_owned();
        let ntime = u32::from_str_radix(submit["params"][3].as_str().unwrap(), 16).unwrap();
        assert_eq!(id, format!("flood-{ntime}"), "a job mixed of two");
        of_jobs.insert(id);
    }
    drop(flood);
    client.send(&JOB.notify(true));
    while client.accept_share()["params"][1] != JOB.id {}
    for _ in 0..10 {
        JOB.check(&client.accept_share());
    }
    assert_eq!(miner.stats.snapshot().counts.hardware_errors, 0);
}

#[test]
fn floods_of_difficulties_extranonces_masks_and_messages_change_nothing_for_the_job_at_hand() {
    let (listener, address) = listen();
    let miner = Miner::start(&[address]);
    let socket = Shared::new(accept(&listener));
    let mut client = Client::over(socket.clone());
    client.serve_until_share(&JOB);
    let flood = Flood::start(socket, |number| {
        let line = match number % 4 {
            0 => call("mining.set_difficulty", json!([f64::from(number) + 0.5])),
            1 => call("mining.set_extranonce", json!([format!("{number:08x}"), 1 + number % 8])),
            2 => call("client.show_message", json!(["x".repeat(1000)])),
            _ => json!({"id": number, "method": "mining.ping", "params": []}),
        };
        line.to_string()
    });
    while flood.sent.load(Ordering::Relaxed) < 4_000 {
        JOB.check(&client.accept_share());
    }
    drop(flood);
    // The last of each applies to the next job.
    client.send(&call("mining.set_extranonce", json!(["c0de", 3])));
    client.set_difficulty(EASY);
    let next = Template { id: "job-2", extranonce1: "c0de", extranonce2_size: 3, ..JOB };
    client.send(&next.notify(true));
    while client.accept_share()["params"][1] != next.id {}
    next.check(&client.accept_share());
    let message = miner.board.sources()[0].message.clone().unwrap();
    assert!(message.len() <= 512, "{}", message.len());
}

#[test]
fn masks_that_change_all_the_time_leave_the_devices_their_work() {
    let (listener, address) = listen();
    let _miner = Miner::start(&[address]);
    let socket = Shared::new(accept(&listener));
    let mut client = Client::over(socket.clone());
    client.serve_until_share(&JOB);
    let flood = Flood::start(socket, |number| {
        call("mining.set_version_mask", json!([format!("{:08x}", 0x2000 << (number % 16))])).to_string()
    });
    for _ in 0..50 {
        client.accept_share();
    }
    drop(flood);
}

#[test]
fn another_job_by_the_same_name_ends_the_one_before_though_it_is_not_said_to_be_clean() {
    let (listener, address) = listen();
    let _miner = Miner::start(&[address]);
    let mut client = Client::accept(&listener);
    client.serve_until_share(&JOB);
    for ntime in [JOB.ntime + 1, JOB.ntime + 2, JOB.ntime + 3] {
        let other = Template { ntime, ..JOB };
        client.send(&other.notify(false));
        // The pong marks the end of the shares that were sent before.
        client.send(&json!({"id": 7, "method": "mining.ping", "params": []}));
        while client.read().expect("the miner stays")["result"] != "pong" {}
        for _ in 0..5 {
            other.check(&client.accept_share());
        }
    }
}

#[test]
fn a_job_that_is_sent_again_gives_no_share_twice() {
    let (listener, address) = listen();
    let _miner = Miner::start(&[address]);
    let mut client = Client::accept(&listener);
    client.handshake(&JOB);
    client.set_difficulty(EASY);
    let mut headers = HashSet::new();
    for number in 0..100 {
        if number % 5 == 0 {
            client.send(&JOB.notify(number % 2 == 0));
        }
        assert!(headers.insert(JOB.check(&client.accept_share())), "submitted twice");
    }
}

#[test]
fn each_job_is_solved_with_the_extranonce_that_was_in_force_when_it_came() {
    let (listener, address) = listen();
    let _miner = Miner::start(&[address]);
    let mut client = Client::accept(&listener);
    client.serve_until_share(&JOB);
    let jobs = [("a", "", 1), ("b", "00", 8), ("c", "0102030405060708", 2), ("d", "ffff", 4)];
    for (id, extranonce1, extranonce2_size) in jobs {
        client.send(&call("mining.set_extranonce", json!([extranonce1, extranonce2_size])));
        let job = Template { id, extranonce1, extranonce2_size, ..JOB };
        client.send(&job.notify(true));
        while client.accept_share()["params"][1] != id {}
        for _ in 0..5 {
            job.check(&client.accept_share());
        }
    }
}

#[test]
fn answers_that_nobody_asked_for_count_nothing_and_the_right_ones_count_in_any_order() {
    let (listener, address) = listen();
    let miner = Miner::start(&[address]);
    let mut client = Client::accept(&listener);
    client.serve_until_share(&JOB);
    let held: Vec<Value> = (0..50).map(|_| client.read_submit()).collect();
    for id in [json!(null), json!(0), json!(-1), json!(1e300), json!("x"), json!(u64::MAX), json!(1u64 << 40)]
    {
        client.send(&json!({"id": id, "result": true, "error": null}));
    }
    for submit in held.iter().rev() {
        client.answer(submit, json!(true));
        // The same verdict again, and another one.
        client.answer(submit, json!(true));
        client.refuse(submit, &json!([23, "Low difficulty share", null]));
    }
    let source = miner.wait_for_source(0, |source| source.accepted == 51);
    client.send(&json!({"id": 7, "method": "mining.ping", "params": []}));
    while client.read().expect("the miner stays")["result"] != "pong" {}
    assert_eq!((source.rejected, source.stale), (0, 0));
    let counts = miner.stats.snapshot().counts;
    assert_eq!((counts.accepted, counts.refused()), (51, 0));
}

#[test]
fn a_pool_that_closes_after_each_share_gets_the_next_one_too() {
    let (listener, address) = listen();
    let miner = Miner::start(&[address]);
    for _ in 0..5 {
        Client::accept(&listener).serve_until_share(&JOB);
    }
    miner.wait_for(|snapshot| snapshot.counts.accepted >= 4);
}

#[test]
fn difficulties_that_are_none_are_passed_over_and_the_one_before_holds() {
    let (listener, address) = listen();
    let _miner = Miner::start(&[address]);
    let mut client = Client::accept(&listener);
    client.serve_until_share(&JOB);
    for number in ["0", "-0.0", "-1", "NaN", "1e400", "\"Infinity\"", "null", "[]", "true", "1e-400"] {
        let line = format!("{{\"id\":null,\"method\":\"mining.set_difficulty\",\"params\":[{number}]}}\n");
        client.send_bytes(line.as_bytes());
    }
    let next = Template { id: "job-2", ..JOB };
    client.send(&next.notify(true));
    while client.accept_share()["params"][1] != next.id {}
    for _ in 0..10 {
        next.check(&client.accept_share());
    }
}

#[test]
fn lines_that_are_no_messages_are_passed_over_and_too_many_in_a_row_end_the_connection() {
    let (listener, address) = listen();
    let _miner = Miner::start(&[address]);
    let mut client = Client::accept(&listener);
    client.serve_until_share(&JOB);
    for lines in [1, 16, 16] {
        client.send_bytes("caf\u{e9} <html>\n".repeat(lines).as_bytes());
        client.send(&json!({"id": 7, "method": "mining.ping", "params": []}));
        while client.read().expect("the miner stays")["result"] != "pong" {}
    }
    client.send_bytes(&b"<html>\n".repeat(17));
    client.wait_until_closed();
    Client::accept(&listener).serve_until_share(&JOB);
}

#[test]
fn a_target_that_no_hash_meets_costs_its_own_job_and_no_other() {
    let (listener, address) = listen();
    let _miner = Miner::start(&[address]);
    let mut client = Client::accept(&listener);
    client.handshake(&JOB);
    for (number, difficulty) in [1e300, f64::MAX, 1e80].into_iter().enumerate() {
        client.set_difficulty(difficulty);
        client.send(&Template { ntime: u32::try_from(number).unwrap(), ..JOB }.notify(true));
    }
    // Invalid targets in the header itself.
    for nbits in ["00000000", "ffffffff", "1d800000"] {
        let mut notify = JOB.notify(true);
        notify["params"][6] = json!(nbits);
        client.send(&notify);
    }
    client.set_difficulty(EASY);
    client.send(&JOB.notify(true));
    JOB.check(&client.accept_share());
}

#[test]
fn a_pool_that_wants_every_hash_is_sent_shares_at_a_bounded_pace_and_is_heard_all_the_while() {
    let (listener, address) = listen();
    let _miner = Miner::start(&[address]);
    let mut client = Client::accept(&listener);
    client.handshake(&JOB);
    client.set_difficulty(1e-300);
    client.send(&Template { id: "every", ..JOB }.notify(true));
    // More than are sent at once.
    for _ in 0..6_000 {
        assert_eq!(client.accept_share()["params"][1], "every");
    }
    client.set_difficulty(EASY);
    client.send(&JOB.notify(true));
    while client.accept_share()["params"][1] != JOB.id {}
    JOB.check(&client.accept_share());
}

#[test]
fn a_pool_that_drips_a_line_for_ever_is_left() {
    let (listener, address) = listen();
    let _miner = Miner::start_with(&[address], Timing { handshake: SHORT, silence: SHORT, ..TIMING });
    for after_handshake in [false, true] {
        let mut client = Client::accept(&listener);
        if after_handshake {
            client.handshake(&JOB);
        }
        client.send_bytes(b"{\"id\":null,\"method\":\"");
        let start = Instant::now();
        listener.set_nonblocking(true).unwrap();
        while listener.accept().is_err() {
            client.send_bytes(b"x");
            thread::sleep(Duration::from_millis(10));
            assert!(start.elapsed() < PATIENCE, "a pool that drips is kept for ever");
        }
    }
}

#[test]
fn a_line_without_an_end_is_not_kept_in_memory() {
    let (listener, address) = listen();
    let _miner = Miner::start(&[address]);
    let mut client = Client::accept(&listener);
    client.handshake(&JOB);
    for _ in 0..64 {
        client.send_bytes(&[b'7'; 16 * 1024]);
    }
    client.wait_until_closed();
    Client::accept(&listener).serve_until_share(&JOB);
}

/// A line that a pool might send, valid or not.
fn line() -> impl Strategy<Value = String> {
    let small = prop_oneof![
        Just(json!(null)),
        any::<bool>().prop_map(|flag| json!(flag)),
        any::<i64>().prop_map(|number| json!(number)),
        any::<f64>().prop_map(|number| json!(number)),
        "[0-9a-f]{0,70}".prop_map(|text| json!(text)),
        ".{0,20}".prop_map(|text| json!(text)),
        proptest::collection::vec("[0-9a-f]{62,66}", 0..4).prop_map(|texts| json!(texts)),
    ];
    let method = prop_oneof![
        Just("mining.notify".to_owned()),
        Just("mining.set_difficulty".to_owned()),
        Just("mining.set_extranonce".to_owned()),
        Just("mining.set_version_mask".to_owned()),
        Just("client.show_message".to_owned()),
        Just("client.get_version".to_owned()),
        Just("mining.ping".to_owned()),
        "[a-z._]{0,30}",
    ];
    let params = || proptest::collection::vec(small.clone(), 0..10);
    let right = (0usize..9, small.clone(), any::<u32>()).prop_map(|(place, value, ntime)| {
        let mut notify = Template { ntime, ..JOB }.notify(ntime % 2 == 0);
        // In half of the jobs, one field is replaced by another's value or removed.
        if ntime % 4 < 2 {
            notify["params"][place] = value;
        }
        notify.to_string()
    });
    let called = (small.clone(), method, params())
        .prop_map(|(id, method, params)| json!({"id": id, "method": method, "params": params}).to_string());
    let answered = (0u64..20, small.clone(), small.clone())
        .prop_map(|(id, result, error)| json!({"id": id, "result": result, "error": error}).to_string());
    let extranonce = ("([0-9a-f]{2}){0,8}", 1u32..=8).prop_map(|(extranonce1, size)| {
        call("mining.set_extranonce", json!([extranonce1, size])).to_string()
    });
    let difficulty = (-320.0f64..308.0)
        .prop_map(|power| call("mining.set_difficulty", json!([10f64.powf(power)])).to_string());
    let mask = any::<u32>()
        .prop_map(|mask| call("mining.set_version_mask", json!([format!("{mask:08x}")])).to_string());
    let garbage = proptest::collection::vec(any::<u8>(), 0..100)
        .prop_map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    prop_oneof![
        6 => right,
        2 => called,
        2 => answered,
        3 => extranonce,
        3 => difficulty,
        2 => mask,
        1 => garbage,
    ]
}

#[test]
fn whatever_a_pool_says_the_next_connection_is_mined_at() {
    let (listener, address) = listen();
    let miner = Miner::start(&[address]);
    let mut runner = TestRunner::new(Config { cases: 100, failure_persistence: None, ..Config::default() });
    let lines = (any::<bool>(), proptest::collection::vec(line(), 1..40));
    let lied = runner.run(&lines, |(handshake, lines)| {
        let mut client = Client::accept(&listener);
        if handshake {
            client.handshake(&JOB);
        }
        client.send_bytes((lines.join("\n") + "\n").as_bytes());
        drop(client);
        let mut client = Client::accept(&listener);
        client.serve_until_share(&JOB);
        Ok(())
    });
    lied.unwrap();
    assert_eq!(miner.stats.snapshot().counts.hardware_errors, 0);
}
