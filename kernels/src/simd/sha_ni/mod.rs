//! The kernel for the CPU's SHA-256 instructions.
//!
//! What lives here: the choice between scanning versions together or one by one, and what both ways have in common.
//! What does not: the scan of one version (`one.rs`), and of several (`several.rs`). Message words go four to a
//! register.

mod layout;
mod one;
mod several;

use super::sha_state::Four;
use crate::kernel::{Kernel, hashes};
use crate::range::NonceRange;
use crate::search;
use crate::sha256::{END_OF_MESSAGE, INITIAL, K};
use crate::work::{Found, Work};

/// From this number of versions on they are scanned together. Three would gain nothing (docs/kernels.md).
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

/// Whether any of the words has none of these bits. This is rarely true, so there is no early exit.
fn any_without(words: &[u32], bits: u32) -> bool {
    words.iter().fold(false, |any, word| any | (word & bits == 0))
}

/// The round constants, in sixteen groups of four.
fn round_constants() -> [Four; 16] {
    let (groups, _) = K.as_flattened().as_chunks();
    groups.try_into().expect("64 are sixteen times four")
}

/// The round constants for second hashes, whose last word is e of round 60 plus its initial value.
fn second_constants() -> [Four; 16] {
    let mut constants = round_constants();
    constants[15] = sum(constants[15], [INITIAL[7], 0, 0, 0]);
    constants
}

/// The padding after a message of `bits` bits: its first group and its last.
fn padding(bits: u32) -> [Four; 2] {
    [[END_OF_MESSAGE, 0, 0, 0], [0, 0, 0, bits]]
}

fn sum(a: Four, b: Four) -> Four {
    std::array::from_fn(|i| a[i].wrapping_add(b[i]))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::kernel::by_name;
    use crate::work::{HEADER_LEN, Target};

    /// The kernel chooses between the two by the CPU's features and by the number of versions.
    #[test]
    fn both_ways_find_the_same_in_any_number_of_versions() {
        let (Some(one), Some(several)) = (one::Cpu::detect(), several::Cpu::detect()) else {
            eprintln!("SKIPPED: this CPU has no SHA extensions, or no AVX");
            return;
        };
        let mut target = [0xff; 32];
        target[31] = 0x1f;
        for count in 1..=Work::MAX_VERSIONS {
            let versions: Vec<u32> = (0..count as u32).collect();
            let work = Work::with_versions(&[0x53; HEADER_LEN], &versions, Target::from_le_bytes(target));
            // Whole batches for both, and more than one call of each.
            let range = NonceRange::new(0u32.wrapping_sub(9_600), 9_600).unwrap();
            let mut expected = Vec::new();
            by_name("scalar").unwrap().scan_versions(&work, range, &mut expected);
            assert!(!expected.is_empty());
            let [mut found_one, mut found_several] = [Vec::new(), Vec::new()];
            one::scan(one, &work, range, &mut found_one);
            several::scan(several, &work, range, &mut found_several);
            for mut found in [found_one, found_several] {
                found.sort_unstable();
                // `assert_eq` would print a thousand values on failure.
                assert!(found == expected, "{count} versions");
            }
        }
    }
}
