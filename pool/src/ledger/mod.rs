//! Money: the share log, what members earned, and what a block's coinbase pays them.
//!
//! Here: the append-only share log ([`store`]), the window of shares that the next block is paid by ([`window`]), the
//! split of a reward ([`split`]), the book of found blocks ([`book`]), its audit and reports; what is owed after each block
//! (`sums`), which block they stand on (`standing`), how much the disk must have (`durable`), what it refuses
//! (`trouble`), and its files (`files`).
//! Not here: verdicts on shares, the coinbase's bytes, delivery of blocks.
//! Path: accepted share → [`queue`] → [`writer`] (committed, then answered) → [`window`], in [`live`] → [`plan`], by [`split`] →
//! the next job's outputs; a found block enters the book with its job's split, in the same batch as its share.

pub mod audit;
pub mod book;
pub mod live;
pub mod plan;
pub mod queue;
pub mod report;
pub mod share;
pub mod split;
pub mod store;
pub mod views;
pub mod window;
pub mod writer;

mod durable;
pub(crate) mod files;
mod log;
mod standing;
mod sums;
mod trouble;

pub use book::Book;
pub use live::{Ledger, User};
pub use queue::{Ticket, Waiter};
pub use share::{Share, ShareHash, UserId};
pub use split::{Rules, Scheme, Split};
pub use standing::Standing;

/// A reason in one line why the ledger cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("ledger {folder}: {reason}")]
pub struct LedgerError {
    /// The folder, as given.
    pub folder: String,
    /// What is wrong, in words.
    pub reason: String,
}

#[cfg(test)]
pub(crate) mod tests;
