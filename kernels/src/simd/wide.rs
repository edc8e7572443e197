//! What the AVX-512 kernels have in common: scanning a batch of nonces at a time, with generated code.
//!
//! What lives here: the constants that the code needs, and the call. What does not: the code (`build/`), where the
//! constants are (`page.rs`), and which code runs on which CPU (`avx512.rs`). The way of the data: work → constants and
//! counter in the page → the code, which gives a mask of the lanes for each batch of nonces and version → candidates,
//! each checked with its whole hash.

#![allow(unsafe_code)]

use std::mem::offset_of;

use super::page::{
    CONSTANTS, CONSTANTS_MIDDLE, CONSTANTS_SLOT, Constant, SLOT, SLOTS, Slot, VERSION_WORDS, VERSIONS,
    VERSIONS_SLOT,
};
use super::sha_page::{self, Part, REGISTER, REGISTERS, VECTOR_SUMS, place};
use super::sha_state::abef_cdgh;
use crate::kernel::hashes;
use crate::lanes::Lanes;
use crate::range::NonceRange;
use crate::search;
use crate::sha256::{self, END_OF_MESSAGE, HASH_BITS, HEADER_BITS, INITIAL, K, Midstate, Tail};
use crate::work::{Found, Work};

/// Most batches of nonces in one version in one call: a chunk in batches of eight, which may be somewhat longer if the
/// versions do not divide it.
const ITEMS_IN_A_CALL: usize = 2048 + 2 * Work::MAX_VERSIONS;
/// Most masks of one call.
const MASKS: usize = ITEMS_IN_A_CALL + 64;
/// Words in a slot.
const WORDS: usize = SLOT / 4;

/// One of the generated loops. Arguments: memory, constants, the first version, repetitions, masks, versions.
pub(super) type Run = unsafe extern "sysv64" fn(*mut u32, *const u32, *const u32, u64, *mut u16, u64);

/// A loop, and what it does in one repetition. Items are batches of nonces in one version; those of a batch follow each
/// other.
#[derive(Clone, Copy)]
pub(super) struct Loop {
    pub(super) run: Run,
    /// Items whose masks follow each other, and how many meaningless masks come before the first item's.
    pub(super) items: usize,
    pub(super) lag: usize,
    /// Additional items, with nonces of their own, whose masks come after all of those, and their lag.
    pub(super) vector_items: usize,
    pub(super) vector_lag: usize,
}

impl Loop {
    /// A loop with one item in a repetition, and no vector items.
    pub(super) const fn of_one_kind(run: Run, lag: usize) -> Self {
        Self { run, items: 1, lag, vector_items: 0, vector_lag: 0 }
    }
}

/// How a call's batches of nonces are divided.
struct Shares {
    batches: usize,
    /// The last batches.
    vector_batches: usize,
    repetitions: usize,
}

impl Shares {
    fn new(batches: usize, versions: usize, code: &Loop) -> Self {
        let vector_batches = batches * code.vector_items / (code.items + code.vector_items);
        let batches = batches - vector_batches;
        let repetitions = (batches * versions + code.lag).div_ceil(code.items);
        let of_vectors = (vector_batches * versions + code.vector_lag).checked_div(code.vector_items);
        Self { batches, vector_batches, repetitions: repetitions.max(of_vectors.unwrap_or(0)) }
    }
}

/// Where the code keeps what does not fit into registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Memory {
    /// In the page: sixteen nonces at a time.
    Page,
    /// In its own memory (`sha_page.rs`): eight at a time.
    Sha,
}

impl Memory {
    /// Nonces in a batch.
    const fn lanes(self) -> u32 {
        match self {
            Self::Page => WORDS as u32,
            Self::Sha => sha_page::LANES as u32,
        }
    }
}

/// Loops that this CPU can run.
pub(super) struct Code {
    one: Loop,
    several: Loop,
    memory: Memory,
    /// The least number of versions for which scanning them together is faster than one by one.
    together: usize,
}

impl Code {
    /// # Safety
    /// The CPU must have all instructions of both loops, and the loops must be written for this memory. In each
    /// repetition they must write as many masks as they are said to have items, with those of vector items after the
    /// others of all repetitions.
    pub(super) const unsafe fn new(one: Loop, several: Loop, memory: Memory, together: usize) -> Self {
        Self { one, several, memory, together }
    }
}

/// Implements [`Kernel::scan_versions`](crate::Kernel::scan_versions).
pub(super) fn scan(code: &Code, work: &Work, range: NonceRange, found: &mut Vec<Found>) -> u64 {
    const { assert!(Work::MAX_VERSIONS <= VERSIONS) };
    let found_before = found.len();
    scan_batches(code, work, range, found);
    for nonce in range.after_batches(code.memory.lanes()) {
        search::judge_all_versions(work, nonce, found);
    }
    if work.versions() > 1 {
        found[found_before..].sort_unstable();
    }
    hashes(work, range)
}

/// Scans the whole batches of the range.
fn scan_batches(code: &Code, work: &Work, range: NonceRange, found: &mut Vec<Found>) {
    let midstates: Vec<&Midstate> = work.midstates().collect();
    let at_once = if midstates.len() < code.together { 1 } else { midstates.len() };
    for (first_version, midstates) in (0..).step_by(at_once).zip(midstates.chunks(at_once)) {
        let mut page = Page::new(work, midstates, code.memory.lanes());
        let mut batches = range.batches(code.memory.lanes());
        while let Some(first) = batches.next() {
            let count = 1 + batches.by_ref().take(ITEMS_IN_A_CALL / at_once - 1).count();
            page.scan(code, first, count, |nonce, version, mask| {
                search::judge(work, first_version + version, nonce, mask.into(), found);
            });
        }
    }
}

/// The code's memory.
#[repr(C, align(4096))]
struct Page {
    words: [u32; SLOTS * WORDS],
    /// Used by the code with the SHA instructions instead of the slots.
    sha: [u32; REGISTERS * sha_page::LANES],
    versions: usize,
}

impl Page {
    /// Fills in all constants of the work.
    fn new(work: &Work, midstates: &[&Midstate], lanes: u32) -> Self {
        const { assert!(CONSTANTS_SLOT * WORDS + CONSTANTS <= 4096 / 4) };
        const { assert!(offset_of!(Self, sha).is_multiple_of(REGISTER)) };
        const { assert!(Constant::SecondFour(0).number().is_multiple_of(4), "code wants it aligned") };
        let mut page = Self {
            words: [0; SLOTS * WORDS],
            sha: [0; REGISTERS * sha_page::LANES],
            versions: midstates.len(),
        };
        page.put_round_constants();
        page.put_first_hash(work.tail());
        page.put_second_hash();
        page.put(Constant::EvenBytes, 0x00ff_00ff);
        page.put(Constant::Zeros, work.target().zeros_of_last_word());
        page.put(Constant::Batch, lanes);
        page.put_messages(work.tail());
        for (version, midstate) in midstates.iter().enumerate() {
            page.put_version(version, midstate);
        }
        page
    }

    fn put_four(&mut self, constant: Constant, words: [u32; 4]) {
        let at = CONSTANTS_SLOT * WORDS + constant.number();
        self.words[at..at + 4].copy_from_slice(&words);
    }

    fn put(&mut self, constant: Constant, word: u32) {
        self.words[CONSTANTS_SLOT * WORDS + constant.number()] = word;
    }

    fn put_round_constants(&mut self) {
        for t in 4..64 {
            self.put(Constant::FirstRound(t), K[t / 16][t % 16]);
        }
        for t in 1..=60 {
            self.put(Constant::SecondRound(t), K[t / 16][t % 16]);
        }
    }

    /// The header's second block without the nonce: `W[t] = W[t-16] + σ0(W[t-15]) + W[t-7] + σ1(W[t-2])`.
    fn put_first_hash(&mut self, tail: &Tail) {
        let k = |t: usize| K[t / 16][t % 16];
        let s0 = <u32 as Lanes>::small_sigma0;
        let [w16, w17, w18, w19] = tail.expanded();
        self.put(Constant::FirstRound(4), k(4).wrapping_add(END_OF_MESSAGE));
        self.put(Constant::FirstRound(15), k(15).wrapping_add(HEADER_BITS));
        self.put(Constant::FirstRound(16), k(16).wrapping_add(w16));
        self.put(Constant::FirstRound(17), k(17).wrapping_add(w17));
        for (t, word) in [
            (18, w18),
            (19, w19),
            (20, END_OF_MESSAGE),
            (22, HEADER_BITS),
            (23, w16),
            (24, w17),
            (30, s0(HEADER_BITS)),
            (31, HEADER_BITS.wrapping_add(s0(w16))),
            (32, w16.wrapping_add(s0(w17))),
            (33, w17),
        ] {
            self.put(Constant::FirstWord(t), word);
        }
    }

    /// The padding of the second hash's block, and its first rounds, which start from a known state.
    fn put_second_hash(&mut self) {
        let k = |t: usize| K[t / 16][t % 16];
        let (s0, s1) = (<u32 as Lanes>::small_sigma0, <u32 as Lanes>::small_sigma1);
        self.put(Constant::SecondRound(8), k(8).wrapping_add(END_OF_MESSAGE));
        self.put(Constant::SecondRound(15), k(15).wrapping_add(HASH_BITS));
        // The last word is e of round 60 plus its initial value.
        self.put(Constant::SecondRound(60), k(60).wrapping_add(INITIAL[7]));
        for (t, word) in [
            (17, s1(HASH_BITS)),
            (22, HASH_BITS),
            (23, s0(END_OF_MESSAGE)),
            (24, END_OF_MESSAGE),
            (30, s0(HASH_BITS)),
            (31, HASH_BITS),
        ] {
            self.put(Constant::SecondWord(t), word);
        }
        let [a, b, c, _, e, f, g, _] = INITIAL;
        let mut state = INITIAL;
        sha256::round::<u32, 0>(&mut state, k(0));
        // The names have shifted by one place.
        state.rotate_right(1);
        for (i, words) in abef_cdgh(state).into_iter().enumerate() {
            self.put_four(Constant::SecondFour(i), words);
        }
        for (i, word) in INITIAL.into_iter().enumerate() {
            self.put(Constant::Initial(i), word);
        }
        for (t, h, d) in [(1, g, c), (2, f, b), (3, e, a)] {
            self.put(Constant::SecondH(t), h.wrapping_add(k(t)));
            self.put(Constant::SecondDH(t), h.wrapping_add(k(t)).wrapping_add(d));
        }
    }

    fn put_version(&mut self, version: usize, midstate: &Midstate) {
        let at = VERSIONS_SLOT * WORDS + version * VERSION_WORDS;
        let words = &mut self.words[at..at + VERSION_WORDS];
        let mut put = |constant: Constant, word: u32| words[constant.number()] = word;
        let state = midstate.before_nonce_by_name();
        let [a, b, c, d, e, f, g, h] = state;
        for (constant, word) in [
            (Constant::A, a),
            (Constant::B, b),
            (Constant::C, c),
            (Constant::E, e),
            (Constant::F, f),
            (Constant::G, g),
        ] {
            put(constant, word);
        }
        let end = |t| if t == 4 { END_OF_MESSAGE } else { 0 };
        for (t, h, d) in [(4, h, d), (5, g, c), (6, f, b)] {
            let h = h.wrapping_add(K[0][t]).wrapping_add(end(t));
            put(Constant::FirstH(t), h);
            put(Constant::FirstDH(t), h.wrapping_add(d));
        }
        for (i, word) in midstate.midstate.into_iter().enumerate() {
            put(Constant::Midstate(i), word);
        }
        let start = (Part::Starts.first(0) + version) * sha_page::LANES;
        self.sha[start..start + sha_page::LANES].copy_from_slice(abef_cdgh(state).as_flattened());
    }

    /// A register of the SHA instructions' memory, from the part with a single copy.
    fn sha_register(&mut self, slot: Slot) -> &mut [u32] {
        let (part, register) = place(slot);
        assert_eq!(part, Part::Rest, "the slot is in that part");
        &mut self.sha[register * sha_page::LANES..][..sha_page::LANES]
    }

    /// Sets all lanes of a register of the SHA instructions' memory.
    fn put_in_lanes(&mut self, register: usize, word: u32) {
        self.sha[register * sha_page::LANES..][..sha_page::LANES].fill(word);
    }

    /// The constant parts of messages whose words are all computed by the same code: the first hashes' except for word
    /// 3, and the padding of the vector hashes' second hashes.
    fn put_messages(&mut self, tail: &Tail) {
        let [w16, w17, ..] = tail.expanded();
        for first in [Part::Words, Part::VectorFirst].map(|part| part.first(0)) {
            self.put_in_lanes(first + 2, tail.last());
            self.put_in_lanes(first + 4, END_OF_MESSAGE);
            self.put_in_lanes(first + 15, HEADER_BITS);
            self.put_in_lanes(first + 16, w16);
            self.put_in_lanes(first + 17, w17);
        }
        for t in 4..18 {
            let sum = self.words[CONSTANTS_SLOT * WORDS + Constant::FirstRound(t).number()];
            self.put_in_lanes(Part::VectorFirst.first(0) + VECTOR_SUMS + t, sum);
        }
        for first in [0, 1].map(|copy| Part::VectorSecond.first(copy)) {
            for (t, word) in (8..).zip([END_OF_MESSAGE, 0, 0, 0, 0, 0, 0, HASH_BITS]) {
                self.put_in_lanes(first + t, word);
                self.put_in_lanes(first + VECTOR_SUMS + t, K[0][t].wrapping_add(word));
            }
        }
    }

    /// Scans `batches` batches from nonce `first` on. Passes to `give`, for each batch and version, the mask of its
    /// lanes: bit i tells whether lane i's hash may meet the target.
    fn scan(&mut self, code: &Code, first: u32, batches: usize, mut give: impl FnMut(u32, u8, u16)) {
        let lanes = code.memory.lanes();
        let repeated = if self.versions == 1 { &code.one } else { &code.several };
        let shares = Shares::new(batches, self.versions, repeated);
        let nonce_of = |batch: usize| first.wrapping_add(batch as u32 * lanes);
        self.put_counter(code, Slot::Counter, nonce_of(0));
        if repeated.vector_items > 0 {
            self.put_counter(code, Slot::VectorCounter, nonce_of(shares.batches));
        }
        let mut masks = [0; MASKS];
        let masks = &mut masks[..shares.repetitions * (repeated.items + repeated.vector_items)];
        self.run(code, repeated, shares.repetitions, masks);
        let (masks, of_vectors) = masks.split_at(shares.repetitions * repeated.items);
        let masks = &masks[repeated.lag..][..shares.batches * self.versions];
        let of_vectors = &of_vectors[repeated.vector_lag..][..shares.vector_batches * self.versions];
        // This is nearly always so, and much faster to check than one mask after another.
        if [masks, of_vectors].iter().all(|masks| masks.iter().fold(0, |any, mask| any | mask) == 0) {
            return;
        }
        let [masks, of_vectors] = [masks, of_vectors].map(|masks| masks.chunks_exact(self.versions));
        for (batch, masks) in masks.chain(of_vectors).enumerate() {
            (0..).zip(masks).for_each(|(version, mask)| give(nonce_of(batch), version, *mask));
        }
    }

    fn put_counter(&mut self, code: &Code, slot: Slot, first: u32) {
        let counter = match code.memory {
            Memory::Page => &mut self.words[slot.number() * WORDS..][..WORDS],
            Memory::Sha => self.sha_register(slot),
        };
        for (lane, word) in (0..).zip(counter) {
            *word = first.wrapping_add(lane);
        }
    }

    fn run(&mut self, code: &Code, repeated: &Loop, repetitions: usize, masks: &mut [u16]) {
        assert!(repetitions > 0 && masks.len() == repetitions * (repeated.items + repeated.vector_items));
        let words = self.words.as_mut_ptr();
        // SAFETY: the caller of `Code::new` ensured that this CPU has its instructions. A loop reads and writes its
        // registers' memory, by a pointer to slot VERSIONS_SLOT of `words`, of which it uses slots 0 to SLOTS - 1, or
        // to the middle of the first part of `sha`, of which it uses all parts; both are aligned to a register. It
        // reads the constants by a pointer into them, and `versions` times VERSION_WORDS words from slot VERSIONS_SLOT
        // on, of which there are enough for VERSIONS. It writes as many masks as were counted above, and repeats at
        // least once.
        unsafe {
            let middle = words.add(VERSIONS_SLOT * WORDS);
            let constants = words.add(CONSTANTS_SLOT * WORDS + CONSTANTS_MIDDLE);
            let memory = match code.memory {
                Memory::Page => middle,
                Memory::Sha => self.sha.as_mut_ptr().add(Part::Rest.middle(0) * sha_page::LANES),
            };
            let (repetitions, versions) = (repetitions as u64, self.versions as u64);
            (repeated.run)(memory, constants, middle, repetitions, masks.as_mut_ptr(), versions);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeSet;

    use sha2::{Digest, Sha256};

    use super::super::{AVX512, SHA_AVX512};
    use super::*;
    use crate::work::{HEADER_LEN, Target};

    /// Lanes that pass the mask are hashed again, so a mask that passes too many costs only speed, and no other test
    /// would notice it.
    #[test]
    fn a_mask_has_the_lanes_whose_last_word_may_meet_the_target_and_no_others() {
        let mut target = [0xff; 32];
        target[31] = 0x1f;
        target[30] = 0x7f;
        let target = Target::from_le_bytes(target);
        for code in [&AVX512, &SHA_AVX512].into_iter().filter_map(|kernel| (kernel.code)()) {
            for versions in [1, 2, 4, 5, 8, 16] {
                let numbers: Vec<u32> = (0..versions).map(|i| 0x2000_0000 + (i << 13)).collect();
                let work = Work::with_versions(&[0x21; HEADER_LEN], &numbers, target);
                let midstates: Vec<&Midstate> = work.midstates().collect();
                let mut page = Page::new(&work, &midstates, code.memory.lanes());
                let first = 0xffff_ff70;
                let (mut seen, mut given) = (0, BTreeSet::new());
                page.scan(&code, first, 20, |nonce, version, mask| {
                    let passes = |lane: u32| {
                        let nonce = nonce.wrapping_add(lane);
                        let hash = Sha256::digest(Sha256::digest(work.header_of(Found { nonce, version })));
                        let last = u32::from_be_bytes(*hash.last_chunk().unwrap());
                        u16::from(last & target.zeros_of_last_word() == 0) << lane
                    };
                    let expected: u16 = (0..code.memory.lanes()).map(passes).sum();
                    assert_eq!(mask, expected, "{:?}, version {version} of {versions}", code.memory);
                    seen += mask.count_ones();
                    given.insert((nonce.wrapping_sub(first), version));
                });
                let batches = (0..20).map(|batch| batch * code.memory.lanes());
                let all = batches.flat_map(|nonce| (0..versions).map(move |version| (nonce, version as u8)));
                assert!(all.eq(given), "each batch and version once");
                assert!(seen > 0, "some pass");
            }
        }
    }
}
