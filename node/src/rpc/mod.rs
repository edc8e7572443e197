//! JSON-RPC over HTTP POST, as Bitcoin Core's clients speak it.
//!
//! Lives here: HTTP and authorization ([`server`]), the envelopes of 1.0, 2.0 and batches ([`envelope`]),
//! arguments by position or name ([`args`]), and the [`methods`]. Does not live here: anything the methods
//! answer from; they ask the chain thread.
//! Data goes: bytes -> authorization -> envelope -> method -> chain thread -> JSON -> envelope.

mod args;
mod auth;
mod envelope;
mod error;
mod method;
mod methods;
mod server;

pub(crate) use auth::Credentials;
pub(crate) use methods::Context;
pub(crate) use server::serve;
