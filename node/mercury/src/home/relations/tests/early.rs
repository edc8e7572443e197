//! Revocations that arrive before what they revoke.

use super::*;
use crate::store::{Column, Relation as Record};

/// A request, its acceptance, and its revocation a second later by one or the other.
struct Papers {
    request: Envelope,
    proof: Request,
    revocation: Envelope,
}

fn papers(bench: &mut Bench, from: &Person, to: &Person, revoker: &Person) -> Papers {
    let request = bench.request(from, to.id(), 1);
    let proof = Request::Related(request.clone(), bench.acceptance(to, &request));
    bench.wait(1);
    let other = if revoker.id() == from.id() { to } else { from };
    let revocation = bench.revocation(revoker, other, &request);
    Papers { request, proof, revocation }
}

/// The record about another persona, whether shown or not.
fn record(bench: &Bench, owner: &Person, other: &Person) -> Option<Record> {
    let key = crate::store::pair(owner.id().digest(), other.id().digest());
    bench.home.store.get(Column::Relations, &key).unwrap()
}

#[test]
fn a_request_that_was_withdrawn_or_declined_in_the_box_is_not_accepted_afterwards() {
    for declined in [false, true] {
        let mut bench = Bench::new(|_| {});
        let (alice, bob) = (bench.resident(1), Person::new(2));
        let papers = papers(&mut bench, &bob, &alice, if declined { &alice } else { &bob });
        let stranger = Person::new(9);
        bench.ask(bob.device, Request::Relate(papers.request.clone()));
        assert_eq!(boxed(&mut bench, &alice).len(), 1);
        let revoke = Request::Revoke(papers.revocation.clone());
        for _ in 0..2 {
            assert_eq!(bench.ask(stranger.device, revoke.clone()), Answer::Done);
            bench.check_counts();
        }
        assert_eq!((boxed(&mut bench, &alice), mail(&mut bench, &alice)), (vec![], vec![]));
        let mut bench = bench.restart(|_| {});
        bench.log_in(&alice, &[]);
        assert_eq!(code(&bench.ask(alice.device, papers.proof.clone())), Some(Code::Superseded));
        bench.ask(stranger.device, papers.proof);
        bench.ask(bob.device, Request::Relate(papers.request));
        assert_eq!((boxed(&mut bench, &alice), state(&mut bench, &alice, &bob)), (vec![], None));
        // A later request can hold.
        bench.wait(1);
        bench.relation(&bob, &alice, 2);
        assert_eq!(state(&mut bench, &alice, &bob), HELD);
        bench.check_counts();
    }
}

#[test]
fn a_revocation_that_a_person_signs_or_brings_at_home_counts_before_its_proof() {
    // Who signs it, and who sends it.
    for (revoker, bringer) in [(0, 0), (0, 1), (0, 2), (1, 0)] {
        for asker in [0, 1] {
            let mut bench = Bench::new(|_| {});
            let people = [bench.resident(1), Person::new(2), Person::new(3)];
            let papers = papers(&mut bench, &people[asker], &people[1 - asker], &people[revoker]);
            let revoke = Request::Revoke(papers.revocation);
            assert_eq!(bench.ask(people[bringer].device, revoke), Answer::Done);
            bench.check_counts();
            bench.ask(people[2].device, papers.proof.clone());
            let answer = bench.ask(people[0].device, papers.proof);
            assert_eq!(code(&answer), Some(Code::Superseded), "{revoker} {bringer} {asker}");
            assert_eq!(state(&mut bench, &people[0], &people[1]), None, "she has never had its request");
            assert_eq!(mail(&mut bench, &people[0]), []);
            bench.sweep_after(RelationRequest::LIFE + 7200);
            assert_eq!(record(&bench, &people[0], &people[1]), None, "for as long as it could hold");
            bench.check_counts();
        }
    }
}

#[test]
fn a_slow_clock_does_not_keep_a_revocation_from_what_comes_after_it() {
    for in_the_box in [false, true] {
        let mut bench = Bench::new(|_| {});
        let (alice, bob) = (bench.resident(1), Person::new(2));
        bench.wait(100);
        let request = bench.request(&bob, alice.id(), 1);
        let proof = Request::Related(request.clone(), bench.acceptance(&alice, &request));
        let body = RelationRevocation { request: bench.opened::<RelationRequest>(&request).hash().into() };
        let times = (bench.now.wall - 60, bench.now.wall + DAY);
        let revocation = Envelope::sign(&alice.key, NETWORK, bob.id(), nonce(1), times, &body);
        if in_the_box {
            bench.ask(bob.device, Request::Relate(request));
        }
        assert_eq!(bench.ask(alice.device, Request::Revoke(revocation)), Answer::Done);
        assert_eq!(code(&bench.ask(alice.device, proof)), Some(Code::Superseded));
        bench.wait(1);
        bench.relation(&bob, &alice, 2);
        bench.check_counts();
    }
}

#[test]
fn strangers_make_no_rows_and_requests_that_they_withdraw_give_way_to_what_were_relations() {
    let mut bench = Bench::new(|_| {});
    let (alice, bob, friend) = (bench.resident(1), bench.resident(2), Person::new(3));
    let rows = |bench: &Bench| bench.home.store.rows(Column::Relations, b"", b"").count();
    let ended = bench.relation(&friend, &alice, 1);
    let waiting = bench.request(&Person::new(4), alice.id(), 1);
    bench.ask(friend.device, Request::Relate(waiting.clone()));
    let revocation = bench.revocation(&friend, &alice, &ended.0);
    bench.ask(friend.device, Request::Revoke(revocation));
    // About people that the signer never asked, even if the signer is hosted here.
    let stranger = Person::new(9);
    for (from, to) in [(&stranger, &alice), (&stranger, &friend), (&bob, &alice)] {
        let papers = papers(&mut bench, from, to, from);
        bench.ask(stranger.device, Request::Revoke(papers.revocation));
    }
    assert_eq!((rows(&bench), record(&bench, &alice, &stranger)), (2, None), "her friend's, and Bob's own");
    assert_eq!(record(&bench, &alice, &bob), None);
    bench.check_counts();
    // Each may withdraw a request that waits for her; without room, that leaves nothing.
    for number in 1..=MAX_REVOKED as u32 + 10 {
        let other = Person::of_many(number);
        let papers = papers(&mut bench, &other, &alice, &other);
        bench.ask(other.device, Request::Relate(papers.request));
        bench.ask(other.device, Request::Revoke(papers.revocation));
        assert_eq!(rows(&bench), (number as usize + 2).min(MAX_REVOKED + 1));
    }
    assert_eq!(boxed(&mut bench, &alice), std::slice::from_ref(&waiting));
    bench.check_counts();
    // Her own revocation makes a quarter of them be dropped.
    let papers = papers(&mut bench, &alice, &stranger, &alice);
    bench.ask(alice.device, Request::Revoke(papers.revocation));
    bench.check_counts();
    assert_eq!(hosted(&bench, &alice).revoked as usize, MAX_REVOKED + 1 - MAX_REVOKED / 4);
    // That makes no honest revocation forgotten or refused.
    assert_eq!(hosted(&bench, &alice).forgotten, 0);
    assert_eq!(code(&bench.ask(alice.device, Request::Related(ended.0, ended.1))), Some(Code::Superseded));
    let accepted = bench.acceptance(&alice, &waiting);
    assert_eq!(bench.ask(alice.device, Request::Related(waiting, accepted)), Answer::Done);
    assert_eq!(relations(&mut bench, &alice).len(), 2);
}

#[test]
fn requests_that_strangers_withdraw_make_nothing_be_forgotten() {
    let mut bench = Bench::new(|_| {});
    let alice = bench.resident(1);
    for number in 0..MAX_REVOKED as u32 {
        let papers = papers(&mut bench, &alice, &Person::of_many(number), &alice);
        bench.ask(alice.device, Request::Revoke(papers.revocation));
    }
    let before = hosted(&bench, &alice);
    assert_eq!(before.revoked as usize, MAX_REVOKED);
    let stranger = Person::new(9);
    let papers = papers(&mut bench, &stranger, &alice, &stranger);
    bench.ask(stranger.device, Request::Relate(papers.request));
    assert_eq!(bench.ask(stranger.device, Request::Revoke(papers.revocation)), Answer::Done);
    assert_eq!((hosted(&bench, &alice), boxed(&mut bench, &alice)), (before, vec![]));
    bench.check_counts();
}

#[test]
fn nobody_else_makes_what_an_owner_has_taken_back_by_name_hold_again() {
    for known in [false, true] {
        let mut bench = Bench::new(|_| {});
        let (alice, bob) = (bench.resident(1), Person::new(2));
        bench.wait(100);
        let request = bench.request(&alice, bob.id(), 1);
        let proof = Request::Related(request.clone(), bench.acceptance(&bob, &request));
        let sign = |bench: &Bench, by: &Person, other: &Person, back, hash: [u8; 32], number| {
            let times = (bench.now.wall - back, bench.now.wall + DAY);
            let body = RelationRevocation { request: hash.into() };
            Envelope::sign(&by.key, NETWORK, other.id(), nonce(number), times, &body)
        };
        let hash = bench.opened::<RelationRequest>(&request).hash();
        // Her clock was set back after she had asked.
        let own = sign(&bench, &alice, &bob, 60, hash, 1);
        assert_eq!(bench.ask(alice.device, Request::Revoke(own)), Answer::Done);
        // He sends another one: of no request, or of one that waits for her.
        let other = if known {
            let body = bench.opened::<RelationRequest>(&request).body().clone();
            let times = (bench.now.wall - 50, bench.now.wall + DAY);
            let waits = Envelope::sign(&bob.key, NETWORK, alice.id(), nonce(2), times, &body);
            let hash = bench.opened::<RelationRequest>(&waits).hash();
            bench.ask(bob.device, Request::Relate(waits));
            assert_eq!(boxed(&mut bench, &alice).len(), 1);
            sign(&bench, &bob, &alice, 40, hash, 2)
        } else {
            sign(&bench, &bob, &alice, 40, [5; 32], 5)
        };
        assert_eq!(bench.ask(bob.device, Request::Revoke(other)), Answer::Done);
        assert_eq!(record(&bench, &alice, &bob).unwrap().revoked, bench.now.wall - 40);
        bench.ask(bob.device, proof);
        assert!(!bench.home.related(alice.id(), bob.id()).unwrap(), "{known}");
        bench.wait(1);
        bench.relation(&bob, &alice, 3);
        bench.check_counts();
    }
}
