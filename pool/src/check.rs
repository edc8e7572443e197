//! `iop-pool check`: checks configuration, nodes and licenses, and shows what would be mined.
//!
//! Everything found is in a `Report`, from which both the lines for people and the JSON are made.

use iop_consensus::address::Address;
use iop_consensus::license::key::LicenseKey;
use iop_mining::choice::choose;
use iop_mining::rpc::{CALL_TIME, Node, RpcError};
use iop_mining::template::{self, ChainIdentity, LicenseInfo, check_chain};
use iop_mining::tips;
use serde::Serialize;

use crate::clock;
use crate::config::Settings;
use crate::datadir::check_future;
use crate::output::print;
use crate::run::RunError;

/// What `check` finds.
#[derive(Debug, Serialize)]
struct Report {
    network: String,
    stratum: String,
    /// Where Stratum over TLS would listen.
    stratum_tls: Option<String>,
    api: String,
    datadir: String,
    difficulty: Bounds,
    /// The chapter's address; `None` for the license that signs.
    payout: Option<String>,
    pays: String,
    warnings: Vec<String>,
    /// In the order of the configuration.
    nodes: Vec<Found>,
    /// The first thing that makes the check fail.
    error: Option<String>,
}

/// Difficulties of a connection.
#[derive(Debug, Serialize)]
struct Bounds {
    start: f64,
    min: f64,
    max: f64,
}

/// What one node says.
#[derive(Debug, Default, Serialize)]
struct Found {
    node: String,
    licenses: Vec<LicenseInfo>,
    warnings: Vec<String>,
    would_mine: Option<Work>,
    /// Why it is of no use.
    error: Option<String>,
}

/// The block that would be mined.
#[derive(Debug, Serialize)]
struct Work {
    height: u32,
    license: String,
    /// Without the coinbase.
    transactions: usize,
    /// In base units.
    coinbase_value: u64,
}

impl Report {
    fn new(settings: &Settings) -> Self {
        let bounds = settings.difficulty;
        Self {
            network: settings.params.name.clone(),
            stratum: settings.stratum_bind.to_string(),
            stratum_tls: settings.tls.as_ref().map(|(address, _)| address.to_string()),
            api: settings.api_bind.to_string(),
            datadir: settings.datadir.display().to_string(),
            difficulty: Bounds { start: bounds.start.get(), min: bounds.min.get(), max: bounds.max.get() },
            payout: settings.payout.map(|address| address.to_base58(&settings.params.prefixes)),
            pays: settings.rules.to_string(),
            warnings: settings.doubts(),
            nodes: Vec::new(),
            error: None,
        }
    }

    /// The lines about the settings.
    fn lines(&self) -> Vec<String> {
        let Bounds { start, min, max } = &self.difficulty;
        let mut lines = vec![format!("network   {}", self.network), format!("stratum   {}", self.stratum)];
        lines.extend(self.stratum_tls.iter().map(|address| format!("tls       {address}")));
        lines.push(format!("api       {}", self.api));
        lines.push(format!("datadir   {}", self.datadir));
        lines.push(format!("difficulty {start}, on request {min} to {max}"));
        lines.push(format!("payout    {}", self.payout.as_deref().unwrap_or("the license that signs")));
        lines.push(format!("pays      {}", self.pays));
        lines.extend(self.warnings.iter().map(|doubt| format!("warning   {doubt}")));
        lines
    }

    fn fail(&mut self, error: String) {
        self.error.get_or_insert(error);
    }
}

impl Found {
    fn lines(&self) -> Vec<String> {
        let licenses = self.licenses.iter().map(|license| format!("license   {}", describe(license)));
        let mut lines: Vec<String> = licenses.collect();
        lines.extend(self.warnings.iter().map(|doubt| format!("warning   {doubt}")));
        let told = self.would_mine.as_ref().map(|work| {
            let Work { height, license, transactions, coinbase_value } = work;
            format!(
                "would mine block {height} with license {license}, {transactions} transactions, {coinbase_value} base \
                 units"
            )
        });
        let told = self.error.iter().cloned().chain(told);
        lines.extend(told.map(|words| format!("node      {}: {words}", self.node)));
        lines
    }
}

/// Queries every node and prints the results on stdout: for people as they come, or as JSON at the end.
///
/// # Errors
/// A node does not answer or is on another chain, no license may mine, or the data folder cannot be used.
pub async fn check(settings: Settings, json: bool) -> Result<(), RunError> {
    let show = |lines: Vec<String>| if json { Ok(()) } else { print(&(lines.join("\n") + "\n")) };
    let addresses: Vec<Address> = settings.licenses.iter().map(LicenseKey::address).collect();
    let mut report = Report::new(&settings);
    show(report.lines())?;
    if let Err(error) = check_future(&settings.datadir, &ChainIdentity::of(&settings.params)) {
        report.fail(error.0);
    } else {
        for address in settings.nodes.clone() {
            let node = Node::new(address);
            let mut found = Found { node: node.name().to_owned(), ..Found::default() };
            let asked = ask(&node, &addresses, &settings, &mut found).await;
            if let Err(error) = asked {
                report.fail(format!("node {}: {error}", found.node));
                found.error = Some(error.0);
            }
            show(found.lines())?;
            report.nodes.push(found);
        }
    }
    if json {
        let text =
            serde_json::to_string_pretty(&report).expect("string keys and no I/O: encoding cannot fail");
        print(&(text + "\n"))?;
    }
    report.error.map_or(Ok(()), |error| Err(RunError(error)))
}

/// Asks a node; what it says is in `found`, also where it is of no use in the end.
async fn ask(
    node: &Node,
    addresses: &[Address],
    settings: &Settings,
    found: &mut Found,
) -> Result<(), RunError> {
    let failed = |error: RpcError| RunError(error.to_string());
    let expected = ChainIdentity::of(&settings.params);
    check_chain(node, &expected).await.map_err(|error| RunError(error.to_string()))?;
    let state = tips::state(node, CALL_TIME).await.map_err(failed)?;
    state.synced(&settings.params).map_err(|syncing| RunError(syncing.to_string()))?;
    let template = template::template(node).await.map_err(failed)?;
    found.warnings.extend(clock::doubt(template.time));
    let licenses = template::licenses(node, addresses, &settings.params).await.map_err(failed)?.infos;
    found.licenses.clone_from(&licenses);
    let chosen = choose(&licenses, template.license_required, template.height)
        .map_err(|none| RunError(none.to_string()))?;
    found.warnings.extend(settings.rules.pay_nobody(template.coinbase_value));
    found.would_mine = Some(Work {
        height: template.height,
        license: licenses[chosen].address.clone(),
        transactions: template.txids.len(),
        coinbase_value: template.coinbase_value,
    });
    Ok(())
}

fn describe(license: &LicenseInfo) -> String {
    let LicenseInfo { address, whitelisted, blocks_in_window, cap, last_block, eligible_next, .. } = license;
    let cap = cap.map_or("no cap".to_owned(), |cap| format!("cap {cap}"));
    let last = last_block.map_or("no block yet".to_owned(), |height| format!("last block {height}"));
    let listed = if *whitelisted { "whitelisted" } else { "not whitelisted" };
    let may = if *eligible_next { "may mine next" } else { "may not mine next" };
    format!("{address} {listed}, {blocks_in_window} blocks in the window, {cap}, {last}, {may}")
}
