//! The memory layout of the code for several versions, as far as both the crate and the build script must know it.
//!
//! What lives here: how many of each thing there are, and how long they are. What does not: where they are
//! (`several.rs`), and which instructions use them (`build/sha_ni/several.rs`). Lengths are in bytes.

/// Nonces in a batch.
pub(crate) const NONCES: usize = 8;
/// Four words: message words, or what their rounds add.
pub(crate) const GROUP: usize = 16;
/// All words of a message, or all its sums.
pub(crate) const ROW: usize = 16 * GROUP;
/// A first message: the row of its words and the row of its sums.
pub(crate) const FIRST_MESSAGE: usize = 2 * ROW;
/// First messages computed at once if the versions have not computed all of them. So there is memory for this many more
/// than a batch has.
pub(crate) const AT_ONCE: usize = 4;
/// A version's two states.
pub(crate) const VERSION: usize = 4 * GROUP;
/// The last words of a batch in one version.
pub(crate) const LAST_WORDS: usize = 4 * NONCES;
