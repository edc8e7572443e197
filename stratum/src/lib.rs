//! Stratum V1, sans-I/O: the protocol of the pool, the miner and the ASIC gateway, without a socket, a clock or a
//! thread.
//!
//! Here: line framing, JSON envelopes, typed fields, pool difficulty, work (coinbase, merkle root, header),
//! verdicts, and the two ends of a connection ([`server::Session`], [`client::Session`]).
//! Not here: sockets and time-outs (pool, miner), templates, licenses and share counting (pool), fast hashing
//! (kernels).
//! Path: bytes → [`line::LineDecoder`] → a session's `handle_line` → an event for the owner, lines in its out queue.

pub mod client;
pub mod difficulty;
pub mod fields;
pub mod fuzzing;
pub mod line;
pub mod message;
pub mod notify;
pub mod server;
pub mod verdict;
pub mod work;
