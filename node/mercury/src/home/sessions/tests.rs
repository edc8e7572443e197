#![allow(clippy::unwrap_used)]
use libp2p::PeerId;

use super::Session;
use crate::body::Login;
use crate::envelope::{Envelope, Order};
use crate::home::testing::{Bench, NETWORK, Person, code};
use crate::id::{Id, Key};
use crate::limits::{
    CHALLENGE_TIME, MAX_APPLICATIONS, MAX_ASKED, MAX_DEVICES, MAX_LABEL, MAX_SESSIONS, MAX_VISITORS,
};
use crate::wire::{Answer, Code, Event, Presence, Request};

fn login(bench: &Bench, person: &Person, home: Id, order: Order, device: PeerId) -> Envelope {
    bench.sign(person, home, order, &Login { device: device.to_bytes().into() })
}

fn show(bench: &mut Bench, device: PeerId, login: Envelope) -> Answer {
    bench.ask(device, Request::LogIn(login, Vec::new()))
}

/// The same persona at another device.
fn at(number: u8) -> Person {
    Person { key: Key::from_secret(&[number; 32]), device: PeerId::random() }
}

fn presence(bench: &mut Bench, device: PeerId, person: Id) -> Answer {
    bench.ask(device, Request::Presence(vec![person]))
}

fn there(persona: Id, applications: &[&str]) -> Presence {
    let applications = applications.iter().map(|name| (*name).to_owned()).collect();
    Presence { persona, applications: Some(applications) }
}

fn gone(persona: Id) -> Presence {
    Presence { persona, applications: None }
}

#[test]
fn a_log_in_is_for_one_home_one_device_and_one_challenge() {
    let mut bench = Bench::new(|_| ());
    let (ada, home) = (bench.resident(1), bench.home.id());
    bench.ask(ada.device, Request::LogOut);
    let other_home = Key::from_secret(&[201; 32]).id();
    let thief = PeerId::random();
    let refused = |bench: &mut Bench, device, login, why: &str| {
        assert_eq!(code(&show(bench, device, login)), Some(Code::Envelope), "{why}");
        assert_eq!(code(&bench.ask(device, Request::Claim)), Some(Code::LogInFirst), "{why}");
    };
    // A home that passes on this home's challenge gets a log-in that names itself.
    let order = bench.challenge(ada.device);
    let replayed = login(&bench, &ada, other_home, order, ada.device);
    refused(&mut bench, ada.device, replayed, "made for another home");
    let order = bench.challenge(thief);
    let stolen = login(&bench, &ada, home, order, ada.device);
    refused(&mut bench, thief, stolen, "made at another device");
    let order = bench.challenge(ada.device);
    let good = login(&bench, &ada, home, order, ada.device);
    bench.challenge(thief);
    refused(&mut bench, thief, good.clone(), "another device's challenge");
    assert_eq!(show(&mut bench, ada.device, good.clone()), Answer::Session(true));
    bench.ask(ada.device, Request::LogOut);
    refused(&mut bench, ada.device, good, "replayed");
    let order = bench.challenge(ada.device);
    bench.wait(CHALLENGE_TIME);
    let late = login(&bench, &ada, home, order, ada.device);
    refused(&mut bench, ada.device, late, "too late");
    for order in [Order::Nonce([0; 32]), Order::Sequence(0)] {
        bench.challenge(ada.device);
        let made_up = login(&bench, &ada, home, order, ada.device);
        refused(&mut bench, ada.device, made_up, "no challenge of the home's");
    }
}

#[test]
fn a_refused_log_in_leaves_the_session_that_is_there() {
    let mut bench = Bench::new(|_| ());
    let ada = bench.resident(1);
    let order = Order::Nonce([0; 32]);
    let wrong = login(&bench, &ada, bench.home.id(), order, ada.device);
    assert_eq!(code(&show(&mut bench, ada.device, wrong)), Some(Code::Envelope));
    assert!(matches!(bench.ask(ada.device, Request::Claim), Answer::Hosting(..)));
}

#[test]
fn the_oldest_of_too_many_devices_gives_way() {
    let mut bench = Bench::new(|_| ());
    let first = bench.resident(1);
    let others: Vec<_> = (1..MAX_DEVICES).map(|_| at(1)).collect();
    for device in &others {
        assert_eq!(bench.log_in(device, &[]), Answer::Session(true));
    }
    assert_eq!(bench.events_of(first.device), []);
    let last = at(1);
    assert_eq!(bench.log_in(&last, &[]), Answer::Session(true));
    assert_eq!(bench.events_of(first.device), [Event::Ended]);
    assert_eq!(code(&bench.ask(first.device, Request::Claim)), Some(Code::LogInFirst));
    for device in others.iter().chain([&last]) {
        assert!(matches!(bench.ask(device.device, Request::Claim), Answer::Hosting(..)));
        assert_eq!(bench.events_of(device.device), []);
    }
    assert_eq!(bench.home.sessions.devices(first.id()).len(), MAX_DEVICES);
}

#[test]
fn a_device_has_one_session_and_the_newer_one_replaces_it() {
    let mut bench = Bench::new(|_| ());
    let (ada, bob) = (bench.resident(1), bench.resident(2));
    for _ in 0..=MAX_DEVICES {
        assert_eq!(bench.log_in(&ada, &[]), Answer::Session(true));
    }
    assert_eq!(bench.home.sessions.devices(ada.id()), [ada.device]);
    // Another persona logs in at the same device: the first is offline.
    let bob_at_hers = Person { key: Key::from_secret(&[2; 32]), device: ada.device };
    assert_eq!(bench.log_in(&bob_at_hers, &[]), Answer::Session(true));
    assert_eq!(bench.home.sessions.devices(ada.id()), []);
    assert_eq!(bench.home.sessions.devices(bob.id()), [bob.device, ada.device]);
    assert_eq!(bench.events_of(ada.device), [], "it asked for it itself");
}

#[test]
fn only_devices_of_the_hosted_are_reached_through_the_relay() {
    let mut bench = Bench::new(|_| ());
    let (ada, bob, visitor) = (bench.resident(1), bench.resident(2), bench.visitor(3));
    let permits = bench.home.permits();
    assert!(permits.may_reserve(ada.device) && permits.may_reserve(bob.device));
    assert!(!permits.may_reserve(visitor.device) && !permits.may_reserve(PeerId::random()));
    assert_eq!(bench.ask(ada.device, Request::LogOut), Answer::Done);
    bench.home.gone(bob.device);
    assert!(!permits.may_reserve(ada.device) && !permits.may_reserve(bob.device));
}

#[test]
fn a_home_has_so_many_sessions_and_not_one_more() {
    let mut bench = Bench::new(|_| ());
    let (ada, bob) = (bench.resident(1), Person::new(2));
    while bench.home.sessions.count() < MAX_SESSIONS - 1 {
        let mut digest = [0; 32];
        digest[..8].copy_from_slice(&bench.home.sessions.count().to_be_bytes());
        let persona = Id::from_digest(digest);
        let session = Session { persona, hosted: true, applications: Vec::new() };
        bench.home.sessions.insert(PeerId::random(), session);
    }
    assert_eq!(bench.log_in(&at(1), &[]), Answer::Session(true), "the last");
    assert_eq!(code(&bench.log_in(&bob, &[])), Some(Code::Full));
    assert_eq!(bench.log_in(&ada, &[]), Answer::Session(true), "in place of the device's older one");
    bench.home.gone(ada.device);
    assert_eq!(bench.log_in(&bob, &[]), Answer::Session(false));
}

#[test]
fn so_many_applications_with_plain_names_and_not_one_more() {
    let mut bench = Bench::new(|_| ());
    let ada = bench.resident(1);
    let names = |count: usize| (0..count).map(|number| format!("app/{number}")).collect::<Vec<_>>();
    let announce = |bench: &mut Bench, names: Vec<String>| {
        let announced = bench.ask(ada.device, Request::Announce(names.clone()));
        let order = bench.challenge(ada.device);
        let login = login(bench, &ada, bench.home.id(), order, ada.device);
        let logged_in = bench.ask(ada.device, Request::LogIn(login, names));
        assert_eq!(code(&announced), code(&logged_in));
        code(&announced)
    };
    assert_eq!(announce(&mut bench, names(MAX_APPLICATIONS)), None);
    assert_eq!(announce(&mut bench, names(MAX_APPLICATIONS + 1)), Some(Code::Malformed));
    assert_eq!(announce(&mut bench, vec!["x".repeat(MAX_LABEL)]), None);
    let long = "x".repeat(MAX_LABEL + 1);
    for wrong in [&long, "", "two words", "line\n", "\u{e9}", "\0", "\u{202e}"] {
        assert_eq!(announce(&mut bench, vec![wrong.to_owned()]), Some(Code::Malformed), "{wrong:?}");
    }
    // Path characters are ordinary text: no path is made of it.
    assert_eq!(announce(&mut bench, vec!["../../etc/passwd".to_owned()]), None);
    let visitor = bench.visitor(2);
    for device in [visitor.device, PeerId::random()] {
        let answer = bench.ask(device, Request::Announce(names(1)));
        assert_eq!(code(&answer), Some(Code::LogInFirst));
    }
}

#[test]
fn presence_is_told_to_related_people_and_strangers_learn_nothing() {
    let mut bench = Bench::new(|_| ());
    let (ada, bob, eve) = (bench.resident(1), bench.resident(2), bench.resident(3));
    let (friend, stranger) = (bench.visitor(4), bench.visitor(5));
    bench.relation(&ada, &bob, 1);
    bench.relation(&friend, &ada, 2);
    bench.ask(ada.device, Request::Announce(vec!["chess".to_owned()]));
    for device in [bob.device, friend.device] {
        let answer = presence(&mut bench, device, ada.id());
        assert_eq!(answer, Answer::Presence(vec![there(ada.id(), &["chess"])], false));
    }
    let unknown = Person::new(77);
    for device in [eve.device, stranger.device, PeerId::random()] {
        let answer = presence(&mut bench, device, ada.id());
        assert_eq!(answer, presence(&mut bench, device, unknown.id()));
        assert_eq!(answer, presence(&mut bench, device, stranger.id()), "who is logged in as a visitor");
    }
    assert_eq!(code(&presence(&mut bench, PeerId::random(), ada.id())), Some(Code::LogInFirst));
    // When she is offline, her friends get the same answer as for an unknown persona.
    bench.home.gone(ada.device);
    let away = presence(&mut bench, bob.device, ada.id());
    assert_eq!(away, presence(&mut bench, bob.device, unknown.id()));
}

#[test]
fn related_people_see_one_come_go_and_take_calls() {
    let mut bench = Bench::new(|_| ());
    let (ada, bob, eve) = (bench.resident(1), bench.resident(2), bench.resident(3));
    let friend = bench.visitor(4);
    let proof = bench.relation(&ada, &bob, 1);
    bench.relation(&friend, &ada, 2);
    bench.events.clear();
    let second = at(1);
    let told = |bench: &mut Bench, expected: Option<Presence>| {
        for device in [bob.device, friend.device] {
            let expected: Vec<_> = expected.clone().map(Event::Presence).into_iter().collect();
            assert_eq!(bench.events_of(device), expected);
        }
        assert_eq!((bench.events_of(eve.device), bench.events_of(ada.device)), (vec![], vec![]));
    };
    bench.ask(ada.device, Request::Announce(vec!["chess".to_owned(), "go".to_owned()]));
    told(&mut bench, Some(there(ada.id(), &["chess", "go"])));
    bench.log_in(&second, &["chess", "talk"]);
    told(&mut bench, Some(there(ada.id(), &["chess", "go", "talk"])));
    bench.home.gone(ada.device);
    bench.collect();
    told(&mut bench, Some(there(ada.id(), &["chess", "talk"])));
    bench.ask(second.device, Request::LogOut);
    told(&mut bench, Some(gone(ada.id())));
    // After the revocation, presence is no longer told.
    let revocation = bench.revocation(&bob, &ada, &proof.0);
    assert_eq!(bench.ask(bob.device, Request::Revoke(revocation)), Answer::Done);
    bench.events.clear();
    bench.log_in(&ada, &[]);
    let seen = Event::Presence(there(ada.id(), &[]));
    assert_eq!((bench.events_of(bob.device), bench.events_of(friend.device)), (vec![], vec![seen]));
}

#[test]
fn so_many_personas_are_asked_for_at_once_and_not_one_more() {
    let mut bench = Bench::new(|_| ());
    let ada = bench.resident(1);
    let ask = |bench: &mut Bench, count| bench.ask(ada.device, Request::Presence(vec![ada.id(); count]));
    assert_eq!(ask(&mut bench, MAX_ASKED), Answer::Presence(Vec::new(), false));
    assert_eq!(code(&ask(&mut bench, MAX_ASKED + 1)), Some(Code::Malformed));
}

#[test]
fn one_who_is_asked_for_often_or_has_many_applications_is_told_once_and_briefly() {
    let mut bench = Bench::new(|_| ());
    let (ada, bob) = (bench.resident(1), bench.resident(2));
    bench.relation(&ada, &bob, 1);
    let names = |of: char| (0..MAX_APPLICATIONS).map(|n| format!("{of}{n:063}")).collect::<Vec<_>>();
    let laptop = at(1);
    bench.log_in(&laptop, &[]);
    bench.ask(ada.device, Request::Announce(names('a')));
    bench.ask(laptop.device, Request::Announce(names('b')));
    let answer = bench.ask(bob.device, Request::Presence(vec![ada.id(); MAX_ASKED]));
    let newest = Presence { persona: ada.id(), applications: Some(names('b')) };
    assert_eq!(answer, Answer::Presence(vec![newest], false));
}

#[test]
fn visitors_take_half_of_the_sessions_and_not_one_more() {
    let mut bench = Bench::new(|_| ());
    let ada = bench.resident(1);
    bench.home.gone(ada.device);
    for number in 0..MAX_VISITORS - 1 {
        let mut digest = [0; 32];
        digest[..8].copy_from_slice(&number.to_be_bytes());
        let session = Session { persona: Id::from_digest(digest), hosted: false, applications: Vec::new() };
        bench.home.sessions.insert(PeerId::random(), session);
    }
    let (bob, eve) = (Person::new(2), Person::new(3));
    assert_eq!(bench.log_in(&bob, &[]), Answer::Session(false), "the last");
    assert_eq!(code(&bench.log_in(&eve, &[])), Some(Code::Full));
    assert_eq!(bench.log_in(&ada, &[]), Answer::Session(true));
    bench.home.gone(bob.device);
    assert_eq!(bench.log_in(&eve, &[]), Answer::Session(false));
}

#[test]
fn an_answer_that_is_cut_says_so_and_those_behind_its_end_are_asked_for_again() {
    let mut bench = Bench::new(|_| ());
    let asker = bench.resident(1);
    let names = |of: usize| (0..of).map(|n| format!("{n:064}")).collect::<Vec<_>>();
    let mut all = Vec::new();
    for number in 0..MAX_ASKED as u32 {
        let person = Person::of_many(number);
        bench.register(&person);
        bench.log_in(&person, &[]);
        bench.relation(&asker, &person, 1);
        bench.ask(person.device, Request::Announce(names(MAX_APPLICATIONS)));
        all.push(person.id());
    }
    all.sort_unstable();
    let (mut asked, mut told, mut answers) = (all.clone(), Vec::new(), 0);
    loop {
        let answer = bench.ask(asker.device, Request::Presence(asked.clone()));
        assert!(crate::cbor::to_vec(&answer).len() <= crate::wire::MAX_ANSWER);
        let Answer::Presence(there, more) = answer else { panic!("{answer:?}") };
        answers += 1;
        told.extend(there.iter().map(|one| one.persona));
        if !more {
            break;
        }
        let last = told[told.len() - 1];
        asked.retain(|persona| *persona > last);
    }
    assert_eq!((told, answers), (all, 2));
}

#[test]
fn two_are_told_of_each_other_when_their_relation_begins_to_hold_and_when_it_ends() {
    let mut bench = Bench::new(|_| ());
    let (ada, bob, eve) = (bench.resident(1), bench.resident(2), bench.resident(3));
    let (friend, away) = (bench.visitor(4), Person::new(5));
    bench.register(&away);
    let of = |bench: &mut Bench, person: &Person| {
        let events = bench.events_of(person.device).into_iter();
        events.filter(|event| matches!(event, Event::Presence(_))).collect::<Vec<_>>()
    };
    let there = |person: &Person| vec![Event::Presence(there(person.id(), &[]))];
    let left = |person: &Person| vec![Event::Presence(gone(person.id()))];
    let request = bench.request(&ada, bob.id(), 1);
    bench.ask(ada.device, Request::Relate(request.clone()));
    assert_eq!((of(&mut bench, &ada), of(&mut bench, &bob)), (vec![], vec![]), "nothing of who only asks");
    let proof = Request::Related(request.clone(), bench.acceptance(&bob, &request));
    bench.ask(bob.device, proof.clone());
    assert_eq!((of(&mut bench, &ada), of(&mut bench, &bob)), (there(&bob), there(&ada)));
    bench.ask(bob.device, proof);
    assert_eq!((of(&mut bench, &ada), of(&mut bench, &bob)), (vec![], vec![]), "once");
    // A visitor is told; nothing is told of a persona that is offline or at another home.
    let visited = bench.relation(&friend, &ada, 2);
    assert_eq!((of(&mut bench, &friend), of(&mut bench, &ada)), (there(&ada), vec![]));
    let missed = bench.relation(&ada, &away, 3);
    assert_eq!(of(&mut bench, &ada), []);
    bench.wait(1);
    for (revoker, other, request) in
        [(&bob, &ada, &request), (&ada, &friend, &visited.0), (&ada, &away, &missed.0)]
    {
        let revocation = bench.revocation(revoker, other, request);
        for _ in 0..2 {
            bench.ask(revoker.device, Request::Revoke(revocation.clone()));
        }
    }
    assert_eq!(
        (of(&mut bench, &ada), of(&mut bench, &bob), of(&mut bench, &friend)),
        (left(&bob), left(&ada), left(&ada))
    );
    // It also ends when it expires.
    let body = bench.opened::<crate::body::RelationRequest>(&request).body().clone();
    let times = (bench.now.wall + 1, bench.now.wall + 10);
    bench.wait(1);
    let short = Envelope::sign(&ada.key, NETWORK, bob.id(), Order::Nonce([7; 32]), times, &body);
    let accepted = bench.acceptance(&bob, &short);
    bench.ask(bob.device, Request::Related(short, accepted));
    assert_eq!((of(&mut bench, &ada), of(&mut bench, &bob)), (there(&bob), there(&ada)));
    bench.sweep_after(3600);
    bench.collect();
    assert_eq!((of(&mut bench, &ada), of(&mut bench, &bob)), (left(&bob), left(&ada)));
    assert_eq!(of(&mut bench, &eve), []);
}
