#![allow(clippy::unwrap_used)]
use libp2p::PeerId;
use minicbor::bytes::ByteArray;

use crate::body::BlobRef;
use crate::home::testing::{Bench, Person, blob_of, code};
use crate::limits::{CHUNK, MAX_BLOB_COUNT, MAX_BLOBS, UPLOAD_TIME};
use crate::store::Column;
use crate::wire::{Answer, Code, Request};

fn send(bench: &mut Bench, person: &Person, blob: BlobRef, number: u32, bytes: &[u8]) -> Answer {
    bench.ask(person.device, Request::Chunk(blob.hash, number, bytes.to_vec().into()))
}

fn offer(bench: &mut Bench, person: &Person, blob: BlobRef) -> Answer {
    bench.ask(person.device, Request::Offer(blob))
}

fn read(bench: &mut Bench, device: PeerId, owner: &Person, blob: BlobRef, number: u32) -> Answer {
    bench.ask(device, Request::GetChunk(owner.id(), blob.hash, number))
}

fn listed(bench: &mut Bench, person: &Person) -> Vec<(BlobRef, u32)> {
    match bench.ask(person.device, Request::Blobs) {
        Answer::Blobs(blobs) => blobs,
        other => panic!("{other:?}"),
    }
}

/// The counts in the owner's record, and the number of chunks in the home's store.
fn counted(bench: &Bench, person: &Person) -> (u64, u64, usize) {
    let record = bench.home.hosted_record(person.id()).unwrap().unwrap();
    let chunks = bench.home.store.rows(Column::Chunks, b"", b"").count();
    (record.blobs, record.blob_bytes, chunks)
}

/// A reference to a blob that is never uploaded.
fn numbered(number: usize, size: u64) -> BlobRef {
    let mut hash = [0; 32];
    hash[..8].copy_from_slice(&number.to_be_bytes());
    BlobRef { hash: ByteArray::from(hash), size }
}

/// Bytes without repetition.
fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|place| (place % 251) as u8 ^ (place / 65536) as u8).collect()
}

#[test]
fn a_blob_comes_in_order_in_chunks_of_the_exact_size() {
    let mut bench = Bench::new(|_| ());
    let ada = bench.resident(1);
    let content = bytes(2 * CHUNK + 10);
    let blob = blob_of(&content);
    assert_eq!(code(&send(&mut bench, &ada, blob, 0, &content[..CHUNK])), Some(Code::NotForYou), "no offer");
    assert_eq!(offer(&mut bench, &ada, blob), Answer::Next(0));
    for (number, wrong) in [
        (0, &content[..CHUNK - 1]),
        (0, &content[..CHUNK + 1]),
        (0, &[]),
        (1, &content[CHUNK..2 * CHUNK]),
        (u32::MAX, &content[..CHUNK]),
    ] {
        assert_eq!(code(&send(&mut bench, &ada, blob, number, wrong)), Some(Code::Malformed));
    }
    assert_eq!(send(&mut bench, &ada, blob, 0, &content[..CHUNK]), Answer::Next(1));
    assert_eq!(send(&mut bench, &ada, blob, 0, b"other"), Answer::Next(1), "it is here");
    assert_eq!(code(&read(&mut bench, ada.device, &ada, blob, 0)), Some(Code::NotForYou), "not complete");
    assert_eq!(send(&mut bench, &ada, blob, 1, &content[CHUNK..2 * CHUNK]), Answer::Next(2));
    for wrong in [&content[2 * CHUNK..2 * CHUNK + 9], &[&content[2 * CHUNK..], &[0]].concat()] {
        assert_eq!(code(&send(&mut bench, &ada, blob, 2, wrong)), Some(Code::Malformed));
    }
    assert_eq!(listed(&mut bench, &ada), [(blob, 2)]);
    assert_eq!(send(&mut bench, &ada, blob, 2, &content[2 * CHUNK..]), Answer::Next(3));
    assert_eq!(code(&send(&mut bench, &ada, blob, 3, b"")), Some(Code::Malformed), "after the last");
    for (number, chunk) in (0..).zip(content.chunks(CHUNK)) {
        let answer = read(&mut bench, ada.device, &ada, blob, number);
        assert_eq!(answer, Answer::Chunk(chunk.to_vec().into()));
    }
    assert_eq!(code(&read(&mut bench, ada.device, &ada, blob, 3)), Some(Code::Malformed));
    assert_eq!(offer(&mut bench, &ada, blob), Answer::Next(3), "all are here");
    assert_eq!(counted(&bench, &ada), (1, blob.size, 3));
}

#[test]
fn an_upload_goes_on_after_a_disconnect_and_a_restart() {
    let mut bench = Bench::new(|_| ());
    let mut ada = bench.resident(1);
    let content = bytes(3 * CHUNK);
    let blob = blob_of(&content);
    offer(&mut bench, &ada, blob);
    send(&mut bench, &ada, blob, 0, &content[..CHUNK]);
    bench.home.gone(ada.device);
    assert_eq!(code(&send(&mut bench, &ada, blob, 1, &content[CHUNK..2 * CHUNK])), Some(Code::LogInFirst));
    ada.device = PeerId::random();
    bench.log_in(&ada, &[]);
    assert_eq!(offer(&mut bench, &ada, blob), Answer::Next(1));
    send(&mut bench, &ada, blob, 1, &content[CHUNK..2 * CHUNK]);
    let mut bench = bench.restart(|_| ());
    bench.log_in(&ada, &[]);
    assert_eq!(offer(&mut bench, &ada, blob), Answer::Next(2));
    assert_eq!(send(&mut bench, &ada, blob, 2, &content[2 * CHUNK..]), Answer::Next(3));
    assert_eq!(
        read(&mut bench, ada.device, &ada, blob, 1),
        Answer::Chunk(content[CHUNK..2 * CHUNK].to_vec().into())
    );
}

#[test]
fn of_a_blob_with_another_hash_nothing_stays() {
    let mut bench = Bench::new(|_| ());
    let ada = bench.resident(1);
    let content = bytes(CHUNK + 5);
    let blob = blob_of(&content);
    for place in [0, CHUNK, CHUNK + 4] {
        let mut other = content.clone();
        other[place] ^= 1;
        assert_eq!(offer(&mut bench, &ada, blob), Answer::Next(0));
        assert_eq!(send(&mut bench, &ada, blob, 0, &other[..CHUNK]), Answer::Next(1));
        let answer = send(&mut bench, &ada, blob, 1, &other[CHUNK..]);
        assert_eq!(code(&answer), Some(Code::Malformed), "byte {place}");
        assert!(format!("{answer:?}").contains("all were thrown away"));
        assert_eq!((counted(&bench, &ada), listed(&mut bench, &ada).len()), ((0, 0, 0), 0));
    }
    bench.upload(&ada, &content);
}

#[test]
fn the_quota_is_taken_to_the_last_byte_and_not_beyond() {
    let mut bench = Bench::new(|_| ());
    let (ada, bob) = (bench.resident(1), bench.resident(2));
    for size in [0, MAX_BLOBS + 1, u64::MAX] {
        assert_eq!(code(&offer(&mut bench, &ada, numbered(1, size))), Some(Code::Malformed), "{size}");
    }
    assert_eq!(offer(&mut bench, &ada, numbered(1, MAX_BLOBS - 1)), Answer::Next(0));
    assert_eq!(code(&offer(&mut bench, &ada, numbered(2, 2))), Some(Code::Full));
    assert_eq!(offer(&mut bench, &ada, numbered(3, 1)), Answer::Next(0));
    assert_eq!(code(&offer(&mut bench, &ada, numbered(4, 1))), Some(Code::Full));
    assert_eq!(offer(&mut bench, &ada, numbered(1, MAX_BLOBS - 1)), Answer::Next(0), "the same again");
    assert_eq!(code(&offer(&mut bench, &ada, numbered(1, 1))), Some(Code::Superseded), "of another size");
    assert_eq!(offer(&mut bench, &bob, numbered(1, MAX_BLOBS)), Answer::Next(0), "each has a quota");
    assert_eq!(bench.ask(ada.device, Request::Discard(numbered(3, 1).hash)), Answer::Done);
    assert_eq!(offer(&mut bench, &ada, numbered(4, 1)), Answer::Next(0));
}

#[test]
fn a_blob_of_the_whole_quota_comes_and_goes() {
    let mut bench = Bench::new(|_| ());
    let ada = bench.resident(1);
    let content = bytes(MAX_BLOBS as usize);
    let blob = bench.upload(&ada, &content);
    let last = (MAX_BLOBS as usize / CHUNK - 1) as u32;
    let expected = content[last as usize * CHUNK..].to_vec();
    assert_eq!(read(&mut bench, ada.device, &ada, blob, last), Answer::Chunk(expected.into()));
    assert_eq!(bench.ask(ada.device, Request::Discard(blob.hash)), Answer::Done);
    assert_eq!(bench.ask(ada.device, Request::Discard(blob.hash)), Answer::Done, "its answer may get lost");
    assert_eq!(counted(&bench, &ada), (0, 0, 0));
}

#[test]
fn so_many_blobs_and_no_more() {
    let mut bench = Bench::new(|_| ());
    let ada = bench.resident(1);
    for number in 0..MAX_BLOB_COUNT {
        assert_eq!(offer(&mut bench, &ada, numbered(number, 1)), Answer::Next(0));
    }
    assert_eq!(code(&offer(&mut bench, &ada, numbered(MAX_BLOB_COUNT, 1))), Some(Code::Full));
    assert_eq!(listed(&mut bench, &ada).len(), MAX_BLOB_COUNT);
}

#[test]
fn strangers_are_not_told_what_there_is() {
    let mut bench = Bench::new(|_| ());
    let (ada, bob, eve) = (bench.resident(1), bench.resident(2), bench.resident(3));
    let (friend, stranger) = (bench.visitor(4), bench.visitor(5));
    let nobody = PeerId::random();
    bench.relation(&ada, &bob, 1);
    let proof = bench.relation(&friend, &ada, 2);
    let blob = bench.upload(&ada, b"for friends");
    let half = blob_of(&[1; CHUNK + 1]);
    offer(&mut bench, &ada, half);
    for device in [ada.device, bob.device, friend.device] {
        assert_eq!(read(&mut bench, device, &ada, blob, 0), Answer::Chunk(b"for friends".to_vec().into()));
        assert_eq!(code(&read(&mut bench, device, &ada, half, 0)), Some(Code::NotForYou));
    }
    let unknown = Person::new(77);
    for device in [eve.device, stranger.device, nobody] {
        let answer = read(&mut bench, device, &unknown, blob, 0);
        for (number, other) in [(0, blob), (9, blob), (0, half), (0, numbered(1, 1))] {
            assert_eq!(read(&mut bench, device, &ada, other, number), answer);
        }
    }
    let revocation = bench.revocation(&ada, &friend, &proof.0);
    assert_eq!(bench.ask(ada.device, Request::Revoke(revocation)), Answer::Done);
    assert_eq!(
        read(&mut bench, friend.device, &ada, blob, 0),
        read(&mut bench, friend.device, &unknown, blob, 0),
        "a friend no longer"
    );
    for request in [
        Request::Offer(blob),
        Request::Chunk(blob.hash, 0, b"x".to_vec().into()),
        Request::Discard(blob.hash),
        Request::Blobs,
    ] {
        for device in [nobody, friend.device] {
            assert_eq!(code(&bench.ask(device, request.clone())), Some(Code::LogInFirst), "{request:?}");
        }
    }
    assert_eq!(
        bench.ask(bob.device, Request::Discard(blob.hash)),
        Answer::Done,
        "his own, of which he has none"
    );
    assert_eq!(listed(&mut bench, &ada).len(), 2);
}

#[test]
fn what_is_not_complete_after_a_day_goes() {
    let mut bench = Bench::new(|_| ());
    let ada = bench.resident(1);
    let complete = bench.upload(&ada, b"complete");
    let half = blob_of(&bytes(2 * CHUNK));
    offer(&mut bench, &ada, half);
    send(&mut bench, &ada, half, 0, &bytes(2 * CHUNK)[..CHUNK]);
    bench.wait(UPLOAD_TIME - 1);
    let young = numbered(1, 1);
    offer(&mut bench, &ada, young);
    bench.home.tick(bench.now);
    assert_eq!(listed(&mut bench, &ada).len(), 3);
    bench.wait(1);
    bench.home.tick(bench.now);
    let mut left = listed(&mut bench, &ada);
    left.sort_by_key(|(blob, _)| blob.size);
    assert_eq!(left, [(young, 0), (complete, 1)]);
    assert_eq!(counted(&bench, &ada), (2, 9, 1));
}

#[test]
fn a_sweep_does_a_little_at_a_time_and_comes_to_all() {
    let mut bench = Bench::new(|_| ());
    let people = [bench.resident(1), bench.resident(2)];
    for person in &people {
        let complete = bench.upload(person, b"complete");
        assert_eq!(complete.size, 8);
        for number in 1..MAX_BLOB_COUNT {
            assert_eq!(offer(&mut bench, person, numbered(number, 1)), Answer::Next(0));
        }
    }
    let all = |bench: &Bench| bench.home.store.rows(Column::Blobs, b"", b"").count();
    bench.wait(UPLOAD_TIME);
    let mut before = all(&bench);
    for _ in 0..2 * MAX_BLOB_COUNT.div_ceil(super::THROWN) + 3 {
        bench.home.tick(bench.now);
        assert!(before - all(&bench) <= super::THROWN);
        before = all(&bench);
    }
    assert_eq!(before, 2, "the complete ones");
    for person in &people {
        assert_eq!(counted(&bench, person), (1, 8, 2));
    }
}
