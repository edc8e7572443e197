//! Bodies of envelopes. Each type defines its maximum length and lifetime, and checks its own limits.

use minicbor::bytes::{ByteArray, ByteVec};
use minicbor::{Decode, Encode};

use crate::envelope::{Body, Kind};
use crate::id::Id;
use crate::limits::{
    CALL_TIME, CHALLENGE_TIME, CLOCK_SKEW, DAY, JOIN_TIME, MAIL_TIME, MAX_ADDRESS, MAX_ADDRESSES,
    MAX_ATTRIBUTE_NAME, MAX_ATTRIBUTES, MAX_BLOBS, MAX_LABEL, MAX_MESSAGE, MAX_NOTE, MAX_PICTURE,
    MAX_PROFILE, MAX_THUMBNAIL,
};

/// Maximum length in bytes of the encoding of a body with a few short fields.
const SHORT: usize = 256;
/// Lifetime in seconds of a profile, a relation and a hosting, which hold until something newer replaces them.
const LONG: u64 = 10 * 366 * DAY;

/// The persona's half of a hosting: it wants to be hosted by the home that this is about. Order: a nonce.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Registration {
    /// An invitation, needed if the home takes only invited personas.
    #[n(0)]
    pub invitation: Option<ByteArray<16>>,
}

/// The home's half of a hosting: it hosts the persona that this is about. Order: a sequence, the time in seconds.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Hosting {
    /// Hash of the persona's [`Registration`]: the home signs nothing else that the persona chose.
    #[n(0)]
    pub registration: ByteArray<32>,
}

/// The persona is at this device, at the home that this is about. Order: the home's challenge.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Login {
    /// The device's peer id, encoded as libp2p's multihash.
    #[n(0)]
    pub device: ByteVec,
}

/// The persona leaves the home that this is about. Order: a nonce.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Departure {
    /// Where the persona can be found from now on.
    #[n(0)]
    pub to: Option<HomeAddress>,
}

/// A home and its addresses.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct HomeAddress {
    /// The home.
    #[n(0)]
    pub home: Id,
    /// Multiaddresses, as text.
    #[n(1)]
    pub addresses: Vec<String>,
}

/// A public profile, about the persona itself. Order: its version.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Profile {
    /// Names and values, sorted, each name once.
    #[n(0)]
    pub attributes: Vec<Attribute>,
    /// The X25519 key that messages to this persona are encrypted to.
    #[n(1)]
    pub encryption_key: ByteArray<32>,
    /// The picture, at most [`MAX_PICTURE`] bytes.
    #[n(2)]
    pub picture: Option<BlobRef>,
    /// Its thumbnail, at most [`MAX_THUMBNAIL`] bytes.
    #[n(3)]
    pub thumbnail: Option<BlobRef>,
    /// The profile is withdrawn: all other fields are empty, and no version follows.
    #[n(4)]
    pub tombstone: bool,
}

/// One attribute.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Attribute {
    /// Its name.
    #[n(0)]
    pub name: String,
    /// Its value.
    #[n(1)]
    pub value: String,
}

/// A picture or an attachment, identified by its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct BlobRef {
    /// SHA-256 of the whole content.
    #[n(0)]
    pub hash: ByteArray<32>,
    /// Its length in bytes.
    #[n(1)]
    pub size: u64,
}

/// A request to relate to the person that this is about. Order: a nonce.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct RelationRequest {
    /// The type of relation, such as `friend`.
    #[n(0)]
    pub label: String,
    /// A line of text for the other person; not encrypted.
    #[n(1)]
    pub note: String,
    /// The requester's home, to which the answer is sent.
    #[n(2)]
    pub home: HomeAddress,
}

/// The acceptance of a relation request. Order: the request's nonce.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct RelationAcceptance {
    /// Hash of the [`RelationRequest`].
    #[n(0)]
    pub request: ByteArray<32>,
}

/// The revocation of a relation. Order: the request's nonce.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct RelationRevocation {
    /// Hash of the [`RelationRequest`].
    #[n(0)]
    pub request: ByteArray<32>,
}

/// A message to the person that this is about. Order: a nonce, which is the message's id.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Message {
    /// HPKE's encapsulated key.
    #[n(0)]
    pub encapsulated: ByteArray<32>,
    /// HPKE's ciphertext.
    #[n(1)]
    pub ciphertext: ByteVec,
}

/// A call to the person that this is about. Order: a nonce, which is the call's id.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct CallOffer {
    /// The application that should answer.
    #[n(0)]
    pub application: String,
    /// The caller's device, a peer id.
    #[n(1)]
    pub device: ByteVec,
}

/// The answer to a call. Order: the offer's nonce.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct CallAnswer {
    /// Hash of the [`CallOffer`].
    #[n(0)]
    pub offer: ByteArray<32>,
    /// The callee's device and the call's token; `None` if the call is refused.
    #[n(1)]
    pub taken: Option<Taken>,
}

/// How the caller joins a call that was accepted.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Taken {
    /// The callee's device, a peer id.
    #[n(0)]
    pub device: ByteVec,
    /// Random; the caller's device shows it to the callee's once, within [`JOIN_TIME`].
    #[n(1)]
    pub token: ByteArray<32>,
}

/// Where a home can be reached; the home signs it about itself. Order: a sequence, the time in seconds.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Contact {
    /// Multiaddresses with the home's peer id, as text.
    #[n(0)]
    pub addresses: Vec<String>,
}

fn all(checks: impl IntoIterator<Item = (bool, &'static str)>) -> Result<(), &'static str> {
    checks.into_iter().find(|(holds, _)| !holds).map_or(Ok(()), |(_, wrong)| Err(wrong))
}

/// Whether a text is a valid relation label or application name.
pub(crate) fn is_label(text: &str) -> bool {
    (1..=MAX_LABEL).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Peer ids are multihashes of 34 bytes, or 38 bytes for Ed25519 keys.
fn is_device(bytes: &[u8]) -> bool {
    (34..=42).contains(&bytes.len())
}

impl HomeAddress {
    pub(crate) fn check(&self) -> Result<(), &'static str> {
        check_addresses(&self.addresses)
    }
}

fn check_addresses(addresses: &[String]) -> Result<(), &'static str> {
    all([
        (addresses.len() <= MAX_ADDRESSES, "too many addresses"),
        (addresses.iter().all(|address| is_address(address)), "an address is no multiaddress"),
    ])
}

fn is_address(text: &str) -> bool {
    text.len() <= MAX_ADDRESS && text.starts_with('/') && text.bytes().all(|byte| byte.is_ascii_graphic())
}

impl Body for Registration {
    const KIND: Kind = Kind::Registration;
    const MAX: usize = SHORT;
    const LIFE: u64 = 3600;
}

impl Body for Hosting {
    const KIND: Kind = Kind::Hosting;
    const MAX: usize = SHORT;
    const LIFE: u64 = LONG;
}

impl Body for Login {
    const KIND: Kind = Kind::Login;
    const MAX: usize = SHORT;
    const LIFE: u64 = CHALLENGE_TIME + CLOCK_SKEW;

    fn check(&self) -> Result<(), &'static str> {
        all([(is_device(&self.device), "the device is no peer id")])
    }
}

impl Body for Departure {
    const KIND: Kind = Kind::Departure;
    const MAX: usize = SHORT + MAX_ADDRESSES * (MAX_ADDRESS + 4);
    /// Redirects are served for fourteen days.
    const LIFE: u64 = MAIL_TIME;

    fn check(&self) -> Result<(), &'static str> {
        self.to.as_ref().map_or(Ok(()), HomeAddress::check)
    }
}

impl Body for Profile {
    const KIND: Kind = Kind::Profile;
    const MAX: usize = MAX_PROFILE;
    const LIFE: u64 = LONG;

    fn check(&self) -> Result<(), &'static str> {
        let name =
            |name: &str| (1..=MAX_ATTRIBUTE_NAME).contains(&name.len()) && !name.contains(char::is_control);
        let within = |blob: &Option<BlobRef>, most| blob.is_none_or(|blob| (1..=most).contains(&blob.size));
        let nothing = self.attributes.is_empty() && self.picture.is_none() && self.thumbnail.is_none();
        all([
            (self.attributes.len() <= MAX_ATTRIBUTES, "too many attributes"),
            (
                self.attributes.iter().all(|one| name(&one.name)),
                "an attribute's name has 1 to 64 bytes and no control characters",
            ),
            (self.attributes.windows(2).all(|two| two[0].name < two[1].name), "attributes not in order"),
            (within(&self.picture, MAX_PICTURE), "the picture is empty or too large"),
            (within(&self.thumbnail, MAX_THUMBNAIL), "the thumbnail is empty or too large"),
            (!self.tombstone || nothing, "a profile that is taken back holds nothing"),
        ])
    }
}

impl Body for RelationRequest {
    const KIND: Kind = Kind::RelationRequest;
    const MAX: usize = SHORT + MAX_NOTE + MAX_LABEL + MAX_ADDRESSES * (MAX_ADDRESS + 4);
    const LIFE: u64 = LONG;

    fn check(&self) -> Result<(), &'static str> {
        all([
            (
                is_label(&self.label),
                "the relation's label has 1 to 64 printable characters of ASCII, and no space",
            ),
            (self.note.len() <= MAX_NOTE, "the note has at most 512 bytes"),
        ])?;
        self.home.check()
    }
}

impl Body for RelationAcceptance {
    const KIND: Kind = Kind::RelationAcceptance;
    const MAX: usize = SHORT;
    const LIFE: u64 = LONG;
}

impl Body for RelationRevocation {
    const KIND: Kind = Kind::RelationRevocation;
    const MAX: usize = SHORT;
    const LIFE: u64 = LONG;
}

impl Body for Message {
    const KIND: Kind = Kind::Message;
    const MAX: usize = MAX_MESSAGE;
    const LIFE: u64 = MAIL_TIME;

    fn check(&self) -> Result<(), &'static str> {
        // The tag of ChaCha20-Poly1305 alone is 16 bytes.
        all([(self.ciphertext.len() >= 16, "no ciphertext")])
    }
}

impl Body for CallOffer {
    const KIND: Kind = Kind::CallOffer;
    const MAX: usize = SHORT;
    const LIFE: u64 = CALL_TIME + CLOCK_SKEW;

    fn check(&self) -> Result<(), &'static str> {
        all([
            (is_label(&self.application), "the application's name is empty, long or odd"),
            (is_device(&self.device), "the device is no peer id"),
        ])
    }
}

impl Body for CallAnswer {
    const KIND: Kind = Kind::CallAnswer;
    const MAX: usize = SHORT;
    const LIFE: u64 = CALL_TIME + JOIN_TIME + CLOCK_SKEW;

    fn check(&self) -> Result<(), &'static str> {
        all([(self.taken.as_ref().is_none_or(|taken| is_device(&taken.device)), "the device is no peer id")])
    }
}

impl Body for Contact {
    const KIND: Kind = Kind::Contact;
    const MAX: usize = SHORT + MAX_ADDRESSES * (MAX_ADDRESS + 4);
    const LIFE: u64 = MAIL_TIME;

    fn check(&self) -> Result<(), &'static str> {
        check_addresses(&self.addresses)
    }
}

impl BlobRef {
    /// Whether the size is within the limits of a blob.
    #[must_use]
    pub fn is_sensible(&self) -> bool {
        (1..=MAX_BLOBS).contains(&self.size)
    }
}

#[cfg(test)]
mod tests;
