//! Verifies the most common kind of spend without the interpreter.
//!
//! Lives here: [`surely_valid`], which accepts a pay-to-public-key-hash input of exactly the usual form with a valid
//! signature and nothing else, and [`signed_for`], which does so before the coin is known. Neither ever rejects: what
//! they do not accept is left to the interpreter ([`crate::script::TxVerifier`]). So the only possible error is to
//! accept too much, and every condition below is one under which the interpreter accepts under any flags of a block.
//! This saves the interpreter's parsing and hashing of the whole transaction for each input.

use bitcoin::hashes::{Hash, hash160};
use bitcoin::sighash::SighashCache;
use bitcoin::{PubkeyHash, Script, ScriptBuf, Transaction};

use crate::license::pubkey::{is_strict_der, verify_lax};

/// SIGHASH_ALL, the only hash type accepted here.
const SIGHASH_ALL: u8 = 0x01;
/// Lengths of usual signatures, including the hash-type byte. Shorter ones can be valid too, but one of 20 bytes could
/// equal the hash in the output's script, which the interpreter would remove from the signed data (`FindAndDelete`).
const SIGNATURE_BYTES: std::ops::RangeInclusive<usize> = 60..=73;

/// HASH160 of a public key, as in output scripts.
pub type KeyHash = [u8; 20];

/// Whether the input certainly may spend an output with this script, under any flags that a block can have. `false` is
/// not a verdict.
pub fn surely_valid(tx: &Transaction, input: usize, script_pubkey: &Script) -> bool {
    let Some(paid) = key_hash(script_pubkey) else { return false };
    UsualSpend::of(tx, input)
        .is_some_and(|spend| spend.key_hash() == *paid && spend.is_signed(tx, input, *paid))
}

/// The key hash that the input is signed for. Whatever coin it spends, the spend is valid under any flags that a block
/// can have if the coin's script pays to exactly this key hash ([`key_hash`]). The coin need not be known: a signature
/// of this kind commits to the output's script, which follows from the key, and not to its amount. `None` is not a
/// verdict.
pub fn signed_for(tx: &Transaction, input: usize) -> Option<KeyHash> {
    let spend = UsualSpend::of(tx, input)?;
    let hash = spend.key_hash();
    spend.is_signed(tx, input, hash).then_some(hash)
}

/// The hash in `OP_DUP OP_HASH160 <20 bytes> OP_EQUALVERIFY OP_CHECKSIG`, exactly.
pub fn key_hash(script_pubkey: &Script) -> Option<&KeyHash> {
    match script_pubkey.as_bytes() {
        [0x76, 0xa9, 20, hash @ .., 0x88, 0xac] => hash.try_into().ok(),
        _ => None,
    }
}

/// An input of the usual form: a signature over all inputs and outputs, and a key.
struct UsualSpend<'a> {
    /// The signature without its hash-type byte.
    der: &'a [u8],
    key: &'a [u8],
}

impl<'a> UsualSpend<'a> {
    fn of(tx: &'a Transaction, input: usize) -> Option<Self> {
        let spending = tx.input.get(input)?;
        let (signature, key) = two_pushes(spending.script_sig.as_bytes())?;
        // A witness for an output that takes none is rejected once segwit is active.
        if !spending.witness.is_empty() || !SIGNATURE_BYTES.contains(&signature.len()) {
            return None;
        }
        let plain_key = matches!((key.first(), key.len()), (Some(2 | 3), 33) | (Some(4), 65));
        let Some((&SIGHASH_ALL, der)) = signature.split_last() else { return None };
        (plain_key && is_strict_der(signature)).then_some(Self { der, key })
    }

    fn key_hash(&self) -> KeyHash {
        hash160::Hash::hash(self.key).to_byte_array()
    }

    /// Whether the signature is valid for an output that pays to `key_hash`.
    fn is_signed(&self, tx: &Transaction, input: usize, key_hash: KeyHash) -> bool {
        let script_code = ScriptBuf::new_p2pkh(&PubkeyHash::from_byte_array(key_hash));
        let digest = SighashCache::new(tx).legacy_signature_hash(input, &script_code, u32::from(SIGHASH_ALL));
        digest.is_ok_and(|digest| verify_lax(self.key, digest.to_byte_array(), self.der))
    }
}

/// The two elements of a script that consists of exactly two direct pushes.
fn two_pushes(script: &[u8]) -> Option<(&[u8], &[u8])> {
    let (first, rest) = push(script)?;
    let (second, rest) = push(rest)?;
    rest.is_empty().then_some((first, second))
}

fn push(script: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&length, rest) = script.split_first()?;
    (1..=75).contains(&length).then(|| rest.split_at_checked(usize::from(length))).flatten()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use bitcoin::secp256k1::{Message, PublicKey, Secp256k1, SecretKey};
    use bitcoin::{Amount, OutPoint, ScriptBuf, Sequence, TxIn, TxOut, Witness, absolute, transaction};
    use proptest::prelude::*;

    use super::*;
    use crate::script;

    /// The strictest and the most permissive flags of a block.
    fn all_flags() -> [u32; 3] {
        [
            script::flags(u32::MAX, true, true),
            script::flags(u32::MAX, false, false),
            script::flags(0, false, false),
        ]
    }

    /// How a correctly signed transaction is corrupted.
    #[derive(Debug, Clone)]
    enum Spoil {
        Not,
        SigByte(usize, u8),
        ScriptByte(usize, u8),
        HashType(u8),
        Witness,
        Append(u8),
        OutputValue,
        OtherInput,
    }

    fn spoil() -> impl Strategy<Value = Spoil> {
        prop_oneof![
            2 => Just(Spoil::Not),
            4 => (any::<usize>(), any::<u8>()).prop_map(|(at, byte)| Spoil::SigByte(at, byte)),
            2 => (any::<usize>(), any::<u8>()).prop_map(|(at, byte)| Spoil::ScriptByte(at, byte)),
            2 => any::<u8>().prop_map(Spoil::HashType),
            1 => Just(Spoil::Witness),
            1 => any::<u8>().prop_map(Spoil::Append),
            1 => Just(Spoil::OutputValue),
            1 => Just(Spoil::OtherInput),
        ]
    }

    fn unsigned(inputs: usize, sequence: u32, lock_time: u32, version: i32) -> Transaction {
        let input = |n: usize| TxIn {
            previous_output: OutPoint { vout: n as u32, ..OutPoint::null() },
            sequence: Sequence(sequence),
            ..TxIn::default()
        };
        Transaction {
            version: transaction::Version(version),
            lock_time: absolute::LockTime::from_consensus(lock_time),
            input: (0..inputs).map(input).collect(),
            output: vec![TxOut {
                value: Amount::from_sat(7),
                script_pubkey: ScriptBuf::from_bytes(vec![0x51]),
            }],
        }
    }

    fn signature(tx: &Transaction, at: usize, script: &Script, key: &SecretKey, hash_type: u8) -> Vec<u8> {
        let digest = SighashCache::new(tx).legacy_signature_hash(at, script, u32::from(hash_type)).unwrap();
        let message = Message::from_digest(digest.to_byte_array());
        let mut signature = Secp256k1::new().sign_ecdsa(&message, key).serialize_der().to_vec();
        signature.push(hash_type);
        signature
    }

    fn pushes(elements: &[&[u8]]) -> Vec<u8> {
        elements.iter().flat_map(|data| [&[data.len() as u8][..], data].concat()).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]
        #[test]
        fn a_yes_is_always_the_interpreters_yes_and_a_usual_spend_is_one(
            secret in prop::array::uniform32(1u8..), compressed in any::<bool>(), inputs in 1usize..4,
            sequence in any::<u32>(), lock_time in any::<u32>(), version in any::<i32>(), spoil in spoil(),
        ) {
            let key = SecretKey::from_slice(&secret).unwrap();
            let public = PublicKey::from_secret_key(&Secp256k1::new(), &key);
            let public = if compressed { public.serialize().to_vec() } else { public.serialize_uncompressed().to_vec() };
            let hash = hash160::Hash::hash(&public);
            let mut output = [&[0x76, 0xa9, 20][..], hash.as_byte_array(), &[0x88, 0xac]].concat();
            let mut tx = unsigned(inputs, sequence, lock_time, version);
            let hash_type = if let Spoil::HashType(byte) = spoil { byte } else { 1 };
            let mut sig = signature(&tx, inputs - 1, Script::from_bytes(&output), &key, hash_type);
            if let Spoil::SigByte(at, byte) = spoil {
                let at = at % sig.len();
                sig[at] = byte;
            }
            let mut script_sig = pushes(&[&sig, &public]);
            match spoil {
                Spoil::Not | Spoil::SigByte(..) | Spoil::HashType(_) => {}
                Spoil::ScriptByte(at, byte) => {
                    let at = at % (script_sig.len() + output.len());
                    match script_sig.get_mut(at) {
                        Some(place) => *place = byte,
                        None => output[at - script_sig.len()] = byte,
                    }
                }
                Spoil::Witness => tx.input[inputs - 1].witness = Witness::from_slice(&[[1u8]]),
                Spoil::Append(byte) => script_sig.push(byte),
                Spoil::OutputValue => tx.output[0].value = Amount::from_sat(8),
                Spoil::OtherInput => tx.input[0].sequence = Sequence(sequence ^ 1),
            }
            tx.input[inputs - 1].script_sig = script_sig.into();
            let output = TxOut { value: Amount::from_sat(9), script_pubkey: output.into() };
            let yes = surely_valid(&tx, inputs - 1, &output.script_pubkey);
            prop_assert!(yes || !matches!(spoil, Spoil::Not));
            let early = signed_for(&tx, inputs - 1);
            prop_assert_eq!(yes, early.is_some() && early.as_ref() == key_hash(&output.script_pubkey));
            // The key hash an input is signed for may differ from the one that the coin pays to.
            let signed = early.map(|hash| TxOut {
                value: Amount::from_sat(8),
                script_pubkey: ScriptBuf::new_p2pkh(&PubkeyHash::from_byte_array(hash)),
            });
            for flags in all_flags() {
                let judge = |output| script::verify_input(&tx, inputs - 1, output, flags);
                prop_assert!(!yes || judge(&output).is_ok(), "{spoil:?} under {flags:x}");
                prop_assert!(signed.as_ref().is_none_or(|output| judge(output).is_ok()), "{spoil:?} under {flags:x}");
            }
        }
    }

    #[test]
    fn a_high_s_is_valid_and_a_short_signature_is_left_to_the_interpreter() {
        let key = SecretKey::from_slice(&[9; 32]).unwrap();
        let public = PublicKey::from_secret_key(&Secp256k1::new(), &key).serialize();
        let script = ScriptBuf::new_p2pkh(&bitcoin::PublicKey::from_slice(&public).unwrap().pubkey_hash());
        let mut tx = unsigned(1, 5, 0, 1);
        let low = signature(&tx, 0, &script, &key, 1);
        let low = bitcoin::secp256k1::ecdsa::Signature::from_der(&low[..low.len() - 1])
            .unwrap()
            .serialize_compact();
        // n - S, byte by byte.
        let order = hex::decode("fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141").unwrap();
        let mut high = low;
        let mut borrow = 0i16;
        for at in (0..32).rev() {
            let difference = i16::from(order[at]) - i16::from(low[32 + at]) - borrow;
            borrow = i16::from(difference < 0);
            high[32 + at] = difference.rem_euclid(256) as u8;
        }
        let mut sig =
            bitcoin::secp256k1::ecdsa::Signature::from_compact(&high).unwrap().serialize_der().to_vec();
        sig.push(1);
        tx.input[0].script_sig = pushes(&[&sig, &public]).into();
        let output = TxOut { value: Amount::from_sat(1), script_pubkey: script };
        assert!(surely_valid(&tx, 0, &output.script_pubkey));
        assert!(script::verify_input(&tx, 0, &output, all_flags()[0]).is_ok());
        // A signature contained in the script is removed from the signed data; such scripts are never accepted here.
        assert!(!surely_valid(&tx, 0, Script::from_bytes(&[0x51])));
        assert!(!surely_valid(&tx, 1, &output.script_pubkey));
        tx.input[0].script_sig = pushes(&[&[0x30, 6, 2, 1, 1, 2, 1, 1, 1], &public]).into();
        assert!(!surely_valid(&tx, 0, &output.script_pubkey));
    }
}
