//! What is said of an offered block.

use bitcoin::BlockHash;
use iop_consensus::error::BlockError;

use super::index::BlockId;

/// Why a block was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// It breaks a rule.
    #[error(transparent)]
    Rule(BlockError),
    /// By itself, before its place in the chain is looked at, it breaks a rule. Nothing is remembered of it: another block
    /// may have the same hash, since the merkle tree does not tell a node from a transaction of 64 bytes.
    #[error(transparent)]
    Unsound(BlockError),
    /// It, or an ancestor of it, was found to break a rule before.
    #[error("it was found to break a rule before")]
    KnownInvalid,
    /// Its parent is not known.
    #[error("its parent is not known")]
    UnknownParent,
    /// Its parent, or an ancestor of it, breaks a rule.
    #[error("an ancestor of it breaks a rule")]
    InvalidParent,
}

impl Rejection {
    /// The reference's string.
    pub fn reason(&self) -> String {
        match self {
            Self::Rule(error) | Self::Unsound(error) => error.reject_reason().into_owned(),
            Self::KnownInvalid => "duplicate".to_owned(),
            Self::UnknownParent => "prev-blk-not-found".to_owned(),
            Self::InvalidParent => "bad-prevblk".to_owned(),
        }
    }
}

/// What became of a message of headers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeadersAccepted {
    /// The last header that is in the index now, whether or not it was before; `None` if the first was refused.
    pub last: Option<BlockId>,
    /// The header that was refused, and why. None behind it was looked at.
    pub refused: Option<(BlockHash, Rejection)>,
}

/// Whether a block is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    /// It was not here before, and is now: a new block (`fNewBlock`).
    Now,
    /// It was here before, though it may have been pruned since: it is not to be had again.
    Before,
    /// It was refused, or nobody asked for it and it is not wanted.
    Not,
}

/// What became of a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockAccepted {
    /// Whether it is kept.
    pub stored: Stored,
    /// The verdict, if it was refused, or connected: else it waits in a side branch, or was not wanted.
    pub verdict: Option<Result<(), Rejection>>,
}

/// What `submitblock` answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Submitted {
    /// The block became the tip.
    Accepted,
    /// Stored, and not judged to the end: a side block, or a branch with a bad block.
    Inconclusive,
    /// It is known and valid.
    Duplicate,
    /// It is known and invalid.
    DuplicateInvalid,
    /// It is known and not judged to the end.
    DuplicateInconclusive,
    /// It is refused.
    Rejected(Rejection),
}

impl Submitted {
    /// The answer as BIP22 has it: nothing for an accepted block.
    pub fn answer(&self) -> Option<String> {
        match self {
            Self::Accepted => None,
            Self::Inconclusive => Some("inconclusive".to_owned()),
            Self::Duplicate => Some("duplicate".to_owned()),
            Self::DuplicateInvalid => Some("duplicate-invalid".to_owned()),
            Self::DuplicateInconclusive => Some("duplicate-inconclusive".to_owned()),
            Self::Rejected(rejection) => Some(rejection.reason()),
        }
    }
}
