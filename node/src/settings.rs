//! Turns arguments and configuration file into validated settings.

use std::fs::File;
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bitcoin::pow::Work;
use iop_consensus::license::key::has_wif_form;
use iop_consensus::params::{Params, toml_error};
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::args::{NetworkArgs, RunArgs};
use crate::chain::options::Options;
use crate::chain::prune::MIN_PRUNE_MIB;
use crate::failure::Failure;
use crate::mercury::{self, MercurySettings};
use crate::rpc::Subnet;

/// Maximum length in bytes of a configuration, network, key or password file; real ones have a few hundred.
const MAX_FILE_BYTES: u64 = 64 * 1024;

/// Memory for the mempool without `max_mempool`, megabytes (Core's default).
const DEFAULT_MAX_MEMPOOL: usize = 300;
/// Default timeout for JSON-RPC clients, seconds (Core's -rpcservertimeout).
const RPC_TIMEOUT: u64 = 30;
/// Highest value allowed for it.
const MAX_RPC_TIMEOUT: u64 = 3_600;

/// The node's validated settings.
pub(crate) struct Settings {
    /// The network.
    pub(crate) params: Params,
    /// The data directory.
    pub(crate) datadir: PathBuf,
    /// The address that JSON-RPC listens on.
    pub(crate) rpc_bind: SocketAddr,
    /// JSON-RPC user and password; `None` for a cookie.
    pub(crate) rpc_user_password: Option<(String, Zeroizing<String>)>,
    /// Maximum memory of the mempool, bytes.
    pub(crate) max_mempool: usize,
    /// The P2P settings.
    pub(crate) p2p: P2pSettings,
    /// Addresses that may call JSON-RPC besides local ones; empty allows all.
    pub(crate) rpc_allow_ip: Vec<Subnet>,
    /// The timeout for JSON-RPC clients.
    pub(crate) rpc_timeout: Duration,
    /// The address that metrics are served on.
    pub(crate) metrics_bind: Option<SocketAddr>,
    /// Memory, disk space, and which scripts are assumed valid.
    pub(crate) chain: Options,
    /// The Mercury relay, if one is hosted.
    pub(crate) mercury: Option<MercurySettings>,
    /// The log level.
    pub(crate) log: tracing::Level,
}

/// The P2P settings.
pub(crate) struct P2pSettings {
    /// Where to listen for peers.
    pub(crate) listen: Listen,
    /// If not empty, the only peers to connect to.
    pub(crate) connect: Vec<String>,
    /// Peers to connect to besides others.
    pub(crate) add_peer: Vec<String>,
    /// Whether DNS seeds may be queried.
    pub(crate) dns_seed: bool,
}

/// Where to listen for peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Listen {
    /// Nowhere.
    No,
    /// At this address; it is an error if the port is in use.
    At(SocketAddr),
    /// At this address if the port is free, so that several nodes on one machine need no configuration.
    IfFree(SocketAddr),
}

/// The configuration file: its keys are the long flags with underscores.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ConfigFile {
    network: Option<String>,
    network_file: Option<PathBuf>,
    datadir: Option<PathBuf>,
    rpc_bind: Option<SocketAddr>,
    rpc_user: Option<String>,
    rpc_password_file: Option<PathBuf>,
    max_mempool: Option<usize>,
    p2p_bind: Option<SocketAddr>,
    no_listen: Option<bool>,
    connect: Option<Vec<String>>,
    add_peer: Option<Vec<String>>,
    no_dns_seed: Option<bool>,
    #[serde(default)]
    rpc_allow_ip: Vec<String>,
    rpc_timeout: Option<u64>,
    metrics_bind: Option<SocketAddr>,
    dbcache: Option<u64>,
    prune: Option<u64>,
    assume_valid: Option<String>,
    min_chain_work: Option<String>,
    max_tip_age: Option<u64>,
    #[serde(default)]
    mercury_bind: Vec<String>,
    no_mercury: Option<bool>,
    #[serde(default)]
    mercury_external: Vec<String>,
    #[serde(default)]
    mercury_peer: Vec<String>,
    mercury_hosting: Option<String>,
    mercury_owner: Option<String>,
    mercury_max_hosted: Option<usize>,
    log: Option<String>,
}

impl Settings {
    /// Reads the files that the arguments name, and validates everything.
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
        let rpc_user_password = user_password(
            args.rpc_user.or(config.rpc_user),
            args.rpc_password_file.or(config.rpc_password_file),
        )?;
        let connect = named_peers(args.connect, config.connect, "connect")?;
        let p2p = P2pSettings {
            listen: listen(
                (args.p2p_bind, args.no_listen),
                (config.p2p_bind, config.no_listen),
                !connect.is_empty(),
                &params,
            )?,
            connect,
            add_peer: named_peers(args.add_peer, config.add_peer, "add_peer")?,
            dns_seed: !(args.no_dns_seed || config.no_dns_seed.unwrap_or(false)),
        };
        let rpc_allow_ip = allowed_ips(args.rpc_allow_ip, &config.rpc_allow_ip)?;
        let mut chain = chain_options(
            &params,
            args.dbcache.or(config.dbcache),
            args.prune.or(config.prune),
            args.assume_valid.or(config.assume_valid).as_deref(),
            args.min_chain_work.or(config.min_chain_work).as_deref(),
        )?;
        chain.max_tip_age = args.max_tip_age.or(config.max_tip_age).unwrap_or(chain.max_tip_age);
        let no_mercury = args.mercury.no_mercury
            || config.no_mercury == Some(true) && args.mercury.mercury_bind.is_empty();
        let given = mercury::Given {
            bind: either(args.mercury.mercury_bind, config.mercury_bind),
            external: either(args.mercury.mercury_external, config.mercury_external),
            peers: either(args.mercury.mercury_peer, config.mercury_peer),
            hosting: args.mercury.mercury_hosting.or(config.mercury_hosting),
            owner: args.mercury.mercury_owner.or(config.mercury_owner),
            max_hosted: args.mercury.mercury_max_hosted.or(config.mercury_max_hosted),
        };
        Ok(Self {
            mercury: MercurySettings::from_given(&given, &params.name)?.filter(|_| !no_mercury),
            chain,
            rpc_allow_ip,
            rpc_timeout: rpc_timeout(args.rpc_timeout.or(config.rpc_timeout))?,
            metrics_bind: args.metrics_bind.or(config.metrics_bind),
            rpc_bind: args.rpc_bind.or(config.rpc_bind).unwrap_or(default_bind),
            max_mempool: max_mempool(args.max_mempool.or(config.max_mempool).unwrap_or(DEFAULT_MAX_MEMPOOL))?,
            log: log_level(args.log.or(config.log).as_deref().unwrap_or("info"))?,
            params,
            datadir,
            rpc_user_password,
            p2p,
        })
    }
}

/// The flags' values, or else the file's.
fn either(args: Vec<String>, config: Vec<String>) -> Vec<String> {
    if args.is_empty() { config } else { args }
}

/// The user and password of JSON-RPC: both are given, or neither.
fn user_password(
    user: Option<String>,
    file: Option<PathBuf>,
) -> Result<Option<(String, Zeroizing<String>)>, Failure> {
    match (user, file) {
        (Some(user), Some(file)) => Ok(Some((user, read_secret(&file)?))),
        (None, None) => Ok(None),
        _ => Err(Failure::Usage("rpc_user and rpc_password_file go together".to_owned())),
    }
}

/// Who may call JSON-RPC, from the flags or else from the file.
fn allowed_ips(args: Vec<Subnet>, config: &[String]) -> Result<Vec<Subnet>, Failure> {
    if !args.is_empty() {
        return Ok(args);
    }
    let parsed = config.iter().map(|text| text.parse::<Subnet>());
    parsed.collect::<Result<_, _>>().map_err(|error| Failure::Usage(format!("rpc_allow_ip: {error}")))
}

/// Where to listen for peers, from flags and file. With `--connect` the node does not listen, as in the reference,
/// unless an address is given. Private chains listen on loopback only.
fn listen(
    (bind, no_listen): (Option<SocketAddr>, bool),
    (file_bind, file_no_listen): (Option<SocketAddr>, Option<bool>),
    connects: bool,
    params: &Params,
) -> Result<Listen, Failure> {
    let from_file = bind.is_none() && !no_listen;
    if from_file && file_bind.is_some() && file_no_listen == Some(true) {
        return Err(Failure::Usage("give p2p_bind or no_listen, not both".to_owned()));
    }
    if let Some(address) = bind.or(file_bind.filter(|_| from_file)) {
        return Ok(Listen::At(address));
    }
    if no_listen || file_no_listen == Some(true) || connects {
        return Ok(Listen::No);
    }
    let ip = if params.mine_on_demand { Ipv4Addr::LOCALHOST } else { Ipv4Addr::UNSPECIFIED };
    Ok(Listen::IfFree(SocketAddr::new(IpAddr::V4(ip), params.p2p_port)))
}

/// Peers from the flags, or else from the file: an address or host name, with or without a port.
fn named_peers(args: Vec<String>, config: Option<Vec<String>>, what: &str) -> Result<Vec<String>, Failure> {
    let named = if args.is_empty() { config.unwrap_or_default() } else { args };
    match named.iter().find(|name| !is_peer_name(name)) {
        None => Ok(named),
        Some(name) => Err(Failure::Usage(format!(
            "{what} '{name}' is no peer, an address or a host name expected, such as 127.0.0.1:4877"
        ))),
    }
}

fn is_peer_name(name: &str) -> bool {
    if name.parse::<SocketAddr>().is_ok() || name.parse::<IpAddr>().is_ok() {
        return true;
    }
    let (host, port) = name.split_once(':').unwrap_or((name, "1"));
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.' || c == '_';
    // A name of digits and dots only would be an invalid address.
    let letters = host.chars().any(|c| c.is_ascii_alphabetic());
    letters && host.chars().all(plain) && port.parse::<u16>().is_ok_and(|port| port > 0)
}

/// The chain's options as given, with the network's defaults.
pub(crate) fn chain_options(
    params: &Params,
    dbcache: Option<u64>,
    prune: Option<u64>,
    assume_valid: Option<&str>,
    min_chain_work: Option<&str>,
) -> Result<Options, Failure> {
    let mut options = Options::of(params);
    if let Some(mib) = dbcache {
        let bytes = usize::try_from(mib).ok().filter(|mib| (4..=1 << 20).contains(mib)).map(|mib| mib << 20);
        let bytes = bytes
            .ok_or_else(|| Failure::Usage(format!("dbcache is {mib} MiB, 4 to {} expected", 1 << 20)))?;
        (options.coin_cache, options.database) = Options::shares(bytes);
    }
    options.prune = match prune {
        None | Some(0) => None,
        Some(mib) if (MIN_PRUNE_MIB..1 << 40).contains(&mib) => Some(mib << 20),
        Some(mib) => {
            return Err(Failure::Usage(format!(
                "prune is {mib} MiB, 0 or at least {MIN_PRUNE_MIB} expected"
            )));
        }
    };
    options.assume_valid = match assume_valid {
        None => options.assume_valid,
        Some("0") => None,
        Some(text) => Some(text.parse().map_err(|_| {
            Failure::Usage(format!("assume_valid is '{text}', 0 or a block hash of 64 hex digits expected"))
        })?),
    };
    if let Some(text) = min_chain_work {
        let bytes =
            hex::decode(format!("{text:0>64}")).ok().and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
        options.minimum_chain_work = bytes.map(Work::from_be_bytes).ok_or_else(|| {
            Failure::Usage(format!("min_chain_work is '{text}', up to 64 hex digits expected"))
        })?;
    }
    Ok(options)
}

/// Reads the configuration file. Paths in it are relative to its directory.
fn read_config(path: &Path) -> Result<ConfigFile, Failure> {
    let text = read_text(path)?;
    let config: ConfigFile = toml::from_str(&text)
        .map_err(|error| Failure::Usage(format!("{}: {}", path.display(), toml_error(&text, &error))))?;
    if config.datadir.as_ref().is_some_and(|datadir| datadir.as_os_str().is_empty()) {
        return Err(Failure::Usage(format!("{}: datadir is empty, a folder expected", path.display())));
    }
    let folder = path.parent().unwrap_or(Path::new(""));
    let from_folder = |path: Option<PathBuf>| path.map(|path| folder.join(path));
    Ok(ConfigFile {
        network_file: from_folder(config.network_file),
        datadir: from_folder(config.datadir),
        rpc_password_file: from_folder(config.rpc_password_file),
        ..config
    })
}

/// The network of `--network` or `--network-file`; main if neither is given.
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

fn rpc_timeout(seconds: Option<u64>) -> Result<Duration, Failure> {
    let seconds = seconds.unwrap_or(RPC_TIMEOUT);
    if !(1..=MAX_RPC_TIMEOUT).contains(&seconds) {
        return Err(Failure::Usage(format!(
            "rpc_timeout is {seconds}, 1 to {MAX_RPC_TIMEOUT} seconds expected"
        )));
    }
    Ok(Duration::from_secs(seconds))
}

/// The default data directory of a network.
pub(crate) fn default_datadir(network: &str) -> Result<PathBuf, Failure> {
    let home = std::env::var_os("HOME").filter(|home| !home.is_empty());
    let home = home.ok_or_else(|| Failure::Usage("HOME is not set: give --datadir DIR".to_owned()))?;
    Ok(PathBuf::from(home).join(".iop-node").join(network))
}

/// Converts megabytes to bytes. A pool too small for the longest chain of unconfirmed transactions would evict
/// parts of it.
fn max_mempool(megabytes: usize) -> Result<usize, Failure> {
    let range = 5..=1_000_000;
    if !range.contains(&megabytes) {
        return Err(Failure::Usage(format!("max_mempool is {megabytes} MB, 5 to 1000000 expected")));
    }
    Ok(megabytes * 1_000_000)
}

/// Parses a log level.
pub(crate) fn log_level(text: &str) -> Result<tracing::Level, Failure> {
    text.parse().map_err(|_| {
        Failure::Usage(format!(
            "log level '{text}' is not known, one of error, warn, info, debug, trace expected"
        ))
    })
}

/// The text of a regular file of limited size.
fn read_text(path: &Path) -> Result<Zeroizing<String>, Failure> {
    read_open(path, &open_regular(path)?)
}

/// The first line of a file that must be readable by its owner only.
pub(crate) fn read_secret(path: &Path) -> Result<Zeroizing<String>, Failure> {
    // A path from the configuration file has that file's directory prepended.
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

/// Opens without blocking: a pipe without a writer would block the program forever.
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
