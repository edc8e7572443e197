//! The secret key of a license.
//!
//! It is never shown: `Debug` prints the hash of the license address, and the key is erased when dropped.

use std::fmt;

use bitcoin::base58;
use secp256k1::{Message, Secp256k1, SecretKey};
use zeroize::Zeroizing;

use crate::address::{Address, Prefixes};
use crate::params::networks::{networks_with, of_other_network};

/// A license's secret key, with the encoding of its public key, which determines its address.
pub struct LicenseKey {
    secret: SecretKey,
    pubkey: Vec<u8>,
    compressed: bool,
}

/// Whether a text has the form of a WIF key of any network. Such a text, entered in the wrong place, must not be
/// repeated in a message.
pub fn has_wif_form(text: &str) -> bool {
    base58::decode_check(text).is_ok_and(|bytes| matches!(Zeroizing::new(bytes).len(), 33 | 34))
}

/// Why a text is not a WIF key of the expected network. The text itself is never repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Invalid character, checksum, length or number.
    #[error("not a private key in WIF form (Base58Check of 33 or 34 bytes expected)")]
    Malformed,
    /// The prefix of another network.
    #[error("the key {}", whose(*found, *expected))]
    OtherNetwork {
        /// The prefix found.
        found: u8,
        /// The prefix of this network.
        expected: u8,
    },
}

fn whose(found: u8, expected: u8) -> String {
    of_other_network(
        networks_with(|prefixes| prefixes.secret_key == found),
        &format!("WIF prefix {found}"),
        &format!("keys have {expected}"),
        networks_with(|prefixes| prefixes.secret_key == expected),
    )
}

impl LicenseKey {
    /// A key from its number (32 bytes, big-endian); `None` if it is outside the curve's order.
    pub fn from_secret(secret: &[u8; 32], compressed: bool) -> Option<Self> {
        let secret = SecretKey::from_slice(secret).ok()?;
        let key = secret.public_key(&Secp256k1::signing_only());
        let pubkey =
            if compressed { key.serialize().to_vec() } else { key.serialize_uncompressed().to_vec() };
        Some(Self { secret, pubkey, compressed })
    }

    /// Parses a key in wallet import format; surrounding white space is ignored.
    pub fn from_wif(text: &str, prefixes: &Prefixes) -> Result<Self, KeyError> {
        let text = text.trim();
        if text.len() > 64 {
            return Err(KeyError::Malformed);
        }
        let bytes = Zeroizing::new(base58::decode_check(text).map_err(|_| KeyError::Malformed)?);
        let (compressed, body) = match bytes.as_slice() {
            [body @ .., 1] if bytes.len() == 34 => (true, body),
            body if bytes.len() == 33 => (false, body),
            _ => return Err(KeyError::Malformed),
        };
        let (&found, secret) = body.split_first().ok_or(KeyError::Malformed)?;
        if found != prefixes.secret_key {
            return Err(KeyError::OtherNetwork { found, expected: prefixes.secret_key });
        }
        let secret = Zeroizing::new(<[u8; 32]>::try_from(secret).map_err(|_| KeyError::Malformed)?);
        Self::from_secret(&secret, compressed).ok_or(KeyError::Malformed)
    }

    /// Encodes the key in wallet import format; the text is erased when dropped.
    pub fn to_wif(&self, prefixes: &Prefixes) -> Zeroizing<String> {
        // Full capacity from the start: a vector that grows leaves copies behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(34));
        bytes.push(prefixes.secret_key);
        bytes.extend_from_slice(&*Zeroizing::new(self.secret.secret_bytes()));
        if self.compressed {
            bytes.push(1);
        }
        Zeroizing::new(base58::encode_check(&bytes))
    }

    /// The public key, in the encoding that the license's address is the hash of.
    pub fn pubkey(&self) -> &[u8] {
        &self.pubkey
    }

    /// The license address.
    pub fn address(&self) -> Address {
        Address::of_pubkey(&self.pubkey)
    }

    /// A strict DER, low-S signature of a 32-byte digest, without hash-type byte.
    pub fn sign(&self, digest: [u8; 32]) -> Vec<u8> {
        let secp = Secp256k1::signing_only();
        secp.sign_ecdsa(&Message::from_digest(digest), &self.secret).serialize_der().to_vec()
    }
}

impl Drop for LicenseKey {
    fn drop(&mut self) {
        self.secret.non_secure_erase();
    }
}

impl fmt::Debug for LicenseKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LicenseKey(license {})", hex::encode(self.address().hash))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::params::Params;

    #[test]
    fn wif_reads_back_in_both_forms_and_each_form_is_its_own_license() {
        let prefixes = Params::regtest().prefixes;
        let compressed = LicenseKey::from_secret(&[7; 32], true).unwrap();
        let uncompressed = LicenseKey::from_secret(&[7; 32], false).unwrap();
        assert_ne!(compressed.address(), uncompressed.address());
        for key in [compressed, uncompressed] {
            assert!(
                has_wif_form(&key.to_wif(&prefixes)) && !has_wif_form(&key.address().to_base58(&prefixes))
            );
            let again = LicenseKey::from_wif(&key.to_wif(&prefixes), &prefixes).unwrap();
            assert_eq!(again.pubkey(), key.pubkey());
            assert_eq!(again.secret, key.secret);
        }
    }

    #[test]
    fn bitcoins_wif_with_the_prefix_swapped_is_the_same_text() {
        let key = LicenseKey::from_secret(&[7; 32], true).unwrap();
        let bitcoin = Prefixes { secret_key: 128, ..Params::main().prefixes };
        let oracle = bitcoin::PrivateKey::new(key.secret, bitcoin::NetworkKind::Main).to_wif();
        assert_eq!(*key.to_wif(&bitcoin), oracle);
    }

    #[test]
    fn a_key_of_another_network_is_named_without_showing_it() {
        let key = LicenseKey::from_secret(&[7; 32], true).unwrap();
        let text = key.to_wif(&Params::main().prefixes);
        let error = LicenseKey::from_wif(&text, &Params::test().prefixes).unwrap_err();
        assert_eq!(error, KeyError::OtherNetwork { found: 49, expected: 76 });
        assert!(!format!("{error} {key:?}").contains(&text[..8]));
        assert_eq!(
            error.to_string(),
            "the key belongs to main (WIF prefix 49); this network's keys have 76, as those of test, regtest and \
             devnet"
        );
        assert_eq!(
            LicenseKey::from_wif("nonsense", &Params::test().prefixes).unwrap_err(),
            KeyError::Malformed
        );
    }
}
