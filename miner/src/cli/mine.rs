//! The flags of `mine`.

use clap::Args;

use super::UsageError;
use super::shared::{PoolArgs, RigArgs, ViewArgs};
use crate::mine::MineSettings;

#[derive(Debug, Args)]
pub(super) struct Mine {
    #[command(flatten)]
    pool: PoolArgs,
    #[command(flatten)]
    rig: RigArgs,
    #[command(flatten)]
    view: ViewArgs,
}

impl Mine {
    pub(super) fn settings(self) -> Result<MineSettings, UsageError> {
        Ok(MineSettings {
            pool: self.pool.settings()?,
            rig: self.rig.settings()?,
            view: self.view.settings(),
        })
    }
}
