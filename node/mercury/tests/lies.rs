//! Homes that lie to a device, and peers that meddle in what is not theirs: nothing of it is believed. Lies about
//! mail and relations are in `lies_people.rs`.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::{Arc, Mutex};

use iop_mercury::body::{
    BlobRef, CallAnswer, CallOffer, Departure, Hosting, Profile, RelationAcceptance, RelationRevocation,
    Taken,
};
use iop_mercury::client::folder::{Folder, Standing};
use iop_mercury::client::{ClientError, Device, Home, Settings, Told};
use iop_mercury::envelope::{Envelope, Order};
use iop_mercury::id::{Id, Key};
use iop_mercury::wire::{Answer, Code, Event, MAX_ANSWER, Presence, Request};
use libp2p::PeerId;
use support::liar::{Liar, Raw};
use support::victim::{Victim, lie, profile, sign};
use support::{NETWORK, verified, wall, within};
use tokio::sync::mpsc;

#[tokio::test(flavor = "multi_thread")]
async fn another_peer_under_a_homes_address_is_not_the_home() {
    within(async {
        let victim = Victim::new().await;
        let other = Key::generate().unwrap().peer_key().public().to_peer_id();
        let mut address = victim.liar.address.clone();
        address.pop();
        let home = Home::parse(&format!("{address}/p2p/{other}")).unwrap();
        let error = victim.device.about(&home).await.unwrap_err();
        assert!(matches!(error, ClientError::Unreachable(_)), "{error}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hosting_proof_has_to_be_the_homes_and_about_us() {
    within(async {
        let victim = Victim::new().await;
        let (folder, other) = (tempfile::tempdir().unwrap(), Key::generate().unwrap());
        let kept = Folder::create(&folder.path().join("new"), NETWORK).unwrap();
        let (device, _told) = Device::start(kept, Settings::default()).unwrap();
        let secret = victim.liar.key.secret();
        for case in 0..3 {
            let (home, stranger, me) =
                (Key::from_secret(&secret), Key::from_secret(&other.secret()), device.id());
            victim.liar.lie(move |request, truth| match truth {
                Answer::Hosting(registration, _) => {
                    let Request::Register(_) = request else { panic!("{request:?}") };
                    let body = Hosting { registration: [0; 32].into() };
                    let proof = match case {
                        0 => sign(&stranger, me, Order::Sequence(wall()), &body),
                        1 => sign(&home, stranger.id(), Order::Sequence(wall()), &body),
                        _ => sign(&home, me, Order::Sequence(wall()), &body),
                    };
                    Answer::Hosting(registration, proof).into()
                }
                truth => truth.into(),
            });
            lie(device.register(&victim.home(), None).await);
            assert!(device.folder().state().unwrap().home.is_none());
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_and_older_profiles_are_not_shown() {
    within(async {
        let victim = Victim::new().await;
        let (friend, stranger) = (victim.friend(), Key::generate().unwrap());
        let ask = |request: &Request| matches!(request, Request::GetProfile(_));
        let good = sign(&victim.friend, friend, Order::Sequence(5), &profile());
        victim.answers(ask, Answer::Profile(good.clone()));
        victim.device.profile(friend).await.unwrap();
        let mut flipped = minicbor::to_vec(&good).unwrap();
        *flipped.last_mut().unwrap() ^= 1;
        for wrong in [
            sign(&stranger, friend, Order::Sequence(6), &profile()),
            sign(&stranger, stranger.id(), Order::Sequence(6), &profile()),
            sign(&victim.friend, stranger.id(), Order::Sequence(6), &profile()),
            sign(&victim.friend, friend, Order::Sequence(4), &profile()),
            Envelope::from_bytes(&flipped).unwrap(),
        ] {
            victim.answers(ask, Answer::Profile(wrong));
            lie(victim.device.profile(friend).await);
        }
        // Redirects are not followed forever, not even the persona's own.
        let to = Some(victim.address());
        let left =
            sign(&victim.friend, victim.home().id, Order::Nonce([1; 32]), &Departure { to: to.clone() });
        victim.answers(ask, Answer::Moved(left));
        lie(victim.device.profile(friend).await);
        let left = sign(&stranger, victim.home().id, Order::Nonce([1; 32]), &Departure { to });
        victim.answers(ask, Answer::Moved(left));
        lie(victim.device.profile(friend).await);
        victim.answers(ask, Answer::Done);
        lie(victim.device.profile(friend).await);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_is_answered_by_the_one_who_was_called_and_by_nobody_else() {
    within(async {
        let victim = Victim::new().await;
        let (me, friend, stranger) = (victim.device.id(), victim.friend(), Key::generate().unwrap());
        let secrets = [victim.friend.secret(), stranger.secret()];
        let own_profile = sign(&victim.friend, friend, Order::Sequence(1), &profile());
        for case in 0..4 {
            let [called, third] = [&secrets[0], &secrets[1]].map(|secret| Key::from_secret(secret));
            let own_profile = own_profile.clone();
            victim.liar.lie(move |request, truth| match request {
                Request::GetProfile(_) => Answer::Profile(own_profile.clone()).into(),
                Request::Call(offer) => {
                    let offer = verified::<CallOffer>(offer);
                    let device = PeerId::random().to_bytes().into();
                    let taken = Some(Taken { device, token: [1; 32].into() });
                    let answer = CallAnswer { offer: offer.hash().into(), taken };
                    let other = CallAnswer { offer: [7; 32].into(), ..answer.clone() };
                    let answer = match case {
                        0 => sign(&third, me, offer.order(), &answer),
                        1 => sign(&called, third.id(), offer.order(), &answer),
                        2 => sign(&called, me, offer.order(), &other),
                        _ => sign(&called, me, Order::Nonce([3; 32]), &answer),
                    };
                    Answer::Answered(answer).into()
                }
                _ => truth.into(),
            });
            lie(victim.device.call(friend, "chat").await);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_of_strangers_and_for_what_was_not_announced_are_not_told() {
    within(async {
        let mut victim = Victim::new().await;
        let (me, peer, stranger) = (victim.device.id(), victim.device.peer(), Key::generate().unwrap());
        // The liar relays nothing, so the session has no applications until they are announced.
        victim.device.log_in(&[]).await.unwrap();
        let offer = |key: &Key, about: Id, application: &str, nonce: u8| {
            let device = PeerId::random().to_bytes().into();
            let body = CallOffer { application: application.to_owned(), device };
            Event::Call(sign(key, about, Order::Nonce([nonce; 32]), &body))
        };
        for event in [
            offer(&stranger, me, "chat", 1),
            offer(&victim.friend, stranger.id(), "chat", 2),
            offer(&victim.friend, me, "chat", 3),
            Event::Presence(Presence { persona: stranger.id(), applications: None }),
        ] {
            victim.liar.tell(peer, event);
        }
        victim.liar.tell(peer, Event::Mail(7));
        assert!(matches!(victim.told.recv().await, Some(Told::Mail)), "nothing of the rest is told");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_are_too_long_or_make_no_sense_are_lies() {
    within(async {
        let victim = Victim::new().await;
        for bytes in [vec![0; MAX_ANSWER + 1], b"\xff".to_vec(), Vec::new(), vec![0x9f; 1000]] {
            let about = Raw(bytes.clone());
            victim.liar.lie(move |request, truth| match request {
                Request::About => Raw(about.0.clone()),
                _ => truth.into(),
            });
            lie(victim.device.about(&victim.home()).await);
        }
        victim.answers(|request| matches!(request, Request::About), Answer::Done);
        lie(victim.device.about(&victim.home()).await);
        let words = Answer::refused(Code::Fault, format!("\u{1b}]0;pwned\u{7}{}", "x".repeat(400_000)));
        victim.answers(|request| matches!(request, Request::About), words);
        let said = victim.device.about(&victim.home()).await.unwrap_err().to_string();
        assert!(said.len() < 1000 && !said.contains(char::is_control), "{said}");
        victim.liar.honest();
        victim.device.about(&victim.home()).await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_events_is_dropped_and_the_loss_of_the_home_is_told_all_the_same() {
    within(async {
        let mut victim = Victim::new().await;
        victim.device.log_in(&[]).await.unwrap();
        for number in 0..20_000 {
            victim.liar.tell(victim.device.peer(), Event::Mail(number));
        }
        // The device keeps working meanwhile.
        victim.device.about(&victim.home()).await.unwrap();
        let Victim { liar, device, ref mut told, .. } = victim;
        drop(liar);
        let mut mails = 0;
        loop {
            match told.recv().await.unwrap() {
                Told::Mail => mails += 1,
                Told::Lost => break,
                other => panic!("{other:?}"),
            }
        }
        assert!(mails < 20_000, "{mails}");
        drop(device);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn blobs_are_what_their_hash_says_and_uploads_go_forward() {
    within(async {
        let victim = Victim::new().await;
        let get = |request: &Request| matches!(request, Request::GetChunk(..));
        let blob = BlobRef { hash: [1; 32].into(), size: 10 };
        let home = victim.home();
        for chunk in [vec![0; 10], vec![0; 9], vec![0; 11], Vec::new()] {
            victim.answers(get, Answer::Chunk(chunk.into()));
            lie(victim.device.download(victim.friend(), &blob, &home).await);
        }
        let huge = BlobRef { size: u64::MAX, ..blob };
        lie(victim.device.download(victim.friend(), &huge, &home).await);
        let asked = Arc::new(Mutex::new(0));
        for (offered, after) in [(9, 9), (0, 0), (0, 7)] {
            let count = Arc::clone(&asked);
            victim.liar.lie(move |request, truth| match request {
                Request::Offer(_) => Answer::Next(offered).into(),
                Request::Chunk(..) => {
                    *count.lock().unwrap() += 1;
                    Answer::Next(after).into()
                }
                _ => truth.into(),
            });
            lie(victim.device.upload(&[1; 40_000]).await);
        }
        assert_eq!(*asked.lock().unwrap(), 2, "no chunk is sent again and again");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_strangers_profile_does_not_go_back_to_an_older_version_either() {
    within(async {
        let victim = Victim::new().await;
        let stranger = Key::generate().unwrap();
        let id = stranger.id();
        let ask = |request: &Request| matches!(request, Request::GetProfile(_));
        let shown = |version| Answer::Profile(sign(&stranger, id, Order::Sequence(version), &profile()));
        let known = |victim: &Victim| {
            let home = Some(victim.address());
            victim.device.folder().update(|state| state.contact_mut(id).home = home).unwrap();
        };
        victim.answers(ask, shown(5));
        victim.device.profile(id).await.unwrap();
        assert!(victim.device.folder().state().unwrap().contact(id).is_none());
        victim.answers(ask, shown(4));
        lie(victim.device.profile(id).await);
        known(&victim);
        lie(victim.device.profile(id).await);
        victim.answers(ask, shown(5));
        victim.device.profile(id).await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_two_profiles_have_one_version_whatever_becomes_of_the_homes_answer() {
    within(async {
        let victim = Victim::new().await;
        // Versions are ahead of the clock, so that the clock makes no difference.
        let (me, key) = (victim.device.id(), victim.device.folder().key().unwrap());
        let own = sign(&key, me, Order::Sequence(wall() + 1000), &profile());
        victim.device.folder().update(|state| state.profile = Some(own)).unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let count = Arc::clone(&seen);
        victim.liar.lie(move |request, truth| {
            let Request::SetProfile(envelope) = request else { return truth.into() };
            assert_eq!(truth, Answer::Done, "the home takes it");
            count.lock().unwrap().push(verified::<Profile>(envelope).order());
            // The device does not learn the outcome.
            Answer::refused(Code::Fault, "a fault").into()
        });
        let set = |name: &str| victim.device.set_attributes(vec![(name.to_owned(), Some("1".to_owned()))]);
        for name in ["one", "two"] {
            set(name).await.unwrap_err();
        }
        let shown = seen.lock().unwrap().clone();
        assert!(shown.len() == 2 && shown[0] != shown[1], "{shown:?}");
        victim.liar.honest();
        // It is sent again at the next start, and nothing is lost.
        victim.device.settle().await.unwrap();
        assert!(!victim.device.folder().state().unwrap().unshown);
        let profile = victim.device.profile(me).await.unwrap();
        assert_eq!(profile.order(), shown[1]);
        let names: Vec<_> = profile.body().attributes.iter().map(|one| one.name.as_str()).collect();
        assert_eq!(names, ["one", "two"]);
        // A profile that the home refuses is not kept.
        victim.answers(
            |request| matches!(request, Request::SetProfile(_)),
            Answer::refused(Code::Malformed, "no"),
        );
        set("three").await.unwrap_err();
        assert_eq!(victim.device.own_profile().unwrap().unwrap().body(), profile.body());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn presence_is_asked_on_for_where_an_answer_is_cut_and_a_home_makes_no_endless_work_of_it() {
    within(async {
        let victim = Victim::new().await;
        let (other, address) = (Key::generate().unwrap(), victim.address());
        let update = victim.device.folder().update(|state| {
            let contact = state.contact_mut(other.id());
            (contact.standing, contact.home) = (Standing::Held, Some(address));
        });
        update.unwrap();
        let mut friends = [victim.friend(), other.id()];
        friends.sort_unstable();
        let profiles = [&victim.friend, &other]
            .map(|key| (key.id(), sign(key, key.id(), Order::Sequence(1), &profile())));
        for endless in [false, true] {
            let profiles = profiles.clone();
            victim.liar.lie(move |request, truth| match request {
                Request::GetProfile(id) => {
                    let profile = profiles.iter().find(|(persona, _)| persona == id).unwrap();
                    Answer::Profile(profile.1.clone()).into()
                }
                Request::Presence(asked) => {
                    let first = *asked.iter().min().unwrap();
                    let there = Presence { persona: first, applications: Some(Vec::new()) };
                    Answer::Presence(vec![there], endless || asked.len() > 1).into()
                }
                _ => truth.into(),
            });
            let there = victim.device.presence(&friends).await.unwrap();
            assert!(there.iter().map(|one| one.persona).eq(friends), "{endless}: {there:?}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_home_that_lies_on_presence_hides_its_own_people_only() {
    within(async {
        let victim = Victim::new().await;
        let (other, elsewhere) = (Key::generate().unwrap(), Liar::start().await);
        let address = Home::parse(&elsewhere.address.to_string()).unwrap().address();
        let update = victim.device.folder().update(|state| {
            let contact = state.contact_mut(other.id());
            (contact.standing, contact.home) = (Standing::Held, Some(address));
        });
        update.unwrap();
        for (liar, key, is_honest) in [(&victim.liar, &victim.friend, true), (&elsewhere, &other, false)] {
            let profile = sign(key, key.id(), Order::Sequence(1), &profile());
            liar.lie(move |request, truth| match request {
                Request::GetProfile(_) => Answer::Profile(profile.clone()).into(),
                Request::Presence(asked) if is_honest => {
                    let there = Presence { persona: asked[0], applications: Some(Vec::new()) };
                    Answer::Presence(vec![there], false).into()
                }
                Request::Presence(_) => Answer::Done.into(),
                _ => truth.into(),
            });
        }
        // In both orders, since the first one is asked first.
        for friends in [[other.id(), victim.friend()], [victim.friend(), other.id()]] {
            let there = victim.device.presence(&friends).await.unwrap();
            assert!(there.iter().map(|one| one.persona).eq([victim.friend()]), "{there:?}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_home_that_says_nothing_costs_its_time_once_and_hides_its_own_people_only() {
    within(async {
        let victim = Victim::new().await;
        let stuck = Liar::start().await;
        let address = Home::parse(&stuck.address.to_string()).unwrap().address();
        // One after the other, they would take longer than a test may.
        let mut friends: Vec<_> = (0..20).map(|_| Key::generate().unwrap().id()).collect();
        let update = victim.device.folder().update(|state| {
            for id in &friends {
                let contact = state.contact_mut(*id);
                (contact.standing, contact.home) = (Standing::Held, Some(address.clone()));
            }
        });
        update.unwrap();
        friends.push(victim.friend());
        let (release, held) = std::sync::mpsc::channel::<()>();
        stuck.lie(move |_, truth| {
            // Nothing comes: it ends when the test has dropped the other end.
            let _ = tokio::task::block_in_place(|| held.recv());
            truth.into()
        });
        let told = sign(&victim.friend, victim.friend(), Order::Sequence(1), &profile());
        victim.liar.lie(move |request, truth| match request {
            Request::GetProfile(_) => Answer::Profile(told.clone()).into(),
            Request::Presence(asked) => {
                let there = Presence { persona: asked[0], applications: Some(Vec::new()) };
                Answer::Presence(vec![there], false).into()
            }
            _ => truth.into(),
        });
        let there = victim.device.presence(&friends).await.unwrap();
        drop(release);
        assert!(there.iter().map(|one| one.persona).eq([victim.friend()]), "{there:?}");
    })
    .await;
}

/// A victim that has revoked its friend's request moves to a new home without room for proofs; the friend's
/// relation must be revoked there all the same.
async fn move_with_a_revocation(accepted: bool) {
    let victim = Victim::new().await;
    let friend = victim.friend();
    let take_back = victim.device.folder().update(|state| {
        let contact = state.contact_mut(friend);
        let hash = contact.request.as_ref().unwrap().hash();
        let acceptance = RelationAcceptance { request: hash.into() };
        contact.acceptance =
            accepted.then(|| sign(&victim.friend, friend, Order::Nonce([1; 32]), &acceptance));
        contact.take_back(hash, wall(), None);
    });
    take_back.unwrap();
    let (new, (tell, mut told)) = (Liar::start().await, mpsc::unbounded_channel());
    new.lie(move |request, truth| match (request, truth) {
        (Request::Related(..), _) => Answer::refused(Code::Full, "no room").into(),
        (Request::Revoke(revocation), Answer::Done) => {
            tell.send(verified::<RelationRevocation>(revocation).about()).unwrap();
            Answer::Done.into()
        }
        (_, truth) => truth.into(),
    });
    let home = Home::parse(&new.address.to_string()).unwrap();
    assert_eq!(victim.device.move_to(&home, None).await.unwrap().unproven, 0);
    assert_eq!(told.try_recv(), Ok(friend));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_moves_brings_the_revocation_of_a_request_that_was_never_accepted() {
    within(move_with_a_revocation(false)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_moves_brings_a_revocation_also_where_there_is_no_room_for_its_proof() {
    within(move_with_a_revocation(true)).await;
}
