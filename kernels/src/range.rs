//! Ranges of nonces.

use std::fmt;

/// The number of nonces.
const NONCES: u64 = 1 << 32;

/// A run of consecutive nonces, at least one and at most all 2^32. A range never wraps past `0xffff_ffff`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NonceRange {
    first: u32,
    count: u64,
}

/// A `first` and `count` that do not make a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NonceRangeError {
    /// The first nonce asked for.
    pub first: u32,
    /// The number of nonces asked for; from `first` there are `1..=2^32 - first`.
    pub count: u64,
}

impl fmt::Display for NonceRangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let most = NONCES - u64::from(self.first);
        write!(f, "{} nonces from {:#010x}: expected 1 to {most}", self.count, self.first)
    }
}

impl std::error::Error for NonceRangeError {}

impl NonceRange {
    /// Every nonce.
    pub const ALL: Self = Self { first: 0, count: NONCES };

    /// The `count` nonces from `first` on.
    ///
    /// # Errors
    /// `count` is 0, or the range would extend past `0xffff_ffff`.
    pub const fn new(first: u32, count: u64) -> Result<Self, NonceRangeError> {
        if count == 0 || count > NONCES - first as u64 {
            return Err(NonceRangeError { first, count });
        }
        Ok(Self { first, count })
    }

    /// The first nonce.
    #[must_use]
    pub const fn first(self) -> u32 {
        self.first
    }

    /// The number of nonces: `1..=2^32`.
    #[must_use]
    pub const fn count(self) -> u64 {
        self.count
    }

    /// The last nonce.
    #[must_use]
    pub const fn last(self) -> u32 {
        // At most 0xffff_ffff, as ensured by `new`.
        (self.first as u64 + (self.count - 1)) as u32
    }

    /// The first `count` nonces (at least one, at most all), and the rest if there is any.
    #[must_use]
    pub fn split(self, count: u64) -> (Self, Option<Self>) {
        let count = count.clamp(1, self.count);
        let now = Self { first: self.first, count };
        let rest = (count < self.count).then(|| Self {
            first: now.last() + 1, // below 2^32, since there are more
            count: self.count - count,
        });
        (now, rest)
    }

    /// The first nonces of the range's whole batches of `size`.
    pub(crate) fn batches(self, size: u32) -> impl Iterator<Item = u32> {
        // Wraps only past the last nonce of all, after which there is no further batch.
        let first = move |batch: u64| self.first.wrapping_add((batch as u32).wrapping_mul(size));
        (0..self.count / u64::from(size)).map(first)
    }

    /// The nonces after the last whole batch of `size`.
    pub(crate) fn after_batches(self, size: u32) -> impl Iterator<Item = u32> {
        let rest = (self.count % u64::from(size)) as u32;
        (0..rest).map(move |i| self.last() - (rest - 1 - i))
    }

    /// The `count` nonces from `first` on, continuing past `0xffff_ffff` with 0: one range, or two if it wraps.
    ///
    /// # Errors
    /// `count` is 0 or greater than the number of nonces.
    pub fn wrapping(first: u32, count: u64) -> Result<(Self, Option<Self>), NonceRangeError> {
        if count == 0 || count > NONCES {
            return Err(NonceRangeError { first, count });
        }
        let before_wrap = count.min(NONCES - u64::from(first));
        let wrapped = count - before_wrap;
        let rest = (wrapped > 0).then_some(Self { first: 0, count: wrapped });
        Ok((Self { first, count: before_wrap }, rest))
    }

    /// Splits the range, in order, into ranges of `size` nonces (the last may be shorter). A caller that wants to be
    /// able to stop should scan these one by one.
    ///
    /// # Panics
    /// `size` is 0.
    #[must_use]
    pub const fn chunks(self, size: u64) -> Chunks {
        assert!(size > 0, "a chunk holds at least one nonce");
        Chunks { next: self.first as u64, end: self.first as u64 + self.count, size }
    }
}

/// The iterator of [`NonceRange::chunks`].
#[derive(Clone, Debug)]
pub struct Chunks {
    next: u64,
    end: u64,
    size: u64,
}

impl Iterator for Chunks {
    type Item = NonceRange;

    fn next(&mut self) -> Option<NonceRange> {
        let count = self.size.min(self.end - self.next);
        if count == 0 {
            return None;
        }
        let first =
            u32::try_from(self.next).expect("a range ends at or before 2^32, and this is before its end");
        self.next += count;
        Some(NonceRange { first, count })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_range_is_never_empty_and_never_wraps() {
        assert!(NonceRange::new(0, 0).is_err());
        assert!(NonceRange::new(u32::MAX, 2).is_err());
        assert!(NonceRange::new(1, NONCES).is_err());
        assert!(NonceRange::new(0, u64::MAX).is_err());
        assert_eq!(NonceRange::new(u32::MAX, 1).unwrap().last(), u32::MAX);
        assert_eq!(NonceRange::new(0, NONCES).unwrap(), NonceRange::ALL);
        assert_eq!(NonceRange::ALL.last(), u32::MAX);
        let line = NonceRange::new(u32::MAX, 2).unwrap_err().to_string();
        assert_eq!(line, "2 nonces from 0xffffffff: expected 1 to 1");
    }

    #[test]
    fn a_range_that_wraps_is_two() {
        let range = |first, count| NonceRange::new(first, count).unwrap();
        assert_eq!(NonceRange::wrapping(7, 5).unwrap(), (range(7, 5), None));
        assert_eq!(NonceRange::wrapping(u32::MAX, 1).unwrap(), (range(u32::MAX, 1), None));
        assert_eq!(
            NonceRange::wrapping(u32::MAX - 1, 5).unwrap(),
            (range(u32::MAX - 1, 2), Some(range(0, 3)))
        );
        let (before, after) = NonceRange::wrapping(1, NONCES).unwrap();
        assert_eq!((before.last(), after), (u32::MAX, Some(range(0, 1))));
        assert!(NonceRange::wrapping(1, 0).is_err() && NonceRange::wrapping(0, NONCES + 1).is_err());
    }

    #[test]
    fn a_split_range_is_the_range() {
        let range = NonceRange::new(u32::MAX - 9, 10).unwrap();
        let part = |first, count| NonceRange::new(u32::MAX - 9 + first, count).unwrap();
        assert_eq!(range.split(3), (part(0, 3), Some(part(3, 7))));
        assert_eq!(range.split(0), (part(0, 1), Some(part(1, 9))));
        assert_eq!(range.split(10), (range, None));
        assert_eq!(range.split(u64::MAX), (range, None));
        assert_eq!(range.batches(4).collect::<Vec<_>>(), [u32::MAX - 9, u32::MAX - 5]);
        assert_eq!(range.after_batches(4).collect::<Vec<_>>(), [u32::MAX - 1, u32::MAX]);
    }

    #[test]
    fn chunks_cover_the_range_once_and_in_order() {
        for (first, count, size) in [(0, 1, 1), (5, 100, 7), (u32::MAX - 20, 21, 8), (7, 10, 1000)] {
            let range = NonceRange::new(first, count).unwrap();
            let mut next = u64::from(first);
            for chunk in range.chunks(size) {
                assert_eq!(u64::from(chunk.first()), next);
                assert!(chunk.count() <= size);
                next += chunk.count();
            }
            assert_eq!(next, u64::from(first) + count);
        }
        assert_eq!(NonceRange::ALL.chunks(1 << 20).count(), 4096);
        assert_eq!(NonceRange::ALL.chunks(u64::MAX).collect::<Vec<_>>(), [NonceRange::ALL]);
    }
}
