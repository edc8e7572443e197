//! The pool's end of a connection.
//!
//! Here: [`Session`], which reads a client's lines, answers what it can itself and hands the rest to its owner
//! as an [`Event`]; the replies and notifications that go back, in order, in its out queue.
//! Not here: who may work (the owner answers [`Authorize`]), whether a share counts (the owner answers
//! [`Submit`]), time-outs and limits on what is queued (the owner's, see [`Session::queued_bytes`]).
//! Path: line → [`Session::handle_line`] → event → the owner's answer → [`Session::next_outgoing`] → socket.

mod configure;
mod fast;
mod outgoing;
mod session;
mod submit;

pub use outgoing::Outgoing;
pub use session::Session;

use std::sync::Arc;

use crate::difficulty::Difficulty;
use crate::fields::{Extranonce2, JobId, NTime, Nonce, VersionBits};
use crate::message::Id;
use crate::verdict::Reject;

/// Longest user name, in bytes.
pub const MAX_USER: usize = 127;
/// Longest password, in bytes; it carries options at most.
pub const MAX_PASSWORD: usize = 255;
/// Longest user agent that is kept, in bytes; the rest is cut off.
pub const MAX_USER_AGENT: usize = 64;
/// Longest text of a `client.show_message`, in bytes; longer than a machine's display.
pub const MAX_MESSAGE: usize = 256;
/// Most users on one connection: a proxy of a farm names each machine. Bounds what a connection can make us keep.
pub const MAX_WORKERS: usize = 1024;
/// Lines that are no envelope, after which the other side is taken to speak something else.
pub const MAX_MALFORMED: u32 = 16;

/// What the owner has to know or to answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The client is subscribed, the reply is queued: notifications may follow. Comes again if it subscribes again.
    Subscribed {
        /// What the client calls itself, printable and cut to [`MAX_USER_AGENT`].
        user_agent: Box<str>,
    },
    /// A user wants to work: answer with [`Session::accept`] or [`Session::refuse`].
    Authorize(Authorize),
    /// A share: answer with [`Session::answer_submit`].
    Submit(Submit),
    /// A share of an authorised user that is none: a malformed field, or version bits outside the mask. Already
    /// answered; to be counted.
    Refused {
        /// Whose share it was.
        worker: WorkerSlot,
        /// What the answer said.
        reject: Reject,
    },
    /// The client would like this difficulty; already answered.
    SuggestDifficulty(Difficulty),
    /// The client cannot work below this difficulty, which is within [`Session::with_max_difficulty`]; already
    /// answered.
    MinimumDifficulty(Difficulty),
}

/// A user who wants to work on this connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authorize {
    pub(crate) id: Id,
    /// The user name, 1 to [`MAX_USER`] bytes, not interpreted.
    pub user: Arc<str>,
    /// The password; empty when missing or null.
    pub password: Box<str>,
}

/// A user of this connection, by order of first authorisation: 0, 1, 2 …
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct WorkerSlot(pub usize);

/// A share of an authorised user, every field of the right width, version bits within the mask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submit {
    /// What the answer carries.
    pub id: Id,
    /// Whose share it is.
    pub worker: WorkerSlot,
    /// The job, as the client names it.
    pub job_id: JobId,
    /// The part of the coinbase that the client rolled.
    pub extranonce2: Extranonce2,
    /// The header's time.
    pub ntime: NTime,
    /// The header's nonce.
    pub nonce: Nonce,
    /// The version's bits within the mask; `None` where the client did not roll.
    pub version_bits: Option<VersionBits>,
}

/// The other side does not speak Stratum: close the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fatal {
    /// An HTTP request on the Stratum port.
    #[error("HTTP on the Stratum port")]
    Http,
    /// [`MAX_MALFORMED`] lines that are no envelopes.
    #[error("{MAX_MALFORMED} malformed lines")]
    Malformed,
}
