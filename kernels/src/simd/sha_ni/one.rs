//! One version after another, by the CPU's SHA-256 instructions.
//!
//! What lives here: the constants that the code needs, where they are in memory, and the call. What does not: the code,
//! which the build script generates (`build/sha_ni/one.rs`). The way of the data: a version's states and the tail →
//! memory → the code, which gives the last word of each nonce's hash → those with the right zeros are checked with the
//! whole hash.

#![allow(unsafe_code)]

use std::arch::naked_asm;
use std::mem::offset_of;

use super::super::sha_state::{Four, abef_cdgh};
use super::{any_without, padding, round_constants, second_constants, sum};
use crate::lanes::Lanes;
use crate::range::NonceRange;
use crate::search;
use crate::sha256::{END_OF_MESSAGE, HASH_BITS, HEADER_BITS, INITIAL, Midstate, Tail};
use crate::work::{Found, Work};

/// Nonces in an iteration of the code.
const NONCES: u32 = 2;
/// Most iterations in one call, the first of which repeats the one before: half a chunk.
const ITERATIONS: usize = 2049;

/// Proof that this CPU has the SHA extensions, and SSSE3, which the code also uses.
#[derive(Clone, Copy)]
pub(super) struct Cpu(());

impl Cpu {
    pub(super) fn detect() -> Option<Self> {
        (is_x86_feature_detected!("sha") && is_x86_feature_detected!("ssse3")).then_some(Self(()))
    }
}

/// Scans the whole batches of the range, and returns the number of nonces in a batch.
pub(super) fn scan(cpu: Cpu, work: &Work, range: NonceRange, found: &mut Vec<Found>) -> u32 {
    let mut memory = Memory::new(work.tail());
    for (version, midstate) in (0..).zip(work.midstates()) {
        memory.set_version(midstate);
        scan_pairs(cpu, &mut memory, work, version, range, found);
    }
    NONCES
}

/// Scans one version's pairs of nonces.
fn scan_pairs(
    _: Cpu,
    memory: &mut Memory,
    work: &Work,
    version: u8,
    range: NonceRange,
    found: &mut Vec<Found>,
) {
    let zeros = work.target().zeros_of_last_word();
    let mut words = [[0; NONCES as usize]; ITERATIONS];
    let mut pairs = range.batches(NONCES);
    while let Some(first) = pairs.next() {
        let count = 1 + pairs.by_ref().take(ITERATIONS - 2).count();
        let words = &mut words[..=count];
        // SAFETY: the `Cpu` proves the instructions. The code reads and writes `memory` within its fields, which are
        // aligned as it needs them, and writes one pair of words an iteration.
        unsafe { run(memory, words.as_mut_ptr(), first, words.len() as u64) };
        // Each iteration ends the hashes that the previous one began.
        let last_words = words[1..].as_flattened();
        if any_without(last_words, zeros) {
            for (i, _) in (0..).zip(last_words).filter(|(_, word)| **word & zeros == 0) {
                search::judge(work, version, first.wrapping_add(i), 1, found);
            }
        }
    }
}

/// The memory that the code reads and writes. The code refers to its offsets by name.
#[repr(C, align(64))]
struct Memory {
    /// Message words of the first and second hashes in progress: for each nonce four groups of four, used in turn.
    first_words: [[Four; 4]; NONCES as usize],
    second_words: [[Four; 4]; NONCES as usize],
    /// The first hashes.
    hashes: [[Four; 2]; NONCES as usize],
    /// Round constants, plus those message words that are constants: sixteen groups of four.
    first_rounds: [Four; 16],
    second_rounds: [Four; 16],
    /// The second hash's message words 8 to 15.
    padding: [Four; 2],
    /// The second hash's state before its first round.
    initial: [Four; 2],
    /// The first hash's state after round 3 with a nonce of 0, and the one before round 0.
    start: [Four; 2],
    midstate: [Four; 2],
    /// The first hash's message words 16 to 19, without what the nonce adds.
    words_16: Four,
    /// What words before 20 contribute to words 20 to 23 and 28 to 31.
    into_20: Four,
    into_28: Four,
}

impl Memory {
    /// Fills in the header of a work; the version must still be set.
    fn new(tail: &Tail) -> Self {
        let s0 = <u32 as Lanes>::small_sigma0;
        let words_16 = tail.expanded();
        let w16 = words_16[0];
        let mut first_rounds = round_constants();
        let [after_nonce, last] = padding(HEADER_BITS);
        first_rounds[1] = sum(first_rounds[1], after_nonce);
        first_rounds[3] = sum(first_rounds[3], last);
        let mut second_rounds = second_constants();
        let [after_hash, last] = padding(HASH_BITS);
        second_rounds[2] = sum(second_rounds[2], after_hash);
        second_rounds[3] = sum(second_rounds[3], last);
        Self {
            first_words: Default::default(),
            second_words: Default::default(),
            hashes: Default::default(),
            first_rounds,
            second_rounds,
            padding: padding(HASH_BITS),
            initial: abef_cdgh(INITIAL),
            start: Default::default(),
            midstate: Default::default(),
            words_16,
            into_20: [END_OF_MESSAGE, 0, HEADER_BITS, w16],
            into_28: [0, 0, s0(HEADER_BITS), HEADER_BITS.wrapping_add(s0(w16))],
        }
    }

    fn set_version(&mut self, midstate: &Midstate) {
        self.start = abef_cdgh(midstate.before_nonce_by_name());
        self.midstate = abef_cdgh(midstate.midstate);
    }
}

/// The code. Arguments: memory, a pair of last words for each iteration, the first nonce, iterations. The last words
/// of an iteration are those of the previous iteration's nonces.
///
/// # Safety
/// See the one call of it.
#[unsafe(naked)]
unsafe extern "sysv64" fn run(
    _memory: *mut Memory,
    _last_words: *mut [u32; NONCES as usize],
    _first: u32,
    _iterations: u64,
) {
    naked_asm!(
        include_str!(concat!(env!("OUT_DIR"), "/sha_ni_one.s")),
        first_words = const offset_of!(Memory, first_words),
        second_words = const offset_of!(Memory, second_words),
        hashes = const offset_of!(Memory, hashes),
        first_rounds = const offset_of!(Memory, first_rounds),
        second_rounds = const offset_of!(Memory, second_rounds),
        padding = const offset_of!(Memory, padding),
        initial = const offset_of!(Memory, initial),
        start = const offset_of!(Memory, start),
        midstate = const offset_of!(Memory, midstate),
        words_16 = const offset_of!(Memory, words_16),
        into_20 = const offset_of!(Memory, into_20),
        into_28 = const offset_of!(Memory, into_28),
    )
}
