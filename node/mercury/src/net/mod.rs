//! A home on the network: libp2p around [`crate::home::Home`], which knows none.
//!
//! Here: the streams' framing ([`codec`]), how much each may take ([`quotas`]), who is let in (`gate`), how much of
//! it waits (`muxer`), what is under way
//! with each device (`devices`), which home a persona is at ([`directory`]), the loop that ties it together ([`host`]). Not here: what requests mean.
//! Path: connection → gate → request → quotas → the home → its outputs, each when its batch is safe → device.

pub mod codec;
mod devices;
pub mod directory;
mod figures;
mod gate;
pub mod host;
pub(crate) mod muxer;
mod noise;
pub mod quotas;
mod sealed;
mod setup;
mod slim;
mod swarm;
mod unread;

pub use figures::{Figure, Handle};
pub use host::Host;
pub use quotas::Quotas;
pub use setup::{HostError, Setup};
