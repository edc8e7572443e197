//! The methods, grouped by subject, and the table of all methods.

mod chain;
mod coins;
mod control;
mod info;
mod json;
mod license;
mod long_poll;
mod mining;
mod network;
mod pool;
mod script;
mod transactions;

use std::sync::Arc;
use std::time::Instant;

use iop_consensus::params::Params;
use serde_json::Value;
use tokio::sync::watch;

use super::args::Args;
use super::error::{INTERNAL, METHOD_NOT_FOUND, RpcError};
use super::method::{Category, Method};
use crate::chain::actor::ChainHandle;
use crate::metrics::Metrics;
use crate::p2p::handle::NetHandle;

/// What methods answer from.
#[derive(Clone)]
pub(crate) struct Context {
    /// The chain thread.
    pub(crate) chain: ChainHandle,
    /// The metrics that calls are counted in.
    pub(crate) metrics: Metrics,
    /// The network; `None` if the node runs without peers.
    pub(crate) net: Option<NetHandle>,
    /// The chain's parameters.
    pub(crate) params: Arc<Params>,
    /// When the node started.
    pub(crate) started: Instant,
    /// Set to true to stop the node.
    pub(crate) shutdown: Arc<watch::Sender<bool>>,
}

macro_rules! methods {
    ($($category:ident { $($name:ident [$($param:literal),*] in $module:ident: $about:literal;)* })*) => {
        /// All methods, by category and name.
        pub(crate) static METHODS: &[Method] = &[$($(Method {
            name: stringify!($name),
            category: Category::$category,
            params: &[$($param),*],
            about: $about,
        }),*),*];

        async fn dispatch(context: &Context, args: &Args, name: &str) -> Result<Value, RpcError> {
            match name {
                $($(stringify!($name) => $module::$name(context, args).await,)*)*
                _ => Err(not_found()),
            }
        }
    };
}

methods! {
Blockchain {
    dumpminerstats ["address?", "verbose?"] in license:
        "Licenses with blocks in the window, and the cap; or what is known of one license.";
    getaddresscoins ["address"] in coins:
        "The unspent outputs of an address, from a walk through the whole coin set (IoP node only).";
    getbestblockhash [] in chain: "The hash of the tip.";
    getblock ["blockhash", "verbosity|verbose?"] in chain:
        "A block: as hex (0 or false), as an object (1 or true, the default), or with its transactions as objects (2).";
    getblockchaininfo [] in info: "The state of the chain.";
    getblockcount [] in chain: "The height of the tip.";
    getblockhash ["height"] in chain: "The hash of the active block at a height.";
    getblockheader ["blockhash", "verbose?"] in chain: "A header: as an object (the default) or as hex.";
    getchaintips [] in chain: "The tips of all known branches; status: active, valid-fork, valid-headers, headers-only, invalid.";
    getchaintxstats ["nblocks?", "blockhash?"] in info: "How many transactions the chain has, and how many came a second.";
    getdifficulty [] in chain: "The tip's difficulty, as a multiple of Bitcoin's first.";
    getlicenseinfo ["address", "..."] in license:
        "For each address: may it mine, how much, and from when (IoP node only).";
    getmempoolancestors ["txid", "verbose?"] in pool: "The waiting ancestors of a waiting transaction.";
    getmempooldescendants ["txid", "verbose?"] in pool: "The waiting descendants of a waiting transaction.";
    getmempoolentry ["txid"] in pool: "What is known of a waiting transaction.";
    getmempoolinfo [] in pool: "How much waits, and the least fee rate that is taken.";
    getrawmempool ["verbose?"] in pool: "The waiting transactions: ids, or an object for each.";
    gettxout ["txid", "n", "include_mempool?"] in coins: "An unspent output, or null.";
    gettxoutsetinfo [] in coins: "Sums over the whole coin set, and its hash. May take a while.";
    preciousblock ["blockhash"] in chain: "Prefers a block over others of the same work, until the node stops.";
}
Control {
    help ["command?"] in control: "All methods, or one.";
    stop ["wait?"] in control: "Stops the node.";
    uptime [] in control: "Seconds since the node started.";
}
Generating {
    generatetoaddress ["nblocks", "address", "license_wif?"] in mining:
        "Mines blocks at once that pay an address. Where blocks must be licensed, the key signs.";
}
Mining {
    getblocktemplate ["template_request?"] in mining:
        "What a miner needs for the next block (BIP22, BIP145); long poll by longpollid.";
    getmininginfo [] in info: "Numbers that miners ask for.";
    getnetworkhashps ["nblocks?", "height?"] in info:
        "Estimated hashes a second over the last blocks (120), or since the last retarget (-1), up to a height.";
    submitblock ["hexdata", "dummy?"] in mining: "Offers a block. Null when it became the tip, or the reason.";
}
Network {
    addnode ["node", "command"] in network: "Keeps a connection to a peer (add), forgets it (remove), or tries once (onetry).";
    disconnectnode ["address?", "nodeid?"] in network: "Ends the connection to a peer, by its address or its number.";
    getaddednodeinfo ["node?"] in network: "The peers that were named, and whether they are connected.";
    getconnectioncount [] in network: "How many peers are connected.";
    getnettotals [] in network: "Bytes sent and received, and the time.";
    getnetworkinfo [] in network: "What the node is to its peers.";
    getpeerinfo [] in network: "Everything about each peer.";
    ping [] in network: "Sends every peer a ping; getpeerinfo shows how long the answers took.";
}
Rawtransactions {
    decoderawtransaction ["hexstring"] in transactions: "A transaction as an object.";
    decodescript ["hexstring"] in transactions: "A script in words, with its form and addresses.";
    getrawtransaction ["txid", "verbose?"] in transactions:
        "A transaction that waits or has an unspent output: as hex (the default) or as an object.";
    sendrawtransaction ["hexstring", "allowhighfees?"] in transactions: "Offers a transaction; gives its id.";
    testmempoolaccept ["rawtxs", "allowhighfees?"] in pool:
        "Whether sendrawtransaction would take a transaction (a list of one), and if not, why.";
}
Util {
    validateaddress ["address"] in transactions: "Whether a text is an address of this network.";
}
Hidden {
    invalidateblock ["blockhash"] in chain: "Treats a block as if it broke a rule, until reconsiderblock.";
    reconsiderblock ["blockhash"] in chain: "Forgets that a block, its ancestors or its descendants broke rules.";
}
}

fn not_found() -> RpcError {
    RpcError::new(METHOD_NOT_FOUND, "Method not found")
}

/// Runs slow work on a blocking thread.
async fn heavy<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, RpcError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_| RpcError::new(INTERNAL, "the node is stopping"))
}

/// The method with this name.
pub(crate) fn find(name: &str) -> Option<&'static Method> {
    METHODS.iter().find(|method| method.name == name)
}

/// Calls the method with this name.
pub(crate) async fn call(context: &Context, name: &str, params: Option<Value>) -> Result<Value, RpcError> {
    let method = find(name).ok_or_else(not_found)?;
    let outcome = match Args::new(method, params) {
        Ok(args) => dispatch(context, &args, name).await,
        Err(error) => Err(error),
    };
    context.metrics.rpc_called(method.name, outcome.is_ok());
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_are_in_order_and_named_once() {
        let places: Vec<_> = METHODS.iter().map(|method| (method.category, method.name)).collect();
        assert!(places.is_sorted_by(|a, b| a < b), "{places:?}");
    }
}
