//! Signatures and keys: their encoding under the flags, and whether a signature matches a key.
//!
//! Lives here: the encoding rules, and [`Input`], which answers what scripts need to know of the spending transaction:
//! signatures and lock times. Does not live here: the stack.

use secp256k1::ecdsa::Signature;

use super::super::flag;
use super::error::ScriptError;
use super::sighash::{SpendingTx, Version};
use crate::license::pubkey::{has_valid_encoding, is_strict_der, verify_lax};

/// Lock times below this are heights, others are seconds.
const LOCKTIME_THRESHOLD: i64 = 500_000_000;
/// The sequence number of a final input.
const SEQUENCE_FINAL: u32 = u32::MAX;
/// BIP68: there is no relative lock time.
pub(super) const SEQUENCE_DISABLE_FLAG: i64 = 1 << 31;
/// BIP68: the relative lock time is in units of time, not in blocks.
const SEQUENCE_TYPE_FLAG: i64 = 1 << 22;
/// BIP68: the bits that hold the relative lock time.
const SEQUENCE_MASK: i64 = 0xffff;

/// The input that a script is run for.
pub(super) struct Input<'a> {
    pub(super) spending: &'a SpendingTx<'a>,
    pub(super) index: usize,
    /// Amount of the spent output, in base units.
    pub(super) amount: u64,
}

/// The digests of one script by hash type, since a multisig operation needs the same one repeatedly.
#[derive(Default)]
pub(super) struct Digests(Vec<(u8, [u8; 32])>);

impl Input<'_> {
    /// Whether the signature, with its hash-type byte, is valid for the key (`CheckSig`).
    pub(super) fn check_signature(
        &self,
        signature: &[u8],
        key: &[u8],
        code: &[u8],
        version: Version,
        digests: &mut Digests,
    ) -> bool {
        let Some((&hash_type, der)) = signature.split_last() else { return false };
        if !has_valid_encoding(key) {
            return false;
        }
        let known = digests.0.iter().find(|(known, _)| *known == hash_type).map(|(_, digest)| *digest);
        let digest = known.unwrap_or_else(|| {
            let digest = self.spending.digest(self.index, code, hash_type, self.amount, version);
            digests.0.push((hash_type, digest));
            digest
        });
        verify_lax(key, digest, der)
    }

    /// Whether the transaction's lock time is at least `wanted` (`CheckLockTime`).
    pub(super) fn check_lock_time(&self, wanted: i64) -> bool {
        let lock_time = i64::from(self.spending.tx.lock_time.to_consensus_u32());
        (lock_time < LOCKTIME_THRESHOLD) == (wanted < LOCKTIME_THRESHOLD)
            && wanted <= lock_time
            && self.sequence() != SEQUENCE_FINAL
    }

    /// Whether the input's relative lock time is at least `wanted` (`CheckSequence`).
    pub(super) fn check_sequence(&self, wanted: i64) -> bool {
        let sequence = i64::from(self.sequence());
        if (self.spending.tx.version.0 as u32) < 2 || sequence & SEQUENCE_DISABLE_FLAG != 0 {
            return false;
        }
        let mask = SEQUENCE_TYPE_FLAG | SEQUENCE_MASK;
        let (own, wanted) = (sequence & mask, wanted & mask);
        (own < SEQUENCE_TYPE_FLAG) == (wanted < SEQUENCE_TYPE_FLAG) && wanted <= own
    }

    fn sequence(&self) -> u32 {
        self.spending.tx.input[self.index].sequence.to_consensus_u32()
    }
}

/// Checks the encoding of a signature (`CheckSignatureEncoding`). An empty one is always well encoded, and never valid.
pub(super) fn check_signature_encoding(signature: &[u8], flags: u32) -> Result<(), ScriptError> {
    let Some((hash_type, der)) = signature.split_last() else { return Ok(()) };
    if flags & (flag::DERSIG | flag::LOW_S | flag::STRICTENC) != 0 && !is_strict_der(signature) {
        return Err(ScriptError::SigDer);
    }
    if flags & flag::LOW_S != 0 && !has_low_s(der) {
        return Err(ScriptError::SigHighS);
    }
    if flags & flag::STRICTENC != 0 && !(1..=3).contains(&(hash_type & !0x80)) {
        return Err(ScriptError::SigHashtype);
    }
    Ok(())
}

/// Whether S is in the lower half (`CheckLowS`). An S beyond the curve's order is read as zero, which is low.
fn has_low_s(der: &[u8]) -> bool {
    Signature::from_der_lax(der).is_ok_and(|signature| {
        let mut low = signature;
        low.normalize_s();
        low == signature
    })
}

/// Checks the encoding of a key (`CheckPubKeyEncoding`).
pub(super) fn check_key_encoding(key: &[u8], flags: u32, version: Version) -> Result<(), ScriptError> {
    let compressed = key.len() == 33 && matches!(key[0], 2 | 3);
    let uncompressed = key.len() == 65 && key[0] == 4;
    if flags & flag::STRICTENC != 0 && !compressed && !uncompressed {
        return Err(ScriptError::PubkeyType);
    }
    if flags & flag::WITNESS_PUBKEYTYPE != 0 && version == Version::Witness && !compressed {
        return Err(ScriptError::WitnessPubkeyType);
    }
    Ok(())
}
