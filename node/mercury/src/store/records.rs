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
    /// Since when it is hosted, in seconds since 1970.
    #[n(1)]
    pub since: u64,
    /// The envelope by which it left.
    #[n(2)]
    pub departure: Option<ByteVec>,
    /// Until when the departure is served, in seconds since 1970.
    #[n(3)]
    pub redirect_until: u64,
    /// Total size of its blobs as offered, bytes.
    #[n(4)]
    pub blob_bytes: u64,
    /// Number of its blobs.
    #[n(5)]
    pub blobs: u64,
    /// Number of relations, held or requested.
    #[n(6)]
    pub relations: u64,
    /// Number of revoked relations that are remembered individually.
    #[n(8)]
    #[cbor(default)]
    pub revoked: u64,
    /// Time of the newest revocation that is no longer remembered individually, in seconds since 1970: if there is
    /// no record for the other persona, no proof up to then counts.
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
    /// Whether it was withdrawn.
    #[n(1)]
    pub tombstone: bool,
    /// The envelope.
    #[n(2)]
    pub envelope: ByteVec,
    /// Hashes of the blobs that it shows to anyone.
    #[n(3)]
    pub blobs: Vec<minicbor::bytes::ByteArray<32>>,
}

/// The state of a relation, as one of the two sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum RelationState {
    /// The owner has asked.
    #[n(0)]
    Asked,
    /// Both hold the proof.
    #[n(1)]
    Held,
    /// One of them has revoked it: nothing signed before that counts any more.
    #[n(2)]
    Revoked,
}

/// A relation of an owner to another.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Relation {
    /// The state.
    #[n(0)]
    pub state: RelationState,
    /// Hash of the request.
    #[n(1)]
    pub request_hash: minicbor::bytes::ByteArray<32>,
    /// The request's nonce.
    #[n(2)]
    pub nonce: minicbor::bytes::ByteArray<32>,
    /// The requester; the other persona if the request is unknown.
    #[n(3)]
    pub requester: Id,
    /// The request, an envelope. Empty if the revocation came without one, or if it only waited in the box: then
    /// the owner was never in this relation, and it is not listed.
    #[n(4)]
    pub request: ByteVec,
    /// The acceptance, an envelope.
    #[n(5)]
    pub acceptance: Option<ByteVec>,
    /// Time of the newest revocation, in seconds since 1970: no request issued up to then holds. 0: never revoked.
    #[n(6)]
    pub revoked: u64,
    /// When the request was signed, in seconds since 1970; later than `revoked` unless the state is `Revoked`.
    #[n(7)]
    pub issued: u64,
    /// Until when the request, and the acceptance if any, are valid, in seconds since 1970.
    #[n(8)]
    pub expires: u64,
    /// The newest revocation, an envelope; possibly of an earlier relation.
    #[n(9)]
    pub revocation: Option<ByteVec>,
    /// Hash of the newest unknown request that a revocation names: it does not hold, even if it was signed later by
    /// a fast clock. The owner's own revocations are not displaced by others.
    #[n(10)]
    #[cbor(default)]
    pub named: Option<minicbor::bytes::ByteArray<32>>,
    /// The only known fact is that the other persona withdrew a request from the box. Such records are dropped
    /// first, as strangers may create any number of them.
    #[n(11)]
    #[cbor(default)]
    pub withdrawn: bool,
}

impl Relation {
    /// Whether a request, given by its hash and issue time, was revoked.
    #[must_use]
    pub fn has_ended(&self, request: &[u8; 32], issued: u64) -> bool {
        issued <= self.revoked || self.named.as_ref().is_some_and(|named| **named == *request)
    }
}

/// A request that waits for its recipient.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Request {
    /// When it arrived, in seconds since 1970.
    #[n(0)]
    pub received: u64,
    /// The envelope.
    #[n(1)]
    pub envelope: ByteVec,
    /// Position in the order of arrival of the recipient's requests.
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
    /// The signer.
    #[n(6)]
    pub sender: Id,
}

/// The totals of a recipient's mailbox.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
pub struct Mailbox {
    /// Number of the next item; the first is 1.
    #[n(0)]
    pub next: u64,
    /// Number of waiting items.
    #[n(1)]
    pub count: u64,
    /// Their total bytes, as counted for the limit.
    #[n(2)]
    pub bytes: u64,
    /// Number up to which the recipient has acknowledged; no waiting item has a lower one.
    #[n(3)]
    pub acknowledged: u64,
    /// Number of messages whose hashes are remembered.
    #[n(4)]
    pub seen: u64,
    /// No item expires before this, in seconds since 1970.
    #[n(5)]
    pub oldest_expires: u64,
}

/// A sender's share of a recipient's mailbox.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Encode, Decode)]
pub struct Sender {
    /// Waiting bytes, as counted for the limit.
    #[n(0)]
    pub bytes: u64,
    /// Number of messages whose hashes are remembered.
    #[n(1)]
    pub seen: u64,
}

/// The mark of a message that arrived; it may have been fetched and deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Seen {
    /// Until when it could be sent again, in seconds since 1970.
    #[n(0)]
    pub expires: u64,
    /// The signer.
    #[n(1)]
    pub sender: Id,
}

/// The kind of an item.
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

/// An item waiting for its recipient.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Item {
    /// Its kind.
    #[n(0)]
    pub kind: ItemKind,
    /// The signer.
    #[n(1)]
    pub sender: Id,
    /// When it arrived, in seconds since 1970.
    #[n(2)]
    pub received: u64,
    /// When it is deleted, in seconds since 1970.
    #[n(3)]
    pub expires: u64,
    /// The envelope.
    #[n(4)]
    pub envelope: ByteVec,
}

/// A blob, complete or being uploaded.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Blob {
    /// Its length in bytes.
    #[n(0)]
    pub size: u64,
    /// Number of the next chunk; all before it are stored.
    #[n(1)]
    pub next: u32,
    /// Whether it is complete and its hash was verified.
    #[n(2)]
    pub complete: bool,
    /// When it was offered, in seconds since 1970.
    #[n(3)]
    pub since: u64,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::cbor::to_vec;

    /// [`Relation`] as it was before `named` was added.
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
