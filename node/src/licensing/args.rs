//! The arguments of `iop-node license`.

use std::path::PathBuf;

use bitcoin::OutPoint;
use clap::{Args, Subcommand};

use crate::args::NetworkArgs;

/// What a target gets if nothing else is said, base units: more than dust, and worth nothing.
const DEFAULT_AMOUNT: &str = "10000";
/// Base units a byte that are paid if nothing else is said: ten times the least that is relayed.
const DEFAULT_FEE_RATE: &str = "10";

/// What the admin does.
#[derive(Debug, Subcommand)]
pub(crate) enum LicenseCommand {
    /// Give licenses: these addresses may mine
    Add {
        /// License addresses (P2PKH)
        #[arg(required = true, value_name = "ADDRESS")]
        addresses: Vec<String>,
        #[command(flatten)]
        common: Common,
    },
    /// Take licenses away
    Remove {
        /// License addresses
        #[arg(required = true, value_name = "ADDRESS")]
        addresses: Vec<String>,
        #[command(flatten)]
        common: Common,
    },
    /// Limit how many blocks of a window one license may mine
    EnableCap {
        /// How many times its even share, 0 to 9; with 0 it may mine one block, and
        /// then only the admins go on
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(0..=9))]
        factor: u8,
        #[command(flatten)]
        common: Common,
    },
    /// End that limit
    DisableCap {
        #[command(flatten)]
        common: Common,
    },
}

/// What every action needs.
#[derive(Debug, Args)]
pub(crate) struct Common {
    #[command(flatten)]
    pub(crate) network: NetworkArgs,
    /// A file with an admin's key as WIF, readable by its owner only
    #[arg(long, value_name = "FILE")]
    pub(crate) admin_key_file: PathBuf,
    /// The node to ask and to send by [default: http://127.0.0.1 and the network's port]
    #[arg(long, value_name = "URL")]
    pub(crate) rpc: Option<String>,
    /// The node's cookie file [default: ~/.iop-node/NETWORK/.cookie]
    #[arg(long, value_name = "FILE", conflicts_with = "rpc_user")]
    pub(crate) rpc_cookie: Option<PathBuf>,
    /// The node's JSON-RPC user, together with --rpc-password-file
    #[arg(long, value_name = "USER", requires = "rpc_password_file")]
    pub(crate) rpc_user: Option<String>,
    /// A file with the JSON-RPC password, readable by its owner only
    #[arg(long, value_name = "FILE", requires = "rpc_user")]
    pub(crate) rpc_password_file: Option<PathBuf>,
    /// A coin of the admin to spend; may be repeated [default: one that the node finds]
    #[arg(long, value_name = "TXID:N")]
    pub(crate) utxo: Vec<OutPoint>,
    /// What each address gets, base units: an action names addresses by paying them
    #[arg(long, value_name = "UNITS", default_value = DEFAULT_AMOUNT,
          value_parser = clap::value_parser!(u64).range(546..=100_000_000))]
    pub(crate) amount: u64,
    /// The fee, base units a byte
    #[arg(long, value_name = "UNITS", default_value = DEFAULT_FEE_RATE,
          value_parser = clap::value_parser!(u64).range(1..=100_000))]
    pub(crate) fee_rate: u64,
    /// Print the signed transaction as hex and do not send it
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Print the result as JSON
    #[arg(long)]
    pub(crate) json: bool,
}
