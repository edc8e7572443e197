#![allow(clippy::unwrap_used)]
use std::fmt::Debug;

use ed25519_dalek::Verifier;

use super::*;
use crate::body::{self, BlobRef, HomeAddress, Message, Taken};
use crate::limits::MAX_MESSAGE;

const NETWORK: &str = "test";
const NOW: u64 = 1_800_000_000;
const NONCE: Order = Order::Nonce([0x5a; 32]);

fn key(number: u8) -> Key {
    Key::from_secret(&[number; 32])
}

/// An envelope by anyone, about anyone.
fn any() -> Expected<'static> {
    Expected { network: NETWORK, about: None, signer: None, now: NOW }
}

/// An envelope by Ada, about Bob.
fn from_ada_about_bob() -> Expected<'static> {
    Expected { about: Some(key(2).id()), signer: Some(key(1).id()), ..any() }
}

fn message() -> Message {
    Message { encapsulated: [3; 32].into(), ciphertext: vec![7; 40].into() }
}

fn sign<B: Body>(body: &B) -> Envelope {
    Envelope::sign(&key(1), NETWORK, key(2).id(), NONCE, (NOW, NOW + B::LIFE.min(100)), body)
}

/// Signs the fields as they are now.
fn resign(envelope: &mut Envelope, key: &Key) {
    envelope.signature = key.signing().sign(&envelope.signed_bytes()).to_bytes().into();
}

/// An operation on a body of each kind.
trait Each {
    fn with<B: Body + PartialEq + Debug + Clone>(&mut self, body: &B);
}

fn each_kind(each: &mut impl Each) {
    let (hash, device) = ([4; 32].into(), vec![6; 38]);
    let address = || "/ip4/127.0.0.1/tcp/1".to_owned();
    let home = HomeAddress { home: key(3).id(), addresses: vec![address()] };
    let blob = Some(BlobRef { hash, size: 9 });
    let attributes = vec![body::Attribute { name: "name".to_owned(), value: "Ada".to_owned() }];
    each.with(&body::Registration { invitation: Some([1; 16].into()) });
    each.with(&body::Hosting { registration: hash });
    each.with(&body::Login { device: device.clone().into() });
    each.with(&body::Departure { to: Some(home.clone()) });
    each.with(&body::Profile {
        attributes,
        encryption_key: [8; 32].into(),
        picture: blob,
        thumbnail: blob,
        tombstone: false,
    });
    each.with(&body::RelationRequest { label: "friend".to_owned(), note: "Hello".to_owned(), home });
    each.with(&body::RelationAcceptance { request: hash });
    each.with(&body::RelationRevocation { request: hash });
    each.with(&message());
    each.with(&body::CallOffer { application: "chess".to_owned(), device: device.clone().into() });
    each.with(&body::CallAnswer {
        offer: hash,
        taken: Some(Taken { device: device.into(), token: [2; 32].into() }),
    });
    each.with(&body::Contact { addresses: vec![address()] });
}

#[test]
fn what_was_signed_is_read_back_of_each_kind() {
    struct Check(Vec<Kind>);
    impl Each for Check {
        fn with<B: Body + PartialEq + Debug + Clone>(&mut self, body: &B) {
            let envelope = sign(body);
            let read = Envelope::from_bytes(&envelope.to_bytes()).unwrap();
            assert_eq!(read, envelope);
            let verified = read.verify::<B>(&from_ada_about_bob()).unwrap();
            assert_eq!(verified.body(), body);
            assert_eq!((verified.signer(), verified.about()), (key(1).id(), key(2).id()));
            assert_eq!((verified.order(), verified.issued()), (NONCE, NOW));
            assert_eq!(verified.expires(), NOW + B::LIFE.min(100));
            assert_eq!((verified.hash(), verified.bytes()), (envelope.hash(), &envelope.to_bytes()[..]));
            self.0.push(B::KIND);
        }
    }
    let mut check = Check(Vec::new());
    each_kind(&mut check);
    let numbers: Vec<u8> = check.0.iter().map(|kind| *kind as u8).collect();
    assert_eq!(numbers, (1..=12).collect::<Vec<_>>());
}

#[test]
fn no_envelope_with_one_bit_flipped_is_taken() {
    struct Flip;
    impl Each for Flip {
        fn with<B: Body + PartialEq + Debug + Clone>(&mut self, body: &B) {
            let sequence = Envelope::sign(
                &key(1),
                NETWORK,
                key(2).id(),
                Order::Sequence(300),
                (NOW, NOW + B::LIFE.min(100)),
                body,
            );
            for bytes in [sign(body).to_bytes(), sequence.to_bytes()] {
                assert!(Envelope::from_bytes(&bytes).unwrap().verify::<B>(&any()).is_ok());
                for bit in 0..bytes.len() * 8 {
                    let mut flipped = bytes.clone();
                    flipped[bit / 8] ^= 1 << (bit % 8);
                    let taken =
                        Envelope::from_bytes(&flipped).and_then(|envelope| envelope.verify::<B>(&any()));
                    assert!(taken.is_err(), "{:?}: bit {bit}", B::KIND);
                }
            }
        }
    }
    each_kind(&mut Flip);
}

#[test]
fn an_envelope_of_one_kind_is_none_of_another() {
    struct Kinds(Vec<Envelope>);
    impl Each for Kinds {
        fn with<B: Body + PartialEq + Debug + Clone>(&mut self, body: &B) {
            self.0.push(sign(body));
        }
    }
    struct Confuse(Vec<Envelope>);
    impl Each for Confuse {
        fn with<B: Body + PartialEq + Debug + Clone>(&mut self, body: &B) {
            for envelope in self.0.iter().filter(|envelope| envelope.kind != B::KIND) {
                let error = EnvelopeError::Kind { found: envelope.kind, expected: B::KIND };
                assert_eq!(envelope.verify::<B>(&any()), Err(error));
                // The kind is signed: renaming it does not make it another kind, even with a matching body.
                let mut renamed = Envelope { kind: B::KIND, ..envelope.clone() };
                renamed.body = sign(body).body;
                renamed.expires = renamed.issued;
                assert_eq!(renamed.verify::<B>(&any()), Err(EnvelopeError::Signature));
            }
        }
    }
    let mut kinds = Kinds(Vec::new());
    each_kind(&mut kinds);
    each_kind(&mut Confuse(kinds.0));
}

#[test]
fn acceptance_and_revocation_of_one_request_are_not_each_other() {
    // Both kinds have the same body.
    let acceptance = sign(&body::RelationAcceptance { request: [4; 32].into() });
    let renamed = Envelope { kind: Kind::RelationRevocation, ..acceptance };
    let taken = renamed.verify::<body::RelationRevocation>(&any());
    assert_eq!(taken, Err(EnvelopeError::Signature));
}

#[test]
fn another_network_another_signer_and_another_subject_are_refused() {
    let envelope = sign(&message());
    let check = |expected: Expected<'_>| envelope.verify::<Message>(&expected).map(drop);
    assert_eq!(check(from_ada_about_bob()), Ok(()));
    for network in ["main", "tes", "test2", ""] {
        assert_eq!(check(Expected { network, ..any() }), Err(EnvelopeError::Network));
    }
    let (ada, bob, eve) = (key(1).id(), key(2).id(), key(3).id());
    for about in [ada, eve] {
        assert_eq!(check(Expected { about: Some(about), ..any() }), Err(EnvelopeError::About));
    }
    for signer in [bob, eve] {
        assert_eq!(check(Expected { signer: Some(signer), ..any() }), Err(EnvelopeError::Signer));
    }
    // With the parties swapped: what Ada said about Bob is not what Bob said about Ada.
    let mut swapped = envelope.clone();
    (swapped.signer, swapped.about) = (key(2).public().to_bytes().into(), ada);
    assert_eq!(swapped.verify::<Message>(&any()), Err(EnvelopeError::Signature));
    let mut readdressed = envelope.clone();
    readdressed.about = eve;
    assert_eq!(readdressed.verify::<Message>(&any()), Err(EnvelopeError::Signature));
    let mut taken_over = envelope;
    taken_over.signer = key(3).public().to_bytes().into();
    assert_eq!(taken_over.verify::<Message>(&any()), Err(EnvelopeError::Signature));
}

#[test]
fn a_time_is_taken_to_the_second() {
    let life = Message::LIFE;
    let check = |issued: u64, expires: u64| {
        let times = (issued, expires);
        let envelope = Envelope::sign(&key(1), NETWORK, key(2).id(), NONCE, times, &message());
        envelope.verify::<Message>(&any()).map(drop)
    };
    assert_eq!(check(NOW - 10, NOW), Ok(()), "its last second");
    assert_eq!(check(NOW - 10, NOW - 1), Err(EnvelopeError::Expired));
    assert_eq!(check(NOW + CLOCK_SKEW, NOW + CLOCK_SKEW), Ok(()), "as far as clocks may differ");
    assert_eq!(check(NOW + CLOCK_SKEW + 1, NOW + CLOCK_SKEW + 1), Err(EnvelopeError::Future));
    assert_eq!(check(NOW, NOW + life), Ok(()));
    assert_eq!(check(NOW, NOW + life + 1), Err(EnvelopeError::Life));
    assert_eq!(check(NOW, NOW - 1), Err(EnvelopeError::Life), "ends before it begins");
    assert_eq!(check(NOW - life, NOW), Ok(()));
    assert_eq!(check(NOW - life - 1, NOW), Err(EnvelopeError::Life));
    assert_eq!(check(0, u64::MAX), Err(EnvelopeError::Life));
    assert_eq!(check(u64::MAX, u64::MAX), Err(EnvelopeError::Future));
    assert_eq!(check(u64::MAX, 0), Err(EnvelopeError::Life));
    assert_eq!(check(0, 0), Err(EnvelopeError::Expired));
    // Nothing overflows near the end of time.
    let late = Expected { now: u64::MAX, ..any() };
    let times = (u64::MAX, u64::MAX);
    let envelope = Envelope::sign(&key(1), NETWORK, key(2).id(), NONCE, times, &message());
    assert!(envelope.verify::<Message>(&late).is_ok());
}

#[test]
fn a_body_of_the_longest_length_is_taken_and_one_byte_more_is_not() {
    let with = |length: usize| Message { ciphertext: vec![7; length].into(), ..message() };
    let around = cbor::to_vec(&with(MAX_MESSAGE - 1000)).len() - (MAX_MESSAGE - 1000);
    let longest = sign(&with(MAX_MESSAGE - around));
    assert_eq!(longest.body.len(), MAX_MESSAGE);
    assert!(longest.to_bytes().len() <= MAX_ENVELOPE);
    let read = Envelope::from_bytes(&longest.to_bytes()).unwrap();
    assert!(read.verify::<Message>(&any()).is_ok());
    let over = sign(&with(MAX_MESSAGE - around + 1));
    let error = EnvelopeError::Body("longer than its kind allows");
    assert_eq!(over.verify::<Message>(&any()), Err(error));
}

#[test]
fn nothing_follows_an_envelope_or_its_body_and_nothing_is_missing() {
    let bytes = sign(&message()).to_bytes();
    for length in 0..bytes.len() {
        assert_eq!(Envelope::from_bytes(&bytes[..length]), Err(EnvelopeError::Malformed));
    }
    for more in [&[0][..], &[0xf6], &bytes] {
        assert_eq!(Envelope::from_bytes(&[&bytes, more].concat()), Err(EnvelopeError::Malformed));
    }
    let mut envelope = sign(&message());
    for change in [Vec::push as fn(&mut Vec<u8>, u8), |body, _| body.truncate(body.len() - 1)] {
        let mut body = envelope.body.to_vec();
        change(&mut body, 0);
        envelope.body = body.into();
        resign(&mut envelope, &key(1));
        let error = EnvelopeError::Body("not what its kind has");
        assert_eq!(envelope.verify::<Message>(&any()), Err(error));
        envelope = sign(&message());
    }
}

#[test]
fn bytes_beyond_the_longest_envelope_are_not_read() {
    assert_eq!(Envelope::from_bytes(&vec![0; MAX_ENVELOPE]), Err(EnvelopeError::Malformed));
    let over = MAX_ENVELOPE + 1;
    assert_eq!(Envelope::from_bytes(&vec![0; over]), Err(EnvelopeError::TooLong(over)));
}

#[test]
fn a_network_has_a_short_name() {
    let longest = "n".repeat(MAX_NETWORK);
    let times = (NOW, NOW);
    let envelope = Envelope::sign(&key(1), &longest, key(2).id(), NONCE, times, &message());
    let read = Envelope::from_bytes(&envelope.to_bytes()).unwrap();
    assert!(read.verify::<Message>(&Expected { network: &longest, ..any() }).is_ok());
    let over = Envelope { network: Network("n".repeat(MAX_NETWORK + 1)), ..envelope };
    assert_eq!(Envelope::from_bytes(&over.to_bytes()), Err(EnvelopeError::Malformed));
}

#[test]
fn a_sound_signature_does_not_make_a_senseless_body_good() {
    let short = sign(&Message { ciphertext: vec![7; 15].into(), ..message() });
    assert_eq!(short.verify::<Message>(&any()), Err(EnvelopeError::Body("no ciphertext")));
}

/// The documented layout, written out by hand.
#[test]
fn what_is_signed_and_what_travels_is_the_documented_layout() {
    let (public, other) = (key(1).public().to_bytes(), key(2).public().to_bytes());
    // The derived codec's encoding of {0: h'03..', 1: h'07..'}: an array of two byte strings.
    let body = [&[0x82, 0x58, 32][..], &[3; 32], &[0x58, 40], &[7; 40]].concat();
    let about = [&[1, 0x12, 0x20][..], &Sha256::digest(other)].concat();
    for (order, in_signed, in_cbor) in [
        (Order::Nonce([9; 32]), [&[1][..], &[9; 32]].concat(), [&[0x58, 32][..], &[9; 32]].concat()),
        (Order::Sequence(258), vec![0, 0, 0, 0, 0, 0, 0, 1, 2], vec![0x19, 1, 2]),
    ] {
        let (issued, expires) = (NOW, NOW + 60);
        let envelope = Envelope::sign(&key(1), NETWORK, key(2).id(), order, (issued, expires), &message());
        let signed = [
            b"iop-mercury envelope 1\0",
            &[9, 4][..],
            b"test",
            &public,
            &about,
            &in_signed,
            &issued.to_be_bytes(),
            &expires.to_be_bytes(),
            &(body.len() as u32).to_be_bytes(),
            &body,
        ]
        .concat();
        let travelled = envelope.to_bytes();
        let signature = Signature::from_slice(&travelled[travelled.len() - 64..]).unwrap();
        key(1).public().verify_strict(&signed, &signature).unwrap();
        assert_eq!(envelope.hash(), <Bytes32>::from(Sha256::digest(&signed)));
        let cbor = [
            &[0x89, 9, 0x64][..],
            b"test",
            &[0x58, 32],
            &public,
            &[0x58, 35],
            &about,
            &in_cbor,
            &[0x1a],
            &(issued as u32).to_be_bytes(),
            &[0x1a],
            &(expires as u32).to_be_bytes(),
            &[0x58, body.len() as u8],
            &body,
            &[0x58, 64],
            &signature.to_bytes(),
        ]
        .concat();
        assert_eq!(travelled, cbor);
    }
}

/// The eight points of small order: for each, a signature can be forged without a secret.
const SMALL_ORDER: [&str; 8] = [
    "0100000000000000000000000000000000000000000000000000000000000000",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0000000000000000000000000000000000000000000000000000000000000080",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
];

fn unhex(text: &str) -> Bytes32 {
    hex::decode(text).unwrap().try_into().unwrap()
}

#[test]
fn keys_of_small_order_sign_nothing() {
    for weak in SMALL_ORDER.map(unhex) {
        // R is the neutral point and s is 0: valid for every message whose challenge is a multiple of the key's
        // order.
        let mut signature = [0; 64];
        signature[0] = 1;
        let forged = (0..1000).map(|number| {
            let mut envelope = sign(&message());
            (envelope.signer, envelope.signature) = (weak.into(), signature.into());
            envelope.order = Order::Sequence(number);
            envelope
        });
        let key = VerifyingKey::from_bytes(&weak).unwrap();
        let loose = |envelope: &Envelope| {
            key.verify(&envelope.signed_bytes(), &Signature::from_bytes(&signature)).is_ok()
        };
        let forged: Vec<_> = forged.filter(loose).collect();
        assert!(!forged.is_empty(), "a loose check takes some");
        for envelope in forged {
            assert_eq!(envelope.verify::<Message>(&any()), Err(EnvelopeError::Signature));
        }
    }
}

#[test]
fn a_signature_has_one_form() {
    // A lenient verifier takes s and s + L, where L is the order of the group, for the same number.
    let order = unhex("edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010");
    let mut envelope = sign(&message());
    let mut carry = 0;
    for (byte, more) in envelope.signature[32..].iter_mut().zip(order) {
        let sum = u16::from(*byte) + u16::from(more) + carry;
        (*byte, carry) = (sum as u8, sum >> 8);
    }
    assert_eq!(carry, 0);
    assert_eq!(envelope.verify::<Message>(&any()), Err(EnvelopeError::Signature));
}

#[test]
fn a_key_that_is_no_point_signs_nothing() {
    let mut envelope = sign(&message());
    envelope.signer = unhex("0200000000000000000000000000000000000000000000000000000000000000").into();
    assert!(VerifyingKey::from_bytes(&envelope.signer).is_err());
    assert_eq!(envelope.verify::<Message>(&any()), Err(EnvelopeError::Signature));
}
