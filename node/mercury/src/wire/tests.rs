#![allow(clippy::unwrap_used)]
use std::fmt::Debug;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::*;
use crate::body::Message;
use crate::cbor::{from_slice, to_vec};
use crate::envelope::Order;
use crate::id::Key;
use crate::limits::*;

fn id() -> impl Strategy<Value = Id> {
    any::<[u8; 32]>().prop_map(Id::from_digest)
}

fn hash() -> impl Strategy<Value = ByteArray<32>> {
    any::<[u8; 32]>().prop_map(ByteArray::from)
}

fn bytes() -> impl Strategy<Value = ByteVec> {
    vec(any::<u8>(), 0..100).prop_map(ByteVec::from)
}

fn blob() -> impl Strategy<Value = BlobRef> {
    (hash(), any::<u64>()).prop_map(|(hash, size)| BlobRef { hash, size })
}

fn text() -> impl Strategy<Value = String> {
    ".{0,20}"
}

fn envelope() -> impl Strategy<Value = Envelope> {
    let order =
        prop_oneof![any::<u64>().prop_map(Order::Sequence), any::<[u8; 32]>().prop_map(Order::Nonce),];
    let network = "[a-z]{0,32}";
    let fields = (any::<[u8; 32]>(), network, id(), order, any::<(u64, u64)>(), hash(), bytes());
    fields.prop_map(|(secret, network, about, order, times, encapsulated, ciphertext)| {
        let body = Message { encapsulated, ciphertext };
        Envelope::sign(&Key::from_secret(&secret), &network, about, order, times, &body)
    })
}

fn request() -> impl Strategy<Value = Request> {
    use Request as R;
    let constant = prop::sample::select(vec![
        R::About,
        R::Challenge,
        R::LogOut,
        R::Claim,
        R::Requests,
        R::Blobs,
        R::Figures,
        R::BackUp,
    ]);
    let signed = prop::sample::select(vec![
        R::Register as fn(Envelope) -> R,
        R::SetProfile,
        R::Relate,
        R::Revoke,
        R::Put,
        R::Call,
        R::Answer,
    ]);
    let of_person = prop::sample::select(vec![R::GetProfile as fn(Id) -> R, R::Dismiss, R::Unban, R::Expel]);
    let of_number = prop::sample::select(vec![R::Fetch as fn(u64) -> R, R::Acknowledge, R::Invite]);
    let listed = prop::sample::select(vec![R::Relations as fn(Option<Id>) -> R, R::Bans]);
    prop_oneof![
        constant,
        (signed, envelope()).prop_map(|(make, envelope)| make(envelope)),
        (of_person, id()).prop_map(|(make, id)| make(id)),
        (of_number, any::<u64>()).prop_map(|(make, number)| make(number)),
        (listed, option::of(id())).prop_map(|(make, id)| make(id)),
        (envelope(), option::of(any::<u64>())).prop_map(|(envelope, upto)| R::Unregister(envelope, upto)),
        (envelope(), vec(text(), 0..5)).prop_map(|(envelope, names)| R::LogIn(envelope, names)),
        vec(text(), 0..5).prop_map(R::Announce),
        (envelope(), envelope()).prop_map(|(first, second)| R::Related(first, second)),
        blob().prop_map(R::Offer),
        (hash(), any::<u32>(), bytes()).prop_map(|(hash, number, bytes)| R::Chunk(hash, number, bytes)),
        (id(), hash(), any::<u32>()).prop_map(|(id, hash, number)| R::GetChunk(id, hash, number)),
        hash().prop_map(R::Discard),
        vec(id(), 0..5).prop_map(R::Presence),
        (id(), text()).prop_map(|(id, why)| R::Ban(id, why)),
    ]
}

fn code() -> impl Strategy<Value = Code> {
    prop::sample::select(vec![
        Code::Malformed,
        Code::Envelope,
        Code::LogInFirst,
        Code::NotForYou,
        Code::Full,
        Code::Superseded,
        Code::Closed,
        Code::Later,
        Code::NoAnswer,
        Code::Fault,
    ])
}

fn hosting() -> impl Strategy<Value = Hosting> {
    prop::sample::select(vec![Hosting::Open, Hosting::Invited, Hosting::Closed])
}

fn relation() -> impl Strategy<Value = Relation> {
    let fields = (id(), envelope(), option::of(envelope()), option::of(envelope()));
    fields.prop_map(|(other, request, acceptance, revocation)| Relation {
        other,
        request,
        acceptance,
        revocation,
    })
}

fn mail() -> impl Strategy<Value = Mail> {
    let fields = (any::<u64>(), any::<u64>(), envelope());
    fields.prop_map(|(number, received, envelope)| Mail { number, received, envelope })
}

fn there() -> impl Strategy<Value = Presence> {
    let fields = (id(), option::of(vec(text(), 0..4)));
    fields.prop_map(|(persona, applications)| Presence { persona, applications })
}

fn answer() -> impl Strategy<Value = Answer> {
    use Answer as A;
    let signed = prop::sample::select(vec![A::Profile as fn(Envelope) -> A, A::Moved, A::Answered]);
    prop_oneof![
        Just(A::Done),
        (code(), text()).prop_map(|(code, reason)| A::refused(code, reason)),
        (text(), envelope(), hosting(), any::<u64>()).prop_map(|(network, contact, hosting, time)| A::About(
            About { network, contact, hosting, time }
        )),
        hash().prop_map(A::Challenge),
        (envelope(), envelope()).prop_map(|(first, second)| A::Hosting(first, second)),
        any::<bool>().prop_map(A::Session),
        (signed, envelope()).prop_map(|(make, envelope)| make(envelope)),
        vec(envelope(), 0..4).prop_map(A::Requests),
        (vec(relation(), 0..3), any::<bool>()).prop_map(|(relations, more)| A::Relations(relations, more)),
        (vec(mail(), 0..3), any::<bool>()).prop_map(|(mail, more)| A::Mail(mail, more)),
        any::<u32>().prop_map(A::Next),
        bytes().prop_map(A::Chunk),
        vec((blob(), any::<u32>()), 0..4).prop_map(A::Blobs),
        (vec(there(), 0..4), any::<bool>()).prop_map(|(there, more)| A::Presence(there, more)),
        any::<[u8; 16]>().prop_map(|code| A::Invitation(code.into())),
        (vec((id(), text()), 0..4), any::<bool>()).prop_map(|(bans, more)| A::Bans(bans, more)),
        vec((text(), any::<u64>()), 0..4).prop_map(A::Figures),
        text().prop_map(A::BackedUp),
    ]
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        any::<u64>().prop_map(Event::Mail),
        id().prop_map(Event::Request),
        there().prop_map(Event::Presence),
        envelope().prop_map(Event::Call),
        Just(Event::Ended),
    ]
}

/// A change to bytes: one is replaced, removed or inserted, or everything after it is cut off.
fn change() -> impl Strategy<Value = (usize, u8, u8)> {
    any::<(usize, u8, u8)>()
}

fn changed(bytes: &[u8], (place, byte, how): (usize, u8, u8)) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let place = place % bytes.len();
    match how % 4 {
        0 => bytes[place] = byte,
        1 => drop(bytes.remove(place)),
        2 => bytes.insert(place, byte),
        _ => bytes.truncate(place),
    }
    bytes
}

/// A decoded value must survive encoding and decoding.
fn read_and_written<T>(bytes: &[u8])
where
    T: for<'b> Decode<'b, ()> + Encode<()> + PartialEq + Debug,
{
    if let Some(value) = from_slice::<T>(bytes) {
        assert_eq!(from_slice::<T>(&to_vec(&value)), Some(value));
    }
}

fn read_as_everything(bytes: &[u8]) {
    read_and_written::<Request>(bytes);
    read_and_written::<Answer>(bytes);
    read_and_written::<Event>(bytes);
    read_and_written::<Envelope>(bytes);
}

proptest! {
    #[test]
    fn requests_are_read_as_they_are_written(value in request()) {
        prop_assert_eq!(from_slice::<Request>(&to_vec(&value)), Some(value));
    }

    #[test]
    fn answers_are_read_as_they_are_written(value in answer()) {
        prop_assert_eq!(from_slice::<Answer>(&to_vec(&value)), Some(value));
    }

    #[test]
    fn events_are_read_as_they_are_written(value in event()) {
        prop_assert_eq!(from_slice::<Event>(&to_vec(&value)), Some(value));
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(bytes in vec(any::<u8>(), 0..300)) {
        read_as_everything(&bytes);
    }

    #[test]
    fn requests_that_were_changed_are_read_without_a_panic(value in request(), changes in vec(change(), 1..4)) {
        let bytes = changes.into_iter().fold(to_vec(&value), |bytes, change| {
            if bytes.is_empty() { bytes } else { changed(&bytes, change) }
        });
        read_as_everything(&bytes);
    }

    #[test]
    fn answers_and_events_that_were_changed_are_read_without_a_panic(
        answer in answer(), event in event(), change in change()
    ) {
        read_as_everything(&changed(&to_vec(&answer), change));
        read_as_everything(&changed(&to_vec(&event), change));
    }
}

/// Peak memory of this process, bytes.
fn most_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmPeak:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

/// A CBOR value of a major type that claims a huge length.
fn huge(major: u8, length: u64) -> Vec<u8> {
    [&[major << 5 | 0x1b][..], &length.to_be_bytes()].concat()
}

#[test]
fn what_says_that_it_is_huge_is_refused_without_room_for_it() {
    let before = most_memory();
    // Byte strings, texts, arrays and maps, alone and as a field of a request, an answer or an event.
    for major in 2..=5 {
        for length in [1 << 20, 1 << 32, 1 << 36, 1 << 62, 1 << 63, u64::MAX] {
            let bomb = huge(major, length);
            read_as_everything(&bomb);
            for variant in 0..90u8 {
                let number = if variant < 24 { vec![variant] } else { vec![0x18, variant] };
                for fields in 1..4u8 {
                    for good in 0..fields {
                        // Small numbers stand for the fields before it.
                        let head = [&[0x82][..], &number, &[0x80 | fields], &vec![1; good as usize]].concat();
                        let bytes = [head, bomb.clone(), vec![0x60; 64]].concat();
                        assert!(from_slice::<Request>(&bytes).is_none());
                        assert!(from_slice::<Answer>(&bytes).is_none());
                        assert!(from_slice::<Event>(&bytes).is_none());
                    }
                }
            }
            for good in 0..9usize {
                let bytes = [&[0x89][..], &vec![1; good], &bomb].concat();
                assert_eq!(Envelope::from_bytes(&bytes), Err(crate::envelope::EnvelopeError::Malformed));
            }
        }
    }
    let announced = [&[0x82, 7, 0x81][..], &huge(4, 1 << 32), &vec![0x60; 1000]].concat();
    assert!(from_slice::<Request>(&announced).is_none());
    assert!(most_memory() - before < 4 << 30, "the smallest of them would take more than 24 GiB");
}

#[test]
fn depth_without_end_is_read_without_a_stack_without_end() {
    // As a whole request, and as an unknown field, which decoders skip.
    let deep = MAX_REQUEST;
    for byte in [0x81, 0x9f, 0xa1, 0xbf, 0xc1, 0xd8, 0x5f, 0x7f] {
        let bytes = vec![byte; deep];
        assert!(from_slice::<Request>(&bytes).is_none());
        for head in [&[0x82, 7, 0x82, 0x80][..], &[0x8a, 9], &[0x82, 0x18, 99, 0x81], &[0x83, 0, 0x80]] {
            read_as_everything(&[head, &bytes].concat());
        }
    }
    let nested = [&[0x82, 7, 0x82, 0x80][..], &vec![0x81; deep], &[0x80]].concat();
    assert_eq!(
        from_slice::<Request>(&nested).unwrap_or(Request::Announce(Vec::new())),
        Request::Announce(Vec::new())
    );
}

#[test]
fn indefinite_lengths_end_or_are_refused() {
    // An announcement of ["a"] with arrays of indefinite length.
    let named = [0x82, 7, 0x9f, 0x9f, 0x61, b'a', 0xff, 0xff];
    let expected = Request::Announce(vec!["a".to_owned()]);
    assert!(from_slice::<Request>(&named).is_none_or(|request| request == expected));
    assert!(from_slice::<Request>(&named[..7]).is_none());
    assert!(from_slice::<Request>(&[0x82, 7, 0x81, 0x9f, 0x7f, 0x61, b'a']).is_none());
}

#[test]
fn a_departure_of_a_device_that_names_no_number_is_read() {
    let envelope = longest_message();
    let older = [&[0x82, 6, 0x81][..], &envelope.to_bytes()].concat();
    assert_eq!(from_slice(&older), Some(Request::Unregister(envelope, None)));
}

/// A message of the longest body.
fn longest_message() -> Envelope {
    let of = |length: usize| Message { encapsulated: [1; 32].into(), ciphertext: vec![1; length].into() };
    let around = to_vec(&of(MAX_MESSAGE - 100)).len() - (MAX_MESSAGE - 100);
    let (key, network) = (Key::from_secret(&[1; 32]), "n".repeat(MAX_NETWORK));
    let times = (u64::MAX, u64::MAX);
    Envelope::sign(&key, &network, key.id(), Order::Nonce([1; 32]), times, &of(MAX_MESSAGE - around))
}

#[test]
fn the_longest_of_everything_fits() {
    let longest = longest_message();
    assert!(longest.to_bytes().len() <= MAX_ENVELOPE);
    let id = Id::from_digest([1; 32]);
    let label = "l".repeat(MAX_LABEL);
    for request in [
        Request::Put(longest.clone()),
        Request::LogIn(longest.clone(), vec![label; MAX_APPLICATIONS]),
        Request::Chunk([1; 32].into(), u32::MAX, vec![1; CHUNK].into()),
        Request::Presence(vec![id; MAX_ASKED]),
        Request::Ban(id, "n".repeat(MAX_NOTE)),
    ] {
        assert!(to_vec(&request).len() <= MAX_REQUEST);
    }
    let blob = BlobRef { hash: [1; 32].into(), size: MAX_BLOBS };
    let item = Mail { number: u64::MAX, received: u64::MAX, envelope: longest };
    for answer in [
        Answer::Bans(vec![(id, "n".repeat(MAX_NOTE)); MAX_BANS_TOLD], true),
        Answer::Blobs(vec![(blob, u32::MAX); MAX_BLOB_COUNT]),
        Answer::Mail(vec![item; MAX_FETCH_BYTES / MAX_ENVELOPE + 1], true),
        Answer::Chunk(vec![1; CHUNK].into()),
    ] {
        assert!(to_vec(&answer).len() <= MAX_ANSWER);
    }
}

/// The presence answer as it was before it said whether there are more.
#[derive(Debug, PartialEq, Eq, Encode, Decode)]
enum Before {
    #[n(50)]
    Presence(#[n(0)] Vec<Presence>),
}

#[test]
fn clients_and_homes_of_before_are_understood_where_an_answer_says_more() {
    let there = vec![Presence { persona: Id::from_digest([1; 32]), applications: Some(Vec::new()) }];
    let now = to_vec(&Answer::Presence(there.clone(), true));
    assert_eq!(from_slice::<Before>(&now), Some(Before::Presence(there.clone())));
    let before = to_vec(&Before::Presence(there.clone()));
    assert_eq!(from_slice::<Answer>(&before), Some(Answer::Presence(there, false)));
}
