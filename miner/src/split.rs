//! How an extranonce2 is cut where machines behind a gateway work on the same jobs as the devices here.
//!
//! Its first bytes are a prefix: 0 for the devices, another one for each machine, which rolls the bytes behind it.

use iop_stratum::client;
use iop_stratum::fields::{MAX_EXTRANONCE1_SIZE, MAX_EXTRANONCE2_SIZE};

/// Why a job is not for machines: they would have no part of it to themselves.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "no work for machines: the upstream's extranonces have {extranonce1} and {extranonce2} bytes, expected at most 28 and \
     at least 2"
)]
pub struct Unservable {
    /// Width of the upstream's extranonce1, in bytes.
    extranonce1: usize,
    /// Width of its extranonce2, in bytes.
    extranonce2: usize,
}

/// Bytes of the machines' prefixes in a job.
///
/// # Errors
/// Its extranonces leave no room for them.
pub fn prefix_in(job: &client::Job) -> Result<usize, Unservable> {
    let (extranonce1, extranonce2) = (job.extranonce1.as_bytes().len(), job.extranonce2_size);
    prefix_size(extranonce2)
        .filter(|prefix| extranonce1 + prefix <= MAX_EXTRANONCE1_SIZE)
        .ok_or(Unservable { extranonce1, extranonce2 })
}

/// Bytes of the prefix, for an extranonce2 of this many. `None` where that leaves no byte to machines.
///
/// Machines roll version bits and nonces too (2^48 headers, if the pool allows it, before an extranonce2 turns), so few
/// bytes do for them; prefixes have to last for all machines that come and go while a job lasts.
#[must_use]
pub fn prefix_size(extranonce2_size: usize) -> Option<usize> {
    match extranonce2_size {
        0 | 1 => None,
        2 | 3 => Some(1),
        4..=7 => Some(2),
        _ => Some(4),
    }
}

/// The greatest extranonce2, as a counter, whose prefix is that of the devices here. All of them, where it cannot be cut.
///
/// # Panics
/// For more than [`MAX_EXTRANONCE2_SIZE`] bytes.
#[must_use]
pub fn last_of_devices(extranonce2_size: usize) -> u64 {
    assert!(extranonce2_size <= MAX_EXTRANONCE2_SIZE, "the session checks the width");
    match extranonce2_size - prefix_size(extranonce2_size).unwrap_or(0) {
        0 => 0,
        size => u64::MAX >> (64 - 8 * size),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_width_above_one_byte_leaves_room_on_both_sides() {
        for size in 2..=MAX_EXTRANONCE2_SIZE {
            let prefix = prefix_size(size).unwrap_or(0);
            assert!(prefix > 0 && prefix < size, "{size}");
            assert_eq!(last_of_devices(size), (1u64 << (8 * (size - prefix))) - 1);
        }
        assert_eq!((prefix_size(0), prefix_size(1)), (None, None));
        assert_eq!((last_of_devices(0), last_of_devices(1)), (0, 255));
    }
}
