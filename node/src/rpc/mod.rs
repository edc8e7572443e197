//! JSON-RPC over HTTP POST, compatible with Bitcoin Core's clients.
//!
//! Lives here: access control ([`server`]), HTTP with authorization ([`http`]), the envelopes of 1.0, 2.0 and
//! batches ([`envelope`]), arguments by position or name ([`args`]), number formatting ([`numbers`]), and the
//! [`methods`]. Does not live here: the state that methods answer from; they query the chain thread and the
//! network. Data goes: bytes -> authorization -> envelope -> method -> chain thread -> JSON -> envelope.

mod args;
mod auth;
mod envelope;
mod error;
pub(crate) mod fuzzing;
mod http;
mod method;
mod methods;
mod numbers;
mod server;
mod subnet;

pub(crate) use auth::Credentials;
pub(crate) use methods::Context;
pub(crate) use server::{Access, serve};
pub(crate) use subnet::Subnet;
