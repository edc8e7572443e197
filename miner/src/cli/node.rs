//! Flags for mining at one's own nodes: nodes, licenses, network.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use iop_consensus::address::Address;
use iop_consensus::license::key::has_wif_form;
use iop_consensus::params::Params;
use iop_mining::rpc::NodeAddress;
use iop_mining::{ConfigError, files, keys};

use super::UsageError;
use crate::upstream::node::NodeSettings;

/// Environment variable with license keys in WIF form, separated by commas.
const KEYS_VARIABLE: &str = "IOP_MINER_LICENSE_KEYS";
/// Allowed values in seconds for the longest wait before a block is submitted again.
const RETRIES: std::ops::RangeInclusive<f64> = 0.1..=600.0;

/// Nodes and licenses.
#[derive(Debug, Args)]
pub(super) struct NodeArgs {
    /// A node's JSON-RPC, as http://HOST:PORT or http://USER:PASSWORD@HOST:PORT; name more to fall back to, in order of
    /// preference
    #[arg(long = "node", value_name = "URL", required = true)]
    nodes: Vec<String>,
    /// Cookie file of a node without USER:PASSWORD, in the order of the nodes
    #[arg(long, value_name = "FILE")]
    node_cookie: Vec<PathBuf>,
    /// File with a license's key in WIF form, readable by its owner only; name more, and the one with most room under
    /// the cap signs
    #[arg(long, value_name = "FILE")]
    license_key_file: Vec<PathBuf>,
    /// The address that blocks pay [default: the license that signs]
    #[arg(long, value_name = "ADDRESS")]
    payout: Option<String>,
    /// Network: main, test, regtest or devnet [default: main]
    #[arg(long, value_name = "NAME", conflicts_with = "network_file")]
    network: Option<String>,
    /// Network file of a private chain
    #[arg(long, value_name = "FILE")]
    network_file: Option<PathBuf>,
    /// Folder where found blocks lie until a node has answered [default: $XDG_DATA_HOME/iop-miner or
    /// ~/.local/share/iop-miner]
    #[arg(long, value_name = "DIR")]
    datadir: Option<PathBuf>,
    /// Longest wait before a block is submitted again to a node that did not answer
    #[arg(long, value_name = "SECONDS", default_value_t = 15.0)]
    submit_retry: f64,
}

impl NodeArgs {
    pub(super) fn settings(self) -> Result<NodeSettings, UsageError> {
        if !RETRIES.contains(&self.submit_retry) {
            return Err(UsageError::SubmitRetry(self.submit_retry));
        }
        let params = self.params()?;
        let payout = self.payout.as_deref().map(|text| payout(text, &params)).transpose()?;
        let nodes = self.addresses(&params)?;
        let environment = (KEYS_VARIABLE, std::env::var_os(KEYS_VARIABLE));
        let licenses = keys::load(&self.license_key_file, environment, &params)?;
        if licenses.is_empty() {
            let reason = format!("no license key is named: --license-key-file or {KEYS_VARIABLE} expected");
            return Err(ConfigError(reason).into());
        }
        Ok(NodeSettings {
            params: Arc::new(params),
            nodes,
            licenses: licenses.into(),
            payout,
            datadir: match self.datadir {
                Some(folder) => folder,
                None => default_datadir()?,
            },
            submit_retry: Duration::from_secs_f64(self.submit_retry),
        })
    }

    fn params(&self) -> Result<Params, ConfigError> {
        if let Some(path) = &self.network_file {
            let text = files::read_text(path, "network file")?;
            return Params::from_network_file(&text)
                .map_err(|error| ConfigError(format!("network file {}: {error}", path.display())));
        }
        let name = self.network.as_deref().unwrap_or("main");
        Params::by_name(name).ok_or_else(|| {
            ConfigError(format!("network is '{name}', one of {} expected", Params::NAMES.join(", ")))
        })
    }

    fn addresses(&self, params: &Params) -> Result<Vec<NodeAddress>, ConfigError> {
        let mut cookies = self.node_cookie.iter().cloned();
        let mut nodes = Vec::new();
        for url in &self.nodes {
            let cookie = if NodeAddress::has_password(url) { None } else { cookies.next() };
            if let Some(path) = &cookie {
                check_cookie(path)?;
            }
            nodes.push(NodeAddress::parse(url, cookie, params.rpc_port).map_err(ConfigError)?);
        }
        match cookies.next() {
            Some(left) => Err(ConfigError(format!("node-cookie {} belongs to no node", left.display()))),
            None => Ok(nodes),
        }
    }
}

/// A missing cookie may still be written by its node. One that cannot be read is reported at once.
fn check_cookie(path: &Path) -> Result<(), ConfigError> {
    match std::fs::metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => files::refuse_key(path, "cookie file"),
        _ => files::read_text(path, "cookie file").map(drop),
    }
}

fn payout(text: &str, params: &Params) -> Result<Address, ConfigError> {
    if has_wif_form(text) {
        return Err(ConfigError("payout: a key where an address is expected".to_owned()));
    }
    Address::parse(text, &params.prefixes)
        .map_err(|error| ConfigError(format!("payout: {error} (network {})", params.name)))
}

fn default_datadir() -> Result<PathBuf, ConfigError> {
    let folder = |variable| std::env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from);
    let data = folder("XDG_DATA_HOME").filter(|path| path.is_absolute());
    let data = data.or_else(|| Some(folder("HOME")?.join(".local/share")));
    let data = data.ok_or_else(|| ConfigError("no --datadir is named and HOME is not set".to_owned()))?;
    Ok(data.join("iop-miner"))
}
