//! Mail of a Mercury home: how many messages it stores per second, how long fetching a thousand takes, and the cost of
//! strangers that fill one box of requests.
//!
//! A real store in the folder for temporary files. Messages are signed beforehand; measured is everything from the
//! request in memory on: the signature, the relation, the limits, the batch, and the sync. A message counts when its
//! batch is synced; at most [`IN_FLIGHT`] wait for that, as in the network's host. Not measured: the network. On one
//! core: `taskset -c 1 cargo bench -p iop-benches --bench mercury_mail`; the bench prints the cores it was given.

#![allow(clippy::unwrap_used)]

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use iop_mercury::body::{HomeAddress, Login, Message, Registration, RelationAcceptance, RelationRequest};
use iop_mercury::envelope::{Body, Envelope, Expected, Order};
use iop_mercury::home::{Home, Now, RequestId, Settings, What};
use iop_mercury::id::{Id, Key};
use iop_mercury::store::{Store, Ticket};
use iop_mercury::wire::{Answer, Hosting, Request};
use libp2p::PeerId;

const NETWORK: &str = "bench";
const WALL: u64 = 1_800_000_000;
/// Most messages waiting for their sync.
const IN_FLIGHT: usize = 256;
/// Senders per recipient.
const SENDERS: u32 = 8;
/// Runs of each case; the median and the slowest are printed.
const RUNS: usize = 5;

fn key(kind: u8, number: u32) -> Key {
    let mut secret = [kind; 32];
    secret[..4].copy_from_slice(&number.to_be_bytes());
    Key::from_secret(&secret)
}

fn sign<B: Body>(key: &Key, about: Id, nonce: [u8; 32], body: &B) -> Envelope {
    Envelope::sign(key, NETWORK, about, Order::Nonce(nonce), (WALL, WALL + B::LIFE), body)
}

fn numbered(number: u64) -> [u8; 32] {
    let mut nonce = [0; 32];
    nonce[..8].copy_from_slice(&number.to_be_bytes());
    nonce
}

struct Rig {
    home: Home,
    store: Arc<Store>,
    requests: u64,
}

impl Rig {
    fn new(folder: &Path, recipients: u32) -> (Self, Vec<(Key, PeerId)>) {
        let store = Arc::new(Store::open(folder).unwrap());
        let settings = Settings {
            network: NETWORK.to_owned(),
            hosting: Hosting::Open,
            max_hosted: 10_000,
            owner: None,
            addresses: Vec::new(),
            backups: folder.join("backups"),
        };
        let home = Home::new(Arc::clone(&store), key(9, 0), settings).unwrap();
        let mut rig = Self { home, store, requests: 0 };
        let people: Vec<_> = (0..recipients).map(|number| (key(1, number), PeerId::random())).collect();
        for (person, device) in &people {
            let registration = rig.with_challenge(person, *device, &Registration { invitation: None });
            assert!(matches!(rig.ask(*device, Request::Register(registration)).0, Answer::Hosting(..)));
            let login = rig.with_challenge(person, *device, &Login { device: device.to_bytes().into() });
            assert_eq!(rig.ask(*device, Request::LogIn(login, Vec::new())).0, Answer::Session(true));
            for sender in 0..SENDERS {
                rig.relate(person, &key(2, sender), *device);
            }
        }
        (rig, people)
    }

    fn ask(&mut self, device: PeerId, request: Request) -> (Answer, Option<Ticket>) {
        self.requests += 1;
        let id = RequestId(self.requests);
        self.home.handle(id, device, request, Now { wall: WALL, instant: Instant::now() });
        let answer = self.home.outputs().into_iter().find_map(|output| match output.what {
            What::Answer(of, answer) if of == id => Some((answer, output.after)),
            _ => None,
        });
        answer.unwrap()
    }

    fn with_challenge<B: Body>(&mut self, person: &Key, device: PeerId, body: &B) -> Envelope {
        let (Answer::Challenge(challenge), _) = self.ask(device, Request::Challenge) else { panic!("none") };
        sign(person, self.home.id(), *challenge, body)
    }

    fn relate(&mut self, person: &Key, sender: &Key, device: PeerId) {
        let home = HomeAddress { home: self.home.id(), addresses: Vec::new() };
        let body = RelationRequest { label: "friend".to_owned(), note: String::new(), home };
        let request = sign(sender, person.id(), [0; 32], &body);
        let expected = Expected { network: NETWORK, about: None, signer: None, now: WALL };
        let hash = request.verify::<RelationRequest>(&expected).unwrap().hash();
        let acceptance = sign(person, sender.id(), [0; 32], &RelationAcceptance { request: hash.into() });
        assert_eq!(self.ask(device, Request::Related(request, acceptance)).0, Answer::Done);
    }

    /// Puts all messages, and returns the time until the last one is synced.
    fn put_all(&mut self, device: PeerId, messages: Vec<Envelope>) -> Duration {
        let mut durable = self.store.durable();
        let mut waiting = VecDeque::new();
        let begun = Instant::now();
        for message in messages {
            let (answer, ticket) = self.ask(device, Request::Put(message));
            assert_eq!(answer, Answer::Done);
            waiting.push_back(ticket.unwrap());
            if waiting.len() == IN_FLIGHT {
                durable.wait_blocking(waiting.pop_front().unwrap()).unwrap();
            }
        }
        durable.wait_blocking(*waiting.back().unwrap()).unwrap();
        begun.elapsed()
    }
}

/// Messages with this many bytes of ciphertext, to each recipient in turn, evenly from all senders.
fn messages(people: &[(Key, PeerId)], count: u64, bytes: usize) -> Vec<Envelope> {
    let body = Message { encapsulated: [0; 32].into(), ciphertext: vec![7; bytes].into() };
    let of = |number: u64| {
        let person = &people[(number % people.len() as u64) as usize].0;
        let sender = (number / people.len() as u64) as u32 % SENDERS;
        sign(&key(2, sender), person.id(), numbered(number), &body)
    };
    (0..count).map(of).collect()
}

fn stored(count: u64, bytes: usize, recipients: u32) {
    let mut rates = Vec::new();
    for _ in 0..RUNS {
        let folder = tempfile::tempdir().unwrap();
        let (mut rig, people) = Rig::new(folder.path(), recipients);
        let took = rig.put_all(people[0].1, messages(&people, count, bytes));
        rates.push(count as f64 / took.as_secs_f64());
    }
    rates.sort_by(f64::total_cmp);
    let (slowest, median) = (rates[0], rates[RUNS / 2]);
    println!(
        "{count} messages of {bytes} bytes: {median:.0} a second stored and safe; the slowest run {slowest:.0}"
    );
}

fn fetched(count: u64, bytes: usize) {
    let (mut fetches, mut acknowledgements) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        let folder = tempfile::tempdir().unwrap();
        let (mut rig, people) = Rig::new(folder.path(), 1);
        let device = people[0].1;
        rig.put_all(device, messages(&people, count, bytes));
        let begun = Instant::now();
        let (mut after, mut all) = (0, 0);
        loop {
            let (answer, _) = rig.ask(device, Request::Fetch(after));
            // Its size when it leaves the home.
            assert!(minicbor::to_vec(&answer).unwrap().len() > bytes);
            let Answer::Mail(page, more) = answer else { panic!("no mail") };
            after = page.last().unwrap().number;
            all += page.len() as u64;
            if !more {
                break;
            }
        }
        fetches.push(begun.elapsed().as_secs_f64() * 1e3);
        assert_eq!(all, count);
        let begun = Instant::now();
        let (answer, ticket) = rig.ask(device, Request::Acknowledge(after));
        rig.store.durable().wait_blocking(ticket.unwrap()).unwrap();
        assert_eq!(answer, Answer::Done);
        acknowledgements.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    for (what, mut times) in [("fetched", fetches), ("acknowledged", acknowledgements)] {
        times.sort_by(f64::total_cmp);
        let (median, slowest) = (times[RUNS / 2], times[RUNS - 1]);
        println!(
            "{count} messages of {bytes} bytes: {what} in {median:.1} ms; the slowest run {slowest:.1} ms"
        );
    }
}

/// Requests of this many strangers to one person: each evicts the oldest.
fn boxed(count: u32) {
    let folder = tempfile::tempdir().unwrap();
    let (mut rig, people) = Rig::new(folder.path(), 1);
    let home = HomeAddress { home: rig.home.id(), addresses: Vec::new() };
    let body = RelationRequest { label: "friend".to_owned(), note: String::new(), home };
    let to = people[0].0.id();
    let mut times = Vec::new();
    for number in 0..count {
        let request = sign(&key(3, number), to, [0; 32], &body);
        let begun = Instant::now();
        assert_eq!(rig.ask(people[0].1, Request::Relate(request)).0, Answer::Done);
        times.push(begun.elapsed().as_secs_f64() * 1e6);
    }
    times.sort_by(f64::total_cmp);
    let at = |part: usize| times[times.len() * part / 1000];
    let (median, p99, slowest) = (at(500), at(990), times[times.len() - 1]);
    println!("{count} strangers' requests: median {median:.0} us, p99 {p99:.0} us, slowest {slowest:.0} us");
}

fn main() {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let cores = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    println!("cores: {}", cores.map_or("unknown", str::trim));
    stored(20_000, 1024, 64);
    stored(2_000, 65_000, 36);
    fetched(1_000, 1024);
    boxed(20_000);
}
