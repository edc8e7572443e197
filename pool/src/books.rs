//! Commands that read the ledger, with or without a running pool: `audit` and `report`.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
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

use crate::chain::{Seen, block_at};
use crate::config::{Books, ConfigError, Flags, LedgerFlags, NodeFlags};
use crate::ledger::audit::{Report, Unbooked, audit};
use crate::ledger::book::{Facts, MATURITY, chain_of};
use crate::ledger::report::{report, to_csv};
use crate::ledger::split::{Rules, Scheme};
use crate::ledger::store::{BlockId, Store};
use crate::ledger::window::wanted_work;
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
    /// Begin of the time reported on, in seconds since 1970; it is part of it
    #[arg(long, value_name = "TIME", default_value_t = 0)]
    from: u64,
    /// End of the time reported on, in seconds since 1970; it is not part of it, so the next report begins with it
    /// [default: no end]
    #[arg(long, value_name = "TIME")]
    to: Option<u64>,
}

impl ReportFlags {
    /// What it has in common with a pool that runs.
    pub(crate) fn common(&self) -> Flags {
        self.ledger.clone().into()
    }

    /// The time reported on. Its end is not part of it: what happens then is counted once by consecutive reports.
    ///
    /// # Errors
    /// It ends before it has begun.
    pub(crate) fn period(&self) -> Result<Range<u64>, ConfigError> {
        match (self.from, self.to) {
            (from, Some(to)) if from >= to => {
                Err(ConfigError(format!("--from is {from} and --to {to}, a --from before --to expected")))
            }
            (from, to) => Ok(from..to.unwrap_or(u64::MAX)),
        }
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

/// `iop-pool report` on a period.
///
/// # Errors
/// The ledger cannot be read.
pub fn run_report(books: &Books, flags: &ReportFlags, period: &Range<u64>) -> Result<(), RunError> {
    let store = open(&books.datadir, &ChainIdentity::of(&books.params))?;
    let lines = report(&store, &books.params.prefixes, period);
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
    // Before the books are opened: what a running pool books from now on is not in them.
    let tip = match &node {
        Some(node) => Some(tip_of(node, &chain).await),
        None => None,
    };
    let store = open(&books.datadir, &chain)?;
    let failed = |error: crate::ledger::LedgerError| RunError(error.to_string());
    let mut found = audit(&store, &books.params.prefixes).map_err(failed)?;
    let compared = match (&node, tip) {
        (Some(node), Some(Ok(tip))) => {
            Comparison { store: &store, books: &books, node, tip }.run(&mut found).await
        }
        (_, Some(Err(trouble))) => Err(trouble),
        _ => Ok(()),
    };
    // What the books say of themselves holds without the node too.
    if flags.json {
        print_json(&found)?;
    } else {
        print(&words(&found))?;
    }
    compared?;
    if found.is_clean() {
        return Ok(());
    }
    Err(RunError(format!("the books do not balance: {} mistakes", found.mistakes_in_all)))
}

/// The height of a node's tip, if it is on the right chain.
async fn tip_of(node: &Node, chain: &ChainIdentity) -> Result<u32, RunError> {
    let trouble = |error: String| RunError(format!("node {}: {error}", node.name()));
    check_chain(node, chain).await.map_err(|error| trouble(error.to_string()))?;
    height_of(node).await.map_err(|error| trouble(error.to_string()))
}

async fn height_of(node: &Node) -> Result<u32, RpcError> {
    node.call("getblockcount", json!([]), CALL_TIME).await
}

fn words(report: &Report) -> String {
    let Report {
        shares,
        users,
        blocks,
        in_chain,
        rewards,
        fees,
        paid,
        chapter,
        carried,
        compared,
        pruned,
        unread,
        ..
    } = report;
    let mut text = format!(
        "shares    {shares} of {users} users, each counted once\n\
         blocks    {blocks} recomputed, {in_chain} of them in the chain, {compared} compared with the node\n\
         rewards   {rewards} base units\n\
         paid      {paid} to members, {chapter} to the chapter\n\
         chapter   {fees} fees, {carried} carried for members\n"
    );
    if *pruned > 0 {
        text.push_str(&format!("pruned    {pruned} blocks not compared, the node has deleted them\n"));
    }
    if *unread > 0 {
        text.push_str(&format!(
            "unread    {unread} blocks that are not in the books, the node has deleted them: nobody knows whose they are\n"
        ));
    }
    if !report.moved.is_empty() {
        text.push_str(
            "moved     the chain has moved on since the pool's last template, its next one books it\n",
        );
    }
    for moved in &report.moved {
        text.push_str(&format!("moved     {moved}\n"));
    }
    for Unbooked { height, hash, license } in &report.unbooked {
        text.push_str(&format!("unbooked  block {hash} at height {height} of license {license}\n"));
    }
    for mistake in &report.mistakes {
        text.push_str(&format!("wrong     {mistake}\n"));
    }
    text
}

/// Compares the book with a node's chain.
struct Comparison<'a> {
    store: &'a Store,
    books: &'a Books,
    node: &'a Node,
    /// Height of the node's tip when the books were opened.
    tip: u32,
}

impl Comparison<'_> {
    async fn run(&self, report: &mut Report) -> Result<(), RunError> {
        let failed = |error: String| RunError(format!("node {}: {error}", self.node.name()));
        let blocks = self.store.blocks().map_err(|error| RunError(error.to_string()))?;
        self.look_for_unbooked(&blocks, report).await.map_err(|trouble| failed(trouble.to_string()))?;
        let alive: BTreeSet<BlockId> = in_chain(self.store, &blocks)?.into_iter().collect();
        let mut places = Vec::with_capacity(blocks.len());
        for (id, facts) in blocks {
            match self.node.call::<String>("getblock", json!([id.hash, false]), CALL_TIME).await {
                Ok(text) => self.compare(&id, &facts, &text, report)?,
                Err(trouble) if trouble.is_pruned() => report.pruned += 1,
                Err(RpcError::Node { code: code::UNKNOWN_BLOCK, .. }) => {}
                Err(trouble) => return Err(failed(trouble.to_string())),
            }
            let there =
                block_at(self.node, id.height).await.map_err(|trouble| failed(trouble.to_string()))?;
            places.push(Placed { id, is_alive: alive.contains(&id), there });
        }
        let top = top_of(&places);
        let is_other = |block: &Placed| block.is_alive && block.there.is_some_and(|there| there != block.id);
        if self.tip < top && !places.iter().any(is_other) {
            // Asked again: a pool that runs may have found a block meanwhile.
            let tip = height_of(self.node).await.map_err(|trouble| failed(trouble.to_string()))?;
            if tip < top {
                return Err(failed(format!(
                    "its chain ends at height {tip}, the books reach {top}: a node that has all blocks is expected"
                )));
            }
        }
        judge_places(&places, report);
        Ok(())
    }

    /// Looks, from the node's tip down, for unbooked blocks signed by licenses in the books.
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
            let seen = match Seen::ask(self.node, id).await {
                Err(trouble) if trouble.is_pruned() => {
                    report.unread += 1;
                    continue;
                }
                seen => seen?,
            };
            let license =
                named_license(&seen.coinbase).map(|license| license.to_base58(&self.books.params.prefixes));
            if let Some(license) = license.filter(|license| licenses.contains(&license[..])) {
                report.unbooked.push(Unbooked { height, hash: id.hash.to_string(), license });
            }
        }
        Ok(())
    }

    /// Checks that the coinbase pays exactly what the book says.
    fn compare(&self, id: &BlockId, facts: &Facts, hex: &str, report: &mut Report) -> Result<(), RunError> {
        report.compared += 1;
        let prefixes = &self.books.params.prefixes;
        let block: Option<Block> = hex::decode(hex).ok().and_then(|bytes| deserialize(&bytes).ok());
        let Some(block) = block.filter(|block| block.block_hash() == id.hash) else {
            report.wrong(format!("the node gives another block for {}", id.hash));
            return Ok(());
        };
        // If the time allows other bits (test networks), the maker of a block that was not handed in may have used
        // them.
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

/// A block in the books, and which one the node has in its chain there.
struct Placed {
    id: BlockId,
    /// Whether the pool's last template stood on it.
    is_alive: bool,
    there: Option<BlockId>,
}

/// The height of the highest block that the pool's last template stood on.
fn top_of(places: &[Placed]) -> u32 {
    places.iter().filter(|block| block.is_alive).map(|block| block.id.height).max().unwrap_or(0)
}

/// Whether the books' chain is the node's. Since the last template it may have been reorganised: above the highest block
/// that both have, by no more than a coinbase takes to mature. All else is a mistake.
fn judge_places(places: &[Placed], report: &mut Report) {
    let alive = || places.iter().filter(|block| block.is_alive);
    let is_there = |block: &&Placed| block.there == Some(block.id);
    let common = alive().filter(is_there).map(|block| block.id.height).max();
    // Blocks above were found since the last template.
    let top = top_of(places);
    let lowest = alive().filter(|block| !is_there(block)).map(|block| block.id.height).min();
    let has_moved = lowest.is_some_and(|lowest| Some(lowest) > common && top - lowest < MATURITY);
    for block in places {
        let BlockId { height, hash } = block.id;
        let words = match (block.is_alive, is_there(&block)) {
            (true, false) => {
                let there =
                    block.there.map_or("no block".to_owned(), |there| format!("block {}", there.hash));
                format!("the node has {there} at height {height}, not {hash}")
            }
            (false, true) if height > top => format!(
                "the node has block {hash} at height {height} in its chain, the book does not build on it yet"
            ),
            (false, true) => format!(
                "the node has block {hash} at height {height} in its chain, the book counts it as orphaned"
            ),
            _ => continue,
        };
        if height > top || has_moved && Some(height) > common {
            report.moved.push(words);
        } else {
            report.wrong(words);
        }
    }
}

/// The work that a block's window is to reach by its own difficulty, in hashes; none where no window counts.
fn wanted_at(bits: u32, rules: &Rules) -> Option<u128> {
    let difficulty = Target::from_compact(bits)?.difficulty();
    (rules.scheme == Scheme::Pplns).then(|| wanted_work(difficulty, rules.window))
}

/// The pool's blocks in the chain that its last template built on.
fn in_chain(store: &Store, blocks: &[(BlockId, Facts)]) -> Result<Vec<BlockId>, RunError> {
    let base = store.base().map_err(|error| RunError(error.to_string()))?;
    let bases: BTreeMap<BlockId, Option<BlockId>> =
        blocks.iter().map(|(id, facts)| (*id, facts.base)).collect();
    Ok(chain_of(base, |id| bases.get(id).copied().flatten()).collect())
}

#[cfg(test)]
mod tests {
    use bitcoin::BlockHash;
    use bitcoin::hashes::Hash;

    use super::*;

    fn block(height: u32, branch: u8) -> BlockId {
        BlockId { height, hash: BlockHash::hash(&[height as u8, branch]) }
    }

    /// How many blocks have moved and how many are mistakes, of heights in the books' chain, orphaned ones, and heights
    /// from which on the node has others.
    fn judged(alive: &[u32], orphaned: &[u32], fork: std::ops::Range<u32>) -> (usize, u64) {
        let there = |height| Some(block(height, u8::from(fork.contains(&height))));
        let placed = |branch| move |&height: &u32| (block(height, branch), branch == 0);
        let places: Vec<Placed> = (alive.iter().map(placed(0)).chain(orphaned.iter().map(placed(1))))
            .map(|(id, is_alive)| Placed { id, is_alive, there: there(id.height) })
            .collect();
        let mut report = Report::default();
        judge_places(&places, &mut report);
        (report.moved.len(), report.mistakes_in_all)
    }

    #[test]
    fn a_chain_that_has_moved_on_is_no_mistake_of_the_books() {
        assert_eq!(judged(&[3, 5, 8], &[6], 9..20), (0, 0), "as the books have it");
        assert_eq!(judged(&[3, 5, 8], &[6], 6..20), (2, 0), "one left the chain and one joined it");
        assert_eq!(judged(&[3, 5], &[], 3..20), (2, 0), "also where none is left");
        assert_eq!(judged(&[3, 5], &[8, 9], 8..9), (1, 0), "found since the last template");
        assert_eq!(judged(&[3, 5, 8], &[], 5..6), (0, 1), "a chain does not move below what it has");
        assert_eq!(judged(&[3, 5, 8], &[6], 6..7), (0, 1), "nor does a block join it there");
        assert_eq!(judged(&[3, 5, 105], &[], 4..200), (0, 2), "no chain moves so deep");
    }

    #[test]
    fn a_window_reaches_what_the_blocks_difficulty_says() {
        let rules = |scheme| Rules { scheme, fee: 0, min_payout: 1, max_outputs: 9, window: 2.0 };
        // Difficulty 1 is 2^32 hashes.
        assert_eq!(wanted_at(0x1d00_ffff, &rules(Scheme::Pplns)), Some(2 << 32));
        assert_eq!(wanted_at(0x1d00_ffff, &rules(Scheme::Solo)), None);
        assert_eq!(wanted_at(0, &rules(Scheme::Pplns)), None, "no target");
    }
}
