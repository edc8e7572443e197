//! Public keys as in the reference's `CPubKey`: any of three encodings, kept as given.

use secp256k1::ecdsa::Signature;
use secp256k1::{Message, PublicKey, Secp256k1, VerifyOnly};
use std::sync::LazyLock;

/// One verification context for the process; creating it costs more than a verification.
static SECP: LazyLock<Secp256k1<VerifyOnly>> = LazyLock::new(Secp256k1::verification_only);

/// Whether the bytes have the length that their header byte implies: 02/03 with 33 bytes, 04/06/07 with 65. Does not
/// check that the point is on the curve (`CPubKey::IsValid`).
pub fn has_valid_encoding(key: &[u8]) -> bool {
    match key.first() {
        Some(2 | 3) => key.len() == 33,
        Some(4 | 6 | 7) => key.len() == 65,
        _ => false,
    }
}

/// Verifies as the reference does (`CPubKey::Verify`): the signature is parsed leniently and its S normalised, and
/// hybrid keys are accepted. `digest` is the 32-byte message.
pub fn verify_lax(key: &[u8], digest: [u8; 32], der: &[u8]) -> bool {
    let Ok(key) = PublicKey::from_slice(key) else { return false };
    let Ok(mut signature) = Signature::from_der_lax(der) else { return false };
    signature.normalize_s();
    SECP.verify_ecdsa(&Message::from_digest(digest), &signature, &key).is_ok()
}

/// Whether `signature` is a strict DER signature followed by a hash-type byte (`IsValidSignatureEncoding`, BIP66):
/// `30 len 02 rlen R 02 slen S hashtype`, with no negative and no padded numbers.
pub fn is_strict_der(signature: &[u8]) -> bool {
    let Some((_hash_type, der)) = signature.split_last() else { return false };
    if !(9..=73).contains(&signature.len()) || der[0] != 0x30 || usize::from(der[1]) != der.len() - 2 {
        return false;
    }
    strict_integer(&der[2..]).and_then(strict_integer).is_some_and(<[u8]>::is_empty)
}

/// Removes one strictly encoded positive integer from the front, and returns the rest.
fn strict_integer(bytes: &[u8]) -> Option<&[u8]> {
    let [0x02, length, rest @ ..] = bytes else { return None };
    let (number, rest) = rest.split_at_checked(usize::from(*length))?;
    let canonical = match number {
        [] => false,
        [first, ..] if first & 0x80 != 0 => false,
        [0, second, ..] => second & 0x80 != 0,
        _ => true,
    };
    canonical.then_some(rest)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;
    use secp256k1::SecretKey;

    #[test]
    fn encodings_are_told_by_header_byte_and_length_alone() {
        for (header, length, valid) in [
            (2, 33, true),
            (3, 33, true),
            (4, 65, true),
            (6, 65, true),
            (7, 65, true),
            (5, 65, false),
            (2, 65, false),
            (4, 33, false),
        ] {
            let mut key = vec![0xff; length];
            key[0] = header;
            assert_eq!(has_valid_encoding(&key), valid, "{header} {length}");
        }
        assert!(!has_valid_encoding(&[]));
    }

    proptest! {
        #[test]
        fn real_signatures_are_strict_and_every_cut_or_longer_one_is_not(secret in any::<[u8; 32]>(), digest: [u8; 32]) {
            let Ok(secret) = SecretKey::from_slice(&secret) else { return Ok(()) };
            let secp = Secp256k1::new();
            let key = secret.public_key(&secp);
            let mut signature = secp.sign_ecdsa(&Message::from_digest(digest), &secret).serialize_der().to_vec();
            prop_assert!(verify_lax(&key.serialize(), digest, &signature));
            prop_assert!(verify_lax(&key.serialize_uncompressed(), digest, &signature));
            let mut hybrid = key.serialize_uncompressed();
            hybrid[0] = 6 | (hybrid[64] & 1);
            prop_assert!(verify_lax(&hybrid, digest, &signature));
            signature.push(1);
            prop_assert!(is_strict_der(&signature));
            for cut in 0..signature.len() {
                prop_assert!(!is_strict_der(&signature[..cut]));
            }
            signature.push(1);
            prop_assert!(!is_strict_der(&signature));
        }
    }

    #[test]
    fn padded_and_negative_numbers_are_not_strict() {
        let der = |r: &[u8], s: &[u8]| {
            let mut out = vec![0x30, (4 + r.len() + s.len()) as u8, 2, r.len() as u8];
            out.extend_from_slice(r);
            out.extend_from_slice(&[2, s.len() as u8]);
            out.extend_from_slice(s);
            out.push(1);
            out
        };
        assert!(is_strict_der(&der(&[1, 1], &[1])));
        assert!(is_strict_der(&der(&[0, 0x80], &[1])));
        assert!(!is_strict_der(&der(&[0, 0x01], &[1])));
        assert!(!is_strict_der(&der(&[0x80], &[1, 1])));
        assert!(!is_strict_der(&der(&[], &[1, 1])));
        assert!(!is_strict_der(&[]));
    }
}
