//! Verdicts on offered blocks and headers.

use bitcoin::BlockHash;
use iop_consensus::error::BlockError;

use super::index::BlockId;

/// Why a block was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// It breaks a rule.
    #[error(transparent)]
    Rule(BlockError),
    /// It breaks a rule by itself, whatever its place in the chain. The verdict is not remembered: another block
    /// may have the same hash, since the merkle tree cannot tell an inner node from a transaction of 64 bytes.
    #[error(transparent)]
    Unsound(BlockError),
    /// It or an ancestor was found to break a rule before.
    #[error("it was found to break a rule before")]
    KnownInvalid,
    /// Its parent is not known.
    #[error("its parent is not known")]
    UnknownParent,
    /// Its parent, or an ancestor of that, breaks a rule.
    #[error("an ancestor of it breaks a rule")]
    InvalidParent,
}

impl Rejection {
    /// The reference's reject reason.
    pub fn reason(&self) -> String {
        match self {
            Self::Rule(error) | Self::Unsound(error) => error.reject_reason().into_owned(),
            Self::KnownInvalid => "duplicate".to_owned(),
            Self::UnknownParent => "prev-blk-not-found".to_owned(),
            Self::InvalidParent => "bad-prevblk".to_owned(),
        }
    }
}

/// The outcome of a headers message.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeadersAccepted {
    /// The last header that is in the index now, whether or not it was before; `None` if the first was refused.
    pub last: Option<BlockId>,
    /// The header that was refused, and why. Headers after it were not looked at.
    pub refused: Option<(BlockHash, Rejection)>,
}

/// Whether a block is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    /// It is new and was stored (`fNewBlock`).
    Now,
    /// It was stored before. It may have been pruned since and cannot be stored again.
    Before,
    /// It was refused, or was neither requested nor wanted.
    Not,
}

/// The outcome for one block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockAccepted {
    /// Whether it is kept.
    pub stored: Stored,
    /// The verdict, if it was refused or connected; `None` if it waits on a side branch or was not wanted.
    pub verdict: Option<Result<(), Rejection>>,
}

/// The outcome of `submitblock`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Submitted {
    /// The block became the tip.
    Accepted,
    /// Stored but not fully validated: a side block, or on a branch with an invalid block.
    Inconclusive,
    /// It is known and valid.
    Duplicate,
    /// It is known and invalid.
    DuplicateInvalid,
    /// It is known and not fully validated.
    DuplicateInconclusive,
    /// It is refused.
    Rejected(Rejection),
}

impl Submitted {
    /// The BIP22 answer: `None` for an accepted block.
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
