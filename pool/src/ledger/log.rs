//! The share log as the window and the audit read it: each share's member and work.

use std::ops::Range;

use iop_consensus::address::Address;

use super::LedgerError;
use super::store::Store;
use super::window::Log;

/// The share log, with the member of each user.
pub(super) struct StoredLog<'a> {
    pub(super) store: &'a Store,
    pub(super) members: &'a [Address],
}

impl Log for StoredLog<'_> {
    type Error = LedgerError;

    fn read(&self, range: Range<u64>) -> Result<Vec<(Address, u64)>, LedgerError> {
        let mut shares = Vec::new();
        let mut unknown = None;
        self.store.read_shares(range.start, |number, share| {
            if number >= range.end {
                return false;
            }
            match self.members.get(share.user.0 as usize) {
                Some(&member) => shares.push((member, share.work)),
                None => unknown = Some(number),
            }
            number + 1 < range.end && unknown.is_none()
        })?;
        if let Some(number) = unknown {
            return Err(self.store.broken(&format!("share {number} is of an unknown user")));
        }
        if shares.len() as u64 != range.end - range.start {
            return Err(self
                .store
                .broken(&format!("shares {} to {} are not all there", range.start, range.end)));
        }
        Ok(shares)
    }
}
