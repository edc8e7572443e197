//! The device's side of Mercury.
//!
//! Here: a persona at a device ([`Device`]) and all that it asks of homes, what it keeps ([`folder`]), how messages are
//! sealed ([`seal`]). Not here: what homes do ([`crate::home`]).
//! Path: method → request → home → answer, verified → folder → result. Nothing that a home says is believed that it
//! cannot prove: it can withhold, and no more.

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
