//! The peer-to-peer network: Bitcoin's protocol, version 70015, with IoP's magics (`net.cpp`,
//! `net_processing.cpp`).
//!
//! Lives here: framing (`frame`) and messages (`message`, `wire`), two tasks per connection (`connection`), the
//! protocol's state without sockets (`net` and the modules it names), the one task that owns it (`manager`), the
//! link to the chain (`link`) and the handle for RPC ([`handle`]). Does not live here: rules, storage, the mempool.
//! Data goes: socket -> connection -> manager -> `Net` -> actions -> connections, or the chain -> answers.

pub mod addresses;
mod announce;
mod blocks;
mod clock;
pub mod compact;
mod connection;
mod frame;
pub(crate) mod fuzzing;
mod gossip;
pub mod handle;
mod handshake;
mod late;
mod link;
pub(crate) mod manager;
mod memory;
mod message;
mod net;
pub mod orphans;
mod peer;
mod random;
mod relay;
mod score;
mod serve;
mod slots;
mod sync;
mod tell;
mod tree;
mod weak;
mod wire;
