//! The gateway without sockets: what machines are told, what becomes of their shares.

#![allow(clippy::unwrap_used)]

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Instant;

use iop_stratum::fields::{Extranonce1, NTime, VersionMask};
use iop_stratum::work::sha256d;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::machine::Machine;
use super::served::Follower;
use super::*;
use crate::dispatcher::Dispatcher;
use crate::job::tests::{ANY_HASH, job};
use crate::job::{Job, Serial};

/// About one hash in 256.
const ONE_IN_256: f64 = 1.0 / (1u64 << 24) as f64;

/// A gateway whose upstream is the test.
struct Stand {
    dispatcher: Dispatcher,
    follower: Follower,
    publish: watch::Sender<Arc<Snapshot>>,
    shared: Arc<Shared>,
    up: mpsc::Receiver<Share>,
    jobs: u64,
}

impl Stand {
    fn new() -> Self {
        let (publish, snapshots) = watch::channel(Arc::new(Snapshot::default()));
        let (shares, up) = crate::device::share_channel();
        let difficulty = |value| Difficulty::new(value).unwrap();
        let settings = GatewaySettings {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            start_difficulty: difficulty(ONE_IN_256),
            min_difficulty: difficulty(1e-12),
            max_machines: 1000,
            max_per_address: 1000,
            limits: Limits::default(),
        };
        let shared = Shared {
            settings,
            seats: Seats::new(1000, 1000, []),
            numbers: Arc::default(),
            snapshots,
            stats: Arc::new(Stats::new()),
            shares,
            taken: AtomicU64::new(0),
            passed: AtomicU64::new(0),
            words: Rarely::default(),
        };
        let (dispatcher, follower) = (Dispatcher::new(), Follower::default());
        dispatcher.split();
        Self { dispatcher, follower, publish, shared: Arc::new(shared), up, jobs: 0 }
    }

    /// With a job whose extranonce2 has so many bytes.
    fn with_job(size: usize, mask: u32, difficulty: f64) -> Self {
        let mut stand = Self::new();
        stand.job(size, mask, difficulty);
        stand
    }

    fn publish(&mut self) {
        let current = self.dispatcher.follow().borrow().clone();
        let Shared { seats, numbers, .. } = &*self.shared;
        self.publish.send_replace(Arc::new(self.follower.take(current, seats, numbers)));
    }

    fn job(&mut self, size: usize, mask: u32, difficulty: f64) {
        self.changed_job(size, mask, difficulty, |_| ());
    }

    fn changed_job(
        &mut self,
        size: usize,
        mask: u32,
        difficulty: f64,
        change: impl FnOnce(&mut iop_stratum::client::Job),
    ) {
        self.jobs += 1;
        let mut new = job(&format!("up-{}", self.jobs), size, mask, difficulty).stratum().clone();
        // Every job has work of its own.
        Arc::make_mut(&mut new.notify).coinbase1.extend(self.jobs.to_be_bytes());
        change(&mut new);
        self.dispatcher.set_job(Arc::new(Job::new(Serial(self.jobs), new)));
        self.publish();
    }

    fn connect(&self) -> Client {
        let seat = self.shared.seats.take(IpAddr::V4(Ipv4Addr::LOCALHOST)).unwrap();
        let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        Client { machine: Machine::new(Arc::clone(&self.shared), seat, peer), id: 0 }
    }

    /// A client with a user, `a`, that rolls versions; what it was told up to then is thrown away but for the job.
    fn worker(&self) -> (Client, Told) {
        let mut client = self.connect();
        client.say("mining.configure", &json!([["version-rolling"], {}]));
        let subscribed = client.say("mining.subscribe", &json!(["test"]));
        client.say("mining.authorize", &json!(["a", "x"]));
        let told = Told::of(&subscribed);
        (client, told)
    }

    /// Publishes what the dispatcher has to a client.
    fn tell(&self, client: &mut Client) -> Vec<Value> {
        let snapshot = Arc::clone(&self.shared.snapshots.borrow());
        client.machine.on_snapshot(&snapshot);
        client.sent()
    }
}

struct Client {
    machine: Machine,
    id: u64,
}

impl Client {
    fn say(&mut self, method: &str, params: &Value) -> Vec<Value> {
        self.id += 1;
        let line = json!({"id": self.id, "method": method, "params": params}).to_string();
        self.machine.on_line(line.as_bytes()).unwrap();
        self.sent()
    }

    fn sent(&mut self) -> Vec<Value> {
        let lines: Vec<_> = std::iter::from_fn(|| self.machine.next_lines()).collect();
        let lines =
            lines.iter().flat_map(|line| line.as_ref().split(|byte| *byte == b'\n').map(<[u8]>::to_vec));
        let lines = lines.filter(|line| !line.is_empty());
        lines.map(|line| serde_json::from_slice(&line).unwrap()).collect()
    }

    /// The verdict's code, 0 for accepted, and what was said besides.
    fn submit(&mut self, told: &Told, extranonce2: &[u8], ntime: u32, nonce: u32, bits: Option<u32>) -> u64 {
        let [ntime, nonce] = [ntime, nonce].map(|number| format!("{number:08x}"));
        let mut params = vec!["a".to_owned(), told.job.clone(), hex::encode(extranonce2), ntime, nonce];
        params.extend(bits.map(|bits| format!("{bits:08x}")));
        let id = self.id + 1;
        let said = self.say("mining.submit", &json!(params));
        let answer = said.iter().find(|line| line["id"] == id).unwrap();
        match &answer["error"] {
            Value::Null => 0,
            error => error[0].as_u64().unwrap(),
        }
    }
}

/// What a machine knows.
#[derive(Debug, Clone, Default)]
struct Told {
    extranonce1: Vec<u8>,
    size: usize,
    job: String,
    ntime: u32,
    difficulty: f64,
}

impl Told {
    fn of(lines: &[Value]) -> Self {
        let mut told = Self::default();
        lines.iter().for_each(|line| told.hear(line));
        told
    }

    fn hear(&mut self, line: &Value) {
        let params = &line["params"];
        match line["method"].as_str() {
            None if line["result"].is_array() => self.extranonce(&line["result"][1], &line["result"][2]),
            Some("mining.set_extranonce") => self.extranonce(&params[0], &params[1]),
            Some("mining.set_difficulty") => self.difficulty = params[0].as_f64().unwrap(),
            Some("mining.notify") => {
                self.job = params[0].as_str().unwrap().to_owned();
                self.ntime = u32::from_str_radix(params[7].as_str().unwrap(), 16).unwrap();
            }
            _ => {}
        }
    }

    fn extranonce(&mut self, extranonce1: &Value, size: &Value) {
        self.extranonce1 = hex::decode(extranonce1.as_str().unwrap()).unwrap();
        self.size = size.as_u64().unwrap() as usize;
    }
}

fn methods(lines: &[Value]) -> Vec<&str> {
    lines.iter().map(|line| line["method"].as_str().unwrap_or("answer")).collect()
}

#[test]
fn a_machine_gets_the_upstreams_extranonce1_with_a_prefix_and_what_is_left_to_roll() {
    for (size, prefix, left) in [(8, 4, 4), (7, 2, 5), (4, 2, 2), (3, 1, 2), (2, 1, 1)] {
        let stand = Stand::with_job(size, 0, 1.0);
        let (told, other) = (stand.worker().1, stand.worker().1);
        let number = |number: u8| [vec![0, 0, 0, 7], vec![0; prefix - 1], vec![number]].concat();
        assert_eq!((told.extranonce1, told.size), (number(1), left));
        assert_eq!((other.extranonce1, other.size), (number(2), left));
        assert_eq!(told.ntime, 1_700_000_000);
    }
}

#[test]
fn an_extranonce2_without_room_for_two_is_served_to_nobody() {
    for size in [0, 1] {
        let stand = Stand::with_job(size, 0, 1.0);
        assert!(!stand.connect().machine.may_speak());
    }
    let mut stand = Stand::new();
    stand.changed_job(8, 0, 1.0, |job| job.extranonce1 = Extranonce1::new(&[1; 29]).unwrap());
    assert!(!stand.connect().machine.may_speak(), "33 bytes are no extranonce1");
}

#[test]
fn machines_never_get_a_share_harder_than_what_the_upstream_wants() {
    for (upstream, expected) in [(1.0, ONE_IN_256), (ONE_IN_256 / 16.0, ONE_IN_256 / 16.0)] {
        let stand = Stand::with_job(8, 0, upstream);
        // The test's own reader of numbers rounds the last bit.
        assert!((stand.worker().1.difficulty / expected - 1.0).abs() < 1e-12);
    }
    let mut stand = Stand::with_job(8, 0, 1.0);
    let (mut client, _) = stand.worker();
    stand.job(8, 0, 1e-10);
    let lines = stand.tell(&mut client);
    assert_eq!(methods(&lines), ["mining.set_difficulty", "mining.notify"]);
    assert_eq!(lines[0]["params"][0], 1e-10);
    client.say("mining.suggest_difficulty", &json!([1e6]));
    stand.job(8, 0, 1.0);
    assert_eq!(stand.tell(&mut client)[0]["params"][0], 1.0);
}

#[test]
fn wishes_by_password_and_by_suggestion_hold_from_the_next_job_on() {
    let mut stand = Stand::with_job(8, 0, 1e9);
    let (mut client, _) = stand.worker();
    client.say("mining.suggest_difficulty", &json!([32.0]));
    stand.job(8, 0, 1e9);
    assert_eq!(stand.tell(&mut client)[0]["params"][0], 32.0);
    client.say("mining.authorize", &json!(["a", "x, d=64"]));
    stand.job(8, 0, 1e9);
    assert_eq!(stand.tell(&mut client)[0]["params"][0], 64.0);
}

#[test]
fn every_refusal_has_its_code_and_is_counted() {
    let stand = Stand::with_job(8, 0x0000_6000, 1.0);
    let mut stranger = stand.connect();
    assert_eq!(stranger.submit(&Told::default(), &[0; 4], 0, 0, None), 25);
    let (mut client, told) = stand.worker();
    let nobody = client.say("mining.submit", &json!(["b", told.job, "00000000", "00000000", "00000000"]));
    assert_eq!(nobody[0]["error"][0], 24);
    let unknown = Told { job: "none".into(), ..told.clone() };
    assert_eq!(client.submit(&unknown, &[0; 4], told.ntime, 0, None), 21);
    let codes: Vec<u64> =
        (0..3000).map(|nonce| client.submit(&told, &[0; 4], told.ntime, nonce, None)).collect();
    let good = codes.iter().position(|code| *code == 0).unwrap() as u32;
    assert!(codes.iter().all(|code| [0, 23].contains(code)));
    assert_eq!(client.submit(&told, &[0; 4], told.ntime, good, None), 22);
    assert_eq!(client.submit(&told, &[0; 5], told.ntime, 0, None), 20, "width");
    assert_eq!(client.submit(&told, &[0; 4], told.ntime, 0, Some(0x8000)), 20, "outside the mask");
    assert_eq!(client.submit(&told, &[0; 4], told.ntime - 1, 0, None), 20, "before the job");
    assert_eq!(client.submit(&told, &[0; 4], u32::MAX, 0, None), 20, "far ahead");
    let counts = stand.shared.stats.snapshot().counts;
    assert_eq!(counts.stale, 1);
    let rejected = |reason: &str| counts.rejected[&format!("at the gateway: {reason}")];
    assert_eq!(rejected("duplicate (22)"), 1);
    assert_eq!(rejected("malformed (20)"), 4);
    assert_eq!(rejected("low difficulty (23)"), codes.iter().filter(|code| **code == 23).count() as u64);
}

#[test]
fn a_machines_hashes_are_what_its_shares_are_worth() {
    let stand = Stand::with_job(8, 0, 1.0);
    let (mut client, told) = stand.worker();
    let good = (0..2000).filter(|nonce| client.submit(&told, &[0; 4], told.ntime, *nonce, None) == 0).count();
    let hashes = stand.shared.stats.snapshot().devices[0].hashes as f64;
    assert!(
        good > 0 && (hashes - 256.0 * good as f64).abs() <= good as f64,
        "{good} shares, {hashes} hashes"
    );
}

#[test]
fn machines_of_one_name_are_told_apart_and_forgotten_when_they_leave() {
    let stand = Stand::with_job(8, 0, 1.0);
    let clients = [stand.worker(), stand.worker()];
    let names =
        || stand.shared.stats.snapshot().devices.iter().map(|device| device.name.clone()).collect::<Vec<_>>();
    assert_eq!(names(), ["a", "a#2"]);
    drop(clients);
    assert_eq!(names(), Vec::<String>::new());
    assert_eq!(stand.shared.seats.count(), 0);
    let mut odd = stand.connect();
    odd.say("mining.subscribe", &json!([]));
    let refused = odd.say("mining.authorize", &json!(["a\u{1b}[2J", "x"]));
    assert_eq!(refused[0]["error"][0], 24);
}

/// The share's header by plain concatenation, as a machine makes it, and by what goes up.
fn same_header(upstream: &Job, told: &Told, extranonce2: &[u8], bits: u32, mask: u32, share: &Share) {
    let stratum = upstream.stratum();
    let notify = &stratum.notify;
    let coinbase = [&notify.coinbase1, &told.extranonce1[..], extranonce2, &notify.coinbase2].concat();
    let root =
        notify.branches.iter().fold(sha256d(&coinbase), |root, branch| sha256d(&[root, *branch].concat()));
    let version = notify.version.0 & !mask | bits & mask;
    let header = [
        &version.to_le_bytes()[..],
        &notify.prev_hash.0,
        &root,
        &share.ntime.0.to_le_bytes(),
        &notify.nbits.0.to_le_bytes(),
        &share.nonce.0.to_le_bytes(),
    ]
    .concat();
    let rolled = notify.version.rolled(stratum.version_mask, share.version_bits);
    let work = stratum.work();
    let up = work.header(&stratum.extranonce1, &share.extranonce2, rolled, share.ntime, share.nonce);
    assert_eq!(hex::encode(up), hex::encode(header));
}

proptest! {
    #[test]
    fn what_goes_up_is_the_header_that_the_machine_hashed_and_no_device_here_has_it(
        size in 2..=8usize,
        upstream_mask in prop_oneof![Just(0x1fff_e000), any::<u32>()],
        asked in prop_oneof![Just(0x1fff_e000), any::<u32>()],
        extranonce2 in any::<[u8; 8]>(),
        (bits, nonce, machines) in any::<(u32, u32, u8)>(),
    ) {
        let mut stand = Stand::with_job(size, upstream_mask, ANY_HASH);
        let _others: Vec<_> = (0..machines % 8).map(|_| stand.worker()).collect();
        let mut client = stand.connect();
        let asks = json!([["version-rolling"], {"version-rolling.mask": format!("{asked:08x}")}]);
        client.say("mining.configure", &asks);
        let told = Told::of(&client.say("mining.subscribe", &json!([])));
        client.say("mining.authorize", &json!(["a", "x"]));
        let (extranonce2, mask) = (&extranonce2[..told.size], upstream_mask & asked);
        prop_assert_eq!(client.submit(&told, extranonce2, told.ntime, nonce, Some(bits & mask)), 0);
        let share = client.machine.shares().pop_front().unwrap();
        prop_assert!(stand.up.try_recv().is_err(), "the connection's task sends it");
        same_header(&share.job, &told, extranonce2, bits & mask, mask, &share);
        let counter = share.extranonce2.as_bytes().iter().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte));
        prop_assert!(counter > crate::split::last_of_devices(size));
    }
}

#[test]
fn all_that_machines_and_devices_hash_is_different() {
    for size in 2..=4 {
        let stand = Stand::with_job(size, 0, ANY_HASH);
        let mut seen = HashSet::new();
        for _ in 0..20 {
            let (mut client, told) = stand.worker();
            let counters = 0..(1u64 << (8 * told.size)).min(200);
            for counter in counters {
                let extranonce2 = &counter.to_be_bytes()[8 - told.size..];
                assert_eq!(client.submit(&told, extranonce2, told.ntime, 7, None), 0);
                let share = client.machine.shares().pop_front().unwrap();
                assert!(seen.insert(share.extranonce2), "machines share {}", share.extranonce2);
            }
        }
        for _ in 0..(crate::split::last_of_devices(size) + 1).min(2000) {
            let assignment = stand.dispatcher.take(u64::MAX).unwrap();
            assert!(seen.insert(assignment.extranonce2), "a device gets {}", assignment.extranonce2);
        }
    }
}

#[test]
fn a_share_of_a_stale_job_is_refused_and_still_goes_up_where_the_upstream_may_want_it() {
    let mut stand = Stand::with_job(8, 0, ANY_HASH);
    let (mut client, told) = stand.worker();
    stand.job(8, 0, 1.0);
    stand.tell(&mut client);
    assert_eq!(client.submit(&told, &[0; 4], told.ntime, 1, None), 21);
    assert_eq!(client.machine.shares().len(), 1, "whoever gave the job says what it is worth");
    stand.dispatcher.clear();
    stand.publish();
    assert_eq!(stand.tell(&mut client), Vec::<Value>::new(), "no work, and nothing that could be said");
    assert_eq!(client.submit(&told, &[0; 4], told.ntime, 2, None), 21);
    assert_eq!(stand.shared.stats.snapshot().counts.stale, 0, "the upstream counts these");
}

#[test]
fn a_job_beside_others_leaves_them_alive_and_a_clean_one_does_not_also_where_it_was_missed() {
    let mut stand = Stand::with_job(8, 0, 1e-10);
    let (mut client, told) = stand.worker();
    let beside = |stand: &mut Stand| {
        stand.changed_job(8, 0, 1e-10, |job| Arc::make_mut(&mut job.notify).clean = false);
    };
    beside(&mut stand);
    let lines = stand.tell(&mut client);
    assert_eq!((methods(&lines), &lines[0]["params"][8]), (vec!["mining.notify"], &json!(false)));
    let accepted = |client: &mut Client| {
        let mut codes = (0..4000).map(|nonce| client.submit(&told, &[1; 4], told.ntime, nonce, None));
        codes.find(|code| *code != 23).unwrap()
    };
    assert_eq!(accepted(&mut client), 0);
    stand.job(8, 0, 1e-10);
    beside(&mut stand);
    assert_eq!(stand.tell(&mut client)[0]["params"][8], true, "the clean one before it was not seen");
    assert_eq!(client.submit(&told, &[2; 4], told.ntime, 1, None), 21);
}

#[test]
fn another_mask_is_told_without_another_job_and_is_what_shares_are_held_to() {
    let mut stand = Stand::with_job(8, 0x1fff_e000, ANY_HASH);
    let (mut client, told) = stand.worker();
    let mut job = stand.dispatcher.follow().borrow().job.clone().unwrap().stratum().clone();
    job.version_mask = VersionMask(0x2000);
    stand.dispatcher.set_job(Arc::new(Job::new(Serial(99), job)));
    stand.publish();
    let lines = stand.tell(&mut client);
    assert_eq!(
        (methods(&lines), &lines[0]["params"][0]),
        (vec!["mining.set_version_mask"], &json!("00002000"))
    );
    assert_eq!(client.submit(&told, &[0; 4], told.ntime, 1, Some(0x4000)), 20);
    assert_eq!(client.submit(&told, &[0; 4], told.ntime, 1, Some(0x2000)), 0);
    let share = client.machine.shares().pop_front().unwrap();
    assert_eq!((share.job.serial(), share.version_bits.0), (Serial(99), 0x2000));
}

#[test]
fn other_extranonces_are_told_before_the_job_to_who_takes_them_and_others_come_again() {
    let mut stand = Stand::with_job(8, 0, ANY_HASH);
    let (mut knows, mut told) = stand.worker();
    knows.say("mining.extranonce.subscribe", &json!([]));
    let (mut old, _) = stand.worker();
    stand.changed_job(5, 0, ANY_HASH, |job| job.extranonce1 = Extranonce1::new(&[9, 9]).unwrap());
    let lines = stand.tell(&mut knows);
    assert_eq!(methods(&lines), ["mining.set_extranonce", "mining.notify"]);
    lines.iter().for_each(|line| told.hear(line));
    assert_eq!((told.extranonce1[..2].to_vec(), told.extranonce1.len(), told.size), (vec![9, 9], 4, 3));
    assert_eq!(knows.submit(&told, &[0; 3], told.ntime, 1, None), 0);
    let share = knows.machine.shares().pop_front().unwrap();
    same_header(&share.job, &told, &[0; 3], 0x2000_2000, 0, &share);
    assert_eq!(methods(&stand.tell(&mut old)), ["client.reconnect"]);
    assert!(old.machine.is_leaving().is_some());
}

#[test]
fn more_machines_than_prefixes_are_told_to_go() {
    let stand = Stand::with_job(2, 0, 1.0);
    let held: Vec<_> = (0..255).map(|_| stand.worker()).collect();
    let mut late = stand.connect();
    late.machine.on_line(b"{}").unwrap();
    assert!(late.machine.is_leaving().is_some());
    drop(held);
}

#[test]
fn much_more_difficulty_comes_as_a_job_of_its_own_whose_headers_are_others() {
    let stand = Stand::with_job(8, 0, 1e9);
    let (mut client, told) = stand.worker();
    let (mut said, mut nonce) = (Vec::new(), 0);
    // Shares as fast as they can be checked: vardiff sees a machine that is too fast for its difficulty.
    while !methods(&said).contains(&"mining.notify") {
        nonce += 1;
        let params =
            json!(["a", told.job, "00000000", format!("{:08x}", told.ntime), format!("{nonce:08x}")]);
        said = client.say("mining.submit", &params);
        assert!(nonce < 100_000);
    }
    assert_eq!(methods(&said), ["answer", "mining.set_difficulty", "mining.notify"]);
    let mut harder = told.clone();
    said.iter().for_each(|line| harder.hear(line));
    assert!(harder.difficulty >= 4.0 * told.difficulty);
    assert_eq!((harder.ntime, said[2]["params"][8].clone()), (told.ntime + 1, json!(true)));
    // A share that is good under both names is good once.
    let good =
        (nonce + 1..).find(|nonce| client.submit(&harder, &[0; 4], told.ntime, *nonce, None) == 0).unwrap();
    assert_eq!(client.submit(&told, &[0; 4], told.ntime, good, None), 22);
}

#[test]
fn a_second_subscription_gets_the_work_again_as_other_headers_and_in_the_end_as_it_was() {
    let stand = Stand::with_job(8, 0, 1.0);
    let (mut client, mut told) = stand.worker();
    let first = told.clone();
    for later in 1..32 {
        let said = client.say("mining.subscribe", &json!([]));
        assert_eq!(methods(&said), ["answer", "mining.set_difficulty", "mining.notify"]);
        said.iter().for_each(|line| told.hear(line));
        assert_eq!((told.ntime, &told.extranonce1), (first.ntime + later, &first.extranonce1));
    }
    let said = client.say("mining.subscribe", &json!([]));
    said.iter().for_each(|line| told.hear(line));
    assert_eq!((told.ntime, told.job), (first.ntime, first.job));
}

#[test]
fn silence_eases_a_machine_that_was_given_too_much() {
    let stand = Stand::with_job(8, 0, 1.0);
    let (mut client, told) = stand.worker();
    let silent = client.machine.silent_from().unwrap();
    assert!(silent > Instant::now());
    client.machine.on_silence(silent);
    let said = client.sent();
    assert_eq!(methods(&said), ["mining.set_difficulty", "mining.notify"]);
    assert!(said[0]["params"][0].as_f64().unwrap() < told.difficulty / 4.0);
}

#[test]
fn a_time_that_a_machine_rolled_goes_up_as_it_is() {
    let stand = Stand::with_job(8, 0, ANY_HASH);
    let (mut client, told) = stand.worker();
    assert_eq!(client.submit(&told, &[0; 4], told.ntime + 30, 1, None), 0);
    assert_eq!(client.machine.shares()[0].ntime, NTime(told.ntime + 30));
}
