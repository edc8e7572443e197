//! `iop-pool report`: a line per member and one per address of the chapter, for its own accounting, as JSON or CSV.
//!
//! A period is a part of the books' chain, from one block to another. So for each member, to the last unit,
//! opening balance + earned - paid = closing balance, and the end of a period is the begin of the next one.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::ops::Range;

use iop_consensus::address::{Address, Prefixes};
use serde::Serialize;

use super::LedgerError;
use super::book::{Facts, chain_of};
use super::share::difficulty_of;
use super::share::member_of;
use super::split::Amounts;
use super::store::{BlockId, Store};
use super::views::Role;

/// What one address did and got over a period. Amounts are in base units.
#[derive(Debug, Default, Clone, PartialEq, Serialize)]
pub struct Line {
    /// In this network's format.
    pub address: String,
    /// Accepted shares.
    pub shares: u64,
    /// Their work, as difficulty.
    pub work: f64,
    /// Blocks in the chain that the member has credits in; on a chapter's line, those that name the address as the
    /// chapter's.
    pub blocks: u64,
    /// The member's credits in these blocks.
    pub earned: u64,
    /// What their coinbases pay to the member.
    pub paid: u64,
    /// Owed to the member at the end of the period.
    pub balance: u64,
    /// Owed to the member at its begin.
    pub opening: u64,
    /// Whose line it is. A member that is also the chapter has two.
    pub role: Role,
    /// The chapter's fees.
    pub fees: u64,
    /// What the coinbases pay to the chapter: its fees and what is carried over, less what is paid of amounts carried
    /// earlier.
    pub chapter: u64,
}

/// A line for each member that has shares or blocks in the period (seconds since 1970, its end not included) or is owed
/// something at its begin or end, then one for each address of the chapter in its blocks.
///
/// # Errors
/// The database cannot be read.
pub fn report(store: &Store, prefixes: &Prefixes, time: &Range<u64>) -> Result<Vec<Line>, LedgerError> {
    let mut lines: BTreeMap<Address, (Line, u128)> = BTreeMap::new();
    let mut chapters: BTreeMap<String, Line> = BTreeMap::new();
    let (mut before, mut last) = (None, None);
    for (id, facts, counts_at) in chain(store)? {
        if counts_at >= time.end {
            break;
        }
        last = Some(id);
        if counts_at < time.start {
            before = last;
            continue;
        }
        for (member, credit) in store.credits(&id)? {
            let (line, _) = lines.entry(member).or_default();
            line.blocks += 1;
            line.earned += credit.earned;
            line.paid += credit.paid;
        }
        let line = chapters.entry(facts.chapter_address).or_default();
        line.blocks += 1;
        line.fees += facts.fee;
        line.chapter += facts.chapter;
    }
    for (member, amount) in carried_after(store, before)? {
        lines.entry(member).or_default().0.opening = amount;
    }
    for (member, amount) in carried_after(store, last)? {
        lines.entry(member).or_default().0.balance = amount;
    }
    // Last, since they take long, and of all tables theirs are never merged by a running pool.
    let users: Vec<Option<Address>> = store.users()?.iter().map(|name| member_of(name, prefixes)).collect();
    store.read_shares(0, |_, share| {
        if time.contains(&u64::from(share.time))
            && let Some(Some(member)) = users.get(share.user.0 as usize)
        {
            let (line, work) = lines.entry(*member).or_default();
            line.shares += 1;
            *work += u128::from(share.work);
        }
        true
    })?;
    let members = lines.into_iter().map(|(member, (line, work))| Line {
        address: member.to_base58(prefixes),
        work: difficulty_of(work),
        ..line
    });
    let chapters = chapters.into_iter().map(|(address, line)| Line { address, role: Role::Chapter, ..line });
    Ok(members.chain(chapters).collect())
}

/// The blocks in the chain that the last template built on, from the lowest up, each with the time at which it counts:
/// that of its find, but not before the block below it. So a period is a part of the chain though a clock was set back.
fn chain(store: &Store) -> Result<Vec<(BlockId, Facts, u64)>, LedgerError> {
    let mut facts: BTreeMap<BlockId, Facts> = store.blocks()?.into_iter().collect();
    let mut ids: Vec<BlockId> = chain_of(store.base()?, |id| facts.get(id)?.base).collect();
    ids.reverse();
    let mut counts_at = 0;
    let placed = ids.into_iter().filter_map(|id| {
        let facts = facts.remove(&id)?;
        counts_at = facts.time.max(counts_at);
        Some((id, facts, counts_at))
    });
    Ok(placed.collect())
}

/// What is carried after a block, or before the first one.
fn carried_after(store: &Store, block: Option<BlockId>) -> Result<Amounts, LedgerError> {
    block.map_or_else(|| Ok(Amounts::new()), |block| store.carried(&block))
}

/// As CSV.
#[must_use]
pub fn to_csv(lines: &[Line]) -> String {
    let mut csv = String::from("address,shares,work,blocks,earned,paid,balance,opening,role,fees,chapter\n");
    for line in lines {
        let Line { address, shares, work, blocks, earned, paid, balance, opening, role, fees, chapter } =
            line;
        let role = role.word();
        let _ = writeln!(
            csv,
            "{address},{shares},{work},{blocks},{earned},{paid},{balance},{opening},{role},{fees},{chapter}"
        ); // writing to a String cannot fail
    }
    csv
}
