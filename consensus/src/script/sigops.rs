//! Counts signature operations, as needed for the limits of blocks and relay.
//!
//! Lives here: the counts for one script and for a transaction with the outputs it spends. Does not live here: the
//! limits. Scripts are only parsed, never run: an operation that is never reached counts too.

use bitcoin::opcodes::all as op;
use bitcoin::{Transaction, TxOut};

use super::reader::{Op, ScriptReader, last_push_of_push_only};
use super::standard::{is_p2sh, witness_program};
use crate::WITNESS_SCALE_FACTOR;

const OP_1: u8 = 0x51;
const OP_16: u8 = 0x60;
/// Count of a multisig operation whose number of keys is not known (`MAX_PUBKEYS_PER_MULTISIG`).
const MAX_PUBKEYS_PER_MULTISIG: u64 = 20;

/// Signature operations of one script (`GetSigOpCount`). With `accurate`, a multisig counts by its number of keys.
/// Counting stops at a truncated push.
pub fn count_sigops(script: &[u8], accurate: bool) -> u64 {
    let mut reader = ScriptReader::new(script);
    let (mut count, mut previous) = (0, 0xff);
    while let Ok(Op { opcode, .. }) = reader.next_op() {
        if opcode == op::OP_CHECKSIG.to_u8() || opcode == op::OP_CHECKSIGVERIFY.to_u8() {
            count += 1;
        } else if opcode == op::OP_CHECKMULTISIG.to_u8() || opcode == op::OP_CHECKMULTISIGVERIFY.to_u8() {
            count += match previous {
                OP_1..=OP_16 if accurate => u64::from(previous - OP_1 + 1),
                _ => MAX_PUBKEYS_PER_MULTISIG,
            };
        }
        previous = opcode;
    }
    count
}

/// Legacy signature operations of a transaction's own scripts, not scaled (`GetLegacySigOpCount`).
pub fn legacy_sigops(tx: &Transaction) -> u64 {
    let inputs = tx.input.iter().map(|i| count_sigops(i.script_sig.as_bytes(), false));
    let outputs = tx.output.iter().map(|o| count_sigops(o.script_pubkey.as_bytes(), false));
    inputs.chain(outputs).sum()
}

/// Signature operation cost of a transaction; `spent` are the outputs it spends, in input order
/// (`GetTransactionSigOpCost`). For a coinbase, pass none.
pub fn sigop_cost<'a>(tx: &Transaction, spent: impl IntoIterator<Item = &'a TxOut>, flags: u32) -> u64 {
    let mut cost = legacy_sigops(tx) * WITNESS_SCALE_FACTOR;
    for (input, output) in tx.input.iter().zip(spent) {
        let script_sig = input.script_sig.as_bytes();
        let script_pubkey = output.script_pubkey.as_bytes();
        let redeem = is_p2sh(script_pubkey).then(|| last_push_of_push_only(script_sig)).flatten();
        if flags & bitcoinconsensus::VERIFY_P2SH != 0
            && let Some(redeem) = redeem
        {
            cost += count_sigops(redeem, true) * WITNESS_SCALE_FACTOR;
        }
        if flags & bitcoinconsensus::VERIFY_WITNESS != 0 {
            cost += witness_program(script_pubkey)
                .or_else(|| redeem.and_then(witness_program))
                .map_or(0, |program| witness_sigops(program, &input.witness));
        }
    }
    cost
}

fn witness_sigops((version, program): (u8, &[u8]), witness: &bitcoin::Witness) -> u64 {
    match (version, program.len()) {
        (0, 20) => 1,
        (0, 32) => witness.last().map_or(0, |script| count_sigops(script, true)),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sigops_agree_with_the_bitcoin_crate_on_whole_scripts() {
        let scripts: [&[u8]; 5] = [
            &[0xac, 0xad, 0xae],
            &[0x52, 0xae],
            &[0x60, 0xaf, 0x00, 0xae],
            &[0x02, 0xac, 0xac, 0xac],
            &[0x4c, 0x01, 0xac, 0x51, 0xae],
        ];
        for script in scripts {
            let oracle = bitcoin::Script::from_bytes(script);
            assert_eq!(count_sigops(script, true), oracle.count_sigops() as u64, "{script:?}");
            assert_eq!(count_sigops(script, false), oracle.count_sigops_legacy() as u64, "{script:?}");
        }
    }
}
