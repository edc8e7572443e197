//! `run`: turns a configuration file into the flags of the command that its mode names.
//!
//! Here: TOML becomes arguments, and errors about them name the file and its keys. Not here: which flags exist and what
//! they accept: that is left to the command, so a file can contain any of its flags.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::builder::ValueParser;
use clap::{Arg, Args, CommandFactory};
use iop_consensus::params::toml_error;
use iop_mining::files;
use toml::{Table, Value};

use super::{Cli, Command, Exit, UsageError, parse};

/// Modes of a file, and the command that each stands for.
const MODES: [(&str, &str); 3] = [("pool", "mine"), ("solo", "solo"), ("gateway", "gateway")];

#[derive(Debug, Args)]
pub(super) struct Run {
    /// Configuration file, as `iop-miner setup` writes it; comes first
    #[arg(long, value_name = "FILE", default_value = "miner.toml")]
    config: PathBuf,
    /// Flags of the command that the file's mode names; each takes the place of the file's key
    #[arg(value_name = "FLAG", trailing_var_arg = true, allow_hyphen_values = true)]
    flags: Vec<OsString>,
}

impl Run {
    /// Reads the file and passes its contents through the command line's parser.
    pub(super) fn command(self) -> Result<Command, Exit> {
        let is_config = |flag: &OsString| flag.to_str().and_then(name) == Some("config");
        if self.flags.iter().any(is_config) {
            return Err(Exit::Usage(UsageError::File(
                "--config comes first, before all other flags".to_owned(),
            )));
        }
        let text = files::read_text(&self.config, "configuration file");
        let text = text.map_err(|error| Exit::Usage(UsageError::File(error.to_string())))?;
        let asked: Vec<&str> = self.flags.iter().filter_map(|flag| flag.to_str().and_then(name)).collect();
        let folder = self.config.parent().unwrap_or(Path::new(""));
        let in_file =
            |text: &str| Exit::Usage(UsageError::File(format!("{}: {text}", self.config.display())));
        let mut file = File::read(&text, folder, &asked).map_err(|error| in_file(&error))?;
        let arguments = std::mem::take(&mut file.arguments);
        let arguments = ["iop-miner".into(), file.command.into()].into_iter().chain(arguments);
        parse(arguments.chain(self.flags.iter().cloned())).map_err(|exit| match exit {
            Exit::Asked(text) => Exit::Asked(text),
            Exit::Usage(error) => {
                let error = error.to_string();
                let is_flag = asked.iter().any(|name| error.contains(&format!("--{name}")));
                if is_flag { Exit::Usage(UsageError::File(error)) } else { in_file(&file.keys(error)) }
            }
        })
    }
}

/// The name of a flag; `None` if this is not a flag.
fn name(flag: &str) -> Option<&str> {
    flag.strip_prefix("--").map(|flag| flag.split('=').next().unwrap_or(flag)).filter(|name| !name.is_empty())
}

/// A file's mode and keys as command and arguments.
#[derive(Debug)]
struct File {
    command: &'static str,
    arguments: Vec<OsString>,
    /// Each key's flag, and the key.
    names: Vec<(String, String)>,
}

impl File {
    /// Reads a file without the keys whose flags are in `asked`. Relative paths start in `folder`. Errors do not name
    /// the file.
    fn read(text: &str, folder: &Path, asked: &[&str]) -> Result<Self, String> {
        let mut table: Table = toml::from_str(text).map_err(|error| toml_error(text, &error))?;
        let mut cli = Cli::command();
        cli.build();
        let modes = MODES.iter().filter(|(_, command)| cli.find_subcommand(command).is_some());
        let expected = || modes.clone().map(|(mode, _)| format!("{mode:?}")).collect::<Vec<_>>().join(" or ");
        let mode = match table.remove("mode") {
            Some(Value::String(mode)) => mode,
            Some(_) => return Err(format!("mode: expected {}", expected())),
            None => return Err(format!("mode is missing: expected mode = {}", expected())),
        };
        let (_, command) = modes
            .clone()
            .find(|(known, _)| *known == mode)
            .ok_or_else(|| format!("mode {mode:?}: expected {}", expected()))?;
        let command: &'static str = command;
        let of_command = cli.find_subcommand(command).expect("modes without a command are left out");
        let mut file = Self { command, arguments: Vec::new(), names: Vec::new() };
        for (key, value) in table {
            let flag = key.replace('_', "-");
            let argument = of_command.get_arguments().find(|argument| argument.get_long() == Some(&*flag));
            let argument = argument.filter(|_| !matches!(&*flag, "help" | "version")).ok_or_else(|| {
                format!("unknown key {key:?} with mode = {mode:?}; see iop-miner {command} --help")
            })?;
            if !asked.contains(&&*flag) {
                file.add(&key, argument, value, folder)?;
                file.names.push((flag, key));
            }
        }
        Ok(file)
    }

    fn add(&mut self, key: &str, argument: &Arg, value: Value, folder: &Path) -> Result<(), String> {
        let takes_value = argument.get_num_args().is_some_and(|number| number.takes_values());
        let flag = format!("--{}", argument.get_long().expect("found by its name"));
        match (value, takes_value) {
            (Value::Boolean(true), false) => self.arguments.push(flag.into()),
            (Value::Boolean(false), false) => {}
            (_, false) => return Err(format!("{key}: expected true or false")),
            (Value::Array(values), true) => {
                values
                    .into_iter()
                    .try_for_each(|value| self.add_value(key, &flag, argument, value, folder))?;
            }
            (value, true) => self.add_value(key, &flag, argument, value, folder)?,
        }
        Ok(())
    }

    fn add_value(
        &mut self,
        key: &str,
        flag: &str,
        argument: &Arg,
        value: Value,
        folder: &Path,
    ) -> Result<(), String> {
        let text = match value {
            Value::String(text) => text,
            Value::Integer(number) => number.to_string(),
            Value::Float(number) => number.to_string(),
            _ => return Err(format!("{key}: expected a text, a number or a list of them")),
        };
        let mut whole = OsString::from(format!("{flag}="));
        let is_path = argument.get_value_parser().type_id() == ValueParser::path_buf().type_id();
        whole.push(if is_path { folder.join(text).into_os_string() } else { text.into() });
        self.arguments.push(whole);
        Ok(())
    }

    /// Turns an error about flags into one about the file's keys.
    fn keys(&self, complaint: String) -> String {
        self.names.iter().fold(complaint, |text, (flag, key)| text.replace(&format!("--{flag}"), key))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::choice::Choice;
    use crate::mine::MineSettings;

    const FILE: &str = r#"
        mode = "pool"
        url = ["stratum+tcp://a:1", "stratum+tcp://b:2"]
        user = "pA.rig"
        password = "-x"
        devices = ["cpu", "opencl:0.1"]
        threads = 1
        suggest_difficulty = 0.5
        no_pin = true
        nice = -3
        max_temperature = 80
        kernel = "scalar"
    "#;

    fn run(text: &str, flags: &str) -> Result<Command, Exit> {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("m.toml");
        std::fs::write(&config, text).unwrap();
        let more = flags.split(' ').filter(|flag| !flag.is_empty()).map(OsString::from);
        let fixed = ["iop-miner".into(), "run".into(), "--config".into(), config.into_os_string()];
        parse(fixed.into_iter().chain(more))
    }

    fn mines(text: &str, flags: &str) -> MineSettings {
        match run(text, flags) {
            Ok(Command::Mine(settings)) => settings,
            other => panic!("{text} {flags}: {other:?}"),
        }
    }

    fn complaint(text: &str, flags: &str) -> String {
        match run(text, flags) {
            Err(Exit::Usage(error)) => error.to_string(),
            other => panic!("{text} {flags}: {other:?}"),
        }
    }

    #[test]
    fn a_files_keys_are_the_flags() {
        let settings = mines(FILE, "");
        assert_eq!(settings.pool.urls.iter().map(|url| url.port).collect::<Vec<_>>(), [1, 2]);
        assert_eq!((&*settings.pool.user, &*settings.pool.password), ("pA.rig", "-x"));
        assert_eq!((settings.rig.devices.len(), settings.rig.threads), (2, 1));
        let tuning = settings.rig.tuning;
        assert_eq!((tuning.pin, tuning.nice, tuning.max_temperature), (false, Some(-3), Some(80.0)));
        assert!(matches!(settings.rig.kernel, Choice::Named(_)));
    }

    #[test]
    fn flags_take_the_place_of_keys() {
        let settings = mines(FILE, "--url stratum+tcp://c:3 --threads=2 --kernel auto");
        assert_eq!(settings.pool.urls.iter().map(|url| url.port).collect::<Vec<_>>(), [3]);
        assert_eq!(settings.rig.threads, 2);
        assert!(matches!(settings.rig.kernel, Choice::Auto));
        // Even a key with an invalid value is overridden.
        assert_eq!(mines(&FILE.replace("threads = 1", "threads = 0"), "--threads 3").rig.threads, 3);
        assert!(matches!(run(FILE, "--help"), Err(Exit::Asked(text)) if text.contains("--config")));
    }

    #[test]
    fn what_is_wrong_is_named_by_file_and_key() {
        let with = |more: &str| complaint(&format!("{FILE}\n{more}"), "");
        for (line, expected) in [
            (with("threads_ = 2"), "m.toml: unknown key \"threads_\" with mode = \"pool\""),
            (with("help = true"), "m.toml: unknown key \"help\""),
            (with("spare_cores = 5000"), "m.toml: spare_cores 5000: expected less than"),
            (with("spare_cores = true"), "m.toml: spare_cores: expected a text, a number"),
            (with("spare_cores = \"x\""), "m.toml: invalid value 'x' for 'spare_cores <N>'"),
            (with("spare_cores = [0, 1]"), "spare_cores <N>' cannot be used multiple times"),
            (with("[pool]"), "m.toml: unknown key \"pool\""),
            (with("threads ="), "m.toml: line 14: "),
            (
                complaint(&FILE.replace("no_pin = true", "no_pin = 1"), ""),
                "m.toml: no_pin: expected true or false",
            ),
            (
                complaint(&FILE.replace("user", "# user"), ""),
                "m.toml: the following required arguments were not provided: --user",
            ),
            (complaint("", ""), "m.toml: mode is missing: expected mode = \"pool\""),
            (complaint("mode = \"bench\"", ""), "m.toml: mode \"bench\": expected \"pool\""),
            (complaint("mode = 1", ""), "m.toml: mode: expected \"pool\""),
        ] {
            assert!(line.contains(expected), "{line}");
            assert!(!line.contains('\n'), "{line}");
        }
        // An error on the command line is not blamed on the file.
        let line = complaint(FILE, "--threads 0");
        assert!(line.starts_with("--threads 0: expected 1 to 1024"), "{line}");
        for late in ["--threads 1 --config other.toml", "--threads 1 --config=other.toml"] {
            assert_eq!(complaint(FILE, late), "--config comes first, before all other flags");
        }
        let arguments = ["iop-miner", "run", "--config", "/nowhere/m.toml"].map(OsString::from);
        let Err(Exit::Usage(error)) = parse(arguments) else { panic!("there is no such file") };
        assert!(
            error.to_string().starts_with("configuration file /nowhere/m.toml cannot be read: "),
            "{error}"
        );
    }

    #[test]
    fn paths_begin_in_the_files_folder() {
        #[derive(Debug, clap::Parser)]
        struct Paths {
            #[arg(long)]
            key_file: PathBuf,
            #[arg(long)]
            name: String,
        }
        let mut command = Paths::command();
        command.build();
        let mut file = File { command: "solo", arguments: Vec::new(), names: Vec::new() };
        for (key, value) in [("key_file", "k.wif"), ("name", "n"), ("key_file", "/etc/k.wif")] {
            let argument = command.get_arguments().find(|argument| argument.get_id() == key).unwrap();
            file.add(key, argument, Value::String(value.to_owned()), Path::new("conf")).unwrap();
        }
        assert_eq!(file.arguments, ["--key-file=conf/k.wif", "--name=n", "--key-file=/etc/k.wif"]);
    }
}
