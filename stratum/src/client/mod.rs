//! The miner's end of a connection.
//!
//! Here: [`Session`], which asks a pool for version rolling, a subscription and leave to work, reads what it
//! sends, and turns it into [`Event`]s; every field from the pool is bounded and checked.
//! Not here: sockets, time-outs, failover and whether a [`Reconnect`] is followed (the owner's), hashing.
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

/// Longest message to show, in bytes; the rest is cut off.
pub const MAX_SHOWN_MESSAGE: usize = 512;
/// Longest wait that a pool may ask for before a reconnect, in seconds.
pub const MAX_RECONNECT_WAIT: u32 = 3600;
/// Shares without an answer that are remembered. A pool that answers none of so many answers none at all.
pub const MAX_UNANSWERED: usize = 4096;

/// How to introduce ourselves to a pool.
#[derive(Debug, Clone)]
pub struct Options {
    /// User name: at our pools `ADDRESS[.worker]`.
    pub user: String,
    /// Password; most pools take anything.
    pub password: String,
    /// What we call ourselves: `name/version`.
    pub user_agent: String,
    /// The version bits that we can roll; [`VersionMask::NONE`] does not ask for version rolling.
    pub version_mask: VersionMask,
    /// A difficulty to suggest.
    pub suggest_difficulty: Option<Difficulty>,
}

/// What a pool said.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The pool knows us: jobs may come.
    Subscribed,
    /// The user may submit shares.
    Authorized,
    /// New work. Where [`Notify::clean`] is set, all older work is stale.
    Job(Job),
    /// The difficulty of the jobs that come from now on; a [`Job`] carries its own.
    Difficulty(Difficulty),
    /// The extranonce of the jobs that come from now on; a [`Job`] carries its own.
    Extranonce {
        /// The pool's part.
        extranonce1: Extranonce1,
        /// Width of our part, in bytes.
        extranonce2_size: usize,
    },
    /// The version bits that may be rolled, from now on and in jobs already here (BIP310).
    VersionMask(VersionMask),
    /// The pool's verdict on a share.
    SubmitResult {
        /// What [`Session::submit`] gave.
        id: SubmitId,
        /// The verdict.
        verdict: Verdict,
    },
    /// The pool asks us to connect again.
    Reconnect(Reconnect),
    /// A text for the person at the machine, without control characters.
    ShowMessage(Box<str>),
}

/// A job with everything that was in force when it came.
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    /// The job.
    pub notify: Arc<Notify>,
    /// The pool's part of the extranonce.
    pub extranonce1: Extranonce1,
    /// Width of our part, in bytes.
    pub extranonce2_size: usize,
    /// What a share needs.
    pub difficulty: Difficulty,
    /// The version bits that may be rolled; [`Event::VersionMask`] may change them.
    pub version_mask: VersionMask,
}

impl Job {
    /// What a share's hash must not exceed.
    #[must_use]
    pub fn target(&self) -> Target {
        Target::from_difficulty(self.difficulty)
    }

    /// Made ready for building headers.
    #[must_use]
    pub fn work(&self) -> Work {
        Work::new(&self.notify)
    }
}

/// A share to submit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    /// The job that it solves.
    pub job_id: JobId,
    /// Our part of the extranonce.
    pub extranonce2: Extranonce2,
    /// The header's time.
    pub ntime: NTime,
    /// The header's nonce.
    pub nonce: Nonce,
    /// The header's version within the job's mask; sent only where the pool lets us roll, or has let us.
    pub version_bits: VersionBits,
}

/// A submitted share, until its verdict comes. Grows with every share of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubmitId(pub u64);

/// Where and when to connect again. Following it to another host is the owner's decision: by default it should
/// not be, since whoever can write into the connection could take the work away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reconnect {
    /// Another host, if named.
    pub host: Option<Box<str>>,
    /// Another port, if named.
    pub port: Option<u16>,
    /// Seconds to wait before, up to [`MAX_RECONNECT_WAIT`].
    pub wait: u32,
}

/// Why a connection to a pool cannot go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A line that is no envelope.
    #[error("the pool sent a line that is no Stratum message: {0}")]
    Message(#[from] MessageError),
    /// A field out of its bounds.
    #[error("the pool sent a malformed {method}: {error}")]
    Field {
        /// The method whose parameters or result were wrong.
        method: &'static str,
        /// What was wrong.
        error: FieldError,
    },
    /// A job before the subscription was answered.
    #[error("the pool sent a job before it answered mining.subscribe")]
    NotSubscribed,
    /// The pool does not take us.
    #[error("the pool refused the subscription: {0}")]
    SubscribeRefused(Box<str>),
    /// The pool does not take the user.
    #[error("the pool refused the user: {0}")]
    AuthorizeRefused(Box<str>),
}
