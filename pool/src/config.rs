//! Configuration: turns a TOML file and flags into validated [`Settings`]. All validation is here.

mod doubts;
mod flags;
mod stratum;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use iop_consensus::address::Address;
use iop_consensus::license::key::LicenseKey;
use iop_consensus::params::{Params, toml_error};
use iop_mining::files;
use iop_mining::keys;
use iop_mining::rpc::NodeAddress;
use serde::Deserialize;

pub use flags::{Flags, LedgerFlags, NodeFlags, NodeUrl};
pub use iop_mining::ConfigError;
pub use stratum::DifficultyBounds;

use crate::ledger::split::FEE_UNIT;
use crate::ledger::{Rules, Scheme};
use crate::session::limits::Limits;
use crate::session::tls::Tls;

/// Environment variable with license keys in WIF form, separated by commas.
const KEYS_VARIABLE: &str = "IOP_POOL_LICENSE_KEYS";
/// Default network.
const DEFAULT_NETWORK: &str = "main";
/// Default log filter.
const DEFAULT_LOG: &str = "info";
/// Default for whom blocks pay.
const DEFAULT_PAYOUT: Scheme = Scheme::Pplns;
/// Default Stratum address: all interfaces, on the port that most pools use.
const DEFAULT_STRATUM_BIND: &str = "0.0.0.0:3333";
/// Default API address: loopback only, since the API has no passwords.
const DEFAULT_API_BIND: &str = "127.0.0.1:3380";
/// Default PPLNS window, as a multiple of the network's difficulty: members are paid for their work in about the time
/// in which a pool with all hash rate finds two blocks.
const DEFAULT_WINDOW: f64 = 2.0;
/// Sensible windows. The narrowest leaves payment to luck; for the widest the pool reads that much of its log at the
/// start.
const WINDOWS: std::ops::RangeInclusive<f64> = 0.01..=1000.0;
/// Default least payment, in base units: a hundredth of a coin.
const DEFAULT_MIN_PAYOUT: u64 = 1_000_000;
/// Lowest allowed least payment, in base units: Core's dust limit, below which nodes do not relay a payment.
const LEAST_PAYOUT: u64 = 546;
/// Members that a coinbase pays at most if nothing is said. With the chapter's output it has 729 bytes then: the stock
/// firmware of many Antminers takes 755. A full block leaves room for 17.
const DEFAULT_MAX_OUTPUTS: usize = 15;
/// Members that a coinbase can pay at most: a notify of 34 kB.
const MOST_OUTPUTS: usize = 500;

/// The file, as written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    network: Option<String>,
    network_file: Option<PathBuf>,
    node: Vec<FileNode>,
    license_key_files: Vec<PathBuf>,
    payout_address: Option<String>,
    payout: Option<Scheme>,
    fee: Option<f64>,
    pplns_window: Option<f64>,
    min_payout: Option<u64>,
    max_outputs: Option<usize>,
    stratum_bind: Option<String>,
    stratum_tls_bind: Option<String>,
    tls_certificate_file: Option<PathBuf>,
    tls_key_file: Option<PathBuf>,
    api_bind: Option<String>,
    start_difficulty: Option<f64>,
    min_difficulty: Option<f64>,
    max_difficulty: Option<f64>,
    vardiff: Option<bool>,
    vardiff_seconds_per_share: Option<f64>,
    max_connections: Option<usize>,
    max_connections_per_ip: Option<usize>,
    max_new_connections_per_second: Option<f64>,
    max_requests_per_second: Option<f64>,
    handshake_seconds: Option<f64>,
    idle_seconds: Option<f64>,
    write_seconds: Option<f64>,
    datadir: Option<PathBuf>,
    log: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileNode {
    url: NodeUrl,
    cookie_file: Option<PathBuf>,
}

/// Validated settings of the pool.
#[derive(Debug)]
pub struct Settings {
    /// The chain.
    pub params: Params,
    /// At least one node; found blocks go to all. Templates come from the node whose chain has most work; among equals
    /// from the one in use, at the start the first.
    pub nodes: Vec<NodeAddress>,
    /// At least one license.
    pub licenses: Vec<LicenseKey>,
    /// The chapter's address; the signing license if not set.
    pub payout: Option<Address>,
    /// Whom blocks pay, and how much.
    pub rules: Rules,
    /// Where Stratum listens.
    pub stratum_bind: SocketAddr,
    /// The address of Stratum over TLS, and the TLS identity.
    pub tls: Option<(SocketAddr, Tls)>,
    /// Where the API listens.
    pub api_bind: SocketAddr,
    /// The start difficulty and the bounds for suggestions.
    pub difficulty: DifficultyBounds,
    /// The seconds between shares that vardiff aims at, if it is on.
    pub vardiff: Option<f64>,
    /// Limits of one connection.
    pub limits: Limits,
    /// New connections a second from one address.
    pub new_connections: f64,
    /// Most concurrent Stratum connections.
    pub max_connections: usize,
    /// Most concurrent Stratum connections from one address.
    pub max_connections_per_ip: usize,
    /// Folder for data that must survive a restart.
    pub datadir: PathBuf,
}

/// Settings of the commands that only read the ledger.
#[derive(Debug)]
pub struct Books {
    /// The chain.
    pub params: Params,
    /// The pool's folder.
    pub datadir: PathBuf,
    /// Nodes to compare with; may be none.
    pub nodes: Vec<NodeAddress>,
}

/// The configuration before validation.
#[derive(Debug)]
pub struct Raw {
    file: File,
    flags: Flags,
    /// Folder that relative paths in the file are resolved against.
    base: PathBuf,
}

impl Raw {
    /// Reads the file that the flags name, if any.
    ///
    /// # Errors
    /// The file cannot be read, is not TOML or has an unknown key.
    pub fn load(flags: Flags) -> Result<Self, ConfigError> {
        let Some(path) = &flags.ledger.config else {
            return Ok(Self { file: File::default(), flags, base: PathBuf::new() });
        };
        let text = files::read_text(path, "configuration file")?;
        let file = toml::from_str::<File>(&text)
            .map_err(|error| ConfigError(format!("{}, {}", path.display(), toml_error(&text, &error))))?;
        let base = path.parent().map(Path::to_owned).unwrap_or_default();
        Ok(Self { file, flags, base })
    }

    /// The log filter.
    #[must_use]
    pub fn log(&self) -> &str {
        self.flags.ledger.log.as_deref().or(self.file.log.as_deref()).unwrap_or(DEFAULT_LOG)
    }

    /// Validates everything and reads the keys.
    ///
    /// # Errors
    /// The first mistake found.
    pub fn validate(&self) -> Result<Settings, ConfigError> {
        let params = self.params()?;
        let payout = self.payout(&params)?;
        let nodes = self.nodes(&params)?;
        let (file, flags) = (&self.file, &self.flags);
        let bind = |key, flag: &Option<String>, file: &Option<String>, default: &str| {
            socket_address(key, flag.as_deref().or(file.as_deref()).unwrap_or(default))
        };
        let stratum_bind =
            bind("stratum-bind", &flags.stratum_bind, &file.stratum_bind, DEFAULT_STRATUM_BIND)?;
        let api_bind = bind("api-bind", &flags.api_bind, &file.api_bind, DEFAULT_API_BIND)?;
        let tls = self.tls()?;
        let listeners = [Some(("stratum-bind", stratum_bind)), Some(("api-bind", api_bind))];
        let secure = tls.as_ref().map(|(address, _)| ("stratum-tls-bind", *address));
        check_apart(listeners.into_iter().chain([secure]).flatten())?;
        Ok(Settings {
            stratum_bind,
            api_bind,
            difficulty: self.difficulty(&params)?,
            vardiff: self.vardiff()?,
            limits: self.limits()?,
            new_connections: self.new_connections()?,
            tls,
            max_connections: self.max_connections(nodes.len())?,
            max_connections_per_ip: self.max_connections_per_ip()?,
            datadir: self.datadir(&params)?,
            licenses: self.licenses(&params)?,
            rules: self.rules()?,
            payout,
            nodes,
            params,
        })
    }

    /// Validates what the commands that only read the ledger need.
    ///
    /// # Errors
    /// The first mistake found.
    pub fn books(&self) -> Result<Books, ConfigError> {
        let params = self.params()?;
        let named = !self.flags.nodes.node.is_empty() || !self.file.node.is_empty();
        let nodes = if named { self.nodes(&params)? } else { Vec::new() };
        Ok(Books { datadir: self.datadir(&params)?, nodes, params })
    }

    fn in_base(&self, path: &Path) -> PathBuf {
        self.base.join(path)
    }

    fn params(&self) -> Result<Params, ConfigError> {
        let (flags, file) = (&self.flags.ledger, &self.file);
        let from_flags = flags.network.is_some() || flags.network_file.is_some();
        if !from_flags && file.network.is_some() && file.network_file.is_some() {
            return Err(ConfigError("network and network_file are both set, one of them expected".into()));
        }
        let (name, path) = if from_flags {
            (flags.network.as_deref(), flags.network_file.clone())
        } else {
            (file.network.as_deref(), file.network_file.as_deref().map(|path| self.in_base(path)))
        };
        if let Some(path) = path {
            let text = files::read_text(&path, "network file")?;
            return Params::from_network_file(&text)
                .map_err(|error| ConfigError(format!("network file {}: {error}", path.display())));
        }
        let name = name.unwrap_or(DEFAULT_NETWORK);
        Params::by_name(name).ok_or_else(|| {
            ConfigError(format!("network is '{name}', one of {} expected", Params::NAMES.join(", ")))
        })
    }

    fn payout(&self, params: &Params) -> Result<Option<Address>, ConfigError> {
        let text = self.flags.payout_address.as_ref().or(self.file.payout_address.as_ref());
        text.map(|text| Address::parse(text, &params.prefixes))
            .transpose()
            .map_err(|error| ConfigError(format!("payout_address: {error}")))
    }

    fn rules(&self) -> Result<Rules, ConfigError> {
        let file = &self.file;
        let fee = file.fee.unwrap_or(0.0);
        if !(0.0..=1.0).contains(&fee) {
            return Err(ConfigError(format!("fee is {fee}, a part of the reward from 0 to 1 expected")));
        }
        let millionths = fee * f64::from(FEE_UNIT);
        if (millionths - millionths.round()).abs() > 1e-6 {
            return Err(ConfigError(format!("fee is {fee}, whole millionths of the reward expected")));
        }
        let window = file.pplns_window.unwrap_or(DEFAULT_WINDOW);
        if !WINDOWS.contains(&window) {
            let (least, most) = (WINDOWS.start(), WINDOWS.end());
            return Err(ConfigError(format!(
                "pplns_window is {window}, a number from {least} to {most} expected"
            )));
        }
        let min_payout = file.min_payout.unwrap_or(DEFAULT_MIN_PAYOUT);
        if min_payout < LEAST_PAYOUT {
            return Err(ConfigError(format!(
                "min_payout is {min_payout}, at least {LEAST_PAYOUT} base units expected: nodes do not relay less"
            )));
        }
        let max_outputs = file.max_outputs.unwrap_or(DEFAULT_MAX_OUTPUTS);
        if !(1..=MOST_OUTPUTS).contains(&max_outputs) {
            return Err(ConfigError(format!("max_outputs is {max_outputs}, 1 to {MOST_OUTPUTS} expected")));
        }
        Ok(Rules {
            scheme: self.flags.payout.or(file.payout).unwrap_or(DEFAULT_PAYOUT),
            fee: millionths.round() as u32,
            min_payout,
            max_outputs,
            window,
        })
    }

    fn nodes(&self, params: &Params) -> Result<Vec<NodeAddress>, ConfigError> {
        let (urls, cookies) = (&self.flags.nodes.node, &self.flags.nodes.node_cookie);
        let mut cookies = cookies.iter().cloned();
        let mut nodes = Vec::new();
        if urls.is_empty() {
            for node in &self.file.node {
                let from_flag =
                    if NodeAddress::has_password(node.url.as_str()) { None } else { cookies.next() };
                let cookie = from_flag.or_else(|| node.cookie_file.as_deref().map(|path| self.in_base(path)));
                nodes.push(
                    NodeAddress::parse(node.url.as_str(), cookie, params.rpc_port).map_err(ConfigError)?,
                );
            }
        }
        for url in urls {
            let cookie = if NodeAddress::has_password(url.as_str()) { None } else { cookies.next() };
            nodes.push(NodeAddress::parse(url.as_str(), cookie, params.rpc_port).map_err(ConfigError)?);
        }
        if let Some(left) = cookies.next() {
            return Err(ConfigError(format!("node-cookie {} belongs to no node", left.display())));
        }
        if nodes.is_empty() {
            return Err(ConfigError("no node is named: --node URL or [[node]] expected".into()));
        }
        Ok(nodes)
    }

    fn licenses(&self, params: &Params) -> Result<Vec<LicenseKey>, ConfigError> {
        let mut files = self.flags.license_key_file.clone();
        if files.is_empty() {
            files = self.file.license_key_files.iter().map(|path| self.in_base(path)).collect();
        }
        let keys = keys::load(&files, (KEYS_VARIABLE, std::env::var_os(KEYS_VARIABLE)), params)?;
        if keys.is_empty() {
            return Err(ConfigError(format!(
                "no license key is named: --license-key-file, license_key_files or {KEYS_VARIABLE} expected"
            )));
        }
        Ok(keys)
    }

    fn datadir(&self, params: &Params) -> Result<PathBuf, ConfigError> {
        if let Some(path) = &self.flags.ledger.datadir {
            return Ok(path.clone());
        }
        if let Some(path) = &self.file.datadir {
            if path.as_os_str().is_empty() {
                return Err(ConfigError("datadir is empty, a folder expected".into()));
            }
            return Ok(self.in_base(path));
        }
        let home = std::env::var_os("HOME").filter(|home| !home.is_empty());
        let home = home.ok_or_else(|| ConfigError("no datadir is named and HOME is not set".into()))?;
        Ok(PathBuf::from(home).join(".iop-pool").join(&params.name))
    }
}

fn socket_address(key: &str, text: &str) -> Result<SocketAddr, ConfigError> {
    text.parse()
        .map_err(|_| ConfigError(format!("{key} is '{text}', ADDRESS:PORT expected, as 127.0.0.1:3333")))
}

/// Checks that no two listeners collide.
fn check_apart<'a>(listeners: impl Iterator<Item = (&'a str, SocketAddr)>) -> Result<(), ConfigError> {
    let mut before: Vec<(&str, SocketAddr)> = Vec::new();
    for (key, address) in listeners {
        if let Some((other, there)) = before.iter().find(|(_, there)| collide(*there, address)) {
            return Err(ConfigError(format!(
                "{other} is {there} and {key} is {address}, two ports expected"
            )));
        }
        before.push((key, address));
    }
    Ok(())
}

/// Whether two addresses cannot both be bound. An unspecified address takes the port on all interfaces; that of IPv6
/// covers IPv4 too.
fn collide(one: SocketAddr, other: SocketAddr) -> bool {
    let covers =
        |all: SocketAddr, some: SocketAddr| all.ip().is_unspecified() && (all.is_ipv6() || some.is_ipv4());
    let same = one.ip() == other.ip() || covers(one, other) || covers(other, one);
    same && one.port() == other.port() && one.port() != 0
}

pub(crate) fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
