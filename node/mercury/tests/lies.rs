//! Homes that lie to a device, and peers that take part in what is not theirs: nothing of it is believed.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::{Arc, Mutex};

use iop_mercury::body::{
    BlobRef, CallAnswer, CallOffer, Departure, HomeAddress, Hosting, Message, Profile, RelationAcceptance,
    RelationRequest, RelationRevocation, Taken,
};
use iop_mercury::client::folder::{Folder, Standing};
use iop_mercury::client::seal::{Binding, Letter, seal};
use iop_mercury::client::{ClientError, Device, Home, Received, Settings, Told};
use iop_mercury::envelope::{Body, Envelope, Order};
use iop_mercury::id::{Id, Key};
use iop_mercury::limits::{CLOCK_SKEW, MAX_FETCH, MAX_MAIL_COUNT};
use iop_mercury::wire::{Answer, Code, Event, MAX_ANSWER, Mail, Presence, Relation, Request};
use libp2p::PeerId;
use support::liar::{Liar, Raw};
use support::{NETWORK, verified, wall, within};
use tokio::sync::mpsc;

/// A device whose home lies, and a friend of it of whom only the key is there.
struct Victim {
    liar: Liar,
    device: Device,
    told: mpsc::Receiver<Told>,
    friend: Key,
    _folder: tempfile::TempDir,
}

fn sign<B: Body>(key: &Key, about: Id, order: Order, body: &B) -> Envelope {
    let now = wall();
    Envelope::sign(key, NETWORK, about, order, (now, now + B::LIFE), body)
}

fn profile() -> Profile {
    Profile {
        attributes: Vec::new(),
        encryption_key: [9; 32].into(),
        picture: None,
        thumbnail: None,
        tombstone: false,
    }
}

impl Victim {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let kept = Folder::create(&folder.path().join("me"), NETWORK).unwrap();
        let (device, told) = Device::start(kept, Settings { listen: None, direct: false }).unwrap();
        let victim = Self {
            liar: Liar::start().await,
            device,
            told,
            friend: Key::generate().unwrap(),
            _folder: folder,
        };
        victim.device.register(&victim.home(), None).await.unwrap();
        victim.befriend();
        victim
    }

    fn home(&self) -> Home {
        Home::parse(&self.liar.address.to_string()).unwrap()
    }

    fn address(&self) -> HomeAddress {
        self.home().address()
    }

    fn friend(&self) -> Id {
        self.friend.id()
    }

    /// The friend asked, and the device agreed.
    fn befriend(&self) {
        let me = self.device.id();
        let body = RelationRequest { label: "friend".into(), note: String::new(), home: self.address() };
        let request = sign(&self.friend, me, Order::Nonce([1; 32]), &body);
        let address = self.address();
        self.device
            .folder()
            .update(|state| {
                let contact = state.contact_mut(self.friend.id());
                contact.standing = Standing::Held;
                contact.home = Some(address);
                contact.request = Some(request);
            })
            .unwrap();
    }

    /// Always this answer to requests of a kind, and the truth to others.
    fn answers(&self, kind: fn(&Request) -> bool, answer: Answer) {
        self.liar.lie(move |request, truth| Raw::from(if kind(request) { answer.clone() } else { truth }));
    }

    fn message(&self, key: &Key, about: Id, nonce: u8, text: &str) -> Envelope {
        let encryption_key = self.device.folder().sealing_key().unwrap().public();
        let binding = Binding { sender: key.id(), recipient: about, nonce: [nonce; 32] };
        let letter = Letter { text: text.to_owned(), attachments: Vec::new() };
        sign(key, about, Order::Nonce([nonce; 32]), &seal(&encryption_key, &binding, &letter).unwrap())
    }
}

fn lie(result: Result<impl Sized, ClientError>) {
    match result {
        Err(ClientError::Lie(_)) => {}
        Err(other) => panic!("a lie that is taken for something else: {other}"),
        Ok(_) => panic!("a lie that is believed"),
    }
}

fn mail(number: u64, envelope: Envelope) -> Mail {
    Mail { number, received: 0, envelope }
}

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
        // Nobody is sent about for ever, not even by the persona itself.
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
async fn forged_mail_is_thrown_away_and_repeated_mail_comes_once() {
    within(async {
        let victim = Victim::new().await;
        let (me, friend, stranger) = (victim.device.id(), &victim.friend, Key::generate().unwrap());
        let good = victim.message(friend, me, 1, "good");
        // Sealed under another nonce, as if it were put into a new envelope.
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
            mail(7, sign(friend, me, Order::Nonce([7; 32]), &acceptance)),
            mail(8, sign(friend, friend.id(), Order::Sequence(8), &profile())),
        ];
        victim.answers(is_fetch, Answer::Mail(items, false));
        let page = victim.device.fetch().await.unwrap();
        let letters = page.items.iter().filter(|one| matches!(one, Received::Letter { .. })).count();
        let refused = page.items.iter().filter(|one| matches!(one, Received::Refused(_))).count();
        assert_eq!((letters, refused, page.items.len()), (1, 6, 7), "{:?}", page.items);
        victim.device.acknowledge(&page).await.unwrap();
        assert!(!victim.device.folder().state().unwrap().holds(stranger.id()));
        // Again under a new number, as a home would that wants a message to come twice.
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
        // The liar relays nothing: the session has no applications until they are announced.
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
        // The device answers for itself meanwhile.
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

fn is_fetch(request: &Request) -> bool {
    matches!(request, Request::Fetch(_))
}

/// Signed some seconds from now.
fn sign_in<B: Body>(key: &Key, about: Id, nonce: u8, body: &B, seconds: i64) -> Envelope {
    let issued = wall().checked_add_signed(seconds).unwrap();
    Envelope::sign(key, NETWORK, about, Order::Nonce([nonce; 32]), (issued, issued + B::LIFE), body)
}

fn hash_of<B: Body>(envelope: &Envelope) -> [u8; 32] {
    verified::<B>(envelope).hash()
}

impl Victim {
    /// A request of the friend's and the device's acceptance of it.
    fn proof(&self, nonce: u8, seconds: i64) -> (Envelope, Envelope) {
        let body = RelationRequest { label: "friend".into(), note: String::new(), home: self.address() };
        let request = sign_in(&self.friend, self.device.id(), nonce, &body, seconds);
        let body = RelationAcceptance { request: hash_of::<RelationRequest>(&request).into() };
        let key = self.device.folder().key().unwrap();
        let acceptance = sign_in(&key, self.friend(), nonce, &body, seconds);
        (request, acceptance)
    }

    /// A message of the friend's, signed some seconds from now.
    fn message_in(&self, nonce: u8, seconds: i64) -> Envelope {
        let me = self.device.id();
        let encryption_key = self.device.folder().sealing_key().unwrap().public();
        let binding = Binding { sender: self.friend(), recipient: me, nonce: [nonce; 32] };
        let letter = Letter { text: nonce.to_string(), attachments: Vec::new() };
        sign_in(&self.friend, me, nonce, &seal(&encryption_key, &binding, &letter).unwrap(), seconds)
    }

    fn standing(&self) -> Standing {
        self.device.folder().state().unwrap().contact(self.friend()).unwrap().standing
    }

    /// The friend takes back what [`Victim::befriend`] made.
    fn revocation(&self, nonce: u8) -> Envelope {
        let state = self.device.folder().state().unwrap();
        let request = state.contact(self.friend()).unwrap().request.clone().unwrap();
        let body = RelationRevocation { request: hash_of::<RelationRequest>(&request).into() };
        sign(&self.friend, self.device.id(), Order::Nonce([nonce; 32]), &body)
    }
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
        // The old request as a new one.
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
        // Ever new numbers.
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
async fn who_moves_brings_the_revocation_of_a_request_that_was_never_accepted() {
    within(async {
        let victim = Victim::new().await;
        let friend = victim.friend();
        let take_back = victim.device.folder().update(|state| {
            let contact = state.contact_mut(friend);
            let hash = contact.request.as_ref().unwrap().hash();
            contact.take_back(hash, wall(), None);
        });
        take_back.unwrap();
        let (new, (tell, mut told)) = (Liar::start().await, mpsc::unbounded_channel());
        new.lie(move |request, truth| {
            if let (Request::Revoke(revocation), Answer::Done) = (request, &truth) {
                tell.send(verified::<RelationRevocation>(revocation).about()).unwrap();
            }
            truth.into()
        });
        let home = Home::parse(&new.address.to_string()).unwrap();
        assert_eq!(victim.device.move_to(&home, None).await.unwrap().unproven, 0);
        assert_eq!(told.try_recv(), Ok(friend));
    })
    .await;
}
