//! The real programs, started and used as an operator would: for the end-to-end tests and the demo.
//!
//! Lives here: starting and stopping `iop-node`, `iop-pool` and `iop-miner` in folders and on ports of their own
//! ([`program`], [`stand`]), a JSON-RPC client ([`rpc`]), a peer on the wire ([`peer`], [`blocks`]), actions on a chain
//! ([`chain`]), a miner that hashes one share at a time ([`worker`]), a browser ([`browser`]), the expected state of a
//! chain ([`replay`]), blocks of any kind made without a node ([`forge`]), and a comparison of two nodes ([`differ`]).
//! Does not live here: any of the programs' code, except addresses, keys and networks of `iop-consensus`. Everything
//! stays on loopback and ends with its owner.

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
