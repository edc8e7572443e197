//! The miner's end of a connection to a pool.
//!
//! Here: [`Session`], which requests version rolling, a subscription and authorisation, reads what the pool sends and
//! turns it into [`Event`]s. Every field from the pool is bounded and checked.
//! Not here: sockets, time-outs, failover and whether to follow a [`Reconnect`] (the owner's), hashing.
//! Path: line → [`Session::handle_line`] → event; share → [`Session::submit`] → [`Session::next_outgoing`] → socket.

mod answer;
mod session;

pub use answer::{Refusal, Verdict};
pub use session::Session;

use std::sync::Arc;

use crate::difficulty::{Difficulty, Target};
use crate::fields::{Extranonce1, Extranonce2, FieldError, JobId, NTime, Nonce, VersionBits, VersionMask};
use crate::message::MessageError;
use crate::notify::Notify;
use crate::work::Work;

/// Longest message shown, in bytes; the rest is cut off.
pub const MAX_SHOWN_MESSAGE: usize = 512;
/// Longest wait before a reconnect that a pool may request, in seconds.
pub const MAX_RECONNECT_WAIT: u32 = 3600;
/// Most unanswered shares remembered. A pool that leaves so many unanswered answers none at all.
pub const MAX_UNANSWERED: usize = 4096;
/// Lines in a row that are passed over where they cannot be understood. A pool that says more of them speaks something
/// else.
pub const MAX_PASSED_OVER: u32 = 16;

/// What we send to a pool to introduce ourselves.
#[derive(Debug, Clone)]
pub struct Options {
    /// User name; at our pools `ADDRESS[.worker]`.
    pub user: String,
    /// Password; most pools accept anything.
    pub password: String,
    /// Our user agent: `name/version`.
    pub user_agent: String,
    /// The version bits that we can roll; with [`VersionMask::NONE`] version rolling is not requested.
    pub version_mask: VersionMask,
    /// A difficulty to suggest to the pool.
    pub suggest_difficulty: Option<Difficulty>,
}

/// What a pool sent.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The pool has answered the subscription: jobs may come. Some pools send one before the answer: the newest of
    /// those, which is the current one.
    Subscribed(Option<Job>),
    /// The user may submit shares.
    Authorized,
    /// New work. If [`Notify::clean`] is set, all older work is stale.
    Job(Job),
    /// The difficulty of future jobs; a [`Job`] carries its own.
    Difficulty(Difficulty),
    /// The extranonce of future jobs; a [`Job`] carries its own.
    Extranonce {
        /// The pool's part.
        extranonce1: Extranonce1,
        /// Width of the miner's part, in bytes.
        extranonce2_size: usize,
    },
    /// The version bits that may be rolled, in future jobs and in those already received (BIP310).
    VersionMask(VersionMask),
    /// The pool's verdict on a share.
    SubmitResult {
        /// The id that [`Session::submit`] returned.
        id: SubmitId,
        /// The verdict.
        verdict: Verdict,
    },
    /// The pool asks the miner to reconnect.
    Reconnect(Reconnect),
    /// A text for the operator of the machine, without control characters.
    ShowMessage(Box<str>),
    /// A line that could not be understood, and that mining can do without. It has changed nothing.
    PassedOver(Error),
}

/// A job, with the settings in force when it came.
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    /// The job.
    pub notify: Arc<Notify>,
    /// The pool's part of the extranonce.
    pub extranonce1: Extranonce1,
    /// Width of the miner's part, in bytes.
    pub extranonce2_size: usize,
    /// The difficulty that a share needs.
    pub difficulty: Difficulty,
    /// The version bits that may be rolled; [`Event::VersionMask`] may change them.
    pub version_mask: VersionMask,
}

impl Job {
    /// The highest hash value of a valid share.
    #[must_use]
    pub fn target(&self) -> Target {
        Target::from_difficulty(self.difficulty)
    }

    /// The job prepared for building headers.
    #[must_use]
    pub fn work(&self) -> Work {
        Work::new(&self.notify)
    }
}

/// A share to submit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    /// The job that the share solves.
    pub job_id: JobId,
    /// The miner's part of the extranonce.
    pub extranonce2: Extranonce2,
    /// The header's time.
    pub ntime: NTime,
    /// The header's nonce.
    pub nonce: Nonce,
    /// The version bits within the job's mask; sent only if the pool allows rolling, or has allowed it.
    pub version_bits: VersionBits,
}

/// Identifies a submitted share until its verdict comes. Ids of a session increase.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubmitId(pub u64);

/// Where and when to reconnect. Whether to follow it to another host is the owner's decision. By default it should not
/// be followed, since anyone who can write into the connection could redirect the work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reconnect {
    /// Another host, if named.
    pub host: Option<Box<str>>,
    /// Another port, if named.
    pub port: Option<u16>,
    /// Seconds to wait first, up to [`MAX_RECONNECT_WAIT`].
    pub wait: u32,
}

/// Why a connection to a pool cannot continue.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A line that is not an envelope.
    #[error("the pool sent a line that is no Stratum message: {0}")]
    Message(#[from] MessageError),
    /// A field out of bounds.
    #[error("the pool sent a malformed {method}: {error}")]
    Field {
        /// The method whose parameters or result were wrong.
        method: &'static str,
        /// What was wrong.
        error: FieldError,
    },
    /// The pool refused our subscription.
    #[error("the pool refused the subscription: {0}")]
    SubscribeRefused(Box<str>),
    /// The pool refused our user.
    #[error("the pool refused the user: {0}")]
    AuthorizeRefused(Box<str>),
}

impl Error {
    /// Whether mining can go on without what the line would have said. Without jobs and extranonces it cannot.
    fn can_be_passed_over(&self) -> bool {
        match self {
            Self::Message(_) => true,
            Self::Field { method, .. } => matches!(
                *method,
                "mining.set_difficulty"
                    | "mining.set_version_mask"
                    | "client.reconnect"
                    | "client.show_message"
            ),
            Self::SubscribeRefused(_) | Self::AuthorizeRefused(_) => false,
        }
    }
}
