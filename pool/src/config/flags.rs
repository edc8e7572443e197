//! Flags for clap that correspond to the configuration file. Each overrides the file.
//!
//! Here: which commands take which flags. Not here: their meaning and validation ([`Raw`](super::Raw)).

use std::fmt;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use iop_consensus::params::Params;
use serde::Deserialize;

use super::stratum::{DEFAULT_PRIVATE_START_DIFFICULTY, DEFAULT_START_DIFFICULTY};
use super::{DEFAULT_API_BIND, DEFAULT_LOG, DEFAULT_NETWORK, DEFAULT_PAYOUT, DEFAULT_STRATUM_BIND};
use crate::ledger::Scheme;

/// What a scheme is called on the command line.
fn name_of(scheme: Scheme) -> String {
    scheme.to_possible_value().expect("no scheme is hidden").get_name().to_owned()
}

/// A node's URL as written, perhaps with a password: never shown.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct NodeUrl(String);

impl NodeUrl {
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for NodeUrl {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Debug for NodeUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NodeUrl(…)")
    }
}

/// Which chain's ledger, and where it is: all commands need that.
#[derive(Debug, Clone, Default, Args)]
pub struct LedgerFlags {
    /// Configuration file (TOML); not needed where the flags suffice
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Name of a built-in network.
    #[arg(long, value_name = "NAME", conflicts_with = "network_file",
          help = format!("Network: {} [default: {DEFAULT_NETWORK}]", Params::NAMES.join(", ")))]
    pub network: Option<String>,
    /// Network file of a private chain
    #[arg(long, value_name = "FILE")]
    pub network_file: Option<PathBuf>,
    /// Folder for what must survive a restart [default: ~/.iop-pool/NETWORK]
    #[arg(long, value_name = "DIR")]
    pub datadir: Option<PathBuf>,
    /// Log level or filter.
    #[arg(long, value_name = "LEVEL", help = format!(
        "Log level or filter: error, warn, info, debug, trace, or TARGET=LEVEL,… [default: {DEFAULT_LOG}]"
    ))]
    pub log: Option<String>,
}

/// The nodes of a command that asks them.
#[derive(Debug, Clone, Default, Args)]
pub struct NodeFlags {
    /// A node's JSON-RPC, as http://HOST:PORT or http://USER:PASSWORD@HOST:PORT; may be repeated
    #[arg(long, value_name = "URL", num_args = 1..)]
    pub node: Vec<NodeUrl>,
    /// Cookie file of a node without USER:PASSWORD, in the order of the nodes
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub node_cookie: Vec<PathBuf>,
}

/// Flags of `run` and `check`.
#[derive(Debug, Clone, Default, Args)]
pub struct Flags {
    #[command(flatten)]
    /// Which chain, and where its ledger is.
    pub ledger: LedgerFlags,
    #[command(flatten)]
    /// The nodes that are asked.
    pub nodes: NodeFlags,
    /// File with a license's key in WIF form, readable by its owner only; may be repeated
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub license_key_file: Vec<PathBuf>,
    /// The chapter's address: its fee, and what members are not yet paid [default: the license that signs]
    #[arg(long, value_name = "ADDRESS")]
    pub payout_address: Option<String>,
    /// Who is paid.
    #[arg(long, value_name = "SCHEME", help = format!(
        "Who is paid: pplns (members, by their last shares), solo (the finder) or chapter (nobody else) \
         [default: {}]",
        name_of(DEFAULT_PAYOUT)
    ))]
    pub payout: Option<Scheme>,
    /// Where Stratum listens.
    #[arg(long, value_name = "ADDR:PORT",
          help = format!("Where Stratum listens [default: {DEFAULT_STRATUM_BIND}]"))]
    pub stratum_bind: Option<String>,
    /// Where Stratum over TLS listens; needs a certificate and its key [default: nowhere]
    #[arg(long, value_name = "ADDR:PORT")]
    pub stratum_tls_bind: Option<String>,
    /// File with the TLS certificate and those that signed it (PEM)
    #[arg(long, value_name = "FILE")]
    pub tls_certificate_file: Option<PathBuf>,
    /// File with the certificate's private key (PEM), readable by its owner only
    #[arg(long, value_name = "FILE")]
    pub tls_key_file: Option<PathBuf>,
    /// Where the HTTP API listens.
    #[arg(long, value_name = "ADDR:PORT",
          help = format!("Where the HTTP API listens [default: {DEFAULT_API_BIND}]"))]
    pub api_bind: Option<String>,
    /// Difficulty that a connection starts with.
    #[arg(long, value_name = "D", help = format!(
        "Difficulty that a connection starts with [default: {DEFAULT_START_DIFFICULTY}, or \
         {DEFAULT_PRIVATE_START_DIFFICULTY} on chains whose blocks may be easier than difficulty 1]"
    ))]
    pub start_difficulty: Option<f64>,
}

impl From<LedgerFlags> for Flags {
    fn from(ledger: LedgerFlags) -> Self {
        Self { ledger, ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::one_line;

    #[test]
    fn the_help_names_the_defaults_that_hold() {
        let mut command = Flags::augment_args(clap::Command::new("run"));
        let help = one_line(&command.render_help().to_string());
        for default in [
            "Network: main, test, regtest, devnet [default: main]",
            "[default: ~/.iop-pool/NETWORK]",
            "TARGET=LEVEL,… [default: info]",
            "chapter (nobody else) [default: pplns]",
            "Where Stratum listens [default: 0.0.0.0:3333]",
            "needs a certificate and its key [default: nowhere]",
            "Where the HTTP API listens [default: 127.0.0.1:3380]",
            "[default: 1024, or 0.0005 on chains whose blocks may be easier than difficulty 1]",
        ] {
            assert!(help.contains(default), "{default}: {help}");
        }
    }
}
