//! `iop-pool report`: a line per member for a chapter's own accounting, as JSON or CSV.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::ops::RangeInclusive;

use iop_consensus::address::{Address, Prefixes};
use serde::Serialize;

use super::LedgerError;
use super::book::Book;
use super::live::member_of;
use super::share::difficulty_of;
use super::store::Store;

/// A member's work and payments over a period.
#[derive(Debug, Default, Clone, PartialEq, Serialize)]
pub struct Line {
    /// In this network's format.
    pub address: String,
    /// Accepted shares.
    pub shares: u64,
    /// Their work, as difficulty.
    pub work: f64,
    /// Blocks that the member has credits in.
    pub blocks: u64,
    /// The member's credits in those that are in the chain, in base units.
    pub earned: u64,
    /// What their coinbases pay, in base units.
    pub paid: u64,
    /// Owed now, regardless of the period, in base units.
    pub balance: u64,
}

/// A line for each member that has shares or blocks in the period (seconds since 1970), or is owed something.
///
/// # Errors
/// The database cannot be read.
pub fn report(
    store: &Store,
    prefixes: &Prefixes,
    time: &RangeInclusive<u64>,
) -> Result<Vec<Line>, LedgerError> {
    let mut lines: BTreeMap<Address, (Line, u128)> = BTreeMap::new();
    let members: Vec<Option<Address>> = store.users()?.iter().map(|name| member_of(name, prefixes)).collect();
    store.read_shares(0, |_, share| {
        if time.contains(&u64::from(share.time))
            && let Some(Some(member)) = members.get(share.user.0 as usize)
        {
            let (line, work) = lines.entry(*member).or_default();
            line.shares += 1;
            *work += u128::from(share.work);
        }
        true
    })?;
    let book = Book::load(store)?;
    for id in book.in_chain() {
        if !store.facts(&id)?.is_some_and(|facts| time.contains(&facts.time)) {
            continue;
        }
        for (member, credit) in store.credits(&id)? {
            let (line, _) = lines.entry(member).or_default();
            line.blocks += 1;
            line.earned += credit.earned;
            line.paid += credit.paid;
        }
    }
    for (&member, &amount) in &*book.carried() {
        lines.entry(member).or_default().0.balance = amount;
    }
    let done = lines.into_iter().map(|(member, (line, work))| Line {
        address: member.to_base58(prefixes),
        work: difficulty_of(work),
        ..line
    });
    Ok(done.collect())
}

/// As CSV.
#[must_use]
pub fn to_csv(lines: &[Line]) -> String {
    let mut csv = String::from("address,shares,work,blocks,earned,paid,balance\n");
    for Line { address, shares, work, blocks, earned, paid, balance } in lines {
        let _ = writeln!(csv, "{address},{shares},{work},{blocks},{earned},{paid},{balance}"); // writing to a String cannot fail
    }
    csv
}
