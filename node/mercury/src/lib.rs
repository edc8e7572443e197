//! The Mercury relay: people's profiles, contacts, messages, pictures and calls, without a third party.
//!
//! Here: who people are ([`id`]), what they sign ([`envelope`], [`body`]), how much of it ([`limits`]), what devices and
//! homes say to each other ([`wire`]), and a home that keeps it ([`home`], on [`store`], reached through [`net`]). Not here:
//! coins, blocks.
//! Path: request → [`envelope::Envelope`] → verified, the only way in → [`home::Home`] → one batch into the store →
//! answer, and events for those whom it concerns.

pub mod body;
mod cbor;
pub mod client;
pub mod envelope;
pub mod home;
pub mod id;
pub mod limits;
pub mod net;
pub mod store;
pub mod wire;

pub use libp2p::multiaddr;
