//! What the memory of the code for several versions looks like, as far as the crate and the build script both have to know.
//!
//! What lives here: how many of each thing there are, and how long. What does not: where they lie (`several.rs`), and which
//! instructions use them (`build/sha_ni/several.rs`). Lengths are in bytes.

/// Nonces in a batch.
pub(crate) const NONCES: usize = 8;
/// Four words: message words, or what their rounds add.
pub(crate) const GROUP: usize = 16;
/// A message's words, or its sums.
pub(crate) const ROW: usize = 16 * GROUP;
/// A first message: the row of its words and the row of its sums.
pub(crate) const FIRST_MESSAGE: usize = 2 * ROW;
/// First messages that are made at once where the versions have not made all. So there is memory for as many more than
/// a batch has.
pub(crate) const AT_ONCE: usize = 4;
/// A version's two states.
pub(crate) const VERSION: usize = 4 * GROUP;
/// The last words of a batch in one version.
pub(crate) const LAST_WORDS: usize = 4 * NONCES;
