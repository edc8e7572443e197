//! What a device and a home say to each other: requests, answers, and events that a home tells unasked.
//!
//! Here: their types and their CBOR. Not here: what is done about them ([`crate::home`]), how they travel.
//! A request and its answer are one CBOR value each on a stream of `/iop/mercury/1`; an event is a request of
//! `/iop/mercury/events/1`, whose answer is empty. Numbers of variants and fields never change their meaning.

use minicbor::bytes::{ByteArray, ByteVec};
use minicbor::{Decode, Encode};

use crate::body::BlobRef;
use crate::envelope::Envelope;
use crate::id::Id;

/// The name of the protocol of requests.
pub const REQUESTS: &str = "/iop/mercury/1";
/// The name of the protocol of events.
pub const EVENTS: &str = "/iop/mercury/events/1";
/// Longest request, in bytes: one with two envelopes, of which only a message is long.
pub const MAX_REQUEST: usize = crate::limits::MAX_ENVELOPE + 8 * 1024;
/// Longest answer, in bytes: mail.
pub const MAX_ANSWER: usize = crate::limits::MAX_FETCH_BYTES + crate::limits::MAX_ENVELOPE + 8 * 1024;

/// What a device asks of a home. docs/mercury.md has the table: who may, and what answers.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[allow(clippy::large_enum_variant, reason = "each lives for one request")]
pub enum Request {
    /// Who are you?
    #[n(0)]
    About,
    /// A nonce for the next registration, log-in or departure of this device.
    #[n(1)]
    Challenge,
    /// Host me.
    #[n(2)]
    Register(#[n(0)] Envelope),
    /// I am here; with the applications that take calls at this device.
    #[n(3)]
    LogIn(#[n(0)] Envelope, #[n(1)] Vec<String>),
    /// I am gone.
    #[n(4)]
    LogOut,
    /// The proof that I am hosted, for a device that has not got it.
    #[n(5)]
    Claim,
    /// I leave; where a number is given, only if no newer mail than that waits.
    #[n(6)]
    Unregister(#[n(0)] Envelope, #[n(1)] Option<u64>),
    /// Another set of applications at this device.
    #[n(7)]
    Announce(#[n(0)] Vec<String>),

    /// Somebody's profile.
    #[n(10)]
    GetProfile(#[n(0)] Id),
    /// My profile.
    #[n(11)]
    SetProfile(#[n(0)] Envelope),

    /// A relation is wanted: to the other's home for its request box, to one's own so that the answer is expected.
    #[n(20)]
    Relate(#[n(0)] Envelope),
    /// The requests in my box.
    #[n(21)]
    Requests,
    /// Throw away somebody's request.
    #[n(22)]
    Dismiss(#[n(0)] Id),
    /// Both halves of a relation: a proof that it holds.
    #[n(23)]
    Related(#[n(0)] Envelope, #[n(1)] Envelope),
    /// A relation is taken back.
    #[n(24)]
    Revoke(#[n(0)] Envelope),
    /// My relations, from after this other person on.
    #[n(25)]
    Relations(#[n(0)] Option<Id>),

    /// A message for somebody.
    #[n(30)]
    Put(#[n(0)] Envelope),
    /// My mail, from after this number on.
    #[n(31)]
    Fetch(#[n(0)] u64),
    /// I have my mail up to this number.
    #[n(32)]
    Acknowledge(#[n(0)] u64),

    /// I am about to send a blob.
    #[n(40)]
    Offer(#[n(0)] BlobRef),
    /// One of its chunks, by number from 0.
    #[n(41)]
    Chunk(#[n(0)] ByteArray<32>, #[n(1)] u32, #[n(2)] ByteVec),
    /// A chunk of an owner's blob.
    #[n(42)]
    GetChunk(#[n(0)] Id, #[n(1)] ByteArray<32>, #[n(2)] u32),
    /// Throw away a blob of mine.
    #[n(43)]
    Discard(#[n(0)] ByteArray<32>),
    /// My blobs.
    #[n(44)]
    Blobs,

    /// Who of these is there?
    #[n(50)]
    Presence(#[n(0)] Vec<Id>),

    /// A call. Answered when the other one answers.
    #[n(60)]
    Call(#[n(0)] Envelope),
    /// The answer to a call.
    #[n(61)]
    Answer(#[n(0)] Envelope),

    /// Of the home's owner: an invitation that holds for some seconds.
    #[n(70)]
    Invite(#[n(0)] u64),
    /// Of the home's owner: no more of this persona; why, for the owner's list.
    #[n(71)]
    Ban(#[n(0)] Id, #[n(1)] String),
    /// Of the home's owner: this persona again.
    #[n(72)]
    Unban(#[n(0)] Id),
    /// Of the home's owner: the list of bans, from after this persona on.
    #[n(73)]
    Bans(#[n(0)] Option<Id>),
    /// Of the home's owner: figures.
    #[n(74)]
    Figures,
    /// Of the home's owner: copy everything into a new folder below the home's own backups.
    #[n(75)]
    BackUp,
    /// Of the home's owner: throw away all that is kept of a banned persona.
    #[n(76)]
    Expel(#[n(0)] Id),
}

/// What a home answers.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Answer {
    /// It is done, and safe.
    #[n(0)]
    Done,
    /// It is not done.
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
    /// Relations in the order of the other's id, and whether there are more.
    #[n(21)]
    Relations(#[n(0)] Vec<Relation>, #[n(1)] bool),

    /// Mail in the order in which it came, and whether there is more.
    #[n(30)]
    Mail(#[n(0)] Vec<Mail>, #[n(1)] bool),

    /// The number of the chunk that comes next; as many as the blob has when all are here.
    #[n(40)]
    Next(#[n(0)] u32),
    /// A chunk.
    #[n(41)]
    Chunk(#[n(0)] ByteVec),
    /// Blobs, and the number of each one's next chunk.
    #[n(42)]
    Blobs(#[n(0)] Vec<(BlobRef, u32)>),

    /// Those who are there, of those that were asked for, in the order of their ids; and whether there are more of them:
    /// those with ids after the last one are to be asked for again. Homes of old do not say.
    #[n(50)]
    Presence(
        #[n(0)] Vec<Presence>,
        #[n(1)]
        #[cbor(default)]
        bool,
    ),
    /// What the called person says.
    #[n(60)]
    Answered(#[n(0)] Envelope),

    /// An invitation.
    #[n(70)]
    Invitation(#[n(0)] ByteArray<16>),
    /// Bans and why, in the order of the personas' hashes, and whether there are more.
    #[n(71)]
    Bans(#[n(0)] Vec<(Id, String)>, #[n(1)] bool),
    /// Names and numbers.
    #[n(72)]
    Figures(#[n(0)] Vec<(String, u64)>),
    /// The name of the backup's folder.
    #[n(73)]
    BackedUp(#[n(0)] String),
}

/// Why something is not done.
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

/// For programs: what kind of refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum Code {
    /// The request is malformed, or breaks a limit of its kind.
    #[n(0)]
    Malformed,
    /// An envelope does not verify.
    #[n(1)]
    Envelope,
    /// The device has to log in first, as a persona that is hosted here where that matters.
    #[n(2)]
    LogInFirst,
    /// Not for you, or there is no such thing: which of the two is not told.
    #[n(3)]
    NotForYou,
    /// A limit is reached: of a mailbox, a quota, the home.
    #[n(4)]
    Full,
    /// Something newer or else is here already.
    #[n(5)]
    Superseded,
    /// The home takes nobody, or only who is invited.
    #[n(6)]
    Closed,
    /// Too many requests: later.
    #[n(7)]
    Later,
    /// The other one is not there, or did not answer in time.
    #[n(8)]
    NoAnswer,
    /// The home has a fault of its own.
    #[n(9)]
    Fault,
}

/// Who a home is and whom it takes.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct About {
    /// The network's name.
    #[n(0)]
    pub network: String,
    /// Where it is reached: an envelope of kind `Contact`.
    #[n(1)]
    pub contact: Envelope,
    /// Whom it takes.
    #[n(2)]
    pub hosting: Hosting,
    /// Its time, in seconds since 1970.
    #[n(3)]
    pub time: u64,
}

/// Whom a home takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Hosting {
    /// Anyone.
    #[n(0)]
    Open,
    /// Who has an invitation.
    #[n(1)]
    Invited,
    /// Nobody new.
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

/// A relation as its owner has it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Relation {
    /// The other one.
    #[n(0)]
    pub other: Id,
    /// The request.
    #[n(1)]
    pub request: Envelope,
    /// The acceptance, once it is there.
    #[n(2)]
    pub acceptance: Option<Envelope>,
    /// The revocation, once one of the two has taken the relation back.
    #[n(3)]
    pub revocation: Option<Envelope>,
}

/// Something in the mail.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Mail {
    /// Its number: upward, never used again.
    #[n(0)]
    pub number: u64,
    /// When it came, in seconds since 1970.
    #[n(1)]
    pub received: u64,
    /// What it is: a message, an acceptance, a revocation.
    #[n(2)]
    pub envelope: Envelope,
}

/// Somebody who is there.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Presence {
    /// Who.
    #[n(0)]
    pub persona: Id,
    /// Applications that take calls. None are left when the persona has gone.
    #[n(1)]
    pub applications: Option<Vec<String>>,
}

/// What a home tells a device unasked.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Event {
    /// There is mail, up to this number.
    #[n(0)]
    Mail(#[n(0)] u64),
    /// Somebody wants to relate.
    #[n(1)]
    Request(#[n(0)] Id),
    /// A related person came, went, or has other applications.
    #[n(2)]
    Presence(#[n(0)] Presence),
    /// A call: an envelope of kind `CallOffer`. It is answered by [`Request::Answer`].
    #[n(3)]
    Call(#[n(0)] Envelope),
    /// This device's session is over: a newer one took its place, or the persona has left or is banned.
    #[n(4)]
    Ended,
}

impl Answer {
    /// The answer that something is not done.
    #[must_use]
    pub fn refused(code: Code, reason: impl Into<String>) -> Self {
        Self::Refused(Refusal::new(code, reason))
    }
}

impl Refusal {
    /// Why something is not done.
    #[must_use]
    pub fn new(code: Code, reason: impl Into<String>) -> Self {
        Self { code, reason: reason.into() }
    }

    /// The one refusal to strangers: it does not tell hosted from unknown.
    #[must_use]
    pub fn not_for_you() -> Self {
        Self::new(Code::NotForYou, "not for you, or there is no such persona here")
    }
}

#[cfg(test)]
mod tests;
