//! Opens a connection to a pool, from its URL to the first job.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use iop_stratum::client::Options;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{sleep, timeout};
use tracing::info;

use super::backoff::by_chance;
use super::board::{Board, Source};
use super::connection::Connection;
use super::lost::Lost;
use super::{PoolUrl, Timing, Tls, race};
use crate::stats::Stats;

/// How often in a row a pool may redirect us, before or after it has given a job.
const MAX_MOVES: u32 = 3;
/// If a pool asks for a longer wait before reconnecting, another pool is used meanwhile.
pub(super) const LONG_WAIT: Duration = Duration::from_secs(2);

/// A byte stream in both directions, encrypted or not.
pub(super) trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Socket for T {}

/// Settings for any pool of the list.
#[derive(Debug)]
pub(super) struct Manner {
    pub(super) options: Options,
    pub(super) timing: Timing,
    /// Certificates to trust, if a pool speaks TLS.
    pub(super) tls: Option<Tls>,
    /// Whether a pool may redirect us to another host.
    pub(super) follow: bool,
    /// Whether all work is for machines behind a gateway.
    pub(super) only_machines: bool,
    /// Number of pools.
    pub(super) pools: usize,
    /// Statistics from which this machine's rate is known, if given.
    pub(super) stats: Option<Arc<Stats>>,
    pub(super) board: Arc<Board>,
    pub(super) unready: Unready,
}

/// The address of each pool, by its index, that accepted the last connection if that did not get ready: the pool's host
/// may have others that do better.
#[derive(Debug, Default)]
pub(super) struct Unready(Mutex<BTreeMap<usize, SocketAddr>>);

impl Unready {
    pub(super) fn of(&self, pool: usize) -> Option<SocketAddr> {
        self.lock().get(&pool).copied()
    }

    fn note(&self, pool: usize, address: SocketAddr) {
        self.lock().insert(pool, address);
    }

    fn forget(&self, pool: usize) {
        self.lock().remove(&pool);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<usize, SocketAddr>> {
        self.0.lock().expect("nothing panics while it holds the lock")
    }
}

/// A pool, and the settings to use there.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) manner: Arc<Manner>,
    /// Its index in the list.
    pub(super) number: usize,
    /// Its address: from the list, or where it has redirected us.
    pub(super) url: PoolUrl,
    /// How often in a row it has redirected us.
    pub(super) moves: u32,
    /// Whether another pool is in use meanwhile.
    pub(super) aside: bool,
}

impl Place {
    /// Updates the record of this pool.
    pub(super) fn note(&self, change: impl FnOnce(&mut Source)) {
        self.manner.board.change(self.number, change);
    }

    /// The place that the pool redirects us to; `None` if it has done so too often.
    pub(super) fn follow(&self, to: PoolUrl) -> Option<Self> {
        (self.moves < MAX_MOVES).then(|| Self { url: to, moves: self.moves + 1, ..self.clone() })
    }

    /// Connects, and goes on until there is a job and permission to submit shares. Follows the pool's redirects.
    pub(super) async fn open(mut self) -> Result<Connection, Lost> {
        loop {
            let (to, wait) = match self.clone().open_here().await {
                Err(Lost::Moved { to, wait }) if self.manner.pools == 1 || wait <= LONG_WAIT => (to, wait),
                other => return other,
            };
            let next = self.follow(to).ok_or(Lost::SentOn(MAX_MOVES))?;
            info!("{}: the pool asks us to connect to {}", self.url, next.url);
            sleep(wait.max(by_chance(self.manner.timing.first_retry))).await;
            self = next;
        }
    }

    async fn open_here(self) -> Result<Connection, Lost> {
        let (host, port) = (self.url.host.clone(), self.url.port);
        self.open_at(async move { race::addresses(&host, port).await }).await
    }

    /// Does so at one of these addresses, the host's. One that accepts the connection and is of no use is tried last
    /// the next time.
    pub(super) async fn open_at(
        self,
        addresses: impl Future<Output = io::Result<Vec<SocketAddr>>>,
    ) -> Result<Connection, Lost> {
        let limit = self.manner.timing.connect;
        let (stream, address) = match timeout(limit, self.connect(addresses)).await {
            Err(_) => return Err(Lost::Connect(format!("no answer for {} s", limit.as_secs_f32()))),
            Ok(connected) => connected?,
        };
        if !self.aside {
            match self.url.host.parse::<IpAddr>() {
                Ok(_) => info!("{}: connected", self.url),
                Err(_) => info!("{}: connected to {address}", self.url),
            }
        }
        let (manner, number) = (Arc::clone(&self.manner), self.number);
        let opened = Connection::new(stream, self).ready().await;
        // One that sends us on is no worse than others of its host.
        if matches!(opened, Ok(_) | Err(Lost::Moved { .. })) {
            manner.unready.forget(number);
        }
        opened
    }

    async fn connect(
        &self,
        addresses: impl Future<Output = io::Result<Vec<SocketAddr>>>,
    ) -> Result<(Box<dyn Socket>, SocketAddr), Lost> {
        let (PoolUrl { host, tls, .. }, unready) = (&self.url, &self.manner.unready);
        let cannot = |error: io::Error| Lost::Connect(error.to_string());
        let addresses = addresses.await.map_err(cannot)?;
        let connected = race::connect(addresses, unready.of(self.number)).await;
        let (stream, address) = connected.map_err(cannot)?;
        // Until it is ready: whatever ends this before, a time limit or another pool, counts.
        unready.note(self.number, address);
        // Shares are a few bytes each and must not be delayed.
        stream.set_nodelay(true)?;
        let stream: Box<dyn Socket> = match &self.manner.tls {
            Some(trusted) if *tls => Box::new(trusted.connect(host, stream).await.map_err(Lost::Tls)?),
            None if *tls => return Err(Lost::Tls("this miner was started without TLS".to_owned())),
            _ => Box::new(stream),
        };
        Ok((stream, address))
    }
}
