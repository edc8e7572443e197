//! Replacement (BIP125): when a transaction may replace those that spend the same outputs.
//!
//! Lives here: which entries are replaced, and the rules in the reference's order: the replaced transactions signal
//! by their sequence numbers; a better rate than each of them; few enough are replaced; no new unconfirmed parent;
//! at least their total fees; and the new one's relay fee on top. Does not live here: removing them, which
//! acceptance does last.

use std::collections::{BTreeSet, HashSet};

use bitcoin::{Transaction, Txid};
use iop_consensus::COIN;

use super::entry::{Slot, signals_replacement};
use super::fee::FeeRate;
use super::policy::INCREMENTAL_RELAY_FEE;
use super::{Mempool, Reject};

/// Maximum number of transactions that one may replace, including descendants.
pub(super) const MAX_REPLACED: u64 = 100;

impl Mempool {
    /// The entries that spend the same outputs as the transaction.
    ///
    /// # Errors
    /// One of them does not signal replaceability.
    pub(super) fn conflicts(&self, tx: &Transaction) -> Result<BTreeSet<Slot>, Reject> {
        let mut conflicts = BTreeSet::new();
        for input in &tx.input {
            let Some(slot) = self.graph.spender(&input.previous_output) else { continue };
            let rival = self.graph.get(slot);
            if !signals_replacement(&rival.tx) {
                return Err(Reject::Conflict(rival.txid));
            }
            conflicts.insert(slot);
        }
        Ok(conflicts)
    }

    /// All entries that the transaction would replace, given its conflicts.
    ///
    /// # Errors
    /// The first rule that is violated. `fee` is in base units, `vsize` in virtual bytes.
    pub(super) fn check_replacement(
        &self,
        tx: &Transaction,
        fee: i64,
        vsize: u64,
        conflicts: &BTreeSet<Slot>,
    ) -> Result<HashSet<Slot>, Reject> {
        if conflicts.is_empty() {
            return Ok(HashSet::new());
        }
        let txid = tx.compute_txid();
        let fee = u64::try_from(fee).unwrap_or(0);
        let rate = FeeRate::of(fee, vsize);
        let (mut parents, mut count) = (HashSet::new(), 0);
        for slot in conflicts {
            let rival = self.graph.get(*slot);
            if rate <= rival.fee_rate() {
                let (new, old) = (coins_per_kb(rate), coins_per_kb(rival.fee_rate()));
                let rule = format!("rejecting replacement {txid}; new feerate {new} <= old feerate {old}");
                return Err(Reject::ReplacementFee(rule));
            }
            parents.extend(rival.tx.input.iter().map(|input| input.previous_output.txid));
            count += rival.descendants.count;
        }
        if count > MAX_REPLACED {
            return Err(Reject::TooManyReplaced(count));
        }
        let mut replaced: HashSet<Slot> = conflicts.iter().copied().collect();
        conflicts.iter().for_each(|slot| replaced.extend(self.graph.descendants(*slot)));
        self.check_new_parents(tx, &parents)?;
        self.check_replaced_fees(txid, fee, vsize, &replaced)?;
        Ok(replaced)
    }

    fn check_new_parents(&self, tx: &Transaction, old: &HashSet<Txid>) -> Result<(), Reject> {
        let adds = tx.input.iter().position(|input| {
            let parent = input.previous_output.txid;
            !old.contains(&parent) && self.graph.find(&parent).is_some()
        });
        adds.map_or(Ok(()), |input| Err(Reject::ReplacementAddsUnconfirmed(input)))
    }

    fn check_replaced_fees(
        &self,
        txid: Txid,
        fee: u64,
        vsize: u64,
        replaced: &HashSet<Slot>,
    ) -> Result<(), Reject> {
        let old: u64 = replaced.iter().map(|slot| self.graph.get(*slot).fee).sum();
        let Some(more) = fee.checked_sub(old) else {
            let rule = format!(
                "rejecting replacement {txid}, less fees than conflicting txs; {} < {}",
                coins(fee),
                coins(old)
            );
            return Err(Reject::ReplacementFee(rule));
        };
        let at_least = INCREMENTAL_RELAY_FEE.fee(vsize);
        if more < at_least {
            let rule = format!(
                "rejecting replacement {txid}, not enough additional fees to relay; {} < {}",
                coins(more),
                coins(at_least)
            );
            return Err(Reject::ReplacementFee(rule));
        }
        Ok(())
    }
}

/// Formats base units as coins, for display.
fn coins(base_units: u64) -> String {
    format!("{}.{:08}", base_units / COIN, base_units % COIN)
}

fn coins_per_kb(rate: FeeRate) -> String {
    format!("{} IOP/kB", coins(rate.0))
}
