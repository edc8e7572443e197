//! Found blocks that no node has answered yet, with what the pool has to know of them after a restart.

use serde::{Deserialize, Serialize};

use crate::ledger::book::Record;

/// The folder of found blocks.
pub type Spool = iop_mining::spool::Spool<Found>;

/// A found block.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Found {
    /// Its height.
    pub height: u32,
    /// Its hash, as printed.
    pub hash: String,
    /// The license that signed, as an address.
    pub license: String,
    /// Whose share it was.
    pub worker: String,
    /// When it was found, in seconds since 1970.
    pub time: u64,
    /// The block in hex, as `submitblock` takes it.
    pub block: String,
    /// How it is paid for: the ledger may not have it yet when the pool is killed.
    #[serde(default)]
    pub record: Option<Record>,
}

impl iop_mining::spool::Kept for Found {
    fn height(&self) -> u32 {
        self.height
    }

    fn hash(&self) -> &str {
        &self.hash
    }

    fn block(&self) -> &str {
        &self.block
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use bitcoin::consensus::encode::serialize_hex;
    use iop_consensus::params::Params;

    use super::*;

    /// Genesis with another nonce: a block of its own for each number.
    pub(crate) fn found(height: u32, nonce: u32) -> Found {
        let mut block = Params::devnet().genesis.block().clone();
        block.header.nonce = nonce;
        let (license, worker) = ("license".into(), "worker".into());
        let (hash, block) = (block.block_hash().to_string(), serialize_hex(&block));
        Found { height, hash, license, worker, time: 5, block, record: None }
    }
}
