//! The flags of `gateway`.

use std::net::SocketAddr;

use clap::{ArgGroup, Args};
use iop_stratum::difficulty::Difficulty;

use super::UsageError;
use super::node::NodeArgs;
use super::shared::{PoolArgs, RigArgs, ViewArgs};
use crate::gateway::limits::Limits;
use crate::gateway::{GatewaySettings, Settings, Source};
use crate::mine::MineSettings;
use crate::solo::SoloSettings;

/// Most machines that can be asked for: the ports that one address has towards another.
pub(super) const MAX_MACHINES: usize = 60_000;

#[derive(Debug, Args)]
#[command(group(ArgGroup::new("source").args(["urls", "nodes"]).required(true)))]
#[command(mut_arg("urls", |arg| arg.required(false).requires("user")))]
#[command(mut_arg("nodes", |arg| arg.required(false)))]
#[command(mut_arg("user", |arg| arg.required(false).requires("urls")))]
#[command(mut_arg("license_key_file", |arg| arg.requires("nodes")))]
#[command(mut_arg("payout", |arg| arg.requires("nodes")))]
#[command(mut_arg("devices", |arg| arg.default_value("none").help(
    "What to mine with beside the machines, separated by commas: none, or see `iop-miner devices`"
)))]
pub(super) struct Gateway {
    /// Where machines connect. Whoever can reach it can mine for you: an address of your own network, not of the internet
    #[arg(long, value_name = "ADDR:PORT")]
    listen: SocketAddr,
    /// Difficulty of a machine's first job, if the upstream asks for no less
    #[arg(long, value_name = "D", default_value_t = 1024.0)]
    start_difficulty: f64,
    /// Least difficulty of a machine's jobs, if the upstream asks for no less
    #[arg(long, value_name = "D", default_value_t = 1.0 / 65_536.0)]
    min_difficulty: f64,
    /// Machines at a time
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    max_machines: usize,
    /// Machines at a time from one address; loopback is not bounded
    #[arg(long, value_name = "N", default_value_t = 256)]
    max_machines_per_address: usize,
    #[command(flatten)]
    pool: Option<PoolArgs>,
    #[command(flatten)]
    node: Option<NodeArgs>,
    #[command(flatten)]
    rig: RigArgs,
    #[command(flatten)]
    view: ViewArgs,
}

impl Gateway {
    pub(super) fn settings(self) -> Result<Settings, UsageError> {
        let gateway = GatewaySettings {
            listen: self.listen,
            start_difficulty: difficulty("--start-difficulty", self.start_difficulty)?,
            min_difficulty: difficulty("--min-difficulty", self.min_difficulty)?,
            max_machines: machines("--max-machines", self.max_machines)?,
            max_per_address: machines("--max-machines-per-address", self.max_machines_per_address)?,
            limits: Limits::default(),
        };
        if gateway.start_difficulty < gateway.min_difficulty {
            return Err(UsageError::StartDifficulty(self.start_difficulty, self.min_difficulty));
        }
        let (rig, view) = (self.rig.settings_or_none()?, self.view.settings());
        let source = match (self.pool, self.node) {
            (Some(pool), _) if pool.is_named() => {
                Source::Pool(Box::new(MineSettings { pool: pool.settings()?, rig, view }))
            }
            (_, Some(node)) => Source::Node(Box::new(SoloSettings { node: node.settings()?, rig, view })),
            _ => unreachable!("one of them is required"),
        };
        Ok(Settings { gateway, source })
    }
}

fn difficulty(flag: &'static str, number: f64) -> Result<Difficulty, UsageError> {
    Difficulty::new(number).ok_or(UsageError::MachineDifficulty(flag, number))
}

fn machines(flag: &'static str, number: usize) -> Result<usize, UsageError> {
    if (1..=MAX_MACHINES).contains(&number) { Ok(number) } else { Err(UsageError::Machines(flag, number)) }
}
