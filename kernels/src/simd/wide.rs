//! What the kernels of AVX-512 have in common: a batch of nonces at a time, by code that the build script wrote.
//!
//! What lives here: the constants that the code needs, and the call. What does not: the code (`build/`), where the
//! constants lie (`page.rs`), and which code runs on which CPU (`avx512.rs`). The way of the data: work →
//! constants and counter in the page → the code, which gives a mask of the lanes for each batch of nonces and version
//! → candidates, each judged by its whole hash.

#![allow(unsafe_code)]

use std::mem::offset_of;

use super::halves::halves;
use super::page::{
    CONSTANTS, CONSTANTS_MIDDLE, CONSTANTS_SLOT, Constant, LAG, SLOT, SLOTS, Slot, VERSION_WORDS, VERSIONS,
    VERSIONS_SLOT,
};
use super::sha_page::{Part, REGISTER, REGISTERS, place};
use crate::kernel::hashes;
use crate::lanes::Lanes;
use crate::range::NonceRange;
use crate::search;
use crate::sha256::{self, END_OF_MESSAGE, HASH_BITS, HEADER_BITS, INITIAL, K, Midstate, Tail};
use crate::work::{Found, Work};

/// Masks of one call at most: a fifth of a millisecond. The first [`LAG`] iterations of each call are there to begin, and
/// give none.
const MASKS: usize = 1024;
/// Words in a slot.
const WORDS: usize = SLOT / 4;
/// Words in half a register.
const HALF_WORDS: usize = REGISTER / 4;

/// One of the build's loops: memory, constants, the first version, iterations, masks, versions.
pub(super) type Loop = unsafe extern "sysv64" fn(*mut u32, *const u32, *const u32, u64, *mut u16, u64);

/// Where code keeps its registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Registers {
    /// In the page.
    Whole,
    /// Halves, in memory of their own.
    Halves,
}

impl Registers {
    /// Nonces in a batch.
    const fn lanes(self) -> u32 {
        match self {
            Self::Whole => WORDS as u32,
            Self::Halves => HALF_WORDS as u32,
        }
    }
}

/// Loops that this CPU can run. To make one is to say so.
pub(super) struct Code {
    pub(super) one: Loop,
    pub(super) several: Loop,
    pub(super) registers: Registers,
}

/// All of [`Kernel::scan_versions`](crate::Kernel::scan_versions).
pub(super) fn scan(code: &Code, work: &Work, range: NonceRange, found: &mut Vec<Found>) -> u64 {
    const { assert!(Work::MAX_VERSIONS <= VERSIONS) };
    let found_before = found.len();
    scan_batches(code, work, range, found);
    for nonce in range.after_batches(code.registers.lanes()) {
        search::judge_all_versions(work, nonce, found);
    }
    if work.versions() > 1 {
        found[found_before..].sort_unstable();
    }
    hashes(work, range)
}

/// Scans the whole batches of the range.
fn scan_batches(code: &Code, work: &Work, range: NonceRange, found: &mut Vec<Found>) {
    let (versions, lanes) = (work.versions(), code.registers.lanes());
    let mut page = Page::new(work, lanes);
    let mut masks = [0; MASKS + LAG];
    let mut batches = range.batches(lanes);
    while let Some(first) = batches.next() {
        let count = 1 + batches.by_ref().take(MASKS / versions - 1).count();
        let masks = &mut masks[..count * versions + LAG];
        page.scan(code, first, masks);
        for (batch, masks) in (0..).zip(masks[LAG..].chunks_exact(versions)) {
            for (version, mask) in (0..).zip(masks) {
                search::judge(work, version, first.wrapping_add(batch * lanes), (*mask).into(), found);
            }
        }
    }
}

/// The code's memory.
#[repr(C, align(4096))]
struct Page {
    words: [u32; SLOTS * WORDS],
    /// What the code with the SHA instructions has instead of the slots.
    halves: [u32; REGISTERS * HALF_WORDS],
    versions: usize,
}

impl Page {
    /// With all constants of the work.
    fn new(work: &Work, lanes: u32) -> Self {
        const { assert!(CONSTANTS_SLOT * WORDS + CONSTANTS <= 4096 / 4) };
        const { assert!(offset_of!(Self, halves).is_multiple_of(REGISTER)) };
        let mut page = Self {
            words: [0; SLOTS * WORDS],
            halves: [0; REGISTERS * HALF_WORDS],
            versions: work.versions(),
        };
        page.put_round_constants();
        page.put_first_hash(work.tail());
        page.put_second_hash();
        page.put(Constant::EvenBytes, 0x00ff_00ff);
        page.put(Constant::Zeros, work.target().zeros_of_last_word());
        page.put(Constant::Batch, lanes);
        let in_a_and_e = [0, u32::MAX, 0, u32::MAX, 0, u32::MAX, 0, u32::MAX];
        page.half(Slot::InAAndE).copy_from_slice(&in_a_and_e);
        for (version, midstate) in work.midstates().enumerate() {
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
        for t in 0..=60 {
            self.put(Constant::SecondRound(t), K[t / 16][t % 16]);
        }
    }

    /// The header's second block but for the nonce: `W[t] = W[t-16] + σ0(W[t-15]) + W[t-7] + σ1(W[t-2])`.
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
        for (half, words) in halves(INITIAL).into_iter().enumerate() {
            self.put_four(Constant::InitialHalf(half), words);
        }
        let [a, b, c, _, e, f, g, _] = INITIAL;
        let mut state = INITIAL;
        sha256::round::<u32, 0>(&mut state, k(0));
        // The names have moved on by one place.
        self.put(Constant::SecondA, state[7]);
        self.put(Constant::SecondE, state[3]);
        self.put(Constant::InitialA, a);
        self.put(Constant::InitialB, b);
        self.put(Constant::InitialE, e);
        self.put(Constant::InitialF, f);
        for (t, h, d) in [(1, g, c), (2, f, b), (3, e, a)] {
            self.put(Constant::SecondH(t), h.wrapping_add(k(t)));
            self.put(Constant::SecondDH(t), h.wrapping_add(k(t)).wrapping_add(d));
        }
    }

    fn put_version(&mut self, version: usize, midstate: &Midstate) {
        let at = VERSIONS_SLOT * WORDS + version * VERSION_WORDS;
        let words = &mut self.words[at..at + VERSION_WORDS];
        let mut put = |constant: Constant, word: u32| words[constant.number()] = word;
        // As round 4 wants it: its names have moved on by four places.
        let [e, f, g, h, a, b, c, d] = midstate.before_nonce;
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
        for (half, four) in halves([a, b, c, d, e, f, g, h]).into_iter().enumerate() {
            let at = Constant::StartHalf(half).number();
            words[at..at + 4].copy_from_slice(&four);
        }
    }

    /// A slot among the halves of registers, of those that are there once.
    fn half(&mut self, slot: Slot) -> &mut [u32] {
        let (part, register) = place(slot);
        debug_assert_eq!(part, Part::Rest, "the other parts are there twice");
        &mut self.halves[register * HALF_WORDS..][..HALF_WORDS]
    }

    /// Scans the batches from nonce `first` on, as many as there are masks: one for each batch and version behind the
    /// first [`LAG`], which mean nothing and must be there. Bit i of a mask: lane i's hash may meet the target.
    fn scan(&mut self, code: &Code, first: u32, masks: &mut [u16]) {
        assert!(!masks.is_empty(), "a call scans something");
        let counter = match code.registers {
            Registers::Whole => &mut self.words[Slot::Counter.number() * WORDS..][..WORDS],
            Registers::Halves => self.half(Slot::Counter),
        };
        for (lane, word) in (0..).zip(counter) {
            *word = first.wrapping_add(lane);
        }
        let words = self.words.as_mut_ptr();
        let (iterations, versions) = (masks.len() as u64, self.versions as u64);
        // SAFETY: who made the `Code` knows that this CPU has its instructions. A loop reads and writes slots 0 to
        // SLOTS - 1 of `words`, by a pointer to slot VERSIONS_SLOT, aligned to a slot since the page is; it reads the
        // constants by a pointer into them, and `versions` times VERSION_WORDS words from slot VERSIONS_SLOT on, of which
        // there are enough for VERSIONS. It writes one mask an iteration, and there is at least one.
        unsafe {
            let middle = words.add(VERSIONS_SLOT * WORDS);
            let constants = words.add(CONSTANTS_SLOT * WORDS + CONSTANTS_MIDDLE);
            let memory = match code.registers {
                Registers::Whole => middle,
                Registers::Halves => self.halves.as_mut_ptr().add(Part::Rest.middle() * HALF_WORDS),
            };
            let scan = if versions == 1 { code.one } else { code.several };
            scan(memory, constants, middle, iterations, masks.as_mut_ptr(), versions);
        }
    }
}
