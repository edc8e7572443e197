//! How a block's reward is split: pure arithmetic in base units, the same when mined and when audited.
//!
//! Every member is credited with a part of the reward by its work in the window. Members that are owed enough are paid
//! in the coinbase; unpaid amounts are carried, and held by the chapter, whose output is all that members are not paid.
//! So along any chain of the pool's blocks: rewards = paid + chapter's outputs, and chapter's outputs = fees + what is
//! carried.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use iop_consensus::address::Address;
use serde::{Deserialize, Serialize};

/// A millionth: the unit of the chapter's fee.
pub const FEE_UNIT: u32 = 1_000_000;
/// Most bits of a window's total work, so that its product with an amount of money does not overflow.
const MAX_WORK_BITS: u32 = 76;

/// Whom a block pays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Scheme {
    /// Pay per last N shares: everybody, by work in a window of the share log.
    Pplns,
    /// The member whose share is the block.
    Solo,
    /// The chapter alone: for a farm of its own.
    Chapter,
}

/// The chapter's rules about money.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Rules {
    /// Whom a block pays.
    pub scheme: Scheme,
    /// The chapter's fee, in millionths of each reward.
    pub fee: u32,
    /// The least amount that is paid out, in base units; smaller ones are carried.
    pub min_payout: u64,
    /// The most members that one coinbase pays.
    pub max_outputs: usize,
    /// The window, as a multiple of the network's difficulty.
    pub window: f64,
}

impl Rules {
    /// Says so where no member is ever paid by blocks of a reward, in base units: none can be paid more than that.
    #[must_use]
    pub fn pay_nobody(&self, reward: u64) -> Option<String> {
        let least = self.min_payout;
        (self.scheme != Scheme::Chapter && least > reward).then(|| {
            format!(
                "min_payout is {least} and a block's reward {reward} base units: no member is paid until min_payout is \
                 lower"
            )
        })
    }
}

impl fmt::Display for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { scheme, fee, min_payout, max_outputs, window } = self;
        match scheme {
            Scheme::Chapter => return f.write_str("the chapter alone"),
            Scheme::Solo => f.write_str("solo: the finder of a block")?,
            Scheme::Pplns => write!(f, "pplns: the last shares of {window} times the network's difficulty")?,
        }
        let fee = f64::from(*fee) * 100.0 / f64::from(FEE_UNIT);
        write!(f, "; fee {fee} %; from {min_payout} base units, {max_outputs} members a block at most")
    }
}

/// Amounts by address, in base units.
pub type Amounts = BTreeMap<Address, u64>;

/// Inputs of a split.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// What the coinbase may claim, in base units.
    pub reward: u64,
    /// Work in the window by member, in hashes; zero work counts as none.
    pub work: &'a BTreeMap<Address, u128>,
    /// Amounts carried from earlier blocks.
    pub carried: &'a Amounts,
}

/// A member's share of one block, in base units.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Credit {
    /// The member's part of the reward.
    pub earned: u64,
    /// What the coinbase pays of this part and of carried amounts.
    pub paid: u64,
}

/// The split of a reward.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Split {
    /// The chapter's part, in base units: its fee, or everything if there is no work.
    pub fee: u64,
    /// The members' credits; they and `fee` add up to the reward.
    pub earned: Amounts,
    /// What the coinbase pays to members, in the order of its outputs: largest first.
    pub paid: Vec<(Address, u64)>,
    /// What the coinbase pays to the chapter; this and `paid` add up to the reward.
    pub chapter: u64,
    /// Amounts carried to the next block, without zeros.
    pub carried: Arc<Amounts>,
}

impl Split {
    /// Splits a reward.
    ///
    /// Credits are proportional to work, rounded down; leftover base units go to the largest remainders, one each, so
    /// that the sum is exact. Of the members owed `min_payout` or more, the `max_outputs` owed most are paid in full as
    /// far as the reward reaches; a partial payment below `min_payout` is left out. Ties go by address.
    #[must_use]
    pub fn new(input: Input<'_>, rules: &Rules) -> Self {
        let reward = input.reward;
        let total: u128 = input.work.values().sum();
        let fee = if total == 0 { reward } else { part(reward, rules.fee) };
        let earned = credits(reward - fee, input.work, total);
        let mut carried = input.carried.clone();
        for (&member, &amount) in &earned {
            *carried.entry(member).or_default() += amount;
        }
        let paid = payments(&carried, reward, rules);
        let mut chapter = reward;
        for (member, amount) in &paid {
            chapter -= amount;
            *carried.get_mut(member).expect("only who is owed something is paid") -= amount;
        }
        carried.retain(|_, amount| *amount > 0);
        Self { fee, earned, paid, chapter, carried: Arc::new(carried) }
    }

    /// Each member's share of the block.
    #[must_use]
    pub fn credits(&self) -> BTreeMap<Address, Credit> {
        let mut credits: BTreeMap<Address, Credit> = BTreeMap::new();
        for (&member, &earned) in &self.earned {
            credits.entry(member).or_default().earned = earned;
        }
        for &(member, paid) in &self.paid {
            credits.entry(member).or_default().paid = paid;
        }
        credits
    }
}

/// `amount · millionths / 10⁶`, rounded down.
fn part(amount: u64, millionths: u32) -> u64 {
    let part = u128::from(amount) * u128::from(millionths.min(FEE_UNIT)) / u128::from(FEE_UNIT);
    u64::try_from(part).expect("a part is no more than the whole")
}

/// Splits `amount` in proportion to work, to the last unit.
fn credits(amount: u64, work: &BTreeMap<Address, u128>, total: u128) -> Amounts {
    if total == 0 {
        return Amounts::new();
    }
    // Work beyond 2⁷⁶ hashes loses its lowest bits, so that no product overflows.
    let shift = (u128::BITS - total.leading_zeros()).saturating_sub(MAX_WORK_BITS);
    let parts: Vec<(Address, u128)> =
        work.iter().map(|(&member, &work)| (member, work >> shift)).filter(|(_, work)| *work > 0).collect();
    let total: u128 = parts.iter().map(|(_, work)| work).sum();
    let mut left = amount;
    let mut shares: Vec<(Address, u64, u128)> = Vec::with_capacity(parts.len());
    for (member, work) in parts {
        let product = u128::from(amount) * work;
        let share = u64::try_from(product / total).expect("a part is no more than the whole");
        left -= share;
        shares.push((member, share, product % total));
    }
    let by_remainder = |one: &(Address, u64, u128), other: &(Address, u64, u128)| {
        other.2.cmp(&one.2).then_with(|| one.0.cmp(&other.0))
    };
    let left = usize::try_from(left).expect("fewer units are left than there are members");
    if left > 0 {
        // Only the set that gets a unit more matters, not the order within it.
        shares.select_nth_unstable_by(left - 1, by_remainder);
        shares[..left].iter_mut().for_each(|(_, share, _)| *share += 1);
    }
    shares.into_iter().filter(|(_, share, _)| *share > 0).map(|(member, share, _)| (member, share)).collect()
}

/// The members that are paid, and how much.
fn payments(owed: &Amounts, reward: u64, rules: &Rules) -> Vec<(Address, u64)> {
    let least = rules.min_payout.max(1);
    let mut due: Vec<(Address, u64)> = owed
        .iter()
        .filter(|&(_, &amount)| amount >= least)
        .map(|(&member, &amount)| (member, amount))
        .collect();
    let by_amount =
        |one: &(Address, u64), other: &(Address, u64)| other.1.cmp(&one.1).then_with(|| one.0.cmp(&other.0));
    if due.len() > rules.max_outputs {
        due.select_nth_unstable_by(rules.max_outputs, by_amount);
        due.truncate(rules.max_outputs);
    }
    due.sort_unstable_by(by_amount);
    let mut left = reward;
    for (_, amount) in &mut due {
        *amount = (*amount).min(left);
        left -= *amount;
    }
    due.retain(|(_, amount)| *amount >= least);
    due
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn member(number: u8) -> Address {
        Address::of_pubkey(&[number])
    }

    pub(crate) fn rules() -> Rules {
        Rules { scheme: Scheme::Pplns, fee: 10_000, min_payout: 1000, max_outputs: 20, window: 2.0 }
    }

    fn split(reward: u64, work: &[(u8, u128)], carried: &[(u8, u64)], rules: &Rules) -> Split {
        let work = work.iter().map(|&(number, work)| (member(number), work)).collect();
        let carried = carried.iter().map(|&(number, amount)| (member(number), amount)).collect();
        Split::new(Input { reward, work: &work, carried: &carried }, rules)
    }

    #[test]
    fn a_reward_goes_by_work_after_the_fee() {
        let split = split(100_000, &[(1, 3), (2, 1)], &[], &rules());
        assert_eq!(split.fee, 1000);
        assert_eq!(split.earned, [(member(1), 74_250), (member(2), 24_750)].into());
        assert_eq!(split.paid, [(member(1), 74_250), (member(2), 24_750)]);
        assert_eq!((split.chapter, split.carried.len()), (1000, 0));
    }

    #[test]
    fn what_is_small_is_carried_and_paid_when_it_has_grown() {
        let first = split(100_000, &[(1, 995), (2, 5)], &[], &rules());
        assert_eq!(first.earned[&member(2)], 495);
        assert_eq!((first.paid.len(), first.chapter), (1, 1000 + 495));
        assert_eq!(*first.carried, [(member(2), 495)].into());
        let second = split(100_000, &[(1, 99), (2, 1)], &[(2, 495)], &rules());
        assert_eq!(second.paid[1], (member(2), 990 + 495));
        assert_eq!((second.chapter, second.carried.len()), (1000 - 495, 0), "the chapter gives it back");
    }

    #[test]
    fn outputs_are_bounded_and_who_is_owed_most_comes_first() {
        let rules = Rules { max_outputs: 1, fee: 0, ..rules() };
        let split = split(10_000, &[(1, 1), (2, 1)], &[(2, 3000)], &rules);
        assert_eq!(split.paid, [(member(2), 8000)]);
        assert_eq!((split.carried[&member(1)], split.chapter), (5000, 2000));
    }

    #[test]
    fn more_than_the_reward_is_never_paid() {
        let split = split(10_000, &[(1, 1)], &[(2, 9_500), (3, 1_500)], &Rules { fee: 0, ..rules() });
        assert_eq!(split.paid, [(member(1), 10_000)]);
        assert_eq!(split.chapter, 0);
        assert_eq!(*split.carried, [(member(2), 9_500), (member(3), 1_500)].into());
    }

    #[test]
    fn rules_that_pay_nobody_say_so() {
        for (scheme, reward, pays_nobody) in [
            (Scheme::Pplns, 999, true),
            (Scheme::Solo, 999, true),
            (Scheme::Chapter, 999, false),
            (Scheme::Pplns, 1000, false),
        ] {
            let rules = Rules { scheme, ..rules() };
            let said = rules.pay_nobody(reward);
            assert_eq!(said.is_some(), pays_nobody, "{scheme:?} {reward}");
            assert!(said.is_none_or(|said| said.contains("1000") && said.contains("999")));
            let paid = split(reward, &[(1, 1)], &[(1, 5000)], &Rules { fee: 0, ..rules }).paid;
            assert_eq!(paid.is_empty(), reward < 1000, "{scheme:?} {reward}");
        }
    }

    #[test]
    fn without_work_the_chapter_has_it_all_but_for_what_it_owes() {
        assert_eq!(split(5000, &[], &[], &rules()).chapter, 5000);
        let owing = split(5000, &[], &[(1, 2000)], &rules());
        assert_eq!((owing.fee, owing.chapter, &owing.paid[..]), (5000, 3000, &[(member(1), 2000)][..]));
    }

    proptest! {
        #[test]
        fn rules_come_back_from_json_as_they_were(window in 0.01..1000f64, bits in any::<u64>()) {
            for window in [window, f64::from_bits(bits)].into_iter().filter(|window| window.is_finite()) {
                let rules = Rules { window, ..rules() };
                let read: Rules = serde_json::from_str(&serde_json::to_string(&rules).unwrap()).unwrap();
                prop_assert_eq!(read.window.to_bits(), window.to_bits());
            }
        }

        #[test]
        fn not_a_unit_is_lost_over_any_run_of_blocks(
            blocks in proptest::collection::vec(
                (0u64..5_000_000_000, proptest::collection::vec((any::<u8>(), prop_oneof![0u128..50, any::<u128>().prop_map(|w| w >> 10)]), 0..40)),
                1..30,
            ),
            fee in 0..=FEE_UNIT, min_payout in 0u64..10_000_000, max_outputs in 0usize..30,
        ) {
            let rules = Rules { fee, min_payout, max_outputs, ..rules() };
            let (mut carried, mut chapter, mut fees) = (Arc::new(Amounts::new()), 0u128, 0u128);
            for (reward, work) in blocks {
                let work: BTreeMap<Address, u128> = work.into_iter().map(|(n, w)| (member(n), w)).collect();
                let split = Split::new(Input { reward, work: &work, carried: &carried }, &rules);
                let paid: u64 = split.paid.iter().map(|(_, amount)| amount).sum();
                prop_assert_eq!(paid + split.chapter, reward, "the coinbase claims all");
                prop_assert_eq!(split.earned.values().sum::<u64>() + split.fee, reward, "all is credited");
                prop_assert!(split.paid.len() <= max_outputs);
                prop_assert!(split.paid.iter().all(|(_, amount)| *amount >= min_payout.max(1)));
                prop_assert!(split.paid.is_sorted_by(|one, other| one.1 >= other.1));
                for (member, earned) in &split.earned {
                    let (work, total) = (work[member], work.values().sum::<u128>());
                    // Within two units of the real number, for work that a float represents well enough.
                    let fair = (reward - split.fee) as f64 * (work as f64 / total as f64);
                    prop_assert!((*earned as f64 - fair).abs() < 2.0 + fair * 1e-9, "{} of {}", earned, fair);
                }
                let owed: u128 = carried.values().chain(split.earned.values()).map(|&a| u128::from(a)).sum();
                let after: u128 = split.carried.values().map(|&a| u128::from(a)).sum();
                prop_assert_eq!(owed, after + u128::from(paid), "who is not paid keeps it");
                chapter += u128::from(split.chapter);
                fees += u128::from(split.fee);
                prop_assert_eq!(chapter, fees + after, "the chapter holds its fees and what is carried");
                carried = split.carried;
            }
        }
    }
}
