//! Operator options for the chain: memory, disk space, and which scripts are assumed valid.
//!
//! Lives here: [`Options`] with each network's defaults, and what they mean for a single block. Does not live here:
//! flags and files (`settings`). For a node that checks everything, no option changes which chain is valid.

use bitcoin::BlockHash;
use bitcoin::pow::Work;
use iop_consensus::difficulty::work;
use iop_consensus::params::Params;

use super::index::BlockId;
use super::state::ChainState;
use crate::storage::Tuning;

/// Memory for coins and database in MiB; Core's default (`nDefaultDbCache`).
pub const DEFAULT_DB_CACHE_MIB: u64 = 450;
/// A tip older than this many seconds is taken to be behind the network (`DEFAULT_MAX_TIP_AGE`).
pub const DEFAULT_MAX_TIP_AGE: u64 = 24 * 60 * 60;
/// A block buried under this much work, expressed in seconds, may be assumed valid (`ConnectBlock`).
const ASSUMED_AFTER: u128 = 60 * 60 * 24 * 7 * 2;

/// The options.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Bytes of memory for coins.
    pub coin_cache: usize,
    /// Memory of the database.
    pub database: Tuning,
    /// The scripts of this block and its ancestors are skipped if the best header chain contains it, has the
    /// minimum chain work, and buries the block under two weeks' work.
    pub assume_valid: Option<BlockHash>,
    /// Work that the best chain is known to have at least.
    pub minimum_chain_work: Work,
    /// The node is in initial block download until its tip is at most this many seconds old (`-maxtipage`).
    pub max_tip_age: u64,
    /// Old blocks are pruned when blocks take more bytes than this.
    pub prune: Option<u64>,
}

impl Options {
    /// The reference's defaults for a network.
    pub fn of(params: &Params) -> Self {
        let (coin_cache, database) = Self::shares((DEFAULT_DB_CACHE_MIB << 20) as usize);
        Self {
            coin_cache,
            database,
            assume_valid: params.assume_valid,
            minimum_chain_work: Work::from_be_bytes(params.minimum_chain_work),
            max_tip_age: DEFAULT_MAX_TIP_AGE,
            prune: None,
        }
    }

    /// Splits this many bytes, at least 4 MiB, between coins and database (`-dbcache`).
    pub(crate) fn shares(total: usize) -> (usize, Tuning) {
        let database = Tuning::share_of(total);
        (total - database.total(), database)
    }
}

impl ChainState {
    /// The operator's options.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Whether a block with this hash would be new and its scripts would be run; only then is work ahead of its
    /// turn worth it. False if its header is not known.
    pub(crate) fn awaits_scripts(&self, hash: &BlockHash) -> bool {
        let Some(id) = self.index.find(hash) else { return false };
        let entry = self.index.get(id);
        !entry.was_here() && !entry.is_failed() && self.must_run_scripts(id)
    }

    /// Whether the scripts of the next block towards the best header must be run.
    pub(super) fn must_run_next_scripts(&self) -> bool {
        let (best, next) = (self.index.best_header(), self.index.get(self.index.tip()).record.height + 1);
        next <= self.index.get(best).record.height && self.must_run_scripts(self.index.ancestor(best, next))
    }

    /// Whether the scripts of a block must be run (`fScriptChecks`). Coinbase signatures are not scripts.
    pub(super) fn must_run_scripts(&self, id: BlockId) -> bool {
        let assumed = self.options.assume_valid.and_then(|hash| self.index.find(&hash));
        let Some(assumed) = assumed else { return true };
        let (best, height) = (self.index.best_header(), self.index.get(id).record.height);
        let leads_to = |tip: BlockId| {
            height <= self.index.get(tip).record.height && self.index.ancestor(tip, height) == id
        };
        let (block, best_entry) = (self.index.get(id), self.index.get(best));
        if !leads_to(assumed)
            || !leads_to(best)
            || best_entry.work < self.options.minimum_chain_work
            || best_entry.work < block.work
        {
            return true;
        }
        // `GetBlockProofEquivalentTime`, without its division. If the numbers do not fit, scripts are run.
        let on_top = low_half(best_entry.work - block.work);
        let seconds = on_top.and_then(|work| work.checked_mul(u128::from(self.params.pow.target_spacing)));
        let enough = low_half(work(best_entry.record.header.bits))
            .and_then(|proof| proof.checked_mul(ASSUMED_AFTER + 1));
        match (seconds, enough) {
            (Some(seconds), Some(enough)) => seconds < enough,
            _ => true,
        }
    }
}

/// The number, if it is less than 2^128.
fn low_half(work: Work) -> Option<u128> {
    let bytes = work.to_be_bytes();
    let (high, low) = bytes.split_at(16);
    high.iter()
        .all(|&byte| byte == 0)
        .then(|| low.iter().fold(0, |number, &byte| number << 8 | u128::from(byte)))
}
