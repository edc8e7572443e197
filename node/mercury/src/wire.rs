//! The protocol between a device and a home: requests, answers, and events that the home sends unasked.
//!
//! Here: their types and CBOR encoding. Not here: how they are handled ([`crate::home`]), and transport. A request
//! and its answer are one CBOR value each on a stream of `/iop/mercury/1`; an event is a request of
//! `/iop/mercury/events/1`, whose answer is empty. The numbers of variants and fields never change their meaning.

use minicbor::bytes::{ByteArray, ByteVec};
use minicbor::{Decode, Encode};

use crate::body::BlobRef;
use crate::envelope::Envelope;
use crate::id::Id;

/// The name of the request protocol.
pub const REQUESTS: &str = "/iop/mercury/1";
/// The name of the event protocol.
pub const EVENTS: &str = "/iop/mercury/events/1";
/// Maximum length in bytes of a request: one with two envelopes, of which only a message is long.
pub const MAX_REQUEST: usize = crate::limits::MAX_ENVELOPE + 8 * 1024;
/// Maximum length in bytes of an answer: mail.
pub const MAX_ANSWER: usize = crate::limits::MAX_FETCH_BYTES + crate::limits::MAX_ENVELOPE + 8 * 1024;

/// A device's request to a home. docs/mercury.md has a table of the permissions and answers.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[allow(clippy::large_enum_variant, reason = "each lives for one request")]
pub enum Request {
    /// Who the home is.
    #[n(0)]
    About,
    /// A nonce for this device's next registration, log-in or departure.
    #[n(1)]
    Challenge,
    /// Host this persona.
    #[n(2)]
    Register(#[n(0)] Envelope),
    /// Log in, with the applications that take calls at this device.
    #[n(3)]
    LogIn(#[n(0)] Envelope, #[n(1)] Vec<String>),
    /// Log out.
    #[n(4)]
    LogOut,
    /// The proof of hosting, for a device that does not have it.
    #[n(5)]
    Claim,
    /// Leave this home; if a number is given, only if no newer mail than that waits.
    #[n(6)]
    Unregister(#[n(0)] Envelope, #[n(1)] Option<u64>),
    /// Replace the set of applications at this device.
    #[n(7)]
    Announce(#[n(0)] Vec<String>),

    /// A persona's profile.
    #[n(10)]
    GetProfile(#[n(0)] Id),
    /// Set one's own profile.
    #[n(11)]
    SetProfile(#[n(0)] Envelope),

    /// A relation request: sent to the other's home for its request box, and to one's own so that the answer is
    /// expected.
    #[n(20)]
    Relate(#[n(0)] Envelope),
    /// The requests in one's own box.
    #[n(21)]
    Requests,
    /// Discard a persona's request.
    #[n(22)]
    Dismiss(#[n(0)] Id),
    /// Both halves of a relation: a proof that it holds.
    #[n(23)]
    Related(#[n(0)] Envelope, #[n(1)] Envelope),
    /// Revoke a relation.
    #[n(24)]
    Revoke(#[n(0)] Envelope),
    /// One's own relations, after this persona in order.
    #[n(25)]
    Relations(#[n(0)] Option<Id>),

    /// A message for a persona.
    #[n(30)]
    Put(#[n(0)] Envelope),
    /// One's own mail, after this number.
    #[n(31)]
    Fetch(#[n(0)] u64),
    /// Delete one's own mail up to this number.
    #[n(32)]
    Acknowledge(#[n(0)] u64),

    /// Announce the upload of a blob.
    #[n(40)]
    Offer(#[n(0)] BlobRef),
    /// One of its chunks, numbered from 0.
    #[n(41)]
    Chunk(#[n(0)] ByteArray<32>, #[n(1)] u32, #[n(2)] ByteVec),
    /// A chunk of an owner's blob.
    #[n(42)]
    GetChunk(#[n(0)] Id, #[n(1)] ByteArray<32>, #[n(2)] u32),
    /// Discard one's own blob.
    #[n(43)]
    Discard(#[n(0)] ByteArray<32>),
    /// One's own blobs.
    #[n(44)]
    Blobs,

    /// Which of these personas are online.
    #[n(50)]
    Presence(#[n(0)] Vec<Id>),

    /// A call. The answer comes when the callee answers.
    #[n(60)]
    Call(#[n(0)] Envelope),
    /// The answer to a call.
    #[n(61)]
    Answer(#[n(0)] Envelope),

    /// Home owner only: an invitation that is valid for this many seconds.
    #[n(70)]
    Invite(#[n(0)] u64),
    /// Home owner only: ban this persona, with a reason for the owner's list.
    #[n(71)]
    Ban(#[n(0)] Id, #[n(1)] String),
    /// Home owner only: unban this persona.
    #[n(72)]
    Unban(#[n(0)] Id),
    /// Home owner only: the list of bans, after this persona in order.
    #[n(73)]
    Bans(#[n(0)] Option<Id>),
    /// Home owner only: figures.
    #[n(74)]
    Figures,
    /// Home owner only: copy everything into a new directory in the home's backups.
    #[n(75)]
    BackUp,
    /// Home owner only: delete everything that is kept of a banned persona.
    #[n(76)]
    Expel(#[n(0)] Id),
}

/// A home's answer.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Answer {
    /// It was done and is on disk.
    #[n(0)]
    Done,
    /// It was refused.
    #[n(1)]
    Refused(#[n(0)] Refusal),
    /// Who the home is.
    #[n(2)]
    About(#[n(0)] About),
    /// A challenge.
    #[n(3)]
    Challenge(#[n(0)] ByteArray<32>),
    /// Both halves of a hosting: the registration and the home's proof.
    #[n(4)]
    Hosting(#[n(0)] Envelope, #[n(1)] Envelope),
    /// Logged in; whether the persona is hosted here.
    #[n(5)]
    Session(#[n(0)] bool),

    /// A profile.
    #[n(10)]
    Profile(#[n(0)] Envelope),
    /// The persona has left; its departure says where to.
    #[n(11)]
    Moved(#[n(0)] Envelope),

    /// Requests, the oldest first.
    #[n(20)]
    Requests(#[n(0)] Vec<Envelope>),
    /// Relations ordered by the other's id, and whether there are more.
    #[n(21)]
    Relations(#[n(0)] Vec<Relation>, #[n(1)] bool),

    /// Mail in the order of arrival, and whether there is more.
    #[n(30)]
    Mail(#[n(0)] Vec<Mail>, #[n(1)] bool),

    /// The number of the next chunk; the blob's number of chunks if it is complete.
    #[n(40)]
    Next(#[n(0)] u32),
    /// A chunk.
    #[n(41)]
    Chunk(#[n(0)] ByteVec),
    /// Blobs, with the number of each one's next chunk.
    #[n(42)]
    Blobs(#[n(0)] Vec<(BlobRef, u32)>),

    /// Those of the requested personas that are online, ordered by id, and whether there are more: those with ids
    /// after the last one must be requested again. Older homes do not say.
    #[n(50)]
    Presence(
        #[n(0)] Vec<Presence>,
        #[n(1)]
        #[cbor(default)]
        bool,
    ),
    /// The callee's answer.
    #[n(60)]
    Answered(#[n(0)] Envelope),

    /// An invitation.
    #[n(70)]
    Invitation(#[n(0)] ByteArray<16>),
    /// Bans with reasons, ordered by the personas' hashes, and whether there are more.
    #[n(71)]
    Bans(#[n(0)] Vec<(Id, String)>, #[n(1)] bool),
    /// Names and numbers.
    #[n(72)]
    Figures(#[n(0)] Vec<(String, u64)>),
    /// The name of the backup's directory.
    #[n(73)]
    BackedUp(#[n(0)] String),
}

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, thiserror::Error)]
#[error("{reason}")]
pub struct Refusal {
    /// For programs.
    #[n(0)]
    pub code: Code,
    /// For people: one line in English.
    #[n(1)]
    pub reason: String,
}

/// The kind of refusal, for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum Code {
    /// The request is malformed, or exceeds a limit of its kind.
    #[n(0)]
    Malformed,
    /// An envelope does not verify.
    #[n(1)]
    Envelope,
    /// The device must log in first, in some cases as a persona that is hosted here.
    #[n(2)]
    LogInFirst,
    /// Not permitted, or not found: which of the two is not revealed.
    #[n(3)]
    NotForYou,
    /// A limit is reached: of a mailbox, a quota, or the home.
    #[n(4)]
    Full,
    /// Something newer, or something else, is here already.
    #[n(5)]
    Superseded,
    /// The home takes no new personas, or only invited ones.
    #[n(6)]
    Closed,
    /// Too many requests; try again later.
    #[n(7)]
    Later,
    /// The callee is offline, or did not answer in time.
    #[n(8)]
    NoAnswer,
    /// The home has an internal fault.
    #[n(9)]
    Fault,
}

/// Who a home is and which personas it takes.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct About {
    /// The network's name.
    #[n(0)]
    pub network: String,
    /// Where it can be reached: an envelope of kind `Contact`.
    #[n(1)]
    pub contact: Envelope,
    /// Which personas it takes.
    #[n(2)]
    pub hosting: Hosting,
    /// The home's time, in seconds since 1970.
    #[n(3)]
    pub time: u64,
}

/// Which personas a home takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Hosting {
    /// Anyone.
    #[n(0)]
    Open,
    /// Those with an invitation.
    #[n(1)]
    Invited,
    /// No new ones.
    #[n(2)]
    Closed,
}

impl std::str::FromStr for Hosting {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "open" => Ok(Self::Open),
            "invited" => Ok(Self::Invited),
            "closed" => Ok(Self::Closed),
            other => Err(format!("'{other}', open, invited or closed expected")),
        }
    }
}

/// A relation as one of its two personas sees it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Relation {
    /// The other persona.
    #[n(0)]
    pub other: Id,
    /// The request.
    #[n(1)]
    pub request: Envelope,
    /// The acceptance, if any.
    #[n(2)]
    pub acceptance: Option<Envelope>,
    /// The revocation, if one of the two has revoked the relation.
    #[n(3)]
    pub revocation: Option<Envelope>,
}

/// An item of mail.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Mail {
    /// Its number; increases and is never reused.
    #[n(0)]
    pub number: u64,
    /// When it arrived, in seconds since 1970.
    #[n(1)]
    pub received: u64,
    /// The content: a message, an acceptance, a revocation.
    #[n(2)]
    pub envelope: Envelope,
}

/// A persona's presence.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Presence {
    /// The persona.
    #[n(0)]
    pub persona: Id,
    /// Its applications that take calls. `None` if the persona has gone offline.
    #[n(1)]
    pub applications: Option<Vec<String>>,
}

/// Sent by a home to a device unasked.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Event {
    /// There is mail, up to this number.
    #[n(0)]
    Mail(#[n(0)] u64),
    /// A persona sent a relation request.
    #[n(1)]
    Request(#[n(0)] Id),
    /// A related persona came online, went offline, or has other applications.
    #[n(2)]
    Presence(#[n(0)] Presence),
    /// A call: an envelope of kind `CallOffer`, answered by [`Request::Answer`].
    #[n(3)]
    Call(#[n(0)] Envelope),
    /// This device's session has ended: a newer one replaced it, or the persona has left or is banned.
    #[n(4)]
    Ended,
}

impl Answer {
    /// A refusing answer.
    #[must_use]
    pub fn refused(code: Code, reason: impl Into<String>) -> Self {
        Self::Refused(Refusal::new(code, reason))
    }
}

impl Refusal {
    /// A refusal.
    #[must_use]
    pub fn new(code: Code, reason: impl Into<String>) -> Self {
        Self { code, reason: reason.into() }
    }

    /// The same refusal for every stranger: it does not reveal whether a persona is hosted or unknown.
    #[must_use]
    pub fn not_for_you() -> Self {
        Self::new(Code::NotForYou, "not for you, or there is no such persona here")
    }
}

#[cfg(test)]
mod tests;
