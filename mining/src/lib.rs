//! From a node to licensed work: what the pool and a miner on its own have in common.
//!
//! Here: a node's JSON-RPC, templates, tips, license keys and the choice among them, signed coinbases, how blocks are
//! submitted and kept until they are answered, and the files that people name; for who gives work to machines: vardiff, the
//! pace of requests, bans; a panic as an answer ([`caught`]). Not here: Stratum's messages (`iop-stratum`), who gets the
//! work, what becomes of it.
//! Path: node ([`rpc`]) → [`template`] → license ([`choice`]) → signed [`coinbase`], open for extranonces.

pub mod bans;
pub mod bucket;
pub mod caught;
pub mod choice;
pub mod coinbase;
pub mod files;
pub mod keys;
pub mod open_files;
pub mod rpc;
#[doc(hidden)]
pub mod sample;
pub mod spool;
pub mod submit;
pub mod template;
pub mod tips;
pub mod vardiff;

/// A configuration that cannot be used: one line that names the thing and what was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(pub String);
