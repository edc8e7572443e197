//! From a node to licensed work: the code that the pool and a solo miner share.
//!
//! Here: a node's JSON-RPC, templates, tips, license keys and the choice among them, signed coinbases,
//! submitting found blocks and keeping them until a node has answered, reading files named by the user; a
//! clock that differs from the node's ([`clocks`]); what the tasks that follow one node each share
//! ([`source`]); for servers that give out work: vardiff, the times of shares, request rates and bans; the
//! connections of an HTTP API ([`http`]); panics as errors ([`caught`]); warnings that are not to fill the
//! disk ([`rarely`]). Not here: Stratum's messages (`iop-stratum`), which miner gets which work and what else
//! becomes of it.
//! Path: node ([`rpc`]) → [`template`] → license ([`choice`]) → signed [`coinbase`], open for extranonces.

pub mod bans;
pub mod bucket;
pub mod caught;
pub mod choice;
pub mod clocks;
pub mod coinbase;
pub mod files;
pub mod http;
pub mod keys;
pub mod open_files;
pub mod rarely;
pub mod rpc;
#[doc(hidden)]
pub mod sample;
pub mod source;
pub mod spool;
pub mod submit;
pub mod template;
pub mod times;
pub mod tips;
pub mod vardiff;

/// An unusable configuration: one line that names the setting and what was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(pub String);
