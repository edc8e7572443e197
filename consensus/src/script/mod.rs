//! Scripts: parsing them op by op, counting their signature operations, running them.
//!
//! Lives here: the reader ([`ScriptReader`]), the forms of output scripts ([`standard`]), the signature-operation
//! counts, two interpreters, and [`TxVerifier`], which checks the transactions of blocks with one of them:
//! `libbitcoinconsensus`, or ours where that takes too long. [`interpreter`] is ours; it also knows the relay rules
//! and names the rule that a script broke. Does not live here: which transactions are relayed. Block flags come from
//! [`flags`], relay flags are in [`flag`].

pub mod flag;
pub mod interpreter;
mod reader;
mod sigops;
pub mod standard;

use std::sync::OnceLock;

use bitcoin::consensus::encode::serialize;
use bitcoin::{Transaction, TxOut};
use interpreter::SpendingTx;

pub use reader::{Op, ScriptReader, Truncated, is_push_only};
pub use sigops::{count_sigops, legacy_sigops, sigop_cost};
pub(crate) use standard::{is_p2sh, is_witness_program};

/// P2SH applies to blocks from this time on, in seconds since 1970 (`GetBlockScriptFlags`).
const BIP16_SWITCH_TIME: u32 = 1_333_238_400;

/// The verification flags of a block (`GetBlockScriptFlags`): strict DER and CHECKLOCKTIMEVERIFY from genesis on, P2SH
/// depending on the block's time, the others once their deployments are active.
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

/// An input whose script does not allow the spend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("input {input} of transaction {txid}: its script does not allow the spend")]
pub struct ScriptFailure {
    /// The spending transaction.
    pub txid: bitcoin::Txid,
    /// The index of the failing input.
    pub input: usize,
}

/// Most bytes that `libbitcoinconsensus` may read for one transaction. It reads the whole transaction again for each
/// input, at about four nanoseconds a byte, so this is 30 milliseconds. Without the limit, a block of a single
/// transaction with 24,000 inputs would take a minute and a half.
const MAX_READ_BYTES: usize = 8 << 20;

/// Checks the inputs of one transaction; several may be checked at once on different threads.
///
/// It uses `libbitcoinconsensus`, except for transactions of which that would read more than 8 MiB in total. For those
/// it uses the [`interpreter`], whose cost for a transaction is no more than the rules demand. As far as a great many
/// trials show, the two never differ (`tests/script_differential`).
#[derive(Debug)]
pub struct TxVerifier<'a> {
    tx: &'a Transaction,
    judge: OnceLock<Judge<'a>>,
}

#[derive(Debug)]
enum Judge<'a> {
    /// `libbitcoinconsensus`, which needs the serialised transaction.
    Library(Vec<u8>),
    Interpreter(SpendingTx<'a>),
}

impl<'a> TxVerifier<'a> {
    /// Wraps a transaction; nothing is computed yet.
    pub fn new(tx: &'a Transaction) -> Self {
        Self { tx, judge: OnceLock::new() }
    }

    /// Runs the scripts of one input, which spends `output`, under [`flag::CONSENSUS`] or a subset of it. WITNESS
    /// requires P2SH.
    ///
    /// # Errors
    /// [`ScriptFailure`] if a script fails.
    pub fn verify(&self, input: usize, output: &TxOut, flags: u32) -> Result<(), ScriptFailure> {
        let passed = match self.judge.get_or_init(|| Judge::of(self.tx)) {
            Judge::Library(serialized) => {
                let (script, amount) = (output.script_pubkey.as_bytes(), output.value.to_sat());
                bitcoinconsensus::verify_with_flags(script, amount, serialized, None, input, flags).is_ok()
            }
            Judge::Interpreter(spending) => interpreter::verify(spending, input, output, flags).is_ok(),
        };
        if passed { Ok(()) } else { Err(ScriptFailure { txid: self.tx.compute_txid(), input }) }
    }
}

impl<'a> Judge<'a> {
    fn of(tx: &'a Transaction) -> Self {
        let read = tx.total_size().saturating_mul(tx.input.len());
        if read > MAX_READ_BYTES {
            Self::Interpreter(SpendingTx::new(tx))
        } else {
            Self::Library(serialize(tx))
        }
    }
}

/// Runs the scripts of a single input; see [`TxVerifier`].
///
/// # Errors
/// [`ScriptFailure`] if a script fails.
pub fn verify_input(tx: &Transaction, input: usize, output: &TxOut, flags: u32) -> Result<(), ScriptFailure> {
    TxVerifier::new(tx).verify(input, output, flags)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As large as fits in a block. `libbitcoinconsensus` would need a minute and a half for it.
    #[test]
    fn a_transaction_of_very_many_inputs_is_judged_input_by_input() {
        const INPUTS: usize = 24_000;
        let tx = Transaction {
            version: bitcoin::transaction::Version::ONE,
            lock_time: bitcoin::absolute::LockTime::ZERO,
            input: vec![bitcoin::TxIn::default(); INPUTS],
            output: vec![],
        };
        assert!(matches!(Judge::of(&tx), Judge::Interpreter(_)));
        let (verifier, txid) = (TxVerifier::new(&tx), tx.compute_txid());
        for input in 0..INPUTS {
            let passes = input % 4_000 != 7;
            let script_pubkey = bitcoin::ScriptBuf::from_bytes(vec![if passes { 0x51 } else { 0 }]);
            let verdict = verifier.verify(input, &TxOut { script_pubkey, ..TxOut::NULL }, flag::CONSENSUS);
            assert_eq!(verdict, if passes { Ok(()) } else { Err(ScriptFailure { txid, input }) });
        }
    }

    #[test]
    fn p2sh_from_its_switch_time_on() {
        assert_eq!(flags(BIP16_SWITCH_TIME - 1, false, false) & bitcoinconsensus::VERIFY_P2SH, 0);
        assert_ne!(flags(BIP16_SWITCH_TIME, false, false) & bitcoinconsensus::VERIFY_P2SH, 0);
    }
}
