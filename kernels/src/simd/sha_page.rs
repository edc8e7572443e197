//! The memory of the code that has the SHA instructions and AVX-512. Shared by the crate and by the build script, as the
//! page is.
//!
//! What lives here: which slot lies where, in registers of half the page's size. What does not: the constants and the
//! versions' midstates, which the page has. The memory has parts. Those with what the rounds of the SHA instructions take
//! have pointers into their middles, since an instruction with eight bits for an address reaches 32 registers either way,
//! and are there twice: while the rounds read the one, a message is put into the other.
//!
//! The page's rule for what is stored and loaded at the same page offsets is not kept here: two pages and more are stored
//! in each iteration. On Zen 4 it costs nothing that could be measured; on Zen 5 nobody has looked.

use super::page::{Slot, VERSIONS};

/// Bytes in a register.
pub(crate) const REGISTER: usize = 32;
/// Nonces in a batch: words in a register.
pub(crate) const LANES: usize = REGISTER / 4;

/// A part of the memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// All that is in no other part.
    Rest,
    /// What the first hashes' rounds take.
    First,
    /// What the second hashes' rounds take.
    Second,
    /// Of each version, the state after round 3 with a nonce of 0, as the SHA instructions take it.
    Starts,
    /// Of several versions, all message words of the next batch's first hashes, and some that nobody needs.
    Words,
    /// Of the vector hashes' first hashes: message words 0 to 63, then what each round adds.
    VectorFirst,
    /// The same of their second hashes.
    VectorSecond,
}

/// Items in the time of one vector item.
pub(crate) const ITEMS: usize = 8;
/// Rounds of it in an iteration: its two hashes have 60 each.
pub(crate) const VECTOR_ROUNDS: usize = 120 / ITEMS;
/// Iterations from a first hash to its mask: with one version, whose message is made in the iteration before, and with
/// several. Of vector items, times of [`ITEMS`].
pub(crate) const LAG_OF_ONE: usize = 4;
pub(crate) const LAG: usize = 3;
pub(crate) const VECTOR_LAG: usize = 1;
/// The least number of versions that are faster together than one by one.
pub(crate) const TOGETHER: usize = 4;
/// Of several versions, each makes so many pairs of the next batch's first message's words, until it is whole after so many
/// of them.
pub(crate) const PAIRS: usize = 3;
pub(crate) const PARTS: usize = 8;
/// Where the sums begin in [`Part::VectorFirst`] and [`Part::VectorSecond`].
pub(crate) const VECTOR_SUMS: usize = 64;
/// Words in [`Part::Words`]: from 18 on they are made, and where all parts are, one more is made again and again.
const WORDS: usize = 18 + (PARTS + 1) * 2 * PAIRS;
const _: () = assert!(18 + PARTS * 2 * PAIRS >= 64, "the message is whole");

impl Part {
    /// How many registers it has.
    pub(crate) const fn len(self) -> usize {
        match self {
            // Of the last two rounds there is no past.
            Self::Rest => 60 + VECTOR_ROUNDS - 2,
            Self::First => WORDS - 18 + 1,
            Self::Second => 55,
            Self::Starts => VERSIONS,
            Self::Words => WORDS,
            Self::VectorFirst | Self::VectorSecond => 2 * VECTOR_SUMS,
        }
    }

    /// How often it is there.
    const fn copies(self) -> usize {
        match self {
            Self::Rest | Self::Starts | Self::Words | Self::VectorFirst => 1,
            Self::First | Self::Second | Self::VectorSecond => 2,
        }
    }

    /// The first register of its first copy, or of its second.
    pub(crate) const fn first(self, copy: usize) -> usize {
        assert!(copy < self.copies(), "the part is not there as often");
        let before = match self {
            Self::Rest => 0,
            Self::First => Self::Rest.first(0) + Self::Rest.len(),
            Self::Second => Self::First.first(1) + Self::First.len(),
            Self::Starts => Self::Second.first(1) + Self::Second.len(),
            Self::Words => Self::Starts.first(0) + Self::Starts.len(),
            Self::VectorFirst => Self::Words.first(0) + Self::Words.len(),
            Self::VectorSecond => Self::VectorFirst.first(0) + Self::VectorFirst.len(),
        };
        before + copy * self.len()
    }

    /// The register that its pointer stands at.
    pub(crate) const fn middle(self, copy: usize) -> usize {
        self.first(copy) + self.len() / 2
    }
}

/// Registers in all.
pub(crate) const REGISTERS: usize = Part::VectorSecond.first(1) + Part::VectorSecond.len();

/// Where the slot is: in which part, and which of its registers.
pub(crate) const fn place(slot: Slot) -> (Part, usize) {
    let (part, register) = match slot {
        Slot::FirstWord(t) => (Part::Rest, t % 16),
        Slot::SecondWord(t) => (Part::Rest, 16 + t % 16),
        Slot::Hash(i) => (Part::Rest, 32 + i),
        Slot::State(i) => (Part::Rest, 40 + i),
        // Both in one cache line.
        Slot::BeforeLastWords => (Part::Rest, 48),
        Slot::LastWords => (Part::Rest, 49),
        Slot::Counter => (Part::Rest, 50),
        Slot::VectorCounter => (Part::Rest, 51),
        Slot::VectorNonces => (Part::VectorFirst, 3),
        Slot::Nonces => (Part::Words, 3),
        Slot::VectorState(i) => (Part::Rest, 52 + i),
        Slot::VectorPast(i) => (Part::Rest, 60 + i),
        Slot::FirstPair(t, half) => (Part::First, t - 18 + half),
        Slot::Added => (Part::First, WORDS - 18),
        Slot::SecondAdded => (Part::Second, 54),
        Slot::SecondPair(t @ 1..8, half) => (Part::Second, t - 1 + half),
        Slot::SecondPair(t @ 15.., half) => (Part::Second, t - 7 + half),
        Slot::SecondPair(..) => panic!("words 9 to 14 are constants"),
        Slot::Carried(_) | Slot::Sum(_) | Slot::Behind(..) => panic!("this code has no such slot"),
    };
    assert!(register < part.len(), "a slot is within its part");
    (part, register)
}
