//! `iop-pool check`: checks configuration, nodes and licenses, and shows what would be mined.

use std::fmt;

use iop_consensus::address::Address;
use iop_consensus::license::key::LicenseKey;
use iop_mining::choice::choose;
use iop_mining::rpc::{CALL_TIME, Node, RpcError};
use iop_mining::template::{self, ChainIdentity, LicenseInfo, check_chain};
use iop_mining::tips;

use crate::clock;
use crate::config::Settings;
use crate::datadir::check_future;
use crate::output::print;
use crate::run::RunError;

/// Prints a line of the result.
fn show(line: fmt::Arguments<'_>) -> Result<(), RunError> {
    print(&format!("{line}\n"))
}

/// Queries every node and prints the results on stdout.
///
/// # Errors
/// A node does not answer or is on another chain, or no license may mine.
pub async fn check(settings: Settings) -> Result<(), RunError> {
    let prefixes = settings.params.prefixes;
    let addresses: Vec<Address> = settings.licenses.iter().map(LicenseKey::address).collect();
    show(format_args!("network   {}", settings.params.name))?;
    show(format_args!("stratum   {}", settings.stratum_bind))?;
    show(format_args!("api       {}", settings.api_bind))?;
    show(format_args!("datadir   {}", settings.datadir.display()))?;
    check_future(&settings.datadir, &ChainIdentity::of(&settings.params))?;
    let bounds = settings.difficulty;
    show(format_args!("difficulty {}, on request {} to {}", bounds.start, bounds.min, bounds.max))?;
    match settings.payout {
        Some(address) => show(format_args!("payout    {}", address.to_base58(&prefixes))),
        None => show(format_args!("payout    the license that signs")),
    }?;
    show(format_args!("pays      {}", settings.rules))?;
    settings.doubts().iter().try_for_each(|doubt| show(format_args!("warning   {doubt}")))?;
    let mut failed = None;
    for address in settings.nodes.clone() {
        let node = Node::new(address);
        let told = ask(&node, &addresses, &settings).await;
        match told {
            Ok(line) => show(format_args!("node      {}: {line}", node.name()))?,
            Err(error) => {
                show(format_args!("node      {}: {error}", node.name()))?;
                failed.get_or_insert(RunError(format!("node {}: {error}", node.name())));
            }
        }
    }
    failed.map_or(Ok(()), Err)
}

async fn ask(node: &Node, addresses: &[Address], settings: &Settings) -> Result<String, RunError> {
    let failed = |error: RpcError| RunError(error.to_string());
    let expected = ChainIdentity::of(&settings.params);
    check_chain(node, &expected).await.map_err(|error| RunError(error.to_string()))?;
    let state = tips::state(node, CALL_TIME).await.map_err(failed)?;
    state.synced(&settings.params).map_err(|syncing| RunError(syncing.to_string()))?;
    let template = template::template(node).await.map_err(failed)?;
    let licenses = template::licenses(node, addresses, &settings.params).await.map_err(failed)?.infos;
    licenses.iter().try_for_each(|license| show(format_args!("license   {}", describe(license))))?;
    let chosen = choose(&licenses, template.license_required, template.height)
        .map_err(|none| RunError(none.to_string()))?;
    let (height, count, value) = (template.height, template.txids.len(), template.coinbase_value);
    let license = &licenses[chosen].address;
    let doubts = [clock::doubt(template.time), settings.rules.pay_nobody(value)];
    doubts.iter().flatten().try_for_each(|doubt| show(format_args!("warning   {doubt}")))?;
    Ok(format!("would mine block {height} with license {license}, {count} transactions, {value} base units"))
}

fn describe(license: &LicenseInfo) -> String {
    let LicenseInfo { address, whitelisted, blocks_in_window, cap, last_block, eligible_next, .. } = license;
    let cap = cap.map_or("no cap".to_owned(), |cap| format!("cap {cap}"));
    let last = last_block.map_or("no block yet".to_owned(), |height| format!("last block {height}"));
    let listed = if *whitelisted { "whitelisted" } else { "not whitelisted" };
    let may = if *eligible_next { "may mine next" } else { "may not mine next" };
    format!("{address} {listed}, {blocks_in_window} blocks in the window, {cap}, {last}, {may}")
}
