//! The flags of `solo`.

use clap::Args;

use super::UsageError;
use super::node::NodeArgs;
use super::shared::{RigArgs, ViewArgs};
use crate::solo::SoloSettings;

#[derive(Debug, Args)]
pub(super) struct Solo {
    #[command(flatten)]
    node: NodeArgs,
    #[command(flatten)]
    rig: RigArgs,
    #[command(flatten)]
    view: ViewArgs,
}

impl Solo {
    pub(super) fn settings(self) -> Result<SoloSettings, UsageError> {
        Ok(SoloSettings {
            rig: self.rig.settings()?,
            view: self.view.settings(),
            node: self.node.settings()?,
        })
    }
}
