//! Networks as data: one struct holds everything in which they differ.
//!
//! Lives here: [`Params`], the built-in networks ([`networks`]) and the parser of network files (`file.rs`).
//! No rule lives here, and no rule asks a network for its name.

mod file;
pub mod networks;
mod toml_error;

pub use file::NetworkFileError;
pub use toml_error::toml_error;

use bitcoin::{BlockHash, Target};

use crate::address::{Address, Prefixes};
use crate::genesis::GenesisParts;

/// Everything that defines a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Params {
    /// The name in `getblockchaininfo`: `main`, `test`, `regtest`, `devnet`, or that of a network file.
    pub name: String,
    /// The four bytes that begin each P2P message and each block of a block file.
    pub magic: [u8; 4],
    /// Default P2P port.
    pub p2p_port: u16,
    /// Default JSON-RPC port.
    pub rpc_port: u16,
    /// Version bytes of addresses and keys.
    pub prefixes: Prefixes,
    /// The fields that the genesis block is built from.
    pub genesis: GenesisParts,
    /// Proof of work and retargeting.
    pub pow: PowParams,
    /// Blocks between halvings; two one-off rules depend on it too.
    pub halving_interval: u32,
    /// BIP9 deployments.
    pub deployments: Deployments,
    /// Licensed mining.
    pub license: LicenseParams,
    /// Known blocks, ascending. No branch may fork off below the highest known one, and coinbase signatures are
    /// checked only above it.
    pub checkpoints: Vec<(u32, BlockHash)>,
    /// Work that the best chain is known to have, 32 bytes big-endian. For syncing from peers.
    pub minimum_chain_work: [u8; 32],
    /// Scripts of this block's ancestors may be assumed valid. For syncing from peers.
    pub assume_valid: Option<BlockHash>,
    /// Whether a node may mine on demand: private chains only (`fMineBlocksOnDemand`).
    pub mine_on_demand: bool,
    /// Whether nodes relay only standard transactions (`fRequireStandard`).
    pub require_standard: bool,
    /// Host names of DNS seeds, which resolve to addresses of nodes.
    pub dns_seeds: Vec<String>,
}

/// Proof of work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PowParams {
    /// The easiest target.
    pub limit: Target,
    /// Intended seconds between blocks.
    pub target_spacing: u32,
    /// Intended seconds of a retarget interval.
    pub target_timespan: u32,
    /// Whether a late block may have the easiest target.
    pub min_difficulty_blocks: bool,
    /// Whether the difficulty never changes.
    pub no_retarget: bool,
}

impl PowParams {
    /// Blocks between retargets.
    pub fn retarget_interval(&self) -> u32 {
        self.target_timespan / self.target_spacing
    }
}

/// The highest version bit for a vote that changes rules. Miners roll the bits above (BIP320): on those, every second
/// block would vote by chance or, if a pool clears them first, none would.
pub const MAX_RULE_BIT: u8 = 12;

/// A rule change voted in by version bits. Times are compared with the median time past.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deployment {
    /// The version bit, 0 to 28.
    pub bit: u8,
    /// Start of voting, seconds since 1970.
    pub start_time: i64,
    /// End of voting, seconds since 1970.
    pub timeout: i64,
}

/// All deployments, and how votes are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deployments {
    /// Blocks in a voting window.
    pub window: u32,
    /// Votes in a window that lock a deployment in.
    pub threshold: u32,
    /// Takes part in voting but changes nothing.
    pub testdummy: Deployment,
    /// BIP68, BIP112, BIP113.
    pub csv: Deployment,
    /// BIP141, BIP143, BIP147.
    pub segwit: Deployment,
}

impl Deployments {
    /// The deployments with the names that Core's RPC uses.
    pub fn named(&self) -> [(&'static str, &Deployment); 3] {
        [("testdummy", &self.testdummy), ("csv", &self.csv), ("segwit", &self.segwit)]
    }
}

/// Licensed mining.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LicenseParams {
    /// Blocks *above* this height must be licensed, and only those are counted.
    pub activation_height: u32,
    /// From this height on the window slides.
    pub cap_change_height: u32,
    /// Keys whose inputs make admin transactions.
    pub admin_pubkeys: Vec<Vec<u8>>,
    /// Addresses whitelisted from genesis; never removable, never capped.
    pub admin_addresses: Vec<Address>,
    /// Addresses whitelisted from genesis; removable.
    pub initial_licenses: Vec<Address>,
    /// The cap's factor at genesis, if the cap is on from the start.
    pub initial_cap_factor: Option<u32>,
    /// Exceptions from the history of the public chains.
    pub history: History,
}

impl LicenseParams {
    /// Whether a block at `height` must be licensed (`fIsMinerWhitelist`).
    pub fn requires_license(&self, height: u32) -> bool {
        height > self.activation_height
    }
}

/// Exceptions needed for the past of a public chain (`minerwhitelist.cpp`). Unless noted otherwise, heights are those
/// of the parent of the block being checked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    /// Addresses that are whitelisted when the block at this height is counted.
    pub whitelisted_at: Vec<(u32, Address)>,
    /// A license that the cap does not apply to below this height.
    pub exempt_below: Option<(Address, u32)>,
    /// Below this height the cap is shared among one license fewer; 0 for never.
    pub one_license_fewer_below: u32,
    /// Above this height, a license that mined one of the two previous blocks may not mine.
    pub too_fast_above: Option<u32>,
}

impl Params {
    /// The built-in network of this name.
    pub fn by_name(name: &str) -> Option<Self> {
        match name {
            "main" => Some(Self::main()),
            "test" => Some(Self::test()),
            "regtest" => Some(Self::regtest()),
            "devnet" => Some(Self::devnet()),
            _ => None,
        }
    }

    /// The names that [`Params::by_name`] knows.
    pub const NAMES: [&str; 4] = ["main", "test", "regtest", "devnet"];
}
