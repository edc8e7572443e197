//! Where the books stand: on the nearest of the pool's blocks in the chain that templates build on, with the window that
//! the chain's difficulty wants.
//!
//! Here: moving there, in memory and in the database, and what is owed after a block. Not here: which block it is (the
//! node is asked, `chain`), and what follows from it for each block's state ([`super::book`]).

use std::sync::Arc;

use iop_stratum::difficulty::Difficulty;

use super::LedgerError;
use super::live::{Ledger, State};
use super::split::{Amounts, Scheme};
use super::store::{Batch, BlockId};
use super::trouble::Writing;
use super::window::wanted_work;

/// The block that the books were moved to, if any. No job is made without it: it would pay by another window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    base: Option<BlockId>,
}

impl Standing {
    /// The nearest of the pool's blocks below the next one.
    #[must_use]
    pub fn base(self) -> Option<BlockId> {
        self.base
    }
}

impl Ledger {
    /// Moves the books to the nearest of the pool's blocks in the chain that templates build on, and makes the window as
    /// long as the templates' difficulty wants it.
    ///
    /// # Errors
    /// The database cannot be read or written.
    pub fn build_on(
        &self,
        base: Option<BlockId>,
        network_difficulty: Difficulty,
    ) -> Result<Standing, LedgerError> {
        let mut state = self.lock_state();
        if state.book.base() != base {
            let carried = self.carried_after(&state, base)?;
            // A block that the database does not have yet is recorded as base when it is written.
            if base.is_none_or(|base| state.book.coming(&base).is_none()) {
                self.store_base(base)?;
            }
            state.book.stand_on(base, carried);
        }
        if self.rules.scheme == Scheme::Pplns {
            self.settle(&mut state, wanted_work(network_difficulty, self.rules.window))?;
        }
        Ok(Standing { base })
    }

    /// The amounts carried after a block.
    pub(super) fn carried_after(
        &self,
        state: &State,
        base: Option<BlockId>,
    ) -> Result<Arc<Amounts>, LedgerError> {
        match base {
            base if state.book.base() == base => Ok(state.book.carried()),
            None => Ok(Arc::default()),
            Some(base) => match state.book.coming(&base) {
                Some(record) => Ok(Arc::clone(record.carried())),
                None => self.store.carried(&base).map(Arc::new),
            },
        }
    }

    pub(super) fn store_base(&self, base: Option<BlockId>) -> Result<(), LedgerError> {
        let mut batch = Batch::default();
        self.store.put_base(&mut batch, base.as_ref());
        self.troubles.watch(Writing::Base, || self.store.write(batch, false))
    }
}
