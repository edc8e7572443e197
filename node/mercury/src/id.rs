//! Keys, and the ids derived from them.

use std::fmt;
use std::str::FromStr;

use ed25519_dalek::{SigningKey, VerifyingKey};
use libp2p::PeerId;
use libp2p::identity::Keypair;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// First byte of an id: the version of the layout.
const VERSION: u8 = 1;
/// Prefix of a SHA-256 multihash: its code and its length.
const MULTIHASH: [u8; 2] = [0x12, 0x20];
/// Bytes of an id on the wire.
pub const ID_BYTES: usize = 1 + MULTIHASH.len() + 32;
/// Maximum number of characters of an id in base58.
const MAX_ID_TEXT: usize = 49;

/// The id of a persona or a home: the SHA-256 of its Ed25519 public key. On the wire it is a version byte (1) and a
/// multihash; as text the same in base58.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id([u8; 32]);

/// The bytes or the text are not an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no id: base58 of the byte 1 and a SHA-256 multihash expected")]
pub struct IdError;

impl Id {
    /// The id of a public key.
    #[must_use]
    pub fn of(key: &VerifyingKey) -> Self {
        Self(Sha256::digest(key.as_bytes()).into())
    }

    /// The id of a libp2p peer with an Ed25519 key; for a home's peer id, that is the home's id.
    #[must_use]
    pub fn of_peer(peer: &PeerId) -> Option<Self> {
        // An Ed25519 peer id is the identity hash of the key's protobuf: 0x00 0x24, 0x08 0x01 0x12 0x20, the key.
        let bytes = peer.to_bytes();
        let key = bytes.strip_prefix(&[0x00, 0x24, 0x08, 0x01, 0x12, 0x20])?;
        VerifyingKey::from_bytes(key.try_into().ok()?).ok().map(|key| Self::of(&key))
    }

    /// The wire form.
    #[must_use]
    pub fn to_bytes(self) -> [u8; ID_BYTES] {
        let mut bytes = [0; ID_BYTES];
        bytes[0] = VERSION;
        bytes[1..3].copy_from_slice(&MULTIHASH);
        bytes[3..].copy_from_slice(&self.0);
        bytes
    }

    /// Decodes the wire form.
    ///
    /// # Errors
    /// The version, hash or length is wrong.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, IdError> {
        let digest = bytes.strip_prefix(&[VERSION]).and_then(|rest| rest.strip_prefix(&MULTIHASH));
        digest.and_then(|digest| digest.try_into().ok()).map(Self).ok_or(IdError)
    }

    /// The hash alone, as used in database keys.
    #[must_use]
    pub fn digest(&self) -> &[u8; 32] {
        &self.0
    }

    /// The id with this hash, from the database.
    pub(crate) fn from_digest(digest: [u8; 32]) -> Self {
        Self(digest)
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&bs58::encode(self.to_bytes()).into_string())
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Id({self})")
    }
}

impl FromStr for Id {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        if text.len() > MAX_ID_TEXT {
            return Err(IdError);
        }
        Self::from_bytes(&bs58::decode(text).into_vec().map_err(|_| IdError)?)
    }
}

impl<C> minicbor::Encode<C> for Id {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut minicbor::Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.bytes(&self.to_bytes())?.ok()
    }
}

impl<'b, C> minicbor::Decode<'b, C> for Id {
    fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        Self::from_bytes(d.bytes()?).map_err(|_| minicbor::decode::Error::message("no id"))
    }
}

/// The secret key of a persona or a home. It never leaves the machine that made it.
pub struct Key(SigningKey);

impl Key {
    /// Generates a new key.
    ///
    /// # Errors
    /// The system provides no random numbers.
    pub fn generate() -> Result<Self, getrandom::Error> {
        let mut secret = Zeroizing::new([0; 32]);
        getrandom::fill(&mut *secret)?;
        Ok(Self::from_secret(&secret))
    }

    /// The key with these 32 secret bytes.
    #[must_use]
    pub fn from_secret(secret: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(secret))
    }

    /// The 32 secret bytes, for the owner's file.
    #[must_use]
    pub fn secret(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.0.to_bytes())
    }

    /// The public key.
    #[must_use]
    pub fn public(&self) -> VerifyingKey {
        self.0.verifying_key()
    }

    /// The same key as a libp2p identity, for a home: a connection to its peer id reaches the home. Noise and the
    /// envelopes sign under different prefixes, so a signature for one is never valid for the other.
    ///
    /// # Panics
    /// Never: any 32 bytes are an Ed25519 secret.
    #[must_use]
    pub fn peer_key(&self) -> Keypair {
        let mut secret = self.secret();
        Keypair::ed25519_from_bytes(&mut *secret).expect("any 32 bytes are a secret")
    }

    /// The id of the public key.
    #[must_use]
    pub fn id(&self) -> Id {
        Id::of(&self.public())
    }

    pub(crate) fn signing(&self) -> &SigningKey {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.id())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn ids_are_read_as_they_are_written_and_nothing_else_is() {
        let id = Key::from_secret(&[7; 32]).id();
        assert_eq!(Id::from_bytes(&id.to_bytes()), Ok(id));
        assert_eq!(id.to_string().parse(), Ok(id));
        let bytes = id.to_bytes();
        for wrong in [&bytes[1..], &bytes[..34], &[&bytes[..], &[0]].concat(), &[]] {
            assert_eq!(Id::from_bytes(wrong), Err(IdError));
        }
        for place in 0..3 {
            let mut other = bytes;
            other[place] ^= 1;
            assert_eq!(Id::from_bytes(&other), Err(IdError), "byte {place}");
        }
        for text in ["", "../../etc/passwd", "0OIl", &"1".repeat(50), &"z".repeat(10_000)] {
            assert_eq!(text.parse::<Id>(), Err(IdError), "{text}");
        }
    }

    #[test]
    fn a_home_and_its_peer_id_are_one() {
        let key = Key::from_secret(&[7; 32]);
        assert_eq!(Id::of_peer(&key.peer_key().public().to_peer_id()), Some(key.id()));
        assert_eq!(Id::of_peer(&PeerId::from_bytes(&[&[0x12, 0x20][..], &[7; 32]].concat()).unwrap()), None);
    }

    #[test]
    fn the_longest_text_of_an_id_is_allowed() {
        for byte in 0..=255u8 {
            let id = Id::from_digest([byte; 32]);
            assert_eq!(id.to_string().parse(), Ok(id));
        }
    }
}
