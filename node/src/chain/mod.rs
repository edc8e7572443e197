//! The chain: which blocks are known, which are active, and who may change that.
//!
//! Lives here: the block index ([`index`]), the state and its changes ([`state`]), and the thread that owns it
//! with the handle through which everyone else asks ([`actor`]). Does not live here: rules, encodings, RPC.

pub mod actor;
pub mod index;
pub mod state;
