//! Where work comes from and shares go.
//!
//! Here: the [`Upstream`] trait and the Stratum pool ([`pool::Pool`]) with its connections, failover and
//! time-outs, and nodes of one's own ([`node::Solo`]). Not here: Stratum's messages (`iop-stratum`), hashing.
//! Path: job → [`Desk::dispatcher`] → devices → [`Desk::shares`] → pool → verdict → the finder's counters
//! ([`crate::stats`]); what people see of it all stands on [`Desk::board`].

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

/// A source of jobs that takes their shares.
pub trait Upstream {
    /// Gives jobs and takes shares for ever; whatever goes wrong on the way, it says so and recovers. To end
    /// it, drop the future.
    fn run(self, desk: Desk) -> impl Future<Output = Infallible> + Send;
}

/// What an upstream has to do with the rest of the miner.
#[derive(Debug)]
pub struct Desk {
    /// Takes the jobs.
    pub dispatcher: Arc<Dispatcher>,
    /// The shares that devices found; never left to pile up, since devices wait where they do.
    pub shares: mpsc::Receiver<Share>,
    /// What people see of the upstream, and their wish to use another source.
    pub board: Arc<Board>,
}
