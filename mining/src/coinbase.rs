//! Builds the coinbase: its outputs, the license signature, and room for the extranonces.
//!
//! The script is `push(signature) push(height) push(job) push(extranonce1‖extranonce2) push(public key)`. The license
//! signature covers everything but the script, so one signature serves all the work on a template. The height is there
//! because BIP34 is off and a repeated coinbase would break BIP30. The job number makes the coinbases of every job
//! unique, also across pools and earlier runs, so that no share counts twice.

use bitcoin::absolute::LockTime;
use bitcoin::consensus::{deserialize, serialize};
use bitcoin::hashes::Hash;
use bitcoin::transaction;
use bitcoin::{Amount, OutPoint, Script, ScriptBuf, Sequence, Transaction, TxIn, TxOut, VarInt, Witness};
use iop_consensus::address::Address;
use iop_consensus::license::coinbase::{script_number, script_sig, sign};
use iop_consensus::license::key::LicenseKey;
use iop_consensus::params::MAX_RULE_BIT;
use iop_stratum::fields::{
    JobId, NBits, NTime, PrevHash, SERVER_EXTRANONCE1_SIZE, SERVER_EXTRANONCE2_SIZE, Version, VersionMask,
};
use iop_stratum::notify::Notify;
use iop_stratum::work::{HEADER_SIZE, merkle_branches};

use crate::template::Template;

const _: () = assert!(
    VersionMask::SERVER.0.trailing_zeros() > MAX_RULE_BIT as u32,
    "a vote that changes rules is kept"
);

/// Bytes that the connection (extranonce1) and the miner (extranonce2) fill in.
const EXTRANONCE_SIZE: usize = SERVER_EXTRANONCE1_SIZE + SERVER_EXTRANONCE2_SIZE;
/// Bytes of a job number.
const JOB_SIZE: usize = size_of::<u64>();
/// The consensus limit for a coinbase script, in bytes. Ours has at most 170.
const MAX_SCRIPT: usize = 300;

/// A signed coinbase without witness, split around the extranonces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SplitCoinbase {
    /// Everything before extranonce1.
    pub before: Vec<u8>,
    /// Everything after extranonce2.
    pub after: Vec<u8>,
}

/// Builds and signs the coinbase of a template. `outputs` are addresses with amounts in base units.
#[must_use]
pub fn build(template: &Template, key: &LicenseKey, outputs: &[(Address, u64)], job: u64) -> SplitCoinbase {
    let mut coinbase = unsigned(template, outputs);
    let signature = sign(&coinbase, key);
    let height = script_number(template.height);
    let script = script_sig(&signature, &[&height, &job.to_be_bytes(), &[0; EXTRANONCE_SIZE]], key.pubkey());
    assert!(script.len() <= MAX_SCRIPT, "signature, key and pushes have bounded lengths");
    let script_len = script.len();
    coinbase.input[0].script_sig = script;
    let bytes = serialize(&coinbase);
    // Version, input count and outpoint, then the script's length, which takes one byte below 253.
    let script_at = 4 + 1 + 36 + 1;
    let key_push = 1 + key.pubkey().len();
    let cut = script_at + script_len - key_push - EXTRANONCE_SIZE;
    let (before, rest) = bytes.split_at(cut);
    let (room, after) = rest.split_at(EXTRANONCE_SIZE);
    assert_eq!(room, [0; EXTRANONCE_SIZE], "the cut is where the extranonces go");
    SplitCoinbase { before: before.to_vec(), after: after.to_vec() }
}

/// The work on a template as it is sent to miners: signed by a license, with the given outputs and job number. The
/// version bits that miners may roll are cleared, since they could not signal anything; votes on rule changes use lower
/// bits.
#[must_use]
pub fn notify(template: &Template, key: &LicenseKey, outputs: &[(Address, u64)], job: u64) -> Notify {
    let SplitCoinbase { before, after } = build(template, key, outputs, job);
    Notify {
        job_id: job_id(job),
        prev_hash: PrevHash(template.parent.to_byte_array()),
        coinbase1: before,
        coinbase2: after,
        branches: merkle_branches(&template.txids),
        version: Version(template.version & !VersionMask::SERVER.0),
        nbits: NBits(template.bits),
        ntime: NTime(template.time),
        clean: false,
    }
}

/// A job number as a Stratum job id.
///
/// # Panics
/// Never: a number has 16 digits at most.
#[must_use]
pub fn job_id(number: u64) -> JobId {
    JobId::new(&format!("{number:x}")).expect("16 digits at most")
}

/// Replaces the job number in the first part of a coinbase.
///
/// # Panics
/// `before` does not come from [`build`].
pub fn renumber(before: &mut [u8], job: u64) {
    let number_at = before.len() - 1 - JOB_SIZE; // before the byte that pushes the extranonces
    let (_, end) = before.split_at_mut(number_at);
    end[..JOB_SIZE].copy_from_slice(&job.to_be_bytes());
}

/// The job number in a coinbase script made by [`build`]; `None` for other scripts. The signature does not cover the
/// number, so whoever submits a block may have changed it.
#[must_use]
pub fn job_number(script: &Script) -> Option<u64> {
    // The third push, after signature and height.
    let push = script.instructions().nth(2)?.ok()?;
    push.push_bytes()?.as_bytes().try_into().ok().map(u64::from_be_bytes)
}

/// The whole block, as `submitblock` takes it. `stripped` is the coinbase of [`build`] with its extranonces and without
/// witness.
///
/// # Panics
/// `stripped` is not a transaction.
#[must_use]
pub fn block(template: &Template, header: &[u8; HEADER_SIZE], stripped: &[u8]) -> Vec<u8> {
    let mut coinbase: Transaction = deserialize(stripped).expect("we serialised it ourselves");
    if template.witness_commitment.is_some() {
        // BIP141: the witness reserved value, zero as in the template's commitment.
        coinbase.input[0].witness = Witness::from_slice(&[[0u8; 32]]);
    }
    let count = VarInt::from(template.txids.len() + 1);
    [&header[..], &serialize(&count), &serialize(&coinbase), &template.transactions].concat()
}

fn unsigned(template: &Template, outputs: &[(Address, u64)]) -> Transaction {
    let pay = |(address, amount): &(Address, u64)| TxOut {
        value: Amount::from_sat(*amount),
        script_pubkey: address.script_pubkey(),
    };
    let mut output: Vec<TxOut> = outputs.iter().map(pay).collect();
    if let Some(commitment) = &template.witness_commitment {
        output.push(TxOut { value: Amount::ZERO, script_pubkey: ScriptBuf::from_bytes(commitment.clone()) });
    }
    Transaction {
        version: transaction::Version::ONE,
        lock_time: LockTime::ZERO,
        input: vec![TxIn {
            previous_output: OutPoint::null(),
            script_sig: ScriptBuf::new(),
            sequence: Sequence::MAX,
            witness: Witness::new(),
        }],
        output,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use iop_consensus::license::coinbase::check;

    use super::*;
    use crate::sample::{key, template};

    fn whole(split: &SplitCoinbase, extranonces: [u8; 12]) -> Transaction {
        deserialize(&[&split.before[..], &extranonces, &split.after].concat()).unwrap()
    }

    #[test]
    fn every_extranonce_is_licensed_by_the_one_signature() {
        for compressed in [true, false] {
            let key = key(compressed);
            for height in [1, 16, 17, 128, 40_000, u32::MAX] {
                let split = build(&template(height), &key, &[(key.address(), 1)], 7);
                for extranonces in [[0; 12], [255; 12], *b"abcdefghijkl"] {
                    let coinbase = whole(&split, extranonces);
                    assert_eq!(check(&coinbase), Ok(key.address()));
                    let script = coinbase.input[0].script_sig.as_bytes();
                    assert!(script.len() <= 170, "{}", script.len());
                    let pushed: Vec<_> = coinbase.input[0]
                        .script_sig
                        .instructions()
                        .map(|op| op.unwrap().push_bytes().unwrap().as_bytes().to_vec())
                        .collect();
                    assert_eq!(job_number(&coinbase.input[0].script_sig), Some(7));
                    assert_eq!(
                        pushed[1..4],
                        [script_number(height), 7u64.to_be_bytes().to_vec(), extranonces.to_vec()]
                    );
                }
            }
        }
    }

    #[test]
    fn payees_get_their_amounts_in_order_and_the_commitment_comes_last() {
        let mut template = template(5);
        let payees = [(Address::of_pubkey(b"somebody"), 70), (Address::of_pubkey(b"another"), 30)];
        let paid = |coinbase: &Transaction| -> Vec<_> {
            let outputs = coinbase.output[..2].iter();
            outputs
                .map(|out| (Address::from_script(&out.script_pubkey).unwrap(), out.value.to_sat()))
                .collect()
        };
        let coinbase = whole(&build(&template, &key(true), &payees, 1), [1; 12]);
        assert_eq!((coinbase.output.len(), &paid(&coinbase)[..]), (2, &payees[..]));
        template.witness_commitment = Some(vec![0x6a, 1, 2]);
        let coinbase = whole(&build(&template, &key(true), &payees, 1), [1; 12]);
        assert_eq!(paid(&coinbase), payees);
        assert_eq!(coinbase.output[2].script_pubkey.as_bytes(), [0x6a, 1, 2]);
        assert_eq!(coinbase.output[2].value, Amount::ZERO);
        assert_eq!(check(&coinbase), Ok(key(true).address()));
    }

    #[test]
    fn the_weight_that_is_kept_for_outputs_is_enough() {
        let mut template = template(u32::MAX);
        template.witness_commitment = Some(vec![0x6a; 38]);
        let payees: Vec<_> = (0..18u8).map(|number| (Address::of_pubkey(&[number]), 1)).collect();
        let mut coinbase = whole(&build(&template, &key(false), &payees, u64::MAX), [255; 12]);
        coinbase.input[0].witness = Witness::from_slice(&[[0u8; 32]]);
        assert!(coinbase.weight().to_wu() + 4 * (80 + 3) <= 4000, "{}", coinbase.weight());
    }

    #[test]
    fn jobs_on_one_template_have_different_coinbases() {
        let (key, template) = (key(true), template(5));
        let outputs = [(key.address(), 1)];
        assert_ne!(build(&template, &key, &outputs, 1), build(&template, &key, &outputs, 2));
    }
}
