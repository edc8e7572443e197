//! Flags shared by several commands.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use clap::Args;
use iop_stratum::difficulty::Difficulty;

use super::UsageError;
use crate::choice::Choice;
use crate::device::{DeviceName, Machine, Tuning};
use crate::rig::RigSettings;
use crate::suggest::Suggestion;
use crate::upstream::pool::PoolSettings;
use crate::upstream::{PoolUrl, Tls};
use crate::view::ViewSettings;

/// Most CPU threads. The largest machines have a few hundred cores; more is a typing mistake.
pub(super) const MAX_THREADS: usize = 1024;
/// Longest user name and password, in bytes: what pools accept.
pub(super) const MAX_CREDENTIAL: usize = 127;

/// Sensible limits for the CPU's temperature, in degrees Celsius: from a warm room to more than any CPU survives.
pub(super) const TEMPERATURES: RangeInclusive<f32> = 30.0..=120.0;

/// Pools.
#[derive(Debug, Args)]
pub(super) struct PoolArgs {
    /// The pool, as stratum+tcp://HOST:PORT, or stratum+ssl://HOST:PORT for TLS; name more to fall back to, in order of preference
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
    /// With TLS: trust the certificates in this file (PEM) too, those of CAs or of pools
    #[arg(long, value_name = "FILE")]
    tls_ca: Option<PathBuf>,
    /// Follow a pool that asks to connect to another host
    #[arg(long)]
    follow_reconnect: bool,
}

impl PoolArgs {
    /// Whether a pool is named, for commands that can do without one.
    pub(super) fn is_named(&self) -> bool {
        !self.urls.is_empty()
    }

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
        let tls = urls.iter().any(|url| url.tls) || self.tls_ca.is_some();
        Ok(PoolSettings {
            urls,
            user: self.user,
            password: self.password,
            suggestion,
            tls: tls.then(|| Tls::load(self.tls_ca.as_deref())).transpose()?,
            follow_reconnect: self.follow_reconnect,
            only_machines: false,
        })
    }
}

/// A difficulty in the password takes precedence: the pool receives a suggestion after the password.
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
    /// Physical cores to leave alone
    #[arg(long, value_name = "N", default_value_t = 0)]
    spare_cores: usize,
    /// Let the operating system move CPU threads about; else each has a CPU of its own
    #[arg(long)]
    no_pin: bool,
    /// The nice value of CPU threads, -20 (pushes) to 19 (gives way) [default: 10]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    nice: Option<i32>,
    /// Pause the CPU at this temperature in degrees Celsius, until it is 5 degrees below
    #[arg(long, value_name = "C")]
    max_temperature: Option<f32>,
}

impl RigArgs {
    /// Settings for a command that needs a device.
    pub(super) fn settings(self) -> Result<RigSettings, UsageError> {
        let settings = self.settings_or_none()?;
        if settings.devices.is_empty() { Err(UsageError::Device("none".to_owned())) } else { Ok(settings) }
    }

    /// Settings with any number of devices, including none.
    pub(super) fn settings_or_none(self) -> Result<RigSettings, UsageError> {
        let (machine, tuning) = (Machine::here(), self.tuning()?);
        let spare = tuning.spare_cores;
        if spare > 0 && spare >= machine.cores() {
            return Err(UsageError::SpareCores(spare, machine.cores()));
        }
        let threads = self.threads.unwrap_or_else(|| machine.threads(spare).min(MAX_THREADS));
        let devices = devices(&self.devices)?;
        let of_opencl = self.kernel == OPENCL && !devices.is_empty() && !devices.contains(&DeviceName::Cpu);
        Ok(RigSettings {
            devices,
            kernel: if of_opencl { Choice::Auto } else { kernel(&self.kernel)? },
            threads: self::threads(Some(threads))?,
            tuning,
        })
    }

    fn tuning(&self) -> Result<Tuning, UsageError> {
        if let Some(nice) = self.nice.filter(|nice| !(-20..=19).contains(nice)) {
            return Err(UsageError::Nice(nice));
        }
        if let Some(celsius) = self.max_temperature.filter(|celsius| !TEMPERATURES.contains(celsius)) {
            return Err(UsageError::Temperature(celsius));
        }
        let (spare_cores, pin, nice) = (self.spare_cores, !self.no_pin, self.nice);
        Ok(Tuning { spare_cores, pin, nice, max_temperature: self.max_temperature })
    }
}

/// How people and programs watch.
#[derive(Debug, Args)]
pub(super) struct ViewArgs {
    /// Serve the HTTP API and metrics here, as ADDRESS:PORT
    #[arg(long, value_name = "ADDR:PORT")]
    api_bind: Option<SocketAddr>,
    /// Log lines instead of the live view, also at a terminal
    #[arg(long)]
    plain: bool,
    /// Print the status on stdout every 10 s and at the end, as one JSON object in a line
    #[arg(long)]
    json: bool,
    /// Serve the cgminer API here, as ADDRESS:PORT; monitors expect port 4028
    #[arg(long, value_name = "ADDR:PORT")]
    cgminer_bind: Option<SocketAddr>,
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

/// Parses device names; `none`, which is for a gateway, yields none.
pub(super) fn devices(names: &[String]) -> Result<Vec<DeviceName>, UsageError> {
    if names == ["none"] {
        return Ok(Vec::new());
    }
    let wrong = || UsageError::Device(names.join(","));
    let devices: Vec<DeviceName> =
        names.iter().map(|name| name.parse()).collect::<Result<_, _>>().map_err(|()| wrong())?;
    let twice = devices.iter().enumerate().any(|(i, device)| devices[..i].contains(device));
    if twice { Err(wrong()) } else { Ok(devices) }
}

/// The kernel of all OpenCL devices, as `bench` and `devices` name it.
pub(super) const OPENCL: &str = "opencl";

pub(super) fn kernel(name: &str) -> Result<Choice, UsageError> {
    match name {
        "auto" => Ok(Choice::Auto),
        OPENCL => Err(UsageError::OpenClKernel),
        name => Ok(Choice::Named(iop_kernels::by_name(name)?)),
    }
}

pub(super) fn threads(asked: Option<usize>) -> Result<usize, UsageError> {
    let threads = asked.unwrap_or_else(|| Machine::here().threads(0).min(MAX_THREADS));
    if (1..=MAX_THREADS).contains(&threads) { Ok(threads) } else { Err(UsageError::Threads(threads)) }
}
