//! A Stratum pool, and the pools to fall back to.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use iop_stratum::client::Options;
use iop_stratum::difficulty::Difficulty;
use iop_stratum::fields::VersionMask;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use super::backoff::Backoff;
use super::connection::{Connection, Lost};
use super::{Board, Desk, PoolUrl, Timing, Upstream};
use crate::job::Serial;
use crate::suggest::Suggestion;

/// What we call ourselves to a pool.
const USER_AGENT: &str = concat!("iop-miner/", env!("CARGO_PKG_VERSION"));

/// Which pools to mine at, validated.
#[derive(Clone, Debug)]
pub struct PoolSettings {
    /// Pools, in order of preference; at least one.
    pub urls: Vec<PoolUrl>,
    /// The user at the pool.
    pub user: String,
    /// The user's password there.
    pub password: String,
    /// The share difficulty to suggest to the pool.
    pub suggestion: Suggestion,
}

/// The pools of one user, in order of preference. The next one is tried when one fails; when a good
/// connection is lost, the list begins anew.
#[derive(Debug)]
pub struct Pool {
    urls: Vec<PoolUrl>,
    options: Options,
    timing: Timing,
}

impl Pool {
    /// Pools in order of preference, and a share difficulty to suggest to them.
    ///
    /// # Panics
    /// When there are no URLs.
    #[must_use]
    pub fn new(settings: PoolSettings, suggest_difficulty: Option<Difficulty>, timing: Timing) -> Self {
        let PoolSettings { urls, user, password, .. } = settings;
        assert!(!urls.is_empty(), "the command line asks for at least one URL");
        let options = Options {
            user,
            password,
            user_agent: USER_AGENT.to_owned(),
            version_mask: VersionMask::SERVER,
            suggest_difficulty,
        };
        Self { urls, options, timing }
    }

    /// The record of these pools that people look at.
    #[must_use]
    pub fn board(&self) -> Arc<Board> {
        Arc::new(Board::new(self.urls.iter().map(|url| (url.to_string(), self.options.user.clone()))))
    }

    /// From the first packet to the reason why it is over.
    async fn connect(&self, url: &PoolUrl, desk: &mut Desk, next_serial: &mut Serial) -> Lost {
        let connecting = timeout(self.timing.connect, TcpStream::connect((&*url.host, url.port)));
        let stream = match desk.idle(connecting).await {
            Err(_) => return Lost::Connect(format!("no answer for {} s", self.timing.connect.as_secs_f32())),
            Ok(Err(error)) => return Lost::Connect(error.to_string()),
            Ok(Ok(stream)) => stream,
        };
        info!("{url}: connected");
        let lost =
            Connection::new(stream, url, self.options.clone(), self.timing, desk, next_serial).run().await;
        desk.dispatcher.clear();
        lost
    }
}

impl Upstream for Pool {
    async fn run(self, mut desk: Desk) -> Infallible {
        let mut backoff = Backoff::new(self.timing, self.urls.len());
        let mut next_serial = Serial::default();
        let mut url = self.urls[0].clone();
        loop {
            let started = Instant::now();
            let lost = self.connect(&url, &mut desk, &mut next_serial).await;
            match lost {
                Lost::Silent(_) | Lost::Idle(_) => backoff.given_up(),
                _ => backoff.ended(started.elapsed()),
            }
            let (next, asked_wait) = match &lost {
                Lost::Moved { port, wait } => (PoolUrl { host: url.host.clone(), port: *port }, *wait),
                _ => (self.urls[backoff.pool()].clone(), Duration::ZERO),
            };
            let wait = backoff.wait().max(asked_wait);
            let again = if next == url { "again".to_owned() } else { next.to_string() };
            warn!("{url}: {lost}; trying {again} in {:.1} s", wait.as_secs_f32());
            desk.idle(sleep(wait)).await;
            url = next;
        }
    }
}
