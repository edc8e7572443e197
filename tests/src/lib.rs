//! The real programs, started and asked as a person would: for the end-to-end tests and the demo.
//!
//! Lives here: starting and stopping `iop-node`, `iop-pool` and `iop-miner` in folders and on ports of their own
//! ([`program`], [`stand`]), JSON-RPC as a client ([`rpc`]), and what tests do on a chain ([`chain`]).
//! Does not live here: any of the programs' code, but for addresses, keys and networks of `iop-consensus`.
//! Everything stays on loopback and ends with its owner.

pub mod chain;
pub mod program;
pub mod rpc;
pub mod stand;
