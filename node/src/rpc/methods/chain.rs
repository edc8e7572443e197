//! Blocks, headers and coins of the chain.

use bitcoin::consensus::encode::{serialize, serialize_hex};
use bitcoin::{BlockHash, OutPoint, Txid};
use iop_consensus::ancestors::{Ancestors, median_time_past};
use iop_consensus::coins::CoinView;
use serde_json::{Map, Value, json};

use super::super::args::Args;
use super::super::error::{INVALID_ADDRESS_OR_KEY, INVALID_PARAMETER, MISC, RpcError};
use super::{Context, json as format};
use crate::chain::state::ChainState;

pub(super) async fn getbestblockhash(context: &Context, _: &Args) -> Result<Value, RpcError> {
    Ok(json!(context.chain.published().borrow().tip))
}

pub(super) async fn getblockcount(context: &Context, _: &Args) -> Result<Value, RpcError> {
    Ok(json!(context.chain.published().borrow().height))
}

pub(super) async fn getblockhash(context: &Context, args: &Args) -> Result<Value, RpcError> {
    let height = u32::try_from(args.integer(0)?).ok();
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
    let hash = block_hash(args.text(0)?)?;
    let verbose = args.boolean_or(1, true)?;
    let found = context.chain.run(move |state| {
        let index = state.index();
        Ok(index.find(&hash).map(|id| {
            if verbose {
                format::header(index, id, None, None)
            } else {
                json!(serialize_hex(index.header(id)))
            }
        }))
    });
    found.await?.ok_or_else(block_not_found)
}

pub(super) async fn getblock(context: &Context, args: &Args) -> Result<Value, RpcError> {
    let hash = block_hash(args.text(0)?)?;
    let verbosity = args.verbosity_or(1, 1)?;
    let params = context.params.clone();
    let found = context.chain.run(move |state| {
        let Some(id) = state.index().find(&hash) else { return Ok(Err(block_not_found())) };
        let Some(block) = state.storage().block(&hash)? else {
            return Ok(Err(RpcError::new(MISC, "Block not found on disk")));
        };
        if verbosity <= 0 {
            return Ok(Ok(json!(hex::encode(serialize(&block)))));
        }
        let txs = block.txdata.iter().map(|tx| match verbosity {
            1 => json!(tx.compute_txid()),
            _ => format::transaction(tx, &params),
        });
        Ok(Ok(format::header(state.index(), id, Some(&block), Some(txs.collect()))))
    });
    found.await?
}

pub(super) async fn getdifficulty(context: &Context, _: &Args) -> Result<Value, RpcError> {
    let bits = context.chain.run(|state| Ok(state.index().header(state.index().tip()).bits)).await?;
    Ok(json!(format::difficulty(bits)))
}

pub(super) async fn getblockchaininfo(context: &Context, _: &Args) -> Result<Value, RpcError> {
    let params = context.params.clone();
    let info = context.chain.run(move |state| {
        let (index, tip) = (state.index(), state.index().tip());
        let entry = index.get(tip);
        let height = entry.record.height;
        let valid = index.ids().map(|id| index.get(id)).filter(|entry| !entry.is_failed());
        let headers = valid.max_by_key(|entry| entry.work).map(|entry| entry.record.height);
        let mut out = Map::new();
        out.insert("chain".into(), json!(params.name));
        out.insert("blocks".into(), json!(height));
        out.insert("headers".into(), json!(headers));
        out.insert("bestblockhash".into(), json!(entry.hash));
        out.insert("difficulty".into(), json!(format::difficulty(entry.record.header.bits)));
        out.insert("mediantime".into(), json!(median_time_past(&index.chain(tip), height)));
        out.insert("verificationprogress".into(), json!(1.0));
        out.insert("chainwork".into(), json!(hex::encode(entry.work.to_be_bytes())));
        out.insert("pruned".into(), json!(false));
        // BIP34 is off on this chain; these two hold from genesis on.
        let always =
            |id: &str, version: u32| json!({"id": id, "version": version, "reject": {"status": true}});
        out.insert("softforks".into(), json!([always("bip66", 3), always("bip65", 4)]));
        out.insert("unsigned_admin_actions".into(), json!(state.unsigned_actions()));
        out.insert("bip9_softforks".into(), bip9_softforks(state));
        Ok(Value::Object(out))
    });
    Ok(info.await?)
}

/// Deployments with a timeout at all, as the reference lists them.
fn bip9_softforks(state: &mut ChainState) -> Value {
    let params = state.params().clone();
    let deployments = &params.deployments;
    let (chain, cache) = state.versionbits();
    let mut out = Map::new();
    for (name, deployment) in deployments.named() {
        if name == "testdummy" || deployment.timeout == 0 {
            continue;
        }
        let standing = cache.state_after(&chain, chain.tip_height(), deployment, deployments);
        out.insert(
            name.to_owned(),
            json!({
                "status": standing.as_str(),
                "startTime": deployment.start_time,
                "timeout": deployment.timeout,
            }),
        );
    }
    Value::Object(out)
}

pub(super) async fn gettxout(context: &Context, args: &Args) -> Result<Value, RpcError> {
    let txid: Txid = args.text(0)?.parse().map_err(|_| {
        RpcError::new(INVALID_PARAMETER, "txid must be of length 64 (64 hex digits expected)")
    })?;
    let Ok(vout) = u32::try_from(args.integer(1)?) else { return Ok(Value::Null) };
    let include_mempool = args.boolean_or(2, true)?;
    let outpoint = OutPoint { txid, vout };
    let params = context.params.clone();
    let found = context.chain.run(move |state| {
        let tip = state.index().get(state.index().tip());
        let (best, tip_height) = (tip.hash, tip.record.height);
        if include_mempool && state.mempool().spends(&outpoint) {
            return Ok(Value::Null);
        }
        let waiting = state.mempool().get(&txid).filter(|_| include_mempool);
        let (output, confirmations, coinbase) = match waiting {
            Some(entry) => match entry.tx.output.get(vout as usize) {
                Some(output) => (output.clone(), 0, false),
                None => return Ok(Value::Null),
            },
            None => match state.storage().coin(&outpoint)? {
                Some(coin) => (coin.output, tip_height - coin.height + 1, coin.coinbase),
                None => return Ok(Value::Null),
            },
        };
        Ok(json!({
            "bestblock": best,
            "confirmations": confirmations,
            "value": format::coins(output.value.to_sat()),
            "scriptPubKey": format::script_pubkey(&output.script_pubkey, &params.prefixes),
            "coinbase": coinbase,
        }))
    });
    Ok(found.await?)
}

fn block_hash(text: &str) -> Result<BlockHash, RpcError> {
    // The reference takes any text for a hash and then does not find it.
    text.parse().map_err(|_| block_not_found())
}

fn block_not_found() -> RpcError {
    RpcError::new(INVALID_ADDRESS_OR_KEY, "Block not found")
}
