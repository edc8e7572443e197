//! Where the code with the SHA instructions has its values: registers, and slots as addresses in its assembly.
//!
//! What lives here: which registers the rounds leave; which pointer leads to which part of the memory
//! (`src/simd/sha_page.rs`), and how far. What does not: who moves the pointers (`mod.rs`).
//!
//! rdi points at the middle of the first part, and reaches all that is there once; r12 and rbp at the middles of the
//! messages that the rounds read, r13 and rbx at those that are written. (Where a first message is made of several
//! versions, r13 moves.)

use crate::emit::{self, Machine, address};
use crate::flow::Flow;
use crate::page::{Constant, Slot};
use crate::sha_page::{self, LANES, Part, REGISTER};

/// Halves of AVX-512's registers, but for those of the rounds.
pub(crate) const MACHINE: Machine =
    Machine { name: "ymm", registers: 15..32, lanes: LANES, slot: |slot| written(slot, 0) };

/// The flow's instructions as they come.
pub(crate) fn as_written(flow: &Flow) -> Vec<String> {
    emit::emit_as_written(flow, &MACHINE)
}

/// A byte of the slot. Some parts have a pointer for each use.
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

/// Where messages are being written.
pub(crate) fn written(slot: Slot, byte: usize) -> String {
    at(slot, byte, ["r13", "rbx"])
}

/// Where the rounds read.
pub(crate) fn read(slot: Slot, byte: usize) -> String {
    at(slot, byte, ["r12", "rbp"])
}

/// Lets the pointer stand at the register.
pub(crate) fn point(pointer: &str, register: usize) -> String {
    let bytes = (register as i64 - Part::Rest.middle(0) as i64) * REGISTER as i64;
    format!("lea {pointer}, [rdi + {bytes}]\n")
}

/// Lets the pointer stand at the constant.
pub(crate) fn point_to(pointer: &str, constant: Constant) -> String {
    format!("lea {pointer}, {}\n", address(constant))
}
