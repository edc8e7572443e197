//! How people and programs watch a rig.
//!
//! Here: what is shown and served, and where; [`numbers`] for all of them. Not here: counting ([`crate::stats`],
//! [`crate::upstream::board`]).

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

/// How to watch, validated.
#[derive(Clone, Debug, Default)]
pub struct ViewSettings {
    /// Where the HTTP API listens; nowhere if nothing is said.
    pub api_bind: Option<SocketAddr>,
    /// Log lines also where a person sits at a terminal.
    pub plain: bool,
    /// The status on stdout, as a JSON object in a line, again and again.
    pub json: bool,
    /// Where the cgminer API listens; nowhere if nothing is said.
    pub cgminer_bind: Option<SocketAddr>,
}

/// Where a rig can be watched from, ports chosen by the system included.
#[derive(Clone, Copy, Debug, Default)]
pub struct Places {
    /// The HTTP API.
    pub api: Option<SocketAddr>,
    /// The cgminer API.
    pub cgminer: Option<SocketAddr>,
}

/// What services look at.
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

/// Makes a rig be watched as the settings say: listens at once, and answers while the rig runs.
///
/// # Errors
/// When an address cannot be listened at.
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

/// Gives the terminal back, where the process ends without the rig's end.
pub(crate) fn give_back() {
    #[cfg(unix)]
    terminal::give_back();
}

/// A listener for a runtime that does not run yet.
fn listen(flag: &str, address: SocketAddr) -> io::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind(address).map_err(|error| {
        io::Error::new(error.kind(), format!("{flag}: cannot listen at {address}: {error}"))
    })?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}
