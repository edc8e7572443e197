//! What all members are owed after a block, in one number: remembered, since it takes a read of every member's amount and
//! never changes for a block.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};

use super::LedgerError;
use super::store::BlockId;
use super::views::MAX_BLOCKS;

/// Sums that are remembered, of the highest blocks: twice what one answer shows. 44 bytes each.
const REMEMBERED: usize = 2 * MAX_BLOCKS;

/// Sums by block, in base units.
#[derive(Debug, Default)]
pub(super) struct Sums(Mutex<BTreeMap<BlockId, u64>>);

impl Sums {
    /// A block's sum, with `read` unless it is remembered. The lock is not held meanwhile: two who ask at once may both
    /// read, and find the same.
    pub(super) fn get(
        &self,
        block: &BlockId,
        read: impl FnOnce() -> Result<u64, LedgerError>,
    ) -> Result<u64, LedgerError> {
        let known = self.lock().get(block).copied();
        if let Some(sum) = known {
            return Ok(sum);
        }
        let sum = read()?;
        let mut sums = self.lock();
        sums.insert(*block, sum);
        if sums.len() > REMEMBERED {
            sums.pop_first();
        }
        Ok(sum)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<BlockId, u64>> {
        self.0.lock().expect("no panic while the lock is held")
    }
}

#[cfg(test)]
mod tests {
    use bitcoin::BlockHash;
    use bitcoin::hashes::Hash;

    use super::*;

    #[test]
    fn each_sum_is_read_once_and_those_of_the_highest_blocks_stay() {
        let sums = Sums::default();
        let block = |height| BlockId { height, hash: BlockHash::all_zeros() };
        let heights = 1..=REMEMBERED as u32 + 10;
        for height in heights.clone() {
            assert_eq!(sums.get(&block(height), || Ok(height.into())), Ok(u64::from(height)));
        }
        let failed = || LedgerError { folder: String::new(), reason: "it is read again".to_owned() };
        let known = |height| sums.get(&block(height), || Err(failed()));
        for height in heights.skip(10) {
            assert_eq!(known(height), Ok(u64::from(height)));
        }
        assert_eq!(known(10), Err(failed()), "what cannot be read is not remembered");
        assert_eq!(sums.get(&block(10), || Ok(7)), Ok(7));
        assert_eq!(sums.lock().len(), REMEMBERED);
    }
}
