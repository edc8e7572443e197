//! The flags of `gateway`.

use std::net::SocketAddr;

use clap::{Arg, ArgGroup, Args, Id};
use iop_stratum::difficulty::Difficulty;

use super::UsageError;
use super::node::NodeArgs;
use super::shared::{PoolArgs, RigArgs, ViewArgs};
use crate::gateway::limits::Limits;
use crate::gateway::{GatewaySettings, Settings, Source};
use crate::mine::MineSettings;
use crate::solo::SoloSettings;
use crate::split::Split;
use crate::upstream::pool::PoolSettings;

/// Most machines that can be requested: the number of ports that one address has towards another.
pub(super) const MAX_MACHINES: usize = 60_000;
/// Machines where nobody says how many.
const DEFAULT_MACHINES: usize = 10_000;

#[derive(Debug, Args)]
#[command(group(ArgGroup::new("source").args(["urls", "nodes"]).required(true)))]
#[command(mut_args(of_one_source()))]
#[command(mut_arg("urls", |arg| arg.requires("user")))]
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
    /// Machines at a time, 10,000 if not given; but 255 at an upstream with an extranonce2 of 4 or 5 bytes unless more are
    /// given, which leaves each a byte less
    #[arg(long, value_name = "N")]
    max_machines: Option<usize>,
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
            max_machines: machines("--max-machines", self.max_machines.unwrap_or(DEFAULT_MACHINES))?,
            split: Split::for_machines(self.max_machines),
            max_per_address: machines("--max-machines-per-address", self.max_machines_per_address)?,
            limits: Limits::default(),
        };
        if gateway.start_difficulty < gateway.min_difficulty {
            return Err(UsageError::StartDifficulty(self.start_difficulty, self.min_difficulty));
        }
        let (rig, view) = (self.rig.settings_or_none()?, self.view.settings());
        let source = match (self.pool, self.node) {
            (Some(pool), _) if pool.is_named() => {
                let pool = PoolSettings { only_machines: rig.devices.is_empty(), ..pool.settings()? };
                Source::Pool(Box::new(MineSettings { pool, rig, view }))
            }
            (_, Some(node)) => Source::Node(Box::new(SoloSettings { node: node.settings()?, rig, view })),
            _ => unreachable!("one of them is required"),
        };
        Ok(Settings { gateway, source })
    }
}

/// Makes the pool flags optional and conflict with the node flags, and vice versa: a flag that is silently ignored
/// would be a surprise.
fn of_one_source() -> impl FnMut(Arg) -> Arg {
    let ids = |command: clap::Command| command.get_arguments().map(|arg| arg.get_id().clone()).collect();
    let (pool, node): (Vec<Id>, Vec<Id>) = (
        ids(PoolArgs::augment_args(clap::Command::new(""))),
        ids(NodeArgs::augment_args(clap::Command::new(""))),
    );
    move |arg| match arg.get_id() {
        id if pool.contains(id) => arg.required(false).conflicts_with("nodes"),
        id if node.contains(id) => arg.required(false).conflicts_with("urls"),
        _ => arg,
    }
}

fn difficulty(flag: &'static str, number: f64) -> Result<Difficulty, UsageError> {
    Difficulty::new(number).ok_or(UsageError::MachineDifficulty(flag, number))
}

fn machines(flag: &'static str, number: usize) -> Result<usize, UsageError> {
    if (1..=MAX_MACHINES).contains(&number) { Ok(number) } else { Err(UsageError::Machines(flag, number)) }
}

#[cfg(test)]
mod tests {
    use crate::cli::{Command, Exit, parse};
    use crate::gateway::Source;

    const POOL: &str = "iop-miner gateway --listen 127.0.0.1:1 --url stratum+tcp://a:1 --user pA.rig";
    const NODE: &str = "iop-miner gateway --listen 127.0.0.1:1 --node http://u:p@127.0.0.1:1";

    /// The error about two conflicting flags.
    fn conflict(line: &str, flags: [&str; 2]) {
        let text = complaint(line);
        let named = |flag: &&str| text.contains(&format!("'{flag}"));
        assert!(text.contains("' cannot be used with '") && flags.iter().all(named), "{line}: {text}");
    }

    fn complaint(line: &str) -> String {
        match parse(line.split(' ').map(Into::into)) {
            Err(Exit::Usage(error)) => error.to_string(),
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn flags_of_the_other_source_are_refused_by_name() {
        for flag in ["--user a", "--password a", "--suggest-difficulty 1", "--tls-ca a", "--follow-reconnect"]
        {
            let name = flag.split(' ').next().unwrap_or(flag);
            conflict(&format!("{NODE} {flag}"), [name, "--node <URL>"]);
        }
        for flag in [
            "--node-cookie a",
            "--license-key-file a",
            "--payout a",
            "--network regtest",
            "--network-file a",
            "--datadir a",
            "--submit-retry 1",
        ] {
            let name = flag.split(' ').next().unwrap_or(flag);
            conflict(&format!("{POOL} {flag}"), [name, "--url <URL>"]);
        }
    }

    #[test]
    fn all_work_is_for_machines_where_no_device_works_beside_them() {
        for (flags, expected) in [("", true), (" --devices none", true), (" --devices cpu", false)] {
            match parse(format!("{POOL}{flags}").split(' ').map(Into::into)) {
                Ok(Command::Gateway(settings)) => match settings.source {
                    Source::Pool(pool) => assert_eq!(pool.pool.only_machines, expected, "{flags}"),
                    Source::Node(_) => panic!("a pool is named"),
                },
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn a_source_is_needed_and_one_only() {
        let both = complaint(&format!("{POOL} --node http://u:p@127.0.0.1:1"));
        assert!(both.contains("cannot be used with"), "{both}");
        for line in
            ["iop-miner gateway --listen 127.0.0.1:1", "iop-miner gateway --listen 127.0.0.1:1 --user a"]
        {
            let text = complaint(line);
            assert!(text.contains("--url <URL>|--node <URL>"), "{text}");
        }
        assert!(complaint(&POOL.replace(" --user pA.rig", "")).contains("--user <ADDRESS.WORKER>"));
        assert!(matches!(parse(POOL.split(' ').map(Into::into)), Ok(Command::Gateway(_))));
    }
}
