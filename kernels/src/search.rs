//! The search, the same for any number of lanes.
//!
//! Nonces are processed in batches of the number of lanes. A lane is checked by its hash's last word alone, which
//! passes everything that may meet the target; what passes is checked with all 256 bits. The nonces left over at the
//! end of the range are checked one by one.

use crate::lanes::Lanes;
use crate::range::NonceRange;
use crate::sha256::{self, Midstate};
use crate::work::{Found, Work};

/// Appends to `found`, ascending, every nonce and version of the range whose hash meets the target.
///
/// Inlined, with everything it calls, into a function that has the lanes' instructions enabled.
#[inline(always)]
pub(crate) fn scan<L: Lanes>(cpu: L::Cpu, work: &Work, range: NonceRange, found: &mut Vec<Found>) {
    let found_before = found.len();
    match single(work) {
        Some(midstate) => scan_version::<L>(cpu, work, midstate, range, found),
        None => scan_versions::<L>(cpu, work, range, found),
    }
    for nonce in range.after_batches(L::COUNT) {
        judge_all_versions(work, nonce, found);
    }
    if work.versions() > 1 {
        found[found_before..].sort_unstable();
    }
}

fn single(work: &Work) -> Option<&Midstate> {
    if work.versions() == 1 { work.midstates().next() } else { None }
}

/// Scans the whole batches of a work of one version.
#[inline(always)]
fn scan_version<L: Lanes>(
    cpu: L::Cpu,
    work: &Work,
    midstate: &Midstate,
    range: NonceRange,
    found: &mut Vec<Found>,
) {
    let zeros = L::splat(cpu, work.target().zeros_of_last_word());
    let k = sha256::constants(cpu);
    for first in range.batches(L::COUNT) {
        let hash = sha256::first_hash(cpu, &k, work.tail(), midstate, sha256::nonce_words::<L>(cpu, first));
        let last = sha256::last_word(cpu, &k, &hash);
        judge(work, 0, first, last.clear_of(zeros), found);
    }
}

/// The same for several versions: the second block of each batch is expanded once for all of them.
#[inline(always)]
fn scan_versions<L: Lanes>(cpu: L::Cpu, work: &Work, range: NonceRange, found: &mut Vec<Found>) {
    let zeros = L::splat(cpu, work.target().zeros_of_last_word());
    let k = sha256::constants(cpu);
    let mut schedule = [[L::splat(cpu, 0); 16]; 3];
    for first in range.batches(L::COUNT) {
        let nonces = sha256::nonce_words::<L>(cpu, first);
        sha256::expand(cpu, &k, work.tail(), nonces, &mut schedule);
        for (version, midstate) in (0..).zip(work.midstates()) {
            let hash = sha256::first_hash_of_expanded(cpu, midstate, nonces, &schedule);
            let last = sha256::last_word(cpu, &k, &hash);
            judge(work, version, first, last.clear_of(zeros), found);
        }
    }
}

/// Checks nonce `first` + i, for each bit i of `candidates`, with the whole hash.
#[inline(always)]
pub(crate) fn judge(work: &Work, version: u8, first: u32, candidates: u32, found: &mut Vec<Found>) {
    if candidates != 0 {
        judge_candidates(work, version, first, candidates, found);
    }
}

#[cold]
#[inline(never)]
fn judge_candidates(work: &Work, version: u8, first: u32, mut candidates: u32, found: &mut Vec<Found>) {
    while candidates != 0 {
        judge_one(work, Found { nonce: first + candidates.trailing_zeros(), version }, found);
        candidates &= candidates - 1;
    }
}

/// Checks a header with its whole hash.
pub(crate) fn judge_one(work: &Work, candidate: Found, found: &mut Vec<Found>) {
    if work.target().is_met_by(&hash(work, candidate)) {
        found.push(candidate);
    }
}

/// Checks a nonce in every version with the whole hash.
#[inline(never)]
pub(crate) fn judge_all_versions(work: &Work, nonce: u32, found: &mut Vec<Found>) {
    for (version, _) in (0..).zip(work.midstates()) {
        judge_candidates(work, version, nonce, 1, found);
    }
}

/// The whole hash, in the byte order of the hash function.
fn hash(work: &Work, candidate: Found) -> [u8; 32] {
    let midstate =
        work.midstates().nth(candidate.version.into()).expect("a kernel finds versions of the work");
    let nonce = sha256::nonce_words::<u32>((), candidate.nonce);
    let words = sha256::second_hash(&sha256::first_hash((), &sha256::K, work.tail(), midstate, nonce));
    let mut bytes = [0; 32];
    for (bytes, word) in bytes.chunks_exact_mut(4).zip(words) {
        bytes.copy_from_slice(&word.to_be_bytes());
    }
    bytes
}
