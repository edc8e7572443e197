#![allow(clippy::unwrap_used)]

use crate::body::{HomeAddress, RelationAcceptance, RelationRequest, RelationRevocation};
use crate::envelope::{Body, Envelope, Order};
use crate::home::testing::{Bench, NETWORK, Person, nonce};
use crate::id::Id;
use crate::limits::{DAY, MAX_FETCH, MAX_RELATIONS, MAX_REQUESTS, MAX_REVOKED};
use crate::store::Hosted;
use crate::wire::{Answer, Code, Event, Presence, Refusal, Relation, Request};

mod aged;
mod early;
mod limits;
mod model;

fn code(answer: &Answer) -> Option<Code> {
    match answer {
        Answer::Refused(refusal) => Some(refusal.code),
        _ => None,
    }
}

fn relations(bench: &mut Bench, owner: &Person) -> Vec<Relation> {
    match bench.ask(owner.device, Request::Relations(None)) {
        Answer::Relations(relations, false) => relations,
        other => panic!("{other:?}"),
    }
}

/// The state of a relation as its owner sees it: accepted, revoked.
fn state(bench: &mut Bench, owner: &Person, other: &Person) -> Option<(bool, bool)> {
    let relations = relations(bench, owner);
    let one = relations.iter().find(|relation| relation.other == other.id())?;
    let holds = bench.home.related(owner.id(), other.id()).unwrap();
    assert_eq!(holds, one.acceptance.is_some() && one.revocation.is_none());
    Some((one.acceptance.is_some(), one.revocation.is_some()))
}

const ASKED: Option<(bool, bool)> = Some((false, false));
const HELD: Option<(bool, bool)> = Some((true, false));
const WITHDRAWN: Option<(bool, bool)> = Some((false, true));
const REVOKED: Option<(bool, bool)> = Some((true, true));

fn boxed(bench: &mut Bench, owner: &Person) -> Vec<Envelope> {
    match bench.ask(owner.device, Request::Requests) {
        Answer::Requests(requests) => requests,
        other => panic!("{other:?}"),
    }
}

fn mail(bench: &mut Bench, owner: &Person) -> Vec<Envelope> {
    match bench.ask(owner.device, Request::Fetch(0)) {
        Answer::Mail(mail, false) => mail.into_iter().map(|item| item.envelope).collect(),
        other => panic!("{other:?}"),
    }
}

fn hosted(bench: &Bench, owner: &Person) -> Hosted {
    bench.home.hosted_record(owner.id()).unwrap().unwrap()
}

#[test]
fn one_asks_the_other_agrees_and_both_hold_the_proof() {
    let mut bench = Bench::new(|_| {});
    let (alice, bob) = (bench.resident(1), bench.resident(2));
    let request = bench.request(&alice, bob.id(), 1);
    for _ in 0..2 {
        assert_eq!(bench.ask(alice.device, Request::Relate(request.clone())), Answer::Done);
    }
    assert_eq!(bench.events_of(bob.device), [Event::Request(alice.id())], "once");
    assert_eq!(boxed(&mut bench, &bob), std::slice::from_ref(&request));
    assert_eq!((state(&mut bench, &alice, &bob), state(&mut bench, &bob, &alice)), (ASKED, None));
    let acceptance = bench.acceptance(&bob, &request);
    let proof = Request::Related(request.clone(), acceptance.clone());
    for _ in 0..2 {
        assert_eq!(bench.ask(bob.device, proof.clone()), Answer::Done);
        assert_eq!((state(&mut bench, &alice, &bob), state(&mut bench, &bob, &alice)), (HELD, HELD));
    }
    assert_eq!(boxed(&mut bench, &bob), []);
    let there = Event::Presence(Presence { persona: bob.id(), applications: Some(Vec::new()) });
    assert_eq!(bench.events_of(alice.device), [Event::Mail(1), there]);
    assert_eq!((mail(&mut bench, &alice), mail(&mut bench, &bob)), (vec![acceptance.clone()], vec![]));
    // A relation that holds is not asked for again.
    assert_eq!(bench.ask(alice.device, Request::Relate(request.clone())), Answer::Done);
    assert_eq!(boxed(&mut bench, &bob), []);
    let mut bench = bench.restart(|_| {});
    bench.log_in(&alice, &[]);
    let expected = Relation { other: bob.id(), request, acceptance: Some(acceptance), revocation: None };
    assert_eq!(relations(&mut bench, &alice), [expected]);
    bench.check_counts();
}

#[test]
fn people_at_two_homes_relate_by_what_is_carried_between_them() {
    let (mut here, mut there) = (Bench::new(|_| {}), Bench::new(|_| {}));
    let (alice, bob) = (here.resident(1), there.resident(2));
    let request = here.request(&alice, bob.id(), 1);
    for bench in [&mut here, &mut there] {
        assert_eq!(bench.ask(alice.device, Request::Relate(request.clone())), Answer::Done);
    }
    assert_eq!((state(&mut here, &alice, &bob), boxed(&mut there, &bob).len()), (ASKED, 1));
    let acceptance = there.acceptance(&bob, &request);
    for bench in [&mut there, &mut here] {
        let proof = Request::Related(request.clone(), acceptance.clone());
        assert_eq!(bench.ask(bob.device, proof), Answer::Done);
        bench.check_counts();
    }
    assert_eq!((state(&mut here, &alice, &bob), state(&mut there, &bob, &alice)), (HELD, HELD));
    assert_eq!(mail(&mut here, &alice), [acceptance]);
    assert_eq!(boxed(&mut there, &bob), []);
    // Either one can revoke it, at both homes; the other is told once.
    here.wait(1);
    let revocation = here.revocation(&alice, &bob, &request);
    for _ in 0..2 {
        for bench in [&mut here, &mut there] {
            assert_eq!(bench.ask(alice.device, Request::Revoke(revocation.clone())), Answer::Done);
            bench.check_counts();
        }
    }
    assert_eq!((state(&mut here, &alice, &bob), state(&mut there, &bob, &alice)), (REVOKED, REVOKED));
    assert_eq!(mail(&mut there, &bob), [revocation]);
    assert_eq!(mail(&mut here, &alice).len(), 1, "her own is no news to her");
}

#[test]
fn requests_that_cross_end_in_one_relation_whatever_comes_first() {
    let mut ends = Vec::new();
    for first in [0, 1] {
        let mut bench = Bench::new(|_| {});
        let (alice, bob) = (bench.resident(1), bench.resident(2));
        let requests = [bench.request(&alice, bob.id(), 1), bench.request(&bob, alice.id(), 2)];
        bench.ask(alice.device, Request::Relate(requests[0].clone()));
        bench.ask(bob.device, Request::Relate(requests[1].clone()));
        assert_eq!((state(&mut bench, &alice, &bob), state(&mut bench, &bob, &alice)), (ASKED, ASKED));
        assert_eq!((boxed(&mut bench, &alice).len(), boxed(&mut bench, &bob).len()), (1, 1));
        let acceptances = [bench.acceptance(&bob, &requests[0]), bench.acceptance(&alice, &requests[1])];
        let accepters = [&bob, &alice];
        for which in [first, 1 - first] {
            let proof = Request::Related(requests[which].clone(), acceptances[which].clone());
            assert_eq!(bench.ask(accepters[which].device, proof), Answer::Done);
            assert_eq!((state(&mut bench, &alice, &bob), state(&mut bench, &bob, &alice)), (HELD, HELD));
            bench.check_counts();
        }
        assert_eq!((boxed(&mut bench, &alice), boxed(&mut bench, &bob)), (vec![], vec![]));
        // Both have the same request, and the other's revocation ends it too.
        let (of_alice, of_bob) = (relations(&mut bench, &alice), relations(&mut bench, &bob));
        assert_eq!(of_alice[0].request, of_bob[0].request);
        ends.push(of_alice[0].request.clone());
        let other = requests.iter().find(|request| **request != of_alice[0].request).unwrap();
        let revocation = bench.revocation(&bob, &alice, other);
        assert_eq!(bench.ask(bob.device, Request::Revoke(revocation)), Answer::Done);
        assert_eq!((state(&mut bench, &alice, &bob), state(&mut bench, &bob, &alice)), (REVOKED, REVOKED));
        bench.check_counts();
    }
    assert_eq!(ends[0], ends[1]);
}

#[test]
fn what_was_taken_back_never_holds_again_and_something_newer_does() {
    for revoker in 0..2 {
        let mut bench = Bench::new(|_| {});
        let two = [bench.resident(1), bench.resident(2)];
        let (alice, bob) = (&two[0], &two[1]);
        // Two requests at the same time: one is accepted now, the other not yet.
        let other = bench.request(alice, bob.id(), 2);
        let (request, acceptance) = bench.relation(alice, bob, 1);
        let proof = Request::Related(request.clone(), acceptance);
        let revocation = bench.revocation(&two[revoker], &two[1 - revoker], &request);
        assert_eq!(bench.ask(two[revoker].device, Request::Revoke(revocation.clone())), Answer::Done);
        assert_eq!(mail(&mut bench, &two[1 - revoker]), std::slice::from_ref(&revocation));
        let mut bench = bench.restart(|_| {});
        for person in &two {
            bench.log_in(person, &[]);
        }
        let accepted_late = Request::Related(other.clone(), bench.acceptance(bob, &other));
        for old in [proof.clone(), accepted_late, Request::Relate(other.clone())] {
            assert_eq!(code(&bench.ask(alice.device, old)), Some(Code::Superseded));
        }
        assert_eq!(boxed(&mut bench, bob), []);
        // Anyone may send it, and is not told the outcome.
        assert_eq!(bench.ask(Person::new(9).device, proof.clone()), Answer::Done);
        assert_eq!(bench.ask(Person::new(9).device, Request::Relate(other)), Answer::Done);
        assert_eq!((state(&mut bench, alice, bob), state(&mut bench, bob, alice)), (REVOKED, REVOKED));
        assert_eq!(boxed(&mut bench, bob), []);
        bench.check_counts();
        // A request of the same second is not newer.
        let same = bench.request(alice, bob.id(), 3);
        assert_eq!(code(&bench.ask(alice.device, Request::Relate(same))), Some(Code::Superseded));
        bench.wait(1);
        let newer = bench.request(alice, bob.id(), 3);
        assert_eq!(bench.ask(alice.device, Request::Relate(newer.clone())), Answer::Done);
        assert_eq!((state(&mut bench, alice, bob), boxed(&mut bench, bob).len()), (ASKED, 1));
        let acceptance = bench.acceptance(bob, &newer);
        assert_eq!(bench.ask(bob.device, Request::Related(newer.clone(), acceptance)), Answer::Done);
        assert_eq!((state(&mut bench, alice, bob), state(&mut bench, bob, alice)), (HELD, HELD));
        // The old revocation no longer applies, and neither does the old proof.
        assert_eq!(bench.ask(bob.device, Request::Revoke(revocation)), Answer::Done);
        assert_eq!(code(&bench.ask(bob.device, proof)), Some(Code::Superseded));
        assert_eq!((state(&mut bench, alice, bob), state(&mut bench, bob, alice)), (HELD, HELD));
        assert_eq!(relations(&mut bench, alice)[0].request, newer);
        bench.check_counts();
    }
}

#[test]
fn a_request_is_withdrawn_or_declined_by_a_revocation() {
    let mut bench = Bench::new(|_| {});
    let (alice, bob) = (bench.resident(1), bench.resident(2));
    let request = bench.request(&alice, bob.id(), 1);
    bench.ask(alice.device, Request::Relate(request.clone()));
    let withdrawal = bench.revocation(&alice, &bob, &request);
    assert_eq!(bench.ask(alice.device, Request::Revoke(withdrawal)), Answer::Done);
    assert_eq!((state(&mut bench, &alice, &bob), state(&mut bench, &bob, &alice)), (WITHDRAWN, None));
    assert_eq!((boxed(&mut bench, &bob), mail(&mut bench, &bob)), (vec![], vec![]));
    let acceptance = bench.acceptance(&bob, &request);
    let late = bench.ask(bob.device, Request::Related(request, acceptance));
    assert_eq!(code(&late), Some(Code::Superseded));
    assert_eq!(state(&mut bench, &bob, &alice), None, "nor at his side");

    bench.wait(1);
    let again = bench.request(&alice, bob.id(), 2);
    bench.ask(alice.device, Request::Relate(again.clone()));
    let refusal = bench.revocation(&bob, &alice, &again);
    assert_eq!(bench.ask(bob.device, Request::Revoke(refusal.clone())), Answer::Done);
    assert_eq!((state(&mut bench, &alice, &bob), boxed(&mut bench, &bob)), (WITHDRAWN, vec![]));
    assert_eq!(mail(&mut bench, &alice), [refusal]);
    bench.check_counts();
}

#[test]
fn a_request_is_thrown_away_without_a_word() {
    let mut bench = Bench::new(|_| {});
    let (alice, bob) = (bench.resident(1), bench.resident(2));
    let request = bench.request(&alice, bob.id(), 1);
    bench.ask(alice.device, Request::Relate(request));
    for _ in 0..2 {
        assert_eq!(bench.ask(bob.device, Request::Dismiss(alice.id())), Answer::Done);
    }
    assert_eq!((boxed(&mut bench, &bob), state(&mut bench, &alice, &bob)), (vec![], ASKED));
    assert_eq!(mail(&mut bench, &alice), []);
}

#[test]
fn acceptances_and_revocations_have_to_fit_their_request() {
    let mut bench = Bench::new(|_| {});
    let (alice, bob, carol) = (bench.resident(1), bench.resident(2), bench.resident(3));
    let request = bench.request(&alice, bob.id(), 1);
    let hash = bench.opened::<RelationRequest>(&request).hash();
    let accept = |bench: &Bench, by: &Person, about: Id, order, request: [u8; 32]| {
        bench.sign(by, about, order, &RelationAcceptance { request: request.into() })
    };
    let wrong = [
        ("of herself", accept(&bench, &alice, alice.id(), nonce(1), hash)),
        ("of a third person", accept(&bench, &carol, alice.id(), nonce(1), hash)),
        ("about a third person", accept(&bench, &bob, carol.id(), nonce(1), hash)),
        ("about himself", accept(&bench, &bob, bob.id(), nonce(1), hash)),
        ("another nonce", accept(&bench, &bob, alice.id(), nonce(2), hash)),
        ("a sequence", accept(&bench, &bob, alice.id(), Order::Sequence(1), hash)),
        ("another request", accept(&bench, &bob, alice.id(), nonce(1), [7; 32])),
        ("a request", request.clone()),
    ];
    for (what, acceptance) in wrong {
        let answer = bench.ask(bob.device, Request::Related(request.clone(), acceptance));
        assert_eq!(code(&answer), Some(Code::Envelope), "{what}");
    }
    let sequence = Order::Sequence(1);
    let body = bench.opened::<RelationRequest>(&request).body().clone();
    let request_by_sequence = bench.sign(&alice, bob.id(), sequence, &body);
    let to_herself = bench.request(&alice, alice.id(), 1);
    for (request, expected) in [(request_by_sequence, Code::Envelope), (to_herself, Code::Malformed)] {
        assert_eq!(code(&bench.ask(alice.device, Request::Relate(request.clone()))), Some(expected));
        let acceptance = bench.acceptance(&bob, &request);
        assert!(code(&bench.ask(alice.device, Request::Related(request, acceptance))).is_some());
    }
    assert_eq!((state(&mut bench, &alice, &bob), state(&mut bench, &bob, &alice)), (None, None));

    bench.relation(&alice, &bob, 1);
    bench.wait(1);
    let revoke = |bench: &Bench, by: &Person, about: Id, order, request: [u8; 32]| {
        bench.sign(by, about, order, &RelationRevocation { request: request.into() })
    };
    let wrong = [
        ("another nonce", revoke(&bench, &alice, bob.id(), nonce(2), hash), Some(Code::Envelope)),
        ("a sequence", revoke(&bench, &alice, bob.id(), sequence, hash), Some(Code::Envelope)),
        ("of a third person", revoke(&bench, &carol, bob.id(), nonce(1), hash), None),
        ("about a third person", revoke(&bench, &bob, carol.id(), nonce(1), hash), None),
        ("of her with herself", revoke(&bench, &alice, alice.id(), nonce(1), hash), Some(Code::Malformed)),
    ];
    for (what, revocation, expected) in wrong {
        assert_eq!(code(&bench.ask(alice.device, Request::Revoke(revocation))), expected, "{what}");
        assert_eq!(
            (state(&mut bench, &alice, &bob), state(&mut bench, &bob, &alice)),
            (HELD, HELD),
            "{what}"
        );
    }
    assert_eq!((mail(&mut bench, &bob), state(&mut bench, &carol, &bob)), (vec![], None));
    // It names an unknown request: everything asked for before it is revoked.
    let other = revoke(&bench, &bob, alice.id(), nonce(5), [5; 32]);
    assert_eq!(bench.ask(bob.device, Request::Revoke(other)), Answer::Done);
    assert_eq!((state(&mut bench, &alice, &bob), state(&mut bench, &bob, &alice)), (REVOKED, REVOKED));
    bench.check_counts();
}

#[test]
fn a_slow_clock_does_not_keep_a_revocation_from_what_it_names() {
    let mut bench = Bench::new(|_| {});
    let (alice, bob) = (bench.resident(1), bench.resident(2));
    bench.wait(100);
    let (request, acceptance) = bench.relation(&alice, &bob, 1);
    let times = (bench.now.wall - 60, bench.now.wall + DAY);
    let sign = |hash: [u8; 32], number| {
        let body = RelationRevocation { request: hash.into() };
        Envelope::sign(&bob.key, NETWORK, alice.id(), nonce(number), times, &body)
    };
    let earlier = sign([5; 32], 5);
    let named = sign(bench.opened::<RelationRequest>(&request).hash(), 1);
    assert_eq!(bench.ask(bob.device, Request::Revoke(earlier)), Answer::Done);
    assert_eq!(state(&mut bench, &alice, &bob), HELD, "one of an earlier request");
    assert_eq!(bench.ask(bob.device, Request::Revoke(named)), Answer::Done);
    assert_eq!((state(&mut bench, &alice, &bob), state(&mut bench, &bob, &alice)), (REVOKED, REVOKED));
    let again = bench.ask(bob.device, Request::Related(request, acceptance));
    assert_eq!(code(&again), Some(Code::Superseded));
    bench.check_counts();
}

#[test]
fn a_revoked_person_cannot_fill_the_others_mail_with_revocations() {
    let mut bench = Bench::new(|_| {});
    let (alice, bob) = (bench.resident(1), bench.resident(2));
    let (request, _) = bench.relation(&alice, &bob, 1);
    for _ in 0..5 {
        bench.wait(1);
        let revocation = bench.revocation(&bob, &alice, &request);
        assert_eq!(bench.ask(bob.device, Request::Revoke(revocation)), Answer::Done);
    }
    assert_eq!(mail(&mut bench, &alice).len(), 1);
    bench.check_counts();
}

#[test]
fn only_her_own_device_makes_a_request_expected_and_only_then_the_answer_is_mail() {
    let mut bench = Bench::new(|_| {});
    let (alice, bob) = (bench.resident(1), bench.resident(2));
    let request = bench.request(&alice, bob.id(), 1);
    for device in [Person::new(9).device, bob.device] {
        assert_eq!(bench.ask(device, Request::Relate(request.clone())), Answer::Done);
    }
    assert_eq!((state(&mut bench, &alice, &bob), boxed(&mut bench, &bob).len()), (None, 1));
    let acceptance = bench.acceptance(&bob, &request);
    bench.ask(bob.device, Request::Related(request, acceptance));
    assert_eq!((state(&mut bench, &alice, &bob), mail(&mut bench, &alice)), (HELD, vec![]));
    bench.check_counts();
}

#[test]
fn strangers_get_the_same_answers_as_for_people_who_are_unknown_here() {
    let mut bench = Bench::new(|_| {});
    let (alice, bob, stranger) = (bench.resident(1), bench.resident(2), Person::new(9));
    let unknown = [Person::new(10), Person::new(11)];
    let (request, acceptance) = bench.relation(&alice, &bob, 1);
    let revocation = bench.revocation(&alice, &bob, &request);
    let elsewhere = bench.request(&unknown[0], unknown[1].id(), 1);
    let accepted_elsewhere = bench.acceptance(&unknown[1], &elsewhere);
    let revoked_elsewhere = bench.revocation(&unknown[0], &unknown[1], &elsewhere);
    for visitor in [false, true] {
        if visitor {
            assert_eq!(bench.log_in(&stranger, &[]), Answer::Session(false));
        }
        let to = [alice.id(), unknown[0].id()];
        let asked = to.map(|to| bench.request(&stranger, to, 1));
        let same = [
            asked.map(Request::Relate),
            [
                Request::Related(request.clone(), acceptance.clone()),
                Request::Related(elsewhere.clone(), accepted_elsewhere.clone()),
            ],
            [Request::Presence(vec![alice.id()]), Request::Presence(vec![unknown[0].id()])],
            [Request::Revoke(revocation.clone()), Request::Revoke(revoked_elsewhere.clone())],
            [
                Request::Related(request.clone(), acceptance.clone()),
                Request::Related(elsewhere.clone(), accepted_elsewhere.clone()),
            ],
        ];
        for [here, nowhere] in same {
            let answers = [here, nowhere].map(|request| bench.ask(stranger.device, request));
            assert_eq!(answers[0], answers[1]);
        }
        let own = [Request::Relations(None), Request::Requests, Request::Dismiss(alice.id())];
        for request in own {
            assert_eq!(code(&bench.ask(stranger.device, request)), Some(Code::LogInFirst));
        }
    }
    // One of the two may learn that the other is not here, or has no room.
    bench.log_in(&unknown[1], &[]);
    let answer = bench.ask(unknown[1].device, Request::Related(elsewhere, accepted_elsewhere));
    assert_eq!(answer, Answer::Refused(Refusal::not_for_you()));
    bench.check_counts();
}

#[test]
fn who_moves_brings_proofs_and_revocations_and_nobody_can_undo_those() {
    let (mut old, mut new) = (Bench::new(|_| {}), Bench::new(|_| {}));
    let (alice, bob, carol) = (old.resident(1), Person::new(2), Person::new(3));
    let (request, acceptance) = old.relation(&alice, &bob, 1);
    let ended = old.relation(&alice, &carol, 2);
    let revocation = old.revocation(&carol, &alice, &ended.0);
    old.ask(carol.device, Request::Revoke(revocation.clone()));
    let brought = relations(&mut old, &alice);

    let alice = new.resident(1);
    // The persona that was left is the first.
    new.ask(carol.device, Request::Related(ended.0.clone(), ended.1.clone()));
    for relation in brought {
        let Some(acceptance) = relation.acceptance else { continue };
        new.ask(alice.device, Request::Related(relation.request, acceptance));
        if let Some(revocation) = relation.revocation {
            new.ask(alice.device, Request::Revoke(revocation));
        }
    }
    new.ask(carol.device, Request::Related(ended.0, ended.1));
    assert_eq!((state(&mut new, &alice, &bob), state(&mut new, &alice, &carol)), (HELD, REVOKED));
    assert_eq!(mail(&mut new, &alice), [], "what she brings herself is no news to her");
    let bobs = relations(&mut new, &alice).into_iter().find(|one| one.other == bob.id()).unwrap();
    assert_eq!((bobs.request, bobs.acceptance), (request, Some(acceptance)));
    new.check_counts();
}

#[test]
fn relations_are_told_in_pages() {
    let mut bench = Bench::new(|_| {});
    let alice = bench.resident(1);
    for number in 0..MAX_FETCH as u32 + 1 {
        bench.relation(&Person::of_many(number), &alice, 1);
    }
    let answer = bench.ask(alice.device, Request::Relations(None));
    assert!(crate::cbor::to_vec(&answer).len() <= crate::wire::MAX_ANSWER);
    let Answer::Relations(page, true) = answer else { panic!("{answer:?}") };
    assert_eq!(page.len(), MAX_FETCH);
    assert!(page.is_sorted_by(|one, next| one.other < next.other));
    let last = page.last().unwrap().other;
    let Answer::Relations(rest, false) = bench.ask(alice.device, Request::Relations(Some(last))) else {
        panic!()
    };
    assert!(rest.len() == 1 && rest[0].other > last);
    // The longest possible ones.
    let mut others: Vec<_> = (0..200).map(Person::of_many).collect();
    let addresses = vec!["/".repeat(256); 8];
    let body = RelationRequest {
        label: "x".repeat(64),
        note: "n".repeat(512),
        home: HomeAddress { home: bench.home.id(), addresses },
    };
    bench.wait(1);
    for other in others.drain(..) {
        let request = bench.sign(&other, alice.id(), nonce(2), &body);
        let acceptance = bench.acceptance(&alice, &request);
        assert_eq!(bench.ask(alice.device, Request::Related(request, acceptance)), Answer::Done);
    }
    let answer = bench.ask(alice.device, Request::Relations(None));
    assert!(crate::cbor::to_vec(&answer).len() <= crate::wire::MAX_ANSWER);
    assert!(matches!(answer, Answer::Relations(page, true) if page.len() < 200));
    bench.check_counts();
}
