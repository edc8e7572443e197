//! The expected state of a chain: coins and registry, block by block from genesis, computed from the rules and maps
//! alone.
//!
//! It does not use the node's storage, caches, undo and reorganisations, so it can be compared with a node's state
//! whatever happened to the node.

use std::collections::BTreeMap;

use bitcoin::consensus::encode::serialize;
use bitcoin::hashes::{Hash, sha256d};
use bitcoin::{Block, BlockHash, OutPoint, Txid};
use iop_consensus::ancestors::{Ancestors, HeaderInfo};
use iop_consensus::block::SoftForks;
use iop_consensus::coins::Coin;
use iop_consensus::connect::{Change, Context, connect};
use iop_consensus::license::registry::Registry;
use iop_consensus::params::Params;
use iop_consensus::versionbits::Cache;

/// A chain up to its newest block. A clone continues as a separate branch.
#[derive(Debug, Clone)]
pub struct Replay {
    params: Params,
    headers: Vec<(BlockHash, HeaderInfo)>,
    coins: BTreeMap<OutPoint, Coin>,
    registry: Registry,
}

impl Ancestors for Replay {
    fn tip_height(&self) -> u32 {
        self.headers.len() as u32 - 1
    }
    fn header(&self, height: u32) -> HeaderInfo {
        self.headers[height as usize].1
    }
    fn hash(&self, height: u32) -> BlockHash {
        self.headers[height as usize].0
    }
}

impl Replay {
    /// Genesis.
    pub fn new(params: &Params) -> Self {
        let genesis = params.genesis.block();
        let registry = Registry::genesis(params);
        let headers = vec![of_header(&genesis)];
        Self { params: params.clone(), headers, coins: BTreeMap::new(), registry }
    }

    /// The newest block.
    pub fn tip(&self) -> BlockHash {
        self.headers[self.headers.len() - 1].0
    }

    /// The registry as of it.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Adds the next block; its scripts are not run.
    ///
    /// # Panics
    /// When it breaks a rule.
    pub fn extend(&mut self, block: &Block) {
        let txids: Vec<Txid> = block.txdata.iter().map(bitcoin::Transaction::compute_txid).collect();
        let context = Context {
            params: &self.params,
            chain: &*self,
            forks: SoftForks::on_top_of(&*self, &self.params, &mut Cache::default()),
            last_checkpoint: 0,
            runner: None,
        };
        let mut registry = self.registry.clone();
        let connected = connect(block, &txids, &self.coins, &mut registry, &context);
        let connected = connected.unwrap_or_else(|error| panic!("the block must connect: {error}"));
        let height = connected.height;
        for (outpoint, change) in connected.coins {
            match change {
                Change::Created { output, coinbase } => {
                    self.coins.insert(outpoint, Coin { output: output.clone(), height, coinbase });
                }
                Change::Spent => drop(self.coins.remove(&outpoint)),
            }
        }
        self.registry = registry;
        self.headers.push(of_header(block));
    }

    /// The digest that IoP Core's `gettxoutsetinfo` reports as `hash_serialized_2`.
    pub fn coins_hash(&self) -> String {
        let mut bytes = serialize(&self.tip());
        let mut by_tx: BTreeMap<[u8; 32], Vec<(u32, &Coin)>> = BTreeMap::new();
        for (outpoint, coin) in &self.coins {
            by_tx.entry(outpoint.txid.to_byte_array()).or_default().push((outpoint.vout, coin));
        }
        for (txid, mut coins) in by_tx {
            coins.sort_by_key(|(vout, _)| *vout);
            bytes.extend_from_slice(&txid);
            let (height, coinbase) = (coins[0].1.height, coins[0].1.coinbase);
            put_number(&mut bytes, u64::from(height) * 2 + u64::from(coinbase));
            for (vout, coin) in coins {
                put_number(&mut bytes, u64::from(vout) + 1);
                bytes.extend_from_slice(&serialize(&coin.output.script_pubkey));
                put_number(&mut bytes, coin.output.value.to_sat());
            }
            put_number(&mut bytes, 0);
        }
        sha256d::Hash::hash(&bytes).to_string()
    }
}

fn of_header(block: &Block) -> (BlockHash, HeaderInfo) {
    let header = &block.header;
    let info = HeaderInfo { version: header.version.to_consensus(), time: header.time, bits: header.bits };
    (block.block_hash(), info)
}

/// Core's VARINT.
fn put_number(bytes: &mut Vec<u8>, number: u64) {
    fn digits(bytes: &mut Vec<u8>, number: u64, flag: u8) {
        if number > 0x7f {
            digits(bytes, (number >> 7) - 1, 0x80);
        }
        bytes.push((number & 0x7f) as u8 | flag);
    }
    digits(bytes, number, 0);
}
