#![allow(clippy::unwrap_used)]

use super::*;
use crate::body::Departure;
use crate::home::testing::{Bench, Person};
use crate::limits::{MAIL_TIME, REDIRECT_TIME};
use crate::wire::{Answer, Request};

fn rows(bench: &Bench, column: Column) -> usize {
    bench.home.store.rows(column, b"", b"").count()
}

#[test]
fn each_tick_does_a_bounded_part_and_all_is_done_at_last() {
    let mut bench = Bench::new(|_| {});
    let sender = Person::new(100);
    let people: Vec<_> = (1..=5).map(|number| bench.resident(number)).collect();
    let each = ROWS as u64 / 4;
    for person in &people {
        bench.relation(person, &sender, 1);
        for number in 0..each {
            let message = bench.message(&sender, person.id(), number, 16);
            assert_eq!(bench.ask(sender.device, Request::Put(message)), Answer::Done);
        }
    }
    let all = 5 * each as usize;
    assert_eq!((rows(&bench, Column::Mail), rows(&bench, Column::Seen)), (all, all));
    // Two ticks for a round over the marks of seen messages.
    (0..2).for_each(|_| bench.home.tick(bench.now));
    assert_eq!((rows(&bench, Column::Mail), rows(&bench, Column::Seen)), (all, all), "nothing is old");
    bench.wait(MAIL_TIME + REST);
    let mut left = Vec::new();
    for _ in 0..3 {
        bench.home.tick(bench.now);
        left.push((rows(&bench, Column::Mail) / each as usize, rows(&bench, Column::Seen)));
        bench.check_counts();
    }
    assert_eq!(left, [(3, all - ROWS), (1, 0), (0, 0)]);
    assert_eq!(rows(&bench, Column::Senders), 0);
}

#[test]
fn after_a_round_a_walk_rests() {
    let mut bench = Bench::new(|_| {});
    let (owner, sender) = (bench.resident(1), Person::new(2));
    bench.relation(&owner, &sender, 1);
    bench.sweep_after(0);
    let before = bench.home.store.so_far();
    let message = bench.message(&sender, owner.id(), 1, 16);
    bench.ask(sender.device, Request::Put(message));
    let after = bench.home.store.so_far();
    assert!(after > before);
    bench.now.wall += MAIL_TIME + CLOCK_SKEW + 1;
    bench.sweep_after(REST - 1);
    assert_eq!((bench.home.store.so_far(), rows(&bench, Column::Mail)), (after, 1), "no work for the disk");
    bench.sweep_after(1);
    assert_eq!((rows(&bench, Column::Mail), rows(&bench, Column::Seen)), (0, 0));
}

#[test]
fn nothing_is_left_of_who_has_left_when_the_redirect_is_over() {
    let mut bench = Bench::new(|_| {});
    let (owner, other) = (bench.resident(1), bench.resident(2));
    let (request, _) = bench.relation(&owner, &other, 1);
    let order = bench.challenge(owner.device);
    let departure = bench.sign(&owner, bench.home.id(), order, &Departure { to: None });
    assert_eq!(bench.ask(owner.device, Request::Unregister(departure, None)), Answer::Done);
    bench.sweep_after(REDIRECT_TIME);
    assert_eq!(rows(&bench, Column::Hosted), 2, "to the last second");
    // What others send him in the meantime leaves nothing either.
    let revocation = bench.revocation(&other, &owner, &request);
    bench.ask(other.device, Request::Revoke(revocation));
    bench.sweep_after(REST);
    assert_eq!(rows(&bench, Column::Hosted), 1);
    let of_owner = |column| bench.home.store.rows(column, owner.id().digest(), b"").count();
    assert_eq!(Column::ALL.map(of_owner), [0; 13]);
    bench.check_counts();
}
