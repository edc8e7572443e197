//! Homes that lie to a device about mail and relations: nothing of it is believed. Other lies are in `lies.rs`.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::{Arc, Mutex};

use iop_mercury::body::{Message, RelationAcceptance, RelationRequest, RelationRevocation};
use iop_mercury::client::Received;
use iop_mercury::client::folder::Standing;
use iop_mercury::envelope::{Envelope, Order};
use iop_mercury::id::Key;
use iop_mercury::limits::{CLOCK_SKEW, MAX_FETCH, MAX_MAIL_COUNT};
use iop_mercury::wire::{Answer, Mail, Relation, Request};
use support::victim::{Victim, hash_of, lie, profile, sign, sign_in};
use support::{verified, within};

fn mail(number: u64, envelope: Envelope) -> Mail {
    Mail { number, received: 0, envelope }
}

fn is_fetch(request: &Request) -> bool {
    matches!(request, Request::Fetch(_))
}

fn letters(items: &[Received]) -> Vec<&str> {
    let mut texts = Vec::new();
    for item in items {
        if let Received::Letter { letter, .. } = item {
            texts.push(letter.text.as_str());
        }
    }
    texts
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_mail_is_thrown_away_and_repeated_mail_comes_once() {
    within(async {
        let victim = Victim::new().await;
        let (me, friend, stranger) = (victim.device.id(), &victim.friend, Key::generate().unwrap());
        let good = victim.message(friend, me, 1, "good");
        // Sealed with another nonce, as if it were moved into a new envelope.
        let moved = victim.message(friend, me, 2, "moved");
        let body = verified::<Message>(&moved).body().clone();
        let acceptance = RelationAcceptance { request: [1; 32].into() };
        let items = vec![
            mail(1, good.clone()),
            mail(2, good.clone()),
            mail(3, victim.message(&stranger, me, 3, "stranger")),
            mail(4, victim.message(friend, stranger.id(), 4, "not for you")),
            mail(5, sign(friend, me, Order::Nonce([5; 32]), &body)),
            mail(6, sign(&stranger, me, Order::Nonce([6; 32]), &acceptance)),
            // Of no known request: skipped, since requests may cross.
            mail(7, sign(friend, me, Order::Nonce([7; 32]), &acceptance)),
            mail(8, sign(friend, friend.id(), Order::Sequence(8), &profile())),
        ];
        victim.answers(is_fetch, Answer::Mail(items, false));
        let page = victim.device.fetch().await.unwrap();
        let letters = page.items.iter().filter(|one| matches!(one, Received::Letter { .. })).count();
        let refused = page.items.iter().filter(|one| matches!(one, Received::Refused(_))).count();
        assert_eq!((letters, refused, page.items.len()), (1, 5, 6), "{:?}", page.items);
        let request =
            || victim.device.folder().state().unwrap().contact(victim.friend()).unwrap().request.clone();
        let before = request();
        victim.device.acknowledge(&page).await.unwrap();
        assert_eq!((request(), victim.standing()), (before, Standing::Held));
        assert!(!victim.device.folder().state().unwrap().holds(stranger.id()));
        // The same message under a new number, as from a home that wants it to be delivered twice.
        victim.answers(is_fetch, Answer::Mail(vec![mail(9, good.clone())], false));
        assert!(victim.device.fetch().await.unwrap().items.is_empty());
        for numbers in [[0, 1], [10, 10], [11, 10]] {
            let items = numbers.map(|number| mail(number, good.clone())).to_vec();
            victim.answers(is_fetch, Answer::Mail(items, false));
            lie(victim.device.fetch().await);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn relations_without_proof_are_not_taken_over() {
    within(async {
        let victim = Victim::new().await;
        let (me, stranger) = (victim.device.id(), Key::generate().unwrap());
        let body = RelationRequest { label: "friend".into(), note: String::new(), home: victim.address() };
        let request = sign(&stranger, me, Order::Nonce([1; 32]), &body);
        let forged = sign(
            &victim.liar.key,
            stranger.id(),
            Order::Nonce([1; 32]),
            &RelationAcceptance { request: [1; 32].into() },
        );
        for acceptance in [None, Some(forged)] {
            let relation = iop_mercury::wire::Relation {
                other: stranger.id(),
                request: request.clone(),
                acceptance,
                revocation: None,
            };
            let ask = |request: &Request| matches!(request, Request::Relations(_));
            victim.answers(ask, Answer::Relations(vec![relation.clone()], false));
            let all = victim.device.relations().await.unwrap();
            assert!(all.iter().all(|one| one.id != stranger.id()));
            victim.answers(ask, Answer::Relations(vec![relation.clone(), relation], true));
            lie(victim.device.relations().await);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_taken_back_is_revived_by_no_other_old_proof() {
    within(async {
        let victim = Victim::new().await;
        let (old, new) = (victim.proof(2, -100), victim.proof(3, 30));
        victim.answers(|request| matches!(request, Request::Revoke(_)), Answer::Done);
        victim.device.revoke(victim.friend()).await.unwrap();
        let shown = |(request, acceptance): &(Envelope, Envelope)| {
            let (request, acceptance) = (request.clone(), Some(acceptance.clone()));
            Relation { other: victim.friend(), request, acceptance, revocation: None }
        };
        let ask = |request: &Request| matches!(request, Request::Relations(_));
        victim.answers(ask, Answer::Relations(vec![shown(&old)], false));
        victim.device.relations().await.unwrap();
        assert_eq!(victim.standing(), Standing::Revoked);
        // The old request presented as a new one.
        let ask_requests = |request: &Request| matches!(request, Request::Requests);
        victim.answers(ask_requests, Answer::Requests(vec![old.0.clone()]));
        let error = victim.device.accept(victim.friend()).await.unwrap_err();
        assert!(error.to_string().contains("no request"), "{error}");
        victim.answers(ask, Answer::Relations(vec![shown(&new)], false));
        victim.device.relations().await.unwrap();
        assert_eq!(victim.standing(), Standing::Held, "a later request may hold");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_counts_when_it_was_shown_and_mail_from_before_it_is_taken() {
    within(async {
        let victim = Victim::new().await;
        let items = vec![
            mail(1, victim.revocation(9)),
            mail(2, victim.message_in(10, -5)),
            mail(3, victim.message_in(11, 60)),
        ];
        victim.answers(is_fetch, Answer::Mail(items, false));
        for _ in 0..2 {
            let page = victim.device.fetch().await.unwrap();
            assert_eq!(letters(&page.items), ["10"], "{:?}", page.items);
            assert!(matches!(page.items[0], Received::Revoked(_)), "{:?}", page.items);
            assert!(matches!(page.items[2], Received::Refused(_)), "{:?}", page.items);
            assert_eq!(victim.standing(), Standing::Held, "it was not acknowledged");
        }
        let page = victim.device.fetch().await.unwrap();
        victim.device.acknowledge(&page).await.unwrap();
        assert_eq!(victim.standing(), Standing::Revoked);
        let items = vec![mail(4, victim.message_in(12, -5)), mail(5, victim.message_in(13, 60))];
        victim.answers(is_fetch, Answer::Mail(items, false));
        assert_eq!(letters(&victim.device.fetch().await.unwrap().items), ["12"]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_home_does_not_keep_fetching_going_for_ever() {
    within(async {
        let victim = Victim::new().await;
        let me = victim.device.id();
        let good = victim.message(&victim.friend, me, 1, "good");
        let same = Answer::Mail(vec![mail(1, good.clone())], true);
        victim.liar.lie(move |request, truth| match request {
            Request::Fetch(_) => same.clone().into(),
            Request::Acknowledge(_) => Answer::Done.into(),
            _ => truth.into(),
        });
        let page = victim.device.fetch().await.unwrap();
        victim.device.acknowledge(&page).await.unwrap();
        lie(victim.device.fetch().await);
        // Always new numbers.
        let next = Arc::new(Mutex::new(0));
        victim.liar.lie(move |request, truth| match request {
            Request::Fetch(_) => {
                let mut next = next.lock().unwrap();
                *next += MAX_FETCH as u64;
                let items = (0..MAX_FETCH as u64).map(|one| mail(*next + one, good.clone())).collect();
                Answer::Mail(items, true).into()
            }
            Request::Acknowledge(_) => Answer::Done.into(),
            _ => truth.into(),
        });
        let mut pages = 0;
        loop {
            let page = victim.device.fetch().await.unwrap();
            victim.device.acknowledge(&page).await.unwrap();
            pages += 1;
            assert!(pages <= MAX_MAIL_COUNT / MAX_FETCH as u64);
            if !page.more {
                return;
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_within_the_permitted_skew_of_clocks_is_taken() {
    within(async {
        let victim = Victim::new().await;
        let ahead = CLOCK_SKEW as i64 + 60;
        let item = |number, envelope| Mail { number, received: u64::MAX, envelope };
        let items = vec![
            item(1, victim.message_in(1, ahead)),
            item(2, victim.message_in(2, 4 * CLOCK_SKEW as i64)),
            mail(3, victim.message_in(3, ahead)),
        ];
        victim.answers(is_fetch, Answer::Mail(items, false));
        assert_eq!(letters(&victim.device.fetch().await.unwrap().items), ["1"]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_acceptance_of_what_another_device_asked_is_looked_up() {
    within(async {
        let victim = Victim::new().await;
        let (me, key) = (victim.device.id(), victim.device.folder().key().unwrap());
        let asked = Key::generate().unwrap();
        let body = RelationRequest { label: "friend".into(), note: String::new(), home: victim.address() };
        let request = sign(&key, asked.id(), Order::Nonce([1; 32]), &body);
        let body = RelationAcceptance { request: hash_of::<RelationRequest>(&request).into() };
        let acceptance = sign(&asked, me, Order::Nonce([1; 32]), &body);
        let relation = Relation { other: asked.id(), request, acceptance: None, revocation: None };
        victim.liar.lie(move |request, truth| match request {
            Request::Fetch(_) => Answer::Mail(vec![mail(1, acceptance.clone())], false).into(),
            Request::Relations(_) => Answer::Relations(vec![relation.clone()], false).into(),
            _ => truth.into(),
        });
        let page = victim.device.fetch().await.unwrap();
        assert!(matches!(page.items[..], [Received::Accepted(id)] if id == asked.id()), "{:?}", page.items);
        victim.device.acknowledge(&page).await.unwrap();
        assert!(victim.device.folder().state().unwrap().holds(asked.id()));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_proof_that_was_taken_back_does_not_end_what_was_asked_for_later() {
    within(async {
        let victim = Victim::new().await;
        let (old, new) = (victim.proof(2, -100), victim.proof(3, 30));
        let ask = |request: &Request| matches!(request, Request::Relations(_));
        let show = |(request, acceptance): &(Envelope, Envelope), revocation: Option<Envelope>| {
            let (request, acceptance) = (request.clone(), Some(acceptance.clone()));
            let relation = Relation { other: victim.friend(), request, acceptance, revocation };
            victim.answers(ask, Answer::Relations(vec![relation], false));
        };
        let request = || {
            let state = victim.device.folder().state().unwrap();
            state.contact(victim.friend()).unwrap().request.clone().unwrap()
        };
        let me = victim.device.id();
        let body = RelationRevocation { request: hash_of::<RelationRequest>(&old.0).into() };
        let revoked = |seconds| Some(sign_in(&victim.friend, me, 2, &body, seconds));
        show(&new, None);
        victim.device.relations().await.unwrap();
        assert_eq!((victim.standing(), request()), (Standing::Held, new.0.clone()));
        show(&old, revoked(-50));
        victim.device.relations().await.unwrap();
        assert_eq!((victim.standing(), request()), (Standing::Held, new.0.clone()));
        show(&old, None);
        victim.device.relations().await.unwrap();
        assert_eq!((victim.standing(), request()), (Standing::Held, new.0.clone()));
        // A revocation later than the second request ends that too.
        show(&old, revoked(60));
        victim.device.relations().await.unwrap();
        assert_eq!(victim.standing(), Standing::Revoked);
        show(&new, None);
        victim.device.relations().await.unwrap();
        assert_eq!(victim.standing(), Standing::Revoked);
    })
    .await;
}
