//! Limits on relations and requests.

use super::*;

#[test]
fn the_box_holds_64_requests_one_of_each_sender_and_the_oldest_gives_way() {
    let mut bench = Bench::new(|_| {});
    let alice = bench.resident(1);
    let senders: Vec<_> = (0..=MAX_REQUESTS as u32).map(Person::of_many).collect();
    let relate = |bench: &mut Bench, sender: &Person, number| {
        let request = bench.request(sender, alice.id(), number);
        assert_eq!(bench.ask(sender.device, Request::Relate(request.clone())), Answer::Done);
        request
    };
    let mut requests: Vec<_> = Vec::new();
    for sender in &senders[..MAX_REQUESTS] {
        requests.push(relate(&mut bench, sender, 1));
    }
    assert_eq!(boxed(&mut bench, &alice), requests);
    assert_eq!(bench.events_of(alice.device).len(), MAX_REQUESTS);
    // A newer request of the same sender replaces the earlier one, and comes last.
    bench.wait(1);
    requests.remove(0);
    requests.push(relate(&mut bench, &senders[0], 2));
    assert_eq!(boxed(&mut bench, &alice), requests);
    // An older one does not.
    bench.now.wall -= 1;
    relate(&mut bench, &senders[0], 3);
    bench.now.wall += 1;
    assert_eq!(boxed(&mut bench, &alice), requests);
    // One too many: the oldest is dropped.
    requests.remove(0);
    requests.push(relate(&mut bench, &senders[MAX_REQUESTS], 1));
    assert_eq!(boxed(&mut bench, &alice), requests);
    let answer = bench.ask(alice.device, Request::Requests);
    assert!(crate::cbor::to_vec(&answer).len() <= crate::wire::MAX_ANSWER);
    let mut bench = bench.restart(|_| {});
    bench.log_in(&alice, &[]);
    assert_eq!(boxed(&mut bench, &alice), requests);
}

#[test]
fn a_persona_has_2000_relations_held_or_asked_for() {
    let mut bench = Bench::new(|_| {});
    let alice = bench.resident(1);
    let other = |number: usize| Person::of_many(u32::try_from(number).unwrap());
    let mut proofs = Vec::new();
    for number in 0..MAX_RELATIONS {
        if number % 2 == 0 {
            proofs.push(bench.relation(&other(number), &alice, 1));
        } else {
            let request = bench.request(&alice, other(number).id(), 1);
            assert_eq!(bench.ask(alice.device, Request::Relate(request)), Answer::Done);
        }
    }
    bench.check_counts();
    let (next, bob) = (other(MAX_RELATIONS), bench.resident(2));
    let full = |bench: &mut Bench| {
        let asked = bench.request(&alice, bob.id(), 1);
        let theirs = bench.request(&next, alice.id(), 1);
        let accepted = bench.acceptance(&alice, &theirs);
        let proof = Request::Related(theirs, accepted);
        assert_eq!(code(&bench.ask(alice.device, Request::Relate(asked))), Some(Code::Full));
        assert_eq!(code(&bench.ask(alice.device, proof.clone())), Some(Code::Full));
        assert_eq!(
            bench.ask(next.device, proof),
            Answer::Done,
            "not told to who is not known to be one of them"
        );
        assert!(!bench.home.related(alice.id(), next.id()).unwrap());
        assert_eq!(boxed(bench, &bob), [], "nor is the other one asked");
    };
    full(&mut bench);
    // Accepting a request that was made does not increase the count.
    let asked = bench.request(&alice, other(1).id(), 1);
    let accepted = bench.acceptance(&other(1), &asked);
    assert_eq!(bench.ask(alice.device, Request::Related(asked, accepted)), Answer::Done);
    full(&mut bench);
    // Revoking one makes room.
    let revocation = bench.revocation(&alice, &other(0), &proofs[0].0);
    assert_eq!(bench.ask(alice.device, Request::Revoke(revocation)), Answer::Done);
    bench.check_counts();
    bench.relation(&next, &alice, 1);
    assert!(bench.home.related(alice.id(), next.id()).unwrap());
    bench.wait(1);
    let again = bench.request(&alice, other(0).id(), 2);
    assert_eq!(code(&bench.ask(alice.device, Request::Relate(again))), Some(Code::Full));
    bench.check_counts();
}

#[test]
fn of_many_that_were_taken_back_the_oldest_are_remembered_by_their_time() {
    let mut bench = Bench::new(|_| {});
    let alice = bench.resident(1);
    let other = |number: usize| Person::of_many(u32::try_from(number).unwrap());
    let mut proofs = Vec::new();
    for number in 0..=MAX_REVOKED {
        bench.wait(1);
        let (request, acceptance) = bench.relation(&other(number), &alice, 1);
        let revocation = bench.revocation(&alice, &other(number), &request);
        proofs.push(Request::Related(request, acceptance));
        assert_eq!(hosted(&bench, &alice).forgotten, 0, "up to so many one by one");
        assert_eq!(bench.ask(alice.device, Request::Revoke(revocation)), Answer::Done);
    }
    bench.check_counts();
    let record = hosted(&bench, &alice);
    assert_eq!(record.revoked as usize, MAX_REVOKED + 1 - MAX_REVOKED / 4);
    assert_eq!(record.forgotten, bench.now.wall - (MAX_REVOKED - MAX_REVOKED / 4 + 1) as u64);
    for (number, proof) in proofs.into_iter().enumerate() {
        assert_eq!(code(&bench.ask(alice.device, proof)), Some(Code::Superseded), "{number}");
    }
    // Another persona's request of that time is refused too; one of now is not.
    let stranger = Person::new(9);
    let mut past = bench.request(&stranger, alice.id(), 1);
    let body = bench.opened::<RelationRequest>(&past).body().clone();
    let times = (record.forgotten, record.forgotten + RelationRequest::LIFE);
    past = Envelope::sign(&stranger.key, NETWORK, alice.id(), nonce(1), times, &body);
    assert_eq!(bench.ask(stranger.device, Request::Relate(past.clone())), Answer::Done);
    assert_eq!(boxed(&mut bench, &alice), [], "it could not be accepted");
    let acceptance = bench.acceptance(&alice, &past);
    let answer = bench.ask(alice.device, Request::Related(past, acceptance));
    assert_eq!(code(&answer), Some(Code::Superseded));
    bench.relation(&other(0), &alice, 2);
    assert!(bench.home.related(alice.id(), other(0).id()).unwrap());
    bench.check_counts();
}
