//! The window: the newest shares whose work together reaches the wanted amount, summed by member.
//!
//! It is updated as shares are committed, so that a template need not read the log. The oldest share counts whole: the
//! window is the fewest shares that reach the wanted work, or all there are.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Range;

use iop_consensus::address::Address;
use iop_stratum::difficulty::{Difficulty, HASHES_AT_1};

/// Shares that are read at once when they leave the window: a fraction of a millisecond, once per that many shares.
const CHUNK: u64 = 512;
/// Shares that are read at once when the window grows into the past, as at the start.
const GROW_CHUNK: u64 = 16_384;

/// The work that a window must reach, in hashes.
#[must_use]
pub fn wanted_work(network_difficulty: Difficulty, window: f64) -> u128 {
    // A cast saturates.
    (network_difficulty.get() * HASHES_AT_1 * window).ceil() as u128
}

/// Access to the share log for the window.
pub trait Log {
    /// Why the log could not be read.
    type Error;

    /// Member and work of all shares in a range, in order.
    ///
    /// # Errors
    /// The log cannot be read.
    fn read(&self, range: Range<u64>) -> Result<Vec<(Address, u64)>, Self::Error>;
}

/// The window with its sums.
#[derive(Debug, Default)]
pub struct Window {
    wanted: u128,
    total: u128,
    range: Range<u64>,
    work: HashMap<Address, u128>,
    /// The first shares of the range, read ahead for when they are removed.
    oldest: VecDeque<(Address, u64)>,
}

impl Window {
    /// An empty window at the end of a log with `end` shares. [`Window::settle`] fills it.
    #[must_use]
    pub fn at(end: u64) -> Self {
        Self { range: end..end, ..Self::default() }
    }

    /// The window's shares, by number.
    #[must_use]
    pub fn range(&self) -> Range<u64> {
        self.range.clone()
    }

    /// Work of all members together.
    #[must_use]
    pub fn total(&self) -> u128 {
        self.total
    }

    /// The work that the window must reach.
    #[must_use]
    pub fn wanted(&self) -> u128 {
        self.wanted
    }

    /// Work by member.
    #[must_use]
    pub fn work(&self) -> BTreeMap<Address, u128> {
        self.work.iter().map(|(&member, &work)| (member, work)).collect()
    }

    /// A member's work.
    #[must_use]
    pub fn work_of(&self, member: &Address) -> u128 {
        self.work.get(member).copied().unwrap_or(0)
    }

    /// Adds the next share of the log.
    pub fn push(&mut self, member: Address, work: u64) {
        self.add(member, work);
        self.range.end += 1;
    }

    fn add(&mut self, member: Address, work: u64) {
        self.total += u128::from(work);
        *self.work.entry(member).or_default() += u128::from(work);
    }

    fn drop_oldest(&mut self, member: &Address, work: u64) {
        self.total -= u128::from(work);
        self.range.start += 1;
        if let Some(sum) = self.work.get_mut(member) {
            *sum -= u128::from(work);
            if *sum == 0 {
                self.work.remove(member);
            }
        }
    }

    /// Moves the start so that the window just reaches `wanted`.
    ///
    /// # Errors
    /// The log cannot be read; the window is then valid for some other amount of work.
    pub fn settle<L: Log>(&mut self, wanted: u128, log: &L) -> Result<(), L::Error> {
        self.wanted = wanted;
        self.grow(log)?;
        self.shrink(log)
    }

    fn grow<L: Log>(&mut self, log: &L) -> Result<(), L::Error> {
        while self.total < self.wanted && self.range.start > 0 {
            let older = self.range.start.saturating_sub(GROW_CHUNK)..self.range.start;
            for (member, work) in log.read(older)?.into_iter().rev() {
                if self.total >= self.wanted {
                    break;
                }
                self.add(member, work);
                self.range.start -= 1;
            }
            self.oldest.clear();
        }
        Ok(())
    }

    fn shrink<L: Log>(&mut self, log: &L) -> Result<(), L::Error> {
        while self.total > self.wanted && !self.range.is_empty() {
            if self.oldest.is_empty() {
                let end = self.range.end.min(self.range.start + CHUNK);
                self.oldest.extend(log.read(self.range.start..end)?);
            }
            let Some(&(member, work)) = self.oldest.front() else { break };
            if self.total - u128::from(work) < self.wanted {
                break;
            }
            self.oldest.pop_front();
            self.drop_oldest(&member, work);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::convert::Infallible;

    use proptest::prelude::*;

    use super::*;
    use crate::ledger::split::tests::member;

    impl Log for Vec<(Address, u64)> {
        type Error = Infallible;

        fn read(&self, range: Range<u64>) -> Result<Vec<(Address, u64)>, Infallible> {
            Ok(self[range.start as usize..range.end as usize].to_vec())
        }
    }

    /// Computes the window from scratch, by its definition.
    fn expected(log: &[(Address, u64)], wanted: u128) -> (u64, BTreeMap<Address, u128>) {
        let (mut total, mut work, mut start) = (0u128, BTreeMap::new(), log.len());
        while total < wanted && start > 0 {
            start -= 1;
            total += u128::from(log[start].1);
            *work.entry(log[start].0).or_default() += u128::from(log[start].1);
        }
        (start as u64, work)
    }

    proptest! {
        #[test]
        fn it_is_the_same_however_it_got_there(
            steps in proptest::collection::vec((proptest::collection::vec((0u8..4, 1u64..50), 0..700), 0u128..20_000), 1..8),
            restart in 0usize..8,
        ) {
            let (mut log, mut window) = (Vec::new(), Window::at(0));
            for (index, (shares, wanted)) in steps.into_iter().enumerate() {
                for (number, work) in shares {
                    log.push((member(number), work));
                    window.push(member(number), work);
                    if work % 7 == 0 {
                        window.settle(window.wanted(), &log).unwrap();
                    }
                }
                if index == restart {
                    window = Window::at(log.len() as u64);
                }
                window.settle(wanted, &log).unwrap();
                let (start, work) = expected(&log, wanted);
                prop_assert_eq!(window.range(), start..log.len() as u64);
                prop_assert_eq!(window.total(), work.values().sum::<u128>());
                prop_assert_eq!(window.work(), work);
            }
        }
    }
}
