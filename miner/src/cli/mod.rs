//! The command line: the only place where arguments become validated settings.
//!
//! Here: flags, their meaning, and every error about them, each one line that names what is wrong and what was
//! expected; one file for the flags of each command, and `shared` for those of several. Not here: what the commands do.
//! Path: arguments → clap → [`parse`] → [`Command`].

mod bench;
mod gateway;
mod mine;
mod node;
mod run;
mod setup;
mod shared;
mod solo;

use std::ffi::OsString;

use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand};
use iop_kernels::{SelectError, Work};
use iop_mining::ConfigError;

use crate::bench::BenchSettings;
use crate::gateway::Settings as GatewaySettings;
use crate::mine::MineSettings;
use crate::setup::SetupSettings;
use crate::solo::SoloSettings;
use crate::upstream::{TlsError, UrlError};
use bench::MAX_SECONDS;
use gateway::MAX_MACHINES;
use shared::{MAX_CREDENTIAL, MAX_THREADS, TEMPERATURES};

#[derive(Debug, Parser)]
#[command(name = "iop-miner", version, about = "Mines IoP", disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Raw,
}

#[derive(Debug, Subcommand)]
enum Raw {
    /// Mine at a Stratum pool until interrupted
    Mine(mine::Mine),
    /// Mine alone, at nodes of your own, until interrupted
    Solo(solo::Solo),
    /// Give the work of a pool, or of nodes of your own, to machines that speak Stratum
    Gateway(gateway::Gateway),
    /// Measure kernels
    Bench(bench::Bench),
    /// List what this machine can mine with
    Devices(Devices),
    /// Ask what to mine for, and write a configuration file
    Setup(setup::Setup),
    /// Mine as a configuration file says
    Run(run::Run),
}

#[derive(Debug, Args)]
struct Devices {
    /// Print one JSON object per device
    #[arg(long)]
    json: bool,
}

/// The command to run.
#[derive(Clone, Debug)]
pub enum Command {
    /// `mine`
    Mine(MineSettings),
    /// `solo`
    Solo(SoloSettings),
    /// `gateway`
    Gateway(GatewaySettings),
    /// `bench`
    Bench(BenchSettings),
    /// `devices`
    Devices {
        /// Print JSON, for scripts.
        json: bool,
    },
    /// `setup`
    Setup(SetupSettings),
}

/// The reason why no command is run.
#[derive(Debug)]
pub enum Exit {
    /// Help or version was requested: prints this text and succeeds.
    Asked(String),
    /// The arguments are wrong.
    Usage(UsageError),
}

/// An error in the arguments, in one line.
#[derive(Debug, thiserror::Error)]
pub enum UsageError {
    /// Arguments that clap rejects.
    #[error("{0}")]
    Arguments(String),
    /// A pool's URL is invalid.
    #[error("--url: {0}")]
    Url(#[from] UrlError),
    /// The user is invalid.
    #[error(
        "--user {0:?}: expected ADDRESS.WORKER, 1 to {MAX_CREDENTIAL} printable characters without spaces"
    )]
    User(String),
    /// The certificates to trust are invalid.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The password is invalid. It is not repeated here.
    #[error("--password: expected at most {MAX_CREDENTIAL} bytes")]
    Password,
    /// The suggested difficulty is invalid.
    #[error("--suggest-difficulty {0}: expected a number above 0")]
    Difficulty(f64),
    /// A node, license, network, address or one of their files is invalid.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The longest wait before a block is submitted again is invalid.
    #[error("--submit-retry {0}: expected 0.1 to 600 seconds")]
    SubmitRetry(f64),
    /// A difficulty for machines is invalid: flag and value.
    #[error("{0} {1}: expected a number above 0")]
    MachineDifficulty(&'static str, f64),
    /// The first difficulty for machines is below their least one.
    #[error("--start-difficulty {0}: expected --min-difficulty, {1}, or more")]
    StartDifficulty(f64, f64),
    /// A number of machines is invalid: flag and value.
    #[error("{0} {1}: expected 1 to {MAX_MACHINES}")]
    Machines(&'static str, usize),
    /// The kernel is invalid.
    #[error("--kernel: {0}")]
    Kernel(#[from] SelectError),
    /// The OpenCL kernel was chosen for a CPU, or without naming an OpenCL device.
    #[error(
        "--kernel opencl: OpenCL devices have it and no other: --devices with opencl:PLATFORM.DEVICE and without cpu expected"
    )]
    OpenClKernel,
    /// A device name is invalid.
    #[error("--devices {0:?}: expected cpu and opencl:PLATFORM.DEVICE, each once; see iop-miner devices")]
    Device(String),
    /// The number of threads is invalid.
    #[error("--threads {0}: expected 1 to {MAX_THREADS}")]
    Threads(usize),
    /// Too many spare cores, and how many there are.
    #[error("--spare-cores {0}: expected less than the {1} physical cores that this process may use")]
    SpareCores(usize, usize),
    /// The nice value is invalid.
    #[error("--nice {0}: expected -20 to 19")]
    Nice(i32),
    /// The temperature to pause at is invalid.
    #[error(
        "--max-temperature {0}: expected {least} to {most} degrees Celsius",
        least = TEMPERATURES.start(),
        most = TEMPERATURES.end()
    )]
    Temperature(f32),
    /// The number of versions is invalid.
    #[error("--versions {0}: expected 1 to {most}", most = Work::MAX_VERSIONS)]
    Versions(usize),
    /// An error in a configuration file.
    #[error("{0}")]
    File(String),
    /// The length of a measurement is invalid.
    #[error("--seconds {0}: expected more than 0 and at most {MAX_SECONDS}")]
    Seconds(f64),
}

/// Parses the arguments, of which the first is the program's name.
///
/// # Errors
/// They are invalid, or ask for help or the version.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Command, Exit> {
    let cli = Cli::try_parse_from(arguments).map_err(|error| match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Exit::Asked(error.to_string()),
        _ => Exit::Usage(UsageError::Arguments(one_line(&error))),
    })?;
    let command = match cli.command {
        Raw::Mine(raw) => raw.settings().map(Command::Mine),
        Raw::Solo(raw) => raw.settings().map(Command::Solo),
        Raw::Gateway(raw) => raw.settings().map(Command::Gateway),
        Raw::Bench(raw) => raw.settings().map(Command::Bench),
        Raw::Devices(Devices { json }) => Ok(Command::Devices { json }),
        Raw::Setup(raw) => Ok(Command::Setup(raw.settings())),
        Raw::Run(raw) => return raw.command(),
    };
    command.map_err(Exit::Usage)
}

/// clap's error without its paragraphs on usage.
fn one_line(error: &clap::Error) -> String {
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return "no command given: expected setup, run, mine, solo, gateway, bench or devices; see iop-miner --help"
            .to_owned();
    }
    let text = error.to_string();
    let lines = text.lines().map(str::trim);
    let told =
        lines.filter(|line| !line.is_empty() && !line.starts_with("Usage:") && !line.starts_with("For more"));
    let told = told.collect::<Vec<_>>().join(" ");
    format!("{}; see iop-miner --help", told.strip_prefix("error: ").unwrap_or(&told))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Duration;

    use iop_stratum::difficulty::Difficulty;

    use super::*;
    use crate::choice::Choice;
    use crate::device::{DeviceName, Machine};
    use crate::suggest::Suggestion;

    fn read(line: &str) -> Result<Command, Exit> {
        parse(line.split(' ').map(|word| word.replace('_', " ").into()))
    }

    fn usage(line: &str) -> String {
        match read(line) {
            Err(Exit::Usage(error)) => error.to_string(),
            other => panic!("{line}: {other:?}"),
        }
    }

    const MINE: &str = "iop-miner mine --url stratum+tcp://a:1 --user pA.rig";

    #[test]
    fn mine_takes_pools_in_order_and_has_defaults_for_the_rest() {
        let Command::Mine(settings) = read(&format!("{MINE} --url stratum+tcp://b:2")).unwrap() else {
            panic!("mine is mine")
        };
        assert_eq!(settings.pool.urls.iter().map(|url| url.port).collect::<Vec<_>>(), [1, 2]);
        assert_eq!((&*settings.pool.user, &*settings.pool.password), ("pA.rig", "x"));
        assert!(matches!(settings.rig.kernel, Choice::Auto));
        assert_eq!(settings.rig.threads, Machine::here().threads(0));
    }

    #[test]
    fn a_difficulty_is_suggested_as_given_or_as_measured_unless_the_password_has_one() {
        let suggestion = |more: &str| match read(&format!("{MINE}{more}")).unwrap() {
            Command::Mine(settings) => settings.pool.suggestion,
            other => panic!("mine is mine: {other:?}"),
        };
        let quarter = Suggestion::Given(Difficulty::new(0.25).unwrap());
        assert_eq!(suggestion(""), Suggestion::Measured);
        assert_eq!(suggestion(" --suggest-difficulty 0.25"), quarter);
        assert_eq!(suggestion(" --password x,d=2"), Suggestion::Nothing);
        assert_eq!(suggestion(" --password diff=2"), Suggestion::Nothing);
        assert_eq!(suggestion(" --password d=2 --suggest-difficulty 0.25"), quarter);
        assert_eq!(suggestion(" --password bad=2"), Suggestion::Measured);
    }

    #[test]
    fn bench_measures_all_that_the_cpu_can_run_unless_told_otherwise() {
        let Command::Bench(settings) = read("iop-miner bench").unwrap() else { panic!("bench is bench") };
        assert_eq!(settings.kernels.len(), iop_kernels::supported().count());
        let Command::Bench(settings) = read("iop-miner bench --kernel scalar --seconds 0.5").unwrap() else {
            panic!("bench is bench")
        };
        let kernel = settings.kernels[0].kernel();
        assert_eq!((kernel.name(), settings.duration), ("scalar", Duration::from_millis(500)));
        assert_eq!((settings.threads[0], &*settings.versions), (1, &[1][..]));
        let Command::Bench(settings) = read("iop-miner bench --threads 3,2 --versions 1,8").unwrap() else {
            panic!("bench is bench")
        };
        assert_eq!((settings.threads, settings.versions), (vec![3, 2], vec![1, 8]));
        let Command::Mine(settings) = read(&format!("{MINE} --devices opencl:0.1 --kernel opencl")).unwrap()
        else {
            panic!("mine is mine")
        };
        assert_eq!(settings.rig.devices, [DeviceName::OpenCl(0, 1)]);
        let both = "iop-miner bench --devices cpu,opencl:0.1 --kernel opencl";
        let Command::Bench(settings) = read(both).unwrap() else { panic!("bench is bench") };
        assert_eq!(settings.devices, [DeviceName::OpenCl(0, 1)]);
    }

    #[test]
    fn wrong_arguments_are_named_in_one_line_with_what_was_expected() {
        let with = |more: &str| usage(&format!("{MINE} {more}"));
        for (line, expected) in [
            (with("--kernel fast"), "--kernel: unknown kernel \"fast\": expected one of auto, "),
            (with("--kernel opencl"), "--kernel opencl: OpenCL devices have it and no other"),
            (
                usage("iop-miner bench --kernel opencl"),
                "--kernel opencl: OpenCL devices have it and no other",
            ),
            (
                with("--url http://a:1"),
                "--url: malformed pool URL \"http://a:1\": expected stratum+tcp://HOST:PORT",
            ),
            (with("--devices opencl:0"), "--devices \"opencl:0\": expected cpu and opencl:"),
            (with("--devices none"), "--devices \"none\": expected cpu and opencl:"),
            (with("--devices cpu,cpu"), "--devices \"cpu,cpu\": expected cpu and opencl:"),
            (with("--threads 0"), "--threads 0: expected 1 to 1024"),
            (with("--threads many"), "invalid value 'many' for '--threads <N>'"),
            (with("--spare-cores 5000"), "--spare-cores 5000: expected less than the "),
            (with("--nice 20"), "--nice 20: expected -20 to 19"),
            (with("--nice -21"), "--nice -21: expected -20 to 19"),
            (with("--max-temperature 20"), "--max-temperature 20: expected 30 to 120 degrees Celsius"),
            (with("--max-temperature nan"), "--max-temperature NaN: expected 30 to 120"),
            (with("--suggest-difficulty 0"), "--suggest-difficulty 0: expected a number above 0"),
            (with("--suggest-difficulty inf"), "--suggest-difficulty inf: expected a number above 0"),
            (with("--suggest-difficulty=-1"), "--suggest-difficulty -1: expected a number above 0"),
            (with("--frobnicate"), "unexpected argument '--frobnicate' found"),
            (usage("iop-miner mine --url stratum+tcp://a:1 --user="), "--user \"\": expected ADDRESS.WORKER"),
            (
                usage("iop-miner mine --url stratum+tcp://a:1 --user=a_b"),
                "--user \"a b\": expected ADDRESS.WORKER",
            ),
            (
                usage("iop-miner mine --user a"),
                "the following required arguments were not provided: --url <URL>",
            ),
            (usage("iop-miner bench --seconds 0"), "--seconds 0: expected more than 0"),
            (usage("iop-miner bench --versions 17"), "--versions 17: expected 1 to 16"),
            (usage("iop-miner bench --seconds nan"), "--seconds NaN: expected more than 0"),
            (usage("iop-miner bench --kernel none"), "--kernel: unknown kernel \"none\""),
            (usage("iop-miner dig"), "unrecognized subcommand 'dig'"),
            (
                usage("iop-miner"),
                "no command given: expected setup, run, mine, solo, gateway, bench or devices",
            ),
        ] {
            assert!(line.starts_with(expected), "{line}");
            assert!(!line.contains('\n'), "{line}");
        }
    }

    #[test]
    fn help_and_version_are_no_errors() {
        for line in ["iop-miner --help", "iop-miner --version", "iop-miner mine --help"] {
            assert!(matches!(read(line), Err(Exit::Asked(text)) if !text.is_empty()), "{line}");
        }
    }
}
