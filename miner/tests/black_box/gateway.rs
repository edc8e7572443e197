//! `gateway` between a pool and machines, over real sockets: the pool is the tests' own, machines use plain JSON lines.

mod machine;

use std::io::{BufRead, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use iop_miner::device::{Cpu, Device, DeviceName};
use iop_miner::gateway::limits::Limits;
use iop_miner::gateway::{GatewaySettings, attach};
use iop_miner::rig::Rig;
use iop_miner::split::Split;
use iop_miner::stats::{Snapshot, Stats};
use iop_miner::upstream::pool::Pool;
use iop_miner::upstream::{Board, Timing};
use iop_stratum::difficulty::Difficulty;
use serde_json::json;
use tokio::sync::oneshot;

use machine::Machine;

use crate::support::{Client as Upstream, EASY, JOB, PATIENCE, TIMING, Template, listen, pool};

/// A time limit that a test waits for.
const SHORT: Duration = Duration::from_millis(500);

/// A gateway that runs until it is dropped.
struct Gateway {
    stats: Arc<Stats>,
    board: Arc<Board>,
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// The machines' shares are as easy as the upstream's.
fn settings() -> GatewaySettings {
    GatewaySettings {
        listen: free_address(),
        start_difficulty: Difficulty::new(1024.0).unwrap(),
        min_difficulty: Difficulty::new(EASY).unwrap(),
        max_machines: 100,
        split: Split::default(),
        max_per_address: 1,
        limits: Limits::default(),
    }
}

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

impl Gateway {
    fn start(pool_at: SocketAddr, settings: &GatewaySettings) -> Self {
        Self::start_with(pool_at, settings, Vec::new())
    }

    fn start_with(pool_at: SocketAddr, settings: &GatewaySettings, devices: Vec<Box<dyn Device>>) -> Self {
        Self::start_at(pool(&[pool_at], None, TIMING), settings, devices)
    }

    fn start_at(pool: Pool, settings: &GatewaySettings, devices: Vec<Box<dyn Device>>) -> Self {
        let board = pool.board();
        let (stop, stopped) = oneshot::channel();
        let mut rig = Rig::new(devices, Arc::clone(&board));
        attach(settings, &[DeviceName::Cpu], &mut rig).unwrap();
        let stats = Arc::clone(&rig.stats);
        let until = async {
            let _ = stopped.await;
            Ok(())
        };
        let thread = thread::spawn(move || rig.run(pool, until).unwrap());
        Self { stats, board, address: settings.listen, stop: Some(stop), thread: Some(thread) }
    }

    fn wait_for(&self, wanted: impl Fn(&Snapshot) -> bool) -> Snapshot {
        let start = Instant::now();
        loop {
            let snapshot = self.stats.snapshot();
            if wanted(&snapshot) {
                return snapshot;
            }
            assert!(start.elapsed() < PATIENCE, "{snapshot:?}");
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        drop(self.stop.take());
        let ended = self.thread.take().unwrap().join();
        assert!(ended.is_ok() || thread::panicking(), "the gateway panicked");
    }
}

/// About one hash in 256; the first four bytes of such a hash are below this.
const EASIEST: f64 = 1.0 / (1u64 << 24) as f64;
const EASIEST_JOB: Template = Template { share_bound: 0x00ff_ffff, ..JOB };

fn upstream(listener: &TcpListener, job: &Template) -> Upstream {
    let mut pool = Upstream::accept(listener);
    pool.handshake(job);
    pool.set_difficulty(EASIEST);
    pool.send(&job.notify(true));
    pool
}

/// A gateway at a pool with work.
fn begin() -> (TcpListener, Gateway, Upstream) {
    let (listener, address) = listen();
    let gateway = Gateway::start(address, &settings());
    let pool = upstream(&listener, &EASIEST_JOB);
    (listener, gateway, pool)
}

#[test]
fn shares_of_machines_reach_the_pool_under_the_gateways_user_and_are_the_machines_own() {
    let (_listener, gateway, mut pool) = begin();
    let mut machines = ["one", "two", "two"].map(|user| (user, Machine::start(gateway.address, user)));
    for (user, machine) in &mut machines {
        assert_eq!((machine.extranonce1.len(), machine.size), (10, 3), "one byte of four is the prefix");
        assert!((machine.difficulty / EASIEST - 1.0).abs() < 1e-9, "as easy as the upstream's");
        let (extranonce2, nonce) = machine.find(user, &EASIEST_JOB);
        let submit = pool.read_submit();
        assert_eq!((&submit["params"][2], &submit["params"][4]), (&json!(extranonce2), &json!(nonce)));
        // This checks user, job, header and target.
        EASIEST_JOB.check(&submit);
        pool.answer(&submit, json!(true));
    }
    let snapshot = gateway.wait_for(|snapshot| snapshot.counts.accepted == 3);
    let mut names: Vec<_> =
        snapshot.devices.iter().map(|device| (&*device.name, device.counts.accepted)).collect();
    names.sort_unstable();
    assert_eq!(names, [("one", 1), ("two", 1), ("two#2", 1)]);
    drop(machines);
    let gone = gateway.wait_for(|snapshot| snapshot.devices.is_empty());
    assert_eq!(gone.counts.accepted, 3, "what they did is not forgotten");
}

#[test]
fn a_machine_and_the_cpu_work_on_one_job_and_no_header_comes_twice() {
    let (listener, address) = listen();
    let cpu: Vec<Box<dyn Device>> = vec![Box::new(Cpu::new(iop_kernels::auto(), 1))];
    let gateway = Gateway::start_with(address, &settings(), cpu);
    let mut pool = Upstream::accept(&listener);
    pool.handshake(&JOB);
    pool.set_difficulty(EASY);
    pool.send(&JOB.notify(true));
    let mut machine = Machine::start(gateway.address, "machine");
    let machine = thread::spawn(move || machine.find("machine", &JOB));
    let (mut headers, mut of_machine) = (std::collections::HashSet::new(), 0);
    while of_machine == 0 {
        let submit = pool.accept_share();
        assert!(headers.insert(JOB.check(&submit)), "submitted twice");
        let extranonce2 = submit["params"][2].as_str().unwrap();
        of_machine += usize::from(!extranonce2.starts_with("00"));
    }
    machine.join().unwrap();
}

#[test]
fn machines_that_come_before_the_pool_wait_and_are_then_served() {
    let (listener, address) = listen();
    let limits = Limits { handshake: SHORT, ..Limits::default() };
    let gateway = Gateway::start(address, &GatewaySettings { limits, ..settings() });
    let mut machine = Machine::connect(gateway.address);
    machine.send("mining.subscribe", &json!(["early"]));
    machine.send("mining.authorize", &json!(["early", "x"]));
    machine.reader.get_ref().set_read_timeout(Some(2 * SHORT)).unwrap();
    let silent = machine.reader.fill_buf().map(<[u8]>::len);
    assert!(silent.is_err(), "neither answered nor closed: {silent:?}");
    machine.reader.get_ref().set_read_timeout(Some(PATIENCE)).unwrap();
    let _pool = upstream(&listener, &EASIEST_JOB);
    machine.until("mining.notify");
}

#[test]
fn machines_are_kept_and_pinged_while_the_pool_is_away_and_get_its_next_work() {
    let (listener, address) = listen();
    let limits = Limits { ping: SHORT / 5, ..Limits::default() };
    let gateway = Gateway::start(address, &GatewaySettings { limits, ..settings() });
    let pool = upstream(&listener, &EASIEST_JOB);
    let mut machine = Machine::start(gateway.address, "patient");
    let old = machine.job.clone().unwrap();
    drop(pool);
    machine.until("mining.ping");
    machine.until("mining.ping");
    let stale = machine.ask("mining.submit", &json!(["patient", old[0], "000000", old[7], "00000000"]));
    assert!([21, 23].contains(&stale["error"][0].as_u64().unwrap()), "{stale}");
    let mut pool = upstream(&listener, &EASIEST_JOB);
    assert_eq!(machine.until("mining.notify")["params"][8], true);
    // It is the same work, announced with a later time, so that nothing is found twice.
    let later = Template { ntime: EASIEST_JOB.ntime + 1, ..EASIEST_JOB };
    machine.find("patient", &later);
    later.check(&pool.read_submit());
}

/// Firmware turns to its other pools when a connection ends; pings and refusals keep it here.
#[test]
fn machines_are_let_go_when_there_is_no_work_for_long_and_come_back_to_the_next() {
    let (listener, address) = listen();
    let limits = Limits { ping: SHORT / 5, workless: SHORT, ..Limits::default() };
    let gateway = Gateway::start(address, &GatewaySettings { limits, ..settings() });
    let pool = upstream(&listener, &EASIEST_JOB);
    let mut machine = Machine::start(gateway.address, "first");
    drop(pool);
    machine.reader.get_ref().set_read_timeout(Some(PATIENCE)).unwrap();
    machine.until("mining.ping");
    let mut rest = String::new();
    machine.reader.read_to_string(&mut rest).unwrap(); // up to the end of the connection
    let _pool = upstream(&listener, &EASIEST_JOB);
    assert!(Machine::start(gateway.address, "again").job.is_some());
}

#[test]
fn a_job_that_the_pool_repeats_gives_no_share_twice() {
    let (_listener, gateway, mut pool) = begin();
    let mut machine = Machine::start(gateway.address, "machine");
    let (_, nonce) = machine.find("machine", &EASIEST_JOB);
    EASIEST_JOB.check(&pool.accept_share());
    let ntime = machine.job.clone().unwrap()[7].clone();
    for (number, id) in [(1, "job-1"), (2, "job-2"), (3, "job-1")] {
        let again = Template { id, ..EASIEST_JOB };
        pool.send(&again.notify(true));
        let job = machine.until("mining.notify")["params"].clone();
        let same = json!(["machine", job[0], "5a".repeat(machine.size), ntime, nonce]);
        assert_eq!(machine.ask("mining.submit", &same)["error"][0], 22);
        let later = Template { ntime: again.ntime + number, ..again };
        machine.find("machine", &later);
        // The next share that the pool gets: no duplicate was passed on.
        later.check(&pool.accept_share());
    }
}

#[test]
fn another_extranonce_of_the_pools_is_told_to_who_understands_and_others_come_again() {
    let (_listener, gateway, mut pool) = begin();
    let mut knows = Machine::start(gateway.address, "knows");
    assert_eq!(knows.ask("mining.extranonce.subscribe", &json!([]))["result"], true);
    let mut old = Machine::start(gateway.address, "old");
    pool.send(&json!({"id": null, "method": "mining.set_extranonce", "params": ["01020304", 8]}));
    let second = Template { id: "job-2", extranonce1: "01020304", extranonce2_size: 8, ..EASIEST_JOB };
    pool.send(&second.notify(true));
    knows.until("mining.notify");
    assert_eq!((&knows.extranonce1[..8], knows.extranonce1.len(), knows.size), ("01020304", 16, 4));
    knows.find("knows", &second);
    second.check(&pool.read_submit());
    assert_eq!(old.until("client.reconnect")["params"], json!([]));
    old.wait_until_closed();
    let mut again = Machine::start(gateway.address, "old");
    again.find("old", &second);
    second.check(&pool.read_submit());
}

#[test]
fn a_mask_of_the_pools_is_what_machines_may_roll() {
    let (listener, address) = listen();
    let gateway = Gateway::start(address, &settings());
    let narrow = Template { mask: 0x00ff_e000, ..EASIEST_JOB };
    let mut pool = upstream(&listener, &narrow);
    let mut machine = Machine::start(gateway.address, "rolls");
    let asks = json!([["version-rolling"], {"version-rolling.mask": "1fffe000"}]);
    assert_eq!(machine.ask("mining.configure", &asks)["result"]["version-rolling.mask"], "00ffe000");
    let job = machine.job.clone().unwrap();
    let outside = json!(["rolls", job[0], "000000", job[7], "00000000", "10000000"]);
    assert_eq!(machine.ask("mining.submit", &outside)["error"][0], 20);
    let extranonces = format!("{}000000", machine.extranonce1);
    let mut nonces = (0u32..).map(|nonce| format!("{nonce:08x}"));
    let nonce =
        nonces.find(|nonce| narrow.is_share(&narrow.header(&extranonces, nonce, 0x0040_2000))).unwrap();
    let share = json!(["rolls", job[0], "000000", job[7], nonce, "00402000"]);
    assert_eq!(machine.ask("mining.submit", &share)["result"], true);
    let submit = pool.read_submit();
    narrow.check(&submit);
    assert_eq!(submit["params"][5], "00402000");
    pool.send(&json!({"id": null, "method": "mining.set_version_mask", "params": ["00002000"]}));
    assert_eq!(machine.until("mining.set_version_mask")["params"], json!(["00002000"]));
}

#[test]
fn one_machine_that_floods_stalls_or_talks_nonsense_hurts_no_other() {
    let (listener, address) = listen();
    let limits = Limits { write: SHORT, handshake: SHORT, ..Limits::default() };
    let gateway = Gateway::start(address, &GatewaySettings { limits, ..settings() });
    let mut pool = upstream(&listener, &EASIEST_JOB);
    // A silent one, one that speaks HTTP, one with an endless line, one that never reads.
    let silent = Machine::connect(gateway.address);
    let mut browser = Machine::connect(gateway.address);
    browser.reader.get_mut().write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let mut head = String::new();
    browser.reader.read_line(&mut head).unwrap();
    assert_eq!(head, "HTTP/1.1 400 Bad Request\r\n");
    let mut endless = Machine::connect(gateway.address);
    let _ = endless.reader.get_mut().write_all(&[b'x'; 100_000]);
    endless.wait_until_closed();
    let mut deaf = Machine::connect(gateway.address);
    deaf.reader.get_ref().set_write_timeout(Some(PATIENCE)).unwrap();
    let deaf = thread::spawn(move || {
        let line = json!({"id": 1, "method": "mining.subscribe", "params": []}).to_string() + "\n";
        // Until the gateway drops it.
        while deaf.reader.get_mut().write_all(line.as_bytes()).is_ok() {}
    });
    // One that sends bad shares as fast as it can.
    let mut liar = Machine::start(gateway.address, "liar");
    let job = liar.job.clone().unwrap();
    let liar = thread::spawn(move || {
        let share = json!(["liar", job[0], "000000", job[7], "00000000"]);
        let line = json!({"id": 7, "method": "mining.submit", "params": share}).to_string() + "\n";
        while liar.reader.get_mut().write_all(line.as_bytes()).is_ok() {}
    });
    let mut honest = Machine::start(gateway.address, "honest");
    let mut job = EASIEST_JOB;
    for _ in 0..3 {
        honest.find("honest", &job);
        job.check(&pool.accept_share());
        job.ntime += 1;
        pool.send(&job.notify(true));
        honest.until("mining.notify");
    }
    deaf.join().unwrap();
    liar.join().unwrap();
    silent.wait_until_closed();
}

#[test]
fn no_more_machines_are_taken_than_there_may_be() {
    let (listener, address) = listen();
    let gateway = Gateway::start(address, &GatewaySettings { max_machines: 2, ..settings() });
    let _pool = upstream(&listener, &EASIEST_JOB);
    let first = Machine::start(gateway.address, "a");
    let _second = Machine::start(gateway.address, "b");
    Machine::connect(gateway.address).wait_until_closed();
    drop(first);
    gateway.wait_for(|snapshot| snapshot.devices.len() == 1);
    let start = Instant::now();
    loop {
        let mut late = Machine::connect(gateway.address);
        late.send("mining.subscribe", &json!([]));
        if late.read().is_some() {
            return;
        }
        assert!(start.elapsed() < PATIENCE, "a place is free");
    }
}

#[test]
fn an_address_that_speaks_no_stratum_is_let_in_no_more_and_who_is_here_may_stay() {
    let (listener, address) = listen();
    let gateway = Gateway::start(address, &GatewaySettings { max_per_address: 8, ..settings() });
    let mut pool = upstream(&listener, &EASIEST_JOB);
    let bad = Ipv4Addr::new(127, 0, 0, 2);
    let mut neighbour = Machine::connect_from(bad, gateway.address).begin("neighbour");
    for bytes in [vec![b'['; 100_000], b"no Stratum\n".repeat(100), vec![b'x'; 100_000]] {
        let mut machine = Machine::connect_from(bad, gateway.address);
        let _ = machine.reader.get_mut().write_all(&bytes);
        machine.wait_until_closed();
    }
    let start = Instant::now();
    loop {
        let mut late = Machine::connect_from(bad, gateway.address);
        let _ = late.reader.get_mut().write_all(b"{\"id\":1,\"method\":\"mining.ping\",\"params\":[]}\n");
        if late.read().is_none() {
            break;
        }
        assert!(start.elapsed() < PATIENCE, "it is banned");
    }
    neighbour.find("neighbour", &EASIEST_JOB);
    EASIEST_JOB.check(&pool.accept_share());
    Machine::start(gateway.address, "other").find("other", &EASIEST_JOB);
    EASIEST_JOB.check(&pool.accept_share());
}

#[test]
fn machines_hear_at_the_end_that_the_gateway_will_be_back() {
    let (_listener, gateway, mut pool) = begin();
    let mut machine = Machine::start(gateway.address, "machine");
    let stranger = Machine::connect(gateway.address);
    machine.find("machine", &EASIEST_JOB);
    let ended = thread::spawn(move || drop(gateway));
    assert_eq!(machine.until("client.reconnect")["params"], json!([]));
    machine.wait_until_closed();
    stranger.wait_until_closed();
    ended.join().unwrap();
    EASIEST_JOB.check(&pool.read_submit());
}

#[test]
fn a_share_that_is_on_its_way_when_the_gateway_ends_reaches_the_pool() {
    let (_listener, gateway, mut pool) = begin();
    let mut machine = Machine::start(gateway.address, "machine");
    let (share, ..) = machine.solve("machine", &EASIEST_JOB);
    let ended = thread::spawn(move || drop(gateway));
    machine.until("client.reconnect");
    // The machine had found it before it learned of the end.
    machine.send("mining.submit", &share);
    EASIEST_JOB.check(&pool.read_submit());
    ended.join().unwrap();
    machine.wait_until_closed();
}

/// A machine finds a share just after the first of two pools was left for the second; `leave` makes that happen, given
/// the gateway, the connection and the second pool's address. The gateway is configured with `known` of the pools.
fn find_after(known: usize, leave: impl FnOnce(&Gateway, &mut Upstream, SocketAddr)) {
    let [(first, first_at), (second, second_at)] = [listen(), listen()];
    let timing = Timing { late_finds: PATIENCE, ..TIMING };
    let pools = pool(&[first_at, second_at][..known], None, timing);
    let gateway = Gateway::start_at(pools, &settings(), Vec::new());
    let mut old = upstream(&first, &EASIEST_JOB);
    let mut machine = Machine::start(gateway.address, "machine");
    assert_eq!(machine.ask("mining.extranonce.subscribe", &json!([]))["result"], true);
    let (share, ..) = machine.solve("machine", &EASIEST_JOB);
    leave(&gateway, &mut old, second_at);
    let job = Template { id: "job-2", extranonce1: "beefbeef", ..EASIEST_JOB };
    let mut new = upstream(&second, &job);
    machine.until("mining.notify");
    assert_eq!(machine.ask("mining.submit", &share)["error"][0], 21, "of no more use here");
    EASIEST_JOB.check(&old.accept_share());
    machine.find("machine", &job);
    job.check(&new.accept_share());
    gateway.wait_for(|snapshot| (snapshot.counts.accepted, snapshot.counts.stale) == (2, 0));
}

#[test]
fn a_share_that_a_machine_finds_just_after_a_change_of_pools_goes_to_the_pool_that_it_is_of() {
    find_after(2, |gateway, _, _| assert!(gateway.board.ask_for(1)));
}

#[test]
fn a_share_that_a_machine_finds_just_after_its_pool_has_sent_us_on_goes_to_the_connection_that_it_is_of() {
    find_after(1, |_, old, second_at| {
        let params = json!(["127.0.0.1", second_at.port(), 0]);
        old.send(&json!({"id": null, "method": "client.reconnect", "params": params}));
    });
}
