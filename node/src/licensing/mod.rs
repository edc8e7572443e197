//! `iop-node license`: builds, signs and sends the transactions that change who may mine and how much.
//!
//! Lives here: the arguments ([`args`]), the client for a node ([`client`]), pending actions there ([`waiting`]),
//! what becomes of the cap ([`forecast`]), the transaction ([`action`]), and the steps of a command. Does not
//! live here: the rules; a finished transaction is decoded with those of `iop-consensus` before it is sent.
//! There is no wallet: the caller names an admin's coins, or the node finds them. Data goes: flags and key
//! file -> checks against the node -> coins -> signed transaction -> decoded again -> sent.

mod action;
pub(crate) mod args;
mod client;
mod forecast;
mod waiting;

use std::io::Write;

use bitcoin::consensus::encode::serialize_hex;
use iop_consensus::address::{Address, AddressKind};
use iop_consensus::license::admin::Verb;
use iop_consensus::license::key::LicenseKey;
use iop_consensus::params::Params;
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::output::print;
use crate::settings::{network_params, read_secret};
use action::{Action, AdminCoin, Built};
use args::{Common, LicenseCommand};
use client::Node;
use forecast::{Change, Forecast, Standing};
use waiting::Waiting;

/// Maximum number of addresses in one transaction; stays far below the relay limit on size.
const MAX_TARGETS: usize = 1_000;

/// Runs one command.
pub(crate) fn run(command: LicenseCommand) -> Result<(), Failure> {
    let (verb, targets, common) = match command {
        LicenseCommand::Add { addresses, common } => (Verb::Add, addresses, common),
        LicenseCommand::Remove { addresses, common } => (Verb::Remove, addresses, common),
        LicenseCommand::EnableCap { factor, common } => {
            (Verb::EnableCap { factor: factor.into() }, Vec::new(), common)
        }
        LicenseCommand::DisableCap { common } => (Verb::DisableCap, Vec::new(), common),
    };
    let params = network_params(&common.network)?;
    let key = admin_key(&common, &params)?;
    let targets = parse_targets(&targets, verb, &params)?;
    let node = Node::new(&common, &params)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Failed(error.to_string()))?;
    runtime.block_on(act(&node, &params, &key, verb, targets, &common))
}

/// Reads the key and checks that it belongs to one of the network's admins.
fn admin_key(common: &Common, params: &Params) -> Result<LicenseKey, Failure> {
    let file = common.admin_key_file.display();
    let key = LicenseKey::from_wif(&read_secret(&common.admin_key_file)?, &params.prefixes)
        .map_err(|error| Failure::Usage(format!("{file}: {error}")))?;
    if params.license.admin_pubkeys.iter().any(|admin| admin == key.pubkey()) {
        return Ok(key);
    }
    let address = key.address().to_base58(&params.prefixes);
    Err(Failure::Usage(format!(
        "{file} is the key of {address}, which is no admin of {}: one of {} expected",
        params.name,
        base58_list(&params.license.admin_addresses, params)
    )))
}

fn parse_targets(texts: &[String], verb: Verb, params: &Params) -> Result<Vec<Address>, Failure> {
    if texts.len() > MAX_TARGETS {
        return Err(Failure::Usage(format!(
            "{} addresses given, at most {MAX_TARGETS} expected",
            texts.len()
        )));
    }
    let mut targets = Vec::with_capacity(texts.len());
    for text in texts {
        let address =
            Address::parse(text, &params.prefixes).map_err(|error| Failure::Usage(error.to_string()))?;
        if params.license.admin_addresses.contains(&address) {
            return Err(Failure::Usage(format!(
                "{text} is an admin of {}: admins may always mine and can be neither added nor removed",
                params.name
            )));
        }
        if verb == Verb::Add && address.kind == AddressKind::ScriptHash {
            return Err(Failure::Usage(format!(
                "{text} is a P2SH address: it would count as a license and could never mine, a P2PKH address expected"
            )));
        }
        if targets.contains(&address) {
            return Err(Failure::Usage(format!("{text} is given twice")));
        }
        targets.push(address);
    }
    Ok(targets)
}

async fn act(
    node: &Node,
    params: &Params,
    key: &LicenseKey,
    verb: Verb,
    targets: Vec<Address>,
    common: &Common,
) -> Result<(), Failure> {
    let tip = node.check_network(params).await?;
    let waiting = node.waiting(tip + 1, params).await?;
    if let Some(one) = waiting.iter().find(|one| one.opposes(verb, &targets)) {
        let shown = one.shown(params);
        return Err(Failure::Failed(format!(
            "{shown}: which of the two would come first is open, wait until it is in one"
        )));
    }
    let (targets, skipped) = without_done(node, params, verb, targets, &waiting).await?;
    let action = Action { verb, targets, amount: common.amount, fee_rate: common.fee_rate };
    let coins = match &common.utxo[..] {
        [] => find_coin(node, params, key, &action).await?,
        named => node.named_coins(named, key, params).await?,
    };
    let built = action.build(key, coins).map_err(Failure::Failed)?;
    built.check(&action, key, tip + 1, params).map_err(Failure::Failed)?;
    let forecast = foresee(node, params, &action, &waiting).await?;
    for line in forecast.iter().flat_map(|forecast| forecast.warnings(params)) {
        warn(&line);
    }
    let sent = if common.dry_run { None } else { Some(node.send(&built.tx).await?) };
    if sent.is_some() && node.has_no_peers().await {
        warn("the node has no peers now: it tells those that connect while it runs");
    }
    let done = Done { action: &action, built: &built, skipped: &skipped, forecast: forecast.as_ref() };
    report(&done, sent.as_deref(), key, params, common.json)
}

/// What the action and those that wait for a block make of the cap; `None` where the node's figures cannot be
/// read.
async fn foresee(
    node: &Node,
    params: &Params,
    action: &Action,
    waiting: &[Waiting],
) -> Result<Option<Forecast>, Failure> {
    let Some(standing) = Standing::read(&node.license_stats(None).await?, params) else { return Ok(None) };
    let mut change = Change::default();
    for one in waiting {
        change.take(one.verb(), one.targets());
    }
    // What waits may repeat what is so already; the action's own targets were looked at.
    for (address, state) in change.whitelist.clone() {
        if node.is_whitelisted(&address, params).await? == state {
            change.whitelist.remove(&address);
        }
    }
    change.take(action.verb, &action.targets);
    let mut whitelisted = Vec::new();
    for address in Forecast::doubtful(&standing, &change, params) {
        if node.is_whitelisted(&address, params).await? {
            whitelisted.push(address);
        }
    }
    Ok(Some(Forecast::new(&standing, &change, &whitelisted, params)))
}

/// Drops targets that are in the desired state already: repeating an action changes nothing, and the reference's
/// undo of one is inexact.
async fn without_done(
    node: &Node,
    params: &Params,
    verb: Verb,
    targets: Vec<Address>,
    waiting: &[Waiting],
) -> Result<(Vec<Address>, Vec<Address>), Failure> {
    let does = |target: Option<&Address>| waiting.iter().find(|one| one.does(verb, target));
    let stats = node.license_stats(None).await?;
    let (enabled, factor) = (stats["minercapenabled"] == true, stats["currentfactor"].as_u64());
    match verb {
        Verb::EnableCap { factor: wanted } if enabled && factor == Some(wanted.into()) => {
            return Err(Failure::Failed(format!(
                "the cap is on with factor {wanted} already: nothing to do"
            )));
        }
        Verb::DisableCap if !enabled => {
            return Err(Failure::Failed("the cap is off already: nothing to do".to_owned()));
        }
        Verb::EnableCap { .. } | Verb::DisableCap => {
            return match does(None) {
                Some(one) => Err(Failure::Failed(format!("{}: nothing to do", one.shown(params)))),
                None => Ok((targets, Vec::new())),
            };
        }
        Verb::Add | Verb::Remove => {}
    }
    let (mut left, mut skipped) = (Vec::new(), Vec::new());
    for address in targets {
        let text = address.to_base58(&params.prefixes);
        let whitelisted = node.is_whitelisted(&address, params).await?;
        if whitelisted == (verb == Verb::Add) {
            let state = if whitelisted { "is a license already" } else { "is no license" };
            warn(&format!("{text} {state}: left out"));
            skipped.push(address);
        } else if let Some(one) = does(Some(&address)) {
            warn(&format!("{}: {text} is left out", one.shown(params)));
            skipped.push(address);
        } else {
            left.push(address);
        }
    }
    if left.is_empty() { Err(Failure::Failed("nothing to do".to_owned())) } else { Ok((left, skipped)) }
}

/// The smallest single coin that suffices. With one admin input, the action happens once.
async fn find_coin(
    node: &Node,
    params: &Params,
    key: &LicenseKey,
    action: &Action,
) -> Result<Vec<AdminCoin>, Failure> {
    let address = key.address().to_base58(&params.prefixes);
    let needed = action.needs(key, 1);
    let coins = node.admin_coins(key, params).await?;
    let count = coins.len();
    let fitting = coins.into_iter().filter(|coin| coin.value >= needed).min_by_key(|coin| coin.value);
    fitting.map(|coin| vec![coin]).ok_or_else(|| {
        Failure::Failed(format!(
            "none of the {count} spendable coins of {address} has {} (amounts and fee): send it one that has",
            coins_text(needed)
        ))
    })
}

/// What a command did.
struct Done<'a> {
    action: &'a Action,
    built: &'a Built,
    /// Targets that were left out.
    skipped: &'a [Address],
    forecast: Option<&'a Forecast>,
}

/// Reports the outcome: the result on stdout, the rest on stderr.
fn report(
    done: &Done<'_>,
    sent: Option<&str>,
    key: &LicenseKey,
    params: &Params,
    as_json: bool,
) -> Result<(), Failure> {
    let Done { action, built, skipped, forecast } = *done;
    let (txid, hex) = (built.tx.compute_txid().to_string(), serialize_hex(&built.tx));
    let admin = key.address().to_base58(&params.prefixes);
    if as_json {
        let inputs = built.coins.iter().map(|coin| {
            json!({"txid": coin.outpoint.txid, "vout": coin.outpoint.vout, "amount": coins_text(coin.value)})
        });
        return print(&format!(
            "{:#}",
            json!({
                "action": describe(action.verb),
                "network": params.name,
                "addresses": base58(&action.targets, params),
                "left_out": base58(skipped, params),
                "admin": admin,
                "inputs": inputs.collect::<Value>(),
                "fee": coins_text(built.fee),
                "change": coins_text(built.change),
                "cap": forecast.map(|forecast| forecast.json(params)),
                "txid": txid,
                "hex": hex,
                "sent": sent.is_some(),
            })
        ));
    }
    let mut lines = vec![format!("{} on {}", describe(action.verb), params.name)];
    lines.extend(base58(&action.targets, params).into_iter().map(|address| format!("  {address}")));
    let from: Vec<String> =
        built.coins.iter().map(|coin| format!("{} ({})", coin.outpoint, coins_text(coin.value))).collect();
    lines.push(format!("admin {admin}, from {}", from.join(", ")));
    lines.push(format!("fee {}, back to the admin {}", coins_text(built.fee), coins_text(built.change)));
    lines.extend(forecast.map(Forecast::line));
    for line in lines {
        let _ = writeln!(std::io::stderr(), "{line}");
    }
    match sent {
        Some(txid) => {
            let _ =
                writeln!(std::io::stderr(), "sent; it holds from the block after the one that takes it in");
            print(txid)
        }
        None => {
            let _ = writeln!(std::io::stderr(), "not sent (--dry-run)");
            print(&hex)
        }
    }
}

fn describe(verb: Verb) -> String {
    match verb {
        Verb::Add => "add licenses".to_owned(),
        Verb::Remove => "remove licenses".to_owned(),
        Verb::EnableCap { factor } => format!("enable the cap with factor {factor}"),
        Verb::DisableCap => "disable the cap".to_owned(),
    }
}

fn base58(addresses: &[Address], params: &Params) -> Vec<String> {
    addresses.iter().map(|address| address.to_base58(&params.prefixes)).collect()
}

fn base58_list(addresses: &[Address], params: &Params) -> String {
    base58(addresses, params).join(", ")
}

/// Formats base units as coins, with eight decimals.
fn coins_text(base_units: u64) -> String {
    format!("{}.{:08}", base_units / iop_consensus::COIN, base_units % iop_consensus::COIN)
}

fn warn(line: &str) {
    let _ = writeln!(std::io::stderr(), "iop-node: warning: {line}");
}
