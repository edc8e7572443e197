//! Times and rates allowed to one connection. They are settings, so that tests need not wait for minutes.

use std::time::Duration;

/// Limits of a connection.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// Time from connecting to the first user. A machine introduces itself at once; 30 s allow for very slow networks.
    pub handshake: Duration,
    /// Silence after which a miner is considered gone. It is long, since a slow machine at a high difficulty may find
    /// no share for a long time. A lost network is usually noticed earlier, by `write` or by the system.
    pub idle: Duration,
    /// Time in which some of the queued bytes must be taken. The system's own buffer comes first: for a machine that is
    /// gone it takes some hundred jobs, until the system itself gives up the connection (on Linux, by default, about a
    /// quarter of an hour after the first job that is not acknowledged).
    pub write: Duration,
    /// Requests a second, above zero; a second's worth may come at once. Requests beyond that are read later.
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
