//! How people and programs watch a rig.
//!
//! Here: what is shown and served, and where. Not here: the numbers ([`crate::stats`], [`crate::upstream::board`]).

pub mod numbers;

use std::io;
use std::net::SocketAddr;

use crate::rig::Rig;

/// How to watch, validated.
#[derive(Clone, Debug, Default)]
pub struct ViewSettings {
    /// Where the HTTP API listens; nowhere if nothing is said.
    pub api_bind: Option<SocketAddr>,
}

/// Makes a rig be watched as the settings say.
///
/// # Errors
/// When an address cannot be listened at.
pub fn attach(_settings: &ViewSettings, _rig: &mut Rig) -> io::Result<()> {
    Ok(())
}
