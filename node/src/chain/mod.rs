//! The chain: which blocks are known, which are active, and what may change that.
//!
//! Lives here: the block index ([`index`]), the state ([`state`]) and the code that changes it (`accept.rs`,
//! `activate.rs`), the verdicts on offered blocks ([`verdict`]), the coins ([`coins`]), the events for subscribers
//! ([`events`]), and the thread that owns the state, with its handle ([`actor`]). Does not live here: rules,
//! encodings, RPC. An offered block goes: handle -> thread -> accept -> activate -> storage batch -> published.

mod accept;
mod activate;
pub mod actor;
pub mod checked;
pub mod clock;
pub mod coins;
pub mod events;
mod flush;
mod headers;
pub mod index;
pub mod invalidate;
pub mod options;
pub mod prune;
mod signed;
pub mod state;
pub mod verdict;

#[cfg(test)]
mod tests;
