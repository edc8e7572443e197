//! The flags of `bench`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use iop_kernels::Work;

use super::{UsageError, shared};
use crate::bench::BenchSettings;
use crate::choice::Choice;
use crate::device::DeviceName;

/// Longest measurement in seconds: an hour.
pub(super) const MAX_SECONDS: f64 = 3600.0;

#[derive(Debug, Args)]
pub(super) struct Bench {
    /// The kernel to measure: auto, a name from `iop-miner devices`, or all that the devices can run
    #[arg(long, value_name = "NAME", default_value = "all")]
    kernel: String,
    /// What to measure, separated by commas; see `iop-miner devices`
    #[arg(long, value_name = "DEVICE", value_delimiter = ',', default_value = "cpu")]
    devices: Vec<String>,
    /// CPU threads; several numbers, separated by commas, are measured one after another [default: one, and as
    /// many as the machine runs at once]
    #[arg(long, value_name = "N", value_delimiter = ',')]
    threads: Vec<usize>,
    /// Versions of a header to scan together, as where a pool lets version bits be rolled; several numbers,
    /// separated by commas, are measured one after another
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "1")]
    versions: Vec<usize>,
    /// How long to measure each kernel, in seconds
    #[arg(long, value_name = "S", default_value_t = 5.0)]
    seconds: f64,
    /// Print one JSON object per kernel
    #[arg(long)]
    json: bool,
    /// Draw the measurements side by side into this file, as an SVG
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
}

impl Bench {
    pub(super) fn settings(&self) -> Result<BenchSettings, UsageError> {
        let mut devices = shared::devices(&self.devices)?;
        if devices.is_empty() {
            return Err(UsageError::Device("none".to_owned()));
        }
        let kernels = match &*self.kernel {
            "all" => iop_kernels::supported().map(Choice::Named).collect(),
            shared::OPENCL => {
                devices.retain(|device| *device != DeviceName::Cpu);
                Vec::new()
            }
            name => vec![shared::kernel(name)?],
        };
        if devices.is_empty() {
            return Err(UsageError::OpenClKernel);
        }
        if !(self.seconds > 0.0 && self.seconds <= MAX_SECONDS) {
            return Err(UsageError::Seconds(self.seconds));
        }
        let duration = Duration::from_secs_f64(self.seconds);
        let mut threads = match &*self.threads {
            [] => vec![1, shared::threads(None)?],
            asked => asked.iter().map(|n| shared::threads(Some(*n))).collect::<Result<_, _>>()?,
        };
        threads.dedup();
        let versions = self.versions.clone();
        if let Some(odd) = versions.iter().find(|n| !(1..=Work::MAX_VERSIONS).contains(*n)) {
            return Err(UsageError::Versions(*odd));
        }
        Ok(BenchSettings {
            devices,
            kernels,
            threads,
            versions,
            duration,
            json: self.json,
            plot: self.plot.clone(),
        })
    }
}
