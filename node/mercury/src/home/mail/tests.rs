#![allow(clippy::unwrap_used)]

use crate::body::{Departure, Message, RelationRevocation};
use crate::envelope::{Body, Envelope, Order};
use crate::home::testing::{Bench, NETWORK, Person, nonce};
use crate::home::{RequestId, What};
use crate::id::Id;
use crate::limits::{
    DAY, ITEM_OVERHEAD, MAIL_TIME, MAX_FETCH, MAX_MAIL_COUNT, MAX_MAIL_OF_SENDER, MAX_MAILBOX, MAX_MESSAGE,
    MAX_SEEN, MAX_SEEN_OF_SENDER,
};
use crate::store::{Batch, Column, Mailbox, Sender, pair};
use crate::wire::{Answer, Code, Event, Mail, Refusal, Request};

mod model;

fn code(answer: &Answer) -> Option<Code> {
    match answer {
        Answer::Refused(refusal) => Some(refusal.code),
        _ => None,
    }
}

fn not_for_you() -> Answer {
    Answer::Refused(Refusal::not_for_you())
}

fn fetch(bench: &mut Bench, person: &Person, after: u64) -> (Vec<Mail>, bool) {
    match bench.ask(person.device, Request::Fetch(after)) {
        Answer::Mail(mail, more) => (mail, more),
        other => panic!("{other:?}"),
    }
}

fn numbers(bench: &mut Bench, person: &Person) -> Vec<u64> {
    fetch(bench, person, 0).0.iter().map(|item| item.number).collect()
}

/// A home with a person and this many people who may write to that person.
fn with_senders(senders: u32) -> (Bench, Person, Vec<Person>) {
    let mut bench = Bench::new(|_| {});
    let owner = bench.resident(1);
    let senders: Vec<_> = (0..senders).map(Person::of_many).collect();
    for (number, sender) in senders.iter().enumerate() {
        bench.relation(&owner, sender, number as u64);
    }
    (bench, owner, senders)
}

/// A message that counts exactly `size` bytes.
fn message_of_size(bench: &Bench, from: &Person, to: Id, number: u64, size: u64) -> Envelope {
    let around = bench.message(from, to, number, 1000).to_bytes().len() as u64 - 1000 + ITEM_OVERHEAD;
    // Larger CBOR lengths take more bytes.
    let found = (0..8).map(|more| {
        let bytes = usize::try_from(size - around).unwrap() - more;
        bench.message(from, to, number, bytes)
    });
    found.into_iter().find(|message| super::size(&message.to_bytes()) == size).expect("some length fits")
}

#[test]
fn mail_waits_and_comes_in_order_and_numbers_are_never_used_again() {
    let (mut bench, owner, senders) = with_senders(2);
    bench.home.gone(owner.device);
    let messages: Vec<_> =
        (0..4).map(|n| bench.message(&senders[n % 2], owner.id(), n as u64, 100)).collect();
    for message in &messages[..3] {
        assert_eq!(bench.ask(senders[0].device, Request::Put(message.clone())), Answer::Done);
    }
    bench.log_in(&owner, &[]);
    let (mail, more) = fetch(&mut bench, &owner, 0);
    let expected: Vec<_> = (1..).zip(&messages[..3]).collect();
    assert_eq!(mail.iter().map(|item| (item.number, &item.envelope)).collect::<Vec<_>>(), expected);
    assert!(!more && mail.iter().all(|item| item.received == bench.now.wall));
    assert_eq!(fetch(&mut bench, &owner, 1).0, mail[1..], "from after a number on");
    assert_eq!(fetch(&mut bench, &owner, u64::MAX), (Vec::new(), false));

    assert_eq!(bench.ask(owner.device, Request::Acknowledge(2)), Answer::Done);
    assert_eq!(bench.ask(owner.device, Request::Acknowledge(1)), Answer::Done, "again, and less");
    assert_eq!(numbers(&mut bench, &owner), [3]);
    bench.check_counts();
    // Items that have not arrived yet are not acknowledged.
    assert_eq!(bench.ask(owner.device, Request::Acknowledge(u64::MAX)), Answer::Done);
    assert_eq!(numbers(&mut bench, &owner), []);
    let mut bench = bench.restart(|_| {});
    bench.log_in(&owner, &[]);
    assert_eq!(bench.ask(senders[1].device, Request::Put(messages[3].clone())), Answer::Done);
    assert_eq!(numbers(&mut bench, &owner), [4]);
    bench.check_counts();
}

#[test]
fn a_message_is_delivered_once_also_after_it_was_acknowledged_and_after_a_restart() {
    let (mut bench, owner, senders) = with_senders(1);
    let message = bench.message(&senders[0], owner.id(), 1, 100);
    for _ in 0..2 {
        assert_eq!(bench.ask(senders[0].device, Request::Put(message.clone())), Answer::Done);
    }
    assert_eq!(bench.events_of(owner.device), [Event::Mail(1)]);
    assert_eq!(numbers(&mut bench, &owner), [1]);
    bench.ask(owner.device, Request::Acknowledge(1));
    let mut bench = bench.restart(|_| {});
    bench.log_in(&owner, &[]);
    assert_eq!(bench.ask(senders[0].device, Request::Put(message.clone())), Answer::Done);
    assert_eq!(numbers(&mut bench, &owner), []);
    // It is accepted until its last second, even after everything expired was swept; then it is refused for its
    // age.
    bench.sweep_after(MAIL_TIME);
    assert_eq!(bench.ask(senders[0].device, Request::Put(message.clone())), Answer::Done);
    bench.sweep_after(1);
    assert_eq!(code(&bench.ask(senders[0].device, Request::Put(message))), Some(Code::Envelope));
    assert_eq!(numbers(&mut bench, &owner), []);
    bench.sweep_after(DAY);
    assert_eq!(bench.home.store.rows(Column::Seen, b"", b"").count(), 0, "then the mark goes");
    assert_eq!(bench.home.store.rows(Column::Senders, b"", b"").count(), 0);
    bench.check_counts();
}

#[test]
fn answers_and_events_wait_for_the_batch_that_has_the_item() {
    let (mut bench, owner, senders) = with_senders(1);
    let message = bench.message(&senders[0], owner.id(), 1, 100);
    let mut handle = |request| {
        bench.home.handle(RequestId(1), owner.device, request, bench.now);
        bench.home.outputs()
    };
    let put = handle(Request::Put(message.clone()));
    assert_eq!(put.len(), 2);
    let ticket = put[0].after.expect("a batch");
    assert!(put.iter().all(|output| output.after == Some(ticket)));
    assert!(put.iter().any(|output| output.what == What::Event(owner.device, Event::Mail(1))));
    for request in [Request::Put(message), Request::Fetch(0), Request::Acknowledge(0)] {
        assert!(handle(request)[0].after >= Some(ticket), "what was only written is not yet told");
    }
}

#[test]
fn strangers_get_the_same_answer_as_for_somebody_unknown() {
    let (mut bench, owner, senders) = with_senders(2);
    let (stranger, unknown) = (Person::new(9), Person::new(10));
    let other = bench.resident(2);
    let put = |bench: &mut Bench, from: &Person, to: Id| {
        let message = bench.message(from, to, 1, 100);
        bench.ask(from.device, Request::Put(message))
    };
    let answers = [
        put(&mut bench, &stranger, unknown.id()),
        put(&mut bench, &stranger, owner.id()),
        put(&mut bench, &other, owner.id()),
        // The relation is to the owner, not to others here, and at this home not in the other direction.
        put(&mut bench, &senders[0], other.id()),
        put(&mut bench, &owner, senders[0].id()),
        put(&mut bench, &owner, owner.id()),
    ];
    assert!(answers.iter().all(|answer| *answer == not_for_you()), "{answers:?}");
    // A forgery is refused before any lookup.
    let forge = |bench: &Bench, to| {
        let mut bytes = bench.message(&senders[0], to, 1, 100).to_bytes();
        *bytes.last_mut().unwrap() ^= 1;
        Request::Put(Envelope::from_bytes(&bytes).unwrap())
    };
    let (here, nowhere) = (forge(&bench, owner.id()), forge(&bench, unknown.id()));
    let answer = bench.ask(stranger.device, here);
    assert_eq!(code(&answer), Some(Code::Envelope));
    assert_eq!(answer, bench.ask(stranger.device, nowhere));
    // A sender who is related until the relation is revoked.
    assert_eq!(put(&mut bench, &senders[0], owner.id()), Answer::Done);
    let proof = match bench.ask(owner.device, Request::Relations(None)) {
        Answer::Relations(relations, false) => relations.into_iter().find(|one| one.other == senders[0].id()),
        other => panic!("{other:?}"),
    };
    let revocation: Envelope = bench.revocation(&owner, &senders[0], &proof.unwrap().request);
    assert_eq!(bench.opened::<RelationRevocation>(&revocation).signer(), owner.id());
    assert_eq!(bench.ask(owner.device, Request::Revoke(revocation)), Answer::Done);
    let again = bench.message(&senders[0], owner.id(), 2, 100);
    assert_eq!(bench.ask(senders[0].device, Request::Put(again)), not_for_you());
    // A recipient who has left.
    let order = bench.challenge(owner.device);
    let departure = bench.sign(&owner, bench.home.id(), order, &Departure { to: None });
    assert_eq!(bench.ask(owner.device, Request::Unregister(departure, None)), Answer::Done);
    assert_eq!(put(&mut bench, &senders[1], owner.id()), not_for_you());
    bench.check_counts();
}

#[test]
fn only_hosted_people_have_mail_and_each_sees_his_own() {
    let (mut bench, owner, senders) = with_senders(1);
    let other = bench.resident(2);
    let message = bench.message(&senders[0], owner.id(), 1, 100);
    bench.ask(senders[0].device, Request::Put(message));
    assert_eq!(bench.log_in(&senders[0], &[]), Answer::Session(false));
    for request in [Request::Fetch(0), Request::Acknowledge(1)] {
        let visitor = bench.ask(senders[0].device, request.clone());
        assert_eq!(code(&visitor), Some(Code::LogInFirst));
        assert_eq!(bench.ask(Person::new(9).device, request.clone()), visitor);
    }
    assert_eq!(numbers(&mut bench, &other), []);
    assert_eq!(bench.ask(other.device, Request::Acknowledge(1)), Answer::Done);
    assert_eq!(numbers(&mut bench, &owner), [1]);
}

#[test]
fn a_message_has_a_nonce_and_at_most_64_kib() {
    let (mut bench, owner, senders) = with_senders(1);
    let sender = &senders[0];
    let body = |bytes| Message { encapsulated: [0; 32].into(), ciphertext: vec![0; bytes].into() };
    let sequence = bench.sign(sender, owner.id(), Order::Sequence(1), &body(100));
    assert_eq!(code(&bench.ask(sender.device, Request::Put(sequence))), Some(Code::Envelope));
    let around = crate::cbor::to_vec(&body(MAX_MESSAGE - 100)).len() - (MAX_MESSAGE - 100);
    let longest = bench.message(sender, owner.id(), 1, MAX_MESSAGE - around);
    let longer = bench.message(sender, owner.id(), 2, MAX_MESSAGE - around + 1);
    assert_eq!(bench.ask(sender.device, Request::Put(longest)), Answer::Done);
    assert_eq!(code(&bench.ask(sender.device, Request::Put(longer))), Some(Code::Envelope));
    // Issued in the future, or valid for too long.
    for times in
        [(bench.now.wall + 121, bench.now.wall + 122), (bench.now.wall, bench.now.wall + MAIL_TIME + 1)]
    {
        let message = Envelope::sign(&sender.key, NETWORK, owner.id(), nonce(3), times, &body(100));
        assert_eq!(code(&bench.ask(sender.device, Request::Put(message))), Some(Code::Envelope));
    }
    assert_eq!(numbers(&mut bench, &owner), [1]);
}

/// Sends eight messages that fill a sender's share to the last byte.
fn fill(bench: &mut Bench, sender: &Person, to: Id) {
    for number in 0..8 {
        let message = message_of_size(bench, sender, to, number, MAX_MAIL_OF_SENDER / 8);
        assert_eq!(bench.ask(sender.device, Request::Put(message)), Answer::Done);
    }
}

#[test]
fn one_sender_fills_his_part_and_others_get_through_until_the_mailbox_is_full() {
    let (mut bench, owner, senders) = with_senders(9);
    fill(&mut bench, &senders[0], owner.id());
    let one_more = bench.message(&senders[0], owner.id(), 9, 16);
    assert_eq!(code(&bench.ask(senders[0].device, Request::Put(one_more.clone()))), Some(Code::Full));
    for sender in &senders[1..8] {
        fill(&mut bench, sender, owner.id());
    }
    let of = |bench: &Bench| bench.home.mailbox(owner.id()).unwrap();
    assert_eq!((of(&bench).bytes, of(&bench).count), (MAX_MAILBOX, 64), "to the last byte");
    let others = bench.message(&senders[8], owner.id(), 9, 16);
    assert_eq!(code(&bench.ask(senders[8].device, Request::Put(others.clone()))), Some(Code::Full));
    bench.check_counts();
    // A message that was refused was not marked as seen, so it can be sent later.
    bench.ask(owner.device, Request::Acknowledge(1));
    for message in [one_more, others] {
        assert_eq!(bench.ask(senders[0].device, Request::Put(message)), Answer::Done);
    }
    bench.check_counts();
}

#[test]
fn one_byte_more_than_a_senders_part_is_refused() {
    let (mut bench, owner, senders) = with_senders(1);
    for number in 0..7 {
        let message = message_of_size(&bench, &senders[0], owner.id(), number, MAX_MAIL_OF_SENDER / 8);
        assert_eq!(bench.ask(senders[0].device, Request::Put(message)), Answer::Done);
    }
    let put = |bench: &mut Bench, number, size| {
        let message = message_of_size(bench, &senders[0], owner.id(), number, size);
        bench.ask(senders[0].device, Request::Put(message))
    };
    assert_eq!(code(&put(&mut bench, 8, MAX_MAIL_OF_SENDER / 8 + 1)), Some(Code::Full));
    assert_eq!(put(&mut bench, 9, MAX_MAIL_OF_SENDER / 8), Answer::Done);
}

#[test]
fn items_and_marks_of_a_mailbox_are_counted() {
    let mailbox = |bench: &Bench, owner: &Person, change: fn(&mut Mailbox)| {
        let mut batch = Batch::default();
        let mut mailbox = bench.home.mailbox(owner.id()).unwrap();
        change(&mut mailbox);
        batch.put(Column::Boxes, owner.id().digest(), &mailbox);
        bench.home.store.commit(batch).unwrap();
    };
    type Change = fn(&mut Mailbox);
    let limits: [(Change, usize); 2] = [
        (|mailbox| mailbox.count = MAX_MAIL_COUNT - 1, 0),
        (|mailbox| (mailbox.count, mailbox.seen) = (0, MAX_SEEN - 1), 1),
    ];
    for (almost, sender) in limits {
        let (mut bench, owner, senders) = with_senders(2);
        mailbox(&bench, &owner, almost);
        let sender = &senders[sender];
        let messages = [1, 2].map(|number| bench.message(sender, owner.id(), number, 16));
        let answers = messages.map(|message| bench.ask(sender.device, Request::Put(message)));
        assert_eq!(answers.map(|answer| code(&answer)), [None, Some(Code::Full)]);
    }
    let (mut bench, owner, senders) = with_senders(2);
    let mut batch = Batch::default();
    let key = pair(owner.id().digest(), senders[0].id().digest());
    batch.put(Column::Senders, &key, &Sender { bytes: 0, seen: MAX_SEEN_OF_SENDER - 1 });
    bench.home.store.commit(batch).unwrap();
    let of_first = [1, 2].map(|number| bench.message(&senders[0], owner.id(), number, 16));
    let answers = of_first.map(|message| bench.ask(senders[0].device, Request::Put(message)));
    assert_eq!(answers.map(|answer| code(&answer)), [None, Some(Code::Full)]);
    let other = bench.message(&senders[1], owner.id(), 1, 16);
    assert_eq!(bench.ask(senders[1].device, Request::Put(other)), Answer::Done);
}

#[test]
fn mail_is_too_old_after_fourteen_days_or_with_its_own_time() {
    let (mut bench, owner, senders) = with_senders(1);
    let sender = &senders[0];
    let short = Envelope::sign(
        &sender.key,
        NETWORK,
        owner.id(),
        nonce(1),
        (bench.now.wall, bench.now.wall + DAY),
        &Message { encapsulated: [0; 32].into(), ciphertext: vec![0; 16].into() },
    );
    bench.ask(sender.device, Request::Put(short));
    let long = bench.message(sender, owner.id(), 2, 16);
    bench.ask(sender.device, Request::Put(long));
    bench.sweep_after(DAY);
    assert_eq!(numbers(&mut bench, &owner), [1, 2], "to the last second");
    bench.wait(1);
    assert_eq!(numbers(&mut bench, &owner), [2], "also before it is swept");
    bench.check_counts();
    bench.sweep_after(3600);
    assert_eq!(bench.home.mailbox(owner.id()).unwrap().count, 1);
    bench.check_counts();
    bench.sweep_after(MAIL_TIME);
    assert_eq!(numbers(&mut bench, &owner), []);
    assert_eq!(
        bench.home.mailbox(owner.id()).unwrap(),
        Mailbox {
            next: 3,
            oldest_expires: bench.home.mailbox(owner.id()).unwrap().oldest_expires,
            ..Mailbox::default()
        }
    );
    bench.check_counts();
    let next = bench.message(sender, owner.id(), 3, 16);
    bench.ask(sender.device, Request::Put(next));
    assert_eq!(numbers(&mut bench, &owner), [3]);
}

#[test]
fn long_mail_comes_in_pages() {
    let (mut bench, owner, senders) = with_senders(2);
    for number in 0..MAX_FETCH as u64 + 1 {
        let message = bench.message(&senders[0], owner.id(), number, 16);
        assert_eq!(bench.ask(senders[0].device, Request::Put(message)), Answer::Done);
    }
    let (page, more) = fetch(&mut bench, &owner, 0);
    assert_eq!((page.len(), more), (MAX_FETCH, true));
    let (page, more) = fetch(&mut bench, &owner, MAX_FETCH as u64);
    assert_eq!((page.len(), more), (1, false));
    bench.ask(owner.device, Request::Acknowledge(u64::MAX));
    for (number, sender) in (0..12).map(|number| (number, &senders[number as usize % 2])) {
        let message = bench.message(sender, owner.id(), 1000 + number, 60_000);
        assert_eq!(bench.ask(sender.device, Request::Put(message)), Answer::Done);
    }
    let answer = bench.ask(owner.device, Request::Fetch(0));
    assert!(crate::cbor::to_vec(&answer).len() <= crate::wire::MAX_ANSWER);
    let Answer::Mail(page, true) = answer else { panic!("{answer:?}") };
    assert_eq!(page.len(), 8);
    let (rest, more) = fetch(&mut bench, &owner, page[7].number);
    assert_eq!((rest.len(), more), (4, false));
}

#[test]
fn banned_people_send_and_get_nothing() {
    let mut bench = Bench::new(|settings| settings.owner = Some(Person::new(50).id()));
    let (admin, owner, other) = (bench.resident(50), bench.resident(1), bench.resident(2));
    bench.relation(&owner, &other, 1);
    let put = |bench: &mut Bench, number| {
        let message = bench.message(&other, owner.id(), number, 16);
        bench.ask(other.device, Request::Put(message))
    };
    assert_eq!(put(&mut bench, 1), Answer::Done);
    let of_banned = |bench: &mut Bench, banned: Id, number| {
        assert_eq!(bench.ask(admin.device, Request::Ban(banned, "spam".to_owned())), Answer::Done);
        let answer = put(bench, number);
        assert_eq!(bench.ask(admin.device, Request::Unban(banned)), Answer::Done);
        answer
    };
    assert_eq!(code(&of_banned(&mut bench, other.id(), 2)), Some(Code::Closed));
    assert_eq!(of_banned(&mut bench, owner.id(), 3), not_for_you());
    assert_eq!(put(&mut bench, 4), Answer::Done);
    const { assert!(<Message as Body>::LIFE <= MAIL_TIME, "marks of what was seen go with mail") };
}
