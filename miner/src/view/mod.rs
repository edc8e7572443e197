//! Views of a rig for people and programs.
//!
//! Here: which views there are, and where they listen; [`numbers`] for all of them. Not here: counting
//! ([`crate::stats`], [`crate::upstream::board`]).

mod api;
mod cgminer;
mod json;
pub mod numbers;
#[cfg(unix)]
mod terminal;
#[cfg(unix)]
mod text;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use tracing::info;

use crate::rig::Rig;
use crate::stats::Stats;
use crate::upstream::Board;
use crate::wall::WallClock;
use numbers::Numbers;

/// Validated settings of the views.
#[derive(Clone, Debug, Default)]
pub struct ViewSettings {
    /// Address of the HTTP API; `None` for no API.
    pub api_bind: Option<SocketAddr>,
    /// Log lines even at a terminal.
    pub plain: bool,
    /// Repeatedly print the status on stdout, as one JSON object per line.
    pub json: bool,
    /// Address of the cgminer API; `None` for no API.
    pub cgminer_bind: Option<SocketAddr>,
}

/// Addresses that a rig's views listen on, with ports chosen by the system filled in.
#[derive(Clone, Copy, Debug, Default)]
pub struct Places {
    /// The HTTP API.
    pub api: Option<SocketAddr>,
    /// The cgminer API.
    pub cgminer: Option<SocketAddr>,
}

/// The data that services read.
#[derive(Clone, Debug)]
struct Watched {
    stats: Arc<Stats>,
    board: Arc<Board>,
    clock: WallClock,
}

impl Watched {
    fn numbers(&self) -> Numbers {
        Numbers::new(&self.stats.snapshot(), &self.board.sources())
    }
}

/// Attaches the views to a rig: listens at once, and answers while the rig runs.
///
/// # Errors
/// An address cannot be bound.
pub fn attach(settings: &ViewSettings, rig: &mut Rig) -> io::Result<Places> {
    let (stats, board, clock) = (Arc::clone(&rig.stats), Arc::clone(&rig.board), rig.clock.clone());
    let watched = Watched { stats, board, clock };
    let mut places = Places::default();
    if let Some(address) = settings.api_bind {
        let (listener, address) = listen("--api-bind", address)?;
        info!("HTTP API at http://{address}");
        places.api = Some(address);
        rig.serve(Box::pin(api::serve(listener, address, watched.clone())));
    }
    if let Some(address) = settings.cgminer_bind {
        let (listener, address) = listen("--cgminer-bind", address)?;
        info!("cgminer API at {address}");
        places.cgminer = Some(address);
        rig.serve(Box::pin(cgminer::serve(listener, watched)));
    }
    if settings.json {
        json::attach(rig)?;
    }
    #[cfg(unix)]
    if !settings.plain && !settings.json && terminal::is_possible() {
        terminal::attach(rig);
    }
    Ok(places)
}

/// Gives the terminal back if the process exits without the rig's end.
pub(crate) fn give_back() {
    #[cfg(unix)]
    terminal::give_back();
}

/// A listener for a runtime that is not running yet.
fn listen(flag: &str, address: SocketAddr) -> io::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind(address).map_err(|error| {
        io::Error::new(error.kind(), format!("{flag}: cannot listen at {address}: {error}"))
    })?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}
