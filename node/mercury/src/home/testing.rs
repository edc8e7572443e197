//! What tests of a home share: a home in a folder of its own, people with devices, and a clock that they set.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use libp2p::PeerId;

use super::{Home, Now, RequestId, Settings, What};
use crate::body::{Login, Registration};
use crate::envelope::{Body, Envelope, Order};
use crate::id::{Id, Key};
use crate::store::Store;
use crate::wire::{Answer, Event, Hosting, Request};

/// The network of all tests.
pub(crate) const NETWORK: &str = "test";
/// When tests begin, in seconds since 1970.
pub(crate) const START: u64 = 1_800_000_000;

/// A home and its clock.
pub(crate) struct Bench {
    pub(crate) home: Home,
    pub(crate) now: Now,
    pub(crate) events: Vec<(PeerId, Event)>,
    pub(crate) folder: Arc<tempfile::TempDir>,
    requests: u64,
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

    pub(crate) fn id(&self) -> Id {
        self.key.id()
    }
}

impl Bench {
    pub(crate) fn new(change: impl FnOnce(&mut Settings)) -> Self {
        Self::open(Arc::new(tempfile::tempdir().unwrap()), change)
    }

    /// A home on what a folder holds.
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
        let home = Home::new(store, Key::from_secret(&[200; 32]), settings).unwrap();
        let now = Now { wall: START, instant: Instant::now() };
        Self { home, now, events: Vec::new(), folder, requests: 0 }
    }

    /// Both clocks go on.
    pub(crate) fn wait(&mut self, seconds: u64) {
        self.now.wall += seconds;
        self.now.instant += Duration::from_secs(seconds);
    }

    /// Asks and gives back the answer, which has to come at once.
    pub(crate) fn ask(&mut self, from: PeerId, request: Request) -> Answer {
        self.ask_later(from, request).expect("an answer at once")
    }

    /// Asks and gives back the answer if it comes at once.
    pub(crate) fn ask_later(&mut self, from: PeerId, request: Request) -> Option<Answer> {
        self.requests += 1;
        let id = RequestId(self.requests);
        self.home.handle(id, from, request, self.now);
        self.collect().into_iter().find(|(other, _)| *other == id).map(|(_, answer)| answer)
    }

    /// What came out: answers, while events gather in `events`.
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

    /// Events for a device since the last time.
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

    /// Somebody who is hosted here and logged in.
    pub(crate) fn resident(&mut self, number: u8) -> Person {
        let person = Person::new(number);
        assert!(matches!(self.register(&person), Answer::Hosting(..)));
        assert_eq!(self.log_in(&person, &[]), Answer::Session(true));
        person
    }
}
