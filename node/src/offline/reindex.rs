//! `iop-node reindex`: rebuilds index, coins, registry and undo data from the stored blocks, validating each again.
//!
//! First, all blocks are read and validated as far as possible without coins, and nothing is changed. Then one
//! batch replaces everything else with the new index; the state is then that of a node with all blocks and none
//! connected. Last, the blocks are connected. Whenever the program ends, there is either the old state or a new one
//! that the next start continues.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bitcoin::block::Header;
use bitcoin::consensus::encode::deserialize;
use bitcoin::{Block, BlockHash};
use clap::Args;
use iop_consensus::block::{self, SoftForks};
use iop_consensus::error::BlockError;
use iop_consensus::header;
use iop_consensus::params::Params;
use iop_consensus::versionbits::Cache;
use iop_consensus::wire::whole_block;
use serde_json::json;

use super::progress::Progress;
use super::{OfflineArgs, Place, Stop, failed, note};
use crate::chain::checked::CheckedBlock;
use crate::chain::index::{BlockId, BlockIndex};
use crate::chain::state::ChainState;
use crate::failure::Failure;
use crate::output::print;
use crate::storage::{IndexRecord, Storage, StorageError};

/// Blocks connected between two checks whether to stop.
const STEP: usize = 100;

/// What is stored was not too far in the future when it came. A clock that is wrong today must not make it so.
const ANY_TIME: u64 = u32::MAX as u64;

/// The arguments of `reindex`.
#[derive(Debug, Args)]
pub(crate) struct ReindexArgs {
    #[command(flatten)]
    offline: OfflineArgs,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// Rebuilds everything.
pub(crate) fn reindex(args: ReindexArgs) -> Result<(), Failure> {
    let place = Place::new(args.offline)?;
    let stop = Stop::listen()?;
    let storage = Arc::new(place.open()?);
    let damaged = |error: StorageError| {
        Failure::Failed(format!(
            "{error}: nothing was changed, for what the database cannot read cannot be rebuilt from; remove {} and sync \
             again, or put back a copy",
            place.datadir.join("db").display()
        ))
    };
    let Some(stored) = Stored::read(&storage).map_err(damaged)? else {
        return Err(Failure::Failed(format!(
            "{}: old blocks were pruned, and reindex needs all: sync again in another directory",
            place.datadir.display()
        )));
    };
    let Some(index) = stored.judge(&storage, &place.params, &stop).map_err(failed)? else {
        return Err(Failure::Failed("told to stop: nothing was changed".to_owned()));
    };
    let refused = index.iter().filter(|(_, record)| record.failed).count();
    storage.forget_derived(&index, &stored.bad).map_err(failed)?;
    let state = ChainState::load_idle(place.params.clone(), storage, place.options).map_err(failed)?;
    connect(state, &index, refused, &stop, args.json)
}

/// The database's content, whether or not its index lists it.
struct Stored {
    headers: HashMap<BlockHash, Header>,
    blocks: HashSet<BlockHash>,
    /// Keys of blocks that cannot be decoded or do not match.
    bad: Vec<Vec<u8>>,
}

impl Stored {
    /// Reads the content; `None` if blocks were pruned.
    fn read(storage: &Storage) -> Result<Option<Self>, StorageError> {
        let (headers, pruned) = storage.readable_headers()?;
        if pruned {
            return Ok(None);
        }
        let mut stored =
            Self { headers: headers.into_iter().collect(), blocks: HashSet::new(), bad: Vec::new() };
        let mut progress = Progress::new("reading", stored.headers.len() as u64);
        let mut done = 0;
        storage.for_each_block(|key, bytes| {
            done += 1;
            progress.at(done, 0, done);
            let header = bytes.get(..80).and_then(|bytes| deserialize::<Header>(bytes).ok());
            match (Storage::block_of_key(key), header) {
                (Some(hash), Some(header)) if header.block_hash() == hash => {
                    stored.headers.insert(hash, header);
                    stored.blocks.insert(hash);
                }
                _ => stored.bad.push(key.to_vec()),
            }
        })?;
        progress.end();
        if !stored.bad.is_empty() {
            note(&format!("iop-node: {} stored blocks are damaged and are forgotten", stored.bad.len()));
        }
        Ok(Some(stored))
    }

    /// Validates every header and block that descends from genesis against its ancestors, and returns the new
    /// index; `None` when told to stop. Headers that break a rule are left out, blocks that do are marked.
    fn judge(
        &self,
        storage: &Storage,
        params: &Params,
        stop: &Stop,
    ) -> Result<Option<Vec<(BlockHash, IndexRecord)>>, StorageError> {
        let mut judge = Judge { params, index: BlockIndex::default(), cache: Cache::default() };
        let mut children: HashMap<BlockHash, Vec<BlockHash>> = HashMap::new();
        for (hash, header) in &self.headers {
            children.entry(header.prev_blockhash).or_default().push(*hash);
        }
        let genesis = params.genesis.block();
        let root = judge.index.insert(genesis.block_hash(), IndexRecord::of_header(genesis.header, 0));
        let mut progress = Progress::new("checking", self.headers.len() as u64);
        let mut next = vec![root];
        let mut done = 0;
        while let Some(parent) = next.pop() {
            let hash = judge.index.get(parent).hash;
            for child in children.remove(&hash).unwrap_or_default() {
                if stop.is_told() {
                    return Ok(None);
                }
                done += 1;
                let block = self.blocks.contains(&child).then(|| storage.block_bytes(&child)).transpose()?;
                let taken = judge.take(parent, child, self.headers[&child], block.flatten());
                if let Some(id) = taken {
                    progress.at(done, judge.index.get(id).record.height, done);
                    next.push(id);
                }
            }
        }
        Ok(Some(
            judge
                .index
                .ids()
                .skip(1)
                .map(|id| {
                    let entry = judge.index.get(id);
                    (entry.hash, entry.record)
                })
                .collect(),
        ))
    }
}

struct Judge<'a> {
    params: &'a Params,
    index: BlockIndex,
    cache: Cache,
}

impl Judge<'_> {
    /// Adds a header to the index, with its block if it is stored; `None` if the header breaks a rule.
    fn take(
        &mut self,
        parent: BlockId,
        hash: BlockHash,
        header: Header,
        bytes: Option<Vec<u8>>,
    ) -> Option<BlockId> {
        let chain = self.index.chain(parent);
        let checkpoint = self.index.last_checkpoint(self.params);
        let judged = header::check(&header, self.params)
            .and_then(|()| header::check_contextual(&header, &chain, ANY_TIME, checkpoint, self.params));
        if let Err(error) = judged {
            note(&format!("iop-node: header {hash} is forgotten: {error}"));
            return None;
        }
        let mut record = IndexRecord::of_header(header, self.index.get(parent).record.height + 1);
        if let Some(bytes) = bytes {
            let above = &self.index.get(parent).record;
            record.failed_ancestor = above.failed || above.failed_ancestor;
            let read = whole_block(&bytes).map_err(|error| error.to_string());
            let txs = read.as_ref().map_or(0, |block| block.txdata.len() as u32);
            // Data that the header does not commit to may have been damaged by the disk, so the block is not
            // blamed.
            let judged = read.and_then(|block| match self.judge(parent, block) {
                Err(error) if error.corruption_possible() => Err(error.to_string()),
                judged => Ok(judged),
            });
            match judged {
                Ok(judged) => {
                    record.bytes = u32::try_from(bytes.len()).expect("a block that was read is small");
                    (record.tx_count, record.failed) = (txs, judged.is_err());
                    if let Err(error) = judged {
                        note(&format!("iop-node: block {hash} breaks a rule: {error}"));
                    }
                }
                Err(error) => {
                    note(&format!("iop-node: block {hash} is damaged and is fetched again: {error}"));
                }
            }
        }
        Some(self.index.insert(hash, record))
    }

    fn judge(&mut self, parent: BlockId, block: Block) -> Result<(), BlockError> {
        let chain = self.index.chain(parent);
        let forks = SoftForks::on_top_of(&chain, self.params, &mut self.cache);
        let checked = CheckedBlock::new(block, self.params).map_err(|unsound| unsound.error)?;
        block::check_contextual(checked.block(), &chain, forks)
    }
}

/// Connects the stored blocks and reports the outcome.
fn connect(
    mut state: ChainState,
    index: &[(BlockHash, IndexRecord)],
    refused: usize,
    stop: &Stop,
    as_json: bool,
) -> Result<(), Failure> {
    let best = index.iter().filter(|(_, r)| r.tx_count > 0 && !r.failed).map(|(_, r)| r.height).max();
    let best = best.unwrap_or(0);
    let mut progress = Progress::new("connecting", u64::from(best));
    let mut more = true;
    while more && !stop.is_told() {
        more = state.catch_up(STEP).map_err(failed)?;
        let height = height(&state);
        progress.at(u64::from(height), height, u64::from(height));
    }
    state.flush().map_err(failed)?;
    state.storage().sync().map_err(failed)?;
    let seconds = progress.end().as_secs_f64();
    let (height, tip) = (height(&state), state.index().get(state.index().tip()).hash);
    if as_json {
        let result = json!({
            "headers": index.len() + 1, "refused": refused, "height": height, "tip": tip.to_string(),
            "seconds": seconds, "interrupted": more,
        });
        print(&result.to_string())
    } else {
        let rest = if more { "; the next start of the node connects the rest" } else { "" };
        print(&format!("the tip is {tip} at height {height}, {refused} blocks refused{rest}"))
    }
}

fn height(state: &ChainState) -> u32 {
    state.index().get(state.index().tip()).record.height
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::chain::clock::now;
    use crate::generate::{Payee, mine};
    use crate::template::template;
    use bitcoin::Amount;
    use bitcoin::consensus::encode::serialize;
    use iop_consensus::address::{Address, AddressKind};

    /// A flipped bit on disk must not mark a good block as invalid for good.
    #[test]
    fn a_block_whose_body_is_damaged_is_fetched_again_and_not_marked_as_invalid() {
        let (dir, params) = (tempfile::tempdir().unwrap(), Arc::new(Params::regtest()));
        let storage = Arc::new(Storage::open(dir.path(), &params).unwrap());
        let mut state = ChainState::load(params.clone(), storage.clone()).unwrap();
        let payee = Payee { address: Address { kind: AddressKind::PubkeyHash, hash: [1; 20] }, key: None };
        let mut grow = || {
            let block = mine(&template(&mut state, now()), &payee, || false).unwrap();
            state.submit(block.clone(), now()).unwrap();
            block
        };
        let blocks: Vec<Block> = (0..3).map(|_| grow()).collect();
        drop(state);
        let mut damaged = blocks[1].clone();
        damaged.txdata[0].output[0].value -= Amount::from_sat(1);
        let mut batch = storage.batch();
        batch.put_block(&blocks[1].block_hash(), &serialize(&damaged));
        storage.commit(batch).unwrap();
        let stored = Stored::read(&storage).unwrap().unwrap();
        let index = stored.judge(&storage, &params, &Stop::default()).unwrap().unwrap();
        storage.forget_derived(&index, &stored.bad).unwrap();
        let mut state = ChainState::load(params, storage).unwrap();
        assert_eq!(height(&state), 1);
        state.accept_block(blocks[1].clone(), true, now()).unwrap();
        assert_eq!(height(&state), 3);
    }
}
