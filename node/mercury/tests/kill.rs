//! kill -9 at any moment: every message whose `Done` could have been sent is stored exactly once after a restart.
//!
//! The test's own program, started with `MERCURY_KILL_FOLDER`, is the home that is killed. It stores messages and
//! acknowledges some, and reports that only when the batch is on disk. `IOP_KILLS=300` sets the number of kills
//! (default 25), `IOP_KILL_SEED` repeats the moments of an earlier run.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use iop_mercury::body::{HomeAddress, Login, Message, Registration, RelationAcceptance, RelationRequest};
use iop_mercury::envelope::{Body, Envelope, Expected, Order};
use iop_mercury::home::{Home, Now, RequestId, Settings, What};
use iop_mercury::id::{Id, Key};
use iop_mercury::store::{Store, Ticket};
use iop_mercury::wire::{Answer, Hosting, Mail, Request};
use libp2p::PeerId;

/// Environment variables for the killed home: the directory of its store, and the number of its first message.
const FOLDER: &str = "MERCURY_KILL_FOLDER";
const FIRST: &str = "MERCURY_KILL_FIRST";
const TEST: &str = "every_message_that_was_acknowledged_is_there_once_after_kill_9";
const NETWORK: &str = "test";
/// The constant time, in seconds since 1970, so that a message that is made again is identical.
const WALL: u64 = 1_800_000_000;
/// Number of senders.
const SENDERS: u64 = 8;
/// Messages per group, so that most syncs cover more than one.
const GROUP: u64 = 16;
/// When this many items wait, some are acknowledged.
const WAITING: usize = 32;

/// A home with one persona, and people who send mail to it.
struct Rig {
    home: Home,
    store: Arc<Store>,
    owner: Key,
    device: PeerId,
    requests: u64,
}

impl Rig {
    fn open(folder: &Path) -> Self {
        let store = Arc::new(Store::open(&folder.join("store")).unwrap());
        let settings = Settings {
            network: NETWORK.to_owned(),
            hosting: Hosting::Open,
            max_hosted: 10,
            owner: None,
            addresses: Vec::new(),
            backups: folder.join("backups"),
        };
        let home = Home::new(Arc::clone(&store), Key::from_secret(&[200; 32]), settings).unwrap();
        let (owner, device) = (Key::from_secret(&[1; 32]), PeerId::random());
        let mut rig = Self { home, store, owner, device, requests: 0 };
        let registration = rig.sign_for_home(&Registration { invitation: None });
        assert!(matches!(rig.ask(Request::Register(registration)), Answer::Hosting(..)));
        let login = rig.sign_for_home(&Login { device: device.to_bytes().into() });
        assert_eq!(rig.ask(Request::LogIn(login, Vec::new())), Answer::Session(true));
        (0..SENDERS).for_each(|sender| rig.relate(sender));
        rig
    }

    /// Sends a request, and returns the answer once it may be sent.
    fn ask(&mut self, request: Request) -> Answer {
        let (answer, after) = self.ask_soon(request);
        if let Some(ticket) = after {
            self.store.durable().wait_blocking(ticket).unwrap();
        }
        answer
    }

    /// Sends a request, and returns the answer and the ticket it has to wait for.
    fn ask_soon(&mut self, request: Request) -> (Answer, Option<Ticket>) {
        self.requests += 1;
        let id = RequestId(self.requests);
        self.home.handle(id, self.device, request, Now { wall: WALL, instant: Instant::now() });
        let answer = self.home.outputs().into_iter().find_map(|output| match output.what {
            What::Answer(of, answer) if of == id => Some((answer, output.after)),
            _ => None,
        });
        answer.unwrap()
    }

    fn sign_for_home<B: Body>(&mut self, body: &B) -> Envelope {
        let Answer::Challenge(challenge) = self.ask(Request::Challenge) else { panic!("no challenge") };
        sign(&self.owner, self.home.id(), *challenge, body)
    }

    fn relate(&mut self, sender: u64) {
        let home = HomeAddress { home: self.home.id(), addresses: Vec::new() };
        let body = RelationRequest { label: "friend".to_owned(), note: String::new(), home };
        let request = sign(&key(sender), self.owner.id(), [0; 32], &body);
        let hash = request.verify::<RelationRequest>(&expected()).unwrap().hash();
        let body = RelationAcceptance { request: hash.into() };
        let acceptance = sign(&self.owner, key(sender).id(), [0; 32], &body);
        assert_eq!(self.ask(Request::Related(request, acceptance)), Answer::Done);
    }

    /// A message that contains its number; always the same for a number.
    fn message(&self, number: u64) -> Envelope {
        let mut nonce = [0; 32];
        nonce[..8].copy_from_slice(&number.to_be_bytes());
        // Up to some kilobytes, so that the database flushes to files too.
        let mut ciphertext = vec![7; 16 + Random(number).below(6000) as usize];
        ciphertext[..8].copy_from_slice(&number.to_be_bytes());
        let body = Message { encapsulated: [0; 32].into(), ciphertext: ciphertext.into() };
        sign(&key(number % SENDERS), self.owner.id(), nonce, &body)
    }

    /// All waiting mail: each item's number, and its message's.
    fn mail(&mut self) -> Vec<(u64, u64)> {
        let mut all: Vec<Mail> = Vec::new();
        loop {
            let after = all.last().map_or(0, |mail| mail.number);
            let Answer::Mail(page, more) = self.ask(Request::Fetch(after)) else { panic!("no mail") };
            all.extend(page);
            if !more {
                break;
            }
        }
        let which = |mail: &Mail| {
            let message = mail.envelope.verify::<Message>(&expected()).unwrap();
            u64::from_be_bytes(message.body().ciphertext[..8].try_into().unwrap())
        };
        all.iter().map(|mail| (mail.number, which(mail))).collect()
    }
}

fn expected() -> Expected<'static> {
    Expected { network: NETWORK, about: None, signer: None, now: WALL }
}

fn sign<B: Body>(key: &Key, about: Id, nonce: [u8; 32], body: &B) -> Envelope {
    Envelope::sign(key, NETWORK, about, Order::Nonce(nonce), (WALL, WALL + B::LIFE), body)
}

fn key(sender: u64) -> Key {
    Key::from_secret(&[100 + u8::try_from(sender).unwrap(); 32])
}

/// The SplitMix64 generator.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }
}

/// Runs the home that is killed. It prints `put MESSAGE` and `ack MESSAGE` (everything up to it is acknowledged)
/// once that is on disk, and `acking MESSAGE` before it acknowledges.
fn run_until_killed(folder: &Path) {
    let say = |line: String| {
        let mut out = std::io::stdout().lock();
        out.write_all(format!("\n{line}\n").as_bytes()).unwrap();
        out.flush().unwrap();
    };
    let mut rig = Rig::open(folder);
    say("ready".to_owned());
    let mut next: u64 = std::env::var(FIRST).unwrap().parse().unwrap();
    let mut random = Random(next);
    loop {
        let group = next..next + 1 + random.below(GROUP);
        next = group.end;
        let mut last = None;
        for number in group.clone() {
            let message = rig.message(number);
            let (answer, after) = rig.ask_soon(Request::Put(message));
            assert_eq!(answer, Answer::Done);
            last = after;
        }
        rig.store.durable().wait_blocking(last.unwrap()).unwrap();
        group.for_each(|number| say(format!("put {number}")));
        let waiting = rig.mail();
        if waiting.len() >= WAITING {
            let (item, message) = waiting[random.below(waiting.len() as u64) as usize];
            say(format!("acking {message}"));
            assert_eq!(rig.ask(Request::Acknowledge(item)), Answer::Done);
            say(format!("ack {message}"));
        }
    }
}

/// What the killed homes reported.
#[derive(Default)]
struct Told {
    /// Messages that are on disk, ascending.
    put: Vec<u64>,
    /// The message up to which all are certainly acknowledged, and the one up to which they may be.
    acknowledged: u64,
    acknowledging: u64,
    /// The message of each item that was ever seen.
    items: BTreeMap<u64, u64>,
    acknowledgements: u64,
}

impl Told {
    /// Reads a killed home's output. Other lines, and a truncated last one, are ignored.
    fn read(&mut self, lines: impl BufRead) {
        let whole = lines.split(b'\n').map_while(Result::ok).filter_map(|line| String::from_utf8(line).ok());
        for line in whole {
            let mut words = line.split(' ');
            match (words.next(), words.next().and_then(|word| word.parse().ok())) {
                (Some("put"), Some(message)) => self.put.push(message),
                (Some("acking"), Some(message)) => self.acknowledging = message,
                (Some("ack"), Some(message)) => {
                    self.acknowledged = message;
                    self.acknowledgements += 1;
                }
                _ => {}
            }
        }
    }

    /// Compares the reports with the restarted home's data.
    fn check(&mut self, folder: &Path) {
        let mut rig = Rig::open(folder);
        let mail = rig.mail();
        for &(item, message) in &mail {
            assert_eq!(*self.items.entry(item).or_insert(message), message, "item {item} was another one");
        }
        assert!(
            mail.is_sorted_by(|one, next| one.0 < next.0 && one.1 < next.1),
            "twice or in disorder: {mail:?}"
        );
        let there: Vec<_> = mail.iter().map(|(_, message)| *message).collect();
        let wanted = |above: u64| self.put.iter().copied().filter(move |message| *message > above);
        let all_there = |above| {
            wanted(above).all(|message| there.contains(&message))
                && there.iter().all(|message| *message > above)
        };
        // An acknowledgement in progress took effect completely or not at all.
        if !all_there(self.acknowledged) {
            assert!(
                all_there(self.acknowledging),
                "acknowledged up to {}, perhaps {}; there {there:?}; of {:?}",
                self.acknowledged,
                self.acknowledging,
                wanted(self.acknowledged).collect::<Vec<_>>(),
            );
            self.acknowledged = self.acknowledging;
        }
        // Sent again, no message is stored twice or comes back.
        for &number in self.put.iter().rev().take(2 * WAITING) {
            let again = rig.message(number);
            assert_eq!(rig.ask(Request::Put(again)), Answer::Done);
        }
        assert_eq!(rig.mail(), mail);
    }
}

/// Starts a home and kills it. Returns whether it had begun to accept messages.
fn kill_one(folder: &Path, first: u64, random: &mut Random, told: &mut Told) -> bool {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", TEST, "--nocapture"]).env(FOLDER, folder).env(FIRST, first.to_string());
    let mut home = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(home.stdout.take().unwrap());
    // One of four is killed during the start.
    let mut is_ready = random.below(4) > 0;
    while is_ready {
        let mut line = String::new();
        is_ready = lines.read_line(&mut line).unwrap() > 0;
        if line == "ready\n" {
            break;
        }
    }
    std::thread::sleep(Duration::from_micros(random.below(if is_ready { 300_000 } else { 80_000 })));
    home.kill().unwrap();
    assert_eq!(home.wait().unwrap().signal(), Some(9), "it ended by itself");
    let before = told.put.len();
    told.read(lines);
    told.put.len() > before
}

#[test]
fn every_message_that_was_acknowledged_is_there_once_after_kill_9() {
    if let Some(folder) = std::env::var_os(FOLDER) {
        run_until_killed(Path::new(&folder));
    }
    let kills = std::env::var("IOP_KILLS").map_or(25, |text| text.parse().unwrap());
    let seed = std::env::var("IOP_KILL_SEED").map_or_else(
        |_| SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64,
        |text| text.parse().unwrap(),
    );
    // Shown if the test fails.
    println!("IOP_KILL_SEED={seed}");
    let folder = tempfile::tempdir().unwrap();
    let (mut random, mut told, mut working) = (Random(seed), Told::default(), 0);
    for _ in 0..kills {
        // Messages that were sent but not answered may be stored or not, so their numbers are not used again.
        let first = told.put.last().map_or(1, |last| last + 2 * GROUP);
        working += u64::from(kill_one(folder.path(), first, &mut random, &mut told));
        told.check(folder.path());
    }
    println!(
        "{kills} kills, {working} of them at work; {} messages, {} acknowledgements",
        told.put.len(),
        told.acknowledgements
    );
    assert!(working > 0 && told.acknowledgements > 0, "no kill met a home at work");
}
