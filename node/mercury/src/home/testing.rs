//! Shared test code: a home in its own directory, people with devices, and a clock that tests set.
#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use libp2p::PeerId;
use sha2::{Digest, Sha256};

use super::space::Space;
use super::{Home, Now, RequestId, Settings, What};
use crate::body::{
    BlobRef, HomeAddress, Login, Message, Registration, RelationAcceptance, RelationRequest,
    RelationRevocation,
};
use crate::envelope::{Body, Envelope, Expected, Order, Verified};
use crate::id::{Id, Key};
use crate::limits::CHUNK;
use crate::store::{Column, Hosted, Item, Mailbox, Relation, RelationState, Seen, Sender, Store};
use crate::wire::{Answer, Code, Event, Hosting, Request};

/// The network of all tests.
pub(crate) const NETWORK: &str = "test";
/// The time at which tests begin, in seconds since 1970.
pub(crate) const START: u64 = 1_800_000_000;

/// The reference to a blob.
pub(crate) fn blob_of(bytes: &[u8]) -> BlobRef {
    BlobRef { hash: <[u8; 32]>::from(Sha256::digest(bytes)).into(), size: bytes.len() as u64 }
}

/// A home and its clock.
pub(crate) struct Bench {
    pub(crate) home: Home,
    pub(crate) now: Now,
    pub(crate) events: Vec<(PeerId, Event)>,
    pub(crate) folder: Arc<tempfile::TempDir>,
    requests: u64,
}

/// Why a request was refused.
pub(crate) fn code(answer: &Answer) -> Option<Code> {
    match answer {
        Answer::Refused(refusal) => Some(refusal.code),
        _ => None,
    }
}

/// A persona at a device.
pub(crate) struct Person {
    pub(crate) key: Key,
    pub(crate) device: PeerId,
}

impl Person {
    pub(crate) fn new(number: u8) -> Self {
        Self { key: Key::from_secret(&[number; 32]), device: PeerId::random() }
    }

    /// One of many people.
    pub(crate) fn of_many(number: u32) -> Self {
        let mut secret = [255; 32];
        secret[..4].copy_from_slice(&number.to_be_bytes());
        Self { key: Key::from_secret(&secret), device: PeerId::random() }
    }

    pub(crate) fn id(&self) -> Id {
        self.key.id()
    }
}

impl Bench {
    pub(crate) fn new(change: impl FnOnce(&mut Settings)) -> Self {
        Self::open(Arc::new(tempfile::tempdir().unwrap()), change)
    }

    /// Opens a home on an existing directory.
    pub(crate) fn open(folder: Arc<tempfile::TempDir>, change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = Settings {
            network: NETWORK.to_owned(),
            hosting: Hosting::Open,
            max_hosted: 10_000,
            owner: None,
            addresses: vec!["/ip4/127.0.0.1/tcp/1".to_owned()],
            backups: folder.path().join("backups"),
        };
        change(&mut settings);
        let store = Arc::new(Store::open(&folder.path().join("store")).unwrap());
        let mut home = Home::new(store, Key::from_secret(&[200; 32]), settings).unwrap();
        // Independent of this machine's disk.
        home.space = Space::new(|| Some(u64::MAX));
        let now = Now { wall: START, instant: Instant::now() };
        Self { home, now, events: Vec::new(), folder, requests: 0 }
    }

    /// Advances both clocks.
    pub(crate) fn wait(&mut self, seconds: u64) {
        self.now.wall += seconds;
        self.now.instant += Duration::from_secs(seconds);
    }

    /// Sends a request and returns the answer, which must come at once.
    pub(crate) fn ask(&mut self, from: PeerId, request: Request) -> Answer {
        self.ask_later(from, request).expect("an answer at once")
    }

    /// Sends a request and returns the answer if it comes at once.
    pub(crate) fn ask_later(&mut self, from: PeerId, request: Request) -> Option<Answer> {
        self.requests += 1;
        let id = RequestId(self.requests);
        self.home.handle(id, from, request, self.now);
        self.collect().into_iter().find(|(other, _)| *other == id).map(|(_, answer)| answer)
    }

    /// Collects the outputs: returns answers, and adds events to `events`.
    pub(crate) fn collect(&mut self) -> Vec<(RequestId, Answer)> {
        let mut answers = Vec::new();
        for output in self.home.outputs() {
            match output.what {
                What::Answer(id, answer) => answers.push((id, answer)),
                What::Event(device, event) => self.events.push((device, event)),
            }
        }
        answers
    }

    /// Events for a device since the last call.
    pub(crate) fn events_of(&mut self, device: PeerId) -> Vec<Event> {
        self.events.extract_if(.., |(to, _)| *to == device).map(|(_, event)| event).collect()
    }

    pub(crate) fn sign<B: Body>(&self, person: &Person, about: Id, order: Order, body: &B) -> Envelope {
        let times = (self.now.wall, self.now.wall + B::LIFE);
        Envelope::sign(&person.key, NETWORK, about, order, times, body)
    }

    pub(crate) fn challenge(&mut self, device: PeerId) -> Order {
        match self.ask(device, Request::Challenge) {
            Answer::Challenge(challenge) => Order::Nonce(*challenge),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn register(&mut self, person: &Person) -> Answer {
        let order = self.challenge(person.device);
        let registration = self.sign(person, self.home.id(), order, &Registration { invitation: None });
        self.ask(person.device, Request::Register(registration))
    }

    pub(crate) fn log_in(&mut self, person: &Person, applications: &[&str]) -> Answer {
        let order = self.challenge(person.device);
        let login =
            self.sign(person, self.home.id(), order, &Login { device: person.device.to_bytes().into() });
        let applications = applications.iter().map(|name| (*name).to_owned()).collect();
        self.ask(person.device, Request::LogIn(login, applications))
    }

    /// Stops the home and starts it on the same directory, a moment later by both clocks.
    pub(crate) fn restart(self, change: impl FnOnce(&mut Settings)) -> Self {
        let Self { home, now, folder, requests, .. } = self;
        drop(home);
        Self { now, requests, ..Self::open(folder, change) }
    }

    /// Uploads a whole blob.
    pub(crate) fn upload(&mut self, person: &Person, bytes: &[u8]) -> BlobRef {
        let blob = blob_of(bytes);
        assert_eq!(self.ask(person.device, Request::Offer(blob)), Answer::Next(0));
        for (number, chunk) in (0u32..).zip(bytes.chunks(CHUNK)) {
            let sent = Request::Chunk(blob.hash, number, chunk.to_vec().into());
            assert_eq!(self.ask(person.device, sent), Answer::Next(number + 1));
        }
        blob
    }

    /// A person hosted elsewhere and logged in here.
    pub(crate) fn visitor(&mut self, number: u8) -> Person {
        let person = Person::new(number);
        assert_eq!(self.log_in(&person, &[]), Answer::Session(false));
        person
    }

    /// A person hosted here and logged in.
    pub(crate) fn resident(&mut self, number: u8) -> Person {
        let person = Person::new(number);
        assert!(matches!(self.register(&person), Answer::Hosting(..)));
        assert_eq!(self.log_in(&person, &[]), Answer::Session(true));
        person
    }

    /// Advances time, with enough ticks that everything expired is deleted.
    pub(crate) fn sweep_after(&mut self, seconds: u64) {
        self.wait(seconds);
        for _ in 0..20 {
            self.home.tick(self.now);
        }
    }

    pub(crate) fn opened<B: Body>(&self, envelope: &Envelope) -> Verified<B> {
        let expected = Expected { network: NETWORK, about: None, signer: None, now: self.now.wall };
        envelope.verify(&expected).unwrap()
    }

    pub(crate) fn request(&self, from: &Person, to: Id, number: u64) -> Envelope {
        let home = HomeAddress { home: self.home.id(), addresses: Vec::new() };
        let body = RelationRequest { label: "friend".to_owned(), note: String::new(), home };
        self.sign(from, to, nonce(number), &body)
    }

    pub(crate) fn acceptance(&self, by: &Person, request: &Envelope) -> Envelope {
        let request = self.opened::<RelationRequest>(request);
        let body = RelationAcceptance { request: request.hash().into() };
        self.sign(by, request.signer(), request.order(), &body)
    }

    pub(crate) fn revocation(&self, by: &Person, other: &Person, request: &Envelope) -> Envelope {
        let request = self.opened::<RelationRequest>(request);
        let body = RelationRevocation { request: request.hash().into() };
        self.sign(by, other.id(), request.order(), &body)
    }

    /// A relation between two people, one or both of whom are hosted here; returns its proof.
    pub(crate) fn relation(&mut self, one: &Person, other: &Person, number: u64) -> (Envelope, Envelope) {
        let request = self.request(one, other.id(), number);
        let acceptance = self.acceptance(other, &request);
        let related = Request::Related(request.clone(), acceptance.clone());
        assert_eq!(self.ask(one.device, related), Answer::Done);
        (request, acceptance)
    }

    /// A message with a ciphertext of this many bytes.
    pub(crate) fn message(&self, from: &Person, to: Id, number: u64, bytes: usize) -> Envelope {
        let body = Message { encapsulated: [0; 32].into(), ciphertext: vec![0; bytes].into() };
        self.sign(from, to, nonce(number), &body)
    }

    /// Compares all counts with the data.
    pub(crate) fn check_counts(&self) {
        let store = &self.home.store;
        let all = |column| store.rows(column, b"", b"").map(|row| row.unwrap()).collect::<Vec<_>>();
        let (mut boxes, mut senders) = (HashMap::<_, Mailbox>::new(), HashMap::<_, Sender>::new());
        for (key, value) in all(Column::Mail) {
            let item: Item = store.record(Column::Mail, &value).unwrap();
            let (owner, size) = (key[..32].to_vec(), super::mail::size(&item.envelope));
            let mailbox = boxes.entry(owner.clone()).or_default();
            mailbox.count += 1;
            mailbox.bytes += size;
            senders.entry([owner, item.sender.digest().to_vec()].concat()).or_default().bytes += size;
        }
        for (key, value) in all(Column::Seen) {
            let seen: Seen = store.record(Column::Seen, &value).unwrap();
            let owner = key[..32].to_vec();
            boxes.entry(owner.clone()).or_default().seen += 1;
            senders.entry([owner, seen.sender.digest().to_vec()].concat()).or_default().seen += 1;
        }
        for (key, value) in all(Column::Boxes) {
            let mailbox: Mailbox = store.record(Column::Boxes, &value).unwrap();
            let counted = boxes.remove(&*key).unwrap_or_default();
            let counts = |one: &Mailbox| (one.count, one.bytes, one.seen);
            assert_eq!(counts(&mailbox), counts(&counted));
        }
        assert!(boxes.is_empty());
        let there: HashMap<_, Sender> = all(Column::Senders)
            .into_iter()
            .map(|(key, value)| (key.into_vec(), store.record(Column::Senders, &value).unwrap()))
            .collect();
        assert_eq!(there, senders);
        let mut relations = HashMap::<_, (u64, u64)>::new();
        for (key, value) in all(Column::Relations) {
            let relation: Relation = store.record(Column::Relations, &value).unwrap();
            let counts = relations.entry(key[..32].to_vec()).or_default();
            match relation.state {
                RelationState::Revoked => counts.1 += 1,
                RelationState::Asked | RelationState::Held => counts.0 += 1,
            }
        }
        for (key, value) in all(Column::Hosted) {
            let hosted: Hosted = store.record(Column::Hosted, &value).unwrap();
            assert_eq!((hosted.relations, hosted.revoked), relations.remove(&*key).unwrap_or_default());
        }
        assert!(relations.is_empty());
    }
}

/// A nonce as an envelope's order.
pub(crate) fn nonce(number: u64) -> Order {
    let mut nonce = [0; 32];
    nonce[..8].copy_from_slice(&number.to_be_bytes());
    Order::Nonce(nonce)
}
