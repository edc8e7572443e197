//! `iop-miner mine`: devices at a pool.

use std::io;
use std::sync::Arc;

use tracing::info;

use crate::rig::{Rig, RigSettings};
use crate::signals::asked_to_end;
use crate::upstream::Timing;
use crate::upstream::pool::{Pool, PoolSettings};
use crate::view::{self, ViewSettings};

/// Validated settings of `mine`.
#[derive(Clone, Debug)]
pub struct MineSettings {
    /// The pools.
    pub pool: PoolSettings,
    /// The devices.
    pub rig: RigSettings,
    /// The views.
    pub view: ViewSettings,
}

/// Mines until the process is asked to end (Ctrl-C, SIGTERM or SIGHUP).
///
/// # Errors
/// No device works, or the operating system provides no thread, no runtime or no signal handler.
pub fn run(settings: MineSettings) -> io::Result<()> {
    run_with(settings, |_| Ok(()))
}

/// Like [`run`], with something attached to the rig.
///
/// # Errors
/// Those of [`run`] and of `attach`.
pub fn run_with(settings: MineSettings, attach: impl FnOnce(&mut Rig) -> io::Result<()>) -> io::Result<()> {
    let MineSettings { pool, rig, view } = settings;
    let asked = asked_to_end(view::give_back)?;
    let opened = rig.open()?;
    info!("mining as {} with {opened}", pool.user);
    let suggested = pool.suggestion.difficulty(&opened);
    let pool = Pool::new(pool, suggested, Timing::default());
    let mut rig = Rig::new(opened.devices, pool.board());
    let pool = pool.measured_by(Arc::clone(&rig.stats));
    attach(&mut rig)?;
    rig.hand_in_before_end();
    view::attach(&view, &mut rig)?;
    rig.finish(|rig| rig.run(pool, asked))
}
