//! Criterion benches of the toolkit, what they measure with, and the baselines that they are held against.
//!
//! What lives here: synthetic chains ([`synth`]), the baselines (below) and, in `benches/`, one file per thing that
//! is measured. What does not: the code under measurement and its tests, which live in their own crates.
//! Run one with `cargo bench -p iop-benches --bench scan`; criterion keeps the last figures to compare with.

pub mod synth;

use iop_kernels::{NonceRange, Work, verify};

/// What a nonce search costs without a kernel: whole headers through the `sha2` crate, which uses the CPU's
/// SHA instructions where there are any. Returns the nonces found.
#[must_use]
pub fn scan_with_sha2(work: &Work, range: NonceRange) -> Vec<u32> {
    let target = work.target();
    let meets = |nonce: &u32| target.is_met_by(&verify(&work.header_with(*nonce)));
    (range.first()..=range.last()).filter(meets).collect()
}
