//! The memory of the code that uses both the SHA instructions and AVX-512. Like the page, it is used by the crate and
//! by the build script.
//!
//! What lives here: which slot is where, in registers of half the page's size. What does not: the constants and the
//! versions' midstates, which are in the page. The memory has parts. Those with the input of the SHA instructions'
//! rounds have pointers to their middles, since an 8-bit displacement reaches 32 registers either way. There are two
//! copies of them: while the rounds read one, a message is written to the other.
//!
//! The page's rule about storing and loading at the same page offsets is not followed here, since each iteration stores
//! more than two pages. On Zen 4 that costs nothing measurable; on Zen 5 it has not been examined.

use super::page::{Slot, VERSIONS};

/// Bytes in a register.
pub(crate) const REGISTER: usize = 32;
/// Nonces in a batch: words in a register.
pub(crate) const LANES: usize = REGISTER / 4;

/// A part of the memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Everything that is in no other part.
    Rest,
    /// The input of the first hashes' rounds.
    First,
    /// The input of the second hashes' rounds.
    Second,
    /// For each version, the state after round 3 with a nonce of 0, as the SHA instructions take it.
    Starts,
    /// With several versions, all message words of the next batch's first hashes, and some that are not needed.
    Words,
    /// For the vector hashes' first hashes: message words 0 to 63, then what each round adds.
    VectorFirst,
    /// The same for their second hashes.
    VectorSecond,
}

/// Items in the time of one vector item.
pub(crate) const ITEMS: usize = 8;
/// Its rounds in one iteration: its two hashes have 60 each.
pub(crate) const VECTOR_ROUNDS: usize = 120 / ITEMS;
/// Iterations from a first hash to its mask: with one version, whose message is computed an iteration earlier, and with
/// several. For vector items, in units of [`ITEMS`].
pub(crate) const LAG_OF_ONE: usize = 4;
pub(crate) const LAG: usize = 3;
pub(crate) const VECTOR_LAG: usize = 1;
/// The least number of versions for which scanning them together is faster than one by one.
pub(crate) const TOGETHER: usize = 4;
/// With several versions, each computes this many pairs of words of the next batch's first message, which is complete
/// after this many of them.
pub(crate) const PAIRS: usize = 3;
pub(crate) const PARTS: usize = 8;
/// Where the sums begin in [`Part::VectorFirst`] and [`Part::VectorSecond`].
pub(crate) const VECTOR_SUMS: usize = 64;
/// Words in [`Part::Words`]: they are computed from 18 on, and once all parts are there, one more is computed
/// repeatedly.
const WORDS: usize = 18 + (PARTS + 1) * 2 * PAIRS;
const _: () = assert!(18 + PARTS * 2 * PAIRS >= 64, "the message is whole");

impl Part {
    /// Its number of registers.
    pub(crate) const fn len(self) -> usize {
        match self {
            // The past of the last two rounds is not kept.
            Self::Rest => 60 + VECTOR_ROUNDS - 2,
            Self::First => WORDS - 18 + 1,
            Self::Second => 55,
            Self::Starts => VERSIONS,
            Self::Words => WORDS,
            Self::VectorFirst | Self::VectorSecond => 2 * VECTOR_SUMS,
        }
    }

    /// How many copies there are.
    const fn copies(self) -> usize {
        match self {
            Self::Rest | Self::Starts | Self::Words | Self::VectorFirst => 1,
            Self::First | Self::Second | Self::VectorSecond => 2,
        }
    }

    /// The first register of a copy.
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

    /// The register that its pointer points to.
    pub(crate) const fn middle(self, copy: usize) -> usize {
        self.first(copy) + self.len() / 2
    }
}

/// The total number of registers.
pub(crate) const REGISTERS: usize = Part::VectorSecond.first(1) + Part::VectorSecond.len();

/// The part that a slot is in, and the register within it.
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
