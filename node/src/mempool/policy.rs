//! Relay policy: which forms and sizes are standard (`policy/policy.cpp`).
//!
//! Lives here: checks of one transaction, alone and with the outputs it spends, and the policy constants. Does not
//! live here: the pool's minimum fee, relatives, replacement. Test networks relay any form
//! (`Params::require_standard`); fees and limits apply on all networks.

use bitcoin::{Transaction, TxOut};
use iop_consensus::coins::Coin;
use iop_consensus::params::Params;
use iop_consensus::script::interpreter::{SpendingTx, pushed};
use iop_consensus::script::standard::{ScriptForm, solve, witness_program};
use iop_consensus::script::{count_sigops, is_push_only};

use super::fee::FeeRate;

/// Minimum fee rate for relay (`DEFAULT_MIN_RELAY_TX_FEE`).
pub const MIN_RELAY_FEE: FeeRate = FeeRate(1_000);
/// Step of the pool's minimum fee, and the rate that a replacement pays for its own relay
/// (`DEFAULT_INCREMENTAL_RELAY_FEE`).
pub const INCREMENTAL_RELAY_FEE: FeeRate = FeeRate(1_000);
/// An output is dust if creating and spending it at this rate costs more than its value (`DUST_RELAY_TX_FEE`).
const DUST_RELAY_FEE: FeeRate = FeeRate(3_000);
/// A transaction must weigh less than this (`MAX_STANDARD_TX_WEIGHT`).
const MAX_TX_WEIGHT: u64 = 400_000;
/// Maximum signature operation cost of a transaction (`MAX_STANDARD_TX_SIGOPS_COST`).
pub(super) const MAX_TX_SIGOPS_COST: u64 = 16_000;
/// Weight units that one unit of signature operation cost counts as (`DEFAULT_BYTES_PER_SIGOP`).
pub(super) const BYTES_PER_SIGOP: u64 = 20;
/// Transaction versions that are relayed (`MAX_STANDARD_VERSION`).
const VERSIONS: std::ops::RangeInclusive<i32> = 1..=2;
/// Maximum length in bytes of an input script: enough for a redeem script with 15 of 15 keys.
const MAX_SCRIPT_SIG: usize = 1_650;
/// Maximum number of keys of a bare multisig output.
const MAX_MULTISIG_KEYS: usize = 3;
/// Maximum length in bytes of an OP_RETURN output's script (`MAX_OP_RETURN_RELAY`).
const MAX_OP_RETURN: usize = 83;
/// Maximum number of signature operations of a redeem script (`MAX_P2SH_SIGOPS`).
const MAX_REDEEM_SIGOPS: u64 = 15;
/// Maximum length in bytes of a witness script (`MAX_STANDARD_P2WSH_SCRIPT_SIZE`).
const MAX_WITNESS_SCRIPT: usize = 3_600;
/// Maximum number of stack elements for a witness script (`MAX_STANDARD_P2WSH_STACK_ITEMS`).
const MAX_WITNESS_ELEMENTS: usize = 100;
/// Maximum length in bytes of such an element (`MAX_STANDARD_P2WSH_STACK_ITEM_SIZE`).
const MAX_WITNESS_ELEMENT: usize = 80;

/// Settings of the pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Whether only standard forms are accepted.
    pub require_standard: bool,
    /// Maximum memory of the pool, bytes.
    pub max_usage: usize,
    /// Age in seconds after which a transaction is removed.
    pub expiry: u64,
}

impl Default for Policy {
    fn default() -> Self {
        Self { require_standard: true, max_usage: 300_000_000, expiry: 336 * 60 * 60 }
    }
}

impl Policy {
    /// The reference's defaults for a network.
    pub fn of(params: &Params) -> Self {
        Self { require_standard: params.require_standard, ..Self::default() }
    }
}

/// Whether the transaction's own form is standard (`IsStandardTx`).
///
/// # Errors
/// The reference's name for what is not standard.
pub(super) fn check_forms(tx: &Transaction, segwit: bool) -> Result<(), &'static str> {
    if !VERSIONS.contains(&tx.version.0) {
        return Err("version");
    }
    if tx.weight().to_wu() >= MAX_TX_WEIGHT {
        return Err("tx-size");
    }
    for input in &tx.input {
        if input.script_sig.len() > MAX_SCRIPT_SIG {
            return Err("scriptsig-size");
        }
        if !is_push_only(input.script_sig.as_bytes()) {
            return Err("scriptsig-not-pushonly");
        }
    }
    let mut data_outputs = 0;
    for output in &tx.output {
        let form = solve(output.script_pubkey.as_bytes());
        if !is_relayed(&form, output.script_pubkey.len(), segwit) {
            return Err("scriptpubkey");
        }
        if form == ScriptForm::NullData {
            data_outputs += 1;
        } else if is_dust(output) {
            return Err("dust");
        }
    }
    if data_outputs > 1 { Err("multi-op-return") } else { Ok(()) }
}

/// Whether outputs of this form are relayed (`IsStandard`).
fn is_relayed(form: &ScriptForm<'_>, length: usize, segwit: bool) -> bool {
    match form {
        ScriptForm::NonStandard => false,
        ScriptForm::MultiSig { keys, .. } => keys.len() <= MAX_MULTISIG_KEYS,
        ScriptForm::NullData => length <= MAX_OP_RETURN,
        ScriptForm::WitnessPubKeyHash(_) | ScriptForm::WitnessScriptHash(_) => segwit,
        _ => true,
    }
}

/// Whether an output's value is less than three times what creating and spending it costs at the relay fee
/// (`IsDust`).
pub fn is_dust(output: &TxOut) -> bool {
    output.value.to_sat() < dust_threshold(output)
}

fn dust_threshold(output: &TxOut) -> u64 {
    if Coin::is_unspendable(output) {
        return 0;
    }
    // Size of an input with a signature and a key: in the witness they count a quarter.
    let signature = if witness_program(output.script_pubkey.as_bytes()).is_some() { 107 / 4 } else { 107 };
    DUST_RELAY_FEE.fee(output.size() as u64 + 32 + 4 + 1 + signature + 4)
}

/// Whether the spent outputs have standard forms, and redeem scripts few enough signature operations
/// (`AreInputsStandard`).
pub(super) fn inputs_are_standard(spending: &SpendingTx<'_>, spent: &[Coin]) -> bool {
    spent.iter().enumerate().all(|(index, coin)| match solve(coin.output.script_pubkey.as_bytes()) {
        ScriptForm::NonStandard => false,
        ScriptForm::ScriptHash(_) => redeem_script(spending, index)
            .is_some_and(|redeem| count_sigops(&redeem, true) <= MAX_REDEEM_SIGOPS),
        _ => true,
    })
}

/// The last element that the input's script pushes.
fn redeem_script(spending: &SpendingTx<'_>, index: usize) -> Option<Vec<u8>> {
    pushed(spending, index).ok()?.pop()
}

/// Whether each witness is one that a standard script needs (`IsWitnessStandard`).
pub(super) fn witness_is_standard(tx: &Transaction, spending: &SpendingTx<'_>, spent: &[Coin]) -> bool {
    tx.input.iter().zip(spent).enumerate().all(|(index, (input, coin))| {
        if input.witness.is_empty() {
            return true;
        }
        let mut script = coin.output.script_pubkey.to_bytes();
        if matches!(solve(&script), ScriptForm::ScriptHash(_)) {
            let Some(redeem) = redeem_script(spending, index) else { return false };
            script = redeem;
        }
        let Some((version, program)) = witness_program(&script) else { return false };
        if version != 0 || program.len() != 32 {
            return true;
        }
        let elements = input.witness.len() - 1;
        input.witness.last().is_some_and(|script| script.len() <= MAX_WITNESS_SCRIPT)
            && elements <= MAX_WITNESS_ELEMENTS
            && input.witness.iter().take(elements).all(|element| element.len() <= MAX_WITNESS_ELEMENT)
    })
}
