//! What connections may take: times and rates. Settings, so that tests need not wait for minutes.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use iop_mining::open_files;
use tracing::warn;

/// How often machines can make us say something.
const REMIND: Duration = Duration::from_secs(60);

/// Limits of connections.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// From the moment on at which there is work to the first user. A machine introduces itself at once.
    pub handshake: Duration,
    /// Silence after which a machine with work is taken for gone. Long, since a slow one at a high difficulty may find
    /// no share for long. One whose network is gone is mostly noticed earlier, by `write` or by the system.
    pub idle: Duration,
    /// Time in which something of what is queued must be taken.
    pub write: Duration,
    /// Between two pings to a machine while there is no work for it.
    pub ping: Duration,
    /// Requests a second, above zero; a second's worth may come at once. Who sends more is read later.
    pub requests_per_second: f64,
    /// New connections a second from one address; eight seconds' worth may come at once: as many machines as one address may
    /// have, whose power is back or whose extranonces have changed.
    pub new_connections: f64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(30),
            idle: Duration::from_secs(60 * 60),
            write: Duration::from_secs(30),
            ping: Duration::from_secs(30),
            requests_per_second: 1_000.0,
            new_connections: 32.0,
        }
    }
}

/// Files that the miner has open besides machines' connections: pools or nodes, an API with its clients, a spool.
const OWN_FILES: u64 = 160;

/// Raises the limit of open files as far as the system lets it, and says how many of so many machines fit under it.
#[must_use]
pub fn room(machines: usize) -> usize {
    open_files::raise();
    let Some(limit) = open_files::limit() else { return machines };
    let room = usize::try_from(limit.saturating_sub(OWN_FILES)).unwrap_or(usize::MAX).max(1);
    if room < machines {
        warn!("room for {room} machines, not {machines}: the system allows {limit} open files");
    }
    room.min(machines)
}

/// A warning that machines can bring about: once a minute, or they could fill the disk.
#[derive(Debug, Default)]
pub struct Rarely(Mutex<Option<Instant>>);

impl Rarely {
    /// Says it, if nothing was said for long.
    pub fn say(&self, text: &str) {
        let mut said = self.0.lock().expect("nothing panics while it holds the lock");
        if said.is_none_or(|at| at.elapsed() > REMIND) {
            warn!("{text}");
            *said = Some(Instant::now());
        }
    }
}
