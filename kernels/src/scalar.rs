//! The kernel that every CPU can run: one nonce at a time, plain Rust.

use crate::kernel::{Kernel, hashes};
use crate::range::NonceRange;
use crate::search;
use crate::work::{Found, Work};

#[derive(Debug)]
pub(crate) struct Scalar;

impl Kernel for Scalar {
    fn name(&self) -> &'static str {
        "scalar"
    }

    fn is_supported(&self) -> bool {
        true
    }

    fn chunk(&self) -> u64 {
        1 << 10
    }

    fn scan_versions(&self, work: &Work, range: NonceRange, found: &mut Vec<Found>) -> u64 {
        search::scan::<u32>((), work, range, found);
        hashes(work, range)
    }
}
