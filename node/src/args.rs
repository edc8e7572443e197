//! Arguments as they are given, not yet checked.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

/// Which network.
#[derive(Debug, Default, Args)]
pub(crate) struct NetworkArgs {
    /// A built-in network: main, test, regtest or devnet [default: main]
    #[arg(long, value_name = "NAME", conflicts_with = "network_file")]
    pub(crate) network: Option<String>,
    /// A private network, as a TOML file
    #[arg(long, value_name = "FILE")]
    pub(crate) network_file: Option<PathBuf>,
}

/// The arguments of `run` as they were given. What is not given may come from the configuration file.
#[derive(Debug, Default, Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) network: NetworkArgs,
    /// Where everything is kept; one network each [default: ~/.iop-node/NETWORK]
    #[arg(long, value_name = "DIR")]
    pub(crate) datadir: Option<PathBuf>,
    /// Where JSON-RPC listens [default: 127.0.0.1 and the network's port]
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) rpc_bind: Option<SocketAddr>,
    /// JSON-RPC user, together with --rpc-password-file [default: a cookie in DATADIR/.cookie]
    #[arg(long, value_name = "USER", requires = "rpc_password_file")]
    pub(crate) rpc_user: Option<String>,
    /// File with the JSON-RPC password, readable by its owner only
    #[arg(long, value_name = "FILE", requires = "rpc_user")]
    pub(crate) rpc_password_file: Option<PathBuf>,
    /// Accept no P2P connections. This version has no P2P yet, so it never does
    #[arg(long)]
    pub(crate) no_listen: bool,
    /// Host no Mercury relay. This version has none yet
    #[arg(long)]
    pub(crate) no_mercury: bool,
    /// Configuration file; flags override it
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// What to log: error, warn, info, debug or trace [default: info]
    #[arg(long, value_name = "LEVEL")]
    pub(crate) log: Option<String>,
}
