//! The commands that read the ledger beside a pool or without one: `audit` and `report`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use bitcoin::Block;
use bitcoin::consensus::deserialize;
use clap::Args;
use iop_consensus::WINDOW;
use iop_consensus::address::Address;
use iop_consensus::license::coinbase::named_license;
use iop_mining::rpc::{CALL_TIME, Node, RpcError, code};
use iop_mining::template::{ChainIdentity, check_chain};
use iop_stratum::difficulty::Target;
use serde::Serialize;
use serde_json::json;

use crate::chain::{block_at, read};
use crate::config::{Books, Flags, LedgerFlags, NodeFlags};
use crate::ledger::audit::{Report, Unbooked, audit};
use crate::ledger::book::{Facts, chain_of};
use crate::ledger::live::wanted_work;
use crate::ledger::report::{report, to_csv};
use crate::ledger::split::{Rules, Scheme};
use crate::ledger::store::{BlockId, Store};
use crate::output::print;
use crate::run::RunError;
use crate::strays::NOT_HANDED_IN;

/// Flags of `audit`.
#[derive(Debug, Args)]
pub struct AuditFlags {
    #[command(flatten)]
    ledger: LedgerFlags,
    #[command(flatten)]
    nodes: NodeFlags,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

impl AuditFlags {
    /// What it has in common with a pool that runs.
    pub(crate) fn common(&self) -> Flags {
        Flags { nodes: self.nodes.clone(), ..self.ledger.clone().into() }
    }
}

/// Form of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Csv,
    Json,
}

/// Flags of `report`.
#[derive(Debug, Args)]
pub struct ReportFlags {
    #[command(flatten)]
    ledger: LedgerFlags,
    /// Form of the report
    #[arg(long, value_enum, default_value = "csv")]
    format: Format,
    /// Begin of the time reported on, in seconds since 1970
    #[arg(long, value_name = "TIME", default_value_t = 0)]
    from: u64,
    /// End of the time reported on, in seconds since 1970 [default: no end]
    #[arg(long, value_name = "TIME")]
    to: Option<u64>,
}

impl ReportFlags {
    /// What it has in common with a pool that runs.
    pub(crate) fn common(&self) -> Flags {
        self.ledger.clone().into()
    }
}

fn open(datadir: &Path, chain: &ChainIdentity) -> Result<Store, RunError> {
    crate::datadir::check_network_of(datadir, chain)?;
    Store::open_to_read(datadir).map_err(|error| RunError(error.to_string()))
}

fn print_json(value: &impl Serialize) -> Result<(), RunError> {
    let text = serde_json::to_string_pretty(value).expect("string keys and no I/O: encoding cannot fail");
    print(&(text + "\n"))
}

/// `iop-pool report`.
///
/// # Errors
/// The ledger cannot be read.
pub fn run_report(books: &Books, flags: &ReportFlags) -> Result<(), RunError> {
    let store = open(&books.datadir, &ChainIdentity::of(&books.params))?;
    let lines = report(&store, &books.params.prefixes, &(flags.from..=flags.to.unwrap_or(u64::MAX)));
    let lines = lines.map_err(|error| RunError(error.to_string()))?;
    match flags.format {
        Format::Csv => print(&to_csv(&lines)),
        Format::Json => print_json(&lines),
    }
}

/// `iop-pool audit`: recomputes the ledger, and compares it with the first node's chain if one is named.
///
/// # Errors
/// Something is wrong in the books, or they or the node cannot be read.
pub async fn run_audit(books: Books, flags: &AuditFlags) -> Result<(), RunError> {
    let chain = ChainIdentity::of(&books.params);
    let node = books.nodes.first().cloned().map(Node::new);
    let mut tip = 0;
    if let Some(node) = &node {
        let trouble = |error: String| RunError(format!("node {}: {error}", node.name()));
        check_chain(node, &chain).await.map_err(|error| trouble(error.to_string()))?;
        // Before the books are opened: what a running pool books from now on is not in them.
        let height = node.call("getblockcount", json!([]), CALL_TIME).await;
        tip = height.map_err(|error| trouble(error.to_string()))?;
    }
    let store = open(&books.datadir, &chain)?;
    let failed = |error: crate::ledger::LedgerError| RunError(error.to_string());
    let mut found = audit(&store, &books.params.prefixes).map_err(failed)?;
    if let Some(node) = &node {
        Comparison { store: &store, books: &books, node, tip }.run(&mut found).await?;
    }
    if flags.json {
        print_json(&found)?;
    } else {
        print(&words(&found))?;
    }
    if found.is_clean() {
        return Ok(());
    }
    Err(RunError(format!("the books do not balance: {} mistakes", found.mistakes_in_all)))
}

fn words(report: &Report) -> String {
    let Report { shares, users, blocks, in_chain, rewards, fees, paid, chapter, carried, compared, .. } =
        report;
    let mut text = format!(
        "shares    {shares} of {users} users, each counted once\n\
         blocks    {blocks} recomputed, {in_chain} of them in the chain, {compared} compared with the node\n\
         rewards   {rewards} base units\n\
         paid      {paid} to members, {chapter} to the chapter\n\
         chapter   {fees} fees, {carried} carried for members\n"
    );
    for Unbooked { height, hash, license } in &report.unbooked {
        text.push_str(&format!("unbooked  block {hash} at height {height} of license {license}\n"));
    }
    for mistake in &report.mistakes {
        text.push_str(&format!("wrong     {mistake}\n"));
    }
    text
}

/// The book beside a node's chain.
struct Comparison<'a> {
    store: &'a Store,
    books: &'a Books,
    node: &'a Node,
    /// Height of its tip when the books were opened.
    tip: u32,
}

impl Comparison<'_> {
    async fn run(&self, report: &mut Report) -> Result<(), RunError> {
        let failed = |error: String| RunError(format!("node {}: {error}", self.node.name()));
        let blocks = self.store.blocks().map_err(|error| RunError(error.to_string()))?;
        self.look_for_unbooked(&blocks, report).await.map_err(|trouble| failed(trouble.to_string()))?;
        let alive: BTreeSet<BlockId> = in_chain(self.store, &blocks)?.into_iter().collect();
        // Blocks above were found since the last template, which none of them is below.
        let top = alive.last().map_or(0, |id| id.height);
        for (id, facts) in blocks {
            let hash = id.hash.to_string();
            match self.node.call::<String>("getblock", json!([hash, false]), CALL_TIME).await {
                Ok(text) => self.compare(&id, &facts, &text, report)?,
                Err(RpcError::Node { code: code::UNKNOWN_BLOCK, .. }) if !alive.contains(&id) => continue,
                Err(RpcError::Node { code: code::UNKNOWN_BLOCK, .. }) => {
                    report.wrong(format!("block {hash} at height {} is not known to the node", id.height));
                    continue;
                }
                Err(trouble) => return Err(failed(trouble.to_string())),
            }
            let there =
                block_at(self.node, id.height).await.map_err(|trouble| failed(trouble.to_string()))?;
            if alive.contains(&id) && there != Some(id) {
                let there = there.map_or("no block".to_owned(), |there| format!("block {}", there.hash));
                report.wrong(format!("the node has {there} at height {}, not {hash}", id.height));
            }
            if !alive.contains(&id) && there == Some(id) && id.height <= top {
                report.wrong(format!(
                    "the node has block {hash} at height {} in its chain, the book counts it as orphaned",
                    id.height
                ));
            }
        }
        Ok(())
    }

    /// Looks at what licenses in the books have signed of the node's chain, from its tip down.
    async fn look_for_unbooked(
        &self,
        blocks: &[(BlockId, Facts)],
        report: &mut Report,
    ) -> Result<(), RpcError> {
        let Some((first, _)) = blocks.first() else { return Ok(()) };
        let booked: BTreeSet<BlockId> = blocks.iter().map(|(id, _)| *id).collect();
        let licenses: BTreeSet<&str> = blocks.iter().map(|(_, facts)| &facts.license[..]).collect();
        let lowest = self.tip.saturating_sub(WINDOW - 1);
        for height in (first.height.max(lowest)..=self.tip).rev() {
            let Some(id) = block_at(self.node, height).await?.filter(|id| !booked.contains(id)) else {
                continue;
            };
            let Some(seen) = read(self.node, id).await? else { break };
            let license =
                named_license(&seen.coinbase).map(|license| license.to_base58(&self.books.params.prefixes));
            if let Some(license) = license.filter(|license| licenses.contains(&license[..])) {
                report.unbooked.push(Unbooked { height, hash: id.hash.to_string(), license });
            }
        }
        Ok(())
    }

    /// Whether the coinbase pays what the book says, no less and nobody else.
    fn compare(&self, id: &BlockId, facts: &Facts, hex: &str, report: &mut Report) -> Result<(), RunError> {
        report.compared += 1;
        let prefixes = &self.books.params.prefixes;
        let block: Option<Block> = hex::decode(hex).ok().and_then(|bytes| deserialize(&bytes).ok());
        let Some(block) = block.filter(|block| block.block_hash() == id.hash) else {
            report.wrong(format!("the node gives another block for {}", id.hash));
            return Ok(());
        };
        // Where the time allows other bits (test networks), who made a block of a job may have taken them.
        if let Some(expected) = wanted_at(block.header.bits.to_consensus(), &facts.rules)
            && facts.wanted != expected
            && facts.finder != NOT_HANDED_IN
        {
            let (hash, wanted) = (id.hash, facts.wanted);
            report
                .wrong(format!("block {hash}: its window was to reach {wanted} hashes, {expected} expected"));
        }
        let mut found: BTreeMap<String, u64> = BTreeMap::new();
        for output in block.txdata.first().map_or(&[][..], |coinbase| &coinbase.output) {
            let address = Address::from_script(&output.script_pubkey);
            if output.value.to_sat() > 0 || address.is_some() {
                let payee = address.map_or("no address".to_owned(), |address| address.to_base58(prefixes));
                *found.entry(payee).or_default() += output.value.to_sat();
            }
        }
        let mut expected: BTreeMap<String, u64> = BTreeMap::new();
        let credits = self.store.credits(id).map_err(|error| RunError(error.to_string()))?;
        for (member, credit) in credits.into_iter().filter(|(_, credit)| credit.paid > 0) {
            *expected.entry(member.to_base58(prefixes)).or_default() += credit.paid;
        }
        if facts.chapter > 0 || expected.is_empty() {
            *expected.entry(facts.chapter_address.clone()).or_default() += facts.chapter;
        }
        if found != expected {
            report.wrong(format!("block {} pays {found:?}, the book has {expected:?}", id.hash));
        }
        Ok(())
    }
}

/// The work that a block's window is to reach by its own difficulty, in hashes; none where no window counts.
fn wanted_at(bits: u32, rules: &Rules) -> Option<u128> {
    let difficulty = Target::from_compact(bits)?.difficulty();
    (rules.scheme == Scheme::Pplns).then(|| wanted_work(difficulty, rules.window))
}

/// The blocks that the pool's last template stood on.
fn in_chain(store: &Store, blocks: &[(BlockId, Facts)]) -> Result<Vec<BlockId>, RunError> {
    let base = store.base().map_err(|error| RunError(error.to_string()))?;
    let bases: BTreeMap<BlockId, Option<BlockId>> =
        blocks.iter().map(|(id, facts)| (*id, facts.base)).collect();
    Ok(chain_of(base, |id| bases.get(id).copied().flatten()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_reaches_what_the_blocks_difficulty_says() {
        let rules = |scheme| Rules { scheme, fee: 0, min_payout: 1, max_outputs: 9, window: 2.0 };
        // Difficulty 1 is 2^32 hashes.
        assert_eq!(wanted_at(0x1d00_ffff, &rules(Scheme::Pplns)), Some(2 << 32));
        assert_eq!(wanted_at(0x1d00_ffff, &rules(Scheme::Solo)), None);
        assert_eq!(wanted_at(0, &rules(Scheme::Pplns)), None, "no target");
    }
}
