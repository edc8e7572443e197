//! A home on the network: libp2p around [`crate::home::Home`], which knows no network. Not here: what requests
//! mean.
//!
//! Here: framing ([`codec`]), rates and quotas ([`quotas`], `metered`, `circuits`), queued bytes (`muxer`),
//! admission (`gate`, `crowd`, `handshakes`), addresses that operators may give ([`given`]), outgoing dials
//! (`dials`, `table`), requests in progress (`devices`), the directory ([`directory`]). Path: connection → gate →
//! request → quotas → the home → its outputs, each when its batch is on disk → device.

mod charged;
mod circuits;
pub mod codec;
mod crowd;
mod devices;
pub(crate) mod dials;
pub mod directory;
mod figures;
mod gate;
pub mod given;
mod handshakes;
pub mod host;
pub(crate) mod layer;
mod metered;
pub(crate) mod muxer;
mod noise;
mod queue;
pub mod quotas;
mod sealed;
mod setup;
mod slim;
mod swarm;
mod table;
mod unread;
mod unsent;

pub use figures::{Figure, Handle};
pub use host::Host;
pub use quotas::Quotas;
pub use setup::{HostError, Setup};
