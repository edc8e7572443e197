//! Fee rates, with the reference's rounding, and exact comparison of fee per size.

use std::cmp::Ordering;

/// Base units per 1,000 virtual bytes (`CFeeRate`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash)]
pub struct FeeRate(pub u64);

impl FeeRate {
    /// The rate of a fee in base units for a size in virtual bytes, rounded down.
    pub fn of(fee: u64, size: u64) -> Self {
        let rate = (u128::from(fee) * 1_000).checked_div(u128::from(size)).unwrap_or(0);
        Self(u64::try_from(rate).unwrap_or(u64::MAX))
    }

    /// The fee for a size in virtual bytes: rounded down, but at least one base unit if the rate is not zero
    /// (`GetFee`).
    pub fn fee(self, size: u64) -> u64 {
        let fee = u128::from(self.0) * u128::from(size) / 1_000;
        let fee = u64::try_from(fee).unwrap_or(u64::MAX);
        if fee == 0 && size > 0 && self.0 > 0 { 1 } else { fee }
    }
}

/// A fee over a size, compared without rounding.
#[derive(Debug, Clone, Copy)]
pub(super) struct Score {
    pub(super) fee: u64,
    pub(super) size: u64,
}

impl Ord for Score {
    fn cmp(&self, other: &Self) -> Ordering {
        let product = |fee: u64, size: u64| u128::from(fee) * u128::from(size);
        product(self.fee, other.size).cmp(&product(other.fee, self.size))
    }
}

impl PartialOrd for Score {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Score {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Score {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fees_round_down_but_never_to_nothing() {
        assert_eq!(FeeRate(1_000).fee(226), 226);
        assert_eq!(FeeRate(1_500).fee(3), 4);
        assert_eq!(FeeRate(1).fee(10), 1);
        assert_eq!(FeeRate(0).fee(10), 0);
        assert_eq!(FeeRate::of(1_000, 3), FeeRate(333_333));
        assert_eq!(FeeRate::of(5, 0), FeeRate(0));
    }

    #[test]
    fn scores_compare_as_fractions() {
        let score = |fee, size| Score { fee, size };
        assert!(score(1, 3) < score(1, 2) && score(2, 4) == score(1, 2) && score(0, 9) < score(1, u64::MAX));
    }
}
