//! The records.

use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};

use crate::id::Id;

/// A persona that this home hosts, or has hosted.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Hosted {
    /// The home's half of the proof, an envelope.
    #[n(0)]
    pub proof: ByteVec,
    /// The persona's half, an envelope.
    #[n(7)]
    pub registration: ByteVec,
    /// Since when, in seconds since 1970.
    #[n(1)]
    pub since: u64,
    /// The envelope by which it left, and until when that is told.
    #[n(2)]
    pub departure: Option<ByteVec>,
    /// Until when the departure is told, in seconds since 1970.
    #[n(3)]
    pub redirect_until: u64,
    /// Bytes of all its blobs, as announced.
    #[n(4)]
    pub blob_bytes: u64,
    /// How many blobs.
    #[n(5)]
    pub blobs: u64,
    /// Relations, held or asked for.
    #[n(6)]
    pub relations: u64,
    /// Relations that were taken back and are remembered one by one.
    #[n(8)]
    #[cbor(default)]
    pub revoked: u64,
    /// Newest revocation that is not remembered by itself any more, in seconds since 1970: to people of whom no
    /// record is left, no proof up to then counts.
    #[n(9)]
    #[cbor(default)]
    pub forgotten: u64,
}

/// The newest profile.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct StoredProfile {
    /// Its version.
    #[n(0)]
    pub version: u64,
    /// Whether it was taken back.
    #[n(1)]
    pub tombstone: bool,
    /// The envelope.
    #[n(2)]
    pub envelope: ByteVec,
    /// Hashes of the blobs that it shows to anyone.
    #[n(3)]
    pub blobs: Vec<minicbor::bytes::ByteArray<32>>,
}

/// How far a relation has come, as one of the two has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum RelationState {
    /// The owner has asked.
    #[n(0)]
    Asked,
    /// Both hold the proof.
    #[n(1)]
    Held,
    /// One of them has taken it back: nothing signed before that counts any more.
    #[n(2)]
    Revoked,
}

/// A relation of an owner to another.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Relation {
    /// How far it has come.
    #[n(0)]
    pub state: RelationState,
    /// Hash of the request.
    #[n(1)]
    pub request_hash: minicbor::bytes::ByteArray<32>,
    /// The request's nonce.
    #[n(2)]
    pub nonce: minicbor::bytes::ByteArray<32>,
    /// Who asked; of a request that is not known, the other one.
    #[n(3)]
    pub requester: Id,
    /// The request, an envelope. Empty where the revocation came without one, or when it only waited in the box: then
    /// the owner has never been in this relation, and it is not told.
    #[n(4)]
    pub request: ByteVec,
    /// The acceptance, an envelope.
    #[n(5)]
    pub acceptance: Option<ByteVec>,
    /// When it was revoked last, in seconds since 1970: nothing that was asked for up to then holds. 0: never.
    #[n(6)]
    pub revoked: u64,
    /// When the request was signed, in seconds since 1970; later than `revoked` unless the state is `Revoked`.
    #[n(7)]
    pub issued: u64,
    /// Until when the request, and the acceptance if there is one, hold, in seconds since 1970.
    #[n(8)]
    pub expires: u64,
    /// The newest revocation, an envelope; also of an earlier relation.
    #[n(9)]
    pub revocation: Option<ByteVec>,
    /// Hash of a request that a revocation names and that is not known, of the newest such one: it does not hold, even
    /// if it was signed later by a clock that was ahead. The owner's own give way to no others.
    #[n(10)]
    #[cbor(default)]
    pub named: Option<minicbor::bytes::ByteArray<32>>,
    /// All that is known is that the other one withdrew a request from the box: the first to give way, as strangers
    /// may make as many as they like.
    #[n(11)]
    #[cbor(default)]
    pub withdrawn: bool,
}

impl Relation {
    /// Whether a request, by its hash and the second in which it was signed, was taken back.
    #[must_use]
    pub fn has_ended(&self, request: &[u8; 32], issued: u64) -> bool {
        issued <= self.revoked || self.named.as_ref().is_some_and(|named| **named == *request)
    }
}

/// A request that waits for its recipient.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Request {
    /// When it came, in seconds since 1970.
    #[n(0)]
    pub received: u64,
    /// The envelope.
    #[n(1)]
    pub envelope: ByteVec,
    /// Place in the order in which the recipient's requests came.
    #[n(2)]
    pub number: u64,
    /// Its hash.
    #[n(3)]
    pub hash: minicbor::bytes::ByteArray<32>,
    /// When it was signed, in seconds since 1970.
    #[n(4)]
    pub issued: u64,
    /// Until when it can be accepted, in seconds since 1970.
    #[n(5)]
    pub expires: u64,
    /// Who signed it.
    #[n(6)]
    pub sender: Id,
}

/// What waits for a recipient, counted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
pub struct Mailbox {
    /// Number of the next item; the first one has 1.
    #[n(0)]
    pub next: u64,
    /// Items that wait.
    #[n(1)]
    pub count: u64,
    /// Their bytes, as they count against the limit.
    #[n(2)]
    pub bytes: u64,
    /// Number up to which the recipient has acknowledged: nothing waits below.
    #[n(3)]
    pub acknowledged: u64,
    /// Messages whose hashes are remembered.
    #[n(4)]
    pub seen: u64,
    /// No item is too old before this, in seconds since 1970.
    #[n(5)]
    pub oldest_expires: u64,
}

/// What a sender has in a recipient's mailbox.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Encode, Decode)]
pub struct Sender {
    /// Bytes that wait, as they count against the limit.
    #[n(0)]
    pub bytes: u64,
    /// Messages whose hashes are remembered.
    #[n(1)]
    pub seen: u64,
}

/// A message that came; it may have been fetched and be gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Seen {
    /// When it cannot come again, in seconds since 1970.
    #[n(0)]
    pub expires: u64,
    /// Who signed it.
    #[n(1)]
    pub sender: Id,
}

/// What an item is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum ItemKind {
    /// A message.
    #[n(0)]
    Message,
    /// A relation was accepted.
    #[n(1)]
    Accepted,
    /// A relation was revoked.
    #[n(2)]
    Revoked,
}

/// Something that waits for its recipient.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Item {
    /// What it is.
    #[n(0)]
    pub kind: ItemKind,
    /// Who signed it.
    #[n(1)]
    pub sender: Id,
    /// When it came, in seconds since 1970.
    #[n(2)]
    pub received: u64,
    /// When it is thrown away, in seconds since 1970.
    #[n(3)]
    pub expires: u64,
    /// The envelope.
    #[n(4)]
    pub envelope: ByteVec,
}

/// A blob on its way or here.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Blob {
    /// Its length in bytes.
    #[n(0)]
    pub size: u64,
    /// Number of the chunk that comes next; all before it are here.
    #[n(1)]
    pub next: u32,
    /// All is here and has the hash.
    #[n(2)]
    pub complete: bool,
    /// When it was announced, in seconds since 1970.
    #[n(3)]
    pub since: u64,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::cbor::to_vec;

    /// [`Relation`] as it was before it kept what a revocation names.
    #[derive(Encode)]
    struct Before {
        #[n(0)]
        state: RelationState,
        #[n(1)]
        request_hash: minicbor::bytes::ByteArray<32>,
        #[n(2)]
        nonce: minicbor::bytes::ByteArray<32>,
        #[n(3)]
        requester: Id,
        #[n(4)]
        request: ByteVec,
        #[n(5)]
        acceptance: Option<ByteVec>,
        #[n(6)]
        revoked: u64,
        #[n(7)]
        issued: u64,
        #[n(8)]
        expires: u64,
        #[n(9)]
        revocation: Option<ByteVec>,
    }

    #[test]
    fn a_relation_that_was_written_before_is_read() {
        let before = Before {
            state: RelationState::Revoked,
            request_hash: [1; 32].into(),
            nonce: [2; 32].into(),
            requester: Id::from_digest([3; 32]),
            request: vec![4].into(),
            acceptance: None,
            revoked: 5,
            issued: 4,
            expires: 6,
            revocation: Some(vec![7].into()),
        };
        let relation: Relation = minicbor::decode(&to_vec(&before)).unwrap();
        assert_eq!((relation.named, relation.withdrawn, relation.revoked), (None, false, 5));
        assert!(relation.has_ended(&[1; 32], 5) && !relation.has_ended(&[1; 32], 6));
    }
}
