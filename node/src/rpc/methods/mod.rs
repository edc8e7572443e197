//! The methods, by subject, and the table that names them.

mod chain;
mod control;
mod json;
mod license;
mod mining;
mod transactions;

use std::sync::Arc;
use std::time::Instant;

use iop_consensus::params::Params;
use serde_json::Value;
use tokio::sync::watch;

use super::args::Args;
use super::error::{METHOD_NOT_FOUND, RpcError};
use super::method::Method;
use crate::chain::actor::ChainHandle;

/// What methods answer from.
#[derive(Clone)]
pub(crate) struct Context {
    /// The chain thread.
    pub(crate) chain: ChainHandle,
    /// The network.
    pub(crate) params: Arc<Params>,
    /// When the node started.
    pub(crate) started: Instant,
    /// Setting it stops the node.
    pub(crate) shutdown: Arc<watch::Sender<bool>>,
}

macro_rules! methods {
    ($($name:ident [$($param:literal),*] in $module:ident: $about:literal;)*) => {
        /// Every method there is, in the order in which `help` lists them.
        pub(crate) static METHODS: &[Method] =
            &[$(Method { name: stringify!($name), params: &[$($param),*], about: $about }),*];

        async fn dispatch(context: &Context, args: &Args, name: &str) -> Result<Value, RpcError> {
            match name {
                $(stringify!($name) => $module::$name(context, args).await,)*
                _ => Err(not_found()),
            }
        }
    };
}

methods! {
    getbestblockhash [] in chain: "The hash of the tip.";
    getblock ["blockhash", "verbosity?"] in chain:
        "A block: as hex (0), as an object (1, the default), or with its transactions as objects (2).";
    getblockchaininfo [] in chain: "The state of the chain.";
    getblockcount [] in chain: "The height of the tip.";
    getblockhash ["height"] in chain: "The hash of the active block at a height.";
    getblockheader ["blockhash", "verbose?"] in chain: "A header: as an object (the default) or as hex.";
    getdifficulty [] in chain: "The tip's difficulty, as a multiple of Bitcoin's first.";
    gettxout ["txid", "n", "include_mempool?"] in chain: "An unspent output, or null.";
    dumpminerstats ["address?", "verbose?"] in license:
        "Licenses with blocks in the window, and the cap; or what is known of one license.";
    getlicenseinfo ["address", "..."] in license: "For each address: may it mine, how much, and from when.";
    generatetoaddress ["nblocks", "address", "license_wif?"] in mining:
        "Mines blocks at once that pay an address. Where blocks must be licensed, the key signs.";
    getblocktemplate ["template_request?"] in mining:
        "What a miner needs for the next block (BIP22, BIP145); long poll by longpollid.";
    submitblock ["hexdata", "dummy?"] in mining: "Offers a block. Null when it became the tip, or the reason.";
    getrawmempool ["verbose?"] in transactions: "The waiting transactions: ids, or an object for each.";
    sendrawtransaction ["hexstring", "allowhighfees?"] in transactions: "Offers a transaction; gives its id.";
    validateaddress ["address"] in transactions: "Whether a text is an address of this network.";
    help ["command?"] in control: "All methods, or one.";
    stop [] in control: "Stops the node.";
    uptime [] in control: "Seconds since the node started.";
}

fn not_found() -> RpcError {
    RpcError::new(METHOD_NOT_FOUND, "Method not found")
}

/// Calls a method by its name.
pub(crate) async fn call(context: &Context, name: &str, params: Option<Value>) -> Result<Value, RpcError> {
    let method = METHODS.iter().find(|method| method.name == name).ok_or_else(not_found)?;
    let args = Args::new(method, params)?;
    dispatch(context, &args, name).await
}
