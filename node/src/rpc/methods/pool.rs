//! Methods about the mempool.

use bitcoin::hashes::Hash;
use bitcoin::{Transaction, Txid};
use serde_json::{Map, Value, json};

use super::super::args::Args;
use super::super::error::{INVALID_ADDRESS_OR_KEY, INVALID_PARAMETER, RpcError, TYPE};
use super::transactions::{MAX_FEE, decode_transaction};
use super::{Context, json as format};
use crate::chain::clock::now;
use crate::mempool::{Entry, Mempool, Reject};

pub(super) async fn getmempoolinfo(context: &Context, _: &Args) -> Result<Value, RpcError> {
    let info = context.chain.run(|state| {
        let pool = state.mempool();
        Ok(json!({
            "size": pool.len(),
            "bytes": pool.vsize(),
            "usage": pool.usage(),
            "maxmempool": pool.policy().max_usage,
            "mempoolminfee": format::coins(pool.min_fee(now()).0),
        }))
    });
    Ok(info.await?)
}

pub(super) async fn getrawmempool(context: &Context, args: &Args) -> Result<Value, RpcError> {
    let verbose = args.boolean_or(0, false)?;
    let listing = context.chain.run(move |state| {
        let pool = state.mempool();
        Ok(list(pool, pool.txids(), verbose))
    });
    Ok(listing.await?)
}

pub(super) async fn getmempoolentry(context: &Context, args: &Args) -> Result<Value, RpcError> {
    let txid = txid(args)?;
    let entry = context.chain.run(move |state| {
        let pool = state.mempool();
        Ok(pool.get(&txid).map(|waiting| entry(pool, waiting)))
    });
    entry.await?.ok_or_else(not_waiting)
}

pub(super) async fn getmempoolancestors(context: &Context, args: &Args) -> Result<Value, RpcError> {
    relatives(context, args, Mempool::ancestors).await
}

pub(super) async fn getmempooldescendants(context: &Context, args: &Args) -> Result<Value, RpcError> {
    relatives(context, args, Mempool::descendants).await
}

async fn relatives(
    context: &Context,
    args: &Args,
    of: fn(&Mempool, &Txid) -> Vec<Txid>,
) -> Result<Value, RpcError> {
    let verbose = args.boolean_or(1, false)?;
    let txid = txid(args)?;
    let listing = context.chain.run(move |state| {
        let pool = state.mempool();
        Ok(pool.contains(&txid).then(|| list(pool, of(pool, &txid), verbose)))
    });
    listing.await?.ok_or_else(not_waiting)
}

fn txid(args: &Args) -> Result<Txid, RpcError> {
    Ok(Txid::from_byte_array(args.hash(0, "parameter 1")?))
}

fn not_waiting() -> RpcError {
    RpcError::new(INVALID_ADDRESS_OR_KEY, "Transaction not in mempool")
}

fn list(pool: &Mempool, txids: Vec<Txid>, verbose: bool) -> Value {
    if !verbose {
        return json!(txids);
    }
    let entries = txids.iter().filter_map(|txid| pool.get(txid));
    Value::Object(entries.map(|waiting| (waiting.txid.to_string(), entry(pool, waiting))).collect())
}

/// An entry (`entryToJSON`). Fee totals over relatives are in base units, as in the reference.
fn entry(pool: &Mempool, entry: &Entry) -> Value {
    let mut depends: Vec<String> = pool.parents(entry).iter().map(Txid::to_string).collect();
    depends.sort_unstable();
    json!({
        "size": entry.vsize,
        "fee": format::coins(entry.fee),
        "modifiedfee": format::coins(entry.fee),
        "time": entry.time,
        "height": entry.height,
        "descendantcount": entry.descendants.count,
        "descendantsize": entry.descendants.size,
        "descendantfees": entry.descendants.fees,
        "ancestorcount": entry.ancestors.count,
        "ancestorsize": entry.ancestors.size,
        "ancestorfees": entry.ancestors.fees,
        "depends": depends,
    })
}

/// As in Core 0.17; 0.15 does not have it.
pub(super) async fn testmempoolaccept(context: &Context, args: &Args) -> Result<Value, RpcError> {
    let raw = match args.value(0) {
        Some(Value::Array(raw)) => raw,
        other => return Err(args.unexpected_type("array", other)),
    };
    let max_fee = if args.checked_boolean_or(1, false)? { u64::MAX } else { MAX_FEE };
    let [raw] = raw.as_slice() else {
        let message = "Array must contain exactly one raw transaction for now";
        return Err(RpcError::new(INVALID_PARAMETER, message));
    };
    let raw = raw.as_str().ok_or_else(|| RpcError::new(TYPE, "Expected type string, got another"))?;
    let tx: Transaction = decode_transaction(raw)?;
    let txid = tx.compute_txid();
    let verdict = context.chain.test_transaction(tx, max_fee).await?;
    let mut out = Map::new();
    out.insert("txid".into(), json!(txid));
    out.insert("allowed".into(), json!(verdict.is_ok()));
    if let Err(reject) = verdict {
        let reason = match reject {
            Reject::MissingInputs => "missing-inputs".to_owned(),
            other => format!("{}: {}", other.code(), other.reason()),
        };
        out.insert("reject-reason".into(), json!(reason));
    }
    Ok(json!([out]))
}
