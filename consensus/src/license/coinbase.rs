//! The signature in the coinbase that licenses a block (`ConnectBlock`).
//!
//! The script is `push(signature ‖ hash type) … push(public key)`: the data of the first op is the signature, that of
//! the last op the key. The signed message is the txid of the coinbase with its script replaced by
//! [`PLACEHOLDER_SCRIPT`], so **everything between signature and key is unsigned**: height and extranonces go there,
//! and one signature serves all the work on a template. It also commits to neither height nor parent; see the security
//! notes.

use bitcoin::hashes::Hash;
use bitcoin::{Script, ScriptBuf, Transaction};

use super::key::LicenseKey;
use super::pubkey::{has_valid_encoding, is_strict_der, verify_lax};
use crate::address::Address;
use crate::error::LicenseError;
use crate::script::ScriptReader;

/// Replaces the coinbase's script in the signed message: a push of "IoP".
pub const PLACEHOLDER_SCRIPT: [u8; 4] = [0x03, 0x49, 0x6f, 0x50];
/// The hash-type byte that we append; the chain accepts any.
const HASH_TYPE: u8 = 0x01;

/// The 32-byte message that a license signs: the non-witness txid of the coinbase with the placeholder.
pub fn message(coinbase: &Transaction) -> [u8; 32] {
    let mut unsigned = coinbase.clone();
    if let Some(input) = unsigned.input.first_mut() {
        input.script_sig = ScriptBuf::from_bytes(PLACEHOLDER_SCRIPT.to_vec());
    }
    unsigned.compute_txid().to_byte_array()
}

/// Signs the coinbase's version, outputs, sequence and lock time; its script may still change. Returns the DER
/// signature with its hash-type byte, at most 73 bytes.
pub fn sign(coinbase: &Transaction, key: &LicenseKey) -> Vec<u8> {
    let mut signature = key.sign(message(coinbase));
    signature.push(HASH_TYPE);
    signature
}

/// Builds the coinbase script: signature, unsigned pushes, public key.
pub fn script_sig(signature: &[u8], unsigned: &[&[u8]], pubkey: &[u8]) -> ScriptBuf {
    let mut script = Vec::new();
    for data in [&[signature], unsigned, &[pubkey]].concat() {
        push(&mut script, data);
    }
    ScriptBuf::from_bytes(script)
}

/// Appends a push of up to 255 bytes, with a length byte or PUSHDATA1.
fn push(script: &mut Vec<u8>, data: &[u8]) {
    let length = u8::try_from(data.len()).expect("coinbase pushes are far below 256 bytes");
    if length >= 0x4c {
        script.push(0x4c);
    }
    script.push(length);
    script.extend_from_slice(data);
}

/// A height as a minimal script number, the form used in coinbases.
pub fn script_number(height: u32) -> Vec<u8> {
    let mut bytes = height.to_le_bytes().to_vec();
    while bytes.last() == Some(&0) {
        bytes.pop();
    }
    if bytes.last().is_some_and(|last| last & 0x80 != 0) {
        bytes.push(0);
    }
    bytes
}

/// Checks signature and key, and returns the license: the P2PKH address of the key as given. Whether the license may
/// mine is up to the registry.
///
/// # Errors
/// In the reference's order: encoding of the signature, encoding of the key, validity. The reference crashes on an
/// empty first op with a valid key; here it is an invalid signature.
pub fn check(coinbase: &Transaction) -> Result<Address, LicenseError> {
    let script = coinbase.input.first().map_or(Script::new(), |input| &input.script_sig).as_bytes();
    let mut reader = ScriptReader::new(script);
    let signature = reader.next_op().map_or(&[][..], |op| op.data);
    if !signature.is_empty() && !is_strict_der(signature) {
        return Err(LicenseError::SignatureEncoding { found: signature.len() });
    }
    // If nothing follows the first op, its data is also the last.
    let pubkey = if reader.at_end() { signature } else { reader.last_data() };
    if !has_valid_encoding(pubkey) {
        return Err(LicenseError::PublicKeyEncoding { found: pubkey.len() });
    }
    let Some((_hash_type, der)) = signature.split_last() else {
        return Err(LicenseError::SignatureEncoding { found: 0 });
    };
    if !verify_lax(pubkey, message(coinbase), der) {
        return Err(LicenseError::SignatureInvalid);
    }
    Ok(Address::of_pubkey(pubkey))
}

/// The license that a coinbase names, whether or not it signed. The registry counts the block for it.
pub fn named_license(coinbase: &Transaction) -> Option<Address> {
    let pubkey = ScriptReader::new(coinbase.input.first()?.script_sig.as_bytes()).last_data();
    has_valid_encoding(pubkey).then(|| Address::of_pubkey(pubkey))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use bitcoin::{Amount, OutPoint, Sequence, TxIn, TxOut, Witness, absolute, transaction};

    fn coinbase(script_sig: ScriptBuf) -> Transaction {
        Transaction {
            version: transaction::Version::ONE,
            lock_time: absolute::LockTime::ZERO,
            input: vec![TxIn {
                previous_output: OutPoint::null(),
                script_sig,
                sequence: Sequence::MAX,
                witness: Witness::new(),
            }],
            output: vec![TxOut { value: Amount::from_sat(50), script_pubkey: ScriptBuf::new() }],
        }
    }

    fn signed(unsigned: &[&[u8]], compressed: bool) -> (Transaction, LicenseKey) {
        let key = LicenseKey::from_secret(&[9; 32], compressed).unwrap();
        let signature = sign(&coinbase(ScriptBuf::new()), &key);
        (coinbase(script_sig(&signature, unsigned, key.pubkey())), key)
    }

    #[test]
    fn one_signature_serves_any_extranonce_and_witness() {
        let (first, key) = signed(&[&script_number(70_000), &[1; 12]], true);
        assert_eq!(check(&first), Ok(key.address()));
        let (mut second, _) = signed(&[&script_number(70_001), &[2; 12]], true);
        assert_eq!(check(&second), Ok(key.address()));
        second.input[0].witness = Witness::from_slice(&[[0u8; 32]]);
        assert_eq!(check(&second), Ok(key.address()));
        second.output[0].value = Amount::from_sat(51);
        assert_eq!(check(&second), Err(LicenseError::SignatureInvalid));
    }

    #[test]
    fn an_empty_first_op_is_answered_where_the_reference_crashes() {
        let key = LicenseKey::from_secret(&[9; 32], true).unwrap();
        let with = |signature: &[u8], pubkey: &[u8]| {
            let script = [signature, &[pubkey.len() as u8], pubkey].concat();
            check(&coinbase(ScriptBuf::from_bytes(script))).unwrap_err().reject_reason()
        };
        assert_eq!(with(&[0x00], key.pubkey()), "bad-CB-signature");
        assert_eq!(with(&[0x61], key.pubkey()), "bad-CB-signature");
        assert_eq!(with(&[0x4f], key.pubkey()), "bad-CB-signature");
        assert_eq!(with(&[0x00], &[1, 2, 3]), "bad-CB-publickey");
        assert_eq!(with(&[0x02, 0x01, 0x02], key.pubkey()), "bad-CB-signature");
    }

    #[test]
    fn a_lone_signature_is_no_key_and_a_truncated_push_before_the_key_is_skipped() {
        let (whole, key) = signed(&[], true);
        let script = whole.input[0].script_sig.as_bytes();
        let signature_only = &script[..script.len() - 34];
        let check = |script: &[u8]| check(&coinbase(ScriptBuf::from_bytes(script.to_vec())));
        assert_eq!(check(signature_only).unwrap_err().reject_reason(), "bad-CB-publickey");
        let truncated = [signature_only, &[0x4b, 33], key.pubkey()].concat();
        assert_eq!(check(&truncated), Ok(key.address()));
        let trailing = [script, &[0x61]].concat();
        assert_eq!(check(&trailing).unwrap_err().reject_reason(), "bad-CB-publickey");
    }

    #[test]
    fn script_numbers_agree_with_the_bitcoin_crate() {
        for height in [0, 1, 16, 17, 127, 128, 255, 256, 32_767, 32_768, 8_388_607, 8_388_608, u32::MAX] {
            let mut buffer = [0; 8];
            let length = bitcoin::script::write_scriptint(&mut buffer, i64::from(height));
            assert_eq!(script_number(height), buffer[..length]);
        }
    }
}
