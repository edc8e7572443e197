//! The effect of time on relations.

use super::*;

const YEAR: u64 = 365 * DAY;

/// A request that is valid for this many seconds.
fn short(bench: &Bench, from: &Person, to: Id, number: u64, seconds: u64) -> Envelope {
    let home = HomeAddress { home: bench.home.id(), addresses: Vec::new() };
    let body = RelationRequest { label: "friend".to_owned(), note: String::new(), home };
    Envelope::sign(&from.key, NETWORK, to, nonce(number), (bench.now.wall, bench.now.wall + seconds), &body)
}

#[test]
fn a_proof_and_a_revocation_hold_years_later() {
    let mut bench = Bench::new(|_| {});
    let (alice, bob) = (bench.resident(1), bench.resident(2));
    let request = bench.request(&alice, bob.id(), 1);
    bench.ask(alice.device, Request::Relate(request.clone()));
    bench.sweep_after(YEAR);
    assert_eq!((boxed(&mut bench, &bob).len(), state(&mut bench, &alice, &bob)), (1, ASKED));
    let acceptance = bench.acceptance(&bob, &request);
    let revocation = bench.revocation(&bob, &alice, &request);
    bench.sweep_after(YEAR);
    assert_eq!(bench.ask(bob.device, Request::Related(request.clone(), acceptance.clone())), Answer::Done);
    bench.sweep_after(YEAR);
    assert_eq!((state(&mut bench, &alice, &bob), state(&mut bench, &bob, &alice)), (HELD, HELD));
    assert_eq!(bench.ask(bob.device, Request::Revoke(revocation)), Answer::Done);
    bench.sweep_after(YEAR);
    let again = bench.ask(bob.device, Request::Related(request, acceptance));
    assert_eq!(code(&again), Some(Code::Superseded));
    bench.check_counts();
}

#[test]
fn a_request_that_has_expired_is_not_accepted_and_goes() {
    let mut bench = Bench::new(|_| {});
    let (alice, bob) = (bench.resident(1), bench.resident(2));
    let request = short(&bench, &alice, bob.id(), 1, DAY);
    bench.ask(alice.device, Request::Relate(request.clone()));
    let acceptance = bench.acceptance(&bob, &request);
    bench.wait(DAY);
    assert_eq!(boxed(&mut bench, &bob).len(), 1, "to the last second");
    bench.wait(1);
    assert_eq!(boxed(&mut bench, &bob), []);
    let late = bench.ask(bob.device, Request::Related(request.clone(), acceptance));
    assert_eq!(code(&late), Some(Code::Envelope));
    assert_eq!(code(&bench.ask(alice.device, Request::Relate(request))), Some(Code::Envelope));
    bench.sweep_after(3600);
    assert_eq!((state(&mut bench, &alice, &bob), hosted(&bench, &alice).relations), (None, 0));
    assert_eq!(bench.home.store.rows(crate::store::Column::Requests, b"", b"").count(), 0);
    bench.check_counts();
}

#[test]
fn a_relation_ends_with_its_proof_and_what_was_taken_back_before_is_still_known() {
    let mut bench = Bench::new(|_| {});
    let (alice, bob) = (bench.resident(1), bench.resident(2));
    let (long, accepted) = bench.relation(&alice, &bob, 1);
    let revocation = bench.revocation(&alice, &bob, &long);
    bench.ask(alice.device, Request::Revoke(revocation));
    bench.wait(1);
    let request = short(&bench, &alice, bob.id(), 2, DAY);
    let acceptance = bench.acceptance(&bob, &request);
    assert_eq!(bench.ask(bob.device, Request::Related(request, acceptance)), Answer::Done);
    assert_eq!((state(&mut bench, &alice, &bob), state(&mut bench, &bob, &alice)), (HELD, HELD));
    bench.sweep_after(DAY + 3600);
    assert_eq!((state(&mut bench, &alice, &bob), state(&mut bench, &bob, &alice)), (REVOKED, REVOKED));
    bench.check_counts();
    let again = bench.ask(bob.device, Request::Related(long, accepted));
    assert_eq!(code(&again), Some(Code::Superseded));
    // Until no earlier proof can be valid any more.
    bench.sweep_after(RelationRequest::LIFE);
    assert_eq!((state(&mut bench, &alice, &bob), state(&mut bench, &bob, &alice)), (None, None));
    bench.check_counts();
}

#[test]
fn the_shorter_of_the_two_halves_ends_a_relation() {
    let mut bench = Bench::new(|_| {});
    let (alice, bob) = (bench.resident(1), bench.resident(2));
    let request = bench.request(&alice, bob.id(), 1);
    let body = bench.opened::<RelationAcceptance>(&bench.acceptance(&bob, &request)).body().clone();
    let times = (bench.now.wall, bench.now.wall + DAY);
    let acceptance = Envelope::sign(&bob.key, NETWORK, alice.id(), nonce(1), times, &body);
    assert_eq!(bench.ask(bob.device, Request::Related(request, acceptance)), Answer::Done);
    bench.sweep_after(DAY);
    assert_eq!(state(&mut bench, &alice, &bob), HELD);
    bench.sweep_after(3601);
    assert_eq!(state(&mut bench, &alice, &bob), None);
    bench.check_counts();
}
