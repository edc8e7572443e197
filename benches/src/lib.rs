//! Criterion benches of the toolkit, their inputs, and the baselines that they are compared with.
//!
//! Lives here: synthetic chains ([`synth`]), the baselines (below) and, in `benches/`, one file per measured thing.
//! Does not live here: the measured code and its tests, which are in their own crates.
//! Run one with `cargo bench -p iop-benches --bench scan`; criterion keeps the last figures to compare with.

pub mod synth;

use iop_kernels::{NonceRange, Work, verify};

/// The baseline of a nonce search, without a kernel: hashes whole headers with the `sha2` crate, which uses the CPU's
/// SHA instructions if there are any. Returns the nonces found.
#[must_use]
pub fn scan_with_sha2(work: &Work, range: NonceRange) -> Vec<u32> {
    let target = work.target();
    let meets = |nonce: &u32| target.is_met_by(&verify(&work.header_with(*nonce)));
    (range.first()..=range.last()).filter(meets).collect()
}
