//! Blocks and headers of the chain, and its branches.

use std::collections::HashSet;

use bitcoin::BlockHash;
use bitcoin::consensus::encode::{serialize, serialize_hex};
use bitcoin::hashes::Hash;
use serde_json::{Value, json};

use super::super::args::Args;
use super::super::error::{DATABASE, INTERNAL, INVALID_ADDRESS_OR_KEY, INVALID_PARAMETER, MISC, RpcError};
use super::{Context, heavy, json as format};
use crate::chain::clock::now;
use crate::chain::index::{BlockId, BlockIndex};
use crate::chain::invalidate::NotDone;
use crate::hexes;

pub(super) async fn getbestblockhash(context: &Context, _: &Args) -> Result<Value, RpcError> {
    Ok(json!(context.chain.published().borrow().tip))
}

pub(super) async fn getblockcount(context: &Context, _: &Args) -> Result<Value, RpcError> {
    Ok(json!(context.chain.published().borrow().height))
}

pub(super) async fn getblockhash(context: &Context, args: &Args) -> Result<Value, RpcError> {
    let height = u32::try_from(args.int(0)?).ok();
    let hash = context
        .chain
        .run(move |state| {
            let id = height.and_then(|height| state.index().active_at(height));
            Ok(id.map(|id| state.index().get(id).hash))
        })
        .await?;
    hash.map(|hash| json!(hash)).ok_or_else(|| RpcError::new(INVALID_PARAMETER, "Block height out of range"))
}

pub(super) async fn getblockheader(context: &Context, args: &Args) -> Result<Value, RpcError> {
    let hash = block_hash(args, 0)?;
    let verbose = args.boolean_or(1, true)?;
    let found = context.chain.run(move |state| {
        let index = state.index();
        Ok(index.find(&hash).map(|id| {
            if verbose {
                Value::Object(format::header(index, id))
            } else {
                json!(serialize_hex(index.header(id)))
            }
        }))
    });
    found.await?.ok_or_else(block_not_found)
}

pub(super) async fn getblock(context: &Context, args: &Args) -> Result<Value, RpcError> {
    let hash = block_hash(args, 0)?;
    let verbosity = args.verbosity_or(1, 1)?;
    let found = context.chain.run(move |state| {
        let Some(id) = state.index().find(&hash) else { return Ok(Err(block_not_found())) };
        if state.index().get(id).record.pruned {
            return Ok(Err(RpcError::new(MISC, "Block not available (pruned data)")));
        }
        Ok(Ok(format::header(state.index(), id)))
    });
    let header = found.await??;
    let (prefixes, storage) = (context.params.prefixes, context.chain.storage().clone());
    // A block as JSON is many times its size, so this runs off the chain's thread.
    heavy(move || {
        let block = storage.block(&hash).map_err(|error| RpcError::new(INTERNAL, error.to_string()))?;
        let block = block.ok_or_else(|| RpcError::new(MISC, "Block not found on disk"))?;
        Ok(match verbosity {
            ..=0 => json!(hexes::encode(&serialize(&block))),
            1 => format::block(header, &block, None),
            _ => format::block(header, &block, Some(&prefixes)),
        })
    })
    .await?
}

pub(super) async fn getdifficulty(context: &Context, _: &Args) -> Result<Value, RpcError> {
    let bits = context.chain.run(|state| Ok(state.index().header(state.index().tip()).bits)).await?;
    Ok(json!(format::difficulty(bits)))
}

pub(super) async fn getchaintips(context: &Context, _: &Args) -> Result<Value, RpcError> {
    let tips = context.chain.run(|state| {
        let index = state.index();
        Ok(tips(index).into_iter().map(|id| tip(index, id)).collect::<Value>())
    });
    Ok(tips.await?)
}

/// The active tip and all inactive leaves, highest first.
fn tips(index: &BlockIndex) -> Vec<BlockId> {
    let aside: Vec<BlockId> = index.ids().filter(|&id| !index.is_active(id)).collect();
    let parents: HashSet<Option<BlockId>> = aside.iter().map(|&id| index.get(id).parent).collect();
    let mut tips: Vec<BlockId> = aside.into_iter().filter(|&id| !parents.contains(&Some(id))).collect();
    tips.push(index.tip());
    tips.sort_by_key(|&id| (std::cmp::Reverse(index.get(id).record.height), id));
    tips
}

fn tip(index: &BlockIndex, id: BlockId) -> Value {
    let entry = index.get(id);
    let fork = index.get(index.fork_point(id)).record.height;
    let status = if index.is_active(id) {
        "active"
    } else if entry.is_failed() {
        "invalid"
    } else if !entry.linked {
        "headers-only"
    } else if entry.record.connected_once {
        "valid-fork"
    } else {
        "valid-headers"
    };
    json!({
        "height": entry.record.height,
        "hash": entry.hash,
        "branchlen": entry.record.height - fork,
        "status": status,
    })
}

pub(super) async fn invalidateblock(context: &Context, args: &Args) -> Result<Value, RpcError> {
    let hash = block_hash(args, 0)?;
    done(context.chain.run(move |state| state.invalidate_block(&hash, now())).await?)
}

pub(super) async fn reconsiderblock(context: &Context, args: &Args) -> Result<Value, RpcError> {
    let hash = block_hash(args, 0)?;
    done(context.chain.run(move |state| state.reconsider_block(&hash, now())).await?)
}

pub(super) async fn preciousblock(context: &Context, args: &Args) -> Result<Value, RpcError> {
    let hash = block_hash(args, 0)?;
    done(context.chain.run(move |state| state.precious_block(&hash, now())).await?)
}

fn done(outcome: Result<(), NotDone>) -> Result<Value, RpcError> {
    match outcome {
        Ok(()) => Ok(Value::Null),
        Err(NotDone::Unknown) => Err(block_not_found()),
        Err(other) => Err(RpcError::new(DATABASE, other.to_string())),
    }
}

/// A block hash, parsed as loosely as in the reference: any string is accepted.
pub(super) fn block_hash(args: &Args, position: usize) -> Result<BlockHash, RpcError> {
    Ok(BlockHash::from_byte_array(args.loose_hash(position)?))
}

pub(super) fn block_not_found() -> RpcError {
    RpcError::new(INVALID_ADDRESS_OR_KEY, "Block not found")
}
