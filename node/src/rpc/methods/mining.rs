//! Templates, block submission, and mining on demand.

use std::sync::Arc;

use bitcoin::Block;
use iop_consensus::address::Address;
use iop_consensus::license::key::LicenseKey;
use iop_consensus::wire::read_block;
use iop_consensus::{MAX_BLOCK_SIGOPS_COST, MAX_BLOCK_WEIGHT, WITNESS_SCALE_FACTOR};
use serde_json::{Map, Value, json};

use super::super::args::Args;
use super::super::error::{
    CLIENT_IN_INITIAL_DOWNLOAD, CLIENT_NOT_CONNECTED, DESERIALIZATION, INTERNAL, INVALID_ADDRESS_OR_KEY,
    INVALID_PARAMETER, MISC, RpcError, TYPE,
};
use super::{Context, heavy, json as format, license, long_poll};
use crate::chain::actor::Stopped;
use crate::generate::{Payee, mine};
use crate::hexes;
use crate::template::{Contents, Template, TemplateTx};

/// Maximum number of blocks per `generatetoaddress`.
const MAX_GENERATE: i64 = 100_000;

pub(super) async fn submitblock(context: &Context, args: &Args) -> Result<Value, RpcError> {
    let undecodable = || RpcError::new(DESERIALIZATION, "Block decode failed");
    let bytes = hexes::decode(args.text(0)?).ok_or_else(undecodable)?;
    // Trailing bytes after the block are ignored, as in the reference.
    let block = read_block(&mut bytes.as_slice()).map_err(|_| undecodable())?;
    if !block.txdata.first().is_some_and(bitcoin::Transaction::is_coinbase) {
        return Err(RpcError::new(DESERIALIZATION, "Block does not start with a coinbase"));
    }
    Ok(json!(context.chain.submit_block(block).await?.answer()))
}

pub(super) async fn getblocktemplate(context: &Context, args: &Args) -> Result<Value, RpcError> {
    let request = args.optional_object(0)?;
    let field = |name: &str| request.and_then(|request| request.get(name)).filter(|value| !value.is_null());
    match field("mode").map(Value::as_str) {
        None | Some(Some("template")) => {}
        Some(Some("proposal")) => return propose(context, field("data")).await,
        Some(_) => return Err(RpcError::new(INVALID_PARAMETER, "Invalid mode")),
    }
    check_connected(context)?;
    // A private chain may start with a tip of any age.
    if !context.params.mine_on_demand && context.chain.published().borrow().initial_block_download {
        return Err(RpcError::new(CLIENT_IN_INITIAL_DOWNLOAD, "IoP is downloading blocks..."));
    }
    let knows_segwit = knows_segwit(field("rules"))?;
    let mut contents = if knows_segwit { Contents::Full } else { Contents::WithoutWitness };
    if let Some(id) = field("longpollid") {
        let id =
            id.as_str().ok_or_else(|| RpcError::new(INVALID_PARAMETER, "longpollid must be a string"))?;
        let new_tip = long_poll::wait_for_change(context, id).await == long_poll::Woken::NewTip;
        check_connected(context)?;
        // After an empty block the first template is the full one; otherwise, on a chain whose blocks come faster
        // than pools ask for the second template, no waiting transaction would ever be mined.
        if new_tip && !context.chain.published().borrow().tip_is_empty {
            contents = Contents::Empty;
        }
    }
    let (template, mempool_changes) = context.chain.template(contents).await?;
    let long_poll_id = long_poll::Id::of(&template, contents, mempool_changes);
    let license = &context.params.license;
    let (required, registry) = (license.requires_license(template.height), template.registry);
    let mut out = template_fields(template, &long_poll_id, knows_segwit);
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

/// Refuses work on a tip that may be out of date since no peer tells of another. A private chain may have one node.
fn check_connected(context: &Context) -> Result<(), RpcError> {
    if long_poll::is_alone(context) {
        return Err(RpcError::new(CLIENT_NOT_CONNECTED, "IoP is not connected!"));
    }
    Ok(())
}

/// Whether the client's rules include segwit.
fn knows_segwit(rules: Option<&Value>) -> Result<bool, RpcError> {
    let Some(rules) = rules.and_then(Value::as_array) else { return Ok(false) };
    let mut knows = false;
    for rule in rules {
        let rule =
            rule.as_str().ok_or_else(|| RpcError::new(MISC, "JSON value is not a string as expected"))?;
        knows |= rule == "segwit";
    }
    Ok(knows)
}

/// Judges a proposed block without proof of work (BIP23).
async fn propose(context: &Context, data: Option<&Value>) -> Result<Value, RpcError> {
    let data = data
        .and_then(Value::as_str)
        .ok_or_else(|| RpcError::new(TYPE, "Missing data String key for proposal"))?;
    let undecodable = || RpcError::new(DESERIALIZATION, "Block decode failed");
    let bytes = hexes::decode(data).ok_or_else(undecodable)?;
    let block = read_block(&mut bytes.as_slice()).map_err(|_| undecodable())?;
    let verdict = context.chain.run_at(move |state, now| state.propose(&block, now)).await?;
    Ok(json!(verdict.answer()))
}

/// The fields of BIP22, BIP23, BIP9 and BIP145, in the reference's order. Before segwit, limits are in whole
/// signature operations and bytes, so they are divided by four.
fn template_fields(
    template: Template,
    long_poll_id: &long_poll::Id,
    knows_segwit: bool,
) -> Map<String, Value> {
    let scale = if template.forks.segwit { 1 } else { WITNESS_SCALE_FACTOR };
    let mut out = Map::new();
    let mut put = |name: &str, value: Value| out.insert(name.to_owned(), value);
    put("capabilities", json!(["proposal"]));
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
    put("longpollid", json!(long_poll_id.to_string()));
    put("target", json!(format::target_hex(template.bits)));
    put("mintime", json!(template.min_time));
    if let Some(time) = template.max_time {
        put("maxtime", json!(time));
    }
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
    if let Some(script) = template.witness_commitment.filter(|_| knows_segwit) {
        put("default_witness_commitment", json!(hex::encode(script)));
    }
    out
}

fn template_tx(tx: &TemplateTx, scale: u64) -> Value {
    json!({
        "data": tx.hex(),
        "txid": tx.txid,
        "hash": tx.wtxid,
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
    let payee = Arc::new(Payee { address, key: key.map_err(|error| bad_key(&error))? });
    let (mut hashes, count) = (Vec::new(), usize::try_from(count).expect("it is in range"));
    while hashes.len() < count {
        let (template, _) = context.chain.template(Contents::Full).await?;
        if payee.key.is_none() && context.params.license.requires_license(template.height) {
            return Err(RpcError::new(
                INVALID_PARAMETER,
                format!(
                    "block {} must be licensed: give the license's key as the third argument",
                    template.height
                ),
            ));
        }
        let Some(block) = mined_on(context, template, &payee).await? else { continue };
        let hash = block.block_hash();
        match context.chain.submit_block(block).await?.answer().as_deref() {
            None => hashes.push(hash),
            // Another block was faster; the next template builds on it.
            Some("inconclusive") => {}
            Some(reason) => return Err(refused(context, payee.key.as_ref(), reason).await),
        }
    }
    Ok(json!(hashes))
}

/// Mines a block on a template; `None` if there is another tip first.
async fn mined_on(
    context: &Context,
    template: Template,
    payee: &Arc<Payee>,
) -> Result<Option<Block>, RpcError> {
    let (payee, shutdown) = (Arc::clone(payee), context.shutdown.subscribe());
    let (published, tip) = (context.chain.published(), template.previous);
    // This future is dropped with the client's connection, and the thread goes on.
    let client = Arc::new(());
    let there = Arc::downgrade(&client);
    let is_over = move || *shutdown.borrow() || there.strong_count() == 0 || published.borrow().tip != tip;
    let mined = heavy(move || mine(&template, &payee, is_over)).await?;
    drop(client);
    if mined.is_none() && *context.shutdown.borrow() { Err(Stopped.into()) } else { Ok(mined) }
}

/// What is said of a block that was refused: the reason, and why its license may not mine, if that is it.
async fn refused(context: &Context, key: Option<&LicenseKey>, reason: &str) -> RpcError {
    let license = key.map(LicenseKey::address);
    let why =
        context.chain.run(move |state| Ok(license.and_then(|license| license::why_not(state, &license))));
    let why = why.await.ok().flatten().map(|words| format!(" ({words})")).unwrap_or_default();
    RpcError::new(INTERNAL, format!("the block was refused: {reason}{why}"))
}
