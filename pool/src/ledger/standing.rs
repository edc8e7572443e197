//! Which block the books stand on: the nearest of the pool's in the chain that templates build on.
//!
//! Here: moving there, in memory and in the database, and what is owed after a block. Not here: which block it is (the
//! node is asked, `chain`), and what follows from it for each block's state ([`super::book`]).

use std::sync::Arc;

use super::LedgerError;
use super::live::{Ledger, State};
use super::split::Amounts;
use super::store::{Batch, BlockId};
use super::trouble::Writing;

impl Ledger {
    /// Moves the books to a block: the nearest of the pool's in the chain that templates build on.
    ///
    /// # Errors
    /// The database cannot be read or written.
    pub fn build_on(&self, base: Option<BlockId>) -> Result<(), LedgerError> {
        let mut state = self.lock_state();
        if state.book.base() != base {
            let carried = self.carried_after(&state, base)?;
            // A block that the database does not have yet is recorded as base when it is written.
            if base.is_none_or(|base| state.book.coming(&base).is_none()) {
                self.store_base(base)?;
            }
            state.book.stand_on(base, carried);
        }
        Ok(())
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
