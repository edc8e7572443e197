//! Untrusted input of a Mercury home: envelopes, bodies, and requests that a home on a real store answers.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bitcoin::hashes::{Hash, sha256};
use iop_mercury::body::{self, Attribute, BlobRef, HomeAddress};
use iop_mercury::envelope::{Body, Envelope, Expected, Order};
use iop_mercury::home::{Home, Now, RequestId, Settings, What};
use iop_mercury::id::{Id, Key};
use iop_mercury::limits::CALL_TIME;
use iop_mercury::store::{Batch, Column, Row, Store};
use iop_mercury::wire::{Answer, Hosting, MAX_ANSWER, Request};
use libp2p::PeerId;

const NETWORK: &str = "test";
const START: u64 = 1_800_000_000;
/// Inputs after which the store is recreated: deleted data slow it down.
const INPUTS_OF_A_STORE: u32 = 2_000;
/// Contents of the blob in the seeds.
const BLOB: &[u8] = b"a picture";

/// An envelope or, if the first byte is odd, a body, parsed as each kind.
pub(crate) fn envelope(data: &[u8]) {
    let Some((first, rest)) = data.split_first() else { return };
    let read: fn(&[u8]) = if first % 2 == 0 { as_envelope } else { as_body };
    read(rest);
}

fn as_envelope(data: &[u8]) {
    let Ok(envelope) = Envelope::from_bytes(data) else { return };
    // What is written is the canonical form, and parses again.
    let written = envelope.to_bytes();
    assert_eq!(Envelope::from_bytes(&written).as_ref(), Ok(&envelope));
    let expected = Expected { network: NETWORK, about: None, signer: None, now: START };
    let mut kinds = 0;
    macro_rules! verify {
        ($($kind:ident)*) => {$(
            if let Ok(verified) = envelope.verify::<body::$kind>(&expected) {
                kinds += 1;
                assert_eq!(envelope.kind(), body::$kind::KIND);
                assert_eq!((verified.hash(), verified.bytes()), (envelope.hash(), &written[..]));
                assert!(verified.body().check().is_ok());
            }
        )*};
    }
    verify!(Registration Hosting Login Departure Profile RelationRequest RelationAcceptance RelationRevocation
        Message CallOffer CallAnswer Contact);
    assert!(kinds <= 1, "an envelope has one kind");
}

/// A well-formed body is accepted once it is signed, any other is not.
fn as_body(data: &[u8]) {
    let key = Key::from_secret(&[1; 32]);
    let expected = Expected { network: NETWORK, about: None, signer: None, now: START };
    macro_rules! verify {
        ($($kind:ident)*) => {$(
            if let Ok(body) = minicbor::decode::<body::$kind>(data) {
                let order = Order::Sequence(1);
                let envelope = Envelope::sign(&key, NETWORK, key.id(), order, (START, START), &body);
                let length = minicbor::to_vec(&body).map_or(usize::MAX, |bytes| bytes.len());
                let sound = body.check().is_ok() && length <= body::$kind::MAX;
                let verified = envelope.verify::<body::$kind>(&expected);
                assert_eq!(verified.is_ok(), sound, "{verified:?}");
            }
        )*};
    }
    verify!(Registration Hosting Login Departure Profile RelationRequest RelationAcceptance RelationRevocation
        Message CallOffer CallAnswer Contact);
}

/// A byte that selects the requesting device, and a request: the home answers it exactly once.
pub(crate) fn request(data: &[u8]) {
    let Some((who, rest)) = data.split_first() else { return };
    let mut decoder = minicbor::Decoder::new(rest);
    let Ok(request) = decoder.decode::<Request>() else { return };
    if decoder.position() != rest.len() {
        return;
    }
    WORLD.with_borrow_mut(|world| {
        let world = match world {
            Some(world) if world.inputs < INPUTS_OF_A_STORE => world,
            _ => world.insert(World::new()),
        };
        world.answers_once(usize::from(*who), request);
    });
}

thread_local! {
    static WORLD: RefCell<Option<World>> = const { RefCell::new(None) };
}

struct Person {
    key: Key,
    device: PeerId,
}

/// The owner, hosted; Ada, hosted; a visitor; a person who is not logged in. The first three are related.
fn people() -> [Person; 4] {
    let device = |number| Key::from_secret(&[number + 50; 32]).peer_key().public().to_peer_id();
    [1, 2, 3, 4].map(|number| Person { key: Key::from_secret(&[number; 32]), device: device(number) })
}

/// A home with some people. It is in the same state before each input.
struct World {
    folder: tempfile::TempDir,
    store: Arc<Store>,
    before: Vec<(Column, Row)>,
    people: [Person; 4],
    now: Now,
    inputs: u32,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder for the store");
        let store = Arc::new(Store::open(&folder.path().join("store")).expect("a new store"));
        let now = Now { wall: START, instant: Instant::now() };
        let mut world = Self { folder, store, before: Vec::new(), people: people(), now, inputs: 0 };
        let mut home = world.home();
        for person in &world.people[..2] {
            let registration = world.fresh(&mut home, person, &body::Registration { invitation: None });
            world.ask(&mut home, person, Request::Register(registration));
        }
        world.log_in(&mut home);
        for (who, request) in story() {
            let answer = world.ask(&mut home, &world.people[who], request);
            assert!(!matches!(answer, Answer::Refused(_)), "{answer:?}");
        }
        world.before = world.rows();
        world
    }

    fn home(&self) -> Home {
        let settings = Settings {
            network: NETWORK.to_owned(),
            hosting: Hosting::Open,
            max_hosted: 3,
            owner: Some(self.people[0].key.id()),
            addresses: vec!["/ip4/127.0.0.1/tcp/1".to_owned()],
            backups: self.folder.path().join("backups"),
        };
        Home::new(Arc::clone(&self.store), home_key(), settings).expect("a sound store")
    }

    fn rows(&self) -> Vec<(Column, Row)> {
        let rows = |column: Column| self.store.rows(column, b"", b"").map(move |row| (column, row));
        let rows = Column::ALL.into_iter().flat_map(rows);
        rows.map(|(column, row)| (column, row.expect("a sound store"))).collect()
    }

    fn reset(&mut self) {
        self.inputs += 1;
        let mut batch = Batch::default();
        for (column, (key, _)) in self.rows() {
            batch.delete(column, &key);
        }
        for (column, (key, value)) in &self.before {
            batch.put_bytes(*column, key, value);
        }
        self.store.commit(batch).expect("a store that can be written");
        // There is none before the first backup.
        let _ = std::fs::remove_dir_all(self.folder.path().join("backups"));
    }

    /// Sends a request that is answered at once.
    fn ask(&self, home: &mut Home, person: &Person, request: Request) -> Answer {
        home.handle(RequestId(1), person.device, request, self.now);
        let mut answers = home.outputs().into_iter().filter_map(|output| match output.what {
            What::Answer(RequestId(1), answer) => Some(answer),
            _ => None,
        });
        answers.next().expect("an answer")
    }

    /// Signs with a challenge of the home.
    fn fresh<B: Body>(&self, home: &mut Home, person: &Person, body: &B) -> Envelope {
        let Answer::Challenge(challenge) = self.ask(home, person, Request::Challenge) else {
            panic!("no challenge");
        };
        sign(person, home.id(), Order::Nonce(*challenge), body)
    }

    fn log_in(&self, home: &mut Home) {
        for person in &self.people[..3] {
            let login = body::Login { device: person.device.to_bytes().into() };
            let login = self.fresh(home, person, &login);
            let answer = self.ask(home, person, Request::LogIn(login, vec!["chess".to_owned()]));
            assert!(matches!(answer, Answer::Session(_)), "{answer:?}");
        }
    }

    fn answers_once(&mut self, who: usize, request: Request) -> Answer {
        self.reset();
        let mut home = self.home();
        self.log_in(&mut home);
        let person = &self.people[who % 4];
        // A challenge is random: requests that must contain one are signed here, if the byte says so.
        let request = match request {
            Request::LogIn(_, applications) if who >= 128 => {
                let login = body::Login { device: person.device.to_bytes().into() };
                Request::LogIn(self.fresh(&mut home, person, &login), applications)
            }
            Request::Register(_) if who >= 128 => {
                Request::Register(self.fresh(&mut home, person, &body::Registration { invitation: None }))
            }
            Request::Unregister(_, upto) if who >= 128 => {
                Request::Unregister(self.fresh(&mut home, person, &body::Departure { to: None }), upto)
            }
            other => other,
        };
        home.handle(RequestId(2), person.device, request, self.now);
        let mut outputs = home.outputs();
        let later = Duration::from_secs(CALL_TIME + 1);
        home.tick(Now { wall: START + CALL_TIME + 1, instant: self.now.instant + later });
        outputs.extend(home.outputs());
        for person in &self.people {
            home.gone(person.device);
        }
        outputs.extend(home.outputs());
        let answers = outputs.into_iter().filter_map(|output| match output.what {
            What::Answer(id, answer) => Some((id, answer)),
            What::Event(..) => None,
        });
        let answers: Vec<_> = answers.collect();
        let [(RequestId(2), answer)] = &answers[..] else { panic!("one answer expected: {answers:?}") };
        assert!(minicbor::to_vec(answer).is_ok_and(|bytes| bytes.len() <= MAX_ANSWER));
        if let Answer::Refused(refusal) = answer {
            assert!(!refusal.reason.contains(char::is_control), "{}", refusal.reason);
        }
        for person in &self.people {
            assert!(!home.permits().may_reserve(person.device), "all have gone");
        }
        answer.clone()
    }
}

fn home_key() -> Key {
    Key::from_secret(&[200; 32])
}

/// A person who is banned before each input.
fn banned() -> Id {
    Key::from_secret(&[5; 32]).id()
}

fn sign<B: Body>(person: &Person, about: Id, order: Order, body: &B) -> Envelope {
    Envelope::sign(&person.key, NETWORK, about, order, (START, START + B::LIFE.min(3600)), body)
}

fn hash_of(bytes: &[u8]) -> BlobRef {
    let hash = sha256::Hash::hash(bytes).to_byte_array();
    BlobRef { hash: hash.into(), size: bytes.len() as u64 }
}

fn profile(person: &Person, version: u64, picture: Option<BlobRef>) -> Envelope {
    let attribute = Attribute { name: "name".to_owned(), value: "Ada".to_owned() };
    let body = body::Profile {
        attributes: vec![attribute],
        encryption_key: [9; 32].into(),
        picture,
        thumbnail: None,
        tombstone: false,
    };
    sign(person, person.key.id(), Order::Sequence(version), &body)
}

/// Both halves of a relation.
fn relation(requester: &Person, other: &Person, nonce: u8) -> (Envelope, Envelope) {
    let order = Order::Nonce([nonce; 32]);
    let home = HomeAddress { home: home_key().id(), addresses: vec!["/ip4/127.0.0.1/tcp/1".to_owned()] };
    let body = body::RelationRequest { label: "friend".to_owned(), note: "Hello".to_owned(), home };
    let request = sign(requester, other.key.id(), order, &body);
    let acceptance = body::RelationAcceptance { request: request.hash().into() };
    let acceptance = sign(other, requester.key.id(), order, &acceptance);
    (request, acceptance)
}

fn message(from: &Person, to: &Person, nonce: u8) -> Envelope {
    let body = body::Message { encapsulated: [1; 32].into(), ciphertext: vec![nonce; 40].into() };
    sign(from, to.key.id(), Order::Nonce([nonce; 32]), &body)
}

/// The requests before each input.
fn story() -> Vec<(usize, Request)> {
    let [owner, ada, visitor, _] = people();
    let picture = hash_of(BLOB);
    let (request, acceptance) = relation(&owner, &ada, 1);
    let (visitors, to_visitor) = relation(&ada, &visitor, 2);
    vec![
        (1, Request::Offer(picture)),
        (1, Request::Chunk(picture.hash, 0, BLOB.to_vec().into())),
        (1, Request::SetProfile(profile(&ada, 5, Some(picture)))),
        (1, Request::Offer(hash_of(&[5; 100]))),
        (0, Request::Relate(request.clone())),
        (1, Request::Related(request, acceptance)),
        (1, Request::Relate(visitors.clone())),
        (1, Request::Related(visitors, to_visitor)),
        (0, Request::Put(message(&owner, &ada, 3))),
        (2, Request::Relate(relation(&visitor, &owner, 4).0)),
        (0, Request::Ban(banned(), "too loud".to_owned())),
    ]
}

/// Seeds: a request of each kind, from the person with whom it exercises most.
pub(crate) fn seeds(target: &str) -> Vec<(&'static str, Vec<u8>)> {
    let requests = requests();
    if target == "mercury_request" {
        let input = |(name, who, request): (&'static str, u8, Request)| {
            let bytes = minicbor::to_vec(&request).expect("a vector takes everything");
            (name, [&[who][..], &bytes].concat())
        };
        return requests.into_iter().map(input).collect();
    }
    let envelopes = requests.into_iter().filter_map(|(name, _, request)| match request {
        Request::Register(envelope)
        | Request::LogIn(envelope, _)
        | Request::Unregister(envelope, _)
        | Request::SetProfile(envelope)
        | Request::Relate(envelope)
        | Request::Related(_, envelope)
        | Request::Revoke(envelope)
        | Request::Put(envelope)
        | Request::Call(envelope)
        | Request::Answer(envelope) => Some((name, [&[0][..], &envelope.to_bytes()].concat())),
        _ => None,
    });
    let body = body::Contact { addresses: vec!["/ip4/127.0.0.1/tcp/1".to_owned()] };
    let body = minicbor::to_vec(&body).expect("a vector takes everything");
    envelopes.chain([("contact_body", [&[1][..], &body].concat())]).collect()
}

fn requests() -> Vec<(&'static str, u8, Request)> {
    let [owner, ada, visitor, other] = people();
    let (home, picture) = (home_key().id(), hash_of(BLOB));
    let nonce = Order::Nonce([7; 32]);
    let device = || ada.device.to_bytes().into();
    let register = sign(&other, home, nonce, &body::Registration { invitation: Some([1; 16].into()) });
    let login = sign(&ada, home, nonce, &body::Login { device: device() });
    let departure = sign(&ada, home, nonce, &body::Departure { to: None });
    let (request, acceptance) = relation(&visitor, &owner, 4);
    let held = relation(&owner, &ada, 1).0;
    let revocation = body::RelationRevocation { request: held.hash().into() };
    let revocation = sign(&ada, owner.key.id(), Order::Nonce([1; 32]), &revocation);
    let offer = body::CallOffer { application: "chess".to_owned(), device: device() };
    let offer = sign(&ada, owner.key.id(), nonce, &offer);
    let answer = body::CallAnswer { offer: offer.hash().into(), taken: None };
    let answer = sign(&owner, ada.key.id(), nonce, &answer);
    let ids = vec![owner.key.id(), ada.key.id(), other.key.id()];
    vec![
        ("about", 3, Request::About),
        ("challenge", 3, Request::Challenge),
        ("register", 131, Request::Register(register)),
        ("log_in", 129, Request::LogIn(login, vec!["go".to_owned()])),
        ("log_out", 1, Request::LogOut),
        ("claim", 1, Request::Claim),
        ("unregister", 129, Request::Unregister(departure, None)),
        ("announce", 1, Request::Announce(vec!["go".to_owned(), "chess".to_owned()])),
        ("get_profile", 3, Request::GetProfile(ada.key.id())),
        ("set_profile", 1, Request::SetProfile(profile(&ada, 6, Some(picture)))),
        ("relate", 1, Request::Relate(relation(&ada, &other, 8).0)),
        ("requests", 0, Request::Requests),
        ("dismiss", 0, Request::Dismiss(visitor.key.id())),
        ("related", 3, Request::Related(request, acceptance)),
        ("revoke", 3, Request::Revoke(revocation)),
        ("relations", 0, Request::Relations(Some(owner.key.id()))),
        ("put", 3, Request::Put(message(&owner, &ada, 9))),
        ("fetch", 1, Request::Fetch(0)),
        ("acknowledge", 1, Request::Acknowledge(1)),
        ("offer", 1, Request::Offer(hash_of(b"another"))),
        ("chunk", 1, Request::Chunk(hash_of(&[5; 100]).hash, 0, vec![5; 100].into())),
        ("get_chunk", 3, Request::GetChunk(ada.key.id(), picture.hash, 0)),
        ("discard", 1, Request::Discard(hash_of(&[5; 100]).hash)),
        ("blobs", 1, Request::Blobs),
        ("presence", 2, Request::Presence(ids)),
        ("call", 1, Request::Call(offer)),
        ("answer", 0, Request::Answer(answer)),
        ("invite", 0, Request::Invite(60)),
        ("ban", 0, Request::Ban(ada.key.id(), "too loud".to_owned())),
        ("unban", 0, Request::Unban(ada.key.id())),
        ("bans", 0, Request::Bans(None)),
        ("expel", 0, Request::Expel(banned())),
        ("figures", 0, Request::Figures),
        ("back_up", 0, Request::BackUp),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_inputs_reach_what_they_are_for() {
        let mut world = World::new();
        for (name, who, request) in requests() {
            let answer = world.answers_once(usize::from(who), request);
            // The call is not answered, and there is no call to answer.
            let refused = ["call", "answer"].contains(&name);
            assert_eq!(matches!(answer, Answer::Refused(_)), refused, "{name}: {answer:?}");
        }
        for input in seeds("mercury_envelope") {
            envelope(&input.1);
        }
    }
}
