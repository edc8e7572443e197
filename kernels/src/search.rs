//! The search itself, the same for every number of lanes.

use crate::lanes::Lanes;
use crate::range::NonceRange;
use crate::sha256;
use crate::work::Work;

/// Appends to `found`, in ascending order, every nonce of the range whose hash meets the target.
///
/// A lane is judged by the hash's top word alone, which lets through everything that may meet the target;
/// what comes through is judged by all 256 bits. What the lanes leave over at the range's end goes one by
/// one.
///
/// Inlined into a function that has the lanes' instructions switched on, as all that it calls is.
#[inline(always)]
pub(crate) fn scan<L: Lanes>(cpu: L::Cpu, work: &Work, range: NonceRange, found: &mut Vec<u32>) {
    let limit = L::splat(cpu, work.target().top_word());
    let steps = range.count() / u64::from(L::COUNT);
    let mut nonce = range.first();
    for _ in 0..steps {
        let candidates = top_words::<L>(cpu, work, nonce).at_most(limit);
        if candidates != 0 {
            judge(work, nonce, candidates, found);
        }
        // Wraps only past the last nonce of all, and then nothing is left to do.
        nonce = nonce.wrapping_add(L::COUNT);
    }
    let left = u32::try_from(range.count() % u64::from(L::COUNT)).expect("less than the number of lanes");
    for i in 0..left {
        judge(work, nonce + i, 1, found);
    }
}

/// The most significant words of the hashes for `first`, `first + 1`, …
#[inline(always)]
fn top_words<L: Lanes>(cpu: L::Cpu, work: &Work, first: u32) -> L {
    let hash = sha256::first_hash(cpu, work.state(), L::count_up(cpu, first));
    let [.., top] = sha256::second_hash(cpu, &hash);
    // SHA-256 gives its words big-endian; as a number, a hash is read little-endian.
    top.swap_bytes()
}

/// Judges `first` + i, for each bit i of `candidates`, by the whole hash.
#[cold]
#[inline(never)]
fn judge(work: &Work, first: u32, mut candidates: u32, found: &mut Vec<u32>) {
    while candidates != 0 {
        let nonce = first + candidates.trailing_zeros();
        if work.target().is_met_by(&hash(work, nonce)) {
            found.push(nonce);
        }
        candidates &= candidates - 1;
    }
}

/// The whole hash, in the byte order of the hash function.
fn hash(work: &Work, nonce: u32) -> [u8; 32] {
    let words = sha256::second_hash::<u32>((), &sha256::first_hash((), work.state(), nonce));
    let mut bytes = [0; 32];
    for (bytes, word) in bytes.chunks_exact_mut(4).zip(words) {
        bytes.copy_from_slice(&word.to_be_bytes());
    }
    bytes
}
