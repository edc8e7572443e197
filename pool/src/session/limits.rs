//! What one connection may take: times and rates. Settings, so that tests need not wait for minutes.

use std::time::Duration;

/// Limits of a connection.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// From connecting to the first user. A machine introduces itself at once; 30 s allow for very slow networks.
    pub handshake: Duration,
    /// Silence after which a miner is taken for gone. Long, since a slow machine at a high difficulty may find no
    /// share for long. One whose network is gone is mostly noticed earlier, by `write` or by the system.
    pub idle: Duration,
    /// Time in which something of what is queued must be taken. The system's own buffer comes before: it takes
    /// some hundred jobs for a machine that is gone, until the system gives the connection up itself (on Linux, by
    /// default, about a quarter of an hour after the first job that is not acknowledged).
    pub write: Duration,
    /// Requests a second, above zero; a second's worth may come at once. Who sends more is read later.
    pub requests_per_second: f64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(30),
            idle: Duration::from_secs(60 * 60),
            write: Duration::from_secs(30),
            requests_per_second: 10_000.0,
        }
    }
}
