//! Transactions that wait, and addresses.

use bitcoin::Transaction;
use bitcoin::consensus::encode::deserialize;
use iop_consensus::address::{Address, AddressKind};
use iop_consensus::error::TxError;
use serde_json::{Map, Value, json};

use super::super::args::Args;
use super::super::error::{
    DESERIALIZATION, RpcError, TRANSACTION_ERROR, TRANSACTION_IN_CHAIN, TRANSACTION_REJECTED,
};
use super::{Context, json as format};
use crate::mempool::Reject;

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
            let spent: Vec<_> = entry.tx.input.iter().map(|input| input.previous_output.txid).collect();
            let depends: Vec<_> = spent.into_iter().filter(|txid| pool.get(txid).is_some()).collect();
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
        .and_then(|bytes| deserialize(&bytes).ok())
        .ok_or_else(|| RpcError::new(DESERIALIZATION, "TX decode failed"))?;
    let txid = tx.compute_txid();
    match context.chain.offer_transaction(tx).await? {
        // Sent once more is as good as sent.
        Ok(_) | Err(Reject::AlreadyHere) => Ok(json!(txid)),
        Err(reject) => Err(refused(&reject)),
    }
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
