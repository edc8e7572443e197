//! From arguments and configuration file to validated settings, in this one place.

use std::fs::File;
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use iop_consensus::license::key::has_wif_form;
use iop_consensus::params::Params;
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::args::{NetworkArgs, RunArgs};
use crate::failure::Failure;

/// The largest configuration, network, key or password file, in bytes; real ones have some hundred.
const MAX_FILE_BYTES: u64 = 64 * 1024;

/// What the node runs with.
pub(crate) struct Settings {
    /// The network.
    pub(crate) params: Params,
    /// Where everything is kept.
    pub(crate) datadir: PathBuf,
    /// Where JSON-RPC listens.
    pub(crate) rpc_bind: SocketAddr,
    /// JSON-RPC user and password; a cookie without.
    pub(crate) rpc_user_password: Option<(String, Zeroizing<String>)>,
    /// What is logged.
    pub(crate) log: tracing::Level,
}

/// The configuration file: the long flags with underscores.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ConfigFile {
    network: Option<String>,
    network_file: Option<PathBuf>,
    datadir: Option<PathBuf>,
    rpc_bind: Option<SocketAddr>,
    rpc_user: Option<String>,
    rpc_password_file: Option<PathBuf>,
    log: Option<String>,
}

impl Settings {
    /// Reads the files that the arguments name, and checks everything.
    pub(crate) fn from_args(args: RunArgs) -> Result<Self, Failure> {
        let config = args.config.as_deref().map(read_config).transpose()?.unwrap_or_default();
        let network = if args.network.network.is_some() || args.network.network_file.is_some() {
            args.network
        } else {
            NetworkArgs { network: config.network, network_file: config.network_file }
        };
        let params = network_params(&network)?;
        let datadir = args.datadir.or(config.datadir).map_or_else(|| default_datadir(&params.name), Ok)?;
        let default_bind = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), params.rpc_port);
        let rpc_user_password =
            match (args.rpc_user.or(config.rpc_user), args.rpc_password_file.or(config.rpc_password_file)) {
                (Some(user), Some(file)) => Some((user, read_secret(&file)?)),
                (None, None) => None,
                _ => return Err(Failure::Usage("rpc_user and rpc_password_file go together".to_owned())),
            };
        Ok(Self {
            rpc_bind: args.rpc_bind.or(config.rpc_bind).unwrap_or(default_bind),
            log: log_level(args.log.or(config.log).as_deref().unwrap_or("info"))?,
            params,
            datadir,
            rpc_user_password,
        })
    }
}

/// Paths in the file begin at its own folder.
fn read_config(path: &Path) -> Result<ConfigFile, Failure> {
    let text = read_text(path)?;
    let config: ConfigFile = toml::from_str(&text).map_err(|error| {
        let line = error.span().map_or(1, |span| text[..span.start].matches('\n').count() + 1);
        Failure::Usage(format!("{}: line {line}: {}", path.display(), error.message().replace('\n', " ")))
    })?;
    let folder = path.parent().unwrap_or(Path::new(""));
    let from_folder = |path: Option<PathBuf>| path.map(|path| folder.join(path));
    Ok(ConfigFile {
        network_file: from_folder(config.network_file),
        datadir: from_folder(config.datadir),
        rpc_password_file: from_folder(config.rpc_password_file),
        ..config
    })
}

/// The network that `--network` or `--network-file` names; main without either.
pub(crate) fn network_params(args: &NetworkArgs) -> Result<Params, Failure> {
    match (&args.network, &args.network_file) {
        (Some(name), None) => Params::by_name(name).ok_or_else(|| {
            Failure::Usage(format!(
                "network '{name}' is not known, one of {} expected",
                Params::NAMES.join(", ")
            ))
        }),
        (None, Some(path)) => Params::from_network_file(&read_text(path)?)
            .map_err(|error| Failure::Usage(format!("{}: {error}", path.display()))),
        (None, None) => Ok(Params::main()),
        (Some(_), Some(_)) => Err(Failure::Usage("give network or network_file, not both".to_owned())),
    }
}

fn default_datadir(network: &str) -> Result<PathBuf, Failure> {
    let home = std::env::var_os("HOME").filter(|home| !home.is_empty());
    let home = home.ok_or_else(|| Failure::Usage("HOME is not set: give --datadir DIR".to_owned()))?;
    Ok(PathBuf::from(home).join(".iop-node").join(network))
}

fn log_level(text: &str) -> Result<tracing::Level, Failure> {
    text.parse().map_err(|_| {
        Failure::Usage(format!(
            "log level '{text}' is not known, one of error, warn, info, debug, trace expected"
        ))
    })
}

/// A regular file's text, of bounded size.
fn read_text(path: &Path) -> Result<Zeroizing<String>, Failure> {
    read_open(path, &open_regular(path)?)
}

/// The first line of a file that only its owner may read.
pub(crate) fn read_secret(path: &Path) -> Result<Zeroizing<String>, Failure> {
    // A path in the configuration file has that file's folder before it.
    if path.file_name().and_then(|name| name.to_str()).is_some_and(has_wif_form) {
        return Err(Failure::Usage("a private key was given where a file name is expected".to_owned()));
    }
    let file = open_regular(path)?;
    let mode = file.metadata().map_err(|error| unreadable(path, &error))?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(Failure::Usage(format!(
            "{} has mode {mode:04o}: it holds a secret, 0600 expected",
            path.display()
        )));
    }
    let text = read_open(path, &file)?;
    let secret = Zeroizing::new(text.lines().next().unwrap_or_default().trim().to_owned());
    if secret.is_empty() {
        return Err(Failure::Usage(format!(
            "{} is empty, a secret in its first line expected",
            path.display()
        )));
    }
    Ok(secret)
}

/// Opened without waiting: a pipe without a writer would hold the program up for ever.
fn open_regular(path: &Path) -> Result<File, Failure> {
    let nonblocking = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let open = File::options().read(true).custom_flags(nonblocking).open(path);
    let file = open.map_err(|error| unreadable(path, &error))?;
    if file.metadata().is_ok_and(|meta| meta.is_file()) {
        return Ok(file);
    }
    Err(Failure::Usage(format!("{} is not a regular file", path.display())))
}

fn read_open(path: &Path, file: &File) -> Result<Zeroizing<String>, Failure> {
    let mut text = Zeroizing::new(String::new());
    file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text).map_err(|error| unreadable(path, &error))?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(Failure::Usage(format!("{} has more than {MAX_FILE_BYTES} bytes", path.display())));
    }
    Ok(text)
}

fn unreadable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::Usage(format!("{} cannot be read: {error}", path.display()))
}
