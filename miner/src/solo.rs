//! `iop-miner solo`: devices at the license holder's own nodes.

use std::io;
use std::time::Duration;

use tracing::info;

use crate::rig::{Rig, RigSettings};
use crate::signals::asked_to_end;
use crate::upstream::node::{NodeSettings, Solo};
use crate::view::{self, ViewSettings};

/// How long blocks in flight may delay the end; those that take longer are on disk.
const END_TIME: Duration = Duration::from_secs(5);

/// Validated settings of `solo`.
#[derive(Clone, Debug)]
pub struct SoloSettings {
    /// The nodes, the licenses, and the payout address.
    pub node: NodeSettings,
    /// The devices.
    pub rig: RigSettings,
    /// The views.
    pub view: ViewSettings,
}

/// Mines until the process is asked to end (Ctrl-C, SIGTERM or SIGHUP).
///
/// # Errors
/// No device works, the data folder cannot be used, a node reports at the start that it is on another chain or does not
/// accept our credentials, or the operating system provides no thread, no runtime or no signal handler.
pub fn run(settings: SoloSettings) -> io::Result<()> {
    run_with(settings, |_| Ok(()))
}

/// Like [`run`], with something attached to the rig.
///
/// # Errors
/// Those of [`run`] and of `attach`.
pub fn run_with(settings: SoloSettings, attach: impl FnOnce(&mut Rig) -> io::Result<()>) -> io::Result<()> {
    let SoloSettings { node, rig, view } = settings;
    let (network, payout) =
        (node.params.name.clone(), node.payout.map(|to| to.to_base58(&node.params.prefixes)));
    let asked = asked_to_end(view::give_back)?;
    let (solo, mut ending) = Solo::new(node)?;
    let opened = rig.open()?;
    let licenses = solo.license_names().join(", ");
    let payout = payout.unwrap_or_else(|| "the license that signs".to_owned());
    info!("mining on {network} for license {licenses}, paying {payout}, with {opened}");
    let mut rig = Rig::new(opened.devices, solo.board());
    attach(&mut rig)?;
    view::attach(&view, &mut rig)?;
    rig.before_end(ending.finishing(END_TIME));
    let until = async move {
        tokio::select! {
            ended = asked => ended,
            error = ending.failed() => Err(error),
        }
    };
    rig.finish(|rig| rig.run(solo, until))
}
