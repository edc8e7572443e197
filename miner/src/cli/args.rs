//! The arguments as they are typed.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "iop-miner", version, about = "Mines IoP", disable_help_subcommand = true)]
pub(super) struct Cli {
    #[command(subcommand)]
    pub(super) command: Raw,
}

#[derive(Debug, Subcommand)]
pub(super) enum Raw {
    /// Mine at a Stratum pool until interrupted
    Mine(Mine),
    /// Measure kernels
    Bench(Bench),
    /// List what this machine can mine with
    Devices(Devices),
}

#[derive(Debug, Args)]
pub(super) struct Mine {
    /// The pool, as stratum+tcp://HOST:PORT; name more to fall back to, in order of preference
    #[arg(long = "url", value_name = "URL", required = true)]
    pub(super) urls: Vec<String>,
    /// The user at the pool: an address, and a name for this machine
    #[arg(long, value_name = "ADDRESS.WORKER")]
    pub(super) user: String,
    /// The password at the pool; most take anything
    #[arg(long, default_value = "x")]
    pub(super) password: String,
    /// The share difficulty to suggest to the pool [default: one share in about ten seconds, unless the
    /// password has d=N]
    #[arg(long, value_name = "D")]
    pub(super) suggest_difficulty: Option<f64>,
    /// What to mine with, separated by commas; see `iop-miner devices`
    #[arg(long, value_name = "DEVICE", value_delimiter = ',', default_value = "cpu")]
    pub(super) devices: Vec<String>,
    /// CPU threads [default: as many as the machine runs at once]
    #[arg(long, value_name = "N")]
    pub(super) threads: Option<usize>,
    /// The CPU's kernel: auto, or a name from `iop-miner devices`
    #[arg(long, value_name = "NAME", default_value = "auto")]
    pub(super) kernel: String,
}

#[derive(Debug, Args)]
pub(super) struct Bench {
    /// The kernel to measure: auto, a name from `iop-miner devices`, or all that this CPU can run
    #[arg(long, value_name = "NAME", default_value = "all")]
    pub(super) kernel: String,
    /// What to measure, separated by commas; see `iop-miner devices`
    #[arg(long, value_name = "DEVICE", value_delimiter = ',', default_value = "cpu")]
    pub(super) devices: Vec<String>,
    /// CPU threads; several numbers, separated by commas, are measured one after another [default: one, and as
    /// many as the machine runs at once]
    #[arg(long, value_name = "N", value_delimiter = ',')]
    pub(super) threads: Vec<usize>,
    /// Versions of a header to scan together, as where a pool lets version bits be rolled; several numbers,
    /// separated by commas, are measured one after another
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "1")]
    pub(super) versions: Vec<usize>,
    /// How long to measure each kernel, in seconds
    #[arg(long, value_name = "S", default_value_t = 5.0)]
    pub(super) seconds: f64,
    /// Print one JSON object per kernel
    #[arg(long)]
    pub(super) json: bool,
    /// Draw the measurements side by side into this file, as an SVG
    #[arg(long, value_name = "FILE")]
    pub(super) plot: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct Devices {
    /// Print one JSON object per device
    #[arg(long)]
    pub(super) json: bool,
}
