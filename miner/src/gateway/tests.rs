//! The gateway without sockets: lines sent to machines, and their shares.

#![allow(clippy::unwrap_used)]

mod addresses;
mod extranonces;
mod jobs;
mod repeats;
mod shares;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use iop_stratum::fields::NTime;
use iop_stratum::notify::Notify;
use iop_stratum::work::sha256d;
use serde_json::{Value, json};

use super::machine::Machine;
use super::served::Follower;
use super::*;
use crate::dispatcher::Dispatcher;
use crate::job::tests::{ANY_HASH, job};
use crate::job::{Job, Serial};

/// About one hash in 256.
pub(super) const ONE_IN_256: f64 = 1.0 / (1u64 << 24) as f64;

/// A gateway whose upstream is the test.
pub(super) struct Stand {
    pub(super) dispatcher: Dispatcher,
    follower: Follower,
    pub(super) publish: watch::Sender<Arc<Snapshot>>,
    pub(super) shared: Arc<Shared>,
    pub(super) up: mpsc::Receiver<Share>,
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
            split: Split::default(),
            max_per_address: 1000,
            limits: Limits::default(),
        };
        let seats = Seats::new(1000, 1000, []);
        let shared = Shared::new(settings, seats, snapshots, Arc::new(Stats::new()), shares);
        let (dispatcher, follower) = (Dispatcher::new(), Follower::default());
        dispatcher.split(Split::default());
        Self { dispatcher, follower, publish, shared: Arc::new(shared), up, jobs: 0 }
    }

    /// With a job whose extranonce2 has `size` bytes.
    pub(super) fn with_job(size: usize, mask: u32, difficulty: f64) -> Self {
        let mut stand = Self::new();
        stand.job(size, mask, difficulty);
        stand
    }

    fn publish(&mut self) {
        let current = self.dispatcher.follow().borrow().clone();
        let Shared { prefixes, numbers, .. } = &*self.shared;
        self.publish.send_replace(Arc::new(self.follower.take(current, prefixes, numbers)));
    }

    fn job(&mut self, size: usize, mask: u32, difficulty: f64) {
        self.changed_job(size, mask, difficulty, |_| ());
    }

    pub(super) fn changed_job(
        &mut self,
        size: usize,
        mask: u32,
        difficulty: f64,
        change: impl FnOnce(&mut iop_stratum::client::Job),
    ) {
        self.jobs += 1;
        let mut new = job(&format!("up-{}", self.jobs), size, mask, difficulty).stratum().clone();
        // Every job has its own work.
        Arc::make_mut(&mut new.notify).coinbase1.extend(self.jobs.to_be_bytes());
        change(&mut new);
        self.dispatcher.set_job(Arc::new(Job::new(Serial(self.jobs), new)));
        self.publish();
    }

    fn connect(&self) -> Client {
        self.connect_from(IpAddr::V4(Ipv4Addr::LOCALHOST))
    }

    pub(super) fn machine_from(&self, ip: IpAddr) -> Machine {
        let seat = listener::seat(&self.shared, ip).unwrap();
        Machine::new(Arc::clone(&self.shared), seat, SocketAddr::from((ip, 1)))
    }

    fn connect_from(&self, ip: IpAddr) -> Client {
        Client { machine: self.machine_from(ip), id: 0 }
    }

    /// The upstream sends the current job again, possibly changed.
    fn repeat_job(&mut self, change: impl FnOnce(&mut iop_stratum::client::Job)) {
        let current = self.dispatcher.follow().borrow().job.clone().unwrap();
        self.again(&current, current.latest(), change);
    }

    /// The upstream sends the current job again, now with a latest time so many seconds after its own.
    fn repeat_job_until(&mut self, later: u32) {
        let current = self.dispatcher.follow().borrow().job.clone().unwrap();
        self.again(&current, NTime(current.ntime().0 + later), |_| ());
    }

    fn again(&mut self, job: &Job, latest: NTime, change: impl FnOnce(&mut iop_stratum::client::Job)) {
        let mut same = job.stratum().clone();
        same.notify = Arc::new(Notify::clone(&same.notify));
        change(&mut same);
        self.jobs += 1;
        let target = same.target();
        self.dispatcher.set_job(Arc::new(Job::of_blocks(Serial(self.jobs), same, target, latest)));
        self.publish();
    }

    /// A client with a user, `a`, that rolls versions; lines received so far are discarded, except the job.
    fn worker(&self) -> (Client, Told) {
        self.worker_from(IpAddr::V4(Ipv4Addr::LOCALHOST))
    }

    fn worker_from(&self, ip: IpAddr) -> (Client, Told) {
        let mut client = self.connect_from(ip);
        client.say("mining.configure", &json!([["version-rolling"], {}]));
        let subscribed = client.say("mining.subscribe", &json!(["test"]));
        client.say("mining.authorize", &json!(["a", "x"]));
        let told = Told::of(&subscribed);
        (client, told)
    }

    /// Publishes the dispatcher's job to a client.
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

    /// The verdict's code, 0 for accepted, and the other lines received.
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

/// The state of a machine.
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

/// The share's header, built by concatenation as a machine does, and from what is passed to the upstream.
fn same_header(upstream: &Job, told: &Told, extranonce2: &[u8], bits: u32, mask: u32, share: &Share) {
    let stratum = upstream.stratum();
    let notify = &stratum.notify;
    let coinbase = [&notify.coinbase1, &told.extranonce1[..], extranonce2, &notify.coinbase2].concat();
    let root =
        notify.branches.iter().fold(sha256d(&coinbase), |root, branch| sha256d(&[root, *branch].concat()));
    // What may be rolled is cleared in what machines are told.
    let told_version = notify.version.0 & !stratum.version_mask.0;
    let version = told_version & !mask | bits & mask;
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
