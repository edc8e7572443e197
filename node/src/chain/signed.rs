//! Signatures of a block's usual inputs, verified before their coins are known.
//!
//! Lives here: [`Signed`], what is known of them so far, and the work that finds it out, each block on a thread of
//! rayon's, while the chain thread connects the blocks before. Does not live here: how a signature is verified
//! ([`p2pkh::signed_for`]), and any verdict: a finding spares the interpreter where the coin turns out to pay to the very
//! key, and says nothing elsewhere.
//! Data goes: block that passed the checks of itself -> [`Signed::begin`] -> findings -> scripts of the block.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use bitcoin::{Block, Script, Transaction};
use iop_consensus::p2pkh::{self, KeyHash};

/// For each input of a transaction, the key hash that it is signed for.
type Findings = Box<[Option<KeyHash>]>;

/// What is known of a block's signatures.
#[derive(Debug)]
pub(super) struct Signed {
    /// By transaction; empty where nobody has looked yet.
    found: Box<[OnceLock<Findings>]>,
    begun: AtomicBool,
    /// The block's scripts run now: what was not found by then is no help any more.
    ended: AtomicBool,
}

impl Signed {
    /// Nothing is known of a block with so many transactions.
    pub(super) fn of(transactions: usize) -> Self {
        let found = (0..transactions).map(|_| OnceLock::new()).collect();
        Self { found, begun: AtomicBool::new(false), ended: AtomicBool::new(false) }
    }

    /// Looks at all signatures of `block`, which this must be of, on another thread. The second time it does nothing.
    pub(super) fn begin(self: &Arc<Self>, block: &Arc<Block>) {
        if !self.begun.swap(true, Ordering::Relaxed) {
            let (signed, block) = (Arc::downgrade(self), Arc::downgrade(block));
            rayon::spawn(move || Self::find_all(&signed, &block));
        }
    }

    /// Holds nothing between two transactions: who drops the block or its findings ends the search, and many blocks that
    /// wait for it, of which nobody else knows any more, take no memory.
    fn find_all(signed: &Weak<Self>, block: &Weak<Block>) {
        // A coinbase signs nothing.
        for place in 1.. {
            let (Some(signed), Some(block)) = (signed.upgrade(), block.upgrade()) else { return };
            if !signed.look_at(&block, place) {
                return;
            }
        }
    }

    /// Looks at the transaction at `place`; `false` where there is none or the search has ended.
    fn look_at(&self, block: &Block, place: usize) -> bool {
        let findings = block.txdata.get(place).and_then(|tx| self.find(tx));
        findings.is_some_and(|findings| self.found[place].set(findings).is_ok())
    }

    /// The findings of a transaction, unless the search ends meanwhile.
    fn find(&self, tx: &Transaction) -> Option<Findings> {
        let going_on = |_: &usize| !self.ended.load(Ordering::Relaxed);
        let all: Findings =
            (0..tx.input.len()).take_while(going_on).map(|input| p2pkh::signed_for(tx, input)).collect();
        (all.len() == tx.input.len()).then_some(all)
    }

    /// Ends the search: from now on what is known is asked for.
    pub(super) fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
    }

    /// Whether an input of the block's transaction at `place` is known to be signed for this output script. `None` where
    /// nobody has looked.
    pub(super) fn is_signed(&self, place: usize, input: usize, script_pubkey: &Script) -> Option<bool> {
        let found = self.found.get(place)?.get()?.get(input)?.as_ref();
        Some(found.is_some() && found == p2pkh::key_hash(script_pubkey))
    }
}

#[cfg(test)]
mod tests;
