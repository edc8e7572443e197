//! A Stratum pool with its fallback pools.

use std::convert::Infallible;
use std::sync::Arc;

use iop_stratum::client::Options;
use iop_stratum::difficulty::Difficulty;
use iop_stratum::fields::VersionMask;
use tracing::warn;

use super::failover::Failover;
use super::open::{Manner, Unready};
use super::{Board, Desk, PoolUrl, Timing, Tls, Upstream};
use crate::stats::Stats;
use crate::suggest::Suggestion;

/// Our user agent.
const USER_AGENT: &str = concat!("iop-miner/", env!("CARGO_PKG_VERSION"));

/// Validated settings of pools.
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
    /// Certificates to trust, if any pool speaks TLS.
    pub tls: Option<Tls>,
    /// Whether a pool may redirect us to another host.
    pub follow_reconnect: bool,
    /// Whether all work is for machines behind a gateway: jobs that cannot be split among them are as good as none.
    pub only_machines: bool,
}

/// The pools of one user, in order of preference. The next one is tried when one fails or is useless, and better ones
/// are used again once they are back.
#[derive(Debug)]
pub struct Pool {
    settings: PoolSettings,
    suggest_difficulty: Option<Difficulty>,
    timing: Timing,
    stats: Option<Arc<Stats>>,
}

impl Pool {
    /// Pools in order of preference, and a share difficulty to suggest to them.
    ///
    /// # Panics
    /// There are no URLs.
    #[must_use]
    pub fn new(settings: PoolSettings, suggest_difficulty: Option<Difficulty>, timing: Timing) -> Self {
        assert!(!settings.urls.is_empty(), "the command line asks for at least one URL");
        Self { settings, suggest_difficulty, timing, stats: None }
    }

    /// Uses these counters to know the miner's rate, and thus which difficulty is too high for it.
    #[must_use]
    pub fn measured_by(self, stats: Arc<Stats>) -> Self {
        Self { stats: Some(stats), ..self }
    }

    /// The state of these pools for people.
    #[must_use]
    pub fn board(&self) -> Arc<Board> {
        let PoolSettings { urls, user, .. } = &self.settings;
        Arc::new(Board::new(urls.iter().map(|url| (url.to_string(), user.clone()))))
    }
}

impl Upstream for Pool {
    async fn run(self, desk: Desk) -> Infallible {
        let Self { settings, suggest_difficulty, timing, stats } = self;
        let options = Options {
            user: settings.user,
            password: settings.password,
            user_agent: USER_AGENT.to_owned(),
            version_mask: VersionMask::SERVER,
            suggest_difficulty,
        };
        let (pools, board) = (settings.urls.len(), Arc::clone(&desk.board));
        let (tls, follow, only_machines) = (settings.tls, settings.follow_reconnect, settings.only_machines);
        let refused = tls.as_ref().map_or(&[][..], Tls::refused);
        refused.iter().for_each(|line| warn!("--tls-ca {line}"));
        let unready = Unready::default();
        let manner = Manner { options, timing, tls, follow, only_machines, pools, stats, board, unready };
        Failover::new(settings.urls, Arc::new(manner), desk).run().await
    }
}
