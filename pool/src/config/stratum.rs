//! Settings of Stratum connections: difficulties, vardiff, limits, TLS.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use iop_consensus::params::Params;
use iop_stratum::difficulty::{Difficulty, Target};

use super::{ConfigError, Raw, socket_address};
use crate::limits;
use crate::session::limits::Limits;
use crate::session::tls::{Tls, TlsFiles};

/// Start difficulty if the chain's easiest target is difficulty 1 or harder: a share every four seconds at 1 TH/s.
/// Vardiff adjusts it for other machines.
pub(super) const DEFAULT_START_DIFFICULTY: f64 = 1024.0;
/// Start difficulty of private chains for CPUs: about two million hashes.
pub(super) const DEFAULT_PRIVATE_START_DIFFICULTY: f64 = 0.0005;
/// Default least difficulty, as a fraction of the start difficulty. A bound is needed since each share costs the pool
/// two dozen hashes.
const DEFAULT_MIN_PART: f64 = 1.0 / 1024.0;
/// Cap on that default: at 100 kH/s a share in about four seconds.
const DEFAULT_MIN_DIFFICULTY: f64 = 1e-4;
/// Default greatest difficulty: one share in about 4 s at 1 EH/s.
const DEFAULT_MAX_DIFFICULTY: f64 = 1e9;
/// Default for the most concurrent Stratum connections.
const DEFAULT_MAX_CONNECTIONS: usize = 10_000;

/// Default for the most concurrent Stratum connections from one address: enough for a farm behind one router, too few
/// for one client to lock out all others.
const DEFAULT_MAX_CONNECTIONS_PER_IP: usize = 256;
/// Default seconds between shares that vardiff aims at: a worker that is gone is noticed in half a minute, and 10,000
/// workers send 2,000 shares a second.
const DEFAULT_SECONDS_PER_SHARE: f64 = 5.0;
/// Sensible seconds between shares.
const SECONDS_PER_SHARE: RangeInclusive<f64> = 0.1..=600.0;
/// Default for new connections a second from one address; eight seconds' worth, a farm, may come at once.
const DEFAULT_NEW_CONNECTIONS: f64 = 32.0;
/// Sensible rates, a second.
const RATES: RangeInclusive<f64> = 0.1..=1e9;
/// Sensible time limits, in seconds.
const TIME_LIMITS: RangeInclusive<f64> = 0.1..=1e6;
/// Least start difficulty: far below any use, and far enough from zero for the fractions of it.
const LEAST_START_DIFFICULTY: f64 = 1e-300;

/// Start difficulty, and bounds for what a client may suggest.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DifficultyBounds {
    /// Of a new connection.
    pub start: Difficulty,
    /// Least.
    pub min: Difficulty,
    /// Greatest.
    pub max: Difficulty,
}

/// The difficulty of a new connection, if none is configured. The limit of main has more one bits than a header's bits
/// can say, so it is the easiest target of a header that tells.
fn default_start(params: &Params) -> f64 {
    let easiest = Target::from_compact(params.pow.limit.to_compact_lossy().to_consensus());
    if easiest > Some(Target::DIFFICULTY_1) {
        DEFAULT_PRIVATE_START_DIFFICULTY
    } else {
        DEFAULT_START_DIFFICULTY
    }
}

impl Raw {
    pub(super) fn difficulty(&self, params: &Params) -> Result<DifficultyBounds, ConfigError> {
        let start = difficulty(
            "start_difficulty",
            self.flags.start_difficulty.or(self.file.start_difficulty),
            default_start(params),
        )?;
        if start.get() < LEAST_START_DIFFICULTY {
            return Err(ConfigError(format!(
                "start_difficulty is {:e}, at least {LEAST_START_DIFFICULTY:e} expected",
                start.get()
            )));
        }
        let least = (start.get() * DEFAULT_MIN_PART).min(DEFAULT_MIN_DIFFICULTY);
        let min = difficulty("min_difficulty", self.file.min_difficulty, least)?;
        let greatest = start.get().max(DEFAULT_MAX_DIFFICULTY);
        let max = difficulty("max_difficulty", self.file.max_difficulty, greatest)?;
        if !(min <= start && start <= max) {
            return Err(ConfigError(format!(
                "start_difficulty is {start}, a number from min_difficulty {min} to max_difficulty {max} expected"
            )));
        }
        Ok(DifficultyBounds { start, min, max })
    }

    pub(super) fn max_connections(&self, nodes: usize) -> Result<usize, ConfigError> {
        let asked = self.file.max_connections;
        if asked == Some(0) {
            return Err(ConfigError("max_connections is 0, at least 1 expected".into()));
        }
        limits::connections(asked, DEFAULT_MAX_CONNECTIONS, iop_mining::open_files::limit(), nodes)
    }

    pub(super) fn max_connections_per_ip(&self) -> Result<usize, ConfigError> {
        match self.file.max_connections_per_ip.unwrap_or(DEFAULT_MAX_CONNECTIONS_PER_IP) {
            0 => Err(ConfigError("max_connections_per_ip is 0, at least 1 expected".into())),
            number => Ok(number),
        }
    }

    pub(super) fn vardiff(&self) -> Result<Option<f64>, ConfigError> {
        let key = ("vardiff_seconds_per_share", self.file.vardiff_seconds_per_share);
        let seconds = within(key, DEFAULT_SECONDS_PER_SHARE, SECONDS_PER_SHARE)?;
        Ok(self.file.vardiff.unwrap_or(true).then_some(seconds))
    }

    pub(super) fn limits(&self) -> Result<Limits, ConfigError> {
        let (file, defaults) = (&self.file, Limits::default());
        let time = |key, value, default: Duration| {
            within((key, value), default.as_secs_f64(), TIME_LIMITS).map(Duration::from_secs_f64)
        };
        let requests = ("max_requests_per_second", file.max_requests_per_second);
        Ok(Limits {
            handshake: time("handshake_seconds", file.handshake_seconds, defaults.handshake)?,
            idle: time("idle_seconds", file.idle_seconds, defaults.idle)?,
            write: time("write_seconds", file.write_seconds, defaults.write)?,
            requests_per_second: within(requests, defaults.requests_per_second, RATES)?,
        })
    }

    pub(super) fn new_connections(&self) -> Result<f64, ConfigError> {
        let key = ("max_new_connections_per_second", self.file.max_new_connections_per_second);
        within(key, DEFAULT_NEW_CONNECTIONS, RATES)
    }

    pub(super) fn tls(&self) -> Result<Option<(SocketAddr, Tls)>, ConfigError> {
        let (file, flags) = (&self.file, &self.flags);
        let path = |flag: &Option<PathBuf>, file: &Option<PathBuf>| {
            flag.clone().or_else(|| file.as_deref().map(|path| self.in_base(path)))
        };
        let bind = flags.stratum_tls_bind.as_deref().or(file.stratum_tls_bind.as_deref());
        let certificate = path(&flags.tls_certificate_file, &file.tls_certificate_file);
        let key = path(&flags.tls_key_file, &file.tls_key_file);
        match (bind, certificate, key) {
            (None, None, None) => Ok(None),
            (Some(bind), Some(certificate), Some(key)) => {
                let bind = socket_address("stratum-tls-bind", bind)?;
                Ok(Some((bind, Tls::load(TlsFiles { certificate, key })?)))
            }
            _ => Err(ConfigError(
                "stratum_tls_bind, tls_certificate_file and tls_key_file belong together: all or none expected"
                    .into(),
            )),
        }
    }
}

fn within(
    (key, value): (&str, Option<f64>),
    default: f64,
    range: RangeInclusive<f64>,
) -> Result<f64, ConfigError> {
    let value = value.unwrap_or(default);
    if range.contains(&value) {
        return Ok(value);
    }
    let (least, most) = (range.start(), range.end());
    Err(ConfigError(format!("{key} is {value}, a number from {least} to {most} expected")))
}

fn difficulty(key: &str, value: Option<f64>, default: f64) -> Result<Difficulty, ConfigError> {
    let value = value.unwrap_or(default);
    Difficulty::new(value)
        .ok_or_else(|| ConfigError(format!("{key} is {value}, a number above zero expected")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_begins_at_1024_but_where_blocks_are_easier_than_difficulty_1() {
        let starts = [Params::main(), Params::test(), Params::regtest(), Params::devnet()];
        assert_eq!(starts.map(|params| default_start(&params)), [1024.0, 1024.0, 0.0005, 0.0005]);
    }
}
