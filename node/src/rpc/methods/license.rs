//! Methods about licenses in the registry.

use iop_consensus::address::Address;
use iop_consensus::license::cap;
use serde_json::{Map, Value, json};

use super::super::args::Args;
use super::super::error::{INVALID_ADDRESS_OR_KEY, RpcError};
use super::Context;
use crate::chain::state::ChainState;

pub(super) async fn dumpminerstats(context: &Context, args: &Args) -> Result<Value, RpcError> {
    let Some(text) = args.optional_text(0)?.map(str::to_owned) else {
        return Ok(context.chain.run(|state| Ok(window_stats(state))).await?);
    };
    // As in the reference, an invalid address is simply not registered.
    let address = Address::parse(&text, &context.params.prefixes).ok();
    let record = context
        .chain
        .run(move |state| Ok(address.and_then(|address| state.registry().license(&address).copied())))
        .await?;
    let mut out = Map::new();
    out.insert("address".into(), json!(text));
    if let Some(record) = record {
        out.insert(
            "stats".into(),
            json!({
                "whitelisted": u32::from(record.whitelisted),
                "windowBlocks": record.window_blocks,
                "totalBlocks": record.total_blocks,
                "lastBlock": record.last_block,
            }),
        );
    }
    Ok(Value::Object(out))
}

fn window_stats(state: &ChainState) -> Value {
    let (registry, params) = (state.registry(), state.params());
    let globals = registry.globals();
    let sharers = registry.sharers(params);
    let mut counted: Vec<(String, u32)> = registry
        .licenses()
        .filter(|(_, record)| record.window_blocks > 0)
        .map(|(address, record)| (address.to_base58(&params.prefixes), record.window_blocks))
        .collect();
    // The reference sorts by count only, highest first; sorting by address within equal counts makes the order
    // stable.
    counted.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    let stats: Map<String, Value> =
        counted.into_iter().map(|(address, blocks)| (address, json!(blocks))).collect();
    json!({
        "currentheight": globals.height,
        "windowstart": cap::window_start(globals.height, &params.license),
        "minercapenabled": globals.cap_enabled,
        "currentwhitelisted": sharers,
        "currentavgblocksperminer": iop_consensus::WINDOW.checked_div(sharers),
        "currentfactor": globals.factor,
        "currentcap": registry.cap(params),
        "stats": stats,
    })
}

pub(super) async fn getlicenseinfo(context: &Context, args: &Args) -> Result<Value, RpcError> {
    let addresses = args
        .texts()?
        .into_iter()
        .map(|text| Address::parse(text, &context.params.prefixes))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| RpcError::new(INVALID_ADDRESS_OR_KEY, error.to_string()))?;
    let infos = context.chain.run(move |state| {
        Ok(addresses.iter().map(|address| license_info(state, address)).collect::<Value>())
    });
    Ok(infos.await?)
}

/// `cap` is null while the cap is off, `remaining` if no cap applies, `last_block` if there is none.
/// `eligible_from_height` is the lowest height from which the license may mine if it mines no block until then;
/// null while it is not whitelisted.
fn license_info(state: &ChainState, address: &Address) -> Value {
    let (registry, params) = (state.registry(), state.params());
    let record = registry.license(address).copied().unwrap_or_default();
    let eligibility = registry.eligibility(address, params);
    let tip = state.index().get(state.index().tip());
    json!({
        "address": address.to_base58(&params.prefixes),
        "whitelisted": record.whitelisted,
        "admin": params.license.admin_addresses.contains(address),
        "blocks_in_window": record.window_blocks,
        "cap": registry.globals().cap_enabled.then(|| registry.cap(params)),
        "remaining": eligibility.remaining,
        "last_block": (record.last_block > 0).then_some(record.last_block),
        "eligible_next": eligibility.next,
        "eligible_from_height": eligibility.from_height,
        "tip_hash": tip.hash,
        "tip_height": tip.record.height,
    })
}

/// Why a license may not mine the next block; `None` if it may.
pub(super) fn why_not(state: &ChainState, address: &Address) -> Option<String> {
    let (registry, params) = (state.registry(), state.params());
    let eligibility = registry.eligibility(address, params);
    if eligibility.next {
        return None;
    }
    let name = address.to_base58(&params.prefixes);
    let Some(height) = eligibility.from_height else {
        return Some(format!("{name} is not on the whitelist"));
    };
    let blocks = registry.license(address).map_or(0, |record| record.window_blocks);
    Some(format!(
        "{name} has {blocks} blocks in the window, the cap is {}; it may mine from height {height}",
        registry.cap(params)
    ))
}
