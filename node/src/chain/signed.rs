//! Verifies the signatures of a block's common inputs before their coins are known.
//!
//! Lives here: [`Signed`], the findings so far, and the search that produces them, which runs on a rayon thread per
//! block while the chain thread connects earlier blocks. Does not live here: verifying a signature
//! ([`p2pkh::signed_for`]), and any verdict: a finding saves running the interpreter if the coin turns out to pay
//! to that very key, and is ignored otherwise. Data goes: block past its context-free checks -> [`Signed::begin`]
//! -> findings -> scripts of the block.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use bitcoin::{Block, Script, Transaction};
use iop_consensus::p2pkh::{self, KeyHash};

/// For each input of a transaction, the key hash that it has a valid signature for.
type Findings = Box<[Option<KeyHash>]>;

/// What is known so far of a block's signatures.
#[derive(Debug)]
pub(super) struct Signed {
    /// By transaction; empty if not searched yet.
    found: Box<[OnceLock<Findings>]>,
    begun: AtomicBool,
    /// Set when the block's scripts start to run; later findings are of no use.
    ended: AtomicBool,
}

impl Signed {
    /// No findings yet, for a block with this many transactions.
    pub(super) fn of(transactions: usize) -> Self {
        let found = (0..transactions).map(|_| OnceLock::new()).collect();
        Self { found, begun: AtomicBool::new(false), ended: AtomicBool::new(false) }
    }

    /// Searches all signatures of `block` on another thread; `self` must belong to that block. A second call does
    /// nothing.
    pub(super) fn begin(self: &Arc<Self>, block: &Arc<Block>) {
        if !self.begun.swap(true, Ordering::Relaxed) {
            let (signed, block) = (Arc::downgrade(self), Arc::downgrade(block));
            rayon::spawn(move || Self::find_all(&signed, &block));
        }
    }

    /// Holds no strong reference between two transactions: dropping the block or its findings ends the search, so
    /// queued searches for blocks that are gone take no memory.
    fn find_all(signed: &Weak<Self>, block: &Weak<Block>) {
        // A coinbase has no signature.
        for place in 1.. {
            let (Some(signed), Some(block)) = (signed.upgrade(), block.upgrade()) else { return };
            if !signed.look_at(&block, place) {
                return;
            }
        }
    }

    /// Searches the transaction at `place`; `false` if there is none or the search has ended.
    fn look_at(&self, block: &Block, place: usize) -> bool {
        let findings = block.txdata.get(place).and_then(|tx| self.find(tx));
        findings.is_some_and(|findings| self.found[place].set(findings).is_ok())
    }

    /// The findings of a transaction, unless the search ends in the meantime.
    fn find(&self, tx: &Transaction) -> Option<Findings> {
        let going_on = |_: &usize| !self.ended.load(Ordering::Relaxed);
        let all: Findings =
            (0..tx.input.len()).take_while(going_on).map(|input| p2pkh::signed_for(tx, input)).collect();
        (all.len() == tx.input.len()).then_some(all)
    }

    /// Ends the search: the findings are about to be used.
    pub(super) fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
    }

    /// Whether an input of the block's transaction at `place` is known to be signed for this output script. `None`
    /// if the transaction was not searched.
    pub(super) fn is_signed(&self, place: usize, input: usize, script_pubkey: &Script) -> Option<bool> {
        let found = self.found.get(place)?.get()?.get(input)?.as_ref();
        Some(found.is_some() && found == p2pkh::key_hash(script_pubkey))
    }
}

#[cfg(test)]
mod tests;
