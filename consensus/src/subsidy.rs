//! The block subsidy (`GetBlockSubsidy`).

use crate::COIN;

/// New coins at `height`, in base units, for a network with this halving interval.
pub fn subsidy(height: u32, halving_interval: u32) -> u64 {
    let halvings = height / halving_interval;
    if halvings >= 64 {
        return 0;
    }
    let mut coins = if height == 1 { 2_100_000 * COIN } else { 50 * COIN };
    if height + 1 == halving_interval {
        // Raises the theoretical supply to Bitcoin's, after the coins lost in the beta.
        coins += 6_000_000 * COIN + 37_027_227_072_051;
    }
    coins >> halvings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_special_heights_and_the_halvings() {
        assert_eq!(subsidy(1, 150_000), 2_100_000 * COIN);
        assert_eq!(subsidy(2, 150_000), 50 * COIN);
        assert_eq!(subsidy(149_999, 150_000), 50 * COIN + 6_000_000 * COIN + 37_027_227_072_051);
        assert_eq!(subsidy(150_000, 150_000), 25 * COIN);
        assert_eq!(subsidy(64 * 150_000, 150_000), 0);
    }
}
