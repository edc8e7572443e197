//! The envelope around everything that is signed.
//!
//! Here: what is signed and how it is verified, in one place ([`Envelope::verify`]), which alone makes a
//! [`Verified`]. Not here: what the bodies mean ([`crate::body`]). The signed bytes are
//! `"iop-mercury envelope 1\0"`, then kind (1 byte), network (length in 1 byte, text), signer (32 bytes, the public
//! key), about (35 bytes, an id), order (a byte 0 and a sequence of 8 bytes, or a byte 1 and a nonce of 32), issued
//! and expires (8 bytes each, seconds since 1970), body (length in 4 bytes, bytes); numbers are big-endian. On the
//! wire, an envelope is a CBOR array of these fields in this order, followed by the signature.

use ed25519_dalek::{Signature, Signer, VerifyingKey};
use minicbor::bytes::{ByteArray, ByteVec};
use minicbor::{Decode, Encode};
use sha2::{Digest, Sha256};

use crate::cbor;
use crate::id::{Id, Key};
use crate::limits::{CLOCK_SKEW, MAX_ENVELOPE, MAX_NETWORK};

/// The purpose of a signature. The kind is signed, so a signature of one kind is never valid for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum Kind {
    /// A persona wants to be hosted by a home: the persona's half of the hosting proof.
    #[n(1)]
    Registration = 1,
    /// A home hosts a persona: the home's half.
    #[n(2)]
    Hosting = 2,
    /// A persona is at this device and this home now.
    #[n(3)]
    Login = 3,
    /// A persona leaves a home.
    #[n(4)]
    Departure = 4,
    /// A persona's public profile.
    #[n(5)]
    Profile = 5,
    /// A persona wants to relate to another.
    #[n(6)]
    RelationRequest = 6,
    /// The other persona agrees.
    #[n(7)]
    RelationAcceptance = 7,
    /// Either persona revokes the relation.
    #[n(8)]
    RelationRevocation = 8,
    /// A message.
    #[n(9)]
    Message = 9,
    /// A persona calls another.
    #[n(10)]
    CallOffer = 10,
    /// The callee answers.
    #[n(11)]
    CallAnswer = 11,
    /// Where a home can be reached.
    #[n(12)]
    Contact = 12,
}

/// A hash or a challenge.
pub type Bytes32 = [u8; 32];

/// Distinguishes envelopes of one signer and kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Order {
    /// Must increase, such as a profile's version.
    Sequence(u64),
    /// Must not repeat, such as a home's challenge.
    Nonce(Bytes32),
}

impl<C> Encode<C> for Order {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut minicbor::Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        match self {
            Self::Sequence(number) => e.u64(*number)?.ok(),
            Self::Nonce(bytes) => e.bytes(bytes)?.ok(),
        }
    }
}

impl<'b, C> Decode<'b, C> for Order {
    fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        if d.datatype()? == minicbor::data::Type::Bytes {
            let nonce = d.bytes()?.try_into();
            return nonce.map(Self::Nonce).map_err(|_| minicbor::decode::Error::message("no nonce"));
        }
        d.u64().map(Self::Sequence)
    }
}

/// A network's name. Its length is limited on decoding, since the signed bytes have one byte for it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Network(String);

impl<C> Encode<C> for Network {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut minicbor::Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.str(&self.0)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Network {
    fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        let name = d.str()?;
        if name.len() > MAX_NETWORK {
            return Err(minicbor::decode::Error::message("no network's name"));
        }
        Ok(Self(name.to_owned()))
    }
}

/// A signed envelope in wire form. Nothing in it may be trusted before [`Self::verify`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Envelope {
    #[n(0)]
    kind: Kind,
    #[n(1)]
    network: Network,
    #[n(2)]
    signer: ByteArray<32>,
    #[n(3)]
    about: Id,
    #[n(4)]
    order: Order,
    #[n(5)]
    issued: u64,
    #[n(6)]
    expires: u64,
    #[n(7)]
    body: ByteVec,
    #[n(8)]
    signature: ByteArray<64>,
}

/// The body of an envelope.
pub trait Body: Encode<()> + for<'b> Decode<'b, ()> {
    /// The kind of its envelopes.
    const KIND: Kind;
    /// Longest encoding, in bytes.
    const MAX: usize;
    /// Longest time from issue to expiry, in seconds.
    const LIFE: u64;

    /// Checks what the type alone does not guarantee.
    ///
    /// # Errors
    /// The field that is out of bounds.
    fn check(&self) -> Result<(), &'static str> {
        Ok(())
    }
}

/// What an envelope must contain to be accepted.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'a> {
    /// The network's name.
    pub network: &'a str,
    /// The id it must be about: the home that receives it, or the other person. `None` if that is checked later.
    pub about: Option<Id>,
    /// The required signer; `None` if anyone may sign.
    pub signer: Option<Id>,
    /// The time, in seconds since 1970.
    pub now: u64,
}

/// Why an envelope is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// Longer than any envelope may be.
    #[error("an envelope of {0} bytes, at most {MAX_ENVELOPE} expected")]
    TooLong(usize),
    /// The bytes are not an envelope.
    #[error("malformed envelope")]
    Malformed,
    /// The wrong kind.
    #[error("an envelope of kind {found:?}, {expected:?} expected")]
    Kind {
        /// The kind found.
        found: Kind,
        /// The kind expected.
        expected: Kind,
    },
    /// For another network.
    #[error("an envelope for another network")]
    Network,
    /// About another person, or for another home.
    #[error("an envelope about somebody else")]
    About,
    /// Signed by someone else.
    #[error("an envelope of somebody else")]
    Signer,
    /// The signature does not verify.
    #[error("the signature is wrong")]
    Signature,
    /// It was issued in the future.
    #[error("issued in the future: the clocks differ by more than {CLOCK_SKEW} s")]
    Future,
    /// Its lifetime is over.
    #[error("expired")]
    Expired,
    /// Its lifetime is longer than its kind allows, or ends before it begins.
    #[error("valid for a time that its kind does not allow")]
    Life,
    /// The body is not valid for its kind.
    #[error("malformed body: {0}")]
    Body(&'static str),
}

/// An envelope whose signature, domain and body were checked. Only [`Envelope::verify`] makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified<B> {
    signer: Id,
    about: Id,
    order: Order,
    issued: u64,
    expires: u64,
    body: B,
    hash: Bytes32,
    bytes: Vec<u8>,
}

impl<B> Verified<B> {
    /// The signer.
    pub fn signer(&self) -> Id {
        self.signer
    }

    /// The home that it is for, or the person that it is about.
    pub fn about(&self) -> Id {
        self.about
    }

    /// The sequence or nonce.
    pub fn order(&self) -> Order {
        self.order
    }

    /// When it was signed, in seconds since 1970.
    pub fn issued(&self) -> u64 {
        self.issued
    }

    /// The time until which it is valid, in seconds since 1970.
    pub fn expires(&self) -> u64 {
        self.expires
    }

    /// The body.
    pub fn body(&self) -> &B {
        &self.body
    }

    /// SHA-256 of the signed bytes, by which others refer to it.
    pub fn hash(&self) -> Bytes32 {
        self.hash
    }

    /// The wire form.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl Envelope {
    /// Signs a body.
    ///
    /// # Panics
    /// The network's name is longer than [`MAX_NETWORK`] bytes, or the body longer than 4 GiB.
    #[must_use]
    pub fn sign<B: Body>(
        key: &Key,
        network: &str,
        about: Id,
        order: Order,
        times: (u64, u64),
        body: &B,
    ) -> Self {
        assert!(network.len() <= MAX_NETWORK, "networks have short names");
        let body = cbor::to_vec(body);
        let mut envelope = Self {
            kind: B::KIND,
            network: Network(network.to_owned()),
            signer: key.public().to_bytes().into(),
            about,
            order,
            issued: times.0,
            expires: times.1,
            body: body.into(),
            signature: [0; 64].into(),
        };
        envelope.signature = key.signing().sign(&envelope.signed_bytes()).to_bytes().into();
        envelope
    }

    /// Decodes the wire form.
    ///
    /// # Errors
    /// The bytes are too long, or not an envelope.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, EnvelopeError> {
        if bytes.len() > MAX_ENVELOPE {
            return Err(EnvelopeError::TooLong(bytes.len()));
        }
        cbor::from_slice(bytes).ok_or(EnvelopeError::Malformed)
    }

    /// The wire form.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        cbor::to_vec(self)
    }

    /// The claimed kind; not to be trusted before the envelope is verified.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The claimed signer's public key; not to be trusted before the envelope is verified.
    #[must_use]
    pub fn claimed_signer(&self) -> Bytes32 {
        *self.signer
    }

    /// SHA-256 of the signed bytes, equal to [`Verified::hash`].
    #[must_use]
    pub fn hash(&self) -> Bytes32 {
        Sha256::digest(self.signed_bytes()).into()
    }

    fn signed_bytes(&self) -> Vec<u8> {
        let length = u32::try_from(self.body.len()).expect("bodies are far below 4 GiB");
        let network = u8::try_from(self.network.0.len()).expect("names are at most 32 bytes");
        let mut signed = Vec::with_capacity(160 + self.body.len());
        signed.extend_from_slice(b"iop-mercury envelope 1\0");
        signed.extend_from_slice(&[self.kind as u8, network]);
        signed.extend_from_slice(self.network.0.as_bytes());
        signed.extend_from_slice(&*self.signer);
        signed.extend_from_slice(&self.about.to_bytes());
        match self.order {
            Order::Sequence(number) => {
                signed.push(0);
                signed.extend_from_slice(&number.to_be_bytes());
            }
            Order::Nonce(nonce) => {
                signed.push(1);
                signed.extend_from_slice(&nonce);
            }
        }
        signed.extend_from_slice(&self.issued.to_be_bytes());
        signed.extend_from_slice(&self.expires.to_be_bytes());
        signed.extend_from_slice(&length.to_be_bytes());
        signed.extend_from_slice(&self.body);
        signed
    }

    /// Checks everything, cheap checks first.
    ///
    /// # Errors
    /// The first check that fails.
    pub fn verify<B: Body>(&self, expected: &Expected<'_>) -> Result<Verified<B>, EnvelopeError> {
        if self.kind != B::KIND {
            return Err(EnvelopeError::Kind { found: self.kind, expected: B::KIND });
        }
        if self.network.0 != expected.network {
            return Err(EnvelopeError::Network);
        }
        if expected.about.is_some_and(|about| about != self.about) {
            return Err(EnvelopeError::About);
        }
        let key = VerifyingKey::from_bytes(&self.signer).map_err(|_| EnvelopeError::Signature)?;
        let signer = Id::of(&key);
        if expected.signer.is_some_and(|wanted| wanted != signer) {
            return Err(EnvelopeError::Signer);
        }
        self.check_times(B::LIFE, expected.now)?;
        if self.body.len() > B::MAX {
            return Err(EnvelopeError::Body("longer than its kind allows"));
        }
        let signed = self.signed_bytes();
        // Strict: rejects keys of small order and malleable signatures.
        key.verify_strict(&signed, &Signature::from_bytes(&self.signature))
            .map_err(|_| EnvelopeError::Signature)?;
        let body: B = cbor::from_slice(&self.body).ok_or(EnvelopeError::Body("not what its kind has"))?;
        body.check().map_err(EnvelopeError::Body)?;
        let hash = Sha256::digest(&signed).into();
        Ok(Verified {
            signer,
            about: self.about,
            order: self.order,
            issued: self.issued,
            expires: self.expires,
            body,
            hash,
            bytes: self.to_bytes(),
        })
    }

    fn check_times(&self, life: u64, now: u64) -> Result<(), EnvelopeError> {
        match self.expires.checked_sub(self.issued) {
            Some(span) if span <= life => {}
            _ => return Err(EnvelopeError::Life),
        }
        if self.issued > now.saturating_add(CLOCK_SKEW) {
            return Err(EnvelopeError::Future);
        }
        if now > self.expires { Err(EnvelopeError::Expired) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests;
