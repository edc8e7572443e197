//! The sources of work and destinations of shares.
//!
//! Here: the [`Upstream`] trait and the Stratum pool ([`pool::Pool`]) with its connections, failover and time-outs, and
//! one's own nodes ([`node::Solo`]). Not here: Stratum's messages (`iop-stratum`), hashing.
//! Path: job → [`Desk::dispatcher`] → devices → [`Desk::shares`] → pool → verdict → the finder's counters
//! ([`crate::stats`]); its state for people is on [`Desk::board`].

mod backoff;
pub mod board;
mod ca;
mod connection;
mod failover;
mod glance;
mod lost;
pub mod node;
mod open;
mod pace;
pub mod pool;
mod race;
mod timing;
mod tls;
mod url;
mod watch;

pub use board::{Board, Wishes};
pub use timing::Timing;
pub use tls::{Tls, TlsError};
pub use url::{PoolUrl, UrlError};

use std::convert::Infallible;
use std::sync::Arc;

use tokio::sync::mpsc;

use crate::dispatcher::Dispatcher;
use crate::job::Share;

/// A source of jobs that takes the shares found.
pub trait Upstream {
    /// Provides jobs and takes shares for ever; logs failures and recovers from them. To end it, drop the future.
    fn run(self, desk: Desk) -> impl Future<Output = Infallible> + Send;
}

/// The upstream's connections to the rest of the miner.
#[derive(Debug)]
pub struct Desk {
    /// Receives the jobs.
    pub dispatcher: Arc<Dispatcher>,
    /// Shares found by devices; they must be taken promptly, since devices wait when the channel is full.
    pub shares: mpsc::Receiver<Share>,
    /// State of the upstream for people, and their requests for another source.
    pub board: Arc<Board>,
}
