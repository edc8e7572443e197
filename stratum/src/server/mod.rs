//! The pool's end of a connection to a client.
//!
//! Here: [`Session`], which reads a client's lines, answers what it can by itself and passes the rest to its owner as
//! an [`Event`]; the replies and notifications to the client, in order, in its out queue.
//! Not here: which users may work (the owner answers [`Authorize`]), whether a share counts (the owner answers
//! [`Submit`]), time-outs and limits on queued bytes (the owner's, see [`Session::queued_bytes`]).
//! Path: line → [`Session::handle_line`] → event → the owner's answer → [`Session::next_outgoing`] → socket.

mod configure;
mod fast;
mod outgoing;
mod password;
mod session;
mod submit;

pub use outgoing::Outgoing;
pub use password::difficulty_in;
pub use session::Session;

use std::sync::Arc;

use crate::difficulty::Difficulty;
use crate::fields::{Extranonce2, JobId, NTime, Nonce, VersionBits};
use crate::message::Id;
use crate::verdict::Reject;

/// Longest user name, in bytes.
pub const MAX_USER: usize = 127;
/// Longest password, in bytes; at most it carries options.
pub const MAX_PASSWORD: usize = 255;
/// Longest user agent kept, in bytes; the rest is cut off.
pub const MAX_USER_AGENT: usize = 64;
/// Longest text of a `client.show_message`, in bytes; longer than any machine's display.
pub const MAX_MESSAGE: usize = 256;
/// Most users on one connection: a farm's proxy names each machine. Bounds the memory that one connection can take.
pub const MAX_WORKERS: usize = 1024;
/// Lines that are not envelopes after which the client is assumed not to speak Stratum.
pub const MAX_MALFORMED: u32 = 16;
/// The answer to a web browser, for the owner to send on [`Fatal::Http`].
pub const HTTP_ANSWER: &str = "HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\ncontent-length: 27\r\n\
    connection: close\r\n\r\n400: this is a Stratum port";

/// An event that the owner must handle or answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The client is subscribed and the reply is queued: notifications may follow. Repeated if it subscribes again.
    Subscribed {
        /// The client's user agent, printable and cut to [`MAX_USER_AGENT`].
        user_agent: Box<str>,
    },
    /// A user requests authorisation: answer with [`Session::accept`] or [`Session::refuse`].
    Authorize(Authorize),
    /// A share: answer with [`Session::answer_submit`].
    Submit(Submit),
    /// An invalid share of an authorised user: a malformed field, or version bits outside the mask. Already answered;
    /// the owner may count it.
    Refused {
        /// The user who submitted the share.
        worker: WorkerSlot,
        /// The reason given in the answer.
        reject: Reject,
    },
    /// The client suggests this difficulty; already answered.
    SuggestDifficulty(Difficulty),
    /// The client cannot work below this difficulty, which is at most [`Session::with_max_difficulty`]; already
    /// answered.
    MinimumDifficulty(Difficulty),
}

/// A user's request to work on this connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authorize {
    pub(crate) id: Id,
    /// The user name, 1 to [`MAX_USER`] bytes, not interpreted.
    pub user: Arc<str>,
    /// The password, a number as its text; empty when missing or null.
    pub password: Box<str>,
}

/// A user of this connection, numbered in order of first authorisation: 0, 1, 2 …
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct WorkerSlot(pub usize);

/// A share of an authorised user, with every field of the right width and the version bits within the mask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submit {
    /// The id for the answer.
    pub id: Id,
    /// The user who submitted the share.
    pub worker: WorkerSlot,
    /// The job, as the client names it.
    pub job_id: JobId,
    /// The part of the coinbase that the client rolled.
    pub extranonce2: Extranonce2,
    /// The header's time.
    pub ntime: NTime,
    /// The header's nonce.
    pub nonce: Nonce,
    /// The version bits within the mask; `None` if the client did not roll.
    pub version_bits: Option<VersionBits>,
}

/// The client does not speak Stratum: close the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fatal {
    /// An HTTP request on the Stratum port; [`HTTP_ANSWER`] answers it.
    #[error("HTTP on the Stratum port")]
    Http,
    /// [`MAX_MALFORMED`] lines that are not envelopes.
    #[error("{MAX_MALFORMED} malformed lines")]
    Malformed,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_answer_to_http_has_the_length_that_it_says() {
        let (head, body) = HTTP_ANSWER.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}\r\n", body.len())), "{}", body.len());
    }
}
