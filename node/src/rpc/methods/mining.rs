//! Templates, blocks, and mining at once.

use std::time::Duration;

use bitcoin::BlockHash;
use bitcoin::consensus::encode::serialize_hex;
use iop_consensus::address::Address;
use iop_consensus::license::key::LicenseKey;
use iop_consensus::wire::read_block;
use iop_consensus::{MAX_BLOCK_SIGOPS_COST, MAX_BLOCK_WEIGHT, WITNESS_SCALE_FACTOR};
use serde_json::{Map, Value, json};

use super::super::args::Args;
use super::super::error::{
    DESERIALIZATION, INTERNAL, INVALID_ADDRESS_OR_KEY, INVALID_PARAMETER, MISC, RpcError,
};
use super::{Context, json as format};
use crate::generate::{Payee, mine};
use crate::template::{Template, TemplateTx};

/// A long poll on the same tip is answered after this when the mempool has changed by then (Core's minute)...
const LONG_POLL_MEMPOOL: Duration = Duration::from_secs(60);
/// ...and looks again this often.
const LONG_POLL_STEP: Duration = Duration::from_secs(10);
/// Blocks that one `generatetoaddress` may ask for.
const MAX_GENERATE: i64 = 100_000;

pub(super) async fn submitblock(context: &Context, args: &Args) -> Result<Value, RpcError> {
    let undecodable = || RpcError::new(DESERIALIZATION, "Block decode failed");
    let bytes = hex::decode(args.text(0)?).map_err(|_| undecodable())?;
    // Bytes behind the block are ignored, as in the reference.
    let block = read_block(&mut bytes.as_slice()).map_err(|_| undecodable())?;
    if !block.txdata.first().is_some_and(bitcoin::Transaction::is_coinbase) {
        return Err(RpcError::new(DESERIALIZATION, "Block does not start with a coinbase"));
    }
    Ok(json!(context.chain.submit_block(block).await?.answer()))
}

pub(super) async fn getblocktemplate(context: &Context, args: &Args) -> Result<Value, RpcError> {
    let request = args.optional_object(0)?;
    let field = |name: &str| request.and_then(|request| request.get(name)).filter(|value| !value.is_null());
    if field("mode").is_some_and(|mode| mode != "template") {
        return Err(RpcError::new(INVALID_PARAMETER, "Invalid mode"));
    }
    if let Some(id) = field("longpollid") {
        let id =
            id.as_str().ok_or_else(|| RpcError::new(INVALID_PARAMETER, "longpollid must be a string"))?;
        wait_for_change(context, id).await;
    }
    let (template, mempool_changes) = context.chain.template().await?;
    let license = &context.params.license;
    let (required, registry) = (license.requires_license(template.height), template.registry);
    let mut out = template_fields(template, mempool_changes);
    out.insert(
        "license".into(),
        json!({
            "required": required,
            "activation_height": license.activation_height,
            "tip_registry": {
                "cap_enabled": registry.cap_enabled,
                "factor": registry.factor,
                "whitelisted": registry.sharers,
            },
        }),
    );
    Ok(Value::Object(out))
}

/// Returns when the tip is not the one of the long-poll id any more, when the mempool has changed and a minute
/// has passed, or when the node stops.
async fn wait_for_change(context: &Context, id: &str) {
    let (tip, changes) = id.split_at_checked(64).unwrap_or((id, ""));
    let Ok(tip) = tip.parse::<BlockHash>() else { return };
    let mut published = context.chain.published();
    let latest = published.clone();
    let mut shutdown = context.shutdown.subscribe();
    let mut wait = LONG_POLL_MEMPOOL;
    loop {
        tokio::select! {
            _ = published.wait_for(|now| now.tip != tip) => return,
            _ = shutdown.wait_for(|stop| *stop) => return,
            () = tokio::time::sleep(wait) => {
                if latest.borrow().mempool_changes.to_string() != changes {
                    return;
                }
                wait = LONG_POLL_STEP;
            }
        }
    }
}

/// The fields of BIP22, BIP23, BIP9 and BIP145, in the reference's order. What before segwit counted in whole
/// operations and bytes is divided by four there.
fn template_fields(template: Template, mempool_changes: u64) -> Map<String, Value> {
    let scale = if template.forks.segwit { 1 } else { WITNESS_SCALE_FACTOR };
    let mut out = Map::new();
    let mut put = |name: &str, value: Value| out.insert(name.to_owned(), value);
    put("capabilities", json!([]));
    put("version", json!(template.version));
    put("rules", json!(template.rules));
    let votes: Map<String, Value> =
        template.votes.iter().map(|(name, bit)| ((*name).to_owned(), json!(bit))).collect();
    put("vbavailable", Value::Object(votes));
    put("vbrequired", json!(0));
    put("previousblockhash", json!(template.previous));
    put("transactions", template.transactions.iter().map(|tx| template_tx(tx, scale)).collect());
    put("coinbaseaux", json!({ "flags": "" }));
    put("coinbasevalue", json!(template.coinbase_value));
    put("longpollid", json!(format!("{}{mempool_changes}", template.previous)));
    put("target", json!(format::target_hex(template.bits)));
    put("mintime", json!(template.min_time));
    put("mutable", json!(["time", "transactions", "prevblock"]));
    put("noncerange", json!("00000000ffffffff"));
    put("sigoplimit", json!(MAX_BLOCK_SIGOPS_COST / scale));
    put("sizelimit", json!(MAX_BLOCK_WEIGHT / scale));
    if template.forks.segwit {
        put("weightlimit", json!(MAX_BLOCK_WEIGHT));
    }
    put("curtime", json!(template.time));
    put("bits", json!(format!("{:08x}", template.bits.to_consensus())));
    put("height", json!(template.height));
    if let Some(script) = template.witness_commitment {
        put("default_witness_commitment", json!(hex::encode(script)));
    }
    out
}

fn template_tx(tx: &TemplateTx, scale: u64) -> Value {
    json!({
        "data": serialize_hex(&tx.tx),
        "txid": tx.txid,
        "hash": tx.tx.compute_wtxid(),
        "depends": tx.depends,
        "fee": tx.fee,
        "sigops": tx.sigop_cost / scale,
        "weight": tx.weight,
    })
}

pub(super) async fn generatetoaddress(context: &Context, args: &Args) -> Result<Value, RpcError> {
    if !context.params.mine_on_demand {
        let message = format!("generatetoaddress is for private networks, this is {}", context.params.name);
        return Err(RpcError::new(MISC, message));
    }
    let count = args.integer(0)?;
    if !(0..=MAX_GENERATE).contains(&count) {
        return Err(RpcError::new(
            INVALID_PARAMETER,
            format!("nblocks is {count}, 0 to {MAX_GENERATE} expected"),
        ));
    }
    let bad_key = |error: &dyn std::fmt::Display| RpcError::new(INVALID_ADDRESS_OR_KEY, error.to_string());
    let address = Address::parse(args.text(1)?, &context.params.prefixes).map_err(|error| bad_key(&error))?;
    let key =
        args.optional_text(2)?.map(|wif| LicenseKey::from_wif(wif, &context.params.prefixes)).transpose();
    let payee = std::sync::Arc::new(Payee { address, key: key.map_err(|error| bad_key(&error))? });
    let mut hashes = Vec::new();
    for _ in 0..count {
        let (template, _) = context.chain.template().await?;
        if payee.key.is_none() && context.params.license.requires_license(template.height) {
            return Err(RpcError::new(
                INVALID_PARAMETER,
                format!(
                    "block {} must be licensed: give the license's key as the third argument",
                    template.height
                ),
            ));
        }
        let (payee, shutdown) = (payee.clone(), context.shutdown.subscribe());
        let mined = tokio::task::spawn_blocking(move || mine(&template, &payee, || *shutdown.borrow())).await;
        let Ok(Some(block)) = mined else { return Err(RpcError::new(INTERNAL, "the node is stopping")) };
        let hash = block.block_hash();
        match context.chain.submit_block(block).await?.answer().as_deref() {
            None => hashes.push(hash),
            // Another block was faster; the next template is on top of it.
            Some("inconclusive") => {}
            Some(reason) => return Err(RpcError::new(INTERNAL, format!("the block was refused: {reason}"))),
        }
    }
    Ok(json!(hashes))
}
