//! The flags of `setup`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::setup::SetupSettings;

/// How long setup measures each device: long enough for a number that a person believes.
const MEASURE: Duration = Duration::from_secs(2);

#[derive(Debug, Args)]
pub(super) struct Setup {
    /// The file to write
    #[arg(long, value_name = "FILE", default_value = "miner.toml")]
    out: PathBuf,
}

impl Setup {
    pub(super) fn settings(self) -> SetupSettings {
        SetupSettings { out: self.out, measure: MEASURE }
    }
}
