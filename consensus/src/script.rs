//! Scripts: reading op by op, counting signature operations, and the one seam to the interpreter.
//!
//! Lives here: [`ScriptReader`], which walks a script as the reference's `GetOp` does (also over truncated
//! pushes, on which licensing depends), the signature-operation counts, and [`verify_input`], the only
//! place that calls the script interpreter. Which flags a block is judged with comes from [`flags`].

use bitcoin::opcodes::all as op;
use bitcoin::{Transaction, TxOut};

use crate::WITNESS_SCALE_FACTOR;

const OP_PUSHDATA1: u8 = 0x4c;
const OP_PUSHDATA2: u8 = 0x4d;
const OP_PUSHDATA4: u8 = 0x4e;
const OP_1: u8 = 0x51;
const OP_16: u8 = 0x60;
/// What a multisig operation counts when its key count is not known (`MAX_PUBKEYS_PER_MULTISIG`).
const MAX_PUBKEYS_PER_MULTISIG: u64 = 20;

/// One operation of a script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Op<'a> {
    /// The opcode byte.
    pub opcode: u8,
    /// What it pushes; empty when it is not a push of bytes.
    pub data: &'a [u8],
}

/// A push whose length bytes or data reach past the script's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Truncated;

/// Walks a script op by op with the reference's `GetOp` (`script.h`).
#[derive(Debug, Clone)]
pub struct ScriptReader<'a> {
    rest: &'a [u8],
}

impl<'a> ScriptReader<'a> {
    /// Starts at the first op.
    pub fn new(script: &'a [u8]) -> Self {
        Self { rest: script }
    }

    /// Whether every byte was read.
    pub fn at_end(&self) -> bool {
        self.rest.is_empty()
    }

    /// Reads one op. On a truncated push the opcode and the length bytes that are there *are consumed*, as in
    /// the reference, and reading may go on behind them. At the end of the script the answer is `Truncated` too.
    pub fn next_op(&mut self) -> Result<Op<'a>, Truncated> {
        let opcode = self.take(1)?[0];
        let size = match opcode {
            0..OP_PUSHDATA1 => usize::from(opcode),
            OP_PUSHDATA1 => usize::from(self.take(1)?[0]),
            OP_PUSHDATA2 => usize::from(u16::from_le_bytes(self.take_array()?)),
            OP_PUSHDATA4 => u32::from_le_bytes(self.take_array()?) as usize,
            _ => 0,
        };
        Ok(Op { opcode, data: self.take(size)? })
    }

    /// The data of the last op when the whole script is read in a `GetOp` loop that ignores failures: an op
    /// without data, or a truncated push, yields empty data. This is how the reference finds the public key
    /// of a coinbase and of an admin input, and the verb of an admin action (`ConnectBlock`).
    pub fn last_data(mut self) -> &'a [u8] {
        let mut last: &[u8] = &[];
        while !self.at_end() {
            last = self.next_op().map_or(&[], |op| op.data);
        }
        last
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], Truncated> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    fn take_array<const N: usize>(&mut self) -> Result<[u8; N], Truncated> {
        Ok(self.take(N)?.try_into().expect("take returns as many bytes as asked for"))
    }
}

/// `OP_HASH160 <20 bytes> OP_EQUAL`, exactly (`IsPayToScriptHash`).
pub(crate) fn is_p2sh(script: &[u8]) -> bool {
    script.len() == 23
        && script[0] == op::OP_HASH160.to_u8()
        && script[1] == 20
        && script[22] == op::OP_EQUAL.to_u8()
}

/// A version opcode and one direct push of 2 to 40 bytes (`IsWitnessProgram`).
pub(crate) fn is_witness_program(script: &[u8]) -> bool {
    witness_program(script).is_some()
}

fn witness_program(script: &[u8]) -> Option<(u8, &[u8])> {
    if !(4..=42).contains(&script.len()) || usize::from(script[1]) + 2 != script.len() {
        return None;
    }
    match script[0] {
        0 => Some((0, &script[2..])),
        version @ OP_1..=OP_16 => Some((version - OP_1 + 1, &script[2..])),
        _ => None,
    }
}

/// Signature operations of one script (`GetSigOpCount`). `accurate` counts a multisig by its key count.
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

/// Signature operation cost of a transaction with the outputs it spends, in input order
/// (`GetTransactionSigOpCost`). A coinbase spends nothing: pass an empty slice.
pub fn sigop_cost(tx: &Transaction, spent: &[&TxOut], flags: u32) -> u64 {
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

/// The last pushed element, if the script only pushes and is not truncated.
fn last_push_of_push_only(script: &[u8]) -> Option<&[u8]> {
    let mut reader = ScriptReader::new(script);
    let mut last: &[u8] = &[];
    while !reader.at_end() {
        let op = reader.next_op().ok()?;
        if op.opcode > OP_16 {
            return None;
        }
        last = op.data;
    }
    Some(last)
}

/// P2SH is checked in blocks from this time on, seconds since 1970 (`GetBlockScriptFlags`).
const BIP16_SWITCH_TIME: u32 = 1_333_238_400;

/// The verification flags of a block (`GetBlockScriptFlags`): strict DER and CHECKLOCKTIMEVERIFY from genesis
/// on, P2SH by the block's time, the rest once its deployment is active.
pub fn flags(block_time: u32, csv_active: bool, segwit_active: bool) -> u32 {
    let mut flags = bitcoinconsensus::VERIFY_DERSIG | bitcoinconsensus::VERIFY_CHECKLOCKTIMEVERIFY;
    if block_time >= BIP16_SWITCH_TIME {
        flags |= bitcoinconsensus::VERIFY_P2SH;
    }
    if csv_active {
        flags |= bitcoinconsensus::VERIFY_CHECKSEQUENCEVERIFY;
    }
    if segwit_active {
        flags |= bitcoinconsensus::VERIFY_WITNESS | bitcoinconsensus::VERIFY_NULLDUMMY;
    }
    flags
}

/// A script that did not allow the spend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("input {input} of transaction {txid}: its script does not allow the spend")]
pub struct ScriptFailure {
    /// The spending transaction.
    pub txid: bitcoin::Txid,
    /// The index of the failing input.
    pub input: usize,
}

/// Runs the script interpreter for one input: `serialized` is the whole transaction with its witness,
/// `output` the output that the input spends.
///
/// # Errors
/// [`ScriptFailure`] when the script fails under these flags.
pub fn verify_input(
    tx: &Transaction,
    serialized: &[u8],
    input: usize,
    output: &TxOut,
    flags: u32,
) -> Result<(), ScriptFailure> {
    bitcoinconsensus::verify_with_flags(
        output.script_pubkey.as_bytes(),
        output.value.to_sat(),
        serialized,
        None,
        input,
        flags,
    )
    .map_err(|_| ScriptFailure { txid: tx.compute_txid(), input })
}

/// All the script checks that one transaction needs, to be run by whoever has threads for it. The interpreter reads
/// the whole transaction anew for each input, so a transaction costs the square of its inputs.
#[derive(Debug, Clone)]
pub struct ScriptCheck<'a> {
    /// The spending transaction.
    pub tx: &'a Transaction,
    /// The outputs it spends, in input order.
    pub spent: Vec<TxOut>,
    /// The flags of its block.
    pub flags: u32,
}

impl ScriptCheck<'_> {
    /// Verifies every input.
    ///
    /// # Errors
    /// The first [`ScriptFailure`], in input order.
    pub fn run(&self) -> Result<(), ScriptFailure> {
        let serialized = self.serialized();
        (0..self.spent.len()).try_for_each(|input| self.run_input(&serialized, input))
    }

    /// The transaction's bytes, for [`ScriptCheck::run_input`].
    pub fn serialized(&self) -> Vec<u8> {
        bitcoin::consensus::serialize(self.tx)
    }

    /// Verifies one input.
    ///
    /// # Errors
    /// [`ScriptFailure`] if its script fails.
    pub fn run_input(&self, serialized: &[u8], input: usize) -> Result<(), ScriptFailure> {
        verify_input(self.tx, serialized, input, &self.spent[input], self.flags)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_truncated_push_clears_the_value_and_reading_goes_on_behind_its_length_bytes() {
        // 0x4b announces 75 bytes that are not there; the push of a byte behind it is read as an op.
        let mut reader = ScriptReader::new(&[0x4b, 0x01, 0xaa]);
        assert_eq!(reader.next_op(), Err(Truncated));
        assert_eq!(reader.next_op().unwrap().data, [0xaa]);
        assert_eq!(ScriptReader::new(&[0x01, 0xaa, 0x4b]).last_data(), [0u8; 0]);
        assert_eq!(ScriptReader::new(&[0x4c, 0x05, 0x01, 0xbb]).last_data(), [0xbb]);
        assert_eq!(ScriptReader::new(&[0x4d, 0x01]).last_data(), [0u8; 0]);
        assert_eq!(ScriptReader::new(&[0x01, 0xaa, 0x61]).last_data(), [0u8; 0]);
    }

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

    #[test]
    fn p2sh_from_its_switch_time_on() {
        assert_eq!(flags(BIP16_SWITCH_TIME - 1, false, false) & bitcoinconsensus::VERIFY_P2SH, 0);
        assert_ne!(flags(BIP16_SWITCH_TIME, false, false) & bitcoinconsensus::VERIFY_P2SH, 0);
    }
}
