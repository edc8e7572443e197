//! The kernel of the CPU's SHA-256 instructions.
//!
//! What lives here: which versions are scanned together, and what both ways of scanning have in common. What does not:
//! the scan of one version (`one.rs`), and of several (`several.rs`). Message words go four to a register.

mod layout;
mod one;
mod several;

use super::sha_state::Four;
use crate::kernel::{Kernel, hashes};
use crate::range::NonceRange;
use crate::search;
use crate::sha256::{INITIAL, K};
use crate::work::{Found, Work};

/// From so many versions on they are scanned together. Three would gain nothing (docs/kernels.md).
const TOGETHER: usize = 4;

#[derive(Debug)]
pub(crate) struct ShaNi;

impl Kernel for ShaNi {
    fn name(&self) -> &'static str {
        "sha-ni"
    }

    fn is_supported(&self) -> bool {
        one::Cpu::detect().is_some()
    }

    fn chunk(&self) -> u64 {
        1 << 13
    }

    fn scan_versions(&self, work: &Work, range: NonceRange, found: &mut Vec<Found>) -> u64 {
        let found_before = found.len();
        let batch = match several::Cpu::detect().filter(|_| work.versions() >= TOGETHER) {
            Some(cpu) => several::scan(cpu, work, range, found),
            None => {
                let cpu = one::Cpu::detect().expect("callers ask is_supported first, as the trait says");
                one::scan(cpu, work, range, found)
            }
        };
        for nonce in range.after_batches(batch) {
            search::judge_all_versions(work, nonce, found);
        }
        if work.versions() > 1 {
            found[found_before..].sort_unstable();
        }
        hashes(work, range)
    }
}

/// Whether any of the words has none of these bits. It nearly never has, so there is no stop at the first.
fn any_without(words: &[u32], bits: u32) -> bool {
    words.iter().fold(false, |any, word| any | (word & bits == 0))
}

/// The round constants, sixteen groups of four.
fn round_constants() -> [Four; 16] {
    let (groups, _) = K.as_flattened().as_chunks();
    groups.try_into().expect("64 are sixteen times four")
}

/// Those of second hashes: their last word is e of round 60 plus its initial value.
fn second_constants() -> [Four; 16] {
    let mut constants = round_constants();
    constants[15] = sum(constants[15], [INITIAL[7], 0, 0, 0]);
    constants
}

fn sum(a: Four, b: Four) -> Four {
    std::array::from_fn(|i| a[i].wrapping_add(b[i]))
}
