//! A license-aware Stratum V1 pool.
//!
//! Here: configuration, jobs, Stratum connections, verdicts, share counters, the ledger, found blocks and their
//! delivery, the HTTP API. Not here: consensus rules (`iop-consensus`), the node's client, license choice and signed
//! coinbases (`iop-mining`), messages and work arithmetic (`iop-stratum`), hashing.
//! Path: node tip → template → license → signed coinbase → job ([`job`], one notify for all) → sessions ([`session`]) →
//! submit → verdict ([`judge`]) → counters ([`workers`], with their [`history`]); a found block goes to every node at
//! once ([`blocks`]).

mod chain;
mod clock;
mod output;
mod strays;

pub mod api;
pub mod blocks;
pub mod books;
pub mod check;
pub mod cli;
pub mod config;
pub mod datadir;
pub mod follow;
pub mod history;
pub mod job;
pub mod judge;
pub mod ledger;
pub mod limits;
pub mod metrics;
pub mod payouts;
pub mod run;
pub mod session;
pub mod solo;
pub mod spool;
pub mod workers;

/// The pool's name and version.
pub const SOFTWARE: &str = concat!("iop-pool/", env!("CARGO_PKG_VERSION"));
