#![allow(clippy::unwrap_used)]
use libp2p::PeerId;
use minicbor::bytes::ByteArray;

use crate::body::{Attribute, BlobRef, Departure, HomeAddress, Profile};
use crate::envelope::Order;
use crate::home::testing::{Bench, Person, blob_of, code};
use crate::id::Key;
use crate::limits::{CHUNK, MAX_PICTURE, MAX_THUMBNAIL, REDIRECT_TIME};
use crate::wire::{Answer, Code, Request};

fn profile(name: &str) -> Profile {
    let attribute = Attribute { name: "name".to_owned(), value: name.to_owned() };
    Profile {
        attributes: vec![attribute],
        encryption_key: [9; 32].into(),
        picture: None,
        thumbnail: None,
        tombstone: false,
    }
}

fn with_picture(picture: BlobRef) -> Profile {
    Profile { picture: Some(picture), ..profile("Ada") }
}

fn tombstone() -> Profile {
    Profile { attributes: Vec::new(), tombstone: true, ..profile("") }
}

fn set(bench: &mut Bench, person: &Person, version: u64, body: &Profile) -> Answer {
    let envelope = bench.sign(person, person.id(), Order::Sequence(version), body);
    bench.ask(person.device, Request::SetProfile(envelope))
}

fn get(bench: &mut Bench, person: &Person) -> Answer {
    bench.ask(PeerId::random(), Request::GetProfile(person.id()))
}

#[test]
fn versions_only_go_upward() {
    let mut bench = Bench::new(|_| ());
    let ada = bench.resident(1);
    let fifth = bench.sign(&ada, ada.id(), Order::Sequence(5), &profile("Ada"));
    assert_eq!(bench.ask(ada.device, Request::SetProfile(fifth.clone())), Answer::Done);
    assert_eq!(bench.ask(ada.device, Request::SetProfile(fifth.clone())), Answer::Done, "the very same");
    for (version, name) in [(5, "Another Ada"), (4, "Ada"), (0, "Ada")] {
        let answer = set(&mut bench, &ada, version, &profile(name));
        assert_eq!(code(&answer), Some(Code::Superseded), "{version} {name}");
    }
    // The same version and body with other times is another envelope.
    bench.wait(1);
    assert_eq!(code(&set(&mut bench, &ada, 5, &profile("Ada"))), Some(Code::Superseded));
    assert_eq!(get(&mut bench, &ada), Answer::Profile(fifth.clone()));
    let mut bench = bench.restart(|_| ());
    assert_eq!(get(&mut bench, &ada), Answer::Profile(fifth), "after a restart");
    bench.log_in(&ada, &[]);
    assert_eq!(code(&set(&mut bench, &ada, 5, &profile("Another Ada"))), Some(Code::Superseded));
    assert_eq!(set(&mut bench, &ada, 6, &profile("Another Ada")), Answer::Done);
    assert_eq!(set(&mut bench, &ada, u64::MAX, &profile("The last Ada")), Answer::Done);
}

#[test]
fn a_profile_is_set_by_its_persona_alone_and_in_its_hosted_session() {
    let mut bench = Bench::new(|_| ());
    let (ada, bob) = (bench.resident(1), bench.resident(2));
    let visitor = bench.visitor(3);
    let envelope = bench.sign(&ada, ada.id(), Order::Sequence(1), &profile("Ada"));
    for (device, expected) in [
        (PeerId::random(), Code::LogInFirst),
        (visitor.device, Code::LogInFirst),
        (bob.device, Code::Envelope),
    ] {
        let answer = bench.ask(device, Request::SetProfile(envelope.clone()));
        assert_eq!(code(&answer), Some(expected));
    }
    assert_eq!(code(&set(&mut bench, &visitor, 1, &profile("A visitor"))), Some(Code::LogInFirst));
    let about_bob = bench.sign(&ada, bob.id(), Order::Sequence(1), &profile("Bob"));
    let with_nonce = bench.sign(&ada, ada.id(), Order::Nonce([1; 32]), &profile("Ada"));
    for wrong in [about_bob, with_nonce] {
        let answer = bench.ask(ada.device, Request::SetProfile(wrong));
        assert_eq!(code(&answer), Some(Code::Envelope));
    }
    let (of_ada, of_bob) = (get(&mut bench, &ada), get(&mut bench, &bob));
    assert_eq!((code(&of_ada), code(&of_bob)), (Some(Code::NotForYou), Some(Code::NotForYou)));
}

#[test]
fn nothing_follows_a_profile_that_was_taken_back() {
    let mut bench = Bench::new(|_| ());
    let ada = bench.resident(1);
    set(&mut bench, &ada, 1, &profile("Ada"));
    assert_eq!(set(&mut bench, &ada, 2, &tombstone()), Answer::Done);
    let mut bench = bench.restart(|_| ());
    bench.log_in(&ada, &[]);
    assert_eq!(set(&mut bench, &ada, 2, &tombstone()), Answer::Done, "the very same");
    for (version, body) in [(3, profile("Ada")), (3, tombstone()), (1, profile("Ada"))] {
        assert_eq!(code(&set(&mut bench, &ada, version, &body)), Some(Code::Superseded));
    }
    assert!(matches!(get(&mut bench, &ada), Answer::Profile(_)), "all see that it was taken back");
}

#[test]
fn pictures_are_complete_blobs_of_the_owner_of_the_size_that_is_said() {
    let mut bench = Bench::new(|_| ());
    let (ada, bob) = (bench.resident(1), bench.resident(2));
    let picture = bench.upload(&ada, b"a picture");
    let of_bob = bench.upload(&bob, b"Bob's picture");
    let half = blob_of(&[5; MAX_PICTURE as usize]);
    bench.ask(ada.device, Request::Offer(half));
    let longer = BlobRef { size: picture.size + 1, ..picture };
    let missing = BlobRef { hash: ByteArray::from([7; 32]), size: 10 };
    for wrong in [of_bob, half, longer, missing] {
        assert_eq!(code(&set(&mut bench, &ada, 1, &with_picture(wrong))), Some(Code::Malformed));
        let thumbnail = Profile { thumbnail: Some(wrong), ..with_picture(picture) };
        let expected = if wrong.size > MAX_THUMBNAIL { Code::Envelope } else { Code::Malformed };
        assert_eq!(code(&set(&mut bench, &ada, 1, &thumbnail)), Some(expected));
    }
    let both = Profile { thumbnail: Some(picture), ..with_picture(picture) };
    assert_eq!(set(&mut bench, &ada, 1, &both), Answer::Done);
}

#[test]
fn the_longest_picture_and_thumbnail_are_taken_and_one_byte_more_is_not() {
    let mut bench = Bench::new(|_| ());
    let ada = bench.resident(1);
    const { assert!(MAX_PICTURE < CHUNK as u64) };
    let mut version = 0;
    for (most, thumbnail) in [(MAX_PICTURE, false), (MAX_THUMBNAIL, true)] {
        for (size, expected) in [(most, None), (most + 1, Some(Code::Envelope))] {
            let blob = bench.upload(&ada, &vec![u8::from(thumbnail); size as usize]);
            let body = if thumbnail {
                Profile { thumbnail: Some(blob), ..profile("Ada") }
            } else {
                with_picture(blob)
            };
            version += 1;
            assert_eq!(code(&set(&mut bench, &ada, version, &body)), expected, "{size}");
        }
    }
}

#[test]
fn the_pictures_of_a_replaced_profile_stay_the_owners_who_may_discard_them() {
    let mut bench = Bench::new(|_| ());
    let ada = bench.resident(1);
    let (old, new) = (bench.upload(&ada, b"old"), bench.upload(&ada, b"new"));
    set(&mut bench, &ada, 1, &with_picture(old));
    let discard = |bench: &mut Bench, blob: BlobRef| bench.ask(ada.device, Request::Discard(blob.hash));
    assert_eq!(code(&discard(&mut bench, old)), Some(Code::Superseded));
    set(&mut bench, &ada, 2, &with_picture(new));
    let stranger = PeerId::random();
    let read = |device, blob: BlobRef| (device, Request::GetChunk(ada.id(), blob.hash, 0));
    for (device, request) in [read(stranger, new), read(ada.device, old)] {
        assert!(matches!(bench.ask(device, request), Answer::Chunk(_)));
    }
    let (device, request) = read(stranger, old);
    assert_eq!(code(&bench.ask(device, request)), Some(Code::LogInFirst), "no longer for anyone");
    assert_eq!(discard(&mut bench, old), Answer::Done);
    assert_eq!(code(&discard(&mut bench, new)), Some(Code::Superseded));
    assert_eq!(set(&mut bench, &ada, 3, &tombstone()), Answer::Done);
    assert_eq!(discard(&mut bench, new), Answer::Done);
}

#[test]
fn hosted_without_a_profile_is_told_from_unknown_by_nobody() {
    let mut bench = Bench::new(|_| ());
    let (ada, unknown) = (bench.resident(1), Person::new(77));
    let bob = bench.resident(2);
    for device in [PeerId::random(), bob.device] {
        let known = bench.ask(device, Request::GetProfile(ada.id()));
        assert_eq!(known, bench.ask(device, Request::GetProfile(unknown.id())));
        assert_eq!(code(&known), Some(Code::NotForYou));
    }
}

#[test]
fn a_persona_that_left_is_found_for_fourteen_days() {
    let mut bench = Bench::new(|_| ());
    let ada = bench.resident(1);
    set(&mut bench, &ada, 1, &profile("Ada"));
    let to = HomeAddress {
        home: Key::from_secret(&[201; 32]).id(),
        addresses: vec!["/ip4/127.0.0.1/tcp/2".to_owned()],
    };
    let order = bench.challenge(ada.device);
    let departure = bench.sign(&ada, bench.home.id(), order, &Departure { to: Some(to) });
    assert_eq!(bench.ask(ada.device, Request::Unregister(departure.clone(), None)), Answer::Done);
    assert_eq!(get(&mut bench, &ada), Answer::Moved(departure.clone()));
    let mut bench = bench.restart(|_| ());
    bench.wait(REDIRECT_TIME);
    assert_eq!(get(&mut bench, &ada), Answer::Moved(departure));
    bench.wait(1);
    let unknown = get(&mut bench, &Person::new(77));
    assert_eq!(get(&mut bench, &ada), unknown);
}
