//! The device's side of Mercury.
//!
//! Here: sealing of messages ([`seal`]), what a device keeps ([`folder`]), and the device itself.
//! Not here: what homes do ([`crate::home`]).

pub mod folder;
pub mod seal;
