//! Several versions at once by the CPU's SHA-256 instructions, with one first message for all of them.
//!
//! What lives here: the memory of the code, and the call. What does not: the code, which the build script generates
//! (`build/sha_ni/several.rs`). The way of the data: the versions' states and the tail → memory → the code, which
//! gives the last words of the hashes, a row for each batch of nonces in one version → those with the right zeros are
//! checked with the whole hash.

#![allow(unsafe_code)]

use std::arch::naked_asm;
use std::mem::offset_of;

use super::super::sha_state::{Four, abef_cdgh};
use super::layout::{AT_ONCE, FIRST_MESSAGE, LAST_WORDS, NONCES, ROW, VERSION};
use super::{any_without, one, padding, round_constants, second_constants, sum};
use crate::range::NonceRange;
use crate::search;
use crate::sha256::{HASH_BITS, HEADER_BITS, INITIAL, Midstate, Tail};
use crate::work::{Found, Work};

/// Most batches of one version in one call: a chunk, which may be somewhat longer if the versions do not divide it.
const ITEMS: usize = 1024 + 2 * Work::MAX_VERSIONS;
/// Rows of last words before the first item's. Its second hashes begin two iterations after its first ones, in the
/// third of the iterations' own rows. One more row comes before these, since each iteration writes the ends of second
/// hashes begun in the previous iteration to the row before its own.
const BEFORE: usize = 3;
/// For the same reason the last item needs one iteration more, which has a row for the hashes that it begins.
const BEHIND: usize = 1;

/// The last words of a batch of nonces in one version.
type LastWords = [u32; NONCES];
/// Sixteen groups of four words each: message words, or what the rounds add.
type Row = [Four; 16];

/// Proof that this CPU has the SHA extensions, and AVX, whose forms of other instructions the code uses.
#[derive(Clone, Copy)]
pub(super) struct Cpu(());

impl Cpu {
    pub(super) fn detect() -> Option<Self> {
        (one::Cpu::detect().is_some() && is_x86_feature_detected!("avx")).then_some(Self(()))
    }
}

/// Scans the whole batches of the range, and returns the number of nonces in a batch.
pub(super) fn scan(_: Cpu, work: &Work, range: NonceRange, found: &mut Vec<Found>) -> u32 {
    const BATCH: u32 = NONCES as u32;
    let versions = work.versions();
    let zeros = work.target().zeros_of_last_word();
    let mut memory = Memory::new(work);
    let mut rows = [[0; NONCES]; BEFORE + ITEMS + BEHIND];
    let mut batches = range.batches(BATCH);
    while let Some(first) = batches.next() {
        let count = 1 + batches.by_ref().take(ITEMS / versions - 1).count();
        let items = count * versions;
        // SAFETY: the `Cpu` proves the instructions. The code reads and writes `memory` within its fields, which are
        // aligned as it needs them, and only as many of its versions as it is told. Each iteration writes to its own
        // row, from row 1 on, and to the one before; there are at most as many iterations as rows from 1 on.
        unsafe {
            run(&mut memory, rows.as_mut_ptr().add(1), first, (BEFORE + items) as u64, versions as u64);
        }
        let rows = &rows[BEFORE..][..items];
        if !any_without(rows.as_flattened(), zeros) {
            continue;
        }
        for (batch, rows) in (0..).zip(rows.chunks_exact(versions)) {
            let first = first.wrapping_add(batch * BATCH);
            for (version, row) in (0..).zip(rows) {
                for (i, _) in (0..).zip(row).filter(|(_, word)| **word & zeros == 0) {
                    search::judge(work, version, first.wrapping_add(i), 1, found);
                }
            }
        }
    }
    BATCH
}

/// The memory that the code reads and writes. The code refers to its offsets by name.
#[repr(C, align(64))]
struct Memory {
    /// For two batches: one is being computed, the other read. Each has room for some more that are never read.
    first_messages: [FirstMessage; NONCES + AT_ONCE],
    other_first_messages: [FirstMessage; NONCES + AT_ONCE],
    second_words: [Row; NONCES],
    /// For three items: one is being computed, two are being read.
    second_sums: [[Row; NONCES]; 3],
    first_constants: Row,
    second_constants: Row,
    /// The second hash's state before its first round.
    initial: [Four; 2],
    versions: [Version; Work::MAX_VERSIONS],
}

/// A first hash's message.
#[repr(C)]
#[derive(Clone, Copy)]
struct FirstMessage {
    words: Row,
    /// Rounds 0 to 3 use none, so what round 3 adds to the state's first register is stored in their place.
    sums: Row,
}

/// A version's first hash.
#[repr(C, align(64))]
#[derive(Clone, Copy, Default)]
struct Version {
    /// The state after round 3 with a nonce of 0, and the one before round 0.
    start: [Four; 2],
    midstate: [Four; 2],
}

impl Version {
    fn new(midstate: &Midstate) -> Self {
        Self { start: abef_cdgh(midstate.before_nonce_by_name()), midstate: abef_cdgh(midstate.midstate) }
    }
}

impl Memory {
    fn new(work: &Work) -> Self {
        const { assert!(size_of::<Row>() == ROW && size_of::<Version>() == VERSION) };
        const { assert!(size_of::<FirstMessage>() == FIRST_MESSAGE && offset_of!(FirstMessage, sums) == ROW) };
        const { assert!(size_of::<LastWords>() == LAST_WORDS) };
        let Tail([w0, w1, w2]) = *work.tail();
        let (first_constants, second_constants) = (round_constants(), second_constants());
        // The groups that are constants; the code computes the others.
        let mut first = Row::default();
        first[0] = [w0, w1, w2, 0];
        [first[1], first[3]] = padding(HEADER_BITS);
        let first = FirstMessage { words: first, sums: sums(first, &first_constants) };
        let mut second = Row::default();
        [second[2], second[3]] = padding(HASH_BITS);
        let mut versions = [Version::default(); Work::MAX_VERSIONS];
        for (version, midstate) in versions.iter_mut().zip(work.midstates()) {
            *version = Version::new(midstate);
        }
        Self {
            first_messages: [first; NONCES + AT_ONCE],
            other_first_messages: [first; NONCES + AT_ONCE],
            second_words: [second; NONCES],
            second_sums: [[sums(second, &second_constants); NONCES]; 3],
            first_constants,
            second_constants,
            initial: abef_cdgh(INITIAL),
            versions,
        }
    }
}

/// What the rounds add for these words.
fn sums(words: Row, constants: &Row) -> Row {
    std::array::from_fn(|group| sum(words[group], constants[group]))
}

/// The code. Arguments: memory, the row of the first iteration, the first nonce, iterations, versions. Rows follow each
/// other.
///
/// # Safety
/// See the one call of it.
#[unsafe(naked)]
unsafe extern "sysv64" fn run(
    _memory: *mut Memory,
    _row: *mut LastWords,
    _first: u32,
    _iterations: u64,
    _versions: u64,
) {
    naked_asm!(
        include_str!(concat!(env!("OUT_DIR"), "/sha_ni_versions.s")),
        first_messages = const offset_of!(Memory, first_messages),
        other_first_messages = const offset_of!(Memory, other_first_messages),
        second_words = const offset_of!(Memory, second_words),
        second_sums = const offset_of!(Memory, second_sums),
        first_constants = const offset_of!(Memory, first_constants),
        second_constants = const offset_of!(Memory, second_constants),
        initial = const offset_of!(Memory, initial),
        versions = const offset_of!(Memory, versions),
    )
}
