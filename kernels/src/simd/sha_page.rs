//! The memory in which code for the SHA instructions and AVX-512 keeps what the page has no place for. Shared by the
//! crate and by the build script, as the page is.
//!
//! What lives here: which slot lies where, in registers of half a slot. What does not: the constants and versions, which
//! lie in the page. The memory has parts, each with a pointer into its middle: one byte of an instruction reaches 32
//! registers either way. Two parts are there twice: while the rounds read the one, a message is put into the other.

use super::page::Slot;

/// Bytes in a register, and nonces in a batch.
pub(crate) const REGISTER: usize = 32;
pub(crate) const LANES: usize = 8;

/// A part of the memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// All but the messages.
    Rest,
    /// What the first hashes' rounds take.
    First,
    /// What the second hashes' rounds take.
    Second,
}

impl Part {
    /// How many registers it has.
    pub(crate) const fn len(self) -> usize {
        match self {
            Self::Rest => 51,
            Self::First => 50,
            Self::Second => 54,
        }
    }

    /// Where its pointer stands, counted from its first register.
    pub(crate) const fn middle(self) -> usize {
        self.len() / 2
    }
}

/// All parts' registers: the rest, then each of the others twice.
pub(crate) const REGISTERS: usize = Part::Rest.len() + 2 * Part::First.len() + 2 * Part::Second.len();

/// Where the slot is: in which part, and which of its registers.
pub(crate) const fn place(slot: Slot) -> (Part, usize) {
    match slot {
        Slot::FirstWord(t) => (Part::Rest, t % 16),
        Slot::SecondWord(t) => (Part::Rest, 16 + t % 16),
        Slot::Hash(i) => (Part::Rest, 32 + i),
        Slot::State(i) => (Part::Rest, 40 + i),
        Slot::Counter => (Part::Rest, 48),
        Slot::InAAndE => (Part::Rest, 49),
        Slot::LastWords => (Part::Rest, 50),
        Slot::FirstPair(t, half) => (Part::First, t - 18 + half),
        Slot::Added(i) => (Part::First, 46 + i),
        Slot::SecondPair(t, half) if t < 8 => (Part::Second, t + half),
        Slot::SecondPair(t, half) => (Part::Second, t - 8 + half),
        Slot::Carried(_) | Slot::Nonces | Slot::Sum(_) => panic!("this code has no such slot"),
    }
}
