//! The memory shared by the AVX-512 code and its caller. Used by the crate, which fills it, and by the build script,
//! which generates the code that uses it.
//!
//! What lives here: which word is where. What does not: what the words are (`wide.rs`, `build/message.rs`,
//! `build/scan.rs`), and where the code with the SHA instructions keeps its registers (`sha_page.rs`).
//!
//! A load after a store to another address with the same lowest twelve bits waits needlessly, and on Zen 5 for a long
//! time: with constants at such addresses the kernel fell to a third of its speed. So what the loop for AVX-512 alone
//! stores has page offsets of its own: slots 0 to 50 of the first page. What it only loads is where nothing was stored
//! shortly before.

/// Bytes in a slot: one register.
pub(crate) const SLOT: usize = 64;
/// Slots in a [`Page`](self): a page of 4,096 bytes, the versions, and the expanded message.
pub(crate) const SLOTS: usize = 162;
/// Most versions that one call can scan.
pub(crate) const VERSIONS: usize = 16;
/// Words for each version.
pub(crate) const VERSION_WORDS: usize = 20;
/// Iterations from a hash's first round to its mask, besides the first.
pub(crate) const LAG: usize = 2;

/// The place of a register in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Slot {
    /// Message word t of the first hash, in place of the one sixteen before it.
    FirstWord(usize),
    /// The state of the second hash when carried from one iteration to the next: a to h, then two message words.
    Carried(usize),
    /// A word of the first hash.
    Hash(usize),
    /// Message word t of the second hash, as for the first.
    SecondWord(usize),
    /// The next nonces.
    Counter,
    /// With several versions: the nonces as words of the header.
    Nonces,
    /// With several versions: round constant plus message word of the first hash's rounds 16 to 63.
    Sum(usize),
    // The others are used only by the code with the SHA instructions (`sha_page.rs`).
    /// First hashes as the rounds leave them: four registers with a, b, e and f, four with c, d, g and h. Nonce 4l + i
    /// is half l of register i.
    State(usize),
    /// What is added to a and e of the first hashes' state after round 3: the nonces as words of the header.
    Added,
    /// What is added to a and e of the second hashes' state after round 0: their first words.
    SecondAdded,
    /// The deciding words of the second hashes.
    LastWords,
    /// The register before those, whose last word is overwritten.
    BeforeLastWords,
    /// What rounds t and t + 1 add, for each nonce: with 0, for nonces 0, 1, 4 and 5; with 1, for 2, 3, 6 and 7.
    FirstPair(usize, usize),
    SecondPair(usize, usize),
    /// The slot so many registers after where this moving pointer stands.
    Behind(&'static str, i64),
    /// The state of the vector hashes, a to h.
    VectorState(usize),
    /// a of that state after round i of an iteration.
    VectorPast(usize),
    /// For the vector hashes: the next nonces, and the nonces as words of the header.
    VectorCounter,
    VectorNonces,
}

impl Slot {
    /// The first of the slots that share a place in turn.
    pub(crate) const fn in_turn(self) -> Self {
        match self {
            Self::FirstWord(t) => Self::FirstWord(t % 16),
            // The first hash's words are no longer needed when the versions' rounds begin.
            Self::Nonces => Self::FirstWord(0),
            Self::SecondWord(t) => Self::SecondWord(t % 16),
            slot => slot,
        }
    }

    /// Its index in the page, in slots.
    pub(crate) const fn number(self) -> usize {
        match self.in_turn() {
            Self::FirstWord(t) => t,
            Self::Carried(i) => 16 + i,
            Self::Hash(i) => 26 + i,
            Self::SecondWord(t) => 34 + t,
            Self::Counter => 50,
            // At page offsets of constants and of slots 0 to 33: away from the second hash's words.
            Self::Sum(t) => 114 + t - 16,
            Self::State(_)
            | Self::Added
            | Self::SecondAdded
            | Self::BeforeLastWords
            | Self::LastWords
            | Self::FirstPair(..)
            | Self::SecondPair(..)
            | Self::Nonces
            | Self::VectorCounter
            | Self::VectorNonces
            | Self::Behind(..)
            | Self::VectorState(_)
            | Self::VectorPast(_) => panic!("the page has no such slot"),
        }
    }
}

/// A word that is the same in every lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Constant {
    /// For rounds 4 to 63 of the first hash: round constant, plus message word if that is constant.
    FirstRound(usize),
    /// For rounds 1 to 60 of the second hash.
    SecondRound(usize),
    /// Added to message words 18 to 33 of the first hash: everything that does not depend on the nonce.
    FirstWord(usize),
    /// Into message word 16 to 31 of the second hash.
    SecondWord(usize),
    /// The mask that selects bytes 0 and 2.
    EvenBytes,
    /// Bits that are zero in the last word of a hash that may meet the target.
    Zeros,
    /// Nonces in a batch.
    Batch,
    /// The second hash's state after round 0, without its message word, as the SHA instructions take it: with 0, a, b,
    /// e and f; with 1, c, d, g and h.
    SecondFour(usize),
    /// a and e of that state.
    SecondA,
    SecondE,
    /// A word of the initial state, 0 to 7 for a to h.
    Initial(usize),
    /// For rounds 1 to 3 of the second hash, whose h and d are constants: h plus round constant, and that plus d.
    SecondH(usize),
    SecondDH(usize),
    /// Per version, after round 3 with a nonce of 0: a, b, c, e, f, g.
    A,
    B,
    C,
    E,
    F,
    G,
    /// Per version: the same as for the second hash, for rounds 4 to 6.
    FirstH(usize),
    FirstDH(usize),
    /// Per version: word i of its midstate.
    Midstate(usize),
    /// The word so many words after where this moving pointer stands.
    Behind(&'static str, usize),
}

/// Words of constants that are not per version.
pub(crate) const CONSTANTS: usize = 60 + 60 + 16 + 16 + 8 + 3 + 8 + 6;
/// The code's pointer to the constants is so many words after the first: a displacement of one byte reaches 128 words
/// either way.
pub(crate) const CONSTANTS_MIDDLE: usize = 128;
/// The slot with the first constants.
pub(crate) const CONSTANTS_SLOT: usize = 51;
/// The slot with the first version.
pub(crate) const VERSIONS_SLOT: usize = 64;

/// Positions of a state's words a to h in the order of the SHA instructions: f, e, b, a, then h, g, d, c.
pub(crate) const IN_FOURS: [usize; 8] = [3, 2, 7, 6, 1, 0, 5, 4];

impl Constant {
    /// Whether each version has its own.
    pub(crate) const fn is_of_version(self) -> bool {
        use Constant::{A, B, C, E, F, FirstDH, FirstH, G, Midstate};
        matches!(self, A | B | C | E | F | G | FirstH(_) | FirstDH(_) | Midstate(_))
    }

    /// Its index among the constants, or among those of its version, in words.
    pub(crate) const fn number(self) -> usize {
        match self {
            Self::FirstRound(t) => t - 4,
            Self::SecondRound(t) => 60 + t - 1,
            Self::FirstWord(t) => 120 + t - 18,
            Self::SecondWord(t) => 136 + t - 16,
            Self::SecondFour(half) => 152 + 4 * half,
            Self::SecondA => 152 + IN_FOURS[0],
            Self::SecondE => 152 + IN_FOURS[4],
            Self::EvenBytes => 160,
            Self::Zeros => 161,
            Self::Batch => 162,
            Self::Initial(i) => 163 + i,
            Self::SecondH(t) => 171 + 2 * (t - 1),
            Self::SecondDH(t) => 172 + 2 * (t - 1),
            Self::A => 0,
            Self::B => 1,
            Self::C => 2,
            Self::E => 3,
            Self::F => 4,
            Self::G => 5,
            Self::FirstH(t) => 6 + 2 * (t - 4),
            Self::FirstDH(t) => 7 + 2 * (t - 4),
            Self::Midstate(i) => 12 + i,
            Self::Behind(..) => panic!("it has no place of its own"),
        }
    }
}
