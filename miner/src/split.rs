//! How an extranonce2 is divided if machines behind a gateway work on the same jobs as the devices here.
//!
//! Its first bytes are a prefix: 0 for the devices, another one for each machine, which rolls the bytes after it.

use iop_stratum::client;
use iop_stratum::fields::{MAX_EXTRANONCE1_SIZE, MAX_EXTRANONCE2_SIZE};

/// Why a job cannot be given to machines: no part of it would be theirs.
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

/// How extranonces are cut.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Split {
    /// There may be more machines than one byte tells apart.
    is_for_many: bool,
}

impl Split {
    /// For so many machines, where somebody has said how many.
    #[must_use]
    pub fn for_machines(machines: Option<usize>) -> Self {
        Self { is_for_many: machines.is_some_and(|machines| machines > usize::from(u8::MAX)) }
    }

    /// Bytes of the machines' prefixes in a job.
    ///
    /// # Errors
    /// Its extranonces leave no room for them.
    pub fn prefix_in(self, job: &client::Job) -> Result<usize, Unservable> {
        let (extranonce1, extranonce2) = (job.extranonce1.as_bytes().len(), job.extranonce2_size);
        self.prefix_size(extranonce2)
            .filter(|prefix| extranonce1 + prefix <= MAX_EXTRANONCE1_SIZE)
            .ok_or(Unservable { extranonce1, extranonce2 })
    }

    /// Bytes of the prefix, for an extranonce2 of this many. `None` where that leaves no byte to machines.
    ///
    /// A machine wants as many as it can get: most firmware refuses one byte, Avalon fewer than three, NiceHash fewer than
    /// four. And one of 200 TH/s that rolls nothing else is through with 47,000 extranonces a second: with two bytes in
    /// 1.4 s, with three in 6 minutes. Prefixes want to last for all machines that come and go while a job lasts.
    #[must_use]
    pub fn prefix_size(self, extranonce2_size: usize) -> Option<usize> {
        match extranonce2_size {
            0 | 1 => None,
            4 | 5 if self.is_for_many => Some(2),
            2..=5 => Some(1),
            6 | 7 => Some(2),
            _ => Some(4),
        }
    }

    /// The greatest extranonce2, as a counter, whose prefix is that of the devices here. All of them, where it cannot be
    /// cut.
    ///
    /// # Panics
    /// For more than [`MAX_EXTRANONCE2_SIZE`] bytes.
    #[must_use]
    pub fn last_of_devices(self, extranonce2_size: usize) -> u64 {
        assert!(extranonce2_size <= MAX_EXTRANONCE2_SIZE, "the session checks the width");
        match extranonce2_size - self.prefix_size(extranonce2_size).unwrap_or(0) {
            0 => 0,
            size => u64::MAX >> (64 - 8 * size),
        }
    }
}

/// What is to be said where machines get so few bytes that known ones refuse to work.
#[must_use]
pub fn warning(bytes: usize) -> Option<&'static str> {
    match bytes {
        0 | 1 => Some(
            "the upstream's extranonce2 leaves 1 byte to machines: most refuse to work with that (cgminer needs 2, Avalon 3, \
             NiceHash 4); use a pool with a wider one",
        ),
        2 => Some(
            "the upstream's extranonce2 leaves 2 bytes to machines: Avalon machines (they need 3) and NiceHash (4) refuse to \
             work with that; use a pool with a wider one, or, where it has 4 bytes, no more than 255 for --max-machines",
        ),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_width_above_one_byte_leaves_room_on_both_sides() {
        for split in [Split::default(), Split::for_machines(Some(256))] {
            for size in 2..=MAX_EXTRANONCE2_SIZE {
                let prefix = split.prefix_size(size).unwrap_or(0);
                assert!(prefix > 0 && prefix < size, "{size}");
                assert_eq!(split.last_of_devices(size), (1u64 << (8 * (size - prefix))) - 1);
            }
            assert_eq!((split.prefix_size(0), split.prefix_size(1)), (None, None));
            assert_eq!((split.last_of_devices(0), split.last_of_devices(1)), (0, 255));
        }
    }

    #[test]
    fn machines_get_the_most_that_their_number_leaves_them() {
        let left = |split: Split| {
            (2..=8).map(|size| size - split.prefix_size(size).unwrap_or(0)).collect::<Vec<_>>()
        };
        for few in [None, Some(1), Some(255)] {
            assert_eq!(left(Split::for_machines(few)), [1, 2, 3, 4, 4, 5, 4]);
        }
        for many in [256, 10_000] {
            assert_eq!(left(Split::for_machines(Some(many))), [1, 2, 2, 3, 4, 5, 4]);
        }
    }
}
