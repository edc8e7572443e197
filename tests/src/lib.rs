//! The real programs, started and asked as a person would: for the end-to-end tests and the demo.
//!
//! Lives here: starting and stopping `iop-node`, `iop-pool` and `iop-miner` in folders and on ports of their own
//! ([`program`], [`stand`]), JSON-RPC as a client ([`rpc`]), a peer on the wire ([`peer`], [`blocks`]), what tests do
//! on a chain ([`chain`]), a miner that hashes one share at a time ([`worker`]), a browser ([`browser`]), what a chain must come to ([`replay`]), blocks of any kind made without a node ([`forge`]),
//! and a comparison of two nodes ([`differ`]).
//! Does not live here: any of the programs' code, but for addresses, keys and networks of `iop-consensus`.
//! Everything stays on loopback and ends with its owner.

pub mod blocks;
pub mod browser;
pub mod chain;
pub mod differ;
pub mod forge;
pub mod net;
pub mod peer;
mod port;
pub mod program;
pub mod replay;
pub mod rpc;
pub mod stand;
pub mod worker;
