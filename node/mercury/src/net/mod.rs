//! A home on the network: libp2p around [`crate::home::Home`], which knows none. Not here: what requests mean.
//!
//! Here: framing ([`codec`]), how much each may take ([`quotas`], `metered`, `circuits`), who is let in (`gate`), where is
//! dialled (`dials`), what each device has under way (`devices`), who is where ([`directory`], `queue`), the loop ([`host`]).
//! Path: connection → gate → request → quotas → the home → its outputs, each when its batch is safe → device.

mod circuits;
pub mod codec;
mod devices;
mod dials;
pub mod directory;
mod figures;
mod gate;
pub mod host;
mod metered;
mod queue;
pub mod quotas;
mod setup;
mod swarm;

pub use figures::{Figure, Handle};
pub use host::Host;
pub use quotas::Quotas;
pub use setup::{HostError, Setup};
