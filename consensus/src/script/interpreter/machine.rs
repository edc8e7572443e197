//! The stack machine (`EvalScript`): reads a script op by op, enforces the limits, and passes each op to `ops.rs`.
//!
//! Limits: 10,000 bytes a script, 520 bytes an element, 201 operations besides pushes, 1,000 elements. So a script
//! takes bounded time and memory: at most 201 operations on 1,000 elements, and at most 20 keys for each multisig
//! operation, which count as operations.

use bitcoin::Opcode;
use bitcoin::opcodes::all as op;

use super::super::flag;
use super::super::reader::{Op, ScriptReader};
use super::error::ScriptError;
use super::number;
use super::sighash::Version;
use super::signature::Input;

/// Largest script, in bytes (`MAX_SCRIPT_SIZE`).
const MAX_SCRIPT: usize = 10_000;
/// Largest element, in bytes (`MAX_SCRIPT_ELEMENT_SIZE`).
pub(super) const MAX_ELEMENT: usize = 520;
/// Most operations, not counting pushes (`MAX_OPS_PER_SCRIPT`).
const MAX_OPS: usize = 201;
/// Most elements on both stacks together (`MAX_STACK_SIZE`).
const MAX_STACK: usize = 1_000;

const OP_PUSHDATA4: u8 = 0x4e;
const OP_16: u8 = 0x60;

pub(super) type Stack = Vec<Vec<u8>>;

/// A script being run.
pub(super) struct Machine<'a> {
    pub(super) stack: &'a mut Stack,
    pub(super) alt: Stack,
    /// For each open IF, whether its branch is taken.
    pub(super) conditions: Vec<bool>,
    pub(super) reader: ScriptReader<'a>,
    /// The script code that signatures commit to: the script after the last code separator.
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

    /// Counts operations, and fails beyond the limit; a multisig operation counts its keys too.
    pub(super) fn count_ops(&mut self, count: usize) -> Result<(), ScriptError> {
        self.ops += count;
        if self.ops > MAX_OPS { Err(ScriptError::OpCount) } else { Ok(()) }
    }

    /// Whether a flag is set.
    pub(super) fn has(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    /// The element `depth` below the top.
    pub(super) fn peek(&self, depth: usize) -> Result<&[u8], ScriptError> {
        let index = self.stack.len().checked_sub(depth + 1).ok_or(ScriptError::InvalidStackOperation)?;
        Ok(&self.stack[index])
    }

    /// The element `depth` below the top, as a number.
    pub(super) fn number(&self, depth: usize) -> Result<i64, ScriptError> {
        number::read(self.peek(depth)?, self.has(flag::MINIMALDATA), number::DEFAULT_SIZE)
    }

    /// Removes and returns the top element.
    pub(super) fn pop(&mut self) -> Result<Vec<u8>, ScriptError> {
        self.stack.pop().ok_or(ScriptError::InvalidStackOperation)
    }

    /// Fails unless the stack has at least `count` elements.
    pub(super) fn need(&self, count: usize) -> Result<(), ScriptError> {
        if self.stack.len() < count { Err(ScriptError::InvalidStackOperation) } else { Ok(()) }
    }

    /// Removes the top `count` elements, which the caller has checked to exist.
    pub(super) fn drop_top(&mut self, count: usize) {
        self.stack.truncate(self.stack.len().saturating_sub(count));
    }

    /// Pushes a truth value.
    pub(super) fn push_bool(&mut self, value: bool) {
        self.stack.push(if value { vec![1] } else { Vec::new() });
    }
}

/// Whether the push is the shortest possible for its data (`CheckMinimalPush`).
fn is_minimal_push(opcode: u8, data: &[u8]) -> bool {
    match data {
        [] => opcode == 0,
        // These have opcodes of their own.
        [1..=16 | 0x81] => false,
        _ if data.len() <= 75 => usize::from(opcode) == data.len(),
        _ if data.len() <= 255 => opcode == 0x4c,
        _ => opcode == 0x4d || data.len() > 65_535,
    }
}

/// Whether an operation fails a script wherever it appears.
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
