//! The device's side of Mercury.
//!
//! Here: a persona at a device ([`Device`]) with all its requests to homes, its stored data ([`folder`]), and
//! encryption of messages ([`seal`]). Not here: homes ([`crate::home`]). Path: method → request → home → answer,
//! verified → folder → result. Nothing from a home is believed without proof: a home can withhold data, but no
//! more.

mod blobs;
mod calls;
mod caution;
mod device;
mod driver;
mod error;
pub mod folder;
mod hosting;
mod listen;
mod mail;
mod moving;
mod owner;
mod people;
mod place;
mod presence;
mod profiles;
pub mod seal;
mod state;
mod streams;
mod waiting;

pub use blobs::Payload;
pub use calls::{CallStream, IncomingCall, is_application};
pub use device::{Device, Told};
pub use driver::Settings;
pub use error::{ClientError, steers_terminals};
pub use mail::{Page, Received};
pub use moving::Moved;
pub use people::{Delivery, Wish};
pub use place::Home;
pub use profiles::version;
pub use state::SENT_TIME;
pub use waiting::Waiting;
