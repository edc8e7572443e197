//! From arguments to settings.

use std::ffi::OsString;
use std::time::Duration;

use clap::Parser;
use clap::error::ErrorKind;
use iop_kernels::{SelectError, Work};
use iop_stratum::difficulty::Difficulty;

use super::args::{Bench, Cli, Devices, Mine, Raw};
use crate::bench::BenchSettings;
use crate::choice::Choice;
use crate::device::DeviceName;
use crate::devices::cpu_threads;
use crate::mine::MineSettings;
use crate::suggest::Suggestion;
use crate::upstream::{PoolUrl, UrlError};

/// Most CPU threads. The largest machines have a few hundred cores; more is a slip of the finger.
const MAX_THREADS: usize = 1024;
/// Longest measurement in seconds: an hour.
const MAX_SECONDS: f64 = 3600.0;
/// Longest user name and password, in bytes: what pools take.
const MAX_CREDENTIAL: usize = 127;

/// What to do.
#[derive(Clone, Debug)]
pub enum Command {
    /// `mine`
    Mine(MineSettings),
    /// `bench`
    Bench(BenchSettings),
    /// `devices`
    Devices {
        /// For scripts.
        json: bool,
    },
}

/// Why there is nothing to do.
#[derive(Debug)]
pub enum Exit {
    /// Help or version was asked for: this text, and success.
    Asked(String),
    /// The arguments are wrong.
    Usage(UsageError),
}

/// What is wrong with the arguments, in one line.
#[derive(Debug, thiserror::Error)]
pub enum UsageError {
    /// Not what the flags look like.
    #[error("{0}")]
    Arguments(String),
    /// A pool's URL.
    #[error("--url: {0}")]
    Url(#[from] UrlError),
    /// The user.
    #[error(
        "--user {0:?}: expected ADDRESS.WORKER, 1 to {MAX_CREDENTIAL} printable characters without spaces"
    )]
    User(String),
    /// The password. Not repeated here.
    #[error("--password: expected at most {MAX_CREDENTIAL} bytes")]
    Password,
    /// The difficulty to suggest.
    #[error("--suggest-difficulty {0}: expected a number above 0")]
    Difficulty(f64),
    /// The kernel.
    #[error("--kernel: {0}")]
    Kernel(#[from] SelectError),
    /// A device.
    #[error("--devices {0:?}: expected cpu and opencl:PLATFORM.DEVICE, each once; see iop-miner devices")]
    Device(String),
    /// The number of threads.
    #[error("--threads {0}: expected 1 to {MAX_THREADS}")]
    Threads(usize),
    /// The number of versions.
    #[error("--versions {0}: expected 1 to {most}", most = Work::MAX_VERSIONS)]
    Versions(usize),
    /// The length of a measurement.
    #[error("--seconds {0}: expected more than 0 and at most {MAX_SECONDS}")]
    Seconds(f64),
}

/// Reads the arguments, the program's name first.
///
/// # Errors
/// When they are wrong, and when they ask for help or the version.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Command, Exit> {
    let cli = Cli::try_parse_from(arguments).map_err(|error| match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Exit::Asked(error.to_string()),
        _ => Exit::Usage(UsageError::Arguments(one_line(&error))),
    })?;
    let command = match cli.command {
        Raw::Mine(raw) => mine(raw).map(Command::Mine),
        Raw::Bench(raw) => bench(&raw).map(Command::Bench),
        Raw::Devices(Devices { json }) => Ok(Command::Devices { json }),
    };
    command.map_err(Exit::Usage)
}

/// clap's complaint without its paragraphs on usage.
fn one_line(error: &clap::Error) -> String {
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return "no command given: expected mine, bench or devices; see iop-miner --help".to_owned();
    }
    let text = error.to_string();
    let lines = text.lines().map(str::trim);
    let told =
        lines.filter(|line| !line.is_empty() && !line.starts_with("Usage:") && !line.starts_with("For more"));
    let told = told.collect::<Vec<_>>().join(" ");
    format!("{}; see iop-miner --help", told.strip_prefix("error: ").unwrap_or(&told))
}

fn mine(raw: Mine) -> Result<MineSettings, UsageError> {
    let urls = raw.urls.iter().map(|url| url.parse()).collect::<Result<Vec<PoolUrl>, _>>()?;
    let odd = |character: char| character.is_control() || character.is_whitespace();
    if raw.user.is_empty() || raw.user.len() > MAX_CREDENTIAL || raw.user.contains(odd) {
        return Err(UsageError::User(raw.user));
    }
    if raw.password.len() > MAX_CREDENTIAL {
        return Err(UsageError::Password);
    }
    Ok(MineSettings {
        suggestion: suggestion(raw.suggest_difficulty, &raw.password)?,
        urls,
        devices: devices(&raw.devices)?,
        user: raw.user,
        password: raw.password,
        kernel: kernel(&raw.kernel)?,
        threads: threads(raw.threads)?,
    })
}

/// Whoever names a difficulty in the password gets that one: the pool hears a suggestion after the password.
fn suggestion(asked: Option<f64>, password: &str) -> Result<Suggestion, UsageError> {
    let names_one = |option: &str| option.starts_with("d=") || option.starts_with("diff=");
    match asked {
        Some(number) => Difficulty::new(number).map(Suggestion::Given).ok_or(UsageError::Difficulty(number)),
        None if password.split(',').map(str::trim).any(names_one) => Ok(Suggestion::Nothing),
        None => Ok(Suggestion::Measured),
    }
}

fn bench(raw: &Bench) -> Result<BenchSettings, UsageError> {
    let kernels = match &*raw.kernel {
        "all" => iop_kernels::supported().map(Choice::Named).collect(),
        name => vec![kernel(name)?],
    };
    if !(raw.seconds > 0.0 && raw.seconds <= MAX_SECONDS) {
        return Err(UsageError::Seconds(raw.seconds));
    }
    let duration = Duration::from_secs_f64(raw.seconds);
    let mut threads = match &*raw.threads {
        [] => vec![1, self::threads(None)?],
        asked => asked.iter().map(|n| self::threads(Some(*n))).collect::<Result<_, _>>()?,
    };
    threads.dedup();
    let versions = raw.versions.clone();
    if let Some(odd) = versions.iter().find(|n| !(1..=Work::MAX_VERSIONS).contains(*n)) {
        return Err(UsageError::Versions(*odd));
    }
    let devices = devices(&raw.devices)?;
    Ok(BenchSettings {
        devices,
        kernels,
        threads,
        versions,
        duration,
        json: raw.json,
        plot: raw.plot.clone(),
    })
}

fn devices(names: &[String]) -> Result<Vec<DeviceName>, UsageError> {
    let wrong = || UsageError::Device(names.join(","));
    let devices: Vec<DeviceName> =
        names.iter().map(|name| name.parse()).collect::<Result<_, _>>().map_err(|()| wrong())?;
    let twice = devices.iter().enumerate().any(|(i, device)| devices[..i].contains(device));
    if twice { Err(wrong()) } else { Ok(devices) }
}

fn kernel(name: &str) -> Result<Choice, SelectError> {
    if name == "auto" { Ok(Choice::Auto) } else { iop_kernels::by_name(name).map(Choice::Named) }
}

fn threads(asked: Option<usize>) -> Result<usize, UsageError> {
    let threads = asked.unwrap_or_else(|| cpu_threads().min(MAX_THREADS));
    if (1..=MAX_THREADS).contains(&threads) { Ok(threads) } else { Err(UsageError::Threads(threads)) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

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
        assert_eq!(settings.urls.iter().map(|url| url.port).collect::<Vec<_>>(), [1, 2]);
        assert_eq!((&*settings.user, &*settings.password), ("pA.rig", "x"));
        assert!(matches!(settings.kernel, Choice::Auto));
        assert_eq!(settings.threads, cpu_threads());
    }

    #[test]
    fn a_difficulty_is_suggested_as_given_or_as_measured_unless_the_password_has_one() {
        let suggestion = |more: &str| match read(&format!("{MINE}{more}")).unwrap() {
            Command::Mine(settings) => settings.suggestion,
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
    }

    #[test]
    fn wrong_arguments_are_named_in_one_line_with_what_was_expected() {
        let with = |more: &str| usage(&format!("{MINE} {more}"));
        for (line, expected) in [
            (with("--kernel fast"), "--kernel: unknown kernel \"fast\": expected one of auto, "),
            (
                with("--url http://a:1"),
                "--url: malformed pool URL \"http://a:1\": expected stratum+tcp://HOST:PORT",
            ),
            (with("--devices opencl:0"), "--devices \"opencl:0\": expected cpu and opencl:"),
            (with("--devices cpu,cpu"), "--devices \"cpu,cpu\": expected cpu and opencl:"),
            (with("--threads 0"), "--threads 0: expected 1 to 1024"),
            (with("--threads many"), "invalid value 'many' for '--threads <N>'"),
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
            (usage("iop-miner"), "no command given: expected mine, bench or devices"),
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
