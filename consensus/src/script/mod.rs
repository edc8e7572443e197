//! Scripts: reading op by op, counting signature operations, running them.
//!
//! Lives here: the reader ([`ScriptReader`]), the forms of output scripts ([`standard`]), the signature-operation
//! counts, and two interpreters. [`verify_input`] is the one that decides about blocks; [`interpreter`] is ours, which
//! knows the rules of relay besides and names the rule that a script broke. Does not live here: which transactions are
//! relayed. Flags of a block come from [`flags`], those of relay are in [`flag`].

pub mod flag;
pub mod interpreter;
mod reader;
mod sigops;
pub mod standard;

use bitcoin::{Transaction, TxOut};

pub use reader::{Op, ScriptReader, Truncated, is_push_only};
pub use sigops::{count_sigops, legacy_sigops, sigop_cost};
pub(crate) use standard::{is_p2sh, is_witness_program};

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
    use super::*;

    #[test]
    fn p2sh_from_its_switch_time_on() {
        assert_eq!(flags(BIP16_SWITCH_TIME - 1, false, false) & bitcoinconsensus::VERIFY_P2SH, 0);
        assert_ne!(flags(BIP16_SWITCH_TIME, false, false) & bitcoinconsensus::VERIFY_P2SH, 0);
    }
}
