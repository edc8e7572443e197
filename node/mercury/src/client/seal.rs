//! Encrypts messages and attachments for their recipient.
//!
//! Here: HPKE of RFC 9180 (base mode, X25519, HKDF-SHA256, ChaCha20-Poly1305) for a [`Letter`], bound to sender,
//! recipient and the envelope's nonce; attachments with a key of their own. Not here: signatures
//! ([`crate::envelope`]). A letter is CBOR, padded with zeros to a multiple of [`PAD`] bytes: a home sees sender,
//! recipient, time and how many times 256 bytes of a letter, and the size of an attachment.

use chacha20poly1305::aead::{Aead, KeyInit};
use chacha20poly1305::{ChaCha20Poly1305, Key as AttachmentKey};
use hpke::aead::ChaCha20Poly1305 as Cipher;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable, Kem, OpModeR, OpModeS, Serializable};
use minicbor::bytes::ByteArray;
use minicbor::{Decode, Encode};
use zeroize::Zeroizing;

use crate::body::{BlobRef, HomeAddress, Message};
use crate::envelope::Bytes32;
use crate::id::Id;
use crate::limits::{MAX_BLOBS, MAX_MESSAGE};

/// The info string of HPKE's key schedule: nothing sealed for another purpose opens here.
const INFO: &[u8] = b"iop-mercury message 1";
/// The length of a letter is a multiple of this, in bytes.
pub const PAD: usize = 256;
/// Maximum length in bytes of a letter: a message minus the key, the tag and CBOR's headers, in whole pads.
pub const MAX_LETTER: usize = MAX_MESSAGE / PAD * PAD - PAD;
/// Maximum number of attachments of a letter.
pub const MAX_ATTACHMENTS: usize = 16;
/// Maximum length in bytes of an attachment's name.
pub const MAX_ATTACHMENT_NAME: usize = 255;
/// Bytes that sealing adds to an attachment: the tag.
pub const ATTACHMENT_OVERHEAD: usize = 16;
/// Each key is used for one attachment only, so a constant nonce is safe.
const ATTACHMENT_NONCE: [u8; 12] = [0; 12];

type Curve = X25519HkdfSha256;

/// Why sealing or opening failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The recipient's key is not a usable X25519 key.
    #[error("the recipient's encryption key is no usable X25519 key")]
    Key,
    /// Longer than a message may be.
    #[error("a letter of {0} bytes, at most {MAX_LETTER} expected")]
    TooLong(usize),
    /// A letter exceeds one of its own limits.
    #[error("{0}")]
    Letter(&'static str),
    /// For another key, from another sender, or changed in transit.
    #[error("it does not open: sealed for another key or purpose, or changed on its way")]
    Closed,
    /// The system provides no random numbers.
    #[error("the system gives no random numbers")]
    Random,
}

/// The content of a message.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
pub struct Letter {
    /// The text.
    #[n(0)]
    pub text: String,
    /// The attachments.
    #[n(1)]
    pub attachments: Vec<Attachment>,
}

/// Where an attachment is stored, and the key to open it.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
pub struct Attachment {
    /// Its name, for display; not a path.
    #[n(0)]
    pub name: String,
    /// The sealed bytes.
    #[n(1)]
    pub blob: BlobRef,
    /// The owner of the blob.
    #[n(2)]
    pub owner: Id,
    /// The home that stores it.
    #[n(3)]
    pub home: HomeAddress,
    /// The key, used for this attachment only.
    #[n(4)]
    pub key: ByteArray<32>,
}

impl std::fmt::Debug for Attachment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Attachment({:?}, {} bytes)", self.name, self.blob.size)
    }
}

/// The data that a letter is bound to: in another envelope it does not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Binding {
    /// The envelope's signer.
    pub sender: Id,
    /// The persona that the envelope is about.
    pub recipient: Id,
    /// The envelope's nonce.
    pub nonce: Bytes32,
}

impl Binding {
    fn bytes(&self) -> Vec<u8> {
        [&self.sender.to_bytes()[..], &self.recipient.to_bytes(), &self.nonce].concat()
    }
}

impl Letter {
    fn check(&self) -> Result<(), SealError> {
        let wrong = |wrong| Err(SealError::Letter(wrong));
        if self.attachments.len() > MAX_ATTACHMENTS {
            return wrong("more than 16 attachments");
        }
        for attachment in &self.attachments {
            let name = &attachment.name;
            if name.is_empty() || name.len() > MAX_ATTACHMENT_NAME || name.contains(char::is_control) {
                return wrong("an attachment's name is empty, longer than 255 bytes, or odd");
            }
            if !attachment.blob.is_sensible() || attachment.home.check().is_err() {
                return wrong("an attachment's size or home is none that can be");
            }
        }
        Ok(())
    }

    fn to_bytes(&self) -> Result<Zeroizing<Vec<u8>>, SealError> {
        self.check()?;
        let mut bytes = Zeroizing::new(crate::cbor::to_vec(self));
        if bytes.len() > MAX_LETTER {
            return Err(SealError::TooLong(bytes.len()));
        }
        let padded = bytes.len().next_multiple_of(PAD);
        bytes.resize(padded, 0);
        Ok(bytes)
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, SealError> {
        let mut decoder = minicbor::Decoder::new(bytes);
        let letter: Self = decoder.decode().map_err(|_| SealError::Letter("no letter"))?;
        if bytes[decoder.position()..].iter().any(|byte| *byte != 0) {
            return Err(SealError::Letter("something after the letter"));
        }
        letter.check()?;
        Ok(letter)
    }
}

/// The secret key for opening letters to a persona.
pub struct SealingKey(Zeroizing<[u8; 32]>);

impl std::fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SealingKey")
    }
}

impl SealingKey {
    /// A new one.
    ///
    /// # Errors
    /// The system gives no random numbers.
    pub fn generate() -> Result<Self, SealError> {
        random().map(|secret| Self(Zeroizing::new(secret)))
    }

    /// The key with these 32 secret bytes.
    #[must_use]
    pub fn from_secret(secret: &[u8; 32]) -> Self {
        Self(Zeroizing::new(*secret))
    }

    /// The 32 secret bytes, for the owner's file.
    #[must_use]
    pub fn secret(&self) -> &[u8; 32] {
        &self.0
    }

    fn private(&self) -> <Curve as Kem>::PrivateKey {
        <Curve as Kem>::PrivateKey::from_bytes(&*self.0).expect("any 32 bytes are a secret of X25519")
    }

    /// The public key that others seal to: the profile's `encryption_key`.
    #[must_use]
    pub fn public(&self) -> [u8; 32] {
        Curve::sk_to_pk(&self.private()).to_bytes().into()
    }

    /// Opens a message that was sealed to this key with this binding.
    ///
    /// # Errors
    /// It does not open, or is not a letter.
    pub fn open(&self, binding: &Binding, message: &Message) -> Result<Letter, SealError> {
        let plain = self.open_bytes(INFO, &binding.bytes(), &message.encapsulated, &message.ciphertext)?;
        Letter::from_bytes(&plain)
    }

    fn open_bytes(
        &self,
        info: &[u8],
        aad: &[u8],
        encapsulated: &Bytes32,
        ciphertext: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let encapsulated =
            <Curve as Kem>::EncappedKey::from_bytes(encapsulated).map_err(|_| SealError::Closed)?;
        let key = self.private();
        let opened = hpke::single_shot_open::<Cipher, HkdfSha256, Curve>(
            &OpModeR::Base,
            &key,
            &encapsulated,
            info,
            ciphertext,
            aad,
        );
        opened.map(Zeroizing::new).map_err(|_| SealError::Closed)
    }
}

/// Random bytes for a key or a nonce.
pub(crate) fn random() -> Result<[u8; 32], SealError> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|_| SealError::Random)?;
    Ok(bytes)
}

/// Seals a letter to a persona's encryption key.
///
/// # Errors
/// The letter is too long or exceeds its limits, or the key is unusable.
pub fn seal(to: &Bytes32, binding: &Binding, letter: &Letter) -> Result<Message, SealError> {
    let plain = letter.to_bytes()?;
    // Checked here, since HPKE would panic without random numbers.
    random()?;
    let to = <Curve as Kem>::PublicKey::from_bytes(to).map_err(|_| SealError::Key)?;
    let sealed = hpke::single_shot_seal::<Cipher, HkdfSha256, Curve>(
        &OpModeS::Base,
        &to,
        INFO,
        &plain,
        &binding.bytes(),
    );
    let (encapsulated, ciphertext) = sealed.map_err(|_| SealError::Key)?;
    let encapsulated: [u8; 32] = encapsulated.to_bytes().into();
    Ok(Message { encapsulated: encapsulated.into(), ciphertext: ciphertext.into() })
}

/// Seals an attachment with a new key; returns the bytes to upload, and the key.
///
/// # Errors
/// It is empty or larger than a blob may be, or there are no random numbers.
pub fn seal_attachment(plain: &[u8]) -> Result<(Vec<u8>, Bytes32), SealError> {
    check_attachment(plain)?;
    let key = random()?;
    let cipher = ChaCha20Poly1305::new(&AttachmentKey::from(key));
    let sealed = cipher.encrypt(&ATTACHMENT_NONCE.into(), plain).map_err(|_| SealError::Random)?;
    Ok((sealed, key))
}

/// Checks that an attachment can be sealed.
pub(super) fn check_attachment(plain: &[u8]) -> Result<(), SealError> {
    if plain.is_empty() || (plain.len() + ATTACHMENT_OVERHEAD) as u64 > MAX_BLOBS {
        return Err(SealError::Letter("an attachment is empty, or larger than 8 MiB"));
    }
    Ok(())
}

/// Opens an attachment.
///
/// # Errors
/// It is not what was sealed under this key.
pub fn open_attachment(sealed: &[u8], key: &Bytes32) -> Result<Vec<u8>, SealError> {
    let cipher = ChaCha20Poly1305::new(&AttachmentKey::from(*key));
    cipher.decrypt(&ATTACHMENT_NONCE.into(), sealed).map_err(|_| SealError::Closed)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::envelope::Body;
    use crate::id::Key;

    fn hex<const N: usize>(text: &str) -> [u8; N] {
        hex::decode(text).unwrap().try_into().unwrap()
    }

    fn binding() -> Binding {
        let [sender, recipient] = [1, 2].map(|number| Key::from_secret(&[number; 32]).id());
        Binding { sender, recipient, nonce: [3; 32] }
    }

    fn letter(text: &str) -> Letter {
        Letter { text: text.to_owned(), attachments: Vec::new() }
    }

    /// RFC 9180, A.2.1: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, ChaCha20Poly1305, base mode, sequence 0.
    #[test]
    fn the_vector_of_rfc_9180_opens() {
        let key =
            SealingKey::from_secret(&hex("8057991eef8f1f1af18f4a9491d16a1ce333f695d4db8e38da75975c4478e0fb"));
        let public = "4310ee97d88cc1f088a5576c77ab0cf5c3ac797f3d95139c6c84b5429c59662a";
        assert_eq!(key.public(), hex(public));
        let encapsulated: [u8; 32] = hex("1afa08d3dec047a643885163f1180476fa7ddb54c6a8029ea33f95796bf2ac4a");
        let ciphertext: [u8; 45] =
            hex("1c5250d8034ec2b784ba2cfd69dbdb8af406cfe3ff938e131f0def8c8b60b4db21993c62ce81883d2dd1b51a28");
        let info = b"Ode on a Grecian Urn";
        let plain = key.open_bytes(info, b"Count-0", &encapsulated, &ciphertext).unwrap();
        assert_eq!(&plain[..], b"Beauty is truth, truth beauty");
        assert!(key.open_bytes(info, b"Count-1", &encapsulated, &ciphertext).is_err());
        assert!(key.open_bytes(INFO, b"Count-0", &encapsulated, &ciphertext).is_err());
    }

    #[test]
    fn a_letter_opens_for_its_recipient_under_its_own_circumstances_only() {
        let key = SealingKey::generate().unwrap();
        let sealed = seal(&key.public(), &binding(), &letter("hello")).unwrap();
        assert_eq!(key.open(&binding(), &sealed), Ok(letter("hello")));
        let stranger = Key::from_secret(&[9; 32]).id();
        for other in [
            Binding { sender: stranger, ..binding() },
            Binding { recipient: stranger, ..binding() },
            Binding { nonce: [4; 32], ..binding() },
            Binding { sender: binding().recipient, recipient: binding().sender, ..binding() },
        ] {
            assert_eq!(key.open(&other, &sealed), Err(SealError::Closed), "{other:?}");
        }
        assert_eq!(SealingKey::generate().unwrap().open(&binding(), &sealed), Err(SealError::Closed));
        for place in [0, 31, sealed.ciphertext.len() - 1] {
            let mut changed = sealed.clone();
            changed.ciphertext[place] ^= 1;
            assert_eq!(key.open(&binding(), &changed), Err(SealError::Closed));
        }
        let mut changed = sealed;
        changed.encapsulated[0] ^= 1;
        assert_eq!(key.open(&binding(), &changed), Err(SealError::Closed));
    }

    #[test]
    fn what_the_raw_crate_seals_with_other_parameters_does_not_open() {
        use hpke::kdf::HkdfSha512;
        let key = SealingKey::generate().unwrap();
        let to = <Curve as Kem>::PublicKey::from_bytes(&key.public()).unwrap();
        let (plain, aad) = (letter("hello").to_bytes().unwrap(), binding().bytes());
        let message = |sealed: (<Curve as Kem>::EncappedKey, Vec<u8>)| {
            let encapsulated: [u8; 32] = sealed.0.to_bytes().into();
            Message { encapsulated: encapsulated.into(), ciphertext: sealed.1.into() }
        };
        let good =
            hpke::single_shot_seal::<Cipher, HkdfSha256, Curve>(&OpModeS::Base, &to, INFO, &plain, &aad);
        assert_eq!(key.open(&binding(), &message(good.unwrap())), Ok(letter("hello")));
        let other_kdf =
            hpke::single_shot_seal::<Cipher, HkdfSha512, Curve>(&OpModeS::Base, &to, INFO, &plain, &aad);
        let other_info = hpke::single_shot_seal::<Cipher, HkdfSha256, Curve>(
            &OpModeS::Base,
            &to,
            b"iop-mercury message 2",
            &plain,
            &aad,
        );
        for sealed in [other_kdf, other_info] {
            assert_eq!(key.open(&binding(), &message(sealed.unwrap())), Err(SealError::Closed));
        }
    }

    #[test]
    fn letters_of_nearly_one_length_look_alike_and_the_longest_fits_a_message() {
        let key = SealingKey::generate().unwrap();
        let length = |text: &str| {
            let sealed = seal(&key.public(), &binding(), &letter(text)).unwrap();
            assert_eq!(key.open(&binding(), &sealed).unwrap().text, text);
            (sealed.ciphertext.len(), crate::cbor::to_vec(&sealed).len())
        };
        assert_eq!(length("").0, PAD + 16);
        assert_eq!(length("a"), length(&"b".repeat(200)));
        // Around the text: the CBOR headers of the letter, the text, and the attachments.
        let longest = MAX_LETTER - 1 - 3 - 1;
        let (_, whole) = length(&"x".repeat(longest));
        assert!(whole <= Message::MAX, "{whole}");
        assert_eq!(
            seal(&key.public(), &binding(), &letter(&"x".repeat(longest + 1))),
            Err(SealError::TooLong(MAX_LETTER + 1))
        );
    }

    #[test]
    fn a_key_of_small_order_is_refused() {
        assert_eq!(seal(&[0; 32], &binding(), &letter("")), Err(SealError::Key));
    }

    #[test]
    fn a_letter_holds_its_bounds_both_ways() {
        let home = HomeAddress { home: binding().sender, addresses: vec!["/ip4/1.2.3.4/tcp/1".to_owned()] };
        let one = Attachment {
            name: "a.png".to_owned(),
            blob: BlobRef { hash: [1; 32].into(), size: 17 },
            owner: binding().sender,
            home: home.clone(),
            key: [2; 32].into(),
        };
        let with = |attachments| Letter { text: String::new(), attachments };
        assert!(with(vec![one.clone(); MAX_ATTACHMENTS]).to_bytes().is_ok());
        for wrong in [
            vec![one.clone(); MAX_ATTACHMENTS + 1],
            vec![Attachment { name: String::new(), ..one.clone() }],
            vec![Attachment { name: "x".repeat(256), ..one.clone() }],
            vec![Attachment { name: "a\n".to_owned(), ..one.clone() }],
            vec![Attachment { blob: BlobRef { hash: [1; 32].into(), size: MAX_BLOBS + 1 }, ..one.clone() }],
            vec![Attachment {
                home: HomeAddress { addresses: vec!["no".to_owned()], ..home.clone() },
                ..one.clone()
            }],
        ] {
            assert!(with(wrong.clone()).to_bytes().is_err(), "{wrong:?}");
            assert!(Letter::from_bytes(&crate::cbor::to_vec(&with(wrong))).is_err());
        }
        let mut bytes = with(vec![one]).to_bytes().unwrap();
        assert!(Letter::from_bytes(&bytes).is_ok());
        *bytes.last_mut().unwrap() = 1;
        assert!(Letter::from_bytes(&bytes).is_err(), "padding hides nothing");
        for bytes in [&b""[..], &[0x9f; 1000], &[0x82, 0x60, 0x9a, 0xff, 0xff, 0xff, 0xff]] {
            assert!(Letter::from_bytes(bytes).is_err());
        }
    }

    #[test]
    fn an_attachment_opens_with_its_own_key_only() {
        let (sealed, key) = seal_attachment(b"a picture").unwrap();
        assert_eq!(sealed.len(), 9 + ATTACHMENT_OVERHEAD);
        assert_eq!(open_attachment(&sealed, &key).unwrap(), b"a picture");
        let (again, other) = seal_attachment(b"a picture").unwrap();
        assert_ne!(again, sealed, "the same picture is not seen to be the same");
        assert_eq!(open_attachment(&sealed, &other), Err(SealError::Closed));
        assert_eq!(open_attachment(&sealed[..20], &key), Err(SealError::Closed));
        assert!(seal_attachment(b"").is_err());
        let most = usize::try_from(MAX_BLOBS).unwrap() - ATTACHMENT_OVERHEAD;
        assert!(seal_attachment(&vec![0; most]).is_ok());
        assert!(seal_attachment(&vec![0; most + 1]).is_err());
    }
}
