//! Interrupted moves from home to home, on loopback: everything is completed later.
#![allow(clippy::unwrap_used)]

mod support;

use iop_mercury::client::folder::{Leaving, Standing};
use iop_mercury::client::{ClientError, Delivery, Home};
use iop_mercury::net::Setup;
use iop_mercury::wire::{Answer, Code, Request};
use support::liar::{Liar, Raw};
use support::person::{Person, at, introduce, relate};
use support::{Running, within};

fn is_refused(result: &Result<(), ClientError>, code: Code) -> bool {
    matches!(result, Err(ClientError::Refused(refusal)) if refusal.code == code)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_that_breaks_off_before_the_new_home_is_ready_is_finished_at_the_next_start() {
    within(async {
        let (old, bens) = (Running::start(Setup::default()).await, Running::start(Setup::default()).await);
        let new = Liar::start().await;
        let new_home = Home::parse(&new.address.to_string()).unwrap();
        let (ada, ben) = (Person::at(&at(&old)).await, Person::at(&at(&bens)).await);
        relate(&ada, &ben).await;
        ada.device.set_picture(b"picture", None).await.unwrap();
        let kinds: [fn(&Request) -> bool; 3] = [
            |request| matches!(request, Request::Related(..)),
            |request| matches!(request, Request::Chunk(..)),
            |request| matches!(request, Request::SetProfile(_)),
        ];
        let mut ada = ada;
        for (place, kind) in kinds.into_iter().enumerate() {
            new.lie(move |request, truth| {
                Raw::from(if kind(request) { Answer::refused(Code::Fault, "a fault") } else { truth })
            });
            match place {
                0 => ada.device.move_to(&new_home, None).await.unwrap_err(),
                _ => ada.device.settle().await.unwrap_err(),
            };
            assert_eq!(ada.home(), old.id, "it is not ready");
            ada = ada.start_again();
        }
        new.honest();
        ada.device.settle().await.unwrap();
        assert_eq!(ada.home(), new_home.id);
        let [left] = &ada.device.left().unwrap()[..] else { panic!("the old home is to be told") };
        // It is told once its mail was taken.
        ben.send(&ada, "to the old home").await.unwrap();
        assert!(is_refused(&ada.device.depart(left, Some(0)).await, Code::Superseded));
        let (mail, upto) = ada.mail_at(left).await;
        assert_eq!(mail, ["to the old home"]);
        ada.device.depart(left, Some(upto)).await.unwrap();
        assert!(ada.device.folder().state().unwrap().leaving.is_empty());
        // Ben knows only the old home.
        ben.send(&ada, "to the new home").await.unwrap();
        assert_eq!(ben.device.find(ada.id()).await.unwrap().id, new_home.id);
        assert_eq!(ben.device.picture(ada.id()).await.unwrap(), b"picture");
        assert_eq!(ada.mail().await, ["to the new home"]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_home_that_was_away_is_told_later_and_none_of_its_mail_is_lost() {
    within(async {
        let (old, bens) = (Running::start(Setup::default()).await, Running::start(Setup::default()).await);
        let new = Running::start(Setup::default()).await;
        let (ada, ben) = (Person::at(&at(&old)).await, Person::at(&at(&bens)).await);
        let (cem, dora) = (Person::at(&at(&bens)).await, Person::at(&at(&bens)).await);
        relate(&ada, &ben).await;
        // Ada has asked Cem, and Dora asks Ada: nobody has answered yet.
        introduce(&ada, &cem);
        introduce(&ada, &dora);
        ada.device.relate(cem.id(), "friend", "").await.unwrap();
        dora.device.relate(ada.id(), "friend", "").await.unwrap();
        let stopped = old.stop().await;
        let moved = ada.device.move_to(&at(&new), None).await.unwrap();
        assert!(moved.left.unwrap_err().is_of_home());
        assert_eq!((moved.unproven, ada.home()), (0, new.id));
        let old = stopped.start().await;
        // They know only the old home, which does not know of the move.
        ben.send(&ada, "to the old home").await.unwrap();
        assert!(matches!(cem.device.accept(ada.id()).await.unwrap(), Delivery::Done));
        let ada = ada.start_again();
        // Any command of the program completes the move.
        assert_eq!(ada.run(&["fetch"]), "");
        let saved = ada.saved_mail();
        assert!(saved.contains("to the old home") && saved.contains("accepted"), "{saved}");
        assert!(ada.device.folder().state().unwrap().leaving.is_empty());
        assert_eq!(ada.standing(&cem), Some(Standing::Held));
        assert!(ada.run(&["requests"]).contains(&dora.id().to_string()), "the request came along");
        assert!(matches!(ada.device.accept(dora.id()).await.unwrap(), Delivery::Done));
        for friend in [&ben, &cem] {
            friend.send(&ada, "to the new home").await.unwrap();
            assert_eq!(friend.device.find(ada.id()).await.unwrap().id, new.id);
        }
        assert_eq!(ada.mail().await, ["to the new home", "to the new home"]);
        drop(old);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_of_two_at_the_same_home_says_reaches_the_other_who_has_moved_away() {
    within(async {
        let (both, new) = (Running::start(Setup::default()).await, Running::start(Setup::default()).await);
        let (ada, ben) = (Person::at(&at(&both)).await, Person::at(&at(&both)).await);
        introduce(&ada, &ben);
        ada.device.relate(ben.id(), "friend", "").await.unwrap();
        ada.device.move_to(&at(&new), None).await.unwrap().left.unwrap();
        // Ada's request says that she is at the home that is also Ben's.
        assert!(matches!(ben.device.accept(ada.id()).await.unwrap(), Delivery::Done));
        assert_eq!(ada.mail().await, ["accepts"], "asked at the old home, expected at the new one");
        assert_eq!(ada.standing(&ben), Some(Standing::Held));
        ben.device
            .folder()
            .update(|state| state.contact_mut(ada.id()).home = Some(at(&both).address()))
            .unwrap();
        assert!(matches!(ben.device.revoke(ada.id()).await.unwrap(), Delivery::Done));
        assert_eq!(ada.mail().await, ["takes it back"]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_is_taken_back_or_refused_and_then_nothing_is_left_of_it() {
    within(async {
        let old = Running::start(Setup::default()).await;
        let new = Liar::start().await;
        let new_home = Home::parse(&new.address.to_string()).unwrap();
        let ada = Person::at(&at(&old)).await;
        let answers = |kind: fn(&Request) -> bool, code: Code| {
            new.lie(move |request, truth| {
                Raw::from(if kind(request) { Answer::refused(code, "no") } else { truth })
            });
        };
        answers(|request| matches!(request, Request::Register(_)), Code::Closed);
        ada.device.move_to(&new_home, None).await.unwrap_err();
        assert!(ada.device.folder().state().unwrap().moving.is_none(), "it was refused");
        answers(|request| matches!(request, Request::SetProfile(_)), Code::Fault);
        ada.device.move_to(&new_home, None).await.unwrap_err();
        assert!(ada.device.folder().state().unwrap().moving.is_some());
        ada.device.move_to(&at(&old), None).await.unwrap().left.unwrap();
        let ada = ada.start_again();
        new.honest();
        ada.run(&["profile", "show"]);
        let state = ada.device.folder().state().unwrap();
        assert!(state.moving.is_none() && state.leaving.is_empty());
        assert_eq!(ada.home(), old.id);
        let there = ada.device.fetch_from(&new_home).await.map(|_| ());
        assert!(is_refused(&there, Code::LogInFirst), "the other home hosts nobody: {there:?}");
        ada.device.move_to(&at(&old), None).await.unwrap_err();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_home_that_lets_nobody_in_for_now_is_left_and_its_mail_is_saved_later() {
    within(async {
        let (old, bens) = (Liar::start().await, Running::start(Setup::default()).await);
        let old_home = Home::parse(&old.address.to_string()).unwrap();
        let ben = Person::at(&at(&bens)).await;
        // Its clock is far ahead, or it has no room.
        for code in [Code::Envelope, Code::Full] {
            let ada = Person::at(&old_home).await;
            relate(&ada, &ben).await;
            ben.send(&ada, "confirmed as kept").await.unwrap();
            old.lie(move |request, truth| match request {
                Request::LogIn(..) => Answer::refused(code, "not now").into(),
                Request::Fetch(_) => Answer::refused(Code::LogInFirst, "log in first").into(),
                _ => truth.into(),
            });
            ada.run(&["move", "--to", &bens.address.to_string()]);
            assert_eq!((ada.home(), ada.saved_mail().as_str()), (bens.id, ""));
            old.honest();
            let ada = ada.start_again();
            ada.run(&["fetch"]);
            assert!(ada.saved_mail().contains("confirmed as kept"), "{code:?}");
            assert!(ada.device.folder().state().unwrap().leaving.is_empty());
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_that_broke_off_where_the_new_home_hosts_already_goes_on_or_that_home_is_told() {
    within(async {
        let old = Running::start(Setup::default()).await;
        let new = Liar::start().await;
        let new_home = Home::parse(&new.address.to_string()).unwrap();
        let mut ada = Person::at(&at(&old)).await;
        new.lie(|request, truth| match request {
            Request::SetProfile(_) => Answer::refused(Code::Fault, "a fault").into(),
            _ => truth.into(),
        });
        ada.device.move_to(&new_home, None).await.unwrap_err();
        // Conditions that may change: clocks differ, there is no room.
        new.lie(|_, truth| match truth {
            Answer::About(mut about) => {
                about.time += 300;
                Answer::About(about).into()
            }
            other => other.into(),
        });
        ada = ada.start_again();
        ada.device.settle().await.unwrap_err();
        for code in [Code::Full, Code::Envelope, Code::Closed] {
            assert!(ada.device.folder().state().unwrap().moving.is_some(), "before {code:?}");
            new.lie(move |request, truth| match request {
                Request::Register(_) => Answer::refused(code, "no").into(),
                _ => truth.into(),
            });
            ada = ada.start_again();
            ada.device.settle().await.unwrap_err();
        }
        let state = ada.device.folder().state().unwrap();
        assert_eq!((state.moving, state.leaving.len()), (None, 1), "it is to be told");
        new.honest();
        let ada = ada.start_again();
        ada.run(&["profile", "show"]);
        assert!(ada.device.folder().state().unwrap().leaving.is_empty());
        let there = ada.device.fetch_from(&new_home).await.map(|_| ());
        assert!(is_refused(&there, Code::LogInFirst), "it hosts nobody: {there:?}");
        assert_eq!(ada.home(), old.id);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_that_another_program_takes_back_under_way_leaves_the_persona_where_it_is() {
    within(async {
        let old = Running::start(Setup::default()).await;
        let new = Liar::start().await;
        let (old_home, new_home) = (at(&old), Home::parse(&new.address.to_string()).unwrap());
        let ada = Person::at(&old_home).await;
        let folder = ada.device.folder().clone();
        let mut other = Some(ada.other_program());
        new.lie(move |request, truth| {
            // The last step before the new home becomes the home.
            if matches!(request, Request::SetProfile(_))
                && let Some(other) = other.take()
            {
                libp2p::futures::executor::block_on(other.move_to(&old_home, None)).unwrap();
                // That program has told the new home that the move was cancelled.
                folder.update(|state| state.leaving.clear()).unwrap();
            }
            truth.into()
        });
        ada.device.move_to(&new_home, None).await.unwrap_err();
        assert_eq!(ada.home(), old.id);
        ada.device.claim().await.unwrap();
        let [left] = &ada.device.left().unwrap()[..] else {
            panic!("the new home hosts it and is to be told")
        };
        assert_eq!(left.id, new_home.id);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_home_that_is_the_persona_s_again_or_will_be_is_not_told_that_it_was_left() {
    within(async {
        let (home, other) = (Running::start(Setup::default()).await, Running::start(Setup::default()).await);
        let ada = Person::at(&at(&home)).await;
        let left = Leaving { home: at(&home).address(), to: None, since: u64::MAX / 2, next: 0 };
        ada.device.folder().update(|state| state.leaving.push(left)).unwrap();
        ada.device.depart(&at(&home), Some(0)).await.unwrap_err();
        ada.device.claim().await.unwrap();
        assert!(ada.device.folder().state().unwrap().leaving.is_empty(), "it never is");
        ada.device.move_to(&at(&other), None).await.unwrap().left.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_registers_again_has_the_same_relations_and_what_was_taken_back_stays_so() {
    within(async {
        let (home, bens) = (Running::start(Setup::default()).await, Running::start(Setup::default()).await);
        let (ada, ben) = (Person::at(&at(&home)).await, Person::at(&at(&bens)).await);
        let cem = Person::at(&at(&bens)).await;
        relate(&ada, &ben).await;
        relate(&ada, &cem).await;
        assert!(matches!(ada.device.revoke(cem.id()).await.unwrap(), Delivery::Done));
        ada.device.unregister(None).await.unwrap();
        ada.device.register(&at(&home), None).await.unwrap();
        ben.send(&ada, "still there?").await.unwrap();
        assert_eq!(ada.mail().await, ["still there?"]);
        // Cem has not fetched his mail, but holds the proof.
        let proof = cem.device.folder().state().unwrap().contact(ada.id()).cloned().unwrap();
        let proof = Request::Related(proof.request.unwrap(), proof.acceptance.unwrap());
        support::Device::at(&home).await.ask(proof).await;
        assert!(is_refused(&cem.send(&ada, "me too").await, Code::NotForYou));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_moves_is_told_that_sent_attachments_stay_behind() {
    within(async {
        let (old, new) = (Running::start(Setup::default()).await, Running::start(Setup::default()).await);
        let ada = Person::at(&at(&old)).await;
        for name in ["one", "two"] {
            ada.device.attach(name, b"bytes").await.unwrap();
        }
        for (home, said) in [(&new, true), (&old, false)] {
            let out = ada.outcome(&["move", "--to", &home.address.to_string()]);
            let stderr = String::from_utf8(out.stderr).unwrap();
            assert_eq!(out.status.code(), Some(0), "{stderr}");
            assert_eq!(stderr.contains("sent attachments stayed at the old home (2)"), said, "{stderr}");
            assert!(ada.run(&["blob", "list"]).is_empty());
        }
    })
    .await;
}

/// A request of the same second as a revocation is taken for an older one.
async fn next_second() {
    tokio::time::sleep(std::time::Duration::from_millis(1_100)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_taken_back_long_ago_ends_no_request_at_the_home_to_which_one_moves() {
    within(async {
        let (old, new) = (Running::start(Setup::default()).await, Running::start(Setup::default()).await);
        let (ada, ben) = (Person::at(&at(&old)).await, Person::at(&at(&old)).await);
        introduce(&ada, &ben);
        ada.device.relate(ben.id(), "friend", "").await.unwrap();
        assert!(matches!(ada.device.revoke(ben.id()).await.unwrap(), Delivery::Done));
        ben.device.move_to(&at(&new), None).await.unwrap().left.unwrap();
        next_second().await;
        ben.device.relate(ada.id(), "friend", "").await.unwrap();
        ada.device.move_to(&at(&new), None).await.unwrap().left.unwrap();
        assert!(ben.mail().await.is_empty(), "nothing of Ben's was taken back");
        ben.device.relations().await.unwrap();
        assert_eq!(ben.standing(&ada), Some(Standing::Asked));
        assert!(matches!(ada.device.accept(ben.id()).await.unwrap(), Delivery::Done));
        assert_eq!(ben.mail().await, ["accepts"]);
        assert_eq!(ben.standing(&ada), Some(Standing::Held));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn relations_that_a_registration_did_not_bring_are_brought_later() {
    within(async {
        let home = Liar::start().await;
        let (own, bens) =
            (Home::parse(&home.address.to_string()).unwrap(), Running::start(Setup::default()).await);
        let (ada, ben) = (Person::at(&own).await, Person::at(&at(&bens)).await);
        relate(&ada, &ben).await;
        ada.device.unregister(None).await.unwrap();
        home.lie(|request, truth| match request {
            Request::Related(..) => Answer::refused(Code::Fault, "a fault").into(),
            _ => truth.into(),
        });
        ada.device.register(&own, None).await.unwrap_err();
        assert_eq!(ada.home(), own.id, "it is hosted all the same");
        home.honest();
        let ada = ada.start_again();
        ada.device.settle().await.unwrap();
        ben.send(&ada, "still there?").await.unwrap();
        assert_eq!(ada.mail().await, ["still there?"]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_came_after_a_revocation_outlives_a_move_of_either() {
    within(async {
        let (xs, ys) = (Running::start(Setup::default()).await, Running::start(Setup::default()).await);
        let new = Running::start(Setup::default()).await;
        for asks_before in [true, false] {
            let (xen, yan) = (Person::at(&at(&xs)).await, Person::at(&at(&ys)).await);
            relate(&yan, &xen).await;
            assert!(matches!(yan.device.revoke(xen.id()).await.unwrap(), Delivery::Done));
            assert_eq!(xen.mail().await, ["takes it back"]);
            // Times are whole seconds, and a request of the same second does not hold.
            tokio::time::sleep(std::time::Duration::from_millis(1_100)).await;
            if asks_before {
                // Yan, who has not seen it, brings his revocation along.
                xen.device.relate(yan.id(), "friend", "once more").await.unwrap();
                yan.device.move_to(&at(&new), None).await.unwrap().left.unwrap();
            } else {
                // Xen brings along that it was taken back, and asks after that; then Yan moves.
                xen.device.move_to(&at(&new), None).await.unwrap().left.unwrap();
                xen.device.relate(yan.id(), "friend", "once more").await.unwrap();
                yan.device.move_to(&at(&new), None).await.unwrap().left.unwrap();
            }
            let waiting = yan.device.requests().await.unwrap();
            assert_eq!(waiting.iter().map(|wish| wish.from).collect::<Vec<_>>(), [xen.id()], "{asks_before}");
            assert_eq!(xen.standing(&yan), Some(Standing::Asked));
            assert!(matches!(yan.device.accept(xen.id()).await.unwrap(), Delivery::Done));
            assert_eq!(xen.mail().await, ["accepts"], "{asks_before}");
            assert_eq!(xen.standing(&yan), Some(Standing::Held));
        }
    })
    .await;
}
