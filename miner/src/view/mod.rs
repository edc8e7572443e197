//! How people and programs watch a rig.
//!
//! Here: what is shown and served, and where. Not here: the numbers ([`crate::stats`], [`crate::upstream::board`]).

mod json;
pub mod numbers;
#[cfg(unix)]
mod terminal;
#[cfg(unix)]
mod text;

use std::io;
use std::net::SocketAddr;

use crate::rig::Rig;

/// How to watch, validated.
#[derive(Clone, Debug, Default)]
pub struct ViewSettings {
    /// Where the HTTP API listens; nowhere if nothing is said.
    pub api_bind: Option<SocketAddr>,
    /// Log lines also where a person sits at a terminal.
    pub plain: bool,
    /// The status on stdout, as a JSON object in a line, again and again.
    pub json: bool,
}

/// Makes a rig be watched as the settings say.
///
/// # Errors
/// When an address cannot be listened at.
pub fn attach(settings: &ViewSettings, rig: &mut Rig) -> io::Result<()> {
    if settings.json {
        json::attach(rig)?;
    }
    #[cfg(unix)]
    if !settings.plain && !settings.json && terminal::is_possible() {
        terminal::attach(rig);
    }
    Ok(())
}
