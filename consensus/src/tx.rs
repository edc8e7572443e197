//! Checks of one transaction (`tx_verify.cpp`): alone, against the chain's clock, against its coins.

use std::cell::LazyCell;
use std::collections::HashSet;

use bitcoin::{OutPoint, Sequence, Transaction};

use crate::ancestors::{Ancestors, median_time_past};
use crate::coins::Coin;
use crate::error::TxError;
use crate::{COINBASE_MATURITY, MAX_BLOCK_WEIGHT, MAX_MONEY, WITNESS_SCALE_FACTOR};

/// Lock times below this are heights, others are seconds (`LOCKTIME_THRESHOLD`).
const LOCKTIME_THRESHOLD: u32 = 500_000_000;
/// BIP68: the input has no relative lock time.
const SEQUENCE_DISABLE_FLAG: u32 = 1 << 31;
/// BIP68: the relative lock time counts units of 512 seconds instead of blocks.
const SEQUENCE_TYPE_FLAG: u32 = 1 << 22;
/// BIP68: the bits that hold the relative lock time.
const SEQUENCE_MASK: u32 = 0xffff;
/// BIP68: a unit of time is 2^9 seconds.
const SEQUENCE_GRANULARITY: u32 = 9;

/// Checks that need nothing but the transaction (`CheckTransaction`).
pub fn check(tx: &Transaction) -> Result<(), TxError> {
    if tx.input.is_empty() {
        return Err(TxError::NoInputs);
    }
    if tx.output.is_empty() {
        return Err(TxError::NoOutputs);
    }
    let size = tx.base_size() as u64;
    if size * WITNESS_SCALE_FACTOR > MAX_BLOCK_WEIGHT {
        return Err(TxError::Oversize { found: size, at_most: MAX_BLOCK_WEIGHT / WITNESS_SCALE_FACTOR });
    }
    check_outputs(tx)?;
    let mut seen = HashSet::with_capacity(tx.input.len());
    if let Some(input) = tx.input.iter().find(|input| !seen.insert(input.previous_output)) {
        return Err(TxError::DuplicateInput(input.previous_output));
    }
    if tx.is_coinbase() {
        let found = tx.input[0].script_sig.len();
        if !(2..=300).contains(&found) {
            return Err(TxError::CoinbaseScriptLength { found });
        }
    } else if let Some(input) = tx.input.iter().position(|i| i.previous_output == OutPoint::null()) {
        return Err(TxError::NullInput { input });
    }
    Ok(())
}

fn check_outputs(tx: &Transaction) -> Result<(), TxError> {
    let mut total = 0u64;
    for (output, found) in tx.output.iter().map(|o| o.value.to_sat()).enumerate() {
        if found > i64::MAX as u64 {
            return Err(TxError::NegativeOutput { output, found: found as i64 });
        }
        if found > MAX_MONEY {
            return Err(TxError::OutputTooLarge { output, found });
        }
        total += found;
        if total > MAX_MONEY {
            return Err(TxError::OutputTotalTooLarge { found: total });
        }
    }
    Ok(())
}

/// Whether the absolute lock time has passed in a block at `height` whose lock-time clock is at `time`, in seconds
/// (`IsFinalTx`).
pub fn is_final(tx: &Transaction, height: u32, time: u32) -> bool {
    let lock_time = tx.lock_time.to_consensus_u32();
    let clock = if lock_time < LOCKTIME_THRESHOLD { height } else { time };
    lock_time == 0 || lock_time < clock || tx.input.iter().all(|input| input.sequence == Sequence::MAX)
}

/// Whether the relative lock times (BIP68) have passed for a block on top of `chain`. `coin_heights` are the heights of
/// the spent coins, in input order (`SequenceLocks`). To be called only once CSV is active.
pub fn sequence_locks_passed(
    tx: &Transaction,
    coin_heights: impl IntoIterator<Item = u32>,
    chain: &dyn Ancestors,
) -> bool {
    // The version is compared as an unsigned number.
    if (tx.version.0 as u32) < 2 {
        return true;
    }
    let height = i64::from(chain.tip_height()) + 1;
    // Few inputs have a lock in time.
    let time = LazyCell::new(|| i64::from(median_time_past(chain, chain.tip_height())));
    tx.input.iter().zip(coin_heights).all(|(input, coin_height)| {
        let sequence = input.sequence.to_consensus_u32();
        if sequence & SEQUENCE_DISABLE_FLAG != 0 {
            return true;
        }
        let span = i64::from(sequence & SEQUENCE_MASK);
        if sequence & SEQUENCE_TYPE_FLAG != 0 {
            // Counted from the median time past of the block before the coin's.
            let from = median_time_past(chain, coin_height.saturating_sub(1).min(chain.tip_height()));
            i64::from(from) + (span << SEQUENCE_GRANULARITY) - 1 < *time
        } else {
            i64::from(coin_height) + span - 1 < height
        }
    })
}

/// Checks amounts and maturity for a block at `height`, given the spent coins in input order. Returns the fee in base
/// units (`CheckTxInputs`).
pub fn check_inputs(tx: &Transaction, spent: &[Coin], height: u32) -> Result<u64, TxError> {
    let mut value_in = 0u64;
    for (input, coin) in tx.input.iter().zip(spent) {
        let depth = height.saturating_sub(coin.height);
        if coin.coinbase && depth < COINBASE_MATURITY {
            return Err(TxError::ImmatureCoinbase { outpoint: input.previous_output, depth });
        }
        let value = coin.output.value.to_sat();
        value_in = value_in.saturating_add(value);
        if value > MAX_MONEY || value_in > MAX_MONEY {
            return Err(TxError::InputsOutOfRange);
        }
    }
    let value_out = value_out(tx);
    value_in.checked_sub(value_out).ok_or(TxError::InBelowOut { value_in, value_out })
}

/// The sum of the outputs in base units; the transaction must have passed [`check`].
pub fn value_out(tx: &Transaction) -> u64 {
    tx.output.iter().map(|output| output.value.to_sat()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ancestors::{HeaderInfo, TestChain};
    use bitcoin::absolute::LockTime;
    use bitcoin::pow::CompactTarget;
    use bitcoin::transaction::Version;
    use bitcoin::{Amount, ScriptBuf, TxIn, TxOut};

    fn tx(sequence: u32, lock_time: u32) -> Transaction {
        let outpoint = OutPoint { vout: 0, ..OutPoint::null() };
        Transaction {
            version: Version::TWO,
            lock_time: LockTime::from_consensus(lock_time),
            input: vec![TxIn { previous_output: outpoint, sequence: Sequence(sequence), ..TxIn::default() }],
            output: vec![TxOut { value: Amount::from_sat(1), script_pubkey: ScriptBuf::new() }],
        }
    }

    #[test]
    fn a_lock_time_passes_one_height_or_second_later() {
        assert!(!is_final(&tx(0, 100), 100, 0));
        assert!(is_final(&tx(0, 100), 101, 0));
        assert!(is_final(&tx(u32::MAX, 100), 100, 0));
        assert!(!is_final(&tx(0, 500_000_000), 1, 500_000_000));
        assert!(is_final(&tx(0, 500_000_000), 1, 500_000_001));
    }

    #[test]
    fn a_relative_lock_of_n_blocks_passes_n_blocks_after_the_coin() {
        let header = HeaderInfo { version: 0, time: 0, bits: CompactTarget::from_consensus(0) };
        let chain = |tip: usize| TestChain::repeat(header, tip + 1);
        assert!(!sequence_locks_passed(&tx(10, 0), [5], &chain(13)));
        assert!(sequence_locks_passed(&tx(10, 0), [5], &chain(14)));
        assert!(sequence_locks_passed(&tx(10 | SEQUENCE_DISABLE_FLAG, 0), [5], &chain(5)));
    }

    #[test]
    fn a_relative_lock_in_time_counts_512_seconds_from_the_block_before_the_coin() {
        let bits = CompactTarget::from_consensus(0);
        let chain =
            |tip: u32| TestChain((0..=tip).map(|h| HeaderInfo { version: 0, time: h * 100, bits }).collect());
        // Median time past at height h >= 10 is (h - 5) * 100. The coin at 20 counts from height 19: 1400.
        let one_unit = tx(SEQUENCE_TYPE_FLAG | 1, 0);
        assert!(!sequence_locks_passed(&one_unit, [20], &chain(24))); // 1900 < 1400 + 512
        assert!(sequence_locks_passed(&one_unit, [20], &chain(25))); // 2000 >= 1912
    }

    #[test]
    fn amounts_outside_the_money_range_are_told_apart() {
        let with = |amounts: &[u64]| {
            let mut tx = tx(0, 0);
            tx.output = amounts
                .iter()
                .map(|&sat| TxOut { value: Amount::from_sat(sat), script_pubkey: ScriptBuf::new() })
                .collect();
            check(&tx).map_err(|error| error.reject_reason())
        };
        assert_eq!(with(&[MAX_MONEY]), Ok(()));
        assert_eq!(with(&[MAX_MONEY + 1]), Err("bad-txns-vout-toolarge"));
        assert_eq!(with(&[MAX_MONEY, 1]), Err("bad-txns-txouttotal-toolarge"));
        assert_eq!(with(&[u64::MAX]), Err("bad-txns-vout-negative"));
        assert_eq!(with(&[]), Err("bad-txns-vout-empty"));
    }
}
