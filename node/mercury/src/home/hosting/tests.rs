#![allow(clippy::unwrap_used)]
use libp2p::PeerId;
use minicbor::bytes::ByteArray;

use crate::body::{self, Departure, Registration};
use crate::envelope::{Envelope, Expected, Order};
use crate::home::testing::{Bench, NETWORK, Person, code};
use crate::id::Key;
use crate::limits::{CHALLENGE_TIME, MAX_HOSTED, REDIRECT_TIME};
use crate::store::Column;
use crate::wire::{Answer, Code, Event, Hosting, Presence, Request};

fn register_with(bench: &mut Bench, person: &Person, invitation: Option<[u8; 16]>) -> Answer {
    let order = bench.challenge(person.device);
    let body = Registration { invitation: invitation.map(ByteArray::from) };
    let registration = bench.sign(person, bench.home.id(), order, &body);
    bench.ask(person.device, Request::Register(registration))
}

fn leave(bench: &mut Bench, person: &Person) -> Answer {
    let order = bench.challenge(person.device);
    let departure = bench.sign(person, bench.home.id(), order, &Departure { to: None });
    bench.ask(person.device, Request::Unregister(departure, None))
}

/// Both halves of the proof, verified as anyone can who has them.
fn check_proof(bench: &Bench, person: &Person, answer: &Answer) -> (Envelope, Envelope) {
    let Answer::Hosting(registration, proof) = answer else { panic!("{answer:?}") };
    let expected = |about, signer| Expected {
        network: NETWORK,
        about: Some(about),
        signer: Some(signer),
        now: bench.now.wall,
    };
    let home = bench.home.id();
    let half = registration.verify::<Registration>(&expected(home, person.id())).unwrap();
    let proven = proof.verify::<body::Hosting>(&expected(person.id(), home)).unwrap();
    assert_eq!(*proven.body().registration, half.hash());
    (registration.clone(), proof.clone())
}

#[test]
fn both_halves_of_a_hosting_are_given_and_given_again() {
    let mut bench = Bench::new(|_| ());
    let ada = Person::new(1);
    let answer = bench.register(&ada);
    let halves = check_proof(&bench, &ada, &answer);
    bench.wait(5);
    assert_eq!(bench.register(&ada), answer, "the answer may have got lost");
    assert_eq!(code(&bench.ask(ada.device, Request::Claim)), Some(Code::LogInFirst));
    bench.log_in(&ada, &[]);
    assert_eq!(bench.ask(ada.device, Request::Claim), answer);
    let mut bench = bench.restart(|_| ());
    bench.log_in(&ada, &[]);
    assert_eq!(bench.ask(ada.device, Request::Claim), Answer::Hosting(halves.0, halves.1));
    let visitor = bench.visitor(2);
    assert_eq!(code(&bench.ask(visitor.device, Request::Claim)), Some(Code::LogInFirst));
}

#[test]
fn a_challenge_serves_one_registration_at_its_device_in_time() {
    let mut bench = Bench::new(|_| ());
    let home = bench.home.id();
    let [ada, bob, carol] = [1, 2, 3].map(Person::new);
    let body = Registration { invitation: None };
    let sign = |bench: &Bench, person: &Person, order| bench.sign(person, home, order, &body);
    let refused = |bench: &mut Bench, device: PeerId, envelope: &Envelope, why: &str| {
        let answer = bench.ask(device, Request::Register(envelope.clone()));
        assert_eq!(code(&answer), Some(Code::Envelope), "{why}");
    };
    let order = bench.challenge(ada.device);
    let registration = sign(&bench, &ada, order);
    refused(&mut bench, bob.device, &registration, "the challenge of another device");
    let answer = bench.ask(ada.device, Request::Register(registration.clone()));
    check_proof(&bench, &ada, &answer);
    refused(&mut bench, ada.device, &registration, "replayed");
    let again = sign(&bench, &bob, order);
    refused(&mut bench, ada.device, &again, "used by another persona");
    for nonce in [Order::Nonce([0; 32]), Order::Sequence(1)] {
        bench.challenge(bob.device);
        let registration = sign(&bench, &bob, nonce);
        refused(&mut bench, bob.device, &registration, "no challenge of the home's");
    }
    let order = bench.challenge(bob.device);
    bench.challenge(bob.device);
    let registration = sign(&bench, &bob, order);
    refused(&mut bench, bob.device, &registration, "a newer challenge was asked for");
    let order = bench.challenge(bob.device);
    let registration = sign(&bench, &bob, order);
    bench.home.gone(bob.device);
    refused(&mut bench, bob.device, &registration, "its connection has gone");
    let order = bench.challenge(bob.device);
    bench.wait(CHALLENGE_TIME);
    let registration = sign(&bench, &bob, order);
    refused(&mut bench, bob.device, &registration, "too late");
    let order = bench.challenge(carol.device);
    bench.wait(CHALLENGE_TIME - 1);
    let registration = sign(&bench, &carol, order);
    let answer = bench.ask(carol.device, Request::Register(registration));
    check_proof(&bench, &carol, &answer);
}

#[test]
fn a_registration_or_departure_for_another_home_is_refused() {
    let mut bench = Bench::new(|_| ());
    let other = Key::from_secret(&[201; 32]).id();
    let ada = bench.resident(1);
    let bob = Person::new(2);
    let order = bench.challenge(bob.device);
    let registration = bench.sign(&bob, other, order, &Registration { invitation: None });
    assert_eq!(code(&bench.ask(bob.device, Request::Register(registration))), Some(Code::Envelope));
    let order = bench.challenge(ada.device);
    let departure = bench.sign(&ada, other, order, &Departure { to: None });
    assert_eq!(code(&bench.ask(ada.device, Request::Unregister(departure, None))), Some(Code::Envelope));
    // Bob's signature does not unregister anyone else.
    assert_eq!(code(&leave(&mut bench, &bob)), Some(Code::NotForYou));
    assert!(matches!(bench.ask(ada.device, Request::Claim), Answer::Hosting(..)));
}

#[test]
fn a_closed_home_takes_nobody_new_and_keeps_who_is_there() {
    let mut bench = Bench::new(|_| ());
    let ada = bench.resident(1);
    let mut bench = bench.restart(|settings| settings.hosting = Hosting::Closed);
    assert_eq!(code(&bench.register(&Person::new(2))), Some(Code::Closed));
    assert_eq!(code(&register_with(&mut bench, &Person::new(2), Some([1; 16]))), Some(Code::Closed));
    assert!(matches!(bench.register(&ada), Answer::Hosting(..)));
    assert_eq!(bench.log_in(&ada, &[]), Answer::Session(true));
    let Answer::About(about) = bench.ask(PeerId::random(), Request::About) else { panic!("no answer") };
    assert_eq!(
        (about.hosting, about.network.as_str(), about.time),
        (Hosting::Closed, NETWORK, bench.now.wall)
    );
}

#[test]
fn an_invitation_lets_one_in_once_and_in_time() {
    let owner = Person::new(100);
    let mut bench = Bench::new(|settings| {
        (settings.hosting, settings.owner) = (Hosting::Invited, Some(owner.id()));
    });
    assert_eq!(bench.log_in(&owner, &[]), Answer::Session(false));
    let invite = |bench: &mut Bench| match bench.ask(owner.device, Request::Invite(60)) {
        Answer::Invitation(code) => *code,
        other => panic!("{other:?}"),
    };
    let [ada, bob, carol, dave] = [1, 2, 3, 4].map(Person::new);
    let (first, second, third) = (invite(&mut bench), invite(&mut bench), invite(&mut bench));
    for wrong in [None, Some([0; 16])] {
        assert_eq!(code(&register_with(&mut bench, &ada, wrong)), Some(Code::Closed));
    }
    assert_eq!(code(&register_with(&mut bench, &ada, Some(first))), None);
    assert_eq!(code(&register_with(&mut bench, &bob, Some(first))), Some(Code::Closed), "used");
    assert_eq!(code(&register_with(&mut bench, &ada, Some(second))), None, "she is hosted already");
    let mut bench = bench.restart(|settings| settings.hosting = Hosting::Invited);
    bench.wait(60);
    assert_eq!(code(&register_with(&mut bench, &bob, Some(second))), None, "it was not spent by her");
    bench.wait(1);
    assert_eq!(code(&register_with(&mut bench, &carol, Some(third))), Some(Code::Closed), "expired");
    assert_eq!(code(&bench.register(&dave)), Some(Code::Closed));
}

#[test]
fn an_invitation_is_not_spent_by_a_home_that_is_full() {
    let owner = Person::new(100);
    let mut bench = Bench::new(|settings| {
        (settings.hosting, settings.owner, settings.max_hosted) = (Hosting::Invited, Some(owner.id()), 1);
    });
    bench.log_in(&owner, &[]);
    let [first, second] = [0, 1].map(|_| match bench.ask(owner.device, Request::Invite(60)) {
        Answer::Invitation(code) => *code,
        other => panic!("{other:?}"),
    });
    let (ada, bob) = (Person::new(1), Person::new(2));
    assert_eq!(code(&register_with(&mut bench, &ada, Some(first))), None);
    assert_eq!(code(&register_with(&mut bench, &bob, Some(second))), Some(Code::Full));
    assert_eq!(leave(&mut bench, &ada), Answer::Done);
    assert_eq!(code(&register_with(&mut bench, &bob, Some(second))), None);
}

#[test]
fn a_home_hosts_so_many_and_not_one_more() {
    let mut bench = Bench::new(|settings| settings.max_hosted = 2);
    let [ada, bob, carol] = [1, 2, 3].map(Person::new);
    for person in [&ada, &bob] {
        assert_eq!(code(&bench.register(person)), None);
    }
    assert_eq!(code(&bench.register(&carol)), Some(Code::Full));
    assert_eq!(code(&bench.register(&ada)), None, "she is hosted already");
    let mut bench = bench.restart(|settings| settings.max_hosted = 2);
    assert_eq!(code(&bench.register(&carol)), Some(Code::Full), "after a restart");
    assert_eq!(leave(&mut bench, &ada), Answer::Done);
    assert_eq!(code(&bench.register(&carol)), None);
    assert_eq!(code(&bench.register(&ada)), Some(Code::Full));
}

#[test]
fn no_owner_sets_a_home_above_the_limit() {
    let mut bench = Bench::new(|settings| settings.max_hosted = usize::MAX);
    bench.home.hosted = MAX_HOSTED - 1;
    assert_eq!(code(&bench.register(&Person::new(1))), None);
    assert_eq!(code(&bench.register(&Person::new(2))), Some(Code::Full));
}

#[test]
fn who_leaves_takes_everything_and_may_come_back() {
    let mut bench = Bench::new(|_| ());
    let (ada, bob) = (bench.resident(1), bench.resident(2));
    let first = bench.ask(ada.device, Request::Claim);
    for person in [&ada, &bob] {
        bench.upload(person, b"a blob");
    }
    bench.relation(&ada, &bob, 1);
    let message = bench.message(&bob, ada.id(), 2, 100);
    assert_eq!(bench.ask(bob.device, Request::Put(message)), Answer::Done);
    let second_device = Person { key: Key::from_secret(&[1; 32]), device: PeerId::random() };
    bench.log_in(&second_device, &[]);
    bench.events.clear();
    assert_eq!(leave(&mut bench, &ada), Answer::Done);
    let gone = Event::Presence(Presence { persona: ada.id(), applications: None });
    assert_eq!(bench.events_of(bob.device).last(), Some(&gone), "related people see her go");
    assert_eq!(bench.events_of(second_device.device), [Event::Ended]);
    assert_eq!(bench.events_of(ada.device), [], "the device that asked knows it by its answer");
    for device in [ada.device, second_device.device] {
        assert_eq!(code(&bench.ask(device, Request::Blobs)), Some(Code::LogInFirst));
    }
    let rows = |bench: &Bench, person: &Person| {
        let of = |column| bench.home.store.rows(column, person.id().digest(), b"").count();
        super::OWNED.map(of).iter().sum::<usize>()
    };
    assert_eq!(
        (rows(&bench, &ada), rows(&bench, &bob)),
        (0, 3),
        "a relation, a blob and its chunk are Bob's"
    );
    bench.check_counts();
    assert_eq!(code(&leave(&mut bench, &ada)), Some(Code::NotForYou), "twice");
    assert_eq!(bench.log_in(&ada, &[]), Answer::Session(false), "a visitor now");
    bench.wait(1);
    let again = bench.register(&ada);
    check_proof(&bench, &ada, &again);
    assert_ne!(again, first);
    let unknown = bench.ask(bob.device, Request::GetProfile(Person::new(77).id()));
    assert_eq!(bench.ask(bob.device, Request::GetProfile(ada.id())), unknown, "no redirect any more");
    bench.log_in(&ada, &[]);
    assert_eq!(bench.ask(ada.device, Request::Blobs), Answer::Blobs(Vec::new()));
}

#[test]
fn a_redirect_that_is_over_does_not_keep_one_from_coming_back() {
    let mut bench = Bench::new(|settings| settings.max_hosted = 1);
    let ada = bench.resident(1);
    leave(&mut bench, &ada);
    bench.wait(REDIRECT_TIME + 1);
    assert_eq!(code(&bench.register(&ada)), None);
    assert_eq!(bench.home.store.rows(Column::Hosted, b"", b"").count(), 1);
    assert_eq!(bench.home.figures()[0], ("hosted", 1));
}

#[test]
fn who_leaves_may_ask_that_no_newer_mail_is_lost() {
    let mut bench = Bench::new(|_| ());
    let (ada, bob) = (bench.resident(1), bench.resident(2));
    bench.relation(&ada, &bob, 1);
    let leave = |bench: &mut Bench, upto| {
        let order = bench.challenge(ada.device);
        let departure = bench.sign(&ada, bench.home.id(), order, &Departure { to: None });
        bench.ask(ada.device, Request::Unregister(departure, upto))
    };
    let fetch = |bench: &mut Bench| match bench.ask(ada.device, Request::Fetch(0)) {
        Answer::Mail(mail, false) => mail.last().map_or(0, |item| item.number),
        other => panic!("{other:?}"),
    };
    for number in 1..3 {
        let message = bench.message(&bob, ada.id(), number, 100);
        assert_eq!(bench.ask(bob.device, Request::Put(message)), Answer::Done);
    }
    let last = fetch(&mut bench);
    for upto in [0, last - 1] {
        assert_eq!(code(&leave(&mut bench, Some(upto))), Some(Code::Superseded));
    }
    // It arrived after the fetch.
    let message = bench.message(&bob, ada.id(), 3, 100);
    assert_eq!(bench.ask(bob.device, Request::Put(message)), Answer::Done);
    assert_eq!(code(&leave(&mut bench, Some(last))), Some(Code::Superseded));
    let last = fetch(&mut bench);
    assert_eq!(bench.ask(ada.device, Request::Acknowledge(last)), Answer::Done);
    assert_eq!(leave(&mut bench, Some(0)), Answer::Done, "what was acknowledged does not wait");
}

#[test]
fn nobody_leaves_a_home_for_that_home() {
    let mut bench = Bench::new(|_| ());
    let ada = bench.resident(1);
    let to = Some(body::HomeAddress { home: bench.home.id(), addresses: Vec::new() });
    let order = bench.challenge(ada.device);
    let departure = bench.sign(&ada, bench.home.id(), order, &Departure { to });
    let answer = bench.ask(ada.device, Request::Unregister(departure, None));
    assert_eq!(code(&answer), Some(Code::Malformed));
    assert!(matches!(bench.ask(ada.device, Request::Claim), Answer::Hosting(..)), "it stays hosted");
}
