//! The stack machine (`EvalScript`): reads op by op, keeps the limits, and hands each op to `ops.rs`.
//!
//! Limits: a script of 10,000 bytes, an element of 520, 201 operations besides pushes, 1,000 elements. So a script takes
//! bounded time and memory: at most 201 operations on 1,000 elements, and at most 20 keys for each multisig operation,
//! which count as operations.

use bitcoin::Opcode;
use bitcoin::opcodes::all as op;

use super::super::flag;
use super::super::reader::{Op, ScriptReader};
use super::error::ScriptError;
use super::number;
use super::sighash::Version;
use super::signature::Input;

/// A script's bytes (`MAX_SCRIPT_SIZE`).
const MAX_SCRIPT: usize = 10_000;
/// An element's bytes (`MAX_SCRIPT_ELEMENT_SIZE`).
pub(super) const MAX_ELEMENT: usize = 520;
/// Operations besides pushes (`MAX_OPS_PER_SCRIPT`).
const MAX_OPS: usize = 201;
/// Elements on both stacks (`MAX_STACK_SIZE`).
const MAX_STACK: usize = 1_000;

const OP_PUSHDATA4: u8 = 0x4e;
const OP_16: u8 = 0x60;

pub(super) type Stack = Vec<Vec<u8>>;

/// A script being run.
pub(super) struct Machine<'a> {
    pub(super) stack: &'a mut Stack,
    pub(super) alt: Stack,
    /// One for each IF that is open: whether its branch is taken.
    pub(super) conditions: Vec<bool>,
    pub(super) reader: ScriptReader<'a>,
    /// What a signature signs: the script behind the last code separator.
    pub(super) code: &'a [u8],
    pub(super) flags: u32,
    pub(super) input: &'a Input<'a>,
    pub(super) version: Version,
    ops: usize,
}

/// Runs a script to its end (`EvalScript`).
pub(super) fn run(
    stack: &mut Stack,
    script: &[u8],
    flags: u32,
    input: &Input<'_>,
    version: Version,
) -> Result<(), ScriptError> {
    if script.len() > MAX_SCRIPT {
        return Err(ScriptError::ScriptSize);
    }
    let mut machine = Machine {
        stack,
        alt: Stack::new(),
        conditions: Vec::new(),
        reader: ScriptReader::new(script),
        code: script,
        flags,
        input,
        version,
        ops: 0,
    };
    while !machine.reader.at_end() {
        machine.step()?;
    }
    if machine.conditions.is_empty() { Ok(()) } else { Err(ScriptError::UnbalancedConditional) }
}

impl Machine<'_> {
    fn step(&mut self) -> Result<(), ScriptError> {
        let taken = self.conditions.iter().all(|taken| *taken);
        let Op { opcode, data } = self.reader.next_op().map_err(|_| ScriptError::BadOpcode)?;
        if data.len() > MAX_ELEMENT {
            return Err(ScriptError::PushSize);
        }
        if opcode > OP_16 {
            self.count_ops(1)?;
        }
        let code = Opcode::from(opcode);
        if is_disabled(code) {
            return Err(ScriptError::DisabledOpcode);
        }
        if opcode <= OP_PUSHDATA4 {
            if taken {
                if self.has(flag::MINIMALDATA) && !is_minimal_push(opcode, data) {
                    return Err(ScriptError::MinimalData);
                }
                self.stack.push(data.to_vec());
            }
        } else if taken || (op::OP_IF.to_u8()..=op::OP_ENDIF.to_u8()).contains(&opcode) {
            self.execute(code, taken)?;
        }
        if self.stack.len() + self.alt.len() > MAX_STACK { Err(ScriptError::StackSize) } else { Ok(()) }
    }

    /// Operations beyond the limit fail; a multisig operation counts its keys too.
    pub(super) fn count_ops(&mut self, count: usize) -> Result<(), ScriptError> {
        self.ops += count;
        if self.ops > MAX_OPS { Err(ScriptError::OpCount) } else { Ok(()) }
    }

    /// Whether a flag is set.
    pub(super) fn has(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    /// The element that many below the top.
    pub(super) fn peek(&self, depth: usize) -> Result<&[u8], ScriptError> {
        let index = self.stack.len().checked_sub(depth + 1).ok_or(ScriptError::InvalidStackOperation)?;
        Ok(&self.stack[index])
    }

    /// The element that many below the top, as a number.
    pub(super) fn number(&self, depth: usize) -> Result<i64, ScriptError> {
        number::read(self.peek(depth)?, self.has(flag::MINIMALDATA), number::DEFAULT_SIZE)
    }

    /// Takes the top off.
    pub(super) fn pop(&mut self) -> Result<Vec<u8>, ScriptError> {
        self.stack.pop().ok_or(ScriptError::InvalidStackOperation)
    }

    /// Fails unless there are that many elements.
    pub(super) fn need(&self, count: usize) -> Result<(), ScriptError> {
        if self.stack.len() < count { Err(ScriptError::InvalidStackOperation) } else { Ok(()) }
    }

    /// Takes that many elements off, which are there.
    pub(super) fn drop_top(&mut self, count: usize) {
        self.stack.truncate(self.stack.len().saturating_sub(count));
    }

    /// Puts a truth value on top.
    pub(super) fn push_bool(&mut self, value: bool) {
        self.stack.push(if value { vec![1] } else { Vec::new() });
    }
}

/// Whether the data could not have been pushed in fewer bytes (`CheckMinimalPush`).
fn is_minimal_push(opcode: u8, data: &[u8]) -> bool {
    match data {
        [] => opcode == 0,
        // There are opcodes for these.
        [1..=16 | 0x81] => false,
        _ if data.len() <= 75 => usize::from(opcode) == data.len(),
        _ if data.len() <= 255 => opcode == 0x4c,
        _ => opcode == 0x4d || data.len() > 65_535,
    }
}

/// Operations that fail a script wherever they stand.
fn is_disabled(code: Opcode) -> bool {
    matches!(
        code,
        op::OP_CAT
            | op::OP_SUBSTR
            | op::OP_LEFT
            | op::OP_RIGHT
            | op::OP_INVERT
            | op::OP_AND
            | op::OP_OR
            | op::OP_XOR
            | op::OP_2MUL
            | op::OP_2DIV
            | op::OP_MUL
            | op::OP_DIV
            | op::OP_MOD
            | op::OP_LSHIFT
            | op::OP_RSHIFT
    )
}
