//! `iop-pool audit`: recomputes every payout from the share log and compares it with the records, and with the chain if
//! a node is available. With the pool it shares the arithmetic of [`super::split`] and the reading of the log (`log`):
//! windows are summed anew, balances from the blocks below.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use iop_consensus::address::{Address, Prefixes};
use serde::Serialize;

use super::LedgerError;
use super::book::{Facts, chain_of};
use super::log::StoredLog;
use super::share::{ShareHash, member_of};
use super::split::{Amounts, Credit, Input, Scheme, Split};
use super::store::{BlockId, Store};
use crate::ledger::window::Log;

/// Shares that are read at once when a window is summed.
const CHUNK: u64 = 4096;
/// Mistakes that are kept as text; all are counted.
const MAX_NAMED: usize = 100;
/// Heights above a share's for which its hash is remembered: jobs of a tip live no longer than the next tip or two.
const REMEMBERED_HEIGHTS: u32 = 4;
/// The highest blocks for which the carried amounts are remembered: no reorganisation goes deeper.
const REMEMBERED_BLOCKS: usize = 2000;

/// A block in the chain that is signed by a license in the books but is not in them itself.
#[derive(Debug, Serialize)]
pub struct Unbooked {
    /// Its height in the node's chain.
    pub height: u32,
    /// Its hash, as printed.
    pub hash: String,
    /// The license that signed, as an address.
    pub license: String,
}

/// What an audit found.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// Shares in the log.
    pub shares: u64,
    /// Users in the log.
    pub users: usize,
    /// Blocks recomputed.
    pub blocks: usize,
    /// Of these, in the chain that the pool built on last.
    pub in_chain: usize,
    /// Sums over the blocks in the chain, in base units: rewards, fees, paid to members, paid to the chapter.
    pub rewards: u128,
    /// The chapter's fees.
    pub fees: u128,
    /// What coinbases pay to members.
    pub paid: u128,
    /// What coinbases pay to the chapter.
    pub chapter: u128,
    /// What members are owed after the last block.
    pub carried: u128,
    /// Blocks whose coinbase was compared with the node's.
    pub compared: usize,
    /// Blocks that the node has deleted: they are in the right chain, and what they pay was not seen.
    pub pruned: usize,
    /// Blocks of the last 2,016 that are not in the books and that the node has deleted: whose they are is not known.
    pub unread: usize,
    /// Blocks that have left or joined the node's chain since the pool's last template: the next start books that.
    pub moved: Vec<String>,
    /// Blocks of the node's chain since the books began, of the last 2,016 at most, that licenses in the books have signed
    /// and the books do not have: another program mines with that license, or nobody handed them in.
    pub unbooked: Vec<Unbooked>,
    /// Mistakes, the first hundred.
    pub mistakes: Vec<String>,
    /// The total number of mistakes.
    pub mistakes_in_all: u64,
}

impl Report {
    /// Adds a mistake.
    pub fn wrong(&mut self, what: String) {
        self.mistakes_in_all += 1;
        if self.mistakes.len() < MAX_NAMED {
            self.mistakes.push(what);
        }
    }

    /// Whether there are no mistakes.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.mistakes_in_all == 0
    }
}

/// Recomputes everything.
///
/// # Errors
/// The database cannot be read at all. Mistakes in it are in the report.
pub fn audit(store: &Store, prefixes: &Prefixes) -> Result<Report, LedgerError> {
    let names = store.users()?;
    let mut members = Vec::with_capacity(names.len());
    for name in &names {
        match member_of(name, prefixes) {
            Some(member) => members.push(member),
            None => return Err(store.broken(&format!("user '{name}' has no address of this network"))),
        }
    }
    let report = Report { users: names.len(), ..Report::default() };
    let mut audit = Audit { store, log: StoredLog { store, members: &members }, prefixes, report };
    audit.check_log()?;
    let blocks = store.blocks()?;
    let base = store.base()?;
    let mut carried: BTreeMap<BlockId, Arc<Amounts>> = BTreeMap::new();
    for (id, facts) in &blocks {
        let before = match facts.base {
            None => Arc::default(),
            Some(base) => {
                carried.get(&base).filter(|_| base.height < id.height).cloned().unwrap_or_else(|| {
                    audit.report.wrong(format!(
                        "block {} at height {}: its base {} is not below it",
                        id.hash, id.height, base.hash
                    ));
                    Arc::default()
                })
            }
        };
        if facts.ends > audit.report.shares {
            let (hash, height, ends, shares) = (id.hash, id.height, facts.ends, audit.report.shares);
            audit.report.wrong(format!(
                "block {hash} at height {height}: its window ends before share {ends}, the log has {shares}"
            ));
            carried.insert(*id, Arc::new(store.carried(id)?));
            continue;
        }
        let after = audit.check_block(id, facts, &before)?;
        if Some(*id) == base {
            audit.report.carried = after.values().map(|&amount| u128::from(amount)).sum();
        }
        carried.insert(*id, after);
        if carried.len() > REMEMBERED_BLOCKS {
            carried.pop_first();
        }
    }
    audit.report.blocks = blocks.len();
    audit.sum(base, &blocks.into_iter().collect())?;
    Ok(audit.report)
}

/// What is audited, and what was found so far.
struct Audit<'a> {
    store: &'a Store,
    log: StoredLog<'a>,
    prefixes: &'a Prefixes,
    report: Report,
}

impl Audit<'_> {
    /// Every share must be unique and belong to a known user.
    fn check_log(&mut self) -> Result<(), LedgerError> {
        let report = &mut self.report;
        let mut seen: BTreeMap<u32, HashSet<ShareHash>> = BTreeMap::new();
        self.store.read_shares(0, |number, share| {
            report.shares += 1;
            if share.user.0 as usize >= report.users {
                report.wrong(format!("share {number} is of an unknown user"));
            }
            if share.work == 0 {
                report.wrong(format!("share {number} has no work"));
            }
            if !seen.entry(share.height).or_default().insert(share.hash) {
                report.wrong(format!("share {number} was counted before"));
            }
            while seen
                .first_key_value()
                .is_some_and(|(first, _)| first.saturating_add(REMEMBERED_HEIGHTS) < share.height)
            {
                seen.pop_first();
            }
            true
        })
    }

    /// Recomputes a block; returns the amounts carried after it.
    fn check_block(
        &mut self,
        id: &BlockId,
        facts: &Facts,
        before: &Amounts,
    ) -> Result<Arc<Amounts>, LedgerError> {
        let (store, log, prefixes, report) = (self.store, &self.log, self.prefixes, &mut self.report);
        let mut wrong =
            |what: String| report.wrong(format!("block {} at height {}: {what}", id.hash, id.height));
        let work = match facts.rules.scheme {
            Scheme::Chapter => BTreeMap::new(),
            Scheme::Solo => {
                member_of(&facts.finder, prefixes).map(|member| (member, 1)).into_iter().collect()
            }
            Scheme::Pplns => {
                let (begins, work) = window(log, facts.ends, facts.wanted)?;
                if begins != facts.begins {
                    wrong(format!("its window begins at share {}, {begins} expected", facts.begins));
                }
                work
            }
        };
        let split = Split::new(Input { reward: facts.reward, work: &work, carried: before }, &facts.rules);
        if (facts.fee, facts.chapter) != (split.fee, split.chapter) {
            let (found, expected) = ((facts.fee, facts.chapter), (split.fee, split.chapter));
            wrong(format!("fee and chapter's output are {found:?}, {expected:?} expected"));
        }
        let recorded: BTreeMap<Address, Credit> = store.credits(id)?.into_iter().collect();
        let expected = split.credits();
        for member in recorded.keys().chain(expected.keys()).collect::<std::collections::BTreeSet<_>>() {
            let [found, due] =
                [&recorded, &expected].map(|credits| credits.get(member).copied().unwrap_or_default());
            if found != due {
                wrong(format!("{} has {found:?}, {due:?} expected", member.to_base58(prefixes)));
            }
        }
        if store.carried(id)? != *split.carried {
            wrong("what is carried after it is not what was recorded".to_owned());
        }
        Ok(split.carried)
    }

    /// Balances the chain: rewards = paid + chapter's outputs, chapter's outputs = fees + carried amounts.
    fn sum(&mut self, base: Option<BlockId>, blocks: &BTreeMap<BlockId, Facts>) -> Result<(), LedgerError> {
        let report = &mut self.report;
        for id in chain_of(base, |id| blocks.get(id)?.base) {
            let Some(facts) = blocks.get(&id) else {
                report.wrong(format!("block {} is in the chain and not in the book", id.hash));
                continue;
            };
            report.in_chain += 1;
            report.rewards += u128::from(facts.reward);
            report.fees += u128::from(facts.fee);
            report.chapter += u128::from(facts.chapter);
            report.paid +=
                self.store.credits(&id)?.iter().map(|(_, credit)| u128::from(credit.paid)).sum::<u128>();
        }
        if report.rewards != report.paid + report.chapter {
            let (rewards, out) = (report.rewards, report.paid + report.chapter);
            report.wrong(format!("rewards are {rewards}, outputs {out}"));
        }
        if report.chapter != report.fees + report.carried {
            let (found, expected) = (report.chapter, report.fees + report.carried);
            report.wrong(format!("the chapter has {found}, fees and what is carried are {expected}"));
        }
        Ok(())
    }
}

/// The window that ends before share `end`: its first share, and work by member.
fn window(
    log: &StoredLog<'_>,
    end: u64,
    wanted: u128,
) -> Result<(u64, BTreeMap<Address, u128>), LedgerError> {
    let (mut total, mut begin, mut work) = (0u128, end, BTreeMap::new());
    while total < wanted && begin > 0 {
        for (member, share) in log.read(begin.saturating_sub(CHUNK)..begin)?.into_iter().rev() {
            if total >= wanted {
                break;
            }
            total += u128::from(share);
            *work.entry(member).or_default() += u128::from(share);
            begin -= 1;
        }
    }
    Ok((begin, work))
}
