//! How a block would be paid: the plan of a job, and the same plan made again from the log.
//!
//! Here: a template's facts and what follows from them with the books and the window as they are. Not here: the split's
//! arithmetic ([`super::split`]), what a plan is and how it enters the books ([`super::book`]), and moving books and
//! window with the chain (`standing`): a plan changes nothing.

use std::collections::BTreeMap;

use iop_consensus::address::Address;

use super::LedgerError;
use super::book::{Plan, Terms};
use super::live::Ledger;
use super::log::StoredLog;
use super::split::{Amounts, Input, Rules, Scheme, Split};
use super::store::BlockId;
use super::window::Log;

/// Shares that are read at once when a window is summed again.
const CHUNK: usize = 4096;

/// The facts of a template that a plan depends on.
#[derive(Debug, Clone, Copy)]
pub struct Request {
    /// The nearest block of the pool below the new one.
    pub base: Option<BlockId>,
    /// What the coinbase may claim, in base units.
    pub reward: u64,
    /// The number of member outputs that fit into the coinbase.
    pub room: usize,
    /// The chapter's address.
    pub chapter: Address,
    /// The member that is paid in solo mode.
    pub solo: Option<Address>,
}

impl Ledger {
    /// How a block found now would be paid, on any base: the books stay where [`Ledger::build_on`] put
    /// them, and the window is as long as the template that they follow makes it.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn plan(&self, request: &Request) -> Result<Plan, LedgerError> {
        let &Request { base, reward, room, chapter, solo } = request;
        let mut state = self.lock_state();
        let carried = self.carried_after(&state, base)?;
        let (mut window, mut wanted, mut work) = (0..0, 0, BTreeMap::new());
        if self.rules.scheme == Scheme::Pplns {
            wanted = state.window.wanted();
            // It is settled, unless that failed after the last shares.
            self.settle(&mut state, wanted)?;
            (window, work) = (state.window.range(), state.window.work());
        }
        drop(state);
        let rules = Rules { max_outputs: self.rules.max_outputs.min(room), ..self.rules };
        let terms = Terms { base, window, wanted, reward, rules, chapter };
        Ok(split(terms, solo, work, &carried))
    }

    /// Makes again the plan that [`Ledger::plan`] once returned for these terms, from the log; `solo` is the member
    /// that is paid in solo mode.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn plan_again(&self, terms: &Terms, solo: Option<Address>) -> Result<Plan, LedgerError> {
        let state = self.lock_state();
        let (carried, members) = (self.carried_after(&state, terms.base)?, state.members.clone());
        drop(state);
        let window = terms.window.clone();
        let (log, mut work) = (StoredLog { store: &self.store, members: &members }, BTreeMap::new());
        for begin in window.clone().step_by(CHUNK) {
            let end = window.end.min(begin + CHUNK as u64);
            for (member, share) in log.read(begin..end)? {
                *work.entry(member).or_default() += u128::from(share);
            }
        }
        Ok(split(terms.clone(), solo, work, &carried))
    }
}

/// Splits a reward by the work of a window, or assigns it to the member that mines solo.
fn split(terms: Terms, solo: Option<Address>, mut work: BTreeMap<Address, u128>, carried: &Amounts) -> Plan {
    if let (Scheme::Solo, Some(member)) = (terms.rules.scheme, solo) {
        work.insert(member, 1);
    }
    let split = Split::new(Input { reward: terms.reward, work: &work, carried }, &terms.rules);
    Plan { terms, split }
}
