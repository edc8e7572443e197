//! Our script interpreter, with all of the reference's flags and one error per rule (`VerifyScript`).
//!
//! Lives here: the check of an input, from its script and the output's to redeem and witness scripts. The stack machine
//! is in `machine.rs`, its operations in `ops.rs`, signatures in `signature.rs`, the signed digests in `sighash.rs`.
//! Does not live here: the choice of the interpreter for a block's transaction, which is [`super::TxVerifier`]'s: this
//! one is used only where `libbitcoinconsensus` takes too long. A differential test checks that the two never differ
//! under the consensus flags.

mod error;
mod machine;
mod number;
mod ops;
mod sighash;
mod signature;

use bitcoin::hashes::{Hash, sha256};
use bitcoin::opcodes::all as op;
use bitcoin::{TxOut, Witness};

pub use error::ScriptError;
pub use sighash::SpendingTx;

use super::flag;
use super::reader::is_push_only;
use super::standard::{is_p2sh, witness_program};
use machine::{MAX_ELEMENT, Stack, run};
use number::is_true;
use sighash::Version;
use signature::Input;

/// Runs the scripts of one input, which spends `output`, under `flags` (`VerifyScript`). WITNESS requires P2SH, and
/// CLEANSTACK requires both.
///
/// # Errors
/// The rule that was broken.
pub fn verify(
    spending: &SpendingTx<'_>,
    index: usize,
    output: &TxOut,
    flags: u32,
) -> Result<(), ScriptError> {
    let own = &spending.tx.input[index];
    let input = Input { spending, index, amount: output.value.to_sat() };
    verify_scripts(&input, own.script_sig.as_bytes(), &own.witness, output.script_pubkey.as_bytes(), flags)
}

/// The elements that an input script pushes, run without flags, as needed by the standardness check of inputs.
///
/// # Errors
/// The rule that was broken.
pub fn pushed(spending: &SpendingTx<'_>, index: usize) -> Result<Vec<Vec<u8>>, ScriptError> {
    let input = Input { spending, index, amount: 0 };
    let mut stack = Stack::new();
    run(&mut stack, spending.tx.input[index].script_sig.as_bytes(), 0, &input, Version::Base)?;
    Ok(stack)
}

fn verify_scripts(
    input: &Input<'_>,
    script_sig: &[u8],
    witness: &Witness,
    script_pubkey: &[u8],
    flags: u32,
) -> Result<(), ScriptError> {
    if flags & flag::SIGPUSHONLY != 0 && !is_push_only(script_sig) {
        return Err(ScriptError::SigPushOnly);
    }
    let mut stack = Stack::new();
    run(&mut stack, script_sig, flags, input, Version::Base)?;
    let pushed = if flags & flag::P2SH != 0 { stack.clone() } else { Stack::new() };
    run(&mut stack, script_pubkey, flags, input, Version::Base)?;
    top_is_true(&stack)?;
    let mut had_witness = false;
    if flags & flag::WITNESS != 0
        && let Some(program) = witness_program(script_pubkey)
    {
        had_witness = true;
        if !script_sig.is_empty() {
            return Err(ScriptError::WitnessMalleated);
        }
        verify_program(input, witness, program, flags)?;
        // The stack holds the program and its version; the witness script's own stack was clean.
        stack.truncate(1);
    }
    if flags & flag::P2SH != 0 && is_p2sh(script_pubkey) {
        stack = pushed;
        had_witness |= verify_redeem(input, &mut stack, script_sig, witness, flags)?;
    }
    if flags & flag::CLEANSTACK != 0 && stack.len() != 1 {
        return Err(ScriptError::CleanStack);
    }
    if flags & flag::WITNESS != 0 && !had_witness && !witness.is_empty() {
        return Err(ScriptError::WitnessUnexpected);
    }
    Ok(())
}

fn top_is_true(stack: &Stack) -> Result<(), ScriptError> {
    if stack.last().is_some_and(|top| is_true(top)) { Ok(()) } else { Err(ScriptError::EvalFalse) }
}

/// Runs the redeem script on what the input script pushed before it. Returns whether it was a witness program.
fn verify_redeem(
    input: &Input<'_>,
    stack: &mut Stack,
    script_sig: &[u8],
    witness: &Witness,
    flags: u32,
) -> Result<bool, ScriptError> {
    if !is_push_only(script_sig) {
        return Err(ScriptError::SigPushOnly);
    }
    // Never empty, since the hash was compared with the top. Still, an impossible stack fails the script and does not
    // panic.
    let redeem = stack.pop().ok_or(ScriptError::EvalFalse)?;
    run(stack, &redeem, flags, input, Version::Base)?;
    top_is_true(stack)?;
    let program = witness_program(&redeem).filter(|_| flags & flag::WITNESS != 0);
    let Some(program) = program else { return Ok(false) };
    if script_sig != ops::push(&redeem) {
        return Err(ScriptError::WitnessMalleatedP2sh);
    }
    verify_program(input, witness, program, flags)?;
    stack.truncate(1);
    Ok(true)
}

/// Runs a witness program (`VerifyWitnessProgram`).
fn verify_program(
    input: &Input<'_>,
    witness: &Witness,
    (version, program): (u8, &[u8]),
    flags: u32,
) -> Result<(), ScriptError> {
    if version > 0 {
        let discouraged = flags & flag::DISCOURAGE_UPGRADABLE_WITNESS_PROGRAM != 0;
        return if discouraged { Err(ScriptError::DiscourageUpgradableWitnessProgram) } else { Ok(()) };
    }
    let mut stack: Stack = witness.iter().map(<[u8]>::to_vec).collect();
    let script = match program.len() {
        32 => {
            let script = stack.pop().ok_or(ScriptError::WitnessProgramWitnessEmpty)?;
            if sha256::Hash::hash(&script).as_byte_array() != program {
                return Err(ScriptError::WitnessProgramMismatch);
            }
            script
        }
        20 if stack.len() == 2 => key_hash_script(program),
        20 => return Err(ScriptError::WitnessProgramMismatch),
        _ => return Err(ScriptError::WitnessProgramWrongLength),
    };
    if stack.iter().any(|element| element.len() > MAX_ELEMENT) {
        return Err(ScriptError::PushSize);
    }
    run(&mut stack, &script, flags, input, Version::Witness)?;
    if stack.len() == 1 { top_is_true(&stack) } else { Err(ScriptError::EvalFalse) }
}

/// The script that a witness key hash stands for.
fn key_hash_script(hash: &[u8]) -> Vec<u8> {
    let before = [op::OP_DUP.to_u8(), op::OP_HASH160.to_u8(), 20];
    let after = [op::OP_EQUALVERIFY.to_u8(), op::OP_CHECKSIG.to_u8()];
    [&before[..], hash, &after].concat()
}
