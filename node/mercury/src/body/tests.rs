#![allow(clippy::unwrap_used)]
use super::*;
use crate::envelope::{Envelope, EnvelopeError, Expected, Order};
use crate::id::Key;

const NOW: u64 = 1_800_000_000;

/// Signs and verifies a body, as a home does.
fn taken<B: Body + PartialEq + std::fmt::Debug>(body: &B) -> bool {
    let key = Key::from_secret(&[1; 32]);
    let envelope = Envelope::sign(&key, "test", key.id(), Order::Sequence(1), (NOW, NOW), body);
    let bytes = envelope.to_bytes();
    let expected = Expected { network: "test", about: None, signer: None, now: NOW };
    match Envelope::from_bytes(&bytes).unwrap().verify::<B>(&expected) {
        Ok(verified) => {
            assert_eq!(verified.body(), body);
            true
        }
        Err(EnvelopeError::Body(_)) => false,
        Err(other) => panic!("{other}"),
    }
}

fn profile(attributes: Vec<Attribute>) -> Profile {
    let encryption_key = [1; 32].into();
    Profile { attributes, encryption_key, picture: None, thumbnail: None, tombstone: false }
}

fn attribute(name: &str, value: &str) -> Attribute {
    Attribute { name: name.to_owned(), value: value.to_owned() }
}

fn home(addresses: Vec<String>) -> HomeAddress {
    HomeAddress { home: Key::from_secret(&[2; 32]).id(), addresses }
}

fn address(length: usize) -> String {
    format!("/{}", "a".repeat(length - 1))
}

fn request(label: &str, note: &str, addresses: Vec<String>) -> RelationRequest {
    RelationRequest { label: label.to_owned(), note: note.to_owned(), home: home(addresses) }
}

#[test]
fn a_profile_has_so_many_bytes_and_attributes_and_not_one_more() {
    let of =
        |count: usize| profile((0..count).map(|number| attribute(&format!("{number:03}"), "")).collect());
    assert!(taken(&of(MAX_ATTRIBUTES)) && !taken(&of(MAX_ATTRIBUTES + 1)));
    let long = |length: usize| profile(vec![attribute("n", &"v".repeat(length))]);
    let around = crate::cbor::to_vec(&long(10_000)).len() - 10_000;
    assert!(taken(&long(MAX_PROFILE - around)) && !taken(&long(MAX_PROFILE - around + 1)));
}

#[test]
fn attributes_have_short_plain_names_each_once_and_in_order() {
    let longest = "n".repeat(MAX_ATTRIBUTE_NAME);
    for good in ["n", &longest, "../../etc/passwd", "stra\u{df}e"] {
        assert!(taken(&profile(vec![attribute(good, "any\n\0value")])), "{good}");
    }
    let over = "n".repeat(MAX_ATTRIBUTE_NAME + 1);
    for wrong in ["", &over, "a\nb", "a\0b", "\u{7f}"] {
        assert!(!taken(&profile(vec![attribute(wrong, "")])), "{wrong:?}");
    }
    assert!(taken(&profile(vec![attribute("a", ""), attribute("b", "")])));
    assert!(!taken(&profile(vec![attribute("b", ""), attribute("a", "")])));
    assert!(!taken(&profile(vec![attribute("a", "1"), attribute("a", "2")])));
}

#[test]
fn pictures_have_their_sizes_and_a_profile_that_was_taken_back_has_nothing() {
    let blob = |size| Some(BlobRef { hash: [1; 32].into(), size });
    for (size, picture, thumbnail) in [
        (0, false, false),
        (1, true, true),
        (MAX_THUMBNAIL, true, true),
        (MAX_THUMBNAIL + 1, true, false),
        (MAX_PICTURE, true, false),
        (MAX_PICTURE + 1, false, false),
        (u64::MAX, false, false),
    ] {
        assert_eq!(taken(&Profile { picture: blob(size), ..profile(vec![]) }), picture, "{size}");
        assert_eq!(taken(&Profile { thumbnail: blob(size), ..profile(vec![]) }), thumbnail, "{size}");
    }
    let back = Profile { tombstone: true, ..profile(vec![]) };
    assert!(taken(&back));
    for wrong in [
        Profile { attributes: vec![attribute("a", "")], ..back.clone() },
        Profile { picture: blob(1), ..back.clone() },
        Profile { thumbnail: blob(1), ..back },
    ] {
        assert!(!taken(&wrong));
    }
}

#[test]
fn blobs_have_one_byte_at_least_and_a_quota_at_most() {
    let sensible = |size| BlobRef { hash: [1; 32].into(), size }.is_sensible();
    assert!(!sensible(0) && sensible(1) && sensible(MAX_BLOBS) && !sensible(MAX_BLOBS + 1));
}

#[test]
fn labels_notes_and_addresses_are_short_and_plain() {
    let (label, note) = ("l".repeat(MAX_LABEL), "n".repeat(MAX_NOTE));
    let addresses = vec![address(MAX_ADDRESS); MAX_ADDRESSES];
    assert!(taken(&request(&label, &note, addresses.clone())), "all of the longest");
    assert!(taken(&request("../..", "\u{202e}\n", vec![])));
    assert!(!taken(&request("friend", &format!("{note}n"), vec![])));
    for wrong in ["", &format!("{label}l"), "two words", "line\n", "\u{e9}", "\0"] {
        assert!(!taken(&request(wrong, "", vec![])), "{wrong:?}");
        assert!(!taken(&CallOffer { application: wrong.to_owned(), device: vec![1; 38].into() }));
    }
    let over = [addresses.clone(), vec![address(1)]].concat();
    for wrong in [
        over,
        vec![address(MAX_ADDRESS + 1)],
        vec![String::new()],
        vec!["ip4".to_owned()],
        vec!["/ip4/1 2".to_owned()],
        vec!["/\n".to_owned()],
    ] {
        assert!(!taken(&request("friend", "", wrong.clone())), "{wrong:?}");
        assert!(!taken(&Departure { to: Some(home(wrong.clone())) }));
        assert!(!taken(&Contact { addresses: wrong }));
    }
    assert!(taken(&Departure { to: Some(home(addresses.clone())) }) && taken(&Departure { to: None }));
    assert!(taken(&Contact { addresses }));
}

#[test]
fn devices_are_as_long_as_peer_ids() {
    for (length, good) in [(0, false), (33, false), (34, true), (38, true), (42, true), (43, false)] {
        let device = || ByteVec::from(vec![1; length]);
        assert_eq!(taken(&Login { device: device() }), good, "{length}");
        assert_eq!(taken(&CallOffer { application: "chess".to_owned(), device: device() }), good);
        let token = [1; 32].into();
        let answer = CallAnswer { offer: [1; 32].into(), taken: Some(Taken { device: device(), token }) };
        assert_eq!(taken(&answer), good);
    }
    assert!(taken(&CallAnswer { offer: [1; 32].into(), taken: None }));
}

#[test]
fn a_message_has_at_least_its_tag() {
    let of = |length| Message { encapsulated: [1; 32].into(), ciphertext: vec![1; length].into() };
    assert!(!taken(&of(0)) && !taken(&of(15)) && taken(&of(16)));
}
