//! Transactions that wait, and addresses.

use bitcoin::Transaction;
use iop_consensus::COIN;
use iop_consensus::address::{Address, AddressKind};
use iop_consensus::error::TxError;
use iop_consensus::wire::read_transaction;
use serde_json::{Map, Value, json};

use super::super::args::Args;
use super::super::error::{
    DESERIALIZATION, RpcError, TRANSACTION_ERROR, TRANSACTION_IN_CHAIN, TRANSACTION_REJECTED,
};
use super::{Context, json as format};
use crate::mempool::Reject;

/// A fee above this is taken for a mistake unless the caller allows it, base units (Core's default -maxtxfee).
const MAX_FEE: u64 = COIN / 10;

pub(super) async fn getrawmempool(context: &Context, args: &Args) -> Result<Value, RpcError> {
    let verbose = args.boolean_or(0, false)?;
    let listing = context.chain.run(move |state| {
        let pool = state.mempool();
        let txids = pool.txids();
        if !verbose {
            return Ok(json!(txids));
        }
        let height = state.index().get(state.index().tip()).record.height;
        let mut out = Map::new();
        for entry in txids.iter().filter_map(|txid| pool.get(txid)) {
            let mut depends: Vec<_> = entry.tx.input.iter().map(|input| input.previous_output.txid).collect();
            depends.retain(|txid| pool.get(txid).is_some());
            depends.sort_unstable();
            depends.dedup();
            out.insert(
                entry.tx.compute_txid().to_string(),
                json!({
                    "size": entry.tx.vsize(),
                    "fee": format::coins(entry.fee),
                    "time": entry.time,
                    "height": height,
                    "depends": depends,
                }),
            );
        }
        Ok(Value::Object(out))
    });
    Ok(listing.await?)
}

pub(super) async fn sendrawtransaction(context: &Context, args: &Args) -> Result<Value, RpcError> {
    let tx: Transaction = hex::decode(args.text(0)?)
        .ok()
        .and_then(|bytes| read_whole(&bytes))
        .ok_or_else(|| RpcError::new(DESERIALIZATION, "TX decode failed"))?;
    let txid = tx.compute_txid();
    let max_fee = if args.boolean_or(1, false)? { u64::MAX } else { MAX_FEE };
    match context.chain.offer_transaction(tx, max_fee).await? {
        // Sent once more is as good as sent.
        Ok(_) | Err(Reject::AlreadyHere) => Ok(json!(txid)),
        Err(reject) => Err(refused(&reject)),
    }
}

/// A transaction and nothing behind it.
fn read_whole(mut bytes: &[u8]) -> Option<Transaction> {
    let tx = read_transaction(&mut bytes).ok()?;
    bytes.is_empty().then_some(tx)
}

fn refused(reject: &Reject) -> RpcError {
    match reject {
        Reject::AlreadyInChain => RpcError::new(TRANSACTION_IN_CHAIN, "transaction already in block chain"),
        Reject::Rule(TxError::MissingInput(_)) => RpcError::new(TRANSACTION_ERROR, "Missing inputs"),
        other => {
            let (code, reason) = other.code_and_reason();
            RpcError::new(TRANSACTION_REJECTED, format!("{code}: {reason}"))
        }
    }
}

pub(super) async fn validateaddress(context: &Context, args: &Args) -> Result<Value, RpcError> {
    let text = args.text(0)?;
    Ok(match Address::parse(text, &context.params.prefixes) {
        Ok(address) => json!({
            "isvalid": true,
            "address": text,
            "scriptPubKey": hex::encode(address.script_pubkey()),
            "isscript": address.kind == AddressKind::ScriptHash,
        }),
        Err(_) => json!({ "isvalid": false }),
    })
}
