//! Where the code with the SHA instructions keeps its values: registers, and slots as addresses in its assembly.
//!
//! What lives here: which registers the rounds leave; which pointer leads to which part of the memory
//! (`src/simd/sha_page.rs`), and at what offset. What does not: moving the pointers (`mod.rs`).
//!
//! rdi points to the middle of the first part, and reaches everything of which there is one copy; r12 and rbp point to
//! the middles of the messages that the rounds read, r13 and rbx to those being written. (With several versions, r13
//! moves along the first message.)

use crate::emit::{self, Machine, address};
use crate::flow::Flow;
use crate::page::{Constant, Slot};
use crate::sha_page::{self, LANES, Part, REGISTER};

/// The lower halves of AVX-512's registers, except those of the rounds.
pub(crate) const MACHINE: Machine =
    Machine { name: "ymm", registers: 15..32, lanes: LANES, slot: |slot| written(slot, 0) };

/// Emits the flow's instructions in the order in which they were written.
pub(crate) fn as_written(flow: &Flow) -> Vec<String> {
    emit::emit_as_written(flow, &MACHINE)
}

/// The address of a byte of the slot. Some parts have one pointer for each use.
fn at(slot: Slot, byte: usize, [first, second]: [&str; 2]) -> String {
    if let Slot::Behind(pointer, registers) = slot {
        return format!("[{pointer} + {}]", registers * REGISTER as i64 + byte as i64);
    }
    let (part, register) = sha_page::place(slot);
    let (pointer, pointed) = match part {
        Part::First => (first, part.middle(0)),
        Part::Second => (second, part.middle(0)),
        _ => ("rdi", Part::Rest.middle(0)),
    };
    let register = (part.first(0) + register) as i64 - pointed as i64;
    format!("[{pointer} + {}]", register * REGISTER as i64 + byte as i64)
}

/// The address where messages are written.
pub(crate) fn written(slot: Slot, byte: usize) -> String {
    at(slot, byte, ["r13", "rbx"])
}

/// The address where the rounds read.
pub(crate) fn read(slot: Slot, byte: usize) -> String {
    at(slot, byte, ["r12", "rbp"])
}

/// Sets the pointer to the register.
pub(crate) fn point(pointer: &str, register: usize) -> String {
    let bytes = (register as i64 - Part::Rest.middle(0) as i64) * REGISTER as i64;
    format!("lea {pointer}, [rdi + {bytes}]\n")
}

/// Sets the pointer to the constant.
pub(crate) fn point_to(pointer: &str, constant: Constant) -> String {
    format!("lea {pointer}, {}\n", address(constant))
}
