//! Limits of the pool: length of chains of unconfirmed transactions, total memory, and age.
//!
//! Lives here: the limits on relatives, eviction by fee rate with its rolling minimum fee, and expiry. When memory
//! is short, the entry with the worst rate is evicted with its descendants, and for a while new transactions must
//! pay more than it did; this minimum halves every twelve hours, or faster while the pool is far from full.

use super::entry::{Entry, Totals};
use super::fee::FeeRate;
use super::policy::INCREMENTAL_RELAY_FEE;
use super::{Mempool, Slot};
use std::collections::{BTreeSet, HashSet};

/// Maximum number of transactions in a set of unconfirmed ancestors (`DEFAULT_ANCESTOR_LIMIT`) or descendants,
/// including the transaction itself.
pub(super) const MAX_RELATIVES: u64 = 25;
/// Maximum virtual bytes of such a set (`DEFAULT_ANCESTOR_SIZE_LIMIT`).
pub(super) const MAX_RELATIVES_SIZE: u64 = 101_000;
/// Half-life of the rolling minimum fee, seconds (`ROLLING_FEE_HALFLIFE`).
const HALF_LIFE: f64 = 12.0 * 60.0 * 60.0;
/// Seconds between two reductions of the minimum.
const STEP: u64 = 10;

/// The minimum fee rate after the pool was full.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct RollingFee {
    /// Base units per 1,000 virtual bytes.
    rate: f64,
    /// When it was last reduced, or a block let it fall, seconds. `None` before the first lookup or block.
    since: Option<u64>,
    /// Whether a block has come since it last rose; it only falls then.
    falls: bool,
}

impl RollingFee {
    /// The value as of `now`.
    fn at(mut self, now: u64, usage: usize, max_usage: usize) -> Self {
        // A clock that was set back starts anew.
        let since = self.since.map_or(now, |since| since.min(now));
        self.since = Some(since);
        if !self.falls || self.rate == 0.0 || now <= since + STEP {
            return self;
        }
        let faster = if usage < max_usage / 4 {
            4.0
        } else if usage < max_usage / 2 {
            2.0
        } else {
            1.0
        };
        self.rate /= 2f64.powf((now - since) as f64 * faster / HALF_LIFE);
        self.since = Some(now);
        if self.rate < INCREMENTAL_RELAY_FEE.0 as f64 / 2.0 {
            self.rate = 0.0;
        }
        self
    }

    fn asked(self) -> FeeRate {
        let rate = FeeRate(self.rate as u64);
        if self.falls && self.rate > 0.0 { rate.max(INCREMENTAL_RELAY_FEE) } else { rate }
    }

    pub(super) fn rise_to(&mut self, rate: FeeRate) {
        if rate.0 as f64 > self.rate {
            self.rate = rate.0 as f64;
            self.falls = false;
        }
    }

    /// A block was connected. The reference starts its clock again with each one, and so loses the time since the last
    /// lookup, of which a quiet pool has few; here only the first block after a rise does.
    fn block_came(&mut self, now: u64) {
        if !self.falls {
            self.since = Some(now);
        }
        self.falls = true;
    }
}

impl Mempool {
    /// The minimum rate that a transaction must pay, besides the relay fee, while or after the pool is full; zero
    /// if it has room (`GetMinFee`). `now` is in seconds.
    pub fn min_fee(&self, now: u64) -> FeeRate {
        self.rolling_fee.at(now, self.graph.usage(), self.policy.max_usage).asked()
    }

    pub(super) fn lower_min_fee(&mut self, now: u64) {
        self.rolling_fee = self.rolling_fee.at(now, self.graph.usage(), self.policy.max_usage);
    }

    /// Lets the minimum fall, and go on falling, after a block.
    pub(super) fn let_min_fee_fall(&mut self, now: u64) {
        self.lower_min_fee(now);
        self.rolling_fee.block_came(now);
    }

    /// The unconfirmed ancestors of a transaction with these parents.
    ///
    /// # Errors
    /// The limit that would be exceeded, in the reference's words (`CalculateMemPoolAncestors`).
    pub(super) fn ancestors_within_limits(
        &self,
        parents: &BTreeSet<Slot>,
        vsize: u64,
    ) -> Result<HashSet<Slot>, String> {
        if parents.len() as u64 + 1 > MAX_RELATIVES {
            return Err(format!("too many unconfirmed parents [limit: {MAX_RELATIVES}]"));
        }
        let (mut found, mut queue, mut size) =
            (HashSet::new(), Vec::from_iter(parents.iter().copied()), vsize);
        while let Some(slot) = queue.pop() {
            if !found.insert(slot) {
                continue;
            }
            let entry = self.graph.get(slot);
            size += entry.vsize;
            check_descendants(entry, vsize)?;
            if size > MAX_RELATIVES_SIZE {
                return Err(format!("exceeds ancestor size limit [limit: {MAX_RELATIVES_SIZE}]"));
            }
            if found.len() as u64 + 1 > MAX_RELATIVES {
                return Err(format!("too many unconfirmed ancestors [limit: {MAX_RELATIVES}]"));
            }
            queue.extend(entry.parents.iter().filter(|parent| !found.contains(parent)));
        }
        Ok(found)
    }

    /// Removes expired entries and, while the pool takes too much memory, those with the worst rate
    /// (`LimitMempoolSize`).
    pub(super) fn limit(&mut self, now: u64) {
        let old = self.graph.older_than(now.saturating_sub(self.policy.expiry));
        self.drop_with_descendants(old);
        self.lower_min_fee(now);
        while self.graph.usage() > self.policy.max_usage
            && let Some(worst) = self.graph.first_to_evict()
        {
            let Totals { fees, size, .. } = self.graph.get(worst).descendants;
            self.rolling_fee.rise_to(FeeRate(FeeRate::of(fees, size).0 + INCREMENTAL_RELAY_FEE.0));
            self.drop_with_descendants([worst]);
        }
    }
}

/// Whether an ancestor may have one more descendant.
fn check_descendants(ancestor: &Entry, vsize: u64) -> Result<(), String> {
    let (below, txid) = (ancestor.descendants, ancestor.txid);
    if below.size + vsize > MAX_RELATIVES_SIZE {
        return Err(format!("exceeds descendant size limit for tx {txid} [limit: {MAX_RELATIVES_SIZE}]"));
    }
    if below.count + 1 > MAX_RELATIVES {
        return Err(format!("too many descendants for tx {txid} [limit: {MAX_RELATIVES}]"));
    }
    Ok(())
}
