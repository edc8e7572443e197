//! A lean, fully validating node of the IoP chain.
//!
//! Lives here: storage, the chain state and the one thread that owns it, the mempool, block templates, JSON-RPC,
//! and the command line. Does not live here: the rules (`iop-consensus`) and mining beyond `generatetoaddress`.
//! Data goes: RPC -> [`chain::actor`] (one command channel) -> [`chain::state::ChainState`] (rules, index,
//! registry) -> [`storage`]: index and undo with each block, coins and tip together in one batch per flush -> the
//! change is published to all subscribers.

pub mod chain;
pub mod cli;
pub mod fuzzing;
pub mod mempool;
mod mercury;
pub mod metrics;
pub mod p2p;
pub mod storage;
pub mod template;

mod args;
mod connections;
mod failure;
mod generate;
mod hexes;
mod keys;
mod licensing;
mod offline;
mod open_files;
mod output;
mod progress;
mod rpc;
mod run;
mod settings;
mod signals;
mod waiting;
