//! What a transaction that a peer sent takes in memory: the bounds of what is kept are in these bytes, because the
//! weight says little (an empty witness item weighs 1 and takes 5 bytes, an output weighs 36 and takes 48).

use bitcoin::{Transaction, TxIn, TxOut};

/// What the allocator needs beside what was asked for, bytes.
const ALLOCATION: usize = 16;
/// What the index of a witness item takes, bytes.
const WITNESS_INDEX: usize = 4;

/// Bytes that the transaction takes, with its own.
pub(crate) fn of(tx: &Transaction) -> usize {
    let input = |input: &TxIn| {
        let witness = input.witness.size() + WITNESS_INDEX * input.witness.len();
        size_of::<TxIn>() + input.script_sig.len() + witness + 2 * ALLOCATION
    };
    let output = |output: &TxOut| size_of::<TxOut>() + output.script_pubkey.len() + ALLOCATION;
    size_of::<Transaction>()
        + 3 * ALLOCATION
        + tx.input.iter().map(input).sum::<usize>()
        + tx.output.iter().map(output).sum::<usize>()
}
