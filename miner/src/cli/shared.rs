//! Flags that several commands have.

use std::net::SocketAddr;

use clap::Args;
use iop_kernels::SelectError;
use iop_stratum::difficulty::Difficulty;

use super::UsageError;
use crate::choice::Choice;
use crate::device::DeviceName;
use crate::devices::cpu_threads;
use crate::rig::RigSettings;
use crate::suggest::Suggestion;
use crate::upstream::PoolUrl;
use crate::upstream::pool::PoolSettings;
use crate::view::ViewSettings;

/// Most CPU threads. The largest machines have a few hundred cores; more is a slip of the finger.
pub(super) const MAX_THREADS: usize = 1024;
/// Longest user name and password, in bytes: what pools take.
pub(super) const MAX_CREDENTIAL: usize = 127;

/// Pools.
#[derive(Debug, Args)]
pub(super) struct PoolArgs {
    /// The pool, as stratum+tcp://HOST:PORT; name more to fall back to, in order of preference
    #[arg(long = "url", value_name = "URL", required = true)]
    urls: Vec<String>,
    /// The user at the pool: an address, and a name for this machine
    #[arg(long, value_name = "ADDRESS.WORKER")]
    user: String,
    /// The password at the pool; most take anything
    #[arg(long, default_value = "x")]
    password: String,
    /// The share difficulty to suggest to the pool [default: one share in about ten seconds, unless the
    /// password has d=N]
    #[arg(long, value_name = "D")]
    suggest_difficulty: Option<f64>,
}

impl PoolArgs {
    pub(super) fn settings(self) -> Result<PoolSettings, UsageError> {
        let urls = self.urls.iter().map(|url| url.parse()).collect::<Result<Vec<PoolUrl>, _>>()?;
        let odd = |character: char| character.is_control() || character.is_whitespace();
        if self.user.is_empty() || self.user.len() > MAX_CREDENTIAL || self.user.contains(odd) {
            return Err(UsageError::User(self.user));
        }
        if self.password.len() > MAX_CREDENTIAL {
            return Err(UsageError::Password);
        }
        let suggestion = suggestion(self.suggest_difficulty, &self.password)?;
        Ok(PoolSettings { urls, user: self.user, password: self.password, suggestion })
    }
}

/// Whoever names a difficulty in the password gets that one: the pool hears a suggestion after the password.
fn suggestion(asked: Option<f64>, password: &str) -> Result<Suggestion, UsageError> {
    let names_one = |option: &str| option.starts_with("d=") || option.starts_with("diff=");
    match asked {
        Some(number) => Difficulty::new(number).map(Suggestion::Given).ok_or(UsageError::Difficulty(number)),
        None if password.split(',').map(str::trim).any(names_one) => Ok(Suggestion::Nothing),
        None => Ok(Suggestion::Measured),
    }
}

/// Devices.
#[derive(Debug, Args)]
pub(super) struct RigArgs {
    /// What to mine with, separated by commas; see `iop-miner devices`
    #[arg(long, value_name = "DEVICE", value_delimiter = ',', default_value = "cpu")]
    devices: Vec<String>,
    /// CPU threads [default: as many as the machine runs at once]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// The CPU's kernel: auto, or a name from `iop-miner devices`
    #[arg(long, value_name = "NAME", default_value = "auto")]
    kernel: String,
}

impl RigArgs {
    pub(super) fn settings(self) -> Result<RigSettings, UsageError> {
        Ok(RigSettings {
            devices: devices(&self.devices)?,
            kernel: kernel(&self.kernel)?,
            threads: threads(self.threads)?,
        })
    }
}

/// How people and programs watch.
#[derive(Debug, Args)]
pub(super) struct ViewArgs {
    /// Serve the HTTP API and metrics here, as ADDRESS:PORT
    #[arg(long, value_name = "ADDR:PORT")]
    api_bind: Option<SocketAddr>,
    /// Serve the cgminer API here, as ADDRESS:PORT; monitors expect port 4028
    #[arg(long, value_name = "ADDR:PORT")]
    cgminer_bind: Option<SocketAddr>,
    /// Log lines instead of the live view, also at a terminal
    #[arg(long)]
    plain: bool,
    /// Print the status on stdout every 10 s and at the end, as one JSON object in a line
    #[arg(long)]
    json: bool,
}

impl ViewArgs {
    pub(super) fn settings(self) -> ViewSettings {
        ViewSettings {
            api_bind: self.api_bind,
            cgminer_bind: self.cgminer_bind,
            plain: self.plain,
            json: self.json,
        }
    }
}

pub(super) fn devices(names: &[String]) -> Result<Vec<DeviceName>, UsageError> {
    let wrong = || UsageError::Device(names.join(","));
    let devices: Vec<DeviceName> =
        names.iter().map(|name| name.parse()).collect::<Result<_, _>>().map_err(|()| wrong())?;
    let twice = devices.iter().enumerate().any(|(i, device)| devices[..i].contains(device));
    if twice { Err(wrong()) } else { Ok(devices) }
}

pub(super) fn kernel(name: &str) -> Result<Choice, SelectError> {
    if name == "auto" { Ok(Choice::Auto) } else { iop_kernels::by_name(name).map(Choice::Named) }
}

pub(super) fn threads(asked: Option<usize>) -> Result<usize, UsageError> {
    let threads = asked.unwrap_or_else(|| cpu_threads().min(MAX_THREADS));
    if (1..=MAX_THREADS).contains(&threads) { Ok(threads) } else { Err(UsageError::Threads(threads)) }
}
