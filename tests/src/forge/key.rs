//! Test keys, and signatures in forms that no wallet makes.

use bitcoin::secp256k1::{Message, PublicKey, Secp256k1, SecretKey, ecdsa};
use iop_consensus::address::Address;

/// The order of the curve, big-endian.
const ORDER: [u8; 32] = [
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe, 0xba,
    0xae, 0xdc, 0xe6, 0xaf, 0x48, 0xa0, 0x3b, 0xbf, 0xd2, 0x5e, 0x8c, 0xd0, 0x36, 0x41, 0x41,
];

/// Serialization of a public key; each form is a different address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// 33 bytes.
    Compressed,
    /// 65 bytes, 04 first.
    Uncompressed,
    /// 65 bytes, 06 or 07 first.
    Hybrid,
}

/// A secret key and one form of its public key.
#[derive(Debug, Clone)]
pub struct TestKey {
    secret: SecretKey,
    /// The serialized public key.
    pub pubkey: Vec<u8>,
}

impl TestKey {
    /// The key of this number, the same in every run.
    ///
    /// # Panics
    /// For the number 0.
    pub fn new(number: u32, form: Form) -> Self {
        let mut bytes = [0x11; 32];
        bytes[28..].copy_from_slice(&number.to_be_bytes());
        let secret = SecretKey::from_slice(&bytes).expect("the number is below the curve's order");
        let public = secret.public_key(&Secp256k1::signing_only());
        Self { secret, pubkey: written(&public, form) }
    }

    /// The same secret key with another form of the public key.
    pub fn in_form(&self, form: Form) -> Self {
        let public = self.secret.public_key(&Secp256k1::signing_only());
        Self { secret: self.secret, pubkey: written(&public, form) }
    }

    /// The address of the key in this form.
    pub fn address(&self) -> Address {
        Address::of_pubkey(&self.pubkey)
    }

    /// A DER signature of a 32-byte digest, with low S.
    pub fn sign(&self, digest: [u8; 32]) -> Vec<u8> {
        self.signature(digest).serialize_der().to_vec()
    }

    /// A DER signature whose S is the larger of the two.
    pub fn sign_high(&self, digest: [u8; 32]) -> Vec<u8> {
        let compact = self.signature(digest).serialize_compact();
        let mut high = [0; 32];
        let mut borrow = 0i16;
        for i in (0..32).rev() {
            let difference = i16::from(ORDER[i]) - i16::from(compact[32 + i]) - borrow;
            borrow = i16::from(difference < 0);
            high[i] = difference.rem_euclid(256) as u8;
        }
        der(&compact[..32], &high)
    }

    fn signature(&self, digest: [u8; 32]) -> ecdsa::Signature {
        Secp256k1::signing_only().sign_ecdsa(&Message::from_digest(digest), &self.secret)
    }
}

fn written(public: &PublicKey, form: Form) -> Vec<u8> {
    let mut bytes = public.serialize_uncompressed().to_vec();
    match form {
        Form::Compressed => public.serialize().to_vec(),
        Form::Uncompressed => bytes,
        Form::Hybrid => {
            bytes[0] = 6 | (bytes[64] & 1);
            bytes
        }
    }
}

/// Strict DER of two big-endian numbers.
pub fn der(r: &[u8], s: &[u8]) -> Vec<u8> {
    let integer = |number: &[u8]| {
        let zeros = number.iter().take_while(|byte| **byte == 0).count().min(number.len() - 1);
        let mut bytes = number[zeros..].to_vec();
        if bytes[0] & 0x80 != 0 {
            bytes.insert(0, 0);
        }
        [&[2, bytes.len() as u8][..], &bytes].concat()
    };
    let body = [integer(r), integer(s)].concat();
    [&[0x30, body.len() as u8][..], &body].concat()
}
