//! The Mercury relay: people's profiles, contacts, messages, pictures and calls, without a third party.
//!
//! Here: identities ([`id`]), signed data ([`envelope`], [`body`]), limits ([`limits`]), the protocol between
//! devices and homes ([`wire`]), and the home ([`home`], on [`store`], reached through [`net`]). Not here: coins,
//! blocks. Path: request → [`envelope::Envelope`] → verified, the only way in → [`home::Home`] → one batch into the
//! store → answer, and events for those concerned.

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
