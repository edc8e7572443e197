//! Command-line arguments before validation.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

use crate::rpc::Subnet;

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

/// The Mercury relay.
#[derive(Debug, Default, Args)]
pub(crate) struct MercuryArgs {
    /// Host a Mercury relay that listens here, such as /ip4/0.0.0.0/tcp/4878; may be repeated [default: none is hosted]
    #[arg(long, value_name = "MULTIADDR", conflicts_with = "no_mercury")]
    pub(crate) mercury_bind: Vec<String>,
    /// Host no Mercury relay, whatever the configuration file says
    #[arg(long)]
    pub(crate) no_mercury: bool,
    /// Address at which others reach the Mercury relay; may be repeated [default: where it listens]
    #[arg(long, value_name = "MULTIADDR")]
    pub(crate) mercury_external: Vec<String>,
    /// Another Mercury relay to look people up with, with its /p2p/ID; may be repeated
    #[arg(long, value_name = "MULTIADDR")]
    pub(crate) mercury_peer: Vec<String>,
    /// Who may register at the Mercury relay: open (anyone), invited, or closed (nobody new) [default: open]
    #[arg(long, value_name = "WHOM")]
    pub(crate) mercury_hosting: Option<String>,
    /// The Mercury persona that may invite, ban and back up [default: nobody]
    #[arg(long, value_name = "ID")]
    pub(crate) mercury_owner: Option<String>,
    /// Personas that the Mercury relay hosts at most, 1 to 10000 [default: 1000]
    #[arg(long, value_name = "N")]
    pub(crate) mercury_max_hosted: Option<usize>,
}

/// The arguments of `run` as they were given. What is not given may come from the configuration file.
#[derive(Debug, Default, Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) network: NetworkArgs,
    /// Data directory; one for each network [default: ~/.iop-node/NETWORK]
    #[arg(long, value_name = "DIR")]
    pub(crate) datadir: Option<PathBuf>,
    /// Address on which JSON-RPC listens [default: 127.0.0.1 and the network's port]
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) rpc_bind: Option<SocketAddr>,
    /// JSON-RPC user, together with --rpc-password-file [default: a cookie in DATADIR/.cookie]
    #[arg(long, value_name = "USER", requires = "rpc_password_file")]
    pub(crate) rpc_user: Option<String>,
    /// File with the JSON-RPC password, readable by its owner only
    #[arg(long, value_name = "FILE", requires = "rpc_user")]
    pub(crate) rpc_password_file: Option<PathBuf>,
    /// Memory for transactions that wait for a block, in megabytes, at least 5 [default: 300]
    #[arg(long, value_name = "MB")]
    pub(crate) max_mempool: Option<usize>,
    /// Address or subnet that may call JSON-RPC besides this machine; may be repeated
    /// [default: whoever can reach it]
    #[arg(long, value_name = "SUBNET")]
    pub(crate) rpc_allow_ip: Vec<Subnet>,
    /// Seconds that a JSON-RPC client may keep the node waiting [default: 30]
    #[arg(long, value_name = "SECONDS")]
    pub(crate) rpc_timeout: Option<u64>,
    /// Address on which Prometheus metrics are served, at /metrics [default: nowhere]
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) metrics_bind: Option<SocketAddr>,
    /// Address on which peers can connect [default: 0.0.0.0 and the network's port; loopback on private chains, nowhere with
    /// --connect]
    #[arg(long, value_name = "ADDR:PORT", conflicts_with = "no_listen")]
    pub(crate) p2p_bind: Option<SocketAddr>,
    /// Accept no P2P connections
    #[arg(long)]
    pub(crate) no_listen: bool,
    /// Connect to this peer and to no others, an address or name; may be repeated
    #[arg(long, value_name = "HOST[:PORT]")]
    pub(crate) connect: Vec<String>,
    /// Connect to this peer besides others, an address or name; may be repeated
    #[arg(long, value_name = "HOST[:PORT]")]
    pub(crate) add_peer: Vec<String>,
    /// Ask no DNS seeds for peers
    #[arg(long)]
    pub(crate) no_dns_seed: bool,
    #[command(flatten)]
    pub(crate) mercury: MercuryArgs,
    /// Memory for coins and database, in MiB [default: 450]
    #[arg(long, value_name = "MIB")]
    pub(crate) dbcache: Option<u64>,
    /// Delete old blocks to stay below this many MiB, at least 550; 0 keeps all [default: 0]
    #[arg(long, value_name = "MIB")]
    pub(crate) prune: Option<u64>,
    /// Scripts up to this block are assumed valid; 0 checks all [default: the network's]
    #[arg(long, value_name = "HASH")]
    pub(crate) assume_valid: Option<String>,
    /// Work that the best chain has at least, in hex [default: the network's]
    #[arg(long, value_name = "HEX")]
    pub(crate) min_chain_work: Option<String>,
    /// Seconds; while the tip is older than this, the node counts as downloading the chain [default: 86400]
    #[arg(long, value_name = "SECONDS")]
    pub(crate) max_tip_age: Option<u64>,
    /// Configuration file; flags override it
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// What to log: error, warn, info, debug or trace [default: info]
    #[arg(long, value_name = "LEVEL")]
    pub(crate) log: Option<String>,
}
