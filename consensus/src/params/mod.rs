//! Networks as data: one struct holds all that differs between them.
//!
//! Lives here: [`Params`], the built-in networks ([`networks`]) and the reader of network files (`file.rs`).
//! No rule lives here, and no rule asks a network for its name.

mod file;
pub mod networks;
mod toml_error;

pub use file::NetworkFileError;
pub use toml_error::toml_error;

use bitcoin::{BlockHash, Target};

use crate::address::{Address, Prefixes};
use crate::genesis::GenesisParts;

/// Everything that makes a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Params {
    /// As `getblockchaininfo` reports it: `main`, `test`, `regtest`, `devnet`, or a network file's name.
    pub name: String,
    /// The four bytes that begin each P2P message and each block of a block file.
    pub magic: [u8; 4],
    /// Default P2P port.
    pub p2p_port: u16,
    /// Default JSON-RPC port.
    pub rpc_port: u16,
    /// Version bytes of addresses and keys.
    pub prefixes: Prefixes,
    /// What the genesis block is built from.
    pub genesis: GenesisParts,
    /// Proof of work and retargeting.
    pub pow: PowParams,
    /// Blocks between halvings; also the place of two one-off rules.
    pub halving_interval: u32,
    /// BIP9 votes.
    pub deployments: Deployments,
    /// Licensed mining.
    pub license: LicenseParams,
    /// Known blocks, ascending. No branch may leave the chain below the highest known one, and coinbase
    /// signatures are checked above it only.
    pub checkpoints: Vec<(u32, BlockHash)>,
    /// Work that the best chain surely has, 32 bytes big-endian. For syncing from peers.
    pub minimum_chain_work: [u8; 32],
    /// Scripts of this block's ancestors may be taken for checked. For syncing from peers.
    pub assume_valid: Option<BlockHash>,
    /// Whether a node may be told to mine at once: private chains only (`fMineBlocksOnDemand`).
    pub mine_on_demand: bool,
    /// Whether nodes relay standard forms of transactions only (`fRequireStandard`).
    pub require_standard: bool,
    /// Host names that answer with addresses of nodes.
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
    /// Whether the difficulty stays as it is.
    pub no_retarget: bool,
}

impl PowParams {
    /// Blocks between retargets.
    pub fn retarget_interval(&self) -> u32 {
        self.target_timespan / self.target_spacing
    }
}

/// The highest version bit of a vote that changes rules. Miners roll those above (BIP320): there every second block
/// would vote by chance, or, where a pool clears them first, none.
pub const MAX_RULE_BIT: u8 = 12;

/// A rule change voted in by version bits. Times are compared with the median time past.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deployment {
    /// The version bit, 0 to 28.
    pub bit: u8,
    /// Voting begins, seconds since 1970.
    pub start_time: i64,
    /// Voting ends, seconds since 1970.
    pub timeout: i64,
}

/// All deployments, and how votes are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deployments {
    /// Blocks in a voting window.
    pub window: u32,
    /// Votes in a window that lock a deployment in.
    pub threshold: u32,
    /// Takes part in votes and changes nothing.
    pub testdummy: Deployment,
    /// BIP68, BIP112, BIP113.
    pub csv: Deployment,
    /// BIP141, BIP143, BIP147.
    pub segwit: Deployment,
}

impl Deployments {
    /// Each with the name that Core's RPC uses.
    pub fn named(&self) -> [(&'static str, &Deployment); 3] {
        [("testdummy", &self.testdummy), ("csv", &self.csv), ("segwit", &self.segwit)]
    }
}

/// Licensed mining.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LicenseParams {
    /// Blocks *above* this height must be licensed; they are also the ones that are counted.
    pub activation_height: u32,
    /// From this height on the window slides.
    pub cap_change_height: u32,
    /// Keys that make admin transactions.
    pub admin_pubkeys: Vec<Vec<u8>>,
    /// Whitelisted from genesis on, never removable, never capped.
    pub admin_addresses: Vec<Address>,
    /// Whitelisted from genesis on, removable.
    pub initial_licenses: Vec<Address>,
    /// The cap's factor at genesis, if the cap starts turned on.
    pub initial_cap_factor: Option<u32>,
    /// What happened on the public chains before the rules were as they are.
    pub history: History,
}

impl LicenseParams {
    /// Whether a block at `height` must be licensed (`fIsMinerWhitelist`).
    pub fn requires_license(&self, height: u32) -> bool {
        height > self.activation_height
    }
}

/// Exceptions that a public chain's past needs (`minerwhitelist.cpp`). Heights without note are those of the
/// parent of the block that is judged.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    /// Addresses that are whitelisted when the block at this height is counted.
    pub whitelisted_at: Vec<(u32, Address)>,
    /// A license that the cap does not bind below this height.
    pub exempt_below: Option<(Address, u32)>,
    /// The cap is shared among one license fewer below this height; 0 for never.
    pub one_license_fewer_below: u32,
    /// Above this height, a license that mined one of the two blocks before may not mine.
    pub too_fast_above: Option<u32>,
}

impl Params {
    /// A built-in network by its name.
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
